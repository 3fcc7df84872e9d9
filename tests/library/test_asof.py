from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.asof import Limits, assert_no_leak, history_from, join, leaks
from lodestore.errors import RequestError, SourceError, StoreError

MOMENT = pa.timestamp("us", "UTC")
START = datetime(2026, 3, 1, tzinfo=UTC)
USER = {"keys": ("user_id",), "features": {"level": "user_profile:level"}}


def at(hours):
    return START + timedelta(hours=hours)


def moments(hours, kind=MOMENT):
    return pa.array([None if one is None else at(one) for one in hours], MOMENT).cast(kind)


def asked(*rows, key_type=None, time_type=MOMENT):
    users, times = zip(*rows, strict=True)
    return pa.table({"user_id": pa.array(users, key_type or pa.string()), "event_timestamp": moments(times, time_type)})


def told(*rows, key_type=None, time_type=MOMENT):
    users, events, created, levels = zip(*rows, strict=True)
    return pa.table(
        {
            "user_id": pa.array(users, key_type or pa.string()),
            "event_timestamp": moments(events, time_type),
            "created_timestamp": moments(created, time_type),
            "level": pa.array(levels, pa.string()),
        }
    )


def levels(table):
    return table.column("user_profile:level").to_pylist()


# --- the join against an oracle that looks at every row


def visible(row, time, known_by, *, strict):
    created = row["event"] if row["created"] is None else row["created"]
    return row["event"] <= time and (known_by is None or created <= known_by) and (not strict or created <= time)


def oracle(entities, history, *, ttl, known_by, strict):
    out = []
    for user, place, time in entities:
        mine = [
            (row["event"], row["event"] if row["created"] is None else row["created"], row["arrival"], row)
            for row in history
            if None not in {user, place} and (row["user"], row["place"]) == (user, place)
            if visible(row, time, known_by, strict=strict)
        ]
        best = max(mine, key=lambda one: one[:3])[3] if mine else None
        alive = best is not None and (ttl is None or best["event"] + ttl >= time)
        out.append(best["value"] if alive else None)
    return out


few = st.integers(0, 8)
users = st.sampled_from(["a", "b", None])
places = st.sampled_from([1, 2, None])
facts = st.lists(
    st.fixed_dictionaries(
        {
            "user": users,
            "place": places,
            "event": few,
            "created": st.none() | few,
            "value": st.none() | st.integers(0, 99),
        }
    ),
    max_size=25,
)
questions = st.lists(st.tuples(users, places, few), max_size=12)


def question_table(entities):
    users, places, times = zip(*entities, strict=True) if entities else ((), (), ())
    return pa.table(
        {
            "user": pa.array(users, pa.string()),
            "place": pa.array(places, pa.int32()),
            "event_timestamp": moments(times, pa.timestamp("ms", "Europe/Berlin")),
            "label": pa.array(range(len(entities)), pa.int64()),
        }
    )


def fact_table(history):
    table = pa.table(
        {
            "user": pa.array([row["user"] for row in history], pa.large_string()),
            "place": pa.array([row["place"] for row in history], pa.int64()),
            "event_timestamp": moments([row["event"] for row in history]),
            "created_timestamp": moments([row["created"] for row in history], pa.timestamp("ns", "+05:30")),
            "value": pa.array([row["value"] for row in history], pa.int16()),
        }
    )
    return table.append_column("arrival", pa.array([row["arrival"] for row in history], pa.int64()))


@settings(max_examples=120, deadline=None)
@given(
    entities=questions,
    history=facts,
    order=st.randoms(use_true_random=False),
    ttl=st.none() | few,
    known_by=st.none() | few,
    strict=st.booleans(),
)
def test_the_join_agrees_with_an_oracle_that_looks_at_every_row(entities, history, order, ttl, known_by, strict):
    arrival = list(range(len(history)))
    order.shuffle(arrival)
    history = [row | {"arrival": place} for row, place in zip(history, arrival, strict=True)]
    table = question_table(entities)

    joined, looked_up = (
        join(
            table,
            fact_table(history),
            keys=("user", "place"),
            features={"value": "v:value"},
            ttl=None if ttl is None else timedelta(hours=ttl),
            as_known_at=None if known_by is None else at(known_by),
            known_at="row" if strict else "now",
            limits=limits,
        )
        for limits in (Limits(threads=1), None)  # with limits DuckDB joins, without them a table is looked through
    )

    assert joined.select(table.column_names).equals(table)
    assert joined.schema.field("v:value").type == pa.int16()
    assert joined.column("v:value").to_pylist() == oracle(entities, history, ttl=ttl, known_by=known_by, strict=strict)
    assert looked_up.equals(joined)


