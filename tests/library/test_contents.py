"""One hash for what a table holds: the same for the same rows however they are cut, another one for any other."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.contents import contents_of

ROW = st.fixed_dictionaries(
    {
        "text": st.none() | st.text(max_size=5),
        "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
        "number": st.none() | st.floats(allow_nan=False, width=32),
        "flag": st.none() | st.booleans(),
        "words": st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3),
        "vector": st.none() | st.lists(st.floats(allow_nan=False, width=32), min_size=2, max_size=2),
        "pair": st.none()
        | st.fixed_dictionaries({"a": st.none() | st.integers(0, 9), "b": st.none() | st.text(max_size=2)}),
        "at": st.none() | st.datetimes(),
    }
)
SCHEMA = pa.schema(
    {
        "text": pa.large_string(),
        "whole": pa.int64(),
        "number": pa.float32(),
        "flag": pa.bool_(),
        "words": pa.list_(pa.string()),
        "vector": pa.list_(pa.float32(), 2),
        "pair": pa.struct({"a": pa.int64(), "b": pa.string()}),
        "at": pa.timestamp("us", "UTC"),
    }
)


def digest(table, size=None):
    return contents_of(table.schema, table.to_batches(size)).digest


def bits(table):
    """What tells 0.0 from -0.0 and nothing else more than equality does."""
    return repr(table.to_pylist())


@given(st.lists(ROW, max_size=6), st.integers(1, 7))
def test_it_does_not_matter_where_batches_end(rows, size):
    table = pa.Table.from_pylist(rows, SCHEMA)
    again = pa.concat_tables([table.slice(0, 2), table.slice(2)])

    assert digest(table) == digest(table, size) == digest(again) == digest(pa.concat_tables([again]).combine_chunks())
    assert contents_of(table.schema, table.to_batches()).rows == len(rows)


@settings(max_examples=300)
@given(st.lists(ROW, max_size=4), st.lists(ROW, max_size=4))
def test_other_rows_have_another_one(some, others):
    one, two = (pa.Table.from_pylist(rows, SCHEMA) for rows in (some, others))

    assert (digest(one) == digest(two)) == (bits(one) == bits(two))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.table({"a": ["ab", "c"]}), pa.table({"a": ["a", "bc"]})),
        (pa.table({"a": ["", None]}), pa.table({"a": [None, ""]})),
        (pa.table({"a": [["x"], ["y", "z"]]}), pa.table({"a": [["x", "y"], ["z"]]})),
        (pa.table({"a": [1]}), pa.table({"b": [1]})),
        (pa.table({"a": [0]}), pa.table({"a": [0.0]})),
        (pa.table({"a": pa.array([1], pa.timestamp("us"))}), pa.table({"a": pa.array([1], pa.timestamp("ms"))})),
        (pa.table({"a": pa.nulls(2)}), pa.table({"a": pa.nulls(3)})),
        (pa.table({"a": [Decimal("1.0")]}), pa.table({"a": [Decimal("2.0")]})),
        (pa.table({"a": [{"x": 1}, None]}), pa.table({"a": [{"x": 1}, {"x": None}]})),
    ],
)
def test_what_looks_alike_is_told_apart(one, other):
    assert digest(one) != digest(other)
    assert digest(one) == digest(one, 1)


def test_a_column_of_few_words_is_what_its_words_are():
    plain = pa.table({"a": ["x", "y", None, "x"]})
    encoded = pa.table({"a": plain["a"].dictionary_encode()})

    batches = encoded.to_batches(1)

    assert contents_of(encoded.schema, batches).digest == contents_of(encoded.schema, encoded.to_batches()).digest
