"""The corpus: documents and chunks in the store follow what the sources say, one difference at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeAlias, TypeVar
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.addresses import shown
from lodestore.chunking import Chunk, Chunker, embedded_text
from lodestore.documents import Document, DocumentSource, Reading, Rejected
from lodestore.logs import Logs
from lodestore.parsing import shortened
from lodestore.ports import Clock, OfflineStore
from lodestore.tables import CHUNKS, DOCUMENTS, chunk_table, in_list, quoted, retired, retired_schema
from lodestore.wire import digest, dumps

__all__ = ["ChunkSync", "Corpus", "DocumentSync", "retire"]

# What is held in memory and written at once.
_DOCUMENTS_PER_STEP = 500
_CHARACTERS_PER_STEP = 20_000_000
_CHARACTERS_PER_WORD = 6
_RESOLVED = "resolved"
# The reason that rows of event files are rejected for; they share the log.
_OF_EVENTS = "invalid_row"
# Nothing was turned away, but documents that could not be found were kept; stands in the same log, once a source.
_KEPT = "nothing_retired"


# What a document says and where it lies; when one differs, its rows are written again.
_State: TypeAlias = tuple[str, str, str]


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

        Nothing is retired when the source was not read completely, when something was turned away
        that has no id (a missing document may be that very row), or when more than `max_retire` of
        it would go: an empty mount must not empty the index. `problem` says so, and `problems` until it is mended.
        """
        known = self._known(source.name)
        change = _change(source, reading, known)
        for step in _steps((one, len(one.content)) for one in (*change.new, *change.changed)):
            self._store.upsert("documents", _document_rows(step, self._clock()), key="document_id")
        self.retire(change.gone)
        self._note_rejects(source.name, reading)
        self._note_problem(source, change.problem)
        unchanged = len(reading.documents) - len(change.new) - len(change.changed)
        counts = (len(reading.documents), len(change.new), len(change.changed), unchanged, len(change.gone))
        return DocumentSync(source.name, *counts, len(reading.rejects), problem=change.problem)

    def forget_sources(self, names: Iterable[str]) -> list[DocumentSync]:
        """Documents of sources other than these are retired, their rejects resolved; one entry for each that had any.

        Without any name nothing is done: settings that declare no source at all are more likely
        the wrong file than the wish to empty the store.
        """
        declared = set(names)
        if not declared:
            return []
        table = self._store.read("documents", ["document_id", "source"])
        gone: dict[str, list[str]] = {}
        for row in table.filter(pc.invert(pc.is_in(table["source"], pa.array(declared, pa.string())))).to_pylist():
            gone.setdefault(row["source"], []).append(row["document_id"])
        for ids in gone.values():
            self.retire(ids)
        left = [row for row in (*self._turned_away(), *self.problems()) if row["source"] not in declared]
        self._logs.put_all("rejects", [_resolved(row) for row in left])
        return [DocumentSync(source, 0, 0, 0, 0, len(ids), 0) for source, ids in sorted(gone.items())]

    def _known(self, source: str) -> dict[str, _State]:
        columns = ["document_id", "content_hash", "uri", "mime"]
        rows = self._store.read("documents", columns, f"source = {quoted(source)}").to_pylist()
        return {row["document_id"]: (row["content_hash"], row["uri"], row["mime"]) for row in rows}

    def retire(self, document_ids: Sequence[str]) -> None:
        """The documents are in the retired table, and no longer in the live one."""
        now = self._clock()
        retire(
            self._store, "documents", DOCUMENTS, key="document_id", ids=document_ids, version="content_hash", now=now
        )

    def _note_rejects(self, source: str, reading: Reading) -> None:
        """Each reject is logged when it first shows, and once more, as resolved, when it is mended."""
        known = {row["id"]: row for row in self._turned_away() if row["source"] == source}
        now = {row["id"]: row for row in map(_reject_row, reading.rejects)}
        rows = [row for key, row in now.items() if key not in known or known[key]["reason"] != row["reason"]]
        if reading.complete:  # what an incomplete reading does not show may only not have been reached
            rows += [_resolved(row) for key, row in known.items() if key not in now]
        self._logs.put_all("rejects", rows)

    def _note_problem(self, source: DocumentSource, problem: str | None) -> None:
        """Why nothing of the source was retired is logged when it first shows, and once more when it is mended."""
        known = {row["source"]: row for row in self.problems()}.get(source.name)
        if problem is not None and (known is None or known["detail"] != problem):
            row = reject(source.name, shown(source.uri), _KEPT, problem)
            self._logs.put_all("rejects", [{**row, "id": digest([source.name, _KEPT])[:24]}])
        elif problem is None and known is not None:
            self._logs.put_all("rejects", [_resolved(known)])

    def rejects(self) -> list[dict[str, Any]]:
        """What is turned away today: the last word on each reject that is not `resolved`."""
        return [row for row in self._unresolved() if row["reason"] != _KEPT]

    def problems(self) -> list[dict[str, Any]]:
        """The sources whose missing documents were kept at the last reading; `detail` says why."""
        return [row for row in self._unresolved() if row["reason"] == _KEPT]

    def _unresolved(self) -> list[dict[str, Any]]:
        latest = {row["id"]: row for row in self._logs.rows("rejects")}
        return [row for row in latest.values() if row["reason"] != _RESOLVED]

    def ever_seen(self) -> set[str]:
        """The ids of all documents that a source has ever shown: live, retired and turned away."""
        seen = set(self._store.read("documents", ["document_id"])["document_id"].to_pylist())
        if self._store.count(retired("documents")):
            seen |= set(self._store.read(retired("documents"), ["document_id"])["document_id"].to_pylist())
        return seen | {row["document_id"] for row in self._logs.rows("rejects") if row["document_id"]}

    def _turned_away(self) -> list[dict[str, Any]]:
        """The rejects that are documents; rows of event files are others."""
        return [row for row in self.rejects() if row["reason"] != _OF_EVENTS]

    # -- chunks

    def sync_chunks(self, chunker: Chunker) -> ChunkSync:
        """The chunker's table holds exactly the chunks of today's documents."""
        name = chunk_table(chunker.id)
        self._store.ensure(name, CHUNKS, key="chunk_id")
        have = self._store.read(name, ["chunk_id", "document_id", "document_hash", "visible_from"])
        wanted = self._store.read("documents", ["document_id", "content_hash", "word_count"])
        chunked = _pairs(have, "document_id", "document_hash")
        current = _pairs(wanted, "document_id", "content_hash")
        words = dict(zip(wanted["document_id"].to_pylist(), wanted["word_count"].to_pylist(), strict=True))
        stale = sorted({document for document, _ in current - chunked})
        written = dropped = 0
        for step in _steps((one, _CHARACTERS_PER_WORD * (words[one] or 0)) for one in stale):
            one_written, one_dropped = self._rechunk(name, chunker, step, have)
            written, dropped = written + one_written, dropped + one_dropped
        gone = {document for document, _ in chunked} - words.keys()
        dropped += self._drop_chunks(name, list(_chunks_of(have, gone)))
        return self._chunk_figures(name, chunker.id, written, dropped)

    def _rechunk(self, name: str, chunker: Chunker, documents: Sequence[str], have: pa.Table) -> tuple[int, int]:
        """These documents are cut anew. What left goes first: after a crash the document still counts as stale."""
        hashes, chunks = {}, []
        for document in self.documents(documents):
            hashes[document.document_id] = document.content_hash
            chunks += chunker.cut(document)
        since = _chunks_of(have, documents)
        keep = {chunk.chunk_id for chunk in chunks}
        dropped = self._drop_chunks(name, [one for one in since if one not in keep])
        self._store.upsert(name, _chunk_rows(chunks, hashes, since, self._clock()), key="chunk_id")
        return len(chunks), dropped

    def _drop_chunks(self, name: str, chunks: Sequence[str]) -> int:
        now = self._clock()
        retire(self._store, name, CHUNKS, key="chunk_id", ids=chunks, version="document_hash", now=now)
        return len(chunks)

    def _chunk_figures(self, name: str, chunker: str, written: int, dropped: int) -> ChunkSync:
        table = self._store.read(name, ["n_tokens", "truncated"])
        tokens, truncated = pc.sum(table["n_tokens"]).as_py(), pc.sum(table["truncated"]).as_py()
        return ChunkSync(chunker, table.num_rows, written, dropped, truncated or 0, tokens or 0)

    def token_counts(self, chunker: str, counter: Chunker) -> np.ndarray:
        """How many tokens `counter`'s model sees of each chunk of a chunker, its title included."""
        name = chunk_table(chunker)
        if not self._store.count(name):
            return np.zeros(0, dtype=np.int64)
        named = self._store.read("documents", ["document_id", "title"])
        titles = dict(zip(named["document_id"].to_pylist(), named["title"].to_pylist(), strict=True))
        counts: list[int] = []
        for batch in self._store.batches(name, ["document_id", "text"]):
            rows = zip(batch["document_id"].to_pylist(), batch["text"].to_pylist(), strict=True)
            counts += counter.count([embedded_text(titles.get(one) or "", text) for one, text in rows])
        return np.array(counts, dtype=np.int64)

    def doubled(self, name: str, key: str) -> int:
        """How many rows of a table share their key with another; 0 is right."""
        column = self._store.read(name, [key])[key]
        return len(column) - (pc.count_distinct(column).as_py() if len(column) else 0)

    # -- reading

    def documents(self, ids: Sequence[str]) -> list[Document]:
        """These documents, in the order of the table."""
        return [_document(row) for row in self._store.read("documents", None, in_list("document_id", ids)).to_pylist()]

    def figures(self) -> Mapping[str, int]:
        """How many documents are live, retired and rejected."""
        return {
            "live": self._store.count("documents"),
            "retired": self._store.count(retired("documents")),
            "rejected": len(self._turned_away()),
        }


