"""Features in use: recorded, published, read back, and nothing lost on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore import features as module
from lodestore.adapters.lance import LanceStore
from lodestore.adapters.lmdb import LmdbOnlineStore
from lodestore.catalog import Catalog, catalog_of
from lodestore.corpus import Corpus
from lodestore.errors import (
    DeclarationError,
    RequestError,
    SourceError,
    StoreError,
    UnknownFeatureError,
    UnknownViewError,
)
from lodestore.events import EventSource
from lodestore.features import Features, Inputs, OnlineAnswer
from lodestore.logs import Logs
from lodestore.online import OnlineRow, Status
from lodestore.payloads import encode_payload
from lodestore.rows import checked_rows
from lodestore.spec import (
    Entity,
    FeatureView,
    boolean,
    category,
    embedding,
    integer,
    list_of,
    number,
    on_demand,
    struct,
    text,
    timestamp,
)
from lodestore.standard import user_activity
from lodestore.testing import FrozenClock, MemoryOnlineStore, MemoryStore

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)

user = Entity("user", key="user_id")
account = Entity("account", key=("tenant", "number"), type=("string", "integer"))
profile = FeatureView(
    "profile",
    entity=user,
    ttl=timedelta(days=1),
    fresh_within=2 * HOUR,
    features={
        "level": category("beginner", "expert"),
        "age": integer(minimum=0),
        "tastes": struct(),
        "tags": list_of(text()),
        "since": timestamp(),
        "email": text(pii=True),
    },
)
profile_2 = FeatureView("profile", entity=user, version=2, features={"level": text()})
balance = FeatureView("balance", entity=account, features={"cents": integer(wide=True), "open": boolean()})


@on_demand(
    reads=(profile["level"],),
    inputs={"query_text": text(max_length=50)},
    features={"greeting": text(), "factor": number()},
    version=3,
)
def greeted(level: str | None, query_text: str) -> dict[str, object]:
    """A greeting by level; none for the question `nothing`."""
    if query_text == "crash":
        raise ZeroDivisionError
    return {"greeting": None if query_text == "nothing" else f"{level}: {query_text}", "factor": 2.0}


CATALOG = catalog_of([profile, balance, greeted, user_activity])


@dataclass
class House:
    """Everything that a test needs, open."""

    features: Features
    offline: Any
    online: Any
    logs: Logs
    clock: FrozenClock
    root: Path

    def record(self, view: FeatureView, *rows: dict[str, Any]) -> int:
        return self.features.record(view, checked_rows(view, rows, now=self.clock()))

    def with_catalog(self, catalog: Catalog) -> Features:
        return Features(catalog, self.offline, self.online, self.logs, self.clock)

    def value(self, ref: str, user_id: str) -> object:
        return self.features.online([ref], {"user_id": [user_id]}).columns[ref][0]

    def status(self, ref: str, user_id: str) -> Status:
        return self.features.online([ref], {"user_id": [user_id]}).statuses[ref][0]


def house_in(root: Path, offline: Any, online: Any) -> House:
    clock = FrozenClock(NOON)
    logs = Logs(offline, clock)
    return House(Features(CATALOG, offline, online, logs, clock), offline, online, logs, clock, root)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return house_in(tmp_path, MemoryStore(), MemoryOnlineStore())


@pytest.fixture
def real(tmp_path: Path) -> Iterator[House]:
    online = LmdbOnlineStore.open(tmp_path / "online")
    yield house_in(tmp_path, LanceStore(str(tmp_path / "store")), online)
    online.close()


@pytest.fixture(params=["fakes", "real"])
def any_house(request: pytest.FixtureRequest) -> House:
    return request.getfixturevalue("house" if request.param == "fakes" else "real")


def row(user_id: str = "u1", *, at: datetime = NOON - HOUR, **values: Any) -> dict[str, Any]:
    return {"user_id": user_id, "event_timestamp": at, **values}


# Recording


def test_a_row_that_was_recorded_is_known_when_it_is_offered_again(any_house: House) -> None:
    first = any_house.record(profile, row(level="expert"), row("u2", age=3))
    any_house.clock.advance(HOUR)
    again = any_house.record(profile, row(level="expert"), row("u3"))

    assert (first, again) == (2, 1)
    assert any_house.offline.count("fv__profile__v1") == 3


def test_an_event_id_that_comes_twice_in_one_batch_is_recorded_once_and_the_first_one_stays(any_house: House) -> None:
    added = any_house.record(profile, row(age=1, event_id="e1"), row(age=2, event_id="e1"), row(age=3, event_id="e2"))

    assert added == 2
    assert any_house.offline.read("fv__profile__v1", ["age"])["age"].to_pylist() == [1, 3]


def test_recording_nothing_still_makes_the_history(house: House) -> None:
    assert house.record(profile) == 0
    assert house.offline.names("fv__") == ["fv__profile__v1"]


def test_the_time_of_arrival_is_that_of_the_insertion(house: House) -> None:
    checked = checked_rows(profile, [row()], now=house.clock())
    house.clock.advance(HOUR)
    house.features.record(profile, checked)

    assert house.offline.read("fv__profile__v1")["ingested_at"].to_pylist() == [NOON + HOUR]


# Event files


def jsonl(path: Path, *rows: object) -> Path:
    lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def line(user_id: str, **values: object) -> dict[str, object]:
    return {"user_id": user_id, "event_timestamp": "2026-07-01T11:00:00Z", **values}


SOURCE = EventSource("users", "profile", "*.jsonl")


def open_rejects(house: House) -> dict[str, str]:
    corpus = Corpus(house.offline, house.logs, house.clock)
    return {Path(one["uri"]).name: one["detail"] for one in corpus.rejects()}


def test_a_file_is_read_again_only_when_it_has_changed(any_house: House) -> None:
    file = jsonl(any_house.root / "a.jsonl", line("u1"), line("u2"))
    first = any_house.features.record_events(SOURCE, root=any_house.root)
    second = any_house.features.record_events(SOURCE, root=any_house.root)
    jsonl(file, line("u1"), line("u2"), line("u3"))
    third = any_house.features.record_events(SOURCE, root=any_house.root)

    assert (first.read, first.added) == (2, 2)
    assert second.read == 0
    assert (third.read, third.added, third.known) == (3, 1, 2)


def test_a_file_is_read_again_when_the_declaration_of_its_view_changes(house: House) -> None:
    jsonl(house.root / "a.jsonl", line("u1", level="expert"))
    house.features.record_events(SOURCE, root=house.root)
    again = house.with_catalog(catalog_of([profile, profile_2])).record_events(SOURCE, root=house.root)

    assert again.added == 1
    assert house.offline.count("fv__profile__v2") == 1


def test_a_file_is_read_again_when_the_columns_of_its_source_change(house: House) -> None:
    jsonl(house.root / "a.jsonl", {"who": "u1", "event_timestamp": "2026-07-01T11:00:00Z"})
    assert house.features.record_events(SOURCE, root=house.root).added == 0

    renamed = EventSource("users", "profile", "*.jsonl", columns={"user_id": "who"})
    assert house.features.record_events(renamed, root=house.root).added == 1
    assert open_rejects(house) == {}


def test_a_bad_row_is_a_reject_with_its_line_and_stops_nothing(any_house: House) -> None:
    jsonl(any_house.root / "a.jsonl", line("u1"), "", "{broken", line("u2", age=-1, level="x"), line("u3"))
    done = any_house.features.record_events(SOURCE, root=any_house.root)

    assert (done.read, done.added) == (4, 2)
    assert [one.split(":")[0] for one in done.problems] == ["a.jsonl, line 3", "a.jsonl, line 4"]
    rejects = open_rejects(any_house)
    assert sorted(rejects) == ["a.jsonl#3", "a.jsonl#4"]
    assert "age: -1 is below 0" in rejects["a.jsonl#4"]
    assert "level: 'x' is none of beginner, expert" in rejects["a.jsonl#4"]


def test_a_reject_is_resolved_once_its_line_is_mended(house: House) -> None:
    file = jsonl(house.root / "a.jsonl", line("u1", age=-1), "nonsense")
    house.features.record_events(SOURCE, root=house.root)
    jsonl(file, line("u1", age=1), "nonsense", line("u4"))
    house.features.record_events(SOURCE, root=house.root)

    assert sorted(open_rejects(house)) == ["a.jsonl#2"]


def test_a_row_from_the_future_is_read_again_once_its_time_has_come(house: House) -> None:
    early = {**line("u2"), "event_timestamp": "2026-07-01T14:00:00Z"}
    far = {**line("u3"), "event_timestamp": "2026-07-02T14:00:00Z"}
    jsonl(house.root / "a.jsonl", line("u1"), early, far)
    first = house.features.record_events(SOURCE, root=house.root)

    house.clock.advance(HOUR)
    too_early = house.features.record_events(SOURCE, root=house.root)
    house.clock.advance(HOUR)
    second = house.features.record_events(SOURCE, root=house.root)
    told = sorted(open_rejects(house))
    house.clock.advance(24 * HOUR)
    third = house.features.record_events(SOURCE, root=house.root)
    after = house.features.record_events(SOURCE, root=house.root)

    assert (first.added, too_early.read, second.added, told) == (1, 0, 1, ["a.jsonl#3"])
    assert (third.added, after.read, open_rejects(house)) == (1, 0, {})


def test_a_file_is_read_when_the_first_of_its_rows_from_the_future_is_due(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_PER_STEP", 1)
    times = ["2026-07-03T00:00:00Z", "2026-07-01T13:00:00Z", "2026-07-02T00:00:00Z"]
    jsonl(house.root / "a.jsonl", *({**line("u1"), "event_timestamp": one} for one in times))
    house.features.record_events(SOURCE, root=house.root)

    house.clock.advance(HOUR)

    assert house.features.record_events(SOURCE, root=house.root).added == 1


def test_a_file_that_is_gone_rejects_nothing(house: House) -> None:
    bad = jsonl(house.root / "bad.jsonl", "nonsense")
    jsonl(house.root / "good.jsonl", line("u1"))
    house.features.record_events(SOURCE, root=house.root)
    bad.unlink()
    house.features.record_events(SOURCE, root=house.root)

    assert open_rejects(house) == {}


def test_a_file_that_cannot_be_read_at_all_does_not_stop_the_next_one(house: House) -> None:
    (house.root / "a.parquet").write_bytes(b"not parquet")
    table = pa.Table.from_pylist([{"user_id": "u1", "event_timestamp": NOON - HOUR, "age": 7}])
    pq.write_table(table, house.root / "b.parquet")
    done = house.features.record_events(EventSource("users", "profile", "."), root=house.root)

    assert done.added == 1
    assert "a.parquet is not a Parquet file" in done.problems[0]
    assert list(open_rejects(house)) == ["a.parquet#0"]


def test_more_rows_than_one_step_holds_are_recorded_step_by_step(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_PER_STEP", 3)
    jsonl(house.root / "a.jsonl", *(line(f"u{n}", age=n - 5) for n in range(10)))
    done = house.features.record_events(SOURCE, root=house.root)

    assert (done.read, done.added) == (10, 5)
    assert [one.split(":")[0] for one in done.problems] == [f"a.jsonl, line {n}" for n in range(1, 6)]


def test_an_integer_key_is_read_from_csv_text(house: House) -> None:
    (house.root / "b.csv").write_text(
        "tenant,number,event_timestamp,cents,open\na,42,2026-07-01T11:00:00Z,9007199254740993,true\n", encoding="utf-8"
    )
    done = house.features.record_events(EventSource("balances", "balance", "b.csv"), root=house.root)
    house.features.materialize(balance)
    answer = house.features.online(["balance:cents", "balance:open"], {"tenant": ["a"], "number": [42]})

    assert done.added == 1
    assert answer.columns["balance:cents"] == [9007199254740993]
    assert answer.columns["balance:open"] == [True]


def test_the_value_of_a_personal_feature_is_in_no_problem_and_no_reject(house: House) -> None:
    jsonl(house.root / "a.jsonl", line("u1", email=["ann@example.org"]))
    done = house.features.record_events(SOURCE, root=house.root)

    assert "email" in done.problems[0]
    assert "ann@example.org" not in str((done, house.logs.rows("rejects")))


def test_a_source_of_an_unknown_view_names_the_nearest(house: House) -> None:
    with pytest.raises(UnknownViewError, match="did you mean 'profile'"):
        house.features.record_events(EventSource("users", "profil", "*.jsonl"), root=house.root)


def test_a_source_without_files_names_its_setting(house: House) -> None:
    with pytest.raises(SourceError, match=r"events\.users\.uri"):
        house.features.record_events(SOURCE, root=house.root)


# Computed views


def computed(function: Any) -> FeatureView:
    return FeatureView("made", entity=user, features={"age": integer(minimum=0)}, compute=function)


def test_a_computed_view_records_what_is_new_and_rejects_what_is_bad(house: House) -> None:
    view = computed(lambda _: pa.Table.from_pylist([row("u1", age=1), row("u2", age=-1)]))
    first = house.features.compute(view, Inputs(house.offline))
    second = house.features.compute(view, Inputs(house.offline))

    assert (first.read, first.added, second.added, second.known) == (2, 1, 0, 1)
    assert first.problems == ("made, row 2: age: -1 is below 0",)
    assert open_rejects(house) == {"made#2": "age: -1 is below 0"}


def test_a_compute_function_may_give_a_data_frame(house: House) -> None:
    import pandas as pd

    view = computed(
        lambda _: pd.DataFrame({"user_id": ["u1", "u2"], "event_timestamp": [NOON, NOON], "age": [1, None]})
    )

    assert house.features.compute(view, Inputs(house.offline)).added == 2
    assert house.offline.read("fv__made__v1")["age"].to_pylist() == [1, None]


def test_a_compute_function_that_gives_something_else_is_told_so(house: House) -> None:
    with pytest.raises(DeclarationError, match="compute gave NoneType"):
        house.features.compute(computed(lambda _: None), Inputs(house.offline))


# Publishing


def test_the_newest_value_of_each_entity_is_online(any_house: House) -> None:
    any_house.record(profile, row(age=2, at=NOON - HOUR), row(age=1, at=NOON - 2 * HOUR), row("u2", age=5))
    done = any_house.features.materialize(profile)

    assert (done.keys, done.written, done.late) == (2, 2, 0)
    assert any_house.value("profile:age", "u1") == 2
    assert any_house.value("profile:age", "u2") == 5


def test_ties_go_to_the_row_created_last_and_then_to_the_one_that_came_last(any_house: House) -> None:
    any_house.record(profile, row(age=1, created_timestamp=NOON), row(age=2), row("u2", age=3), row("u2", age=4))
    any_house.features.materialize(profile)

    assert any_house.value("profile:age", "u1") == 1
    assert any_house.value("profile:age", "u2") == 4


def test_a_second_run_looks_only_at_what_came_since(any_house: House) -> None:
    any_house.record(profile, row(age=1))
    any_house.features.materialize(profile)
    any_house.clock.advance(SECOND)
    again = any_house.features.materialize(profile)
    any_house.record(profile, row("u2", age=2))
    any_house.clock.advance(SECOND)
    third = any_house.features.materialize(profile)

    assert (again.written, again.keys) == (0, 1)
    assert (third.written, third.keys) == (1, 2)


def test_an_online_store_that_was_emptied_is_rebuilt(any_house: House) -> None:
    any_house.record(profile, row(age=1), row("u2", age=2))
    any_house.features.materialize(profile)
    any_house.online.drop("profile@1")

    assert any_house.features.materialize(profile).keys == 2
    assert any_house.value("profile:age", "u2") == 2


def test_a_replaced_online_store_is_rebuilt_although_a_push_came_first(house: House) -> None:
    house.record(profile, row(age=1), row("u2", age=2))
    house.features.materialize(profile)
    fresh = MemoryOnlineStore()
    stamp = int(NOON.timestamp() * 1e6)
    fresh.write("profile@1", [(("u3",), OnlineRow(stamp, stamp, encode_payload({"age": 9})))])
    moved = Features(CATALOG, house.offline, fresh, house.logs, house.clock)

    assert moved.materialize(profile).keys == 3


def test_a_late_row_never_overwrites_a_newer_value(any_house: House) -> None:
    any_house.record(profile, row(age=2, at=NOON - HOUR))
    any_house.features.materialize(profile)
    any_house.clock.advance(SECOND)
    any_house.record(profile, row(age=1, at=NOON - 5 * HOUR))
    done = any_house.features.materialize(profile)

    assert (done.written, done.late) == (0, 1)
    assert any_house.value("profile:age", "u1") == 2


def test_a_row_with_the_arrival_of_the_mark_is_not_lost(any_house: House) -> None:
    any_house.record(profile, row("u1", age=1))
    any_house.features.materialize(profile)
    any_house.record(profile, row("u2", age=2))
    any_house.features.materialize(profile)

    assert any_house.value("profile:age", "u2") == 2


def test_a_row_that_arrives_with_a_time_before_the_mark_is_not_lost(any_house: House) -> None:
    any_house.record(profile, row("u1", age=1))
    any_house.features.materialize(profile)
    any_house.clock.advance(-HOUR / 2)
    any_house.record(profile, row("u2", age=2))
    any_house.clock.advance(HOUR)
    any_house.features.materialize(profile)

    assert any_house.value("profile:age", "u2") == 2


class Interrupting(MemoryStore):
    """A store in which something happens between two calls, as another process would do it."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Any = lambda: None

    def batches(self, name: str, columns: Any = None, where: str | None = None) -> Any:
        found = super().batches(name, columns, where)
        happening, self.meanwhile = self.meanwhile, lambda: None
        happening()
        return found


