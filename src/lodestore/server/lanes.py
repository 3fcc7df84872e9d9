"""Bounded thread pools: slow work waits in its own lane, and is turned away when the lane is full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lodestore.server.metrics import Metrics
from lodestore.server.problems import HttpError

__all__ = ["Lane"]

_T = TypeVar("_T")


class Lane:
    """`threads` pieces of work at a time, and `most` that run or wait."""

    def __init__(self, name: str, metrics: Metrics, *, threads: int, most: int) -> None:
        self.name = name
        self.waiting = 0
        self._most = most
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"lodestore-{name}")

    async def run(self, work: Callable[[], _T]) -> _T:
        """What `work` gives, made in a thread; a full lane is a 503 that says when to come back."""
        self.check(self.waiting)
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self.waiting -= 1

    def check(self, waiting: int) -> None:
        """So many may wait, and one more; otherwise a 503."""
        if waiting >= self._most:
            self._metrics.add("lodestore_shed_total", lane=self.name)
            message = f"{waiting} requests wait for {self.name}; try again in a second"
            raise HttpError(503, "overloaded", message, retry_after="1")

    def close(self) -> None:
        """What runs is finished; what waits is not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)