@settings(max_examples=25, deadline=None)
@given(entities=questions, history=facts, strict=st.booleans())
def test_no_row_of_a_strict_join_leaks_and_every_leak_of_another_is_told(entities, history, strict):
    history = [row | {"arrival": place} for place, row in enumerate(history)]
    table, facts = question_table(entities), fact_table(history)
    options = {"keys": ("user", "place"), "features": {"value": "v:value"}}
    mine = join(table, facts, known_at="row" if strict else "now", limits=Limits(threads=1), **options)
    right = oracle(entities, history, ttl=None, known_by=None, strict=True)

    found = leaks(table, facts, mine, **options)

    pairs = zip(mine.column("v:value").to_pylist(), right, strict=True)
    assert found.column("row").to_pylist() == [row for row, (one, other) in enumerate(pairs) if one != other]
    assert not (strict and found.num_rows)


# --- what the words of the contract mean


def test_rows_keep_their_order_their_number_and_their_other_columns():
    entities = asked(("b", 5), ("a", 1), ("b", 5), ("nobody", 5), ("a", 9)).append_column("label", [[1, 2, 3, 4, 5]])
    history = told(("a", 0, 0, "beginner"), ("a", 5, 5, "expert"), ("b", 5, 5, "intermediate"))

    joined = join(entities, history, **USER)

    assert joined.drop_columns("user_profile:level").equals(entities)
    assert levels(joined) == ["intermediate", "beginner", "intermediate", None, "expert"]


def test_many_views_join_one_after_the_other():
    entities = asked(("a", 5), ("b", 5))
    profile = told(("a", 0, 0, "expert"))
    activity = told(("b", 1, 1, "3")).rename_columns({"level": "queries"})

    joined = join(entities, profile, **USER)
    joined = join(joined, activity, keys=("user_id",), features={"queries": "user_activity:queries"})

    assert joined.column_names == ["user_id", "event_timestamp", "user_profile:level", "user_activity:queries"]
    assert joined.column("user_activity:queries").to_pylist() == [None, "3"]


def test_of_one_event_time_the_last_created_wins_then_the_last_arrived():
    history = told(("a", 1, 3, "late"), ("a", 1, 2, "early"), ("b", 1, 2, "first"), ("b", 1, 2, "second"))

    joined = join(asked(("a", 4), ("b", 4)), history, **USER)

    assert levels(joined) == ["late", "second"]


def test_an_arrival_column_settles_what_the_order_of_rows_would_not():
    history = told(("a", 1, 2, "second"), ("a", 1, 2, "first")).append_column("arrival", [[7, 3]])

    assert levels(join(asked(("a", 4)), history, **USER)) == ["second"]
    assert levels(join(asked(("a", 4)), history, arrival=None, **USER)) == ["first"]


def test_the_ttl_counts_its_last_moment_and_never_falls_back_to_an_older_row():
    history = told(("a", 0, 0, "old"), ("a", 2, 2, "new"))
    entities = asked(("a", 1), ("a", 4), ("a", 5))

    joined = join(entities, history, ttl=timedelta(hours=2), **USER)

    assert levels(joined) == ["old", "new", None]


def test_a_newer_null_hides_an_older_value():
    history = told(("a", 0, 0, "old"), ("a", 1, 1, None))

    assert levels(join(asked(("a", 2)), history, **USER)) == [None]


def test_late_data_does_not_leak_backwards_when_asked_as_known_then():
    history = told(("a", 0, 0, "beginner"), ("a", 1, 48, "expert"))
    entities = asked(("a", 2), ("a", 50))

    assert levels(join(entities, history, **USER)) == ["expert", "expert"]
    assert levels(join(entities, history, as_known_at=at(24), **USER)) == ["beginner", "beginner"]
    assert levels(join(entities, history, known_at="row", **USER)) == ["beginner", "expert"]


