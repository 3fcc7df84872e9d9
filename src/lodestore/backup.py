"""Backups: every table of the store as it was at one moment, read back and compared; and the store made of one again.

A backup is a folder, or a prefix of an object store, of LanceDB tables like the store's own, without their past. The
table `backup` in it says what it holds, and has a row only once everything is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lodestore.adapters.lance import LanceStore
from lodestore.contents import Contents, contents_of
from lodestore.errors import LodestoreError, RefusedError, SchemaVersionError, SettingsError, SourceError, StoreError
from lodestore.logs import Logs
from lodestore.online import SERVER_NOTE
from lodestore.publishing import publish
from lodestore.releases import ReleaseLog
from lodestore.tables import LOGS, RESTORING, SCHEMA_VERSION
from lodestore.wire import from_rfc3339, rfc3339

if TYPE_CHECKING:
    from lodestore.ports import Progress
    from lodestore.project import Project

__all__ = ["NAME", "Backup", "Restored", "backup", "backup_again", "backups", "check", "read_backup", "restore"]

NAME = "backup"
"""The table that says what a backup holds, and what the audit log calls making one."""

_REMOVED = "backup-removed"
_FORMAT = 1
_MANIFEST = pa.schema([("manifest", pa.large_string())])
# What a store has that nobody put anything into.
_PASSING = frozenset({"store", "heartbeats", "views", "watermarks", "checks", "alerts", "audit", RESTORING})


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds: the store as it was `at` that moment, when `generation` was live."""

    uri: str
    at: datetime
    generation: int
    tables: Mapping[str, Contents]
    revisions: Mapping[str, int]
    schema_version: int = SCHEMA_VERSION
    lodestore: str = ""
    # What could not be brought along, in words.
    left_out: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(one.rows for one in self.tables.values())

    def figures(self) -> dict[str, Any]:
        """How much it is, and what is not in it."""
        told: dict[str, Any] = {"at": rfc3339(self.at), "release": self.generation, "rows": self.rows}
        return {**told, "tables": len(self.tables), "left_out": list(self.left_out)}

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        tables = [
            {"name": name, "revision": self.revisions[name], "rows": one.rows, "digest": one.digest}
            for name, one in self.tables.items()
        ]
        told: dict[str, Any] = {"format": _FORMAT, "lodestore": self.lodestore, "schema_version": self.schema_version}
        return {**told, **self.figures(), "tables": tables}

    @classmethod
    def from_json(cls, uri: str, told: Mapping[str, Any]) -> Backup:
        """Read what a backup says of itself."""
        tables = {one["name"]: Contents(one["rows"], one["digest"]) for one in told["tables"]}
        revisions = {one["name"]: one["revision"] for one in told["tables"]}
        at = from_rfc3339(told["at"], "the moment of the backup")
        texts = (told["schema_version"], told["lodestore"], tuple(told["left_out"]))
        return cls(uri, at, told["release"], tables, revisions, *texts)


@dataclass(frozen=True, slots=True)
class Restored:
    """The backup that the store was made of, how many values are online again, and what went wrong with those."""

    backup: Backup
    online: int = 0
    troubles: Sequence[str] = field(default=())


# -- making one


def backup(project: Project, destination: str, *, progress: Progress | None = None) -> Backup:
    """The destination, which is new or empty, holds the store as it is at one moment; what was copied was read back.

    Pushed rows and recorded contexts that wait are brought into their tables first. Writers wait only while the moment
    is fixed, not while tables are copied. A backup that did not end is begun anew by the next one to the same place.
    """
    tables = project.tables
    target = _target(destination, tables)
    target.ensure(NAME, _MANIFEST)
    left_out = _gathered(project)
    with project.pipeline.writing("backing up"), project.locks.hold("drain", "backing up"):
        # The release first: whatever it refers to is there when the others are looked at.
        revisions = {name: tables.revision(name) for name in dict.fromkeys(["releases", *tables.names()])}
        at = project.clock()
    held = {}
    for place, (name, revision) in enumerate(sorted(revisions.items())):
        if progress is not None:
            progress(place, len(revisions))
        held[name] = _copied(tables, target, name, revision)
    generation = ReleaseLog(Logs(target), project.clock).live().generation
    made = Backup(target.uri, at, generation, held, dict(revisions), SCHEMA_VERSION, version("lodestore"), left_out)
    target.append(NAME, pa.table({"manifest": [json.dumps(made.to_json())]}, schema=_MANIFEST))
    _noted(project, NAME, target.uri)
    return made


