"""Retrieval: vector, text and hybrid search over one version's table, and the noun that comes back."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import pyarrow as pa

from lodestore.errors import ReadingGoneError, RequestError, SettingsError
from lodestore.ports import VectorStore
from lodestore.tables import in_list
from lodestore.wire import rfc3339

__all__ = [
    "MAX_K",
    "NOWHERE",
    "Hit",
    "Mode",
    "Readable",
    "Reading",
    "SearchOptions",
    "SearchResult",
    "Spot",
    "Spots",
    "Titles",
    "Weights",
    "checked_query",
    "encodable",
    "fuse",
    "hit_of",
    "hits_at",
    "search",
    "spotted",
]

_log = logging.getLogger(__name__)
_Name = TypeVar("_Name", str, int)
Mode = Literal["hybrid", "vector", "text"]
MODES: tuple[Mode, ...] = ("hybrid", "vector", "text")
MAX_K = 1_000
_LONGEST_QUERY = 20_000
# Reciprocal rank fusion: Cormack, Clarke and Buettcher (2009) found 60 to be a good constant. On Cranfield it beat the
# better side by 0.026 to 0.033 nDCG@10 with two models, and fusing scaled scores (Bruch, Gai and Ingber, 2023) did not
# do better: benchmarks/retrieval.py --cranfield.
_RRF = 60
# Each side of a hybrid search offers this many candidates for each hit that is asked for.
_CANDIDATES = 4
_FEWEST_CANDIDATES = 20
# What a hit is made of; of the filter columns no more than it tells.
COLUMNS = ("row_id", "document_id", "title", "uri", "text", "start", "end", "source", "category")


@dataclass(frozen=True, slots=True)
class Weights:
    """`[search.weights]`: how much each ranking says in a hybrid search. 0 leaves a ranking out."""

    vector: float = 1.0
    text: float = 1.0
    title: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("vector", self.vector), ("text", self.text), ("title", self.title)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                message = f"weight {name} is {value!r}; give a number from 0 on"
                raise SettingsError(message)
        if not self.vector + self.text:
            message = "the weights of vector and text are both 0; give one of them some weight"
            raise SettingsError(message)


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """`[search]`: how hybrid search fuses; `rebuild` lets the monitor make an index anew that finds too little."""

    weights: Weights = field(default_factory=Weights)
    rebuild: bool = False


@dataclass(frozen=True, slots=True)
class Titles:
    """The title feature's table of the same release, and the query's vector by its model."""

    table: str
    vector: np.ndarray


class Spots(NamedTuple):
    """Where rows are in one version of a table, best first, and how well each fits."""

    places: list[int]
    scores: list[float]


NOWHERE = Spots([], [])


class Spot(NamedTuple):
    """One row that was found, by its place; ranks are those of a hybrid search's sides."""

    place: int
    score: float
    vector_rank: int | None = None
    text_rank: int | None = None


