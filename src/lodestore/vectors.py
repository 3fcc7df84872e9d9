"""Vectors as whole arrays: their length, their health, their mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lodestore.errors import BadVectorError, DimensionError

__all__ = ["Health", "anisotropy", "checked", "health", "mean_direction", "neighbours_kept", "normalised", "norms"]

_BLOCK = 1024  # rows whose cosines are held at once


@dataclass(frozen=True, slots=True)
class Health:
    """What is wrong with an array of vectors, as counts of rows, the spread of its norms, and its `anisotropy`.

    `norm_p01` and `norm_p99` are percentiles; `anisotropy` is None where fewer than two rows are sound.
    """

    rows: int
    dimension: int
    nan: int
    infinite: int
    zero: int
    norm_mean: float
    norm_std: float
    norm_min: float
    norm_max: float
    duplicates: int
    norm_p01: float = 0.0
    norm_p99: float = 0.0
    anisotropy: float | None = None

    @property
    def bad(self) -> int:
        """Rows that no search can use."""
        return self.nan + self.infinite + self.zero

    @property
    def healthy(self) -> bool:
        """Whether every row can be used."""
        return self.bad == 0


def health(vectors: np.ndarray) -> Health:
    """Measure vectors of shape (rows, dimension).

    >>> health(np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, 1.0]])).bad
    2
    """
    array = np.atleast_2d(np.asarray(vectors))
    nan = np.isnan(array).any(axis=1)
    infinite = np.isinf(array).any(axis=1)
    sound = array[~(nan | infinite)]
    lengths = norms(sound)
    unique = len(np.unique(sound, axis=0)) if len(sound) else 0
    some = lengths if len(lengths) else np.zeros(1)
    return Health(
        rows=len(array),
        dimension=array.shape[1],
        nan=int(nan.sum()),
        infinite=int((infinite & ~nan).sum()),
        zero=int((lengths == 0).sum()),
        norm_mean=float(some.mean()),
        norm_std=float(some.std()),
        norm_min=float(some.min()),
        norm_max=float(some.max()),
        duplicates=len(sound) - unique,
        norm_p01=float(np.quantile(some, 0.01)),
        norm_p99=float(np.quantile(some, 0.99)),
        anisotropy=anisotropy(sound),
    )


def anisotropy(vectors: np.ndarray) -> float | None:
    """The mean cosine of two different rows: near 0 for directions spread evenly, near 1 for a collapsed model.

    >>> anisotropy(np.array([[1.0, 0.0], [2.0, 0.0]]))
    1.0
    """
    wide = np.asarray(vectors, dtype=np.float64)
    lengths = norms(wide)
    usable = np.isfinite(lengths) & (lengths > 0)
    sound, rows = wide[usable], int(usable.sum())
    if rows < 2:  # noqa: PLR2004 - one row has no other
        return None
    total = (sound / lengths[usable][:, None]).sum(axis=0)
    return float((total @ total - rows) / (rows * (rows - 1)))


def neighbours_kept(before: np.ndarray, after: np.ndarray, *, k: int = 10) -> float | None:
    """The mean share of each row's `k` nearest rows, by cosine, that are so on both sides; None without two rows.

    Row i of both sides is one text: 1 means that searches find the same, whatever the numbers are.

    >>> rows = np.random.default_rng(0).standard_normal((50, 8))
    >>> neighbours_kept(rows, -3 * rows)
    1.0
    """
    if len(before) != len(after):
        message = f"{len(before)} rows before and {len(after)} after; neighbours are compared of the same rows"
        raise BadVectorError(message)
    if len(before) < 2:  # noqa: PLR2004 - one row has no other
        return None
    near = min(k, len(before) - 1)
    sides = [normalised(np.asarray(side, dtype=np.float32)) for side in (before, after)]
    kept = 0
    for start in range(0, len(before), _BLOCK):
        one, other = (_nearest(side, start, near) for side in sides)
        kept += sum(len(np.intersect1d(a, b)) for a, b in zip(one, other, strict=True))
    return kept / (near * len(before))


def _nearest(rows: np.ndarray, start: int, near: int) -> np.ndarray:
    """The places of the nearest other rows of a block of rows."""
    cosines = rows[start : start + _BLOCK] @ rows.T
    cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
    return np.argpartition(-cosines, near - 1, axis=1)[:, :near]


def norms(vectors: np.ndarray) -> np.ndarray:
    """The Euclidean length of each row, added up in double precision without a copy of the rows."""
    rows = np.asarray(vectors)
    return np.sqrt(np.einsum("...i,...i->...", rows, rows, dtype=np.float64))


def normalised(vectors: np.ndarray) -> np.ndarray:
    """The rows at length one; rows of length zero stay as they are."""
    lengths = norms(vectors)[..., None]
    return np.divide(vectors, lengths, out=np.array(vectors, dtype=np.float32), where=lengths > 0).astype(np.float32)


def mean_direction(vectors: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The normalised (weighted) mean of the rows, shape (dimension,)."""
    return normalised(np.average(np.asarray(vectors, dtype=np.float64), axis=0, weights=weights)[None])[0]


def checked(vectors: np.ndarray, *, texts: int, dimension: int, label: str) -> np.ndarray:
    """The vectors as float32 when there is one sound row per text; otherwise say what is wrong."""
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        message = (
            f"{label} gave no array of numbers for {texts} texts ({error}); one row of equal length per text is needed"
        )
        raise BadVectorError(message) from error
    if array.ndim != 2 or len(array) != texts:  # noqa: PLR2004 - rows and columns
        message = f"{label} gave an array of shape {array.shape} for {texts} texts; one row per text is needed"
        raise BadVectorError(message)
    if array.shape[1] != dimension:
        message = f"{label} writes {array.shape[1]} numbers, {dimension} are registered; register a new version"
        raise DimensionError(message)
    lengths = norms(array)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        found = health(array)
        message = (
            f"{label} gave {found.nan} NaN, {found.infinite} infinite and {found.zero} zero vectors "
            f"for {texts} texts; nothing of this batch is used"
        )
        raise BadVectorError(message)
    return array
