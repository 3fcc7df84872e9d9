"""What a comparison found: signals become verdicts within one error budget for the whole run.

A signal says drift only when it is both large (value above limit) and sure (its p-value). Sure means
Holm's step-down over all features of the run, so that `alpha` bounds the chance that a run without
any drift raises anything. A feature divides its part of the budget among its signals by their shares.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["ALPHA", "MIN_ROWS", "Drift", "Evidence", "Report", "Signal", "Verdict", "judge"]

ALPHA = 0.01
MIN_ROWS = 30
_POWER = 0.85
_EIGHTH = 0.125  # the shift of a normal curve whose KS distance is 0.05
_LOCATION = 0.65  # the weight that the test for a shift has among those of a number


class Verdict(enum.StrEnum):
    """What a comparison says about one feature."""

    DRIFT = "drift"
    NONE = "none"
    INSUFFICIENT_DATA = "insufficient_data"


@dataclass(frozen=True, slots=True)
class Signal:
    """One measured value with its limit; `p` is None where the value alone settles it."""

    measure: str
    value: float
    limit: float
    p: float | None
    share: float = 1.0
    told: str = ""

    @property
    def large(self) -> bool:
        """Whether the change is large enough to matter, if it is real."""
        return self.value > self.limit

    @property
    def way(self) -> str:
        """The measure, the two distances of numbers under one name: which of them is told varies from window to window."""
        return self.measure[:-3] + "ks" if self.measure.endswith("psi") else self.measure

    @property
    def power(self) -> int:
        """How the value grows with the change: a stability index with its square."""
        return 2 if self.measure.endswith("psi") else 1

    @property
    def times(self) -> float:
        """How many times its limit the change is.

        >>> Signal("psi", 0.08, 0.02, 0.5).times, Signal("ks", 0.1, 0.05, 0.5).times
        (2.0, 2.0)
        """
        return float((self.value / self.limit) ** (1 / self.power)) if self.limit else 0.0

    @property
    def budgeted(self) -> float:
        """The p-value as the feature's budget sees it: 1 for a change too small to matter.

        >>> Signal("null_share", 0.04, 0.01, 0.001, share=0.2).budgeted
        0.005
        """
        if not self.large:
            return 1.0
        return 0.0 if self.p is None else min(1.0, self.p / self.share)

    def line(self) -> str:
        """The measure against its limit, and what was seen."""
        sure = "" if self.p is None else f", p {self.p:.2g}"
        told = f": {self.told}" if self.told else ""
        return f"{self.measure} {self.value:.4g} (limit {self.limit:.4g}{sure}){told}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one feature before the run as a whole is judged."""

    feature: str
    kind: str
    signals: tuple[Signal, ...] = ()
    baseline: Mapping[str, Any] = field(default_factory=dict)
    current: Mapping[str, Any] = field(default_factory=dict)
    n_baseline: int = 0
    n_current: int = 0
    note: str = ""
    settled: Verdict | None = None

    def within_budget(self) -> Evidence:
        """The same evidence with the shares of its signals adding up to one."""
        total = sum(one.share for one in self.signals if one.p is not None)
        scaled = (one if one.p is None else replace(one, share=one.share / total) for one in self.signals)
        return replace(self, signals=tuple(scaled))


