"""The application: routes by noun over one `Serving`, opened and closed with the server."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from lodestore.server import context, documents, features, health, openapi, search
from lodestore.server.endpoint import Answer, Call, Endpoint, Handler
from lodestore.server.lines import speak
from lodestore.server.options import ServerOptions
from lodestore.server.problems import HttpError
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
        path: Endpoint(serving, path.replace(":path", ""), method, handler, scope=scope)
        for path, method, handler, scope in _ROUTES
    }
    routes = [Route(path, endpoint) for path, endpoint in endpoints.items()]
    router = Router(routes, redirect_slashes=False, default=_elsewhere(serving), lifespan=lifespan)
    return _direct(router, {path: one for path, one in endpoints.items() if "{" not in path}, tracing)


def _direct(router: ASGIApp, endpoints: Mapping[str, Endpoint], tracing: Tracing | None) -> ASGIApp:
    """Calls whose path has no parts are answered at once: trying one route after another costs more than a read."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        found = endpoints.get(scope["path"]) if scope["type"] == "http" else None
        if found is None or tracing is not None:
            await (found or router)(scope, receive, send)
        else:
            await found.served(scope, dict(scope["headers"]), receive, send)

    return answer


def create(path: Path | str | None = None) -> ASGIApp:
    """The server of the project that LODESTORE_CONFIG names, or that lies in this folder or above it."""
    from lodestore.project import open_project

    # The threads that watch the store then hold up a request for a millisecond at most, and not for five.
    sys.setswitchinterval(_SWITCH_SECONDS)
    speak()
    project = open_project(path)
    return application(project, tracing=Tracing.exporting() if project.settings.serve.tracing else None)
