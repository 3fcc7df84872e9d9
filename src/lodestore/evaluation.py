"""Golden queries asked of one embedding version, and how well it answers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lodestore import golden
from lodestore.errors import GoldenError, RequestError, nearest
from lodestore.golden import GoldenQuery, GoldenSet
from lodestore.metrics import Scores
from lodestore.ranking import ranked
from lodestore.retrieval import Mode
from lodestore.store import compiled

if TYPE_CHECKING:
    from lodestore.project import Project

__all__ = ["Evaluation", "evaluate", "golden_set"]

_SEED = 20
_MOST = 100


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How one version answered one golden set."""

    release: int
    version: str
    mode: Mode
    golden: str
    scores: Scores
    unjudged: int
    latency_ms: float
    asked: GoldenSet | None = None
    found: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # Judged queries of which the store has no relevant document; they count as answered by nothing that is wanted.
    unanswerable: int = 0

    @property
    def segments(self) -> dict[str, Scores]:
        """The scores of each segment that the queries name."""
        members: dict[str, list[str]] = {}
        for query in self.asked.judged if self.asked else ():
            if query.segment is not None:
                members.setdefault(query.segment, []).append(query.query_id)
        return {name: self.scores.only(ids) for name, ids in sorted(members.items())}

    def worst(self, count: int = 5) -> list[dict[str, Any]]:
        """The queries with the lowest nDCG, the worst first: what they ask, what they want, what they got."""
        queries = {query.query_id: query for query in self.asked.judged} if self.asked else {}
        order = np.argsort(self.scores.ndcg, kind="stable")
        ranked = [(self.scores.query_ids[place], float(self.scores.ndcg[place])) for place in order]
        return [self._told(queries[one], value) for one, value in ranked[:count] if one in queries and value < 1]

    def _told(self, query: GoldenQuery, value: float) -> dict[str, Any]:
        judged = self.asked.judgements[query.query_id] if self.asked else {}
        told: dict[str, Any] = {"id": query.query_id, "text": query.text, f"ndcg@{self.scores.k}": value}
        told |= {"segment": query.segment, "wanted": [one for one, grade in judged.items() if grade > 0]}
        return told | {"found": list(self.found.get(query.query_id, ()))[:3]}

    def to_json(self) -> dict[str, Any]:
        """The answer of `evaluate`."""
        out: dict[str, Any] = {"release": self.release, "version": self.version, "mode": self.mode}
        out |= {"golden": self.golden, "queries": len(self.scores), "unjudged": self.unjudged}
        out["unanswerable"] = self.unanswerable
        out |= {name: one.to_json() for name, one in self.scores.summary(seed=_SEED).items()}
        out |= {"latency_ms": {"p50": round(self.latency_ms, 3)}}
        segments = {name: _summary(scores) for name, scores in self.segments.items()}
        return out | {"segments": segments, "worst": self.worst()}


def _summary(scores: Scores) -> dict[str, Any]:
    return {
        "queries": len(scores),
        **{name: one.to_json() for name, one in scores.summary(seed=_SEED).items()},
    }


def golden_set(project: Project, name: str | None = None) -> GoldenSet:
    """The declared golden set of that name, its documents by their full ids; without a name all of them as one."""
    declared = {one.name: one for one in project.settings.golden}
    if name is None:
        every = project.changes.golden()
        if every is None:
            message = "no golden set is declared; add [golden] with queries and qrels to the settings"
            raise GoldenError(message)
        return every
    if name not in declared:
        message = f"unknown golden set {name!r}{nearest(name, declared)}"
        raise GoldenError(message)
    chosen, root = declared[name], project.settings.root
    asked = golden.read(chosen.name, root / chosen.queries, root / chosen.qrels)
    return golden.resolve(asked, project.corpus.ever_seen())


def evaluate(
    project: Project, *, label: str | None = None, name: str | None = None, mode: Mode = "vector", k: int = 10
) -> Evaluation:
    """Every judged query is asked of the live content version, or of that of `label`, and scored by its k documents."""
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= _MOST:
        message = f"k is {k!r}; give a whole number of documents from 1 to {_MOST}"
        raise RequestError(message)
    live = project.live()
    version = live.version("content") if label is None else project.versions.find("content", label)
    asked = golden_set(project, name)
    if not asked.judged:
        message = f"golden set {asked.name!r} has no judged query; write judgements into its qrels"
        raise GoldenError(message)
    weights, titles = live.weights, None
    if mode == "hybrid" and weights.title and "title" in live.versions:
        titles = (live.versions["title"], project.embedder(live.versions["title"]))
    found = ranked(
        project.tables, version, project.embedder(version), asked,
        where=compiled, mode=mode, k=k, weights=weights, titles=titles,
    )  # fmt: skip
    there = frozenset(project.tables.read("documents", ["document_id"])["document_id"].to_pylist())
    lost = len(asked.judged) - len(asked.answerable(there).judged)
    counts = (found.scores(asked, k=k), len(asked.unjudged), found.latency_p50)
    return Evaluation(live.release.generation, version.label, mode, asked.name, *counts, asked, found.documents, lost)
