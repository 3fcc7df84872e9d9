"""How good a ranking is, and how sure we are: nDCG, recall, reciprocal rank, bootstrap intervals.

A ranking is document ids, best first; a document that comes twice counts once, at its first place.
Judgements map a document to its relevance; what is not judged, or judged 0 or below, gains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lodestore.errors import GoldenError, RequestError

__all__ = [
    "Interval",
    "Scores",
    "bootstrap_mean",
    "collapse",
    "mrr",
    "ndcg",
    "overlap",
    "paired_bootstrap",
    "recall",
    "score",
]

Floats = npt.NDArray[np.float64]

_CELLS = 1 << 20  # resampled values held at once: 8 MiB of indices, 8 MiB of numbers


def collapse(document_ids: Sequence[str]) -> list[str]:
    """Return each document once, at the place of its best chunk.

    >>> collapse(["b", "a", "b", "c"])
    ['b', 'a', 'c']
    """
    return list(dict.fromkeys(document_ids))


def ndcg(ranked: Sequence[str], judged: Mapping[str, float], *, k: int = 10) -> float:
    """Return the gain of the first k places over that of the best order, between 0 and 1.

    Discounted cumulative gain of Järvelin and Kekäläinen (2002), as trec_eval computes it: the gain
    is the relevance itself, the discount log2(rank + 1), and the ideal order holds all judged
    documents, found or not.

    >>> round(ndcg(["x", "a"], {"a": 1.0}), 4)
    0.6309
    """
    gains = _gains(judged)
    found = [gains.get(one, 0.0) for one in _top(ranked, k)]
    ideal = sorted(gains.values(), reverse=True)[:k]
    return min(1.0, _discounted(found) / _discounted(ideal))


def recall(ranked: Sequence[str], judged: Mapping[str, float], k: int = 10) -> float:
    """Return the share of the relevant documents that the first k places hold."""
    gains = _gains(judged)
    return len(gains.keys() & set(_top(ranked, k))) / len(gains)


def mrr(ranked: Sequence[str], judged: Mapping[str, float], k: int | None = None) -> float:
    """Return one over the place of the first relevant document; 0 when the first k places hold none.

    The mean of it over queries is the mean reciprocal rank.
    """
    gains = _gains(judged)
    places = (place for place, one in enumerate(_top(ranked, k), start=1) if one in gains)
    first = next(places, None)
    return 0.0 if first is None else 1.0 / first


def overlap(a: Sequence[str], b: Sequence[str], k: int = 10) -> float:
    """Return the share of the first k places that two rankings have in common, whatever their order.

    The longer one is the measure, so that an answer that lost documents is not the same answer;
    two empty rankings are.
    """
    left, right = set(_top(a, k)), set(_top(b, k))
    longest = max(len(left), len(right))
    return len(left & right) / longest if longest else 1.0


def _top(ranked: Sequence[str], k: int | None) -> list[str]:
    if k is not None and k < 1:
        message = f"k is {k}; give 1 or more places"
        raise RequestError(message)
    return collapse(ranked)[:k]


def _gains(judged: Mapping[str, float]) -> dict[str, float]:
    odd = [one for one, value in judged.items() if not math.isfinite(value)]
    if odd:
        message = f"document {odd[0]!r} is judged {judged[odd[0]]}; a judgement is a finite number"
        raise GoldenError(message)
    gains = {one: float(value) for one, value in judged.items() if value > 0}
    if not gains:
        message = "no document is judged relevant; leave queries without a positive judgement out of the mean"
        raise GoldenError(message)
    return gains


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value, and the bounds between which resampling the queries leaves it."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return the same as plain JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def bootstrap_mean(values: npt.ArrayLike, *, seed: int, rounds: int = 2000, level: float = 0.95) -> Interval:
    """Return the mean, with its percentile bootstrap interval (Efron 1979).

    The same values and seed give the same interval. Memory stays at a few MiB whatever the number
    of values and rounds, unless one round alone is larger.
    """
    numbers = _numbers(values, "values")
    if rounds < 1 or not 0 < level < 1:
        message = f"rounds={rounds}, level={level}: give at least one round, and a level between 0 and 1"
        raise RequestError(message)
    means = _resampled_means(numbers, np.random.default_rng(seed), rounds)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(numbers.mean()), float(low), float(high))


def paired_bootstrap(
    candidate: npt.ArrayLike, live: npt.ArrayLike, *, seed: int, rounds: int = 10_000, level: float = 0.95
) -> Interval:
    """Return the mean of candidate minus live over the same queries, with its interval.

    Resampling the differences keeps each query's two scores together, so that hard and easy
    queries do not blur the comparison.
    """
    left, right = _numbers(candidate, "candidate"), _numbers(live, "live")
    if left.shape != right.shape:
        message = f"candidate has {left.size} scores, live has {right.size}; score both on the same queries"
        raise GoldenError(message)
    return bootstrap_mean(left - right, seed=seed, rounds=rounds, level=level)


def _numbers(values: npt.ArrayLike, what: str) -> Floats:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not numbers.size:
        message = f"{what}: expected one score a query, got an array of shape {numbers.shape}"
        raise GoldenError(message)
    odd = np.flatnonzero(~np.isfinite(numbers))
    if odd.size:
        message = f"{what}: score {int(odd[0])} is {numbers[odd[0]]}; every score is a finite number"
        raise GoldenError(message)
    return numbers


def _resampled_means(numbers: Floats, random: np.random.Generator, rounds: int) -> Floats:
    means = np.empty(rounds)
    block = max(1, _CELLS // numbers.size)
    for start in range(0, rounds, block):
        stop = min(start + block, rounds)
        drawn = random.integers(0, numbers.size, size=(stop - start, numbers.size))
        means[start:stop] = numbers[drawn].mean(axis=1)
    return means


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What each judged query scored: arrays as long as `query_ids`, in its order."""

    query_ids: tuple[str, ...]
    ndcg: Floats
    recall: Floats
    mrr: Floats
    k: int = 10

    def __len__(self) -> int:
        return len(self.query_ids)

    def only(self, query_ids: Iterable[str]) -> Scores:
        """Keep the scores of these queries alone, such as one segment's, in their present order."""
        wanted = set(query_ids)
        kept = np.array([one in wanted for one in self.query_ids], dtype=bool)
        names = tuple(one for one in self.query_ids if one in wanted)
        return Scores(names, self.ndcg[kept], self.recall[kept], self.mrr[kept], self.k)

    def summary(self, *, seed: int, rounds: int = 2000, level: float = 0.95) -> dict[str, Interval]:
        """Return the mean of each measure, with its interval, under the names that `evaluate` prints."""
        columns = {f"ndcg@{self.k}": self.ndcg, f"recall@{self.k}": self.recall, "mrr": self.mrr}
        return {name: bootstrap_mean(column, seed=seed, rounds=rounds, level=level) for name, column in columns.items()}


def score(
    rankings: Mapping[str, Sequence[str]], judgements: Mapping[str, Mapping[str, float]], *, k: int = 10
) -> Scores:
    """Score one ranking for each judged query; the reciprocal rank looks at the whole ranking."""
    missing = [query for query in judgements if query not in rankings]
    if missing:
        message = (
            f"{len(missing)} judged queries have no ranking, the first is {missing[0]!r}; search every one of them"
        )
        raise GoldenError(message)
    pairs = [(rankings[query], judged) for query, judged in judgements.items()]
    return Scores(
        tuple(judgements),
        _frozen(ndcg(ranked, judged, k=k) for ranked, judged in pairs),
        _frozen(recall(ranked, judged, k) for ranked, judged in pairs),
        _frozen(mrr(ranked, judged) for ranked, judged in pairs),
        k,
    )


def _frozen(values: Iterable[float]) -> Floats:
    out = np.array(list(values), dtype=np.float64)
    out.setflags(write=False)
    return out
