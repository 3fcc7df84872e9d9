"""Two windows compared: column by column, judged as one family; bad input gets a verdict, not an exception."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.drift.baseline import Baseline, Column, DriftKind, Family, PresenceSketch, Sketch, family, read, sketch
from lodestore.drift.category import CategorySketch
from lodestore.drift.embedding import EXAMINED, EmbeddingSketch
from lodestore.drift.natural import Natural, calibrated, learned
from lodestore.drift.numeric import NumericSketch
from lodestore.drift.shares import NULL_LIMIT, share_signal
from lodestore.drift.text import TextSketch
from lodestore.drift.verdict import ALPHA, MIN_ROWS, Drift, Evidence, Report, Signal, Verdict, judge

__all__ = ["category_drift", "compare", "embedding_drift", "numeric_drift", "text_drift", "variation"]

_UNTESTED = {
    DriftKind.TIMESTAMP: "times move on by nature: only nulls are compared; freshness has its own check",
    DriftKind.IDENTIFIER: "an identifier: only nulls are compared",
    DriftKind.OTHER: "no detector for this type: only nulls are compared",
}
_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"


def compare(
    baseline: pa.Table | Baseline,
    current: pa.Table,
    *,
    kinds: Mapping[str, str] | None = None,
    alpha: float = ALPHA,
    min_rows: int = MIN_ROWS,
    ids: str | None = None,
    private: Collection[str] = (),
    subject: str | None = None,
    natural: Mapping[str, Natural] | None = None,
    seed: int = 0,
) -> Report:
    """Every column of either side has a verdict.

    `kinds` says how columns are compared (a pinned baseline has its own). `ids` names the column by
    which the farthest documents are told, itself not compared. Values of `private` columns appear
    nowhere. `subject`, when given, has to be the baseline's. `natural` is what `variation` learned of
    past windows: limits become what fits each feature.
    """
    if isinstance(baseline, Baseline):
        pinned = baseline
    else:
        pinned = sketch(baseline, kinds, subject=subject or "", private=private, seed=seed)
    names = pc.cast(current[ids], pa.string()).to_pylist() if ids in current.column_names else None
    window = _Window(current, names, min_rows, seed)
    known = [name for name in pinned.columns if name != ids]
    fresh = [name for name in current.column_names if name not in pinned.columns and name != ids]
    evidence = [window.against(name, pinned.columns[name]) for name in known] + [window.noted(name) for name in fresh]
    if subject is not None and subject != pinned.subject:
        evidence = [_of_another(one, pinned.subject, subject) for one in evidence]
    usual = natural or {}
    evidence = [calibrated(one, usual[one.feature]) if one.feature in usual else one for one in evidence]
    shown = [_hidden(one) if one.feature in private else one for one in evidence]
    return Report(pinned.rows, current.num_rows, judge(shown, alpha=alpha), alpha)


def variation(windows: Sequence[Baseline], *, min_rows: int = MIN_ROWS) -> dict[str, Natural]:
    """What past windows, oldest first, differ by themselves: a `Natural` for each column of the newest."""
    return {name: _varied(name, windows, min_rows) for name in (windows[-1].columns if windows else ())}


def _varied(name: str, windows: Sequence[Baseline], min_rows: int) -> Natural:
    held = [one.columns[name] for one in windows if name in one.columns]
    kind = held[-1].kind
    alike = [one.sketch for one in held if one.kind is kind and one.sketch.values >= min_rows]
    pairs = [_signals(before, after, min_rows, 0, None) for before, after in pairwise(alike)]
    rows = float(np.mean([one.values for one in alike])) if alike else 1.0
    return learned(pairs, windows=len(alike), rows=rows)


def numeric_drift(
    baseline: np.ndarray, current: np.ndarray, *, feature: str = "", alpha: float = ALPHA, min_rows: int = MIN_ROWS
) -> Drift:
    """Two arrays of numbers compared; NaN is null, infinity a signal of its own.

    >>> print(numeric_drift(np.full(50, 3.0), np.full(50, 4.0)).verdict)
    drift
    """
    return _alone(feature, NumericSketch.of(baseline), NumericSketch.of(current), alpha, min_rows)


def category_drift(
    baseline: Sequence[str | None],
    current: Sequence[str | None],
    *,
    feature: str = "",
    alpha: float = ALPHA,
    min_rows: int = MIN_ROWS,
) -> Drift:
    """Two sequences of categories compared; None is null."""
    before, after = (CategorySketch.of_column(_strings(one)) for one in (baseline, current))
    return _alone(feature, before, after, alpha, min_rows)


def text_drift(
    baseline: Sequence[str | None],
    current: Sequence[str | None],
    *,
    feature: str = "",
    alpha: float = ALPHA,
    min_rows: int = MIN_ROWS,
) -> Drift:
    """Two sequences of texts compared by length, language and characters per token; None is null."""
    before, after = (TextSketch.of_column(_strings(one)) for one in (baseline, current))
    return _alone(feature, before, after, alpha, min_rows)


def embedding_drift(
    baseline: np.ndarray,
    current: np.ndarray,
    seed: int = 0,
    *,
    feature: str = "",
    alpha: float = ALPHA,
    min_rows: int = MIN_ROWS,
    names: Sequence[str] | None = None,
) -> Drift:
    """Two arrays of vectors of one model compared, shape (rows, dimension); `names` tell the current rows."""
    before = EmbeddingSketch.of(baseline, seed=seed)
    after = EmbeddingSketch.of(current, seed=seed + 1, limit=EXAMINED)
    return _alone(feature, before, after, alpha, min_rows, seed=seed, names=names)


class _Window:
    """The current window, and how it is compared."""

    def __init__(self, table: pa.Table, names: Sequence[str] | None, min_rows: int, seed: int) -> None:
        self.table = table
        self.names = names
        self.min_rows = min_rows
        self.seed = seed

    def against(self, name: str, column: Column) -> Evidence:
        """What is known of a column of the baseline."""
        if name not in self.table.column_names:
            return _settled(name, column, Verdict.DRIFT, f"the column vanished; the baseline holds {column.type}")
        kind, values = column.kind, self.table[name]
        held = family(values.type)
        if column.family is Family.NOTHING or held is Family.NOTHING:
            return self._nulls_only(name, column, values)
        if column.family is not held and kind not in _UNTESTED:
            note = f"the column changed its type: {column.type} -> {values.type}{_strays(column, values)}"
            return _settled(name, column, Verdict.DRIFT, note, PresenceSketch.of_column(values))
        if isinstance(column.sketch, PresenceSketch) and kind not in _UNTESTED:
            note = f"declared {kind}, but the baseline holds {column.type}: not compared"
            return _settled(name, column, Verdict.INSUFFICIENT_DATA, note, PresenceSketch.of_column(values))
        after = read(kind, values, limit=EXAMINED, seed=self.seed + 1)
        return _evidence(name, kind, column.sketch, after, self.min_rows, seed=self.seed, names=self.names)

    def noted(self, name: str) -> Evidence:
        """What is known of a column that the baseline does not have."""
        values = self.table[name]
        note = f"a new column of {values.type}: the baseline does not have it; rebaseline to watch it"
        summary = PresenceSketch.of_column(values).summary()
        return Evidence(name, "other", current=summary, n_current=len(values), note=note, settled=Verdict.NONE)

    def _nulls_only(self, name: str, column: Column, values: pa.ChunkedArray) -> Evidence:
        """A column of which one side holds nulls alone: their share is all that can be compared."""
        before = PresenceSketch(column.sketch.rows, column.sketch.rows - column.sketch.values)
        return _evidence(name, column.kind, before, PresenceSketch.of_column(values), self.min_rows)


def _strings(values: Sequence[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])


def _alone(
    feature: str,
    before: Sketch,
    after: Sketch,
    alpha: float,
    min_rows: int,
    *,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> Drift:
    """One feature judged by itself."""
    kind = DriftKind(getattr(before, "kind", DriftKind.OTHER))
    return judge([_evidence(feature, kind, before, after, min_rows, seed=seed, names=names)], alpha=alpha)[0]


def _evidence(
    name: str,
    kind: DriftKind,
    before: Sketch,
    after: Sketch,
    min_rows: int,
    *,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> Evidence:
    """What two sketches of one kind say about each other."""
    bare = Evidence(
        name, kind.value, (), before.summary(), after.summary(), n_baseline=before.rows, n_current=after.rows
    )
    few = _too_few(before.rows, after.rows, min_rows)
    if few:
        return replace(bare, note=few, settled=Verdict.INSUFFICIENT_DATA)
    lengths = [one.dimension for one in (before, after) if isinstance(one, EmbeddingSketch) and one.values]
    if len(set(lengths)) > 1:
        note = f"{lengths[0]} numbers a vector -> {lengths[1]}: another model"
        return replace(bare, note=note, settled=Verdict.DRIFT)
    return _weighed(bare, kind, before, after, _signals(before, after, min_rows, seed, names), min_rows)


def _weighed(
    bare: Evidence, kind: DriftKind, before: Sketch, after: Sketch, signals: tuple[Signal, ...], min_rows: int
) -> Evidence:
    """The evidence with its signals, and what could not be tested told."""
    if kind in _UNTESTED:
        return replace(bare, signals=signals, note=_UNTESTED[kind], settled=None if signals else Verdict.NONE)
    if min(before.values, after.values) >= min_rows:
        return replace(bare, signals=signals)
    note = f"only {before.values} usable values in the baseline and {after.values} in the current window"
    note += " (all null)" if not before.values + after.values else ""
    spoken = tuple(one for one in signals if one.large)
    # without a word on the values themselves, quiet nulls are no acquittal
    return replace(bare, signals=spoken, note=f"{note}, {min_rows} are needed: values not compared")


def _signals(
    before: Sketch, after: Sketch, min_rows: int, seed: int, names: Sequence[str] | None
) -> tuple[Signal, ...]:
    if isinstance(before, NumericSketch) and isinstance(after, NumericSketch):
        return before.signals(after, min_rows=min_rows)
    if isinstance(before, CategorySketch) and isinstance(after, CategorySketch):
        return before.signals(after, min_rows=min_rows)
    if isinstance(before, TextSketch) and isinstance(after, TextSketch):
        return before.signals(after, min_rows=min_rows)
    if isinstance(before, EmbeddingSketch) and isinstance(after, EmbeddingSketch):
        return before.signals(after, min_rows=min_rows, seed=seed, names=names)
    sides = (before.rows - before.values, before.rows), (after.rows - after.values, after.rows)
    return share_signal("null_share", "null", *sides, limit=NULL_LIMIT, share=1.0)


def _too_few(before: int, after: int, min_rows: int) -> str:
    """Why the windows are too small to be compared; empty when they are not."""
    for side, rows in (("baseline", before), ("current window", after)):
        if not rows:
            return f"the {side} is empty"
        if rows < min_rows:
            return f"the {side} has {rows} row{'s' if rows > 1 else ''}, {min_rows} are needed"
    return ""


def _settled(name: str, column: Column, verdict: Verdict, note: str, current: PresenceSketch | None = None) -> Evidence:
    """A verdict that needs no test."""
    now: dict[str, Any] = current.summary() if current else {}
    return Evidence(
        name,
        column.kind.value,
        baseline=column.sketch.summary(),
        current=now,
        n_baseline=column.sketch.rows,
        n_current=current.rows if current else 0,
        note=note,
        settled=verdict,
    )


def _strays(column: Column, values: pa.ChunkedArray) -> str:
    """How many values made a column of numbers one of strings; empty when that is not what happened."""
    if column.family is not Family.NUMBERS or family(values.type) is not Family.STRINGS:
        return ""
    numbers = pc.sum(pc.match_substring_regex(values.cast(pa.string()), pattern=_NUMBER)).as_py() or 0
    return f"; {len(values) - values.null_count - numbers} of {len(values)} values are no numbers"


def _of_another(evidence: Evidence, pinned: str, subject: str) -> Evidence:
    """The evidence, void because the baseline is of something else."""
    note = f"the baseline is of {pinned!r}, the rows are of {subject!r}: not compared; pin a new baseline"
    return replace(evidence, signals=(), note=note, settled=Verdict.INSUFFICIENT_DATA)


def _hidden(evidence: Evidence) -> Evidence:
    """The evidence with counts alone: nothing of the values of a private column."""
    told = tuple(replace(one, told="") for one in evidence.signals)
    kept = (
        {key: side[key] for key in ("rows", "nulls") if key in side} for side in (evidence.baseline, evidence.current)
    )
    before, after = kept
    return replace(evidence, signals=told, baseline=before, current=after)
