"""A pushed Arrow table is stored as its rows would be, and what Arrow does not look at stops it before anything is."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from lodestore.adapters.lmdb import LmdbOnlineStore
from lodestore.catalog import catalog_of
from lodestore.errors import InvalidRowsError, RequestError
from lodestore.features import Features
from lodestore.logs import Logs, utc_now
from lodestore.models import EmbeddingVersion
from lodestore.online import OnlineStore, Written
from lodestore.payloads import decode_payload
from lodestore.push import push
from lodestore.spec import Entity, FeatureView, boolean, category, embedding, integer, number, struct, text, timestamp
from lodestore.testing import MemoryOnlineStore, MemoryStore

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
MOMENT = pa.timestamp("us", tz="UTC")
FEATURES = {"note": text(), "size": number(), "count": integer(), "on": boolean(), "level": category("a", "b")}
BY_TEXT = FeatureView("profile", entity=Entity("user", key="user_id"), features=FEATURES)
BY_BOTH = FeatureView(
    "pair", entity=Entity("pair", key=("tenant", "number"), type=("string", "integer")), features=FEATURES
)
KINDS = {
    "user_id": pa.string(), "tenant": pa.string(), "number": pa.int64(), "event_timestamp": MOMENT,
    "created_timestamp": MOMENT, "event_id": pa.string(), "note": pa.string(), "size": pa.float64(),
    "count": pa.int64(), "on": pa.bool_(), "level": pa.string(),
}  # fmt: skip
TEXTS = ["", "plain", 'he said "hi",', "a\0b", "\\", "line\nline", "é\u2028", "null", ","]
KEYS = ["u1", "a\0b", "a", "a\0", "é", "\x02", "ÿ", *(f"user{at}" for at in range(300))]


def rows(view: FeatureView, count: int, seed: int) -> list[dict]:
    """Rows with keys that repeat, times that are equal, and ids for some of them."""
    draw = random.Random(seed)
    made = []
    for at in range(count):
        keys = {"user_id": draw.choice(KEYS), "tenant": draw.choice(KEYS), "number": draw.randrange(-(2**63), 2**63)}
        row = {name: keys[name] for name in view.entity.keys}
        row |= {"event_timestamp": NOW - timedelta(seconds=draw.randrange(50)), "note": draw.choice([*TEXTS, None])}
        row |= {"size": draw.choice([None, 0.1, -0.0, 1e300, 5.0]), "count": draw.choice([None, 0, -(2**53) + 1])}
        row |= {"on": draw.choice([None, True, False]), "level": draw.choice([None, "a", "b"])}
        row |= {"event_id": draw.choice([None, f"e{at}", "é" * draw.randrange(1, 200)])}
        row |= {"created_timestamp": draw.choice([None, NOW])}
        made.append(row)
    return made


def table(view: FeatureView, given: list[dict]) -> pa.Table:
    names = [name for name in KINDS if name in given[0]]
    return pa.table({name: pa.array([one[name] for one in given], KINDS[name]) for name in names})


def contents(store: OnlineStore, view: FeatureView) -> tuple[dict, list]:
    """The rows, and what waits for the history, whatever its order between keys."""
    journal = store.journal_read(100_000)
    return dict(store.scan(view.namespace)), sorted((repr(one.key), one.row) for one in journal)


@pytest.fixture(params=["lmdb", "memory"])
def stores(request: pytest.FixtureRequest, tmp_path: Path):
    made = [
        LmdbOnlineStore.open(tmp_path / str(at)) if request.param == "lmdb" else MemoryOnlineStore() for at in range(2)
    ]
    yield made
    for one in made:
        one.close()


@pytest.mark.parametrize("view", [BY_TEXT, BY_BOTH], ids=["text", "composite"])
@pytest.mark.parametrize("count", [1, 7, 1_500])
@pytest.mark.parametrize("seed", range(3))
def test_a_table_is_stored_as_its_rows_one_after_the_other(stores, view, count, seed):
    """One id is never that of two keys here: which of them counts then is nobody's promise."""
    by_row, by_table = stores
    given = rows(view, count, seed)
    seen: dict[str, object] = {}
    for row in given:
        key = tuple(row[name] for name in view.entity.keys)
        if row["event_id"] is not None and seen.setdefault(row["event_id"], key) != key:
            row["event_id"] = None

    alone = sum((push(view, [one], by_row, now=NOW) for one in given), Written())
    whole = push(view, table(view, given), by_table, now=NOW)
    again = push(view, table(view, given), by_table, now=NOW)

    assert alone == whole
    assert contents(by_row, view) == contents(by_table, view)
    assert again == Written(duplicates=count)


