"""Whatever is wrong with a new model, its endpoint, its golden set or the disk: a clear word, and live stays live."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lodestore.errors import LodestoreError
from lodestore.gate import Verdict
from lodestore.project import Project, open_project
from lodestore.rollout import decide

MakeProject = Callable[..., Path]
FACTORY = """
import numpy as np

class Model:
    def __init__(self, spoil):
        self.spoil = spoil
    def embed_documents(self, texts):
        sound = np.array([[len(text), text.count("a") + 1, text.count("e") + 1, 1.0] for text in texts])
        return self.spoil(sound / np.linalg.norm(sound, axis=1, keepdims=True))
    embed_queries = embed_documents

def nan(_): return Model(lambda v: v * np.nan)
def infinite(_): return Model(lambda v: v * np.inf)
def zeros(_): return Model(lambda v: v * 0)
def fewer(_): return Model(lambda v: v[:-1])
def wider(_): return Model(lambda v: np.hstack([v, v]))
def raising(_): return Model(lambda v: 1 / 0)
def unloadable(_): raise OSError("weights.bin is truncated")
def sound(_): return Model(lambda v: v)
"""
BAD = {
    "nan": "NaN",
    "infinite": "infinite",
    "zeros": "zero vectors",
    "fewer": "one row per text",
    "wider": "writes 8 numbers, 4 are registered",
    "raising": "ZeroDivisionError",
    "unloadable": r"weights\.bin is truncated",
    "missing": "missing",
}


def ingest(folder: Path) -> Project:
    project = open_project(folder)
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()
    project.pipeline.fill_maintained()
    project.pipeline.promote_first()
    return project


@pytest.fixture
def folder(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A live project, and a module of models none of which is right but one."""
    place = make_project("\n[gate]\nmin_queries = 1\n")
    module = f"own_models_{abs(hash(request.node.name))}"
    (place / f"{module}.py").write_text(FACTORY, encoding="utf-8")
    monkeypatch.syspath_prepend(str(place))
    (place / "module.txt").write_text(module, encoding="utf-8")
    ingest(place)
    return place


def declaring(folder: Path, source: str, **more: object) -> Project:
    """The project with its content declared as another model."""
    file = folder / "lodestore.toml"
    text = file.read_text(encoding="utf-8").replace('content = "words@1"', 'content = "new@1"')
    options = "".join(f"\n{name} = {json.dumps(value)}" for name, value in more.items())
    text += f'\n[[embedding.models]]\nname = "new"\nversion = "1"\nsource = "{source}"{options}\n'
    file.write_text(text, encoding="utf-8")
    return open_project(folder)


def answers(folder: Path) -> tuple[int, str, list[str]]:
    found = open_project(folder).store.search("when are trains booked", k=3)
    return found.release, found.version, [hit.chunk_id for hit in found.hits]


@pytest.mark.parametrize("how", BAD)
def test_a_model_that_is_no_good_is_told_at_the_plan_or_the_build_and_live_stays(folder: Path, how: str) -> None:
    before = answers(folder)
    module = (folder / "module.txt").read_text()
    project = declaring(folder, f"python:{module}:{how}", dimension=4)

    with pytest.raises(LodestoreError, match=BAD[how]) as told:
        project.pipeline.fill(project.changes.candidate("content"))

    assert "new@1" in str(told.value)
    assert answers(folder) == before
    assert open_project(folder).releases.live().generation == 1


def test_a_model_that_is_no_good_is_told_when_it_is_priced(folder: Path) -> None:
    project = declaring(folder, f"python:{(folder / 'module.txt').read_text()}:nan", dimension=4)

    with pytest.raises(LodestoreError, match="NaN"):
        project.changes.plan(project.changes.candidate("content"))


