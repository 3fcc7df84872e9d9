"""Building the vectors of a version: what is missing is embedded, what is known is reused, what left is retired."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.chunking import hash_text, ready, whole
from lodestore.corpus import retire
from lodestore.errors import DimensionError, FingerprintError, LodestoreError, ModelError
from lodestore.models import EmbeddingVersion
from lodestore.ports import Clock, Embedder, OfflineStore, Progress
from lodestore.tables import CHUNKS, DOCUMENTS, FILTERABLE, chunk_table, embedding_schema, in_list, retired
from lodestore.vectors import checked, norms

__all__ = ["Difference", "Filled", "Filling", "batches_by_length", "difference", "document_vectors"]

# Rows that are looked at together: bounds memory, not the size of a commit.
_WINDOW = 20_000
# At most this many rows, or this many seconds of work, are lost by a crash.
_ROWS_PER_COMMIT = 4_096
_SECONDS_PER_COMMIT = 1.0
# Up to this many rows are asked for by id; for more, one pass over the table is quicker.
_ASKED_BY_ID = 1_000
_IDS_PER_QUESTION = 500

_CHUNK_HASHES = pa.schema(
    [CHUNKS.field(name) for name in ("chunk_id", "document_id", "content_hash", "document_hash", "start", "n_tokens")]
)
_READY = pa.schema([DOCUMENTS.field(name) for name in ("document_id", "content_hash", "uri")])
_PLACES = pa.schema([DOCUMENTS.field(name) for name in ("document_id", "uri")])
_TITLES = pa.schema([DOCUMENTS.field(name) for name in ("document_id", "title", "content_hash", "uri")])


@dataclass(frozen=True, slots=True)
class Difference:
    """What a table of vectors lacks, and what it has too much."""

    wanted: int
    write: pa.Table  # row_id, document_id, content_hash, row_hash of rows that are new or changed
    remove: tuple[str, ...]
    changed: tuple[str, ...]

    def only(self, documents: frozenset[str]) -> Difference:
        """The part of it that adds rows of these documents; nothing leaves."""
        mine = pc.is_in(self.write["document_id"], pa.array(sorted(documents), pa.string()))
        return Difference(self.wanted, self.write.filter(mine), (), self.changed)


@dataclass(frozen=True, slots=True)
class Filled:
    """What filling a table did."""

    key: str
    rows: int
    embedded: int
    reused: int
    retired: int
    tokens: int
    seconds: float
    cpu_seconds: float = 0.0

    @property
    def touched(self) -> int:
        """How many rows were written or taken out."""
        return self.embedded + self.reused + self.retired


@dataclass(slots=True)
class _Tally:
    of: int
    embedded: int = 0
    reused: int = 0
    tokens: int = 0
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    cpu_started: float = field(default_factory=time.process_time)


def batches_by_length(lengths: Sequence[int], *, budget: int) -> Iterator[list[int]]:
    """Places grouped so that each group, padded to its longest, stays within `budget` tokens; longest first.

    >>> list(batches_by_length([5, 100, 7, 90], budget=200))
    [[1, 3], [2, 0]]
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        longest = max(1, lengths[batch[0]] if batch else lengths[place])
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def wanted_rows(store: OfflineStore, version: EmbeddingVersion) -> pa.Table:
    """Every row that the version should hold: ids and hashes, without texts."""
    if whole(version.chunker):
        return _title_rows(_read(store, "documents", _TITLES))
    if ready(version.chunker):
        return _ready_rows(store.read("documents", _READY.names, "ready_vector IS NOT NULL"))
    chunks, places = _read(store, chunk_table(version.chunker), _CHUNK_HASHES), _read(store, "documents", _PLACES)
    found = pc.index_in(chunks["document_id"], places["document_id"].combine_chunks())
    return _chunk_rows(chunks, places["uri"].take(found))


def _read(store: OfflineStore, name: str, schema: pa.Schema) -> pa.Table:
    table = store.read(name, schema.names)
    return table if table.num_rows else schema.empty_table()


