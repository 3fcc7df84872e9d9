"""The corpus: documents and chunks in the store follow what the sources say, one difference at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from lodestore.chunking import Chunk, Chunker
from lodestore.documents import Document, DocumentSource, Reading, Rejected
from lodestore.logs import Logs
from lodestore.ports import Clock, OfflineStore
from lodestore.tables import CHUNKS, DOCUMENTS, chunk_table, in_list, quoted, retired, retired_schema
from lodestore.wire import dumps

__all__ = ["ChunkSync", "Corpus", "DocumentSync", "retire"]

_DOCUMENTS_PER_STEP = 500
_RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class DocumentSync:
    """What one source's reading changed."""

    source: str
    read: int
    added: int
    changed: int
    unchanged: int
    retired: int
    rejected: int
    problem: str | None = None

    @property
    def touched(self) -> int:
        """How many documents differ from before."""
        return self.added + self.changed + self.retired


@dataclass(frozen=True, slots=True)
class ChunkSync:
    """What a corpus change did to one chunker's chunks."""

    chunker: str
    chunks: int
    written: int
    retired: int
    truncated: int
    tokens: int


class Corpus:
    """Documents and chunks, as tables."""

    def __init__(self, store: OfflineStore, logs: Logs, clock: Clock) -> None:
        self._store = store
        self._logs = logs
        self._clock = clock
        store.ensure("documents", DOCUMENTS, key="document_id")

    # -- documents

    def sync(self, source: DocumentSource, reading: Reading) -> DocumentSync:
        """The documents of this source are those that were read; what disappeared is retired.

        Nothing is retired when the source was not read completely, or when more than `max_retire`
        of it would go: an empty mount must not empty the index.
        """
        now = self._clock()
        known = self._known(source.name)
        new = [one for one in reading.documents if one.document_id not in known]
        changed = [one for one in reading.documents if known.get(one.document_id, one.content_hash) != one.content_hash]
        seen = {one.document_id for one in reading.documents} | {one.document_id for one in reading.rejects}
        gone = sorted(set(known) - seen)
        problem = reading.problem or _too_many(source, gone, known)
        if not reading.complete or problem:
            gone = []
        self._store.upsert("documents", _document_rows([*new, *changed], now), key="document_id")
        self.retire(gone)
        self._note_rejects(source.name, reading.rejects)
        unchanged = len(reading.documents) - len(new) - len(changed)
        counts = (len(reading.documents), len(new), len(changed), unchanged, len(gone), len(reading.rejects))
        return DocumentSync(source.name, *counts, problem=problem)

    def forget_sources(self, names: Iterable[str]) -> int:
        """Documents of sources that are no longer declared are retired; returns how many."""
        declared = set(names)
        table = self._store.read("documents", ["document_id", "source"])
        gone = [row["document_id"] for row in table.to_pylist() if row["source"] not in declared]
        self.retire(gone)
        return len(gone)

    def _known(self, source: str) -> dict[str, str]:
        where = f"source = {quoted(source)}"
        table = self._store.read("documents", ["document_id", "content_hash"], where)
        return dict(zip(table["document_id"].to_pylist(), table["content_hash"].to_pylist(), strict=True))

    def retire(self, document_ids: Sequence[str]) -> None:
        """The documents are in the retired table, and no longer in the live one."""
        retire(
            self._store, "documents", DOCUMENTS, key="document_id", ids=document_ids, version="content_hash", now=self._clock()
        )

    def _note_rejects(self, source: str, rejects: Sequence[Rejected]) -> None:
        """Each reject is logged when it first shows, and once more, as resolved, when it is mended."""
        known = {row["uri"]: row for row in self.rejects() if row["source"] == source}
        now = {one.uri: one for one in rejects}
        rows = [
            reject(source, one.uri, one.reason, one.detail)
            for one in now.values()
            if one.uri not in known or known[one.uri]["reason"] != one.reason
        ]
        rows += [reject(source, uri, _RESOLVED, "") for uri in known if uri not in now]
        self._logs.put_all("rejects", rows)

    def rejects(self) -> list[dict[str, Any]]:
        """What is turned away today: the last word on each file that is not `resolved`."""
        latest = {(row["source"], row["uri"]): row for row in self._logs.rows("rejects")}
        return [row for row in latest.values() if row["reason"] != _RESOLVED]

    # -- chunks

    def sync_chunks(self, chunker: Chunker) -> ChunkSync:
        """The chunker's table holds exactly the chunks of today's documents."""
        name = chunk_table(chunker.id)
        self._store.ensure(name, CHUNKS, key="chunk_id")
        chunked = _pairs(self._store.read(name, ["document_id", "document_hash"]), "document_id", "document_hash")
        current = _pairs(self._store.read("documents", ["document_id", "content_hash"]), "document_id", "content_hash")
        stale = sorted({document for document, _ in current - chunked})
        gone = {document for document, _ in chunked} - {document for document, _ in current}
        written = dropped = 0
        for start in range(0, len(stale), _DOCUMENTS_PER_STEP):
            one_written, one_dropped = self._rechunk(name, chunker, stale[start : start + _DOCUMENTS_PER_STEP])
            written, dropped = written + one_written, dropped + one_dropped
        dropped += self._drop_chunks(name, gone, keep=set())
        return self._chunk_figures(name, chunker.id, written, dropped)

    def _rechunk(self, name: str, chunker: Chunker, documents: Sequence[str]) -> tuple[int, int]:
        hashes, chunks = {}, []
        for document in self.documents(documents):
            hashes[document.document_id] = document.content_hash
            chunks += chunker.cut(document)
        dropped = self._drop_chunks(name, set(documents), keep={chunk.chunk_id for chunk in chunks})
        self._store.upsert(name, _chunk_rows(chunks, hashes, self._clock()), key="chunk_id")
        return len(chunks), dropped

    def _drop_chunks(self, name: str, documents: set[str], *, keep: set[str]) -> int:
        if not documents:
            return 0
        table = self._store.read(name, ["chunk_id", "document_id"])
        mine = table.filter(pc.is_in(table["document_id"], pa.array(sorted(documents), pa.string())))
        gone = [chunk for chunk in mine["chunk_id"].to_pylist() if chunk not in keep]
        retire(self._store, name, CHUNKS, key="chunk_id", ids=gone, version="document_hash", now=self._clock())
        return len(gone)

    def _chunk_figures(self, name: str, chunker: str, written: int, dropped: int) -> ChunkSync:
        table = self._store.read(name, ["n_tokens", "truncated"])
        tokens, truncated = pc.sum(table["n_tokens"]).as_py(), pc.sum(table["truncated"]).as_py()
        return ChunkSync(chunker, table.num_rows, written, dropped, truncated or 0, tokens or 0)

    # -- reading

    def documents(self, ids: Sequence[str]) -> list[Document]:
        """These documents, in the order of the table."""
        return [_document(row) for row in self._store.read("documents", None, in_list("document_id", ids)).to_pylist()]

    def figures(self) -> Mapping[str, int]:
        """How many documents are live, retired and rejected."""
        return {
            "live": self._store.count("documents"),
            "retired": self._store.count(retired("documents")),
            "rejected": len(self.rejects()),
        }


