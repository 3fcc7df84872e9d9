"""The templates asset compares versions by what was reported about their answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import dagster as dg

from lodestore.project import Project, open_project
from lodestore.promotion import activate
from lodestore.prompts import parse
from orchestration.definitions import build


def materialized(folder: Path, job: str, asset: str, instance: dg.DagsterInstance) -> dict[str, object]:
    done = build(str(folder)).resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False)
    assert done.success
    (event,) = [one for one in done.get_asset_materialization_events() if one.asset_key == dg.AssetKey(asset)]
    return {name: one.value for name, one in event.materialization.metadata.items()}


def minutes(project: Project) -> set[datetime]:
    """The minutes in which a context was made or an outcome was told: the view has a row for each."""
    rows = [row for log in ("contexts", "outcomes") for row in project.logs.rows(log)]
    return {row["at"].replace(second=0, microsecond=0) for row in rows}


NEXT = "---\nid: qa_basic\nversion: 1.1.0\nvariables: [context, question]\n---\nNEW {context}\n{question}\n"


def test_a_split_is_compared_side_by_side(make_project: Callable[..., Path]) -> None:
    folder = make_project()
    with dg.DagsterInstance.ephemeral() as instance:
        materialized(folder, "ingest", "templates", instance)
        project = open_project(folder)
        project.templates.add([parse(NEXT, origin="next")])
        activate(project, "qa_basic", {"1.0.0": 0.75, "1.1.0": 0.25}, author="test")
        for version, yes in (("1.0.0", 5), ("1.1.0", 20)):
            template = json.dumps({"id": "qa_basic", "version": version})
            project.logs.put("contexts", {"id": version, "template": template})
            for n in range(20):
                project.store.outcome(version, event_id=f"{version}/{n}", accepted=n < yes)

        shown = str(materialized(folder, "ingest", "templates", instance)["performance"]).replace("\u00a0", " ")

    assert "| qa_basic 1.0.0 | 75% | 1 | 25% (11% to 47%) of 20 |" in shown
    assert "| qa_basic 1.1.0 | 25% | 1 | 100% (84% to 100%) of 20 |" in shown
    assert "- qa_basic 1.1.0 against what most users get: better: +75.0 points (+" in shown
    assert len(shown) < 20_000


def test_versions_are_compared_by_their_outcomes_in_the_ui(make_project: Callable[..., Path]) -> None:
    folder = make_project()
    with dg.DagsterInstance.ephemeral() as instance:
        before = materialized(folder, "ingest", "templates", instance)
        project = open_project(folder)
        made = project.store.context("when is a refund paid?", user_id="ada")
        project.store.outcome(made.context_id, accepted=True, rating=5)

        after = materialized(folder, "ingest", "templates", instance)
        view = materialized(folder, "features", "template_performance", instance)

    assert before["performance"] == "nothing"
    shown = str(after["performance"]).replace("\u00a0", " ")
    assert "| qa_basic 1.0.0 | 100% | 1 | 100% (21% to 100%) of 1 | 5.00 |" in shown
    assert "![qa_basic 1.0.0](data:image/png;base64," in shown
    assert view["dagster/row_count"] == len(minutes(project))
    answer = project.store.online(
        ["template_performance:accepted"], {"template_id": ["qa_basic"], "version": ["1.0.0"]}
    )
    assert answer.columns["template_performance:accepted"] == [1]
