"""Features over HTTP: read by entity, pushed by row, listed as they are declared."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from lodestore.errors import RequestError
from lodestore.features import Fetch, OnlineAnswer
from lodestore.live import Live
from lodestore.online import Written
from lodestore.server.body import a_list, a_text, a_whole, an_object, parsed
from lodestore.server.endpoint import ARROW, NDJSON, Answer, Call, as_json
from lodestore.server.problems import HttpError
from lodestore.server.query import PAGE, page, paged
from lodestore.spec import Feature, FeatureRef, FeatureView, OnDemandView
from lodestore.wire import MAX_SAFE_INTEGER, jsonable

__all__ = ["arrow_stream", "list_views", "push_rows", "read_at_once", "read_features"]

_READ = frozenset({"features", "entities", "inputs", "service", "release"})
_PUSH = frozenset({"view", "rows"})
_VIEW = frozenset({"view"})
_TEXTS = {str}
_DIGITS = 20  # of a whole number of 64 bits, with its sign
_MADE = tuple.__new__
_MOMENT = pa.timestamp("us", tz="UTC")


async def read_features(call: Call) -> Answer:
    """POST /v1/features: columns in the order of the entities."""
    asked, serving, live = _asked(call), call.serving, call.snapshot
    if asked.pinned:
        live = await serving.at(live, asked.release, search=False)
    if serving.on_loop and asked.is_small(call):
        return _read(call, live, asked)
    gathering, generation = serving.gathering, live.release.generation
    if gathering is not None and asked.cells <= serving.options.rows_on_loop:
        return await gathering.run(
            lambda: serving.features.wanted(asked.refs, _keyed(asked, live, call).entities, release=generation),
            lambda fetch: _read(call, live, asked, fetch),
        )
    return await serving.reading.run(lambda: _read(call, live, asked))


def read_at_once(call: Call) -> Answer | None:
    """The same where nothing has to be waited for: few values, by the live release, from an online store of this machine."""
    asked, live = _asked(call), call.snapshot
    return None if asked.pinned or not asked.is_small(call) else _read(call, live, asked)


class _Asked(NamedTuple):
    """A request for features; `cells` is how many values it is answered with."""

    refs: list[str]
    entities: dict[str, list[Any]]
    inputs: Mapping[str, Any] | None
    pinned: bool
    release: int | None
    cells: int

    def is_small(self, call: Call) -> bool:
        """Whether it is answered sooner than a thread could be woken to answer it."""
        return self.cells <= call.serving.options.rows_on_loop and not self.inputs


def _asked(call: Call) -> _Asked:
    values = parsed(call.body, _READ)
    refs = _refs(call, values)
    entities = _columns(an_object(values, "entities"), call)
    inputs = an_object(values, "inputs", None) if "inputs" in values else None
    pinned = "release" in values
    release = a_whole(values, "release", None) if pinned else None
    cells = max([*map(len, entities.values())], default=0) * len(refs)
    if cells > call.serving.options.max_values:
        message = f"{cells:,} values in one request; at most {call.serving.options.max_values:,}, ask in parts"
        raise RequestError(message)
    return _MADE(_Asked, (refs, entities, inputs, pinned, release, cells))


def _refs(call: Call, values: Mapping[str, Any]) -> list[str]:
    refs: list[str] = a_list(values, "features", [])
    if "service" in values:
        service = a_text(values, "service", None)
        more = () if service is None else call.serving.features.catalog.service(service).features
        refs = [*refs, *map(str, more)]
    if {*map(type, refs)} != _TEXTS and refs:
        message = "features has an entry that is no text; write VIEW:FEATURE"
        raise RequestError(message)
    return refs


def _columns(entities: dict[str, Any], call: Call) -> dict[str, list[Any]]:
    """The join keys, one list a key: text or whole numbers."""
    for name, column in entities.items():
        if type(column) is not list:
            message = f"entities.{name} is no list; give one value for each row"
            raise RequestError(message)
        most = call.serving.options.max_entities
        if len(column) > most:
            message = f"entities.{name} has {len(column):,} rows; at most {most:,} at a time"
            raise RequestError(message)
        kinds = {*map(type, column)}
        if kinds == _TEXTS:
            continue
        if kinds - {str, int}:
            message = f"entities.{name} has a value that is neither text nor a whole number"
            raise RequestError(message)
        if any(type(one) is int and abs(one) > MAX_SAFE_INTEGER for one in column):
            message = f"entities.{name} has a number beyond 2^53 - 1, where JSON loses digits; write it as text"
            raise RequestError(message)
    return entities


def _keyed(asked: _Asked, live: Live, call: Call) -> _Asked:
    """The same with numbers as keys where the views have such and the request has text, since JSON would round them."""
    entities = asked.entities
    for name in call.serving.features.whole_keys(asked.refs, release=live.release.generation):
        if name in entities and str in {*map(type, entities[name])}:
            entities = {**entities, name: [*map(_rounded, entities[name])]}
    return asked if entities is asked.entities else asked._replace(entities=entities)


def _rounded(value: Any) -> Any:  # noqa: ANN401 - whatever a column has
    """A whole number that JSON would round, and that is written as text, as a number; anything else as it is."""
    try:
        found = int(value) if type(value) is str and len(value) <= _DIGITS else 0
    except ValueError:
        return value
    return found if abs(found) > MAX_SAFE_INTEGER and str(found) == value else value


def _read(call: Call, live: Live, asked: _Asked, fetch: Fetch | None = None) -> Answer:
    serving, features, refs = call.serving, call.serving.features, asked.refs
    if call.caller.filter is not None:
        _check_tenant(call, refs)
    generation = live.release.generation
    entities = _keyed(asked, live, call).entities
    found = features.online(refs, entities, inputs=asked.inputs, release=generation, fetch=fetch)
    call.view = _view_of(refs[0])
    degraded = serving.stale()
    if features.down:
        degraded = (*degraded, "features")
    call.marks = (*degraded, "stale") if found.stale else degraded
    if b"vnd.apache.arrow" in call.headers.get(b"accept", b""):
        return Answer(_arrow(found), ARROW, release=generation)
    return Answer(_json(found, degraded, call), release=generation)


@lru_cache(1_024)
def _view_of(ref: str) -> str:
    return ref.partition(":")[0].partition("@")[0]


def _check_tenant(call: Call, refs: Sequence[str]) -> None:
    """A key with a filter over documents reads no features of documents: these know no filter."""
    latest = call.serving.features.catalog.latest
    for one in refs:
        view = latest.get(FeatureRef.parse(one).view)
        if view is not None and "document_id" in view.entity.keys:
            message = f"key {call.caller.id} has a filter over documents; {view.name} cannot be read with it"
            raise HttpError(403, "forbidden", message)


def _json(found: OnlineAnswer, degraded: Sequence[str], call: Call) -> bytes:
    columns = found.columns
    if found.wide:
        wide = {name: [None if one is None else str(one) for one in columns[name]] for name in found.wide}
        columns = {**columns, **wide}
    if b"vectors=base64" in call.headers.get(b"accept", b""):
        columns = {name: [_base64(one) for one in column] for name, column in columns.items()}
    out = {
        "release": found.release,
        "columns": columns,
        "statuses": found.statuses,
        "event_timestamps": found.event_texts,
    }
    if found.stale:
        out["stale"] = found.stale
    if degraded:
        out["degraded"] = degraded
    return as_json(out)


def _base64(value: Any) -> Any:  # noqa: ANN401 - a feature's value
    """A vector as base64 of its little-endian float32 numbers; anything else as it is."""
    return base64.b64encode(value.astype("<f4").tobytes()).decode() if isinstance(value, np.ndarray) else value


def _arrow(found: OnlineAnswer) -> bytes:
    """One table: keys and features, then a status and an event timestamp for each feature."""
    columns = {name: _array(values) for name, values in found.columns.items()}
    columns |= {f"{name}__status": pa.array(values, pa.string()) for name, values in found.statuses.items()}
    moments = {
        f"{name}__event": pa.array(values, pa.int64()).view(_MOMENT) for name, values in found.event_micros.items()
    }
    return arrow_stream(pa.table({**columns, **moments}).replace_schema_metadata({"release": str(found.release)}))


def _array(values: Sequence[Any]) -> pa.Array:
    """A column; what Arrow has no one type for, such as objects of different keys, goes as JSON text."""
    kinds = {*map(type, values)}
    if np.ndarray in kinds:
        return _vector_array(values)
    if dict in kinds:
        return pa.array([None if one is None else orjson.dumps(jsonable(one)).decode() for one in values], pa.string())
    return pa.array(values)


def _vector_array(values: Sequence[np.ndarray[Any, Any] | None]) -> pa.Array:
    """Vectors of one length are a column of fixed-size lists."""
    sizes = {len(one) for one in values if one is not None}
    if len(sizes) > 1:
        return pa.array(values)
    size = sizes.pop()
    vectors = [one for one in values if one is not None]
    if len(vectors) == len(values):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors)), size)
    return pa.array(values, pa.list_(pa.float32(), size))


def arrow_stream(table: pa.Table) -> bytes:
    """The table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


