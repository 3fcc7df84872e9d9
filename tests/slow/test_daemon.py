"""A line of lodestore.toml is changed while Dagster runs: the rest happens by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from lodestore.project import open_project

ROOT = Path(__file__).resolve().parent.parent.parent
SERVER = "http://127.0.0.1:3977"
GOLDEN = """
[golden]
queries = "golden/queries.jsonl"
qrels = "golden/qrels.tsv"

[gate]
min_queries = 3
tolerance = 0.9
"""
ASKED = {
    "billing": "when are invoices sent",
    "travel": "who approves flights",
    "kitchen": "when does the dishwasher run",
}


@pytest.fixture
def folder(make_project) -> Path:
    place = make_project(GOLDEN)
    (place / "golden").mkdir()
    queries = [json.dumps({"id": name, "text": text}) for name, text in ASKED.items()]
    (place / "golden" / "queries.jsonl").write_text("\n".join(queries), encoding="utf-8")
    rows = ["query-id\tcorpus-id\tscore", *(f"{name}\t{name}.md\t1" for name in ASKED)]
    (place / "golden" / "qrels.tsv").write_text("\n".join(rows), encoding="utf-8")
    (place / "dagster").mkdir()
    settings = "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"
    (place / "dagster" / "dagster.yaml").write_text(settings, encoding="utf-8")
    project = open_project(place)
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()
    project.pipeline.fill_maintained()
    project.pipeline.promote_first()
    return place


@pytest.fixture
def daemon(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    env = {**os.environ, "DAGSTER_HOME": str(folder / "dagster"), "LODESTORE_CONFIG": str(folder / "lodestore.toml")}
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-p", SERVER.rpartition(":")[2]]
    with (folder / "dagster.log").open("wb") as log:
        running = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
        yield running
        os.killpg(running.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            running.wait(60)
        with suppress(ProcessLookupError):  # what took longer, on a busy machine
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def waited(for_what: Callable[[], bool], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if for_what():
            return True
        time.sleep(0.5)  # another process is at work: there is nothing to be told by
    return False


REPOSITORIES = "{repositoriesOrError {... on RepositoryConnection {nodes {name location {name}}}}}"
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {__typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}
}
"""


def asked(query: str, **variables: object) -> dict[str, Any]:
    answer = httpx.post(f"{SERVER}/graphql", json={"query": query, "variables": variables}, timeout=60)
    return answer.json()["data"]


def launched(job: str, config: object) -> dict[str, Any]:
    """What the launchpad's button sends."""
    (node,) = asked(REPOSITORIES)["repositoriesOrError"]["nodes"]
    selector = {
        "repositoryName": node["name"],
        "repositoryLocationName": node["location"]["name"],
        "jobName": job,
    }
    return asked(LAUNCH, params={"selector": selector, "runConfigData": config, "mode": "default"})["launchRun"]


@pytest.mark.slow
def test_a_changed_line_becomes_a_live_version_and_the_launchpad_takes_it_back(folder: Path, daemon) -> None:
    assert waited(lambda: "Serving dagster-webserver" in (folder / "dagster.log").read_text(), seconds=120)
    file = folder / "lodestore.toml"
    file.write_text(file.read_text().replace('content = "words@1"', 'content = "glove@1"'), encoding="utf-8")
    log = open_project(folder).releases

    done = waited(lambda: log.live().generation > 1, seconds=180)

    assert done, (folder / "dagster.log").read_text()[-3000:]
    assert open_project(folder).live().version("content").label == "glove@1"
    config = {"ops": {"roll_back": {"config": {"slot": "embedding:content", "reason": "from the launchpad"}}}}
    assert launched("rollback", config)["__typename"] == "LaunchRunSuccess"
    assert waited(lambda: log.live().generation > 2, seconds=120), (folder / "dagster.log").read_text()[-3000:]
    assert open_project(folder).live().version("content").label == "words@1"
    assert [hold.reason for hold in log.holds()] == ["from the launchpad"]
    assert daemon.poll() is None
