"""One HTTP call from its first byte to its last: limits, key, handler, headers, problem document, metrics.

An endpoint is an ASGI application of its own: building a framework's request and response objects would cost
more than reading features does.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from starlette.types import Message, Receive, Scope, Send

from lodestore.errors import LodestoreError, UnavailableError
from lodestore.server.access import ANYBODY, Caller
from lodestore.server.problems import BUG, HttpError, Problem, problem_of
from lodestore.server.protocol import Finished
from lodestore.wire import jsonable

if TYPE_CHECKING:
    from lodestore.live import Live
    from lodestore.server.serving import Serving

__all__ = ["ARROW", "JSON", "NDJSON", "Answer", "Call", "Direct", "Endpoint", "as_json"]

JSON = b"application/json"
PROBLEM = b"application/problem+json"
ARROW = b"application/vnd.apache.arrow.stream"
NDJSON = b"application/x-ndjson"

_log = logging.getLogger("lodestore.server")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_STRICT = orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_STRICT_INTEGER | orjson.OPT_NON_STR_KEYS
_SLOW_SECONDS = 1.0
_NAMES = (
    b"content-type",
    b"content-length",
    b"lodestore-release",
    b"lodestore-age-ms",
    b"lodestore-cache",
    b"lodestore-request-id",
)
_HEAD = b"".join(b"%b: %%b\r\n" % name for name in _NAMES)
_FAULT = 500
_BITS = 53


def as_json(value: object) -> bytes:
    """The value as JSON: moments with a Z, NaN as null, whole numbers that JavaScript would round as text."""
    try:
        return orjson.dumps(value, option=_STRICT)
    except (TypeError, orjson.JSONEncodeError):
        return orjson.dumps(_narrow(jsonable(value)))


def _narrow(value: object) -> object:
    match value:
        case bool():
            return value
        case int():
            return value if abs(value) < 1 << _BITS else str(value)
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {str(_narrow(key)): _narrow(one) for key, one in value.items()}
        case list():
            return [_narrow(one) for one in value]
        case _:
            return value


@dataclass(slots=True)
class Call:
    """One request at work. `live` is the one release that it is answered by."""

    serving: Serving
    scope: Scope
    headers: Mapping[bytes, bytes]
    request_id: str
    caller: Caller = ANYBODY
    live: Live | None = None
    body: bytes = b""
    view: str = ""
    # What the answer lacks or is unsure of: parts that are down, stale features.
    marks: tuple[str, ...] = ()

    @property
    def snapshot(self) -> Live:
        """The release that the request is answered by; an UnavailableError while none was read yet."""
        if self.live is None:
            message = f"release: {self.serving.why_closed()}"
            raise UnavailableError(message)
        return self.live

    @property
    def path(self) -> Mapping[str, Any]:
        """The parts of the path that the route names."""
        found: Mapping[str, Any] = self.scope.get("path_params", {})
        return found

    def query(self, known: frozenset[str]) -> dict[str, str]:
        """The query parameters, each one known and given once."""
        from lodestore.server.query import parameters

        return parameters(self.scope["query_string"], known)

    def media(self, name: bytes) -> bytes:
        """The media type of a header, without its parameters."""
        return self.headers.get(name, b"").partition(b";")[0].strip().lower()


@dataclass(slots=True)
class Answer:
    """What goes back. `cache` tells how it was come by: hit, miss, coalesced or none."""

    body: bytes
    media: bytes = JSON
    status: int = 200
    cache: bytes = b"none"
    release: int | None = None
    headers: Mapping[str, str] | None = None


Handler = Callable[[Call], Awaitable[Answer]]
Direct = Callable[[Call], Answer | None]
"""Answers without waiting, or not at all."""


class Endpoint:
    """Answers one path with one method. `scope` is what the caller's key must allow; None asks for no key."""

    def __init__(
        self,
        serving: Serving,
        name: str,
        method: str,
        handler: Handler,
        *,
        scope: str | None,
        at_once: Direct | None = None,
    ) -> None:
        self._serving = serving
        self._name = name
        self._method = method
        self._handler = handler
        self._wanted = scope
        self._direct = at_once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever goes wrong is a problem document."""
        headers, tracing = dict(scope["headers"]), self._serving.tracing
        if tracing is None:
            await self.served(scope, headers, receive, send)
            return
        with tracing.request(self._name, scope["method"], headers) as span:
            call, answer = await self.served(scope, headers, receive, send)
            tracing.answered(span, call, answer)

    async def served(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> tuple[Call, Answer]:
        """The same without a trace, in one coroutine: each one more costs as much as a look into the online store."""
        started = time.perf_counter()
        serving = self._serving
        call = Call(serving, scope, headers, _request_id(headers, serving), live=serving.live())
        serving.inflight += 1
        try:
            try:
                self._check(call)
                if self._method == "POST":
                    call.body = await _body(receive, call)
                answer = await self._handler(call)
            except (LodestoreError, HttpError) as error:
                answer = _refusal(problem_of(error), call)
            except Exception:  # noqa: BLE001 - the last place where a fault can become an answer
                answer = self._fault(call)
            await send({"type": "http.response.start", "status": answer.status, "headers": _headers(answer, call)})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})
        finally:
            serving.inflight -= 1
        self._counted(call, answer.status, started)
        return call, answer

    def at_once(self, scope: Scope, body: bytes) -> Finished | None:
        """The same for a request of this path and method that has come whole; None where it has to wait, or is not usual."""
        started = time.perf_counter()
        serving = self._serving
        if (
            self._direct is None
            or not serving.on_loop
            or len(body) > serving.options.max_body
            or serving.inflight >= serving.options.max_inflight
        ):
            return None
        headers = dict(scope["headers"])
        call = Call(serving, scope, headers, _request_id(headers, serving), live=serving.live(), body=body)
        try:
            if self._wanted is not None:
                call.caller = serving.access.caller(scope, headers, self._wanted)
            answer = self._direct(call)
            if answer is None:
                return None
        except (LodestoreError, HttpError) as error:
            answer = _refusal(problem_of(error), call)
        except Exception:  # noqa: BLE001 - the last place where a fault can become an answer
            answer = self._fault(call)
        if answer.headers:
            return None  # those need a look at each: asked once more, the usual way gives the same
        self._counted(call, answer.status, started)
        return Finished(answer.status, _HEAD % _values(answer, call), answer.body)

    def _fault(self, call: Call) -> Answer:
        _log.exception("request %s to %s failed", call.request_id, self._name)
        return _refusal(BUG, call)

    def _counted(self, call: Call, status: int, started: float) -> None:
        """The request is in the metrics and, where it says something, in the log."""
        serving, seconds = self._serving, time.perf_counter() - started
        serving.metrics.request(self._name, call.view, status, seconds)
        for mark in call.marks:
            serving.metrics.add("lodestore_degraded_total", part=mark)
        if seconds > _SLOW_SECONDS or serving.options.log_requests or (status >= _FAULT and self._wanted is not None):
            _tell(self._name, call, status, seconds)

    def _check(self, call: Call) -> None:
        method = call.scope["method"]
        if method != self._method and not (method == "HEAD" and self._method == "GET"):
            message = f"{call.scope['path']} takes {self._method}, not {method}"
            raise HttpError(405, "method", message, allow=self._method)
        if self._wanted is not None:
            serving = self._serving
            if serving.inflight > serving.options.max_inflight:
                serving.metrics.add("lodestore_shed_total", lane="requests")
                message = f"{serving.inflight} requests are being answered; try again in a second"
                raise HttpError(503, "overloaded", message, retry_after="1")
            call.caller = serving.access.caller(call.scope, call.headers, self._wanted)


def _part(message: Message, call: Call, before: int) -> bytes:
    """What the message has of a body that is not longer than allowed."""
    if message["type"] == "http.disconnect":
        text = "the caller went away before the body was complete"
        raise HttpError(400, "disconnected", text)
    body: bytes = message.get("body", b"")
    if before + len(body) > call.serving.options.max_body:
        raise _too_large(call.serving.options.max_body)
    return body


async def _body(receive: Receive, call: Call) -> bytes:
    """The body, when it is not longer than allowed; no more of it is read than that."""
    most = call.serving.options.max_body
    told = call.headers.get(b"content-length", b"0")
    if told.isdigit() and int(told) > most:
        raise _too_large(most)
    message = await receive()
    first = _part(message, call, 0)
    if not message.get("more_body", False):  # as nearly always
        return first
    parts, size = [first], len(first)
    while message.get("more_body", False):
        message = await receive()
        parts.append(_part(message, call, size))
        size += len(parts[-1])
    return b"".join(parts)


def _too_large(most: int) -> HttpError:
    message = f"the body is longer than {most:,} bytes; send it in parts"
    return HttpError(413, "too-large", message, connection="close")


def _refusal(problem: Problem, call: Call) -> Answer:
    body = as_json(problem.to_json(call.request_id))
    return Answer(body, PROBLEM, problem.status, headers=problem.headers)


def _headers(answer: Answer, call: Call) -> list[tuple[bytes, bytes]]:
    headers = [*zip(_NAMES, _values(answer, call), strict=True)]
    if answer.headers:
        headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.headers.items()]
    return headers


def _values(answer: Answer, call: Call) -> tuple[bytes, ...]:
    """What the headers of every answer say, in the order of their names."""
    release = answer.release
    if release is None:
        release = call.live.release.generation if call.live is not None else 0
    return (
        answer.media,
        b"%d" % len(answer.body),
        b"%d" % release,
        b"%d" % (call.serving.age() * 1000),
        answer.cache,
        call.request_id.encode("latin-1"),
    )


def _request_id(headers: Mapping[bytes, bytes], serving: Serving) -> str:
    given = headers.get(b"lodestore-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return serving.next_id()


def _tell(name: str, call: Call, status: int, seconds: float) -> None:
    """One line of the log: names and numbers, no value of the request."""
    told = {"endpoint": name, "status": status, "ms": round(seconds * 1000, 3), "request_id": call.request_id}
    told |= {"key": call.caller.id, "view": call.view}
    level = logging.WARNING if status >= _FAULT else logging.INFO
    _log.log(level, "%s", orjson.dumps(told).decode(), extra={"request": told})
