"""Online rows as bytes, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lodestore import spec
from lodestore.deliveries import Delivery, batches, settle
from lodestore.errors import BadVectorError, RequestError, SchemaVersionError, StoreError
from lodestore.online import (
    BATCH_BYTES,
    BATCH_ROWS,
    OnlineRow,
    Written,
    decode_key,
    decode_row,
    encode_key,
    encode_keys,
    encode_row,
    encode_values,
    key_within,
)
from lodestore.payloads import decode_payload, encode_columns, encode_payload

NOON = 1_790_000_000_000_000
DAY = timedelta(days=1)
MOMENT = datetime(2026, 7, 1, 12, 0, 0, 5, tzinfo=UTC)

keys = st.lists(st.text(max_size=20) | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3).map(tuple)
micros = st.integers(-(2**62), 2**62)
moments = st.datetimes(timezones=st.just(UTC))
scalars = (
    st.none()
    | st.text()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
payloads = st.dictionaries(st.text(), documents | moments | st.lists(st.none() | moments, max_size=3), max_size=5)


# Keys


@given(keys)
def test_a_key_comes_back_from_its_bytes(key):
    assert decode_key(encode_key(key)) == key


@given(keys, keys)
def test_different_keys_have_different_bytes_and_neither_begins_with_the_other_of_its_length(one, other):
    assert (encode_key(one) == encode_key(other)) == (one == other)
    if len(one) == len(other) and one != other:
        assert not encode_key(one).startswith(encode_key(other))


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_the_bytes_of_numbers_are_in_their_order(numbers):
    assert sorted(numbers) == [decode_key(one)[0] for one in sorted(encode_key((number,)) for number in numbers)]


@given(st.lists(st.text()))
def test_the_bytes_of_texts_are_in_their_order(texts):
    by_bytes = [decode_key(one)[0] for one in sorted(encode_key((text,)) for text in texts)]

    assert by_bytes == sorted(texts, key=str.encode)


def test_bytes_that_are_no_key_are_named():
    with pytest.raises(StoreError, match="unknown tag 9"):
        decode_key(b"\x09")


# Rows


@given(micros, micros, st.binary(max_size=20), st.none() | st.binary(min_size=1, max_size=40), st.binary(max_size=9))
def test_a_row_comes_back_from_its_bytes(event, created, payload, event_id, key):
    row = OnlineRow(event, created, payload, event_id)

    stored = encode_row(row, key=key)

    assert decode_row(stored) == row
    assert key_within(stored) == key


@given(st.tuples(micros, micros), st.tuples(micros, micros))
def test_the_later_row_has_the_greater_bytes(one, other):
    assert (encode_row(OnlineRow(*one, b""))[1:17] < encode_row(OnlineRow(*other, b""))[1:17]) == (one < other)


def test_a_row_of_another_schema_or_cut_short_is_an_error():
    stored = encode_row(OnlineRow(NOON, NOON, b""))

    with pytest.raises(SchemaVersionError, match="schema 2, this version reads 1"):
        decode_row(b"\x02" + stored[1:])
    with pytest.raises(StoreError, match="cut"):
        decode_row(stored[:5])


def test_times_beyond_64_bits_are_refused():
    with pytest.raises(RequestError, match="microseconds of 64 bits"):
        encode_row(OnlineRow(2**63, NOON, b""))


# Payloads


@given(payloads)
def test_values_come_back_from_their_bytes_with_their_types(values):
    back = decode_payload(encode_payload(values))

    assert back == values
    assert {name: type(value) for name, value in back.items()} == {name: type(value) for name, value in values.items()}


@given(arrays.arrays(np.float32, st.integers(0, 9)), arrays.arrays(np.float32, 3))
def test_vectors_come_back_bit_by_bit(one, other):
    back = decode_payload(encode_payload({"one": one, "word": "é", "other": other, "none": None}))

    assert back["one"].tobytes() == one.tobytes()
    assert back["other"].tobytes() == other.tobytes()
    assert (back["word"], back["none"]) == ("é", None)
    assert back["one"].dtype == np.float32


def test_a_number_of_double_precision_becomes_float32_only_in_a_vector():
    back = decode_payload(encode_payload({"vector": np.array([0.1]), "list": [0.1], "number": 0.1}))

    assert back["vector"][0] == np.float32(0.1)
    assert (back["list"], back["number"]) == ([0.1], 0.1)


def test_a_moment_of_another_zone_is_the_same_moment_in_utc():
    moment = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))

    back = decode_payload(encode_payload({"at": moment}))["at"]

    assert back == moment
    assert back.utcoffset() == timedelta(0)


def test_nan_is_null():
    assert decode_payload(encode_payload({"x": float("nan")})) == {"x": None}


@pytest.mark.parametrize(
    "value",
    [float("inf"), [1.0, float("-inf")], {"deep": [float("inf")]}, MOMENT.replace(tzinfo=None), {1, 2}, 2**64, {"at": datetime(2026, 1, 1, tzinfo=UTC)}],
)  # fmt: skip
def test_a_value_that_cannot_be_kept_is_refused(value):
    with pytest.raises(RequestError):
        encode_payload({"x": value})


@pytest.mark.parametrize("vector", [np.zeros((2, 2)), np.array(["a"])])
def test_an_array_that_is_no_vector_is_refused(vector):
    with pytest.raises(BadVectorError, match="not a vector of numbers"):
        encode_payload({"x": vector})


@pytest.mark.parametrize("payload", [b"", b"\x01{", b"\x02\0", b"\x02\0\0\0\x02{}", b'\x02\0\0\0\x0f[{},{},{"v":9}]'])
def test_a_damaged_payload_is_an_error(payload):
    with pytest.raises(StoreError, match="rebuild"):
        decode_payload(payload)


def test_a_payload_of_another_schema_is_named():
    with pytest.raises(SchemaVersionError, match="schema 7"):
        decode_payload(b"\x07{}")


# Whole columns


def features(**given: spec.Feature) -> list[spec.Feature]:
    return [replace(feature, name=name) for name, feature in given.items()]


PROFILE = features(
    level=spec.category("beginner", "expert"),
    age=spec.integer(),
    score=spec.number(),
    active=spec.boolean(),
    seen=spec.timestamp(),
    tags=spec.list_of(spec.text()),
    preferences=spec.struct(),
    visits=spec.list_of(spec.timestamp()),
    vector=spec.embedding("content"),
)
ROWS = [
    {
        "level": "expert",
        "age": 2**53 + 1,
        "score": 0.5,
        "active": True,
        "seen": MOMENT,
        "tags": ["a", None],
        "preferences": '{"deep": {"x": [1, null]}}',
        "visits": [MOMENT, None],
        "vector": [1.0, 2.0],
    },
    dict.fromkeys(one.name for one in PROFILE),
    {
        "level": "beginner",
        "age": -1,
        "score": -0.0,
        "active": False,
        "seen": datetime(1969, 1, 1, tzinfo=UTC),
        "tags": [],
        "preferences": "{}",
        "visits": [],
        "vector": [0.0, -1.0],
    },
]
STAMP = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        ("level", pa.string()),
        ("age", pa.int64()),
        ("score", pa.float64()),
        ("active", pa.bool_()),
        ("seen", STAMP),
        ("tags", pa.list_(pa.string())),
        ("preferences", pa.string()),
        ("visits", pa.list_(STAMP)),
        ("vector", pa.list_(pa.float32(), 2)),
    ]
)


def plain(values: dict[str, object]) -> dict[str, object]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def test_columns_become_the_same_values_as_single_rows():
    table = pa.Table.from_pylist(ROWS * 2, SCHEMA).slice(1)

    back = [plain(decode_payload(one)) for one in encode_columns(table, PROFILE)]

    deep = {"{}": {}, None: None, ROWS[0]["preferences"]: {"deep": {"x": [1, None]}}}
    assert back == [one | {"preferences": deep[one["preferences"]]} for one in (ROWS * 2)[1:]]


def test_only_the_named_columns_are_kept():
    table = pa.Table.from_pylist(ROWS, SCHEMA)

    assert [decode_payload(one) for one in encode_columns(table, PROFILE[:1])] == [
        {"level": "expert"},
        {"level": None},
        {"level": "beginner"},
    ]


@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 20), st.just(3))), st.integers(0, 20))
def test_vectors_of_a_sliced_column_are_cut_at_the_right_place(vectors, skipped):
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 3)
    table = pa.table({"v": column}).slice(skipped)

    encoded = encode_columns(table, features(v=spec.embedding("content")))

    assert [decode_payload(one)["v"].tobytes() for one in encoded] == [one.tobytes() for one in vectors[skipped:]]


@pytest.mark.parametrize(
    ("column", "feature", "message"),
    [
        (pa.array([1.0, float("inf")]), spec.number(), "not a finite number"),
        (pa.array([[float("inf")]]), spec.list_of(spec.number()), "not a finite number"),
        (pa.array(["{"]), spec.struct(), "is not JSON"),
        (pa.array([[1.0, None]], pa.list_(pa.float32(), 2)), spec.embedding("content"), "null in it"),
        (pa.array([{"at": MOMENT}]), spec.struct(), "not storable"),
    ],
)
def test_a_column_that_cannot_be_kept_names_its_feature(column, feature, message):
    with pytest.raises((RequestError, BadVectorError), match=message):
        encode_columns(pa.table({"x": column}), features(x=feature))


def test_a_missing_column_is_named():
    with pytest.raises(RequestError, match=r"no columns \['age'\]"):
        encode_columns(pa.table({"level": ["a"]}), PROFILE[:2])


def test_other_shapes_of_the_same_values_are_understood():
    table = pa.table(
        {
            "level": pa.array(["a", None, "a"]).dictionary_encode(),
            "score": pa.array([1.5, None, float("nan")], pa.float32()),
            "seen": pa.array([1_000_001, None, -1], pa.timestamp("ns")),
            "vector": pa.array([[1.0], None, [2.0]], pa.list_(pa.float64(), 1)),
        }
    )

    back = [
        plain(decode_payload(one))
        for one in encode_columns(
            table,
            features(level=spec.text(), score=spec.number(), seen=spec.timestamp(), vector=spec.embedding("content")),
        )
    ]

    assert back[0] == {
        "level": "a",
        "score": 1.5,
        "seen": datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC),
        "vector": [1.0],
    }
    assert back[1] == {"level": None, "score": None, "seen": None, "vector": None}
    assert (back[2]["score"], back[2]["vector"]) == (None, [2.0])


# Which row wins


def delivery(key: str, event: int, event_id: bytes | None = None, *, payload: bytes = b"") -> Delivery:
    return Delivery(encode_key((key,)), encode_row(OnlineRow(event, 0, payload, event_id)), event_id)


def test_a_batch_settles_against_itself_as_if_its_rows_came_one_by_one():
    settled = settle([delivery("a", 1), delivery("a", 3), delivery("a", 2)], stored={}.get)

    assert settled.written == Written(accepted=2, late=1)
    assert decode_row(settled.rows[encode_key(("a",))]).event_micros == 3
    assert len(settled.journal) == 3


def test_a_seen_event_changes_nothing_at_all():
    settled = settle([delivery("a", 5, b"e1")], stored={}.get, seen={b"e1"})

    assert (settled.rows, settled.journal, settled.events) == ({}, [], {})
    assert settled.written == Written(duplicates=1)


@given(
    st.lists(st.sampled_from([10, 400_000, BATCH_BYTES, 3 * BATCH_BYTES]), max_size=30), st.integers(0, 2 * BATCH_ROWS)
)
def test_batches_rebuild_the_rows_within_their_limits(sizes, small):
    rows = [Delivery(b"", bytes(size)) for size in sizes] + [Delivery(b"", b"x")] * small

    cut = list(batches(rows))

    assert [one for batch in cut for one in batch] == rows
    assert all(0 < len(batch) <= BATCH_ROWS for batch in cut)
    assert all(len(batch) == 1 or sum(len(one.stored) for one in batch) <= BATCH_BYTES for batch in cut)


@given(st.lists(keys, max_size=9))
def test_keys_are_encoded_as_each_one_is_by_itself(many):
    assert encode_keys(many) == [encode_key(one) for one in many]


@given(st.lists(st.text(max_size=9) | st.integers(-(2**63), 2**63 - 1), max_size=9))
def test_single_values_are_encoded_as_keys_of_one_value(many):
    assert encode_values(many) == [encode_key((one,)) for one in many]


@pytest.mark.parametrize("others", [0, 9])
@pytest.mark.parametrize("value", [None, 1.5, True, "\ud800", "x" * 70_000])
def test_a_value_that_is_no_key_is_refused_also_among_others(value, others):
    with pytest.raises(RequestError, match="join key"):
        encode_values(["u1"] * others + [value])


def test_a_key_with_a_surrogate_is_refused_among_others():
    with pytest.raises(RequestError, match="neither valid text"):
        encode_keys([("u1",), ("\ud800",)])
