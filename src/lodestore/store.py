"""What an application does with a store: search, read features, build a context. The client has the same methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

import pyarrow as pa

from lodestore import historical, push
from lodestore.context import Context, instruction_for, pack, rendered, values_for
from lodestore.errors import RequestError, UnknownNameError
from lodestore.features import Features, OnlineAnswer
from lodestore.filters import Column, parse
from lodestore.live import Live
from lodestore.online import Status, Written
from lodestore.ports import Clock
from lodestore.releases import Release, ReleaseLog
from lodestore.retrieval import Mode, SearchResult
from lodestore.spec import FeatureRef
from lodestore.tables import FILTERABLE
from lodestore.templates import Templates

__all__ = ["COLUMNS", "Lodestore", "compiled"]

_TYPES = {"string": "string", "int64": "integer", "double": "number", "bool": "boolean"}
COLUMNS = tuple(
    Column(name, _TYPES.get(str(kind), "timestamp"))  # type: ignore[arg-type]
    for name, kind in FILTERABLE.items()
)
_USER_FEATURES = (
    "user_profile:expertise_level",
    "user_profile:preferred_language",
    "user_activity:session_queries_count",
)


class Lodestore:
    """A store in use. Every answer is by one release."""

    def __init__(
        self,
        *,
        live: Callable[[], Live],
        features: Callable[[], Features],
        templates: Templates,
        releases: ReleaseLog,
        count_tokens: Callable[[Sequence[str]], list[int]],
        clock: Clock,
        template: str,
        k: int,
        token_budget: int,
    ) -> None:
        self._live = live
        self._features = features
        self._templates = templates
        self._releases = releases
        self._count = count_tokens
        self._clock = clock
        self._defaults = (template, k, token_budget)

    @property
    def release(self) -> Release:
        """What is live."""
        return self._live().release

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        filter: str | Mapping[str, Any] | None = None,  # noqa: A002 - the word of the wire
    ) -> SearchResult:
        """The k best chunks for a query; `filter` is text or JSON over the declared columns."""
        return self._live().search(query, k=k, mode=mode, where=_where(filter))

    def online(
        self,
        features: Sequence[str | FeatureRef],
        entities: Mapping[str, Sequence[str | int]],
        *,
        inputs: Mapping[str, Sequence[Any]] | None = None,
    ) -> OnlineAnswer:
        """Feature values row by row, in the order of the entities, with a status for each."""
        generation = self._releases.live().generation
        return self._features().online(features, entities, inputs=inputs, release=generation)

    def push(self, view: str, rows: Iterable[Mapping[str, Any]]) -> Written:
        """The rows are visible to the next read of every process; when one of them is bad, none is."""
        features = self._features()
        online = features._online  # noqa: SLF001 - the rows that the same features are read from
        return push.push(features.catalog.view(view), rows, online, now=self._clock())

    def historical(
        self, entities: pa.Table, features: Sequence[str | FeatureRef], *, as_known_at: datetime | None = None
    ) -> pa.Table:
        """The entity table, each row with the features as they were known at its event_timestamp."""
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
        k: int | None = None,
        token_budget: int | None = None,
        mode: Mode = "hybrid",
        record: bool = True,
        request_id: str | None = None,
    ) -> Context:
        """The prompt for this user and question, with cited chunks, by one release."""
        started = time.perf_counter()
        timings: dict[str, float] = {}
        default_template, default_k, default_budget = self._defaults
        budget = default_budget if token_budget is None else token_budget
        if budget < 1:
            message = f"token_budget is {budget}; give at least 1"
            raise RequestError(message)
        live = self._live()
        known, features = self._user(query, user_id)
        _lap(timings, "features", started)
        found = live.search(query, k=k or default_k, mode=mode, where=_where(filter))
        _lap(timings, "retrieval", started)
        packed = pack(found.hits, budget=budget, count=self._count)
        chosen = self._templates.live(template or default_template, live.release, sticky=user_id or "")
        values = values_for(
            chosen,
            context=packed.text,
            question=query,
            instruction=instruction_for(features),
            variables=variables or {},
        )
        made = rendered(chosen, values)
        _lap(timings, "prompt", started)
        context_id = uuid4().hex
        if record and user_id is not None:
            self._features().seen(user_id, request_id=request_id or context_id, at=self._clock())
        _lap(timings, "record", started)
        timings["total"] = (time.perf_counter() - started) * 1000
        return Context(
            live.release.generation,
            context_id,
            made.text,
            tuple({"role": one.role, "content": one.text} for one in made.messages),
            packed.hits,
            features,
            chosen.template_id,
            chosen.version,
            self._count([made.text])[0],
            known,
            found.degraded,
            timings,
        )

    def _user(self, query: str, user_id: str | None) -> tuple[bool, dict[str, Any]]:
        """Whether the user is known, and the features that the context is made for."""
        features = self._features()
        refs = [one for one in _USER_FEATURES if _declared(features, one)]
        refs += [f"{name}:{one}" for name, view in features.catalog.on_demand.items() if set(view.inputs) <= {"query_text"}
                 for one in view.features]  # fmt: skip
        if user_id is None or not refs:
            return False, {}
        answer = features.online(refs, {"user_id": [user_id]}, inputs={"query_text": [query]})
        stored = [answer.statuses[one][0] for one in refs if one in _USER_FEATURES]
        known = any(status in {Status.PRESENT, Status.NULL, Status.EXPIRED} for status in stored)
        return known, {name: answer.columns[name][0] for name in refs}

    def release_at(self, moment: datetime) -> Release:
        """What was live at that moment."""
        return self._releases.at(moment)


def _declared(features: Features, ref: str) -> bool:
    try:
        features.catalog.check(FeatureRef.parse(ref))
    except UnknownNameError:
        return False
    return True


def compiled(filter: str | Mapping[str, Any]) -> str:  # noqa: A002 - the word of the wire
    """A filter over the declared columns, as the condition that the store understands."""
    return parse(filter, COLUMNS).sql()


def _where(filter: str | Mapping[str, Any] | None) -> str | None:  # noqa: A002 - the word of the wire
    if filter is None or filter in ("", {}):
        return None
    return compiled(filter)


def _lap(timings: dict[str, float], step: str, started: float) -> None:
    timings[step] = (time.perf_counter() - started) * 1000 - sum(timings.values())