@dataclass(frozen=True, slots=True)
class Drift:
    """One feature, compared: the signal that speaks loudest, the verdict, and both sides in numbers."""

    feature: str
    kind: str
    measure: str
    value: float | None
    limit: float | None
    p: float | None
    verdict: Verdict
    baseline: Mapping[str, Any]
    current: Mapping[str, Any]
    explanation: str
    n_baseline: int
    n_current: int
    signals: tuple[Signal, ...] = ()

    @property
    def drifted(self) -> bool:
        """Whether the verdict is drift."""
        return self.verdict is Verdict.DRIFT

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON-ready values."""
        return {
            "feature": self.feature,
            "kind": self.kind,
            "measure": self.measure,
            "value": self.value,
            "limit": self.limit,
            "p": self.p,
            "verdict": self.verdict.value,
            "baseline": _finite(self.baseline),
            "current": _finite(self.current),
            "explanation": self.explanation,
            "n": {"baseline": self.n_baseline, "current": self.n_current},
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A whole comparison: every feature of either side, judged as one family."""

    rows_baseline: int
    rows_current: int
    features: tuple[Drift, ...]
    alpha: float = ALPHA

    @property
    def sees(self) -> float | None:
        """The smallest shift of one number, in standard deviations, that is found in 85 of 100 windows; None without rows.

        A normal test for two means at this run's budget; below an eighth no shift is large enough to matter.
        """
        from scipy.special import ndtri

        judged = sum(one.verdict is not Verdict.INSUFFICIENT_DATA for one in self.features)
        if not self.rows_baseline * self.rows_current * judged:
            return None
        sure = -float(ndtri(_LOCATION * self.alpha / judged / 2)) + float(ndtri(_POWER))
        return max(_EIGHTH, sure * math.sqrt(1 / self.rows_baseline + 1 / self.rows_current))

    @property
    def drifted(self) -> tuple[str, ...]:
        """The names of the features that drifted."""
        return tuple(one.feature for one in self.features if one.drifted)

    def __getitem__(self, feature: str) -> Drift:
        """The finding on one feature."""
        return {one.feature: one for one in self.features}[feature]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {
            "rows": {"baseline": self.rows_baseline, "current": self.rows_current},
            "features": [one.to_dict() for one in self.features],
            "drifted": list(self.drifted),
            "alpha": self.alpha,
            "sees_shift": self.sees,
        }


def judge(evidence: Sequence[Evidence], *, alpha: float = ALPHA) -> tuple[Drift, ...]:
    """Every feature has its verdict; `alpha` bounds the chance of any false alarm among them.

    Holm (1979): the features are taken in the order of their smallest budgeted p-value, the i-th of
    m is drift while that is at most alpha / (m - i).
    """
    ready = [one.within_budget() for one in evidence]
    open_cases = [at for at, one in enumerate(ready) if one.settled is None and one.signals]
    order = sorted(open_cases, key=lambda at: _smallest(ready[at]))
    levels = {at: alpha / (len(order) - place) for place, at in enumerate(order)}
    guilty: set[int] = set()
    for at in order:
        if _smallest(ready[at]) > levels[at]:
            break
        guilty.add(at)
    return tuple(_drift(one, at in guilty, levels.get(at, alpha)) for at, one in enumerate(ready))


def _smallest(evidence: Evidence) -> float:
    return min(one.budgeted for one in evidence.signals)


def _drift(evidence: Evidence, guilty: bool, level: float) -> Drift:
    """The evidence with its verdict and its words."""
    if guilty:
        verdict = Verdict.DRIFT
        spoken = [one for one in evidence.signals if one.budgeted <= level]
        words = "; ".join([one.line() for one in spoken] + ([evidence.note] if evidence.note else []))
    elif evidence.settled is not None or not evidence.signals:
        verdict = evidence.settled or Verdict.INSUFFICIENT_DATA
        words = evidence.note
    else:
        verdict = Verdict.NONE
        words = evidence.note or "no change that is both large and sure"
    loudest = min(evidence.signals, key=lambda one: one.budgeted, default=None)
    return Drift(
        evidence.feature,
        evidence.kind,
        loudest.measure if loudest else "presence",
        loudest.value if loudest else None,
        loudest.limit if loudest else None,
        loudest.p if loudest else None,
        verdict,
        evidence.baseline,
        evidence.current,
        words,
        evidence.n_baseline,
        evidence.n_current,
        evidence.signals,
    )


def _finite(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary with None where JSON has no such number."""
    return {key: None if isinstance(one, float) and not math.isfinite(one) else one for key, one in summary.items()}
