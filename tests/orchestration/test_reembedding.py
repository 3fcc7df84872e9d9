"""The line in lodestore.toml changes: what the sensor, the job and the way back do."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from lodestore.project import open_project
from orchestration.definitions import build
from orchestration.sensors import model_changes

MakeProject = Callable[..., Path]
GOLDEN = """
[golden]
queries = "golden/queries.jsonl"
qrels = "golden/qrels.tsv"

[gate]
min_queries = 4
tolerance = 0.9
"""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def folder(make_project: MakeProject, instance: dg.DagsterInstance) -> Path:
    place = make_project(GOLDEN)
    (place / "golden").mkdir()
    asked = {
        "billing": "when are invoices sent",
        "travel": "who approves flights",
        "security": "how long are passwords",
        "kitchen": "when does the dishwasher run",
    }
    queries = [json.dumps({"id": name, "text": text}) for name, text in asked.items()]
    (place / "golden" / "queries.jsonl").write_text("\n".join(queries), encoding="utf-8")
    rows = ["query-id\tcorpus-id\tscore", *(f"{name}\t{name}.md\t1" for name in asked)]
    (place / "golden" / "qrels.tsv").write_text("\n".join(rows), encoding="utf-8")
    execute(place, "ingest", instance)
    return place


def execute(
    folder: Path, job: str, instance: dg.DagsterInstance, *, partition: str | None = None, config: object = None
) -> dg.ExecuteInProcessResult:
    definitions = build(str(folder))
    return definitions.resolve_job_def(job).execute_in_process(
        instance=instance, partition_key=partition, run_config=config, raise_on_error=False
    )


def tick(folder: Path, instance: dg.DagsterInstance, *, cursor: str | None = None) -> dg.SensorResult:
    """One evaluation of the sensor, its partition requests carried out as the daemon does."""
    resources = {"project": open_project(folder)}
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
        answer = model_changes(context)
    assert isinstance(answer, dg.SensorResult)
    for request in answer.dynamic_partitions_requests or []:
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    return answer


def declare(folder: Path, label: str) -> None:
    file = folder / "lodestore.toml"
    lines = [f'content = "{label}"' if one.startswith("content =") else one for one in file.read_text().splitlines()]
    file.write_text("\n".join(lines), encoding="utf-8")


def test_a_changed_line_starts_one_run_that_makes_the_version_live(folder: Path, instance: dg.DagsterInstance) -> None:
    before = tick(folder, instance)
    declare(folder, "glove@1")

    first, second = tick(folder, instance), tick(folder, instance)
    (request,) = first.run_requests or []
    result = execute(folder, "reembed", instance, partition=request.partition_key)

    live = open_project(folder).releases.live()
    assert before.skip_reason is not None
    assert [one.run_key for one in second.run_requests or []] == [request.run_key]
    assert result.success
    assert live.embeddings["content"] == request.partition_key
    assert not tick(folder, instance).run_requests


def test_every_stage_is_visible_with_its_figures(folder: Path, instance: dg.DagsterInstance) -> None:
    declare(folder, "glove@1")
    (request,) = tick(folder, instance).run_requests or []

    result = execute(folder, "reembed", instance, partition=request.partition_key)

    figures = {
        event.step_key.rpartition(".")[2]: set(event.step_output_data.metadata)
        for event in result.all_events
        if event.event_type_value == "STEP_OUTPUT"
    }
    assert {"rows", "to_embed", "tokens", "seconds", "disk_bytes", "truncated_share"} <= figures["plan"]
    assert {"embedded", "reused", "retired"} <= figures["embed"]
    assert "vector_index" in figures["index"]
    assert {"canary", "bad", "fit_to_serve"} <= figures["check"]
    assert {"verdict", "report"} <= figures["gate"]
    event = instance.get_latest_materialization_event(dg.AssetKey("embeddings"))
    assert event is not None
    assert event.asset_materialization.partition == request.partition_key


def test_the_gates_report_is_markdown_with_a_small_picture(folder: Path, instance: dg.DagsterInstance) -> None:
    declare(folder, "glove@1")
    (request,) = tick(folder, instance).run_requests or []

    result = execute(folder, "reembed", instance, partition=request.partition_key)

    (shown,) = [
        event.step_output_data.metadata
        for event in result.all_events
        if event.event_type_value == "STEP_OUTPUT" and event.step_key.endswith("gate")
    ]
    report = shown["report"].value
    assert "| ndcg@10 |" in report
    assert "data:image/png;base64," in report
    assert len(report) < 100_000
    assert re.match(r"\d+ golden questions, release 1 -> 2: \d+ cite otherwise", shown["preview"].value)


def test_after_a_rollback_twenty_ticks_launch_nothing(folder: Path, instance: dg.DagsterInstance) -> None:
    live = open_project(folder).releases.live().embeddings["content"]
    declare(folder, "glove@1")
    (request,) = tick(folder, instance).run_requests or []
    execute(folder, "reembed", instance, partition=request.partition_key)

    config = {"ops": {"roll_back": {"config": {"slot": "embedding:content", "reason": "worse"}}}}
    result = execute(folder, "rollback", instance, config=config)

    assert result.success
    assert open_project(folder).releases.live().embeddings["content"] == live
    assert [len(tick(folder, instance).run_requests or []) for _ in range(20)] == [0] * 20


def test_runs_that_failed_before_a_version_was_declared_again_do_not_count(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    declare(folder, "glove@1")
    config = {"ops": {"embeddings": {"ops": {"plan": {"config": {"budget": 0.0}}}}}}
    cursor, keys = None, []
    for _ in range(3):
        answer = tick(folder, instance, cursor=cursor)
        (request,) = answer.run_requests or []
        execute(folder, "reembed", instance, partition=request.partition_key, config=config)
        cursor = answer.cursor
        keys.append(request.run_key)
    given_up = tick(folder, instance, cursor=cursor)

    declare(folder, "words@1")
    back = tick(folder, instance, cursor=given_up.cursor)
    declare(folder, "glove@1")
    (again,) = tick(folder, instance, cursor=back.cursor).run_requests or []

    assert "failed 3 times" in str(given_up.skip_reason)
    assert not given_up.run_requests
    assert again.run_key not in keys


def test_a_way_back_whose_model_is_gone_warns_and_the_live_version_goes_on(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    own = folder / "gone_models.py"
    own.write_text(
        "import numpy\n\n"
        "class Lengths:\n"
        "    def embed_documents(self, texts):\n"
        "        return numpy.array([[len(text), 1.0, 2.0] for text in texts], 'f4')\n\n"
        "    embed_queries = embed_documents\n\n"
        "def make(model):\n"
        "    return Lengths()\n",
        encoding="utf-8",
    )
    file = folder / "lodestore.toml"
    file.write_text(
        file.read_text() + '\n[[embedding.models]]\nname = "own"\nversion = "1"\nsource = "python:gone_models:make"\n'
        "dimension = 3\n",
        encoding="utf-8",
    )
    declare(folder, "own@1")
    project = open_project(folder)
    version = project.changes.candidate("content")
    project.pipeline.fill(version)
    project.changes.promote(version, author="me", by_name=True, accept_loss=True, reason="a test")
    project.changes.gate(project.changes.candidate("content", "words@1"))
    project.changes.promote(
        project.changes.candidate("content", "words@1"), author="me", by_name=True, accept_loss=True, reason="a test"
    )
    declare(folder, "words@1")
    own.unlink()
    sys.modules.pop("gone_models", None)
    (folder / "docs" / "parking.md").write_text("# Parking\n\nA permit costs nine coins a month.\n", encoding="utf-8")

    result = execute(folder, "ingest", instance)

    failed = {(one.check_name, one.severity.value) for one in result.get_asset_check_evaluations() if not one.passed}
    (row,) = [
        one for one in open_project(folder).logs.rows("checks") if one["check"] == "coverage" and not one["passed"]
    ]
    assert result.success
    assert failed == {("coverage", "WARN")}
    assert version.key in row["partition"]
    assert "gone_models" in row["detail"]
    assert open_project(folder).store.search("parking permit", k=1).hits[0].document_id == "handbook/parking.md"


def test_a_budget_stops_the_run_and_the_live_version_stays(folder: Path, instance: dg.DagsterInstance) -> None:
    declare(folder, "glove@1")
    (request,) = tick(folder, instance).run_requests or []

    config = {"ops": {"embeddings": {"ops": {"plan": {"config": {"budget": 0.0}}}}}}
    result = execute(folder, "reembed", instance, partition=request.partition_key, config=config)

    project = open_project(folder)
    assert not result.success
    assert project.releases.live().generation == 1
    assert project.tables.count(f"emb__{request.partition_key}") == 0


def test_a_manual_promotion_waits_and_the_job_carries_it_out(folder: Path, instance: dg.DagsterInstance) -> None:
    file = folder / "lodestore.toml"
    file.write_text('[embedding]\npromote = "manual"\n' + file.read_text(), encoding="utf-8")
    declare(folder, "glove@1")
    (request,) = tick(folder, instance).run_requests or []
    execute(folder, "reembed", instance, partition=request.partition_key)
    waiting = open_project(folder).releases.live()

    config = {"ops": {"promote_version": {"config": {"feature": "content", "version": "glove@1"}}}}
    result = execute(folder, "promote", instance, config=config)

    assert waiting.generation == 1
    assert result.success
    assert open_project(folder).releases.live().embeddings["content"] == request.partition_key


def test_documents_that_arrive_during_a_build_are_in_before_it_goes_live(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    declare(folder, "glove@1")
    project = open_project(folder)
    version = project.changes.candidate("content")
    project.pipeline.fill(version)
    (folder / "docs" / "parking.md").write_text("# Parking\n\nA permit costs nine coins a month.\n", encoding="utf-8")
    execute(folder, "ingest", instance)

    instance.add_dynamic_partitions("embedding_versions", [version.key])
    execute(folder, "reembed", instance, partition=version.key)

    changed = open_project(folder)
    assert changed.releases.live().embeddings["content"] == version.key
    assert changed.store.search("parking permit", k=1, mode="vector").hits[0].document_id == "handbook/parking.md"
