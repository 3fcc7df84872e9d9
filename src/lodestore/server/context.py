"""The personalised context over HTTP, prompt templates, and what became of an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lodestore.errors import RequestError, UnavailableError
from lodestore.live import Live
from lodestore.outcomes import Outcome, Outcomes
from lodestore.prompts import PromptTemplate, render
from lodestore.server.body import a_flag, a_number, a_text, a_whole, an_object, parsed
from lodestore.server.endpoint import Answer, Call, as_json
from lodestore.server.query import PAGE, page, paged
from lodestore.server.search import a_k, filter_of

__all__ = ["context", "list_templates", "outcome", "render_template", "template"]

_CONTEXT = frozenset(
    {"user_id", "query", "template", "variables", "history", "filter", "k", "token_budget", "mode", "record"}
    | {"mandatory", "request_id", "release"}
)
_OUTCOME = frozenset({"context_id", "event_id", "accepted", "rating", "latency_ms", "tokens"})
_RENDER = frozenset({"variables", "version"})
_VERSION = frozenset({"version"})
_LONGEST_ID = 256
_LARGEST_BUDGET = 1_000_000


async def context(call: Call) -> Answer:
    """POST /v1/context: the prompt for this user and question."""
    values = parsed(call.body, _CONTEXT)
    options = _options(values, call)
    query = a_text(values, "query")
    call.live = await call.serving.searchable(call.live, model=options["mode"] != "text")
    live = await call.serving.at(call.snapshot, a_whole(values, "release", None))
    told = await call.serving.searching.run(lambda: _made(call, live, query, options))
    return Answer(as_json(told), release=live.release.generation)


def _options(values: Mapping[str, Any], call: Call) -> dict[str, Any]:
    where = filter_of(values, call)
    return {
        "user_id": _an_id(values, "user_id"),
        "template": a_text(values, "template", None),
        "variables": an_object(values, "variables", {}),
        "history": values.get("history"),
        "filter": None if where is None else where.canonical(),
        "k": a_k(values, call, None),
        "token_budget": a_whole(values, "token_budget", None, low=1, high=_LARGEST_BUDGET),
        "mode": a_text(values, "mode", "hybrid"),
        "record": a_flag(values, "record", default=True),
        "request_id": _an_id(values, "request_id"),
    }


def _an_id(values: Mapping[str, Any], name: str, default: Any = None) -> Any:  # noqa: ANN401 - text, or the default
    value = a_text(values, name, default)
    if value is not None and not 0 < len(value) <= _LONGEST_ID:
        message = f"{name} has {len(value)} characters; 1 to {_LONGEST_ID} are allowed"
        raise RequestError(message)
    return value


def _made(call: Call, live: Live, query: str, options: Mapping[str, Any]) -> dict[str, Any]:
    serving = call.serving
    if not live.versions:
        state, why = serving.search_state()
        message = f"search is {state}: {why or 'its tables are being opened'}"
        raise UnavailableError(message)
    told = serving.store(live).context(query, **options).to_json()
    return {**told, "degraded": [*told["degraded"], *serving.stale()]}


# -- outcomes


async def outcome(call: Call) -> Answer:
    """POST /v1/outcomes: what became of an answer; the same event id counts once."""
    values = parsed(call.body, _OUTCOME)
    said: dict[str, Any] = {name: a_number(values, name, None) for name in ("rating", "latency_ms")}
    said["accepted"] = None if values.get("accepted") is None else a_flag(values, "accepted", default=False)
    said["tokens"] = a_whole(values, "tokens", None)
    about = Outcome(a_text(values, "context_id"), a_text(values, "event_id"), **said)
    stored = await call.serving.writing.run(lambda: Outcomes(call.serving.watching.logs).add(about))
    return Answer(as_json({"stored": stored}))


# -- templates


async def list_templates(call: Call) -> Answer:
    """GET /v1/templates: every stored version, by id and version."""
    given = call.query(PAGE)
    found = await call.serving.reading.run(lambda: call.serving.templates().all())
    shown, following = page(sorted(found, key=str), given, str)
    weights = call.snapshot.release.templates
    return Answer(as_json(paged("templates", [_template(one, weights) for one in shown], following)))


async def template(call: Call) -> Answer:
    """GET /v1/templates/{id}?version=: that version, or the live one."""
    version = call.query(_VERSION).get("version")
    live = call.snapshot
    found = await call.serving.reading.run(lambda: _found(call, live, version))
    return Answer(as_json({**_template(found, live.release.templates), "content": found.text}))


async def render_template(call: Call) -> Answer:
    """POST /v1/templates/{id}/render: the prompt with these values."""
    values = parsed(call.body, _RENDER)
    version, variables = a_text(values, "version", None), an_object(values, "variables", {})
    live = call.snapshot

    def made() -> dict[str, Any]:
        found = _found(call, live, version)
        done = render(found, variables)
        told = {"template": found.template_id, "version": found.version, "content_hash": found.content_hash}
        messages = [{"role": one.role, "content": one.text} for one in done.messages]
        return {**told, "text": done.text, "messages": messages}

    return Answer(as_json(await call.serving.reading.run(made)))


def _found(call: Call, live: Live, version: str | None) -> PromptTemplate:
    templates, name = call.serving.templates(), str(call.path["id"])
    return templates.live(name, live.release) if version is None else templates.get(name, version)


def _template(one: PromptTemplate, weights: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    told: dict[str, Any] = {"id": one.template_id, "version": one.version, "family": one.family, "doc": one.doc}
    told |= {"content_hash": one.content_hash, "is_chat": one.is_chat}
    variables = [
        {"name": each.name, "type": each.type, "required": each.required, "doc": each.doc} for each in one.variables
    ]
    weight = weights.get(one.template_id, {}).get(one.version, 0.0)
    return {**told, "variables": variables, "live_weight": weight if math.isfinite(weight) else 0.0}
