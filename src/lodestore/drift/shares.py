"""Shares of rows on both sides: nulls, infinite values, unusable vectors."""

from __future__ import annotations

import math

import numpy as np

from lodestore.drift.verdict import Signal

__all__ = ["NULL_LIMIT", "share_signal", "two_proportions"]

NULL_LIMIT = 0.01
_NORMAL_ENOUGH = 10.0  # expected rows in the smallest cell, below which the exact test is used


def two_proportions(hits_a: int, rows_a: int, hits_b: int, rows_b: int) -> float:
    """The two-sided p-value that both sides have the same share.

    Pooled z-test; Fisher's exact test where a cell expects fewer than ten rows.

    >>> two_proportions(5, 100, 5, 100)
    1.0
    """
    pooled = (hits_a + hits_b) / (rows_a + rows_b)
    if pooled in {0.0, 1.0}:
        return 1.0
    if min(pooled, 1 - pooled) * min(rows_a, rows_b) < _NORMAL_ENOUGH:
        from scipy.stats import fisher_exact

        table = np.array([[hits_a, rows_a - hits_a], [hits_b, rows_b - hits_b]])
        return float(fisher_exact(table).pvalue)
    error = math.sqrt(pooled * (1 - pooled) * (1 / rows_a + 1 / rows_b))
    return math.erfc(abs(hits_a / rows_a - hits_b / rows_b) / error / math.sqrt(2))


def share_signal(
    measure: str, what: str, baseline: tuple[int, int], current: tuple[int, int], *, limit: float, share: float
) -> tuple[Signal, ...]:
    """How far a share of rows moved; nothing where neither side has any such row.

    `baseline` and `current` are (such rows, all rows). The value is the distance in share, so that
    0.01 is one percentage point.
    """
    if not baseline[0] + current[0] or not baseline[1] * current[1]:
        return ()
    before, after = baseline[0] / baseline[1], current[0] / current[1]
    told = f"{what} {before:.2%} -> {after:.2%} of rows"
    return (Signal(measure, abs(after - before), limit, two_proportions(*baseline, *current), share, told),)
