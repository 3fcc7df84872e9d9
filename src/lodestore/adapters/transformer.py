"""Sentence-transformers models, loaded from a folder and never from a hub."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lodestore.errors import ModelError
from lodestore.models import EmbeddingModel, Identity

__all__ = ["TransformerEmbedder"]


class TransformerEmbedder:
    """A transformer with pooling. Loads at the first use: importing torch takes seconds."""

    def __init__(self, model: EmbeddingModel, identity: Identity) -> None:
        self._model = model
        self._identity = identity

    @property
    def fingerprint(self) -> str:
        """Who the model is."""
        return self._identity.fingerprint

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return self._identity.dimension

    @cached_property
    def _encoder(self) -> Any:  # noqa: ANN401 - sentence-transformers ships no types
        # The files are local and verified: a lookup on a hub could only be slow or wrong.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            encoder = SentenceTransformer(
                str(self._identity.folder), device="cpu", local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            message = f"embedding model {self._model.label}: {self._identity.folder} does not load: {error}"
            raise ModelError(message) from error
        # Only declared prompts are put in front: those are part of the fingerprint.
        encoder.default_prompt_name = None
        if self._identity.max_tokens is not None:
            encoder.max_seq_length = self._identity.max_tokens
        return encoder

    def _embed(self, texts: Sequence[str], prompt: str) -> np.ndarray:
        vectors = self._encoder.encode(
            [prompt + text for text in texts],
            batch_size=max(1, len(texts)),
            normalize_embeddings=self._model.normalize,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dimension)

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row per text."""
        return self._embed(texts, self._model.document_prompt)

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row per query."""
        return self._embed(texts, self._model.query_prompt)
