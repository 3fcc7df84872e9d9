"""Answers that are ready to go: those to requests that came together leave together.

Every write to a socket wakes the caller at its other end, which takes the kernel longer than a small read takes us,
and clears the processor's caches on the way. Answering all that has come and then writing all answers costs less
than doing both in turn, so that the mean answer leaves sooner; the first of them waits for the others, for
`PATIENCE_SECONDS` at most and the answer then at work. One that is alone leaves as soon as it is made.
"""

from __future__ import annotations

import logging
import time
from asyncio import AbstractEventLoop, WriteTransport, get_running_loop
from typing import ClassVar
from weakref import WeakKeyDictionary

__all__ = ["PATIENCE_SECONDS", "Outbox"]

PATIENCE_SECONDS = 0.002

_log = logging.getLogger("lodestore.server")


class Outbox:
    """What is still to be written by one event loop, in the order in which it was made; for that loop alone."""

    _of_loops: ClassVar[WeakKeyDictionary[AbstractEventLoop, Outbox]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._waiting: list[tuple[WriteTransport, bytes]] = []
        self._since = 0.0

    @classmethod
    def of(cls, loop: AbstractEventLoop) -> Outbox:
        """The one of this loop."""
        found = cls._of_loops.get(loop)
        if found is None:
            found = cls._of_loops[loop] = cls()
        return found

    def add(self, transport: WriteTransport, answer: bytes) -> None:
        """The answer leaves before the loop looks for more requests."""
        waiting = self._waiting
        waiting.append((transport, answer))
        if len(waiting) == 1:
            self._since = time.monotonic()
            get_running_loop().call_soon(self.flush)
        elif time.monotonic() - self._since > PATIENCE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """What waits is written; a caller who has gone meanwhile gets nothing."""
        waiting, self._waiting = self._waiting, []
        for transport, answer in waiting:
            if transport.is_closing():
                continue
            try:
                transport.write(answer)
            except Exception:  # noqa: BLE001 - one connection that cannot be written to must not cost the others their answers
                _log.exception("an answer could not be written")
                transport.abort()
