"""Drift: whether a window of features differs from its baseline by more than chance and enough to matter.

Everything here is pure: tables and arrays in, frozen findings out.
"""

from lodestore.drift.baseline import Baseline, DriftKind, sketch
from lodestore.drift.category import jensen_shannon
from lodestore.drift.comparison import category_drift, compare, embedding_drift, numeric_drift, text_drift, variation
from lodestore.drift.natural import LEAST_WINDOWS, Natural
from lodestore.drift.numeric import psi
from lodestore.drift.text import guess_language
from lodestore.drift.verdict import ALPHA, MIN_ROWS, Drift, Report, Signal, Verdict

__all__ = [
    "ALPHA",
    "LEAST_WINDOWS",
    "MIN_ROWS",
    "Baseline",
    "Drift",
    "DriftKind",
    "Natural",
    "Report",
    "Signal",
    "Verdict",
    "category_drift",
    "compare",
    "embedding_drift",
    "guess_language",
    "jensen_shannon",
    "numeric_drift",
    "psi",
    "sketch",
    "text_drift",
    "variation",
]
