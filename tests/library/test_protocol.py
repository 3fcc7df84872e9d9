"""What arrives whole is answered at once, everything else the usual way; who calls cannot tell one from the other."""

from __future__ import annotations

import asyncio
import gc
import http.client
import logging
import socket
import threading
import time
import weakref
from contextlib import contextmanager
from itertools import pairwise

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from lodestore.server.outbox import PATIENCE_SECONDS, Outbox
from lodestore.server.protocol import UVICORN, DirectProtocol, Finished
from tests.served import listening

WAIT = b"wait"


class Echo:
    """Answers a body with itself, and says in a header which way it was answered; one that begins with `wait` has to wait."""

    def __init__(self):
        self.at_once = {b"/echo": self._now}
        self.scopes = []

    def _now(self, scope, body):
        self.scopes.append(scope)
        if body.startswith(WAIT):
            return None
        return Finished(200, b"content-length: %d\r\nway: at once\r\n" % len(body), body)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for word in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{word}.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if body.startswith(WAIT):
            await asyncio.sleep(0.001)
        headers = [(b"content-length", b"%d" % len(body)), (b"way", b"usual")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


@pytest.fixture(scope="module")
def address():
    with listening(Echo()) as client:
        yield "127.0.0.1", client.base_url.port


@contextmanager
def line(address, **options):
    with socket.create_connection(address, timeout=20, **options) as one:
        yield one


def request(body, *more, path="/echo", method="POST", version="1.1"):
    head = [f"{method} {path} HTTP/{version}", "Host: here", f"Content-Length: {len(body)}", *more, "", ""]
    return "\r\n".join(head).encode() + body


def answers(one, count):
    """So many answers, in the order in which they come: status, way and body of each."""
    stream, found = one.makefile("rb"), []
    for _ in range(count):
        answer = _Answer(stream)
        found.append((answer.status, answer.headers.get("way"), answer.body))
    return found


class _Answer:
    def __init__(self, stream):
        status = stream.readline()
        assert status.startswith(b"HTTP/1.1 "), status
        self.status = int(status.split()[1])
        self.headers = http.client.parse_headers(stream)
        self.body = stream.read(int(self.headers["content-length"]))


def test_a_request_that_comes_whole_is_answered_at_once_in_one_piece(address):
    with line(address) as one:
        for n in range(3):
            one.sendall(request(b"body %d" % n))
            whole = one.recv(65_536)
            assert whole == b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nway: at once\r\n\r\nbody %d" % n


@pytest.mark.parametrize(
    "sent",
    [
        request(b"x", path="/echo?"),
        request(b"x", path="/echo?a=1"),
        request(b"x", path="/other"),
        request(b"x", path="/echo/"),
        request(b"x", path="//echo"),
        request(b"x", path="http://here/echo"),
        request(b"x", method="PUT"),
        request(b"x", method="DELETE"),
        request(b"x", version="1.0"),
        request(b"x", "Connection: close"),
        request(b"x", "Expect: 100-continue"),
        request(b"wait"),
    ],
    ids=lambda one: one.partition(b"Host")[0].decode().strip() + one.partition(b": 1\r\n")[2].decode().strip(),
)
def test_what_is_out_of_the_ordinary_goes_the_usual_way(address, sent):
    with line(address) as one:
        one.sendall(sent)
        if b"Expect" in sent:
            interim = b"HTTP/1.1 100 Continue\r\n\r\n"
            assert one.recv(len(interim)) == interim
        assert answers(one, 1) == [(200, "usual", sent.rpartition(b"\r\n")[2])]
        if b"close" in sent or b"HTTP/1.0" in sent:
            assert one.recv(1) == b""


def test_a_body_in_chunks_that_comes_whole_is_answered_at_once(address):
    with line(address) as one:
        one.sendall(
            b"POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
        )
        assert answers(one, 1) == [(200, "at once", b"abcde")]


@pytest.mark.parametrize(("size", "way"), [(3_000, "at once"), (300_000, "usual")])
def test_of_a_body_that_comes_in_parts_none_is_lost_and_a_long_one_goes_the_usual_way(address, size, way):
    body = b"0123456789" * (size // 10)
    sent = request(body)
    with line(address) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(0, len(sent), size // 4):
            one.sendall(sent[place : place + size // 4])
            time.sleep(0.03)
        assert answers(one, 1) == [(200, way, body)]


def test_head_and_body_of_usual_clients_come_apart_and_are_answered_at_once(address):
    with line(address) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.sendall(request(b"x")[:-1])
        time.sleep(0.05)
        one.sendall(b"x")
        assert answers(one, 1) == [(200, "at once", b"x")]


def test_of_many_requests_that_come_together_one_is_answered_at_once_so_that_others_get_their_turn(address):
    with line(address) as one:
        one.sendall(b"".join(request(b"%d" % n) for n in range(20)))
        found = answers(one, 20)

    assert [body for _, _, body in found] == [b"%d" % n for n in range(20)]
    assert [way for _, way, _ in found] == ["at once", *["usual"] * 19]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([b"", b"a", b"wait 1", b"b" * 3_000, b"wait" + b"c" * 70_000]), min_size=1, max_size=8),
    st.lists(st.floats(0, 1), max_size=6),
    st.booleans(),
)
def test_answers_come_in_the_order_of_the_requests_however_these_are_cut(address, bodies, cuts, pauses):
    sent = b"".join(map(request, bodies))
    places = sorted({0, len(sent), *(int(one * len(sent)) for one in cuts)})
    with line(address) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writer = threading.Thread(target=_send, args=(one, sent, places, 0.003 if pauses else 0))
        writer.start()
        found = answers(one, len(bodies))
        writer.join()

    assert [(status, body) for status, _, body in found] == [(200, one) for one in bodies]


def _send(one, sent, places, pause):
    for start, end in pairwise(places):
        one.sendall(sent[start:end])
        time.sleep(pause)


def test_what_follows_an_answer_at_once_does_not_overtake_it(address):
    with line(address) as one:
        one.sendall(request(b"first") + b"\x00 no HTTP \r\n\r\n")
        found = answers(one, 2)
        assert one.recv(1) == b""

    assert [found[0], found[1][0]] == [(200, "at once", b"first"), 400]


def test_who_says_that_nothing_more_comes_still_gets_the_answer(address):
    with line(address) as one:
        one.sendall(request(b"last words"))
        one.shutdown(socket.SHUT_WR)
        assert answers(one, 1) == [(200, "at once", b"last words")]


def test_a_caller_who_goes_away_harms_nobody_else(address):
    for _ in range(30):
        with line(address) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, no farewell
            one.sendall(request(b"gone"))
    with line(address) as one:
        one.sendall(request(b"here"))
        assert answers(one, 1) == [(200, "at once", b"here")]


def test_who_does_not_read_is_answered_no_further_until_he_does(address):
    body = b"x" * 60_000
    with line(address) as one:
        writer = threading.Thread(target=lambda: [one.sendall(request(body)) for _ in range(1_000)])
        writer.start()
        writer.join(1.0)
        assert writer.is_alive(), "the server took all without anybody reading its answers"
        found = answers(one, 1_000)
        writer.join()

    assert [body] * 1_000 == [body for _, _, body in found]


def test_a_request_half_of_which_has_come_is_finished_before_the_server_stops():
    sent = request(b"all of it")
    with listening(Echo()) as client:
        one = socket.create_connection(("127.0.0.1", client.base_url.port), timeout=20)
        one.sendall(sent[:-4])
        time.sleep(0.2)
        threading.Timer(0.5, one.sendall, [sent[-4:]]).start()
    with one:
        assert answers(one, 1) == [(200, "usual", b"all of it")]


@pytest.mark.parametrize(
    "options",
    [{"server_header": True}, {"headers": [("x-own", "1")]}, {"limit_concurrency": 100}],
    ids=lambda one: next(iter(one)),
)
def test_what_uvicorn_adds_to_every_answer_is_added(options):
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        _running(uvicorn.Config(Echo(), log_config=None, **{**UVICORN, **options}), door),
        line(door.getsockname()) as one,
    ):
        one.sendall(request(b"x"))
        assert answers(one, 1) == [(200, "usual", b"x")]


@contextmanager
def _running(config, door):
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(30)


def test_an_application_that_answers_nothing_at_once_is_served_as_by_uvicorn_itself():
    app = Echo()
    app.at_once = {}
    with listening(app) as client:
        assert client.post("/echo", content=b"x").headers["way"] == "usual"


def test_the_scope_says_who_calls_and_with_which_headers(address):
    app = Echo()
    with listening(app) as client:
        client.post("/echo", content=b"x", headers={"Authorization": "Bearer k"})

    (scope,) = app.scopes
    assert scope["client"][0] == "127.0.0.1"
    assert (b"authorization", b"Bearer k") in scope["headers"]


# -- one connection, byte by byte: what no socket could bring about at will


class Wire:
    """A transport that remembers what was written."""

    def __init__(self):
        self.written, self.closed, self.protocol = b"", False, None

    def get_extra_info(self, *_):
        return None

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    def write(self, data):
        assert not self.closed, "written to a closed connection"
        self.written += data

    def pause_reading(self):
        pass

    resume_reading = pause_reading

    def set_protocol(self, protocol):
        self.protocol = protocol


def connected(app=None):
    config = uvicorn.Config(app or Echo(), log_config=None, **UVICORN)
    config.load()
    protocol, wire = DirectProtocol(config, ServerState(), {}, asyncio.get_running_loop()), Wire()
    protocol.connection_made(wire)
    return protocol, wire


def in_a_loop(work):
    """Run it in a loop, with the warnings of what was left behind as errors."""
    asyncio.run(work())


@pytest.mark.parametrize("end", ["eof_received", "shutdown", "timeout_keep_alive_handler"])
def test_whatever_ends_a_connection_comes_after_its_answer(end):
    async def run():
        protocol, wire = connected()
        protocol.data_received(request(b"x"))
        assert wire.written == b""
        getattr(protocol, end)()
        assert wire.written.endswith(b"way: at once\r\n\r\nx")
        await asyncio.sleep(0)
        assert wire.written.count(b"HTTP/1.1") == 1

    in_a_loop(run)


def test_while_the_caller_does_not_read_nothing_is_answered_at_once():
    async def run():
        protocol, wire = connected()
        protocol.pause_writing()
        protocol.data_received(request(b"x"))
        await asyncio.sleep(0.01)
        assert wire.written == b""
        protocol.resume_writing()
        await asyncio.sleep(0.01)
        assert b"way: usual" in wire.written

    in_a_loop(run)


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_an_upgrade_is_for_uvicorn_to_answer(upgrade):
    async def run():
        app = Echo()
        protocol, _ = connected(app)
        protocol.data_received(request(b"", "Connection: Upgrade", f"Upgrade: {upgrade}"))
        await asyncio.sleep(0.01)
        assert not app.scopes

    in_a_loop(run)


def test_answers_at_once_are_counted_and_the_connection_is_closed_when_nothing_comes_for_long():
    async def run():
        protocol, wire = connected()
        for _ in range(3):
            protocol.data_received(request(b"x"))
        assert protocol.server_state.total_requests == 3
        protocol.timeout_keep_alive_task.cancel()
        protocol.timeout_keep_alive = 0.01
        protocol.data_received(request(b"x"))
        await asyncio.sleep(0.05)
        assert wire.closed

    in_a_loop(run)


def test_what_fails_to_answer_at_once_is_answered_the_usual_way_and_told_in_the_log(caplog):
    class Broken(Echo):
        def _now(self, scope, body):
            raise ValueError(scope, body)

    async def run():
        protocol, wire = connected(Broken())
        protocol.data_received(request(b"x"))
        await asyncio.sleep(0.01)
        assert b"200 OK" in wire.written
        assert b"way: usual" in wire.written

    logging.getLogger("lodestore").propagate = True
    in_a_loop(run)
    assert [one.exc_info[0] for one in caplog.records if one.exc_info] == [ValueError]


def test_a_request_that_turns_out_to_be_no_http_leaves_nothing_behind():
    async def run():
        protocol, wire = connected()
        protocol.data_received(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n")
        assert wire.written.startswith(b"HTTP/1.1 400")
        protocol.shutdown()
        assert not protocol.tasks

    in_a_loop(run)


# -- the outbox


class Line:
    """A transport that remembers what was written when."""

    def __init__(self, written, *, gone=False):
        self.written, self.gone = written, gone

    def is_closing(self):
        return self.gone

    def write(self, data):
        self.written.append(data)


def test_answers_made_together_leave_together_in_their_order_and_none_to_who_has_gone():
    written, seen = [], []

    async def run():
        outbox = Outbox.of(asyncio.get_running_loop())
        assert Outbox.of(asyncio.get_running_loop()) is outbox
        for n, gone in enumerate([False, True, False]):
            outbox.add(Line(written, gone=gone), b"%d" % n)
        seen.extend(written)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert (seen, written) == ([], [b"0", b"2"])


def test_a_connection_that_cannot_be_written_to_costs_no_other_its_answer():
    class Broken(Line):
        aborted = False

        def write(self, data):
            raise OSError(data)

        def abort(self):
            self.aborted = True

    written, broken = [], Broken([])

    async def run():
        outbox = Outbox.of(asyncio.get_running_loop())
        for one in (Line(written), broken, Line(written)):
            outbox.add(one, b"x")
        await asyncio.sleep(0)

    asyncio.run(run())
    assert (written, broken.aborted) == ([b"x", b"x"], True)


def test_a_loop_that_has_ended_is_not_kept():
    async def run():
        loop = asyncio.get_running_loop()
        Outbox.of(loop).add(Line([]), b"x")
        await asyncio.sleep(0)
        return weakref.ref(loop)

    ended = asyncio.run(run())
    gc.collect()
    assert ended() is None


def test_an_answer_waits_for_the_others_only_so_long():
    written = []

    async def run():
        outbox = Outbox.of(asyncio.get_running_loop())
        outbox.add(Line(written), b"first")
        time.sleep(PATIENCE_SECONDS * 1.5)  # noqa: ASYNC251 - work that holds the loop is what this is about
        assert not written
        outbox.add(Line(written), b"second")
        assert written == [b"first", b"second"]
        outbox.add(Line(written), b"third")
        assert len(written) == 2
        await asyncio.sleep(0)
        assert len(written) == 3

    asyncio.run(run())
