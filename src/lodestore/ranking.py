"""Golden queries run against one version: which documents come back, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lodestore import retrieval
from lodestore.golden import GoldenSet
from lodestore.metrics import Scores, collapse, overlap, score
from lodestore.models import EmbeddingVersion
from lodestore.ports import Embedder, OfflineStore, VectorStore
from lodestore.retrieval import Mode, Titles, Weights
from lodestore.tables import quoted

__all__ = ["Ranked", "SelectiveRecall", "index_recall", "ranked", "recall_by_share"]

# Several chunks of one document count once: look deep enough to find k different documents.
_DEPTH = 5


class Searchable(VectorStore, OfflineStore, Protocol):
    """Tables that can be searched and read."""


Where = Callable[[str | Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Documents per judged query, best first, and the milliseconds that each search took."""

    documents: Mapping[str, list[str]]
    took_ms: tuple[float, ...]

    @property
    def latency_p50(self) -> float:
        """The median search, in milliseconds, without embedding the query."""
        return float(np.median(self.took_ms)) if self.took_ms else 0.0

    def scores(self, golden: GoldenSet, *, k: int = 10) -> Scores:
        """The metrics over the judged queries."""
        judged = {query.query_id: golden.judgements[query.query_id] for query in golden.judged}
        return score(self.documents, judged, k=k)


def ranked(
    store: VectorStore,
    version: EmbeddingVersion,
    embedder: Embedder,
    golden: GoldenSet,
    *,
    where: Where,
    mode: Mode = "vector",
    k: int = 10,
    within: str | None = None,
    weights: Weights | None = None,
    titles: tuple[EmbeddingVersion, Embedder] | None = None,
) -> Ranked:
    """Run every judged query against the version's table; `within` restricts all of them to some rows.

    `weights` and `titles`, the title feature's version with its model, are those of a hybrid search.
    """
    queries = golden.judged
    texts = [query.text for query in queries]
    vectors = embedder.embed_queries(texts) if mode != "text" else [None] * len(queries)
    titled = _titled(titles, texts)
    documents: dict[str, list[str]] = {}
    took: list[float] = []
    for query, vector, title in zip(queries, vectors, titled, strict=True):
        own = where(query.filter) if query.filter else None
        condition = " AND ".join(f"({one})" for one in (own, within) if one) or None
        started = time.perf_counter()
        hits = retrieval.search(
            store, version.table, query.text, vector,
            k=k * _DEPTH, mode=mode, where=condition, weights=weights, titles=title,
        )  # fmt: skip
        took.append((time.perf_counter() - started) * 1000)
        documents[query.query_id] = collapse([hit.document_id for hit in hits])[:k]
    return Ranked(documents, tuple(took))


def _titled(titles: tuple[EmbeddingVersion, Embedder] | None, texts: Sequence[str]) -> Sequence[Titles | None]:
    if titles is None:
        return [None] * len(texts)
    version, embedder = titles
    return [Titles(version.table, vector) for vector in embedder.embed_queries(texts)]


@dataclass(frozen=True, slots=True)
class SelectiveRecall:
    """What the index finds of the exact k nearest under a filter that leaves this share of the rows.

    `full` tells whether every search came back with k rows, or with as many as there are.
    """

    share: float
    recall: float
    full: bool


def recall_by_share(
    store: Searchable,
    table: str,
    vectors: Sequence[np.ndarray],
    *,
    k: int = 10,
    shares: Sequence[float] = (1.0, 0.5, 0.1, 0.01),
) -> list[SelectiveRecall]:
    """Recall of the index against exact search, for filters of each selectivity.

    The filters cut the sorted row ids: for chunks those are hashes, so the cut has nothing to do with
    what the rows say.
    """
    ids = sorted(store.read(table, ["row_id"])["row_id"].to_pylist())
    return [_under(store, table, vectors, k, share, ids) for share in shares if ids]


def _under(
    store: Searchable, table: str, vectors: Sequence[np.ndarray], k: int, share: float, ids: Sequence[str]
) -> SelectiveRecall:
    left = max(1, round(share * len(ids)))
    where = None if left == len(ids) else f"row_id <= {quoted(ids[left - 1])}"
    found, full = [], True
    for vector in vectors:
        exact = store.nearest(table, vector, k, where=where, exact=True, columns=["row_id"])["row_id"].to_pylist()
        fast = store.nearest(table, vector, k, where=where, columns=["row_id"])["row_id"].to_pylist()
        found.append(overlap(exact, fast, k))
        full = full and len(fast) == min(k, left)
    return SelectiveRecall(share, float(np.mean(found)) if found else 1.0, full)


def index_recall(store: VectorStore, table: str, vectors: Sequence[np.ndarray], *, k: int = 10) -> float:
    """The share of the exact k nearest rows that the index finds, over these query vectors."""
    found = []
    for vector in vectors:
        exact = store.nearest(table, vector, k, exact=True, columns=["row_id"])["row_id"].to_pylist()
        fast = store.nearest(table, vector, k, columns=["row_id"])["row_id"].to_pylist()
        found.append(overlap(exact, fast, k))
    return float(np.mean(found)) if found else 1.0
