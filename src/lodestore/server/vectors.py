"""Query vectors: made once for each text, in batches of what came while the model was busy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np

from lodestore.errors import LodestoreError, ModelError, UnavailableError
from lodestore.ports import Embedder
from lodestore.server.caches import ByteCache

__all__ = ["QueryVectors", "VectorCache"]

_LARGEST_BATCH = 64
# A model that failed is not tried again before that: loading one takes seconds of the whole processor.
_RETRY_SECONDS = 20.0


class VectorCache:
    """Vectors by (fingerprint, text), shared by every model of a worker, and how often they were there."""

    def __init__(self, most: int) -> None:
        self._lock = Lock()
        self._kept: ByteCache[np.ndarray] = ByteCache(most, lambda one: one.nbytes)
        self.hits = self.misses = self.joined = 0

    def get(self, fingerprint: str, text: str) -> np.ndarray | None:
        """The vector, when it is known."""
        with self._lock:
            found = self._kept.get((fingerprint, text))
            self.hits += found is not None
            self.misses += found is None
            return found

    def put(self, fingerprint: str, text: str, vector: np.ndarray) -> None:
        """The vector is known, unless others are used more."""
        with self._lock:
            self._kept.put((fingerprint, text), vector)


class QueryVectors:
    """The model of one fingerprint as an `Embedder` for many threads at once.

    A lone request goes to the model at once. What comes while the model is busy goes to it together
    in the next batch; the same text goes once. Until `load` is done, asking is an UnavailableError;
    after `load` failed, a ModelError that says why.
    """

    def __init__(self, make: Callable[[], Embedder], fingerprint: str, dimension: int, cache: VectorCache) -> None:
        self.fingerprint = fingerprint
        self.dimension = dimension
        self.trouble: str | None = None
        self._make = make
        self._cache = cache
        self._model: Embedder | None = None
        self._tried_at = 0.0
        self._lock = Lock()
        self._asked: dict[str, Future[np.ndarray]] = {}
        self._queue: list[str] = []
        self._busy = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="lodestore-model")

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self._model is not None

    def load(self) -> None:
        """The model is loaded and has embedded something; a failure is kept in `trouble` and raised."""
        if self._model is not None:
            return
        if self.trouble is not None and time.monotonic() - self._tried_at < _RETRY_SECONDS:
            self._loaded()
        self._tried_at = time.monotonic()
        try:
            model = self._make()
            model.embed_queries(["warm"])
        except Exception as error:
            self.trouble = f"{type(error).__name__}: {error}"
            if isinstance(error, LodestoreError):
                raise
            message = f"the model {self.fingerprint[:12]} does not load: {self.trouble}"
            raise ModelError(message) from error
        self._model, self.trouble = model, None

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row per text; never kept."""
        return self._loaded().embed_documents(texts)

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row per query."""
        self._loaded()
        return np.stack([one if isinstance(one, np.ndarray) else one.result() for one in map(self._vector, texts)])

    def _loaded(self) -> Embedder:
        if self._model is not None:
            return self._model
        if self.trouble is not None:
            message = f"the model of the live version cannot be used: {self.trouble}"
            raise ModelError(message)
        message = "the model of the live version is being loaded; try again in a second, or search with mode text"
        raise UnavailableError(message)

    def _vector(self, text: str) -> np.ndarray | Future[np.ndarray]:
        found = self._cache.get(self.fingerprint, text)
        if found is not None:
            return found
        with self._lock:
            future = self._asked.get(text)
            if future is not None:
                self._cache.joined += 1
                return future
            future = self._asked[text] = Future()
            self._queue.append(text)
            begin, self._busy = not self._busy, True
        if begin:
            self._worker.submit(self._drain)
        return future

    def _drain(self) -> None:
        """Embed what is waiting until nothing is."""
        while True:
            with self._lock:
                batch, self._queue = self._queue[:_LARGEST_BATCH], self._queue[_LARGEST_BATCH:]
                if not batch:
                    self._busy = False
                    return
            self._embed(batch)

    def _embed(self, batch: list[str]) -> None:
        try:
            vectors = self._loaded().embed_queries(batch)
        except Exception as error:  # noqa: BLE001 - raised again in every thread that waits for it
            for text in batch:
                self._done(text).set_exception(error)
            return
        for text, vector in zip(batch, vectors, strict=True):
            self._cache.put(self.fingerprint, text, vector)
            self._done(text).set_result(vector)

    def _done(self, text: str) -> Future[np.ndarray]:
        with self._lock:
            return self._asked.pop(text)