def test_a_correction_created_later_counts_from_its_creation_on():
    history = told(("a", 0, 0, "wrong"), ("a", 0, 10, "corrected"))
    entities = asked(("a", 5), ("a", 10))

    assert levels(join(entities, history, known_at="row", **USER)) == ["wrong", "corrected"]


def test_a_late_arrival_of_an_old_event_does_not_replace_a_newer_one():
    history = told(("a", 5, 5, "newer"), ("a", 1, 8, "old but late"))

    assert levels(join(asked(("a", 9)), history, known_at="row", **USER)) == ["newer"]


def test_a_history_without_created_timestamps_is_known_from_its_event_times_on():
    history = told(("a", 1, 99, "one"), ("a", 3, 99, "three")).drop_columns("created_timestamp")
    entities = asked(("a", 2), ("a", 4))

    assert levels(join(entities, history, known_at="row", **USER)) == ["one", "three"]
    assert levels(join(entities, history, as_known_at=at(2), **USER)) == ["one", "one"]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+05:30", "America/New_York"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_any_unit_and_zone_means_the_same_moment(unit, zone):
    kind = pa.timestamp(unit, zone)
    entities = asked(("a", 2), ("a", 1), time_type=kind)
    history = told(("a", 2, 2, "two"), ("a", 1, 1, "one"), time_type=pa.timestamp("ns", "Asia/Tokyo"))

    assert levels(join(entities, history, **USER)) == ["two", "one"]


def test_moments_before_1970_are_rounded_to_the_past_like_all_others():
    stamp = pa.timestamp("ns", "UTC")
    entities = pa.table({"user_id": ["a", "a"], "event_timestamp": pa.array([-2000, -1], stamp)})
    history = pa.table({"user_id": ["a"], "event_timestamp": pa.array([-500], stamp), "level": ["x"]})

    assert levels(join(entities, history, **USER)) == [None, "x"]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint32(), pa.int64(), pa.uint64()])
def test_integer_keys_of_any_width_match(kind):
    entities = asked((1, 5), (2, 5), (None, 5), key_type=kind)
    history = told((2, 1, 1, "two"), (None, 1, 1, "nobody"), key_type=pa.int64())

    assert levels(join(entities, history, **USER)) == [None, "two", None]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.binary(), [b"1", b"01", b"a"]),
        (pa.binary(4), [b"0001", b"1000", b"aaaa"]),
        (pa.float64(), [1.0, 1.5, -2.5]),
        (pa.decimal128(9, 2), [Decimal("1.00"), Decimal("1.50"), Decimal("-2.50")]),
        (pa.date32(), [date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)]),
        (pa.uint64(), [1, 2**63, 2**64 - 1]),
        (pa.bool_(), [True, False, None]),
    ],
)
def test_keys_of_every_type_match_themselves_alone_in_memory_too(kind, values):
    entities = asked(*((one, 5) for one in values), key_type=kind)
    history = told(*((one, 1, 1, f"level {place}") for place, one in enumerate(values[1:])), key_type=kind)

    found = levels(join(entities, history, **USER))

    assert found == levels(join(entities, history, limits=Limits(threads=1), **USER))
    assert found == [None, "level 0", "level 1" if values[2] is not None else None]


def test_an_unsigned_key_beyond_64_bits_with_a_sign_is_in_no_signed_history():
    entities = asked((2**63, 5), (7, 5), key_type=pa.uint64())

    assert levels(join(entities, told((7, 1, 1, "x"), key_type=pa.int64()), **USER)) == [None, "x"]


def test_keys_of_so_many_columns_that_their_numbers_do_not_fit_are_found_all_the_same():
    names = [f"k{place}" for place in range(7)]
    many = {name: pa.array(range(600)) for name in names}
    entities = pa.table(many | {"event_timestamp": moments([5] * 600)})
    history = pa.table({name: pa.array([599]) for name in names} | {"event_timestamp": moments([1]), "level": ["x"]})

    found = levels(join(entities, history, keys=names, features=USER["features"]))

    assert found == [None] * 599 + ["x"]


def test_encoded_and_plain_text_keys_match():
    entities = asked(("a", 5), ("b", 5), key_type=pa.dictionary(pa.int8(), pa.string()))

    assert levels(join(entities, told(("b", 1, 1, "x"), key_type=pa.string_view()), **USER)) == [None, "x"]


