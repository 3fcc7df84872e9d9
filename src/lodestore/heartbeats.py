"""A sign of life that sensors leave, so that `doctor` knows whether anything runs by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from lodestore.logs import Logs
from lodestore.ports import Clock
from lodestore.tables import quoted

__all__ = ["EVERY", "beat", "sweep"]

# Well below the silence that `doctor` takes for a daemon that does not run; every beat is a row.
EVERY = timedelta(minutes=2)


def beat(logs: Logs, clock: Clock, *, name: str = "daemon", detail: str = "") -> bool:
    """The log shows that `name` was alive within the last two minutes; tells whether a row was needed for that."""
    now = clock()
    since = (now - EVERY).strftime("%Y-%m-%d %H:%M:%S.%f")
    if logs.rows("heartbeats", f"name = '{name}' AND `at` > timestamp '{since}'"):
        return False
    return logs.put("heartbeats", {"name": name, "detail": detail, "at": now})


def sweep(logs: Logs, *, before: datetime) -> int:
    """Signs of life from before that moment are gone, but for the last of each name; returns how many."""
    last = {row["name"]: row["at"] for row in logs.rows("heartbeats")}
    gone = 0
    for name, at in last.items():
        until = f"{min(before, at).astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"
        gone += logs.remove("heartbeats", f"name = {quoted(name)} AND `at` < timestamp '{until}'")
    return gone
