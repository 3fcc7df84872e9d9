"""The personalised context: chunks packed into a token budget with citations, and a prompt rendered from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lodestore.prompts import PromptTemplate, Rendered, render
from lodestore.retrieval import Hit
from lodestore.standard import INSTRUCTIONS

__all__ = ["Context", "Packed", "instruction_for", "pack", "values_for"]

CountTokens = Callable[[Sequence[str]], list[int]]


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
    return f"{instruction} Answer in the language {language}." if language else instruction


def values_for(
    template: PromptTemplate, *, context: str, question: str, instruction: str, variables: Mapping[str, object]
) -> dict[str, object]:
    """The variables that the template uses, reserved ones filled in; those of the caller win nothing over them.

    Where the template has no place for the instruction, it stands before the context.
    """
    names = {one.name for one in template.variables}
    reserved: dict[str, object] = {"context": context, "question": question, "instruction": instruction}
    if "instruction" not in names:
        reserved["context"] = f"{instruction}\n\n{context}" if context else instruction
    own = {name: value for name, value in reserved.items() if name in names}
    return {**variables, **own}


def rendered(template: PromptTemplate, values: Mapping[str, object]) -> Rendered:
    """The template with these values, in one pass."""
    return render(template, values)
