"""What a backup says of itself, where backups may lie, and whether one is what it says.

A backup is a folder, or a prefix of an object store, of LanceDB tables like the store's own, without their past. The
table `backup` in it has a first row that says whose it is, and a second one, with all that it holds, once that is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pyarrow as pa

from lodestore.adapters.lance import LanceStore
from lodestore.contents import Contents, contents_of
from lodestore.errors import LodestoreError, RequestError, SchemaVersionError, SourceError, StoreError
from lodestore.logs import Logs
from lodestore.tables import BACKUP, RESTORING, SCHEMA_VERSION
from lodestore.wire import from_rfc3339, rfc3339

__all__ = [
    "Backup",
    "address",
    "begin",
    "check",
    "check_same",
    "contents",
    "finish",
    "identity",
    "is_unfinished",
    "is_within",
    "opened",
    "owner",
    "read_backup",
    "renewed",
]

_FORMAT = 1
_TABLE = pa.schema([("manifest", pa.large_string())])
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_NEEDED = frozenset({"store", "releases"})
_ELSEWHERE = "name another place for the backup"


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds: the store `store` as it was `at` that moment, when the release `generation` was live."""

    uri: str
    store: str
    at: datetime
    generation: int
    tables: Mapping[str, Contents]
    revisions: Mapping[str, int]
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
        told: dict[str, Any] = {"format": _FORMAT, "lodestore": self.lodestore, "schema_version": SCHEMA_VERSION}
        return {**told, "store": self.store, **self.figures(), "tables": tables}

    @classmethod
    def from_json(cls, uri: str, told: Mapping[str, Any]) -> Backup:
        """Read what a backup says of itself; a ValueError or its like for what no backup says."""
        tables = {_table_name(one["name"]): Contents(_count(one["rows"]), str(one["digest"])) for one in told["tables"]}
        missing = _NEEDED - tables.keys()
        if missing:
            message = f"it lacks {', '.join(sorted(missing))}"
            raise ValueError(message)
        revisions = {one["name"]: _count(one["revision"]) for one in told["tables"]}
        at = from_rfc3339(told["at"], "the moment of the backup")
        left_out = tuple(map(str, told["left_out"]))
        return cls(
            uri, str(told["store"]), at, _count(told["release"]), tables, revisions, str(told["lodestore"]), left_out
        )


def _table_name(given: object) -> str:
    if not isinstance(given, str) or not _NAME.fullmatch(given) or given in {BACKUP, RESTORING}:
        message = f"{given!r} is no table of a store"
        raise ValueError(message)
    return given


