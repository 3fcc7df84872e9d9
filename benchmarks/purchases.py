"""Real purchases through the whole of the features: recorded, joined, tested for leaks, published, pushed, read.

python benchmarks/purchases.py FOLDER

FOLDER holds CDNOW_master.txt: customer, day as yyyymmdd, number of CDs, dollars (Fader and Hardie's CDNOW data,
69,659 purchases of 23,570 customers in 1997 and 1998). Every answer is compared with a plain pandas computation.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from lodestore.adapters.lance import LanceStore
from lodestore.adapters.lmdb import LmdbOnlineStore
from lodestore.catalog import catalog_of
from lodestore.features import Features
from lodestore.historical import assert_no_leak, historical
from lodestore.logs import Logs, utc_now
from lodestore.rows import check_table
from lodestore.spec import Entity, FeatureView, integer, number
from lodestore.tables import ensure_logs

FILE = "CDNOW_master.txt"
PURCHASES = FeatureView(
    "purchases",
    entity=Entity("customer", key="customer_id", type="integer"),
    features={"orders": integer(minimum=1), "discs": integer(minimum=0), "spent": number(minimum=0)},
)
REFS = ["purchases:orders", "purchases:discs", "purchases:spent"]
PUSHED = 2_000


def timed(what: str, rows: int, work: Callable[[], object]) -> None:
    started = time.perf_counter()
    work()
    spent = time.perf_counter() - started
    print(f"{what:58} {rows:>9,} rows {spent:8.3f} s {rows / spent:>12,.0f} rows/s", flush=True)


def purchases(path: Path) -> pd.DataFrame:
    """One row for each customer and day, with what the customer had bought up to and with it."""
    raw = pd.read_csv(path, sep=r"\s+", header=0, names=["customer_id", "day", "discs", "spent"])
    raw["event_timestamp"] = pd.to_datetime(raw["day"].astype(str), format="%Y%m%d", utc=True)
    raw["orders"] = 1
    days = raw.groupby(["customer_id", "event_timestamp"])[["orders", "discs", "spent"]].sum().reset_index()
    days[["orders", "discs", "spent"]] = days.groupby("customer_id")[["orders", "discs", "spent"]].cumsum()
    days["spent"] = days["spent"].round(2)
    return days.sort_values("event_timestamp", kind="stable").reset_index(drop=True)


def table_of(frame: pd.DataFrame) -> pa.Table:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    moment = table.schema.get_field_index("event_timestamp")
    return table.set_column(
        moment, "event_timestamp", table["event_timestamp"].cast(pa.timestamp("us", "UTC"), safe=False)
    )


def asked_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Every customer at noon of the first day of each month: most of them have bought nothing yet in the first ones."""
    months = pd.date_range("1997-01-01", "1998-07-01", freq="MS", tz="UTC") + timedelta(hours=12)
    customers = frame["customer_id"].unique()
    return pd.DataFrame(
        {
            "customer_id": np.tile(customers, len(months)),
            "event_timestamp": np.repeat(months.as_unit("us"), len(customers)),
        }
    )


def expected(asked: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    left = asked.reset_index().sort_values("event_timestamp", kind="stable")
    right = frame.assign(event_timestamp=frame["event_timestamp"].astype(left["event_timestamp"].dtype))
    found = pd.merge_asof(left, right, on="event_timestamp", by="customer_id")
    return found.sort_values("index")[["orders", "discs", "spent"]].reset_index(drop=True)


def check(found: pa.Table, wanted: pd.DataFrame) -> None:
    assert found.num_rows == len(wanted)
    for name in ("orders", "discs", "spent"):
        mine = found[f"purchases:{name}"].to_pandas().to_numpy(dtype=float)
        assert np.allclose(mine, wanted[name].to_numpy(dtype=float), equal_nan=True), name


def run(path: Path, folder: Path) -> None:
    offline = LanceStore(str(folder / "store"))
    ensure_logs(offline)
    catalog = catalog_of([PURCHASES])
    online = LmdbOnlineStore.open(folder / "online")
    features = Features(catalog, offline, online, Logs(offline, utc_now), utc_now, skew_every=0)
    frame = purchases(path)
    kept, pushed = frame.iloc[:-PUSHED], table_of(frame.iloc[-PUSHED:])
    checked = check_table(PURCHASES, table_of(kept), now=utc_now())
    assert not checked.problems
    timed("recorded", len(kept), lambda: features.record(PURCHASES, checked.table))

    asked = asked_rows(frame)
    rows = table_of(asked)
    found: list[pa.Table] = []
    timed("joined, three features", len(asked), lambda: found.append(join(rows, catalog, offline)))
    check(found[0], expected(asked, kept))
    # Every fifth row: the comparison looks at all of them in the same way.
    some = np.arange(0, len(asked), 5)
    timed("  leakage test", len(some), lambda: leaks(rows.take(some), found[0].take(some), catalog, offline))

    timed("published, the newest of each customer", len(kept), lambda: features.materialize(PURCHASES))
    timed("pushed, one Arrow table", PUSHED, lambda: features.push("purchases", pushed))
    customers = frame["customer_id"].unique().tolist()
    answers = []
    timed(
        "read, three features",
        len(customers),
        lambda: answers.append(features.online(REFS, {"customer_id": customers})),
    )
    newest = frame.groupby("customer_id", sort=False)["orders"].last().loc[customers].tolist()
    assert answers[0].columns["purchases:orders"] == newest
    timed("drained into the history", PUSHED, features.drain)
    check(join(rows, catalog, offline), expected(asked, frame))
    late = table_of(asked.tail(1)).set_column(1, "event_timestamp", pa.array([datetime(1996, 1, 1, tzinfo=UTC)]))
    assert join(late, catalog, offline)["purchases:orders"].to_pylist() == [None]
    print("every answer is that of pandas")


def join(rows: pa.Table, catalog: object, offline: LanceStore) -> pa.Table:
    return historical(rows, REFS, catalog=catalog, offline=offline)


def leaks(rows: pa.Table, joined: pa.Table, catalog: object, offline: LanceStore) -> None:
    assert_no_leak(rows, REFS, joined, catalog=catalog, offline=offline)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help=f"the folder of {FILE}")
    given = parser.parse_args()
    if given.folder is None:
        print(f"nothing measured: give the folder of {FILE}")
        return
    path = given.folder / FILE
    if not path.is_file():
        parser.error(f"{path} is not there; give the folder that holds {FILE}")
    with tempfile.TemporaryDirectory() as name:
        run(path, Path(name))


if __name__ == "__main__":
    main()