def test_quotes_in_names_are_only_letters():
    odd = 'us"er; DROP'
    entities = asked(("a", 5)).rename_columns({"user_id": odd})
    history = told(("a", 1, 1, "x")).rename_columns({"user_id": odd, "level": "l'\"v"})

    joined = join(entities, history, keys=(odd,), features={"l'\"v": 'out"'})

    assert joined.column('out"').to_pylist() == ["x"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.bool_(), True),
        (pa.uint64(), 2**64 - 1),
        (pa.float32(), 0.5),
        (pa.large_string(), "x"),
        (pa.binary(), b"x"),
        (pa.date32(), START.date()),
        (pa.timestamp("ns", "Asia/Tokyo"), START),
        (pa.timestamp("s"), START.replace(tzinfo=None)),
        (pa.decimal128(10, 2), None),
        (pa.null(), None),
        (pa.list_(pa.large_string()), ["x", None]),
        (pa.list_(pa.float32(), 2), [0.5, 1.0]),
        (pa.struct([("a", pa.int8())]), {"a": 1}),
        (pa.dictionary(pa.int8(), pa.string()), "x"),
    ],
)
def test_features_keep_the_type_that_the_history_has(kind, value):
    history = told(("a", 1, 1, "x")).set_column(3, "level", pa.array([value], kind))

    joined = join(asked(("a", 2), ("b", 2)), history, **USER)

    assert joined.schema.field("user_profile:level").type == kind
    assert levels(joined) == [value, None]


def test_nothing_asked_gives_an_empty_table_with_all_columns():
    joined = join(asked(("a", 1)).slice(0, 0), told(("a", 1, 1, "x")), **USER)

    assert joined.num_rows == 0
    assert joined.schema.field("user_profile:level").type == pa.string()


@pytest.mark.parametrize("kind", [pa.string(), pa.null()])
def test_an_empty_history_knows_nothing(kind):
    history = told(("a", 1, 1, "x")).slice(0, 0)
    history = history.set_column(0, "user_id", pa.array([], kind))

    assert levels(join(asked(("a", 1)), history, **USER)) == [None]


def test_a_key_column_of_nothing_but_nulls_matches_nothing():
    entities = asked((None, 1), key_type=pa.null())

    assert levels(join(entities, told((None, 1, 1, "x"), (3, 1, 1, "y"), key_type=pa.int64()), **USER)) == [None]


# --- where the history comes from


def test_a_reader_and_a_dataset_give_what_the_table_gives(tmp_path):
    history = told(*[("ab"[hour % 2], hour, hour, str(hour)) for hour in range(20)])
    entities = asked(("a", 3), ("b", 30))
    pq.write_table(history.slice(0, 10), tmp_path / "0.parquet")
    pq.write_table(history.slice(10), tmp_path / "1.parquet")

    from_reader = join(entities, history.to_reader(max_chunksize=3), **USER)
    from_files = join(entities, ds.dataset(tmp_path), **USER)

    assert from_reader.equals(from_files)
    assert from_reader.equals(join(entities, history, **USER))


def streamed(rows, batch, width=1):
    """Rows that come a batch at a time, each with `width` bytes that do not compress."""
    random = np.random.default_rng(3)
    schema = pa.schema([("user_id", pa.int64()), ("event_timestamp", MOMENT), ("level", pa.binary(width))])

    def make(start):
        places = np.arange(start, start + batch)
        level = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(width), batch, [None, pa.py_buffer(random.bytes(batch * width))]
        )
        return pa.record_batch([places % 1000, pa.array(places, MOMENT), level], schema)

    return pa.RecordBatchReader.from_batches(schema, map(make, range(0, rows, batch)))


def far_future(users):
    return pa.table({"user_id": users, "event_timestamp": pa.array([10**9] * len(users), MOMENT)})


def test_a_history_larger_than_memory_is_spilled(tmp_path):
    limits = Limits(memory="100MB", threads=1, spill=tmp_path)

    joined = join(far_future(np.arange(1000)), streamed(200_000, 2_000, width=1_000), limits=limits, **USER)

    assert joined.column("user_profile:level").null_count == 0
    assert not list(tmp_path.iterdir())


