"""Documents that do not belong are dropped into the folder while Dagster runs: one message comes, and one when they go.

Schedules have minutes, so that this takes three of them on a quiet machine: DAEMON_ALERTS=1 runs it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lodestore.project import open_project

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 300  # a schedule has minutes; a run on a busy machine may take as long


@pytest.fixture
def posted() -> Iterator[tuple[str, list[str]]]:
    """The address of a web server, and what was posted to it."""
    messages: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            messages.append(body["title"] + "\n" + body["message"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}/", messages
    server.shutdown()
    server.server_close()
    thread.join()


def write(folder: Path, name: str, count: int, words: list[str]) -> None:
    rng = random.Random(name)
    for number in range(count):
        text = f"The {rng.choice(words)} and the {rng.choice(words)}, then {rng.choice(words)} by {rng.choice(words)}."
        (folder / f"{name}{number}.md").write_text(f"# {name}\n\n{text}", encoding="utf-8")


@pytest.fixture
def folder(make_project: Callable[..., Path], posted: tuple[str, list[str]]) -> Path:
    schedule = '[schedule]\ningest = "* * * * *"\nmonitor = "* * * * *"\nfeatures = ""\nmaintain = ""\n'
    place = make_project(f'{schedule}[alerts]\nurls = ["{posted[0]}"]\nevery_seconds = 3\n')
    settings = (place / "lodestore.toml").read_text(encoding="utf-8")
    text = settings.replace('uri = "docs/**/*.md"', 'uri = "docs/**/*.md"\nmax_retire = 1.0')
    (place / "lodestore.toml").write_text(text, encoding="utf-8")
    write(place / "docs", "office", 150, ["invoice", "refund", "contract", "ticket", "badge", "manager"])
    (place / "dagster").mkdir()
    quiet = "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"
    (place / "dagster" / "dagster.yaml").write_text(quiet, encoding="utf-8")
    steps = open_project(place).pipeline
    for step in (steps.read_documents, steps.cut_chunks, steps.fill_maintained, steps.promote_first):
        step()
    return place


@pytest.fixture
def daemon(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    env = {**os.environ, "DAGSTER_HOME": str(folder / "dagster"), "LODESTORE_CONFIG": str(folder / "lodestore.toml")}
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-p", "3978"]
    with (folder / "dagster.log").open("wb") as log:
        running = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
        yield running
        os.killpg(running.pid, signal.SIGTERM)
        try:
            running.wait(60)
        except subprocess.TimeoutExpired:  # it waits for a run that is under way, and nobody waits for that one
            os.killpg(running.pid, signal.SIGKILL)
            running.wait(30)


def waited(for_what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if for_what():
            return True
        time.sleep(0.5)  # another process is at work: there is nothing to be told by
    return False


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("DAEMON_ALERTS"), reason="takes minutes; DAEMON_ALERTS=1 runs it")
def test_documents_that_do_not_belong_are_told_once_and_so_is_their_going(
    folder: Path, posted: tuple[str, list[str]], daemon: subprocess.Popen[bytes]
) -> None:
    log, (_, messages) = folder / "dagster.log", posted
    assert waited(lambda: "Serving dagster-webserver" in log.read_text())

    def about_drift() -> list[str]:
        return [one for one in messages if "embedding_drift of live_embeddings" in one]

    write(folder / "docs", "recipe", 60, ["onions", "lentils", "dough", "trout", "pears", "butter"])
    told = waited(lambda: len(about_drift()) == 1)
    for path in (folder / "docs").glob("recipe*.md"):
        path.unlink()
    recovered = waited(lambda: any("RECOVERED embedding_drift" in one for one in messages))

    assert told, log.read_text()[-3000:]
    assert recovered, log.read_text()[-3000:]
    failing, back = about_drift()
    assert "WARNING embedding_drift" in failing
    assert "recipe" in failing
    assert "lodestore drift" in failing
    assert "lentils" not in failing
    assert "RECOVERED embedding_drift" in back
    assert daemon.poll() is None
