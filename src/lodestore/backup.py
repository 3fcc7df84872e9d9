"""Backups: every table of the store as it was at one moment, copied elsewhere, read back and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from lodestore.contents import Contents
from lodestore.errors import LodestoreError, ReadingGoneError, RefusedError, SettingsError, SourceError, StoreError
from lodestore.logs import Logs
from lodestore.manifest import (
    Backup,
    address,
    begin,
    check_same,
    contents,
    finish,
    identity,
    is_unfinished,
    is_within,
    opened,
    owner,
)
from lodestore.releases import ReleaseLog
from lodestore.tables import BACKUP, RESTORING
from lodestore.wire import rfc3339

if TYPE_CHECKING:
    from lodestore.adapters.lance import LanceStore
    from lodestore.ports import Progress
    from lodestore.project import Project

__all__ = ["NIGHTLY", "backup", "backup_again", "kept"]

# What the audit log calls them: one that somebody asked for, and the steps of those that the job makes and removes.
BY_HAND, BEGUN, NIGHTLY, REMOVED = "backup", "backup-begun", "backup-nightly", "backup-removed"
_TRIES = 3


def backup(project: Project, destination: str, *, progress: Progress | None = None) -> Backup:
    """The destination, which is new or empty, holds the store as it is at one moment; what was copied was read back.

    Pushed rows and recorded contexts that wait are brought into their tables first. Writers wait only while the moment
    is fixed, not while tables are copied. A backup that did not end is begun anew by the next one to the same place.
    """
    made = _made(project, _target(project, destination), progress)
    _note(project, BY_HAND, made.uri, made.store)
    return made


def backup_again(project: Project, *, progress: Progress | None = None) -> Backup:
    """One more backup lies under `[backup] uri`, named by its moment, and of those that were made so `keep` are left.

    What was begun there and did not end is removed first: a disk that was full must not stay so.
    """
    place = project.settings.backup_uri
    if not place:
        message = "no place for backups is set; name one as [backup] uri, or as lodestore backup DEST"
        raise SettingsError(message)
    for uri in _unfinished(project):
        _remove(project, uri)
    target = _target(project, f"{address(place)}/{project.clock():%Y%m%dT%H%M%S.%fZ}")
    mine = identity(project.logs)
    _note(project, BEGUN, target.uri, mine)
    made = _made(project, target, progress)
    _note(project, NIGHTLY, made.uri, mine)
    for uri in kept(project)[project.settings.backup.keep :]:
        _remove(project, uri)
    return made


def kept(project: Project) -> list[str]:
    """Where the backups lie that `backup_again` made of this very store at today's place, newest first."""
    place = address(project.settings.backup_uri)
    return [uri for uri, act in _acts(project).items() if act == NIGHTLY and uri.rpartition("/")[0] == place][::-1]


def _unfinished(project: Project) -> list[str]:
    return [uri for uri, act in _acts(project).items() if act == BEGUN]


def _acts(project: Project) -> dict[str, str]:
    """Address -> the last word on a backup that the job made of this very store, oldest first.

    What a store did that this one was restored from is not its own doing.
    """
    rows = project.logs.rows("audit", f"act IN ('{BEGUN}', '{NIGHTLY}', '{REMOVED}')")
    mine = identity(project.logs)
    return {row["subject"]: row["act"] for row in rows if row["detail"] == mine}


def _note(project: Project, act: str, uri: str, store: str) -> None:
    key = f"{act}/{rfc3339(project.clock())}/{uri}"
    project.logs.put("audit", {"id": key, "act": act, "subject": uri, "detail": store})


def _remove(project: Project, uri: str) -> None:
    """The backup is gone, what it says of itself last: one that is half gone is still known as this store's, to be removed.

    What lies there today and is no backup of this store is left alone, and only no longer counted.
    """
    mine = identity(project.logs)
    store = opened(uri, project.settings.store.storage)
    local = "://" not in uri
    if (not local or Path(uri).is_dir()) and owner(store) == mine:
        for name in [*(one for one in store.names() if one != BACKUP), BACKUP]:
            store.drop(name)
        if local and not any(Path(uri).iterdir()):
            Path(uri).rmdir()
    _note(project, REMOVED, uri, mine)


