"""The gate: whether a version may take the place of the live one, measured and written down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from lodestore.errors import SettingsError
from lodestore.metrics import Interval, Scores, bootstrap_mean, overlap, paired_bootstrap
from lodestore.wire import jsonable

if TYPE_CHECKING:
    from lodestore.canary import CanaryReading
    from lodestore.pipeline import VersionHealth

__all__ = ["GateOptions", "GateReport", "Measured", "Verdict", "compared", "judge"]

_SEED = 20_260_101  # the bootstrap gives the same interval on every machine


class Verdict(StrEnum):
    """What the gate says."""

    PASSED = "passed"
    REFUSED = "refused"
    UNHEALTHY = "unhealthy"
    INSUFFICIENT_QUERIES = "insufficient_queries"


@dataclass(frozen=True, slots=True)
class GateOptions:
    """`[gate]`: what a new embedding version has to reach.

    `replay` is how many logged or golden questions are put to the live release and to the one that would
    follow, for the report: whose citations and prompts change. 0 leaves that out.
    """

    tolerance: float = 0.02
    min_queries: int = 50
    min_recall: float = 0.98
    replay: int = 50

    def __post_init__(self) -> None:
        if self.replay < 0:
            message = f"replay is {self.replay}; give the number of questions, or 0 for none"
            raise SettingsError(message)


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of two versions over the same queries, and their paired difference."""

    name: str
    candidate: Interval
    live: Interval
    difference: Interval


@dataclass(frozen=True, slots=True)
class GateReport:
    """Everything that the decision was made on; kept with the release."""

    key: str
    label: str
    live_label: str | None
    verdict: Verdict
    reasons: tuple[str, ...]
    queries: int
    metrics: tuple[Measured, ...] = ()
    overlap: float | None = None
    index_recall: float | None = None
    coverage: float = 0.0
    canary: float | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    preview: Mapping[str, Any] | None = None

    @property
    def passed(self) -> bool:
        """Whether the version may go live by itself."""
        return self.verdict is Verdict.PASSED

    @property
    def healthy(self) -> bool:
        """Whether a person may promote it: a loss can be accepted, a broken table cannot."""
        return self.verdict is not Verdict.UNHEALTHY

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {name: jsonable(value) for name, value in asdict(self).items()}

    def dumped(self) -> str:
        """The report as text for the log."""
        return json.dumps(self.to_json(), ensure_ascii=False)

    def markdown(self) -> str:
        """The report as a person reads it."""
        head = f"**{self.label}** against {self.live_label or 'nothing'}: **{self.verdict}**"
        lines = [head, "", *(f"- {reason}" for reason in self.reasons), ""]
        if self.metrics:
            lines += ["| metric | candidate | live | difference |", "| --- | --- | --- | --- |"]
            lines += [
                f"| {m.name} | {_shown(m.candidate)} | {_shown(m.live)} | {_shown(m.difference)} |"
                for m in self.metrics
            ]
        facts = {"queries": self.queries, "coverage": self.coverage, "overlap@10": self.overlap}
        facts |= {"index recall@10": self.index_recall, "canary (smallest cosine)": self.canary}
        facts |= {f"{name} latency p50 (ms)": value for name, value in self.latency_ms.items()}
        lines += ["", *(f"- {name}: {value:.4g}" for name, value in facts.items() if value is not None)]
        return "\n".join(lines)


def _shown(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def compared(candidate: Scores, live: Scores) -> tuple[Measured, ...]:
    """nDCG, recall and reciprocal rank of both, over the same queries in the same order."""
    pairs = {
        f"ndcg@{candidate.k}": (candidate.ndcg, live.ndcg),
        f"recall@{candidate.k}": (candidate.recall, live.recall),
        "mrr": (candidate.mrr, live.mrr),
    }
    return tuple(
        Measured(
            name,
            bootstrap_mean(ours, seed=_SEED),
            bootstrap_mean(theirs, seed=_SEED),
            paired_bootstrap(ours, theirs, seed=_SEED),
        )
        for name, (ours, theirs) in pairs.items()
    )


def mean_overlap(candidate: Sequence[Sequence[str]], live: Sequence[Sequence[str]]) -> float:
    """The mean share of the first ten documents that both versions return."""
    return float(np.mean([overlap(ours, theirs, 10) for ours, theirs in zip(candidate, live, strict=True)]))


def judge(
    *,
    key: str,
    label: str,
    live_label: str | None,
    health: VersionHealth,
    canary: CanaryReading | None,
    index_recall: float | None,
    metrics: tuple[Measured, ...],
    queries: int,
    options: GateOptions,
    overlap_at_10: float | None = None,
    latency_ms: Mapping[str, float] | None = None,
    searched: bool = True,
    unanswerable: int = 0,
) -> GateReport:
    """Decide from what was measured.

    Health comes first and nothing overrides it. A first version needs health only, and so does one that
    no query searches: golden queries tell nothing of what users asked. Otherwise the
    lower bound of the paired bootstrap of nDCG@10 has to stay above minus the tolerance, over at
    least `min_queries` judged queries. `unanswerable` ones, of which the store has no relevant document, are not among
    them.
    """
    ill = _illness(health, canary, index_recall, options)
    if ill or live_label is None or not searched:
        enough = "a first version needs health only" if searched else "no golden set applies to it: health is enough"
        verdict, reasons = (Verdict.UNHEALTHY, ill) if ill else (Verdict.PASSED, [enough])
    else:
        verdict, reasons = _verdict(metrics, queries, unanswerable, options)
    return GateReport(
        key,
        label,
        live_label,
        verdict,
        tuple(reasons),
        queries,
        metrics,
        overlap_at_10,
        index_recall,
        health.coverage,
        canary.smallest if canary else None,
        dict(latency_ms or {}),
    )


def _verdict(
    metrics: tuple[Measured, ...], queries: int, unanswerable: int, options: GateOptions
) -> tuple[Verdict, list[str]]:
    if queries < options.min_queries or not queries:
        said = f"{queries} judged golden queries, {options.min_queries} are needed (gate.min_queries); a person decides"
        lost = f"{unanswerable} more have no relevant document in the store: see lodestore doctor"
        return Verdict.INSUFFICIENT_QUERIES, [said, lost] if unanswerable else [said]
    ndcg = metrics[0]
    bound = f"the difference of {ndcg.name} is {_shown(ndcg.difference)}, the lower bound may be {-options.tolerance:g}"
    return (Verdict.PASSED if ndcg.difference.low > -options.tolerance else Verdict.REFUSED), [bound]


def _illness(
    health: VersionHealth, canary: CanaryReading | None, index_recall: float | None, options: GateOptions
) -> list[str]:
    faults = [] if health.healthy else [f"the table is not fit to serve: {health.why_not()}"]
    if canary is not None and not canary.alive:
        faults.append(f"the running model is not the registered one: smallest cosine {canary.smallest:.4f}")
    if index_recall is not None and index_recall < options.min_recall:
        faults.append(f"the index finds {index_recall:.3f} of the exact ten nearest; {options.min_recall} is needed")
    return faults