@pytest.mark.parametrize("back", [0, 10, -10])
def test_a_row_that_is_appended_while_rows_are_published_is_published_next_time(tmp_path: Path, back: int) -> None:
    offline = Interrupting()
    house = house_in(tmp_path, offline, MemoryOnlineStore())
    house.record(profile, row("u1", age=1))

    def append() -> None:
        house.clock.advance(-back * SECOND)
        house.record(profile, row("u2", age=2))
        house.clock.advance(back * SECOND)

    offline.meanwhile = append
    house.features.materialize(profile)
    house.clock.advance(HOUR)
    house.features.materialize(profile)

    assert house.value("profile:age", "u2") == 2


class Failing(MemoryOnlineStore):
    """An online store that takes so many batches and then breaks, until it is mended."""

    def __init__(self, *, batches: int) -> None:
        super().__init__()
        self.left = batches

    def write_columns(self, *args: Any, **kwargs: Any) -> Any:
        if self.left == 0:
            message = "the disk is gone"
            raise StoreError(message)
        self.left -= 1
        return super().write_columns(*args, **kwargs)


def test_publishing_that_breaks_half_way_starts_again_from_the_same_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_PER_STEP", 2)
    online = Failing(batches=1)
    house = house_in(tmp_path, MemoryStore(), online)
    house.record(profile, *(row(f"u{n}", age=n) for n in range(5)))
    with pytest.raises(StoreError):
        house.features.materialize(profile)
    online.left = -1

    assert house.features.materialize(profile).keys == 5


