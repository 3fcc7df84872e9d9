"""What surrounds a hit: its document's other chunks, the chunks beside it, the words that matched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import pyarrow as pa

from lodestore.errors import RequestError
from lodestore.retrieval import Hit
from lodestore.tables import in_list

__all__ = ["Extras", "Reader", "beside", "by_document", "highlighted", "spans"]

_MOST_BESIDE = 10
_MOST_OF_A_DOCUMENT = 100
_WORD = re.compile(r"\w+")
# Words that stand in most sentences: the text index leaves them out as well.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
        "they this to was will with ",
    )
)
_ENDINGS = ("ingly", "edly", "ing", "ies", "ied", "ed", "es", "ly", "s", "e", "y")
_SHORTEST_STEM = 3


@runtime_checkable
class Reader(Protocol):
    """What reads rows of a table."""

    def read(self, name: str, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """The rows that match, as one table."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What is wanted beside the k best chunks.

    `per_document` makes one hit of each document, with so many of its chunks. `neighbours` adds the
    texts of so many chunks before and after. `highlight` adds the spans of matched words. `diversity`
    from 0 to 1 passes over what was said already. `titles` joins the title feature's ranking to a
    hybrid search (None: as the weights say). `explain` tells how the answer was come by. `rerank` lets
    the cross-encoder of the settings order the candidates.
    """

    per_document: int | None = None
    neighbours: int = 0
    highlight: bool = False
    diversity: float | None = None
    titles: bool | None = None
    explain: bool = False
    rerank: bool = False

    def __post_init__(self) -> None:
        _within("per_document", self.per_document if self.per_document is not None else 1, 1, _MOST_OF_A_DOCUMENT)
        _within("neighbours", self.neighbours, 0, _MOST_BESIDE)
        for name in ("highlight", "titles", "explain", "rerank"):
            said = getattr(self, name)
            if not isinstance(said, bool) and not (name == "titles" and said is None):
                message = f"{name} is {said!r}; give True or False"
                raise RequestError(message)
        given = self.diversity
        if given is not None and (isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1):
            message = f"diversity is {given!r}; give a number from 0 (relevance alone) to 1"
            raise RequestError(message)


def _within(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        message = f"{name} is {value!r}; give a whole number from {low} to {high}"
        raise RequestError(message)


def by_document(hits: Sequence[Hit], *, k: int, chunks: int = 1) -> list[Hit]:
    """The k best documents, each as its best chunk with up to `chunks` - 1 `others`, all in the order of the hits."""
    groups: dict[str, list[Hit]] = {}
    for hit in hits:
        groups.setdefault(hit.document_id, []).append(hit)
    return [replace(best, others=tuple(rest[: chunks - 1])) for best, *rest in list(groups.values())[:k]]


def beside(reader: Reader, table: str, hits: Sequence[Hit], *, count: int) -> list[Hit]:
    """The hits with the texts of `count` chunks before and after each, as far as its document has them.

    They are read from the table that was searched, so they are of the same version.
    """
    wanted = in_list("document_id", sorted({hit.document_id for hit in hits}))
    rows = reader.read(table, ["row_id", "document_id", "start", "text"], wanted).to_pylist() if hits else []
    rows.sort(key=lambda row: (row["document_id"], row["start"], row["row_id"]))
    places = {row["row_id"]: place for place, row in enumerate(rows)}

    def texts(hit: Hit, low: int, high: int) -> tuple[str, ...]:
        return tuple(row["text"] for row in rows[max(0, low) : high] if row["document_id"] == hit.document_id)

    def surrounded(hit: Hit) -> Hit:
        place = places.get(hit.chunk_id)
        if place is None:  # it left the table just now
            return hit
        return replace(hit, before=texts(hit, place - count, place), after=texts(hit, place + 1, place + 1 + count))

    return [surrounded(hit) for hit in hits]


def highlighted(query: str, hits: Sequence[Hit]) -> list[Hit]:
    """The hits with the spans of the words that they share with the query."""
    return [
        replace(hit, highlights=spans(query, hit.text), others=tuple(highlighted(query, hit.others))) for hit in hits
    ]


def spans(query: str, text: str) -> tuple[tuple[int, int], ...]:
    """Where words of the query stand in the text, as (start, end) in characters; other forms of a word count.

    >>> text = "Refunded: a refund takes days."
    >>> [text[start:end] for start, end in spans("the refunds", text)]
    ['Refunded', 'refund']
    """
    wanted = {_stem(word) for word in _WORD.findall(query) if word.lower() not in _COMMON}
    found = _WORD.finditer(text) if wanted else ()
    return tuple(match.span() for match in found if _stem(match[0]) in wanted)


def _stem(word: str) -> str:
    """The word without its commonest English endings: enough to see that two forms are one word.

    >>> _stem("Policies"), _stem("policy"), _stem("booked"), _stem("bus")
    ('polic', 'polic', 'book', 'bus')
    """
    low = word.lower()
    for ending in _ENDINGS:
        if low.endswith(ending) and len(low) - len(ending) >= _SHORTEST_STEM:
            return low[: -len(ending)]
    return low
