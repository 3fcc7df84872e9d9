"""How fast one worker serves, beside a bare Starlette, LMDB and orjson sketch, and bare LanceDB, in the same run.

    python benchmarks/serving.py [--seconds 3] [--connections 8]

Needs wrk (apt-get install wrk). Both servers run as one process of uvicorn on this machine, with wrk
beside them: the figures are for comparison, the ratios are what counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

USERS = 10_000
DOCUMENTS = 2_000
REFS = ["user_profile:expertise_level", "user_profile:preferred_language", "user_profile:account_age_days"]
TOML = """
[store]
uri = ".lodestore"
[[documents]]
name = "notes"
uri = "notes.jsonl"
[[events]]
name = "users"
view = "user_profile"
uri = "users.jsonl"
[features]
modules = ["lodestore.standard"]
[embedding.features]
content = "words@1"
[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"
"""
SKETCH = '''
"""The least that could answer: no keys, no validation, no statuses, no release, no metrics."""
import lmdb, orjson
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

environment = lmdb.open({folder!r}, map_size=1 << 30)

async def features(request):
    asked = orjson.loads(await request.body())
    names = [one.partition(":")[2] for one in asked["features"]]
    with environment.begin() as txn:
        rows = [orjson.loads(txn.get(one.encode())) for one in asked["entities"]["user_id"]]
    columns = {{name: [row[name] for row in rows] for name in names}}
    return Response(orjson.dumps(columns), media_type="application/json")

app = Starlette(routes=[Route("/v1/features", features, methods=["POST"])])
'''
LUA = """
local bodies = {{ {bodies} }}
local at = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  at = at % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[at])
end
"""


@dataclass(frozen=True)
class Measured:
    """What wrk says of one run."""

    rate: float
    p50: float
    p99: float
    errors: int


def users() -> list[dict[str, Any]]:
    levels = ("beginner", "intermediate", "expert")
    return [
        {"user_id": f"u{n}", "expertise_level": levels[n % 3], "preferred_language": "en", "account_age_days": n}
        for n in range(USERS)
    ]


def make_project(root: Path) -> None:
    """A project with users and documents, materialised and live."""
    from lodestore.project import open_project

    now = datetime.now(UTC).isoformat()
    (root / "lodestore.toml").write_text(TOML)
    (root / "users.jsonl").write_text("\n".join(json.dumps({**one, "event_timestamp": now}) for one in users()))
    notes = [
        {"id": f"n{n}", "title": f"Note {n}", "text": f"Note {n} is about topic {n % 97} and case {n % 31}."}
        for n in range(DOCUMENTS)
    ]
    (root / "notes.jsonl").write_text("\n".join(map(json.dumps, notes)))
    pipeline = open_project(root).pipeline
    pipeline.read_documents()
    pipeline.cut_chunks()
    pipeline.fill_maintained()
    pipeline.promote_first()
    for view in pipeline.views():
        pipeline.record(view)
        pipeline.publish(view)


def make_sketch(root: Path) -> None:
    """The same users under the sketch's keys."""
    import lmdb

    folder = root / "sketch"
    with lmdb.open(str(folder), map_size=1 << 30) as environment, environment.begin(write=True) as txn:
        for one in users():
            txn.put(one["user_id"].encode(), json.dumps(one).encode())
    (root / "sketch_app.py").write_text(SKETCH.format(folder=str(folder)))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, path: str, root: Path) -> Iterator[float]:
    """The server runs inside; gives the seconds until `path` was answered."""
    environment = {**os.environ, "LODESTORE_CONFIG": str(root / "lodestore.toml"), "PYTHONPATH": str(root)}
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not answers(port, path):
            time.sleep(0.02)
        yield time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(20)


def answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}").status_code < 500
    except httpx.TransportError:
        return False


