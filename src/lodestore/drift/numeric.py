"""Numbers, compared: where they lie, how far they spread, their shape, their nulls and infinities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lodestore.drift.shares import NULL_LIMIT, share_signal
from lodestore.drift.verdict import Signal

__all__ = ["KS_LIMIT", "PSI_LIMIT", "NumericSketch", "psi"]

KS_LIMIT = 0.05
PSI_LIMIT = 0.02
POINTS = 4096
_INFINITE_LIMIT = 0.001
_BINS = 10
_LEAST_P = 1e-300
# What each test adds to the evidence: location finds a shift, spread a widening, the rest any other shape.
_WEIGHTS = {"location": 0.65, "spread": 0.15, "ks": 0.12, "bins": 0.08}


@dataclass(frozen=True, slots=True, eq=False)
class NumericSketch:
    """A column of numbers as counts, moments and up to 4,096 order statistics at even ranks.

    The order statistics keep the distribution function to within 1/4,096, far finer than what any
    of the tests below can tell apart, so that tests use the number of rows and not of points.
    """

    rows: int
    nulls: int
    infinite: int
    mean: float
    std: float
    points: np.ndarray
    kind: ClassVar[str] = "numeric"

    @classmethod
    def of(cls, values: np.ndarray) -> NumericSketch:
        """The sketch of an array in which NaN means null."""
        array = np.asarray(values, dtype=np.float64)
        finite = array[np.isfinite(array)]
        infinite = int(np.isinf(array).sum())
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = (float(finite.mean()), float(finite.std())) if len(finite) else (math.nan, math.nan)
        finite.sort()
        if len(finite) > POINTS:
            finite = finite[np.rint(np.linspace(0, len(finite) - 1, POINTS)).astype(np.int64)]
        nulls = len(array) - infinite - int(np.isfinite(array).sum())
        return cls(len(array), nulls, infinite, mean, std, finite)

    @classmethod
    def of_column(cls, column: pa.ChunkedArray) -> NumericSketch:
        """The sketch of an Arrow column of numbers or truth values."""
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        return cls.of(column.cast(pa.float64(), safe=False).to_numpy())

    @property
    def values(self) -> int:
        """How many rows hold a finite number."""
        return self.rows - self.nulls - self.infinite

    @property
    def median(self) -> float:
        """The upper median of the finite numbers, of which there has to be one."""
        return float(self.points[len(self.points) // 2])

    def summary(self) -> dict[str, Any]:
        """Counts, moments and quantiles."""
        found: dict[str, Any] = {"rows": self.rows, "nulls": self.nulls, "infinite": self.infinite}
        if not len(self.points):
            return found
        names = ("min", "p05", "median", "p95", "max")
        cuts = np.quantile(self.points, (0.0, 0.05, 0.5, 0.95, 1.0), method="nearest")
        return found | {"mean": self.mean, "std": self.std} | dict(zip(names, cuts.tolist(), strict=True))

    def signals(self, current: NumericSketch, *, min_rows: int) -> tuple[Signal, ...]:
        """How `current` differs from this baseline."""
        sides = (self.nulls, self.rows), (current.nulls, current.rows)
        nulls = share_signal("null_share", "null", *sides, limit=NULL_LIMIT, share=0.2)
        enough = min(self.values, current.values) >= min_rows
        shape = (_distribution(self, current),) if enough else ()
        return shape + nulls + _infinities(self, current)

    def to_dict(self) -> dict[str, Any]:
        """The sketch as JSON-ready values."""
        moments = [one if math.isfinite(one) else None for one in (self.mean, self.std)]
        counts = {"rows": self.rows, "nulls": self.nulls, "infinite": self.infinite}
        return counts | {"mean": moments[0], "std": moments[1], "points": self.points.tolist()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> NumericSketch:
        """The sketch that `to_dict` wrote."""
        mean, std = (math.nan if found[one] is None else float(found[one]) for one in ("mean", "std"))
        points = np.asarray(found["points"], dtype=np.float64)
        return cls(found["rows"], found["nulls"], found["infinite"], mean, std, points)


def psi(baseline: np.ndarray, current: np.ndarray) -> float:
    """The population stability index over the baseline's deciles; 0 for an array against itself.

    >>> psi(np.arange(100.0), np.arange(100.0))
    0.0
    """
    sketches = NumericSketch.of(baseline), NumericSketch.of(current)
    return _psi(*_binned(*sketches)) if all(one.values for one in sketches) else 0.0


def _infinities(baseline: NumericSketch, current: NumericSketch) -> tuple[Signal, ...]:
    """Infinite values, a signal of their own: the first ones ever need no test, they are a defect."""
    if not baseline.infinite and current.infinite and baseline.rows:
        told = f"{current.infinite} of {current.rows} values are infinite, the baseline has none"
        return (Signal("infinite_share", current.infinite / current.rows, 0.0, None, told=told),)
    sides = (baseline.infinite, baseline.rows), (current.infinite, current.rows)
    return share_signal("infinite_share", "infinite", *sides, limit=_INFINITE_LIMIT, share=0.1)


def _distribution(baseline: NumericSketch, current: NumericSketch) -> Signal:
    """The distance of two distributions, and how sure it is: the larger of KS and PSI against its limit."""
    tests, distance = _rank_tests(baseline, current)
    bins = _binned(baseline, current)
    tests["bins"] = _chi_square(*bins)
    index = _psi(*bins)
    name, value, limit = ("ks", distance, KS_LIMIT)
    if index / PSI_LIMIT > distance / KS_LIMIT and distance <= KS_LIMIT:
        name, value, limit = ("psi", index, PSI_LIMIT)
    told = (
        f"mean {baseline.mean:.4g} -> {current.mean:.4g}, spread {baseline.std:.4g} -> {current.std:.4g}, "
        f"median {baseline.median:.4g} -> {current.median:.4g}"
    )
    return Signal(name, value, limit, _combined(tests), share=0.8, told=told)


def _combined(tests: Mapping[str, float]) -> float:
    """The weighted harmonic mean of the p-values (Wilson, 2019): good for tests that depend on each other.

    Slightly bold far out: without drift, 40,000 pairs of 500 rows gave a share of 1.0 % below 0.01
    and of 0.06 % below 0.0005.
    """
    return min(1.0, 1 / sum(_WEIGHTS[name] / max(p, _LEAST_P) for name, p in tests.items()))


def _rank_tests(baseline: NumericSketch, current: NumericSketch) -> tuple[dict[str, float], float]:
    """p-values for location, spread and shape from ranks alone, and the largest distance of the two curves.

    Location and spread are linear rank tests with van der Waerden's and Klotz's normal scores, the
    variance that of a permutation: as strong as the t and F tests on normal data, and immune to outliers.
    """
    from scipy.special import kolmogorov, ndtri

    n_a, n_b = baseline.values, current.values
    at = np.concatenate([baseline.points, current.points])
    below_a, upto_a = _curves(baseline.points, at)
    below_b, upto_b = _curves(current.points, at)
    middle = (n_a * (below_a + upto_a) + n_b * (below_b + upto_b)) / (2 * (n_a + n_b))
    scores = ndtri(middle)
    cut = len(baseline.points)
    distance = float(np.abs(upto_a - upto_b).max())
    effective = math.sqrt(n_a / (n_a + n_b) * n_b)
    tests = {
        "location": _score_test(scores[:cut], scores[cut:], n_a, n_b),
        "spread": _score_test(scores[:cut] ** 2, scores[cut:] ** 2, n_a, n_b),
        "ks": float(kolmogorov(effective * distance)),
    }
    return tests, distance


def _curves(points: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of `points` strictly below, and at or below, each place."""
    return np.searchsorted(points, at, "left") / len(points), np.searchsorted(points, at, "right") / len(points)


