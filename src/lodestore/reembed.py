"""Building the vectors of a version: what is missing is embedded, what is known is reused, what left is retired."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.chunking import embedded_text, hash_text, whole
from lodestore.corpus import retire
from lodestore.errors import FingerprintError
from lodestore.models import EmbeddingVersion
from lodestore.ports import Clock, Embedder, OfflineStore, Progress
from lodestore.tables import FILTERABLE, chunk_table, embedding_schema, in_list, quoted, retired
from lodestore.vectors import checked, norms

__all__ = ["Difference", "Filled", "Filling", "batches_by_length", "difference"]

# Rows that are looked at together: bounds memory, not the size of a commit.
_WINDOW = 20_000
# At most this many rows, or this many seconds of work, are lost by a crash.
_ROWS_PER_COMMIT = 4_096
_SECONDS_PER_COMMIT = 1.0


@dataclass(frozen=True, slots=True)
class Difference:
    """What a table of vectors lacks, and what it has too much."""

    wanted: int
    write: pa.Table  # row_id, document_id, content_hash, row_hash of rows that are new or changed
    remove: tuple[str, ...]
    changed: tuple[str, ...]


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

    @property
    def touched(self) -> int:
        """How many rows were written or taken out."""
        return self.embedded + self.reused + self.retired


@dataclass(slots=True)
class _Tally:
    embedded: int = 0
    reused: int = 0
    tokens: int = 0
    done: int = 0
    started: float = field(default_factory=time.monotonic)


def batches_by_length(lengths: Sequence[int], *, budget: int) -> Iterator[list[int]]:
    """Places grouped so that each group, padded to its longest, stays within `budget` tokens; longest first.

    >>> list(batches_by_length([5, 100, 7, 90], budget=200))
    [[1, 3], [2, 0]]
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        longest = lengths[batch[0]] if batch else lengths[place]
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def wanted_rows(store: OfflineStore, version: EmbeddingVersion) -> pa.Table:
    """Every row that the version should hold: ids and hashes, without texts."""
    if whole(version.chunker):
        table = store.read("documents", ["document_id", "title", "content_hash"])
        titled = table.filter(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(table["title"])), 0))
        ids = titled["document_id"]
        hashes = pa.array([hash_text(title) for title in titled["title"].to_pylist()], pa.string())
        row_hashes = pc.binary_join_element_wise(hashes, titled["content_hash"], "|")
        count = pa.array(np.full(len(ids), 16, dtype=np.int64))
    else:
        table = store.read(
            chunk_table(version.chunker),
            ["chunk_id", "document_id", "content_hash", "document_hash", "start", "n_tokens"],
        )
        ids, hashes, count = table["chunk_id"], table["content_hash"], table["n_tokens"]
        start = table["start"].cast(pa.string())
        row_hashes = pc.binary_join_element_wise(hashes, table["document_hash"], start, "|")
    documents = titled["document_id"] if whole(version.chunker) else table["document_id"]
    names = ["row_id", "document_id", "content_hash", "row_hash", "n_tokens"]
    return pa.table([ids, documents, hashes, row_hashes, count], names=names)


