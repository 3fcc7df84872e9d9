"""What Lodestore needs from the outside, as Protocols of a handful of verbs.

Each has adapters in `lodestore.adapters`, one fake in `lodestore.testing`, and one contract suite
in tests/contracts that every one of them passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from lodestore.online import OnlineStore

__all__ = ["Clock", "Embedder", "OfflineStore", "OnlineStore", "Progress", "Registry", "VectorStore"]

# A clock is just a function: always a moment in UTC.
Clock = Callable[[], datetime]
# Told (done, of) while long work goes on.
Progress = Callable[[int, int], None]


@runtime_checkable
class Embedder(Protocol):
    """A model that turns texts into vectors."""

    @property
    def fingerprint(self) -> str:
        """Who the model is."""

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row per text, shape (len(texts), dimension)."""

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """The same for queries, with the query prompt of the model."""


class OfflineStore(Protocol):
    """Named Arrow tables that outlive the process."""

    def ensure(self, name: str, schema: pa.Schema, *, key: str | None = None) -> None:
        """The table exists with this schema; `key` is its primary key. Columns that it lacks are added, as nulls."""

    def names(self, prefix: str = "") -> list[str]:
        """The names of all tables that start so, sorted."""

    def append(self, name: str, rows: pa.Table) -> None:
        """The rows stand at the end of the table."""

    def upsert(self, name: str, rows: pa.Table, *, key: str) -> None:
        """Each row stands once under its key; the last one given wins."""

    def insert(self, name: str, rows: pa.Table, *, key: str) -> int:
        """Rows whose key is new are stored; returns how many. Existing rows stay as they are."""

    def delete(self, name: str, column: str, values: Iterable[str]) -> None:
        """No row has one of these values in that column."""

    def remove(self, name: str, where: str) -> int:
        """No row matches; returns how many were taken out, 0 for an absent table."""

    def read(self, name: str, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """The rows that match, as one table; an absent table is an empty one with no columns."""

    def batches(
        self, name: str, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """The rows that match, a bounded piece at a time."""

    def count(self, name: str, where: str | None = None) -> int:
        """How many rows match; 0 for an absent table."""

    def revision(self, name: str) -> int:
        """A number that grows with every change of the table; 0 for an absent one."""

    def drop(self, name: str) -> None:
        """The table is gone."""

    def compact(self, name: str) -> None:
        """Small pieces are merged and indexes cover every row; answers stay the same."""


class VectorStore(Protocol):
    """Search over the tables that hold vectors."""

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

    def matching(
        self, name: str, query: str, k: int, *, where: str | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The k best rows by BM25, best first, with `_score`."""

    def index(self, name: str) -> None:
        """The indexes that searches need exist and cover the rows."""

    def indexed(self, name: str) -> bool:
        """Whether a search by vector goes through an index; without one it is exact."""


class Registry(Protocol):
    """Logs that only grow."""

    def put(self, log: str, row: dict[str, object]) -> bool:
        """The row is in the log, unless its key was taken; tells which."""

    def rows(self, log: str, where: str | None = None) -> list[dict[str, object]]:
        """The rows of a log, oldest first."""