def test_publishing_takes_a_bounded_number_of_rows_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_PER_STEP", 4)
    house.record(profile, *(row(f"u{n % 6}", age=n, at=NOON - HOUR + n * SECOND) for n in range(20)))
    done = house.features.materialize(profile)

    assert done.keys == 6
    assert [house.value("profile:age", f"u{n}") for n in range(6)] == [18, 19, 14, 15, 16, 17]


def test_bounds_publish_the_events_between_them_and_leave_the_mark_alone(any_house: House) -> None:
    any_house.record(profile, row("u1", at=NOON - 3 * HOUR), row("u2", at=NOON - 2 * HOUR), row("u3", at=NOON - HOUR))
    done = any_house.features.materialize(profile, start=NOON - 3 * HOUR, end=NOON - HOUR)
    rest = any_house.features.materialize(profile)

    assert (done.keys, rest.keys) == (2, 3)


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [(NOON, NOON, "is not before"), (datetime(2026, 1, 1), None, "no time zone"), (None, datetime(2026, 1, 1), "zone")],  # noqa: DTZ001 - what is refused
)
def test_bounds_that_make_no_sense_are_refused(house: House, start: Any, end: Any, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        house.features.materialize(profile, start=start, end=end)


def test_a_view_without_history_publishes_nothing(any_house: House) -> None:
    assert any_house.features.materialize(profile).keys == 0
    assert any_house.features.materialize(profile, start=NOON).keys == 0


def test_a_view_of_vectors_alone_publishes_its_keys(any_house: House) -> None:
    view = FeatureView("vectors", entity=user, features={"taste": embedding("content")})
    any_house.record(view, row("u1"), row("u2"))

    assert any_house.features.materialize(view).keys == 2


def test_withdrawn_entities_are_no_longer_online(house: House) -> None:
    house.record(profile, row("u1"), row("u2"), row("u3"))
    house.features.materialize(profile)

    assert house.features.withdraw(profile, [("u2",)]) == 2
    assert house.status("profile:age", "u1") is Status.NOT_FOUND
    assert house.status("profile:age", "u2") is Status.NULL


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 3), st.booleans()), min_size=1, max_size=25
    )
)
@settings(max_examples=20, deadline=None)
def test_whatever_the_order_online_rows_are_the_newest_of_the_history(steps: list[tuple[str, int, int, bool]]) -> None:
    house = house_in(Path(), MemoryStore(), MemoryOnlineStore())
    expected: dict[str, tuple[int, int, int]] = {}
    for number_, (user_id, event, skew, publish) in enumerate(steps):
        house.clock.advance((skew - 1) * SECOND)
        house.record(profile, row(user_id, at=NOON - HOUR + event * SECOND, age=number_))
        if publish:
            house.features.materialize(profile)
        stamp = (event, number_, number_)
        expected[user_id] = max(expected.get(user_id, (-1, -1, -1)), stamp)
    house.features.materialize(profile)

    # Equal events are settled by arrival, for all were created when they happened.
    assert {one: house.value("profile:age", one) for one in expected} == {one: s[2] for one, s in expected.items()}


