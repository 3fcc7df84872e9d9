"""Answers by a language model that speaks the OpenAI protocol, in a process of its own on the loopback."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from lodestore.answer import LanguageModel, aanswer, answer, stream
from lodestore.errors import EndpointError, SettingsError, UnavailableError

# What the server does is chosen by the name of the model; it counts the calls of each.
SERVER = """
import json, threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

calls = Counter()
never = threading.Event()
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
        if model == "busy" and calls[model] < 3:
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
        if cut:
            said = said[:1]
        elif bad:
            said = [*said[:1], {"error": {"message": "out of memory"}}]
        else:
            said.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            if body["stream_options"]["include_usage"]:
                said.append({"choices": [], "usage": USAGE})
        for one in said:
            self.wfile.write(b": a comment\\n\\ndata: " + json.dumps(one).encode() + b"\\n\\n")
        if not cut and not bad:
            self.wfile.write(b"data: [DONE]\\n\\n")
        self.close_connection = True

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def url():
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.kill()


@dataclass
class Made:
    """A context, as far as an answer looks at it."""

    context_id: str = "c1"
    messages: tuple = ({"role": "user", "content": "when is a refund paid?"},)
    hits: tuple = ("first", "second", "third")


@dataclass
class Store:
    """A store that remembers what it was told."""

    asked: list = field(default_factory=list)
    told: list = field(default_factory=list)
    broken: bool = False

    def context(self, query, **options):
        self.asked.append((query, options))
        return Made()

    def outcome(self, context_id, **said):
        if self.broken:
            message = "the store is away"
            raise UnavailableError(message)
        self.told.append((context_id, said))
        return True


@pytest.fixture
def model(url):
    made = []

    def make(name, **options):
        options = {"wait": lambda _: None, **options}
        made.append(LanguageModel(url, name, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_an_answer_cites_hits_and_reports_its_time_and_tokens(model):
    store = Store()

    done = answer(store, "when is a refund paid?", model("good"), user_id="ada", k=3)

    ((context_id, said),) = store.told
    assert done.text == "A refund takes five days [2]."
    assert done.cited == ("second",)
    assert store.asked == [("when is a refund paid?", {"user_id": "ada", "k": 3})]
    assert (context_id, said["event_id"], said["tokens"]) == ("c1", "c1/answer", 47)
    assert said["latency_ms"] == done.completion.latency_ms > 0
    assert done.reported


def test_what_the_user_thought_is_reported_under_an_event_of_its_own(model):
    store = Store()
    done = answer(store, "why?", model("good"))

    assert done.report(accepted=True, rating=5)
    assert done.report(accepted=False, event_id="mine")

    events = [said["event_id"] for _, said in store.told]
    assert len(set(events)) == 3
    assert store.told[1][1] | {"event_id": ""} == {"event_id": "", "accepted": True, "rating": 5}
    assert events[2] == "mine"


def test_a_stream_gives_the_words_as_they_come_and_the_whole_at_the_end(model):
    store = Store()

    coming = stream(store, "why?", model("good"))
    pieces = list(coming)

    assert pieces == ["A refund ", "takes five ", "days [2]."]
    assert (coming.answer.text, coming.answer.completion.tokens) == ("".join(pieces), 47)
    assert coming.answer.completion.finish_reason == "stop"
    assert len(store.told) == 1


def test_a_stream_that_nobody_read_is_read_for_its_answer(model):
    assert stream(Store(), "why?", model("good")).answer.text == "A refund takes five days [2]."


@pytest.mark.parametrize(("name", "told"), [("cut", "broke off after 9"), ("bad", "out of memory")])
def test_a_stream_that_breaks_off_is_an_error_and_reports_nothing(model, name, told):
    store = Store()
    coming = stream(store, "why?", model(name))

    with pytest.raises(EndpointError, match=told):
        list(coming)
    with pytest.raises(EndpointError, match="ask again"):
        _ = coming.answer
    assert store.told == []


def test_a_busy_endpoint_is_asked_again_after_the_time_that_it_names(model):
    waited = []

    done = model("busy", wait=waited.append).complete([{"role": "user", "content": "why?"}])

    assert done.text.startswith("A refund")
    assert waited == [7.0, 7.0]


def test_an_endpoint_that_stays_down_is_an_error_after_its_retries(model):
    waited = []

    with pytest.raises(EndpointError, match=r"answered 503.*down"):
        model("down", wait=waited.append, retries=3).complete([])

    assert waited == [0.25, 0.5, 1.0]


def test_an_endpoint_that_says_nothing_runs_into_the_timeout(model):
    with pytest.raises(EndpointError, match="cannot be reached: ReadTimeout"):
        model("silent", timeout=0.05, retries=0).complete([])


def test_an_endpoint_that_is_not_there_is_named(model):
    away = LanguageModel("http://127.0.0.1:1/v1", "any", retries=0)

    with pytest.raises(EndpointError, match=r"http://127.0.0.1:1/v1 cannot be reached"):
        away.complete([])
    away.close()


def test_a_key_is_sent_and_a_wrong_one_is_not_tried_twice(model):
    waited = []

    assert model("locked", api_key="secret").complete([]).tokens == 47
    with pytest.raises(EndpointError, match="answered 401") as raised:
        model("locked", api_key="other", wait=waited.append).complete([])
    assert waited == []
    assert "other" not in str(raised.value)


@pytest.mark.parametrize("name", ["odd", "html"])
def test_an_answer_in_another_form_is_an_error_that_shows_it(model, name):
    with pytest.raises(EndpointError, match=r"hello|proxy"):
        model(name).complete([])


def test_options_of_the_protocol_reach_the_endpoint_and_those_of_the_sdk_are_refused(model):
    said = answer(Store(), "why?", model("echo", temperature=0), options={"max_tokens": 9}).text

    assert '"temperature": 0' in said
    assert '"max_tokens": 9' in said
    with pytest.raises(SettingsError, match="stream: set by the SDK"):
        model("echo").complete([], stream=True)
    with pytest.raises(SettingsError, match="write https"):
        LanguageModel("localhost:11434", "any")


def test_an_answer_whose_outcome_could_not_be_stored_is_still_an_answer(model):
    done = answer(Store(broken=True), "why?", model("good"))

    assert done.text.startswith("A refund")
    assert not done.reported


def test_what_is_not_recorded_reports_nothing(model):
    store = Store()

    assert not answer(store, "why?", model("good"), record=False).reported
    assert store.told == []


class AwaitedStore(Store):
    """The same store, to be awaited."""

    async def context(self, query, **options):
        return super().context(query, **options)

    async def outcome(self, context_id, **said):
        return super().outcome(context_id, **said)


@pytest.mark.parametrize("kind", [Store, AwaitedStore])
def test_an_answer_can_be_awaited_from_either_kind_of_store(model, kind):
    store, asked = kind(), model("good")

    async def many():
        return await asyncio.gather(*(aanswer(store, f"why {n}?", asked, user_id="ada") for n in range(4)))

    done = asyncio.run(many())

    assert [one.text for one in done] == ["A refund takes five days [2]."] * 4
    assert all(one.reported and one.cited == ("second",) for one in done)
    assert {said["event_id"] for _, said in store.told} == {"c1/answer"}
    assert asyncio.run(aanswer(kind(broken=True), "why?", asked)).reported is False
    assert asyncio.run(aanswer(kind(), "why?", asked, record=False)).reported is False
    with pytest.raises(EndpointError, match="down"):
        asyncio.run(aanswer(store, "why?", model("down", retries=0)))
