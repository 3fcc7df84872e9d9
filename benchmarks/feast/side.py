"""What Feast does with the same files, one part at a time; its figures are JSON on standard output.

Runs in the environment that `make bench-feast` makes, never beside the library. The parts read the Parquet
files that `benchmarks/features.py --feast` wrote into FOLDER.

.venv-feast/bin/python benchmarks/feast/side.py FOLDER scalars|vectors|join
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType
from feast.types import Array, Float32, Float64, Int64, String

BULK = 10_000
NEVER = datetime(2000, 1, 1, tzinfo=UTC)
USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
FIELDS = {"a": Int64, "b": Float64, "c": Float64, "d": String}


def taken(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def each(work: Callable[[], object], times: int) -> float:
    return float(np.median([taken(work) for _ in range(times)]))


def store_in(folder: Path) -> FeatureStore:
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    return FeatureStore(config=config)


def file_source(path: Path) -> FileSource:
    return FileSource(path=str(path), timestamp_field="event_timestamp", created_timestamp_column="created_timestamp")


def view(path: Path, fields: dict[str, object], *, push: bool = False) -> FeatureView:
    source: FileSource | PushSource = file_source(path)
    if push:
        source = PushSource(name="pushed", batch_source=source)
    schema = [Field(name=name, dtype=kind) for name, kind in fields.items()]
    # No lifetime, as in the view that it is compared with.
    return FeatureView(name="scalars", entities=[USER], ttl=timedelta(0), schema=schema, source=source)


def scalars(folder: Path) -> dict[str, float]:
    store = store_in(folder)
    store.apply([USER, view(folder / "scalars.parquet", FIELDS, push=True)])
    frame = pd.read_parquet(folder / "scalars.parquet")
    spent = taken(lambda: store.materialize(NEVER, datetime.now(UTC)))
    refs = ["scalars:a", "scalars:b", "scalars:d"]

    def read(users: list[str]) -> dict[str, list[object]]:
        return store.get_online_features(features=refs, entity_rows=[{"user_id": one} for one in users]).to_dict()

    assert read([frame["user_id"][7]])["a"] == [frame["a"][7]]
    one, hundred = [str(frame["user_id"][7])], [str(user) for user in frame["user_id"][:100]]
    figures = {"rate": len(frame) / spent, "one": each(lambda: read(one), 300)}
    figures |= {"hundred": each(lambda: read(hundred), 60), "push": each(pushing(store), 100)}
    bulk = pd.read_parquet(folder / "bulk.parquet").head(BULK)
    return figures | {"bulk": len(bulk) / taken(lambda: store.push("pushed", bulk))}


def pushing(store: FeatureStore) -> Callable[[], None]:
    """One pushed row, read back."""
    places = iter(range(10**9))

    def push() -> None:
        now, value = datetime.now(UTC), next(places)
        row = {"user_id": ["p"], "event_timestamp": [now], "created_timestamp": [now], "a": [value]}
        store.push("pushed", pd.DataFrame(row | {"b": [0.5], "c": [0.5], "d": ["x"]}))
        asked = store.get_online_features(features=["scalars:a"], entity_rows=[{"user_id": "p"}])
        assert asked.to_dict()["a"] == [value]

    return push


def vectors(folder: Path) -> dict[str, float]:
    store = store_in(folder)
    store.apply([USER, view(folder / "vectors.parquet", {"v": Array(Float32)})])
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = taken(lambda: store.materialize(NEVER, datetime.now(UTC)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = len(pd.read_parquet(folder / "vectors.parquet", columns=["user_id"]))
    return {"rate": rows / spent, "mb": (peak - base) / 1024}


def join(folder: Path) -> dict[str, float]:
    store = store_in(folder)
    store.apply([USER, view(folder / "history.parquet", FIELDS)])
    asked = pd.read_parquet(folder / "asked.parquet")
    found: list[pd.DataFrame] = []

    def ask() -> None:
        job = store.get_historical_features(entity_df=asked, features=["scalars:a", "scalars:b"])
        found.append(job.to_df())

    return {"seconds": taken(ask), "lost": len(asked) - len(found[0])}


def main() -> None:
    folder, part = Path(sys.argv[1]), sys.argv[2]
    shown, sys.stdout = sys.stdout, sys.stderr
    figures = {"scalars": scalars, "vectors": vectors, "join": join}[part](folder)
    print(json.dumps(figures), file=shown)


if __name__ == "__main__":
    main()