@dataclass(frozen=True, slots=True)
class _Change:
    """What has to be written so that the store follows a reading, and what keeps documents from being retired."""

    new: tuple[Document, ...]
    changed: tuple[Document, ...]
    gone: tuple[str, ...]
    problem: str | None


def _state(one: Document) -> _State:
    return one.content_hash, one.uri, one.mime


def _change(source: DocumentSource, reading: Reading, known: Mapping[str, _State]) -> _Change:
    new = tuple(one for one in reading.documents if one.document_id not in known)
    changed = tuple(one for one in reading.documents if known.get(one.document_id, _state(one)) != _state(one))
    # A file that is turned away now but was read before stays as it was: it is there, only not readable.
    seen = {one.document_id for one in reading.documents} | {one.document_id for one in reading.rejects}
    gone = tuple(sorted(known.keys() - seen))
    problem = _problem(source, reading, gone, known)
    return _Change(new, changed, gone if problem is None else (), problem)


def _problem(source: DocumentSource, reading: Reading, gone: Sequence[str], known: Mapping[str, _State]) -> str | None:
    """Why nothing may be retired; None when nothing speaks against it."""
    if reading.problem or not reading.complete:
        return reading.problem or f"source {source.name!r} was not read to its end; nothing was retired"
    nameless = [one for one in reading.rejects if one.document_id is None]
    if gone and nameless:
        return (
            f"{len(gone)} documents of source {source.name!r} were not found, but {len(nameless)} rows without a "
            f"readable id may be they (first: {shortened(nameless[0].uri)}, {nameless[0].detail}); nothing was retired. "
            "Mend the rows and run again"
        )
    if len(gone) <= source.max_retire * len(known):
        return None
    return (
        f"{len(gone)} of {len(known)} documents of source {source.name!r} are gone, more than max_retire = "
        f"{source.max_retire:g} allows; none was retired. If that is right, run once: "
        f"LODESTORE_DOCUMENTS__{source.name.upper()}__MAX_RETIRE=1 lodestore run ingest"
    )


