"""The canary: pinned texts whose vectors, kept from registration day, tell when a running model is another one."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache

import numpy as np

from lodestore.errors import FingerprintError
from lodestore.logs import Logs
from lodestore.models import EmbeddingVersion
from lodestore.ports import Embedder
from lodestore.vectors import normalised
from lodestore.wire import digest

__all__ = ["LIMIT", "Canaries", "CanaryReading", "texts"]

# Other hardware and other library releases move a cosine in the seventh digit; another model, in the first.
LIMIT = 0.999

_SUBJECTS = (
    "the invoice", "a pull request", "the left ventricle", "our refund policy", "a transonic wing",
    "the onboarding email", "a database index", "the kitchen sink", "section 14 of the lease", "a Python decorator",
    "the night train to Vienna", "an unsigned cookie", "the school holiday", "a leaking valve", "the quarterly report",
    "ein Zahlungsverzug",
)  # fmt: skip
_PREDICATES = (
    "was delayed by three days because of a strike.",
    "must be checked again before anybody signs it!",
    "costs 1,249.50 EUR without tax (see table 3-b).",
    "does not work after the last update, what should I do?",
)
_LONG = 40  # sentences in a long text: more than any small model reads


@cache
def texts() -> tuple[str, ...]:
    """The 72 pinned texts: short and middling ones on many subjects, and eight that are too long for most models."""
    short = [f"{subject} {predicate}" for subject in _SUBJECTS for predicate in _PREDICATES]
    long = [" ".join(short[(start * 7 + step * 5) % len(short)] for step in range(_LONG)) for start in range(8)]
    return (*short, *long)


@dataclass(frozen=True, slots=True)
class CanaryReading:
    """How near a running model is to the registered one: the smallest cosine over the pinned texts."""

    key: str
    smallest: float
    mean: float
    texts: int
    limit: float = LIMIT

    @property
    def alive(self) -> bool:
        """Whether the running model is the registered one."""
        return self.smallest >= self.limit


class Canaries:
    """The vectors of registration day, by fingerprint."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def read(self, version: EmbeddingVersion, embedder: Embedder) -> CanaryReading:
        """Compare the running model with registration day; the first reading is what is kept."""
        pinned = texts()
        now = normalised(embedder.embed_documents(list(pinned)))
        kept = self._kept(version.fingerprint)
        if kept is None:
            self._keep(version.fingerprint, now)
            kept = now
        if kept.shape != now.shape:
            return CanaryReading(version.key, -1.0, -1.0, len(pinned))
        cosines = np.sum(kept * now, axis=1, dtype=np.float64)
        return CanaryReading(version.key, float(cosines.min()), float(cosines.mean()), len(pinned))

    def pin(self, version: EmbeddingVersion, embedder: Embedder) -> None:
        """The vectors of registration day are kept, unless they already were."""
        if self._kept(version.fingerprint) is None:
            self._keep(version.fingerprint, normalised(embedder.embed_documents(list(texts()))))

    def confirm(self, version: EmbeddingVersion, embedder: Embedder) -> CanaryReading:
        """The reading, or `FingerprintError` when the running model is another one."""
        reading = self.read(version, embedder)
        if not reading.alive:
            message = (
                f"{version.label}: the running model is not the registered one: on {reading.texts} pinned texts the "
                f"smallest cosine is {reading.smallest:.4f}, below {reading.limit}. Put the registered files and "
                "library versions back, or declare what runs as a new version"
            )
            raise FingerprintError(message)
        return reading

    def _kept(self, fingerprint: str) -> np.ndarray | None:
        row = self._logs.last("canaries", f"key = '{fingerprint}'")
        if row is None or row["texts"] != digest(texts()):
            return None
        flat = np.frombuffer(base64.b64decode(row["vectors"]), dtype=np.float32)
        return flat.reshape(len(texts()), -1)

    def _keep(self, fingerprint: str, vectors: np.ndarray) -> None:
        packed = base64.b64encode(np.ascontiguousarray(vectors, dtype=np.float32).tobytes()).decode()
        row = {"key": fingerprint, "fingerprint": fingerprint, "texts": digest(texts()), "vectors": packed}
        self._logs.put("canaries", row)
