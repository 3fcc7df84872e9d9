"""Where a document stands in a search: its place among what was weighed, or how far behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from lodestore.retrieval import Hit, Mode, candidates, fuse

if TYPE_CHECKING:
    from lodestore.live import Live
    from lodestore.ports import VectorStore

__all__ = ["Standing", "standing"]

# A rank beyond this one is told as such: nobody needs to know whether it is 20,000 or 30,000.
_DEEPEST = 10_000
_SAID = {"vector": "by meaning", "text": "by words"}


@dataclass(frozen=True, slots=True)
class Standing:
    """The place of a document's best chunk in a search for k, its score, and the score that place k has.

    `ranks` are its places by meaning and by words. What the search did not weigh (`weighed` False) stands
    behind all that it did, and was `missed` where exact search would have weighed it. `rank` is None for
    what is in no ranking at all.
    """

    k: int
    rank: int | None = None
    score: float | None = None
    needed: float | None = None
    chunk_id: str | None = None
    ranks: Mapping[str, int | None] = field(default_factory=dict)
    offered: int = 0
    weighed: bool = False
    hybrid: bool = False

    @property
    def found(self) -> bool:
        """Whether it is among the k best."""
        return self.weighed and self.rank is not None and self.rank <= self.k

    @property
    def missed(self) -> bool:
        """Whether the index did not find what is near enough to be found."""
        near = self.ranks.get("vector")
        return not self.weighed and near is not None and near <= self.offered

    def sentence(self) -> str:
        """Where it stands, as a person says it."""
        if self.rank is None or self.score is None:
            return f"it is not among the {_DEEPEST:,} best, or none of the query's words is in it"
        says = f"rank {self.rank}, with {self.score:.3g}"
        if self.needed is not None:
            says = f"rank {self.rank}, place {self.k} needs {self.needed:.3g}, it has {self.score:.3g}"
        if self.missed:
            return f"{says}; the index missed it, exact search has it at {self._places()}"
        if self.hybrid and not self.weighed:
            return f"{says}: neither side offers it among its {self.offered} candidates, it is at {self._places()}"
        return says

    def _places(self) -> str:
        told = [f"{rank or 'none'} {_SAID[side]}" for side, rank in self.ranks.items()]
        return f"place {', '.join(told)}"


class _Side(NamedTuple):
    """One ranking as deep as it goes, best first."""

    chunks: list[str]
    documents: list[str]
    scores: list[float]

    def place(self, document: str) -> int | None:
        return self.documents.index(document) + 1 if document in self.documents else None


def standing(
    live: Live, tables: VectorStore, query: str, document: str, *, k: int, mode: Mode, where: str | None = None
) -> Standing:
    """Where the document stands when this snapshot is asked for the k best chunks."""
    hits = live.weighed(query, k=k, mode=mode, where=where)
    needed = hits[k - 1].score if len(hits) >= k else None
    for rank, hit in enumerate(hits, start=1):
        if hit.document_id == document:
            ranks = {"vector": hit.vector_rank, "text": hit.text_rank}
            return Standing(k, rank, hit.score, needed, hit.chunk_id, ranks, weighed=True)
    sides = _sides(live, tables, query, mode, where)
    ranks = {name: side.place(document) for name, side in sides.items()}
    offered = candidates(k) if mode == "hybrid" else k
    behind = _behind(hits, sides, live, document)
    if behind is None:
        return Standing(k, needed=needed, ranks=ranks, offered=offered)
    place, chunk = behind
    (side,) = sides.values() if len(sides) == 1 else (None,)
    # In a hybrid search, what no side offers has no score.
    score = 0.0 if side is None else side.scores[side.chunks.index(chunk)]
    return Standing(k, len(hits) + place, score, needed, chunk, ranks, offered, hybrid=side is None)


def _sides(live: Live, tables: VectorStore, query: str, mode: Mode, where: str | None) -> dict[str, _Side]:
    table, found = live.version().table, {}
    columns = ["row_id", "document_id"]
    if mode != "text":
        (vector,) = live.embed([query])
        found["vector"] = tables.nearest(table, vector, _DEEPEST, where=where, exact=True, columns=columns)
    if mode != "vector":
        found["text"] = tables.matching(table, query, _DEEPEST, where=where, columns=columns)
    names = (*columns, "_score")
    return {side: _Side(*(rows[name].to_pylist() for name in names)) for side, rows in found.items()}


def _behind(hits: Sequence[Hit], sides: Mapping[str, _Side], live: Live, document: str) -> tuple[int, str] | None:
    """The document's first chunk, and its place, among those that were not weighed, in the order of a deeper search."""
    weights = [getattr(live.weights, name) for name in sides]
    fused = fuse([side.chunks for side in sides.values()], weights=weights)
    owner = {chunk: of for side in sides.values() for chunk, of in zip(side.chunks, side.documents, strict=True)}
    known = {hit.chunk_id for hit in hits}
    rest = [chunk for chunk, _ in fused if chunk not in known]
    return next(((n, chunk) for n, chunk in enumerate(rest, start=1) if owner[chunk] == document), None)
