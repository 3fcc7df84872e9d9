"""Columns as JSON, written whole and cut apart: byte by byte what value by value gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lodestore.bulk import as_list, json_column, json_objects, pieces
from lodestore.payloads import decode_payload, encode_columns, encode_payload, encode_rows
from lodestore.rows import check_rows, check_table
from lodestore.spec import Entity, FeatureView, number, text

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
# Texts of the characters that JSON writes between and around texts, and of their escapes.
odd = st.text(alphabet=',"\\\n\r\t []{}:%na\u2028é', max_size=8) | st.text()
view = FeatureView("profile", entity=Entity("user", key="user_id"), features={"note": text(), "size": number()})


def each(values: list) -> list[bytes]:
    return [orjson.dumps(one) for one in values]


@given(st.lists(st.none() | odd), st.sampled_from([pa.string(), pa.large_string()]), st.integers(0, 3))
@example([",", "b"], pa.string(), 0)
@example(['b",', "a"], pa.string(), 1)
@example(['he said "hi",', None, ",", '","', "\n"], pa.string(), 0)
@example([], pa.string(), 0)
def test_a_column_of_texts_is_what_each_text_is_by_itself(values, kind, skipped):
    column = pa.array(values, kind)

    assert as_list(json_column(column.slice(skipped))) == each(values[skipped:])
    assert as_list(json_column(column.dictionary_encode().slice(skipped))) == each(values[skipped:])


@given(
    st.tuples(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)), st.just(pa.int64()))
    | st.tuples(st.lists(st.none() | st.integers(-(2**31), 2**31 - 1)), st.just(pa.int32()))
    | st.tuples(st.lists(st.none() | st.floats()), st.just(pa.float64()))
    | st.tuples(st.lists(st.none() | st.floats(width=32)), st.just(pa.float32()))
    | st.tuples(st.lists(st.none() | st.booleans()), st.just(pa.bool_()))
    | st.tuples(st.lists(st.none()), st.just(pa.null())),
    st.integers(0, 3),
)
def test_a_column_of_numbers_is_what_each_number_is_by_itself(given_column, skipped):
    values, kind = given_column

    assert as_list(json_column(pa.array(values, kind).slice(skipped))) == each(values[skipped:])


@given(st.lists(st.tuples(st.none() | odd, st.none() | st.integers(0, 9)), max_size=9), odd, odd)
def test_a_row_of_columns_is_its_object(rows, name, other):
    columns = {name: pa.array([one for one, _ in rows], pa.string())}
    columns |= {other + "!": pa.array([one for _, one in rows], pa.int64())}

    made = json_objects({label: json_column(column) for label, column in columns.items()})

    assert as_list(made) == [orjson.dumps({name: one, other + "!": two}) for one, two in rows]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ([], []),
        ([1] * 10, [10]),
        ([1] * 250_001, [100_000, 100_000, 50_001]),
        ([9 << 20] * 8, [3, 3, 2]),
        ([40 << 20, 1, 1, 31 << 20, 20 << 20, 1], [1, 3, 2]),
    ],
)
def test_pieces_are_the_rows_and_none_is_too_large(sizes, counts, kind):
    table = pa.table(
        {"at": pa.array(range(len(sizes)), pa.int64()), "text": pa.array(["x" * one for one in sizes], kind)}
    )

    cut = list(pieces(table))

    assert [at for batch in cut for at in batch["at"].to_pylist()] == list(range(len(sizes)))
    assert [batch.num_rows for batch in cut] == counts
    assert [len(one) - 2 for batch in cut for one in as_list(json_column(batch["text"]))] == sizes


@settings(deadline=None)  # the first rows of all import what reads them
@given(st.lists(st.tuples(st.none() | odd, st.none() | st.floats(-9, 9)), min_size=1, max_size=9))
def test_stored_values_are_those_of_single_rows(rows):
    columns = {"note": [one for one, _ in rows], "size": [one for _, one in rows]}
    table = pa.table({"note": pa.array(columns["note"], pa.string()), "size": pa.array(columns["size"], pa.float64())})
    features = list(view.features.values())

    alone = [decode_payload(encode_payload({"note": one, "size": two})) for one, two in rows]

    assert [decode_payload(one) for one in encode_columns(table, features)] == alone
    assert [decode_payload(one) for one in encode_rows(columns, features, rows=len(rows))] == alone


@settings(deadline=None)  # the first rows of all import what reads them
@given(st.lists(st.tuples(st.none() | odd, st.none() | st.floats(-9, 9)), min_size=1, max_size=9))
def test_event_ids_of_a_table_are_those_of_its_rows(rows):
    then = NOW - timedelta(hours=1)
    given_rows = [
        {"user_id": f"u{at}", "event_timestamp": then, "note": note, "size": size}
        for at, (note, size) in enumerate(rows)
    ]
    kinds = [
        ("user_id", pa.string()),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
        ("note", pa.string()),
        ("size", pa.float64()),
    ]

    by_row = check_rows(view, given_rows, now=NOW)
    by_table = check_table(view, pa.Table.from_pylist(given_rows, schema=pa.schema(kinds)), now=NOW)

    assert not by_row.problems
    assert by_table.table["event_id"].to_pylist() == by_row.table["event_id"].to_pylist()
    assert by_table.table["note"].to_pylist() == [one for one, _ in rows]
