"""Vectors as whole arrays: their length, their health, their mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lodestore.errors import BadVectorError, DimensionError

__all__ = ["Health", "checked", "health", "mean_direction", "normalised", "norms"]

_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Health:
    """What is wrong with an array of vectors, as counts of rows, and the spread of its norms."""

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
    )


def norms(vectors: np.ndarray) -> np.ndarray:
    """The Euclidean length of each row, in double precision."""
    return np.linalg.norm(np.asarray(vectors, dtype=np.float64), axis=-1)


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
