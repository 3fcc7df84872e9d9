"""Online rows in LMDB: every process of one machine reads them in microseconds.

Four databases lie in one environment. `rows`: namespace, zero byte, key -> row. `events`: namespace, zero byte,
event id -> when the event happened. `journal`: sequence -> pushed row. `meta`: name -> bytes. A commit is
visible to the next read of every process and survives the death of its process; it survives a power cut only
with `sync`.

LMDB wants one environment for each path and process, so handles share it: see `_acquire`.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import takewhile
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar, cast

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.bulk import Bytes, as_column, as_list, joined
from lodestore.deliveries import (
    Addressed,
    Delivery,
    addressed,
    batches,
    deliveries,
    deliveries_of_columns,
    settle,
    slices,
)
from lodestore.errors import SchemaVersionError, StoreBusyError, StoreError, StoreWriteError
from lodestore.online import (
    BATCH_ROWS,
    STAMP,
    JournalEntry,
    Key,
    Keys,
    OnlineRow,
    Written,
    decode_key,
    decode_row,
    encode_key,
    encode_keys,
    hashed_key,
    key_within,
    mark_key,
    namespace_prefix,
)

__all__ = ["LmdbOnlineStore"]

_GIB: Final = 1 << 30
_LONGEST_KEY: Final = 511
_READERS: Final = 512
_EIGHT: Final = 8
_NEARLY: Final = 0.99
_SCHEMA: Final = b"1"
_SCHEMA_KEY: Final = b"\0schema"
_SEQUENCE_KEY: Final = b"\0sequence"
_SEQUENCE: Final = struct.Struct(">Q")
_PREFIX: Final = struct.Struct(">HH")

_EVENT_TIME: Final = itemgetter(slice(1, 9))  # of a stored row
_STAMP_OF: Final = itemgetter(STAMP)

_T = TypeVar("_T")


@dataclass(slots=True)
class _Shared:
    """One open environment of this process, and how many handles use it."""

    folder: Path
    identity: tuple[int, int]
    options: tuple[bool, int]
    pid: int
    environment: lmdb.Environment
    rows: Any
    events: Any
    journal: Any
    meta: Any
    users: int = 0


_open_environments: dict[Path, _Shared] = {}
_lock = threading.Lock()
# A fork while another thread holds the lock would leave the child with a lock that nobody releases.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def _acquire(folder: Path, *, sync: bool, map_size: int) -> _Shared:
    """The environment of this folder, opened once in this process, and anew after a fork."""
    with _lock:
        shared = _open_environments.get(folder)
        if shared is not None and shared.pid != os.getpid():
            shared.environment.close()  # the parent's own stays open; LMDB forbids using it here
            shared = None
        if shared is not None and shared.identity != _identity(folder):
            shared = None  # the folder was replaced; its old handles keep the old files
        if shared is None:
            shared = _opened(folder, sync=sync, map_size=map_size)
            _open_environments[folder] = shared
        if shared.options != (sync, map_size):
            message = f"online store {folder} is already open in this process with other options (sync, map size) "
            message += f"{shared.options}, not {(sync, map_size)}; use the same ones"
            raise StoreError(message)
        shared.users += 1
        return shared


def _release(shared: _Shared) -> None:
    with _lock:
        shared.users -= 1
        if shared.users == 0 and shared.pid == os.getpid():
            shared.environment.close()
            if _open_environments.get(shared.folder) is shared:
                del _open_environments[shared.folder]


def _identity(folder: Path) -> tuple[int, int]:
    try:
        found = (folder / "data.mdb").stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _opened(folder: Path, *, sync: bool, map_size: int) -> _Shared:
    if folder.exists() and not folder.is_dir():
        message = f"online store {folder} is a file; name a folder in [online] url"
        raise StoreError(message)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        environment = lmdb.open(
            str(folder), map_size=map_size, max_dbs=8, max_readers=_READERS, sync=sync, metasync=sync, readahead=False
        )
        try:
            return _prepared(folder, environment, (sync, map_size))
        except BaseException:
            environment.close()
            raise
    except (OSError, lmdb.Error) as error:
        raise _told(error, folder, map_size) from error


def _prepared(folder: Path, environment: lmdb.Environment, options: tuple[bool, int]) -> _Shared:
    environment.reader_check()  # readers that died keep old pages from being used again
    names = (b"rows", b"events", b"journal", b"meta")
    rows, events, journal, meta = (environment.open_db(name) for name in names)
    with environment.begin(write=True) as txn:
        schema = txn.get(_SCHEMA_KEY, _SCHEMA, db=meta)
        txn.put(_SCHEMA_KEY, _SCHEMA, db=meta, overwrite=False)
    if schema != _SCHEMA:
        message = f"online store {folder} has schema {schema.decode()}, this version reads {_SCHEMA.decode()}; "
        message += "remove the folder and materialize again"
        raise SchemaVersionError(message)
    return _Shared(folder, _identity(folder), options, os.getpid(), environment, rows, events, journal, meta)


def _told(error: Exception, folder: Path, map_size: int) -> StoreError:
    """The same trouble in words, with the way out."""
    if isinstance(error, lmdb.MapFullError):
        return StoreWriteError(
            f"online store {folder} has filled its map of {map_size / _GIB:g} GiB; drop views or versions that are "
            "no longer served, drain the journal, or move to a store of its own"
        )
    if isinstance(error, lmdb.ReadersFullError):
        return StoreBusyError(f"online store {folder}: all {_READERS} reader places are taken; run fewer processes")
    if isinstance(error, lmdb.CorruptedError | lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.PageNotFoundError):
        return StoreError(f"online store {folder} is not readable ({error}); remove it and materialize again")
    return StoreWriteError(
        f"online store {folder} cannot be used ({error}); the disk must be local, writable and not full"
    )


class _Transaction:
    """One transaction, whose troubles are told in words. A class, for a generator costs more than a small read."""

    __slots__ = ("_store", "_txn", "_write")

    def __init__(self, store: LmdbOnlineStore, *, write: bool) -> None:
        self._store = store
        self._write = write

    def __enter__(self) -> tuple[_Shared, lmdb.Transaction[bytes]]:
        shared = self._store._here()  # noqa: SLF001 - the other half of one thing
        try:
            self._txn = shared.environment.begin(write=self._write).__enter__()
        except lmdb.Error as error:
            raise self._told(error) from error
        return shared, self._txn

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._txn.__exit__(kind, error, trace)
        except lmdb.Error as trouble:
            raise self._told(trouble) from trouble
        if isinstance(error, lmdb.Error):
            raise self._told(error) from error

    def _told(self, error: lmdb.Error) -> StoreError:
        return _told(error, self._store._folder, self._store._map_size)  # noqa: SLF001


class LmdbOnlineStore:
    """An OnlineStore in a folder of a local disk. Threads and processes may share it."""

    def __init__(self, folder: Path, *, sync: bool, map_size: int) -> None:
        self._folder = folder
        self._sync = sync
        self._map_size = map_size
        self._shared: _Shared | None = _acquire(folder, sync=sync, map_size=map_size)

    @classmethod
    def open(cls, folder: str | Path, *, sync: bool = False, map_size: int = 64 * _GIB) -> LmdbOnlineStore:
        """A store in that folder, which is made when it is missing.

        `map_size` is address space, not disk; every process must give the same, for it is never resized. With
        `sync` each commit waits for the disk (0.3 ms instead of 0.01 ms) and so survives a power cut.
        """
        return cls(Path(os.path.realpath(folder)), sync=sync, map_size=map_size)

    def _here(self) -> _Shared:
        shared = self._shared
        if shared is None:
            message = f"online store {self._folder} is closed; open it again"
            raise StoreError(message)
        if shared.pid != os.getpid():
            shared = self._shared = _acquire(self._folder, sync=self._sync, map_size=self._map_size)
        return shared

    def _transaction(self, *, write: bool = False) -> _Transaction:
        return _Transaction(self, write=write)

    # Rows

    def fetch(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The stored rows of these encoded keys, in order, duplicates included; all from one moment."""
        prefix = namespace_prefix(namespace)
        shared = self._here()
        database = shared.rows
        try:  # what `_transaction` does, without its price: this is what requests wait for
            if len(keys) == 1:
                with shared.environment.begin() as txn:
                    return [txn.get(_address(prefix, keys[0]), None, database)]
            addresses = _addresses(prefix, keys)
            with shared.environment.begin(db=database) as txn:
                return [*map(txn.get, addresses)]
        except lmdb.Error as error:
            raise _told(error, self._folder, self._map_size) from error

    def read(self, namespace: str, keys: Sequence[Key]) -> list[OnlineRow | None]:
        """The same with keys and rows as Python has them."""
        return [None if one is None else decode_row(one) for one in self.fetch(namespace, encode_keys(keys))]

    def write(self, namespace: str, rows: Iterable[tuple[Key, OnlineRow]], *, journal: bool = False) -> Written:
        """Every row is stored, late or a duplicate; with `journal`, row and entry are one commit."""
        prefix = namespace_prefix(namespace)
        # All are encoded before the first transaction, so that a row that does not encode stops every row.
        prepared = deliveries(rows, prefix=prefix, longest=_LONGEST_KEY)
        written = Written()
        for batch in batches(prepared):
            written += self._write_batch(prefix, batch, journal=journal)
        return written

    def change(
        self, namespace: str, key: Key, make: Callable[[OnlineRow | None], OnlineRow], *, journal: bool = True
    ) -> bool:
        """What `make` gives for the stored row is stored in its place; False for a known event id."""
        prefix = namespace_prefix(namespace)
        address = _address(prefix, encode_key(key))
        with self._transaction(write=True) as (shared, txn):
            before = txn.get(address, None, shared.rows)
            row = make(None if before is None else decode_row(before))
            batch = list(deliveries([(key, row)], prefix=prefix, longest=_LONGEST_KEY))
            return not _settled(shared, txn, prefix, batch, journal=journal).duplicates

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
        """Every row is stored, late or a duplicate; in the order of the keys, which is the quickest for the disk."""
        prefix = namespace_prefix(namespace)
        given = (keys, event_micros, created_micros, payloads)
        columns = None
        if event_ids is None or len(keys) > BATCH_ROWS:
            columns = addressed(*given, event_ids=event_ids, prefix=prefix, longest=_LONGEST_KEY)
        if columns is not None:
            return self._write_many(prefix, columns, identified=event_ids is not None, journal=journal)
        prepared = deliveries_of_columns(*given, event_ids=event_ids, prefix=prefix, longest=_LONGEST_KEY)
        written = Written()
        for batch in batches(prepared):
            written += self._write_batch(prefix, batch, journal=journal)
        return written

    def _write_many(self, prefix: bytes, given: Addressed, *, identified: bool, journal: bool) -> Written:
        """Rows in their own order, then their event ids in theirs: each sorted, which halves the time of both together."""
        events: list[tuple[bytes, bytes]] = []
        columns = given
        if identified:
            columns, events = self._unseen(prefix, given)
        late = 0
        for part in slices(columns.stored):
            late += self._write_newer(prefix, columns.addresses[part], columns.stored[part], journal=journal)
        self._remember(events)
        count = len(columns.addresses)
        return Written(count - late, len(given.addresses) - count, late)

    def _unseen(self, prefix: bytes, given: Addressed) -> tuple[Addressed, list[tuple[bytes, bytes]]]:
        """The rows whose event ids are new, and these ids with their times, sorted; of one id that comes twice, the first."""
        keys = _event_keys(prefix, given.event_ids)
        when = np.array([*map(_EVENT_TIME, given.stored)], "V8")
        order = _order_of(given.event_ids, keys)
        ordered = as_list(keys.take(pa.array(order)))
        with self._transaction() as (shared, txn):
            seen = set(txn.cursor(shared.events).getmulti(ordered, values=False))
        if not seen and len({*ordered}) == len(ordered):
            return given, [*zip(ordered, when[order].tolist(), strict=True)]
        kept: dict[bytes, int] = {}
        for at, key in enumerate(as_list(keys)):
            if key not in seen:
                kept.setdefault(key, at)
        places = list(kept.values())
        addresses, stored = ([column[at] for at in places] for column in (given.addresses, given.stored))
        return Addressed(addresses, stored, []), sorted((key, when[at].tobytes()) for key, at in kept.items())

    def _write_newer(self, prefix: bytes, addresses: list[bytes], stored: list[bytes], *, journal: bool) -> int:
        """Every row is stored, unless a newer one is there, and journalled all the same; returns how many were late."""
        with self._transaction(write=True) as (shared, txn):
            cursor = txn.cursor(shared.rows)
            rows, late = _newest(addresses, stored, cursor.getmulti(addresses))
            cursor.putmulti(rows)
            if journal:
                _append_journal(shared, txn, prefix, addresses, stored)
        return late

    def _remember(self, events: list[tuple[bytes, bytes]]) -> None:
        for start in range(0, len(events), BATCH_ROWS):
            with self._transaction(write=True) as (shared, txn):
                txn.cursor(shared.events).putmulti(events[start : start + BATCH_ROWS])

    def _write_batch(self, prefix: bytes, batch: list[Delivery], *, journal: bool) -> Written:
        with self._transaction(write=True) as (shared, txn):
            return _settled(shared, txn, prefix, batch, journal=journal)

    def delete(self, namespace: str, keys: Sequence[Key]) -> int:
        """These keys have no row; how many had one."""
        prefix = namespace_prefix(namespace)
        addresses = [_address(prefix, encode_key(key)) for key in keys]
        deleted = 0
        for start in range(0, len(addresses), BATCH_ROWS):
            with self._transaction(write=True) as (shared, txn):
                deleted += sum(txn.delete(one, db=shared.rows) for one in addresses[start : start + BATCH_ROWS])
        return deleted

    def drop(self, namespace: str) -> int:
        """The namespace has no rows; how many it had. A crash leaves some, and a repeat drops them."""
        prefix = namespace_prefix(namespace)
        return self._delete_range("rows", prefix, lambda address: address.startswith(prefix))

    def _delete_range(self, database: str, start: bytes, inside: Callable[[bytes], bool]) -> int:
        deleted = 0
        while True:
            with self._transaction(write=True) as (shared, txn):
                cursor = txn.cursor(getattr(shared, database))
                here = 0
                found = cursor.set_range(start)
                while found and here < BATCH_ROWS and inside(cursor.key()):
                    found = _deleted(cursor)
                    here += 1
            deleted += here
            if here < BATCH_ROWS:
                return deleted

    def namespaces(self) -> list[str]:
        """Every namespace that has a row, sorted."""
        found: list[str] = []
        with self._transaction() as (shared, txn):
            cursor = txn.cursor(shared.rows)
            more = cursor.first()
            while more:
                name = cursor.key().partition(b"\0")[0]
                found.append(name.decode("utf-8", "surrogatepass"))
                more = cursor.set_range(name + b"\x01")  # past every key that begins with name and a zero byte
        return found

    def count(self, namespace: str) -> int:
        """How many keys have a row."""
        prefix = namespace_prefix(namespace)
        with self._transaction() as (shared, txn):
            cursor = txn.cursor(shared.rows)
            if not cursor.set_range(prefix):
                return 0
            keys: Iterator[Any] = cursor.iternext(keys=True, values=False)
            # `after > key` for each, counted while it is true: all of it in C, for there may be millions.
            return sum(takewhile(bool, map(_after(prefix).__gt__, keys)))

    def scan(self, namespace: str) -> Iterator[tuple[Key, OnlineRow]]:
        """Every row that stays during the scan, once; a page at a time, so that no transaction lasts."""
        prefix = namespace_prefix(namespace)
        start = prefix
        while page := self._page(prefix, start):
            for address, stored in page:
                yield decode_key(key_within(stored) or address[len(prefix) :]), decode_row(stored)
            start = page[-1][0] + b"\0"

    def _page(self, prefix: bytes, start: bytes) -> list[tuple[bytes, bytes]]:
        with self._transaction() as (shared, txn):
            cursor = txn.cursor(shared.rows)
            if not cursor.set_range(start):
                return []
            rows = _while(cursor.iternext(), lambda one: one[0].startswith(prefix))
            return [row for _, row in zip(range(BATCH_ROWS), rows, strict=False)]

    # The journal and event ids

    def journal_read(self, limit: int) -> list[JournalEntry]:
        """The oldest entries, by sequence."""
        with self._transaction() as (shared, txn):
            entries = txn.cursor(shared.journal).iternext()
            raw = [entry for _, entry in zip(range(limit), entries, strict=False)]
        return [_journal_entry(key, value) for key, value in raw]

    def journal_ack(self, up_to_sequence: int) -> None:
        """Entries up to and with that sequence are gone."""
        last = _SEQUENCE.pack(up_to_sequence)
        self._delete_range("journal", _SEQUENCE.pack(0), lambda key: key <= last)

    def journal_size(self) -> int:
        """How many entries wait."""
        with self._transaction() as (shared, txn):
            return int(txn.stat(shared.journal)["entries"])

    def forget_events(self, before_micros: int) -> int:
        """Event ids of events before that time are forgotten; how many there were."""
        limit = _SEQUENCE.pack(before_micros + (1 << 63))
        forgotten, start = 0, b"\0"
        while True:
            with self._transaction(write=True) as (shared, txn):
                cursor = txn.cursor(shared.events)
                found, visited = cursor.set_range(start), 0
                while found and visited < BATCH_ROWS:
                    visited += 1
                    old = cursor.value() < limit
                    forgotten += old
                    found = _deleted(cursor) if old else cursor.next()
                start = cursor.key() if found else b""
            if not start:
                return forgotten

    # Marks and life

    def get_meta(self, key: str) -> bytes | None:
        """The mark of that name, None when nobody set it."""
        with self._transaction() as (shared, txn):
            return txn.get(mark_key(key), db=shared.meta)

    def set_meta(self, key: str, value: bytes) -> None:
        """The mark has that value."""
        with self._transaction(write=True) as (shared, txn):
            txn.put(mark_key(key), value, db=shared.meta)

    def ping(self) -> None:
        """The environment opens a transaction; otherwise StoreError."""
        with self._transaction() as (shared, txn):
            txn.get(_SCHEMA_KEY, db=shared.meta)

    def close(self) -> None:
        """This handle is closed; the environment too when it was the last one in this process."""
        shared, self._shared = self._shared, None
        if shared is not None:
            _release(shared)


