from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lodestore.alerts import Alert
from lodestore.cli import run
from lodestore.doctor import examine
from lodestore.errors import UnavailableError
from lodestore.init import begin
from lodestore.project import Project
from lodestore.rows import checked_rows
from lodestore.settings import load
from lodestore.status import checks_of, status

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
KEYS = {
    "release", "declared", "holds", "versions", "documents", "chunks", "views", "online", "checks", "alerts"
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("status") / "project"
    begin(place, now=NOW)
    text = (place / "lodestore.toml").read_text()
    text = (
        text.replace("minilm", "words")
        .replace("gt_all_words_l6_v2", "wordllama")
        .replace("assets.features", "lodestore.standard")
    )
    (place / "lodestore.toml").write_text(text)
    return place


@pytest.fixture
def project(folder, tmp_path):
    return Project(load(folder, environ={"LODESTORE_HOME": str(tmp_path)}), clock=lambda: NOW)


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    project = Project(load(folder, environ={"LODESTORE_HOME": str(home)}), clock=lambda: NOW)
    steps = project.pipeline
    for step in (
        steps.read_documents,
        steps.add_templates,
        steps.cut_chunks,
        steps.fill_maintained,
        steps.promote_first,
    ):
        step()
    for view in steps.views():
        steps.record(view)
        steps.publish(view)
    return project


def codes(project):
    return {one.code: one.severity for one in examine(project)}


def check(at=NOW, *, passed=False, name="coverage", severity="ERROR", partition=None, asset="chunks"):
    return {
        "check": name, "partition": partition, "asset": asset, "severity": severity, "mend": "run it", "detail": "",
        "passed": passed, "value": 0.5, "limit": 1.0, "at": at, "run_id": "r",
    }  # fmt: skip


# --- status


def test_an_empty_store_has_a_status(project):
    found = status(project)

    assert found.release["generation"] == 0
    assert found.declared["embeddings"] == {"content": "words@1", "title": "words@1"}
    assert found.documents == {"live": 0, "retired": 0, "rejected": 0}
    assert found.versions == ()
    assert {one["state"] for one in found.views} == {"empty"}


def test_a_built_store_shows_what_is_live_by_its_label(built):
    found = status(built)

    assert set(found.__slots__) == KEYS
    assert found.release["embeddings"] == {"content": "words@1", "title": "words@1"}
    assert found.release["templates"]["qa_basic"] == {"1.0.0": 1.0}
    assert found.release["views"]["user_profile"] == 1
    assert found.documents["live"] == 6
    assert found.chunks == next(one["rows"] for one in found.versions if one["feature"] == "content")
    assert {one["state"] for one in found.versions} == {"live"}
    states = {one["name"]: one["state"] for one in found.views}
    assert states.pop("template_performance") == "empty"
    assert set(states.values()) == {"fresh"}


def test_a_model_that_is_not_installed_does_not_keep_the_status_from_showing(built):
    models = tuple(replace(one, source="package:no_such_model") for one in built.settings.embedding.models)
    embedding = replace(built.settings.embedding, models=models)
    broken = Project(replace(built.settings, embedding=embedding), clock=lambda: NOW)

    assert {one["state"] for one in status(broken).versions} == {"live"}
    assert codes(broken)["model_unavailable"] == "error"


AWAY = "redis://me:hush@127.0.0.1:1/0"


def away(project, url=AWAY):
    """The same project, with an online store at that address."""
    return Project(replace(project.settings, online=replace(project.settings.online, url=url)), clock=lambda: NOW)


def test_an_online_store_that_is_away_is_marked_and_everything_else_is_shown(built):
    found, whole = status(away(built)), status(built)

    assert (whole.online["state"], found.online["state"]) == ("ready", "unavailable")
    assert "does not answer" in found.online["detail"]
    assert "hush" not in str(found.online)
    assert replace(found, online=whole.online) == whole


def test_the_status_command_exits_0_while_the_online_store_is_away(built, monkeypatch, capsys):
    monkeypatch.setenv("LODESTORE_ONLINE__URL", AWAY)
    monkeypatch.setenv("LODESTORE_HOME", str(built.settings.local.parent))

    code = run(["--config", str(built.settings.root), "status"])

    assert (code, "does not answer" in capsys.readouterr().out) == (0, True)


def test_events_are_recorded_while_the_online_store_is_away(project):
    project = away(project)
    view = project.catalog.view("user_profile")
    row = {"user_id": "late", "event_timestamp": NOW - timedelta(minutes=1)}

    added = project.features.record(view, checked_rows(view, [row], now=NOW))

    assert added == 1


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_every_address_that_the_adapter_takes_may_stand_in_the_settings(built, scheme):
    project = away(built, f"{scheme}://127.0.0.1:1/0")

    with pytest.raises(UnavailableError, match="does not answer"):
        project.online.ping()


def test_a_check_that_passed_again_is_not_failing():
    found = checks_of([check(), check(NOW + timedelta(hours=1), passed=True)])

    assert (found.passed, found.failed, found.failing) == (1, 0, ())


def test_a_failure_lasts_since_it_began():
    later = [NOW + timedelta(hours=hours) for hours in (1, 2)]

    found = checks_of([check(passed=True), check(later[0]), check(later[1])])

    assert found.failing[0]["since"] == "2026-05-04T13:00:00Z"


def test_partitions_of_a_check_are_told_apart():
    found = checks_of([check(partition="a"), check(partition="b", passed=True)])

    assert (found.passed, found.failed) == (1, 1)
    assert found.failing[0]["partition"] == "a"


def test_equal_checks_of_two_assets_are_told_apart():
    found = checks_of([check(asset="user_profile"), check(asset="user_activity", passed=True)])

    assert (found.passed, found.failed) == (1, 1)
    assert [one["asset"] for one in found.failing] == ["user_profile"]


def test_an_alert_that_is_delivered_after_its_recovery_is_still_settled(project):
    later = [
        Alert("a:b", "failing", "error", "r1", NOW, "bad"),
        Alert("a:b", "recovered", "error", "r2", LATER, "well"),
    ]
    tried = replace(later[0], delivery="sent", attempt=1, last=LATER + timedelta(hours=1))
    project.logs.put_all("alerts", [one.row() for one in (*later, tried)])

    assert status(project).alerts == ()


def test_an_alert_without_a_channel_is_in_the_status(project):
    project.logs.put("alerts", Alert("a:b", "failing", "error", "r1", NOW, "bad", delivery="logged").row())

    (found,) = status(project).alerts
    assert (found["check"], found["state"], found["delivery"], found["text"]) == ("a:b", "failing", "logged", "bad")


def test_a_warning_is_not_a_failure():
    found = checks_of([check(severity="WARN")])

    assert (found.warned, found.failed) == (1, 0)
    assert found.failing[0]["mend"] == "run it"


# --- doctor


def test_an_empty_store_has_no_error(project):
    found = codes(project)

    assert found["no_documents_read"] == "warning"
    assert found["no_release"] == "warning"
    assert found["daemon_not_running"] == "note"
    assert "error" not in found.values()


def test_a_built_store_with_a_running_daemon_is_well(built):
    built.logs.put("heartbeats", {"name": "sensor", "detail": ""})

    assert examine(built) == ()


def test_a_declaration_that_is_not_live_is_told(built):
    other = replace(built.settings.embedding.models[0], version="2")
    embedding = replace(built.settings.embedding, models=(*built.settings.embedding.models, other))
    embedding = replace(embedding, features={"content": "words@2", "title": "words@1"})
    changed = Project(replace(built.settings, embedding=embedding), clock=lambda: NOW)

    (found,) = [one for one in examine(changed) if one.code == "declared_not_live"]

    assert (found.what, found.severity) == ("content is declared as words@2, live is words@1", "warning")


def test_stale_views_and_silent_daemons_are_told_by_the_clock(built):
    late = Project(built.settings, clock=lambda: NOW + timedelta(days=2))

    found = codes(late)

    assert found["stale_view"] == "warning"
    assert found["daemon_not_running"] == "note"


def test_a_store_that_cannot_be_written_is_the_only_finding(project, tmp_path):
    (tmp_path / ".lodestore").write_text("a file where the store should be")

    (found,) = examine(project)

    assert (found.code, found.severity) == ("store_not_writable", "error")


def test_an_online_store_that_does_not_answer_is_an_error(built):
    settings = replace(built.settings, online=replace(built.settings.online, url="redis://127.0.0.1:1/0"))

    found = codes(Project(settings, clock=lambda: NOW))

    assert found["online_store_unreachable"] == "error"


def test_a_failing_check_has_the_severity_of_the_check(project):
    project.logs.put_all("checks", [check(name="a"), check(name="b", severity="WARN")])

    found = [one.severity for one in examine(project) if one.code == "failing_check"]

    assert found == ["error", "warning"]


def test_no_golden_set_and_no_templates_are_notes(project):
    settings = replace(project.settings, golden=(), templates=replace(project.settings.templates, folder="nowhere"))

    found = codes(Project(settings, clock=lambda: NOW))

    assert (found["no_golden_set"], found["no_templates"]) == ("note", "note")
