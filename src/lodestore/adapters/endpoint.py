"""Models behind HTTP: any server that speaks the OpenAI form of /embeddings (hosted APIs, TEI, Ollama, vLLM)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import httpx
import numpy as np

from lodestore.errors import BadVectorError, EndpointError
from lodestore.models import EmbeddingModel, Identity
from lodestore.vectors import normalised

__all__ = ["EndpointEmbedder"]

# What a server may still mend by itself: too many requests, and its own troubles.
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_ATTEMPTS = 6
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_TEXTS_PER_REQUEST = 128


class EndpointEmbedder:
    """A model that answers over HTTP. Busy or briefly broken servers are asked again, with growing pauses."""

    def __init__(
        self, model: EmbeddingModel, identity: Identity, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._model = model
        self._identity = identity
        self._pause = pause

    @property
    def fingerprint(self) -> str:
        """Who the model is, as far as its provider tells: the canary watches the rest."""
        return self._identity.fingerprint

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return self._identity.dimension

    @cached_property
    def _client(self) -> httpx.Client:
        key = self._model.api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self._model.source.rstrip("/") + "/", headers=headers, timeout=self._model.timeout)

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row per text."""
        return self._embed([self._model.document_prompt + text for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row per query."""
        return self._embed([self._model.query_prompt + text for text in texts])

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        parts = [texts[start : start + _TEXTS_PER_REQUEST] for start in range(0, len(texts), _TEXTS_PER_REQUEST)]
        rows = [row for part in parts for row in self._asked(part)]
        vectors = np.array(rows, dtype=np.float32).reshape(len(texts), -1 if rows else self.dimension)
        return normalised(vectors) if self._model.normalize else vectors

    def _asked(self, texts: Sequence[str]) -> list[list[float]]:
        body = {"model": self._model.model or self._model.name, "input": list(texts), "encoding_format": "float"}
        return self._rows(self._answer(body), texts)

    def _answer(self, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON of somebody else
        trouble = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._pause(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 1)))
            try:
                answer = self._client.post("embeddings", json=body)
            except httpx.HTTPError as error:
                trouble = f"{type(error).__name__}: {error}"
                continue
            if answer.status_code in _AGAIN:
                trouble = f"status {answer.status_code}"
                self._pause(_asked_to_wait(answer))
                continue
            return self._json(answer)
        message = (
            f"{self._model.label}: {self._model.source} did not answer in {_ATTEMPTS} tries ({trouble}); "
            "what was embedded so far is kept, run again to go on"
        )
        raise EndpointError(message)

    def _json(self, answer: httpx.Response) -> Any:  # noqa: ANN401 - JSON of somebody else
        if answer.is_error:
            message = f"{self._model.label}: {self._model.source} refused with status {answer.status_code}: {answer.text[:300]}"
            raise EndpointError(message)
        try:
            return answer.json()
        except ValueError as error:
            message = f"{self._model.label}: {self._model.source} did not answer in JSON: {answer.text[:100]!r}"
            raise EndpointError(message) from error

    def _rows(self, answer: Any, texts: Sequence[str]) -> list[list[float]]:  # noqa: ANN401 - JSON of somebody else
        data = answer.get("data") if isinstance(answer, dict) else None
        try:
            ordered = sorted(data or [], key=lambda one: one["index"])
            rows = [[float(number) for number in one["embedding"]] for one in ordered]
        except (TypeError, KeyError, ValueError) as error:
            message = f"{self._model.label}: {self._model.source} answered in another form than OpenAI's: {error!r}"
            raise EndpointError(message) from error
        if len(rows) != len(texts):
            message = f"{self._model.label}: {self._model.source} gave {len(rows)} vectors for {len(texts)} texts"
            raise BadVectorError(message)
        return rows


def _asked_to_wait(answer: httpx.Response) -> float:
    """The seconds of a Retry-After header, within reason; 0 without one."""
    said = answer.headers.get("Retry-After", "")
    return min(_LONGEST_PAUSE, float(said)) if said.isdigit() else 0.0
