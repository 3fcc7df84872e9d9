"""The monitor job: what it looks at, what it says of sick data, and that nothing stops it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from lodestore.alerts import alerts_of
from lodestore.cli import COMMANDS
from lodestore.playbook import GUIDE
from lodestore.project import open_project
from lodestore.tables import embedding_schema
from orchestration.alerting import check_alerts, crashed_checks
from orchestration.definitions import build

MakeProject = Callable[..., Path]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def run(folder: Path, job: str, instance: dg.DagsterInstance, **config: object) -> dg.ExecuteInProcessResult:
    found = build(str(folder)).resolve_job_def(job)
    return found.execute_in_process(instance=instance, raise_on_error=False, run_config=dict(config))


def tick(folder: Path, instance: dg.DagsterInstance) -> dg.SensorResult:
    with dg.build_sensor_context(instance=instance, resources={"project": open_project(folder)}) as context:
        result = check_alerts(context)
    assert isinstance(result, dg.SensorResult)
    return result


def test_the_monitor_job_looks_at_everything_and_the_light_jobs_at_none_of_it(
    make_project: MakeProject, instance: dg.DagsterInstance
) -> None:
    folder = make_project()

    light = [
        one.check_name
        for job in ("ingest", "features")
        for one in run(folder, job, instance).get_asset_check_evaluations()
    ]
    result = run(folder, "monitor", instance)

    found = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert result.success
    assert {
        "embedding_drift",
        "vector_health",
        "canary",
        "drift",
        "published",
        "gx_row_count",
        "documents_fresh",
        "search_speed",
    } <= found.keys()
    assert not [one for one in light if one.startswith("gx_") or one in {"drift", "canary"}]
    assert found["canary"].metadata["value"].value == pytest.approx(1.0)
    assert "data:image/png;base64," in found["canary"].metadata["history"].value


def test_sick_vectors_fail_as_a_check_and_stop_nothing(make_project: MakeProject, instance: dg.DagsterInstance) -> None:
    folder = make_project()
    run(folder, "ingest", instance)
    project = open_project(folder)
    version = project.live().version("content")
    sick = np.zeros((2, version.dimension), np.float32)  # LanceDB itself refuses NaN
    sick[1, 0] = np.inf
    columns = {
        "row_id": ["s0", "s1"],
        "document_id": ["d0", "d1"],
        "vector": list(sick),
        "norm": [0.0, float("inf")],
        "visible_from": [datetime.now(UTC)] * 2,
    }
    schema = embedding_schema(version.dimension)
    rows = pa.table({one.name: pa.array(columns.get(one.name, [None] * 2), one.type) for one in schema}, schema=schema)
    project.tables.append(version.table, rows)

    result = run(folder, "monitor", instance)

    found = {
        one.check_name: one for one in result.get_asset_check_evaluations() if one.asset_key.path == ["live_embeddings"]
    }
    assert not found["vector_health"].passed
    assert found["vector_health"].metadata[version.key].value == 2
    assert not found["gx_is_zero_between"].passed
    assert found["gx_inf_count_between"].metadata["failing_ids"].value == "s1"
    assert "store_health" in {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}


def test_every_check_says_what_it_means_its_cause_and_its_command(make_project: MakeProject) -> None:
    definitions = build(str(make_project()))

    specs = [spec for checks in definitions.asset_checks or () for spec in checks.check_specs]

    for spec in specs:
        assert "Usual cause:" in (spec.description or ""), spec.name
        assert "Settle it with:" in (spec.description or ""), spec.name
    assert (
        {"drift", "canary", "coverage"}
        <= {spec.name for spec in specs}
        <= {*GUIDE} | {spec.name for spec in specs if spec.name.startswith("gx_")}
    )


def test_the_job_rebaseline_pins_with_a_reason(make_project: MakeProject, instance: dg.DagsterInstance) -> None:
    folder = make_project("[drift]\nmin_rows = 5\n")
    for number in range(6):
        (folder / "docs" / f"more{number}.md").write_text(f"# More\n\nof number {number}\n", encoding="utf-8")
    run(folder, "ingest", instance)

    result = run(
        folder,
        "rebaseline",
        instance,
        ops={"pin_baselines": {"config": {"subjects": ["content"], "reason": "new corpus"}}},
    )

    reasons = [
        one.reason for one in open_project(folder).baselines.every() if one.subject.startswith("embedding:content")
    ]
    assert result.success
    assert reasons == ["first window with enough rows", "new corpus"]


def test_a_check_whose_step_raises_is_told_as_failing(make_project: MakeProject, instance: dg.DagsterInstance) -> None:
    folder = make_project()

    @dg.asset
    def thing() -> None: ...

    @dg.asset_check(asset=thing)
    def broken() -> dg.AssetCheckResult:
        raise RuntimeError("the secret of ada@example.org")  # noqa: EM101, TRY003 - the text is what is looked for

    job = dg.Definitions(assets=[thing], asset_checks=[broken]).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    (found,) = crashed_checks(instance, result.dagster_run)
    ticked = tick(folder, instance)

    (alert,) = alerts_of(open_project(folder).logs.rows("alerts"))
    assert found.key == "thing:broken"
    assert alert.delivery == "logged"
    assert "could not run: RuntimeError" in alert.text
    assert "ada@example.org" not in alert.text
    assert [event.asset_key for event in ticked.asset_events] == [dg.AssetKey("thing")]


def test_checks_behind_a_blocking_failure_are_not_told_as_broken(
    make_project: MakeProject, instance: dg.DagsterInstance
) -> None:
    folder = make_project()
    for path in (folder / "docs").iterdir():
        path.unlink()

    result = run(folder, "ingest", instance)
    tick(folder, instance)

    told = [one.key for one in alerts_of(open_project(folder).logs.rows("alerts"))]
    assert not result.success
    assert told == ["documents:has_rows"]


def test_the_sensor_leaves_a_sign_of_life(make_project: MakeProject, instance: dg.DagsterInstance) -> None:
    folder = make_project()

    tick(folder, instance)
    tick(folder, instance)

    assert [row["name"] for row in open_project(folder).logs.rows("heartbeats")] == ["daemon"]


def test_the_troubles_of_the_playbook_lead_to_checks_and_commands_that_exist(make_project: MakeProject) -> None:
    page = (Path(__file__).parents[2] / "docs" / "playbook.md").read_text(encoding="utf-8")
    table = page.split("## By symptom")[1].split("## Check by check")[0]
    defined = {spec.name for one in build(str(make_project())).asset_checks or () for spec in one.check_specs}

    rows = [line.split("|")[1:5] for line in table.strip().splitlines()[2:]]

    assert {"stale", "slow", "mismatched", "missing", "drifted"} <= {row[0].split(":")[0].strip() for row in rows}
    for symptom, checks, look, settle in rows:
        named = set(re.findall(r"`(\w+)`", checks))
        assert named, symptom
        assert named <= defined, symptom
        for command in re.findall(r"`lodestore (\w+)", look + settle):
            assert command in COMMANDS, command


def test_the_playbook_page_has_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "playbook.md").read_text(encoding="utf-8")

    missing = [
        name for name, one in GUIDE.items() if one.means not in page or f"`{name}" not in page.replace("`gx_", "`gx")
    ]

    assert missing == []
