"""Training sets: online and offline agree, many views at once, and nothing of the future in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestore.catalog import catalog_of
from lodestore.errors import LodestoreError, RequestError
from lodestore.features import Features
from lodestore.historical import historical
from lodestore.inputs import Inputs
from lodestore.logs import Logs
from lodestore.project import open_project
from lodestore.publishing import publish
from lodestore.rows import check_rows, check_table, checked_rows
from lodestore.spec import (
    Entity,
    FeatureView,
    boolean,
    category,
    integer,
    list_of,
    number,
    on_demand,
    struct,
    text,
    timestamp,
)
from lodestore.standard import personalized, user_profile
from lodestore.tables import view_table
from lodestore.testing import FrozenClock, MemoryOnlineStore, MemoryStore, assert_no_leak

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MOMENT = pa.timestamp("us", tz="UTC")
user = Entity("user", key="user_id")
taste = FeatureView(
    "taste",
    entity=user,
    features={"level": category("low", "high"), "likes": struct(), "tags": list_of(text()), "since": timestamp()},
)
money = FeatureView("money", entity=user, ttl=timedelta(days=1), features={"cents": integer(), "share": number()})


@on_demand(
    reads=(taste["level"], taste["likes"], taste["tags"], taste["since"], money["cents"]),
    inputs={"query_text": text()},
    features={"greeting": text(), "total": integer(), "told": struct(), "known": boolean()},
)
def mixed(
    level: str | None,
    likes: Mapping[str, Any] | None,
    tags: list[str] | None,
    since: datetime | None,
    cents: int | None,
    query_text: str,
) -> dict[str, object]:
    """Something of every type."""
    told = None if likes is None else {"n": len(likes), "tags": tags, "year": since.year if since else None}
    return {"greeting": f"{level} {query_text}", "total": (cents or 0) + 1, "told": told, "known": level is not None}


CATALOG = catalog_of([taste, money, mixed, user_profile, personalized])
REFS = [f"mixed:{name}" for name in mixed.features]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["a", "b", "c"]),
            "level": st.sampled_from(["low", "high", None]),
            "likes": st.sampled_from([None, {}, {"x": 1, "y": [1, 2]}]),
            "tags": st.sampled_from([None, [], ["p", "q"]]),
            "since": st.sampled_from([None, NOON]),
        }
    ),
    max_size=4,
)


class House:
    def __init__(self) -> None:
        self.clock, self.offline, self.online = FrozenClock(NOON), MemoryStore(), MemoryOnlineStore()
        self.features = Features(CATALOG, self.offline, self.online, Logs(self.offline, self.clock), self.clock)

    def record(self, view: FeatureView, *rows: dict[str, Any]) -> None:
        self.features.record(view, checked_rows(view, rows, now=self.clock()))
        self.features.materialize(view)


def asked(*users: str, at: datetime = NOON, **columns: list[Any]) -> pa.Table:
    moments = pa.array([at] * len(users), MOMENT)
    return pa.table({"user_id": pa.array(users, pa.string()), "event_timestamp": moments, **columns})


# One function, both sides


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS, st.lists(st.integers(0, 10), max_size=2))
def test_on_demand_features_of_a_table_are_those_of_its_rows_online(
    rows: list[dict[str, Any]], cents: list[int]
) -> None:
    house = House()
    for place, row in enumerate(rows):
        house.record(taste, {**row, "event_timestamp": NOON - (9 - place) * HOUR})
    for place, one in enumerate(cents):
        house.record(money, {"user_id": "a", "event_timestamp": NOON - (5 - place) * HOUR, "cents": one})
    users, words = ["a", "b", "c", "a"], ["w", "x", "y", "z"]

    table = historical(asked(*users, query_text=words), REFS, catalog=CATALOG, offline=house.offline)
    online = house.features.online(REFS, {"user_id": users}, inputs={"query_text": words})

    for ref in REFS:
        offline = table[ref].to_pylist()
        if ref == "mixed:told":
            offline = [None if one is None else json.loads(one) for one in offline]
        assert offline == online.columns[ref]


def test_a_request_input_that_does_not_fit_is_refused_offline_too() -> None:
    rows = asked("a", query_text=[3])

    with pytest.raises(RequestError, match=r"inputs.query_text, row 1"):
        historical(rows, REFS, catalog=CATALOG, offline=House().offline)


def test_the_personalised_context_of_a_table_is_that_of_its_rows_online() -> None:
    house = House()
    house.record(user_profile, {"user_id": "a", "event_timestamp": NOON - HOUR, "expertise_level": "expert"})
    refs = ["personalized:personalized_context", "personalized:expertise_modifier"]

    table = historical(asked("a", "b", query_text=["q", "r"]), refs, catalog=CATALOG, offline=house.offline)
    online = house.features.online(refs, {"user_id": ["a", "b"]}, inputs={"query_text": ["q", "r"]})

    assert [table[ref].to_pylist() for ref in refs] == [online.columns[ref] for ref in refs]


# Many views


def test_many_views_in_one_call_keep_every_row_once_in_order_with_its_columns() -> None:
    house = House()
    house.record(taste, {"user_id": "a", "event_timestamp": NOON - HOUR, "level": "low"})
    house.record(money, {"user_id": "b", "event_timestamp": NOON - 2 * HOUR, "cents": 5})
    rows = asked("b", "a", "a", "nobody", label=[1, 2, 3, 4])

    found = historical(rows, ["money:cents", "taste:level", "money:share"], catalog=CATALOG, offline=house.offline)

    assert found.column_names == ["user_id", "event_timestamp", "label", "money:cents", "taste:level", "money:share"]
    assert found["label"].to_pylist() == [1, 2, 3, 4]
    assert found["money:cents"].to_pylist() == [5, None, None, None]
    assert found["taste:level"].to_pylist() == [None, "low", "low", None]


def test_a_data_frame_comes_back_as_one_with_its_index_and_its_columns() -> None:
    house = House()
    house.record(taste, {"user_id": "a", "event_timestamp": NOON - HOUR, "level": "low"})
    frame = asked("b", "a", label=[1, 2]).to_pandas().set_index(pd.Index([7, 7]))

    found = historical(frame, ["taste:level"], catalog=CATALOG, offline=house.offline)

    assert_no_leak(frame, ["taste:level"], found, catalog=CATALOG, offline=house.offline)
    assert list(found.columns) == ["user_id", "event_timestamp", "label", "taste:level"]
    assert found.index.tolist() == [7, 7]
    assert [one if isinstance(one, str) else None for one in found["taste:level"]] == [None, "low"]
    assert "taste:level" not in frame.columns


def test_whole_numbers_of_a_data_frame_keep_their_last_digit_where_some_are_unknown() -> None:
    house, purse = House(), FeatureView("purse", entity=user, features={"cents": integer(wide=True)})
    table = checked_rows(
        purse, [{"user_id": "a", "event_timestamp": NOON - HOUR, "cents": 2**60 + 1}], now=house.clock()
    )
    house.offline.ensure(view_table(purse), table.schema, key="event_id")
    house.offline.append(view_table(purse), table)
    frame = asked("b", "a", label=[1, 2]).to_pandas()

    found = historical(frame, ["purse:cents"], catalog=catalog_of([purse]), offline=house.offline)

    assert found["purse:cents"].isna().tolist() == [True, False]
    assert int(found["purse:cents"][1]) == 2**60 + 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([{"user_id": "a"}], "entities are a list; give an Arrow table or a data frame"),
        (pd.DataFrame({"user_id": ["a"], "event_timestamp": ["2026-01-01"]}), "taste: entities: event_timestamp is"),
        (pd.DataFrame({"userid": ["a"], "event_timestamp": [NOON]}), "taste: .*did you mean 'userid'"),
        (pa.table({"user_id": [1], "event_timestamp": pa.array([NOON])}), "taste: key 'user_id' is int64"),
        (
            pa.table({"user_id": ["a"], "event_timestamp": pa.array([NOON.replace(tzinfo=None)])}),
            "taste: .*no time zone",
        ),
        (pa.table({"user_id": ["a", "b"], "event_timestamp": pa.array([NOON, None])}), r"taste: .*rows, such as \[1\]"),
    ],
)
def test_entities_that_do_not_fit_are_told_with_the_view(given: Any, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        historical(given, ["taste:level"], catalog=CATALOG, offline=House().offline)


@pytest.mark.parametrize(
    ("features", "known_at", "told"),
    [
        ("taste:level", None, "give a list of references"),
        (["taste:levle"], None, "did you mean 'taste:level'"),
        (["tast:level"], None, "did you mean 'taste'"),
        (["taste:level"], "2026-01-01", "as_known_at '2026-01-01' is str; give a datetime"),
        (["taste:level"], NOON.replace(tzinfo=None), "as_known_at .* has no time zone"),
    ],
)
def test_a_training_set_that_cannot_be_made_is_told_why(features: Any, known_at: Any, told: str) -> None:
    with pytest.raises(LodestoreError, match=told):
        historical(asked("a"), features, catalog=CATALOG, offline=House().offline, as_known_at=known_at)


def test_a_history_that_is_too_large_to_be_held_is_streamed_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    for hours in range(1, 5):
        row = {"user_id": "a", "event_timestamp": NOON - hours * HOUR, "level": "low" if hours % 2 else "high"}
        house.record(taste, row)
    rows = asked("a", "b", at=NOON - 2 * HOUR)

    held = historical(rows, ["taste:level"], catalog=CATALOG, offline=house.offline)
    monkeypatch.setattr("lodestore.historical._HELD_BYTES", 1)
    streamed = historical(rows, ["taste:level"], catalog=CATALOG, offline=house.offline)

    assert held["taste:level"].to_pylist() == ["high", None]
    assert streamed.equals(held)


# Leaks


def test_a_training_set_of_values_that_were_known_passes_the_leakage_test() -> None:
    house = House()
    house.record(taste, {"user_id": "a", "event_timestamp": NOON - HOUR, "level": "low"})

    assert_no_leak(asked("a", "b"), ["taste:level"], catalog=CATALOG, offline=house.offline)


def test_a_value_that_was_recorded_after_the_rows_time_fails_it_without_being_shown() -> None:
    house = House()
    late = {"user_id": "a", "event_timestamp": NOON - 3 * HOUR, "created_timestamp": NOON, "level": "high"}
    house.record(taste, late)
    rows = asked("a", at=NOON - 2 * HOUR)

    with pytest.raises(AssertionError, match="1 of 1 rows") as told:
        assert_no_leak(rows, ["taste:level"], catalog=CATALOG, offline=house.offline)
    assert "high" not in str(told.value)


def test_a_training_set_from_elsewhere_is_tested_the_same_way() -> None:
    house = House()
    house.record(taste, {"user_id": "a", "event_timestamp": NOON - HOUR, "level": "low"})
    rows = asked("a", at=NOON - 2 * HOUR)
    joined = rows.append_column("taste:level", pa.array(["low"]))

    with pytest.raises(AssertionError, match="1 of 1 rows"):
        assert_no_leak(rows, ["taste:level"], joined, catalog=CATALOG, offline=house.offline)


# Whole tables checked at once


VALUES = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["a", "", None, "ä"]),
        "event_timestamp": st.sampled_from([NOON, NOON - HOUR, NOON + 24 * HOUR, None]),
        "level": st.sampled_from(["low", "high", "hihg", None]),
        "cents": st.sampled_from([0, -1, 2**53, None]),
        "share": st.sampled_from([0.5, float("inf"), float("nan"), None, 2.0]),
    }
)
plain = FeatureView(
    "plain",
    entity=user,
    features={"level": category("low", "high"), "cents": integer(minimum=0), "share": number(maximum=1)},
)
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", MOMENT),
        ("level", pa.string()),
        ("cents", pa.int64()),
        ("share", pa.float64()),
    ]
)


@settings(deadline=None, max_examples=100)
@given(st.lists(VALUES, max_size=3))
def test_a_table_is_checked_as_its_rows_are(rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)

    whole = check_table(plain, table, now=NOON)
    single = check_rows(plain, table.to_pylist(), now=NOON)

    assert whole.problems == single.problems
    assert whole.table.equals(single.table)


def test_a_table_with_a_column_that_nobody_declares_names_it() -> None:
    table = pa.table({"user_id": ["a"], "event_timestamp": pa.array([NOON], MOMENT), "cent": [3]})

    (problem,) = check_table(plain, table, now=NOON).problems

    assert "did you mean 'cents'" in problem.what


# Computed standard features


def test_documents_have_summaries_counts_and_vectors(make_project: Callable[..., Path]) -> None:
    project = open_project(make_project())
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()
    project.pipeline.fill_maintained()
    project.pipeline.promote_first()
    view = project.catalog.view("document_features")
    rows = project.tables.read(project.live().version().table, ["row_id", "document_id"]).to_pylist()
    chunk = next(row["row_id"] for row in rows if row["document_id"] == "handbook/travel.md")
    first = project.pipeline.record(view)
    for name in ("c1", "c2"):
        project.logs.put("contexts", {"id": name, "chunks": json.dumps([chunk, chunk])})
    second, third = project.pipeline.record(view), project.pipeline.record(view)
    publish(project, views=["document_features"])

    refs = [f"document_features:{one}" for one in ("summary", "access_count", "word_count")]
    found = project.store.online(refs, {"document_id": ["handbook/travel.md", "handbook/kitchen.md"]}).columns

    assert (first.added, second.added, third.added) == (4, 1, 0)
    assert found[refs[0]][0] == "Trains are booked at the desk. Flights need the approval of a manager."
    assert found[refs[1]] == [2, 0]
    assert all(found[refs[2]])


def test_a_summary_is_kept_until_its_document_changes() -> None:
    house = House()
    store = house.offline
    columns = {
        "document_id": ["d"],
        "content": ["This is the first text of all."],
        "ingested_at": pa.array([NOON], MOMENT),
    }
    table = pa.table(columns)
    store.ensure("documents", table.schema)
    store.append("documents", table)
    view = FeatureView("notes", entity=Entity("document", key="document_id"), features={"summary": text()})
    row = {"document_id": "d", "event_timestamp": NOON, "summary": "A summary of somebody else."}
    Features(catalog_of([view]), store, house.online, Logs(store, house.clock), house.clock).record(
        view, checked_rows(view, [row], now=NOON)
    )

    kept = Inputs(store).summaries(view)
    store.drop("documents")
    store.ensure("documents", table.schema)
    store.append("documents", table.set_column(2, "ingested_at", pa.array([NOON + HOUR], MOMENT)))
    changed = Inputs(store).summaries(view)

    assert kept == {"d": "A summary of somebody else."}
    assert changed == {"d": "This is the first text of all."}


@pytest.mark.parametrize(
    ("row", "age"),
    [
        ({"signed_up_at": NOON - timedelta(days=10, hours=5)}, 10),
        ({"signed_up_at": (NOON - timedelta(days=1)).isoformat()}, 1),
        ({"signed_up_at": NOON - timedelta(days=10), "account_age_days": 3}, 3),
        ({"signed_up_at": NOON + HOUR}, 0),
        ({}, None),
    ],
)
def test_the_age_of_an_account_follows_from_its_sign_up(row: dict[str, Any], age: int | None) -> None:
    table = checked_rows(user_profile, [{"user_id": "a", "event_timestamp": NOON, **row}], now=NOON)

    assert table["account_age_days"].to_pylist() == [age]


def test_a_sign_up_that_is_no_moment_is_named() -> None:
    found = check_rows(user_profile, [{"user_id": "a", "event_timestamp": NOON, "signed_up_at": "soon"}], now=NOON)

    assert "signed_up_at" in found.problems[0].what