# -- push


async def push_rows(call: Call) -> Answer:
    """POST /v1/push: all rows or none. The rows come as JSON, as NDJSON or as Arrow."""
    written = await call.serving.writing.run(lambda: _push(call))
    return Answer(as_json({"accepted": written.accepted, "duplicates": written.duplicates, "late": written.late}))


def _push(call: Call) -> Written:
    serving = call.serving
    name, rows = _rows(call)
    call.view = serving.features.catalog.pinned(name).name
    return serving.features.push(name, rows)


def _rows(call: Call) -> tuple[str, list[Any] | pa.Table]:
    media = call.media(b"content-type")
    if media not in {ARROW, NDJSON}:
        values = parsed(call.body, _PUSH)
        return a_text(values, "view"), a_list(values, "rows")
    name = call.query(_VIEW).get("view", "")
    if not name:
        message = "say which view the rows are for: /v1/push?view=NAME"
        raise RequestError(message)
    return name, _arrow_table(call.body) if media == ARROW else _lines(call.body)


def _arrow_table(body: bytes) -> pa.Table:
    try:
        with pa.ipc.open_stream(body) as reader:
            table = reader.read_all()
        table.validate(full=True)  # what is wrong inside would otherwise be found in the middle of a step, or never
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        message = f"the body is no Arrow IPC stream: {error}"
        raise HttpError(400, "arrow", message) from None
    return table


