"""Fakes for your own tests: stores in memory, an embedder that counts, a clock that stands still.

Each fills the port that its real counterpart fills, and passes the same contract suite. So a
pipeline can be tested without a disk, a model or a wait:

>>> store, embedder = MemoryStore(), HashEmbedder()
>>> store.ensure("notes", pa.schema([("id", pa.string()), ("text", pa.string())]), key="id")
>>> store.insert("notes", pa.table({"id": ["a", "b"], "text": ["red", "blue"]}), key="id")
2
>>> store.read("notes", ["text"], "`id` = 'b'").to_pylist()
[{'text': 'blue'}]
>>> embedder.embed_documents(["red", "blue"]).shape, embedder.embedded
((2, 16), 2)
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from threading import RLock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.adapters.memory_online import MemoryOnlineStore
from lodestore.errors import DimensionError, RequestError, StoreError
from lodestore.historical import assert_no_leak
from lodestore.vectors import normalised
from lodestore.wire import digest

__all__ = ["FrozenClock", "HashEmbedder", "MemoryOnlineStore", "MemoryStore", "assert_no_leak"]

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_WORD = re.compile(r"\w+")
# A string literal, which stays as it is, or an identifier in backticks.
_QUOTED = re.compile(r"'(?:[^']|'')*'|`([^`]*)`")
_PIECE = 1_024
# The usual constants of BM25: how fast a repeated word counts less, and how much length matters.
_K1, _B = 1.2, 0.75


class FrozenClock:
    """A clock that moves only when it is told to.

    >>> clock = FrozenClock(datetime(2026, 1, 1, tzinfo=UTC))
    >>> clock.advance(timedelta(hours=2))
    >>> clock()
    datetime.datetime(2026, 1, 1, 2, 0, tzinfo=datetime.timezone.utc)
    """

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        if now.tzinfo is None:
            message = f"the clock was set to {now.isoformat()}, which has no time zone; add tzinfo=UTC"
            raise RequestError(message)
        self._now = now.astimezone(UTC)

    def __call__(self) -> datetime:
        """The moment at which the clock stands, in UTC."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """It is later by that much; a negative length sets the clock back."""
        self._now += by


@lru_cache(maxsize=65_536)
def _direction(salt: str, word: str, dimension: int) -> np.ndarray:
    """The direction of one word: as random as its hash, and the same in every process."""
    data = hashlib.shake_256(f"{salt}\0{word}".encode("utf-8", "surrogatepass")).digest(4 * dimension)
    # The half makes a zero impossible.
    return np.frombuffer(data, dtype="<i4").astype(np.float64) + 0.5


class HashEmbedder:
    """An embedder without a model: a text is the normalised sum of its words' hashed directions.

    Texts that share words are near each other, no vector is ever zero, and two labels give two
    models whose vectors have nothing in common. `embedded` counts the documents that were embedded
    so far and `queried` the queries, so a test can say that a second run embeds nothing.
    """

    def __init__(self, dimension: int = 16, *, label: str = "hash@1") -> None:
        if dimension < 1:
            message = f"HashEmbedder({dimension}): a vector has one number or more"
            raise DimensionError(message)
        self.label = label
        self.embedded = 0
        self.queried = 0
        self._dimension = dimension
        self._fingerprint = digest({"fake": "hashed bag of words", "label": label, "dimension": dimension})

    @property
    def fingerprint(self) -> str:
        """Who the model is: its label and its dimension."""
        return self._fingerprint

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return self._dimension

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row of length one per text; `embedded` has grown by their number."""
        self.embedded += len(texts)
        return self._embed(texts)

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """The same vectors; `queried` has grown by their number."""
        self.queried += len(texts)
        return self._embed(texts)

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.array([self._sum(text) for text in texts], dtype=np.float64).reshape(len(texts), self._dimension)
        return normalised(rows)

    def _sum(self, text: str) -> np.ndarray:
        total = np.zeros(self._dimension)
        # Sorted, so that the order of words does not even change the rounding.
        for word in sorted(_WORD.findall(text.lower())):
            total += _direction(self.label, word, self._dimension)
        return total if total.any() else _direction(self.label, text, self._dimension)