def difference(store: OfflineStore, version: EmbeddingVersion) -> Difference:
    """Compare the table with the corpus; reads ids and hashes only."""
    wanted = wanted_rows(store, version)
    have = store.read(version.table, ["row_id", "row_hash"])
    if not have.num_rows:
        return Difference(wanted.num_rows, wanted, (), ())
    same = pc.is_in(wanted["row_hash"], have["row_hash"])
    known = pc.is_in(wanted["row_id"], have["row_id"])
    write = wanted.filter(pc.invert(pc.and_(same, known)))
    changed = wanted.filter(pc.and_(known, pc.invert(same)))
    remove = have.filter(pc.invert(pc.is_in(have["row_id"], wanted["row_id"])))
    return Difference(wanted.num_rows, write, tuple(remove["row_id"].to_pylist()), tuple(changed["row_id"].to_pylist()))


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
        self._donors = [name for table in same_fingerprint for name in (table, retired(table))]
        self._clock = clock
        self._budget = batch_tokens
        self._progress = progress or (lambda _done, _of: None)

    def run(self) -> Filled:
        """The table holds exactly the current rows. Run again after a crash, it does only what is left."""
        table = self._version.table
        self._store.ensure(table, self._schema, key="row_id")
        plan = difference(self._store, self._version)
        tally = _Tally()
        for window in _windows(plan.write):
            self._fill_window(window, set(plan.changed), tally, plan.write.num_rows)
        self._retire(plan.remove)
        seconds = time.monotonic() - tally.started
        gone = len(plan.remove)
        return Filled(self._version.key, plan.wanted, tally.embedded, tally.reused, gone, tally.tokens, seconds)

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

    def _fill_window(self, window: pa.Table, changed: set[str], tally: _Tally, of: int) -> None:
        rows = self._with_content(window)
        known = self._cached(rows["content_hash"].unique())
        pending: list[pa.Table] = []
        reused = rows.filter(pc.is_in(rows["content_hash"], pa.array(list(known), pa.string())))
        if reused.num_rows:
            vectors = np.stack([known[one] for one in reused["content_hash"].to_pylist()])
            self._commit([self._finished(reused, vectors)], changed)
            tally.reused += reused.num_rows
            tally.done += reused.num_rows
        missing = rows.filter(pc.invert(pc.is_in(rows["content_hash"], pa.array(list(known), pa.string()))))
        started = time.monotonic()
        waiting = 0
        for batch in self._embedded(missing, tally):
            pending.append(batch)
            waiting += batch.num_rows
            tally.done += batch.num_rows
            self._progress(tally.done, of)
            if waiting >= _ROWS_PER_COMMIT or time.monotonic() - started >= _SECONDS_PER_COMMIT:
                self._commit(pending, changed)
                pending, waiting, started = [], 0, time.monotonic()
        self._commit(pending, changed)

    def _embedded(self, rows: pa.Table, tally: _Tally) -> Iterator[pa.Table]:
        """The rows with their vectors, a batch at a time; equal texts are embedded once."""
        lengths = rows["n_tokens"].to_pylist()
        seen: dict[str, np.ndarray] = {}
        for places in batches_by_length(lengths, budget=self._budget):
            batch = rows.take(places)
            hashes = batch["content_hash"].to_pylist()
            texts = dict(zip(hashes, batch["embedded"].to_pylist(), strict=True))
            new = {one: text for one, text in texts.items() if one not in seen}
            if new:
                vectors = checked(
                    self._embedder.embed_documents(list(new.values())),
                    texts=len(new),
                    dimension=self._version.dimension,
                    label=self._version.label,
                )
                seen.update(zip(new, vectors, strict=True))
            tally.embedded += len(new)
            tally.reused += len(hashes) - len(new)
            tally.tokens += sum(lengths[place] for place in places)
            yield self._finished(batch, np.stack([seen[one] for one in hashes]))

    def _with_content(self, window: pa.Table) -> pa.Table:
        """The rows with their texts and the columns that are copied from their documents."""
        documents = self._documents(window["document_id"].unique().to_pylist())
        texts = self._texts(window["row_id"].to_pylist(), documents)
        out = []
        for row in window.to_pylist():
            document = documents[row["document_id"]]
            title = document["title"] or ""
            text, start, end = texts[row["row_id"]]
            embedded = title if whole(self._version.chunker) else embedded_text(title, text)
            out.append({**row, **document, "text": text, "start": start, "end": end, "embedded": embedded})
        return pa.Table.from_pylist(out, schema=_CONTENT)

    def _documents(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, object]]:
        found: dict[str, Mapping[str, object]] = {}
        for start in range(0, len(ids), 500):
            where = in_list("document_id", ids[start : start + 500])
            for row in self._store.read("documents", list(FILTERABLE), where).to_pylist():
                found[row["document_id"]] = row
        return found

    def _texts(
        self, ids: Sequence[str], documents: Mapping[str, Mapping[str, object]]
    ) -> dict[str, tuple[str, int, int]]:
        if whole(self._version.chunker):
            return {one: (str(row["title"]), 0, len(str(row["title"]))) for one, row in documents.items()}
        wanted = pa.array(ids, pa.string())
        found: dict[str, tuple[str, int, int]] = {}
        table = chunk_table(self._version.chunker)
        for batch in self._store.batches(table, ["chunk_id", "text", "start", "end"]):
            rows = batch.filter(pc.is_in(batch["chunk_id"], wanted)).to_pylist()
            found.update({row["chunk_id"]: (row["text"], row["start"], row["end"]) for row in rows})
        return found

    def _cached(self, hashes: pa.Array) -> dict[str, np.ndarray]:
        """Vectors of these texts that some table of the same fingerprint already holds."""
        known: dict[str, np.ndarray] = {}
        condition = f"fingerprint = {quoted(self._version.fingerprint)}"
        for name in self._donors:
            if self._store.count(name) == 0:
                continue
            for batch in self._store.batches(name, ["content_hash", "vector"], condition):
                hit = batch.filter(pc.is_in(batch["content_hash"], hashes))
                vectors = hit["vector"].flatten().to_numpy(zero_copy_only=False)
                rows = vectors.reshape(hit.num_rows, self._version.dimension)
                known.update(zip(hit["content_hash"].to_pylist(), rows, strict=True))
        return known

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


def _windows(rows: pa.Table) -> Iterator[pa.Table]:
    """Pieces of bounded size, rows of like length together."""
    order = rows.take(pc.sort_indices(rows, [("n_tokens", "descending")])) if rows.num_rows else rows
    for start in range(0, order.num_rows, _WINDOW):
        yield order.slice(start, _WINDOW)


def still_visible(moment: datetime) -> str:
    """The condition for rows that were visible at `moment`."""
    return f"visible_from <= timestamp '{moment:%Y-%m-%d %H:%M:%S.%f}'"
