"""A language model that speaks the OpenAI protocol, as a process of its own on the loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# What the server does is chosen by the name of the model; it counts the calls of each.
SERVER = """
import json, threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

calls = Counter()
never, go, left = threading.Event(), threading.Event(), threading.Event()
WORDS = ["A refund ", "takes five ", "days [2]."]
USAGE = {"prompt_tokens": 40, "completion_tokens": 7, "total_tokens": 47}

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_): ...

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        model = body["model"]
        calls[model] += 1
        if self.path != "/v1/chat/completions":
            return self.plain(404, {"error": "no such path"})
        if model == "locked" and self.headers.get("authorization") != "Bearer secret":
            return self.plain(401, {"error": {"message": "wrong key"}})
        if model in ("busy", "weary") and calls[model] < 3:
            return self.plain(429, {"error": "busy"}, {"retry-after": "7"})
        if model == "down":
            return self.plain(503, {"error": "down"})
        if model == "silent":
            never.wait(20)
            return None
        if model == "odd":
            return self.plain(200, {"hello": 1})
        if model == "html":
            return self.page()
        if model == "go":
            go.set()
        if model == "left":
            return self.plain(200, {"choices": [{"message": {"content": str(left.wait(10))}}]})
        if body.get("stream"):
            return self.events(body, cut=model == "cut", bad=model == "bad")
        text = "".join(WORDS)
        if model == "echo":
            text = json.dumps(body)
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return self.plain(200, {"choices": [choice], "usage": USAGE})

    def plain(self, status, value, headers=()):
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, one in dict(headers).items():
            self.send_header(name, one)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def page(self):
        data = b"<html>proxy</html>"
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def events(self, body, cut, bad):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        said = [{"choices": [{"delta": {"content": one}}]} for one in WORDS]
        if body["model"] == "endless":
            return self.endless(said[0])
        if body["model"] == "held":
            self.tell(said[0])
            go.wait(20)
            said = said[1:]
        if cut:
            said = said[:1]
        elif bad:
            said = [*said[:1], {"error": {"message": "out of memory"}}]
        else:
            said.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            if body["stream_options"]["include_usage"]:
                said.append({"choices": [], "usage": USAGE})
        for one in said:
            self.tell(one)
        if not cut and not bad:
            self.wfile.write(b"data: [DONE]\\n\\n")
        self.close_connection = True

    def tell(self, one):
        self.wfile.write(b": a comment\\n\\ndata: " + json.dumps(one).encode() + b"\\n\\n")

    def endless(self, one):
        try:
            while not left.wait(0.01):
                self.tell(one)
        except OSError:
            left.set()
        self.close_connection = True

class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

server = Server(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def speaking() -> Iterator[str]:
    """The server runs; gives the URL of its API."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.kill()