@pytest.mark.parametrize("change", ["sliced", "chunked", "dictionary", "large"])
def test_how_a_table_is_cut_changes_nothing(stores, change):
    first, second = stores
    given = rows(BY_TEXT, 1_200, 9)
    plain = table(BY_TEXT, given)
    changed = plain
    if change == "sliced":
        changed = pa.concat_tables([plain, plain]).combine_chunks().slice(1_200)
    elif change == "chunked":
        changed = pa.concat_tables([plain.slice(0, 7), plain.slice(7, 900), plain.slice(907)])
    else:
        place, kind = plain.schema.get_field_index("note"), pa.large_string()
        column = plain["note"].cast(kind) if change == "large" else plain["note"].dictionary_encode()
        changed = plain.set_column(place, "note", column)

    push(BY_TEXT, plain, first, now=NOW)
    push(BY_TEXT, changed, second, now=NOW)

    assert contents(first, BY_TEXT) == contents(second, BY_TEXT)


def broken_text(good: str) -> pa.Array:
    """A column of two texts, the second of which is not UTF-8."""
    return pa.array([good.encode(), b"caf\xe9"], pa.binary()).view(pa.string())


@pytest.mark.parametrize("name", ["user_id", "event_id", "note", "level"])
def test_text_that_is_not_utf8_stops_every_row_and_is_named(name):
    store, given = MemoryOnlineStore(), rows(BY_TEXT, 2, 1)
    whole = table(BY_TEXT, [{**one, "user_id": "u", "event_id": None} for one in given])

    with pytest.raises(InvalidRowsError, match=rf"profile.*row 2: {name}: a value that cannot be read"):
        push(BY_TEXT, whole.set_column(whole.column_names.index(name), name, broken_text("a")), store, now=NOW)

    assert (store.journal_size(), store.namespaces()) == (0, [])


@pytest.mark.parametrize("name", ["event_timestamp", "created_timestamp", "born"])
@pytest.mark.parametrize("micros", [253_402_300_800_000_000, -62_135_596_800_000_001, 2**63 - 1])
def test_a_time_that_no_datetime_can_be_stops_every_row(name, micros):
    view = FeatureView("profile", entity=Entity("user", key="user_id"), features={"born": timestamp()})
    columns = {"user_id": pa.array(["u"]), "event_timestamp": pa.array([NOW], MOMENT)}
    store = MemoryOnlineStore()

    with pytest.raises(InvalidRowsError, match=f"row 1: {name}"):
        push(view, pa.table({**columns, name: pa.array([micros], pa.int64()).cast(MOMENT)}), store, now=NOW)

    assert store.journal_size() == 0


def test_an_unknown_column_is_named_though_all_of_it_is_null():
    row = {"user_id": "u1", "event_timestamp": NOW, "nore": None}
    whole = pa.table({"user_id": ["u1"], "event_timestamp": pa.array([NOW], MOMENT), "nore": pa.nulls(1)})

    for given in ([row], whole):
        with pytest.raises(InvalidRowsError, match="unknown column 'nore'; did you mean 'note'"):
            push(BY_TEXT, given, MemoryOnlineStore(), now=NOW)


@pytest.mark.parametrize(
    "column", [pa.array([1, 2], pa.uint64()), pa.array([True, False]), pa.array([b"a", b"b"]), pa.array([1.5, 2.0])]
)
def test_keys_of_another_type_never_become_keys(column):
    whole = pa.table({"user_id": column, "event_timestamp": pa.array([NOW] * 2, MOMENT)})

    with pytest.raises(InvalidRowsError, match=r"row 1: user_id: .* the key is declared as a string"):
        push(BY_TEXT, whole, MemoryOnlineStore(), now=NOW)


def test_long_texts_go_through_in_pieces(tmp_path):
    given = [{"user_id": f"u{at}", "event_timestamp": NOW, "note": f"{at} " * 100_000} for at in range(60)]
    store = LmdbOnlineStore.open(tmp_path)

    written = push(BY_TEXT, pa.Table.from_pylist(given, pa.schema([(n, KINDS[n]) for n in given[0]])), store, now=NOW)

    assert written == Written(accepted=60)
    assert store.count(BY_TEXT.namespace) == 60
    store.close()


