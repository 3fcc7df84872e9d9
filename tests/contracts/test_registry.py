"""One suite for the registry: `Logs` over every offline store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.adapters.lance import LanceStore
from lodestore.errors import SchemaVersionError, StoreError, UnknownNameError
from lodestore.logs import Logs
from lodestore.ports import OfflineStore
from lodestore.tables import LOGS, MOMENT, Log, ensure_logs
from lodestore.testing import FrozenClock, MemoryStore


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture(params=["memory", "lance"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], OfflineStore]:
    """Open the same store once more, as another process would."""
    shared = MemoryStore()
    return (lambda: shared) if request.param == "memory" else (lambda: LanceStore(str(tmp_path)))


@pytest.fixture
def logs(connect, clock) -> Logs:
    return Logs(connect(), clock)


def plain_row(log: Log) -> dict[str, object]:
    values = {pa.string(): "it's `x`", pa.int64(): 7, pa.bool_(): True, pa.float64(): 0.5}
    values[MOMENT] = FrozenClock()()
    return {field.name: values[field.type] for field in log.schema if field.name != "at"}


@pytest.mark.parametrize("name", LOGS)
def test_every_log_gives_back_what_was_put_in(logs, clock, name):
    assert logs.rows(name) == []
    row = plain_row(LOGS[name])

    assert logs.put(name, row)

    assert logs.rows(name) == [{**row, "at": clock()}]


def test_a_taken_key_keeps_its_first_row_and_says_so(logs):
    assert logs.put("gates", {"id": "g1", "verdict": "passed"}) is True
    assert logs.put("gates", {"id": "g1", "verdict": "refused"}) is False

    assert [row["verdict"] for row in logs.rows("gates")] == ["passed"]


def test_a_log_without_a_key_takes_every_row(logs):
    assert logs.put("watermarks", {"name": "sessions", "value": "1"})
    assert logs.put("watermarks", {"name": "sessions", "value": "1"})

    assert len(logs.rows("watermarks")) == 2


def test_of_many_rows_the_new_keys_are_counted(logs):
    logs.put("gates", {"id": "g1"})

    assert logs.put_all("gates", [{"id": name} for name in ("g1", "g2", "g3", "g3")]) == 2
    assert logs.put_all("gates", []) == 0
    assert {row["id"] for row in logs.rows("gates")} == {"g1", "g2", "g3"}


def test_rows_come_oldest_first_and_those_of_one_moment_as_they_arrived(logs, clock):
    for name in ("b", "a", "c"):
        logs.put("heartbeats", {"name": name})
    logs.put("heartbeats", {"name": "late, but older", "at": clock() - timedelta(hours=1)})
    clock.advance(timedelta(seconds=1))
    logs.put("heartbeats", {"name": "newest"})

    assert [row["name"] for row in logs.rows("heartbeats")] == ["late, but older", "b", "a", "c", "newest"]
    assert logs.last("heartbeats")["name"] == "newest"


def test_a_condition_selects_rows(logs):
    logs.put_all("contexts", [{"id": "c1", "user": "ann"}, {"id": "c2", "user": "bob"}])

    assert [row["id"] for row in logs.rows("contexts", "`user` = 'bob'")] == ["c2"]
    assert logs.last("contexts", "`user` = 'nobody'") is None


def test_another_connection_reads_what_was_put(connect, clock):
    writer, reader = Logs(connect(), clock), Logs(connect(), clock)
    assert reader.last("releases") is None

    writer.put("releases", {"generation": 1, "id": "x"})

    assert reader.last("releases")["id"] == "x"
    assert not reader.put("releases", {"generation": 1, "id": "y"})


def test_of_several_connections_that_put_one_key_exactly_one_is_told_yes(connect, clock):
    ensure_logs(connect(), ["releases"])
    registries = [Logs(connect(), clock) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        for generation in range(1, 6):
            won = list(pool.map(lambda one, at=generation: one.put("releases", {"generation": at}), registries))
            assert sorted(won) == [False, False, False, True]

    assert [row["generation"] for row in registries[0].rows("releases")] == [1, 2, 3, 4, 5]


def test_a_value_without_a_column_is_refused_with_the_nearest_one(logs):
    with pytest.raises(StoreError, match="log gates has no column 'verdickt'; did you mean 'verdict'"):
        logs.put("gates", {"id": "g1", "verdickt": "passed"})

    assert logs.rows("gates") == []


def test_a_row_without_its_key_is_refused(logs):
    with pytest.raises(StoreError, match="gates"):
        logs.put("gates", {"verdict": "passed"})


def test_an_unknown_log_is_named_with_the_nearest_one(logs):
    for act in (lambda: logs.put("release", {}), lambda: logs.rows("release"), lambda: logs.last("release")):
        with pytest.raises(UnknownNameError, match="'release'; did you mean 'releases'"):
            act()


def test_a_new_store_takes_this_schema_version_and_keeps_it(connect, logs):
    logs.check_schema()
    logs.check_schema()

    Logs(connect()).check_schema()
    assert len(logs.rows("store")) == 1


def test_a_store_of_another_schema_version_is_refused_with_the_way_out(logs):
    logs.put("store", {"name": "schema_version", "value": "99"})

    with pytest.raises(SchemaVersionError, match=r"schema version 99.*install the version"):
        logs.check_schema()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["put", "old", "many", "look"])), max_size=12))
def test_what_is_remembered_of_a_log_is_what_reading_it_anew_gives(acts: list[tuple[str, str]]) -> None:
    clock, number = FrozenClock(), 0
    with tempfile.TemporaryDirectory() as folder:
        both = {name: Logs(LanceStore(folder), clock) for name in "ab"}
        for who, act in acts:
            clock.advance(timedelta(seconds=1))
            rows = [{"id": f"g{number + step}"} for step in range(3 if act == "many" else 1)]
            number += len(rows)
            if act == "look":
                both[who].rows("gates")
            elif act == "old":
                both[who].put("gates", {**rows[0], "at": clock() - timedelta(hours=1)})
            else:
                both[who].put_all("gates", rows)

        anew = Logs(LanceStore(folder), clock).rows("gates")
        assert both["a"].rows("gates") == both["b"].rows("gates") == anew
        assert len(anew) == sum({"many": 3, "look": 0}.get(act, 1) for _, act in acts)


def test_who_writes_a_log_need_not_read_it_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    logs = Logs(LanceStore(str(tmp_path)), FrozenClock())
    logs.put("gates", {"id": "g1"})
    logs.rows("gates")
    read = []
    monkeypatch.setattr(LanceStore, "read", lambda _self, name, *_: read.append(name))

    logs.put("gates", {"id": "g2"})

    assert [row["id"] for row in logs.rows("gates")] == ["g1", "g2"]
    assert read == []
