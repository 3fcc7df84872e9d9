"""Logs that only grow, as rows of plain values over any offline store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lodestore.errors import SchemaVersionError, StoreError, UnknownNameError, nearest
from lodestore.ports import Clock, OfflineStore
from lodestore.tables import LOGS, SCHEMA_VERSION, Log

__all__ = ["Logs", "utc_now"]

# Each commit is a piece of its own; so many are read in about 15 ms, and then put together.
_COMMITS_PER_PIECE = 32
# Logs that are read far more often than written: what was read is kept until the table changes.
_REMEMBERED = frozenset({"releases", "models", "holds", "gates", "templates", "keys", "views"})


def utc_now() -> datetime:
    """This moment in UTC."""
    return datetime.now(UTC)


def _spec(log: str) -> Log:
    if log not in LOGS:
        raise UnknownNameError(log, LOGS, note="; this is no log")
    return LOGS[log]


def _checked(row: Mapping[str, Any], log: Log) -> Mapping[str, Any]:
    """The row, when the log has all its columns: a value without a column would be lost silently."""
    for column in row:
        if column not in log.schema.names:
            message = f"log {log.name} has no column {column!r}{nearest(column, log.schema.names)}"
            raise StoreError(message)
    return row


class Logs:
    """The registry: insert-only tables of `lodestore.tables.LOGS`."""

    def __init__(self, store: OfflineStore, clock: Clock = utc_now) -> None:
        self._store = store
        self._clock = clock
        self._remembered: dict[str, tuple[int, list[dict[str, Any]]]] = {}

    def put(self, log: str, row: Mapping[str, Any]) -> bool:
        """The row is in the log, unless its key was taken; tells which. `at` defaults to now."""
        return self.put_all(log, [row]) == 1

    def put_all(self, log: str, rows: Iterable[Mapping[str, Any]]) -> int:
        """The rows whose keys are new are in the log; returns how many."""
        spec = _spec(log)
        now = self._clock()
        full = [{"at": now, **_checked(row, spec)} for row in rows]
        if not full:
            return 0
        table = pa.Table.from_pylist(full, schema=spec.schema)
        self._store.ensure(log, spec.schema, key=spec.key)
        if spec.key is None:
            self._store.append(log, table)
            added = len(full)
        else:
            added = self._store.insert(log, table, key=spec.key)
        if added == len(full):
            self._remember(log, table)
        if added and self._store.revision(log) % _COMMITS_PER_PIECE == 0:
            self._store.compact(log)
        return added

    def _remember(self, log: str, added: pa.Table) -> None:
        """What is known of the log has these rows too, when nothing but they came since it was read."""
        known = self._remembered.get(log)
        if known is not None and self._store.revision(log) == known[0] + 1:
            self._remembered[log] = (known[0] + 1, sorted([*known[1], *added.to_pylist()], key=lambda one: one["at"]))

    def rows(self, log: str, where: str | None = None) -> list[dict[str, Any]]:
        """The rows of a log, oldest first; equal moments in the order of arrival."""
        if where is not None or log not in _REMEMBERED:
            return self._read(log, where)
        revision = self._store.revision(log)
        known = self._remembered.get(log)
        if known is None or known[0] != revision:
            known = self._remembered[log] = (revision, self._read(log, None))
        return list(known[1])

    def _read(self, log: str, where: str | None) -> list[dict[str, Any]]:
        table = self._store.read(log, _spec(log).schema.names, where)
        if not table.num_rows:
            return []
        order = pc.sort_indices(table, [("at", "ascending")])
        return table.take(order).to_pylist()

    def last(self, log: str, where: str | None = None) -> dict[str, Any] | None:
        """The newest row, if there is one."""
        rows = self.rows(log, where)
        return rows[-1] if rows else None

    def remove(self, log: str, where: str) -> int:
        """Rows of a log of passing things, such as heartbeats, are gone; returns how many."""
        return self._store.remove(_spec(log).name, where)

    def check_schema(self) -> None:
        """The store was written by this schema version, or is new and says so from now on."""
        found = self.rows("store", "name = 'schema_version'")
        if not found:
            self.put("store", {"name": "schema_version", "value": str(SCHEMA_VERSION)})
        elif int(found[-1]["value"]) != SCHEMA_VERSION:
            message = (
                f"the store has schema version {found[-1]['value']}, this Lodestore reads {SCHEMA_VERSION}; "
                "install the version of Lodestore that wrote it, or name another [store] uri"
            )
            raise SchemaVersionError(message)
