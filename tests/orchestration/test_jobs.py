"""The Dagster side, run for real over a small project."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from lodestore.doctor import examine
from lodestore.project import open_project
from orchestration.definitions import build

MakeProject = Callable[..., Path]


def run(
    folder: Path, job: str, instance: dg.DagsterInstance, *, partition: str | None = None
) -> dg.ExecuteInProcessResult:
    definitions = build(str(folder))
    return definitions.resolve_job_def(job).execute_in_process(
        instance=instance, partition_key=partition, raise_on_error=False
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def test_the_definitions_load_without_a_model_or_a_store(make_project: MakeProject) -> None:
    folder = make_project()

    dg.Definitions.validate_loadable(build(str(folder)))

    assert not (folder / ".lodestore").exists()


def test_a_project_that_declares_nothing_still_has_every_job(
    make_project: MakeProject, instance: dg.DagsterInstance
) -> None:
    folder = make_project(settings="")

    definitions = build(str(folder))
    results = [run(folder, name, instance).success for name in ("ingest", "features", "monitor")]

    dg.Definitions.validate_loadable(definitions)
    assert results == [True, True, True]


def test_ingest_makes_a_release_and_notes_each_version_as_a_partition(
    make_project: MakeProject, instance: dg.DagsterInstance
) -> None:
    folder = make_project()

    result = run(folder, "ingest", instance)

    live = open_project(folder).releases.live()
    assert result.success
    assert live.generation == 1
    assert set(live.embeddings) == {"content", "title"}
    partitions = instance.get_dynamic_partitions("embedding_versions")
    assert set(partitions) == set(live.embeddings.values())
    noted = instance.get_materialized_partitions(dg.AssetKey("embeddings"))
    assert noted == set(partitions)


def test_a_second_ingest_embeds_nothing_and_makes_no_release(
    make_project: MakeProject, instance: dg.DagsterInstance
) -> None:
    folder = make_project()
    run(folder, "ingest", instance)

    run(folder, "ingest", instance)

    project = open_project(folder)
    latest = instance.get_latest_materialization_event(dg.AssetKey("live_embeddings"))
    assert latest is not None
    assert latest.asset_materialization.metadata["embedded"].value == 0
    assert project.releases.live().generation == 1


def test_features_go_from_the_event_file_to_the_online_store(
    make_project: MakeProject, instance: dg.DagsterInstance
) -> None:
    folder = make_project()
    run(folder, "ingest", instance)

    result = run(folder, "features", instance)

    answer = open_project(folder).store.online(
        ["user_profile:expertise_level", "document_features:title"],
        {"user_id": ["ben", "ada"], "document_id": ["handbook/travel.md", "handbook/billing.md"]},
    )
    assert result.success
    assert answer.columns["user_profile:expertise_level"] == ["beginner", "expert"]
    assert answer.columns["document_features:title"] == ["Travel", "Billing"]


def test_after_ingest_and_features_every_asset_has_been_made(
    make_project: MakeProject, instance: dg.DagsterInstance
) -> None:
    folder = make_project()

    run(folder, "ingest", instance)
    run(folder, "features", instance)

    graph = build(str(folder)).resolve_asset_graph()
    made = {key for key in graph.materializable_asset_keys if instance.get_latest_materialization_event(key)}
    assert made == graph.materializable_asset_keys
    assert {key.to_user_string() for key in made} >= {"documents", "chunks", "embeddings", "online", "store_health"}


def test_every_check_is_written_to_the_log_of_the_store(
    make_project: MakeProject, instance: dg.DagsterInstance
) -> None:
    folder = make_project()

    result = run(folder, "ingest", instance)

    logged = {row["check"] for row in open_project(folder).logs.rows("checks")}
    evaluated = {one.check_name for one in result.get_asset_check_evaluations()}
    assert evaluated == logged
    assert {"has_rows", "ids_unique", "coverage", "vectors_sound", "rejects", "truncated"} <= logged


def test_a_rejected_file_fails_a_warning_and_stops_nothing(
    make_project: MakeProject, instance: dg.DagsterInstance
) -> None:
    folder = make_project()
    (folder / "docs" / "broken.md").write_bytes(b"\xff\xfe\x00broken")

    result = run(folder, "ingest", instance)

    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "rejects"]
    assert result.success
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert open_project(folder).releases.live().generation == 1


def test_rows_that_are_turned_away_fail_a_warning_that_names_file_and_line(
    make_project: MakeProject, instance: dg.DagsterInstance
) -> None:
    folder = make_project()
    file = folder / "events" / "users.jsonl"
    good = file.read_text(encoding="utf-8")
    file.write_text(good + "\n{broken", encoding="utf-8")

    first = run(folder, "features", instance)
    file.write_text(good, encoding="utf-8")
    second = run(folder, "features", instance)

    before, after = (
        {
            one.asset_key.to_user_string(): one
            for one in result.get_asset_check_evaluations()
            if one.check_name == "rows_taken"
        }
        for result in (first, second)
    )
    assert first.success
    assert not before["user_profile"].passed
    assert before["user_profile"].severity is dg.AssetCheckSeverity.WARN
    assert "users.jsonl#3" in str(before["user_profile"].description)
    assert all(one.passed for name, one in before.items() if name != "user_profile")
    assert all(one.passed for one in after.values())


def test_a_run_that_keeps_what_it_cannot_find_says_so(make_project: MakeProject, instance: dg.DagsterInstance) -> None:
    folder = make_project()
    run(folder, "ingest", instance)
    for name in ("billing.md", "travel.md"):
        (folder / "docs" / name).unlink()

    result = run(folder, "ingest", instance)

    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "sources_whole"]
    findings = {one.code: one for one in examine(open_project(folder))}
    assert result.success
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "2 of 4 documents of source 'handbook' are gone" in (check.description or "")
    assert "LODESTORE_DOCUMENTS__HANDBOOK__MAX_RETIRE=1" in findings["nothing_retired"].what
    assert open_project(folder).corpus.figures()["live"] == 4


def test_an_empty_corpus_blocks_what_comes_after_it(make_project: MakeProject, instance: dg.DagsterInstance) -> None:
    folder = make_project()
    for path in (folder / "docs").iterdir():
        path.unlink()

    result = run(folder, "ingest", instance)

    assert not result.success
    assert open_project(folder).releases.live().generation == 0


def test_nothing_that_the_event_log_keeps_holds_document_text(
    make_project: MakeProject, instance: dg.DagsterInstance
) -> None:
    folder = make_project()
    run(folder, "ingest", instance)
    result = run(folder, "features", instance)

    kept = "".join(str(one) for run_ in instance.get_runs() for one in instance.all_logs(run_.run_id))

    assert result.success
    assert "dishwasher" not in kept
    assert "sixteen characters" not in kept


PERSONAL = """
from lodestore import Entity, FeatureView, category, text

