"""Features at speed: materialise, read, push and join, each beside a naive way in the same run.

python benchmarks/features.py                # the sizes of the README
python benchmarks/features.py --rows 10000   # a quick look
make bench-feast                             # the same with Feast beside it, on the same rows

The column "bare" is what the libraries below take for the same bytes in the same run, and how many times that our
figure is: LMDB's own put and get with orjson, DuckDB's ASOF join over tables in memory. A figure that is missed on
a slow machine can be judged by it.

Feast needs another pandas than the library, so that it runs in an environment of its own (`--feast` names its
Python) and reads the same rows from Parquet files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import lmdb
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lodestore.adapters.lance import LanceStore
from lodestore.adapters.lmdb import LmdbOnlineStore
from lodestore.catalog import catalog_of
from lodestore.features import Features
from lodestore.historical import historical
from lodestore.logs import Logs, utc_now
from lodestore.models import EmbeddingVersion
from lodestore.spaces import Spaces, value_schema, value_table
from lodestore.spec import Entity, FeatureView, category, embedding, integer, number
from lodestore.tables import ensure_logs, view_schema, view_table

NOW = datetime.now(UTC)
MOMENT = pa.timestamp("us", tz="UTC")
SCALARS = FeatureView(
    "scalars",
    entity=Entity("user", key="user_id"),
    features={"a": integer(), "b": number(), "c": number(), "d": category("x", "y")},
)
VECTORS = FeatureView("vectors", entity=Entity("user", key="user_id"), features={"v": embedding("content")})
VERSION = EmbeddingVersion("content", "bench", "1", "c", "f" * 64, 384)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    what: str
    ours: float
    unit: str
    naive: float | None
    goal: float
    more_is_better: bool
    feast: float | None = None
    bare: float | None = None

    def line(self) -> str:
        """The line as it is printed."""
        met = self.ours >= self.goal if self.more_is_better else self.ours <= self.goal
        others = " ".join(self._beside(one) for one in (self.naive, self.feast))
        bare = f"{'':>10} {'':>7}"
        if self.bare:
            slower = self.bare / self.ours if self.more_is_better else self.ours / self.bare
            bare = f"{self.bare:>10,.3g} {f'{slower:.2g}x':>7}"
        end = f"{self.goal:>10,.4g} {self.unit:8} {'met' if met else 'MISSED'}"
        return f"{self.what:48} {self.ours:>12,.4g} {others} {bare} {end}"

    def _beside(self, other: float | None) -> str:
        """Another way's figure, and how many times better ours is."""
        if other is None:
            return f"{'':>10} {'':>8}"
        if not self.ours:
            return f"{other:>10,.3g} {'':>8}"
        ratio = self.ours / other if self.more_is_better else other / self.ours
        return f"{other:>10,.3g} {f'{ratio:.3g}x':>8}"


class Feast:
    """Feast in its own environment, on the same rows; without its Python it has no figures."""

    def __init__(self, python: str | None, folder: Path) -> None:
        self._python = python
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)

    def told(self, part: str, **tables: pa.Table) -> dict[str, float]:
        """The figures of one part, which reads these tables as files."""
        if self._python is None:
            return {}
        for name, table in tables.items():
            pq.write_table(table, self.folder / f"{name}.parquet")
        for left in self.folder.glob("*.db"):
            left.unlink()
        side = Path(__file__).parent / "feast" / "side.py"
        command = [self._python, "-W", "ignore", str(side), str(self.folder), part]
        answer = subprocess.run(command, check=False, capture_output=True, text=True)
        if answer.returncode:
            message = f"the Feast side failed:\n{answer.stderr[-2000:]}"
            raise SystemExit(message)
        told: dict[str, float] = json.loads(answer.stdout)
        return told


def times(figure: float | None, factor: float) -> float | None:
    return None if figure is None else figure * factor