def test_a_large_join_on_every_core_still_counts_the_order_of_rows_as_arrival():
    random = np.random.default_rng(4)
    rows, asks, people, hours = 300_000, 30_000, 2_000, 50
    user, hour = random.integers(0, people, rows), random.integers(0, hours, rows)
    who, when = random.integers(0, people, asks), random.integers(0, hours, asks)
    history = pa.table({"user_id": user, "event_timestamp": pa.array(hour, MOMENT), "level": np.arange(rows)})
    order = np.argsort(user * hours + hour, kind="stable")

    joined = join(pa.table({"user_id": who, "event_timestamp": pa.array(when, MOMENT)}), history, **USER)

    last = np.searchsorted((user * hours + hour)[order], who * hours + when, side="right") - 1
    found = user[order][last] == who
    assert joined.column("user_profile:level").is_valid().to_numpy().tolist() == found.tolist()
    assert joined.column("user_profile:level").drop_null().to_numpy().tolist() == order[last][found].tolist()


def test_too_little_memory_is_an_error_with_a_way_out():
    with pytest.raises(StoreError, match=r"ran out of memory.*Limits"):
        join(far_future([1]), streamed(100_000, 10_000), limits=Limits(memory="1MB", threads=1), **USER)


# --- what is refused


def test_naive_entity_times_are_refused_with_a_hint():
    with pytest.raises(RequestError, match=r"entities: event_timestamp has no time zone.*tz_localize"):
        join(asked(("a", 1), time_type=pa.timestamp("us")), told(("a", 1, 1, "x")), **USER)


def test_naive_history_times_are_refused_with_a_hint():
    with pytest.raises(RequestError, match=r"history: event_timestamp has no time zone.*assume_timezone"):
        join(asked(("a", 1)), told(("a", 1, 1, "x"), time_type=pa.timestamp("ms")), **USER)


def test_a_naive_as_known_at_is_refused():
    with pytest.raises(RequestError, match="as_known_at 2026-03-01T00:00:00 has no time zone"):
        join(asked(("a", 1)), told(("a", 1, 1, "x")), as_known_at=START.replace(tzinfo=None), **USER)


def test_no_time_is_no_moment_to_have_known_by():
    with pytest.raises(RequestError, match="as_known_at is NaT"):
        join(asked(("a", 1)), told(("a", 1, 1, "x")), as_known_at=pd.NaT, **USER)


def test_a_way_of_knowing_that_does_not_exist_is_refused_by_a_history_without_created_timestamps_too():
    with pytest.raises(RequestError, match="known_at is 'bogus'"):
        join(asked(("a", 1)), told(("a", 1, 1, "x")).drop_columns(["created_timestamp"]), known_at="bogus", **USER)


def test_texts_are_no_times():
    entities = asked(("a", 1)).set_column(1, "event_timestamp", pa.array(["2026-03-01"]))

    with pytest.raises(RequestError, match="entities: event_timestamp is string; give timestamps"):
        join(entities, told(("a", 1, 1, "x")), **USER)


def test_an_entity_row_without_a_time_is_an_error_that_names_the_row():
    with pytest.raises(RequestError, match=r"null in 1 rows, such as \[1\]"):
        join(asked(("a", 1), ("b", None)), told(("a", 1, 1, "x")), **USER)


def test_keys_of_two_kinds_are_an_error_that_names_the_key():
    with pytest.raises(RequestError, match=r"key 'user_id' is int64 in the entities and string in the history"):
        join(asked((1, 1), key_type=pa.int64()), told(("1", 1, 1, "x")), **USER)


def test_a_column_that_would_come_out_twice_is_refused():
    entities = asked(("a", 1)).append_column("user_profile:level", [["mine"]])

    with pytest.raises(RequestError, match="'user_profile:level' would come out twice"):
        join(entities, told(("a", 1, 1, "x")), **USER)
    with pytest.raises(RequestError, match="'out' would come out twice"):
        join(asked(("a", 1)), told(("a", 1, 1, "x")), keys=("user_id",), features={"level": "out", "user_id": "out"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": ("user",)}, "entities: there is no column 'user'; did you mean 'user_id'"),
        ({"features": {"levl": "out"}}, "history: there is no column 'levl'; did you mean 'level'"),
        ({"keys": ()}, "name at least one key"),
        ({"features": {}}, "name at least one key"),
        ({"ttl": timedelta(seconds=-1)}, "ttl is -1 day"),
        ({"known_at": "then"}, "known_at is 'then'"),
        ({"arrival": "level"}, "level is string; arrival is a whole number"),
        ({"arrival": "arrived"}, "no column 'arrived'"),
    ],
)
def test_a_request_that_makes_no_sense_says_so(options, message):
    with pytest.raises(RequestError, match=message):
        join(asked(("a", 1)), told(("a", 1, 1, "x")), **(USER | options))


