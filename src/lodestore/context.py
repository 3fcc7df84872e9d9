"""The personalised context: chunks packed into a token budget with citations, and a prompt rendered from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lodestore.errors import RequestError, SettingsError
from lodestore.prompts import RESERVED, Message, PromptTemplate, Rendered
from lodestore.retrieval import Hit
from lodestore.spec import FeatureRef
from lodestore.standard import INSTRUCTIONS
from lodestore.tokens import CountTokens

__all__ = [
    "Context",
    "ContextOptions",
    "Packed",
    "instructed",
    "instruction_for",
    "messages_of",
    "pack",
    "turns",
    "values_for",
]

# BCP 47, as far as it is needed: whatever else stands in a profile never reaches a prompt as an instruction.
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,3}")
_TURN_ROLES = ("user", "assistant")


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """`[context]`: the personalised prompt.

    `tokenizer` names what the budget is counted by: a declared model such as `minilm@1`, or
    `path:FILE` for a tokenizer.json; by default the live content model's. `filters` names for a filter
    column the user's feature whose value it must have. `diversity` (0 to 1) is how much a chunk loses by
    being like one that is already there; of `k * candidates` chunks the best k are taken. `reranker` is
    `path:FOLDER` of a cross-encoder. With `log_queries` the context log keeps the question itself.
    """

    template: str = "qa_basic"
    k: int = 6
    token_budget: int = 1500
    service: str | None = None
    tokenizer: str | None = None
    filters: Mapping[str, str] = field(default_factory=dict)
    diversity: float = 0.3
    candidates: int = 4
    reranker: str | None = None
    log_queries: bool = False

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("k", self.k, 1, 1_000),
            ("token_budget", self.token_budget, 1, 10_000_000),
            ("diversity", self.diversity, 0, 1),
            ("candidates", self.candidates, 1, 100),
        ):
            if not least <= value <= most:
                message = f"{name} is {value}; at least {least} and at most {most:,} is expected"
                raise SettingsError(message)
        for column, ref in self.filters.items():
            if ":" not in ref:
                message = f"filters.{column} is {ref!r}; write VIEW:FEATURE, such as user_profile:topic"
                raise SettingsError(message)
            FeatureRef.parse(ref)


@dataclass(frozen=True, slots=True)
class Packed:
    """The hits that fit, as one text with [n] citations."""

    text: str
    hits: tuple[Hit, ...]
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Context:
    """A prompt ready for a model, and everything that it was made of."""

    release: int
    context_id: str
    prompt: str
    messages: tuple[Mapping[str, str], ...]
    hits: tuple[Hit, ...]
    features: Mapping[str, Any]
    template_id: str
    template_version: str
    n_tokens: int
    user_known: bool
    degraded: tuple[str, ...]
    timings_ms: Mapping[str, float]
    template_hash: str = ""
    instruction: str = ""
    context_text: str = ""

    def to_json(self) -> dict[str, Any]:
        """The answer of `context`; each hit carries the number of its citation."""
        return {
            "release": self.release,
            "context_id": self.context_id,
            "prompt": self.prompt,
            "messages": [dict(one) for one in self.messages],
            "hits": [{"n": n, **hit.to_json()} for n, hit in enumerate(self.hits, start=1)],
            "features": dict(self.features),
            "template": {"id": self.template_id, "version": self.template_version},
            "n_tokens": self.n_tokens,
            "user_known": self.user_known,
            "degraded": list(self.degraded),
            "timings_ms": {name: round(value, 3) for name, value in self.timings_ms.items()},
        }


def _cited(n: int, hit: Hit) -> str:
    heading = f"[{n}] {hit.title}" if hit.title else f"[{n}] {hit.document_id}"
    return f"{heading}\n{hit.text.strip()}"


def pack(hits: Sequence[Hit], *, budget: int, count: CountTokens) -> Packed:
    """As many whole chunks as fit into `budget` tokens, best first, numbered from 1 without gaps.

    A chunk that does not fit is passed over; a shorter one after it may still fit.
    """
    # The widest number and the blank line are counted with each, so that the whole cannot exceed the parts.
    texts = [f"{_cited(max(99, len(hits)), hit)}\n\n" for hit in hits]
    costs = count(texts) if texts else []
    chosen: list[Hit] = []
    used = 0
    for hit, cost in zip(hits, costs, strict=True):
        if used + cost <= budget:
            chosen.append(hit)
            used += cost
    text = "\n\n".join(_cited(n, hit) for n, hit in enumerate(chosen, start=1))
    return Packed(text, tuple(chosen), used)


def instruction_for(features: Mapping[str, Any]) -> str:
    """How to answer this user: by expertise, and in which language. Unknown ones get the middle."""
    level = features.get("user_profile:expertise_level") or "intermediate"
    language = features.get("user_profile:preferred_language")
    instruction = INSTRUCTIONS.get(level, INSTRUCTIONS["intermediate"])
    named = isinstance(language, str) and _LANGUAGE.fullmatch(language) is not None
    return f"{instruction} Answer in the language {language}." if named else instruction


def turns(history: object) -> tuple[Message, ...] | str:
    """The earlier turns of a conversation as messages, or as the text that the caller gave.

    A turn is `{"role": "user" or "assistant", "content": text}`; plain texts take turns, the last of them
    being the assistant's. No turn is a system message: what an application lets through here may come
    from anybody.

    >>> [one.role for one in turns(["Hello", "Hi, how can I help?"])]
    ['user', 'assistant']
    """
    if history is None or isinstance(history, str):
        return history or ()
    if not isinstance(history, Sequence):
        message = f"history is {type(history).__name__}; give a text, or a list of turns with role and content"
        raise RequestError(message)
    return tuple(_turn(place, one, len(history)) for place, one in enumerate(history))


def _turn(place: int, given: object, count: int) -> Message:
    if isinstance(given, str):
        return Message("assistant" if (count - place) % 2 else "user", given)
    if not isinstance(given, Mapping):
        message = f"history, turn {place + 1}: write an object with role and content"
        raise RequestError(message)
    role, content = given.get("role"), given.get("content")
    if role not in _TURN_ROLES or not isinstance(content, str) or len(given) != len(("role", "content")):
        message = f"history, turn {place + 1}: role is user or assistant, content is a text, and nothing else is there"
        raise RequestError(message)
    return Message(str(role), content)


def values_for(
    template: PromptTemplate,
    *,
    context: str,
    question: str,
    instruction: str,
    variables: Mapping[str, object],
    history: tuple[Message, ...] | str = (),
) -> dict[str, object]:
    """The variables that the template uses, reserved ones filled in; who gives one of those is told so."""
    taken = sorted(RESERVED.keys() & variables.keys())
    if taken:
        message = f"variable {taken[0]!r} is filled in by Lodestore; leave it out"
        raise RequestError(message)
    declared = {one.name: one for one in template.variables}
    reserved: dict[str, object] = {"context": context, "question": question, "instruction": instruction}
    own = {name: value for name, value in reserved.items() if name in declared}
    if "history" in declared and (history or declared["history"].required):
        own["history"] = _told(history, as_list=declared["history"].type == "list")
    return {**variables, **own}


def _told(history: tuple[Message, ...] | str, *, as_list: bool) -> object:
    if isinstance(history, str):
        return [history] if as_list else history
    lines = [f"{one.role}: {one.text}" for one in history]
    return lines if as_list else "\n".join(lines)


def instructed(template: PromptTemplate, made: Rendered, instruction: str) -> Rendered:
    """The prompt, opened by the instruction where the template has no place of its own for it.

    It is the system message, or the head of the one that is there; what the template says stays as it is.
    """
    if any(one.name == "instruction" for one in template.variables):
        return made
    first, *rest = made.messages
    if first.role == "system":
        messages = (Message("system", f"{instruction}\n\n{first.text}"), *rest)
    else:
        messages = (Message("system", instruction), *made.messages)
    return Rendered(f"{instruction}\n\n{made.text}", messages)


def messages_of(template: PromptTemplate, made: Rendered, history: tuple[Message, ...] | str) -> tuple[Message, ...]:
    """What a chat endpoint takes. Turns for which the template has no variable stand before the last message.

    A history that is one text and has no place in the template is an error: it would be lost silently.
    """
    if not history or any(one.name == "history" for one in template.variables):
        return made.messages
    if isinstance(history, str):
        message = f"{template} has no variable history for a text; give a list of turns, or use another template"
        raise RequestError(message)
    return (*made.messages[:-1], *history, made.messages[-1])