class House:
    """A store of its own in a folder that goes with it."""

    def __init__(self, folder: Path) -> None:
        self.offline = LanceStore(str(folder / "store"))
        ensure_logs(self.offline)
        self.online = LmdbOnlineStore.open(folder / "online")
        self.logs = Logs(self.offline, utc_now)
        self.catalog = catalog_of([SCALARS, VECTORS])
        self.features = Features(self.catalog, self.offline, self.online, self.logs, utc_now)
        self.spaces = Spaces(self.catalog, self.offline, self.online, self.logs, utc_now)


class Bare:
    """LMDB alone, with the bytes that the store wrote."""

    def __init__(self, house: House, folder: Path) -> None:
        self._house = house
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = lmdb.open(str(folder / "bare"), map_size=1 << 36, sync=False, metasync=False, max_dbs=64)
        self._made = 0

    def contents(self, name: str) -> list[tuple[bytes, bytes]]:
        """The entries of one of the store's databases."""
        shared = self._house.online._here()  # noqa: SLF001 - its bytes are what is measured
        with shared.environment.begin() as txn:
            return [(bytes(key), bytes(value)) for key, value in txn.cursor(getattr(shared, name))]

    def put(self, *tables: Sequence[tuple[bytes, bytes]], step: int = 1_000) -> float:
        """The seconds in which these entries are put into databases of their own."""
        databases = []
        for _ in tables:
            self._made += 1
            databases.append(self.environment.open_db(b"%d" % self._made))
        started = time.perf_counter()
        for database, rows in zip(databases, tables, strict=True):
            for at in range(0, len(rows), step):
                with self.environment.begin(write=True) as txn:
                    txn.cursor(database).putmulti(rows[at : at + step])
        return time.perf_counter() - started


def scalar_rows(rows: int, entities: int, *, seed: int = 1) -> pa.Table:
    rng = np.random.default_rng(seed)
    ids = pc.binary_join_element_wise(
        "u", pa.array(rng.integers(0, entities, rows) if rows > entities else np.arange(rows)).cast(pa.string()), ""
    )
    micros = int(NOW.timestamp() * 1e6) - rng.integers(0, 30 * 86_400 * 1_000_000, rows)
    times = pa.array(micros, pa.int64()).cast(MOMENT)
    columns = {
        "user_id": ids,
        "event_timestamp": times,
        "created_timestamp": times,
        "event_id": pa.array(np.arange(rows)).cast(pa.string()),
        "ingested_at": pa.array([NOW] * rows, MOMENT),
        "a": pa.array(rng.integers(0, 1000, rows)),
        "b": pa.array(rng.random(rows)),
        "c": pa.array(rng.random(rows)),
        "d": pa.array(np.where(rng.random(rows) < 0.5, "x", "y")),
    }
    return pa.table([columns[name] for name in view_schema(SCALARS).names], schema=view_schema(SCALARS))


