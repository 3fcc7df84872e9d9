"""The client of a feature server: the same methods as `lodestore.open()`, over HTTP.

Imports httpx and nothing heavy. An answer is a frozen value; `to_pandas()` and `to_arrow()` import those
libraries when they are called. What the server refuses is raised as the error that the same call would
raise in process.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, NoReturn, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx

from lodestore import errors
from lodestore.errors import InvalidRowsError, LodestoreError, RefusedError, RequestError, UnavailableError
from lodestore.spec import FeatureRef
from lodestore.wire import from_rfc3339, jsonable, rfc3339

if TYPE_CHECKING:
    from typing import Self

    import pandas as pd
    import pyarrow as pa

__all__ = [
    "AsyncClient",
    "Client",
    "Context",
    "Features",
    "Hit",
    "Pushed",
    "Release",
    "Rendered",
    "SearchResult",
    "Template",
    "View",
]

Mode = Literal["hybrid", "vector", "text"]
Filter = str | Mapping[str, Any]

_T = TypeVar("_T")
_URN = "urn:lodestore:error:"
_DEFAULT_URL = "http://127.0.0.1:7373"
_UNAVAILABLE = 503
_FAULT = 500
_LONGEST_WAIT = 5.0
_FIRST_WAIT = 0.1
_PAGE = 1_000


# -- answers


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk that answers. `score` is the cosine, the BM25 score or the fused score, by mode."""

    chunk_id: str
    document_id: str
    score: float
    title: str
    uri: str
    text: str
    start: int = 0
    end: int = 0
    source: str = ""
    category: str | None = None
    vector_rank: int | None = None
    text_rank: int | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, and by which release and version they were found."""

    release: int
    version: str
    mode: Mode
    took_ms: float
    hits: tuple[Hit, ...]
    degraded: tuple[str, ...] = ()
    live_version: str = ""

    def to_arrow(self) -> pa.Table:
        """One row a hit, best first."""
        import pyarrow as pa

        names = [one.name for one in fields(Hit)]
        return pa.table({name: [getattr(hit, name) for hit in self.hits] for name in names})

    def to_pandas(self) -> pd.DataFrame:
        """One row a hit, best first."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame


@dataclass(frozen=True, slots=True)
class Features:
    """Columns in the order of the rows that were asked, keyed by full reference."""

    release: int
    columns: Mapping[str, list[Any]]
    statuses: Mapping[str, list[str]]
    event_timestamps: Mapping[str, list[datetime | None]]
    degraded: tuple[str, ...] = ()

    def to_arrow(self) -> pa.Table:
        """Keys and features as columns."""
        import pyarrow as pa

        return pa.table(dict(self.columns))

    def to_pandas(self) -> pd.DataFrame:
        """Keys and features as columns."""
        import pandas as pd

        return pd.DataFrame(dict(self.columns))


