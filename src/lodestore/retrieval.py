"""Retrieval: vector, text and hybrid search over one version's table, and the noun that comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from lodestore.errors import RequestError
from lodestore.ports import VectorStore
from lodestore.tables import FILTERABLE

__all__ = ["MAX_K", "Hit", "Mode", "SearchResult", "checked_query", "fuse", "search"]

Mode = Literal["hybrid", "vector", "text"]
MODES: tuple[Mode, ...] = ("hybrid", "vector", "text")
MAX_K = 1_000
_LONGEST_QUERY = 20_000
# Reciprocal rank fusion: Cormack, Clarke and Buettcher (2009) found 60 to be a good constant.
_RRF = 60
# Each side of a hybrid search offers this many candidates for each hit that is asked for.
_CANDIDATES = 4
_COLUMNS = ("row_id", "text", "start", "end", *FILTERABLE)


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk that answers. `score` is the cosine, the BM25 score or the fused score, by mode."""

    chunk_id: str
    document_id: str
    score: float
    title: str
    uri: str
    text: str
    start: int
    end: int
    source: str
    category: str | None = None
    vector_rank: int | None = None
    text_rank: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The hit as JSON types."""
        return {key: value for key, value in asdict(self).items() if value is not None or key == "category"}


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, and by which release and version they were found."""

    release: int
    version: str
    mode: Mode
    took_ms: float
    hits: tuple[Hit, ...]
    degraded: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The answer of `search`."""
        out: dict[str, Any] = {"release": self.release, "version": self.version, "mode": self.mode}
        out |= {"took_ms": round(self.took_ms, 3), "hits": [hit.to_json() for hit in self.hits]}
        return out | ({"degraded": list(self.degraded)} if self.degraded else {})


def checked_query(query: str, *, k: int, mode: str) -> None:
    """The query, the number of hits and the mode make sense; otherwise say which does not."""
    if not isinstance(query, str) or not query.strip():
        message = "the query is empty; give it some words"
        raise RequestError(message)
    if len(query) > _LONGEST_QUERY:
        message = f"the query has {len(query):,} characters; at most {_LONGEST_QUERY:,} are searched"
        raise RequestError(message)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
        message = f"k is {k!r}; give a whole number from 1 to {MAX_K:,}"
        raise RequestError(message)
    if mode not in MODES:
        message = f"mode is {mode!r}; known: {', '.join(MODES)}"
        raise RequestError(message)


def fuse(rankings: Sequence[Sequence[str]], *, weights: Sequence[float] | None = None) -> list[tuple[str, float]]:
    """Ids with their reciprocal-rank-fusion score, best first; ties keep the order of the first ranking.

    >>> [name for name, _ in fuse([["a", "b"], ["b", "c"]])]
    ['b', 'a', 'c']
    """
    scores: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, name in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + weight / (_RRF + rank)
    return sorted(scores.items(), key=lambda one: -one[1])


def search(
    store: VectorStore,
    table: str,
    query: str,
    vector: np.ndarray | None,
    *,
    k: int,
    mode: Mode,
    where: str | None = None,
) -> list[Hit]:
    """The k best rows of one table. `vector` is the query's, by the model of that very table."""
    if mode == "text":
        return [
            _hit(row, row["_score"])
            for row in store.matching(table, query, k, where=where, columns=_COLUMNS).to_pylist()
        ]
    if vector is None:
        message = f"mode {mode} needs the query's vector"
        raise RequestError(message)
    if mode == "vector":
        found = store.nearest(table, vector, k, where=where, columns=_COLUMNS)
        return [_hit(row, row["_score"]) for row in found.to_pylist()]
    depth = max(k * _CANDIDATES, 20)
    near = store.nearest(table, vector, depth, where=where, columns=_COLUMNS)
    matching = store.matching(table, query, depth, where=where, columns=_COLUMNS)
    return _fused(near, matching, k)


def _fused(near: pa.Table, matching: pa.Table, k: int) -> list[Hit]:
    rankings = [near["row_id"].to_pylist(), matching["row_id"].to_pylist()]
    rows = {row["row_id"]: row for table in (matching, near) for row in table.to_pylist()}
    places = [{name: rank for rank, name in enumerate(one, start=1)} for one in rankings]
    return [
        _hit(rows[name], score, vector_rank=places[0].get(name), text_rank=places[1].get(name))
        for name, score in fuse(rankings)[:k]
    ]


def _hit(row: Mapping[str, Any], score: float, **ranks: int | None) -> Hit:
    return Hit(
        chunk_id=row["row_id"],
        document_id=row["document_id"],
        score=float(score),
        title=row["title"] or "",
        uri=row["uri"] or "",
        text=row["text"],
        start=row["start"],
        end=row["end"],
        source=row["source"],
        category=row["category"],
        **ranks,
    )