def reject(source: str, uri: str, reason: str, detail: str) -> dict[str, str]:
    return {"id": uuid4().hex, "source": source, "uri": uri, "reason": reason, "detail": detail, "run": ""}


def _too_many(source: DocumentSource, gone: Sequence[str], known: Mapping[str, str]) -> str | None:
    if not known or len(gone) <= source.max_retire * len(known):
        return None
    return (
        f"{len(gone)} of {len(known)} documents of source {source.name!r} are gone, more than max_retire = "
        f"{source.max_retire:g} allows; none was retired. If that is right, raise documents.{source.name}.max_retire"
    )


def _document_rows(documents: Sequence[Document], now: datetime) -> pa.Table:
    rows = [
        {
            **{one.name: getattr(document, one.name) for one in fields(document) if one.name in DOCUMENTS.names},
            "metadata": dumps(document.metadata),
            "ingested_at": now,
        }
        for document in documents
    ]
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def _document(row: Mapping[str, Any]) -> Document:
    import json

    names = {one.name for one in fields(Document)}
    known = {key: value for key, value in row.items() if key in names}
    return Document(**{**known, "metadata": json.loads(row["metadata"] or "{}"), "vector": None})


def _chunk_rows(chunks: Sequence[Chunk], hashes: Mapping[str, str], now: datetime) -> pa.Table:
    rows = [
        {
            **{one.name: getattr(chunk, one.name) for one in fields(chunk)},
            "document_hash": hashes[chunk.document_id],
            "visible_from": now,
        }
        for chunk in chunks
    ]
    return pa.Table.from_pylist(rows, schema=CHUNKS)


def _pairs(table: pa.Table, first: str, second: str) -> set[tuple[str, str]]:
    return set(zip(table[first].to_pylist(), table[second].to_pylist(), strict=True))


def retire(
    store: OfflineStore,
    name: str,
    schema: pa.Schema,
    *,
    key: str,
    ids: Sequence[str],
    version: str,
    now: datetime,
    replaced: bool = False,
) -> None:
    """The rows are in the retired table, and no longer in the live one, unless they are about to be `replaced`.

    They are written there first. A crash in between leaves a row in both; its `retired_id` makes
    the second try write nothing twice.
    """
    past, keyed = retired(name), retired_schema(schema)
    for start in range(0, len(ids), _DOCUMENTS_PER_STEP):
        some = ids[start : start + _DOCUMENTS_PER_STEP]
        rows = store.read(name, schema.names, in_list(key, some))
        left = pa.array([now] * rows.num_rows, keyed.field("visible_until").type)
        identity = pc.binary_join_element_wise(rows[key], rows[version], "|")
        store.ensure(past, keyed, key="retired_id")
        rows = rows.append_column(keyed.field("visible_until"), left)
        store.insert(past, rows.append_column(keyed.field("retired_id"), identity), key="retired_id")
        if not replaced:
            store.delete(name, key, some)