def _lines(body: bytes) -> list[Any]:
    rows = []
    for number, line in enumerate(body.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(orjson.loads(line))
        except ValueError as error:
            message = f"line {number} is not JSON: {error}"
            raise HttpError(400, "json", message) from None
    return rows


# -- views


async def list_views(call: Call) -> Answer:
    """GET /v1/views: what is declared, by name, with the live versions."""
    given = call.query(PAGE)
    catalog = call.serving.features.catalog
    live = call.live.release.views if call.live is not None else {}
    views: list[FeatureView | OnDemandView] = [*catalog.latest.values(), *catalog.on_demand.values()]
    shown, following = page(sorted(views, key=lambda one: one.name), given, lambda one: one.name)
    return Answer(as_json(paged("views", [_view(one, live.get(one.name)) for one in shown], following)))


def _view(view: FeatureView | OnDemandView, live: int | None) -> dict[str, Any]:
    told: dict[str, Any] = {"name": view.name, "version": view.version, "owner": view.owner, "doc": view.doc}
    told["features"] = [_feature(one) for one in view.features.values()]
    if isinstance(view, OnDemandView):
        inputs = [_feature(one) for one in view.inputs.values()]
        return {**told, "source": "on_demand", "reads": [str(one) for one in view.reads], "inputs": inputs}
    keys = dict(zip(view.entity.keys, view.entity.types, strict=True))
    clocks = {"ttl": view.ttl, "fresh_within": view.fresh_within}
    seconds = {name: None if one is None else one.total_seconds() for name, one in clocks.items()}
    entity = {"name": view.entity.name, "keys": keys}
    return {**told, "source": str(view.source), "live": live, "entity": entity, **seconds}


def _feature(feature: Feature) -> dict[str, Any]:
    told: dict[str, Any] = {"name": feature.name, "type": str(feature.kind), "doc": feature.doc, "pii": feature.pii}
    optional = {"minimum": feature.minimum, "maximum": feature.maximum, "categories": list(feature.categories)}
    optional |= {"max_length": feature.max_length, "wide": feature.wide}
    return told | {name: value for name, value in optional.items() if value}
