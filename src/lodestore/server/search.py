"""Search over HTTP: one query or many, by the live release or its predecessor, with the caller's filter in each."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from lodestore.conditions import demanded
from lodestore.errors import RequestError, UnavailableError, naming
from lodestore.filters import Filter, combine, parse
from lodestore.grouping import Extras
from lodestore.live import Live
from lodestore.retrieval import SearchResult, checked_query
from lodestore.server.body import a_flag, a_list, a_number, a_text, a_whole, parsed
from lodestore.server.endpoint import ARROW, Answer, Call, as_json
from lodestore.server.features import arrow_stream
from lodestore.store import COLUMNS
from lodestore.wire import from_rfc3339

__all__ = ["a_k", "filter_of", "search", "search_batch", "why"]

_EXTRAS = frozenset({"per_document", "neighbours", "highlight", "diversity", "titles", "explain", "rerank"})
_QUERY = frozenset({"query", "vector", "version", "k", "filter", "mandatory", "mode", "as_of", *_EXTRAS})
_SEARCH = _QUERY | {"release"}
_BATCH = frozenset({"queries", "release"})
_WHY = frozenset({"query", "document_id", "k", "mode", "filter", "mandatory"})
_Found = tuple[SearchResult, bytes]
_PLAIN = Extras()


@dataclass(frozen=True, slots=True)
class Asked:
    """One search, checked."""

    query: str
    vector: tuple[float, ...] | None
    version: str
    k: int
    mode: Any
    where: Filter | None
    as_of: datetime | None = None
    extras: Extras = _PLAIN

    @property
    def needs_model(self) -> bool:
        """Whether something has to be embedded."""
        return self.vector is None and self.mode != "text"


async def search(call: Call) -> Answer:
    """POST /v1/search: the k best chunks."""
    values = parsed(call.body, _SEARCH)
    asked = _asked(values, call)
    call.live = await call.serving.searchable(call.live, model=asked.needs_model)
    live = await call.serving.at(call.snapshot, a_whole(values, "release", None))
    (result, hits), cache = await _find(call, live, asked)
    if b"vnd.apache.arrow" in call.headers.get(b"accept", b""):
        return Answer(_arrow(result), ARROW, cache=cache, release=result.release)
    return Answer(as_json(_told(result, hits, call)), cache=cache, release=result.release)


async def search_batch(call: Call) -> Answer:
    """POST /v1/search/batch: many searches by one release, answered in their order."""
    values = parsed(call.body, _BATCH)
    queries = a_list(values, "queries")
    most = call.serving.options.max_batch
    if not 1 <= len(queries) <= most:
        message = f"queries has {len(queries)} entries; give 1 to {most}"
        raise RequestError(message)
    asked = [_entry(place, one, call) for place, one in enumerate(queries, start=1)]
    call.live = await call.serving.searchable(call.live, model=any(one.needs_model for one in asked))
    live = await call.serving.at(call.snapshot, a_whole(values, "release", None))
    found = await asyncio.gather(*(_find(call, live, one) for one in asked))
    results = [_told(result, hits, call) for (result, hits), _ in found]
    caches = {cache for _, cache in found}
    cache = caches.pop() if len(caches) == 1 else b"miss"
    return Answer(
        as_json({"release": live.release.generation, "results": results}), cache=cache, release=live.release.generation
    )


def _entry(place: int, value: object, call: Call) -> Asked:
    with naming(f"queries, entry {place}"):
        if not isinstance(value, dict) or not value.keys() <= _QUERY:
            message = f"an object with {', '.join(sorted(_QUERY))} is expected"
            raise RequestError(message)
        return _asked(value, call)


def filter_of(values: Mapping[str, Any], call: Call) -> Filter | None:
    """What the request asks, what it demands, and what the caller's key demands; nothing asked can widen these."""
    return combine(_a_filter(values, "filter"), _demanded(values), call.caller.filter)


def _demanded(values: Mapping[str, Any]) -> Filter | None:
    given = values.get("mandatory")
    return None if given is None else _a_filter(values, "mandatory") or demanded(given)


def _a_filter(values: Mapping[str, Any], name: str) -> Filter | None:
    given = values.get(name)
    if given is None or given in ("", {}):
        return None
    if not isinstance(given, str | dict):
        message = f"{name} is {type(given).__name__}; write it as text or as an object"
        raise RequestError(message)
    return parse(given, COLUMNS)


def a_k(values: Mapping[str, Any], call: Call, default: int | None = 10) -> Any:  # noqa: ANN401 - a number, or the default
    """How many hits are wanted, within what one request may ask."""
    return a_whole(values, "k", default, low=1, high=call.serving.options.max_k)


def _asked(values: Mapping[str, Any], call: Call) -> Asked:
    moment = a_text(values, "as_of", None)
    as_of = None if moment is None else from_rfc3339(moment, "as_of")
    k = a_k(values, call)
    vector = values.get("vector")
    where, extras = filter_of(values, call), _extras(values)
    if vector is not None:
        if values.get("query") is not None:
            message = "give a query or a vector, not both"
            raise RequestError(message)
        if as_of is not None or extras != _PLAIN:
            message = "a vector is searched as of now and as it is; leave out as_of and the rest, or give the query"
            raise RequestError(message)
        if a_text(values, "mode", "vector") == "text":
            message = "a vector is searched by meaning; leave out mode, or give the query"
            raise RequestError(message)
        checked_query("vector", k=k, mode="vector")
        return Asked("", _vector(vector), a_text(values, "version", ""), k, "vector", where)
    if values.get("version") is not None:
        message = "version belongs to a vector; a query is embedded by the live model"
        raise RequestError(message)
    query, mode = a_text(values, "query"), a_text(values, "mode", "hybrid")
    checked_query(query, k=k, mode=mode)
    return Asked(query, None, "", k, mode, where, as_of, extras)