def backup_again(project: Project) -> Backup:
    """One more backup lies under `[backup] uri`, named by its moment; of those that were made there, `keep` are left."""
    place = project.settings.backup_uri
    if not place:
        message = "no place for backups is set; name one as [backup] uri, or as lodestore backup DEST"
        raise SettingsError(message)
    made = backup(project, f"{place.rstrip('/')}/{project.clock():%Y%m%dT%H%M%S.%fZ}")
    for uri in backups(project, below=place)[project.settings.backup.keep :]:
        _removed(project, uri)
    return made


def backups(project: Project, *, below: str = "") -> list[str]:
    """The addresses of the backups that were made of the store and not removed by it, newest first."""
    found: dict[str, None] = {}
    for row in project.logs.rows("audit", f"act IN ('{NAME}', '{_REMOVED}')"):
        found.pop(row["subject"], None)
        if row["act"] == NAME and row["subject"].startswith(below):
            found[row["subject"]] = None
    return list(reversed(found))


def _removed(project: Project, uri: str) -> None:
    """The backup is gone, what it says of itself first: what is left of one half gone is no backup."""
    if "://" in uri or Path(uri).is_dir():
        store = _opened(uri, project.tables.storage)
        for name in [NAME, *store.names()]:
            store.drop(name)
        if "://" not in uri and not any(Path(uri).iterdir()):
            Path(uri).rmdir()
    _noted(project, _REMOVED, uri)


def _noted(project: Project, act: str, uri: str) -> None:
    project.logs.put("audit", {"id": f"{act}/{rfc3339(project.clock())}/{uri}", "act": act, "subject": uri})


def _gathered(project: Project) -> tuple[str, ...]:
    """What waits beside the tables is in them; what could not be is told."""
    left = []
    for what, act in (("pushed rows", project.features.drain), ("recorded contexts", project.contexts.flush)):
        try:
            act()
        except LodestoreError as error:
            left.append(f"{what} that wait: {error}")
    return tuple(left)


def _copied(tables: LanceStore, target: LanceStore, name: str, revision: int) -> Contents:
    tables.copy(name, target, revision=revision)
    wanted = _contents(tables, name, revision)
    _check_same(target, name, wanted)
    return wanted


def _contents(store: LanceStore, name: str, revision: int) -> Contents:
    reader = store.scan(name, revision=revision)
    return contents_of(reader.schema, reader)


def _check_same(store: LanceStore, name: str, wanted: Contents) -> None:
    found = _contents(store, name, store.revision(name))
    if found != wanted:
        message = (
            f"{store.uri}: table {name} is not what was copied: {found.rows:,} rows of {wanted.rows:,}, "
            f"contents {found.digest[:12]} instead of {wanted.digest[:12]}; the disk or the object store damaged it"
        )
        raise StoreError(message)


def _target(destination: str, tables: LanceStore) -> LanceStore:
    uri = _address(destination)
    if "://" not in uri and "://" not in tables.uri and Path(uri).is_relative_to(tables.uri):
        message = f"{uri} lies in the store itself; name a folder outside of {tables.uri}"
        raise RefusedError(message)
    if "://" not in uri and Path(uri).is_dir() and any(Path(uri).iterdir()) and not _begun(uri):
        message = f"{uri} is not empty; name a new folder"
        raise RefusedError(message)
    target = _opened(uri, tables.storage)
    names = target.names()
    if NAME in names and target.count(NAME):
        message = f"{uri} is a backup already; name a new place for another one"
        raise RefusedError(message)
    if names and NAME not in names:
        message = f"{uri} has tables that are no backup; name a new place"
        raise RefusedError(message)
    return target


