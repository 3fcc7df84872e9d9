"""The live snapshot: one release with everything that answers by it. A request takes it once and uses nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lodestore import retrieval
from lodestore.errors import DimensionError, FingerprintError, RequestError, UnavailableError, UnknownModelError
from lodestore.models import EmbeddingVersion
from lodestore.ports import Embedder, VectorStore
from lodestore.releases import Release
from lodestore.retrieval import Hit, Mode, SearchResult, checked_query
from lodestore.vectors import checked

__all__ = ["Live"]


@dataclass(frozen=True, slots=True)
class Live:
    """What one release answers with."""

    release: Release
    versions: Mapping[str, EmbeddingVersion]
    embedder: Callable[[EmbeddingVersion], Embedder]
    vectors: VectorStore

    def version(self, feature: str = "content") -> EmbeddingVersion:
        """The live version of an embedding feature."""
        if feature not in self.versions:
            if not self.versions:
                message = "nothing is live yet; run: lodestore run ingest"
                raise UnavailableError(message)
            raise UnknownModelError(feature, self.versions, note=" (embedding features)")
        return self.versions[feature]

    def embed(self, texts: Sequence[str], feature: str = "content") -> np.ndarray:
        """The queries' vectors, by the model of the table that is searched."""
        version = self.version(feature)
        made = self.embedder(version).embed_queries(texts)
        return checked(made, texts=len(texts), dimension=version.dimension, label=version.label)

    def search(
        self, query: str, *, k: int = 10, mode: Mode = "hybrid", where: str | None = None, feature: str = "content"
    ) -> SearchResult:
        """The k best chunks. A request without a vector is embedded by the very model of the searched table."""
        checked_query(query, k=k, mode=mode)
        started = time.perf_counter()
        version = self.version(feature)
        vector = None if mode == "text" else self.embed([query], feature)[0]
        hits = retrieval.search(self.vectors, version.table, query, vector, k=k, mode=mode, where=where)
        return self._result(version, mode, hits, started)

    def search_vector(
        self,
        vector: Sequence[float] | np.ndarray,
        *,
        fingerprint: str,
        k: int = 10,
        where: str | None = None,
        feature: str = "content",
    ) -> SearchResult:
        """The k nearest chunks to a ready-made vector, which has to name the fingerprint of its model."""
        checked_query("vector", k=k, mode="vector")
        started = time.perf_counter()
        version = self.version(feature)
        array = _as_vector(vector)
        if not fingerprint:
            message = f"the vector names no model; say which one made it, live is {version.label}"
            raise FingerprintError(message)
        if fingerprint not in {version.fingerprint, version.label}:
            message = f"the vector is of {fingerprint!r}, live is {version.label}; embed the query with the live model"
            raise FingerprintError(message)
        if array.shape != (version.dimension,):
            message = f"the vector has shape {array.shape}, {version.label} has {version.dimension} numbers"
            raise DimensionError(message)
        if not np.isfinite(array).all() or not array.any():
            message = "the vector has NaN or infinite numbers, or only zeros"
            raise RequestError(message)
        hits = retrieval.search(self.vectors, version.table, "", array, k=k, mode="vector", where=where)
        return self._result(version, "vector", hits, started)

    def _result(self, version: EmbeddingVersion, mode: Mode, hits: list[Hit], started: float) -> SearchResult:
        took = (time.perf_counter() - started) * 1000
        return SearchResult(self.release.generation, version.label, mode, took, tuple(hits))


def _as_vector(vector: Sequence[float] | np.ndarray) -> np.ndarray:
    try:
        return np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError) as error:
        message = f"the vector is no list of numbers: {error}"
        raise RequestError(message) from error
