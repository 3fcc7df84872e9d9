"""Declarations over time: what may change within a version, and what goes on being served."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lodestore.catalog import Catalog, catalog_of
from lodestore.declarations import Change, agree, compare, complete, plan, shape
from lodestore.errors import RefusedError, UnknownFeatureError, UnknownViewError
from lodestore.features import Features
from lodestore.historical import historical
from lodestore.logs import Logs
from lodestore.project import Project, open_project
from lodestore.promotion import promote, rollback_release
from lodestore.releases import ReleaseLog, Slot
from lodestore.rows import checked_rows
from lodestore.spec import Entity, FeatureView, category, embedding, integer, list_of, number, struct, text, timestamp
from lodestore.standard import document_features, prompt_templates, user_activity, user_profile
from lodestore.testing import FrozenClock, MemoryOnlineStore, MemoryStore

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
user = Entity("user", key="user_id")


def view(version: int = 1, entity: Entity = user, ttl: timedelta | None = None, **features: Any) -> FeatureView:
    return FeatureView("v", entity=entity, version=version, ttl=ttl, features=features)


@dataclass
class House:
    offline: MemoryStore
    online: MemoryOnlineStore
    clock: FrozenClock

    @property
    def logs(self) -> Logs:
        return Logs(self.offline, self.clock)

    def features(self, *views: FeatureView) -> Features:
        return Features(catalog_of(views), self.offline, self.online, self.logs, self.clock)

    def use(self, one: FeatureView, **values: Any) -> Features:
        features = self.features(one)
        row = {"user_id": "u1", "event_timestamp": self.clock(), **values}
        features.record(one, checked_rows(one, [row], now=self.clock()))
        features.materialize(one)
        return features


@pytest.fixture
def house() -> House:
    return House(MemoryStore(), MemoryOnlineStore(), FrozenClock(NOON))


def read(features: Features, ref: str, release: int = 0) -> Any:
    return features.online([ref], {"user_id": ["u1"]}, release=release).columns[ref][0]


# What changes


def changes(before: FeatureView, now: FeatureView) -> list[tuple[str, str, bool]]:
    return [(one.what, one.subject, one.compatible) for one in compare(shape(before), shape(now))]


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (view(a=text()), view(a=text(doc="new words")), []),
        (view(a=text()), view(a=text(), b=text()), [("added", "b", True)]),
        (view(a=text(), b=text()), view(a=text()), [("removed", "b", False)]),
        (view(a=text()), view(a=integer()), [("retyped", "a", False)]),
        (view(a=list_of(text())), view(a=list_of(integer())), [("retyped", "a", False)]),
        (view(a=embedding("content")), view(a=embedding("title")), [("retyped", "a", False)]),
        (view(a=category("x")), view(a=category("x", "y")), [("limits", "a", True)]),
        (view(a=number(minimum=0)), view(a=number(minimum=1)), [("limits", "a", True)]),
        (
            view(a=text()),
            view(a=text(), ttl=timedelta(hours=1)),
            [("clock", "ttl", True), ("clock", "fresh_within", True)],
        ),
        (
            view(a=text()),
            view(entity=Entity("user", key="user_id", type="integer"), a=text()),
            [("keys", "user", False)],
        ),
    ],
)
def test_every_change_is_told_with_whether_applications_survive_it(
    before: FeatureView, now: FeatureView, told: list[tuple[str, str, bool]]
) -> None:
    assert changes(before, now) == told


def test_an_added_feature_needs_a_backfill() -> None:
    assert compare(shape(view(a=text())), shape(view(a=text(), b=number()))) == [
        Change("added", "b", "number; null until rows bring it", backfill=True)
    ]


# The plan


def test_the_plan_tells_new_same_changed_incompatible_and_undeclared(house: House) -> None:
    agree(view(a=text()), house.logs)
    agree(view(version=2, a=text(), b=text()), house.logs)
    agree(view(version=3, a=text()), house.logs)
    declared = catalog_of([view(a=text()), view(version=2, a=text(), b=integer()), view(version=4, a=text())])

    states = {(one.view, one.version): one.state for one in plan(declared, house.logs)}

    assert states == {("v", 1): "same", ("v", 2): "incompatible", ("v", 3): "undeclared", ("v", 4): "new"}
    assert plan(catalog_of([view(a=text(), c=text())]), house.logs)[0].needs_backfill


def test_planning_changes_nothing(house: House) -> None:
    plan(catalog_of([view(a=text())]), house.logs)

    assert house.logs.rows("views") == []


def test_agreeing_twice_writes_one_row_and_a_change_back_is_known(house: House) -> None:
    for one in (view(a=text()), view(a=text()), view(a=text(), b=text())):
        agree(one, house.logs)

    assert len(house.logs.rows("views")) == 2


@pytest.mark.parametrize("standard", [user_profile, user_activity, document_features, prompt_templates])
def test_a_view_comes_back_from_the_log_as_it_was_declared(standard: FeatureView, house: House) -> None:
    agree(standard, house.logs)

    newer = FeatureView(standard.name, entity=standard.entity, version=2, features={"other": text()})
    restored = complete(catalog_of([newer]), house.logs).view(standard.name, 1)

    assert shape(restored) == shape(standard)


def test_schemas_and_bounds_come_back_too(house: House) -> None:
    one = view(
        a=struct({"type": "object"}), b=integer(minimum=0, maximum=9, wide=True), c=timestamp(), d=list_of(number())
    )
    agree(one, house.logs)

    assert shape(complete(catalog_of([view(version=2, a=text())]), house.logs).view("v", 1)) == shape(one)


# In use


def test_rows_of_an_incompatible_declaration_are_refused_with_the_way_out(house: House) -> None:
    house.use(view(a=text()), a="x")

    with pytest.raises(RefusedError, match=r"v@1 is in use.*kind text becomes integer; declare version=2"):
        house.use(view(a=integer()), a=3)
    with pytest.raises(RefusedError, match="declare version=2"):
        house.features(view(a=integer())).push("v", [{"user_id": "u1", "event_timestamp": NOON, "a": 3}])
    assert house.online.journal_size() == 0


def test_a_feature_that_was_added_is_stored_and_older_rows_have_null(house: House) -> None:
    house.use(view(a=text()), a="x")
    house.clock.advance(timedelta(hours=1))
    wider = house.use(view(a=text(), b=integer()), a="y", b=3)

    rows = house.offline.read("fv__v__v1", ["a", "b"]).to_pylist()

    assert rows == [{"a": "x", "b": None}, {"a": "y", "b": 3}]
    assert read(wider, "v:b") == 3


def test_an_application_that_pins_the_old_version_goes_on_when_only_the_new_one_is_declared(house: House) -> None:
    house.use(view(a=text()), a="old")
    features = house.use(view(version=2, a=integer()), a=7)

    assert (read(features, "v@1:a"), read(features, "v@2:a"), read(features, "v:a")) == ("old", 7, 7)
    moments = pa.array([NOON], pa.timestamp("us", "UTC"))
    rows = pa.table({"user_id": ["u1"], "event_timestamp": moments})
    found = historical(rows, ["v@1:a", "v:a"], catalog=features.catalog, offline=house.offline)
    assert (found["v@1:a"].to_pylist(), found["v:a"].to_pylist()) == (["old"], [7])
    with pytest.raises(UnknownViewError):
        read(features, "v@3:a")


def test_a_reference_without_a_version_follows_the_release(house: House) -> None:
    house.use(view(a=text()), a="old")
    features = house.use(view(version=2, a=integer(), b=integer()), a=7, b=8)
    releases = ReleaseLog(house.logs, house.clock)
    releases.publish({Slot("view", "v"): 1}, action="promote", author="test")
    releases.publish({Slot("view", "v"): 2}, action="promote", author="test")

    assert [read(features, "v:a", release=one) for one in (1, 2)] == ["old", 7]
    assert read(features, "v@2:a", release=1) == 7
    with pytest.raises(UnknownFeatureError):
        read(features, "v:b", release=1)


def test_rows_that_were_pushed_before_the_new_version_still_reach_their_history(house: House) -> None:
    old = house.features(view(a=text()))
    old.push("v", [{"user_id": "u1", "event_timestamp": NOON, "a": "x"}])

    moved = house.features(view(version=2, a=integer())).drain()

    assert (moved, house.offline.count("fv__v__v1")) == (1, 1)


def test_a_catalog_without_views_is_complete(house: House) -> None:
    assert complete(Catalog(), house.logs).views == {}


def test_the_command_line_tells_the_plan_and_ends_with_1_when_a_change_would_be_refused(
    make_project: Callable[..., Path],
) -> None:
    folder = make_project()
    project = open_project(folder)
    first = _plan(folder)
    narrower = dict(user_profile.features)
    narrower["gone"] = integer()
    older = FeatureView("user_profile", entity=user_profile.entity, features=narrower)
    agree(older, project.logs)

    second = _plan(folder)

    assert first[0] == 0
    assert {one["state"] for one in first[1]["views"]} == {"new"}
    assert second[0] == 1
    assert second[1]["refused"] == ["user_profile"]
    assert "declare version=2" in _plan(folder, as_json=False)[1]


def _plan(folder: Path, *, as_json: bool = True) -> tuple[int, Any]:
    result = subprocess.run(
        [sys.executable, "-m", "lodestore", "views", "plan", *(["--json"] if as_json else [])],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return result.returncode, json.loads(result.stdout) if as_json else result.stdout


def test_what_became_personal_stays_so_when_a_newer_version_is_declared(house: House) -> None:
    agree(view(email=text()), house.logs)

    found = agree(view(email=text(pii=True)), house.logs)

    old = complete(catalog_of([view(2, email=text())]), house.logs).view("v", 1)
    assert [(one.what, one.compatible) for one in found.changes] == [("personal", True)]
    assert old.features["email"].pii


def test_what_was_personal_is_not_shown_within_the_same_version(house: House) -> None:
    agree(view(email=text(pii=True)), house.logs)

    with pytest.raises(RefusedError, match="email personal"):
        agree(view(email=text()), house.logs)


def test_a_declaration_that_goes_back_and_forth_is_remembered_as_it_is_now(house: House) -> None:
    hours = [timedelta(hours=one) for one in (1, 2, 1, 2)]
    for ttl in hours:
        agree(view(ttl=ttl, age=integer()), house.logs)

    assert [one.state for one in plan(catalog_of([view(ttl=hours[-1], age=integer())]), house.logs)] == ["same"]


def by_slot(project: Project) -> None:
    project.changes.rollback(Slot("view", "v"), author="ann")


def by_release(project: Project) -> None:
    rollback_release(project, author="ann", to=1)


@pytest.mark.parametrize("roll_back", [by_slot, by_release])
def test_a_newer_version_goes_live_once_it_has_rows_and_not_by_itself_after_a_rollback(
    make_project: Callable[..., Path], roll_back: Callable[[Project], None]
) -> None:
    folder, newer = make_project(settings=""), view(2, a=integer())

    def opened(one: FeatureView) -> Project:
        project = open_project(folder)
        project.__dict__["catalog"] = catalog_of([one])
        return project

    opened(view(1, a=text())).pipeline.promote_first()
    project = opened(newer)
    early = project.pipeline.promote_first(), project.pipeline.promote_views()
    row = {"user_id": "u1", "event_timestamp": project.clock() - timedelta(minutes=1), "a": 1}
    project.features.record(newer, checked_rows(newer, [row], now=project.clock()))
    with_rows = project.pipeline.promote_views()
    roll_back(project)
    held = [(str(one.slot), one.version) for one in project.releases.holds()]
    after = project.pipeline.promote_views(), project.pipeline.promote_first()
    named = promote(project, {"v": "2"}, author="ann")

    assert early == (None, None)
    assert with_rows is not None
    assert dict(with_rows.views) == {"v": 2}
    assert held == [("view:v", "2")]
    assert after == (None, None)
    assert (dict(named.views), project.releases.holds()) == ({"v": 2}, [])


def test_a_version_that_was_rolled_back_to_is_no_longer_held(make_project: Callable[..., Path]) -> None:
    project = open_project(make_project(settings=""))
    slot = Slot("view", "v")
    for one in (1, 2):
        project.releases.publish({slot: one}, action="promote", author="ann")

    project.changes.rollback(slot, author="ann")
    project.changes.rollback(slot, author="ann")

    assert project.releases.live().views == {"v": 2}
    assert [one.version for one in project.releases.holds()] == ["1"]


def test_the_figures_of_an_old_version_are_its_own(house: House) -> None:
    old, newer = view(a=text()), view(version=2, a=integer())
    house.use(old, a="old")

    features = house.features(newer)

    assert (features.figures_of(old)["rows"], features.figures_of(newer)["rows"]) == (1, 0)
    assert [one["rows"] for one in features.figures()] == [0]
