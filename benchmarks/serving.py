"""How fast one worker serves, beside a bare Starlette, LMDB and orjson sketch, bare LanceDB and Feast's server, in one run.

    python benchmarks/serving.py [--seconds 3] [--rounds 3] [--connections 8] [--feast .venv-feast/bin/python] [--keep FOLDER]

Needs wrk (apt-get install wrk). Every server runs as one process on this machine, with wrk beside it: the
ratios are what counts. Each answer is checked before the clock starts. `make .venv-feast/.installed` makes
Feast's environment; without --feast its columns stay empty. --keep builds the data once.
"""

from __future__ import annotations

import argparse
import base64
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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

USERS = 10_000
DOCUMENTS = 2_000
CHUNKS = 100_000
DIMENSION = 384
REQUESTS = 200_000
ARROW = "application/vnd.apache.arrow.stream"
VECTOR = "document_features:content_embedding"
# How many times the rate of Feast each is to reach.
GOALS = {"1 x 3 features": 12.0, "100 x 3 features": 12.0, "100 vectors, JSON": 5.0, "100 vectors, Arrow": 40.0}
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
content = "bench@1"
[[embedding.models]]
name = "bench"
version = "1"
source = "python:bench_model:make"
dimension = 384
"""
# A model that costs nothing: what is measured is the search, not the embedding.
MODEL = """
import zlib
import numpy as np