def _count(given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        message = f"{given!r} is no count"
        raise ValueError(message)
    return given


# -- whose a backup is


def identity(logs: Logs) -> str:
    """Which store this is. A store that is made of a backup is another one than that which was backed up."""
    known = _identities(logs)
    if not known:
        logs.put("store", {"name": "identity", "value": uuid4().hex})
        known = _identities(logs)
    return known[-1]


def renewed(logs: Logs) -> str:
    """The store is another one from now on."""
    new = uuid4().hex
    logs.put("store", {"name": f"identity/{new}", "value": new})
    return new


def _identities(logs: Logs) -> list[str]:
    return [str(row["value"]) for row in logs.rows("store", "name = 'identity' OR name LIKE 'identity/%'")]


# -- places


def address(place: str) -> str:
    """The place as the engine takes it: a folder made absolute, links followed, or the address of an object store."""
    if not place.strip():
        message = "the place of a backup is an empty text; name a folder, or s3://bucket/prefix"
        raise RequestError(message)
    given = unquote(urlsplit(place).path) if place.startswith("file:") else place
    if "://" in given:
        return given.rstrip("/")
    if _SCHEME.match(given):
        message = f"{place!r} is neither a folder nor an address; write s3://bucket/prefix with two slashes"
        raise RequestError(message)
    try:
        return str(Path(given).expanduser().resolve())
    except (OSError, RuntimeError, ValueError) as error:
        message = f"{place!r} cannot be a place for a backup ({error}); name another one"
        raise RequestError(message) from error


def is_within(uri: str, other: str) -> bool:
    """Whether the one address is the other one or lies below it.

    >>> is_within("s3://b/backups2", "s3://b/backups"), is_within("/a/b", "/a/")
    (False, True)
    """
    return f"{uri.rstrip('/')}/".startswith(f"{other.rstrip('/')}/")


def opened(uri: str, storage: Mapping[str, str]) -> LanceStore:
    """The tables there. Object stores are reached with the settings of the project's own one; a folder needs none."""
    return LanceStore(uri, storage=storage if "://" in uri else None, elsewhere=_ELSEWHERE)


def _is_folder(uri: str) -> bool:
    try:
        return Path(uri).is_dir()
    except (OSError, ValueError) as error:
        message = f"{uri} cannot be looked at ({error}); name another place"
        raise SourceError(message) from error


# -- the table that says it


@contextmanager
def begin(target: LanceStore, store: str) -> Iterator[None]:
    """Nothing is at the place but the word that this store's backup is being made; at the end, nobody else said so."""
    for name in target.names():
        target.drop(name)
    word = json.dumps({"begun": uuid4().hex, "store": store})
    target.ensure(BACKUP, _TABLE)
    target.append(BACKUP, pa.table({"manifest": [word]}, schema=_TABLE))
    yield
    if _words(target) != [word]:
        message = (
            f"{target.uri}: another backup was begun at the same place meanwhile; name a place of its own for each"
        )
        raise StoreError(message)


def finish(target: LanceStore, made: Backup) -> None:
    """From now on it is a backup."""
    target.append(BACKUP, pa.table({"manifest": [json.dumps(made.to_json())]}, schema=_TABLE))


def is_unfinished(target: LanceStore) -> bool:
    """Whether a backup was begun there, of whatever store, and did not end."""
    words = _words(target)
    return not words or words[-1].startswith('{"begun"')


def owner(target: LanceStore) -> str | None:
    """The identity of the store whose backup lies or was begun there; None where none was."""
    try:
        return str(json.loads(_words(target)[-1])["store"]) if BACKUP in target.names(BACKUP) else None
    except (ValueError, LookupError, TypeError):
        return None


def _words(target: LanceStore) -> list[str]:
    return [str(one) for one in target.read(BACKUP, ["manifest"])["manifest"].to_pylist()]


def read_backup(place: str, *, storage: Mapping[str, str] | None = None) -> Backup:
    """What the backup at that place holds; a `SourceError` where there is none, or one that did not end."""
    uri = address(place)
    if "://" not in uri and not _is_folder(uri):
        message = f"{uri}: there is no such folder; name one that `lodestore backup` made"
        raise SourceError(message)
    store = opened(uri, storage or {})
    if BACKUP not in store.names(BACKUP):
        message = f"{uri} is no backup; name a place that `lodestore backup` made"
        raise SourceError(message)
    if is_unfinished(store):
        message = f"{uri}: this backup did not end; make it again, or name another one"
        raise SourceError(message)
    try:
        told = json.loads(_words(store)[-1])
        _check_readable(uri, told)
        return Backup.from_json(uri, told)
    except (ValueError, LookupError, TypeError) as error:
        if isinstance(error, LodestoreError):
            raise
        message = f"{uri}: what the backup says of itself is damaged ({error}); name another one"
        raise SourceError(message) from error


def _check_readable(uri: str, told: Mapping[str, Any]) -> None:
    if told["format"] != _FORMAT or told["schema_version"] != SCHEMA_VERSION:
        message = (
            f"{uri} was made by Lodestore {told['lodestore']} with schema version {told['schema_version']}, "
            f"this one reads {SCHEMA_VERSION}; install that version"
        )
        raise SchemaVersionError(message)


def check(place: str, *, storage: Mapping[str, str] | None = None) -> Backup:
    """Every row of the backup was read and is what was copied; otherwise a `StoreError` names the table."""
    found = read_backup(place, storage=storage)
    store = opened(found.uri, storage or {})
    for name, wanted in found.tables.items():
        check_same(store, name, wanted)
    return found


def contents(store: LanceStore, name: str, revision: int) -> Contents:
    """What the table held at that revision."""
    reader = store.scan(name, revision=revision)
    return contents_of(reader.schema, reader)


def check_same(store: LanceStore, name: str, wanted: Contents) -> None:
    """The table holds that now."""
    found = contents(store, name, store.revision(name))
    if found != wanted:
        message = (
            f"{store.uri}: table {name} is not what was copied: {found.rows:,} rows of {wanted.rows:,}, "
            f"contents {found.digest[:12]} instead of {wanted.digest[:12]}; somebody wrote there, or the disk damaged it"
        )
        raise StoreError(message)
