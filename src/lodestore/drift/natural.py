"""How much the windows of a feature differ by themselves, and limits that fit such a feature.

The default limits know sampling alone. Where whole weeks differ from each other (campaigns, seasons, releases),
a window is one draw among weeks and not so many draws among rows. What neighbouring windows of
the past differ by tells how wide that draw is, as the moving range does in a control chart (Shewhart,
1931): a change of level counts once in it, and the largest distance is left out, so that a drift
which lasts does not become its own excuse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lodestore.drift.verdict import Evidence, Signal

__all__ = ["LEAST_WINDOWS", "Natural", "calibrated", "learned"]

LEAST_WINDOWS = 8
_OVERDISPERSED = 0.05  # how sure it has to be that windows differ by more than sampling
_WIDTHS = 3.0  # a limit is at least so many typical distances: the three sigma of a control chart
_FREEDOM = 2 / 3  # what k distances of neighbours, which share windows, are worth as independent ones


@dataclass(frozen=True, slots=True)
class Natural:
    """What the past windows of one feature differ by. `typical`: measure -> root mean square distance, in limits.

    Only measures that differ by more than sampling explains are in `typical`. `rows` is what a window has.
    """

    windows: int
    rows: float
    typical: Mapping[str, float] = field(default_factory=dict)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the typical distances."""
        return max(2.0, _FREEDOM * (self.windows - 1))


def learned(pairs: Sequence[Sequence[Signal]], *, windows: int, rows: float) -> Natural:
    """What the signals between neighbouring windows tell; nothing is typical of fewer than eight windows."""
    if windows < LEAST_WINDOWS:
        return Natural(windows, rows)
    found: dict[str, list[Signal]] = {}
    for pair in pairs:
        for one in pair:
            found.setdefault(one.way, []).append(one)
    wide = {way: some for way, some in found.items() if len(some) >= LEAST_WINDOWS - 1 and _restless(some)}
    return Natural(windows, rows, {way: _typical(one.times for one in some) for way, some in wide.items()})


def calibrated(evidence: Evidence, natural: Natural) -> Evidence:
    """The evidence, each signal held against what windows of the feature differ by themselves."""
    if not natural.typical:
        return evidence
    # a baseline of many windows is itself a surer mean than the neighbour that distances were taken to
    worth = max(1.0, evidence.n_baseline / natural.rows)
    narrower = math.sqrt((1 + 1 / worth) / 2)
    return replace(evidence, signals=tuple(_held(one, natural, narrower) for one in evidence.signals))


def _held(signal: Signal, natural: Natural, narrower: float) -> Signal:
    from scipy.stats import t

    unit = natural.typical.get(signal.way, 0.0) * narrower
    if not unit or signal.p is None:
        return signal
    chance = 2 * float(t.sf(signal.times / unit, natural.freedom))
    limit = signal.limit * max(1.0, _WIDTHS * unit) ** signal.power
    told = f"{signal.told}; limit widened: {natural.windows} windows differ by themselves"
    return replace(signal, limit=limit, p=max(signal.p, min(1.0, chance)), told=told)


def _restless(signals: Sequence[Signal]) -> bool:
    """Whether windows differ by more than sampling: the chi-squares of their p-values add up to too much."""
    from scipy.stats import chi2

    squares = np.array([float(chi2.isf(one.p, 1)) for one in signals if one.p is not None])
    return len(squares) > 0 and float(chi2.sf(squares.sum(), len(squares))) < _OVERDISPERSED


def _typical(times: Iterable[float]) -> float:
    """The root mean square of all but the largest, as large as that of all would be for a normal spread."""
    from scipy.special import chdtr

    squares = np.sort(np.square(list(times)))
    steps = np.linspace(0, 60, 6_001)
    largest = float(np.trapezoid(1 - chdtr(1, steps) ** len(squares), steps))
    return math.sqrt(float(squares[:-1].sum()) / (len(squares) - largest))
