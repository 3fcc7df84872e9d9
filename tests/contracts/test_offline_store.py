"""One suite for every offline store, the fake included; then what only a store on a disk can show."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestore.adapters.lance import LanceStore
from lodestore.errors import StoreError, StoreWriteError
from lodestore.filters import Column, parse
from lodestore.ports import OfflineStore
from lodestore.tables import MOMENT, in_list
from lodestore.testing import MemoryStore

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("n", pa.int64()),
        ("end", pa.large_string()),
        ("at", MOMENT),
        ("tags", pa.list_(pa.string())),
    ]
)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE_IDS = ["it's", '"', "a`b", "\\", "ü/ß", "日本語", "🙂", "x' OR '1'='1", "--", ";", "%", " ", "", "a\nb"]


def rows(*pairs: tuple[str, int]) -> pa.Table:
    columns = {"id": [key for key, _ in pairs], "n": [n for _, n in pairs]}
    spare = {name: pa.nulls(len(pairs), SCHEMA.field(name).type) for name in ("end", "at", "tags")}
    return pa.table({**columns, **spare}, schema=SCHEMA)


def held(store: OfflineStore, name: str = "t") -> dict[str, int]:
    found = store.read(name, ["id", "n"]).to_pylist()
    assert len(found) == len({row["id"] for row in found})
    return {row["id"]: row["n"] for row in found}


@pytest.fixture(params=["memory", "lance"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> OfflineStore:
    return MemoryStore() if request.param == "memory" else LanceStore(str(tmp_path / "store"))


@pytest.fixture
def store(fresh: OfflineStore) -> OfflineStore:
    fresh.ensure("t", SCHEMA, key="id")
    return fresh


# -- tables


def test_a_table_that_exists_is_left_as_it_is(store):
    store.append("t", rows(("a", 1)))

    store.ensure("t", SCHEMA, key="id")

    assert held(store) == {"a": 1}


def test_a_column_that_a_table_lacks_is_added_as_nulls(store):
    store.append("t", rows(("a", 1)))
    wider = SCHEMA.append(pa.field("words", pa.list_(pa.string()))).append(pa.field("upto", MOMENT))

    store.ensure("t", wider, key="id")

    found = store.read("t")
    assert found.schema.names == wider.names
    assert (found["words"].null_count, found["upto"].null_count, held(store)) == (1, 1, {"a": 1})


def test_the_revision_grows_with_every_change_and_only_then(store):
    revisions = [store.revision("t")]
    store.append("t", rows(("a", 1)))
    revisions.append(store.revision("t"))
    store.upsert("t", rows(("a", 2)), key="id")
    revisions.append(store.revision("t"))
    store.delete("t", "id", ["a"])
    revisions.append(store.revision("t"))

    assert revisions == sorted(set(revisions))
    assert store.revision("t") == revisions[-1]
    assert store.revision("absent") == 0


def test_rows_that_match_a_condition_are_removed_and_counted(store):
    store.append("t", rows(("a", 1), ("b", 2), ("c", 3)))
    before = store.revision("t")

    assert store.remove("t", "n >= 2 AND id <> 'z'") == 2
    assert held(store) == {"a": 1}
    again = store.revision("t")
    assert again > before
    assert store.remove("t", "n >= 2") == 0
    assert store.revision("t") == again
    with pytest.raises(StoreError, match="table t cannot be"):
        store.remove("t", "nonsense = 1")


def test_tables_are_listed_by_how_they_start(store):
    store.ensure("emb__b", SCHEMA)
    store.ensure("emb__a", SCHEMA)

    assert store.names("emb__") == ["emb__a", "emb__b"]
    assert store.names() == ["emb__a", "emb__b", "t"]


def test_a_name_that_is_a_path_is_refused(store):
    with pytest.raises(StoreError, match="name"):
        store.ensure("../t", SCHEMA)


def test_a_dropped_table_is_gone_and_can_be_made_again(store):
    store.append("t", rows(("a", 1)))

    store.drop("t")
    store.drop("t")

    assert store.names() == []
    assert store.count("t") == 0
    store.ensure("t", SCHEMA, key="id")
    assert store.count("t") == 0


def test_an_absent_table_reads_as_an_empty_one(fresh):
    assert fresh.read("nope", ["id", "n"]).to_pylist() == []
    assert fresh.read("nope", ["id", "n"]).column_names == ["id", "n"]
    assert fresh.read("nope").num_rows == 0
    assert fresh.read("nope", ["id"], "id = 'a'").num_rows == 0
    assert fresh.count("nope") == 0
    fresh.delete("nope", "id", ["a"])
    assert fresh.remove("nope", "id = 'a'") == 0
    fresh.compact("nope")
    fresh.drop("nope")


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.append("nope", rows(("a", 1))),
        lambda store: store.upsert("nope", rows(("a", 1)), key="id"),
        lambda store: store.insert("nope", rows(("a", 1)), key="id"),
        lambda store: store.batches("nope"),
    ],
)
def test_writing_to_an_absent_table_names_it_and_the_way_out(fresh, act: Callable[[OfflineStore], object]):
    with pytest.raises(StoreError, match=r"table nope is not in the store .*; run the job that makes it"):
        act(fresh)


# -- writing


def test_the_same_upsert_twice_changes_nothing(store):
    store.upsert("t", rows(("a", 1), ("b", 2)), key="id")
    store.upsert("t", rows(("a", 1), ("b", 2)), key="id")

    assert held(store) == {"a": 1, "b": 2}


def test_the_last_row_of_a_key_wins_an_upsert(store):
    store.upsert("t", rows(("a", 1), ("b", 2), ("a", 3)), key="id")
    store.upsert("t", rows(("b", 4), ("b", 5)), key="id")

    assert held(store) == {"a": 3, "b": 5}


def test_an_insert_leaves_taken_keys_alone_and_says_how_many_were_new(store):
    assert store.insert("t", rows(("a", 1), ("b", 2)), key="id") == 2
    assert store.insert("t", rows(("a", 9), ("c", 3)), key="id") == 1
    assert store.insert("t", rows(("a", 8)), key="id") == 0

    assert held(store) == {"a": 1, "b": 2, "c": 3}


def test_the_first_row_of_a_key_wins_an_insert_as_if_they_had_come_one_by_one(store):
    assert store.insert("t", rows(("a", 1), ("a", 2)), key="id") == 1

    assert held(store) == {"a": 1}


def test_nothing_written_is_nothing_done(store):
    store.append("t", rows())
    store.upsert("t", rows(), key="id")
    store.delete("t", "id", [])

    assert store.insert("t", rows(), key="id") == 0
    assert store.count("t") == 0


def test_rows_without_a_column_of_the_table_are_refused(store):
    with pytest.raises(StoreError, match="table t"):
        store.append("t", pa.table({"id": ["a"]}))


def test_a_row_without_a_key_is_refused(store):
    with pytest.raises(StoreError, match="table t cannot be written"):
        store.insert("t", rows(("a", 1)).set_column(0, "id", pa.array([None], pa.string())), key="id")

    assert store.count("t") == 0


def test_columns_in_another_order_or_a_kindred_type_fit(store):
    given_rows = rows(("a", 1)).select(["tags", "n", "id", "at", "end"])

    store.append("t", given_rows.set_column(1, "n", pa.array([7], pa.int32())))

    assert held(store) == {"a": 7}


def test_any_text_can_be_an_id(store):
    store.upsert("t", rows(*((key, place) for place, key in enumerate(HOSTILE_IDS))), key="id")

    assert held(store) == {key: place for place, key in enumerate(HOSTILE_IDS)}
    for key in HOSTILE_IDS:
        assert store.read("t", ["id"], in_list("id", [key]))["id"].to_pylist() == [key]
    store.delete("t", "id", HOSTILE_IDS[1:])
    assert held(store) == {"it's": 0}


def test_values_come_back_as_they_went_in(store):
    row = {"id": "a", "n": -(2**63), "end": "Zeile\r\n\t\0é", "at": NOON.replace(microsecond=1), "tags": ["x", ""]}

    store.append("t", pa.Table.from_pylist([row], schema=SCHEMA))

    assert store.read("t").to_pylist() == [row]
    assert store.read("t").schema.types == SCHEMA.types


def test_thousands_of_ids_are_deleted_at_once(store):
    store.append("t", rows(*((f"k{n}", n) for n in range(3_100))))

    store.delete("t", "id", [f"k{n}" for n in range(3_000)])
    store.delete("t", "id", ["never there"])

    assert store.count("t") == 100
    assert min(held(store).values()) == 3_000


def test_rows_are_deleted_by_an_integer_column_and_by_one_named_like_a_keyword(store):
    store.append(
        "t",
        pa.Table.from_pylist(
            [{"id": "a", "n": 1}, {"id": "b", "n": 2, "end": "x"}, {"id": "c", "n": 3}], schema=SCHEMA
        ),
    )

    store.delete("t", "n", ["1"])
    store.delete("t", "end", ["x"])

    assert held(store) == {"c": 3}


keyed = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 9)), max_size=6)
acts = st.lists(st.tuples(st.sampled_from(["upsert", "insert", "delete", "compact"]), keyed), max_size=6)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(todo=acts)
def test_upserts_inserts_and_deletes_do_what_a_dict_does(store, todo):
    store.delete("t", "id", "abcde")
    model: dict[str, int] = {}
    for act, pairs in todo:
        if act == "upsert":
            store.upsert("t", rows(*pairs), key="id")
            model.update(pairs)
        elif act == "insert":
            new = {key: value for key, value in reversed(pairs) if key not in model}
            assert store.insert("t", rows(*pairs), key="id") == len(new)
            model.update(new)
        elif act == "delete":
            store.delete("t", "id", [key for key, _ in pairs])
            model = {key: value for key, value in model.items() if key not in dict(pairs)}
        else:
            store.compact("t")
        assert held(store) == model


# -- reading


def test_appended_rows_come_back_in_their_order_before_and_after_compaction(store):
    for start in range(0, 400, 40):
        store.append("t", rows(*((f"k{n}", n) for n in range(start, start + 40))))
    before = store.read("t", ["n"])["n"].to_pylist()

    store.compact("t")

    assert before == list(range(400))
    assert store.read("t", ["n"])["n"].to_pylist() == before


def test_batches_are_bounded_and_make_the_whole_table(store):
    store.append("t", rows(*((f"k{n}", n) for n in range(70_000))))

    sizes, seen = [], []
    for batch in store.batches("t", ["n"], "n >= 100"):
        sizes.append(batch.num_rows)
        seen += batch["n"].to_pylist()

    assert seen == list(range(100, 70_000))
    # Narrow rows come in large pieces: a scan costs some 300 microseconds a piece.
    assert len(sizes) > 1
    assert max(sizes) <= 65_536
    assert store.batches("t", ["n"], "n < 0").read_all().num_rows == 0


def test_a_reader_that_stops_early_leaves_the_table_usable(store):
    store.append("t", rows(*((f"k{n}", n) for n in range(3_000))))

    reader = store.batches("t", ["n"])
    reader.read_next_batch()
    del reader

    assert store.count("t") == 3_000


def test_columns_come_in_the_order_they_were_asked_for(store):
    store.append("t", rows(("a", 1)))

    assert store.read("t", ["n", "id"]).column_names == ["n", "id"]
    assert store.read("t", ["end"]).to_pylist() == [{"end": None}]


@pytest.mark.parametrize(
    "act", [lambda s: s.read("t", ["nope"]), lambda s: s.read("t", None, "nope = 1"), lambda s: s.count("t", "(")]
)
def test_an_unknown_column_or_a_broken_condition_names_the_table(store, act: Callable[[OfflineStore], object]):
    with pytest.raises(StoreError, match="table t") as caught:
        act(store)

    assert ".rs:" not in str(caught.value)
    assert "\n" not in str(caught.value)


FILTERS = {
    "id = 'it''s'": ["it's"],
    "id in ('a', 'b`c')": ["a", "b`c"],
    "n > 1 and not end is null": ["b`c"],
    "n >= 1 or id = 'it''s'": ["a", "b`c", "it's"],
    "at >= '2026-03-01T12:00:00Z'": ["b`c"],
    "at < '2026-03-01T13:00:00+01:00'": ["a"],
    "at is null": ["it's"],
    "tags contains 'x'": ["a"],
    "not tags contains 'x'": ["b`c"],
    "end = 'E`nd'": ["b`c"],
}
COLUMNS = [
    Column("id", "string"),
    Column("n", "integer"),
    Column("end", "string"),
    Column("at", "timestamp"),
    Column("tags", "list"),
]


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_finds_the_same_rows_in_every_store(store, text):
    store.append("t", pa.Table.from_pylist(
        [
            {"id": "a", "n": 1, "at": NOON.replace(hour=11), "tags": ["x", "y"]},
            {"id": "b`c", "n": 2, "end": "E`nd", "at": NOON, "tags": ["z"]},
            {"id": "it's"},
        ],
        schema=SCHEMA,
    ))  # fmt: skip

    where = parse(text, COLUMNS).sql()

    assert sorted(store.read("t", ["id"], where)["id"].to_pylist()) == sorted(FILTERS[text])
    assert store.count("t", where) == len(FILTERS[text])


# -- a store on a disk

RACE = """
import sys
import pyarrow as pa
from lodestore.adapters.lance import LanceStore