def _extras(values: Mapping[str, Any]) -> Extras:
    if values.keys().isdisjoint(_EXTRAS):
        return _PLAIN
    flags = {name: a_flag(values, name, default=False) for name in ("highlight", "explain", "rerank")}
    titles = None if values.get("titles") is None else a_flag(values, "titles", default=False)
    per_document, neighbours = a_whole(values, "per_document", None), a_whole(values, "neighbours", 0)
    diversity = a_number(values, "diversity", None)
    return Extras(per_document, neighbours, diversity=diversity, titles=titles, **flags)


def _vector(value: object) -> tuple[float, ...]:
    """The numbers of a vector: a list, or base64 of little-endian float32."""
    if isinstance(value, str):
        try:
            return tuple(np.frombuffer(base64.b64decode(value, validate=True), "<f4").tolist())
        except (binascii.Error, ValueError):
            message = "vector is text, but not base64 of float32 numbers"
            raise RequestError(message) from None
    if not isinstance(value, list) or {*map(type, value)} - {float, int}:
        message = "vector is no list of numbers"
        raise RequestError(message)
    return tuple(value)


async def _find(call: Call, live: Live, asked: Asked) -> tuple[_Found, bytes]:
    """The result, and how it was come by: kept, made, or made for somebody else who asked the same."""
    serving = call.serving
    where = asked.where.canonical() if asked.where is not None else None
    version = live.versions.get("content")
    table = None if version is None else serving.table_version(version.table)
    owner = call.caller.id if call.caller.filter is not None else ""
    key = (live.release.id, table, where, owner, asked)
    # The version of the live table says nothing of the table that a vector of a retained version is searched in.
    of_live = asked.vector is None or (version is not None and asked.version in version.names)
    keeps = table is not None and asked.as_of is None and of_live
    kept = serving.found.get(key) if keeps else None
    if kept is not None:
        serving.metrics.add("lodestore_cache_total", cache="search", outcome="hit")
        return kept, b"hit"
    found, joined = await serving.finding.run(key, lambda: serving.searching.run(lambda: _made(call, live, asked)))
    outcome = "coalesced" if joined else "miss"
    serving.metrics.add("lodestore_cache_total", cache="search", outcome=outcome)
    if keeps and not found[0].degraded and not joined:
        serving.found.put(key, found)
    for part in found[0].degraded:
        serving.metrics.add("lodestore_degraded_total", part=part)
    return found, outcome.encode()


def _made(call: Call, live: Live, asked: Asked) -> _Found:
    serving = call.serving
    if not live.versions:
        state, why = serving.search_state()
        message = f"search is {state}: {why or 'its tables are being opened'}"
        raise UnavailableError(message)
    if asked.as_of is not None:
        options = {name: getattr(asked.extras, name) for name in _EXTRAS}
        result = serving.store(live).search(
            asked.query, k=asked.k, mode=asked.mode, mandatory=asked.where, as_of=asked.as_of, **options
        )
        return result, orjson.dumps([hit.to_json() for hit in result.hits])
    where = None if asked.where is None else asked.where.sql()
    if asked.vector is None:
        result = live.find(asked.query, k=asked.k, mode=asked.mode, where=where, extras=asked.extras)
    else:
        result = live.search_vector(asked.vector, fingerprint=asked.version, k=asked.k, where=where)
    return result, orjson.dumps([hit.to_json() for hit in result.hits])


def _told(result: SearchResult, hits: bytes, call: Call) -> dict[str, Any]:
    told = {**replace(result, hits=()).to_json(), "hits": orjson.Fragment(hits)}
    degraded = [*result.degraded, *call.serving.stale()]
    return told | ({"degraded": degraded} if degraded else {})


def _arrow(result: SearchResult) -> bytes:
    names = ("chunk_id", "document_id", "score", "title", "uri", "text", "start", "end", "source", "category")
    columns = {name: [getattr(hit, name) for hit in result.hits] for name in names}
    told = {"release": str(result.release), "version": result.version, "mode": result.mode}
    return arrow_stream(pa.table(columns).replace_schema_metadata(told))


async def why(call: Call) -> Answer:
    """POST /v1/why: what keeps a document from being found, or at which place it is."""
    values = parsed(call.body, _WHY)
    query, name, mode = a_text(values, "query"), a_text(values, "document_id"), a_text(values, "mode", "hybrid")
    call.live = await call.serving.searchable(call.live, model=mode != "text")
    given, k, live = values.get("filter"), a_k(values, call), call.snapshot
    filter_of(values, call)
    own, store = combine(_demanded(values), call.caller.filter), call.serving.store
    told = await call.serving.searching.run(
        lambda: store(live).why(query, name, k=k, mode=mode, filter=given, mandatory=own).to_json()
    )
    return Answer(as_json({"release": live.release.generation, **told}))
