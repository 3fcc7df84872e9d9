"""The monitor searches the store: the index against exact search, and served answers against their replay."""

from __future__ import annotations

import dagster as dg

from assets.house import House
from lodestore.project import open_project
from orchestration.definitions import build
from quality.retrieval import retrieval_checks

LOGGED = """
[context]
log_queries = true
"""


def test_the_monitor_measures_indexes_and_replays(make_project):
    folder = make_project(LOGGED)
    definitions = build(str(folder))
    with dg.DagsterInstance.ephemeral() as instance:
        definitions.resolve_job_def("ingest").execute_in_process(instance=instance)
        open_project(folder).store.context("when are invoices sent", user_id="ada")
        result = definitions.resolve_job_def("monitor").execute_in_process(instance=instance, raise_on_error=False)

    found = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert {"index_recall", "index_tail", "context_replay"} <= set(found)
    assert all(found[name].passed for name in ("index_recall", "index_tail", "context_replay"))
    assert found["context_replay"].metadata["replayed"].value == 1
    logged = {row["check"] for row in open_project(folder).logs.rows("checks")}
    assert {"index_recall", "index_tail", "context_replay"} <= logged


def test_no_other_job_waits_for_these_checks(make_project):
    folder = make_project()
    job = build(str(folder)).resolve_job_def("ingest")

    mine = {key.name for one in retrieval_checks(House(())) for key in one.check_keys}
    assert not mine & {key.name for key in job.asset_layer.asset_graph.asset_check_keys}