class MemoryStore:
    """Tables in memory: fills the offline and the vector port, and ends with the process.

    Conditions are the same SQL as the real store's; text search is BM25 over title and text.
    Threads may share it.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._tables: dict[str, pa.Table] = {}
        self._worded: set[str] = set()
        self._revisions: Counter[str] = Counter()
        self._engine: Any = None

    # -- tables

    def ensure(self, name: str, schema: pa.Schema, *, key: str | None = None) -> None:
        """The table exists with this schema, columns that it lacks added; `key` is its primary key without nulls."""
        if not _NAME.fullmatch(name):
            message = f"table {name!r} cannot be made: a name has letters, digits, underscores, hyphens and periods"
            raise StoreError(message)
        if key is not None:
            place = schema.get_field_index(key)
            schema = schema.set(place, schema.field(place).with_nullable(False))
        with self._lock:
            table = self._tables.setdefault(name, schema.empty_table())
            for one in schema:
                if one.name not in table.column_names:
                    table = table.append_column(one.with_nullable(True), pa.nulls(table.num_rows, one.type))
            self._tables[name] = table

    def names(self, prefix: str = "") -> list[str]:
        """The names of all tables that start so, sorted."""
        with self._lock:
            return sorted(name for name in self._tables if name.startswith(prefix))

    def append(self, name: str, rows: pa.Table) -> None:
        """The rows stand at the end of the table."""
        if rows.num_rows:
            with self._lock:
                self._tables[name] = pa.concat_tables([self._existing(name), self._fitting(name, rows)])
                self._revisions[name] += 1

    def upsert(self, name: str, rows: pa.Table, *, key: str) -> None:
        """Each row stands once under its key; the last one given wins."""
        if rows.num_rows:
            with self._lock:
                fitting = self._fitting(name, rows)
                places = {value: place for place, value in enumerate(fitting[key].to_pylist())}
                self._strike(name, key, places)
                self.append(name, fitting.take(sorted(places.values())))

    def insert(self, name: str, rows: pa.Table, *, key: str) -> int:
        """Rows whose key is new are stored; returns how many. Of a key that comes twice, the first one counts."""
        if not rows.num_rows:
            return 0
        with self._lock:
            fitting = self._fitting(name, rows)
            taken = set(self._existing(name)[key].to_pylist())
            places: dict[Any, int] = {}
            for place, value in enumerate(fitting[key].to_pylist()):
                if value not in taken:
                    places.setdefault(value, place)
            self.append(name, fitting.take(pa.array(places.values(), pa.int64())))
            return len(places)

    def delete(self, name: str, column: str, values: Iterable[str]) -> None:
        """No row has one of these values in that column."""
        with self._lock:
            if name in self._tables:
                kind = self._column(name, column).type
                self._strike(name, column, [int(one) if pa.types.is_integer(kind) else one for one in values])

    def remove(self, name: str, where: str) -> int:
        """No row matches; returns how many were taken out, 0 for an absent table."""
        with self._lock:
            if not self.count(name):
                return 0
            gone = set(self._places(name, where).to_pylist())
            table = self._tables[name]
            if gone:
                kept = [place for place in range(table.num_rows) if place not in gone]
                self._tables[name] = table.take(pa.array(kept, pa.int64()))
                self._revisions[name] += 1
            return len(gone)

    def read(self, name: str, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """The rows that match, as one table; an absent table is an empty one with no columns."""
        with self._lock:
            if name not in self._tables:
                return pa.table({column: pa.array([], pa.null()) for column in columns or ()})
            return self._picked(self._where(name, where), name, columns)

    def batches(
        self, name: str, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """The rows that match, a bounded piece at a time."""
        self._existing(name)
        return self.read(name, columns, where).to_reader(max_chunksize=_PIECE)

    def count(self, name: str, where: str | None = None) -> int:
        """How many rows match; 0 for an absent table."""
        return self.read(name, None, where).num_rows

    def revision(self, name: str) -> int:
        """A number that grows with every change of the table; 0 for an absent one."""
        with self._lock:
            return self._revisions[name] + 1 if name in self._tables else 0

    def drop(self, name: str) -> None:
        """The table is gone."""
        with self._lock:
            self._revisions[name] += 1
            self._tables.pop(name, None)
            self._worded.discard(name)

    def compact(self, name: str) -> None:
        """The table is one piece."""
        with self._lock:
            if name in self._tables:
                self._tables[name] = self._tables[name].combine_chunks()

    # -- search

    def nearest(
        self,
        name: str,
        vector: np.ndarray,
        k: int,
        *,
        where: str | None = None,
        exact: bool = False,  # noqa: ARG002 - this search is never anything else
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """The k nearest rows by cosine, best first, with `_score` in [-1, 1]."""
        with self._lock:
            self._column(name, "vector")
            rows = self._where(name, where)
        rows = rows.filter(pc.is_valid(rows["vector"]))
        query = np.asarray(vector, dtype=np.float64)
        held = rows.schema.field("vector").type.list_size
        if len(query) != held:
            message = f"the query has {len(query)} numbers, table {name} holds vectors of {held}"
            raise DimensionError(message)
        return self._ranked(rows, _cosines(_matrix(rows["vector"], held), query), name, k, columns)

    def matching(
        self, name: str, query: str, k: int, *, where: str | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The k best rows by BM25, best first, with `_score`; `StoreError` for rows that `index` never saw."""
        with self._lock:
            self._check_words(name)
            texts = [self._column(name, column).to_pylist() for column in ("title", "text")]
            scores = _bm25([_words(" ".join(filter(None, row))) for row in zip(*texts, strict=True)], _words(query))
            rows = self._where(name, where, scores)
        found = rows["_score"].to_numpy()
        return self._ranked(rows.drop_columns(["_score"]), np.where(found > 0, found, np.nan), name, k, columns)

    def index(self, name: str) -> None:
        """Text can be searched. There is nothing to build: every search looks at every row."""
        with self._lock:
            self._existing(name)
            self._worded.add(name)

    def indexed(self, name: str) -> bool:
        """Whether the table has an index over its vectors: never."""
        self._existing(name)
        return False

    # -- parts

    def _existing(self, name: str) -> pa.Table:
        if name not in self._tables:
            message = f"table {name} is not in the store in memory; run the job that makes it"
            raise StoreError(message)
        return self._tables[name]

    def _check_words(self, name: str) -> None:
        # The real store needs the index, so a test that forgets it has to fail here too.
        if self._existing(name).num_rows and name not in self._worded:
            message = f"table {name} has no text index; call index() before text is searched"
            raise StoreError(message)

    def _column(self, name: str, column: str) -> pa.ChunkedArray:
        self._picked(self._existing(name), name, [column])
        return self._tables[name][column]

    def _picked(self, rows: pa.Table, name: str, columns: Sequence[str] | None) -> pa.Table:
        unknown = sorted(set(columns or ()) - set(rows.column_names))
        if unknown:
            message = f"table {name} has no column {unknown[0]}; it has: {', '.join(rows.column_names)}"
            raise StoreError(message)
        return rows if columns is None else rows.select(list(columns))

    def _fitting(self, name: str, rows: pa.Table) -> pa.Table:
        schema = self._existing(name).schema
        try:
            return rows.select(schema.names).cast(schema)
        except (KeyError, ValueError, pa.ArrowException) as error:
            message = f"table {name} cannot be written: {error}"
            raise StoreError(message) from error

    def _strike(self, name: str, column: str, values: Iterable[Any]) -> None:
        table = self._tables[name]
        among = pc.is_in(table[column], value_set=pa.array(list(values), table.schema.field(column).type))
        self._tables[name] = table.filter(pc.invert(among))
        self._revisions[name] += 1

    def _where(self, name: str, where: str | None, scores: np.ndarray | None = None) -> pa.Table:
        rows = self._existing(name)
        if scores is not None:
            rows = rows.append_column("_score", pa.array(scores, pa.float64()))
        return rows if where is None else rows.take(self._places(name, where))

    def _places(self, name: str, where: str) -> pa.Array:
        """The places of the rows for which the condition is true, by DuckDB."""
        import duckdb

        if self._engine is None:
            self._engine = duckdb.connect(config={"enable_external_access": "false", "threads": 1})
        self._engine.register("rows", _numbered(self._tables[name]))
        try:
            found = self._engine.execute(f'SELECT "_place" FROM rows WHERE {_in_double_quotes(where)}').fetchnumpy()  # noqa: S608 - a condition is SQL by contract
        except duckdb.Error as error:
            message = f"table {name} cannot be read: {str(error).splitlines()[0]}"
            raise StoreError(message) from error
        finally:
            self._engine.unregister("rows")
        return pa.array(np.sort(found["_place"]), pa.int64())

    def _ranked(self, rows: pa.Table, scores: np.ndarray, name: str, k: int, columns: Sequence[str] | None) -> pa.Table:
        """The k rows with the highest scores; a row whose score is NaN is not found at all."""
        if k < 1:
            message = f"table {name} cannot be searched: k is {k}; give 1 or more"
            raise StoreError(message)
        found = np.flatnonzero(~np.isnan(scores))
        best = found[np.argsort(-scores[found], kind="stable")][:k]
        picked = self._picked(rows, name, columns).take(pa.array(best, pa.int64()))
        return picked.append_column("_score", pa.array(scores[best], pa.float64()))