# Reading


def test_values_come_back_as_what_they_were(any_house: House) -> None:
    since = datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    any_house.record(profile, row(level="expert", tastes={"dark": True, "n": [1]}, tags=["a", None], since=since))
    any_house.features.materialize(profile)
    refs = [f"profile:{name}" for name in ("level", "tastes", "tags", "since")]
    answer = any_house.features.online(refs, {"user_id": ["u1"]}, release=7)

    values = [answer.columns[ref][0] for ref in refs]
    assert values == ["expert", {"dark": True, "n": [1]}, ["a", None], since]
    assert answer.event_timestamps["profile:level"] == [NOON - HOUR]
    told = json.loads(json.dumps(answer.to_json()))
    assert told["columns"]["profile:since"] == ["2020-01-02T03:04:05.000006Z"]
    assert told["event_timestamps"]["profile:since"] == ["2026-07-01T11:00:00Z"]
    assert told["statuses"]["profile:since"] == ["PRESENT"]
    assert told["release"] == 7
    assert list(told["columns"]) == ["user_id", *refs]


def test_each_value_says_why_it_is_missing(any_house: House) -> None:
    any_house.record(profile, row("here", age=1), row("empty"), row("old", age=2, at=NOON - timedelta(days=2)))
    any_house.features.materialize(profile)
    answer = any_house.features.online(["profile:age"], {"user_id": ["here", "empty", "old", "nobody"]})

    assert answer.statuses["profile:age"] == [Status.PRESENT, Status.NULL, Status.EXPIRED, Status.NOT_FOUND]
    assert answer.columns["profile:age"] == [1, None, None, None]


