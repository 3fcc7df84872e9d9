"""A small project of real files with the tiny real model, and the server over it as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from lodestore.client import Client
from lodestore.project import Project, open_project
from lodestore.server.app import application
from lodestore.server.options import ServerOptions
from lodestore.server.protocol import UVICORN

NOW = datetime.now(UTC)
TOML = """
[store]
uri = ".lodestore"
[[documents]]
name = "handbook"
uri = "docs/*.md"
category = "public"
[[documents]]
name = "vault"
uri = "vault/*.md"
category = "secret"
[[events]]
name = "users"
view = "user_profile"
uri = "users.jsonl"
[features]
modules = ["served_declarations"]
[embedding.features]
content = "words@1"
[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"
"""
DECLARATIONS = """
from lodestore import Entity, FeatureView, integer, on_demand, text, timestamp
from lodestore.standard import assistant, document_features, personalized, user_activity, user_profile

order = Entity("order", key="order_id", type="integer")
orders = FeatureView("orders", entity=order, source="streaming",
                     features={"total": integer(wide=True), "paid_at": timestamp(), "note": text(pii=True)})
"""
TEMPLATE = """---
id: qa_basic
version: {version}
family: general
variables:
  context:
    doc: passages
  question:
    doc: what was asked
---
Answer from {{context}} the question {{question}}.
"""
TEXTS = {
    "docs/refunds.md": "# Refunds\n\nRefunds are paid within five days to the card that was charged.\n",
    "docs/parking.md": "# Parking\n\nParking is free for guests behind the house.\n",
    "docs/kitchen.md": "# Kitchen\n\nThe kitchen closes at nine in the evening.\n",
    "vault/merger.md": "# Merger\n\nRefunds of the merger are paid to nobody before the spring.\n",
}
LEVELS = ("beginner", "intermediate", "expert")


def write_project(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in {"lodestore.toml": TOML, "served_declarations.py": DECLARATIONS, **TEXTS}.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    (root / "templates").mkdir()
    (root / "templates/qa_basic.md").write_text(TEMPLATE.format(version="1.0.0"))
    stamp = (NOW - timedelta(minutes=5)).isoformat()
    rows = [{"user_id": f"u{n}", "expertise_level": LEVELS[n % 3], "account_age_days": n} for n in range(50)]
    (root / "users.jsonl").write_text("\n".join(json.dumps({**row, "event_timestamp": stamp}) for row in rows))


def build(root: Path) -> Project:
    write_project(root)
    project = open_project(root)
    pipeline = project.pipeline
    pipeline.read_documents()
    pipeline.add_templates()
    pipeline.cut_chunks()
    pipeline.fill_maintained()
    pipeline.promote_first()
    for view in pipeline.views():
        pipeline.record(view)
        pipeline.publish(view)
    return project


def until(condition: Callable[[], object], seconds: float = 8.0) -> None:
    """Wait for what another thread or process brings about."""
    pause, end = threading.Event(), time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        pause.wait(0.02)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Listening(httpx.Client):
    """A client before a server that runs in a thread of this process, and that server's inside."""

    app_state: dict[str, Any]
    loop: asyncio.AbstractEventLoop


@contextmanager
def listening(app: Any) -> Iterator[Listening]:
    """The application behind the HTTP server that `lodestore serve` runs, on a port of this machine."""
    config = uvicorn.Config(app, log_config=None, lifespan="auto", **UVICORN)
    server = uvicorn.Server(config)
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        asyncio.Runner(loop_factory=config.get_loop_factory()) as runner,
        Listening(base_url=f"http://127.0.0.1:{door.getsockname()[1]}", timeout=60) as http,
    ):
        http.loop = runner.get_loop()
        thread = threading.Thread(target=runner.run, args=(server.serve(sockets=[door]),))
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive(), 60)
            assert server.started
            http.app_state = server.lifespan.state
            yield http
        finally:
            http.close()
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


@contextmanager
def started(project: Project, options: ServerOptions | None = None) -> Iterator[Listening]:
    """The server of a project in this process."""
    with listening(application(project, options)) as http:
        yield http


@contextmanager
def client_of(project: Project) -> Iterator[Client]:
    """The client of the library before the server in this process."""
    with started(project) as http:
        # Once keys and release have been read: from then on the system of record may go away.
        until(lambda: http.get("/readyz?part=features").status_code == httpx.codes.OK, 30)
        with Client(str(http.base_url)) as client:
            yield client


@contextmanager
def serving(project: Project, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The command `lodestore serve` over the project, ready; gives its URL and its process."""
    port = free_port()
    command = [sys.executable, "-m", "lodestore", "serve", "--port", str(port), *options]
    environment = {**os.environ, "LODESTORE_CONFIG": str(project.settings.root / "lodestore.toml")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: status(f"{url}/readyz") == httpx.codes.OK, 180)
        yield url, process
    finally:
        process.terminate()
        process.wait(30)


def status(url: str) -> int:
    """What a GET answers; 0 while nobody does."""
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0