def test_two_columns_of_one_name_are_refused():
    entities = asked(("a", 1)).append_column("user_id", [["b"]])

    with pytest.raises(RequestError, match="entities: 2 columns are called 'user_id'"):
        join(entities, told(("a", 1, 1, "x")), **USER)


# --- the leakage test


LATE = told(("a", 0, 0, "beginner"), ("a", 1, 48, "expert"))


def test_a_join_that_used_late_data_is_shown_row_by_row():
    entities = asked(("a", 0.5), ("a", 2), ("a", 50))
    joined = join(entities, LATE, **USER)

    found = leaks(entities, LATE, joined, **USER)

    assert found.column("row").to_pylist() == [1]
    assert levels(found) == ["expert"]
    assert found.column("user_profile:level (known)").to_pylist() == ["beginner"]
    with pytest.raises(AssertionError, match=r"1 of 3 rows hold values.*rows \[1\]"):
        assert_no_leak(entities, LATE, joined, **USER)


def test_a_join_by_other_means_that_looked_ahead_is_caught():
    entities = asked(("a", 0.5), ("a", 60))
    latest = entities.append_column("user_profile:level", [["expert", "expert"]])

    assert leaks(entities, LATE, latest, **USER).column("row").to_pylist() == [0]


def test_a_strict_join_holds_no_leak():
    entities = asked(("a", 0.5), ("a", 2), ("a", 50))

    assert_no_leak(entities, LATE, join(entities, LATE, known_at="row", **USER), **USER)


def test_nan_and_lists_are_compared_as_values():
    history = told(("a", 0, 0, "x")).set_column(3, "level", pa.array([[float("nan"), None]]))
    entities = asked(("a", 1))

    assert_no_leak(entities, history, join(entities, history, **USER), **USER)


def test_a_joined_table_in_another_order_is_refused():
    entities = asked(("a", 1), ("b", 2))
    joined = join(entities, LATE, **USER)

    with pytest.raises(RequestError, match="in the order of the entities"):
        leaks(entities, LATE, joined.take([1, 0]), **USER)
    with pytest.raises(RequestError, match="joined has 1 rows, entities 2"):
        leaks(entities, LATE, joined.slice(0, 1), **USER)


# --- a history out of any table


def test_any_table_becomes_a_history():
    source = pa.table(
        {
            "user_id": ["a", "b"],
            "happened": moments([1, 2], pa.timestamp("ns", "Europe/Berlin")),
            "stored": moments([5, None]),
        }
    )

    history = history_from(source, timestamp="happened", created="stored")

    assert history.schema.field("event_timestamp").type == MOMENT
    assert history.to_pylist() == [
        {"user_id": "a", "event_timestamp": at(1), "created_timestamp": at(5), "arrival": 0},
        {"user_id": "b", "event_timestamp": at(2), "created_timestamp": at(2), "arrival": 1},
    ]


def test_a_history_made_twice_is_the_same():
    once = history_from(asked(("a", 1), ("b", 2)))

    assert history_from(once).equals(once)
    assert once.column("created_timestamp").to_pylist() == [at(1), at(2)]


def test_a_source_row_without_an_event_time_is_refused():
    with pytest.raises(SourceError, match="event_timestamp is null in 1 rows"):
        history_from(asked(("a", None)))


def test_a_source_with_two_event_times_is_refused():
    source = asked(("a", 1)).append_column("happened", moments([1]))

    with pytest.raises(SourceError, match="'happened' would become event_timestamp"):
        history_from(source, timestamp="happened")


def test_a_moment_that_microseconds_cannot_count_is_refused():
    source = pa.table({"event_timestamp": pa.array([2**62], pa.timestamp("s", "UTC"))})

    with pytest.raises(RequestError, match="history: event_timestamp: a moment lies beyond"):
        history_from(source)