# -- making one


def _made(project: Project, target: LanceStore, progress: Progress | None) -> Backup:
    store = identity(project.logs)
    with begin(target, store):
        left_out = _gathered(project)
        at, revisions, held = _copies(project, target, progress)
    generation = ReleaseLog(Logs(target), project.clock).live().generation
    made = Backup(target.uri, store, at, generation, held, revisions, version("lodestore"), left_out)
    finish(target, made)
    return made


def _gathered(project: Project) -> tuple[str, ...]:
    """What waits beside the tables is in them; what could not be is told."""
    left = []
    for what, act in (("pushed rows", project.features.drain), ("recorded contexts", project.contexts.flush)):
        try:
            act()
        except LodestoreError as error:
            left.append(f"{what} that wait: {error}")
    return tuple(left)


def _copies(
    project: Project, target: LanceStore, progress: Progress | None
) -> tuple[datetime, dict[str, int], dict[str, Contents]]:
    """The moment, the revision of each table at it, and what each copy holds.

    Upkeep may take the files of a revision away before it is copied; then another moment is chosen, and what did not
    change since is not copied again.
    """
    done: dict[tuple[str, int], Contents] = {}
    for last in (False,) * (_TRIES - 1) + (True,):
        at, revisions = _moment(project)
        try:
            for place, (name, revision) in enumerate(sorted(revisions.items())):
                if progress is not None:
                    progress(place, len(revisions))
                if (name, revision) not in done:
                    done[name, revision] = _copied(project.tables, target, name, revision)
        except ReadingGoneError as error:
            if last:
                message = (
                    f"{error}; that happened {_TRIES} times: wait until lodestore run maintain has ended, and run again"
                )
                raise StoreError(message) from error
        else:
            break
    _drop_others(target, revisions)
    return at, revisions, {name: done[name, revision] for name, revision in sorted(revisions.items())}


def _moment(project: Project) -> tuple[datetime, dict[str, int]]:
    """A moment at which nobody was writing, and the revision of each table then."""
    tables = project.tables
    # A drain may take long; who holds it wants no other lock.
    with project.locks.hold("drain", "backing up"), project.pipeline.writing("backing up"):
        # The release first: whatever it refers to is there when the others are looked at.
        names = [name for name in dict.fromkeys(["releases", *tables.names()]) if name not in {BACKUP, RESTORING}]
        return project.clock(), {name: tables.revision(name) for name in names}


def _copied(tables: LanceStore, target: LanceStore, name: str, revision: int) -> Contents:
    tables.copy(name, target, revision=revision)
    wanted = contents(tables, name, revision)
    check_same(target, name, wanted)
    return wanted


def _drop_others(target: LanceStore, wanted: Mapping[str, int]) -> None:
    """Tables that were dropped from the store between two moments are not in the backup."""
    for name in target.names():
        if name not in wanted and name != BACKUP:
            target.drop(name)


def _target(project: Project, destination: str) -> LanceStore:
    uri, tables = address(destination), project.tables
    if is_within(uri, tables.uri) or is_within(tables.uri, uri):
        message = f"{uri} and the store {tables.uri} lie one in the other; name a place outside of it"
        raise RefusedError(message)
    with _lookable(uri):
        full = "://" not in uri and Path(uri).is_dir() and any(Path(uri).iterdir())
        begun = full and (Path(uri) / f"{BACKUP}.lance").is_dir()
    if full and not begun:
        message = f"{uri} is not empty; name a new folder"
        raise RefusedError(message)
    target = opened(uri, tables.storage)
    names = target.names()
    if names and BACKUP not in names:
        message = f"{uri} has tables that are no backup; name a new place"
        raise RefusedError(message)
    if names and not is_unfinished(target):
        message = f"{uri} is a backup already; name a new place for another one"
        raise RefusedError(message)
    return target


@contextmanager
def _lookable(uri: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        message = f"{uri} cannot be looked at ({error}); name another place for the backup"
        raise SourceError(message) from error
