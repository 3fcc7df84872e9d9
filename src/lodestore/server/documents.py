"""Documents and chunks over HTTP, as far as the caller's filter lets them be seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from lodestore.errors import UnavailableError, UnknownDocumentError
from lodestore.live import Live
from lodestore.ports import OfflineStore
from lodestore.server.endpoint import Answer, Call, as_json
from lodestore.server.query import whole
from lodestore.tables import chunk_table, quoted

__all__ = ["chunk", "document"]

_NEIGHBOURS = frozenset({"neighbours"})
_MOST_NEIGHBOURS = 20
_CHUNK = ("chunk_id", "document_id", "ordinal", "start", "end", "text", "n_tokens", "content_hash", "visible_from")


async def document(call: Call) -> Answer:
    """GET /v1/documents/{id}: the document as it is live."""
    call.query(frozenset())
    name, tables = str(call.path["id"]), call.serving.project
    row = await call.serving.reading.run(lambda: _document(tables.tables, name, call))
    row["metadata"] = orjson.loads(row["metadata"] or "{}")
    return Answer(as_json(row))


def _document(tables: OfflineStore, name: str, call: Call) -> dict[str, Any]:
    rows = _visible(tables, name, call)
    if not rows:
        raise UnknownDocumentError(name, note="; give the id as search tells it: SOURCE/ID")
    return rows[0]


def _visible(tables: OfflineStore, name: str, call: Call) -> list[dict[str, Any]]:
    """The document's row; none when it is not there or the key may not see it, which nobody can tell apart."""
    rows = tables.read("documents", None, f"document_id = {quoted(name)}").to_pylist()
    where = call.caller.filter
    return [row for row in rows if where is None or where.matches(row)]


async def chunk(call: Call) -> Answer:
    """GET /v1/chunks/{id}?neighbours=1: a chunk of the live version, and those around it in its document."""
    around = whole(call.query(_NEIGHBOURS), "neighbours", 0, low=0, high=_MOST_NEIGHBOURS)
    name, live = str(call.path["id"]), call.snapshot
    told = await call.serving.reading.run(lambda: _chunk(call, live, name, around))
    return Answer(as_json({"release": live.release.generation, **told}))


def _chunk(call: Call, live: Live, name: str, around: int) -> Mapping[str, Any]:
    if not live.versions:
        message = "chunks: the system of record is not open yet; try again in a second"
        raise UnavailableError(message)
    tables = call.serving.project.tables
    table = chunk_table(live.version("content").chunker)
    rows = tables.read(table, _CHUNK, f"chunk_id = {quoted(name)}").to_pylist()
    if not rows:
        raise UnknownDocumentError(name, note=" (chunks of the live version)")
    row = rows[0]
    if call.caller.filter is not None and not _visible(tables, row["document_id"], call):
        raise UnknownDocumentError(name, note=" (chunks of the live version)")
    near = f"ordinal BETWEEN {row['ordinal'] - around} AND {row['ordinal'] + around}"
    found = tables.read(table, _CHUNK, f"document_id = {quoted(row['document_id'])} AND {near}").to_pylist()
    others = sorted((one for one in found if one["chunk_id"] != name), key=lambda one: one["ordinal"])
    return {"chunk": row, "neighbours": others}