def _title_rows(documents: pa.Table) -> pa.Table:
    """What is embedded of documents whose titles are embedded; those without a title are left out."""
    titles = documents["title"].fill_null("")
    rows = documents.filter(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(titles)), 0))
    hashes = pa.array([hash_text(title) for title in rows["title"].to_pylist()], pa.string())
    row_hashes = pc.binary_join_element_wise(hashes, rows["content_hash"], rows["uri"].fill_null(""), "|")
    # About three characters make a token; only which title is longer than which matters.
    tokens = pc.add(pc.divide(pc.utf8_length(rows["title"]).cast(pa.int64()), 3), 3)
    return pa.table([rows["document_id"], rows["document_id"], hashes, row_hashes, tokens], names=_ROW)


def _ready_rows(documents: pa.Table) -> pa.Table:
    """Documents that bring their vectors: a row each. The document's hash covers the vector."""
    rows = documents if documents.num_rows else _READY.empty_table()
    ids, hashes = rows["document_id"], rows["content_hash"]
    row_hashes = pc.binary_join_element_wise(hashes, rows["uri"].fill_null(""), "|")
    return pa.table([ids, ids, hashes, row_hashes, pa.array([1] * rows.num_rows, pa.int64())], names=_ROW)


def _chunk_rows(chunks: pa.Table, uris: pa.ChunkedArray) -> pa.Table:
    """What is embedded of chunks. The row's hash tells all that its row holds: text, document, place, and where from."""
    start, uris = chunks["start"].cast(pa.string()), uris.fill_null("")
    row_hashes = pc.binary_join_element_wise(chunks["content_hash"], chunks["document_hash"], start, uris, "|")
    columns = [chunks["chunk_id"], chunks["document_id"], chunks["content_hash"], row_hashes, chunks["n_tokens"]]
    return pa.table(columns, names=_ROW)


_ROW = ["row_id", "document_id", "content_hash", "row_hash", "n_tokens"]


def difference(store: OfflineStore, version: EmbeddingVersion) -> Difference:
    """Compare the table with the corpus; reads ids and hashes only."""
    wanted = wanted_rows(store, version)
    have = store.read(version.table, ["row_id", "row_hash"])
    if not have.num_rows:
        return Difference(wanted.num_rows, wanted, (), ())
    place = pc.index_in(wanted["row_id"], have["row_id"].combine_chunks())
    same = pc.equal(wanted["row_hash"], have["row_hash"].take(place)).fill_null(fill_value=False)
    changed = wanted.filter(pc.and_(pc.is_valid(place), pc.invert(same)))
    remove = have.filter(pc.invert(pc.is_in(have["row_id"], wanted["row_id"].combine_chunks())))
    write = wanted.filter(pc.invert(same))
    return Difference(wanted.num_rows, write, tuple(remove["row_id"].to_pylist()), tuple(changed["row_id"].to_pylist()))