SERVER = textwrap.dedent("""
    import json, sys, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    asked = {"requests": 0, "texts": 0}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked["requests"] += 1
            mode = open(sys.argv[1]).read()
            if mode == "limit" and asked["requests"] % 2:
                return self.answer(429, {}, {"Retry-After": "0"})
            if mode == "hang" and asked["texts"] >= 2:
                time.sleep(3)
            asked["texts"] += len(body["input"])
            rows = [{"index": i, "embedding": [len(t), t.count("a") + 1, t.count("e") + 1]}
                    for i, t in enumerate(body["input"])]
            self.answer(200, {"data": rows})

        def do_GET(self):
            self.answer(200, asked)

        def answer(self, status, value, headers=None):
            data = json.dumps(value).encode()
            self.send_response(status)
            for name, one in (headers or {}).items():
                self.send_header(name, one)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data)
            except OSError:
                pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
""")


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real server, and the file that says how it behaves."""
    mode = tmp_path / "mode"
    mode.write_text("sound")
    command = [sys.executable, "-c", SERVER, str(mode)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield f"http://127.0.0.1:{int(running.stdout.readline())}/v1", mode
        running.kill()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the embedder waits between its tries, without the waiting."""
    from lodestore.adapters import endpoint as module

    waited: list[float] = []
    monkeypatch.setitem(module.EndpointEmbedder.__init__.__kwdefaults__, "pause", waited.append)
    return waited


def asked(url: str) -> dict[str, int]:
    import httpx

    return httpx.get(url).json()


def test_an_endpoint_that_limits_the_rate_is_asked_again_until_all_is_there(
    folder: Path, endpoint: tuple[str, Path], no_pauses: list[float]
) -> None:
    url, mode = endpoint
    mode.write_text("limit")
    project = declaring(folder, url, dimension=3)

    filled = project.pipeline.fill(project.changes.candidate("content"))

    assert (filled.embedded, filled.rows) == (4, 4)
    assert no_pauses


def test_an_endpoint_that_times_out_keeps_what_it_gave_and_the_next_run_goes_on(
    folder: Path, endpoint: tuple[str, Path], no_pauses: list[float]
) -> None:
    url, mode = endpoint
    before = answers(folder)
    mode.write_text("hang")
    small = (
        (folder / "lodestore.toml")
        .read_text()
        .replace("[embedding.features]", "[embedding]\nbatch_tokens = 1\n[embedding.features]")
    )
    (folder / "lodestore.toml").write_text(small)
    project = declaring(folder, url, dimension=3, timeout=0.3)
    version = project.changes.candidate("content")

    with pytest.raises(LodestoreError, match=r"did not answer in 6 tries \(ReadTimeout.*run again"):
        project.pipeline.fill(version)
    kept = project.tables.count(version.table)
    mode.write_text("sound")
    filled = open_project(folder).pipeline.fill(version)

    assert kept == 2
    assert (filled.embedded, filled.rows) == (2, 4)
    assert sorted(one for one in no_pauses if one) == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert answers(folder) == before


LIMITED = """
import resource, signal, sys
from lodestore.errors import LodestoreError
from lodestore.project import open_project

project = open_project(sys.argv[1])
version = project.changes.candidate("content")
project.changes._cut(version)
# What a full disk does to a writer, for every file that grows beyond this.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    project.pipeline.fill(version)
except LodestoreError as error:
    print(f"{type(error).__name__}: {error}")
"""


def test_when_the_files_cannot_grow_any_more_it_is_told_and_the_next_run_ends_it(folder: Path) -> None:
    for n in range(150):
        (folder / "docs" / f"more{n}.md").write_text(f"# More {n}\n\nA text of its own, number {n}: {n * 7919}.\n")
    ingest(folder)
    before = answers(folder)
    project = declaring(folder, f"python:{(folder / 'module.txt').read_text()}:sound", dimension=4)

    limited = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder), "8192"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
    )  # fmt: skip
    after = answers(folder)
    filled = project.pipeline.fill(project.changes.candidate("content"))

    assert limited.returncode == 0, limited.stderr[-2_000:]
    assert "StoreWriteError: table emb__content__new__1" in limited.stdout
    assert "free some room" in limited.stdout
    assert after == before
    assert filled.rows == 154
    assert project.pipeline.health(project.changes.candidate("content")).healthy


