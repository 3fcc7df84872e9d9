"""The live snapshot: one release with everything that answers by it. A request takes it once and uses nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lodestore import retrieval
from lodestore.diversity import mmr
from lodestore.errors import FingerprintError, RequestError, UnavailableError, UnknownModelError, naming
from lodestore.grouping import Extras, Reader, beside, by_document, highlighted
from lodestore.models import EmbeddingVersion, check_compatibility
from lodestore.ports import Embedder, VectorStore
from lodestore.releases import Release
from lodestore.rerank import Reranker
from lodestore.retrieval import Hit, Mode, SearchResult, Titles, Weights, checked_query
from lodestore.tables import in_list
from lodestore.tokens import CountTokens
from lodestore.vectors import checked

__all__ = ["Live"]

_PLAIN = Extras()
# Titles that are asked for, but weigh nothing in the settings: half a say was as good as any on Cranfield.
_TITLE_WEIGHT = 0.5
# Documents are looked for among this many chunks for each, then among four times as many, and so on to the limit.
_CHUNKS_PER_DOCUMENT = 5
_DEEPER = 4
_DEEPEST = 20_000
# A longer name is none of a version; it is cut so that errors stay readable.
_LONGEST_NAME = 200
# Out of how many for each hit a varied choice is made.
_POOL = 4


@dataclass(frozen=True, slots=True)
class Live:
    """What one release answers with."""

    release: Release
    versions: Mapping[str, EmbeddingVersion]
    embedder: Callable[[EmbeddingVersion], Embedder]
    vectors: VectorStore
    counter: Callable[[EmbeddingVersion], CountTokens] | None = None
    weights: Weights = field(default_factory=Weights)
    reranker: Reranker | None = None
    retained: Callable[[Release, str], Sequence[EmbeddingVersion]] | None = None

    def version(self, feature: str = "content") -> EmbeddingVersion:
        """The live version of an embedding feature."""
        if feature not in self.versions:
            if not self.versions:
                message = "nothing is live yet; run: lodestore run ingest"
                raise UnavailableError(message)
            raise UnknownModelError(feature, self.versions, note=" (embedding features)")
        return self.versions[feature]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, by the tokenizer of this snapshot's content model."""
        if self.counter is None:
            message = "this snapshot counts no tokens; make it with counter="
            raise RequestError(message)
        return self.counter(self.version("content"))(texts)

    def embed(self, texts: Sequence[str], feature: str = "content") -> np.ndarray:
        """The queries' vectors, by the model of the table that is searched."""
        version = self.version(feature)
        made = self.embedder(version).embed_queries(texts)
        return checked(made, texts=len(texts), dimension=version.dimension, label=version.label)

    def search(
        self, query: str, *, k: int = 10, mode: Mode = "hybrid", where: str | None = None, feature: str = "content"
    ) -> SearchResult:
        """The k best chunks. A request without a vector is embedded by the very model of the searched table."""
        return self.find(query, k=k, mode=mode, where=where, feature=feature)

    def find(
        self,
        query: str,
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        where: str | None = None,
        feature: str = "content",
        extras: Extras = _PLAIN,
    ) -> SearchResult:
        """The same, with whatever `extras` asks for; titles only join a search of the content."""
        checked_query(query, k=k, mode=mode)
        started = time.perf_counter()
        version = self.version(feature)
        self._check_extras(version, mode, extras)
        vector = None if mode == "text" else self.embed([query], feature)[0]
        return self._answer(version, query, vector, k, mode, where, extras, started)

    def weighed(self, query: str, *, k: int = 10, mode: Mode = "hybrid", where: str | None = None) -> list[Hit]:
        """Whatever a search for k chunks weighs, best first: `find` gives the first k of them."""
        checked_query(query, k=k, mode=mode)
        version = self.version()
        vector = None if mode == "text" else self.embed([query])[0]
        titles = self._titles(query, version, mode, _PLAIN)
        return retrieval.search(
            self.vectors, version.table, query, vector,
            k=k, mode=mode, where=where, weights=self.weights, titles=titles, every=True,
        )  # fmt: skip

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        where: str | None = None,
        feature: str = "content",
        extras: Extras = _PLAIN,
    ) -> list[SearchResult]:
        """The answer to each query, in their order, all by this one release; the queries are embedded together."""
        if isinstance(queries, str | bytes) or not isinstance(queries, Iterable):
            message = f"queries is {type(queries).__name__}; give a list of queries"
            raise RequestError(message)
        for place, query in enumerate(queries, start=1):
            with naming(f"query {place}"):
                checked_query(query, k=k, mode=mode)
        version = self.version(feature)
        self._check_extras(version, mode, extras)
        none: list[np.ndarray | None] = [None] * len(queries)
        vectors = none if mode == "text" or not queries else list(self.embed(queries, feature))
        pairs = zip(queries, vectors, strict=True)
        return [
            self._answer(version, query, vector, k, mode, where, extras, time.perf_counter()) for query, vector in pairs
        ]

    def _answer(
        self,
        version: EmbeddingVersion,
        query: str,
        vector: np.ndarray | None,
        k: int,
        mode: Mode,
        where: str | None,
        extras: Extras,
        started: float,
    ) -> SearchResult:
        titles = self._titles(query, version, mode, extras)
        weights = self._weighed(extras)

        def best(depth: int) -> list[Hit]:
            return retrieval.search(
                self.vectors, version.table, query, vector,
                k=depth, mode=mode, where=where, weights=weights, titles=titles,
            )  # fmt: skip

        hits = self._chosen(best, query, version, k, extras)
        if extras.neighbours:
            hits = beside(self._reader(), version.table, hits, count=extras.neighbours)
        if extras.highlight:
            hits = highlighted(query, hits)
        explained = (
            self._explained(version, mode, where, k, weights, titles, hits, reranked=extras.rerank)
            if extras.explain
            else None
        )
        took = (time.perf_counter() - started) * 1000
        return SearchResult(self.release.generation, version.label, mode, took, tuple(hits), explain=explained)

    def _weighed(self, extras: Extras) -> Weights:
        if extras.titles is None:
            return self.weights
        title = (self.weights.title or _TITLE_WEIGHT) if extras.titles else 0.0
        return Weights(self.weights.vector, self.weights.text, title)

    def _check_extras(self, version: EmbeddingVersion, mode: Mode, extras: Extras) -> None:
        """What cannot be had is told before a model is loaded for it."""
        if extras.titles and not _joins(version, mode):
            message = f"titles join a hybrid search of the content; this one is {mode} of the {version.feature}"
            raise RequestError(message)
        if extras.rerank and self.reranker is None:
            message = "rerank: no reranker is set; name one as [context] reranker = 'path:FOLDER'"
            raise RequestError(message)

    def _titles(self, query: str, version: EmbeddingVersion, mode: Mode, extras: Extras) -> Titles | None:
        wanted = _joins(version, mode) and self._weighed(extras).title > 0
        if not wanted or (extras.titles is None and "title" not in self.versions):
            return None
        return Titles(self.version("title").table, self.embed([query], "title")[0])

    def _chosen(
        self, best: Callable[[int], list[Hit]], query: str, version: EmbeddingVersion, k: int, extras: Extras
    ) -> list[Hit]:
        pool = k if extras.diversity is None and not extras.rerank else k * _POOL
        hits = best(pool) if extras.per_document is None else _documents(best, pool, extras.per_document)
        if extras.rerank:
            hits = self._reranked(query, hits)
        if extras.diversity is None:
            return hits[:k]
        if len(hits) < 2:  # noqa: PLR2004 - one hit is varied enough
            return hits
        ids = [hit.chunk_id for hit in hits]
        rows = self._reader().read(version.table, ["row_id", "vector"], in_list("row_id", ids)).to_pylist()
        vectors = {row["row_id"]: row["vector"] for row in rows}
        kept = [hit for hit in hits if hit.chunk_id in vectors]
        relevance = np.array([hit.score for hit in kept])
        directions = np.array([vectors[hit.chunk_id] for hit in kept], dtype=np.float64)
        return [kept[place] for place in mmr(relevance, directions, k=k, diversity=extras.diversity)]

    def _reranked(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """The hits by the cross-encoder's scores, which take the place of their own."""
        if self.reranker is None or not hits:
            return []
        scores = self.reranker.score(query, [hit.text for hit in hits])
        scored = [replace(hit, score=float(score)) for hit, score in zip(hits, scores, strict=True)]
        return sorted(scored, key=lambda hit: -hit.score)

    def _reader(self) -> Reader:
        if not isinstance(self.vectors, Reader):
            message = "this snapshot searches a store that cannot be read; leave out neighbours and diversity"
            raise UnavailableError(message)
        return self.vectors

    def _explained(
        self,
        version: EmbeddingVersion,
        mode: Mode,
        where: str | None,
        k: int,
        weights: Weights,
        titles: Titles | None,
        hits: Sequence[Hit],
        *,
        reranked: bool,
    ) -> dict[str, Any]:
        """How the answer was come by: release, table, index and probes, filter, fusion, each hit's ranks."""
        probing = getattr(self.vectors, "probing", None)
        told: dict[str, Any] = {
            "release": self.release.generation,
            "table": version.table,
            "fingerprint": version.fingerprint,
            "filter": where,
            "rerank": reranked,
            **(probing(version.table) if probing else {"index": None}),
        }
        if mode == "hybrid":
            used = {"vector": weights.vector, "text": weights.text} | ({"title": weights.title} if titles else {})
            told |= {"fusion": "reciprocal rank fusion", "weights": used, "candidates": retrieval.candidates(k)}
        told["ranks"] = {
            hit.chunk_id: {"vector": hit.vector_rank, "text": hit.text_rank, "title": hit.title_rank} for hit in hits
        }
        told["scores"] = {hit.chunk_id: _scores(hit, reranked=reranked) for hit in hits}
        return told

    def search_vector(
        self,
        vector: Sequence[float] | np.ndarray,
        *,
        fingerprint: str,
        k: int = 10,
        where: str | None = None,
        feature: str = "content",
    ) -> SearchResult:
        """The k nearest chunks to a ready-made vector, which has to name the version that made it.

        It is searched in that version's table: the live one's, or that of one to which a rollback would
        go. The answer says which version is live, so that a client with an old model learns of it.
        """
        checked_query("vector", k=k, mode="vector")
        started = time.perf_counter()
        live = self.version(feature)
        name = _as_name(fingerprint)
        version = self._of_vector(live, name)
        array = _as_vector(vector)
        check_compatibility(version, fingerprint=name, shape=array.shape)
        if not np.isfinite(array).all() or not array.any():
            message = "the vector has NaN or infinite numbers, or only zeros"
            raise RequestError(message)
        found = self._answer(version, "", array, k, "vector", where, _PLAIN, started)
        return replace(found, live_version=live.label)

    def _of_vector(self, live: EmbeddingVersion, name: str) -> EmbeddingVersion:
        """The version that the vector names: the live one, one that is retained, or an error."""
        if not name or name in live.names or self.retained is None:
            return live
        kept = self.retained(self.release, live.feature)
        found = next((one for one in kept if name in one.names), None)
        if found is None:
            others = ", ".join(one.label for one in kept) or "none"
            message = (
                f"the vector is of {name!r}, live is {live.label}, still kept: {others}; "
                "embed the query with the live model"
            )
            raise FingerprintError(message)
        return found


def _joins(version: EmbeddingVersion, mode: Mode) -> bool:
    """Whether titles may join the search."""
    return mode == "hybrid" and version.feature == "content"


def _scores(hit: Hit, *, reranked: bool) -> dict[str, float]:
    """What each part of the search said of the hit; a side that did not offer it says nothing."""
    said = {"vector": hit.vector_score, "text": hit.text_score, "fused": hit.fused_score}
    said |= {"rerank": hit.score} if reranked else {}
    return {name: value for name, value in said.items() if value is not None}


def _documents(best: Callable[[int], list[Hit]], k: int, chunks: int) -> list[Hit]:
    """The k best documents; the search goes deeper until it has found so many, or there are no more."""
    depth = k * max(_CHUNKS_PER_DOCUMENT, chunks)
    while True:
        found = best(depth)
        grouped = by_document(found, k=k, chunks=chunks)
        if len(grouped) >= k or len(found) < depth or depth >= _DEEPEST:
            return grouped
        depth = min(depth * _DEEPER, _DEEPEST)


def _as_name(given: object) -> str:
    if given is None or isinstance(given, str):
        return (given or "")[:_LONGEST_NAME]
    message = f"the version of the vector is {type(given).__name__}; name it as text, such as minilm@1"
    raise RequestError(message)


def _as_vector(vector: Sequence[float] | np.ndarray) -> np.ndarray:
    try:
        given = np.asarray(vector)
        if given.dtype.kind not in "fiu":
            given = given.astype(np.float64, casting="safe")
        # What is too large for the numbers of a table becomes infinite, and is refused as that.
        with np.errstate(over="ignore"):
            return given.astype(np.float32)
    except (TypeError, ValueError) as error:
        message = f"the vector is no list of numbers: {error}"
        raise RequestError(message) from error