def test_a_column_that_comes_twice_is_told():
    moments, users = pa.array([NOW], MOMENT), pa.array(["u1"])
    twice = pa.Table.from_arrays([users, users, moments], names=["user_id", "user_id", "event_timestamp"])

    with pytest.raises(RequestError, match="column 'user_id' more than once"):
        push(BY_TEXT, twice, MemoryOnlineStore(), now=NOW)


def test_a_data_frame_is_pushed_as_its_table_and_what_it_lacks_is_null():
    frame = pd.DataFrame({"user_id": ["u1", "u2"], "event_timestamp": [NOW, NOW], "note": ["a", None]}, index=[7, 9])
    store = MemoryOnlineStore()

    assert push(BY_TEXT, frame, store, now=NOW) == Written(accepted=2)
    found = [decode_payload(one.payload)["note"] for one in store.read(BY_TEXT.namespace, [("u1",), ("u2",)])]
    assert found == ["a", None]


def test_a_data_frame_whose_columns_are_of_many_types_is_refused():
    frame = pd.DataFrame({"user_id": ["u1", 2], "event_timestamp": [NOW, NOW]})
    with pytest.raises(RequestError, match=r"cannot be an Arrow table.*values of one type"):
        push(BY_TEXT, frame, MemoryOnlineStore(), now=NOW)


def test_objects_in_a_data_frame_keep_their_own_keys():
    view = FeatureView("p", entity=Entity("user", key="user_id"), features={"s": struct()})
    rows = [
        {"user_id": f"u{n}", "event_timestamp": NOW, "s": one} for n, one in enumerate([{"a": 1}, {"b": 2.5}, None])
    ]
    store = MemoryOnlineStore()

    assert push(view, rows, store, now=NOW) == Written(accepted=3)
    assert push(view, pd.DataFrame(rows), store, now=NOW) == Written(duplicates=3)
    found = [decode_payload(one.payload)["s"] for one in store.read(view.namespace, [("u0",), ("u1",)])]
    assert [json.loads(one) if isinstance(one, str) else one for one in found] == [{"a": 1}, {"b": 2.5}]


@pytest.mark.parametrize("column", [[2**70, 1], [2.0**60, None]], ids=["beyond 64 bits", "made floats by pandas"])
def test_whole_numbers_of_a_data_frame_that_cannot_be_are_refused(column):
    view = FeatureView("p", entity=Entity("user", key="user_id"), features={"n": integer(wide=True)})
    frame = pd.DataFrame({"user_id": ["u1", "u2"], "event_timestamp": [NOW, NOW], "n": column})

    with pytest.raises((RequestError, InvalidRowsError), match=r"values of one type|beyond 2"):
        push(view, frame, MemoryOnlineStore(), now=NOW)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"version": ["a"], "vector": [1.0, 2.0]}, "the version of a vector is a list"),
        ({"version": "m@1", "vector": [10**400, 1]}, "a vector is a list of numbers"),
        ({"version": "m@1", "vector": [True, True]}, "a vector is a list of numbers"),
        ({"version": "m@1", "vector": ["1.5", "2"]}, "a vector is a list of numbers"),
        ({"version": "m@1", "vector": [1e39, 1.0]}, "NaN or infinite numbers"),
    ],
)
def test_a_vector_that_is_none_is_told_without_a_warning(value, told, recwarn):
    view = FeatureView("p", entity=Entity("user", key="user_id"), features={"v": embedding("content")})
    known = {"m": EmbeddingVersion("content", "m", "1", "c", "f" * 64, 2)}
    row = {"user_id": "u1", "event_timestamp": NOW, "v": value}

    with pytest.raises(InvalidRowsError, match=told):
        push(view, [row], MemoryOnlineStore(), now=NOW, versions=lambda: known)
    assert not recwarn.list


@pytest.mark.parametrize("refs", [None, 5, "profile:note", [1]])
def test_references_that_are_no_list_are_told(refs):
    features = Features(
        catalog_of([BY_TEXT]), MemoryStore(), MemoryOnlineStore(), Logs(MemoryStore(), utc_now), utc_now
    )

    with pytest.raises(RequestError, match="give a list of references"):
        features.online(refs, {"user_id": ["u1"]})


@pytest.mark.parametrize("service", [5, None])
def test_a_service_that_is_no_name_is_told(service):
    with pytest.raises(RequestError, match="is no name"):
        catalog_of([BY_TEXT]).service(service)
