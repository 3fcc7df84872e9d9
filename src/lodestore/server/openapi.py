"""The OpenAPI 3.1 document, written from the routes and the declarations, and a page that shows it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from lodestore.catalog import Catalog
from lodestore.server.endpoint import Answer, Call, as_json
from lodestore.server.options import ServerOptions
from lodestore.spec import Feature, FeatureView, Kind, OnDemandView

__all__ = ["docs", "document", "openapi"]

_Schema = dict[str, Any]
_TEXT: _Schema = {"type": "string"}
_WHOLE: _Schema = {"type": "integer"}
_NUMBER: _Schema = {"type": "number"}
_FLAG: _Schema = {"type": "boolean"}
_ANY: _Schema = {}
_MOMENT: _Schema = {"type": "string", "format": "date-time"}
_TEXTS: _Schema = {"type": "array", "items": _TEXT}
_MAPPING: _Schema = {"type": "object", "additionalProperties": True}
# Defaults are prose: generators of typed clients take a field with `default` for one that is always there.
_MODE: _Schema = {"type": "string", "enum": ["hybrid", "vector", "text"], "description": "hybrid by default."}
_K: _Schema = {"type": "integer", "minimum": 1, "maximum": 1000, "description": "10 by default."}
_FILTER: _Schema = {"anyOf": [_TEXT, _MAPPING], "description": "A filter over documents, as text or as an object."}
_PINNED: _Schema = {"type": "integer", "minimum": 0, "description": "A generation: the live one or its predecessor."}
_STATUS: _Schema = {
    "type": "string",
    "enum": ["PRESENT", "NULL", "NOT_FOUND", "EXPIRED", "OTHER_VERSION", "UNAVAILABLE"],
}
_HTML = b"text/html; charset=utf-8"


def _nullable(schema: _Schema) -> _Schema:
    return {**schema, "type": [schema["type"], "null"]} if "type" in schema else schema


def _list(items: _Schema) -> _Schema:
    return {"type": "array", "items": items}


def _map(values: _Schema) -> _Schema:
    return {"type": "object", "additionalProperties": values}


def _object(required: str = "", /, **properties: _Schema) -> _Schema:
    """An object whose named properties are required."""
    out: _Schema = {"type": "object", "properties": properties}
    return out | ({"required": required.split()} if required else {})


def _closed(required: str = "", /, **properties: _Schema) -> _Schema:
    """The same without any other property: what a request may say."""
    return {**_object(required, **properties), "additionalProperties": False}


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_QUERY = {
    "query": _TEXT,
    "vector": {"anyOf": [_list(_NUMBER), {"type": "string", "contentEncoding": "base64"}]},
    "version": {**_TEXT, "description": "The model and version that made the vector, such as minilm@1."},
    "k": _K,
    "filter": _FILTER,
    "mandatory": {**_FILTER, "description": "A filter of its own beside `filter`, which cannot widen it."},
    "mode": _MODE,
    "as_of": _MOMENT,
    "per_document": {
        "type": "integer",
        "minimum": 1,
        "maximum": 100,
        "description": "One hit of each document, with so many of its chunks.",
    },
    "neighbours": {"type": "integer", "minimum": 0, "maximum": 10, "description": "0 by default."},
    "highlight": {**_FLAG, "description": "false by default."},
    "diversity": {"type": "number", "minimum": 0, "maximum": 1},
    "titles": _FLAG,
    "explain": {**_FLAG, "description": "false by default."},
    "rerank": {**_FLAG, "description": "false by default."},
}
_DEGRADED = {"degraded": _TEXTS}


def _schemas() -> dict[str, _Schema]:
    hit = _object(
        "chunk_id document_id score title uri text",
        chunk_id=_TEXT, document_id=_TEXT, score=_NUMBER, title=_TEXT, uri=_TEXT, text=_TEXT, start=_WHOLE, end=_WHOLE,
        source=_TEXT, category=_nullable(_TEXT), vector_rank=_WHOLE, text_rank=_WHOLE, title_rank=_WHOLE, n=_WHOLE,
        highlights=_list(_list(_WHOLE)), before=_TEXTS, after=_TEXTS, others=_list(_ref("Hit")),
    )  # fmt: skip
    return {
        "Problem": _object(
            "type title status detail request_id",
            type=_TEXT, title=_TEXT, status=_WHOLE, detail=_TEXT, request_id=_TEXT, problems=_TEXTS,
        ),
        "FeaturesRequest": _closed(
            "entities",
            features=_list(_ref("FeatureReference")), entities=_map(_list({"type": ["string", "integer"]})),
            inputs=_map(_list(_ANY)), service=_TEXT, release=_PINNED,
        ),
        "Features": _object(
            "release columns statuses event_timestamps",
            release=_WHOLE, columns=_map(_list(_ANY)), statuses=_map(_list(_STATUS)),
            event_timestamps=_map(_list(_nullable(_MOMENT))), stale=_TEXTS, **_DEGRADED,
        ),
        "PushRequest": _closed("view rows", view=_TEXT, rows=_list(_MAPPING)),
        "Pushed": _object("accepted duplicates late", accepted=_WHOLE, duplicates=_WHOLE, late=_WHOLE),
        "SearchRequest": _closed("", **_QUERY, release=_PINNED),
        "Hit": hit,
        "SearchResult": _object(
            "release version mode took_ms hits",
            release=_WHOLE, version=_TEXT, mode=_TEXT, took_ms=_NUMBER, hits=_list(_ref("Hit")), as_of=_MOMENT,
            notes=_TEXTS, explain=_MAPPING, live_version=_TEXT, **_DEGRADED,
        ),
        "WhyRequest": _closed(
            "query document_id",
            query=_TEXT, document_id=_TEXT, k=_K, filter=_FILTER, mandatory=_QUERY["mandatory"], mode=_MODE,
        ),
        "Why": _object(
            "release document_id reason sentence mend",
            release=_WHOLE, document_id=_TEXT, reason=_TEXT, sentence=_TEXT, mend=_TEXT, rank=_nullable(_WHOLE),
            score=_nullable(_NUMBER), needed=_nullable(_NUMBER), k=_WHOLE, mode=_MODE, chunk_id=_nullable(_TEXT),
            at=_nullable(_MOMENT), version=_TEXT, details=_MAPPING,
        ),
        "SearchBatchRequest": _closed("queries", queries=_list(_closed("", **_QUERY)), release=_PINNED),
        "SearchResults": _object("release results", release=_WHOLE, results=_list(_ref("SearchResult"))),
        **_context_schemas(),
        **_other_schemas(),
    }  # fmt: skip


def _context_schemas() -> dict[str, _Schema]:
    message = _object("role content", role=_TEXT, content=_TEXT)
    used = _object("id version", id=_TEXT, version=_TEXT)
    return {
        "ContextRequest": _closed(
            "query",
            query=_TEXT, user_id=_TEXT, template=_TEXT, variables=_MAPPING, history=_ANY, filter=_FILTER, k=_K,
            mandatory=_QUERY["mandatory"],
            token_budget={"type": "integer", "minimum": 1}, mode=_MODE, record={**_FLAG, "description": "true by default."},
            request_id=_TEXT, release=_PINNED,
        ),
        "Context": _object(
            "release context_id prompt messages hits features template n_tokens user_known degraded timings_ms",
            release=_WHOLE, context_id=_TEXT, prompt=_TEXT, messages=_list(message), hits=_list(_ref("Hit")),
            features=_MAPPING, template=used, n_tokens=_WHOLE, user_known=_FLAG, timings_ms=_map(_NUMBER), **_DEGRADED,
        ),
        "OutcomeRequest": _closed(
            "context_id event_id",
            context_id=_TEXT, event_id=_TEXT, accepted=_FLAG, rating=_NUMBER, latency_ms=_NUMBER, tokens=_WHOLE,
        ),
        "Outcome": _object("stored", stored=_FLAG),
        "RenderRequest": _closed("", variables=_MAPPING, version=_TEXT),
        "Rendered": _object(
            "template version content_hash text messages",
            template=_TEXT, version=_TEXT, content_hash=_TEXT, text=_TEXT, messages=_list(message),
        ),
    }  # fmt: skip


def _other_schemas() -> dict[str, _Schema]:
    template = _object(
        "id version family content_hash variables live_weight",
        id=_TEXT, version=_TEXT, family=_TEXT, doc=_TEXT, content_hash=_TEXT, is_chat=_FLAG, content=_TEXT,
        variables=_list(_object("name type required", name=_TEXT, type=_TEXT, required=_FLAG, doc=_TEXT)),
        live_weight=_NUMBER,
    )  # fmt: skip
    view = _object("name version source features", name=_TEXT, version=_WHOLE, source=_TEXT, features=_list(_MAPPING))
    following = _nullable(_TEXT)
    part = _object("state", state=_TEXT, why=_TEXT)
    return {
        "View": view,
        "Views": _object("views next", views=_list(_ref("View")), next=following),
        "Template": template,
        "Templates": _object("templates next", templates=_list(_ref("Template")), next=following),
        "Document": _object("document_id title uri content", document_id=_TEXT, title=_TEXT, uri=_TEXT, content=_TEXT),
        "Chunk": _object("chunk_id document_id text", chunk_id=_TEXT, document_id=_TEXT, ordinal=_WHOLE, text=_TEXT),
        "ChunkWithNeighbours": _object(
            "release chunk neighbours", release=_WHOLE, chunk=_ref("Chunk"), neighbours=_list(_ref("Chunk"))
        ),
        "Release": _object(
            "id generation embeddings templates views newest",
            id=_TEXT, generation=_WHOLE, embeddings=_map(_TEXT), templates=_map(_map(_NUMBER)), views=_map(_WHOLE),
            at=_MOMENT, action=_TEXT, author=_TEXT, reason=_TEXT, newest=_WHOLE, behind_because=_TEXT,
        ),
        "Ready": _object("ready parts release", ready=_FLAG, parts=_map(part), release=_WHOLE),
        "Health": _object("ok", ok=_FLAG),
    }  # fmt: skip


_PAGE = (
    ("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "description": "100 by default."}),
    ("cursor", _TEXT),
)

# path, method, operation, summary, request, answer, query parameters, scope
_ROUTES: tuple[tuple[str, str, str, str, str | None, str, tuple[tuple[str, _Schema], ...], str | None], ...] = (
    ("/v1/features", "post", "readFeatures", "Feature values, row by row as asked.", "FeaturesRequest", "Features", (), "read"),
    ("/v1/push", "post", "push", "Rows of a view: all are stored, or none is.", "PushRequest", "Pushed", (("view", _TEXT),), "push"),
    ("/v1/search", "post", "search", "The best chunks for a query.", "SearchRequest", "SearchResult", (), "read"),
    ("/v1/search/batch", "post", "searchBatch", "Many searches by one release.", "SearchBatchRequest", "SearchResults", (), "read"),
    ("/v1/context", "post", "context", "The prompt for a user and a question.", "ContextRequest", "Context", (), "read"),
    ("/v1/why", "post", "why", "Why a document is not found.", "WhyRequest", "Why", (), "admin"),
    ("/v1/outcomes", "post", "outcome", "What became of an answer.", "OutcomeRequest", "Outcome", (), "push"),
    ("/v1/templates/{id}/render", "post", "renderTemplate", "A template with its values in place.", "RenderRequest", "Rendered", (), "read"),
    ("/v1/views", "get", "listViews", "The declared views.", None, "Views", _PAGE, "read"),
    ("/v1/templates", "get", "listTemplates", "Every stored template version.", None, "Templates", _PAGE, "read"),
    ("/v1/templates/{id}", "get", "getTemplate", "One template version; the live one by default.", None, "Template", (("version", _TEXT),), "read"),
    ("/v1/documents/{id}", "get", "getDocument", "A live document.", None, "Document", (), "read"),
    ("/v1/chunks/{id}", "get", "getChunk", "A chunk and those around it.", None, "ChunkWithNeighbours", (("neighbours", {"type": "integer", "minimum": 0, "maximum": 20}),), "read"),
    ("/v1/release", "get", "getRelease", "What is live.", None, "Release", (("at", _MOMENT),), "read"),
    ("/healthz", "get", "healthz", "The process answers.", None, "Health", (), None),
    ("/readyz", "get", "readyz", "What can be answered, by part.", None, "Ready", (("part", {"type": "string", "enum": ["features", "search"]}),), None),
)  # fmt: skip


def openapi(catalog: Catalog, options: ServerOptions | None = None) -> dict[str, Any]:
    """The document of a server with these declarations and limits."""
    paths: dict[str, dict[str, Any]] = {}
    for path, method, name, summary, request, answer, query, scope in _ROUTES:
        paths.setdefault(path, {})[method] = _operation(path, name, summary, request, answer, query, scope)
    schemas = _limited(_schemas(), options or ServerOptions()) | {
        "FeatureReference": {
            **_TEXT,
            "description": "VIEW:FEATURE or VIEW@VERSION:FEATURE",
            "examples": _references(catalog)[:5],
        }
    }
    schemas |= {f"Row_{view.name}": _row(view.entity.keys, view.features) for view in catalog.latest.values()}
    info = {
        "title": "Lodestore",
        "version": version("lodestore"),
        "description": "Features, search and prompts at request time.",
    }
    security = {"key": {"type": "http", "scheme": "bearer", "description": "A key of `lodestore keys add`."}}
    return {
        "openapi": "3.1.0",
        "info": info,
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": security},
    }


def _limited(schemas: dict[str, _Schema], limits: ServerOptions) -> dict[str, _Schema]:
    """The same schemas with what one request may ask."""
    for name in ("SearchRequest", "ContextRequest", "WhyRequest"):
        schemas[name]["properties"]["k"] = {**_K, "maximum": limits.max_k}
    batch = schemas["SearchBatchRequest"]["properties"]
    batch["queries"] = {**batch["queries"], "minItems": 1, "maxItems": limits.max_batch}
    batch["queries"]["items"]["properties"]["k"] = {**_K, "maximum": limits.max_k}
    entities = schemas["FeaturesRequest"]["properties"]["entities"]["additionalProperties"]
    entities["maxItems"] = limits.max_entities
    return schemas


def _references(catalog: Catalog) -> list[str]:
    views: list[FeatureView | OnDemandView] = [*catalog.latest.values(), *catalog.on_demand.values()]
    return [f"{view.name}:{name}" for view in views for name in view.features]


def _operation(
    path: str,
    name: str,
    summary: str,
    request: str | None,
    answer: str,
    query: tuple[tuple[str, _Schema], ...],
    scope: str | None,
) -> dict[str, Any]:
    told: dict[str, Any] = {"operationId": name, "summary": summary}
    parameters = [{"name": one, "in": "query", "required": False, "schema": schema} for one, schema in query]
    if "{id}" in path:
        parameters.append({"name": "id", "in": "path", "required": True, "schema": _TEXT})
    if parameters:
        told["parameters"] = parameters
    if request is not None:
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(request)}}}
    problem = {"description": "A problem", "content": {"application/problem+json": {"schema": _ref("Problem")}}}
    good = {
        "description": "The answer",
        "headers": _headers(),
        "content": {"application/json": {"schema": _ref(answer)}},
    }
    told["responses"] = {"200": good, "default": problem}
    if name == "readyz":
        told["responses"]["503"] = good
    if scope is not None:
        told["security"] = [{"key": [scope]}, {}]
    return told


def _headers() -> dict[str, Any]:
    told = {
        "Lodestore-Release": "The release that the answer is by.",
        "Lodestore-Age-Ms": "Since when it is not certain that this is the newest release.",
        "Lodestore-Cache": "hit, miss, coalesced or none.",
    }
    return {name: {"description": text, "schema": _TEXT} for name, text in told.items()}


def _row(keys: tuple[str, ...], features: Mapping[str, Feature]) -> _Schema:
    """A pushed row of a view, from its declaration."""
    times = {"event_timestamp": _MOMENT, "created_timestamp": _MOMENT, "event_id": _TEXT}
    values = {name: _value(one) for name, one in features.items() if one.kind is not Kind.EMBEDDING}
    key_schema: _Schema = {"type": ["string", "integer"]}
    properties = dict.fromkeys(keys, key_schema) | times | values
    return {"type": "object", "properties": properties, "required": [*keys, "event_timestamp"]}


def _value(feature: Feature) -> _Schema:
    kinds: dict[Kind, _Schema] = {
        Kind.INTEGER: _WHOLE, Kind.NUMBER: _NUMBER, Kind.BOOLEAN: _FLAG, Kind.TIMESTAMP: _MOMENT, Kind.STRUCT: _MAPPING,
    }  # fmt: skip
    if feature.kind is Kind.LIST and feature.item is not None:
        return {"type": ["array", "null"], "items": _value(feature.item)}
    schema: _Schema = _nullable(kinds.get(feature.kind, _TEXT))
    more: dict[str, Any] = {"minimum": feature.minimum, "maximum": feature.maximum, "description": feature.doc}
    more |= {"enum": [*feature.categories, None] if feature.categories else None, "maxLength": feature.max_length}
    return schema | {name: value for name, value in more.items() if value}


async def document(call: Call) -> Answer:
    """GET /openapi.json."""
    return Answer(as_json(openapi(call.serving.features.catalog, call.serving.options)))


async def docs(call: Call) -> Answer:
    """GET /docs: the endpoints and the declared features on one page, which loads nothing else."""
    catalog = call.serving.features.catalog
    routes = "".join(
        f"<tr><td><code>{method.upper()} {html.escape(path)}</code></td><td>{html.escape(summary)}</td>"
        f"<td>{scope or ''}</td></tr>"
        for path, method, _, summary, _, _, _, scope in _ROUTES
    )
    views: list[FeatureView | OnDemandView] = [*catalog.latest.values(), *catalog.on_demand.values()]
    features = "".join(
        f"<tr><td><code>{view.name}:{name}</code></td><td>{one.kind}</td><td>{html.escape(one.doc)}</td></tr>"
        for view in views
        for name, one in view.features.items()
    )
    return Answer(_PAGE_TEXT.format(routes=routes, features=features).encode(), _HTML)


_PAGE_TEXT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Lodestore</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd }}
</style></head><body>
<h1>Lodestore</h1>
<p>The whole description for machines is at <a href="openapi.json">openapi.json</a>. Where there are keys, send
<code>Authorization: Bearer KEY</code>.</p>
<h2>Calls</h2><table><tr><th>Call</th><th>Answers with</th><th>Scope</th></tr>{routes}</table>
<h2>Features</h2><table><tr><th>Feature</th><th>Type</th><th>Meaning</th></tr>{features}</table>
</body></html>
"""
