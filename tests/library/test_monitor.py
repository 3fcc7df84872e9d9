"""The store held against its baselines: pinned, compared, replaced, and what bad data makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from lodestore import monitor
from lodestore.baselines import DriftOptions, of_golden, of_version, of_view
from lodestore.errors import LodestoreError, RequestError, SettingsError, UnknownNameError
from lodestore.monitor import compared, golden_level, lag, rebaseline, subjects, vector_state
from lodestore.project import Project, open_project
from lodestore.spec import FeatureView
from lodestore.windows import view_window

MakeProject = Callable[..., Path]
WORDS = ["invoice", "refund", "contract", "ticket", "badge", "desk", "train", "flight", "coffee", "manager"]


def write_documents(folder: Path, count: int = 60, words: list[str] = WORDS, name: str = "office") -> None:
    rng = np.random.default_rng(3)
    for number in range(count):
        text = " ".join(rng.choice(words, 12))
        (folder / "docs" / f"{name}{number}.md").write_text(f"# {name} {number}\n\n{text}\n", encoding="utf-8")


def write_events(folder: Path, days: list[int], *, ago: timedelta = timedelta(hours=1), level: str = "expert") -> None:
    at = (datetime.now(UTC) - ago).isoformat()
    rows = [
        {"user_id": f"{level}{ago.days}u{n}", "event_timestamp": at, "expertise_level": level, "account_age_days": age}
        for n, age in enumerate(days)
    ]
    path = folder / "events" / "users.jsonl"
    path.write_text("\n".join([*path.read_text(encoding="utf-8").splitlines(), *map(json.dumps, rows)]))


def ingested(folder: Path) -> Project:
    project = open_project(folder)
    project.pipeline.read_documents()
    for version in project.versions.maintained():
        assert version
    project.pipeline.cut_chunks()
    project.pipeline.fill_maintained()
    project.pipeline.promote_first()
    return project


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    made = make_project()
    write_documents(made)
    return made


def test_a_version_that_goes_live_has_a_baseline_from_that_moment(folder):
    project = ingested(folder)

    (content,) = [one for one in subjects(project) if one.startswith("embedding:content")]
    pinned = project.baselines.current(content)

    assert pinned is not None
    assert pinned.id == f"{content}#1"
    assert pinned.baseline.rows == 64
    assert set(pinned.baseline.columns) == {"vector", "text", "category", "word_count"}
    assert len(pinned.neighbours) == 50


def test_the_same_documents_do_not_drift_and_keep_their_neighbours(folder):
    project = ingested(folder)
    version = project.live().version("content")

    found, state = compared(project, version), vector_state(project, version)

    assert found.drifted == ()
    assert "n 64 against 64" in found.sentence()
    assert state.stability == 1.0
    assert state.health.bad == state.merged == 0
    assert state.anisotropy == pytest.approx(state.expected_anisotropy, abs=0.01)


def test_off_topic_documents_are_named_and_a_rebaseline_with_a_reason_accepts_them(folder):
    project = ingested(folder)
    write_documents(folder, 40, ["quark", "lepton", "boson", "photon", "plasma", "neutrino"], "physics")
    project = ingested(folder)
    version = project.live().version("content")

    before = compared(project, version)
    made = rebaseline(project, ["content"], reason="physics belongs here")
    after = compared(project, version)

    assert "vector" in before.drifted
    assert "handbook/physics" in before.sentence()
    assert [one.id for one in made] == [f"{of_version(version)}#2"]
    assert after.drifted == ()
    kept = [
        (one.id.rpartition("#")[2], one.reason)
        for one in project.baselines.every()
        if one.subject == of_version(version)
    ]
    assert kept == [("1", "first window with enough rows"), ("2", "physics belongs here")]


def test_a_baseline_needs_a_reason_and_a_known_subject(folder):
    project = ingested(folder)

    with pytest.raises(RequestError, match="--reason"):
        rebaseline(project, [], reason="  ")
    with pytest.raises(UnknownNameError, match="embedding:content"):
        rebaseline(project, ["contents"], reason="because")
    with pytest.raises(RequestError, match="0 rows, 30 are needed"):
        rebaseline(project, ["user_activity"], reason="because")


def test_the_first_window_of_events_with_enough_rows_is_the_baseline(folder):
    project = open_project(folder)
    view = project.catalog.view("user_profile")
    project.pipeline.record(view)
    few = compared(project, view)
    write_events(folder, list(range(100)))
    project.pipeline.record(view)

    first = compared(project, view)
    second = compared(project, view)

    assert few.note == "no baseline yet: the window has 2 rows, 30 are needed"
    assert first.new
    assert second.drifted == ()
    assert project.baselines.current(of_view(view)).baseline.rows == 102


def test_events_are_compared_with_the_baseline_and_with_the_same_days_of_the_week_before(folder):
    project = open_project(folder)
    view = project.catalog.view("user_profile")
    write_events(folder, list(range(200)), ago=timedelta(days=9))
    project.pipeline.record(view)
    old = view_window(project, view, ago=timedelta(days=7))
    project.baselines.pin(of_view(view), monitor._sketched(project, view, old)[0])
    write_events(folder, list(range(700, 900)), level="beginner")
    project.pipeline.record(view)

    found = compared(project, view)

    assert set(found.drifted) == {"account_age_days", "expertise_level"}
    assert found.previous is not None
    assert set(found.previous.drifted) == set(found.drifted)
    assert "it moved since the window before" in found.sentence()


def weekly(folder: Path, project: Project, weeks: dict[int, list[int]], *, days: float = 7) -> FeatureView:
    """Events of `days` times so many days ago, by the ages that they tell."""
    view = project.catalog.view("user_profile")
    for week, ages in weeks.items():
        write_events(folder, ages, ago=timedelta(days=days * week, hours=1))
    project.pipeline.record(view)
    return view


def test_a_baseline_takes_in_the_windows_before_that_are_like_the_newest(folder):
    project = open_project(folder)
    rng = np.random.default_rng(5)
    weeks = {week: rng.integers(0, 900, 50).tolist() for week in range(12)}
    view = weekly(folder, project, weeks)

    pinned = compared(project, view).pinned

    assert pinned is not None
    assert pinned.baseline.rows == 2 + 8 * 50  # two events are the folder's own


def test_a_baseline_ends_where_the_level_was_another_one(folder):
    project = open_project(folder)
    rng = np.random.default_rng(5)
    weeks = {week: (rng.integers(0, 900, 60) + 500 * (week > 2)).tolist() for week in range(8)}
    view = weekly(folder, project, weeks)

    (pinned,) = rebaseline(project, ["user_profile"], reason="the new level is right")
    after = compared(project, view)

    assert pinned.baseline.rows == 2 + 3 * 60
    assert after.drifted == ()


def test_windows_of_a_day_are_compared_with_the_same_day_of_the_week_before(make_project):
    folder = make_project("[drift]\nwindow_days = 1\n")
    project = open_project(folder)
    rng = np.random.default_rng(5)
    weekly(folder, project, {0: rng.integers(0, 90, 60).tolist()}, days=1)
    view = weekly(folder, project, {1: rng.integers(500, 900, 60).tolist()}, days=1)
    compared(project, view)
    lone = compared(project, view)
    weekly(folder, project, {7: rng.integers(0, 90, 60).tolist()}, days=1)

    found = compared(project, view)

    assert lone.against == "the window before"
    assert lone.previous is not None
    assert "account_age_days" in lone.previous.drifted
    assert found.against == "the same weekdays before"
    assert found.previous is not None
    assert found.previous.drifted == ()


def test_after_eight_windows_the_limits_are_those_of_the_feature(folder):
    project = open_project(folder)
    rng = np.random.default_rng(6)
    level = {week: 600 * rng.random() for week in range(11)}
    weeks = {week: (rng.integers(0, 300, 300) + level[week]).astype(int).tolist() for week in level}
    view = weekly(folder, project, {week: ages for week, ages in weeks.items() if week in {0, 1, 2}})
    compared(project, view)
    before = compared(project, view)
    weekly(folder, project, {week: ages for week, ages in weeks.items() if week > 2})

    after = compared(project, view)

    assert (before.windows, before.widened) == (0, ())
    assert (after.windows, after.widened) == (10, ("account_age_days",))
    assert before.report is not None
    assert after.report is not None
    assert after.report["account_age_days"].limit > 3 * before.report["account_age_days"].limit
    assert after.to_json()["widened"] == ["account_age_days"]


def test_an_empty_window_against_a_baseline_is_insufficient_data(folder):
    project = open_project(folder)
    view = project.catalog.view("user_profile")
    write_events(folder, list(range(100)), ago=timedelta(days=9))
    project.pipeline.record(view)
    old = view_window(project, view, ago=timedelta(days=7))
    project.baselines.pin(of_view(view), monitor._sketched(project, view, old)[0])
    (folder / "events" / "users.jsonl").write_text("", encoding="utf-8")

    found = compared(project, view)

    assert found.rows < 30
    assert {one.verdict for one in found.report.features} == {"insufficient_data"}
    assert found.drifted == ()


def test_a_baseline_that_cannot_be_read_is_told_and_no_exception(folder):
    project = ingested(folder)
    version = project.live().version("content")
    project.logs.put("baselines", {"id": "x", "subject": of_version(version), "sketch": "{}", "reason": "broken"})

    found = compared(project, version)

    assert "lodestore drift rebaseline" in found.note
    assert found.report is None


def test_one_baseline_of_two_that_are_pinned_at_once_is_refused(folder):
    project = ingested(folder)
    version = project.live().version("content")
    mine = project.baselines.current(of_version(version))
    project.logs.put("baselines", {"id": f"{of_version(version)}#2", "subject": "other", "sketch": "{}", "reason": "x"})

    with pytest.raises(LodestoreError, match="another run"):
        project.baselines.pin(of_version(version), mine.baseline, reason="mine")


def test_an_empty_project_has_nothing_to_compare_and_nothing_fails(make_project):
    project = open_project(make_project(settings=""))

    assert subjects(project) == {}
    assert golden_level(project) is None


def with_golden(folder: Path) -> None:
    golden = folder / "golden"
    golden.mkdir()
    titles = ["billing", "travel", "security", "kitchen"]
    texts = ["refund of an invoice", "book a train or a flight", "password and badge", "dishwasher and coffee beans"]
    queries = [{"id": f"{t}{n}", "text": text} for n in range(3) for t, text in zip(titles, texts, strict=True)]
    (golden / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), encoding="utf-8")
    lines = ["query\tdocument\tscore", *(f"{t}{n}\t{t}.md\t1" for n in range(3) for t in titles)]
    (golden / "qrels.tsv").write_text("\n".join(lines), encoding="utf-8")


def test_answers_that_become_worse_than_their_own_level_are_told(make_project):
    folder = make_project('[golden]\nqueries = "golden/queries.jsonl"\nqrels = "golden/qrels.tsv"\n')
    with_golden(folder)
    project = ingested(folder)

    first = golden_level(project)
    same = golden_level(project)
    for name in ("billing", "travel", "security"):
        (folder / "docs" / f"{name}.md").write_text("# Nothing\n\nof this kind\n", encoding="utf-8")
        for copy in range(12):
            text = f"refund invoice train flight password badge {copy}"
            (folder / "docs" / f"copy{name}{copy}.md").write_text(text, encoding="utf-8")
    worse = golden_level(ingested(folder))

    assert first.new
    assert not same.fallen
    assert same.change.value == 0
    assert worse.fallen
    assert worse.recorded == first.ndcg
    assert project.baselines.exists(of_golden(project.live().version("content")))


def test_rows_that_were_never_published_are_behind_and_published_ones_are_not(folder):
    project = open_project(folder)
    view = project.catalog.view("user_profile")
    project.pipeline.record(view)

    before = lag(project, view)
    project.pipeline.publish(view)
    after = lag(project, view)

    assert (before.entities, before.share, after.share) == (2, 1.0, 0.0)


def test_searches_of_the_live_vectors_are_timed_and_those_of_an_empty_table_are_none(folder):
    project = ingested(folder)
    version = project.live().version("content")

    found = monitor.search_speed(project, version)
    ids = project.tables.read(version.table, ["row_id"])["row_id"].to_pylist()
    project.tables.delete(version.table, "row_id", ids)

    assert found is not None
    assert found.searches == 20
    assert 0 < found.median <= found.slowest
    assert monitor.search_speed(project, version) is None


@pytest.mark.parametrize(("options", "told"), [
    ({"window_days": 0}, "more than 0 days"), ({"min_rows": 1}, "fewer than 5"), ({"alpha": 2}, "probability"),
    ({"baseline_windows": 0}, "at least 1 window"),
])  # fmt: skip
def test_options_without_sense_say_so(options, told):
    with pytest.raises(SettingsError, match=told):
        DriftOptions(**options)


def test_a_column_that_left_the_declaration_is_told_as_vanished(folder):
    project = open_project(folder)
    view = project.catalog.view("user_profile")
    write_events(folder, list(range(100)))
    project.pipeline.record(view)
    compared(project, view)
    kept = {name: one for name, one in view.features.items() if name != "account_age_days"}
    smaller = FeatureView(view.name, entity=view.entity, features=kept, source=view.source)

    found = compared(project, smaller)

    assert found.drifted == ("account_age_days",)
    assert "vanished" in found.sentence()