def _begun(folder: str) -> bool:
    return (Path(folder) / f"{NAME}.lance").is_dir()


def _address(place: str) -> str:
    return place if "://" in place else str(Path(place).expanduser().resolve())


def _opened(uri: str, storage: Mapping[str, str]) -> LanceStore:
    """Object stores are reached with the settings of the project's own one; a folder needs none."""
    return LanceStore(uri, storage=storage if "://" in uri else None)


# -- looking at one


def read_backup(place: str, *, storage: Mapping[str, str] | None = None) -> Backup:
    """What the backup at that place holds; a `SourceError` where there is none, or one that did not end."""
    uri = _address(place)
    if "://" not in uri and not Path(uri).is_dir():
        message = f"{uri}: there is no such folder; name one that `lodestore backup` made"
        raise SourceError(message)
    store = _opened(uri, storage or {})
    if NAME not in store.names(NAME):
        message = f"{uri} is no backup; name a place that `lodestore backup` made"
        raise SourceError(message)
    rows = store.read(NAME, ["manifest"])["manifest"].to_pylist()
    if not rows:
        message = f"{uri}: this backup did not end; make it again, or name another one"
        raise SourceError(message)
    told = _told(uri, rows[-1])
    if told["format"] != _FORMAT or told["schema_version"] != SCHEMA_VERSION:
        message = (
            f"{uri} was made by Lodestore {told['lodestore']} with schema version {told['schema_version']}, "
            f"this one reads {SCHEMA_VERSION}; install that version"
        )
        raise SchemaVersionError(message)
    return Backup.from_json(uri, told)


def _told(uri: str, manifest: str) -> dict[str, Any]:
    try:
        told = json.loads(manifest)
        Backup.from_json(uri, told)
    except (ValueError, LookupError, TypeError) as error:
        message = f"{uri}: what the backup says of itself is damaged ({error!r}); name another one"
        raise SourceError(message) from error
    return dict(told)


def check(place: str, *, storage: Mapping[str, str] | None = None) -> Backup:
    """Every row of the backup was read and is what was copied; otherwise a `StoreError` names the table."""
    found = read_backup(place, storage=storage)
    store = _opened(found.uri, storage or {})
    for name, wanted in found.tables.items():
        _check_same(store, name, wanted)
    return found


# -- making the store of one


def restore(project: Project, place: str, *, progress: Progress | None = None) -> Restored:
    """The project's store, which is new or empty, is what the backup holds, and the newest values are online again.

    Until everything is there the store cannot be opened; a restore that did not end is begun anew by the next one.
    Online rows that are there stay where they are newer than those of the backup.
    """
    settings = project.settings
    source = read_backup(place, storage=settings.store.storage)
    store = LanceStore(settings.store_uri, storage=settings.store.storage)
    with project.locks.writer("restoring"):
        _check_free(store, source)
        with _closed(store, source):
            held = _opened(source.uri, settings.store.storage)
            for done, (name, wanted) in enumerate(source.tables.items()):
                if progress is not None:
                    progress(done, len(source.tables))
                held.copy(name, store, revision=held.revision(name))
                _check_same(store, name, wanted)
    _noted(project, "restore", source.uri)
    return _published(project, source)


def _check_free(store: LanceStore, source: Backup) -> None:
    if store.uri == source.uri:
        message = f"{source.uri} is the backup itself; name another [store] uri"
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
    missing = source.tables.keys() - set(store.names())
    if missing:
        message = f"the store {store.uri} lacks {', '.join(sorted(missing))}; run the restore again"
        raise StoreError(message)
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