class _Contents:
    """The rows to write, with their texts and what is copied from their documents, a window at a time.

    One pass over the texts, in the order of their table, so that a document is looked up once. A
    row whose document or chunk has changed since the difference was taken is left to the next run.
    """

    def __init__(self, store: OfflineStore, version: EmbeddingVersion, write: pa.Table) -> None:
        self._store = store
        self._titles, self._ready = whole(version.chunker), ready(version.chunker)
        of_documents = self._titles or self._ready
        self._table = "documents" if of_documents else chunk_table(version.chunker)
        self._key = "document_id" if of_documents else "chunk_id"
        self._ids = write["row_id"].combine_chunks()
        self._hashes = write["row_hash"].combine_chunks()

    def windows(self) -> Iterator[pa.Table]:
        for piece in self._pieces():
            rows = piece.filter(pc.is_in(piece[self._key], self._ids))
            made = self._made(rows)
            made = made.filter(pc.is_in(made["row_hash"], self._hashes))
            if made.num_rows:
                yield made.select(_CONTENT.names).cast(_CONTENT).combine_chunks()

    def _made(self, rows: pa.Table) -> pa.Table:
        if self._ready:
            return self._of_ready(rows)
        return self._of_titles(rows) if self._titles else self._of_chunks(rows)

    def _columns(self) -> list[str]:
        if self._titles:
            return [*FILTERABLE, "content_hash"]
        return [*FILTERABLE, "content_hash", "content"] if self._ready else [*_CHUNK_HASHES.names, "end", "text"]

    def _pieces(self) -> Iterator[pa.Table]:
        columns = self._columns()
        if not len(self._ids):
            return
        few = len(self._ids) <= _ASKED_BY_ID
        where = in_list(self._key, self._ids.to_pylist()) if few else None
        waiting: list[pa.RecordBatch] = []
        batches = self._store.batches(self._table, columns, where)
        for batch in (one.slice(start, _WINDOW) for one in batches for start in range(0, one.num_rows, _WINDOW)):
            waiting.append(batch)
            if sum(one.num_rows for one in waiting) >= _WINDOW:
                yield pa.Table.from_batches(waiting)
                waiting = []
        if waiting:
            yield pa.Table.from_batches(waiting)

    def _of_titles(self, documents: pa.Table) -> pa.Table:
        rows = _title_rows(documents)
        copied = documents.filter(pc.is_in(documents["document_id"], rows["row_id"].combine_chunks()))
        made = {name: copied[name] for name in FILTERABLE} | {name: rows[name] for name in rows.column_names}
        length = pc.utf8_length(copied["title"]).cast(pa.int64())
        made |= {
            "text": copied["title"],
            "embedded": copied["title"],
            "start": pc.subtract(length, length),
            "end": length,
        }
        return pa.table(made)

    def _of_ready(self, documents: pa.Table) -> pa.Table:
        rows = _ready_rows(documents.select(_READY.names))
        made = {name: documents[name] for name in FILTERABLE} | {name: rows[name] for name in rows.column_names}
        length = pc.utf8_length(documents["content"]).cast(pa.int64())
        text = {"text": documents["content"], "embedded": documents["title"].cast(pa.large_string())}
        return pa.table(made | text | {"start": pc.subtract(length, length), "end": length})

    def _of_chunks(self, chunks: pa.Table) -> pa.Table:
        documents = self._documents(chunks["document_id"].unique().to_pylist())
        place = pc.index_in(chunks["document_id"], documents["document_id"])
        current = pc.equal(chunks["document_hash"], documents["content_hash"].take(place)).fill_null(fill_value=False)
        chunks, place = chunks.filter(current), place.filter(current)
        rows = _chunk_rows(chunks, documents["uri"].take(place))
        made = {name: documents[name].take(place) for name in FILTERABLE}
        made |= {name: rows[name] for name in rows.column_names}
        made |= {name: chunks[name] for name in ("text", "start", "end")}
        return pa.table(made | {"embedded": _embedded_texts(made["title"], chunks["text"])})

    def _documents(self, ids: Sequence[str]) -> pa.Table:
        schema = pa.schema([DOCUMENTS.field(name) for name in (*FILTERABLE, "content_hash")])
        found = [
            self._store.read("documents", schema.names, in_list("document_id", ids[start : start + _IDS_PER_QUESTION]))
            for start in range(0, len(ids), _IDS_PER_QUESTION)
        ]
        return pa.concat_tables([schema.empty_table(), *(one.cast(schema) for one in found)]).combine_chunks()


