"""LanceDB as the system of record: tables, vector and text search, logs that only grow."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.adapters.lance_reading import LanceReading
from lodestore.errors import DimensionError, LodestoreError, ReadingGoneError, StoreError, StoreWriteError
from lodestore.tables import in_list, retired

__all__ = ["EF", "INDEX_FROM", "PROBES", "REFINE", "TEXT_COLUMNS", "LanceStore", "Tail", "ef"]

_T = TypeVar("_T")

# Below this many rows an exact scan is as fast as an index, and never wrong.
INDEX_FROM = 20_000
# What a search by vector looks at: partitions of the index, and exact distances for this many times k rows.
# Measured at 100,000 x 384 (benchmarks/retrieval.py): the engine's own defaults find 0.89 of the ten nearest, these
# find all of them, unfiltered and under filters that leave 50, 10 and 1 % of the rows.
PROBES = 32
REFINE = 4
# How many neighbours the graph keeps in hand. At 1,000,000 x 384 the engine's own 1.5 x k x refine finds 0.82 of the ten
# nearest in 8.9 ms, 128 finds 0.98, 256 all of them in 9.9 ms.
EF = 256
# What a text search looks into.
TEXT_COLUMNS = ("title", "text")
_IDS_PER_DELETE = 500
# What readings keep in memory of indexes and of files at most: the engine's own limits. A million rows of 384 numbers
# fill less than 1 GiB; an index that does not fit is read again for each search.
_INDEX_BYTES = 6 << 30
_FILE_BYTES = 1 << 30
# A scan costs some 300 microseconds a piece, so that narrow rows come in large pieces: a million rows of six columns
# took 0.66 s in the engine's own pieces of 1,024 and takes 0.08 s in these. Texts have no known width.
_ROWS_PER_PIECE = 65_536
_TEXTS_PER_PIECE = 1_024
_BYTES_PER_PIECE = 4 << 20
_PRIMARY_KEY = {b"lance-schema:unenforced-primary-key": b"true"}
_WRITE_TROUBLE = (
    ("No space left", "the disk is full; free some room and run again: nothing that was there is lost"),
    ("os error 28", "the disk is full; free some room and run again: nothing that was there is lost"),
    ("os error 27", "a file may not grow any more; raise the limit, free some room and run again: nothing is lost"),
    ("os error 122", "the quota of the disk is used up; free some room and run again: nothing that was there is lost"),
    ("Read-only file system", "the disk is read-only; mount it for writing or {elsewhere}"),
    ("os error 30", "the disk is read-only; mount it for writing or {elsewhere}"),
    ("Permission denied", "this user may not write there; change the rights or {elsewhere}"),
    ("os error 13", "this user may not write there; change the rights or {elsewhere}"),
)
# What object stores say, in the words of the engine's client for them.
_REMOTE_TROUBLE = (
    ("NoSuchBucket", "there is no such bucket; make it, or name another one"),
    ("No object store provider", "no such kind of store is known; write a folder, s3://, gs:// or az://"),
    ("credentials", "no credentials were found for it; {keys}"),
    ("InvalidAccessKeyId", "it does not know the credentials; {keys}"),
    ("SignatureDoesNotMatch", "it does not take the credentials; {keys}"),
    ("AccessDenied", "it refuses access; give the credentials the right to list, read, write and delete there"),
    ("kind: Connect", "it cannot be reached; look at the network and at the endpoint ({endpoint})"),
    ("dns error", "it cannot be reached; look at the network and at the endpoint ({endpoint})"),
)
_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or aws_access_key_id and aws_secret_access_key under [store.storage]"
_ENDPOINT = "AWS_ENDPOINT, or aws_endpoint under [store.storage]"
# Where in its own source the engine noticed a fault helps nobody here.
_RUST_PLACE = re.compile(r",? ?\S+\.rs:\d+:\d+|, location: Location \{.*|, backtrace: .*")
_LOOKS = frozenset({"read", "searched"})
_GONE = re.compile(r"not found", re.IGNORECASE)
_OTHER_LENGTH = re.compile(
    r"query dim\((\d+)\) doesn't match the column \S+ \S+ dim\((\d+)\)"
    r"|Query vector size (\d+) does not match index column size (\d+)"
)


@contextmanager
def _telling(act: str, uri: str, elsewhere: str) -> Iterator[None]:
    """Turn what the engine raises into an error that says what to do."""
    try:
        yield
    except LodestoreError:
        raise
    except Exception as error:
        text = str(error)
        for word, way_out in _WRITE_TROUBLE:
            if word in text:
                message = f"{act}: {uri}: {way_out.format(elsewhere=elsewhere)}"
                raise StoreWriteError(message) from error
        for word, way_out in _REMOTE_TROUBLE if "://" in uri else ():
            if word in text:
                message = f"{act}: {uri}: {way_out.format(keys=_KEYS, endpoint=_ENDPOINT)}"
                raise StoreError(message) from error
        told = _RUST_PLACE.sub("", text.splitlines()[0]) if text else type(error).__name__
        message = f"{act}: {uri}: {told}"
        raise StoreError(message) from error


def _folder(uri: str, elsewhere: str) -> None:
    """The store's folder exists, when it is a local one; otherwise say why it cannot."""
    if "://" in uri:
        return
    try:
        Path(uri).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        message = f"the store cannot be opened: {uri} is a file or lies below one; {elsewhere}"
        raise StoreError(message) from error
    except OSError as error:
        message = (
            f"the store cannot be made: {uri}: {error.strerror}; change the rights, free some room, or {elsewhere}"
        )
        raise StoreWriteError(message) from error


