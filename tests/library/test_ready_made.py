"""Vectors that come with the documents: stored as they are, searched by a query that brings its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lodestore.errors import DimensionError, ModelError
from lodestore.project import Project, open_project

SETTINGS = """
[[documents]]
name = "mine"
uri = "rows.jsonl"
columns = { vector = "emb" }

[embedding.features]
content = "outside@1"

[[embedding.models]]
name = "outside"
version = "1"
source = "external"
dimension = 3
"""
ROWS = [
    {"id": "north", "title": "North", "text": "Cold and clear.", "emb": [0.0, 1.0, 0.0]},
    {"id": "east", "title": "East", "text": "Where the sun rises.", "emb": [1.0, 0.0, 0.0]},
    {"id": "plain", "title": "Plain", "text": "Nobody made a vector of this."},
]


def project_of(folder: Path, rows: list[dict[str, object]]) -> Project:
    (folder / "lodestore.toml").write_text(SETTINGS, encoding="utf-8")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    project = open_project(folder)
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()
    project.pipeline.fill_maintained()
    project.pipeline.promote_first()
    return project


def test_a_query_with_its_own_vector_finds_the_nearest_document(tmp_path: Path) -> None:
    live = project_of(tmp_path, ROWS).live()

    found = live.search_vector([0.9, 0.1, 0.0], fingerprint="outside@1", k=2)

    assert [hit.document_id for hit in found.hits] == ["mine/east", "mine/north"]
    assert found.hits[0].text == "Where the sun rises."


def test_a_changed_vector_is_taken_over_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    project_of(tmp_path, ROWS)
    turned = [{**ROWS[0], "emb": [0.0, 0.0, 1.0]}, *ROWS[1:]]

    changed = project_of(tmp_path, turned)
    (again,) = changed.pipeline.fill_maintained()

    hits = changed.live().search_vector([0.0, 0.0, 1.0], fingerprint="outside@1", k=1).hits
    assert [hit.document_id for hit in hits] == ["mine/north"]
    assert again.touched == 0


def test_words_find_documents_by_text_and_not_by_a_model_that_is_not_here(tmp_path: Path) -> None:
    project = project_of(tmp_path, ROWS)

    hits = project.store.search("sun", mode="text").hits

    assert [hit.document_id for hit in hits] == ["mine/east"]
    with pytest.raises(ModelError, match=r"outside@1 is external"):
        project.store.search("sun", mode="vector")


def test_a_vector_of_another_length_is_an_error_that_names_its_document(tmp_path: Path) -> None:
    wrong = [{**ROWS[0], "emb": [1.0, 2.0]}, *ROWS[1:]]

    with pytest.raises(DimensionError, match="mine/north"):
        project_of(tmp_path, wrong)
