"""From a declared model to something that embeds."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import numpy as np

from lodestore.adapters.static import StaticEmbedder, WordsEmbedder
from lodestore.adapters.transformer import TransformerEmbedder
from lodestore.errors import ModelError
from lodestore.models import EmbeddingModel, Identity
from lodestore.ports import Embedder

__all__ = ["embedder"]


def embedder(model: EmbeddingModel, identity: Identity) -> Embedder:
    """The adapter that runs this model; nothing is loaded yet."""
    match identity.layout:
        case "sentence_transformers":
            return TransformerEmbedder(model, identity)
        case "static":
            return StaticEmbedder(model, identity)
        case "words":
            return WordsEmbedder(model, identity)
        case "endpoint":
            from lodestore.adapters.endpoint import EndpointEmbedder

            return EndpointEmbedder(model, identity)
        case "python":
            return _from_code(model, identity)
        case _:
            return ReadyMade(model, identity)


class ReadyMade:
    """A model that runs elsewhere: its vectors come with the documents, and with each query."""

    def __init__(self, model: EmbeddingModel, identity: Identity) -> None:
        self._label = model.label
        self.fingerprint = identity.fingerprint
        self.dimension = identity.dimension

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Never: documents bring their vectors."""
        message = f"embedding model {self._label} is external: {len(texts)} texts came without a vector"
        raise ModelError(message)

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Never: a query has to bring its vector, or be searched as text."""
        message = (
            f"embedding model {self._label} is external and cannot embed {len(texts)} queries; give the vector with "
            f"its version ({self._label}), or search with mode text"
        )
        raise ModelError(message)


class CodeEmbedder:
    """What a project's own factory made, under the fingerprint of that factory's code."""

    def __init__(self, made: Embedder, identity: Identity) -> None:
        self._made = made
        self.fingerprint = identity.fingerprint
        self.dimension = identity.dimension

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row per text."""
        return self._made.embed_documents(texts)

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row per query."""
        return self._made.embed_queries(texts)


def _from_code(model: EmbeddingModel, identity: Identity) -> Embedder:
    module, _, name = model.source.removeprefix("python:").partition(":")
    try:
        made = getattr(importlib.import_module(module), name)(model)
    except Exception as error:
        message = f"embedding model {model.label}: {model.source} failed: {type(error).__name__}: {error}"
        raise ModelError(message) from error
    if not all(callable(getattr(made, verb, None)) for verb in ("embed_documents", "embed_queries")):
        message = (
            f"embedding model {model.label}: {model.source} made {type(made).__name__}; an embedder has "
            "embed_documents(texts) and embed_queries(texts), each giving one row per text"
        )
        raise ModelError(message)
    return CodeEmbedder(made, identity)