def _embedded_texts(titles: pa.ChunkedArray, texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """`chunking.embedded_text`, for whole columns."""
    titles, texts = titles.cast(pa.large_string()).fill_null(""), texts.cast(pa.large_string())
    joined = pc.binary_join_element_wise(titles, texts, pa.scalar("\n", pa.large_string()))
    return pc.if_else(pc.equal(titles, ""), texts, joined)


def document_vectors(embedder: Embedder, version: EmbeddingVersion, texts: Sequence[str]) -> np.ndarray:
    """One sound row per text; a model that fails, or gives anything else, is told by its label."""
    try:
        made = embedder.embed_documents(texts)
    except LodestoreError:
        raise
    except Exception as error:
        message = f"{version.label} failed on a batch of {len(texts)} texts: {type(error).__name__}: {error}"
        raise ModelError(message) from error
    return checked(made, texts=len(texts), dimension=version.dimension, label=version.label)


class _Known:
    """Vectors that a table of the same fingerprint holds, found by the hash of their text."""

    def __init__(self, store: OfflineStore, version: EmbeddingVersion, tables: Sequence[str], wanted: pa.Table) -> None:
        self._store = store
        self._version = version
        self._held = {name: self._common(name, wanted["content_hash"].combine_chunks()) for name in tables}
        counts = pc.value_counts(wanted["content_hash"].combine_chunks())
        self._repeated = set(counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist())

    def _common(self, name: str, wanted: pa.Array) -> set[str]:
        hashes = self._store.read(name, ["content_hash"])["content_hash"]
        return set(hashes.filter(pc.is_in(hashes, wanted)).unique().to_pylist()) if len(hashes) else set()

    def note(self, rows: pa.Table) -> None:
        """The rows are in the version's table. Texts that come again in a later window will be found there."""
        own = self._held.setdefault(self._version.table, set())
        own.update(self._repeated.intersection(rows["content_hash"].to_pylist()) if self._repeated else ())

    def find(self, hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """The vectors of these texts, where some table has them."""
        found: dict[str, np.ndarray] = {}
        for name, held in self._held.items():
            needed = [one for one in hashes if one in held and one not in found] if held else []
            for batch in self._rows(name, needed):
                vectors = batch["vector"].flatten().to_numpy(zero_copy_only=False)
                if len(vectors) != batch.num_rows * self._version.dimension:
                    raise DimensionError(_uneven(self._version, batch))
                rows = vectors.reshape(batch.num_rows, self._version.dimension)
                found.update(zip(batch["content_hash"].to_pylist(), rows, strict=True))
        return found

    def _rows(self, name: str, hashes: Sequence[str]) -> Iterator[pa.RecordBatch]:
        vector = "ready_vector" if name == "documents" else "vector"
        columns = ["content_hash", vector, "document_id"]
        if len(hashes) > _ASKED_BY_ID:
            among = pa.array(hashes, pa.string())
            for batch in self._store.batches(name, columns):
                hit = batch.filter(pc.is_in(batch["content_hash"], among))
                yield hit.select(columns).rename_columns(_HELD)
            return
        for start in range(0, len(hashes), _IDS_PER_QUESTION):
            where = in_list("content_hash", hashes[start : start + _IDS_PER_QUESTION])
            for batch in self._store.batches(name, columns, where):
                yield batch.select(columns).rename_columns(_HELD)


_HELD = ["content_hash", "vector", "document_id"]


def _uneven(version: EmbeddingVersion, batch: pa.RecordBatch) -> str:
    lengths = pc.list_value_length(batch["vector"])
    wrong = batch.filter(pc.not_equal(lengths, version.dimension))
    some = ", ".join(wrong["document_id"].to_pylist()[:5])
    return (
        f"{version.label} has {version.dimension} numbers; the vectors of {wrong.num_rows} documents have another "
        f"length: {some}. Mend them in the source, or declare the dimension that they have"
    )


class Filling:
    """Brings one version's table to what the corpus says."""

    def __init__(
        self,
        store: OfflineStore,
        version: EmbeddingVersion,
        embedder: Embedder,
        *,
        same_fingerprint: Sequence[str],
        clock: Clock,
        batch_tokens: int = 8192,
        progress: Progress | None = None,
    ) -> None:
        if embedder.fingerprint != version.fingerprint:
            message = (
                f"{version.label} is registered with fingerprint {version.fingerprint[:12]}, the model that runs has "
                f"{embedder.fingerprint[:12]}; register what runs as a new version"
            )
            raise FingerprintError(message)
        self._store = store
        self._version = version
        self._embedder = embedder
        self._schema = embedding_schema(version.dimension)
        self._donors = dict.fromkeys(
            name for table in (version.table, *same_fingerprint) for name in (table, retired(table))
        )
        if ready(version.chunker):
            self._donors["documents"] = None
        self._clock = clock
        self._budget = batch_tokens
        self._progress = progress or (lambda _done, _of: None)

    def run(self, documents: frozenset[str] | None = None) -> Filled:
        """The table holds exactly the current rows. Run again after a crash, it does only what is left.

        With `documents`, only their rows are added and nothing leaves.
        What is no longer in the corpus leaves even when the model fails: that needs no model.
        """
        table = self._version.table
        self._store.ensure(table, self._schema, key="row_id")
        plan = difference(self._store, self._version)
        if documents is not None:
            plan = plan.only(documents)
        tally, changed = _Tally(plan.write.num_rows), set(plan.changed)
        try:
            known = _Known(self._store, self._version, tuple(self._donors), plan.write)
            for window in _Contents(self._store, self._version, plan.write).windows():
                self._fill_window(window, known, changed, tally)
        finally:
            self._retire(plan.remove)
        seconds, cpu = time.monotonic() - tally.started, time.process_time() - tally.cpu_started
        gone = len(plan.remove)
        return Filled(self._version.key, plan.wanted, tally.embedded, tally.reused, gone, tally.tokens, seconds, cpu)

    def _retire(self, ids: Sequence[str], *, replaced: bool = False) -> None:
        retire(
            self._store,
            self._version.table,
            self._schema,
            key="row_id",
            ids=ids,
            version="row_hash",
            now=self._clock(),
            replaced=replaced,
        )

    def _fill_window(self, rows: pa.Table, known: _Known, changed: set[str], tally: _Tally) -> None:
        found = known.find(rows["content_hash"].unique().to_pylist())
        held = pc.is_in(rows["content_hash"], pa.array(list(found), pa.string()))
        reused = rows.filter(held)
        if reused.num_rows:
            vectors = np.stack([found[one] for one in reused["content_hash"].to_pylist()])
            checked(vectors, texts=len(vectors), dimension=self._version.dimension, label=self._version.label)
            self._commit([self._finished(reused, vectors)], changed)
            tally.reused += reused.num_rows
            self._tell(reused.num_rows, tally)
        missing = rows.filter(pc.invert(held)).combine_chunks()
        pending: list[pa.Table] = []
        started = time.monotonic()
        try:
            for batch in self._embedded(missing, tally):
                pending.append(batch)
                self._tell(batch.num_rows, tally)
                waiting = sum(one.num_rows for one in pending)
                if waiting >= _ROWS_PER_COMMIT or time.monotonic() - started >= _SECONDS_PER_COMMIT:
                    self._commit(pending, changed)
                    pending, started = [], time.monotonic()
        except ModelError:
            self._commit(pending, changed)  # the batches before the bad one are sound
            raise
        self._commit(pending, changed)
        known.note(missing)

    def _tell(self, rows: int, tally: _Tally) -> None:
        tally.done += rows
        self._progress(tally.done, tally.of)

    def _embedded(self, rows: pa.Table, tally: _Tally) -> Iterator[pa.Table]:
        """The rows with their vectors, a batch at a time; equal texts are embedded once."""
        lengths = rows["n_tokens"].to_pylist()
        seen: dict[str, np.ndarray] = {}
        for places in batches_by_length(lengths, budget=self._budget):
            batch = rows.take(places)
            hashes = batch["content_hash"].to_pylist()
            texts = zip(hashes, batch["embedded"].to_pylist(), strict=True)
            new = {one: text for one, text in texts if one not in seen}
            if new:
                seen.update(zip(new, document_vectors(self._embedder, self._version, list(new.values())), strict=True))
            tally.embedded += len(new)
            tally.reused += len(hashes) - len(new)
            tally.tokens += sum(lengths[place] for place in places)
            yield self._finished(batch, np.stack([seen[one] for one in hashes]))

    def _finished(self, rows: pa.Table, vectors: np.ndarray) -> pa.Table:
        now = self._clock()
        dimension = self._version.dimension
        vector = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), dimension)
        made: dict[str, object] = {
            "vector": vector,
            "fingerprint": pa.array([self._version.fingerprint] * rows.num_rows),
            "norm": pa.array(norms(vectors)),
            "embedded_at": pa.array([now] * rows.num_rows, self._schema.field("embedded_at").type),
            "visible_from": pa.array([now] * rows.num_rows, self._schema.field("visible_from").type),
        }
        columns = [made[name] if name in made else rows[name] for name in self._schema.names]
        return pa.table(columns, names=self._schema.names)

    def _commit(self, pending: Sequence[pa.Table], changed: set[str]) -> None:
        """The rows are in the table; rows that they replace are in the retired table first."""
        if not pending:
            return
        rows = pa.concat_tables(pending)
        table = self._version.table
        replaced = [one for one in rows["row_id"].to_pylist() if one in changed]
        self._retire(replaced, replaced=True)
        self._store.upsert(table, rows, key="row_id")


_CONTENT = pa.schema(
    [
        ("row_id", pa.string()),
        ("row_hash", pa.string()),
        ("content_hash", pa.string()),
        ("n_tokens", pa.int64()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("text", pa.large_string()),
        ("embedded", pa.large_string()),
        *FILTERABLE.items(),
    ]
)
