"""Features and snapshots as the server uses them: what is down is left out of an answer and marked."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from lodestore.errors import DamagedRowError, ModelError, SchemaVersionError, StoreError, UnavailableError
from lodestore.features import Features, Fetch, OnlineAnswer
from lodestore.grouping import Extras
from lodestore.live import Live
from lodestore.models import EmbeddingVersion
from lodestore.online import Status
from lodestore.prompts import PromptTemplate
from lodestore.releases import Release
from lodestore.retrieval import Mode, SearchResult
from lodestore.spaces import Vector
from lodestore.spec import FeatureRef
from lodestore.templates import Templates

__all__ = ["ServedFeatures", "ServedLive", "ServedTemplates"]

_log = logging.getLogger("lodestore.server")
# After a failure the online store is left alone for that long, so that a dead one does not slow every request.
_PAUSE_SECONDS = 1.0
_PLAIN = Extras()


class ServedFeatures(Features):
    """Features whose online store may be away: every value is then null, with the status UNAVAILABLE."""

    _down_until = 0.0
    lost = False
    """Whether the online store failed and has not answered since."""
    _known: Mapping[int, Release] = MappingProxyType({})

    def know(self, release: Release) -> None:
        """Reads by this release need no look into its log."""
        self._known = {**self._known, release.generation: release}

    def _release(self, generation: int) -> Release:
        return self._known.get(generation) or super()._release(generation)

    @property
    def down(self) -> bool:
        """Whether the online store did not answer just now."""
        return self._down_until > 0.0 and time.monotonic() < self._down_until

    def online(
        self,
        refs: Sequence[str | FeatureRef],
        entities: Mapping[str, Sequence[str | int]],
        *,
        inputs: Mapping[str, Sequence[Any]] | None = None,
        release: int = 0,
        fetch: Fetch | None = None,
    ) -> OnlineAnswer:
        """The features of these entities; nulls when the online store is away."""
        if not self.down:
            try:
                found = Features.online(self, refs, entities, inputs=inputs, release=release, fetch=fetch)
            except (DamagedRowError, SchemaVersionError):
                raise  # the store answers: it is this row, and no other, that cannot be read
            except (StoreError, UnavailableError) as error:
                self._failed(error)
            else:
                if self.lost:
                    self.lost = False
                return found
        return self._nothing(refs, entities, release)

    def seen(
        self,
        user_id: str,
        *,
        request_id: str,
        at: datetime,
        query_vector: np.ndarray | None = None,
        version: EmbeddingVersion | None = None,
        query_text: str | None = None,
        own_vectors: Mapping[str, Vector] = MappingProxyType({}),
    ) -> None:
        """The question is counted, or, when the online store is away, it is not and the log says so."""
        question: dict[str, Any] = {"query_vector": query_vector, "version": version, "query_text": query_text}
        question |= {"own_vectors": own_vectors}
        try:
            super().seen(user_id, request_id=request_id, at=at, **question)
        except (StoreError, UnavailableError) as error:
            self._failed(error)

    def probe(self) -> None:
        """A store that was lost is asked whether it is back; for a thread."""
        if not self.lost:
            return
        try:
            self._online.ping()
        except (StoreError, UnavailableError):
            return
        self.lost, self._down_until = False, 0.0
        _log.warning("the online store answers again")

    def _failed(self, error: Exception) -> None:
        if not self.lost:
            _log.warning("the online store does not answer: %s", error)
        self.lost, self._down_until = True, time.monotonic() + _PAUSE_SECONDS

    def _nothing(
        self, refs: Sequence[str | FeatureRef], entities: Mapping[str, Sequence[str | int]], release: int
    ) -> OnlineAnswer:
        wanted = [one if isinstance(one, FeatureRef) else FeatureRef.parse(one) for one in refs]
        for ref in wanted:
            self.catalog.check(ref)
        rows = max((len(values) for values in entities.values()), default=0)
        names = [str(ref) for ref in wanted]
        return OnlineAnswer(
            release,
            {**{key: list(values) for key, values in entities.items()}, **{name: [None] * rows for name in names}},
            {name: [Status.UNAVAILABLE] * rows for name in names},
            {name: [None] * rows for name in names},
        )


class ServedLive(Live):
    """A snapshot whose hybrid search goes on with one side when the other one is down, and says so."""

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
        """The k best chunks."""
        look = partial(super().find, query, k=k, where=where, feature=feature)
        try:
            return look(mode=mode, extras=extras)
        except (ModelError, StoreError) as error:
            if mode != "hybrid":
                raise
            lost, left = ("model", "text") if isinstance(error, ModelError) else ("text", "vector")
            _log.warning("searching by %s alone: %s", left, error)
            # Titles join a hybrid search alone.
            found = look(mode=cast("Mode", left), extras=replace(extras, titles=None))
            return replace(found, degraded=(*found.degraded, lost))


class ServedTemplates(Templates):
    """Templates whose versions are kept once they were read: a version never changes."""

    _known: Mapping[tuple[str, str], PromptTemplate] = MappingProxyType({})

    def all(self) -> list[PromptTemplate]:
        """Every stored version, read anew."""
        found = super().all()
        self._known = {(one.template_id, one.version): one for one in found}
        return found

    def get(self, template_id: str, version: str) -> PromptTemplate:
        """That version of the template."""
        known = self._known.get((template_id, version))
        return super().get(template_id, version) if known is None else known