def _addresses(prefix: bytes, keys: Sequence[bytes]) -> list[bytes]:
    if len(prefix) + max(map(len, keys), default=0) <= _LONGEST_KEY:
        return [prefix + key for key in keys]
    return [_address(prefix, key) for key in keys]


def _address(prefix: bytes, key: bytes) -> bytes:
    address = prefix + key
    return address if len(address) <= _LONGEST_KEY else hashed_key(prefix, key)


def _event_key(prefix: bytes, event_id: bytes) -> bytes:
    key = b"%b\x01%b" % (prefix, event_id)
    return key if len(key) <= _LONGEST_KEY else b"%b\x02%b" % (prefix, sha256(event_id).digest())


def _event_keys(prefix: bytes, event_ids: Bytes) -> pa.Array:
    keys = joined(prefix + b"\x01", as_column(event_ids))
    if pc.max(pc.binary_length(keys)).as_py() <= _LONGEST_KEY:
        return keys
    return pa.array([_event_key(prefix, one) for one in as_list(event_ids)], pa.binary())


def _order_of(event_ids: Bytes, keys: pa.Array) -> np.ndarray[Any, Any]:
    """The places of the keys in their order; of hashes, the usual ids, nearly so by eight bytes, several times faster."""
    ids = as_column(event_ids)
    if pc.min(pc.binary_length(ids)).as_py() >= _EIGHT:
        heads = np.frombuffer(b"".join(as_list(pc.binary_slice(ids, 0, _EIGHT))), ">u8").astype(np.uint64)
        order = np.argsort(heads)
        if np.count_nonzero(np.diff(heads[order])) > len(heads) * _NEARLY:
            return order
    places: np.ndarray[Any, Any] = pc.sort_indices(keys).to_numpy()
    return places