store = LanceStore(sys.argv[1])
schema = pa.schema([("id", pa.string()), ("who", pa.string())])
print("ready", flush=True)
for key in sys.stdin:
    store.ensure("raced", schema, key="id")
    print(store.insert("raced", pa.table({"id": [key.strip()], "who": [sys.argv[2]]}), key="id"), flush=True)
"""


def test_of_several_processes_that_insert_one_key_exactly_one_wins(tmp_path):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path), str(who)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for who in range(3)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"

    claimed = set()
    for key in [f"k{n}" for n in range(6)]:
        for racer in racers:
            racer.stdin.write(f"{key}\n")
        won = [int(racer.stdout.readline()) for racer in racers]
        assert sorted(won) == [0, 0, 1]
        claimed.add((key, str(won.index(1))))
    for racer in racers:
        racer.communicate(timeout=30)

    stored = LanceStore(str(tmp_path)).read("raced").to_pylist()
    assert len(stored) == 6
    assert {(row["id"], row["who"]) for row in stored} == claimed


READ_ONLY = """
import os, sys, tempfile
from pathlib import Path
import pyarrow as pa
from lodestore.adapters.lance import LanceStore
from lodestore.errors import StoreWriteError

schema = pa.schema([("id", pa.string())])
with tempfile.TemporaryDirectory() as folder:
    home = Path(folder) / "store"
    LanceStore(str(home)).ensure("t", schema, key="id")
    LanceStore(str(home)).append("t", pa.table({"id": ["a"]}))
    for path in [Path(folder), home, *home.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.geteuid() == 0:
        os.seteuid(65534)  # root may write anywhere
    store = LanceStore(str(home))
    print(store.count("t"))
    for act in (
        lambda: store.insert("t", pa.table({"id": ["b"]}), key="id"),
        lambda: store.append("t", pa.table({"id": ["b"]})),
        lambda: store.ensure("new", schema),
        lambda: store.delete("t", "id", ["a"]),
        lambda: LanceStore(str(home / "below")).names(),
    ):
        try:
            act()
        except StoreWriteError as error:
            print(str(home) in str(error) and "LODESTORE_HOME" in str(error), error)
    if os.getuid() == 0:
        os.seteuid(0)
    for path in [Path(folder), home, *home.rglob("*")]:
        path.chmod(0o755)
"""


def test_a_read_only_folder_can_be_read_and_says_that_it_cannot_be_written():
    done = subprocess.run([sys.executable, "-c", READ_ONLY], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    count, *refusals = done.stdout.splitlines()
    assert count == "1"
    assert [line.split()[0] for line in refusals] == ["True"] * 5, done.stdout


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_path_that_is_a_file_is_no_store(tmp_path, below):
    file = tmp_path / "notes.txt"
    file.write_text("not a store")

    with pytest.raises(StoreError, match=r"notes.txt.* is a file or lies below one; name another") as caught:
        LanceStore(str(file / below)).names()

    assert not isinstance(caught.value, StoreWriteError)
    assert file.read_text() == "not a store"


def test_a_kept_handle_sees_what_another_connection_writes(tmp_path):
    here, there = LanceStore(str(tmp_path)), LanceStore(str(tmp_path))
    here.ensure("t", SCHEMA, key="id")
    assert held(here) == {}

    there.insert("t", rows(("a", 1)), key="id")
    there.upsert("t", rows(("a", 2), ("b", 3)), key="id")

    assert held(here) == {"a": 2, "b": 3}
    assert here.insert("t", rows(("b", 9)), key="id") == 0


def test_a_kept_handle_outlives_a_table_that_is_dropped_and_made_again_elsewhere(tmp_path):
    here, there = LanceStore(str(tmp_path)), LanceStore(str(tmp_path))
    here.ensure("t", SCHEMA, key="id")
    here.ensure("another", SCHEMA)
    here.append("t", rows(("a", 1)))

    there.drop("t")

    assert here.count("t") == 0
    with pytest.raises(StoreError, match="table t is not in the store"):
        here.append("t", rows(("a", 1)))
    other = pa.schema([("id", pa.string()), ("more", pa.int64())])
    there.ensure("t", other, key="id")
    there.append("t", pa.table({"id": ["x"], "more": [5]}))
    assert here.read("t").to_pylist() == [{"id": "x", "more": 5}]
    assert here.insert("t", pa.table({"id": ["x", "y"], "more": [6, 7]}), key="id") == 1


def test_a_table_dropped_elsewhere_is_made_again_by_whoever_needs_it(tmp_path):
    here, there = LanceStore(str(tmp_path)), LanceStore(str(tmp_path))
    here.ensure("t", SCHEMA, key="id")
    here.ensure("another", SCHEMA)
    there.drop("t")

    here.ensure("t", SCHEMA, key="id")

    assert there.names() == ["another", "t"]
    assert here.insert("t", rows(("a", 1)), key="id") == 1


def test_a_stray_file_or_an_empty_folder_is_no_table(tmp_path):
    store = LanceStore(str(tmp_path))
    store.ensure("t", SCHEMA, key="id")
    (tmp_path / "notes.txt").write_text("no table")
    (tmp_path / "stray.lance").mkdir()

    assert LanceStore(str(tmp_path)).count("t") == 0
    assert LanceStore(str(tmp_path)).count("stray") == 0


def test_a_store_that_went_away_as_a_whole_is_an_error_and_not_empty(tmp_path):
    store = LanceStore(str(tmp_path / "store"))
    store.ensure("t", SCHEMA, key="id")
    store.append("t", rows(("a", 1)))
    assert held(store) == {"a": 1}
    away = (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "store").mkdir()  # as a mount point does

    for look in (
        lambda: store.read("t", ["id"]),
        lambda: store.count("t"),
        lambda: store.count("never"),
        lambda: store.revision("t"),
        lambda: store.ensure("t", SCHEMA, key="id"),
        lambda: store.append("t", rows(("b", 2))),
        lambda: store.ensure("new", SCHEMA),
    ):
        with pytest.raises(StoreError, match=r"had tables and has none now; mount it"):
            look()

    (tmp_path / "store").rmdir()
    away.rename(tmp_path / "store")
    assert held(store) == {"a": 1}


def test_a_store_whose_last_table_was_dropped_is_empty(tmp_path):
    store = LanceStore(str(tmp_path / "store"))
    store.ensure("t", SCHEMA, key="id")

    store.drop("t")

    assert store.count("t") == 0
    store.ensure("t", SCHEMA, key="id")
    assert store.count("t") == 0
