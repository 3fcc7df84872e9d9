"""Reads of an online store on a server: what comes while another round is under way goes together in the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lodestore.errors import LodestoreError, StoreError, UnavailableError
from lodestore.features import Fetch
from lodestore.online import OnlineStore
from lodestore.server.endpoint import Answer
from lodestore.server.lanes import Lane
from lodestore.server.metrics import Metrics

__all__ = ["Gathering"]

_LARGEST_ROUND = 64


@dataclass(frozen=True, slots=True)
class _Read:
    wanted: Callable[[], Mapping[str, Sequence[bytes]]]
    answer: Callable[[Fetch], Answer]
    future: asyncio.Future[Answer]


class Gathering:
    """Answers reads in rounds: one step of a thread, and one question to the store for each namespace.

    A lone read goes at once. One that comes while a round is under way waits for the next, which asks the store
    after the read came: it sees whatever was pushed before. For the event loop alone.
    """

    def __init__(self, store: OnlineStore, lane: Lane, metrics: Metrics) -> None:
        self._store = store
        self._lane = lane
        self._metrics = metrics
        self._waiting: list[_Read] = []
        self._round: asyncio.Task[None] | None = None

    async def run(
        self, wanted: Callable[[], Mapping[str, Sequence[bytes]]], answer: Callable[[Fetch], Answer]
    ) -> Answer:
        """The answer, made with a `fetch` that has the rows of the wanted keys by namespace, and looks others up."""
        self._lane.check(len(self._waiting))
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Read(wanted, answer, future))
        if self._round is None:
            self._round = asyncio.create_task(self._rounds())
        return await future

    async def _rounds(self) -> None:
        """Round after round, until nobody waits."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_LARGEST_ROUND], self._waiting[_LARGEST_ROUND:]
                if len(batch) > 1:
                    self._metrics.add("lodestore_cache_total", len(batch), cache="features", outcome="coalesced")
                for one, outcome in zip(batch, await self._outcomes(batch), strict=True):
                    if one.future.done():  # whoever asked went away
                        continue
                    if isinstance(outcome, Exception):
                        one.future.set_exception(outcome)
                    else:
                        one.future.set_result(outcome)
        finally:
            self._round = None

    async def _outcomes(self, batch: Sequence[_Read]) -> Sequence[Answer | Exception]:
        try:
            return await self._lane.run(lambda: self._made(batch))
        except Exception as error:  # noqa: BLE001 - a lane that is full or closed is told to each who waits
            return [error] * len(batch)

    def _made(self, batch: Sequence[_Read]) -> list[Answer | Exception]:
        """The answers, or what kept each from being made; for a thread."""
        rows = self._rows(batch) if len(batch) > 1 else {}

        def fetch(namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
            known = rows.get(namespace)
            if known is None or not known.keys() >= set(keys):
                return self._store.fetch(namespace, keys)
            return [known[key] for key in keys]

        return [_outcome(one.answer, fetch) for one in batch]

    def _rows(self, batch: Sequence[_Read]) -> dict[str, dict[bytes, bytes | None]]:
        """What the batch wants, by namespace and key; nothing where the store does not give it, so that each tries alone."""
        keys: dict[str, dict[bytes, None]] = {}
        for one in batch:
            try:
                wanted = one.wanted()
            except LodestoreError:
                continue  # its answer says so
            for namespace, some in wanted.items():
                keys.setdefault(namespace, {}).update(dict.fromkeys(some))
        try:
            return {
                place: dict(zip(some, self._store.fetch(place, list(some)), strict=True))
                for place, some in keys.items()
            }
        except (StoreError, UnavailableError):
            return {}


def _outcome(answer: Callable[[Fetch], Answer], fetch: Fetch) -> Answer | Exception:
    try:
        return answer(fetch)
    except Exception as error:  # noqa: BLE001 - raised again where it was asked
        return error
