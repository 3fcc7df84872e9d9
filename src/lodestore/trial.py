"""A trial: a version measured on judged documents and a sample of others, before all is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lodestore.golden import GoldenQuery, GoldenSet
from lodestore.metrics import Interval

__all__ = ["TRIAL_SECONDS", "Trial", "sampled"]

TRIAL_SECONDS = 60.0
_OTHERS = 2_000  # documents that no judgement names, so that a trial has something to be wrong about
_JUDGED = 0.6  # of the cost goes to judged documents, the rest to others


@dataclass(frozen=True, slots=True)
class Trial:
    """A version measured on judged documents and a sample, before all is built."""

    key: str
    label: str
    live_label: str | None
    queries: int
    rows: int
    seconds: float
    candidate: Mapping[str, Interval]
    difference: Interval | None


def sampled(
    golden: GoldenSet, costs: Mapping[str, int], *, known: Sequence[str], tokens: float
) -> tuple[GoldenSet, list[str]]:
    """Queries with all their judged documents, and others of the `known`, that cost about so many tokens.

    `costs` are tokens by document; one that it does not name costs nothing. At least one query is in it.
    """
    random = np.random.default_rng(0)
    queries, chosen, spent = _queries(golden, costs, random, _JUDGED * tokens)
    others = [one for one in known if one not in chosen]
    for place in random.permutation(len(others))[:_OTHERS]:
        spent += costs.get(others[place], 0)
        if spent > tokens:
            break
        chosen.add(others[place])
    judgements = {one.query_id: golden.judgements[one.query_id] for one in queries}
    return GoldenSet(golden.name, tuple(queries), judgements), sorted(chosen)


def _queries(
    golden: GoldenSet, costs: Mapping[str, int], random: np.random.Generator, tokens: float
) -> tuple[list[GoldenQuery], set[str], int]:
    """Queries, the documents that are judged for them, and what these cost."""
    queries: list[GoldenQuery] = []
    chosen: set[str] = set()
    spent = 0
    for place in random.permutation(len(golden.judged)):
        query = golden.judged[place]
        new = set(golden.judgements[query.query_id]) - chosen
        price = sum(costs.get(one, 0) for one in new)
        if queries and spent + price > tokens:
            break
        queries.append(query)
        chosen |= new
        spent += price
    return queries, chosen, spent
