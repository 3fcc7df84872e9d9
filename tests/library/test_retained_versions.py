"""A vector is searched in the table of the version that it names, as long as that is kept; in process and over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from lodestore.errors import FingerprintError, RequestError
from lodestore.gate import Verdict
from lodestore.project import Project, open_project
from lodestore.server.app import application
from lodestore.versions import slot_of

MakeProject = Callable[..., Path]
QUESTION = "who approves a flight?"


def promoted(folder: Path, label: str) -> Project:
    """The project after its declared content model was changed, built and promoted over the gate's head."""
    file = folder / "lodestore.toml"
    lines = [f'content = "{label}"' if one.startswith("content =") else one for one in file.read_text().splitlines()]
    file.write_text("\n".join(lines), encoding="utf-8")
    project = open_project(folder)
    version = project.changes.candidate("content")
    project.pipeline.fill(version)
    assert project.changes.gate(version).verdict is Verdict.INSUFFICIENT_QUERIES
    project.changes.promote(version, author="me", by_name=True, accept_loss=True, reason="a test")
    return project


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    third = '\n[[embedding.models]]\nname = "words"\nversion = "2"\nsource = "package:wordllama"\nmax_tokens = 64\n'
    place = make_project(third)
    pipeline = open_project(place).pipeline
    pipeline.read_documents()
    pipeline.cut_chunks()
    pipeline.fill_maintained()
    pipeline.promote_first()
    return place


def question_vector(folder: Path, label: str) -> np.ndarray:
    project = open_project(folder)
    version = project.versions.find("content", label)
    return project.embedder(version).embed_queries([QUESTION])[0]


@pytest.mark.parametrize("how", ["label", "fingerprint", "key"])
def test_a_vector_of_the_previous_version_is_searched_in_its_own_table(folder: Path, how: str) -> None:
    before = open_project(folder).store.search(QUESTION, mode="vector", k=3)
    project = promoted(folder, "glove@1")
    name = getattr(project.versions.find("content", "words@1"), how)

    found = project.store.search(vector=question_vector(folder, "words@1"), version=name, k=3)

    assert (found.version, found.live_version, found.release) == ("words@1", "glove@1", 2)
    assert [hit.to_json() for hit in found.hits] == [hit.to_json() for hit in before.hits]
    assert found.to_json()["live_version"] == "glove@1"


def test_a_version_that_is_no_longer_kept_is_refused_with_what_is(folder: Path) -> None:
    promoted(folder, "glove@1")
    project = promoted(folder, "words@2")

    vector = question_vector(folder, "words@1")
    with pytest.raises(FingerprintError, match=r"'words@1', live is words@2, still kept: glove@1"):
        project.store.search(vector=vector, version="words@1")


def test_after_a_rollback_the_version_that_left_can_still_be_asked(folder: Path) -> None:
    project = promoted(folder, "glove@1")
    project.changes.rollback(slot_of("content"), author="me")

    found = open_project(folder).store.search(vector=question_vector(folder, "glove@1"), version="glove@1", k=1)

    assert (found.version, found.live_version) == ("glove@1", "words@1")
    assert found.hits


def test_a_vector_without_a_version_or_of_the_wrong_length_is_refused(folder: Path) -> None:
    project = promoted(folder, "glove@1")
    vector = question_vector(folder, "words@1")

    with pytest.raises(FingerprintError, match="names no model"):
        project.store.search(vector=vector)
    with pytest.raises(ValueError, match="glove@1 has 50 numbers"):
        project.store.search(vector=vector, version="glove@1")
    with pytest.raises(RequestError, match="not both"):
        project.store.search(QUESTION, vector=vector, version="words@1")
    with pytest.raises(RequestError, match="version belongs to a vector"):
        project.store.search(QUESTION, version="words@1")
    with pytest.raises(RequestError, match="give a query, or a vector"):
        project.store.search()


def ready(http: TestClient) -> None:
    until = time.monotonic() + 10
    while http.get("/readyz").json()["parts"]["search"]["state"] != "ready":
        assert time.monotonic() < until


def test_over_http_the_answer_says_which_version_is_live_and_afterwards_it_is_a_conflict(folder: Path) -> None:
    project = promoted(folder, "glove@1")
    body = {"vector": question_vector(folder, "words@1").tolist(), "version": "words@1", "k": 2}

    def asked(project: Project, **more: object) -> httpx.Response:
        with TestClient(
            application(project, None), base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)
        ) as client:
            ready(client)
            return client.post("/v1/search", json={**body, **more})

    kept = asked(project)
    unnamed = asked(project, version="")
    later = asked(promoted(folder, "words@2"))

    assert kept.status_code == 200, kept.text
    assert (kept.json()["version"], kept.json()["live_version"]) == ("words@1", "glove@1")
    assert len(kept.json()["hits"]) == 2
    assert (unnamed.status_code, unnamed.json()["type"]) == (409, "urn:lodestore:error:fingerprint")
    assert later.status_code == 409
    assert "still kept: glove@1" in later.json()["detail"]