def test_golden_queries_that_name_nobody_stop_the_gate_and_no_hold_is_written(folder: Path) -> None:
    golden = folder / "golden"
    golden.mkdir()
    (golden / "q.jsonl").write_text('{"id": "1", "text": "trains"}\n', encoding="utf-8")
    (golden / "q.tsv").write_text("query-id\tcorpus-id\tscore\n1\ttravle.md\t1\n", encoding="utf-8")
    file = folder / "lodestore.toml"
    file.write_text(file.read_text() + '\n[golden]\nqueries = "golden/q.jsonl"\nqrels = "golden/q.tsv"\n')
    project = declaring(folder, f"python:{(folder / 'module.txt').read_text()}:sound", dimension=4)
    version = project.changes.candidate("content")
    project.pipeline.fill(version)

    with pytest.raises(LodestoreError, match=r"travle\.md"):
        project.changes.gate(version)

    assert project.releases.holds() == []
    assert project.releases.live().generation == 1
    assert len(decide(project.changes.state()).launches) == 1


def test_a_drop_and_a_way_back_to_the_same_version_never_both_win(folder: Path) -> None:
    """Whoever is first wins, the other one is told; what is live always has its table."""
    project = declaring(folder, f"python:{(folder / 'module.txt').read_text()}:sound", dimension=4)
    text = (folder / "lodestore.toml").read_text()
    models = [("third", "python:" + (folder / "module.txt").read_text() + ":sound")]
    more = "".join(
        f'\n[[embedding.models]]\nname = "{n}"\nversion = "1"\nsource = "{s}"\ndimension = 4\nquery_prompt = "q "\n'
        for n, s in models
    )
    (folder / "lodestore.toml").write_text(text + more)
    project = open_project(folder)
    old = project.versions.registered(project.releases.live().embeddings["content"])
    target = project.releases.live()
    others = [project.changes.candidate("content", label) for label in ("new@1", "third@1")]
    for one in others:
        project.pipeline.fill(one)
        assert project.changes.gate(one).verdict is Verdict.INSUFFICIENT_QUERIES
    outcomes = []
    for turn in range(8):
        project.pipeline.fill(old)
        for one in others:
            if project.releases.live().embeddings["content"] != one.key:
                project.changes.promote(one, author=f"{turn}", by_name=True, accept_loss=True, reason="a test")
        outcomes.append(raced(folder, old.label, target.generation, turn))
        live = open_project(folder)
        version = live.versions.registered(live.releases.live().embeddings["content"])
        assert live.tables.count(version.table), outcomes
        assert live.store.search("trains", k=1).hits

    assert all(sum(one.values()) == 1 for one in outcomes), outcomes


def raced(folder: Path, label: str, generation: int, turn: int) -> dict[str, bool]:
    """Both at once, each on a connection of its own; who starts first alternates."""
    projects = {"drop": open_project(folder), "restore": open_project(folder)}
    version = projects["drop"].versions.find("content", label)
    target = projects["restore"].releases.generation(generation)
    acts: dict[str, Callable[[], object]] = {
        "drop": lambda: projects["drop"].changes.drop(version),
        "restore": lambda: projects["restore"].changes.restore(target, author="me"),
    }
    won: dict[str, bool] = {}
    barrier = threading.Barrier(2)

    def run(name: str) -> None:
        barrier.wait()
        try:
            acts[name]()
        except LodestoreError:
            won[name] = False
        else:
            won[name] = True

    order = ["drop", "restore"] if turn % 2 else ["restore", "drop"]
    threads = [threading.Thread(target=run, args=(name,)) for name in order]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won
