"""Online rows in the memory of one process: the fake, which keeps the same bytes and the same rules."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from lodestore.bulk import Bytes
from lodestore.deliveries import Delivery, deliveries, deliveries_of_columns, settle
from lodestore.errors import StoreError
from lodestore.online import (
    JournalEntry,
    Key,
    Keys,
    OnlineRow,
    Written,
    decode_key,
    decode_row,
    encode_key,
    encode_keys,
    mark_key,
    namespace_prefix,
)

__all__ = ["MemoryOnlineStore"]

_SIGN = 1 << 63


class MemoryOnlineStore:
    """An OnlineStore that threads of one process may share and that ends with it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._rows: dict[str, dict[bytes, bytes]] = {}
        self._events: dict[str, dict[bytes, bytes]] = {}
        self._journal: dict[int, tuple[str, Delivery]] = {}
        self._sequence = 0
        self._meta: dict[bytes, bytes] = {}
        self._closed = False

    def fetch(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The stored rows of these encoded keys, in order, duplicates included; all from one moment."""
        self._check(namespace)
        with self._lock:
            rows = self._rows.get(namespace, {})
            return [rows.get(key) for key in keys]

    def read(self, namespace: str, keys: Sequence[Key]) -> list[OnlineRow | None]:
        """The same with keys and rows as Python has them."""
        return [None if one is None else decode_row(one) for one in self.fetch(namespace, encode_keys(keys))]

    def write(self, namespace: str, rows: Iterable[tuple[Key, OnlineRow]], *, journal: bool = False) -> Written:
        """Every row is stored, late or a duplicate."""
        return self._write(namespace, deliveries(rows), journal=journal)

    def change(
        self, namespace: str, key: Key, make: Callable[[OnlineRow | None], OnlineRow], *, journal: bool = True
    ) -> bool:
        """What `make` gives for the stored row is stored in its place; False for a known event id."""
        with self._lock:
            (before,) = self.read(namespace, [key])
            return not self.write(namespace, [(key, make(before))], journal=journal).duplicates

    def write_columns(
        self,
        namespace: str,
        keys: Keys,
        event_micros: np.ndarray[Any, Any],
        created_micros: np.ndarray[Any, Any],
        payloads: Bytes,
        *,
        event_ids: Bytes | None = None,
        journal: bool = False,
    ) -> Written:
        """Every row is stored, late or, with event ids, a duplicate."""
        rows = deliveries_of_columns(keys, event_micros, created_micros, payloads, event_ids=event_ids)
        return self._write(namespace, rows, journal=journal)

    def _write(self, namespace: str, batch: Iterable[Delivery], *, journal: bool = False) -> Written:
        self._check(namespace)
        with self._lock:
            rows = self._rows.setdefault(namespace, {})
            events = self._events.setdefault(namespace, {})
            settled = settle(batch, stored=rows.get, seen=events)
            rows.update(settled.rows)
            events.update(settled.events)
            if journal:
                for one in settled.journal:
                    self._sequence += 1
                    self._journal[self._sequence] = (namespace, one)
        return settled.written

    def journal_read(self, limit: int) -> list[JournalEntry]:
        """The oldest entries, by sequence."""
        self._check()
        with self._lock:
            oldest = [entry for _, entry in zip(range(limit), self._journal.items(), strict=False)]
        return [
            JournalEntry(sequence, namespace, decode_key(one.key), decode_row(one.stored))
            for sequence, (namespace, one) in oldest
        ]

    def journal_ack(self, up_to_sequence: int) -> None:
        """Entries up to and with that sequence are gone."""
        self._check()
        with self._lock:
            self._journal = {at: entry for at, entry in self._journal.items() if at > up_to_sequence}

    def journal_size(self) -> int:
        """How many entries wait."""
        self._check()
        return len(self._journal)

    def forget_events(self, before_micros: int) -> int:
        """Event ids of events before that time are forgotten; how many there were."""
        self._check()
        limit = (before_micros + _SIGN).to_bytes(8, "big")
        with self._lock:
            before = sum(map(len, self._events.values()))
            self._events = {
                namespace: {one: when for one, when in events.items() if when >= limit}
                for namespace, events in self._events.items()
            }
            return before - sum(map(len, self._events.values()))

    def delete(self, namespace: str, keys: Sequence[Key]) -> int:
        """These keys have no row; how many had one."""
        self._check(namespace)
        encoded = {encode_key(key) for key in keys}
        with self._lock:
            rows = self._rows.get(namespace, {})
            self._rows[namespace] = {key: row for key, row in rows.items() if key not in encoded}
            return len(rows) - len(self._rows[namespace])

    def drop(self, namespace: str) -> int:
        """The namespace has no rows; how many it had."""
        self._check(namespace)
        with self._lock:
            return len(self._rows.pop(namespace, {}))

    def namespaces(self) -> list[str]:
        """Every namespace that has a row, sorted."""
        self._check()
        with self._lock:
            return sorted(namespace for namespace, rows in self._rows.items() if rows)

    def count(self, namespace: str) -> int:
        """How many keys have a row."""
        self._check(namespace)
        return len(self._rows.get(namespace, {}))

    def scan(self, namespace: str) -> Iterator[tuple[Key, OnlineRow]]:
        """Every row of the moment the scan begins, by key."""
        self._check(namespace)
        with self._lock:
            rows = sorted(self._rows.get(namespace, {}).items())
        for key, stored in rows:
            yield decode_key(key), decode_row(stored)

    def get_meta(self, key: str) -> bytes | None:
        """The mark of that name, None when nobody set it."""
        self._check()
        return self._meta.get(mark_key(key))

    def set_meta(self, key: str, value: bytes) -> None:
        """The mark has that value."""
        self._check()
        self._meta[mark_key(key)] = value

    def ping(self) -> None:
        """The store is open; otherwise StoreError."""
        self._check()

    def close(self) -> None:
        """The store is closed, and its rows are gone."""
        self._closed = True

    def _check(self, namespace: str | None = None) -> None:
        if self._closed:
            message = "online store in memory is closed; open it again"
            raise StoreError(message)
        if namespace is not None:
            namespace_prefix(namespace)
