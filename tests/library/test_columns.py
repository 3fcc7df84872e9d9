"""Stored rows as columns: what is there, absent, expired, null, damaged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lodestore.columns import columns_of, oldest_of
from lodestore.errors import SchemaVersionError, StoreError
from lodestore.online import OnlineRow, Status, encode_row
from lodestore.payloads import encode_payload

NOON = 1_790_000_000_000_000
DAY = 86_400_000_000
MOMENT = datetime(2026, 7, 1, 12, 0, 0, 5, tzinfo=UTC)

moments = st.datetimes(timezones=st.just(UTC))
scalars = st.none() | st.text() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = scalars | st.booleans() | moments | st.lists(scalars, max_size=3) | st.dictionaries(st.text(), scalars)
rows = st.builds(
    OnlineRow,
    st.integers(NOON - 5, NOON + 5),
    st.integers(-(2**62), 2**62),
    st.dictionaries(st.text(max_size=3), values, max_size=4).map(encode_payload),
    st.none() | st.binary(min_size=1, max_size=70),
)
stored = st.builds(lambda row, key: encode_row(row, key=key), rows, st.just(b"") | st.binary(max_size=600))


def row(event: int, **values: object) -> bytes:
    return encode_row(OnlineRow(event, event, encode_payload(values)))


def named(*features: str) -> list[tuple[str, str]]:
    return [(f"view:{one}", one) for one in features]


def test_a_row_expires_after_its_ttl_and_not_before():
    second = timedelta(seconds=1)

    def status(stored: bytes | None, ttl: timedelta | None, now: int) -> Status:
        return columns_of([stored], named("x"), oldest_of(ttl, now))[1]["view:x"][0]

    assert status(row(NOON, x=1), second, NOON + 1_000_000) is Status.PRESENT
    assert status(row(NOON, x=1), second, NOON + 1_000_001) is Status.EXPIRED
    assert status(row(NOON, x=1), None, NOON * 2) is Status.PRESENT
    assert status(row(NOON + 5, x=1), second, NOON) is Status.PRESENT
    assert status(None, second, NOON) is Status.NOT_FOUND


def test_columns_carry_values_statuses_and_times_in_the_order_of_the_rows():
    held = [row(NOON, level="expert", age=None), None, row(0, level="old", age=3), row(NOON, level="expert")]

    columns, statuses, times = columns_of(held, named("age", "level"), NOON - DAY)

    assert columns == {"view:age": [None] * 4, "view:level": ["expert", None, None, "expert"]}
    assert statuses == {
        "view:age": [Status.NULL, Status.NOT_FOUND, Status.EXPIRED, Status.NULL],
        "view:level": [Status.PRESENT, Status.NOT_FOUND, Status.EXPIRED, Status.PRESENT],
    }
    assert times == [NOON, None, 0, NOON]


@given(st.lists(st.none() | stored, max_size=12), st.sampled_from([oldest_of(None, NOON), NOON, NOON + 9]))
def test_many_rows_are_read_as_each_one_is_by_itself(held, oldest):
    names = named("", "a", "0", "00", "A", "\x01", "view")

    columns, statuses, times = columns_of(held, names, oldest)

    alone = [columns_of([one], names, oldest) for one in held]
    assert columns == {name: [one[0][name][0] for one in alone] for name, _ in names}
    assert statuses == {name: [one[1][name][0] for one in alone] for name, _ in names}
    assert times == [one[2][0] for one in alone]


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("values", [{"x": 1}, {"at": MOMENT}, {"v": np.ones(3, np.float32)}])
@pytest.mark.parametrize("kept", [-4, 27, 21, 20, 1, 0])
def test_a_damaged_row_is_an_error_also_among_others(values, kept, count):
    held = [row(NOON, **values) for _ in range(count)]
    held[count // 2] = held[count // 2][:kept]

    with pytest.raises(StoreError, match="rebuild"):
        columns_of(held, named(*values), NOON - DAY)


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("place", [0, 21])
def test_a_row_of_another_schema_is_an_error_also_among_others(place, count):
    held = [row(NOON, x=1) for _ in range(count)]
    held[-1] = held[-1][:place] + b"\x07" + held[-1][place + 1 :]

    with pytest.raises(SchemaVersionError, match="schema 7"):
        columns_of(held, named("x"), NOON - DAY)


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.integers(1, 4))), st.lists(st.integers(0, 8), max_size=3)
)
def test_many_vectors_are_read_bit_by_bit_also_where_one_of_them_is_missing(vectors, gone):
    held = [row(NOON, v=None if at in gone else one) for at, one in enumerate(vectors)]

    found = columns_of(held, named("v"), NOON - DAY)[0]["view:v"]

    shown = [None if one is None else one.tobytes() for one in found]
    assert shown == [None if at in gone else one.tobytes() for at, one in enumerate(vectors)]
