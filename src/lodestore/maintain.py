"""The nightly upkeep of the store: what left long ago is gone, tables are compact, indexes find what is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from lodestore import retention
from lodestore.errors import StoreBusyError, StoreError
from lodestore.heartbeats import sweep
from lodestore.indexes import IndexReading, settled
from lodestore.tables import retired
from lodestore.wire import rfc3339

if TYPE_CHECKING:
    from lodestore.models import EmbeddingVersion
    from lodestore.project import Project

__all__ = ["NAME", "Maintained", "maintain"]

NAME = "maintain"
"""Under which name it leaves its heartbeat."""


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done. Tables that somebody was writing for longer than the lock waits are `skipped` until next time."""

    before: datetime
    forgotten: Mapping[str, int] = field(default_factory=dict)
    compacted: tuple[str, ...] = ()
    indexes: tuple[IndexReading, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def rebuilt(self) -> tuple[str, ...]:
        """The versions whose index was made anew."""
        return tuple(one.key for one in self.indexes if one.rebuilt)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        worst = {one.key: one.worst for one in self.indexes}
        told = {"before": rfc3339(self.before), "forgotten": dict(self.forgotten), "compacted": len(self.compacted)}
        return {**told, "recall": worst, "rebuilt": list(self.rebuilt), "skipped": list(self.skipped)}


def maintain(project: Project, *, keep_files: timedelta | None = None) -> Maintained:
    """Everything that a store needs once a night; run again at any time, it does only what is left.

    `keep_files` is how long files of an older state of a table stay for readers that have it open, by
    default `[retention] file_hours`. One table that fails stops no other one; its error is raised at the end.
    """
    options = project.settings.retention
    before = project.clock() - timedelta(days=options.days)
    keep = timedelta(hours=options.file_hours) if keep_files is None else keep_files
    with project.pipeline.writing("forgetting what left long ago"):
        forgotten = retention.forget(project.tables, project.logs, before=before)
        sweep(project.logs, before=before)
    work = _Work(project)
    for name in project.tables.names():
        work.on(name, partial(project.tables.compact, name, keep=keep))
    compacted = tuple(work.done)
    readings = _indexes(project, work)
    project.logs.put("heartbeats", {"name": NAME, "detail": f"{sum(forgotten.values())} rows, {len(compacted)} tables"})
    if work.errors:
        more = f"; and {len(work.errors) - 1} more tables" if len(work.errors) > 1 else ""
        message = f"{work.errors[0]}{more}; the rest was maintained"
        raise StoreError(message) from work.errors[0]
    return Maintained(before, forgotten, compacted, tuple(readings), tuple(dict.fromkeys(work.skipped)))


class _Work:
    """Acts on tables, each under the lock that its writers hold."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.done: list[str] = []
        self.skipped: list[str] = []
        self.errors: list[StoreError] = []

    def on(self, table: str, act: Callable[[], object]) -> None:
        """The act was done; or the table is skipped because it is busy; or its error is kept."""
        try:
            with self._locked(table):
                act()
            self.done.append(table)
        except StoreBusyError:
            self.skipped.append(table)
        except StoreError as error:
            self.errors.append(error)

    def _locked(self, table: str) -> AbstractContextManager[None]:
        act = f"maintaining {table}"
        vectors = table.startswith("emb__")
        locks = self._project.locks
        return locks.hold(table.removesuffix(retired("")), act) if vectors else locks.writer(act)


def _indexes(project: Project, work: _Work) -> list[IndexReading]:
    """The index of each version that is kept up to date, made anew where it finds too little or has not seen enough."""
    readings: list[IndexReading] = []

    def settle(version: EmbeddingVersion) -> None:
        limit = project.settings.gate.min_recall
        readings.append(settled(project.tables, version, limit=limit, rebuild=True))

    for version in project.versions.maintained(first=False):
        if project.tables.count(version.table):
            work.on(version.table, partial(settle, version))
    return readings
