"""Diversity: the same thing said twice takes the place of something else."""

from __future__ import annotations

import numpy as np

__all__ = ["mmr"]


def mmr(relevance: np.ndarray, vectors: np.ndarray, *, k: int, diversity: float) -> list[int]:
    """Places of at most `k` rows, each the best of what is left: relevant, and unlike those before it.

    Maximal marginal relevance (Carbonell and Goldstein, 1998): the next one has the greatest
    (1 - diversity) * relevance - diversity * (its greatest cosine to one that was taken). Relevance is
    scaled to [0, 1] over the rows, since scores of different searches have different sizes. The most
    relevant row is always first; with diversity 0 the order is that of relevance, ties in their order.

    `vectors` has shape (rows, dimension), of any length; a row of zeros is like nothing else.

    >>> mmr(np.array([3.0, 2.9, 1.0]), np.array([[1, 0], [1, 0], [0, 1]]), k=2, diversity=0.5)
    [0, 2]
    """
    if not len(relevance):
        return []
    gain = (1 - diversity) * _scaled(relevance)
    directions = _directions(vectors)
    chosen = [int(np.argmax(gain))]
    nearest = directions @ directions[chosen[0]]
    while len(chosen) < min(k, len(gain)):
        worth = gain - diversity * nearest
        worth[chosen] = -np.inf
        chosen.append(int(np.argmax(worth)))
        nearest = np.maximum(nearest, directions @ directions[chosen[-1]])
    return chosen[:k]


def _scaled(relevance: np.ndarray) -> np.ndarray:
    values = np.asarray(relevance, dtype=np.float64)
    spread = np.ptp(values)
    return (values - values.min()) / spread if spread else np.ones(len(values))


def _directions(vectors: np.ndarray) -> np.ndarray:
    array = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    return np.divide(array, lengths, out=np.zeros_like(array), where=lengths > 0)
