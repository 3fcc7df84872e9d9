"""Answers: a context, a language model behind any OpenAI-compatible endpoint, and the outcome reported back.

Only the SDK talks to a language model; the server never does.

    model = LanguageModel("http://127.0.0.1:11434/v1", "llama3.2")
    done = answer(store, "what is a closure?", model, user_id="ada")
    print(done.text, [hit.uri for hit in done.cited])
    done.report(accepted=True)

`store` is what `lodestore.open()` or `lodestore.Client(url)` gives. On an event loop, `aanswer` and `astream` with an
`AsyncLanguageModel` do the same, for an `AsyncClient` too.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self
from uuid import uuid4

from lodestore.errors import EndpointError, LodestoreError, SettingsError
from lodestore.language import AsyncLanguageModel, Completion, LanguageModel

__all__ = [
    "Answer",
    "AsyncLanguageModel",
    "AsyncStreamed",
    "Completion",
    "LanguageModel",
    "Streamed",
    "aanswer",
    "answer",
    "astream",
    "stream",
]

_log = logging.getLogger("lodestore.answer")
_CITED = re.compile(r"\[(\d{1,4})\]")


class ContextLike(Protocol):
    """A context of the library or of the client."""

    @property
    def context_id(self) -> str:
        """Its id."""

    @property
    def messages(self) -> tuple[Mapping[str, str], ...]:
        """What a chat endpoint takes."""

    @property
    def hits(self) -> tuple[Any, ...]:
        """The cited chunks; the first one is [1]."""


class Store(Protocol):
    """What answers need of a store: `lodestore.open()` and `lodestore.Client` have both."""

    def context(self, query: str, **options: Any) -> Any:  # noqa: ANN401 - the options of either
        """The prompt for a question."""

    def outcome(self, context_id: str, **said: Any) -> bool:  # noqa: ANN401 - what is known of it
        """What became of an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to a context. `reported` tells whether its outcome reached the store."""

    text: str
    context: Any
    completion: Completion
    reported: bool
    store: Store = field(repr=False, compare=False)

    @property
    def cited(self) -> tuple[Any, ...]:
        """The hits whose [n] stands in the text, in the order of their first mention."""
        numbers = dict.fromkeys(int(one) for one in _CITED.findall(self.text))
        hits = self.context.hits
        return tuple(hits[n - 1] for n in numbers if 1 <= n <= len(hits))

    def report(self, *, accepted: bool | None = None, rating: float | None = None, event_id: str | None = None) -> bool:
        """What the user thought of it is in the store; False when that event id was known."""
        event = f"{self.context.context_id}/{uuid4().hex}" if event_id is None else event_id
        return self.store.outcome(self.context.context_id, event_id=event, accepted=accepted, rating=rating)


def answer(
    store: Store,
    query: str,
    model: LanguageModel,
    *,
    options: Mapping[str, Any] | None = None,
    **context: Any,  # noqa: ANN401 - the options of `context`: user_id, template, filter, k...
) -> Answer:
    """The model's answer to the personalised prompt; how long it took, and its tokens, are reported as the outcome.

    `options` go to the endpoint (temperature, max_tokens), everything else to `store.context`.
    """
    made = store.context(query, **context)
    done = model.complete(made.messages, **(options or {}))
    return _answered(store, made, done, record=context.get("record", True))


class Streamed:
    """An answer on its way: iterate over its pieces; afterwards `answer` has the whole. `close` one that is left early."""

    def __init__(self, store: Store, made: ContextLike, pieces: Generator[str | Completion], *, record: bool) -> None:
        self.context = made
        self._store = store
        self._pieces = pieces
        self._record = record
        self._answer: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            if isinstance(piece, str):
                yield piece
            else:
                self._answer = _answered(self._store, self.context, piece, record=self._record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """The connection is free; what was not said yet is never heard."""
        self._pieces.close()

    @property
    def answer(self) -> Answer:
        """The whole answer; what was not read yet is read now."""
        for _ in self:
            pass
        return _ended(self._answer)


def stream(
    store: Store,
    query: str,
    model: LanguageModel,
    *,
    options: Mapping[str, Any] | None = None,
    **context: Any,  # noqa: ANN401 - as of `answer`
) -> Streamed:
    """The same, piece by piece as the model says it; the outcome is reported at the end."""
    made = store.context(query, **context)
    return Streamed(store, made, model.stream(made.messages, **(options or {})), record=context.get("record", True))


# On an event loop


async def aanswer(
    store: Store,
    query: str,
    model: AsyncLanguageModel | LanguageModel,
    *,
    options: Mapping[str, Any] | None = None,
    **context: Any,  # noqa: ANN401 - as of `answer`
) -> Answer:
    """The same, to be awaited: `store` may be an `AsyncClient`; what blocks is waited for on a thread.

    What `report` of the answer gives is awaited where the store's own calls are.
    """
    made = await _settled(store.context, query, **context)
    done = await _settled(model.complete, made.messages, **(options or {}))
    return await _aanswered(store, made, done, record=context.get("record", True))


class AsyncStreamed:
    """An answer on its way: `async for` over its pieces; afterwards `await answer()` has the whole.

    `async with`, or `close`, lets go of one that is left early.
    """

    def __init__(
        self, store: Store, made: ContextLike, pieces: AsyncGenerator[str | Completion], *, record: bool
    ) -> None:
        self.context = made
        self._store = store
        self._pieces = pieces
        self._record = record
        self._answer: Answer | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        async for piece in self._pieces:
            if isinstance(piece, str):
                yield piece
            else:
                self._answer = await _aanswered(self._store, self.context, piece, record=self._record)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """The connection is free; what was not said yet is never heard."""
        await self._pieces.aclose()

    async def answer(self) -> Answer:
        """The whole answer; what was not read yet is read now."""
        async for _ in self:
            pass
        return _ended(self._answer)


async def astream(
    store: Store,
    query: str,
    model: AsyncLanguageModel,
    *,
    options: Mapping[str, Any] | None = None,
    **context: Any,  # noqa: ANN401 - as of `answer`
) -> AsyncStreamed:
    """The same, piece by piece, to be awaited: first `coming = await astream`, then `async for piece in coming`."""
    if not inspect.isasyncgenfunction(model.stream):
        message = "astream waits on the event loop; give it an AsyncLanguageModel, or use stream"
        raise SettingsError(message)
    made = await _settled(store.context, query, **context)
    pieces = model.stream(made.messages, **(options or {}))
    return AsyncStreamed(store, made, pieces, record=context.get("record", True))


async def _settled(call: Callable[..., Any], /, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever it gives
    """What the call gives; one that blocks does so on a thread."""
    if inspect.iscoroutinefunction(call):
        return await call(*given, **named)
    found = await asyncio.to_thread(call, *given, **named)
    return await found if inspect.isawaitable(found) else found


# The outcome


def _answered(store: Store, made: ContextLike, done: Completion, *, record: bool) -> Answer:
    reported = False
    if record:
        try:
            store.outcome(made.context_id, **_outcome(made, done))
            reported = True
        except LodestoreError as error:
            _lost(made, error)
    return Answer(done.text, made, done, reported, store)


async def _aanswered(store: Store, made: ContextLike, done: Completion, *, record: bool) -> Answer:
    reported = False
    if record:
        try:
            await _settled(store.outcome, made.context_id, **_outcome(made, done))
            reported = True
        except LodestoreError as error:
            _lost(made, error)
    return Answer(done.text, made, done, reported, store)


def _outcome(made: ContextLike, done: Completion) -> dict[str, Any]:
    return {"event_id": f"{made.context_id}/answer", "latency_ms": done.latency_ms, "tokens": done.tokens}


def _lost(made: ContextLike, error: LodestoreError) -> None:
    # The answer is there, and worth more than the note about it; `reported` says that it was not kept.
    _log.warning("the outcome of context %s was not stored: %s", made.context_id, error)


def _ended(found: Answer | None) -> Answer:
    if found is None:
        message = "the answer broke off before its end; ask again"
        raise EndpointError(message)
    return found