def _with_key(schema: pa.Schema, key: str | None) -> pa.Schema:
    if key is None:
        return schema
    place = schema.get_field_index(key)
    field = schema.field(place).with_nullable(False).with_metadata(_PRIMARY_KEY)
    return schema.set(place, field)


def _one_of_each(rows: pa.Table, key: str, *, last: bool) -> pa.Table:
    """One row per key, the last or the first. A merge would insert both rows of a key that comes twice."""
    if pc.count_distinct(rows[key], mode="all").as_py() == rows.num_rows:
        return rows
    numbered = list(enumerate(rows[key].to_pylist()))
    places = {value: place for place, value in (numbered if last else reversed(numbered))}
    return rows.take(sorted(places.values()))


def _fitting(handle: Any, rows: pa.Table) -> pa.Table:  # noqa: ANN401 - lancedb ships no types
    return rows.select(handle.schema.names).cast(handle.schema)


def _among(handle: Any, column: str, values: Iterable[str]) -> str:  # noqa: ANN401 - lancedb ships no types
    """The condition that the column has one of the values, each written as the column's type wants it."""
    if pa.types.is_integer(handle.schema.field(column).type):
        return f"`{column}` IN ({', '.join(str(int(value)) for value in values)})"
    return in_list(f"`{column}`", values)


def _scan(handle: Any, columns: Sequence[str] | None, where: str | None) -> pa.RecordBatchReader:  # noqa: ANN401
    query = handle.search()
    if where is not None:
        query = query.where(where)
    if columns is not None:
        query = query.select(list(columns))
    kinds = [one.type for one in handle.schema if columns is None or one.name in columns]
    return query.to_batches(min(map(_rows_per_piece, kinds), default=_TEXTS_PER_PIECE))