@dataclass(frozen=True, slots=True)
class Context:
    """A prompt ready for a model, and everything that it was made of."""

    release: int
    context_id: str
    prompt: str
    messages: tuple[Mapping[str, str], ...]
    hits: tuple[Hit, ...]
    features: Mapping[str, Any]
    template_id: str
    template_version: str
    n_tokens: int
    user_known: bool
    degraded: tuple[str, ...]
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of the rows of a push."""

    accepted: int
    duplicates: int
    late: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A template with its values in place."""

    template: str
    version: str
    content_hash: str
    text: str
    messages: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Release:
    """What is live. `newest` is greater than `generation` while the server is behind, and `trouble` says why."""

    generation: int
    id: str
    embeddings: Mapping[str, str]
    templates: Mapping[str, Mapping[str, float]]
    views: Mapping[str, int]
    newest: int = 0
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A declared view. `live` is the version that the release has."""

    name: str
    version: int
    source: str
    features: tuple[Mapping[str, Any], ...]
    live: int | None = None
    owner: str | None = None
    doc: str = ""
    entity: Mapping[str, Any] | None = field(default=None)


@dataclass(frozen=True, slots=True)
class Template:
    """A stored template version. `live_weight` is its share of the prompts, 0 when it is not live."""

    id: str
    version: str
    family: str
    content_hash: str
    variables: tuple[Mapping[str, Any], ...]
    live_weight: float
    doc: str = ""


# -- requests, the same for both clients


@dataclass(frozen=True, slots=True)
class _Request(Generic[_T]):
    """One call: what is sent, how its answer is read, and whether sending it twice does no harm."""

    method: str
    path: str
    read: Callable[[Any], _T]
    body: Mapping[str, Any] | None = None
    safe: bool = True

    def content(self) -> bytes | None:
        if self.body is None:
            return None
        told = {name: value for name, value in self.body.items() if value is not None}
        try:
            return json.dumps(told, default=_plain, allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            if isinstance(error, LodestoreError):
                raise
            message = f"{self.path}: what is sent cannot be JSON: {error}"
            raise RequestError(message) from error


def _plain(value: object) -> object:
    """What JSON has no word for; a moment without a zone is refused."""
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, FeatureRef):
        return str(value)
    return jsonable(value)


def _search(
    query: str | None,
    k: int,
    mode: Mode | None,
    filter: Filter | None,  # noqa: A002 - the word of the wire
    vector: Sequence[float] | None,
    version: str | None,
    release: int | None,
) -> _Request[SearchResult]:
    body = {"query": query, "vector": vector, "version": version, "k": k, "mode": mode}
    return _Request("POST", "/v1/search", _search_result, {**body, "filter": filter, "release": release})


def _online(
    features: Sequence[str | FeatureRef],
    entities: Mapping[str, Sequence[str | int]],
    inputs: Mapping[str, Sequence[Any]] | None,
    service: str | None,
    release: int | None,
) -> _Request[Features]:
    given = None if inputs is None else {name: list(column) for name, column in inputs.items()}
    body = {"features": [str(one) for one in features], "inputs": given, "service": service, "release": release}
    columns = {name: list(column) for name, column in entities.items()}
    return _Request("POST", "/v1/features", _features, {**body, "entities": columns})


def _context(query: str, request_id: str | None, options: Mapping[str, Any]) -> _Request[Context]:
    # With an id of its own, a request that is sent again counts once.
    body = {"query": query, "request_id": request_id or uuid4().hex, **options}
    return _Request("POST", "/v1/context", _context_of, body)


def _push(view: str, rows: Iterable[Mapping[str, Any]]) -> _Request[Pushed]:
    body = {"view": view, "rows": [dict(one) for one in rows]}
    return _Request("POST", "/v1/push", lambda told: Pushed(**_known(Pushed, told)), body, safe=False)


def _render(template: str, variables: Mapping[str, object] | None, version: str | None) -> _Request[Rendered]:
    body = {"variables": dict(variables or {}), "version": version}
    return _Request("POST", f"/v1/templates/{quote(template, safe='')}/render", _rendered, body)


def _outcome(context_id: str, event_id: str | None, said: Mapping[str, Any]) -> _Request[bool]:
    body = {"context_id": context_id, "event_id": event_id or uuid4().hex, **said}
    return _Request("POST", "/v1/outcomes", lambda told: bool(told["stored"]), body, safe=False)


_Page = tuple[list[_T], str | None]


def _pages(path: str, name: str, kind: Callable[[Any], _T], cursor: str | None) -> _Request[_Page[_T]]:
    after = f"&cursor={quote(cursor, safe='')}" if cursor else ""

    def read(told: Any) -> _Page[_T]:  # noqa: ANN401 - JSON
        return [kind(one) for one in told[name]], told["next"]

    return _Request("GET", f"{path}?limit={_PAGE}{after}", read)


# -- reading answers


def _known(kind: type[Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that this version of the client knows; a newer server may send more."""
    return {one.name: told[one.name] for one in fields(kind) if one.name in told}


def _hits(told: Iterable[Mapping[str, Any]]) -> tuple[Hit, ...]:
    return tuple(Hit(**_known(Hit, one)) for one in told)


def _search_result(told: Mapping[str, Any]) -> SearchResult:
    degraded = tuple(told.get("degraded", ()))
    return SearchResult(**{**_known(SearchResult, told), "hits": _hits(told["hits"]), "degraded": degraded})