def test_a_value_expires_once_its_event_is_older_than_the_ttl(house: House) -> None:
    house.record(profile, row(age=1, at=NOON - HOUR))
    house.features.materialize(profile)
    house.clock.advance(timedelta(hours=23))
    assert house.status("profile:age", "u1") is Status.PRESENT
    house.clock.advance(timedelta(microseconds=1))
    assert house.status("profile:age", "u1") is Status.EXPIRED


def test_duplicates_keep_their_places(house: House) -> None:
    house.record(profile, row("u1", age=1), row("u2", age=2))
    house.features.materialize(profile)
    answer = house.features.online(["profile:age", "profile:age"], {"user_id": ["u2", "u1", "u2"]})

    assert answer.columns == {"user_id": ["u2", "u1", "u2"], "profile:age": [2, 1, 2]}


def test_a_pinned_version_reads_that_version(house: House) -> None:
    features = house.with_catalog(catalog_of([profile, profile_2]))
    features.record(profile, checked_rows(profile, [row(level="expert")], now=NOON))
    features.record(profile_2, checked_rows(profile_2, [row(level="fluent")], now=NOON))
    features.materialize(profile)
    features.materialize(profile_2)
    answer = features.online(["profile@1:level", "profile:level", "profile@2:level"], {"user_id": ["u1"]})

    assert answer.columns == {
        "user_id": ["u1"],
        "profile@1:level": ["expert"],
        "profile:level": ["fluent"],
        "profile@2:level": ["fluent"],
    }