def _deleted(cursor: lmdb.Cursor[bytes]) -> bool:
    """Whether the cursor, once its entry is deleted, stands on a next one."""
    return cursor.delete() and cursor.key() != b""


def _after(prefix: bytes) -> bytes:
    return prefix[:-1] + b"\x01"


def _while(rows: Iterable[_T], wanted: Callable[[_T], bool]) -> Iterator[_T]:
    for one in rows:
        if not wanted(one):
            return
        yield one


class _Seen:
    """The event ids of a namespace, looked up one by one."""

    __slots__ = ("_database", "_prefix", "_txn")

    def __init__(self, txn: lmdb.Transaction[bytes], prefix: bytes, database: Any) -> None:  # noqa: ANN401 - LMDB's own
        self._txn = txn
        self._prefix = prefix
        self._database = database

    def __contains__(self, event_id: object) -> bool:
        return self._txn.get(_event_key(self._prefix, cast("bytes", event_id)), None, self._database) is not None


def _settled(
    shared: _Shared, txn: lmdb.Transaction[bytes], prefix: bytes, batch: list[Delivery], *, journal: bool
) -> Written:
    """What the batch changes is changed in this transaction."""
    database = shared.rows
    settled = settle(batch, stored=lambda key: txn.get(key, None, database), seen=_Seen(txn, prefix, shared.events))
    for key, row in settled.rows.items():
        txn.put(key, row, db=database)
    for key, when in sorted([(_event_key(prefix, one), when) for one, when in settled.events.items()]):
        txn.put(key, when, db=shared.events)
    if journal:
        _append_journal(
            shared, txn, prefix, [one.key for one in settled.journal], [one.stored for one in settled.journal]
        )
    return settled.written


