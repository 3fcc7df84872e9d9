"""From an acknowledged push to the history: nothing is lost, nobody drains twice, a full journal says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lodestore import cli
from lodestore.adapters.lmdb import LmdbOnlineStore
from lodestore.catalog import catalog_of
from lodestore.errors import StoreBusyError, StoreError, UnavailableError
from lodestore.features import Features
from lodestore.locks import Locks
from lodestore.logs import Logs
from lodestore.moments import micros_of
from lodestore.online import OnlineRow
from lodestore.project import Project, open_project
from lodestore.publishing import publish
from lodestore.rows import checked_rows
from lodestore.skew import Sample, Skew, measure, samples
from lodestore.spec import Entity, FeatureView, Source, integer, number, text
from lodestore.testing import FrozenClock, MemoryOnlineStore, MemoryStore
from lodestore.wire import rfc3339
from tests.served import client_of, started, until

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
user = Entity("user", key="user_id")
clicks = FeatureView(
    "clicks",
    entity=user,
    source=Source.STREAMING,
    ttl=timedelta(days=1),
    fresh_within=HOUR,
    features={"count": integer(), "price": number(), "email": text(pii=True)},
)
CATALOG = catalog_of([clicks])
PUSHER = """
import sys
from datetime import UTC, datetime
from lodestore.project import Project, open_project
store = open_project(sys.argv[1]).store
for number in range(10**9):
    rows = [{"user_id": f"u{number}", "event_timestamp": datetime.now(UTC), "account_age_days": number}]
    assert store.push("user_profile", rows).accepted == 1
    print(number, flush=True)
