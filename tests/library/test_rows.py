"""Rows that fit their view, and every reason why others do not."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as time_of_day
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.errors import DeclarationError, InvalidRowsError
from lodestore.events import TextRow
from lodestore.rows import CheckedRows, check_rows, check_value, checked_rows
from lodestore.spec import (
    Entity,
    Feature,
    FeatureView,
    boolean,
    category,
    embedding,
    integer,
    list_of,
    number,
    prompt,
    struct,
    text,
    timestamp,
)
from lodestore.tables import view_schema

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
user = Entity("user", key="user_id")
account = Entity("account", key=("tenant", "number"), type=("string", "integer"))
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def view(entity: Entity = user, **features: Feature) -> FeatureView:
    return FeatureView("profile", entity=entity, features=features)


def row(**values: Any) -> dict[str, Any]:
    return {"user_id": "u1", "event_timestamp": "2026-07-01T11:00:00Z", **values}


def check(feature: Feature, value: object, *, untyped: bool = False) -> CheckedRows:
    given_row = row(x=value)
    return check_rows(view(x=feature), [TextRow(given_row) if untyped else given_row], now=NOW)


def problem(feature: Feature, value: object, *, untyped: bool = False) -> str:
    (only,) = check(feature, value, untyped=untyped).problems
    return only.what


def stored(feature: Feature, value: object, *, untyped: bool = False) -> object:
    found = check(feature, value, untyped=untyped)
    assert found.problems == ()
    return found.table["x"].to_pylist()[0]


@pytest.mark.parametrize(
    ("feature", "value", "expected"),
    [
        (category("a", "b"), "a", "a"),
        (integer(), 3, 3),
        (integer(), 3.0, 3),
        (integer(), -(2**53) + 1, -(2**53) + 1),
        (integer(wide=True), 2**63 - 1, 2**63 - 1),
        (integer(wide=True), str(-(2**63)), -(2**63)),
        (integer(minimum=0, maximum=9), 9, 9),
        (integer(), np.int64(7), 7),
        (number(), 1, 1.0),
        (number(), np.float32(0.5), 0.5),
        (number(minimum=0.5), 0.5, 0.5),
        (boolean(), False, False),
        (boolean(), np.bool_(True), True),
        (text(), "", ""),
        (text(max_length=2), "éé", "éé"),
        (prompt(), "Hello {name}", "Hello {name}"),
        (timestamp(), "2026-01-01T02:00:00+02:00", datetime(2026, 1, 1, tzinfo=UTC)),
        (timestamp(), datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 1, 1, tzinfo=UTC)),
        (timestamp(), pd.Timestamp("2026-01-01T00:00:00.000001999Z"), datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        (timestamp(), "2099-01-01T00:00:00Z", datetime(2099, 1, 1, tzinfo=UTC)),
        (struct(), {"b": 1, "a": [None, math.nan]}, '{"b":1,"a":[null,null]}'),
        (struct(), '{"a": "é"}', '{"a":"é"}'),
        (struct(), {"at": datetime(2026, 1, 1, tzinfo=UTC)}, '{"at":"2026-01-01T00:00:00Z"}'),
        (struct(SCHEMA), {"n": 1}, '{"n":1}'),
        (
            struct(),
            {"a": Decimal("NaN"), "b": pd.NA, "c": {2, 1}, "d": np.arange(2)},
            '{"a":null,"b":null,"c":[1,2],"d":[0,1]}',
        ),
        (struct(), {"at": time_of_day(12, 30), "on": date(2026, 1, 2)}, '{"at":"12:30:00","on":"2026-01-02"}'),
        (list_of(integer()), [1, None], [1, None]),
        (list_of(text()), ("a",), ["a"]),
        (list_of(number()), np.array([1.5, 2.5]), [1.5, 2.5]),
    ],
)
def test_a_good_value_is_stored(feature: Feature, value: object, expected: object) -> None:
    assert stored(feature, value) == expected


@pytest.mark.parametrize("value", [None, math.nan, np.float64("nan"), pd.NaT, pd.NA])
@pytest.mark.parametrize(
    "feature",
    [category("a"), integer(minimum=0), number(), boolean(), text(), timestamp(), struct(SCHEMA), list_of(text())],
)
def test_nothing_and_nan_are_null_for_every_kind(feature: Feature, value: object) -> None:
    assert stored(feature, value) is None


@pytest.mark.parametrize(
    ("feature", "value", "told"),
    [
        (category("beginner", "expert"), "expret", "'expret' is none of beginner, expert; did you mean 'expert'?"),
        (category("a"), 1, "1 is none of a"),
        (category("a"), ["a"], "['a'] is none of a"),
        (integer(), "3", "'3' is no whole number; write it without quotes"),
        (integer(), 3.5, "3.5 is no whole number"),
        (integer(), True, "True is no whole number"),
        (integer(), math.inf, "inf is no whole number"),
        (integer(), 2**53, "beyond 2^53 - 1"),
        (integer(wide=True), 2**63, "does not fit 64 bits"),
        (integer(), 10**4000, "a whole number of 13288 bits does not fit 64 bits"),
        (integer(minimum=0), -1, "-1 is below 0"),
        (integer(maximum=9), 10, "10 is above 9"),
        (number(), math.inf, "inf is no finite number"),
        (number(), -math.inf, "-inf is no finite number"),
        (number(), "2.5", "'2.5' is no finite number; write it without quotes"),
        (number(), 10**400, "is no finite number"),
        (number(), False, "False is no finite number"),
        (number(minimum=0, maximum=1), 1.5, "1.5 is above 1"),
        (boolean(), 1, "1 is neither true nor false"),
        (boolean(), "true", "'true' is neither true nor false; write it without quotes"),
        (text(), 5, "int is no text"),
        (text(max_length=3), "four", "text of 4 characters; at most 3 are allowed"),
        (text(), "x" * 1_000_001, "at most 1,000,000"),
        (text(), "\ud800", "not valid Unicode"),
        (timestamp(), datetime(2026, 1, 1), "no time zone; add one, for example with .replace(tzinfo=UTC)"),  # noqa: DTZ001 - what is refused
        (timestamp(), "2026-01-01T00:00:00", "no time zone; write it like 2026-01-01T00:00:00Z"),
        (timestamp(), "2026-01-01", "write it like 2026-01-01T00:00:00Z"),
        (timestamp(), "yesterday", "'yesterday' is not a timestamp"),
        (timestamp(), 1_790_000_000, "is no timestamp; write it like"),
        (timestamp(), "0001-01-01T00:00:00+14:00", "outside the years"),
        (timestamp(), datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), "outside the years"),
        (struct(), "{", "text that is not JSON"),
        (struct(), [1], "list is no JSON object"),
        (struct(), {"n": 2**70}, "JSON cannot hold"),
        (struct(), {1: 2}, "JSON cannot hold"),
        (struct(), {"a": object()}, "a value of type object is none that JSON has"),
        (struct(), {"a": b"bytes"}, "a value of type bytes is none"),
        (struct(), {"a": {object()}}, "a value of type object is none"),
        (struct(), {"a": MappingProxyType({"b": [np.datetime64("2026-01-01", "ns")]})}, "a value of type datetime64"),
        (struct(), {"a": np.array([b"ab"])}, "a value of type ndarray is none"),
        (struct(), {"a": math.inf}, "inf is no finite number"),
        (struct(), {"a": Decimal("-Infinity")}, "no finite number"),
        (struct(), {"a": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001 - that it has none is the point
        (struct(SCHEMA), {"n": Decimal("1.5")}, "is not of type"),
        (integer(wide=True), 2.0**60, "a float beyond 2^53"),
        (struct(), {"x": "\ud800"}, "JSON cannot hold"),
        (struct(SCHEMA), {"n": "one"}, "does not fit its schema"),
        (struct(SCHEMA), {}, "'n' is a required property"),
        (list_of(integer()), "1,2", "str is no list"),
        (list_of(integer()), [1, "2"], "item 2: '2' is no whole number"),
        (list_of(integer(minimum=0)), [-1], "item 1: -1 is below 0"),
        (list_of(text(), max_length=1), ["a", "b"], "a list of 2 items; at most 1"),
        (list_of(timestamp()), ["2026"], "item 1: "),
    ],
)
def test_a_bad_value_is_named_with_the_way_out(feature: Feature, value: object, told: str) -> None:
    found = problem(feature, value)
    assert found.startswith("x: ")
    assert told in found
    assert len(found) < 250


def test_an_object_nested_deeper_than_json_goes_is_a_problem() -> None:
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"a": deep}

    assert "JSON cannot hold" in problem(struct(), deep)
    assert "not JSON" in problem(struct(), '{"a":' * 2000 + "1" + "}" * 2000)


@pytest.mark.parametrize(
    ("feature", "value", "expected"),
    [
        (integer(), "42", 42),
        (integer(), " -7 ", -7),
        (number(), "2.5e3", 2500.0),
        (boolean(), "TRUE", True),
        (boolean(), "0", False),
        (list_of(integer()), '[1, "2", null]', [1, 2, None]),
        (text(), "42", "42"),
    ],
)
def test_values_without_types_are_read_from_their_text(feature: Feature, value: str, expected: object) -> None:
    assert stored(feature, value, untyped=True) == expected


@pytest.mark.parametrize("value", ["²", "--5", "1_000", "٣", "", "1e3", "9" * 5000])
def test_text_that_only_looks_like_a_number_is_a_problem(value: str) -> None:
    assert "is no whole number" in problem(integer(), value, untyped=True)


@pytest.mark.parametrize("value", ["nan", "inf", "1,5", "9" * 5000])
def test_text_that_is_no_finite_number_is_a_problem(value: str) -> None:
    assert "is no finite number" in problem(number(), value, untyped=True)


# Keys, times, ids


def rows_problems(entity: Entity, *rows: object) -> list[str]:
    return [str(one) for one in check_rows(view(entity, x=integer()), rows, now=NOW).problems]


def test_the_number_42_and_the_text_42_are_different_keys() -> None:
    assert rows_problems(user, row(user_id=42)) == [
        "row 1: user_id: 42 is int; the key is declared as a string, write it in quotes"
    ]
    assert rows_problems(account, {"tenant": "a", "number": "42", "event_timestamp": NOW}) == [
        "row 1: number: '42' is no whole number; write it without quotes"
    ]


def test_csv_has_no_types_so_an_integer_key_is_read_from_text() -> None:
    given_row = {"tenant": "007", "number": "42", "event_timestamp": "2026-07-01T11:00:00Z"}
    table = checked_rows(view(account, x=integer()), [TextRow(given_row)], now=NOW)

    assert table.select(["tenant", "number"]).to_pylist() == [{"tenant": "007", "number": 42}]


def test_each_missing_part_of_a_key_is_named() -> None:
    assert rows_problems(account, {"event_timestamp": NOW}) == ["row 1: tenant is missing", "row 1: number is missing"]
    assert rows_problems(account, {"tenant": "a", "number": None}) == [
        "row 1: number is missing",
        "row 1: event_timestamp is missing",
    ]


@pytest.mark.parametrize("key", ["", "x" * 1025, "\udfff", True, 1.5, ["u1"], {}])
def test_a_key_that_no_store_can_hold_is_named_once(key: object) -> None:
    (only,) = rows_problems(user, row(user_id=key))
    assert only.startswith("row 1: user_id: ")


def test_an_event_in_the_future_is_refused_and_a_small_difference_of_clocks_is_not() -> None:
    fine = row(event_timestamp=NOW + timedelta(minutes=5))
    late = row(event_timestamp=NOW + timedelta(minutes=5, seconds=1))
    created = row(created_timestamp="2027-01-01T00:00:00Z")

    told = rows_problems(user, fine, late, created)
    assert [one[:6] for one in told] == ["row 2:", "row 3:"]
    assert "lies 0:05:01 in the future" in told[0]
    assert "created_timestamp" in told[1]


def test_a_row_without_a_created_timestamp_was_created_when_it_happened() -> None:
    table = checked_rows(view(x=integer()), [row(), row(created_timestamp=NOW)], now=NOW)
    assert table["created_timestamp"].to_pylist() == [NOW - timedelta(hours=1), NOW]
    assert table["ingested_at"].to_pylist() == [NOW, NOW]


def ids(*rows: dict[str, Any]) -> list[str]:
    return checked_rows(view(x=integer(), y=text()), rows, now=NOW)["event_id"].to_pylist()


def test_the_same_row_gets_the_same_event_id_whatever_its_form() -> None:
    same = ids(
        row(x=1, y=None),
        row(x=1.0),
        {"x": 1, "event_timestamp": NOW - timedelta(hours=1), "user_id": "u1"},
        row(x=1, event_timestamp="2026-07-01T13:00:00+02:00"),
    )
    different = ids(row(x=1), row(x=2), row(x=1, y="1"), row(x=1, user_id="u2"), row(x=1, event_timestamp=NOW))

    assert len(set(same)) == 1
    assert len(set(different)) == 5
    assert different[0] == same[0]


def test_an_event_id_does_not_depend_on_the_rows_beside_it_or_on_the_time_of_the_check() -> None:
    alone = check_rows(view(x=integer(), y=text()), [row(x=1)], now=NOW + timedelta(days=1))
    assert ids(row(x=9, y="z"), row(x=1))[1] == alone.table["event_id"][0].as_py()


def test_a_given_event_id_is_kept() -> None:
    assert ids(row(event_id="e1")) == ["e1"]


@pytest.mark.parametrize("value", ["", "x" * 257, 5])
def test_an_event_id_that_is_no_short_text_is_refused(value: object) -> None:
    assert "is no event id" in rows_problems(user, row(event_id=value))[0]


# Whole batches


def test_an_unknown_column_names_the_nearest() -> None:
    assert rows_problems(user, row(event_timestmp=1)) == [
        "row 1: unknown column 'event_timestmp'; did you mean 'event_timestamp'?"
    ]


def test_vectors_are_passed_over_because_they_have_tables_of_their_own() -> None:
    made = view(x=integer(), taste=embedding("content"))
    found = check_rows(made, [row(taste=[0.1, 0.2])], now=NOW)

    assert found.problems == ()
    assert "taste" not in found.table.column_names


def test_every_bad_row_is_named_at_once_and_the_good_ones_are_kept() -> None:
    given_rows = [row(x=1), row(x="a"), "text", row(x=2, y=3), [1], row(user_id=None, x=-0.5)]
    found = check_rows(view(x=integer()), given_rows, now=NOW)

    assert [one.row for one in found.problems] == [2, 3, 4, 5, 6, 6]
    assert str(found.problems[1]) == "row 3: str is no row; give an object of columns and values"
    assert found.table["x"].to_pylist() == [1]


def test_all_or_nothing_raises_with_every_problem() -> None:
    with pytest.raises(InvalidRowsError, match="profile: nothing was stored: row 2") as raised:
        checked_rows(view(x=integer()), [row(x=1), row(x="a"), row(x="b")], now=NOW)

    assert len(raised.value.problems) == 2


def test_no_rows_are_an_empty_table_of_the_view() -> None:
    made = view(x=integer(), tags=list_of(text()))
    found = check_rows(made, [], now=NOW)

    assert found.table.schema == view_schema(made)
    assert found.table.num_rows == 0


def test_the_rows_given_are_not_changed() -> None:
    given_row = row(x=1)
    check_rows(view(x=integer()), [given_row], now=NOW)
    assert given_row == row(x=1)


def test_a_schema_that_is_none_is_an_error_of_the_declaration() -> None:
    with pytest.raises(DeclarationError, match="'x': its schema is not a JSON Schema"):
        check_rows(view(x=struct({"type": "objct"})), [row(x={})], now=NOW)


# Personal values

SECRET = "ann@example.org"
PERSONAL = [
    (category("a", pii=True), SECRET),
    (integer(pii=True), SECRET),
    (number(pii=True, maximum=1), 4711),
    (boolean(pii=True), SECRET),
    (text(pii=True, max_length=3), SECRET),
    (text(pii=True), [SECRET]),
    (timestamp(pii=True), SECRET),
    (timestamp(pii=True), datetime(4711, 1, 1)),  # noqa: DTZ001 - what is refused
    (struct({"properties": {"mail": {"type": "integer"}}}, pii=True), {"mail": SECRET}),
    (struct(pii=True), SECRET),
    (list_of(integer(), pii=True), [SECRET]),
    (list_of(integer(pii=True)), [4711, SECRET]),
]


@pytest.mark.parametrize(("feature", "value"), PERSONAL)
@pytest.mark.parametrize("untyped", [False, True])
def test_the_value_of_a_personal_feature_is_in_no_message(feature: Feature, value: object, untyped: bool) -> None:
    found = problem(feature, value, untyped=untyped)

    assert found.startswith("x: a value that does not fit (")
    assert SECRET not in found
    assert "4711" not in found


def test_a_single_value_is_checked_by_the_same_rules() -> None:
    assert check_value(text(max_length=3), "abc") is None
    assert check_value(text(max_length=3), None) is None
    assert check_value(text(max_length=3), "abcd") == "text of 4 characters; at most 3 are allowed"
    assert SECRET not in str(check_value(integer(pii=True), SECRET))


# Laws

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.datetimes(timezones=st.none() | st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
EVERY_KIND = {
    "a": category("x", "y"),
    "b": integer(minimum=0),
    "c": number(maximum=1),
    "d": boolean(),
    "e": text(max_length=5),
    "f": timestamp(),
    "g": struct(),
    "h": list_of(integer()),
    "i": text(pii=True),
}
columns = st.sampled_from([*EVERY_KIND, "user_id", "event_timestamp", "created_timestamp", "event_id"]) | st.text()
json_rows = st.lists(st.dictionaries(columns, json_values, max_size=8) | json_values, max_size=4)


@given(json_rows, st.booleans())
@settings(max_examples=120, deadline=None)
def test_whatever_comes_in_each_row_is_either_good_or_named(rows: list[Any], untyped: bool) -> None:
    made = view(**EVERY_KIND)
    if untyped:
        rows = [TextRow(one) if isinstance(one, dict) else one for one in rows]
    found = check_rows(made, rows, now=NOW)

    bad = {one.row for one in found.problems}
    assert found.table.num_rows + len(bad) == len(rows)
    assert found.table.schema == view_schema(made)
    found.table.validate(full=True)


good_rows = st.fixed_dictionaries(
    {
        "user_id": st.text(st.characters(codec="utf-8"), min_size=1, max_size=9),
        "event_timestamp": st.datetimes(max_value=datetime(2026, 7, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - a bound
    },
    optional={
        "b": st.integers(0, 2**53 - 1) | st.none(),
        "e": st.text(st.characters(codec="utf-8"), max_size=5),
        "h": st.lists(st.integers(-5, 5) | st.none(), max_size=3),
    },
)


@given(st.lists(good_rows, max_size=4))
@settings(deadline=None)
def test_checking_what_was_checked_changes_nothing(rows: list[dict[str, Any]]) -> None:
    made = view(**EVERY_KIND)
    once = checked_rows(made, rows, now=NOW)
    twice = checked_rows(made, once.drop_columns(["ingested_at"]).to_pylist(), now=NOW)

    assert twice.equals(once)


def test_a_hundred_thousand_rows_are_checked_in_a_moment() -> None:
    made = view(a=integer(minimum=0), b=number(), c=category("x", "y"), d=text())
    rows = [row(user_id=f"u{n}", a=n, b=n / 7, c="x", d=f"text {n}") for n in range(20_000)]
    written, times = [], []
    for _ in range(3):
        started = time.process_time()
        lines = [json.dumps(one, default=str) for one in rows]
        written.append(time.process_time() - started)
        started = time.process_time()
        table = checked_rows(made, rows, now=NOW)
        times.append(time.process_time() - started)

    assert isinstance(table, pa.Table)
    assert len(lines) == table.num_rows
    # Beside a plain walk over the same rows, so that a slow machine is no fault.
    assert min(times) < 4 * min(written), (times, written)