def _numbered(table: pa.Table) -> pa.Table:
    """The columns that a condition can name, moments as plain UTC, and each row's place."""
    columns = {
        field.name: table[field.name].cast(pa.timestamp("us"))
        if pa.types.is_timestamp(field.type)
        else table[field.name]
        for field in table.schema
        if not pa.types.is_fixed_size_list(field.type)
    }
    return pa.table({**columns, "_place": pa.array(np.arange(table.num_rows))})


def _in_double_quotes(where: str) -> str:
    """The condition with its identifiers as DuckDB writes them.

    >>> print(_in_double_quotes("`user` = 'a`b`'"))
    "user" = 'a`b`'
    """
    return _QUOTED.sub(lambda found: found[0] if found[1] is None else '"' + found[1].replace('"', '""') + '"', where)


def _matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    # The list's own flatten() knows of slices; its values do not.
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    joined = np.concatenate(flat) if flat else np.zeros(0)
    return joined.reshape(-1, width).astype(np.float64)


def _cosines(matrix: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The cosine of each row with the query; NaN where one of the two has no direction."""
    lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
    scores = np.divide(matrix @ query, lengths, out=np.full(len(matrix), np.nan), where=lengths > 0)
    return np.clip(scores, -1.0, 1.0)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _bm25(documents: Sequence[Sequence[str]], query: Sequence[str]) -> np.ndarray:
    """The BM25 score of each document (Robertson and Zaragoza, 2009); 0 where no word matches."""
    counts = [Counter(words) for words in documents]
    lengths = np.array([len(words) for words in documents], dtype=np.float64)
    scores = np.zeros(len(documents))
    longer = 1 - _B + _B * lengths / (lengths.mean() or 1.0) if len(documents) else lengths
    for word in set(query):
        often = np.array([count[word] for count in counts], dtype=np.float64)
        having = np.count_nonzero(often)
        rarity = np.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
        scores += rarity * often * (_K1 + 1) / (often + _K1 * longer)
    return scores
