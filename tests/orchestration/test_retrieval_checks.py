"""The monitor searches the store: the index against exact search, and served answers against their replay."""

from __future__ import annotations

import json

import dagster as dg
import numpy as np

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
    for step in (
        steps.read_documents,
        steps.add_templates,
        steps.cut_chunks,
        steps.fill_maintained,
        steps.promote_first,
    ):
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


def one_check(folder, asset, name):
    """Runs that check alone, as often as it is called."""
    chosen = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(asset), name))
    job = dg.define_asset_job("one", chosen)
    definitions = dg.Definitions.merge(build(str(folder)), dg.Definitions(jobs=[job]))

    def measure():
        result = definitions.resolve_job_def("one").execute_in_process(raise_on_error=False)
        (found,) = result.get_asset_check_evaluations()
        return found

    return measure


def test_served_chunks_that_history_no_longer_has_fail_the_check_which_counts_them(make_project):
    folder = make_project(LOGGED)
    ingest(folder)
    project = open_project(folder)
    made = project.store.context("when are invoices sent", user_id="ada")
    project.store.context("who approves flights", user_id="ada")
    measure = one_check(folder, "release", "context_replay")
    before = measure()

    # Rows that leave without a trace: nothing in the library does that.
    table = project.live().version("content").table
    project.tables.delete(table, "row_id", [made.hits[0].chunk_id])
    after = measure()

    assert (before.passed, after.passed) == (True, False)
    assert before.metadata["different"].value == []
    assert made.context_id in after.metadata["different"].value
    assert after.metadata["lost"].value == len(after.metadata["different"].value)
    assert after.metadata["value"].value < 0.95
    assert "chunks lost" in after.description
    assert "lodestore replay CONTEXT_ID" in after.description


def test_an_index_that_finds_too_little_fails_its_check_until_it_is_rebuilt_where_that_is_allowed(make_project):
    from lancedb.index import IvfPq

    folder = make_project()
    rng = np.random.default_rng(1)
    words = [f"{a}{b}" for a in ("bo", "ra", "ti", "lun", "mek") for b in ("dal", "nor", "pis", "gat", "vex")]
    for n in range(320):
        (folder / "docs" / f"{n}.md").write_text(f"# Note {n}\n\n{' '.join(rng.choice(words, 30))}\n")
    ingest(folder)
    project = open_project(folder)
    # An index that keeps next to nothing of a vector.
    index = IvfPq(distance_type="cosine", num_partitions=1, num_sub_vectors=2, num_bits=4)
    project.tables._open(project.live().version("content").table).create_index("vector", config=index, replace=True)

    left = one_check(folder, "live_embeddings", "index_recall")()
    with (folder / "lodestore.toml").open("a") as settings:
        settings.write("\n[search]\nrebuild = true\n")
    mended = one_check(folder, "live_embeddings", "index_recall")()

    assert (left.passed, mended.passed) == (False, True)
    assert left.severity is dg.AssetCheckSeverity.ERROR
    assert left.metadata["value"].value < 0.95
    assert "of 1% of the rows" in left.description
    assert "search.rebuild = true" in left.description
    assert "the index was rebuilt" in mended.description


def test_recall_is_measured_every_hour_and_indexes_are_mended_every_night(make_project):
    definitions = build(str(make_project()))

    crons = {one.job_name: one.cron_schedule for one in definitions.schedules}
    checks = definitions.resolve_job_def("monitor").asset_layer.asset_graph.asset_check_keys

    assert crons["monitor"] == "35 * * * *"
    assert crons["maintain"] == "15 4 * * *"
    assert {"index_recall", "context_replay", "golden_level"} <= {key.name for key in checks}