def _features(told: Mapping[str, Any]) -> Features:
    times = {
        name: [None if one is None else from_rfc3339(one) for one in column]
        for name, column in told["event_timestamps"].items()
    }
    degraded = tuple(told.get("degraded", ()))
    return Features(told["release"], told["columns"], told["statuses"], times, degraded)


def _context_of(told: Mapping[str, Any]) -> Context:
    template = told["template"]
    return Context(
        **{
            **_known(Context, told),
            "messages": tuple(told["messages"]),
            "hits": _hits(told["hits"]),
            "template_id": template["id"],
            "template_version": template["version"],
            "degraded": tuple(told["degraded"]),
        }
    )


def _rendered(told: Mapping[str, Any]) -> Rendered:
    return Rendered(**{**_known(Rendered, told), "messages": tuple(told["messages"])})


def _release(told: Mapping[str, Any]) -> Release:
    return Release(**{**_known(Release, told), "trouble": told.get("behind_because")})


def _view(told: Mapping[str, Any]) -> View:
    return View(**{**_known(View, told), "features": tuple(told["features"])})


def _template(told: Mapping[str, Any]) -> Template:
    return Template(**{**_known(Template, told), "variables": tuple(told["variables"])})


_RELEASE: _Request[Release] = _Request("GET", "/v1/release", _release)


# -- errors


def _by_code(kind: type[LodestoreError]) -> dict[str, type[LodestoreError]]:
    found = {kind.code: kind}
    for one in kind.__subclasses__():
        found |= _by_code(one)
    return found


_ERRORS = _by_code(errors.LodestoreError)
_REFUSED = frozenset({401, 403})


def _raise(response: httpx.Response) -> NoReturn:
    """Raise the typed error of a problem document; of anything else, the nearest to its status."""
    try:
        told = response.json()
    except ValueError:
        told = None
    told = told if isinstance(told, dict) else {}
    code = str(told.get("type", "")).removeprefix(_URN)
    detail = str(told.get("detail") or f"{response.request.url} answered {response.status_code}")
    kind = _ERRORS.get(code) or _by_status(response.status_code)
    # Made without its constructor: the message is already whole.
    error = kind.__new__(kind)
    Exception.__init__(error, detail)
    if isinstance(error, InvalidRowsError):
        error.problems = tuple(told.get("problems", ()))
    if told.get("request_id"):
        error.add_note(f"request {told['request_id']}")
    raise error


def _by_status(status: int) -> type[LodestoreError]:
    if status in _REFUSED:
        return RefusedError
    if status == _UNAVAILABLE:
        return UnavailableError
    return RequestError if status < _FAULT else LodestoreError


def _unreachable(url: str, error: Exception) -> UnavailableError:
    message = f"{url} does not answer: {error or type(error).__name__}; start it with: lodestore serve"
    return UnavailableError(message)


class _Attempts(NamedTuple):
    """How often a call was tried, and may be."""

    made: int
    most: int

    def wait_after(self, outcome: httpx.Response | httpx.TransportError, *, safe: bool) -> float | None:
        """Seconds to wait before the next attempt; None when there should be none.

        What may have changed something is sent once more only where it surely did not arrive.
        """
        if self.made > self.most:
            return None
        pause = _FIRST_WAIT * 2**self.made
        if isinstance(outcome, httpx.TransportError):
            arrived = not isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout)
            return None if arrived and (not safe or isinstance(outcome, httpx.TimeoutException)) else pause
        if not safe or outcome.status_code != _UNAVAILABLE or "retry-after" not in outcome.headers:
            return None
        told = outcome.headers["retry-after"]
        return min(float(told), _LONGEST_WAIT) if told.isdigit() else pause


def _options(url: str, key: str | None, timeout: float) -> dict[str, Any]:
    headers = {"content-type": "application/json", "accept": "application/json"}
    headers |= {"authorization": f"Bearer {key}"} if key else {}
    return {"base_url": url, "headers": headers, "timeout": timeout}


# -- the clients


