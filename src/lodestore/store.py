"""What an application does with a store: search, read features, build a context. The client has the same methods."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import numpy as np

from lodestore import historical
from lodestore.composer import Composed, Composer, Request
from lodestore.conditions import COLUMNS, compiled, condition, narrowed
from lodestore.context import Context, ContextOptions
from lodestore.contexts import ContextLog, id_for, logged
from lodestore.errors import ModelError, RequestError, UnavailableError
from lodestore.features import Features, OnlineAnswer
from lodestore.filters import Filter
from lodestore.grouping import Extras
from lodestore.live import Live
from lodestore.online import Written
from lodestore.outcomes import Outcome, Outcomes
from lodestore.past import Past
from lodestore.ports import Clock
from lodestore.prompts import PromptTemplate, Rendered, render
from lodestore.releases import Release, ReleaseLog
from lodestore.rerank import Reranker
from lodestore.retrieval import Mode, SearchResult
from lodestore.spaces import Vector
from lodestore.spec import FeatureRef, FeatureView, OnDemandView
from lodestore.templates import Templates
from lodestore.why import Reasons, Why

__all__ = ["COLUMNS", "Lodestore", "compiled"]

_log = logging.getLogger("lodestore.store")


class Lodestore:
    """A store in use. Every answer is by one release."""

    def __init__(
        self,
        *,
        live: Callable[[], Live],
        features: Callable[[], Features],
        templates: Templates,
        releases: ReleaseLog,
        clock: Clock,
        options: ContextOptions | None = None,
        reranker: Reranker | None = None,
        contexts: ContextLog | None = None,
        outcomes: Outcomes | None = None,
        past: Callable[[], Past] | None = None,
        reasons: Callable[[], Reasons] | None = None,
        snapshot: Callable[[Release], Live] | None = None,
    ) -> None:
        self._live = live
        self._snapshot = snapshot
        self._features = features
        self._releases = releases
        self._clock = clock
        self._templates = templates
        self._contexts = contexts
        self._outcomes = outcomes
        self._past = past
        self._reasons = reasons
        self._composer = Composer(
            features=features,
            templates=templates,
            options=options or ContextOptions(),
            reranker=reranker,
        )

    @property
    def composer(self) -> Composer:
        """What makes the contexts."""
        return self._composer

    def release(self) -> Release:
        """What is live."""
        return self._live().release

    def views(self) -> list[FeatureView | OnDemandView]:
        """The declared views, by name."""
        catalog = self._features().catalog
        return sorted([*catalog.latest.values(), *catalog.on_demand.values()], key=lambda one: one.name)

    def _at(self, generation: int | None) -> Live:
        """The snapshot of that generation, which is the live one or its predecessor."""
        live = self._live()
        if generation is None or generation == live.release.generation:
            return live
        if self._snapshot is None:
            message = "this store answers by the live release only; open it with lodestore.open()"
            raise UnavailableError(message)
        return self._snapshot(self._releases.served(generation, live=live.release))

    def search(
        self,
        query: str | None = None,
        *,
        vector: Sequence[float] | np.ndarray | None = None,
        version: str | None = None,
        k: int = 10,
        mode: Mode = "hybrid",
        filter: str | Mapping[str, Any] | None = None,  # noqa: A002 - the word of the wire
        mandatory: str | Mapping[str, Any] | Filter | None = None,
        as_of: datetime | None = None,
        per_document: int | None = None,
        neighbours: int = 0,
        highlight: bool = False,
        diversity: float | None = None,
        titles: bool | None = None,
        explain: bool = False,
        rerank: bool = False,
        release: int | None = None,
    ) -> SearchResult:
        """The k best chunks for a query, or for a vector that names the version that made it.

        `filter` is text or JSON over the declared columns; `mandatory` is a filter of the caller's own,
        such as an access list: nothing in `filter` widens it. `as_of` searches what was visible at that
        moment, by the release that was live then; `release` pins the live one or its predecessor. The
        others are told by `lodestore.grouping.Extras`.
        """
        extras = Extras(per_document, neighbours, highlight, diversity, titles, explain, rerank)
        where = condition(filter, mandatory=mandatory)
        if vector is not None or query is None:
            _one_or_the_other(query, vector, plain=as_of is None and extras == Extras() and mode != "text")
            return self._at(release).search_vector(
                () if vector is None else vector, fingerprint=version or "", k=k, where=where
            )
        if version is not None:
            message = "version belongs to a vector; a query is embedded by the live model"
            raise RequestError(message)
        if as_of is None and extras == Extras():
            return self._at(release).search(query, k=k, mode=mode, where=where)
        if as_of is None:
            return self._at(release).find(query, k=k, mode=mode, where=where, extras=extras)
        return self._of_past().search(query, as_of, k=k, mode=mode, where=where, extras=extras)

    def _of_past(self) -> Past:
        if self._past is None:
            message = "this store answers for today only; open it with lodestore.open()"
            raise UnavailableError(message)
        return self._past()

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        filter: str | Mapping[str, Any] | None = None,  # noqa: A002 - the word of the wire
        mandatory: str | Mapping[str, Any] | Filter | None = None,
    ) -> list[SearchResult]:
        """The answer to each query, in their order, all by one release."""
        return self._live().search_many(queries, k=k, mode=mode, where=condition(filter, mandatory=mandatory))

    def why(
        self,
        query: str,
        document: str,
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        filter: str | Mapping[str, Any] | None = None,  # noqa: A002 - the word of the wire
        mandatory: str | Mapping[str, Any] | Filter | None = None,
    ) -> Why:
        """Why the document is not among the k best chunks for the query, or at which place it is."""
        if self._reasons is None:
            message = "this store cannot tell why; open it with lodestore.open()"
            raise UnavailableError(message)
        return self._reasons().why(query, document, k=k, mode=mode, filter=filter, mandatory=mandatory)

    def online(
        self,
        features: Sequence[str | FeatureRef] | None = (),
        entities: Mapping[str, Sequence[str | int]] | None = None,
        *,
        inputs: Mapping[str, Sequence[Any]] | None = None,
        service: str | None = None,
        release: int | None = None,
    ) -> OnlineAnswer:
        """Feature values row by row, in the order of the entities, with a status for each.

        `service` adds the features of a declared service; `release` pins the live release or its predecessor.
        """
        known, live = self._features(), self._releases.live()
        named = () if service is None else known.catalog.service(service).features
        refs = (features or ()) if service is None else [*(features or ()), *named]
        by = live if release is None else self._releases.served(release, live=live)
        return known.online(refs, entities or {}, inputs=inputs, release=by.generation)

    def push(self, view: str, rows: Iterable[Mapping[str, Any]]) -> Written:
        """The rows are visible to the next read of every process; when one of them is bad, none is."""
        return self._features().push(view, rows)

    def historical(
        self,
        entities: historical.Entities,
        features: Sequence[str | FeatureRef],
        *,
        as_known_at: datetime | None = None,
    ) -> historical.Entities:
        """The entity table or data frame, each row with the features as they were known at its event_timestamp."""
        known = self._features()
        offline = known._offline  # noqa: SLF001 - the histories of the same features
        return historical.historical(
            entities, features, catalog=known.catalog, offline=offline, as_known_at=as_known_at
        )

    def context(
        self,
        query: str,
        *,
        user_id: str | None = None,
        template: str | None = None,
        variables: Mapping[str, object] | None = None,
        filter: str | Mapping[str, Any] | None = None,  # noqa: A002 - the word of the wire
        mandatory: str | Mapping[str, Any] | Filter | None = None,
        k: int | None = None,
        token_budget: int | None = None,
        mode: Mode = "hybrid",
        history: object = None,
        record: bool = True,
        request_id: str | None = None,
        release: int | None = None,
    ) -> Context:
        """The prompt for this user and question, with cited chunks, by one release.

        `filter` and `mandatory` are those of `search`.
        With `record`, the question is counted for the user and the context is logged; a repeated
        `request_id` counts and is logged once. `history` is a text, or a list of turns with role and content.
        `release` pins the live release or its predecessor.
        """
        name = uuid4().hex if request_id is None else id_for(user_id, request_id)
        given = dict(variables or {})
        said = given.pop("history", None)
        earlier = said if history is None else history
        where = filter if mandatory is None else narrowed(filter, mandatory)
        asked = Request(query, user_id, template, given, earlier, where, k, token_budget, mode)
        live = self._at(release)
        composed = self._composer.compose(live, asked, context_id=name)
        if not record:
            return composed.context
        started = time.perf_counter()
        self._record(live, asked, composed, request_id)
        spent = (time.perf_counter() - started) * 1000
        timings = {**composed.context.timings_ms, "record": spent}
        timings["total"] = timings.pop("total") + spent
        return replace(composed.context, timings_ms=timings)

    def _record(self, live: Live, asked: Request, composed: Composed, request_id: str | None) -> None:
        """The question is counted for its user, and the context is in the log."""
        made, now, features = composed.context, self._clock(), self._features()
        options = self._composer.options
        keep = options.log_queries
        # Logged as it was made, so that a replay does not depend on what the settings say by then.
        k, budget = asked.k or options.k, asked.token_budget or options.token_budget
        asked = replace(asked, template=made.template_id, k=k, token_budget=budget)
        if asked.user_id is not None:
            features.seen(
                asked.user_id,
                request_id=request_id or made.context_id,
                at=now,
                query_vector=composed.vector,
                version=composed.version,
                query_text=asked.query if keep else None,
                own_vectors=_own_vectors(live, features, asked.query),
            )
        if self._contexts is not None:
            weights = live.release.templates.get(made.template_id, {})
            row = logged(
                made, asked, catalog=features.catalog, weights=weights, at=now, request_id=request_id, log_queries=keep
            )
            self._contexts.add(row)

    def templates(self) -> list[PromptTemplate]:
        """Every stored version of every template, by id and version."""
        return self._templates.all()

    def render(
        self, template: str, variables: Mapping[str, object] | None = None, *, version: str | None = None
    ) -> Rendered:
        """The live template, or the named version, with these values, as text and as messages."""
        if version is None:
            found = self._templates.live(template, self._live().release)
        else:
            found = self._templates.get(template, version)
        return render(found, variables or {})

    def outcome(
        self,
        context_id: str,
        *,
        event_id: str | None = None,
        accepted: bool | None = None,
        rating: float | None = None,
        latency_ms: float | None = None,
        tokens: int | None = None,
    ) -> bool:
        """What became of an answer is in the log; False when that event id was there already."""
        if self._outcomes is None:
            message = "this store has no log of outcomes; open it with lodestore.open()"
            raise UnavailableError(message)
        if self._contexts is not None:
            # The outcome is counted for a context that is in the table.
            self._contexts.flush()
        event = uuid4().hex if event_id is None else event_id
        return self._outcomes.add(Outcome(context_id, event, accepted, rating, latency_ms, tokens))

    def release_at(self, moment: datetime) -> Release:
        """What was live at that moment."""
        return self._releases.at(moment)


def _own_vectors(live: Live, features: Features, query: str) -> dict[str, Vector]:
    """The question in each space of questions that has a live model of its own.

    Without such a model the question is still answered; the log says what is not counted.
    """
    out: dict[str, Vector] = {}
    for space in features.question_spaces & live.versions.keys():
        try:
            out[space] = Vector(live.version(space), live.embed([query], space)[0])
        except ModelError as error:
            _log.warning("a question is missing from %s: %s", space, error)
    return out


def _one_or_the_other(query: str | None, vector: object, *, plain: bool) -> None:
    """A search is for a query or for a vector, and a vector is searched as it is, today."""
    if query is not None or vector is None:
        message = (
            "give a query or a vector, not both" if query is not None else "give a query, or a vector with version="
        )
        raise RequestError(message)
    if not plain:
        message = "a vector is searched by meaning, as of now and without extras; give the query itself"
        raise RequestError(message)
