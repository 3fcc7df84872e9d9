"""The application: routes by noun over one `Serving`, opened and closed with the server."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from lodestore.server import context, documents, features, health, openapi, search
from lodestore.server.endpoint import Answer, Call, Direct, Endpoint, Handler
from lodestore.server.lines import speak
from lodestore.server.options import ServerOptions
from lodestore.server.problems import HttpError
from lodestore.server.protocol import AtOnce
from lodestore.server.serving import Serving
from lodestore.server.tracing import Tracing

if TYPE_CHECKING:
    from lodestore.project import Project

__all__ = ["application", "create"]

_SWITCH_SECONDS = 0.001

# path, method, handler, scope.
_ROUTES: tuple[tuple[str, str, Handler, str | None], ...] = (
    ("/v1/features", "POST", features.read_features, "read"),
    ("/v1/search", "POST", search.search, "read"),
    ("/v1/context", "POST", context.context, "read"),
    ("/v1/push", "POST", features.push_rows, "push"),
    ("/v1/search/batch", "POST", search.search_batch, "read"),
    ("/v1/why", "POST", search.why, "admin"),
    ("/v1/outcomes", "POST", context.outcome, "push"),
    ("/v1/templates/{id}/render", "POST", context.render_template, "read"),
    ("/v1/views", "GET", features.list_views, "read"),
    ("/v1/templates", "GET", context.list_templates, "read"),
    ("/v1/templates/{id}", "GET", context.template, "read"),
    ("/v1/documents/{id:path}", "GET", documents.document, "read"),
    ("/v1/chunks/{id:path}", "GET", documents.chunk, "read"),
    ("/v1/release", "GET", health.release, "read"),
    ("/healthz", "GET", health.healthz, None),
    ("/readyz", "GET", health.readyz, None),
    ("/metrics", "GET", health.metrics, "admin"),
    ("/docs", "GET", openapi.docs, None),
    ("/openapi.json", "GET", openapi.document, None),
)

# What answers a path when it need not wait.
_AT_ONCE: Mapping[str, Direct] = MappingProxyType({"/v1/features": features.read_at_once})


async def _nothing_here(call: Call) -> Answer:
    message = f"there is no {call.scope['path'][:200]!r}; the calls are listed at /docs"
    raise HttpError(404, "not-found", message)


def _elsewhere(serving: Serving) -> ASGIApp:
    """Answers what no route answers."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        missing = Endpoint(serving, "other", scope["method"], _nothing_here, scope=None)
        await missing(scope, receive, send)

    return answer


def application(project: Project, options: ServerOptions | None = None, *, tracing: Tracing | None = None) -> ASGIApp:
    """The server of a project. It opens when its lifespan begins, and not before."""
    serving = Serving(project, options, tracing=tracing)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[dict[str, object]]:
        await asyncio.to_thread(serving.open)
        # What was made so far stays for good: looking through it again and again would cost the slowest requests.
        gc.collect()
        gc.freeze()
        try:
            yield {"serving": serving}
        finally:
            await asyncio.to_thread(serving.close)

    endpoints = {
        path: Endpoint(serving, path.replace(":path", ""), method, handler, scope=scope, at_once=_AT_ONCE.get(path))
        for path, method, handler, scope in _ROUTES
    }
    routes = [Route(path, endpoint) for path, endpoint in endpoints.items()]
    router = Router(routes, redirect_slashes=False, default=_elsewhere(serving), lifespan=lifespan)
    return _Application(router, {path: one for path, one in endpoints.items() if "{" not in path}, tracing)


class _Application:
    """Calls whose path has no parts are answered directly: trying one route after another costs more than a read."""

    def __init__(self, router: ASGIApp, endpoints: Mapping[str, Endpoint], tracing: Tracing | None) -> None:
        self._router = router
        self._endpoints = endpoints
        self._traced = tracing is not None
        # What `DirectProtocol` asks; a trace is told of every part of a request, so that all go the usual way then.
        self.at_once: Mapping[bytes, AtOnce] = {
            path.encode(): one.at_once for path, one in endpoints.items() if path in _AT_ONCE and not self._traced
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._endpoints.get(scope["path"]) if scope["type"] == "http" else None
        if found is None or self._traced:
            await (found or self._router)(scope, receive, send)
        else:
            await found.served(scope, dict(scope["headers"]), receive, send)


def create(path: Path | str | None = None) -> ASGIApp:
    """The server of the project that LODESTORE_CONFIG names, or that lies in this folder or above it."""
    from lodestore.project import open_project

    # The threads that watch the store then hold up a request for a millisecond at most, and not for five.
    sys.setswitchinterval(_SWITCH_SECONDS)
    speak()
    project = open_project(path)
    return application(project, tracing=Tracing.exporting() if project.settings.serve.tracing else None)
