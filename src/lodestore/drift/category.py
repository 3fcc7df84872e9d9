"""Categories, compared: their frequencies, values never seen before, their nulls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.drift.shares import NULL_LIMIT, share_signal
from lodestore.drift.verdict import Signal

__all__ = ["JS_LIMIT", "UNSEEN_LIMIT", "CategorySketch", "jensen_shannon"]

JS_LIMIT = 0.05
UNSEEN_LIMIT = 0.005
KEPT = 4096
_TOP = 10
_EXPECTED = 5.0  # rows that a cell of the G-test has to expect; rarer categories are pooled


@dataclass(frozen=True, slots=True, eq=False)
class CategorySketch:
    """A column of categories as counts; beyond 4,096 different values the rarest are counted together."""

    rows: int
    nulls: int
    counts: Mapping[str, int]
    others: int = 0
    kind: ClassVar[str] = "category"

    @classmethod
    def of_column(cls, column: pa.ChunkedArray) -> CategorySketch:
        """The sketch of an Arrow column of strings, truth values or numbers."""
        tallies = pc.value_counts(column.cast(pa.large_string()).drop_null())
        names, sizes = tallies.field("values").to_pylist(), tallies.field("counts").to_pylist()
        ranked = sorted(zip(names, sizes, strict=True), key=lambda pair: (-pair[1], pair[0]))
        return cls(len(column), column.null_count, dict(ranked[:KEPT]), sum(size for _, size in ranked[KEPT:]))

    @property
    def values(self) -> int:
        """How many rows hold a category."""
        return self.rows - self.nulls

    def summary(self) -> dict[str, Any]:
        """Counts, and the ten most frequent values."""
        top = dict(list(self.counts.items())[:_TOP])
        return {"rows": self.rows, "nulls": self.nulls, "distinct": len(self.counts), "top": top}

    def signals(self, current: CategorySketch, *, min_rows: int) -> tuple[Signal, ...]:
        """How `current` differs from this baseline."""
        sides = (self.nulls, self.rows), (current.nulls, current.rows)
        nulls = share_signal("null_share", "null", *sides, limit=NULL_LIMIT, share=0.2)
        if min(self.values, current.values) < min_rows:
            return nulls
        return (_frequencies(self, current), *_unseen(self, current), *nulls)

    def to_dict(self) -> dict[str, Any]:
        """The sketch as JSON-ready values."""
        return {"rows": self.rows, "nulls": self.nulls, "counts": dict(self.counts), "others": self.others}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> CategorySketch:
        """The sketch that `to_dict` wrote."""
        return cls(found["rows"], found["nulls"], dict(found["counts"]), found["others"])


def jensen_shannon(baseline: np.ndarray, current: np.ndarray) -> float:
    """The Jensen-Shannon distance of two arrays of counts, in base 2: 0 for equal shares, 1 for disjoint ones.

    >>> jensen_shannon(np.array([1, 0]), np.array([0, 1]))
    1.0
    """
    p, q = baseline / baseline.sum(), current / current.sum()
    middle = (p + q) / 2
    halves = (float((one[one > 0] * np.log2(one[one > 0] / middle[one > 0])).sum()) for one in (p, q))
    return float(np.sqrt(max(0.0, sum(halves) / 2)))


def _frequencies(baseline: CategorySketch, current: CategorySketch) -> Signal:
    """How far the frequencies moved, with the G-test's p-value."""
    names = sorted(baseline.counts.keys() | current.counts.keys())
    before = np.array([baseline.counts.get(name, 0) for name in names] + [baseline.others], dtype=np.float64)
    after = np.array([current.counts.get(name, 0) for name in names] + [current.others], dtype=np.float64)
    moved = after / after.sum() - before / before.sum()
    label = [*names, "(other)"]
    furthest = np.argsort(-np.abs(moved), kind="stable")[:3]
    told = ", ".join(
        f"{label[at]!r} {before[at] / before.sum():.1%} -> {after[at] / after.sum():.1%}"
        for at in furthest
        if moved[at]
    )
    return Signal("js", jensen_shannon(before, after), JS_LIMIT, _g_test(before, after), share=0.7, told=told)


def _g_test(before: np.ndarray, after: np.ndarray) -> float:
    """The p-value that both sides draw from the same frequencies.

    Categories that expect fewer than five rows on the smaller side are pooled; Williams' correction
    keeps the test honest where rows are few.
    """
    from scipy.special import chdtrc

    table = _pooled(np.stack([before, after]))
    columns, sides, total = table.sum(axis=0), table.sum(axis=1), table.sum()
    freedom = table.shape[1] - 1
    if not freedom:
        return 1.0
    expected = np.outer(sides, columns) / total
    ratio = np.divide(table, expected, out=np.ones_like(table), where=table > 0)
    statistic = 2 * float((table * np.log(ratio)).sum())
    spread = (total * float((1 / sides).sum()) - 1) * (total * float((1 / columns).sum()) - 1)
    return float(chdtrc(freedom, max(0.0, statistic) / (1 + spread / (6 * total * freedom))))


def _pooled(table: np.ndarray) -> np.ndarray:
    """The table with its rare columns added up into one, and that one into the next if it is rare itself."""
    least = table.sum(axis=1).min() / table.sum() * table.sum(axis=0)
    order = np.argsort(least, kind="stable")
    reached = np.cumsum(least[order])
    rare = int((least < _EXPECTED).sum())
    if rare:
        # so many of the rarest that together they expect enough rows
        rare = min(max(rare, int(np.searchsorted(reached, _EXPECTED)) + 1), table.shape[1])
    pool = table[:, order[:rare]].sum(axis=1, keepdims=True)
    kept = table[:, order[rare:]]
    return np.hstack([pool, kept]) if rare else kept


def _unseen(baseline: CategorySketch, current: CategorySketch) -> tuple[Signal, ...]:
    """The share of current rows whose value the baseline does not know.

    p is exact in spirit: given how often a value occurs in both windows together, the chance that
    every occurrence fell into the current one, summed over all values that are as frequent as the
    most frequent newcomer.
    """
    if baseline.others:  # what is unknown may be among those counted together
        return ()
    fresh = {name: size for name, size in current.counts.items() if name not in baseline.counts}
    share = sum(fresh.values()) / current.values
    chance = current.values / (baseline.values + current.values)
    most = max(fresh.values(), default=0)
    both = [size + current.counts.get(name, 0) for name, size in baseline.counts.items()] + list(fresh.values())
    p = min(1.0, sum(chance**size for size in both if size >= most)) if fresh else 1.0
    shown = ", ".join(f"{name!r} ({size} rows)" for name, size in sorted(fresh.items(), key=lambda one: -one[1])[:3])
    return (Signal("unseen_share", share, UNSEEN_LIMIT, p, share=0.1, told=f"never seen before: {shown}"),)
