"""The store made of a backup: whole, compared with what was copied, and its newest values online again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lodestore.adapters.lance import LanceStore
from lodestore.errors import LodestoreError, RefusedError, StoreError
from lodestore.manifest import Backup, check_same, is_within, opened, read_backup, renewed
from lodestore.online import SERVER_NOTE
from lodestore.publishing import publish
from lodestore.tables import LOGS, RESTORING
from lodestore.wire import rfc3339

if TYPE_CHECKING:
    from lodestore.ports import Progress
    from lodestore.project import Project

__all__ = ["Restored", "restore"]

# What a store has that nobody put anything into.
_PASSING = frozenset({"store", "heartbeats", "views", "watermarks", "checks", "alerts", "audit"})


@dataclass(frozen=True, slots=True)
class Restored:
    """The backup that the store was made of, how many values are online again, and what went wrong with those."""

    backup: Backup
    online: int = 0
    troubles: Sequence[str] = field(default=())


def restore(project: Project, place: str, *, progress: Progress | None = None) -> Restored:
    """The project's store, which is new or empty, is what the backup holds, and the newest values are online again.

    Until everything is there nobody can open the store, and nothing is drained into it; a restore that did not end is
    begun anew by the next one. Online rows that are there stay where they are newer than those of the backup.
    """
    settings = project.settings
    source = read_backup(place, storage=settings.store.storage)
    store = LanceStore(settings.store_uri, storage=settings.store.storage)
    with project.locks.hold("drain", "restoring"), project.locks.writer("restoring"):
        _check_free(store, source)
        with _closed(store, source):
            held = opened(source.uri, settings.store.storage)
            for done, (name, wanted) in enumerate(source.tables.items()):
                if progress is not None:
                    progress(done, len(source.tables))
                held.copy(name, store, revision=held.revision(name))
                check_same(store, name, wanted)
    renewed(project.logs)
    key = f"restore/{rfc3339(project.clock())}"
    project.logs.put("audit", {"id": key, "act": "restore", "subject": source.uri, "detail": source.store})
    return _published(project, source)


def _check_free(store: LanceStore, source: Backup) -> None:
    if is_within(store.uri, source.uri) or is_within(source.uri, store.uri):
        message = f"the backup {source.uri} and the store {store.uri} lie one in the other; name another [store] uri"
        raise RefusedError(message)
    names = store.names()
    if RESTORING in names:
        return
    full = next((name for name in names if name not in _PASSING and store.count(name)), None)
    if full is not None:
        message = (
            f"the store {store.uri} is not empty: {full} has {store.count(full):,} rows; move it away, "
            "or name another [store] uri"
        )
        raise RefusedError(message)


@contextmanager
def _closed(store: LanceStore, source: Backup) -> Iterator[None]:
    """Nobody can open the store meanwhile, nor after a crash; what an earlier restore or a first look left is gone."""
    store.ensure(RESTORING, LOGS["store"].schema)
    for name in store.names():
        if name != RESTORING:
            store.drop(name)
    yield
    other = source.tables.keys() ^ (set(store.names()) - {RESTORING})
    if other:
        message = (
            f"the store {store.uri} was changed while it was restored ({', '.join(sorted(other))}); stop whatever "
            "writes to it, and run the restore again"
        )
        raise StoreError(message)
    for name, wanted in source.tables.items():
        check_same(store, name, wanted)
    store.drop(RESTORING)


def _published(project: Project, source: Backup) -> Restored:
    """The newest values are online. What fails there is told: the store itself is whole, and a job mends it."""
    try:
        # Another state of the store was noted for workers that start.
        project.online.set_meta(SERVER_NOTE, b"")
        done = publish(project)
    except LodestoreError as error:
        return Restored(source, troubles=(str(error),))
    written = [one.written for one in done.views] + [one.written for one in done.vectors]
    return Restored(source, sum(written))
