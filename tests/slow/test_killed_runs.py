"""The re-embedding job is killed inside a Dagster step, stage by stage; the next run of the same command ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lodestore.project import open_project

ROOT = Path(__file__).resolve().parent.parent.parent
# Notes every text that it is given, and dies where the file `die` says, once.
MODEL = """
import json, os, signal
from pathlib import Path
import numpy

HERE = Path(__file__).parent

def die(when):
    file = HERE / "die"
    if file.is_file() and file.read_text() == when:
        file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)

class Lengths:
    def embed_documents(self, texts):
        die("embed")
        with open(HERE / "embedded.txt", "a") as file:
            file.writelines(json.dumps(text) + "\\n" for text in texts)
        return numpy.array([[len(text), sum(map(ord, text)) % 97, 1.0] for text in texts], "f4")

    def embed_queries(self, texts):
        die("gate")
        return numpy.array([[len(text), 2.0, 1.0] for text in texts], "f4")

def make(model):
    return Lengths()
"""
MORE = """
[golden]
queries = "golden/queries.jsonl"
qrels = "golden/qrels.tsv"

[gate]
min_queries = 1
tolerance = 0.99

[[embedding.models]]
name = "lengths"
version = "1"
source = "python:lengths_of_texts:make"
dimension = 3
"""


def lodestore(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "LODESTORE_CONFIG": str(folder / "lodestore.toml"),
    }
    command = [sys.executable, "-m", "lodestore", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300)


def embedded(folder: Path) -> list[str]:
    """Texts of documents that the model was given so far; those of the canary have no title in front."""
    texts = map(json.loads, (folder / "embedded.txt").read_text().splitlines())
    return [text for text in texts if "\n" in text]


@pytest.fixture
def folder(make_project, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = make_project(MORE)
    (place / "lengths_of_texts.py").write_text(MODEL, encoding="utf-8")
    monkeypatch.syspath_prepend(str(place))
    (place / "golden").mkdir()
    (place / "golden" / "queries.jsonl").write_text(json.dumps({"id": "q", "text": "flights"}), encoding="utf-8")
    (place / "golden" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\ttravel.md\t1\n", encoding="utf-8")
    (place / "own_jobs.py").write_text("from orchestration.definitions import defs as defs\n", encoding="utf-8")
    (place / "workspace.yaml").write_text("load_from:\n  - python_file: own_jobs.py\n", encoding="utf-8")
    done = lodestore(place, "run", "ingest")
    assert done.returncode == 0, done.stderr
    file = place / "lodestore.toml"
    file.write_text(file.read_text().replace('content = "words@1"', 'content = "lengths@1"'), encoding="utf-8")
    return place


@pytest.mark.slow
def test_a_run_that_is_killed_in_a_step_says_so_and_the_next_one_ends_it_without_a_second_embedding(
    folder: Path,
) -> None:
    before = open_project(folder).releases.live()

    for stage in ("embed", "gate"):
        (folder / "die").write_text(stage, encoding="utf-8")
        killed = lodestore(folder, "run", "reembed")
        assert not (folder / "die").exists()
        assert killed.returncode not in {0, None}
        assert "Traceback" not in killed.stderr
        assert open_project(folder).releases.live().id == before.id
    before_the_last = embedded(folder)
    done = lodestore(folder, "run", "reembed")

    project = open_project(folder)
    live = project.versions.registered(project.releases.live().embeddings["content"])
    health = project.pipeline.health(live)
    assert done.returncode == 0, done.stderr
    assert (live.label, health.healthy) == ("lengths@1", True)
    assert project.tables.count(live.table) == health.wanted
    assert embedded(folder) == before_the_last, "rows that were there were embedded once more"
    again = lodestore(folder, "run", "reembed", "--json")
    assert again.returncode == 0
    assert embedded(folder) == before_the_last