class Reading(Protocol):
    """One version of a table, whose rows can be found first and read afterwards."""

    def nearest(self, vector: np.ndarray, k: int, *, where: str | None = None, exact: bool = False) -> Spots:
        """Where the k nearest rows by cosine are, best first."""

    def matching(self, query: str, k: int, *, where: str | None = None) -> Spots:
        """Where the k best rows by BM25 are, best first."""

    def take(self, places: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """These columns of the rows at the places, in their order."""


@runtime_checkable
class Readable(Protocol):
    """A store whose tables can be searched so."""

    def reading(self, name: str) -> Reading:
        """The table at its newest version."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk that answers. `score` is the cosine, the BM25 score or the fused score, by mode.

    `highlights` are spans of `text` where a word of the query stands, `before` and `after` the texts
    of the chunks around it, `others` further chunks of the same document; each where it was asked for.
    """

    chunk_id: str
    document_id: str
    score: float
    title: str
    uri: str
    text: str
    start: int
    end: int
    source: str
    category: str | None = None
    vector_rank: int | None = None
    text_rank: int | None = None
    title_rank: int | None = None
    # What each side said, told by --explain alone: no part of what was found.
    vector_score: float | None = field(default=None, compare=False, metadata={"explained": True})
    text_score: float | None = field(default=None, compare=False, metadata={"explained": True})
    fused_score: float | None = field(default=None, compare=False, metadata={"explained": True})
    highlights: tuple[tuple[int, int], ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    others: tuple[Hit, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The hit as JSON types."""
        said = ((name, getattr(self, name)) for name in _TOLD)
        told = {name: value for name, value in said if value not in (None, ()) or name == "category"}
        return told | ({"others": [one.to_json() for one in self.others]} if self.others else {})


_TOLD = tuple(one.name for one in fields(Hit) if one.name != "others" and not one.metadata.get("explained"))


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, and by which release and version they were found.

    `as_of` is the moment that was asked about, `notes` what a reader has to know of the answer, and
    `explain` how it was come by, where that was asked for. `live_version` stands in the answer to a
    ready-made vector, which is searched in the table of the version that it names.
    """

    release: int
    version: str
    mode: Mode
    took_ms: float
    hits: tuple[Hit, ...]
    degraded: tuple[str, ...] = ()
    as_of: datetime | None = None
    notes: tuple[str, ...] = ()
    explain: Mapping[str, Any] | None = None
    live_version: str = ""

    def to_json(self) -> dict[str, Any]:
        """The answer of `search`."""
        out: dict[str, Any] = {"release": self.release, "version": self.version, "mode": self.mode}
        out |= {"took_ms": round(self.took_ms, 3), "hits": [hit.to_json() for hit in self.hits]}
        out |= {"live_version": self.live_version} if self.live_version else {}
        out |= {"degraded": list(self.degraded)} if self.degraded else {}
        out |= {"as_of": rfc3339(self.as_of)} if self.as_of else {}
        out |= {"notes": list(self.notes)} if self.notes else {}
        return out | ({"explain": dict(self.explain)} if self.explain is not None else {})


def checked_query(query: object, *, k: int, mode: str) -> None:
    """The query, the number of hits and the mode make sense; otherwise say which does not."""
    if not isinstance(query, str):
        message = f"the query is {type(query).__name__}, not text; give it as a string"
        raise RequestError(message)
    if not query.strip():
        message = "the query is empty; give it some words"
        raise RequestError(message)
    if not encodable(query):
        message = "the query holds half of a surrogate pair, which is no character; give it as valid Unicode"
        raise RequestError(message)
    if len(query) > _LONGEST_QUERY:
        message = f"the query has {len(query):,} characters; at most {_LONGEST_QUERY:,} are searched"
        raise RequestError(message)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
        message = f"k is {k!r}; give a whole number from 1 to {MAX_K:,}"
        raise RequestError(message)
    if mode not in MODES:
        message = f"mode is {mode!r}; known: {', '.join(MODES)}"
        raise RequestError(message)


def encodable(text: str) -> bool:
    r"""Whether the text can be written as UTF-8: half of a surrogate pair cannot.

    >>> encodable("refund"), encodable("\ud800")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fuse(rankings: Sequence[Sequence[str]], *, weights: Sequence[float] | None = None) -> list[tuple[str, float]]:
    """Ids with their reciprocal-rank-fusion score, best first; ties keep the order of the first ranking.

    >>> [name for name, _ in fuse([["a", "b"], ["b", "c"]])]
    ['b', 'a', 'c']
    """
    return _fused_places([_places(one) for one in rankings], weights or [1.0] * len(rankings))


def _places(ranking: Sequence[_Name]) -> dict[_Name, int]:
    return {name: rank for rank, name in enumerate(ranking, start=1)}


def _fused_places(places: Sequence[Mapping[_Name, int]], weights: Sequence[float]) -> list[tuple[_Name, float]]:
    scores: dict[_Name, float] = {}
    for ranking, weight in zip(places, weights, strict=True):
        for name, rank in ranking.items():
            scores[name] = scores.get(name, 0.0) + weight / (_RRF + rank)
    return sorted(scores.items(), key=lambda one: -one[1])


def candidates(k: int) -> int:
    """How deep each side of a hybrid search looks for k hits."""
    return max(k * _CANDIDATES, _FEWEST_CANDIDATES)


def search(
    store: VectorStore,
    table: str,
    query: str,
    vector: np.ndarray | None,
    *,
    k: int,
    mode: Mode,
    where: str | None = None,
    weights: Weights | None = None,
    titles: Titles | None = None,
    exact: bool = False,
    every: bool = False,
) -> list[Hit]:
    """The k best rows of one table. `vector` is the query's, by the model of that very table.

    `every` gives whatever was weighed for them, best first: the candidates of a hybrid search. `titles` joins a hybrid search as a third ranking: every candidate chunk of a document has the
    rank of its document's title, and the best chunk of each such document is a candidate.

    Where the store can find rows first and read them afterwards, only the k best are read; titles and `every` need
    the rows of all candidates.
    """
    say = weights or Weights()
    titled = mode == "hybrid" and titles is not None and say.title > 0
    if isinstance(store, Readable) and not every and not titled:
        try:
            return _found_then_read(store.reading(table), query, vector, k, mode, where, say, exact=exact)
        except ReadingGoneError as error:
            # Somebody replaced the table or took old files away: the store's own search opens it anew.
            _log.info("%s; it is opened anew", error)
    if mode == "text":
        found = store.matching(table, query, k, where=where, columns=COLUMNS)
        return [replace(hit_of(row, row["_score"]), text_score=row["_score"]) for row in found.to_pylist()]
    vector = _needed(vector, mode)
    if mode == "vector":
        found = store.nearest(table, vector, k, where=where, exact=exact, columns=COLUMNS)
        return [replace(hit_of(row, row["_score"]), vector_score=row["_score"]) for row in found.to_pylist()]
    depth = candidates(k)
    most = None if every else k
    near = store.nearest(table, vector, depth, where=where, exact=exact, columns=COLUMNS)
    matching = store.matching(table, query, depth, where=where, columns=COLUMNS)
    if titles is None or not say.title:
        return fused(near, matching, most, weights=say)
    titled = store.nearest(
        titles.table, titles.vector, depth, where=where, exact=exact, columns=["row_id", "document_id"]
    )
    documents = titled["document_id"].to_pylist()
    theirs = _joined(where, in_list("document_id", documents[:k]))
    more = store.nearest(table, vector, depth, where=theirs, exact=exact, columns=COLUMNS)
    return fused(near, matching, most, weights=say, titles=documents, more=more)


def _found_then_read(
    reading: Reading,
    query: str,
    vector: np.ndarray | None,
    k: int,
    mode: Mode,
    where: str | None,
    weights: Weights,
    *,
    exact: bool,
) -> list[Hit]:
    near = matching = NOWHERE
    depth = candidates(k) if mode == "hybrid" else k
    if mode != "text":
        near = reading.nearest(_needed(vector, mode), depth, where=where, exact=exact)
    if mode != "vector":
        matching = reading.matching(query, depth, where=where)
    if mode == "hybrid":
        spots = spotted(near, matching, k, weights=weights)
    else:
        one = matching if mode == "text" else near
        spots = [Spot(place, score) for place, score in zip(*one, strict=True)]
    by_vector, by_words = (dict(zip(*one, strict=True)) for one in (near, matching))
    return [
        replace(
            hit,
            vector_score=by_vector.get(spot.place),
            text_score=by_words.get(spot.place),
            fused_score=spot.score if mode == "hybrid" else None,
        )
        for spot, hit in zip(spots, hits_at(reading, spots), strict=True)
    ]


def hits_at(reading: Reading, spots: Sequence[Spot]) -> tuple[Hit, ...]:
    """The rows at the spots, as hits."""
    if not spots:
        return ()
    rows = reading.take([one.place for one in spots], COLUMNS).to_pylist()
    return tuple(
        hit_of(row, one.score, vector_rank=one.vector_rank, text_rank=one.text_rank)
        for one, row in zip(spots, rows, strict=True)
    )


def _needed(vector: np.ndarray | None, mode: Mode) -> np.ndarray:
    if vector is None:
        message = f"mode {mode} needs the query's vector"
        raise RequestError(message)
    return vector


def _joined(*conditions: str | None) -> str:
    return " AND ".join(f"({one})" for one in conditions if one)


def fused(
    near: pa.Table,
    matching: pa.Table,
    k: int | None,
    *,
    weights: Weights | None = None,
    titles: Sequence[str] = (),
    more: pa.Table | None = None,
) -> list[Hit]:
    """The k best rows, or all of them, by the ranks of both sides, and by the rank of their documents' titles.

    `titles` are document ids, best first; `more` are candidates beside those of the two sides.
    """
    say = weights or Weights()
    sides = [_places(near["row_id"].to_pylist()), _places(matching["row_id"].to_pylist())]
    pools = [one for one in (more, matching, near) if one is not None]
    rows = {row["row_id"]: row for table in pools for row in table.to_pylist()}
    ranks = _places(list(dict.fromkeys(titles)))
    of_titles = {name: ranks[row["document_id"]] for name, row in rows.items() if row["document_id"] in ranks}
    scored = _fused_places([*sides, of_titles], [say.vector, say.text, say.title])
    said = [dict(zip(one["row_id"].to_pylist(), one["_score"].to_pylist(), strict=True)) for one in (near, matching)]
    return [
        replace(
            hit_of(rows[name], score),
            vector_score=said[0].get(name),
            text_score=said[1].get(name),
            fused_score=score,
            vector_rank=sides[0].get(name),
            text_rank=sides[1].get(name),
            title_rank=of_titles.get(name),
        )
        for name, score in scored[:k]
    ]


def spotted(near: Spots, matching: Spots, k: int, *, weights: Weights) -> list[Spot]:
    """The same for rows that are known by their places alone, without titles."""
    vector, text = _places(near.places), _places(matching.places)
    scored = _fused_places([vector, text], [weights.vector, weights.text])
    return [Spot(place, score, vector.get(place), text.get(place)) for place, score in scored[:k]]


def hit_of(
    row: Mapping[str, Any], score: float, *, vector_rank: int | None = None, text_rank: int | None = None
) -> Hit:
    """The hit that a row of a table makes; the row has at least the columns of `COLUMNS`."""
    return Hit(
        chunk_id=row["row_id"],
        document_id=row["document_id"],
        score=float(score),
        title=row["title"] or "",
        uri=row["uri"] or "",
        text=row["text"],
        start=row["start"],
        end=row["end"],
        source=row["source"],
        category=row["category"],
        vector_rank=vector_rank,
        text_rank=text_rank,
    )