def test_on_demand_features_are_computed_row_by_row(house: House) -> None:
    house.record(profile, row("u1", level="expert"))
    house.features.materialize(profile)
    refs = ["greeted:greeting", "greeted@3:greeting", "profile@1:level", "greeted:factor"]
    answer = house.features.online(refs, {"user_id": ["u1", "u2"]}, inputs={"query_text": ["hi", "nothing"]})

    assert answer.columns["greeted:greeting"] == ["expert: hi", None]
    assert answer.columns["greeted@3:greeting"] == ["expert: hi", None]
    assert answer.statuses["greeted:greeting"] == [Status.PRESENT, Status.NULL]
    assert answer.event_timestamps["greeted:factor"] == [NOON - HOUR, None]
    assert answer.columns["profile@1:level"] == ["expert", None]


ONE = {"user_id": ["u1"]}


@pytest.mark.parametrize(
    ("refs", "entities", "inputs", "error", "told"),
    [
        (["profil:age"], ONE, None, UnknownViewError, "did you mean 'profile'"),
        (["profile:agee"], ONE, None, UnknownFeatureError, "did you mean 'profile:age'"),
        (["profile@9:age"], ONE, None, UnknownViewError, "profile@9"),
        (["greeted@1:factor"], ONE, {"query_text": ["a"]}, UnknownViewError, "greeted@3"),
        (["greeted:fector"], ONE, None, UnknownFeatureError, "did you mean 'greeted:factor'"),
        (["age"], ONE, None, DeclarationError, "VIEW:FEATURE"),
        ([], ONE, None, RequestError, "no features"),
        ("profile:age", ONE, None, RequestError, "give a list of references"),
        ([7], ONE, None, RequestError, "give a list of references"),
        (["greeted:factor"], ONE, None, RequestError, "needs the request input query_text"),
        (["greeted:factor"], ONE, {"query_txt": ["a"]}, RequestError, "did you mean 'query_txt'"),
        (["greeted:factor"], ONE, {"query_text": [5]}, RequestError, r"inputs\.query_text, row 1: int is no text"),
        (["greeted:factor"], ONE, {"query_text": ["a" * 51]}, RequestError, "at most 50"),
        (["greeted:factor"], ONE, {"query_text": ["crash"]}, DeclarationError, "ZeroDivisionError"),
        (["greeted:factor"], ONE, {"query_text": ["a", "b"]}, RequestError, "query_text has 2"),
        (["profile:age"], {}, None, RequestError, "none were given"),
        (
            ["profile:age"],
            {"user": ["u1"]},
            None,
            RequestError,
            "needs the key 'user_id'; the keys that were given: 'user'",
        ),
        (["profile:age"], {"user_id": "u1"}, None, RequestError, r"entities\.user_id is 'u1'; give a list"),
        (["profile:age"], {"user_id": 5}, None, RequestError, "give a list"),
        (["profile:age"], {"user_id": ["u1", 42]}, None, RequestError, "key user_id is 42, a int; .* keyed by string"),
        (["profile:age"], {"user_id": [None]}, None, RequestError, "key user_id is None"),
        (["balance:cents"], {"tenant": ["a"], "number": ["42"]}, None, RequestError, "is '42', a str; .* by integer"),
        (["balance:cents"], {"tenant": ["a"], "number": [True]}, None, RequestError, "key number is True"),
        (["balance:cents"], {"tenant": ["a", "b"], "number": [1]}, None, RequestError, "tenant has 2"),
        (["balance:cents"], {"tenant": ["a"]}, None, RequestError, "needs the key 'number'"),
        (["balance:cents"], {"tenant": ["a"], "number": [2**64]}, None, RequestError, "64 bits"),
    ],
)
def test_a_request_that_makes_no_sense_is_told_why(
    house: House, refs: Any, entities: Any, inputs: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        house.features.online(refs, entities, inputs=inputs)


def test_an_on_demand_view_that_gives_no_values_is_told_so(house: House) -> None:
    @on_demand(inputs={"n": integer()}, features={"m": integer()})
    def broken(n: int) -> Any:
        return n

    with pytest.raises(DeclarationError, match="gave int"):
        house.with_catalog(catalog_of([broken])).online(["broken:m"], {}, inputs={"n": [1]})


def test_what_was_asked_is_not_changed(house: House) -> None:
    entities = {"user_id": ["u1", "u2"]}
    answer = house.features.online(["profile:age"], entities)

    assert entities == {"user_id": ["u1", "u2"]}
    assert answer.columns["user_id"] == ["u1", "u2"]


def test_columns_of_a_data_frame_may_be_the_entities(house: House) -> None:
    import pandas as pd

    frame = pd.DataFrame({"tenant": ["a"], "number": [42]})
    answer = house.features.online(["balance:cents"], {"tenant": frame["tenant"], "number": frame["number"]})

    assert answer.columns == {"tenant": ["a"], "number": [42], "balance:cents": [None]}


def test_integers_declared_wide_are_text_on_the_wire(house: House) -> None:
    moment = {"tenant": "a", "event_timestamp": NOON}
    house.record(balance, {**moment, "number": 1, "cents": 2**60}, {**moment, "number": 2})
    house.features.materialize(balance)
    answer = house.features.online(["balance:cents"], {"tenant": ["a", "a"], "number": [1, 2]})

    assert answer.columns["balance:cents"] == [2**60, None]
    assert answer.to_json()["columns"]["balance:cents"] == [str(2**60), None]


def test_an_answer_that_is_stale_says_so() -> None:
    assert OnlineAnswer(1, {}, {}, {}, stale=("profile",)).to_json()["stale"] == ["profile"]
    assert "stale" not in OnlineAnswer(1, {}, {}, {}).to_json()


# Activity and the journal


def count(house: House, user_id: str = "u1") -> object:
    return house.value("user_activity:session_queries_count", user_id)


def test_questions_are_counted_once_for_each_request(any_house: House) -> None:
    for request in ("r1", "r2", "r2"):
        any_house.features.seen("u1", request_id=request, at=any_house.clock())
        any_house.clock.advance(SECOND)
    any_house.features.seen("u2", request_id="r1", at=any_house.clock())

    assert count(any_house) == 2
    assert count(any_house, "u2") == 1
    assert any_house.value("user_activity:last_active", "u1") == NOON + SECOND


def test_questions_of_one_user_at_once_are_each_counted(any_house: House) -> None:
    def ask(number: int) -> None:
        any_house.features.seen("u1", request_id=f"r{number}", at=NOON)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(64)))

    assert count(any_house) == 64


