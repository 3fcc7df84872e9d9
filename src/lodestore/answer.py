"""Answers: a context, a language model behind any OpenAI-compatible endpoint, and the outcome reported back.

Only the SDK talks to a language model; the server never does.

    model = LanguageModel("http://127.0.0.1:11434/v1", "llama3.2")
    done = answer(store, "what is a closure?", model, user_id="ada")
    print(done.text, [hit.uri for hit in done.cited])
    done.report(accepted=True)

`store` is what `lodestore.open()` or `lodestore.Client(url)` gives.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

import httpx

from lodestore.errors import EndpointError, LodestoreError, SettingsError

__all__ = ["Answer", "Completion", "LanguageModel", "Streamed", "aanswer", "answer", "stream"]

_log = logging.getLogger("lodestore.answer")
_CITED = re.compile(r"\[(\d{1,4})\]")
# What a second try may mend: the endpoint was busy, or away for a moment.
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT = 20.0
_SHOWN = 300
# What `answer` decides itself; everything else of the protocol may be given.
_OURS = frozenset({"model", "messages", "stream", "stream_options"})

Messages = Sequence[Mapping[str, str]]


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
class Completion:
    """What the model said, why it stopped, and what it took; tokens are None where the endpoint does not tell."""

    text: str
    finish_reason: str | None
    tokens: int | None
    latency_ms: float


class LanguageModel:
    """A model behind `POST {url}/chat/completions`. Threads may share it; `close` it when done.

    A call that fails by what may pass (no connection, a timeout, 429, 5xx) is tried again up to `retries`
    times, a stream only until its first words came. `timeout` is the longest silence in seconds.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        connect_timeout: float = 5.0,
        retries: int = 2,
        wait: Callable[[float], None] = time.sleep,
        **options: Any,  # noqa: ANN401 - whatever the protocol has: temperature, max_tokens, seed...
    ) -> None:
        if not url.startswith(("http://", "https://")):
            message = f"language model endpoint {url!r}: write https://host/v1"
            raise SettingsError(message)
        _check_options(options)
        self.model = model
        self.url = url.rstrip("/")
        self._options = options
        self._retries = retries
        self._wait = wait
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        limits = httpx.Timeout(timeout, connect=connect_timeout)
        self._client = httpx.Client(headers=headers, timeout=limits)

    def close(self) -> None:
        """The connections are closed."""
        self._client.close()

    def complete(self, messages: Messages, **options: Any) -> Completion:  # noqa: ANN401 - those of the protocol
        """The whole answer at once."""
        started = time.perf_counter()
        body = self._body(messages, options)
        with self._opened(body) as response:
            told = _json(self.url, _read(self.url, response))
        try:
            choice = told["choices"][0]
            text, reason = choice["message"]["content"] or "", choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            message = f"{self.url} answered in another form than chat completions: {_brief(told)}"
            raise EndpointError(message) from None
        return Completion(text, reason, _tokens(told), (time.perf_counter() - started) * 1000)

    def stream(self, messages: Messages, **options: Any) -> Iterator[str | Completion]:  # noqa: ANN401 - as above
        """The answer piece by piece, and at the end the whole `Completion`; one that breaks off is an error."""
        started = time.perf_counter()
        body = {**self._body(messages, options), "stream": True, "stream_options": {"include_usage": True}}
        said: list[str] = []
        reason: str | None = None
        tokens: int | None = None
        with self._opened(body) as response:
            for told in _events(self.url, response):
                piece, ended = _piece(self.url, told)
                reason, tokens = ended or reason, _tokens(told) or tokens
                if piece:
                    said.append(piece)
                    yield piece
        if reason is None:
            message = f"{self.url}: the answer broke off after {sum(map(len, said))} characters"
            raise EndpointError(message)
        yield Completion("".join(said), reason, tokens, (time.perf_counter() - started) * 1000)

    def _body(self, messages: Messages, options: Mapping[str, Any]) -> dict[str, Any]:
        _check_options(options)
        return {"model": self.model, "messages": [dict(one) for one in messages], **self._options, **options}

    def _opened(self, body: Mapping[str, Any]) -> _Response:
        """The response, its status fine; what may pass was tried again."""
        for left in range(self._retries, -1, -1):
            try:
                return self._sent(body)
            except _PassingError as error:
                if not left:
                    raise EndpointError(str(error)) from error
                self._wait(min(_LONGEST_WAIT, error.after or 0.25 * 2 ** (self._retries - left)))
        message = f"retries is {self._retries}; give 0 or more"
        raise SettingsError(message)

    def _sent(self, body: Mapping[str, Any]) -> _Response:
        request = self._client.build_request("POST", f"{self.url}/chat/completions", json=dict(body))
        try:
            response = self._client.send(request, stream=True)
        except httpx.TransportError as error:
            message = f"{self.url} cannot be reached: {type(error).__name__}: {error}"
            raise _PassingError(message) from error
        if response.is_success:
            return _Response(response)
        with _Response(response):
            text = _read(self.url, response)
        message = f"{self.url} answered {response.status_code}: {_brief(text)}"
        if response.status_code in _PASSING:
            raise _PassingError(message, after=_after(response))
        raise EndpointError(message)


