"""Golden queries asked of one embedding version, and how well it answers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lodestore import golden
from lodestore.errors import GoldenError, nearest
from lodestore.golden import GoldenSet
from lodestore.metrics import Scores
from lodestore.project import Project
from lodestore.ranking import ranked
from lodestore.retrieval import Mode
from lodestore.store import compiled

__all__ = ["Evaluation", "evaluate", "golden_set"]

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
    latency_ms: float

    def to_json(self) -> dict[str, Any]:
        """The answer of `evaluate`."""
        out: dict[str, Any] = {"release": self.release, "version": self.version, "mode": self.mode}
        out |= {"golden": self.golden, "queries": len(self.scores), "unjudged": self.unjudged}
        out |= {name: one.to_json() for name, one in self.scores.summary(seed=_SEED).items()}
        return out | {"latency_ms": {"p50": round(self.latency_ms, 3)}}


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
    project: Project, *, label: str | None = None, name: str | None = None, mode: Mode = "vector"
) -> Evaluation:
    """Every judged query is asked of the live content version, or of that of `label`, and scored by its documents."""
    live = project.live()
    version = live.version("content") if label is None else project.versions.find("content", label)
    asked = golden_set(project, name)
    if not asked.judged:
        message = f"golden set {asked.name!r} has no judged query; write judgements into its qrels"
        raise GoldenError(message)
    found = ranked(project.tables, version, project.embedder(version), asked, where=compiled, mode=mode)
    counts = (found.scores(asked), len(asked.unjudged), found.latency_p50)
    return Evaluation(live.release.generation, version.label, mode, asked.name, *counts)