def test_a_new_session_begins_once_the_old_one_has_expired(house: House) -> None:
    house.features.seen("u1", request_id="r1", at=house.clock())
    house.clock.advance(2 * HOUR)
    house.features.seen("u1", request_id="r2", at=house.clock())

    assert count(house) == 1


def test_what_else_is_known_about_an_active_user_stays(house: House) -> None:
    wider = FeatureView(
        "user_activity", entity=user, features={"session_queries_count": integer(), "country": text()}, ttl=HOUR
    )
    features = house.with_catalog(catalog_of([wider]))
    features.record(wider, checked_rows(wider, [row(country="CH", session_queries_count=4)], now=NOON))
    features.materialize(wider)
    features.seen("u1", request_id="r1", at=NOON)
    answer = features.online(["user_activity:country", "user_activity:session_queries_count"], {"user_id": ["u1"]})

    assert [column[0] for column in answer.columns.values()] == ["u1", "CH", 5]
    assert features.drain() == 1
    assert house.offline.count("fv__user_activity__v1") == 2


def test_nothing_is_counted_where_nobody_declared_activity(house: House) -> None:
    house.with_catalog(catalog_of([profile])).seen("u1", request_id="r1", at=NOON)
    assert house.online.journal_size() == 0


def test_drained_rows_are_in_their_history_and_gone_from_the_journal(any_house: House) -> None:
    for n in range(5):
        any_house.features.seen(f"u{n}", request_id=f"r{n}", at=any_house.clock())

    assert any_house.features.drain(limit=2) == 5
    assert any_house.online.journal_size() == 0
    assert any_house.offline.count("fv__user_activity__v1") == 5
    assert any_house.features.drain() == 0


