"""The client of a feature server: the same methods as `lodestore.open()`, over HTTP.

Imports httpx and nothing heavy. An answer is a frozen value; `to_pandas()` and `to_arrow()` import those
libraries when they are called. What the server refuses is raised as the error that the same call would
raise in process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, NoReturn, TypeAlias, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx

from lodestore import errors
from lodestore.errors import InvalidRowsError, LodestoreError, RefusedError, RequestError, UnavailableError
from lodestore.frames import is_columnar, offered
from lodestore.spec import FeatureRef
from lodestore.wire import MAX_SAFE_INTEGER, from_rfc3339, json_value, rfc3339

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
    "Why",
]

Mode = Literal["hybrid", "vector", "text"]
Filter = str | Mapping[str, Any]
Rows: TypeAlias = "Iterable[Mapping[str, Any]] | pa.Table | pd.DataFrame"
_ARROW = "application/vnd.apache.arrow.stream"

_T = TypeVar("_T")
_URN = "urn:lodestore:error:"
_DEFAULT_URL = "http://127.0.0.1:7373"
_UNAVAILABLE = 503
_FAULT = 500
_LONGEST_WAIT = 5.0
_FIRST_WAIT = 0.1
_PAGE = 1_000
# What a search is not asked for is not sent, so that an older server answers it too.
_UNASKED: Mapping[str, Any] = {"neighbours": 0, "highlight": False, "explain": False, "rerank": False}


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
    title_rank: int | None = None
    highlights: tuple[tuple[int, int], ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    others: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, and by which release and version they were found.

    `as_of` is the moment that was asked about, `notes` what a reader has to know of the answer.
    """

    release: int
    version: str
    mode: Mode
    took_ms: float
    hits: tuple[Hit, ...]
    degraded: tuple[str, ...] = ()
    live_version: str = ""
    as_of: datetime | None = None
    notes: tuple[str, ...] = ()
    explain: Mapping[str, Any] | None = None

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
    """Columns in the order of the rows that were asked, keyed by full reference.

    `stale` names the references whose view had no event for longer than it promises.
    """

    release: int
    columns: Mapping[str, list[Any]]
    statuses: Mapping[str, list[str]]
    event_timestamps: Mapping[str, list[datetime | None]]
    degraded: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()

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
class Why:
    """Why a document is not found, or at which place it is; `mend` says what changes it."""

    document_id: str
    reason: str
    sentence: str
    mend: str = ""
    rank: int | None = None
    score: float | None = None
    needed: float | None = None
    k: int = 10
    mode: Mode = "hybrid"
    chunk_id: str | None = None
    at: datetime | None = None
    release: int = 0
    version: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


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
    body: Mapping[str, Any] | bytes | None = None
    safe: bool = True
    media: str = "application/json"

    def content(self) -> bytes | None:
        if self.body is None or isinstance(self.body, bytes):
            return self.body
        told = {name: value for name, value in self.body.items() if value is not None}
        try:
            return json.dumps(told, default=_plain, allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            if isinstance(error, LodestoreError):
                raise
            message = f"{self.path}: what is sent cannot be JSON: {error}"
            raise RequestError(message) from error

    @property
    def headers(self) -> dict[str, str]:
        return {"content-type": self.media}


def _plain(value: object) -> object:
    """What JSON has no word for, in words that it has; what only Python knows is refused."""
    return str(value) if isinstance(value, FeatureRef) else json_value(value)


def _search(query: str | None, options: Mapping[str, Any]) -> _Request[SearchResult]:
    asked = {name: value for name, value in options.items() if name not in _UNASKED or value != _UNASKED[name]}
    return _Request("POST", "/v1/search", _search_result, {"query": query, **asked})


def _search_many(queries: Sequence[str], options: Mapping[str, Any]) -> _Request[list[SearchResult]]:
    given = {name: value for name, value in options.items() if value is not None}
    body = {"queries": [{"query": one, **given} for one in queries]}
    return _Request("POST", "/v1/search/batch", lambda told: [_search_result(one) for one in told["results"]], body)


def _why(query: str, document: str, options: Mapping[str, Any]) -> _Request[Why]:
    return _Request("POST", "/v1/why", _why_of, {"query": query, "document_id": document, **options})


def _release_at(moment: datetime) -> _Request[Release]:
    return _Request("GET", f"/v1/release?at={quote(rfc3339(moment), safe='')}", _release)


def _online(
    features: Sequence[str | FeatureRef],
    entities: Mapping[str, Sequence[str | int]],
    inputs: Mapping[str, Sequence[Any]] | None,
    service: str | None,
    release: int | None,
) -> _Request[Features]:
    if isinstance(features, str) or not isinstance(features, Iterable):
        message = f"features {features!r}: give a list of references, such as ['user_profile:expertise_level']"
        raise RequestError(message)
    given = None if inputs is None else _columns("inputs", inputs)
    body = {"features": [str(one) for one in features], "inputs": given, "service": service, "release": release}
    columns = _columns("entities", entities)
    sent = {name: [*map(_as_key, column)] for name, column in columns.items()}
    return _Request("POST", "/v1/features", lambda told: _features(told, columns), {**body, "entities": sent})


def _as_key(value: object) -> object:
    """A whole number that JSON would round goes as text."""
    if isinstance(value, str | bool) or not hasattr(value, "__index__"):
        return value
    whole = index(value)
    return str(whole) if abs(whole) > MAX_SAFE_INTEGER else whole


def _columns(what: str, given: object) -> dict[str, list[Any]]:
    """The columns as lists. One text is no column: it would be read letter by letter."""
    if not isinstance(given, Mapping):
        message = f"{what} is {given!r}; give columns by name, each a list with one value for each row"
        raise RequestError(message)
    for name, column in given.items():
        if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
            message = f"{what}.{name} is {column!r}; give a list with one value for each row: [{column!r}]"
            raise RequestError(message)
    return {name: list(column) for name, column in given.items()}


def _context(query: str, request_id: str | None, options: Mapping[str, Any]) -> _Request[Context]:
    # With an id of its own, a request that is sent again counts once.
    body = {"query": query, "request_id": request_id or uuid4().hex, **options}
    return _Request("POST", "/v1/context", _context_of, body)


def _pushed(told: Any) -> Pushed:  # noqa: ANN401 - JSON
    return Pushed(**_known(Pushed, told))


def _push(view: str, rows: Rows) -> _Request[Pushed]:
    if isinstance(rows, str | bytes | Mapping) or not (isinstance(rows, Iterable) or is_columnar(rows)):
        message = f"{view}: rows are a {type(rows).__name__}; give a list of rows, such as [{{...}}], or a table"
        raise RequestError(message)
    table = offered(view, rows) if is_columnar(rows) else rows
    if is_columnar(table):
        path = f"/v1/push?view={quote(str(view), safe='')}"
        return _Request("POST", path, _pushed, _as_stream(table), safe=False, media=_ARROW)
    given = [_row(number, one) if isinstance(one, Mapping) else one for number, one in enumerate(table, start=1)]
    return _Request("POST", "/v1/push", _pushed, {"view": view, "rows": given}, safe=False)


def _row(number: int, given: Mapping[str, Any]) -> dict[str, Any]:
    row, name = {}, ""
    try:
        for name, value in given.items():
            row[name] = value if type(value) is str else _plain(value)
    except (TypeError, RecursionError) as error:
        message = (
            f"/v1/push: what is sent cannot be JSON: {error} (row {number}: {name}); leave the value out, or mend it"
        )
        raise RequestError(message) from error
    return row


def _as_stream(table: Any) -> bytes:  # noqa: ANN401 - an Arrow table
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


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
    return tuple(Hit(**{**_known(Hit, one), **_around(one)}) for one in told)


def _around(told: Mapping[str, Any]) -> dict[str, Any]:
    """What stands around a hit, where it was asked for."""
    lists = {name: tuple(told[name]) for name in ("before", "after") if name in told}
    lists |= {"highlights": tuple((one[0], one[1]) for one in told["highlights"])} if "highlights" in told else {}
    return lists | ({"others": _hits(told["others"])} if "others" in told else {})


def _search_result(told: Mapping[str, Any]) -> SearchResult:
    lists = {name: tuple(told.get(name, ())) for name in ("degraded", "notes")}
    at = None if told.get("as_of") is None else from_rfc3339(told["as_of"])
    return SearchResult(**{**_known(SearchResult, told), "hits": _hits(told["hits"]), **lists, "as_of": at})


def _why_of(told: Mapping[str, Any]) -> Why:
    return Why(**{**_known(Why, told), "at": None if told.get("at") is None else from_rfc3339(told["at"])})


def _features(told: Mapping[str, Any], given: Mapping[str, list[Any]]) -> Features:
    times = {
        name: [None if one is None else from_rfc3339(one) for one in column]
        for name, column in told["event_timestamps"].items()
    }
    degraded, stale = tuple(told.get("degraded", ())), tuple(told.get("stale", ()))
    columns = told["columns"] | {name: column for name, column in given.items() if name in told["columns"]}
    return Features(told["release"], columns, told["statuses"], times, degraded, stale)


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
    found: dict[str, type[LodestoreError]] = {}
    for one in kind.__subclasses__():
        found |= _by_code(one)
    return found | {kind.code: kind}  # of classes that share a code it is the most general one


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
    headers = {"accept": "application/json"}
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
                outcome = self._http.request(request.method, request.path, content=content, headers=request.headers)
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
        mode: Mode = "hybrid",
        filter: Filter | None = None,  # noqa: A002 - the word of the wire
        mandatory: Filter | None = None,
        as_of: datetime | None = None,
        per_document: int | None = None,
        neighbours: int = 0,
        highlight: bool = False,
        diversity: float | None = None,
        titles: bool | None = None,
        explain: bool = False,
        rerank: bool = False,
        vector: Sequence[float] | None = None,
        version: str | None = None,
        release: int | None = None,
    ) -> SearchResult:
        """The k best chunks for a query, or for a vector that names the version that made it.

        `mandatory` is a filter of the caller's own, which nothing in `filter` widens; `as_of` searches what was
        visible at that moment; `release` pins the live release or its predecessor. `per_document` makes one hit
        of each document, `neighbours` adds the chunks around a hit, `highlight` the spans that matched,
        `diversity` (0 to 1) passes over what was said already, `explain` tells how the answer was come by.
        """
        options: dict[str, Any] = {"k": k, "mode": mode, "filter": filter, "mandatory": mandatory, "as_of": as_of}
        options |= {"per_document": per_document, "neighbours": neighbours, "highlight": highlight}
        options |= {"diversity": diversity, "titles": titles, "explain": explain, "rerank": rerank}
        options |= {"vector": None if vector is None else list(vector), "version": version, "release": release}
        return self._send(_search(query, options))

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        filter: Filter | None = None,  # noqa: A002 - the word of the wire
        mandatory: Filter | None = None,
    ) -> list[SearchResult]:
        """The answer to each query, in their order, all by one release."""
        if not queries:
            return []
        options = {"k": k, "mode": mode, "filter": filter, "mandatory": mandatory}
        return self._send(_search_many(queries, options))

    def why(
        self,
        query: str,
        document: str,
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        filter: Filter | None = None,  # noqa: A002 - the word of the wire
        mandatory: Filter | None = None,
    ) -> Why:
        """Why the document is not among the k best chunks for the query, or at which place it is."""
        options = {"k": k, "mode": mode, "filter": filter, "mandatory": mandatory}
        return self._send(_why(query, document, options))

    def online(
        self,
        features: Sequence[str | FeatureRef] | None = (),
        entities: Mapping[str, Sequence[str | int]] | None = None,
        *,
        inputs: Mapping[str, Sequence[Any]] | None = None,
        service: str | None = None,
        release: int | None = None,
    ) -> Features:
        """Feature values row by row, in the order of the entities, with a status for each."""
        return self._send(_online(features or (), entities or {}, inputs, service, release))

    def context(
        self,
        query: str,
        *,
        user_id: str | None = None,
        template: str | None = None,
        variables: Mapping[str, object] | None = None,
        filter: Filter | None = None,  # noqa: A002 - the word of the wire
        mandatory: Filter | None = None,
        k: int | None = None,
        token_budget: int | None = None,
        mode: Mode = "hybrid",
        history: object = None,
        record: bool = True,
        request_id: str | None = None,
        release: int | None = None,
    ) -> Context:
        """The prompt for this user and question, with cited chunks, by one release.

        `history` is a text, or a list of turns with role and content; a repeated `request_id` counts once.
        """
        options: dict[str, Any] = {
            "user_id": user_id,
            "template": template,
            "variables": variables,
            "filter": filter,
            "k": k,
        }
        options |= {"token_budget": token_budget, "mode": mode, "history": history, "record": record}
        options |= {"mandatory": mandatory, "release": release}
        return self._send(_context(query, request_id, options))

    def push(self, view: str, rows: Rows) -> Pushed:
        """The rows are visible to the next read of every process; when one of them is bad, none is.

        They are a list of mappings, or an Arrow table or data frame, which goes as Arrow.
        """
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

    def release_at(self, moment: datetime) -> Release:
        """What was live at that moment."""
        return self._send(_release_at(moment))

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
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self._url = url
        self._retries = retries
        self._sleep = sleep or _asleep
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
                outcome = await self._http.request(
                    request.method, request.path, content=content, headers=request.headers
                )
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
        mode: Mode = "hybrid",
        filter: Filter | None = None,  # noqa: A002 - the word of the wire
        mandatory: Filter | None = None,
        as_of: datetime | None = None,
        per_document: int | None = None,
        neighbours: int = 0,
        highlight: bool = False,
        diversity: float | None = None,
        titles: bool | None = None,
        explain: bool = False,
        rerank: bool = False,
        vector: Sequence[float] | None = None,
        version: str | None = None,
        release: int | None = None,
    ) -> SearchResult:
        """The k best chunks for a query, or for a vector that names the version that made it.

        `mandatory` is a filter of the caller's own, which nothing in `filter` widens; `as_of` searches what was
        visible at that moment; `release` pins the live release or its predecessor. `per_document` makes one hit
        of each document, `neighbours` adds the chunks around a hit, `highlight` the spans that matched,
        `diversity` (0 to 1) passes over what was said already, `explain` tells how the answer was come by.
        """
        options: dict[str, Any] = {"k": k, "mode": mode, "filter": filter, "mandatory": mandatory, "as_of": as_of}
        options |= {"per_document": per_document, "neighbours": neighbours, "highlight": highlight}
        options |= {"diversity": diversity, "titles": titles, "explain": explain, "rerank": rerank}
        options |= {"vector": None if vector is None else list(vector), "version": version, "release": release}
        return await self._send(_search(query, options))

    async def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        filter: Filter | None = None,  # noqa: A002 - the word of the wire
        mandatory: Filter | None = None,
    ) -> list[SearchResult]:
        """The answer to each query, in their order, all by one release."""
        if not queries:
            return []
        options = {"k": k, "mode": mode, "filter": filter, "mandatory": mandatory}
        return await self._send(_search_many(queries, options))

    async def why(
        self,
        query: str,
        document: str,
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        filter: Filter | None = None,  # noqa: A002 - the word of the wire
        mandatory: Filter | None = None,
    ) -> Why:
        """Why the document is not among the k best chunks for the query, or at which place it is."""
        options = {"k": k, "mode": mode, "filter": filter, "mandatory": mandatory}
        return await self._send(_why(query, document, options))

    async def online(
        self,
        features: Sequence[str | FeatureRef] | None = (),
        entities: Mapping[str, Sequence[str | int]] | None = None,
        *,
        inputs: Mapping[str, Sequence[Any]] | None = None,
        service: str | None = None,
        release: int | None = None,
    ) -> Features:
        """Feature values row by row, in the order of the entities, with a status for each."""
        return await self._send(_online(features or (), entities or {}, inputs, service, release))

    async def context(
        self,
        query: str,
        *,
        user_id: str | None = None,
        template: str | None = None,
        variables: Mapping[str, object] | None = None,
        filter: Filter | None = None,  # noqa: A002 - the word of the wire
        mandatory: Filter | None = None,
        k: int | None = None,
        token_budget: int | None = None,
        mode: Mode = "hybrid",
        history: object = None,
        record: bool = True,
        request_id: str | None = None,
        release: int | None = None,
    ) -> Context:
        """The prompt for this user and question, with cited chunks, by one release.

        `history` is a text, or a list of turns with role and content; a repeated `request_id` counts once.
        """
        options: dict[str, Any] = {
            "user_id": user_id,
            "template": template,
            "variables": variables,
            "filter": filter,
            "k": k,
        }
        options |= {"token_budget": token_budget, "mode": mode, "history": history, "record": record}
        options |= {"mandatory": mandatory, "release": release}
        return await self._send(_context(query, request_id, options))

    async def push(self, view: str, rows: Rows) -> Pushed:
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

    async def release_at(self, moment: datetime) -> Release:
        """What was live at that moment."""
        return await self._send(_release_at(moment))

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


async def _asleep(seconds: float) -> None:
    import asyncio  # a third of what the import of this module would cost

    await asyncio.sleep(seconds)


def _settled(url: str, request: _Request[_T], outcome: httpx.Response | httpx.TransportError) -> _T:
    """What the call gave, or the error that it ended with."""
    if isinstance(outcome, httpx.TransportError):
        raise _unreachable(url, outcome) from outcome
    if not outcome.is_success:
        _raise(outcome)
    return request.read(outcome.json())
