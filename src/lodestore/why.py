"""Why a document does not answer a question: the first thing on its way that kept it out, as one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Protocol

from lodestore.conditions import COLUMNS, demanded
from lodestore.errors import RequestError
from lodestore.filters import And, Filter, combine, parse
from lodestore.live import Live
from lodestore.models import EmbeddingVersion
from lodestore.ports import OfflineStore, VectorStore
from lodestore.retrieval import Mode, checked_query, encodable
from lodestore.standing import Standing, standing
from lodestore.tables import FILTERABLE, chunk_table, quoted, retired
from lodestore.wire import jsonable, rfc3339

__all__ = ["Reason", "Reasons", "Why"]

_SIMILAR = 3


class Reason(StrEnum):
    """What kept the document out, or that nothing did."""

    FOUND = "found"
    NEVER_READ = "never_read"
    REJECTED = "rejected"
    RETIRED = "retired"
    CUT = "cut"
    NOT_EMBEDDED = "not_embedded"
    FILTERED = "filtered"
    RANKED = "ranked"


@dataclass(frozen=True, slots=True)
class Why:
    """One answer: the reason, a sentence that says it, and what mends it.

    `rank` is the place of the document's best chunk among all chunks, `score` its score and `needed`
    that of place k; None where it was not ranked. `at` is when it left, for a retired document.
    """

    document_id: str
    reason: Reason
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

    def to_json(self) -> dict[str, Any]:
        """The answer of `why`."""
        return {one.name: jsonable(getattr(self, one.name)) for one in fields(self)}


class Tables(OfflineStore, VectorStore, Protocol):
    """Tables that can be read and searched."""


class Rejects(Protocol):
    """What knows which documents are turned away today."""

    def rejects(self) -> list[dict[str, Any]]:
        """The last word on each reject that is not resolved."""


@dataclass(frozen=True, slots=True)
class _Asked:
    query: str
    document: str
    k: int
    mode: Mode
    where: Filter | None
    mandatory: Filter | None

    @property
    def whole(self) -> Filter | None:
        return combine(self.where, self.mandatory)


class Reasons:
    """Follows a document from its source to the ranking, and stops where it was lost."""

    def __init__(self, tables: Tables, corpus: Rejects, *, live: Callable[[], Live], sources: Sequence[str]) -> None:
        self._tables = tables
        self._corpus = corpus
        self._live = live
        self._sources = tuple(sources)

    def why(
        self,
        query: str,
        document: str,
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        filter: str | Mapping[str, Any] | None = None,  # noqa: A002 - the word of the wire
        mandatory: str | Mapping[str, Any] | Filter | None = None,
    ) -> Why:
        """Why the document is not among the k best chunks for the query, or at which place it is.

        `document` is a full id, `source/id`, or the part after the source where that names one document.
        What a `mandatory` filter hides is told as never read.
        """
        checked_query(query, k=k, mode=mode)
        if not isinstance(document, str) or not document.strip() or not encodable(document):
            message = f"the document is {_brief(document)}; name one, as source/id"
            raise RequestError(message)
        where = parse(filter, COLUMNS) if filter else None
        live = self._live()
        asked = _Asked(query, document, k, mode, where, demanded(mandatory))
        return self._in_corpus(live, asked) or self._in_table(live, asked)

    # -- from the source to the documents

    def _in_corpus(self, live: Live, asked: _Asked) -> Why | None:
        """What keeps the document out of the corpus; None when it is there."""
        rows = self._rows("documents", asked)
        if rows:
            return None
        turned = [row for row in self._corpus.rejects() if _names(asked.document, row["document_id"] or row["uri"])]
        if turned and asked.mandatory is None:
            row = turned[-1]
            says = f"{row['uri']} was turned away: {row['reason']}" + (f" ({row['detail']})" if row["detail"] else "")
            return self._told(live, asked, Reason.REJECTED, says, "mend the file, then: lodestore run ingest")
        left = self._rows(retired("documents"), asked)
        if left:
            last = max(left, key=lambda row: row["visible_until"])
            says = f"{last['document_id']} was retired at {rfc3339(last['visible_until'])}: its source no longer has it"
            mend = "put it back into its source, then: lodestore run ingest"
            return self._told(live, asked, Reason.RETIRED, says, mend, at=last["visible_until"])
        return self._never_read(live, asked)

    def _never_read(self, live: Live, asked: _Asked) -> Why:
        like: list[str] = []
        if asked.mandatory is None and self._tables.count("documents"):
            known = self._tables.read("documents", ["document_id"])["document_id"].to_pylist()
            like = get_close_matches(asked.document, known, n=_SIMILAR, cutoff=0.6)
        sources = ", ".join(self._sources) or "none"
        hint = f"; similar: {', '.join(like)}" if like else ""
        says = f"no source has ever shown {asked.document!r} (sources: {sources}){hint}"
        return self._told(live, asked, Reason.NEVER_READ, says, "add it to a source, then: lodestore run ingest")

    def _rows(self, table: str, asked: _Asked) -> list[dict[str, Any]]:
        """The document's rows that the caller may see; a short id has to name one document."""
        if not self._tables.count(table):
            return []
        columns = [*FILTERABLE, *(["visible_until"] if table == retired("documents") else [])]
        rows = self._tables.read(table, columns, _named(asked.document)).to_pylist()
        rows = [row for row in rows if asked.mandatory is None or asked.mandatory.matches(row)]
        exact = [row for row in rows if row["document_id"] == asked.document]
        found = exact or rows
        ids = sorted({row["document_id"] for row in found})
        if len(ids) > 1:
            message = f"{asked.document!r} is in several sources: {', '.join(ids)}; write the full id"
            raise RequestError(message)
        return found

    # -- from the documents to the ranking

    def _in_table(self, live: Live, asked: _Asked) -> Why:
        document = self._rows("documents", asked)[0]["document_id"]
        version = live.version("content")
        mine = f"document_id = {quoted(document)}"
        rows = self._tables.read(version.table, ["row_id", *FILTERABLE], mine).to_pylist()
        if not rows:
            chunks = self._tables.count(chunk_table(version.chunker), mine)
            says = f"{document} has {chunks} chunks, none of them embedded by {version.label} yet"
            mend = "lodestore run ingest" if chunks else "lodestore run ingest; a document without text has no chunks"
            return self._told(live, asked, Reason.NOT_EMBEDDED, says, mend, document=document)
        whole = asked.whole
        if whole is not None and not any(whole.matches(row) for row in rows):
            says = f"the filter leaves {document} out: {_failing(whole, rows[0])}"
            return self._told(live, asked, Reason.FILTERED, says, "change the filter", document=document)
        return self._ranked(live, asked, version, document)

    def _ranked(self, live: Live, asked: _Asked, version: EmbeddingVersion, document: str) -> Why:
        where = asked.whole.sql() if asked.whole is not None else None
        stands = standing(live, self._tables, asked.query, document, k=asked.k, mode=asked.mode, where=where)
        reason, says, mend = self._placed(version, document, stands)
        return self._told(
            live, asked, reason, says, mend, document=document, rank=stands.rank, score=stands.score,
            needed=None if stands.found else stands.needed, chunk_id=stands.chunk_id, ranks=dict(stands.ranks),
        )  # fmt: skip

    def _placed(self, version: EmbeddingVersion, document: str, stands: Standing) -> tuple[Reason, str, str]:
        """The reason, the sentence and the mend for a document that is in the searched table."""
        says = stands.sentence()
        if stands.found:
            return Reason.FOUND, f"{document} is found, at place {stands.rank} with {stands.score:.3g}", ""
        if stands.missed:
            return Reason.RANKED, says, "make the index anew where it finds too little: lodestore run maintain"
        cut = self._tables.count(chunk_table(version.chunker), f"truncated AND document_id = {quoted(document)}")
        if cut:
            says = f"{cut} of its chunks are longer than {version.label} reads and were cut; {says}"
            return Reason.CUT, says, "lower chunks.size in lodestore.toml, then: lodestore run reembed"
        return Reason.RANKED, says, "say more of it in the title or the text, or compare: lodestore evaluate"

    def _told(
        self,
        live: Live,
        asked: _Asked,
        reason: Reason,
        sentence: str,
        mend: str,
        *,
        document: str | None = None,
        rank: int | None = None,
        score: float | None = None,
        needed: float | None = None,
        chunk_id: str | None = None,
        at: datetime | None = None,
        **details: object,
    ) -> Why:
        version = live.versions["content"].label if "content" in live.versions else ""
        told = (rank, score, needed, asked.k, asked.mode, chunk_id, at, live.release.generation, version, details)
        return Why(document or asked.document, reason, sentence, mend, *told)


def _brief(document: object) -> str:
    return "empty" if isinstance(document, str) and not document.strip() else ascii(document)[:60]


def _named(document: str) -> str:
    """The condition for documents of that full id, or of that id within some source."""
    # Compared by length: LIKE would take % and _ in an id for patterns.
    tail = f"right(document_id, {len(document) + 1}) = {quoted('/' + document)}"
    return f"document_id = {quoted(document)} OR {tail}"


def _names(document: str, full: str) -> bool:
    return full == document or full.endswith(f"/{document}")


def _failing(where: Filter, row: Mapping[str, Any]) -> str:
    """The parts of the filter that are not true of the row, with what the row has."""
    parts = where.parts if isinstance(where, And) else (where,)
    failing = [part for part in parts if not part.matches(row)]
    told = []
    for part in failing:
        text = part.canonical()
        has = [f"{name} = {jsonable(row[name])!r}" for name in row if f"`{name}`" in text]
        told.append(f"{text} is not true of it" + (f" ({', '.join(has)})" if has else ""))
    return "; ".join(told)
