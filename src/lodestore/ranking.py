"""Golden queries run against one version: which documents come back, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lodestore import retrieval
from lodestore.golden import GoldenSet
from lodestore.metrics import Scores, collapse, overlap, score
from lodestore.models import EmbeddingVersion
from lodestore.ports import Embedder, VectorStore
from lodestore.retrieval import Mode

__all__ = ["Ranked", "index_recall", "ranked"]

# Several chunks of one document count once: look deep enough to find k different documents.
_DEPTH = 5

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
) -> Ranked:
    """Run every judged query against the version's table; `within` restricts all of them to some rows."""
    queries = golden.judged
    vectors = embedder.embed_queries([query.text for query in queries]) if mode != "text" else [None] * len(queries)
    documents: dict[str, list[str]] = {}
    took: list[float] = []
    for query, vector in zip(queries, vectors, strict=True):
        own = where(query.filter) if query.filter else None
        condition = " AND ".join(f"({one})" for one in (own, within) if one) or None
        started = time.perf_counter()
        hits = retrieval.search(store, version.table, query.text, vector, k=k * _DEPTH, mode=mode, where=condition)
        took.append((time.perf_counter() - started) * 1000)
        documents[query.query_id] = collapse([hit.document_id for hit in hits])[:k]
    return Ranked(documents, tuple(took))


def index_recall(store: VectorStore, table: str, vectors: Sequence[np.ndarray], *, k: int = 10) -> float:
    """The share of the exact k nearest rows that the index finds, over these query vectors."""
    found = []
    for vector in vectors:
        exact = store.nearest(table, vector, k, exact=True, columns=["row_id"])["row_id"].to_pylist()
        fast = store.nearest(table, vector, k, columns=["row_id"])["row_id"].to_pylist()
        found.append(overlap(exact, fast, k))
    return float(np.mean(found)) if found else 1.0
