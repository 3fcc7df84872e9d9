"""Language models behind any endpoint that speaks the OpenAI protocol: whole answers and streams, waited for or awaited."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from lodestore.errors import EndpointError, SettingsError

__all__ = ["AsyncLanguageModel", "Completion", "LanguageModel", "Messages"]

# What a second try may mend: the endpoint was busy, or away for a moment.
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT = 20.0
_SHOWN = 300
# What an answer decides itself; everything else of the protocol may be given.
_OURS = frozenset({"model", "messages", "stream", "stream_options"})
# As many answers at once as the application asks for: it is the endpoint that says when it is busy.
_CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=20)

Messages = Sequence[Mapping[str, str]]


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
        self._endpoint = _Endpoint(url.rstrip("/"), model, retries, options)
        self._wait = wait
        self._client = httpx.Client(**_settings(api_key, timeout, connect_timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """The connections are closed."""
        self._client.close()

    def complete(self, messages: Messages, **options: Any) -> Completion:  # noqa: ANN401 - those of the protocol
        """The whole answer at once."""
        started = time.perf_counter()
        with self._opened(self._endpoint.body(messages, options)) as response:
            text = self._read(response)
        return self._endpoint.completion(text, started)

    def stream(self, messages: Messages, **options: Any) -> Generator[str | Completion]:  # noqa: ANN401 - as above
        """The answer piece by piece, and at the end the whole `Completion`; one that breaks off is an error."""
        heard = _Heard(self._endpoint.url)
        with self._opened(self._endpoint.body(messages, options, streamed=True)) as response:
            try:
                for line in response.iter_lines():
                    if piece := heard.piece(line):
                        yield piece
                    if heard.done:
                        break
            except httpx.RequestError as error:
                raise self._endpoint.broken(error) from error
        yield heard.whole()

    @contextmanager
    def _opened(self, body: Mapping[str, Any]) -> Iterator[httpx.Response]:
        """The response, its status fine; what may pass was tried again."""
        response = self._sent(body)
        try:
            yield response
        finally:
            response.close()

    def _sent(self, body: Mapping[str, Any], tried: int = 0) -> httpx.Response:
        try:
            return self._tried(body)
        except _PassingError as error:
            self._wait(self._endpoint.pause(error, tried))
        return self._sent(body, tried + 1)

    def _tried(self, body: Mapping[str, Any]) -> httpx.Response:
        try:
            response = self._client.send(self._endpoint.request(self._client, body), stream=True)
        except httpx.TransportError as error:
            raise self._endpoint.away(error) from error
        if response.is_success:
            return response
        try:
            text = self._read(response)
        finally:
            response.close()
        raise self._endpoint.refusal(response, text)

    def _read(self, response: httpx.Response) -> str:
        try:
            response.read()
        except httpx.RequestError as error:
            raise self._endpoint.broken(error) from error
        return response.text


class AsyncLanguageModel:
    """The same, to be awaited: any number of answers at once, and no thread is held up.

    It belongs to the event loop that uses it; `async with` closes its connections.
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
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        **options: Any,  # noqa: ANN401 - as of `LanguageModel`
    ) -> None:
        self._endpoint = _Endpoint(url.rstrip("/"), model, retries, options)
        self._wait = wait
        self._client = httpx.AsyncClient(**_settings(api_key, timeout, connect_timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """The connections are closed."""
        await self._client.aclose()

    async def complete(self, messages: Messages, **options: Any) -> Completion:  # noqa: ANN401 - those of the protocol
        """The whole answer at once."""
        started = time.perf_counter()
        async with self._opened(self._endpoint.body(messages, options)) as response:
            text = await self._read(response)
        return self._endpoint.completion(text, started)

    async def stream(self, messages: Messages, **options: Any) -> AsyncGenerator[str | Completion]:  # noqa: ANN401
        """The answer piece by piece, and at the end the whole `Completion`; one that breaks off is an error."""
        heard = _Heard(self._endpoint.url)
        async with self._opened(self._endpoint.body(messages, options, streamed=True)) as response:
            try:
                async for line in response.aiter_lines():
                    if piece := heard.piece(line):
                        yield piece
                    if heard.done:
                        break
            except httpx.RequestError as error:
                raise self._endpoint.broken(error) from error
        yield heard.whole()

    @asynccontextmanager
    async def _opened(self, body: Mapping[str, Any]) -> AsyncIterator[httpx.Response]:
        response = await self._sent(body)
        try:
            yield response
        finally:
            await response.aclose()

    async def _sent(self, body: Mapping[str, Any], tried: int = 0) -> httpx.Response:
        try:
            return await self._tried(body)
        except _PassingError as error:
            await self._wait(self._endpoint.pause(error, tried))
        return await self._sent(body, tried + 1)

    async def _tried(self, body: Mapping[str, Any]) -> httpx.Response:
        try:
            response = await self._client.send(self._endpoint.request(self._client, body), stream=True)
        except httpx.TransportError as error:
            raise self._endpoint.away(error) from error
        if response.is_success:
            return response
        try:
            text = await self._read(response)
        finally:
            await response.aclose()
        raise self._endpoint.refusal(response, text)

    async def _read(self, response: httpx.Response) -> str:
        try:
            await response.aread()
        except httpx.RequestError as error:
            raise self._endpoint.broken(error) from error
        return response.text


# What both have in common: words of the protocol, and no waiting


def _settings(api_key: str | None, timeout: float, connect_timeout: float) -> dict[str, Any]:
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    return {
        "headers": headers, "timeout": httpx.Timeout(timeout, connect=connect_timeout), "limits": _CONNECTIONS
    }  # fmt: skip


class _PassingError(EndpointError):
    """A failure that a second try may mend, after so many seconds where the endpoint names them."""

    def __init__(self, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """Where a model is, and how it is asked."""

    url: str
    model: str
    retries: int
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not _is_address(self.url):
            message = f"language model endpoint {self.url!r}: write https://host/v1"
            raise SettingsError(message)
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            message = f"retries is {self.retries!r}; give 0 or more"
            raise SettingsError(message)
        _check_options(self.options)

    def body(self, messages: Messages, options: Mapping[str, Any], *, streamed: bool = False) -> dict[str, Any]:
        """What is sent."""
        _check_options(options)
        body = {"model": self.model, "messages": [dict(one) for one in messages], **self.options, **options}
        return {**body, "stream": True, "stream_options": {"include_usage": True}} if streamed else body

    def request(self, client: httpx.Client | httpx.AsyncClient, body: Mapping[str, Any]) -> httpx.Request:
        """The request, ready to be sent by the client."""
        return client.build_request("POST", f"{self.url}/chat/completions", json=dict(body))

    def pause(self, error: _PassingError, tried: int) -> float:
        """How many seconds to wait before the next try; the error itself when there is none left."""
        if tried >= self.retries:
            raise EndpointError(str(error)) from error
        return min(_LONGEST_WAIT, error.after or 0.25 * 2**tried)

    def away(self, error: httpx.TransportError) -> _PassingError:
        """Nobody answered."""
        return _PassingError(f"{self.url} cannot be reached: {type(error).__name__}: {error}")

    def broken(self, error: httpx.RequestError) -> EndpointError:
        """The answer ended before its end."""
        return EndpointError(f"{self.url}: the answer broke off: {type(error).__name__}: {error}")

    def refusal(self, response: httpx.Response, text: str) -> EndpointError:
        """What an answer of another status means."""
        message = f"{self.url} answered {response.status_code}: {_brief(text)}"
        if response.status_code in _PASSING:
            return _PassingError(message, after=_after(response))
        return EndpointError(message)

    def completion(self, text: str, started: float) -> Completion:
        """The answer that a response holds."""
        told = _json(self.url, text)
        try:
            choice = told["choices"][0]
            said, reason = choice["message"]["content"] or "", choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            message = f"{self.url} answered in another form than chat completions: {_brief(told)}"
            raise EndpointError(message) from None
        return Completion(said, reason, _tokens(told), (time.perf_counter() - started) * 1000)


@dataclass(slots=True)
class _Heard:
    """What a stream of server-sent events has said so far; `done` once it says that it is."""

    url: str
    started: float = field(default_factory=time.perf_counter)
    said: list[str] = field(default_factory=list)
    reason: str | None = None
    tokens: int | None = None
    done: bool = False

    def piece(self, line: str) -> str:
        """The words of the next line of the stream; nothing where it has none."""
        if not line.startswith("data:"):
            return ""
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            self.done = True
            return ""
        told = _json(self.url, data)
        words, ended = _piece(self.url, told)
        self.reason, self.tokens = ended or self.reason, _tokens(told) or self.tokens
        if words:
            self.said.append(words)
        return words

    def whole(self) -> Completion:
        """The answer, which has to have come to its end."""
        if self.reason is None:
            message = f"{self.url}: the answer broke off after {sum(map(len, self.said))} characters"
            raise EndpointError(message)
        took = (time.perf_counter() - self.started) * 1000
        return Completion("".join(self.said), self.reason, self.tokens, took)


def _is_address(url: str) -> bool:
    try:
        return httpx.URL(url).scheme in {"http", "https"} and bool(httpx.URL(url).host)
    except httpx.InvalidURL:
        return False


def _check_options(options: Mapping[str, Any]) -> None:
    taken = sorted(_OURS & set(options))
    if taken:
        message = f"{', '.join(taken)}: set by the SDK itself; leave it out of the options"
        raise SettingsError(message)


def _json(url: str, text: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(text)
    except ValueError:
        message = f"{url} answered something that is no JSON: {_brief(text)}"
        raise EndpointError(message) from None


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
