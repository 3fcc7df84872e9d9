"""From a declared model to something that embeds."""

from __future__ import annotations

import importlib

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
            return _from_code(model)
        case _:
            message = f"embedding model {model.label}: its vectors come ready-made; it cannot embed a text"
            raise ModelError(message)


def _from_code(model: EmbeddingModel) -> Embedder:
    module, _, name = model.source.removeprefix("python:").partition(":")
    try:
        made = getattr(importlib.import_module(module), name)(model)
    except Exception as error:
        message = f"embedding model {model.label}: {model.source} failed: {type(error).__name__}: {error}"
        raise ModelError(message) from error
    if not isinstance(made, Embedder):
        message = (
            f"embedding model {model.label}: {model.source} made {type(made).__name__}; an embedder has "
            "fingerprint, dimension, embed_documents() and embed_queries()"
        )
        raise ModelError(message)
    return made