class Client:
    """A feature server. Keeps its connections; use it as a context, or close it.

    `retries` is how often a read is sent again when the server cannot be reached or says 503 with
    Retry-After; what changes something is sent once.
    """

    def __init__(
        self,
        url: str = _DEFAULT_URL,
        key: str | None = None,
        *,
        timeout: float = 10.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url
        self._retries = retries
        self._sleep = sleep
        self._http = httpx.Client(**_options(url, key, timeout), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """The connections are closed."""
        self._http.close()

    def _send(self, request: _Request[_T]) -> _T:
        content, made = request.content(), 0
        while True:
            made += 1
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.request(request.method, request.path, content=content)
            except httpx.TransportError as error:
                outcome = error
            wait = None
            if isinstance(outcome, Exception) or not outcome.is_success:
                wait = _Attempts(made, self._retries).wait_after(outcome, safe=request.safe)
            if wait is None:
                return _settled(self._url, request, outcome)
            self._sleep(wait)

    def search(
        self,
        query: str | None = None,
        *,
        k: int = 10,
        mode: Mode | None = None,
        filter: Filter | None = None,  # noqa: A002 - the word of the wire
        vector: Sequence[float] | None = None,
        version: str | None = None,
        release: int | None = None,
    ) -> SearchResult:
        """The k best chunks for a query, or for a vector that names the version that made it."""
        return self._send(_search(query, k, mode, filter, vector, version, release))

    def online(
        self,
        features: Sequence[str | FeatureRef] = (),
        entities: Mapping[str, Sequence[str | int]] | None = None,
        *,
        inputs: Mapping[str, Sequence[Any]] | None = None,
        service: str | None = None,
        release: int | None = None,
    ) -> Features:
        """Feature values row by row, in the order of the entities, with a status for each."""
        return self._send(_online(features, entities or {}, inputs, service, release))

    def context(
        self,
        query: str,
        *,
        user_id: str | None = None,
        template: str | None = None,
        variables: Mapping[str, object] | None = None,
        filter: Filter | None = None,  # noqa: A002 - the word of the wire
        k: int | None = None,
        token_budget: int | None = None,
        mode: Mode | None = None,
        record: bool = True,
        request_id: str | None = None,
    ) -> Context:
        """The prompt for this user and question, with cited chunks, by one release."""
        options = {"user_id": user_id, "template": template, "variables": variables, "filter": filter, "k": k}
        options |= {"token_budget": token_budget, "mode": mode, "record": record}
        return self._send(_context(query, request_id, options))

    def push(self, view: str, rows: Iterable[Mapping[str, Any]]) -> Pushed:
        """The rows are visible to the next read of every process; when one of them is bad, none is."""
        return self._send(_push(view, rows))

    def render(
        self, template: str, variables: Mapping[str, object] | None = None, *, version: str | None = None
    ) -> Rendered:
        """The live template, or the named version, with these values."""
        return self._send(_render(template, variables, version))

    def outcome(
        self,
        context_id: str,
        *,
        event_id: str | None = None,
        accepted: bool | None = None,
        rating: float | None = None,
        latency_ms: float | None = None,
        tokens: int | None = None,
    ) -> bool:
        """What became of an answer is stored; False when its event id was known."""
        said = {"accepted": accepted, "rating": rating, "latency_ms": latency_ms, "tokens": tokens}
        return self._send(_outcome(context_id, event_id, said))

    def release(self) -> Release:
        """What is live."""
        return self._send(_RELEASE)

    def views(self) -> list[View]:
        """The declared views, by name."""
        return self._all("/v1/views", "views", _view)

    def templates(self) -> list[Template]:
        """Every stored template version."""
        return self._all("/v1/templates", "templates", _template)

    def _all(self, path: str, name: str, kind: Callable[[Any], _T]) -> list[_T]:
        found, cursor = self._send(_pages(path, name, kind, None))
        while cursor:
            more, cursor = self._send(_pages(path, name, kind, cursor))
            found += more
        return found


class AsyncClient:
    """The same as `Client`, to be awaited."""

    def __init__(
        self,
        url: str = _DEFAULT_URL,
        key: str | None = None,
        *,
        timeout: float = 10.0,
        retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._retries = retries
        self._sleep = sleep
        self._http = httpx.AsyncClient(**_options(url, key, timeout), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """The connections are closed."""
        await self._http.aclose()

    async def _send(self, request: _Request[_T]) -> _T:
        content, made = request.content(), 0
        while True:
            made += 1
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.request(request.method, request.path, content=content)
            except httpx.TransportError as error:
                outcome = error
            wait = None
            if isinstance(outcome, Exception) or not outcome.is_success:
                wait = _Attempts(made, self._retries).wait_after(outcome, safe=request.safe)
            if wait is None:
                return _settled(self._url, request, outcome)
            await self._sleep(wait)

    async def search(
        self,
        query: str | None = None,
        *,
        k: int = 10,
        mode: Mode | None = None,
        filter: Filter | None = None,  # noqa: A002 - the word of the wire
        vector: Sequence[float] | None = None,
        version: str | None = None,
        release: int | None = None,
    ) -> SearchResult:
        """The k best chunks for a query, or for a vector that names the version that made it."""
        return await self._send(_search(query, k, mode, filter, vector, version, release))

    async def online(
        self,
        features: Sequence[str | FeatureRef] = (),
        entities: Mapping[str, Sequence[str | int]] | None = None,
        *,
        inputs: Mapping[str, Sequence[Any]] | None = None,
        service: str | None = None,
        release: int | None = None,
    ) -> Features:
        """Feature values row by row, in the order of the entities, with a status for each."""
        return await self._send(_online(features, entities or {}, inputs, service, release))

    async def context(
        self,
        query: str,
        *,
        user_id: str | None = None,
        template: str | None = None,
        variables: Mapping[str, object] | None = None,
        filter: Filter | None = None,  # noqa: A002 - the word of the wire
        k: int | None = None,
        token_budget: int | None = None,
        mode: Mode | None = None,
        record: bool = True,
        request_id: str | None = None,
    ) -> Context:
        """The prompt for this user and question, with cited chunks, by one release."""
        options = {"user_id": user_id, "template": template, "variables": variables, "filter": filter, "k": k}
        options |= {"token_budget": token_budget, "mode": mode, "record": record}
        return await self._send(_context(query, request_id, options))

    async def push(self, view: str, rows: Iterable[Mapping[str, Any]]) -> Pushed:
        """The rows are visible to the next read of every process; when one of them is bad, none is."""
        return await self._send(_push(view, rows))

    async def render(
        self, template: str, variables: Mapping[str, object] | None = None, *, version: str | None = None
    ) -> Rendered:
        """The live template, or the named version, with these values."""
        return await self._send(_render(template, variables, version))

    async def outcome(
        self,
        context_id: str,
        *,
        event_id: str | None = None,
        accepted: bool | None = None,
        rating: float | None = None,
        latency_ms: float | None = None,
        tokens: int | None = None,
    ) -> bool:
        """What became of an answer is stored; False when its event id was known."""
        said = {"accepted": accepted, "rating": rating, "latency_ms": latency_ms, "tokens": tokens}
        return await self._send(_outcome(context_id, event_id, said))

    async def release(self) -> Release:
        """What is live."""
        return await self._send(_RELEASE)

    async def views(self) -> list[View]:
        """The declared views, by name."""
        return await self._all("/v1/views", "views", _view)

    async def templates(self) -> list[Template]:
        """Every stored template version."""
        return await self._all("/v1/templates", "templates", _template)

    async def _all(self, path: str, name: str, kind: Callable[[Any], _T]) -> list[_T]:
        found, cursor = await self._send(_pages(path, name, kind, None))
        while cursor:
            more, cursor = await self._send(_pages(path, name, kind, cursor))
            found += more
        return found


def _settled(url: str, request: _Request[_T], outcome: httpx.Response | httpx.TransportError) -> _T:
    """What the call gave, or the error that it ended with."""
    if isinstance(outcome, httpx.TransportError):
        raise _unreachable(url, outcome) from outcome
    if not outcome.is_success:
        _raise(outcome)
    return request.read(outcome.json())
