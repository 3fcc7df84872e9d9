"""A model change from end to end, over a small real store with two small real models."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from lodestore.doctor import examine
from lodestore.errors import BudgetError, GateError, GoldenError, HeldError, InUseError
from lodestore.evaluation import evaluate
from lodestore.gate import Verdict
from lodestore.models import EmbeddingVersion
from lodestore.project import Project, open_project
from lodestore.rollout import decide
from lodestore.tables import embedding_schema

MakeProject = Callable[..., Path]

TOPICS = {
    "billing": "An invoice lists every charge. A refund of a charge takes five days to reach the card.",
    "travel": "A train ticket is booked at the desk. A flight ticket needs the approval of a manager.",
    "security": "A password has sixteen characters. A lost badge is reported to the guard at once.",
    "kitchen": "The dishwasher runs at noon. Coffee beans are bought on Fridays by the office team.",
    "holiday": "A holiday is requested two weeks ahead. Unused days expire at the end of March.",
    "hardware": "A laptop is replaced after four years. A broken screen is repaired within a week.",
}
GOLDEN = """
[golden]
queries = "golden/queries.jsonl"
qrels = "golden/qrels.tsv"

[gate]
min_queries = 6
"""


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    place = make_project(GOLDEN)
    for path in (place / "docs").iterdir():
        path.unlink()
    for name, text in TOPICS.items():
        (place / "docs" / f"{name}.md").write_text(f"# {name.title()}\n\n{text}\n", encoding="utf-8")
    (place / "golden").mkdir()
    queries = [{"id": name, "text": text.split(".")[0]} for name, text in TOPICS.items()]
    (place / "golden" / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), encoding="utf-8")
    rows = ["query-id\tcorpus-id\tscore", *(f"{name}\t{name}.md\t1" for name in TOPICS)]
    (place / "golden" / "qrels.tsv").write_text("\n".join(rows), encoding="utf-8")
    return place


def declaring(folder: Path, label: str) -> Project:
    """The project with another line in its settings."""
    file = folder / "lodestore.toml"
    lines = [f'content = "{label}"' if one.startswith("content =") else one for one in file.read_text().splitlines()]
    file.write_text("\n".join(lines), encoding="utf-8")
    return open_project(folder)


def ingest(project: Project) -> None:
    pipeline = project.pipeline
    pipeline.read_documents()
    pipeline.cut_chunks()
    pipeline.fill_maintained()
    pipeline.promote_first()


def built(project: Project) -> EmbeddingVersion:
    version = project.changes.candidate("content")
    project.pipeline.fill(version)
    return version


@pytest.fixture
def project(folder: Path) -> Project:
    first = open_project(folder)
    ingest(first)
    return first


def test_a_change_is_planned_built_judged_and_promoted(folder: Path, project: Project) -> None:
    live = project.releases.live().embeddings["content"]
    changed = declaring(folder, "glove@1")
    (launch,) = decide(changed.changes.state()).launches

    plan = changed.changes.plan(changed.changes.candidate("content"))
    version = built(changed)
    report = changed.changes.gate(version)
    said = changed.changes.promote_judged(version, report.verdict, author="test")

    assert launch.version == version
    assert (plan.rows, plan.to_embed, plan.cached) == (6, 6, 0)
    assert report.verdict is Verdict.PASSED, report.markdown()
    assert "live since release 2" in said
    assert changed.releases.live().embeddings["content"] == version.key != live
    assert changed.store.search("refund of a charge").version == "glove@1"


def test_queries_about_documents_that_are_gone_judge_no_model(folder: Path, project: Project) -> None:
    settings = folder / "lodestore.toml"
    settings.write_text(settings.read_text().replace('uri = "docs/**/*.md"', 'uri = "docs/**/*.md"\nmax_retire = 1.0'))
    changed = declaring(folder, "glove@1")
    for name in TOPICS.keys() - {"kitchen"}:
        (folder / "docs" / f"{name}.md").unlink()
    ingest(changed)
    version = built(changed)

    report = changed.changes.gate(version)
    trial = changed.changes.trial(version)
    measured = evaluate(changed)

    left = report.queries
    assert (left, trial.queries, len(measured.scores), measured.unanswerable) == (1, 1, 6, 5)
    assert report.verdict is Verdict.INSUFFICIENT_QUERIES
    assert report.reasons[1].startswith(f"{measured.unanswerable} more have no relevant document in the store")
    found = {one.code: one.what for one in examine(changed)}
    assert f" {measured.unanswerable} have no relevant document in the store" in found["golden_not_in_store"]

    (folder / "docs/kitchen.md").rename(folder / "docs/other.md")
    ingest(changed)
    with pytest.raises(GoldenError, match=r"none of the \d+ judged golden queries has a relevant document"):
        changed.changes.trial(version)


def test_a_version_whose_build_died_before_its_index_is_indexed_before_it_goes_live(
    folder: Path, project: Project
) -> None:
    import lancedb

    changed = declaring(folder, "glove@1")
    version = built(changed)
    changed.changes.gate(version)
    table = lancedb.connect(folder / ".lodestore").open_table(version.table)
    names = {one.name for one in table.list_indices()}
    for name in names:
        table.drop_index(name)

    changed.changes.promote(version, author="test")

    table = lancedb.connect(folder / ".lodestore").open_table(version.table)
    assert names
    assert {one.name for one in table.list_indices()} == names


def test_going_back_and_forth_calls_the_model_no_second_time(folder: Path, project: Project) -> None:
    changed = declaring(folder, "glove@1")
    version = built(changed)
    changed.changes.gate(version)
    changed.changes.promote(version, author="test")

    back = declaring(folder, "words@1")
    filled = back.pipeline.fill(back.changes.candidate("content"))

    assert (filled.embedded, filled.rows) == (0, 6)


def test_a_rollback_changes_that_slot_only_and_answers_as_before(folder: Path, project: Project) -> None:
    before = project.store.search("who approves a flight?", mode="vector")
    changed = declaring(folder, "glove@1")
    version = built(changed)
    changed.changes.gate(version)
    changed.changes.promote(version, author="test")
    title = changed.releases.live().embeddings["title"]

    release = changed.changes.rollback(changed.releases.slot("embedding:content"), author="me", reason="worse answers")

    after = open_project(folder).store.search("who approves a flight?", mode="vector")
    assert release.embeddings["title"] == title
    assert [hit.to_json() for hit in after.hits] == [hit.to_json() for hit in before.hits]
    assert [decide(changed.changes.state()).launches for _ in range(20)] == [()] * 20
    with pytest.raises(HeldError, match="worse answers"):
        changed.changes.promote(version, author="sensor")


def test_after_a_rollback_documents_of_the_meantime_are_found(folder: Path, project: Project) -> None:
    changed = declaring(folder, "glove@1")
    version = built(changed)
    changed.changes.gate(version)
    changed.changes.promote(version, author="test")
    (folder / "docs" / "parking.md").write_text("# Parking\n\nA parking permit costs nine coins a month.\n")
    ingest(changed)

    changed.changes.rollback(changed.releases.slot("embedding:content"), author="me")

    hits = open_project(folder).store.search("parking permit", k=1).hits
    assert [hit.document_id for hit in hits] == ["handbook/parking.md"]


def test_a_held_version_is_brought_up_to_date_before_it_serves_again(folder: Path, project: Project) -> None:
    changed = declaring(folder, "glove@1")
    version = built(changed)
    changed.changes.gate(version)
    first = changed.releases.live()
    second = changed.changes.promote(version, author="test")
    slot = changed.releases.slot("embedding:content")
    changed.changes.rollback(slot, author="me")
    (folder / "docs" / "parking.md").write_text("# Parking\n\nA parking permit costs nine coins a month.\n")
    ingest(changed)
    held = changed.pipeline.health(version).missing

    changed.changes.rollback(slot, author="me")

    again = open_project(folder)
    (hit,) = again.store.search("parking permit", k=1, mode="vector").hits
    assert held == 1
    assert again.releases.live().embeddings["content"] == version.key
    assert (hit.document_id, again.pipeline.health(version).missing) == ("handbook/parking.md", 0)

    (folder / "docs" / "garden.md").write_text("# Garden\n\nThe garden gate is locked at eight.\n")
    again.changes.restore(first, author="me")
    ingest(again)
    again.changes.restore(second, author="me")
    assert (
        open_project(folder).store.search("garden gate", k=1, mode="vector").hits[0].document_id == "handbook/garden.md"
    )


def test_a_held_version_that_is_cut_in_its_own_way_follows_the_documents_too(folder: Path, project: Project) -> None:
    file = folder / "lodestore.toml"
    sized = re.sub(r"size = \d+", "size = 24", file.read_text())
    file.write_text(sized if "[chunks]" in sized else sized + "\n[chunks]\nsize = 24\n", encoding="utf-8")
    changed = declaring(folder, "glove@1")
    changed.changes.plan(changed.changes.candidate("content"))  # cuts, as the job does
    version = built(changed)
    changed.changes.gate(version)
    live = changed.versions.registered(changed.releases.live().embeddings["content"])
    changed.changes.promote(version, author="test", by_name=True, accept_loss=True, reason="a test")
    slot = changed.releases.slot("embedding:content")
    changed.changes.rollback(slot, author="me")
    (folder / "docs" / "parking.md").write_text("# Parking\n\nA parking permit costs nine coins a month.\n")
    (folder / "docs" / "travel.md").unlink()
    ingest(changed)

    changed.changes.rollback(slot, author="me")

    again = open_project(folder).store
    found = {hit.document_id for hit in again.search("parking permit and train tickets", k=20, mode="vector").hits}
    assert live.chunker != version.chunker
    assert "handbook/parking.md" in found
    assert "handbook/travel.md" not in found


def test_too_few_queries_wait_for_a_person_who_says_why(folder: Path, project: Project) -> None:
    file = folder / "lodestore.toml"
    file.write_text(file.read_text().replace("min_queries = 6", "min_queries = 50"), encoding="utf-8")
    changed = declaring(folder, "glove@1")
    version = built(changed)

    report = changed.changes.gate(version)

    assert report.verdict is Verdict.INSUFFICIENT_QUERIES
    assert decide(changed.changes.state()).launches == ()
    with pytest.raises(GateError, match="insufficient_queries"):
        changed.changes.promote(version, author="me", by_name=True)
    with pytest.raises(GateError, match="reason"):
        changed.changes.promote(version, author="me", by_name=True, accept_loss=True)
    changed.changes.promote(version, author="me", by_name=True, accept_loss=True, reason="tried by hand")
    assert changed.releases.live().reason == "tried by hand"


def test_health_is_never_overridden(folder: Path, project: Project) -> None:
    changed = declaring(folder, "glove@1")
    version = changed.changes.candidate("content")
    changed.tables.ensure(version.table, embedding_schema(version.dimension), key="row_id")

    report = changed.changes.gate(version)

    assert report.verdict is Verdict.UNHEALTHY
    with pytest.raises(GateError, match="unhealthy"):
        changed.changes.promote(version, author="me", by_name=True, accept_loss=True, reason="please")


def test_a_budget_stops_before_anything_is_embedded(folder: Path, project: Project) -> None:
    changed = declaring(folder, "glove@1")
    version = changed.changes.candidate("content")

    with pytest.raises(BudgetError, match="budget"):
        changed.changes.plan(version, budget=0.0)

    assert changed.tables.count(version.table) == 0


def test_golden_queries_that_name_a_document_nobody_knows_stop_the_gate(folder: Path, project: Project) -> None:
    qrels = folder / "golden" / "qrels.tsv"
    qrels.write_text(qrels.read_text() + "\nbilling\tnowhere.md\t1", encoding="utf-8")
    changed = declaring(folder, "glove@1")
    version = built(changed)

    with pytest.raises(GoldenError, match=r"nowhere\.md"):
        changed.changes.gate(version)

    assert open_project(folder).releases.live().generation == 1


def test_a_trial_embeds_the_judged_documents_and_the_full_run_reuses_them(folder: Path, project: Project) -> None:
    changed = declaring(folder, "glove@1")
    version = changed.changes.candidate("content")

    trial = changed.changes.trial(version)
    filled = changed.pipeline.fill(version)

    assert trial.queries == 6
    assert trial.difference is not None
    assert filled.embedded == 0


def test_a_trial_of_a_slow_model_asks_fewer_queries_and_stays_within_its_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "slow_model.py").write_text(
        textwrap.dedent("""
            import time, numpy

            class Slow:
                def embed_documents(self, texts):
                    time.sleep(0.2 * sum("\\n" in text for text in texts))  # those of documents, with their titles
                    return numpy.array([[len(text), 1.0, 2.0] for text in texts], "f4")

                def embed_queries(self, texts):
                    return numpy.array([[len(text), 1.0, 2.0] for text in texts], "f4")

            def make(model):
                return Slow()
        """),
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(folder))
    file = folder / "lodestore.toml"
    model = '\n[[embedding.models]]\nname = "slow"\nversion = "1"\nsource = "python:slow_model:make"\ndimension = 3\n'
    file.write_text(file.read_text() + model, encoding="utf-8")
    ingest(open_project(folder))
    changed = declaring(folder, "slow@1")

    short = changed.changes.trial(changed.changes.candidate("content"), seconds=2.4)
    whole = changed.changes.trial(changed.changes.candidate("content"), seconds=60.0)

    assert 1 <= short.queries < 6
    assert short.rows < 6
    assert short.seconds < 2.4 + 2.0
    assert (whole.queries, whole.rows) == (6, 6)


def test_what_a_rollback_needs_is_not_dropped_and_the_rest_is(folder: Path, project: Project) -> None:
    first = project.versions.registered(project.releases.live().embeddings["content"])
    changed = declaring(folder, "glove@1")
    version = built(changed)
    with pytest.raises(InUseError):
        changed.changes.drop(first)

    changed.changes.drop(version)

    assert version.table not in changed.tables.names()


def test_the_canary_tells_a_model_that_is_no_longer_the_registered_one(folder: Path, project: Project) -> None:
    from lodestore.canary import Canaries
    from lodestore.errors import FingerprintError
    from lodestore.testing import HashEmbedder

    version = project.versions.registered(project.releases.live().embeddings["content"])
    canaries = Canaries(project.logs)

    alive = canaries.read(version, project.embedder(version))

    assert alive.alive
    assert alive.texts >= 64
    with pytest.raises(FingerprintError, match="not the registered one"):
        canaries.confirm(version, HashEmbedder(version.dimension, label="another"))


STAGES = ["plan", "fill", "gate", "promote"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_build_that_is_killed_at_any_stage_is_finished_by_the_next_run(
    folder: Path, project: Project, stage: str
) -> None:
    declaring(folder, "glove@1")
    script = textwrap.dedent(f"""
        import os, signal, sys
        from lodestore.project import open_project
        changes = open_project({str(folder)!r}).changes
        version = changes.candidate("content")
        die = lambda: os.kill(os.getpid(), signal.SIGKILL)
        changes.plan(version)
        if {stage!r} == "plan": die()
        if {stage!r} == "fill":
            import lodestore.adapters.lance as lance
            lance.LanceStore.index = lambda *_: die()
        changes._pipeline.fill(version)
        if {stage!r} == "gate":
            changes._keep_report = lambda _: die()
        changes.gate(version)
        if {stage!r} == "promote":
            changes._releases.publish = lambda *_, **__: die()
        changes.promote(version, author="test")
    """)

    died = subprocess.run([sys.executable, "-c", script], env={**os.environ}, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert open_project(folder).releases.live().generation == 1
    again = open_project(folder)
    version = again.changes.candidate("content")
    filled = again.pipeline.fill(version)
    report = again.changes.gate(version)
    again.changes.promote(version, author="test")

    health = again.pipeline.health(version)
    assert report.verdict is Verdict.PASSED
    assert (health.rows, health.duplicates, health.missing) == (6, 0, 0)
    assert filled.embedded == (6 if stage == "plan" else 0)
    assert again.store.search("lost badge", k=1).hits[0].document_id == "handbook/security.md"
