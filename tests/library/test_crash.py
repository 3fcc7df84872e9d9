"""Processes that are killed, that meet, or that find no room: the next run ends it, and what is live stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lodestore import canary
from lodestore.errors import StoreBusyError, StoreWriteError
from lodestore.project import open_project

DOCUMENTS = 600
SETTINGS = """
[store]
uri = "{store}"
lock_wait = {wait}
[[documents]]
name = "docs"
uri = "rows.jsonl"
[chunks]
size = 16
[embedding]
batch_tokens = 480
[embedding.features]
content = "own@1"
[[embedding.models]]
name = "own"
version = "1"
source = "python:{module}:make"
dimension = 256
"""
# Wordllama's table, which notes how many texts it embeds and dies in front of the batch that it is told.
MODEL = """
import os, signal
from pathlib import Path
from lodestore.adapters.static import StaticEmbedder
from lodestore.models import EmbeddingModel, identify

class Counting(StaticEmbedder):
    batches = 0

    def embed_documents(self, texts):
        self.batches += 1
        if self.batches == int(os.environ.get("DIE_AT_BATCH", "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        with Path(__file__).with_name("embedded.txt").open("a") as file:
            file.write(f"{len(texts)}\\n")
        return super().embed_documents(texts)

def make(model):
    real = EmbeddingModel("words", "1", "package:wordllama")
    return Counting(real, identify(real, root=Path()))
"""
# The whole way to a live version, with commits small enough to die between them.
WORKER = """
import os, signal, sys
from pathlib import Path
from lodestore import project, reembed
from lodestore.errors import LodestoreError

verb, prefix, count, when = (os.environ.get("DIE_AT_WRITE") or "none - 0 before").split()

class Dying(project.LanceStore):
    left = int(count)

def dying(self, name, *args, **options):
    Dying.left -= name.startswith(prefix)
    last = Dying.left == 0 and name.startswith(prefix)
    if last and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    done = getattr(super(Dying, self), verb)(name, *args, **options)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

if verb != "none":
    setattr(Dying, verb, dying)
project.LanceStore = Dying
reembed._ROWS_PER_COMMIT = 300
try:
    pipeline = project.open_project(Path(sys.argv[1])).pipeline
    pipeline.read_documents()
    pipeline.cut_chunks()
    pipeline.fill_maintained()
    pipeline.promote_first()
except LodestoreError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@dataclass
class House:
    root: Path
    module: str

    def write(self, documents=DOCUMENTS, *, store=".lodestore", wait=60):
        rows = (
            {"id": f"d{n}", "text": "\n\n".join(" ".join(f"w{n}x{p}x{i}" for i in range(15)) for p in range(5))}
            for n in range(documents)
        )
        (self.root / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        (self.root / "lodestore.toml").write_text(SETTINGS.format(store=store, wait=wait, module=self.module))
        (self.root / f"{self.module}.py").write_text(MODEL)
        (self.root / "worker.py").write_text(WORKER)

    def start(self, **environ):
        command = [sys.executable, str(self.root / "worker.py"), str(self.root)]
        return subprocess.Popen(command, env={**os.environ, **environ}, stderr=subprocess.PIPE, text=True)

    def run(self, **environ):
        process = self.start(**environ)
        said = process.communicate(timeout=120)[1]
        return process.returncode, said

    def embedded(self):
        file = self.root / "embedded.txt"
        return sum(map(int, file.read_text().split())) if file.is_file() else 0

    @property
    def project(self):
        return open_project(self.root)


@pytest.fixture
def house(tmp_path, monkeypatch, request):
    monkeypatch.setattr(sys, "path", list(sys.path))
    module = "own_model_" + request.node.name.replace("[", "_").replace("]", "")
    yield House(tmp_path, module)
    sys.modules.pop(module, None)


def vectors(project):
    tables = project.tables.names("emb__content")
    return sum(project.tables.count(name) for name in tables if not name.endswith("__retired"))


KILLED = (9, -9)
DEATHS = (
    {"DIE_AT_WRITE": "upsert chunks__ 1 after"},
    {"DIE_AT_BATCH": "3"},
    {"DIE_AT_BATCH": "45"},
    {"DIE_AT_WRITE": "upsert emb__ 2 before"},
    {"DIE_AT_WRITE": "upsert emb__ 1 after"},
    {"DIE_AT_WRITE": "index emb__ 1 before"},
)


def test_killed_wherever_it_may_be_the_next_run_goes_on_and_embeds_only_what_was_missing(house):
    house.write()
    for death in DEATHS:
        there, embedded = vectors(house.project), house.embedded()
        code, _ = house.run(**death)
        assert code in KILLED, death
        again = house.project
        assert not again.releases.live().embeddings
        lost = (house.embedded() - embedded) - (vectors(again) - there)
        assert 0 <= lost <= 330, death  # at most what one commit and one batch hold

    there, embedded = vectors(house.project), house.embedded()
    assert house.run() == (0, "")

    project = house.project
    (version,) = project.versions.maintained()
    health = project.pipeline.health(version)
    assert health.healthy, health.why_not()
    assert health.rows == health.wanted == DOCUMENTS * 5
    assert house.embedded() - embedded == health.rows - there
    assert project.corpus.doubled("documents", "document_id") == 0
    assert project.live().search("w7x3x1 w7x3x2", k=1, mode="text").hits[0].document_id == "docs/d7"
    total = house.embedded()
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()
    assert [one.touched for one in project.pipeline.fill_maintained()] == [0]
    assert (project.pipeline.promote_first(), house.embedded()) == (None, total)


def test_two_processes_at_once_share_the_work_or_wait(house):
    house.write(200)

    processes = [house.start(), house.start()]
    said = [process.communicate(timeout=120)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], said
    project = house.project
    (version,) = project.versions.maintained()
    assert project.pipeline.health(version).healthy
    assert (house.embedded(), project.releases.live().generation) == (1_000 + len(canary.texts()), 1)


def test_who_cannot_wait_is_told_who_holds_the_store(house):
    house.write(2, wait=0.1)
    project = house.project
    project.pipeline.read_documents()

    with house.project.locks.writer("cutting chunks elsewhere"), pytest.raises(StoreBusyError, match="elsewhere"):
        project.pipeline.cut_chunks()

    assert project.pipeline.cut_chunks()[0].chunks == 10


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few megabytes; only root may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def _live(house, disk):
    house.write(20, store=str(disk / "store"))
    project = house.project
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()
    project.pipeline.fill_maintained()
    project.pipeline.promote_first()
    return project


def _step(project, step):
    with pytest.raises(StoreWriteError) as told:
        getattr(project.pipeline, step)()
    return str(told.value)


def _fill_up(file):
    room = os.statvfs(file.parent)
    file.write_bytes(b"x" * (room.f_bavail * room.f_frsize))


def _answers(project):
    return [hit.document_id for hit in project.live().search("w7x3x1 w7x3x2", k=1).hits]


def test_a_full_disk_is_told_and_what_is_live_stays(house, small_disk):
    before = _answers(_live(house, small_disk))
    house.write(400, store=str(small_disk / "store"))
    _fill_up(small_disk / "filler")

    said = _step(house.project, "read_documents")
    while_full = _answers(house.project)
    (small_disk / "filler").unlink()
    project = house.project
    project.pipeline.read_documents()

    assert "disk is full" in said or "free some room" in said
    assert while_full == before == ["docs/d7"]
    assert project.corpus.figures()["live"] == 400


def test_a_disk_that_fills_up_while_it_embeds_keeps_what_is_live(house, small_disk):
    before = _answers(_live(house, small_disk))
    house.write(1_500, store=str(small_disk / "store"))
    project = house.project
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()

    said = _step(project, "fill_maintained")

    assert "disk is full" in said or "free some room" in said
    assert _answers(house.project) == before


@pytest.fixture
def read_only(house, tmp_path):
    """The folder of a store with a live version, mounted so that nobody may write to it; only root may do that."""
    written, place = tmp_path / "written", tmp_path / "read_only"
    written.mkdir()
    place.mkdir()
    _live(house, written)
    made = subprocess.run(["mount", "--bind", str(written), str(place)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting a folder needs root")
    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("step", ["read_documents", "cut_chunks", "fill_maintained"])
def test_a_read_only_store_is_told_and_still_answers(house, read_only, step):
    house.write(30, store=str(read_only / "store"))

    said = _step(house.project, step)

    assert "LODESTORE_HOME" in said
    assert _answers(house.project) == ["docs/d7"]