def taken(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def each(work: Callable[[], object], times: int) -> float:
    """The median of single calls, in seconds."""
    return float(np.median([taken(work) for _ in range(times)]))


# Materialise


def materialise_scalars(house: House, rows: int, folder: Path, feast: dict[str, float]) -> list[Figure]:
    table = scalar_rows(rows, rows)
    house.offline.ensure(view_table(SCALARS), view_schema(SCALARS), key="event_id")
    house.offline.append(view_table(SCALARS), table)
    spent = taken(lambda: house.features.materialize(SCALARS))
    answer = house.features.online(["scalars:a", "scalars:d"], {"user_id": ["u0", f"u{rows - 1}"]})
    assert answer.columns["scalars:a"] == [table["a"][0].as_py(), table["a"][rows - 1].as_py()]
    naive = taken(lambda: naive_upsert(table, folder / "naive.db"))
    bare = Bare(house, folder / "scalars")
    floor = bare.put(bare.contents("rows"))
    what = f"materialise {rows:,} x 4 scalars"
    return [Figure(what, rows / spent, "rows/s", rows / naive, 200_000, True, feast.get("rate"), rows / floor)]


def naive_upsert(table: pa.Table, path: Path) -> None:
    """Row by row into SQLite, as stores do it whose online rows are a table."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE online (key TEXT, feature TEXT, value TEXT, at TEXT, PRIMARY KEY (key, feature))"
        )
        for row in table.to_pylist():
            for name in ("a", "b", "c", "d"):
                values = (row["user_id"], name, json.dumps(row[name]), row["event_timestamp"].isoformat())
                connection.execute("INSERT OR REPLACE INTO online VALUES (?, ?, ?, ?)", values)


def materialise_vectors(rows: int, feast: dict[str, float]) -> list[Figure]:
    """In a process of its own, so that its memory is its own; the figure is above what imports take."""
    command = [sys.executable, __file__, "--vectors-only", "--rows", str(rows)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rate, mb = feast.get("rate"), feast.get("mb")
    what = f"materialise {rows:,} x 384-d"
    return [
        Figure(what, told["rate"], "rows/s", told["naive"], 60_000, True, rate, told["bare"]),
        Figure("  memory above that of the open store", told["mb"], "MB", None, 500, False, mb),
    ]


def feast_vectors(rows: int) -> pa.Table:
    schema = value_schema(VECTORS, 384)
    made = vector_rows(schema, 0, rows, np.random.default_rng(1))
    chosen = made.select(["user_id", "event_timestamp", "created_timestamp", "vector"])
    return chosen.rename_columns([*chosen.column_names[:-1], "v"])


def vectors_only(rows: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        house = House(Path(name))
        house.logs.put("models", {
            "key": VERSION.key, "feature": "content", "model": "bench", "version": "1", "chunker": "c",
            "fingerprint": VERSION.fingerprint, "dimension": 384,
        })  # fmt: skip
        schema, table = value_schema(VECTORS, 384), value_table(VECTORS, "v", VERSION.key)
        house.offline.ensure(table, schema, key="event_id")
        rng = np.random.default_rng(1)
        for start in range(0, rows, 10_000):
            house.offline.append(table, vector_rows(schema, start, min(10_000, rows - start), rng))
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        spent = taken(lambda: house.spaces.publish(VECTORS, {"content": VERSION.key}))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert house.online.count(f"vectors@1/v/{VERSION.key}") == rows
        naive_rows = min(rows, 5_000)
        naive = naive_rows / taken(lambda: naive_vectors(house, table, naive_rows, Path(name) / "naive.db"))
        bare = Bare(house, Path(name))
        floor = rows / bare.put(bare.contents("rows"), step=650)
        sys.stdout.write(json.dumps({"rate": rows / spent, "mb": (peak - base) / 1024, "naive": naive, "bare": floor}))


def vector_rows(schema: pa.Schema, start: int, rows: int, rng: np.random.Generator) -> pa.Table:
    ids = pc.binary_join_element_wise("u", pa.array(np.arange(start, start + rows)).cast(pa.string()), "")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(rows * 384, dtype=np.float32)), 384)
    times = pa.array([NOW] * rows, MOMENT)
    return pa.table([ids, times, times, times, ids, pa.nulls(rows, pa.large_string()), vectors], schema=schema)


def naive_vectors(house: House, table: str, rows: int, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE online (key TEXT PRIMARY KEY, value TEXT)")
        for row in house.offline.read(table, ["user_id", "vector"]).slice(0, rows).to_pylist():
            connection.execute(
                "INSERT OR REPLACE INTO online VALUES (?, ?)", (row["user_id"], json.dumps(row["vector"]))
            )


# Read and push


def reads(house: House, rows: int, folder: Path, feast: dict[str, float]) -> list[Figure]:
    refs = ["scalars:a", "scalars:b", "scalars:d"]
    hundred = [f"u{at}" for at in range(min(rows, 100))]
    one = each(lambda: house.features.online(refs, {"user_id": ["u7"]}), 5_000)
    many = each(lambda: house.features.online(refs, {"user_id": hundred}), 1_000)
    connection = sqlite3.connect(folder / "naive.db")
    query = "SELECT feature, value FROM online WHERE key = ? AND feature IN ('a', 'b', 'd')"

    def naive(users: list[str]) -> list[Any]:
        return [{name: json.loads(value) for name, value in connection.execute(query, (user,))} for user in users]

    shared = house.online._here()  # noqa: SLF001

    def bare(keys: list[bytes]) -> list[Any]:
        with shared.environment.begin() as txn:
            return [orjson.loads(txn.get(key, None, shared.rows)[22:]) for key in keys]

    keys = [b"scalars@1\0\x02%b\0" % user.encode() for user in hundred]
    assert bare(keys[7:8])[0]["a"] == house.features.online(refs, {"user_id": ["u7"]}).columns["scalars:a"][0]
    slow, slower = each(lambda: naive(["u7"]), 2_000), each(lambda: naive(hundred), 300)
    floors = each(lambda: bare(keys[7:8]), 5_000), each(lambda: bare(keys), 1_000)
    connection.close()
    theirs = times(feast.get("one"), 1e6), times(feast.get("hundred"), 1e3)
    return [
        Figure("read 1 user x 3 features", one * 1e6, "us", slow * 1e6, 20, False, theirs[0], floors[0] * 1e6),
        Figure("read 100 users x 3 features", many * 1e3, "ms", slower * 1e3, 0.3, False, theirs[1], floors[1] * 1e3),
    ]


def pushes(house: House, rows: int, folder: Path, feast: dict[str, float]) -> list[Figure]:
    place = iter(range(10**9))

    def one() -> None:
        value = next(place)
        house.features.push("scalars", [{"user_id": "p", "event_timestamp": datetime.now(UTC), "a": value}])
        assert house.features.online(["scalars:a"], {"user_id": ["p"]}).columns["scalars:a"] == [value]

    single = each(one, 1_000)
    made = scalar_rows(rows, rows, seed=2)
    named = made.select(["user_id", "event_timestamp", "event_id", "a", "b", "c", "d"])
    identified = taken(lambda: house.features.push("scalars", named))
    assert house.online.journal_size() >= rows
    made = scalar_rows(rows, rows, seed=3)
    batch = made.select(["user_id", "event_timestamp", "a", "b", "c", "d"])
    bulk = taken(lambda: house.features.push("scalars", batch))
    assert house.online.journal_size() >= 2 * rows
    bare = Bare(house, folder / "pushed")
    written = [bare.contents(name) for name in ("rows", "journal", "events")]
    floor = bare.put(*(entries[-rows:] for entries in written))
    alone = each(lambda: bare.put(*(entries[:1] for entries in written)), 10)
    what, theirs = f"push {rows:,} rows of one Arrow table", times(feast.get("push"), 1e3)
    return [
        Figure("push 1 row and read it", single * 1e3, "ms", None, 0.3, False, theirs, alone * 1e3),
        Figure(what, rows / identified, "rows/s", None, 150_000, True, feast.get("bulk"), rows / floor),
        Figure("  without event ids, which are hashes then", rows / bulk, "rows/s", None, 150_000, True),
    ]


# Join


def join(house: House, entities: int, history: int, feast: Feast) -> list[Figure]:
    house.offline.drop(view_table(SCALARS))
    house.offline.ensure(view_table(SCALARS), view_schema(SCALARS), key="event_id")
    table = scalar_rows(history, 50_000, seed=3)
    house.offline.append(view_table(SCALARS), table)
    asked = scalar_rows(entities, 50_000, seed=4).select(["user_id", "event_timestamp"])
    found = historical(asked, ["scalars:a"], catalog=house.catalog, offline=house.offline)
    assert found.num_rows == entities
    check(asked, table, found)
    spent = min(
        taken(lambda: historical(asked, ["scalars:a", "scalars:b"], catalog=house.catalog, offline=house.offline))
        for _ in range(3)
    )
    naive = taken(lambda: naive_join(asked, table))
    bare = min(taken(lambda: bare_join(asked, table)) for _ in range(3))
    told = feast.told("join", history=table, asked=asked)
    what = f"join {entities:,} rows with {history:,} from the store"
    return [
        Figure(what, spent, "s", naive, 0.6, False, told.get("seconds"), bare),
        Figure("  rows that are lost", entities - found.num_rows, "rows", None, 0, False, told.get("lost")),
    ]


def check(asked: pa.Table, table: pa.Table, found: pa.Table) -> None:
    """A few rows are what a plain look through the history gives."""
    for at in range(0, asked.num_rows, max(1, asked.num_rows // 20)):
        user, moment = asked["user_id"][at], asked["event_timestamp"][at]
        mine = table.filter(pc.and_(pc.equal(table["user_id"], user), pc.less_equal(table["event_timestamp"], moment)))
        newest = mine.sort_by("event_timestamp")["a"][-1].as_py() if mine.num_rows else None
        assert found["scalars:a"][at].as_py() == newest


def naive_join(asked: pa.Table, table: pa.Table) -> None:
    """The pandas way: sort both, merge_asof."""
    import pandas as pd

    left = asked.to_pandas().sort_values("event_timestamp")
    right = table.select(["user_id", "event_timestamp", "a", "b"]).to_pandas().sort_values("event_timestamp")
    pd.merge_asof(left, right, on="event_timestamp", by="user_id")


def bare_join(asked: pa.Table, table: pa.Table) -> None:
    """DuckDB's own join over the same tables in memory, which settles no ties and keeps no order."""
    with duckdb.connect() as connection:
        connection.register("asked", asked)
        connection.register("history", table)
        connection.sql(
            "SELECT asked.*, history.a, history.b FROM asked ASOF LEFT JOIN history ON asked.user_id = history.user_id "
            "AND asked.event_timestamp >= history.event_timestamp"
        ).to_arrow_table()


def machine() -> str:
    """What the figures were measured on, the interpreter's own pace among it."""
    loop = min(timeit.repeat("[x for x in one]", "one = [1]", number=100_000, repeat=5)) * 10_000
    made = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} x {platform.machine()}, Python {platform.python_version()}"
    return f"{made}, a list of one element takes {loop:.0f} ns"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--history", type=int, default=1_000_000)
    parser.add_argument("--feast", metavar="PYTHON", help="the Python of an environment with Feast")
    parser.add_argument("--feast-vectors", type=int, default=20_000, help="how many vectors Feast materialises")
    parser.add_argument("--vectors-only", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.vectors_only:
        vectors_only(given.rows)
        return
    with tempfile.TemporaryDirectory() as name:
        print(machine())
        measure(Path(name), given)
    print("bare: the libraries alone on the same bytes, and how many times as long ours takes")
    print("naive: SQLite, a row a feature, JSON values; pandas merge_asof over tables in memory")
    if given.feast:
        print(f"Feast: its file and SQLite stores; {given.feast_vectors:,} vectors, and 10,000 rows of bulk push")


def measure(folder: Path, given: argparse.Namespace) -> None:
    house, feast = House(folder), Feast(given.feast, folder / "feast")
    beside = f"{'naive':>10} {'':>8} {'Feast' if given.feast else '':>10} {'':>8}"
    print(f"{'':48} {'here':>12} {beside} {'bare':>10} {'':>7} {'goal':>10}")
    scalars = feast.told(
        "scalars", scalars=scalar_rows(given.rows, given.rows), bulk=scalar_rows(10_000, 10_000, seed=2)
    )
    vectors = feast.told("vectors", vectors=feast_vectors(given.feast_vectors)) if given.feast else {}
    for part in (
        lambda: materialise_scalars(house, given.rows, folder, scalars),
        lambda: materialise_vectors(given.rows, vectors),
        lambda: reads(house, given.rows, folder, scalars),
        lambda: pushes(house, given.rows, folder, scalars),
        lambda: join(house, given.rows, given.history, feast),
    ):
        for figure in part():
            print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
