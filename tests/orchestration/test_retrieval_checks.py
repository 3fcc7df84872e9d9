"""The monitor searches the store: the index against exact search, and served answers against their replay."""

from __future__ import annotations

import json

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


TOPICS = {
    "billing": "refund of an invoice",
    "travel": "book a train or a flight",
    "security": "password and badge",
    "kitchen": "dishwasher and coffee beans",
}


def with_golden(folder):
    """Twelve judged queries, three for each document."""
    (folder / "golden").mkdir()
    queries = [{"id": f"{name}{n}", "text": text} for n in range(3) for name, text in TOPICS.items()]
    (folder / "golden" / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    # The four columns of TREC, without a header.
    lines = [f"{name}{n} 0 {name}.md 1" for n in range(3) for name in TOPICS]
    (folder / "golden" / "qrels.tsv").write_text("\n".join(lines))


def ingest(folder):
    steps = open_project(folder).pipeline
    for step in (steps.read_documents, steps.cut_chunks, steps.fill_maintained, steps.promote_first):
        step()


def test_the_check_of_the_golden_level_fails_when_the_live_release_answers_worse_than_it_did(make_project):
    folder = make_project('[golden]\nqueries = "golden/queries.jsonl"\nqrels = "golden/qrels.tsv"\n')
    with_golden(folder)
    level = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("release"), "golden_level"))
    definitions = dg.Definitions.merge(build(str(folder)), dg.Definitions(jobs=[dg.define_asset_job("level", level)]))

    def measure():
        result = definitions.resolve_job_def("level").execute_in_process(raise_on_error=False)
        (found,) = result.get_asset_check_evaluations()
        return found

    ingest(folder)
    before = measure()
    for name in ("billing", "travel", "security"):
        (folder / "docs" / f"{name}.md").write_text("# Nothing\n\nof this kind\n")
        for copy in range(12):
            text = f"refund invoice train flight password badge {copy}"
            (folder / "docs" / f"copy{name}{copy}.md").write_text(text)
    ingest(folder)
    after = measure()

    assert (before.passed, after.passed) == (True, False)
    assert after.severity is dg.AssetCheckSeverity.ERROR
    assert "when it went live" in after.description
