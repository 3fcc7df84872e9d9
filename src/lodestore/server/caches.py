"""A cache that knows its size in bytes, and work that is done once for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["ByteCache", "SingleFlight"]

_V = TypeVar("_V")
# What an entry takes beside its value: its key, two dictionary slots.
_OVERHEAD = 400


class ByteCache(Generic[_V]):
    """Keeps what was used last, up to `most` bytes. Not locked: one thread, or a lock of the caller's."""

    def __init__(self, most: int, size: Callable[[_V], int]) -> None:
        self._most = most
        self._size = size
        self._entries: OrderedDict[Hashable, _V] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> _V | None:
        """The value under the key; None when there is none."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: Hashable, value: _V) -> None:
        """The value is under the key, unless it alone is too large."""
        cost = self._size(value) + _OVERHEAD
        if cost > self._most:
            return
        before = self._entries.pop(key, None)
        if before is not None:
            self.bytes -= self._size(before) + _OVERHEAD
        self._entries[key] = value
        self.bytes += cost
        while self.bytes > self._most:
            _, gone = self._entries.popitem(last=False)
            self.bytes -= self._size(gone) + _OVERHEAD


class SingleFlight(Generic[_V]):
    """Who asks for what is already being made waits for that one; a failure is everybody's."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, asyncio.Task[_V]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[_V]]) -> tuple[_V, bool]:
        """What `work` gives, and whether somebody else's work gave it."""
        task = self._flying.get(key)
        joined = task is not None
        if task is None:
            task = asyncio.ensure_future(_awaited(work))
            self._flying[key] = task
            task.add_done_callback(lambda _: self._flying.pop(key, None))
        # Shielded: when one of those who wait goes away, the others still get their answer.
        return await asyncio.shield(task), joined


async def _awaited(work: Callable[[], Awaitable[_V]]) -> _V:
    return await work()
