"""Golden queries asked of one embedding version, and how well it answers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lodestore import golden, retrieval
from lodestore.errors import GoldenError, nearest
from lodestore.filters import parse
from lodestore.golden import GoldenQuery, GoldenSet
from lodestore.live import Live
from lodestore.metrics import Scores, collapse, score
from lodestore.ports import OfflineStore
from lodestore.retrieval import Mode
from lodestore.settings import GoldenFiles, Settings
from lodestore.store import COLUMNS

__all__ = ["Evaluation", "evaluate", "golden_set", "rankings"]

# So many chunks are ranked for each query: ten documents are found even where each has many chunks.
_DEPTH = 100
_SEED = 20


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How one version answered one golden set."""

    release: int
    version: str
    mode: Mode
    golden: str
    scores: Scores
    unjudged: int
    unknown_documents: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The answer of `evaluate`."""
        out: dict[str, Any] = {"release": self.release, "version": self.version, "mode": self.mode}
        out |= {"golden": self.golden, "queries": len(self.scores), "unjudged": self.unjudged}
        out |= {name: one.to_json() for name, one in self.scores.summary(seed=_SEED).items()}
        return out | {"unknown_documents": list(self.unknown_documents)}


def golden_set(settings: Settings, name: str | None = None) -> GoldenSet:
    """The declared golden set of that name; without a name the first one."""
    declared: Mapping[str, GoldenFiles] = {one.name: one for one in settings.golden}
    if not declared:
        message = "no golden set is declared; add [golden] with queries and qrels to the settings"
        raise GoldenError(message)
    chosen = declared.get(name) if name else settings.golden[0]
    if chosen is None:
        message = f"unknown golden set {name!r}{nearest(str(name), declared)}"
        raise GoldenError(message)
    return golden.read(chosen.name, settings.root / chosen.queries, settings.root / chosen.qrels)


def evaluate(asked: GoldenSet, live: Live, store: OfflineStore, *, mode: Mode = "vector") -> Evaluation:
    """Every judged query is asked of the content version of `live` and scored by its documents.

    Judgements of documents that the store does not have are left out and listed: they may be
    retired, or not read yet.
    """
    version = live.version("content")
    known = set(store.read("documents", ["document_id"])["document_id"].to_pylist())
    resolved = golden.resolve(asked, known, missing="drop")
    lost = tuple(one for one in asked.documents if one not in known and not _by_source_id(one, known))
    if not resolved.judged:
        message = f"golden set {asked.name!r}: none of its judged documents is in the store; run: lodestore run ingest"
        raise GoldenError(message)
    found = rankings(live, resolved.judged, mode=mode)
    judged = {one.query_id: resolved.judgements[one.query_id] for one in resolved.judged}
    counts = (score(found, judged), len(asked.queries) - len(judged))
    return Evaluation(live.release.generation, version.label, mode, asked.name, *counts, unknown_documents=lost)


def _by_source_id(document: str, known: set[str]) -> bool:
    return any(one.partition("/")[2] == document for one in known)


def rankings(live: Live, queries: tuple[GoldenQuery, ...], *, mode: Mode) -> dict[str, list[str]]:
    """For each query the documents that the content version finds, best first."""
    texts = [one.text for one in queries]
    vectors: list[np.ndarray | None] = [None] * len(texts) if mode == "text" else list(live.embed(texts))
    table = live.version("content").table
    out = {}
    for query, vector in zip(queries, vectors, strict=True):
        where = parse(query.filter, COLUMNS).sql() if query.filter else None
        hits = retrieval.search(live.vectors, table, query.text, vector, k=_DEPTH, mode=mode, where=where)
        out[query.query_id] = collapse([hit.document_id for hit in hits])
    return out
