"""Models that are one table: the mean of a row per token. No torch, loaded in a tenth of a second."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from lodestore.models import EmbeddingModel, Identity

__all__ = ["StaticEmbedder", "WordsEmbedder"]

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?|[^\w\s]")


def _means(table: np.ndarray, ids: Sequence[Sequence[int]], *, normalize: bool) -> np.ndarray:
    out = np.zeros((len(ids), table.shape[1]), dtype=np.float32)
    for row, tokens in enumerate(ids):
        if tokens:
            out[row] = table[list(tokens)].astype(np.float32).mean(axis=0)
    if normalize:
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        np.divide(out, norms, out=out, where=norms > 0)
    return out


class StaticEmbedder:
    """A token-embedding table with mean pooling, as sentence-transformers' StaticEmbedding computes it."""

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
    def _table(self) -> np.ndarray:
        from safetensors.numpy import load_file

        folder = self._identity.folder or Path()
        (path,) = folder.rglob("*.safetensors")
        (table,) = load_file(str(path)).values()
        return np.asarray(table)

    @cached_property
    def _tokenizer(self):  # type: ignore[no-untyped-def]  # noqa: ANN202 - the tokenizers package has no types
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._identity.tokenizer))
        tokenizer.no_padding()
        if self._identity.max_tokens is None:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(self._identity.max_tokens)
        return tokenizer

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        # A text without a token gets every token: a vector of zeros would stop the whole corpus.
        every = range(len(self._table))
        return _means(self._table, [one.ids or every for one in encodings], normalize=self._model.normalize)

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row per text."""
        return self._embed([self._model.document_prompt + text for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row per query."""
        return self._embed([self._model.query_prompt + text for text in texts])


class WordsEmbedder(StaticEmbedder):
    """Word vectors: the mean over the known words of a text; a text of unknown words alone gets the mean of all."""

    @cached_property
    def _table(self) -> np.ndarray:
        folder = self._identity.folder or Path()
        (path,) = folder.rglob("*.npy")
        table = np.load(path)
        return np.vstack([table, table.mean(axis=0, keepdims=True)])

    @cached_property
    def _ids(self) -> dict[str, int]:
        import pyarrow.parquet as pq

        folder = self._identity.folder or Path()
        (path,) = folder.rglob("*.parquet")
        return {word: place for place, word in enumerate(pq.read_table(path).column(0).to_pylist())}

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        known, unknown = self._ids, len(self._ids)
        limit = self._identity.max_tokens
        words = ([known[w] for w in _WORD.findall(text.lower())[:limit] if w in known] for text in texts)
        return _means(self._table, [ids or [unknown] for ids in words], normalize=self._model.normalize)
