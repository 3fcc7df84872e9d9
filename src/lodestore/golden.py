"""Golden sets: questions, and the documents that answer them, as people judged them.

Queries are JSONL (`id` or `_id`, `text`, and if wanted `segment` and `filter`; other keys are left
alone). Judgements are a TSV with a header, such as BEIR's `query-id corpus-id score`, or the four
columns of TREC: query, iteration, document, relevance.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from lodestore.errors import GoldenError

__all__ = ["GoldenQuery", "GoldenSet", "read", "resolve"]

Judgements = Mapping[str, Mapping[str, float]]

_HEADINGS = {
    "query": ("query-id", "query_id", "qid", "query"),
    "document": ("corpus-id", "corpus_id", "document-id", "document_id", "doc-id", "doc_id", "docid", "document"),
    "score": ("score", "relevance", "rel", "grade", "label"),
    "iteration": ("iteration", "iter"),
}
_ROLES = {heading: role for role, headings in _HEADINGS.items() for heading in headings}
_TREC = ("query", "iteration", "document", "score")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class GoldenQuery:
    """One question, and where it belongs."""

    query_id: str
    text: str
    segment: str | None = None
    filter: str | Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """Questions in the order of their file, and judgements by query and document, none below 0."""

    name: str
    queries: tuple[GoldenQuery, ...]
    judgements: Judgements

    @property
    def judged(self) -> tuple[GoldenQuery, ...]:
        """The queries that have a relevant document: the ones that metrics count."""
        return tuple(one for one in self.queries if self._has_relevant(one))

    @property
    def unjudged(self) -> tuple[str, ...]:
        """The ids of the queries without any relevant document: kept, but in no metric."""
        return tuple(one.query_id for one in self.queries if not self._has_relevant(one))

    @property
    def documents(self) -> tuple[str, ...]:
        """Every judged document once, as the judgements name it."""
        return tuple(dict.fromkeys(document for judged in self.judgements.values() for document in judged))

    def answerable(self, document_ids: Collection[str]) -> GoldenSet:
        """The same set with only those judged queries of which a relevant document is among these, by their full ids.

        What no version can answer makes any two of them look alike.
        """
        queries = tuple(
            one
            for one in self.judged
            if any(value > 0 and name in document_ids for name, value in self.judgements[one.query_id].items())
        )
        return GoldenSet(self.name, queries, _frozen({one.query_id: self.judgements[one.query_id] for one in queries}))

    def _has_relevant(self, query: GoldenQuery) -> bool:
        return any(value > 0 for value in self.judgements.get(query.query_id, {}).values())


def read(name: str, queries: Path, qrels: Path) -> GoldenSet:
    """Read a golden set; whatever is wrong is an error that names the file and the line."""
    asked = _read_queries(queries)
    judgements = _read_judgements(qrels)
    known = {one.query_id for one in asked}
    unknown = [query for query in judgements if query not in known]
    if unknown:
        message = f"{qrels}: judges {_some(unknown)}, which {queries} does not ask; add or remove them"
        raise GoldenError(message)
    ordered = {query.query_id: judgements[query.query_id] for query in asked if query.query_id in judgements}
    return GoldenSet(name, asked, _frozen(ordered))


def _frozen(judgements: Judgements) -> Judgements:
    return MappingProxyType({query: MappingProxyType(dict(judged)) for query, judged in judgements.items()})


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(one) for one in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each line that is not blank, with `file:line` to name it by."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror}); [golden] in the settings names the files"
        raise GoldenError(message) from error
    except UnicodeDecodeError as error:
        message = f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8"
        raise GoldenError(message) from error
    # not splitlines(): JSON strings may hold characters that it takes for the end of a line
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line.rstrip("\r")


def _read_queries(path: Path) -> tuple[GoldenQuery, ...]:
    found: dict[str, GoldenQuery] = {}
    for where, line in _lines(path):
        query = _query(where, line)
        if query.query_id in found:
            message = f"{where}: id {query.query_id!r} comes a second time; every query has an id of its own"
            raise GoldenError(message)
        found[query.query_id] = query
    if not found:
        message = f"{path}: holds no query; write one JSON object a line with id and text"
        raise GoldenError(message)
    return tuple(found.values())


def _query(where: str, line: str) -> GoldenQuery:
    try:
        row = json.loads(line)
    except ValueError as error:
        message = f"{where}: is not JSON ({error}); write one object a line"
        raise GoldenError(message) from error
    if not isinstance(row, dict):
        message = f'{where}: is {type(row).__name__}, not an object; write {{"id": ..., "text": ...}}'
        raise GoldenError(message)
    return GoldenQuery(_identity(where, row), _text(where, row), _segment(where, row), _filter(where, row))


def _identity(where: str, row: Mapping[str, Any]) -> str:
    given = row.get("id", row.get("_id"))
    if isinstance(given, bool) or not isinstance(given, (str, int)) or not str(given).strip():
        message = f"{where}: id is {given!r}; give every query an id (or _id), a string"
        raise GoldenError(message)
    return str(given)


def _text(where: str, row: Mapping[str, Any]) -> str:
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        message = f"{where}: text is {text!r}; give every query a text"
        raise GoldenError(message)
    return text


def _segment(where: str, row: Mapping[str, Any]) -> str | None:
    value = row.get("segment")
    if value is None or isinstance(value, str):
        return value
    message = f"{where}: segment is {value!r}; give a string, or leave it out"
    raise GoldenError(message)


def _filter(where: str, row: Mapping[str, Any]) -> str | Mapping[str, Any] | None:
    value = row.get("filter")
    if value is None or isinstance(value, (str, dict)):
        return value
    message = f"{where}: filter is {value!r}; give a string or an object, or leave it out"
    raise GoldenError(message)


def _read_judgements(path: Path) -> Judgements:
    lines = list(_lines(path))
    if not lines:
        message = f"{path}: is empty; write a header (query-id, corpus-id, score) and a line for each judgement"
        raise GoldenError(message)
    first = _fields(lines[0][1])
    trec = len(first) == len(_TREC) and _number(first[-1]) is not None
    roles = _TREC if trec else _header(lines[0][0], first)
    out: dict[str, dict[str, float]] = defaultdict(dict)
    for where, line in lines if trec else lines[1:]:
        query, document, value = _judgement(where, roles, _fields(line))
        if out[query].setdefault(document, value) != value:
            message = f"{where}: query {query!r} judges {document!r} {value:g}, but {out[query][document]:g} before"
            raise GoldenError(message)
    return out


def _fields(line: str) -> list[str]:
    """Split at tabs, so that an id may hold spaces; without tabs at white space, as TREC has it."""
    return [field.strip() for field in line.split("\t")] if "\t" in line else line.split()


def _header(where: str, headings: Sequence[str]) -> tuple[str, ...]:
    unknown = [one for one in headings if one.lower() not in _ROLES]
    if unknown:
        message = (
            f"{where}: unknown column {unknown[0]!r}; the header is query-id, corpus-id, score, separated by tabs, "
            "or there is none above the four columns of TREC"
        )
        raise GoldenError(message)
    roles = tuple(_ROLES[one.lower()] for one in headings)
    for role in ("query", "document", "score"):
        if roles.count(role) != 1:
            message = (
                f"{where}: needs one column for the {role} ({', '.join(_HEADINGS[role])}), has {roles.count(role)}"
            )
            raise GoldenError(message)
    return roles


def _judgement(where: str, roles: Sequence[str], fields: Sequence[str]) -> tuple[str, str, float]:
    if len(fields) != len(roles):
        message = f"{where}: has {len(fields)} columns instead of {len(roles)} ({', '.join(roles)})"
        raise GoldenError(message)
    row = dict(zip(roles, fields, strict=True))
    for role in ("query", "document"):
        if not row[role]:
            message = f"{where}: the {role} is empty; name it"
            raise GoldenError(message)
    value = _number(row["score"])
    if value is None:
        message = f"{where}: the score {row['score']!r} is not a finite number"
        raise GoldenError(message)
    return row["query"], row["document"], max(0.0, value)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def resolve(
    golden: GoldenSet, known_document_ids: Iterable[str], *, missing: Literal["error", "drop"] = "error"
) -> GoldenSet:
    """Return the same set with every judged document under its full id, `source/id`.

    A judgement may name a document as `doc17` when only one source has it. A full id wins over a
    short one that reads alike. `missing="drop"` leaves out judgements of documents that are not
    known; a query that loses all its relevant documents moves to `unjudged`.
    """
    full = _full_ids(golden, frozenset(known_document_ids))
    lost = [document for document in golden.documents if document not in full]
    if lost and missing == "error":
        message = (
            f"golden set {golden.name!r}: {len(lost)} of {len(golden.documents)} judged documents are not known: "
            f'{_some(lost)}; ingest them, mend the ids, or pass missing="drop"'
        )
        raise GoldenError(message)
    return replace(golden, judgements=_frozen(_renamed(golden, full)))


def _full_ids(golden: GoldenSet, known: frozenset[str]) -> dict[str, str]:
    by_source_id: dict[str, list[str]] = defaultdict(list)
    for one in known:
        by_source_id[one.partition("/")[2]].append(one)
    full: dict[str, str] = {}
    for document in golden.documents:
        candidates = [document] if document in known else sorted(by_source_id.get(document, []))
        if len(candidates) > 1:
            message = (
                f"golden set {golden.name!r}: document {document!r} is in several sources: {_some(candidates)}; "
                "write the full id"
            )
            raise GoldenError(message)
        full.update((document, one) for one in candidates)
    return full


def _renamed(golden: GoldenSet, full: Mapping[str, str]) -> dict[str, dict[str, float]]:
    out = {}
    for query, judged in golden.judgements.items():
        kept = [(full[document], value) for document, value in judged.items() if document in full]
        twice = [document for document, times in Counter(document for document, _ in kept).items() if times > 1]
        if twice:
            message = (
                f"golden set {golden.name!r}: query {query!r} judges {twice[0]!r} by its full and by its short id; "
                "keep one"
            )
            raise GoldenError(message)
        out[query] = dict(kept)
    return out