class Model:
    def embed_queries(self, texts):
        rows = np.stack([np.random.default_rng(zlib.crc32(one.encode())).standard_normal(384) for one in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    embed_documents = embed_queries

def make(model):
    return Model()
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
wrk.headers["Accept"] = "{accept}"
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


@dataclass(frozen=True)
class Started:
    """A server that answers: how long that took, and its process."""

    seconds: float
    pid: int

    def memory_mb(self) -> float:
        """What the process and its children hold now."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        pages = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (self.pid, *children)]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def users() -> list[dict[str, Any]]:
    levels = ("beginner", "intermediate", "expert")
    return [
        {"user_id": f"u{n}", "expertise_level": levels[n % 3], "preferred_language": "en", "account_age_days": n}
        for n in range(USERS)
    ]


def make_project(root: Path) -> None:
    """A project with users and documents, materialised and live, and 100,000 indexed chunks."""
    from lodestore.project import open_project
    from lodestore.publishing import publish
    from lodestore.tables import embedding_schema

    now = datetime.now(UTC).isoformat()
    (root / "lodestore.toml").write_text(TOML)
    (root / "bench_model.py").write_text(MODEL)
    (root / "users.jsonl").write_text("\n".join(json.dumps({**one, "event_timestamp": now}) for one in users()))
    notes = [
        {"id": f"n{n}", "title": f"Note {n}", "text": f"Note {n} is about topic {n % 97} and case {n % 31}."}
        for n in range(DOCUMENTS)
    ]
    (root / "notes.jsonl").write_text("\n".join(map(json.dumps, notes)))
    project = open_project(root)
    pipeline = project.pipeline
    pipeline.read_documents()
    pipeline.cut_chunks()
    pipeline.fill_maintained()
    pipeline.promote_first()
    for view in pipeline.views():
        pipeline.record(view)
    publish(project)
    table = project.live().version("content").table
    for start in range(0, CHUNKS - DOCUMENTS, 49_000):
        project.tables.append(
            table, chunks(min(49_000, CHUNKS - DOCUMENTS - start), start, embedding_schema(DIMENSION))
        )
    project.tables.index(table)


def chunks(rows: int, start: int, schema: pa.Schema) -> pa.Table:
    """Rows of an embedding table whose vectors lie about 300 topics, as those of texts do."""
    topics = np.random.default_rng(1).standard_normal((300, DIMENSION), dtype=np.float32)
    rng = np.random.default_rng(start + 2)
    vectors = topics[rng.integers(300, size=rows)] + 0.9 * rng.standard_normal((rows, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [f"word{n % 997} of the text {n}" for n in range(start, start + rows)]
    known = {
        "row_id": [f"r{n:08}" for n in range(start, start + rows)],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION),
        "document_id": [f"notes/r{n}" for n in range(start, start + rows)],
        "title": [f"Row {n}" for n in range(start, start + rows)],
        "text": texts,
        "start": [0] * rows,
        "end": [len(one) for one in texts],
        "source": ["notes"] * rows,
        "visible_from": [datetime(2026, 1, 1, tzinfo=UTC)] * rows,
    }
    columns = [pa.array(known[one.name], one.type) if one.name in known else pa.nulls(rows, one.type) for one in schema]
    return pa.table(columns, schema=schema)


def make_feast(root: Path, python: str) -> None:
    """The same users and vectors in Feast's online store."""
    from lodestore.project import open_project

    folder, now = root / "feast", datetime.now(UTC)
    folder.mkdir()
    ids = document_ids(100)
    asked = open_project(root).store.online([VECTOR], {"document_id": ids})
    vectors = pa.array([one.tolist() for one in asked.columns[VECTOR]], pa.list_(pa.float32()))
    documents = {"document_id": ids, "content_embedding": vectors, "event_timestamp": [now] * len(ids)}
    pq.write_table(pa.table(documents), folder / "documents.parquet")
    people = pa.Table.from_pylist([{**one, "event_timestamp": now} for one in users()])
    pq.write_table(people, folder / "users.parquet")
    script = Path(__file__).parent / "feast" / "repo.py"
    subprocess.run([python, "-W", "ignore", str(script), str(folder)], check=True, stdout=subprocess.DEVNULL)


def document_ids(count: int) -> list[str]:
    return [f"notes/n{n}" for n in range(count)]


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
def running(command: list[str], port: int, path: str, root: Path) -> Iterator[Started]:
    """The server runs inside, once `path` is answered."""
    environment = {**os.environ, "LODESTORE_CONFIG": str(root / "lodestore.toml"), "PYTHONPATH": str(root)}
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not answers(port, path):
            time.sleep(0.02)
        yield Started(time.perf_counter() - began, process.pid)
    finally:
        process.terminate()
        process.wait(20)


def answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}").status_code < 500
    except httpx.TransportError:
        return False


def measure(
    root: Path,
    port: int,
    path: str,
    bodies: list[dict[str, Any]],
    options: argparse.Namespace,
    *,
    accept: str = "application/json",
    connections: int = 0,
    seconds: float = 0,
) -> Measured:
    script = root / "load.lua"
    script.write_text(LUA.format(accept=accept, bodies=", ".join(f"[==[{json.dumps(one)}]==]" for one in bodies)))
    command = [
        "wrk",
        "-t1",
        f"-c{connections or options.connections}",
        f"-d{round(seconds or options.seconds)}s",
        "--latency",
        "-s",
        str(script),
    ]
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


def vector_body() -> dict[str, Any]:
    return {"features": [VECTOR], "entities": {"document_id": document_ids(100)}}


def searched(seed: int, count: int) -> np.ndarray:
    """Query vectors near the chunks' topics."""
    topics = np.random.default_rng(1).standard_normal((300, DIMENSION), dtype=np.float32)
    rng = np.random.default_rng(seed)
    found = topics[rng.integers(300, size=count)] + 0.9 * rng.standard_normal((count, DIMENSION), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def bare_search(root: Path, options: argparse.Namespace, connections: int) -> Measured:
    """LanceDB alone, looking as far as ours does, by as many threads as wrk has connections; each query is another one."""
    from lodestore.adapters.lance import PROBES, REFINE, ef
    from lodestore.project import open_project
    from lodestore.retrieval import COLUMNS

    project = replace(open_project(root), consistency=timedelta(seconds=1))
    handle = project.tables._open(project.live().version("content").table)  # noqa: SLF001 - the bare call
    vectors, columns = searched(3, 2_000), [*COLUMNS, "_distance"]
    end = time.perf_counter() + options.seconds

    def look(thread: int) -> list[float]:
        took = []
        for n in itertools.count(thread * 250):
            began = time.perf_counter()
            if began > end:
                return took
            asked = handle.search(vectors[n % len(vectors)], vector_column_name="vector").distance_type("cosine")
            asked.limit(5).select(columns).refine_factor(REFINE).nprobes(PROBES).ef(ef(5)).to_arrow()
            took.append((time.perf_counter() - began) * 1000)
        return took

    with ThreadPoolExecutor(connections) as pool:
        took = sorted(itertools.chain.from_iterable(pool.map(look, range(connections))))
    return Measured(len(took) / options.seconds, took[len(took) // 2], took[len(took) * 99 // 100], 0)


def run_bare(root: Path, options: argparse.Namespace) -> dict[str, Measured]:
    return {f"vector search, {n} connections": bare_search(root, options, n) for n in (1, options.connections)}


def checked(port: int) -> None:
    """The answers that are about to be timed are right."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        body = {"features": REFS, "entities": {"user_id": ["u7", "u3"]}}
        told = http.post("/v1/features", json=body).json()["columns"]
        assert [told[one] for one in REFS] == [["intermediate", "beginner"], ["en", "en"], [7, 3]]
        plain = http.post("/v1/features", json=vector_body()).json()["columns"][VECTOR]
        stream = http.post("/v1/features", json=vector_body(), headers={"accept": ARROW}).content
        arrow = pa.ipc.open_stream(stream).read_all()[VECTOR].to_pylist()
        assert np.allclose(plain, arrow)
        assert np.array(plain).shape == (100, DIMENSION)
        found = http.post("/v1/search", json=search_bodies(3, 1)[0]).json()
        assert len(found["hits"]) == 5


def search_bodies(seed: int, count: int) -> list[dict[str, Any]]:
    return [
        {"vector": base64.b64encode(one.astype("<f4").tobytes()).decode(), "version": "bench@1", "k": 5}
        for one in searched(seed, count)
    ]


def run_sketch(root: Path, options: argparse.Namespace) -> dict[str, Measured]:
    port = free_port()
    sketch = [sys.executable, "-m", "uvicorn", "sketch_app:app", "--port", str(port), "--no-access-log"]
    with running(sketch, port, "/", root):
        return {
            f"{rows} x 3 features": measure(root, port, "/v1/features", feature_bodies(rows), options)
            for rows in (1, 100)
        }


def run_feast(root: Path, options: argparse.Namespace) -> dict[str, Measured]:
    if options.feast is None:
        return {}
    port, feast = free_port(), str(Path(options.feast).parent / "feast")
    command = [feast, "-c", str(root / "feast"), "serve", "-p", str(port), "--no-access-log", "-w", "1"]
    path = "/get-online-features"
    with running(command, port, "/health", root) as began:
        print(f"feast answers {began.seconds:.2f} s after the start")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            told = http.post(path, json={"features": REFS[:1], "entities": {"user_id": ["u7"]}}).json()
            assert "intermediate" in json.dumps(told), told
        found = {f"{rows} x 3 features": measure(root, port, path, feature_bodies(rows), options) for rows in (1, 100)}
        found["100 vectors, JSON"] = measure(root, port, path, [vector_body()], options)
        # Feast has no Arrow: its one answer is what both of ours are compared with.
        return found | {"100 vectors, Arrow": found["100 vectors, JSON"]}


def run_ours(root: Path, options: argparse.Namespace) -> dict[str, Measured]:
    port = free_port()
    serve = [sys.executable, "-m", "lodestore", "serve", "--port", str(port)]
    with running(serve, port, "/readyz?part=features", root) as began:
        print(f"features ready {began.seconds:.2f} s after the start")
        while not answers(port, "/readyz"):
            time.sleep(0.02)
        checked(port)
        found = {
            f"{rows} x 3 features": measure(root, port, "/v1/features", feature_bodies(rows), options)
            for rows in (1, 100)
        }
        for name, accept in (("JSON", "application/json"), ("Arrow", ARROW)):
            found[f"100 vectors, {name}"] = measure(root, port, "/v1/features", [vector_body()], options, accept=accept)
        for connections in (1, options.connections):
            bodies = search_bodies(10 + connections, 4_000)
            name = f"vector search, {connections} connections"
            found[name] = measure(root, port, "/v1/search", bodies, options, connections=connections)
        if options.requests:
            flat(root, port, began, found["1 x 3 features"].rate, options)
        return found


def flat(root: Path, port: int, server: Started, rate: float, options: argparse.Namespace) -> None:
    before = server.memory_mb()
    measured = measure(root, port, "/v1/features", feature_bodies(1), options, seconds=options.requests / rate + 1)
    done, after = int(measured.rate * (options.requests / rate + 1)), server.memory_mb()
    print(f"memory: {before:.0f} MB before and {after:.0f} MB after {done:,} requests, {measured.errors} errors")


def middle(rounds: Sequence[dict[str, Measured]]) -> dict[str, Measured]:
    """Of each figure the middle one of the rounds, so that one round beside a busy neighbour decides nothing."""
    return {
        name: sorted((one[name] for one in rounds), key=lambda one: one.rate)[len(rounds) // 2] for name in rounds[0]
    }


def run(root: Path, options: argparse.Namespace) -> None:
    rounds = []
    for at in range(options.rounds):
        last = at == options.rounds - 1
        given = argparse.Namespace(**{**vars(options), "requests": options.requests if last else 0})
        rounds.append((run_bare(root, given), run_sketch(root, given), run_feast(root, given), run_ours(root, given)))
    bare, sketch, feast, ours = map(middle, zip(*rounds, strict=True))
    head = (
        "",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "errors",
        "bare",
        "of bare",
        "bare p50",
        "feast",
        "x feast",
        "goal",
        "bare x",
    )
    print(("{:32}" + "{:>11}" * 11).format(*head))
    for name, one in ours.items():
        least, other = {**bare, **sketch}.get(name), feast.get(name)
        cells = [f"{one.rate:,.0f}", f"{one.p50:.2f}", f"{one.p99:.2f}", str(one.errors)]
        cells += [f"{least.rate:,.0f}", f"{one.rate / least.rate:.2f}", f"{least.p50:.2f}"] if least else [""] * 3
        cells += [f"{other.rate:,.0f}", f"{one.rate / other.rate:.1f}"] if other else [""] * 2
        cells += [f"{GOALS[name]:.0f}" if name in GOALS else ""]
        # How many times the rate of Feast the bare sketch reaches: what this machine gives the stack at most.
        cells += [f"{least.rate / other.rate:.1f}" if least and other else ""]
        print(f"{name:32}" + "".join(f"{cell:>11}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1, help="each server is measured so often, in turn")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="for the memory; 0 leaves it out")
    parser.add_argument("--feast", help="the Python of Feast's environment")
    parser.add_argument("--keep", type=Path, help="the folder of the data, which is built when it is empty")
    parser.add_argument("--build", action="store_true", help="build the data of --keep and measure nothing")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; get it with: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        if not (root / "sketch").exists():
            make_project(root)
            if options.feast:
                make_feast(root, options.feast)
            make_sketch(root)
        if not options.build:
            run(root, options)


if __name__ == "__main__":
    main()
