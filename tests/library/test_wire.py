"""How values look in JSON."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.errors import RequestError
from lodestore.online import Status
from lodestore.wire import canonical, digest, dumps, from_rfc3339, jsonable, rfc3339, span


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    at: datetime
    colour: Colour


@dataclass(frozen=True)
class Outer:
    inner: Inner
    scores: dict[Colour, float]


class Told:
    def to_json(self) -> dict[str, object]:
        return {"value": math.nan}


NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (1.5, 1.5),
        (math.nan, None),
        (-math.inf, None),
        ("é", "é"),
        (NOON, "2026-07-01T12:00:00Z"),
        (NOON.replace(tzinfo=None), "2026-07-01T12:00:00Z"),
        (NOON.astimezone(timezone(timedelta(hours=2))), "2026-07-01T12:00:00Z"),
        (date(2026, 7, 1), "2026-07-01"),
        (timedelta(minutes=1), 60.0),
        (Colour.RED, "red"),
        (Status.PRESENT, "PRESENT"),
        ({Colour.RED: (1, 2), 3: {}}, {"red": [1, 2], "3": {}}),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (np.float32(0.5), 0.5),
        (np.array([1.0, np.nan]), [1.0, None]),
        (Outer(Inner(NOON, Colour.RED), {Colour.RED: math.inf}), {
            "inner": {"at": "2026-07-01T12:00:00Z", "colour": "red"}, "scores": {"red": None}
        }),
        (Told(), {"value": None}),
        ((one for one in "ab"), ["a", "b"]),
        (PurePosixPath("a/b"), "a/b"),
    ],
)  # fmt: skip
def test_every_value_has_one_form(value: object, expected: object) -> None:
    assert jsonable(value) == expected
    assert type(jsonable(expected)) is type(expected)


def test_text_is_not_escaped_and_may_be_indented() -> None:
    assert dumps({"a": "é", "b": math.nan}) == '{"a": "é", "b": null}'
    assert dumps([1], indent=2) == "[\n  1\n]"


def test_a_digest_is_the_same_in_every_process() -> None:
    code = "from lodestore.wire import digest; print(digest({'b': {'x', 'y', 'z'}, 'a': [1.5, None]}))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert runs == {digest({"a": (1.5, None), "b": {"z", "y", "x"}})}


def test_half_of_a_surrogate_pair_still_has_a_digest() -> None:
    assert len(digest("\ud800")) == 64


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
def test_plain_json_values_stay_what_they_are(value: object) -> None:
    assert jsonable(value) == value
    assert json.loads(dumps(value)) == value


@given(st.dictionaries(st.text(), json_values, max_size=4))
@settings(max_examples=50, deadline=None)
def test_the_order_of_keys_does_not_change_the_canonical_form(value: dict[str, object]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)


# Moments


BEGINNING = datetime(1, 1, 3)  # noqa: DTZ001 - zones come later
END = datetime(9999, 12, 29)  # noqa: DTZ001 - zones come later


@given(st.datetimes(BEGINNING, END, timezones=st.timezones()))
def test_a_moment_is_read_back_from_its_text(moment: datetime) -> None:
    shown = rfc3339(moment)

    assert shown.endswith("Z")
    assert from_rfc3339(shown) == moment.astimezone(UTC)


@given(st.text(max_size=40))
def test_a_text_is_a_moment_in_utc_or_refused(text: str) -> None:
    try:
        moment = from_rfc3339(text)
    except RequestError:
        return
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("soon", "'soon' is not a timestamp; write it like 2026-01-31T12:00:00Z"),
        ("", "is not a timestamp"),
        (5, "5 is not a timestamp"),
        (None, "None is not a timestamp"),
        ("x" * 5000, "xxx... is not a timestamp"),
        ("2026-01-31T12:00:00", "write it like 2026-01-31T12:00:00Z or 2026-01-31T12:00:00+02:00"),
        ("2026-01-31", "write it like 2026-01-31T00:00:00Z"),
        ("0001-01-01T00:00:00+05:00", "outside the years 1 to 9999"),
        ("9999-12-31T23:59:59-05:00", "outside the years 1 to 9999"),
    ],
)
def test_a_text_that_is_no_moment_is_refused_with_the_way_out(text: object, told: str) -> None:
    with pytest.raises(RequestError) as raised:
        from_rfc3339(text, "event_timestamp")  # type: ignore[arg-type]
    assert str(raised.value).startswith("event_timestamp ")
    assert told in str(raised.value)
    assert len(str(raised.value)) < 250


def test_a_moment_without_a_zone_has_no_text() -> None:
    with pytest.raises(RequestError, match="no time zone"):
        rfc3339(datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 ms"), (0.25, "250 ms"), (1, "1 s"), (60, "1 m"), (3661, "1 h 1 m"), (90000, "1 d 1 h"), (-5, "-5 s")],
)
def test_a_length_of_time_is_said_in_two_parts_at_most(seconds: float, shown: str) -> None:
    assert span(timedelta(seconds=seconds)) == shown