def measure(root: Path, port: int, path: str, bodies: list[dict[str, Any]], options: argparse.Namespace) -> Measured:
    script = root / "load.lua"
    script.write_text(LUA.format(bodies=", ".join(f"[==[{json.dumps(one)}]==]" for one in bodies)))
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "--latency", "-s", str(script)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True
    ).stdout
    found = {name: re.search(rf"{name}\s+([\d.]+)(us|ms|s)", done) for name in ("50%", "99%")}
    units = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    p50, p99 = (float(one[1]) * units[one[2]] if one else float("nan") for one in found.values())
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", done)
    return Measured(float(rate[1]) if rate else 0.0, p50, p99, int(bad[1]) if bad else 0)


def feature_bodies(rows: int) -> list[dict[str, Any]]:
    return [
        {"features": REFS, "entities": {"user_id": [f"u{(start * 37 + n) % USERS}" for n in range(rows)]}}
        for start in range(50)
    ]


def bare_search(root: Path, options: argparse.Namespace) -> Measured:
    """LanceDB alone, called by as many threads as wrk has connections; each query is another one."""
    from lodestore.project import open_project

    project = replace(open_project(root), consistency=timedelta(seconds=1))
    live = project.live()
    table = live.version("content").table
    vectors = live.embed([f"topic {n} of case {n * 7}" for n in range(200)])
    end = time.perf_counter() + options.seconds

    def look(thread: int) -> list[float]:
        took = []
        for n in itertools.count(thread):
            began = time.perf_counter()
            if began > end:
                return took
            project.tables.nearest(
                table, vectors[n % len(vectors)], 5, columns=("row_id", "document_id", "title", "text")
            )
            took.append((time.perf_counter() - began) * 1000)
        return took

    with ThreadPoolExecutor(options.connections) as pool:
        took = sorted(itertools.chain.from_iterable(pool.map(look, range(options.connections))))
    return Measured(len(took) / options.seconds, took[len(took) // 2], took[len(took) * 99 // 100], 0)


def run(root: Path, options: argparse.Namespace) -> dict[str, Measured]:
    found = {"sketch: vector search, each new": bare_search(root, options)}
    port = free_port()
    sketch = [sys.executable, "-m", "uvicorn", "sketch_app:app", "--port", str(port), "--no-access-log"]
    with running(sketch, port, "/", root):
        for rows in (1, 100):
            found[f"sketch: {rows} x 3 features"] = measure(root, port, "/v1/features", feature_bodies(rows), options)
    port = free_port()
    serve = [sys.executable, "-m", "lodestore", "serve", "--port", str(port)]
    with running(serve, port, "/readyz?part=features", root) as seconds:
        print(f"features ready {seconds:.2f} s after the start")
        while not answers(port, "/readyz"):
            time.sleep(0.02)
        for rows in (1, 100):
            found[f"lodestore: {rows} x 3 features"] = measure(
                root, port, "/v1/features", feature_bodies(rows), options
            )
        same = [{"query": f"topic {n}", "k": 5, "mode": "vector"} for n in range(20)]
        found["lodestore: vector search, 20 queries"] = measure(root, port, "/v1/search", same, options)
        for mode in ("vector", "hybrid"):
            fresh = [{"query": f"{mode} topic {n} of case {n * 7}", "k": 5, "mode": mode} for n in range(20_000)]
            found[f"lodestore: {mode} search, each new"] = measure(root, port, "/v1/search", fresh, options)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; get it with: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_project(root)
        make_sketch(root)
        found = run(root, options)
    print(f"{'':38} {'requests/s':>11} {'p50 ms':>8} {'p99 ms':>8} {'errors':>7} {'of the sketch':>14}")
    for name, one in found.items():
        base = found.get(name.replace("lodestore", "sketch"))
        ratio = f"{one.rate / base.rate:.2f}" if base is not None else ""
        print(f"{name:38} {one.rate:11,.0f} {one.p50:8.2f} {one.p99:8.2f} {one.errors:7} {ratio:>14}")


if __name__ == "__main__":
    main()