def _rows_per_piece(kind: pa.DataType) -> int:
    """How many values of this type one piece of a scan holds."""
    if pa.types.is_fixed_size_list(kind):
        return max(1, min(_ROWS_PER_PIECE, _BYTES_PER_PIECE // (4 * kind.list_size)))
    return _TEXTS_PER_PIECE if pa.types.is_large_string(kind) or pa.types.is_nested(kind) else _ROWS_PER_PIECE


def _indexed_columns(handle: Any) -> set[str]:  # noqa: ANN401
    return {column for one in handle.list_indices() for column in one.columns}


def _nothing(columns: Sequence[str] | None) -> pa.Table:
    return pa.table({column: pa.array([], pa.null()) for column in columns or ()})


@dataclass(frozen=True, slots=True)
class Tail:
    """How much of a table its vector index covers. What it does not cover is searched exactly, and slowly."""

    rows: int
    unindexed: int

    @property
    def share(self) -> float:
        """The part that the index does not cover, in [0, 1]."""
        return self.unindexed / self.rows if self.rows else 0.0


class LanceStore:
    """One LanceDB database. Fills the offline, vector and registry ports; opens lazily, keeps handles.

    Tables of at least `index_from` rows get an index over their vectors. `elsewhere` is what somebody may do who finds
    no room or no right to write here.
    """

    def __init__(
        self,
        uri: str,
        *,
        storage: Mapping[str, str] | None = None,
        consistency: timedelta = timedelta(0),
        index_from: int = INDEX_FROM,
        elsewhere: str = "name another [store] uri, or move the store with LODESTORE_HOME",
    ) -> None:
        self.uri = uri
        self._elsewhere = elsewhere
        self.storage = dict(storage or {})
        self._consistency = consistency
        self._index_from = index_from
        self._lock = Lock()
        self._handles: dict[str, Any] = {}
        self._worded: set[str] = set()
        self._readings: dict[str, tuple[float, Any, LanceReading]] = {}
        self._seen: dict[str, int] = {}
        self._changes: dict[str, int] = {}
        self._session: Any = None
        self._had_tables = False
        self._connection: Any = None

    def _telling(self, act: str) -> AbstractContextManager[None]:
        return _telling(act, self.uri, self._elsewhere)

    @property
    def _db(self) -> Any:  # noqa: ANN401 - lancedb ships no types
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection

    def _connect(self) -> Any:  # noqa: ANN401
        # Nobody here reads an index's centroids; the engine warns on stderr unless it is told so.
        os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")
        import lancedb

        _folder(self.uri, self._elsewhere)
        with self._telling("the store cannot be opened"):
            return lancedb.connect(
                self.uri, read_consistency_interval=self._consistency, storage_options=self.storage or None
            )

    def _open(self, name: str) -> Any:  # noqa: ANN401
        """The table's handle, or None when there is no such table."""
        handle = self._handles.get(name)
        if handle is None:
            try:
                handle = self._db.open_table(name)
            except ValueError as error:
                if not _is_gone(error):
                    raise
                self._check_there()
                return None
            self._handles[name] = handle
            self._had_tables = True
        return handle

    def _check_there(self) -> None:
        """A store that had tables has some still. One that is not mounted any more must not pass for an empty one."""
        if self._had_tables and not self._db.list_tables(limit=1).tables:
            message = f"the store {self.uri} had tables and has none now; mount it, move it back, or restore a backup"
            raise StoreError(message)

    def _on(self, name: str, act: str, work: Callable[[Any], _T], *, absent: Callable[[], _T] | None = None) -> _T:
        """What `work` gives for the table's handle; `absent()`, or else an error, when there is no such table.

        A kept handle whose table another process dropped is let go, and the work is tried once more.
        """
        try:
            with self._telling(f"table {name} cannot be {act}"):
                try:
                    return self._once(name, work, absent)
                except (RuntimeError, OSError, ValueError) as error:
                    if isinstance(error, LodestoreError) or not _is_gone(error):
                        raise
                    self._let_go(name)
                    return self._once(name, work, absent)
        finally:
            if act not in _LOOKS:
                self._changed(name)

    def _changed(self, name: str) -> None:
        """What is there now is seen by the next reading, whatever `consistency` says, and none that is being opened is kept."""
        self._changes[name] = self._changes.get(name, 0) + 1
        self._readings.pop(name, None)

    def _once(self, name: str, work: Callable[[Any], _T], absent: Callable[[], _T] | None) -> _T:
        handle = self._open(name)
        if handle is not None:
            return work(handle)
        if absent is not None:
            return absent()
        message = f"table {name} is not in the store {self.uri}; run the job that makes it"
        raise StoreError(message)

    def _let_go(self, name: str) -> None:
        self._handles.pop(name, None)
        self._worded.discard(name)
        self._changed(name)
        self._seen.pop(name, None)

    # -- tables

    def ensure(self, name: str, schema: pa.Schema, *, key: str | None = None) -> None:
        """The table exists with this schema; `key` is its primary key. Columns that it lacks are added, as nulls."""

        def widen(handle: Any) -> None:  # noqa: ANN401
            # Asking for the version notices that another process dropped the table of a kept handle.
            _ = handle.version
            missing = [one for one in schema if one.name not in handle.schema.names]
            if missing:
                handle.add_columns([one.with_nullable(True) for one in missing])

        def make() -> None:
            self._handles[name] = self._db.create_table(name, schema=_with_key(schema, key), exist_ok=True)
            self._had_tables = True

        self._on(name, "made", widen, absent=make)

    def names(self, prefix: str = "") -> list[str]:
        """The names of all tables that start so, sorted."""
        with self._telling("the tables cannot be listed"):
            found: list[str] = []
            token = None
            while True:
                answer = self._db.list_tables(page_token=token, limit=1000)
                found += answer.tables
                token = answer.page_token
                if not token:
                    return sorted(name for name in found if name.startswith(prefix))

    def append(self, name: str, rows: pa.Table) -> None:
        """The rows stand at the end of the table."""
        if rows.num_rows:
            self._on(name, "written", lambda handle: handle.add(_fitting(handle, rows)))

    def upsert(self, name: str, rows: pa.Table, *, key: str) -> None:
        """Each row stands once under its key; the last one given wins."""

        def merge(handle: Any) -> None:  # noqa: ANN401
            fitting = _fitting(handle, _one_of_each(rows, key, last=True))
            # Only a merge without an index notices that another process inserted the same key.
            change = handle.merge_insert(key).when_matched_update_all().when_not_matched_insert_all()
            change.use_index(False).execute(fitting)

        if rows.num_rows:
            self._on(name, "written", merge)

    def insert(self, name: str, rows: pa.Table, *, key: str) -> int:
        """Rows whose key is new are stored; returns how many. Of a key that comes twice, the first one counts."""

        def merge(handle: Any) -> int:  # noqa: ANN401
            fitting = _fitting(handle, _one_of_each(rows, key, last=False))
            change = handle.merge_insert(key).when_not_matched_insert_all().use_index(False)
            return int(change.execute(fitting).num_inserted_rows)

        return self._on(name, "written", merge) if rows.num_rows else 0

    def delete(self, name: str, column: str, values: Iterable[str]) -> None:
        """No row has one of these values in that column."""
        ids = list(values)

        def strike(handle: Any) -> None:  # noqa: ANN401
            for start in range(0, len(ids), _IDS_PER_DELETE):
                handle.delete(_among(handle, column, ids[start : start + _IDS_PER_DELETE]))

        self._on(name, "written", strike, absent=lambda: None)

    def remove(self, name: str, where: str) -> int:
        """No row matches; returns how many were taken out, 0 for an absent table."""

        def strike(handle: Any) -> int:  # noqa: ANN401
            # Asked first: a delete that finds nothing would still be a commit.
            return int(handle.delete(where).num_deleted_rows) if handle.count_rows(where) else 0

        return self._on(name, "written", strike, absent=lambda: 0)

    def read(self, name: str, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """The rows that match, as one table; an absent table is an empty one with no columns."""
        return self._on(
            name, "read", lambda handle: _scan(handle, columns, where).read_all(), absent=lambda: _nothing(columns)
        )

    def batches(
        self, name: str, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """The rows that match, a bounded piece at a time."""
        reader = self._on(name, "read", lambda handle: _scan(handle, columns, where))
        return pa.RecordBatchReader.from_batches(reader.schema, self._pieces(name, reader))

    def _pieces(self, name: str, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        with self._telling(f"table {name} cannot be read"):
            yield from reader

    def count(self, name: str, where: str | None = None) -> int:
        """How many rows match; 0 for an absent table."""
        return self._on(name, "read", lambda handle: int(handle.count_rows(where)), absent=lambda: 0)

    def revision(self, name: str) -> int:
        """A number that grows with every change of the table; 0 for an absent one. Costs half a millisecond."""
        found = self._on(name, "read", lambda handle: int(handle.version), absent=lambda: 0)
        self._seen[name] = found
        return found

    def drop(self, name: str) -> None:
        """The table is gone."""
        self._let_go(name)
        if name in self.names(name):
            with self._telling(f"table {name} cannot be dropped"):
                self._db.drop_table(name, ignore_missing=True)
            self._had_tables = bool(self.names())
        self._let_go(name)

    def compact(self, name: str, *, keep: timedelta | None = None) -> None:
        """Small pieces are merged and indexes cover every row; files of states older than `keep` are gone.

        A reader that still has such a state open fails, so `keep` is longer than any reading takes;
        by default the engine keeps seven days.
        """
        self._on(name, "compacted", lambda handle: handle.optimize(cleanup_older_than=keep), absent=lambda: None)

    # -- copies

    def copy(self, name: str, to: LanceStore, *, revision: int) -> None:
        """The other store has the table as it was at that revision, with its indexes and without its past.

        The files of that state have to be there still; otherwise a `ReadingGoneError`. A table of that name in the other
        store is replaced.
        """
        to.drop(name)
        with to._telling(f"table {name} cannot be copied"), self._of_then(name):
            self._at(name, revision).deep_clone(to.place(name), (None, revision), storage_options=to.storage or None)

    def scan(self, name: str, *, revision: int) -> pa.RecordBatchReader:
        """Every row of the table as it was at that revision, in its order, a bounded piece at a time."""
        with self._telling(f"table {name} cannot be read"), self._of_then(name):
            reader = self._at(name, revision).scanner(batch_size=_TEXTS_PER_PIECE, scan_in_order=True).to_reader()
        return pa.RecordBatchReader.from_batches(reader.schema, self._pieces_of_then(name, reader))

    def _pieces_of_then(self, name: str, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        with self._telling(f"table {name} cannot be read"), self._of_then(name):
            yield from reader

    @contextmanager
    def _of_then(self, name: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError, ValueError) as error:
            if not _is_gone(error):
                raise
            message = f"table {name} of {self.uri}: files of the state that was asked for were taken away"
            raise ReadingGoneError(message) from error

    def place(self, name: str) -> str:
        """Where the table's files lie."""
        return f"{self.uri.rstrip('/')}/{name}.lance"

    def _at(self, name: str, revision: int) -> Any:  # noqa: ANN401 - lance ships no types
        import lance

        return lance.dataset(self.place(name), version=revision, storage_options=self.storage or None)

    # -- search

    def nearest(
        self,
        name: str,
        vector: np.ndarray,
        k: int,
        *,
        where: str | None = None,
        exact: bool = False,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """The k nearest rows by cosine, best first, with `_score` in [-1, 1].

        An index that finds fewer than k, as it may under a filter that leaves few rows, is asked past:
        then every row is looked at, so that k come back wherever there are k.
        """

        def find(handle: Any) -> pa.Table:  # noqa: ANN401
            found = look(handle, exact=exact)
            short = found.num_rows < k and not exact and "vector" in _indexed_columns(handle)
            return look(handle, exact=True) if short else found

        def look(handle: Any, *, exact: bool) -> pa.Table:  # noqa: ANN401
            query = handle.search(np.asarray(vector, dtype=np.float32), vector_column_name="vector")
            query = query.distance_type("cosine").limit(k)
            query = query.bypass_vector_index() if exact else query.refine_factor(REFINE).nprobes(PROBES).ef(ef(k))
            if where is not None:
                query = query.where(where, prefilter=True)
            if columns is not None:
                query = query.select([*columns, "_distance"])
            return query.to_arrow()

        try:
            found = self._on(name, "searched", find)
        except StoreError as error:
            other = _of_other_length(error, name)
            if other is not None:
                raise other from error
            raise
        # Rounding takes the cosine of a vector with itself a little beyond 1.
        scores = np.clip(1.0 - found["_distance"].to_numpy().astype(np.float64), -1.0, 1.0)
        return found.drop_columns(["_distance"]).append_column("_score", pa.array(scores))

    def matching(
        self, name: str, query: str, k: int, *, where: str | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The k best rows by BM25, best first, with `_score`; `StoreError` for rows that `index` never saw."""
        from lancedb.query import MultiMatchQuery

        def find(handle: Any) -> pa.Table:  # noqa: ANN401
            self._check_words(handle, name)
            # A match query takes the words as words: no operator of a query language gets through.
            search = handle.search(MultiMatchQuery(query, list(TEXT_COLUMNS)), query_type="fts").limit(k)
            if where is not None:
                search = search.where(where, prefilter=True)
            if columns is not None:
                search = search.select([*columns, "_score"])
            return search.to_arrow()

        return self._on(name, "searched", find)

    def _check_words(self, handle: Any, name: str) -> None:  # noqa: ANN401
        """Rows without a text index would be searched by other rules: case would count, and every form of a word."""
        if name in self._worded:
            return
        missing = sorted(set(TEXT_COLUMNS) - _indexed_columns(handle))
        if not missing:
            self._worded.add(name)
        elif handle.count_rows():
            message = (
                f"table {name} has no text index over {' and '.join(missing)}; "
                "run its embedding job again, or call index() before text is searched"
            )
            raise StoreError(message)

    def reading(self, name: str) -> LanceReading:
        """The table at its newest version, or at one that was the newest less than `consistency` ago.

        It is never older than what `revision` told of the table.
        """

        def current(handle: Any) -> LanceReading:  # noqa: ANN401
            changes, kept = self._changes.get(name, 0), self._readings.get(name)
            now = monotonic()
            fresh = kept is not None and now - kept[0] < self._consistency.total_seconds()
            if kept is not None and fresh and kept[2].version >= self._seen.get(name, 0):
                return kept[2]
            dataset = self._dataset(name) if kept is None else kept[1]
            newest = dataset.latest_version
            if kept is None or newest != kept[2].version:
                found = self._reading(handle, name, dataset.checkout_version(newest))
            else:
                found = kept[2]
            if self._changes.get(name, 0) == changes:
                self._readings[name] = (now, dataset, found)
            return found

        return self._on(name, "searched", current)

    def _dataset(self, name: str) -> Any:  # noqa: ANN401 - lance ships no types
        import lance

        with self._lock:
            if self._session is None:
                sizes = {"index_cache_size_bytes": _INDEX_BYTES, "metadata_cache_size_bytes": _FILE_BYTES}
                self._session = lance.Session(**sizes)
        return lance.dataset(self.place(name), storage_options=self.storage or None, session=self._session)

    def _reading(self, handle: Any, name: str, dataset: Any) -> LanceReading:  # noqa: ANN401
        @contextmanager
        def telling() -> Iterator[None]:
            try:
                with self._telling(f"table {name} cannot be searched"):
                    yield
            except StoreError as error:
                if _GONE.search(str(error.__cause__)):
                    self._changed(name)  # the next reading opens the table anew
                    raise ReadingGoneError(str(error)) from error
                other = _of_other_length(error, name)
                if other is not None:
                    raise other from error
                raise

        return LanceReading(
            dataset,
            worded=lambda: self._check_words(handle, name),
            telling=telling,
            probes=PROBES,
            refine=REFINE,
            ef=ef,
            text_columns=TEXT_COLUMNS,
        )

    def index(self, name: str) -> None:
        """The indexes that searches need exist and cover the rows; an empty table gets its text index too."""
        self._on(name, "indexed", self._index)

    def _index(self, handle: Any) -> None:  # noqa: ANN401
        from lancedb.index import FTS, HnswSq

        have = _indexed_columns(handle)
        for column in TEXT_COLUMNS:
            if column in handle.schema.names and column not in have:
                handle.create_index(column, config=FTS(with_position=False), replace=True)
        # What left a table is only ever searched exactly.
        past = handle.name.endswith(retired(""))
        if handle.count_rows() >= self._index_from and "vector" not in have and not past:
            handle.create_index("vector", config=HnswSq(distance_type="cosine"), replace=True)
        # Many small commits made the table: whole pieces are searched in a third of the time.
        handle.optimize()

    def rebuild(self, name: str) -> None:
        """The index over the vectors is made anew of all rows; an exact table stays without one."""

        def make(handle: Any) -> None:  # noqa: ANN401
            from lancedb.index import HnswSq

            if "vector" in _indexed_columns(handle):
                handle.create_index("vector", config=HnswSq(distance_type="cosine"), replace=True)

        self._on(name, "indexed", make)

    def tail(self, name: str) -> Tail:
        """How many rows the vector index has not seen; without an index none counts, for then none is needed."""

        def measure(handle: Any) -> Tail:  # noqa: ANN401
            named = [one.name for one in handle.list_indices() if "vector" in one.columns]
            figures = handle.index_stats(named[0]) if named else None
            return Tail(handle.count_rows(), figures.num_unindexed_rows if figures else 0)

        return self._on(name, "read", measure)

    def probing(self, name: str) -> Mapping[str, object]:
        """How a search by vector goes through this table: exact, or with which index and how thoroughly."""
        if not self.indexed(name):
            return {"index": None}
        return {
            "index": "IVF_HNSW_SQ",
            "nprobes": PROBES,
            "refine": REFINE,
            "ef": EF,
            "unindexed": self.tail(name).unindexed,
        }

    def indexed(self, name: str) -> bool:
        """Whether the table has an index over its vectors."""
        return self._on(name, "read", lambda handle: "vector" in _indexed_columns(handle))


def _is_gone(error: Exception) -> bool:
    """Whether a table or a file of it is not there; a bucket that is not there is another matter."""
    text = str(error)
    return bool(_GONE.search(text)) and "NoSuchBucket" not in text


def ef(k: int) -> int:
    """How wide the graph is searched for k rows: never less than what is refined.

    >>> ef(10), ef(1_000)
    (256, 6000)
    """
    return max(EF, 3 * k * REFINE // 2)


def _of_other_length(error: StoreError, name: str) -> DimensionError | None:
    """The error for a query of another length than the table's vectors, if this is what went wrong."""
    found = _OTHER_LENGTH.search(str(error))
    if found is None:
        return None
    asked, held = (one for one in found.groups() if one is not None)
    message = (
        f"the query has {asked} numbers, table {name} holds vectors of {held}; "
        "embed the query with the model of that table"
    )
    return DimensionError(message)