class _PassingError(EndpointError):
    """A failure that a second try may mend."""

    def __init__(self, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class _Response:
    """A response that is closed at the end of its `with`."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    def __enter__(self) -> httpx.Response:
        return self._response

    def __exit__(self, *_: object) -> None:
        self._response.close()


def _check_options(options: Mapping[str, Any]) -> None:
    taken = sorted(_OURS & set(options))
    if taken:
        message = f"{', '.join(taken)}: set by the SDK itself; leave it out of the options"
        raise SettingsError(message)


def _read(url: str, response: httpx.Response) -> str:
    try:
        response.read()
    except httpx.TransportError as error:
        message = f"{url}: the answer broke off: {type(error).__name__}: {error}"
        raise EndpointError(message) from error
    return response.text


def _json(url: str, text: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(text)
    except ValueError:
        message = f"{url} answered something that is no JSON: {_brief(text)}"
        raise EndpointError(message) from None


def _events(url: str, response: httpx.Response) -> Iterator[Any]:
    """The JSON of each server-sent event until the one that says [DONE]."""
    try:
        for line in response.iter_lines():
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            yield _json(url, data)
    except httpx.TransportError as error:
        message = f"{url}: the answer broke off: {type(error).__name__}: {error}"
        raise EndpointError(message) from error


def _piece(url: str, told: Any) -> tuple[str, str | None]:  # noqa: ANN401 - JSON
    """The next words of a stream, and why it ends where it does."""
    try:
        if "error" in told:
            message = f"{url} broke off with an error: {_brief(told['error'])}"
            raise EndpointError(message)
        if not told["choices"]:
            return "", None
        choice = told["choices"][0]
        return choice["delta"].get("content") or "", choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        message = f"{url} streams in another form than chat completions: {_brief(told)}"
        raise EndpointError(message) from None


def _tokens(told: Any) -> int | None:  # noqa: ANN401 - JSON
    usage = told.get("usage") if isinstance(told, dict) else None
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) and not isinstance(total, bool) else None


def _after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:
        return None


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


# Answers


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


async def aanswer(
    store: Store,
    query: str,
    model: LanguageModel,
    *,
    options: Mapping[str, Any] | None = None,
    **context: Any,  # noqa: ANN401 - as of `answer`
) -> Answer:
    """The same, to be awaited: `store` may be an `AsyncClient`; the model is waited for on a thread.

    What `report` of the answer gives is awaited where the store's own calls are.
    """
    made = await _settled(lambda: store.context(query, **context))
    done = await asyncio.to_thread(model.complete, made.messages, **(options or {}))
    if not context.get("record", True):
        return Answer(done.text, made, done, reported=False, store=store)
    said = {"event_id": f"{made.context_id}/answer", "latency_ms": done.latency_ms, "tokens": done.tokens}
    try:
        await _settled(lambda: store.outcome(made.context_id, **said))
    except LodestoreError as error:
        _log.warning("the outcome of context %s was not stored: %s", made.context_id, error)
        return Answer(done.text, made, done, reported=False, store=store)
    return Answer(done.text, made, done, reported=True, store=store)


async def _settled(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - a context, or whether it was stored
    """What the call gives; one that blocks does so on a thread."""
    found = await asyncio.to_thread(call)
    return await found if inspect.isawaitable(found) else found


class Streamed:
    """An answer on its way: iterate over its pieces; afterwards `answer` has the whole."""

    def __init__(self, store: Store, made: ContextLike, pieces: Iterator[str | Completion], *, record: bool) -> None:
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

    @property
    def answer(self) -> Answer:
        """The whole answer; what was not read yet is read now."""
        for _ in self:
            pass
        if self._answer is None:
            message = "the answer broke off before its end; ask again"
            raise EndpointError(message)
        return self._answer


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


def _answered(store: Store, made: ContextLike, done: Completion, *, record: bool) -> Answer:
    reported = False
    if record:
        event = f"{made.context_id}/answer"
        try:
            store.outcome(made.context_id, event_id=event, latency_ms=done.latency_ms, tokens=done.tokens)
            reported = True
        except LodestoreError as error:
            # The answer is there, and worth more than the note about it; `reported` says that it was not kept.
            _log.warning("the outcome of context %s was not stored: %s", made.context_id, error)
    return Answer(done.text, made, done, reported, store)