def _score_test(scores_a: np.ndarray, scores_b: np.ndarray, n_a: int, n_b: int) -> float:
    """The two-sided p-value that both sides have the same mean score."""
    mean_a, mean_b = float(scores_a.mean()), float(scores_b.mean())
    pooled = (n_a * mean_a + n_b * mean_b) / (n_a + n_b)
    squares = n_a * float(np.square(scores_a - pooled).mean()) + n_b * float(np.square(scores_b - pooled).mean())
    variance = squares / (n_a + n_b - 1) * (1 / n_a + 1 / n_b)
    if variance <= 0:
        return 1.0
    return math.erfc(abs(mean_a - mean_b) / math.sqrt(2 * variance))


def _binned(baseline: NumericSketch, current: NumericSketch) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both sides between the baseline's deciles."""
    edges = np.unique(np.quantile(baseline.points, np.arange(1, _BINS) / _BINS, method="nearest"))

    def counts(side: NumericSketch) -> np.ndarray:
        reached = np.searchsorted(side.points, edges, "right") / len(side.points)
        return np.diff(np.concatenate([[0.0], reached, [1.0]])) * side.values

    return counts(baseline), counts(current)


def _psi(baseline: np.ndarray, current: np.ndarray) -> float:
    """Population stability index; half a row is added to each bin so that an empty one stays finite."""
    before = (baseline + 0.5) / (baseline.sum() + 0.5 * len(baseline))
    after = (current + 0.5) / (current.sum() + 0.5 * len(current))
    return float(((after - before) * np.log(after / before)).sum())


def _chi_square(baseline: np.ndarray, current: np.ndarray) -> float:
    """Pearson's test that both sides fill the bins alike."""
    from scipy.special import chdtrc

    used = (baseline + current) > 0
    if used.sum() <= 1:
        return 1.0
    a, b, n_a, n_b = baseline[used], current[used], baseline.sum(), current.sum()
    statistic = float((np.square(a / n_a - b / n_b) / (a + b)).sum()) * n_a * n_b
    return float(chdtrc(int(used.sum()) - 1, statistic))