def _newest(
    addresses: list[bytes], stored: list[bytes], found: list[tuple[bytes, bytes]]
) -> tuple[Iterable[tuple[bytes, bytes]], int]:
    """The rows to put, and how many of those given are older than another one of their key; `found` are there."""
    distinct = len({*addresses}) == len(addresses)
    if distinct and not found:
        return zip(addresses, stored, strict=True), 0
    if distinct and len(found) == len(addresses):
        late = {*np.flatnonzero(_stamps([old for _, old in found]) > _stamps(stored)).tolist()}
        return [one for at, one in enumerate(zip(addresses, stored, strict=True)) if at not in late], len(late)
    before, newest, older = dict(found), dict[bytes, bytes](), 0
    for address, row in zip(addresses, stored, strict=True):
        other = newest.get(address) or before.get(address)
        if other is None or other[STAMP] <= row[STAMP]:
            newest[address] = row
        else:
            older += 1
    return newest.items(), older


def _stamps(rows: list[bytes]) -> np.ndarray[Any, Any]:
    """The timestamps of rows, to be compared: as bytes they are in the order of the times."""
    return np.frombuffer(b"".join([*map(_STAMP_OF, rows)]), "S16")


def _append_journal(
    shared: _Shared, txn: lmdb.Transaction[bytes], prefix: bytes, addresses: list[bytes], stored: list[bytes]
) -> None:
    """The rows are the newest journal entries; the last sequence is kept where an empty journal is not."""
    if not addresses:
        return
    (last,) = _SEQUENCE.unpack(txn.get(_SEQUENCE_KEY, _SEQUENCE.pack(0), shared.meta))
    heads = {size: _PREFIX.pack(len(prefix), size) for size in {*map(len, addresses)}}
    values = [*map(b"".join, zip(map(heads.__getitem__, map(len, addresses)), addresses, stored, strict=True))]
    keys = map(_SEQUENCE.pack, range(last + 1, last + 1 + len(values)))
    txn.cursor(shared.journal).putmulti(zip(keys, values, strict=True), append=True)
    txn.put(_SEQUENCE_KEY, _SEQUENCE.pack(last + len(values)), db=shared.meta)


def _journal_entry(key: bytes, value: bytes) -> JournalEntry:
    prefix_length, key_length = _PREFIX.unpack_from(value)
    stored = value[_PREFIX.size + key_length :]
    address = value[_PREFIX.size : _PREFIX.size + key_length]
    namespace = address[: prefix_length - 1].decode("utf-8", "surrogatepass")
    encoded = key_within(stored) or address[prefix_length:]
    return JournalEntry(_SEQUENCE.unpack(key)[0], namespace, decode_key(encoded), decode_row(stored))