_T = TypeVar("_T")


def _steps(weighted: Iterable[tuple[_T, int]]) -> Iterator[list[_T]]:
    """Pieces that are written at once: neither too many documents nor too much text."""
    step: list[_T] = []
    total = 0
    for one, weight in weighted:
        if step and (len(step) >= _DOCUMENTS_PER_STEP or total + weight > _CHARACTERS_PER_STEP):
            yield step
            step, total = [], 0
        step.append(one)
        total += weight
    if step:
        yield step


def reject(source: str, uri: str, reason: str, detail: str) -> dict[str, str]:
    """A row for the log of rejects."""
    return {"id": uuid4().hex, "source": source, "uri": uri, "reason": reason, "detail": detail, "run": ""}


def _reject_row(one: Rejected) -> dict[str, str]:
    # A file is one reject whatever is wrong with it; rows without an id are told apart by what is wrong.
    identity = digest([one.source, one.uri, one.detail if one.document_id is None else one.document_id])[:24]
    return {**reject(one.source, one.uri, one.reason, one.detail), "id": identity, "document_id": one.document_id or ""}


def _resolved(row: Mapping[str, Any]) -> dict[str, str]:
    return {**reject(row["source"], row["uri"], _RESOLVED, ""), "id": row["id"]}


def _document_rows(documents: Sequence[Document], now: datetime) -> pa.Table:
    rows = [
        {
            **{one.name: getattr(document, one.name) for one in fields(document) if one.name in DOCUMENTS.names},
            "metadata": dumps(document.metadata),
            "ingested_at": now,
            "ready_vector": document.vector,
        }
        for document in documents
    ]
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def _document(row: Mapping[str, Any]) -> Document:
    names = {one.name for one in fields(Document)}
    known = {key: value for key, value in row.items() if key in names}
    access = None if row["access"] is None else tuple(row["access"])
    return Document(**{**known, "metadata": json.loads(row["metadata"] or "{}"), "vector": None, "access": access})


