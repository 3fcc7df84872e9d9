"""HTTP/1.1 as uvicorn speaks it, except that a request which need not wait is answered as soon as it is there.

Reading features from an online store of this machine takes less than the task, the exchange of ASGI messages and
the two writes of a usual answer. So an application may have `at_once`: by path, what answers a POST without
waiting. What it leaves, and whatever is out of the ordinary, goes the usual way: a long body, a query string, an
older HTTP, a connection that ends, a caller who reads slowly or sends the next request before this answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from lodestore.server.outbox import Outbox

__all__ = ["UVICORN", "AtOnce", "DirectProtocol", "Finished"]

_log = logging.getLogger("lodestore.server")

UVICORN: Mapping[str, Any] = MappingProxyType(
    {
        "http": "lodestore.server.protocol:DirectProtocol",
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
    }
)
"""How uvicorn runs the server. Requests are counted and logged by the endpoints, which also judge what proxies say."""


class Finished(NamedTuple):
    """A whole answer. `head` has the lines of its headers, each with its line end."""

    status: int
    head: bytes
    body: bytes


AtOnce: TypeAlias = Callable[[Any, bytes], Finished | None]
"""Answers an ASGI scope, which has neither method nor path yet, and a body; None leaves it to the application."""


class DirectProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 - what uvicorn gives
        super().__init__(*given, **named)
        # Lines of an access log, headers for every answer and a limit of connections are uvicorn's to see to.
        usual = self.config.access_log or self.server_state.default_headers or self.limit_concurrency is not None
        self._at_once: Mapping[bytes, AtOnce] = {} if usual else getattr(self.app, "at_once", {})
        self._outbox = Outbox.of(self.loop)
        # Who answers the request that is arriving, and what has come of its body.
        self._answering: AtOnce | None = None
        self._arrived = b""
        self._answered = False

    def data_received(self, data: bytes) -> None:
        """Bytes have come: at most one request of them is answered at once, so that no connection holds up the others."""
        self._answered = False
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        found = self._at_once.get(self.url)
        if found is not None and self._is_ordinary():
            self._answering, self._arrived = found, b""
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body is there."""
        if self._answering is None:
            super().on_body(body)
        else:
            self._arrived += body
            if len(self._arrived) > HIGH_WATER_LIMIT:
                self._leave()

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        finished = None
        if self._answering is not None:
            finished = self._finished(self._answering)
            if finished is None:
                self._leave()
        if finished is None:
            super().on_message_complete()
            return
        self._answering, self._answered = None, True
        whole = b"%b%b\r\n%b" % (STATUS_LINE[finished.status], finished.head, finished.body)
        self._outbox.add(self.transport, whole)
        self.on_response_complete()

    def _finished(self, answering: AtOnce) -> Finished | None:
        try:
            return answering(self.scope, self._arrived)
        except Exception:  # noqa: BLE001 - the parser would take it for bad HTTP; the usual way answers, or fails as it does
            _log.exception("a request could not be answered at once")
            return None

    # Whatever else uvicorn writes or ends comes after the answers that wait.

    def send_400_response(self, msg: str) -> None:
        """What has come is no HTTP."""
        self._answering = None
        self._outbox.flush()
        super().send_400_response(msg)

    def eof_received(self) -> None:
        """The caller sends no more."""
        self._outbox.flush()
        super().eof_received()

    def handle_websocket_upgrade(self) -> None:
        """The connection is another protocol's from now on."""
        self._outbox.flush()
        super().handle_websocket_upgrade()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for a while."""
        self._outbox.flush()
        super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """The server stops."""
        self._outbox.flush()
        if self._answering is not None:
            self._leave()  # a request that is still arriving is in flight, and finished
        super().shutdown()

    def _is_ordinary(self) -> bool:
        parser, cycle = self.parser, self.cycle
        return (
            not self._answered
            and (cycle is None or cycle.response_complete)
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
        )

    def _leave(self) -> None:
        """The request goes the usual way, as if it only came now."""
        self._answering, arrived = None, self._arrived
        super().on_headers_complete()
        if arrived:
            super().on_body(arrived)
