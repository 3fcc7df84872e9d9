"""Levels of expertise, computed from what a user asked: how many questions, on how many days.

Few questions say nothing. A level grows with practice on several days, so that one long evening makes nobody an
expert. What is counted are questions: where a session's count goes up, the difference; where it begins anew, all of
it; a row that repeats the count of the one before it asks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

__all__ = ["LEVELS", "Practice", "level", "practices"]

# From so many questions on so many days on, the level; the highest that fits counts.
LEVELS = (("beginner", 5, 1), ("intermediate", 25, 3), ("expert", 150, 15))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Practice:
    """What one user asked up to now."""

    user_id: str
    questions: int
    days: int
    last: datetime

    @property
    def level(self) -> str | None:
        """The level that this makes; None where it says too little."""
        return level(self.questions, self.days)


def level(questions: int, days: int) -> str | None:
    """The highest level that so many questions on so many days reach.

    >>> level(4, 4), level(200, 2), level(200, 20)
    (None, 'beginner', 'expert')
    """
    reached = [name for name, least, spread in LEVELS if questions >= least and days >= spread]
    return reached[-1] if reached else None


def practices(activity: pa.Table) -> Iterator[Practice]:
    """Each user's practice, from rows of user_id, event_timestamp and session_queries_count in any order."""
    if not activity.num_rows:
        return
    ordered = activity.sort_by([("user_id", "ascending"), ("event_timestamp", "ascending")])
    users = ordered["user_id"].to_numpy()
    micros = ordered["event_timestamp"].cast(pa.int64()).to_numpy()
    counts = ordered["session_queries_count"].fill_null(0).to_numpy()
    first = np.concatenate([[True], users[1:] != users[:-1]])
    starts = np.flatnonzero(first)
    questions = np.add.reduceat(_asked(counts, first), starts)
    days = np.add.reduceat(first | np.concatenate([[True], np.diff(micros // _DAY) != 0]), starts)
    ends = np.concatenate([starts[1:], [len(users)]]) - 1
    yield from _practices(users[starts], questions.tolist(), days.tolist(), micros[ends].tolist())


def _asked(counts: np.ndarray, first: np.ndarray) -> np.ndarray:
    """How many questions each row brings beside the row before it of the same user."""
    before = np.concatenate([[0], counts[:-1]])
    grown = np.where(counts >= before, counts - before, counts)
    return np.where(first, counts, grown)


def _practices(
    users: np.ndarray, questions: Sequence[int], days: Sequence[int], last: Sequence[int]
) -> Iterator[Practice]:
    for user, count, spread, at in zip(users, questions, days, last, strict=True):
        yield Practice(str(user), int(count), int(spread), _EPOCH + timedelta(microseconds=at))
