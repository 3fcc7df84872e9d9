"""Embeddings, compared: rows far from anything known, the cloud as a whole, lengths, unusable rows."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lodestore import vectors
from lodestore.drift.numeric import NumericSketch
from lodestore.drift.shares import share_signal, two_proportions
from lodestore.drift.verdict import Signal
from lodestore.errors import BadVectorError

__all__ = ["FAR_LIMIT", "MMD_LIMIT", "EmbeddingSketch", "remoteness"]

FAR_LIMIT = 0.02
MMD_LIMIT = 0.02
REFERENCE = 2048
EXAMINED = 8192
_NORM_LIMIT = 0.05
_BAD_LIMIT = 0.001
_NEIGHBOURS = 3
_BLOCK = 1024  # rows whose distances are held at once
_FREQUENCIES = 256
_PERMUTATIONS = 300
_NAMED = 5
_FAR = 0.99
_TAILS = {_FAR: 0.6, 0.95: 0.4}  # percentiles of the baseline, and their weight in the evidence
_LEAST_P = 1e-300


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingSketch:
    """A column of vectors as counts, lengths, a centroid and a random sample of unit rows in half precision.

    `drawn` says which row of the column each sampled row was.
    """

    rows: int
    nulls: int
    bad: int
    dimension: int
    norms: NumericSketch
    centroid: np.ndarray
    sample: np.ndarray
    drawn: np.ndarray
    kind: ClassVar[str] = "embedding"

    @classmethod
    def of(cls, array: np.ndarray, *, limit: int = REFERENCE, seed: int = 0, nulls: int = 0) -> EmbeddingSketch:
        """The sketch of vectors of shape (rows, dimension), at most `limit` of them kept, drawn by `seed`."""
        if array.ndim != 2:  # noqa: PLR2004 - rows and columns
            message = f"vectors to compare have shape {array.shape}; one row a vector is needed"
            raise BadVectorError(message)
        lengths = vectors.norms(array)
        usable = np.flatnonzero(np.isfinite(lengths) & (lengths > 0))
        drawn = np.random.default_rng(seed).permutation(usable)[:limit]
        # both sides are rounded alike, so that rounding is no difference
        sample = vectors.normalised(array[drawn]).astype(np.float16)
        centroid = vectors.mean_direction(sample) if len(sample) else np.zeros(array.shape[1], np.float32)
        return cls(
            len(array) + nulls,
            nulls,
            len(array) - len(usable),
            array.shape[1],
            NumericSketch.of(lengths[usable]),
            centroid,
            sample,
            drawn,
        )

    @classmethod
    def of_column(cls, column: pa.ChunkedArray, *, limit: int = REFERENCE, seed: int = 0) -> EmbeddingSketch:
        """The sketch of an Arrow column of lists of floats; lists of another length than most are unusable."""
        present = column.drop_null()
        items = pa.chunked_array([chunk.flatten() for chunk in present.chunks], column.type.value_type)
        flat = items.cast(pa.float32()).to_numpy()
        size = getattr(column.type, "list_size", None)
        if size is None:
            lengths = present.combine_chunks().value_lengths().to_numpy()
            size = int(np.bincount(lengths).argmax()) if len(lengths) else 0
            if (lengths != size).any():
                flat = _squared(flat, lengths, size)
        return cls.of(flat.reshape(len(present), size), limit=limit, seed=seed, nulls=column.null_count)

    @property
    def values(self) -> int:
        """How many rows hold a usable vector."""
        return self.rows - self.nulls - self.bad

    def summary(self) -> dict[str, Any]:
        """Counts, dimension and lengths."""
        counts = {"rows": self.rows, "nulls": self.nulls, "bad": self.bad, "dimension": self.dimension}
        return counts | ({"norm_mean": self.norms.mean, "norm_std": self.norms.std} if self.values else {})

    def signals(
        self, current: EmbeddingSketch, *, min_rows: int, seed: int = 0, names: Sequence[str] | None = None
    ) -> tuple[Signal, ...]:
        """How `current` differs from this baseline; the farthest rows are told by `names`, or else by number."""
        bad = (self.nulls + self.bad, self.rows), (current.nulls + current.bad, current.rows)
        found = share_signal("bad_share", "null, zero or non-finite", *bad, limit=_BAD_LIMIT, share=0.1)
        if min(self.values, current.values) < min_rows:
            return found
        return (
            _far(self, current, names),
            _mmd(self, current, np.random.default_rng(seed)),
            *_lengths(self, current),
            *found,
        )

    def to_dict(self) -> dict[str, Any]:
        """The sketch as JSON-ready values; vectors as base64 of little-endian half precision."""
        counts = {"rows": self.rows, "nulls": self.nulls, "bad": self.bad, "dimension": self.dimension}
        reference, held = _halves(self.sample)
        far = remoteness(held, reference) if len(reference) and len(held) else np.zeros(1)
        percentiles = {str(cut): float(np.quantile(far, cut)) for cut in (0.5, 0.95, 0.99)}
        arrays = {
            "centroid": _packed(self.centroid.astype(np.float16)),
            "sample": _packed(self.sample),
            "drawn": self.drawn.tolist(),
        }
        return counts | {"norms": self.norms.to_dict(), "percentiles": percentiles} | arrays

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> EmbeddingSketch:
        """The sketch that `to_dict` wrote."""
        dimension = found["dimension"]
        return cls(
            found["rows"],
            found["nulls"],
            found["bad"],
            dimension,
            NumericSketch.from_dict(found["norms"]),
            _unpacked(found["centroid"], 1, dimension)[0].astype(np.float32),
            _unpacked(found["sample"], len(found["drawn"]), dimension),
            np.asarray(found["drawn"], dtype=np.int64),
        )


def remoteness(rows: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How far each unit row is from the three nearest rows of `reference`: one less their mean cosine."""
    near = min(_NEIGHBOURS, len(reference))
    known = reference.astype(np.float32).T
    found = []
    for start in range(0, len(rows), _BLOCK):
        cosines = rows[start : start + _BLOCK].astype(np.float32) @ known
        found.append(1 - np.partition(cosines, -near, axis=1)[:, -near:].mean(axis=1))
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _halves(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The reference half of a sample and the half held out, on which its percentiles are measured."""
    middle = len(sample) // 2
    return sample[:middle], sample[middle:]


def _far(baseline: EmbeddingSketch, current: EmbeddingSketch, names: Sequence[str] | None) -> Signal:
    """The share of rows farther from one half of the baseline than 99 % of its other half.

    Each half is held out once; the share and the distances told are means of the two.
    """
    left, right = _halves(baseline.sample)
    distances = [
        (np.sort(remoteness(held, known)), remoteness(current.sample, known))
        for known, held in ((left, right), (right, left))
    ]
    counted = [(weight, *_beyond(held, far, cut)) for held, far in distances for cut, weight in _TAILS.items()]
    weighted = sum(weight / 2 / max(p, _LEAST_P) for weight, _, p in counted)
    share = float(np.mean([_beyond(held, far, _FAR)[0] for held, far in distances]))
    remote = np.mean([far for _, far in distances], axis=0)
    furthest = current.drawn[np.argsort(-remote, kind="stable")[:_NAMED]]
    shown = ", ".join(names[row] if names else f"row {row}" for row in furthest)
    told = f"{share:.1%} of rows lie beyond the baseline's 99th percentile, 1 % would be usual; farthest: {shown}"
    return Signal("far_share", share, FAR_LIMIT, min(1.0, 1 / weighted), share=0.7, told=told)


def _beyond(held: np.ndarray, far: np.ndarray, cut: float) -> tuple[float, float]:
    """The share of `far` beyond a percentile of `held`, with its exact p-value.

    The share that truly lies beyond the r-th largest of n values has a beta(r, n - r + 1)
    distribution, so that the count of another m values beyond it is beta-binomial.
    """
    from scipy.stats import betabinom

    rank = max(1, math.ceil((1 - cut) * len(held) - 1e-9))
    beyond = int((far > held[-rank]).sum())
    return beyond / len(far), float(betabinom.sf(beyond - 1, len(far), rank, len(held) - rank + 1))


def _mmd(baseline: EmbeddingSketch, current: EmbeddingSketch, rng: np.random.Generator) -> Signal:
    """The maximum mean discrepancy of the two clouds (Gretton et al., 2012), by random Fourier features.

    Gaussian kernel of median bandwidth; the value is freed of what chance alone would give. p comes
    from permutations, its tail from a gamma distribution with their mean and variance.
    """
    before = baseline.sample.astype(np.float32)
    after = current.sample[:REFERENCE].astype(np.float32)
    features = _fourier(np.concatenate([before, after]), _bandwidth(before), rng)
    signs = np.concatenate([np.full(len(before), 1 / len(before)), np.full(len(after), -1 / len(after))])
    shuffled = rng.permuted(np.tile(signs.astype(np.float32), (_PERMUTATIONS, 1)), axis=1)
    chance = np.square(shuffled @ features).sum(axis=1).astype(np.float64)
    seen = float(np.square(signs.astype(np.float32) @ features).sum())
    value = math.sqrt(max(0.0, seen - float(chance.mean())))
    cosine = float(baseline.centroid @ current.centroid)
    told = f"cosine of the two centroids {cosine:.3f}"
    return Signal("mmd", value, MMD_LIMIT, _tail(chance, seen), share=0.2, told=told)


def _bandwidth(rows: np.ndarray) -> float:
    """The median distance between rows, from up to 500 of them."""
    few = rows[:500]
    squares = 2 - 2 * (few @ few.T)
    distances = squares[np.triu_indices(len(few), 1)]
    return math.sqrt(max(float(np.median(distances)), 1e-6))


def _fourier(rows: np.ndarray, bandwidth: float, rng: np.random.Generator) -> np.ndarray:
    """Random Fourier features of a Gaussian kernel (Rahimi and Recht, 2007), shape (rows, frequencies)."""
    directions = rng.standard_normal((rows.shape[1], _FREQUENCIES)).astype(np.float32) / bandwidth
    phases = rng.uniform(0, 2 * np.pi, _FREQUENCIES).astype(np.float32)
    return (np.cos(rows @ directions + phases) * math.sqrt(2 / _FREQUENCIES)).astype(np.float32)


def _tail(chance: np.ndarray, seen: float) -> float:
    """The chance of a statistic at least as large as `seen`."""
    from scipy.stats import gamma

    counted = (1 + int((chance >= seen).sum())) / (1 + len(chance))
    mean, variance = float(chance.mean()), float(chance.var())
    if counted > 10 / len(chance) or variance <= 0:
        return counted
    return float(gamma.sf(seen, mean * mean / variance, scale=variance / mean))


def _lengths(baseline: EmbeddingSketch, current: EmbeddingSketch) -> tuple[Signal, ...]:
    """Whether the vectors became longer or shorter: their direction alone would not show it."""
    before, after = float(np.median(baseline.norms.points)), float(np.median(current.norms.points))
    value = abs(after / before - 1)
    if value <= _NORM_LIMIT:
        return ()
    longer = [
        int((side.points > before).sum() * side.values / len(side.points)) for side in (baseline.norms, current.norms)
    ]
    p = two_proportions(longer[0], baseline.values, longer[1], current.values)
    return (Signal("norm", value, _NORM_LIMIT, p, share=0.1, told=f"median length {before:.4g} -> {after:.4g}"),)


def _squared(flat: np.ndarray, lengths: np.ndarray, size: int) -> np.ndarray:
    """Lists of unequal length as rows of `size`, those of another length all NaN."""
    keep = np.repeat(lengths == size, lengths)
    rows = np.full((len(lengths), size), np.nan, dtype=np.float32)
    rows[lengths == size] = flat[keep].reshape(int((lengths == size).sum()), size)
    return rows.ravel()


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f2").tobytes()).decode("ascii")


def _unpacked(text: str, rows: int, dimension: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f2").reshape(rows, dimension)