class Full(MemoryStore):
    """A store whose disk is full for one table."""

    def __init__(self) -> None:
        super().__init__()
        self.full = ""

    def insert(self, name: str, rows: pa.Table, *, key: str) -> int:
        if name == self.full:
            message = "the disk is full"
            raise StoreError(message)
        return super().insert(name, rows, key=key)


def push(house: House, view: str, user_id: str, **values: object) -> None:
    stamp = int(NOON.timestamp() * 1e6)
    house.online.write(view, [((user_id,), OnlineRow(stamp, stamp, encode_payload(values)))], journal=True)


def test_a_drain_that_fails_half_way_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    offline = Full()
    house = house_in(tmp_path, offline, MemoryOnlineStore())
    push(house, "profile@1", "u1", age=1)
    house.features.seen("u1", request_id="r1", at=NOON)
    offline.full = "fv__user_activity__v1"
    with pytest.raises(StoreError, match="full"):
        house.features.drain()
    assert house.online.journal_size() == 2

    offline.full = ""
    assert house.features.drain() == 2
    assert (offline.count("fv__profile__v1"), offline.count("fv__user_activity__v1")) == (1, 1)


def test_a_journalled_row_that_no_longer_fits_is_a_reject_without_what_is_personal(house: House) -> None:
    push(house, "profile@1", "u1", level="guru", email="ann@example.org")
    push(house, "profile@1", "u2", age=4)

    assert house.features.drain() == 2
    assert house.offline.count("fv__profile__v1") == 1
    (reject,) = house.logs.rows("rejects")
    assert "'guru' is none of" in reject["detail"]
    assert '"level": "guru"' in reject["detail"]
    assert "ann@example.org" not in reject["detail"]


def test_rows_of_a_view_that_is_no_longer_declared_wait_in_the_journal(house: House) -> None:
    push(house, "profil@1", "u1", age=1)
    push(house, "profile@1", "u2", age=2)
    with pytest.raises(UnknownViewError, match=r"did you mean 'profile@1'.*declare it again"):
        house.features.drain()

    assert house.online.journal_size() == 2
    assert house.offline.count("fv__profile__v1") == 1


def test_what_was_drained_before_a_row_that_waits_is_acknowledged(any_house: House) -> None:
    push(any_house, "profile@1", "u1", age=1)
    push(any_house, "profil@1", "u2", age=2)
    push(any_house, "profile@1", "u3", age=3)

    with pytest.raises(UnknownViewError):
        any_house.features.drain()

    assert [one.namespace for one in any_house.online.journal_read(10)] == ["profil@1", "profile@1"]
    assert any_house.offline.count("fv__profile__v1") == 2


# Figures


def test_figures_say_how_fresh_each_view_is(any_house: House) -> None:
    empty = {one["name"]: one["state"] for one in any_house.features.figures()}
    any_house.record(profile, row("u1", at=NOON - HOUR), row("u1", at=NOON - 2 * HOUR), row("u2", at=NOON - 3 * HOUR))
    any_house.record(balance, {"tenant": "a", "number": 1, "event_timestamp": NOON - 900 * HOUR})
    fresh = {one["name"]: one for one in any_house.features.figures()}
    any_house.clock.advance(HOUR + SECOND)
    stale = {one["name"]: one["state"] for one in any_house.features.figures()}

    assert set(empty.values()) == {"empty"}
    assert fresh["profile"] == {
        "name": "profile",
        "entity": "user",
        "rows": 3,
        "entities": 2,
        "latest_event": "2026-07-01T11:00:00Z",
        "state": "fresh",
    }
    assert fresh["balance"]["state"] == "fresh"
    assert (stale["profile"], stale["balance"]) == ("stale", "fresh")


# Speed


def test_reading_three_features_costs_little_more_than_the_store_itself(real: House) -> None:
    real.record(profile, row(level="expert", age=3, email="a@b.ch"))
    real.features.materialize(profile)
    refs = ["profile:level", "profile:age", "profile:email"]

    def best(call: Any) -> float:
        times = []
        for _ in range(300):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        return min(times)

    whole = best(lambda: real.features.online(refs, {"user_id": ["u1"]}))
    # Ten times what was measured on a busy machine: this guards against a disk read, not a slow day.
    assert whole < 400e-6
