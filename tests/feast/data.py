"""The data of the Feast repository beside this file: ties, late records, gaps, and every type that a column can have."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START = datetime(2026, 3, 1, tzinfo=UTC)
MICROS = pa.timestamp("us", "UTC")
SEED = 20260301


def build(folder: Path, *, drivers: int = 20, hours: int = 60) -> Path:
    """A copy of the repository with its data is in the folder; the same arguments make the same values."""
    shutil.copytree(Path(__file__).parent / "repository", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").mkdir()
    random = np.random.default_rng(SEED)
    tables = {
        "hourly": hourly(random, drivers, hours),
        "profile": profile(random, drivers),
        "trips": trips(random, drivers, hours),
        "inferred": now(random, drivers).rename_columns(["driver_id", "event_timestamp", "pace"]),
        "rates": pa.table({"event_timestamp": pa.array([START], MICROS), "euro": [1.0]}),
        "now": now(random, drivers),
        "weighed": pa.table({"weight": [0.5], "event_timestamp": pa.array([START], MICROS), "price": [2.0]}),
        "every": every(),
    }
    for name, table in tables.items():
        pq.write_table(table, folder / "data" / f"{name}.parquet")
    return folder


def hourly(random, drivers, hours):
    """Every driver each hour; of some moments there are two rows, of which the later created one counts."""
    rows = drivers * hours
    driver = np.repeat(np.arange(1, drivers + 1), hours)
    moment = [START + timedelta(hours=int(hour)) for hour in np.tile(np.arange(hours), drivers)]
    again = np.sort(random.choice(rows, rows // 10, replace=False))
    created = [one + timedelta(minutes=5) for one in moment] + [moment[at] + timedelta(minutes=9) for at in again]
    count = rows + len(again)
    rate = random.random(count, dtype=np.float32)
    table = pa.table(
        {
            "driver_id": pa.array(np.concatenate([driver, driver[again]])),
            "event_timestamp": pa.array(moment + [moment[at] for at in again], MICROS),
            "created": pa.array(created, MICROS),
            "conv_rate": pa.array(rate, mask=random.random(count) < 0.05),
            "acc_rate": random.random(count),
            "avg_daily_trips": random.integers(0, 1_000, count),
            "checked_by": ["somebody"] * count,
        }
    )
    return table.take(random.permutation(count))


def profile(random, customers):
    """A few changes of every customer, at times without a zone and to the nanosecond."""
    rows = customers * 3
    updated = np.datetime64("2026-03-01T00:00:00.000000001") + random.integers(0, 10**15, rows).astype(
        "timedelta64[ns]"
    )
    return pa.table(
        {
            "customer_id": [f"c{place % customers}" for place in range(rows)],
            "updated": pa.array(updated, pa.timestamp("ns")),
            "Plan Name": pa.array(random.choice(["free", "team"], rows)),
            "mail": [f"{place}@example.com" for place in range(rows)],
            "active": pa.array(random.random(rows) < 0.5, mask=random.random(rows) < 0.1),
            "signed_up": pa.array(updated.astype("datetime64[us]"), pa.timestamp("us"), mask=random.random(rows) < 0.1),
            "logins": pa.array(random.integers(0, 9, rows).astype(np.int32), mask=random.random(rows) < 0.3),
        }
    )


def trips(random, drivers, hours):
    """Drivers with customers; some pairs have two rows of one moment that nothing tells apart."""
    rows = drivers * hours // 2
    moment = [START + timedelta(hours=int(hour)) for hour in random.integers(0, hours, rows)]
    return pa.table(
        {
            "driver_id": random.integers(1, drivers + 1, rows),
            "customer_id": [f"c{one}" for one in random.integers(0, 3, rows)],
            "ts": pa.array(moment, MICROS),
            "rides_together": random.integers(0, 1_000_000, rows),
        }
    )


def now(random, drivers):
    """One row a driver."""
    return pa.table(
        {
            "driver_id": np.arange(1, drivers + 1),
            "event_timestamp": pa.array([START + timedelta(minutes=int(one)) for one in range(drivers)], MICROS),
            "speed": random.random(drivers) * 90,
        }
    )


def every():
    """A column of every type."""
    wide = 2**60 + 1
    return pa.table(
        {
            "shopCode": ["s1", "s2", "s3"],
            "event_timestamp": pa.array([START] * 3, MICROS),
            "numbers": pa.array([[0.5, 1.5], [], None], pa.list_(pa.float32())),
            "words": [["a", "b"], None, ["c"]],
            "labels": [["x"], ["y"], None],
            "attributes": pa.array([[("k", "v")], [], None], pa.map_(pa.string(), pa.string())),
            "payload": ['{"a": 1}', '{"b": [2]}', None],
            "raw": [b"\x00", b"\x01", None],
            "huge": [wide, -1, None],
            "import": pa.array([1, 2, None], pa.int32()),
            "event_id": ["e1", "e2", "e3"],
            "camelCase": [1, 2, 3],
            "Camel_Case": [4, 5, 6],
            "ratio": [0.1, 0.2, float("nan")],
        }
    )
