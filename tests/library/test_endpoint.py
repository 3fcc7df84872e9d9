"""A model behind HTTP, against a real server process on loopback that is busy, slow and wrong on demand."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lodestore.adapters.endpoint import EndpointEmbedder
from lodestore.errors import BadVectorError, EndpointError
from lodestore.models import EmbeddingModel, identify
from lodestore.project import open_project

SERVER = textwrap.dedent("""
    import hashlib, json, sys
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    asked = []

    def vector(text):
        digest = hashlib.sha256(text.encode()).digest()
        return [byte / 255 + 0.01 for byte in digest[:4]]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.answer(200, {"asked": asked})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"n": len(body["input"]), "key": self.headers.get("Authorization"), "model": body["model"]})
            first = body["input"][0] if body["input"] else ""
            if "busy" in first and len(asked) < 3:
                return self.answer(429, {"error": "slow down"}, {"Retry-After": "0"})
            if "broken" in first:
                return self.answer(503, {})
            if "forbidden" in first:
                return self.answer(401, {"error": "no such key"})
            if "html" in first:
                return self.answer(200, "<html>", raw=True)
            rows = [{"index": i, "embedding": vector(text)} for i, text in enumerate(body["input"])]
            if "few" in first:
                rows = rows[1:]
            self.answer(200, {"data": rows[::-1]})

        def answer(self, status, value, headers=None, raw=False):
            data = value.encode() if raw else json.dumps(value).encode()
            self.send_response(status)
            for name, one in (headers or {}).items():
                self.send_header(name, one)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
""")


@pytest.fixture
def url() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield f"http://127.0.0.1:{int(running.stdout.readline())}/v1"
        running.kill()


@pytest.fixture
def pauses() -> list[float]:
    return []


def embedder_of(url: str, pauses: list[float], **more: object) -> EndpointEmbedder:
    model = EmbeddingModel("remote", "1", url, dimension=4, model="tiny", api_key="secret", timeout=5.0, **more)
    return EndpointEmbedder(model, identify(model, root=Path()), pause=pauses.append)


def test_vectors_come_back_in_the_order_of_the_texts(url: str, pauses: list[float]) -> None:
    embedder = embedder_of(url, pauses)

    together = embedder.embed_documents(["one", "two", "three"])
    alone = embedder.embed_documents(["two"])

    assert together.shape == (3, 4)
    assert np.allclose(together[1], alone[0])
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0)


def test_many_texts_go_in_several_requests(url: str, pauses: list[float]) -> None:
    assert embedder_of(url, pauses).embed_documents([f"text {n}" for n in range(300)]).shape == (300, 4)


def test_no_text_is_no_request(url: str, pauses: list[float]) -> None:
    assert embedder_of(url, pauses).embed_documents([]).shape == (0, 4)


def test_a_busy_server_is_asked_again(url: str, pauses: list[float]) -> None:
    assert embedder_of(url, pauses).embed_documents(["busy"]).shape == (1, 4)
    assert len(pauses) >= 2


def test_a_server_that_stays_broken_is_told_with_the_way_on(url: str, pauses: list[float]) -> None:
    with pytest.raises(EndpointError, match=r"remote@1.*503.*run again"):
        embedder_of(url, pauses).embed_documents(["broken"])

    growing = [one for one in pauses if one]
    assert growing == sorted(growing)
    assert len(growing) == 5


def test_nobody_there_is_told_too(pauses: list[float]) -> None:
    with pytest.raises(EndpointError, match="did not answer"):
        embedder_of("http://127.0.0.1:9/v1", pauses).embed_documents(["x"])


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        ("forbidden", EndpointError, "401"),
        ("html", EndpointError, "JSON"),
        ("few", BadVectorError, "gave 1 vectors for 2"),
    ],
)
def test_a_wrong_answer_is_an_error_that_says_what_came(
    url: str, pauses: list[float], text: str, error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what) as told:
        embedder_of(url, pauses).embed_documents([text, "second"])

    assert "secret" not in str(told.value)


def test_a_whole_project_can_run_on_an_endpoint(url: str, make_project) -> None:
    settings = f"""
        [[documents]]
        name = "handbook"
        uri = "docs/*.md"

        [embedding.features]
        content = "remote@1"

        [[embedding.models]]
        name = "remote"
        version = "1"
        source = "{url}"
        dimension = 4
        """
    project = open_project(make_project(settings=settings))
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()
    (filled,) = project.pipeline.fill_maintained()
    project.pipeline.promote_first()

    assert filled.embedded == 4
    assert len(project.store.search("coffee", k=2, mode="vector").hits) == 2
