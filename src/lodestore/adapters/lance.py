"""LanceDB as the system of record: tables, vector and text search, logs that only grow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.errors import LodestoreError, StoreError, StoreWriteError
from lodestore.tables import in_list

__all__ = ["INDEX_FROM", "LanceStore"]

# Below this many rows an exact scan is as fast as an index, and never wrong.
INDEX_FROM = 20_000
# What a text search looks into.
TEXT_COLUMNS = ("title", "text")
_IDS_PER_DELETE = 500
_PRIMARY_KEY = {b"lance-schema:unenforced-primary-key": b"true"}
_WRITE_TROUBLE = (
    ("No space left", "the disk is full; free some room and run again: nothing that was there is lost"),
    ("os error 28", "the disk is full; free some room and run again: nothing that was there is lost"),
    ("Read-only file system", "the disk is read-only; mount it for writing or move the store with LODESTORE_HOME"),
    ("os error 30", "the disk is read-only; mount it for writing or move the store with LODESTORE_HOME"),
    ("Permission denied", "this user may not write there; change the rights or move the store with LODESTORE_HOME"),
    ("os error 13", "this user may not write there; change the rights or move the store with LODESTORE_HOME"),
)


@contextmanager
def _telling(act: str, uri: str) -> Iterator[None]:
    """Turn what the engine raises into an error that says what to do."""
    try:
        yield
    except LodestoreError:
        raise
    except Exception as error:
        text = str(error)
        for word, way_out in _WRITE_TROUBLE:
            if word in text:
                message = f"{act}: {uri}: {way_out}"
                raise StoreWriteError(message) from error
        message = f"{act}: {uri}: {text.splitlines()[0] if text else type(error).__name__}"
        raise StoreError(message) from error


def _with_key(schema: pa.Schema, key: str | None) -> pa.Schema:
    if key is None:
        return schema
    place = schema.get_field_index(key)
    field = schema.field(place).with_nullable(False).with_metadata(_PRIMARY_KEY)
    return schema.set(place, field)


def _last_of_each(rows: pa.Table, key: str) -> pa.Table:
    """One row per key: the last one. A merge would insert both rows of a key that comes twice."""
    if pc.count_distinct(rows[key]).as_py() == rows.num_rows:
        return rows
    places = {value: place for place, value in enumerate(rows[key].to_pylist())}
    return rows.take(sorted(places.values()))


class LanceStore:
    """One LanceDB database. Fills the offline, vector and registry ports; opens lazily, keeps handles."""

    def __init__(
        self, uri: str, *, storage: Mapping[str, str] | None = None, consistency: timedelta = timedelta(0)
    ) -> None:
        self.uri = uri
        self._storage = dict(storage or {})
        self._consistency = consistency
        self._lock = Lock()
        self._handles: dict[str, Any] = {}
        self._connection: Any = None

    @property
    def _db(self) -> Any:  # noqa: ANN401 - lancedb ships no types
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection

    def _connect(self) -> Any:  # noqa: ANN401
        import lancedb

        with _telling("the store cannot be opened", self.uri):
            if "://" not in self.uri:
                Path(self.uri).mkdir(parents=True, exist_ok=True)
            return lancedb.connect(
                self.uri, read_consistency_interval=self._consistency, storage_options=self._storage or None
            )

    def _open(self, name: str) -> Any:  # noqa: ANN401
        """The table's handle, or None when there is no such table."""
        handle = self._handles.get(name)
        if handle is None and name in self.names(name):
            with _telling(f"table {name} cannot be opened", self.uri):
                handle = self._db.open_table(name)
            self._handles[name] = handle
        return handle

    def _existing(self, name: str) -> Any:  # noqa: ANN401
        handle = self._open(name)
        if handle is None:
            message = f"table {name} is not in the store {self.uri}; run the job that makes it"
            raise StoreError(message)
        return handle

    # -- tables

    def ensure(self, name: str, schema: pa.Schema, *, key: str | None = None) -> None:
        """The table exists with this schema; `key` is its primary key."""
        if self._open(name) is not None:
            return
        with _telling(f"table {name} cannot be made", self.uri):
            self._handles[name] = self._db.create_table(name, schema=_with_key(schema, key), exist_ok=True)

    def names(self, prefix: str = "") -> list[str]:
        """The names of all tables that start so, sorted."""
        with _telling("the tables cannot be listed", self.uri):
            found: list[str] = []
            token = None
            while True:
                answer = self._db.list_tables(page_token=token, limit=1000)
                found += answer.tables
                token = answer.page_token
                if not token:
                    return sorted(name for name in found if name.startswith(prefix))

    def _fitting(self, handle: Any, rows: pa.Table) -> pa.Table:  # noqa: ANN401
        return rows.select(handle.schema.names).cast(handle.schema)

    def append(self, name: str, rows: pa.Table) -> None:
        """The rows stand at the end of the table."""
        if rows.num_rows:
            handle = self._existing(name)
            with _telling(f"table {name} cannot be written", self.uri):
                handle.add(self._fitting(handle, rows))

    def upsert(self, name: str, rows: pa.Table, *, key: str) -> None:
        """Each row stands once under its key; the last one given wins."""
        if rows.num_rows:
            handle = self._existing(name)
            rows = self._fitting(handle, _last_of_each(rows, key))
            with _telling(f"table {name} cannot be written", self.uri):
                merge = handle.merge_insert(key).when_matched_update_all().when_not_matched_insert_all()
                merge.use_index(False).execute(rows)

    def insert(self, name: str, rows: pa.Table, *, key: str) -> int:
        """Rows whose key is new are stored; returns how many."""
        if not rows.num_rows:
            return 0
        handle = self._existing(name)
        rows = self._fitting(handle, _last_of_each(rows, key))
        with _telling(f"table {name} cannot be written", self.uri):
            merge = handle.merge_insert(key).when_not_matched_insert_all().use_index(False)
            return int(merge.execute(rows).num_inserted_rows)

    def delete(self, name: str, column: str, values: Iterable[str]) -> None:
        """No row has one of these values in that column."""
        ids = list(values)
        handle = self._open(name)
        if handle is None:
            return
        for start in range(0, len(ids), _IDS_PER_DELETE):
            with _telling(f"table {name} cannot be written", self.uri):
                handle.delete(in_list(column, ids[start : start + _IDS_PER_DELETE]))

    def read(self, name: str, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """The rows that match, as one table; an absent table is an empty one with no columns."""
        handle = self._open(name)
        if handle is None:
            return pa.table({column: pa.array([], pa.null()) for column in columns or ()})
        with _telling(f"table {name} cannot be read", self.uri):
            return self._scan(handle, columns, where).to_arrow()

    def batches(
        self, name: str, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """The rows that match, a bounded piece at a time."""
        handle = self._existing(name)
        with _telling(f"table {name} cannot be read", self.uri):
            return self._scan(handle, columns, where).to_batches()

    def _scan(self, handle: Any, columns: Sequence[str] | None, where: str | None) -> Any:  # noqa: ANN401
        query = handle.search()
        if where is not None:
            query = query.where(where)
        return query.select(list(columns)) if columns is not None else query

    def count(self, name: str, where: str | None = None) -> int:
        """How many rows match; 0 for an absent table."""
        handle = self._open(name)
        if handle is None:
            return 0
        with _telling(f"table {name} cannot be read", self.uri):
            return int(handle.count_rows(where))

    def drop(self, name: str) -> None:
        """The table is gone."""
        self._handles.pop(name, None)
        if name in self.names(name):
            with _telling(f"table {name} cannot be dropped", self.uri):
                self._db.drop_table(name)

    def compact(self, name: str) -> None:
        """Small pieces are merged and indexes cover every row."""
        handle = self._open(name)
        if handle is not None:
            with _telling(f"table {name} cannot be compacted", self.uri):
                handle.optimize()

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
        """The k nearest rows by cosine, best first, with `_score` in [-1, 1]."""
        handle = self._existing(name)
        with _telling(f"table {name} cannot be searched", self.uri):
            query = handle.search(np.asarray(vector, dtype=np.float32), vector_column_name="vector")
            query = query.distance_type("cosine").limit(k)
            query = query.bypass_vector_index() if exact else query.refine_factor(4).nprobes(32)
            if where is not None:
                query = query.where(where, prefilter=True)
            if columns is not None:
                query = query.select([*columns, "_distance"])
            found = query.to_arrow()
        scores = pc.subtract(1.0, pc.cast(found["_distance"], pa.float64()))
        return found.drop_columns(["_distance"]).append_column("_score", scores)

    def matching(
        self, name: str, query: str, k: int, *, where: str | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The k best rows by BM25, best first, with `_score`."""
        from lancedb.query import MultiMatchQuery

        handle = self._existing(name)
        with _telling(f"table {name} cannot be searched", self.uri):
            # A match query takes the words as words: no operator of a query language gets through.
            search = handle.search(MultiMatchQuery(query, list(TEXT_COLUMNS)), query_type="fts").limit(k)
            if where is not None:
                search = search.where(where, prefilter=True)
            if columns is not None:
                search = search.select([*columns, "_score"])
            return search.to_arrow()

    def index(self, name: str) -> None:
        """The indexes that searches need exist and cover the rows."""
        from lancedb.index import FTS, HnswSq

        handle = self._existing(name)
        with _telling(f"table {name} cannot be indexed", self.uri):
            rows = handle.count_rows()
            have = {column for one in handle.list_indices() for column in one.columns}
            for column in TEXT_COLUMNS:
                if rows and column not in have:
                    handle.create_index(column, config=FTS(with_position=False), replace=True)
            if rows >= INDEX_FROM and "vector" not in have:
                handle.create_index("vector", config=HnswSq(distance_type="cosine"), replace=True)
            if have:
                handle.optimize()

    def indexed(self, name: str) -> bool:
        """Whether the table has an index over its vectors."""
        handle = self._existing(name)
        return any("vector" in one.columns for one in handle.list_indices())
