"""The templates asset compares versions by what was reported about their answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg

from lodestore.project import open_project
from orchestration.definitions import build


def materialized(folder: Path, job: str, asset: str, instance: dg.DagsterInstance) -> dict[str, object]:
    done = build(str(folder)).resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False)
    assert done.success
    (event,) = [one for one in done.get_asset_materialization_events() if one.asset_key == dg.AssetKey(asset)]
    return {name: one.value for name, one in event.materialization.metadata.items()}


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
    assert "| qa_basic | 1.0.0 | 1 | 1 | 1 | 1 | 1.000 |" in str(after["performance"])
    assert view["dagster/row_count"] in {1, 2}  # two where a window ended between the answer and its outcome
    answer = project.store.online(
        ["template_performance:accepted"], {"template_id": ["qa_basic"], "version": ["1.0.0"]}
    )
    assert answer.columns["template_performance:accepted"] == [1]
