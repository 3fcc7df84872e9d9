"""The level of expertise that a user's questions make."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestore import standard
from lodestore.catalog import catalog_of
from lodestore.expertise import Practice, level, practices
from lodestore.features import Features, Inputs
from lodestore.logs import Logs
from lodestore.tables import MOMENT
from lodestore.testing import FrozenClock, MemoryOnlineStore, MemoryStore

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def activity(rows: list[tuple[str, datetime, int | None]]) -> pa.Table:
    users, times, counts = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "event_timestamp": pa.array(times, MOMENT),
            "session_queries_count": pa.array(counts, pa.int64()),
        }
    )


def sessions(user: str, *, days: int, questions: int, until: datetime = NOON) -> list[dict[str, Any]]:
    """So many questions a day, on so many days up to that moment."""
    return [
        {
            "user_id": user,
            "event_timestamp": until - timedelta(days=day, minutes=questions - count),
            "session_queries_count": count,
        }
        for day in range(days)
        for count in range(1, questions + 1)
    ]


class House:
    def __init__(self) -> None:
        self.clock = FrozenClock(NOON + timedelta(minutes=1))
        self.store, self.online = MemoryStore(), MemoryOnlineStore()
        self.catalog = catalog_of([standard.user_profile, standard.user_activity])
        self.features = Features(
            self.catalog, self.store, self.online, Logs(self.store, self.clock), self.clock, skew_every=0
        )

    def push(self, view: str, rows: list[dict[str, Any]]) -> None:
        self.features.push(view, rows)
        self.features.drain()

    def compute(self) -> int:
        added = self.features.compute(standard.user_profile, Inputs(self.store)).added
        self.features.materialize(standard.user_profile)
        return added

    def read(self, user: str, name: str = "expertise_level") -> Any:
        ref = f"user_profile:{name}"
        return self.features.online([ref], {"user_id": [user]}).columns[ref][0]


@pytest.mark.parametrize(
    ("questions", "days", "expected"),
    [
        (4, 4, None), (5, 1, "beginner"), (25, 2, "beginner"), (25, 3, "intermediate"), (149, 40, "intermediate"),
        (1_000, 14, "intermediate"), (150, 15, "expert"),
    ],
)  # fmt: skip
def test_a_level_needs_questions_and_days(questions: int, days: int, expected: str | None) -> None:
    assert level(questions, days) == expected


def test_a_count_that_begins_anew_is_another_session_and_one_that_stays_asks_nothing() -> None:
    at = [NOON + timedelta(minutes=step) for step in range(6)]
    counts = [2, 3, 3, None, 1, 5]

    (one,) = practices(activity([("ada", *pair) for pair in zip(at, counts, strict=True)]))

    assert one == Practice("ada", 8, 1, at[-1])


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 5_000), st.none() | st.integers(0, 9)),
        max_size=30,
        unique_by=lambda one: one[:2],
    )
)
def test_practices_are_those_of_a_plain_walk_over_each_users_rows(given: list[tuple[str, int, int | None]]) -> None:
    rows = [(user, NOON + timedelta(minutes=minute), count) for user, minute, count in given]
    walked = {}
    for user, at, count in sorted(rows, key=lambda one: one[:2]):
        asked, days, before = walked.get(user, (0, set(), 0))[:3]
        now = count or 0
        walked[user] = (asked + (now - before if now >= before else now), days | {at.date()}, now, at)

    found = {one.user_id: (one.questions, one.days, one.last) for one in practices(activity(rows))}

    assert found == {user: (asked, len(days), at) for user, (asked, days, _, at) in walked.items()}


def test_questions_make_a_level_where_nobody_states_one() -> None:
    house = House()
    house.push("user_activity", sessions("new", days=1, questions=4) + sessions("busy", days=3, questions=10))

    added = house.compute()

    assert (added, house.read("busy"), house.read("new")) == (1, "intermediate", None)
    assert house.compute() == 0


def test_a_stated_level_is_never_replaced_and_counts_as_soon_as_it_comes() -> None:
    house = House()
    house.push("user_activity", sessions("ada", days=3, questions=10))
    house.compute()
    house.push("user_profile", [{"user_id": "ada", "event_timestamp": NOON, "expertise_level": "expert"}])

    house.push("user_activity", sessions("ada", days=1, questions=5, until=NOON + timedelta(minutes=1)))

    assert (house.compute(), house.read("ada")) == (0, "expert")


def test_the_rest_of_a_profile_stays_beside_a_computed_level_and_is_not_renewed() -> None:
    house = House()
    stated = {"event_timestamp": NOON - timedelta(hours=2), "preferred_language": "de", "user_preferences": {"a": 1}}
    house.push("user_profile", [
        {"user_id": "ada", **stated, "signed_up_at": NOON - timedelta(days=9)},
        {"user_id": "old", **stated, "event_timestamp": NOON - timedelta(days=2), "account_age_days": 3},
    ])  # fmt: skip
    house.push("user_activity", sessions("ada", days=1, questions=5) + sessions("old", days=1, questions=5))

    assert house.compute() == 2

    names = ("expertise_level", "preferred_language", "user_preferences", "account_age_days")
    assert [house.read("ada", name) for name in names] == ["beginner", "de", {"a": 1}, 9]
    assert [house.read("old", name) for name in names] == ["beginner", None, None, None]


def test_a_level_that_a_newer_profile_leaves_open_is_there_again_after_the_next_run() -> None:
    house = House()
    house.push("user_activity", sessions("ada", days=1, questions=5, until=NOON - timedelta(hours=1)))
    house.compute()
    house.push("user_profile", [{"user_id": "ada", "event_timestamp": NOON, "preferred_language": "fr"}])
    assert house.read("ada") is None

    house.compute()

    assert (house.read("ada"), house.read("ada", "preferred_language")) == ("beginner", "fr")


def test_without_activity_nothing_is_computed() -> None:
    assert House().compute() == 0