"""


class House:
    def __init__(self, **options: Any) -> None:
        self.clock, self.offline, self.online = FrozenClock(NOON), MemoryStore(), MemoryOnlineStore()
        logs = Logs(self.offline, self.clock)
        self.features = Features(CATALOG, self.offline, self.online, logs, self.clock, **options)

    def push(self, user_id: str = "u1", **values: Any) -> Any:
        return self.features.push("clicks", [{"user_id": user_id, "event_timestamp": self.clock(), **values}])

    def read(self, *features: str) -> Any:
        return self.features.online([f"clicks:{one}" for one in features], {"user_id": ["u1"]})


# Nothing is lost


def test_a_killed_process_loses_no_acknowledged_push(make_project: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_project()
    pusher = tmp_path / "pusher.py"
    pusher.write_text(PUSHER, encoding="utf-8")
    command = [sys.executable, str(pusher), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(200):
        line = process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    acknowledged = 1 + max(int(one) for one in [line, *process.stdout.read().splitlines()] if one.strip().isdigit())
    process.wait()
    process.stdout.close()

    project = open_project(folder)
    users = [f"u{number}" for number in range(acknowledged)]
    online = project.store.online(["user_profile:account_age_days"], {"user_id": users})
    moved = project.features.drain()

    stored = project.tables.read("fv__user_profile__v1", ["user_id"])["user_id"].to_pylist()
    assert online.columns["user_profile:account_age_days"] == list(range(acknowledged))
    assert moved >= acknowledged
    assert set(users) <= set(stored)
    assert len(stored) == len(set(stored))


def test_a_setting_makes_every_acknowledgement_wait_for_the_disk(make_project: Callable[..., Path]) -> None:
    project = open_project(make_project("\n[online]\nsync = true\n"))
    project.store.push("user_profile", [{"user_id": "ada", "event_timestamp": project.clock()}])

    online = project.online
    assert isinstance(online, LmdbOnlineStore)
    assert online._here().environment.flags() == {**online._here().environment.flags(), "sync": True, "metasync": True}
    assert project.settings.online.sync is True


# Back-pressure


def test_a_journal_that_is_full_takes_no_more_rows_and_says_what_to_do() -> None:
    house = House(journal_limit=2)
    house.push("u1", count=1)
    house.push("u2", count=2)

    with pytest.raises(UnavailableError, match=r"2 pushed rows wait.*lodestore run features"):
        house.push("u1", count=3)

    assert house.read("count").columns["clicks:count"] == [1]
    house.features.drain()
    assert house.push("u1", count=3).accepted == 1


# The system of record is away


@contextmanager
def away(store: Path) -> Iterator[None]:
    """The folders of all tables are somewhere else, and in the place of each is something that is no table."""
    elsewhere = store.with_name("elsewhere")
    elsewhere.mkdir()
    names = [one.name for one in store.glob("*.lance")]
    for name in names:
        (store / name).rename(elsewhere / name)
        (store / name).write_text("not here")
    try:
        yield
    finally:
        for name in names:
            (store / name).unlink()
            (elsewhere / name).rename(store / name)


def row_of(project: Project, user: str, days: int = 1) -> dict[str, Any]:
    return {"user_id": user, "event_timestamp": project.clock(), "account_age_days": days}


def test_while_the_history_is_away_rows_are_taken_up_to_the_limit_and_none_is_lost(
    make_project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_project("\n[online]\njournal_limit = 5\n")
    project = open_project(folder)
    project.store.push("user_profile", [row_of(project, "before")])
    project.features.drain()
    rows = folder / "rows.jsonl"
    rows.write_text(json.dumps({"user_id": "cli", "event_timestamp": rfc3339(project.clock())}))

    with client_of(open_project(folder)) as client, away(folder / ".lodestore"):
        taken = [project.store.push("user_profile", [row_of(project, f"u{n}", n)]).accepted for n in range(3)]
        taken += [client.push("user_profile", [row_of(project, f"h{n}", n)]).accepted for n in range(2)]
        refused = []
        for there in (project.store, client):
            with pytest.raises(UnavailableError, match=r"user_profile: 5 pushed rows wait for the history") as told:
                there.push("user_profile", [row_of(project, "late")])
            refused.append(told.value)
        on_the_command_line = (
            cli.run(["--config", str(folder), "push", "user_profile", str(rows)]),
            capsys.readouterr(),
        )
        with pytest.raises(StoreError):
            project.features.drain()
        waiting = project.online.journal_size()
        read = client.online(["user_profile:account_age_days"], {"user_id": ["u2", "h1", "late"]})
    moved = project.features.drain()

    stored = project.tables.read("fv__user_profile__v1", ["user_id"])["user_id"].to_pylist()
    assert taken == [1] * 5
    assert "lodestore doctor" in str(refused[0])
    assert str(refused[1]) == str(refused[0])
    assert on_the_command_line[0] == 1
    assert "table store cannot be made" in on_the_command_line[1].err  # a new process cannot open the store at all
    assert "Traceback" not in on_the_command_line[1].err
    assert read.columns["user_profile:account_age_days"] == [2, 1, None]
    assert (waiting, moved) == (5, 5)
    assert sorted(stored) == ["before", "h0", "h1", "u0", "u1", "u2"]
    assert project.store.push("user_profile", [row_of(project, "late")]).accepted == 1


def test_a_server_says_503_and_when_to_come_again_while_the_journal_is_full(
    make_project: Callable[..., Path],
) -> None:
    project = open_project(make_project("\n[online]\njournal_limit = 1\n"))
    project.store.push("user_profile", [row_of(project, "ada")])
    body = {"view": "user_profile", "rows": [{"user_id": "ben", "event_timestamp": rfc3339(project.clock())}]}

    with started(project) as http:
        until(lambda: http.get("/v1/views").status_code == 200)
        refused = http.post("/v1/push", json=body)
        project.features.drain()
        taken = http.post("/v1/push", json=body)

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["type"] == "urn:lodestore:error:unavailable"
    assert (taken.status_code, taken.json()["accepted"]) == (200, 1)


# One drainer


def test_a_journalled_row_that_cannot_be_read_is_a_reject_and_holds_up_no_other() -> None:
    house = House()
    house.push("u1", count=1)
    damaged = OnlineRow(micros_of(NOON), micros_of(NOON), b"\x01{broken", b"e1")
    house.online.write("clicks@1", [(("u2",), damaged)], journal=True)
    house.push("u3", count=3)

    moved = house.features.drain()

    stored = house.offline.read("fv__clicks__v1", ["user_id"])["user_id"].to_pylist()
    ((place, why),) = house.features.turned_away(clicks, ["journal"]).items()
    assert (moved, house.online.journal_size()) == (3, 0)
    assert sorted(stored) == ["u1", "u3"]
    assert place.startswith("clicks@1#")
    assert "cannot be read" in why


def test_while_somebody_drains_nobody_else_does(tmp_path: Path) -> None:
    house = House(locks=Locks(tmp_path, wait=0.0))
    house.push(count=1)
    began, done = threading.Event(), threading.Event()

    def hold() -> None:
        with Locks(tmp_path, wait=0.0).hold("drain", "draining the journal"):
            began.set()
            done.wait()

    other = threading.Thread(target=hold)
    other.start()
    began.wait()
    with pytest.raises(StoreBusyError, match="draining the journal"):
        house.features.drain()
    done.set()
    other.join()

    assert house.features.drain() == 1


# Publishing


def test_a_view_that_fails_keeps_its_values_and_stops_no_other(make_project: Callable[..., Path]) -> None:
    project = open_project(make_project())
    moment = project.clock()
    for name in ("user_profile", "user_activity"):
        view = project.catalog.view(name)
        row = {"user_id": "ada", "event_timestamp": moment}
        row |= {"account_age_days": 7} if name == "user_profile" else {"session_queries_count": 3}
        project.features.record(view, checked_rows(view, [row], now=moment))
    publish(project)
    bad = OnlineRow(0, 0, b"")
    project.online.write("user_profile@1", [(("x",), bad)])
    project.online.set_meta("materialized/user_profile@1", b"not a mark")

    with pytest.raises(ValueError, match=r"not enough values|invalid literal|too many values"):
        publish(project, views=["user_profile"])
    done = publish(project, views=["user_activity"])

    kept = project.store.online(["user_profile:account_age_days"], {"user_id": ["ada"]})
    assert kept.columns["user_profile:account_age_days"] == [7]
    assert [one.view for one in done.views] == ["user_activity"]


# Staleness


def test_an_answer_names_the_features_whose_view_had_no_event_for_too_long() -> None:
    house = House()
    house.push(count=1)
    fresh = house.read("count", "price")
    house.clock.advance(2 * HOUR)
    stale = house.read("count", "price")
    house.push("somebody", count=2)
    house.clock.advance(timedelta(seconds=2))
    again = house.read("count")

    assert fresh.stale == ()
    assert stale.stale == ("clicks:count", "clicks:price")
    assert stale.to_json()["stale"] == ["clicks:count", "clicks:price"]
    assert again.stale == ()


def test_a_view_that_never_had_an_event_is_not_called_stale() -> None:
    assert House().read("count").stale == ()


# Skew


def test_a_sample_holds_what_was_served_without_what_is_personal() -> None:
    house = House(skew_every=2)
    house.push(count=1, email="a@b.c")
    for _ in range(5):
        house.read("count", "email")
        house.clock.advance(timedelta(microseconds=1))

    found = samples(house.online)

    assert [one.values for one in found] == [{"count": 1}, {"count": 1}]
    assert found[0] == Sample("clicks", 1, ("u1",), NOON + timedelta(microseconds=1), {"count": 1})


def test_nothing_is_sampled_when_the_setting_says_so() -> None:
    house = House(skew_every=0)
    house.read("count")

    assert samples(house.online) == []


def skew(house: House) -> Skew:
    return measure(samples(house.online), catalog=CATALOG, offline=house.offline).get("clicks", Skew())


def test_what_was_served_and_drained_is_no_skew() -> None:
    house = House(skew_every=1)
    house.push(count=1, price=0.1)
    house.read("count", "price")
    house.features.drain()

    assert skew(house) == Skew(values=2)


def test_a_value_that_is_not_yet_in_the_history_is_extra() -> None:
    house = House(skew_every=1)
    house.push(count=1)
    house.read("count")

    assert skew(house) == Skew(values=1, extra=1)


def test_a_value_that_was_recorded_and_not_published_is_missing_and_another_one_a_mismatch() -> None:
    house = House(skew_every=1)
    row = {"user_id": "u1", "event_timestamp": NOON - HOUR, "count": 1, "price": 2.0}
    house.features.record(clicks, checked_rows(clicks, [row], now=NOON))
    house.read("count")
    house.features.materialize(clicks)
    newer = {"user_id": "u1", "event_timestamp": NOON, "count": 9}
    house.features.record(clicks, checked_rows(clicks, [newer], now=NOON))
    house.clock.advance(timedelta(microseconds=1))
    house.read("count")

    assert skew(house) == Skew(values=2, missing=1, mismatched=1)
    assert skew(house).rate(1) == 0.5