user_profile = FeatureView(
    "user_profile",
    entity=Entity("user", key="user_id"),
    features={"expertise_level": category("beginner", "expert"), "email": text(pii=True)},
)
"""


def test_a_personal_feature_shows_in_no_preview_check_or_log(
    make_project: MakeProject, instance: dg.DagsterInstance
) -> None:
    folder = make_project()
    (folder / "personal_declarations.py").write_text(PERSONAL, encoding="utf-8")
    settings = folder / "lodestore.toml"
    settings.write_text(settings.read_text().replace("lodestore.standard", "personal_declarations"), encoding="utf-8")
    row = {"user_id": "ada", "event_timestamp": datetime.now(UTC).isoformat(), "expertise_level": "expert"}
    wrong = {**row, "user_id": "ben", "expertise_level": "wizard", "email": "ben@private.test"}
    lines = [json.dumps({**row, "email": "ada@private.test"}), json.dumps(wrong)]
    (folder / "events" / "users.jsonl").write_text("\n".join(lines), encoding="utf-8")

    result = run(folder, "features", instance)

    kept = "".join(str(one) for run_ in instance.get_runs() for one in instance.all_logs(run_.run_id))
    project = open_project(folder)
    checks = str(project.logs.rows("checks")) + str(project.logs.rows("rejects"))
    assert result.success
    assert project.store.online(["user_profile:email"], {"user_id": ["ada"]}).columns["user_profile:email"] == [
        "ada@private.test"
    ]
    assert "expert" in kept
    assert "private.test" not in kept + checks


def test_a_prefix_stands_before_every_asset(make_project: MakeProject) -> None:
    definitions = build(str(make_project()), key_prefix=["search", "lodestore"])

    keys = definitions.resolve_all_asset_keys()

    assert {tuple(key.path[:2]) for key in keys} == {("search", "lodestore")}
    dg.Definitions.validate_loadable(definitions)


def test_schedules_and_sensors_run_from_the_start(make_project: MakeProject) -> None:
    repository = build(str(make_project())).get_repository_def()

    assert all(one.default_status is dg.DefaultScheduleStatus.RUNNING for one in repository.schedule_defs)
    assert all(one.default_status is dg.DefaultSensorStatus.RUNNING for one in repository.sensor_defs)
    assert {one.job_name for one in repository.schedule_defs} >= {"ingest", "features"}