def _chunk_rows(
    chunks: Sequence[Chunk], hashes: Mapping[str, str], since: Mapping[str, datetime], now: datetime
) -> pa.Table:
    rows = [
        {
            **{one.name: getattr(chunk, one.name) for one in fields(chunk)},
            "document_hash": hashes[chunk.document_id],
            "visible_from": since.get(chunk.chunk_id, now),
        }
        for chunk in chunks
    ]
    return pa.Table.from_pylist(rows, schema=CHUNKS)


def _pairs(table: pa.Table, first: str, second: str) -> set[tuple[str, str]]:
    found = table.select([first, second]).group_by([first, second]).aggregate([])
    return set(zip(found[first].to_pylist(), found[second].to_pylist(), strict=True))


def _chunks_of(have: pa.Table, documents: Iterable[str]) -> dict[str, datetime]:
    """The ids of these documents' chunks, and since when each is visible."""
    mine = have.filter(pc.is_in(have["document_id"], pa.array(list(documents), pa.string())))
    return dict(zip(mine["chunk_id"].to_pylist(), mine["visible_from"].to_pylist(), strict=True))


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
    the second try write nothing twice. It carries the moment from which the row was visible, so a
    row that comes back and leaves again has two lives on record.
    """
    past, keyed = retired(name), retired_schema(schema)
    since = "visible_from" if "visible_from" in schema.names else "ingested_at"
    for start in range(0, len(ids), _DOCUMENTS_PER_STEP):
        some = ids[start : start + _DOCUMENTS_PER_STEP]
        rows = store.read(name, schema.names, in_list(key, some))
        left = pa.array([now] * rows.num_rows, keyed.field("visible_until").type)
        life = rows[since].cast(pa.int64()).cast(pa.string())
        identity = pc.binary_join_element_wise(rows[key], rows[version], life, "|")
        store.ensure(past, keyed, key="retired_id")
        rows = rows.append_column(keyed.field("visible_until"), left)
        store.insert(past, rows.append_column(keyed.field("retired_id"), identity), key="retired_id")
        if not replaced:
            store.delete(name, key, some)
