"""Reranking: a cross-encoder reads question and chunk together, which is slower and sees more than two vectors do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lodestore.errors import ModelError, SettingsError

__all__ = ["CrossEncoderReranker", "Reranker", "reranker_of"]

_BATCH = 32


class Reranker(Protocol):
    """What tells how well texts answer a question."""

    def score(self, query: str, texts: Sequence[str]) -> np.ndarray:
        """One number for each text, the greater the better."""


class CrossEncoderReranker:
    """A sentence-transformers cross-encoder in a local folder. Loads at the first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _model(self) -> Any:  # noqa: ANN401 - sentence-transformers ships no types
        if not self._folder.is_dir():
            message = f"context.reranker: {self._folder} is no folder; name one with a cross-encoder's files"
            raise ModelError(message)
        # The files are local: a lookup on a hub could only be slow or wrong.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from sentence_transformers import CrossEncoder

        try:
            return CrossEncoder(str(self._folder), device="cpu", local_files_only=True, trust_remote_code=False)
        except Exception as error:
            message = f"context.reranker: {self._folder} does not load as a cross-encoder: {error}"
            raise ModelError(message) from error

    def score(self, query: str, texts: Sequence[str]) -> np.ndarray:
        """The model's own score for each pair of the query and a text."""
        pairs = [(query, text) for text in texts]
        made = np.asarray(self._model.predict(pairs, batch_size=_BATCH, show_progress_bar=False), dtype=np.float64)
        if made.shape != (len(texts),) or not np.isfinite(made).all():
            message = (
                f"context.reranker: {self._folder} gives scores of shape {made.shape}; one finite number is needed"
            )
            raise ModelError(message)
        return made


def reranker_of(source: str | None, *, root: Path) -> Reranker | None:
    """The reranker that `[context] reranker` names: `path:FOLDER`; None without one."""
    if source is None:
        return None
    kind, _, rest = source.partition(":")
    if kind != "path" or not rest:
        message = f"context.reranker is {source!r}; write path:FOLDER with a cross-encoder's files"
        raise SettingsError(message)
    return CrossEncoderReranker((root / rest).resolve())
