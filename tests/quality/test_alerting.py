"""From a file in a folder to a message and back: jobs, checks, the sensor, a real web server."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import dagster as dg
import pytest

from lodestore.alerts import AlertOptions, Desk
from lodestore.logs import Logs
from lodestore.project import open_project
from lodestore.testing import MemoryStore
from orchestration.alerting import check_alerts
from orchestration.definitions import build

MakeProject = Callable[..., Path]


class Channel:
    """A web server that keeps what is posted to it; while `deaf`, it answers 503."""

    def __init__(self) -> None:
        self.posted: list[str] = []
        self.deaf = False
        channel = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not channel.deaf:
                    channel.posted.append(json.loads(body)["message"])
                self.send_response(503 if channel.deaf else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://127.0.0.1:{self.server.server_port}/"
        self.thread = Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def taken(self) -> list[str]:
        posted, self.posted = self.posted, []
        return posted


@pytest.fixture
def channel() -> Iterator[Channel]:
    made = Channel()
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


class Platform:
    """A project with its Dagster instance, and the sensor's cursor between ticks."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder = folder
        self.instance = instance
        self.cursor: str | None = None
        self.definitions = build(str(folder))

    def run(self, *jobs: str) -> dict[str, dg.AssetCheckEvaluation]:
        found = {}
        for name in jobs:
            job = self.definitions.resolve_job_def(name)
            result = job.execute_in_process(instance=self.instance, raise_on_error=False)
            found |= {one.check_name: one for one in result.get_asset_check_evaluations()}
        return found

    def tick(self) -> dg.SensorResult:
        project = open_project(self.folder)
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"project": project}
        ) as context:
            result = check_alerts(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return result


def write_letters(folder: Path, count: int) -> None:
    """Documents of an office, each a little different."""
    rng = random.Random(1)
    people, things = ["Anna", "Ben", "Clara", "Leo", "Nora"], ["invoice", "refund", "contract", "ticket", "badge"]
    for number in range(count):
        lines = [
            f"The {rng.choice(things)} of {rng.choice(people)} is number {rng.randrange(9999)}.",
            f"{rng.choice(people)} signs the {rng.choice(things)} before the office closes on day {rng.randrange(28)}.",
        ]
        (folder / f"letter{number}.md").write_text("# Office\n\n" + " ".join(lines), encoding="utf-8")


def write_recipes(folder: Path, count: int) -> None:
    """Documents that have no place here."""
    rng = random.Random(2)
    foods, acts = ["onions", "lentils", "dough", "trout", "pears"], ["simmer", "roast", "knead", "whisk", "glaze"]
    for number in range(count):
        text = f"{rng.choice(acts)} the {rng.choice(foods)} with butter and thyme, then {rng.choice(acts)} {rng.choice(foods)}."
        (folder / f"recipe{number}.md").write_text(f"# Supper\n\n{text}", encoding="utf-8")


def test_off_topic_documents_make_one_message_and_their_going_one_recovery(
    make_project: MakeProject, instance: dg.DagsterInstance, channel: Channel
) -> None:
    folder = make_project(f'[alerts]\nurls = ["{channel.url}"]\n')
    docs = folder / "docs"
    settings = (folder / "lodestore.toml").read_text(encoding="utf-8")
    text = settings.replace('uri = "docs/**/*.md"', 'uri = "docs/**/*.md"\nmax_retire = 1.0')
    (folder / "lodestore.toml").write_text(text, encoding="utf-8")
    write_letters(docs, 150)
    platform = Platform(folder, instance)

    platform.run("ingest")
    platform.tick()
    write_recipes(docs, 50)
    drifted = platform.run("ingest", "monitor")
    platform.tick()
    platform.tick()
    platform.run("monitor")
    platform.tick()
    told = channel.taken()
    for path in docs.glob("recipe*.md"):
        path.unlink()
    settled = platform.run("ingest", "monitor")
    platform.tick()
    platform.tick()
    recovered = channel.taken()

    assert not drifted["embedding_drift"].passed
    assert settled["embedding_drift"].passed
    (message,) = told
    assert "embedding_drift of live_embeddings" in message
    assert "recipe" in message
    assert "lodestore drift" in message
    assert "whisk" not in message
    (message,) = recovered
    assert "RECOVERED embedding_drift" in message


def test_a_message_that_a_channel_refused_is_kept_and_comes_when_the_channel_is_back(channel: Channel) -> None:
    start = datetime(2026, 1, 5, tzinfo=UTC)
    logs = Logs(MemoryStore(), lambda: start)
    row = {"check": "canary", "asset": "live_embeddings", "partition": "", "severity": "error", "run_id": "r"}
    logs.put("checks", {**row, "detail": "0.2", "mend": "", "passed": False, "value": 0.2, "limit": 0.999})
    options = AlertOptions(urls=(channel.url,))
    desk = Desk(logs, lambda: start, options, {})

    channel.deaf = True
    desk.note(None)
    (refused,) = desk.deliver()
    too_early = desk.deliver()
    channel.deaf = False
    (taken,) = Desk(logs, lambda: start + timedelta(minutes=1), options, {}).deliver()

    assert refused.problem == "json did not take it"
    assert too_early == []
    assert taken.problem is None
    assert len(channel.taken()) == 1
