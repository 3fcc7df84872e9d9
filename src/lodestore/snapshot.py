"""Snapshots kept current: one immutable `Live` at a time, swapped only when the next one is ready."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock, Thread

from lodestore.errors import UnavailableError
from lodestore.live import Live
from lodestore.releases import Release

__all__ = ["POLL_SECONDS", "SnapshotState", "Snapshots"]

POLL_SECONDS = 0.5
_AT_THE_END_SECONDS = 10.0  # for a look at the log, or a library that is being imported; a store that hangs is left


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """How the snapshot stands: its generation, the newest one in the log, and what keeps it back."""

    generation: int
    newest: int
    checked_seconds_ago: float
    trouble: str | None = None


class Snapshots:
    """Holds the current snapshot. A background task watches the log and swaps after the next one is warm.

    `watch` reads the newest release on a connection of its own; `warm` makes a snapshot of it with
    tables open and models loaded; `first` makes the very first one, whose models load when they are
    used. A release that cannot be made ready leaves the old one serving.
    """

    def __init__(
        self,
        *,
        watch: Callable[[], Release],
        warm: Callable[[Release], Live],
        first: Callable[[Release], Live] | None = None,
        interval: float = POLL_SECONDS,
    ) -> None:
        self._watch = watch
        self._warm = warm
        self._open = first or warm
        self._interval = interval
        self._lock = Lock()
        self._stop = Event()
        self._thread: Thread | None = None
        self._live: Live | None = None
        self._newest = 0
        self._checked = time.monotonic()
        self._trouble: str | None = None

    def current(self) -> Live:
        """The snapshot to answer by; the first call makes it."""
        live = self._live
        return live if live is not None else self._first()

    def _first(self) -> Live:
        with self._lock:
            if self._live is None:
                self._live = self._open(self._watch())
                self._newest = self._live.release.generation
            return self._live

    def start(self) -> None:
        """The log is watched from now on, until `stop` or the end of the process, whichever comes first."""
        if self._thread is None:
            thread = Thread(target=self._run, name="lodestore-releases", daemon=True)
            thread.start()
            # A read of the engine still under way when the interpreter ends aborts it. A finalizer, because it runs
            # among those of libraries that the thread imports meanwhile, and not after them.
            weakref.finalize(self, _ended, self._stop, thread)
            self._thread = thread  # now, so that `stop` never waits for a thread that has not begun

    def stop(self) -> None:
        """The log is no longer watched; the snapshot stays."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> bool:
        """Look at the log once; tells whether another release serves now. A failure is kept in `state`."""
        try:
            newest = self._watch()
            _refuse_going_back(self._newest, newest.generation)
            self._checked = time.monotonic()
            self._newest = newest.generation
            if self._live is not None and newest.id == self._live.release.id:
                self._trouble = None
                return False
            live = self._warm(newest)
        except Exception as error:  # noqa: BLE001 - whatever keeps the next release back, the old one goes on serving
            self._trouble = f"{type(error).__name__}: {error}"
            return False
        self._live, self._trouble = live, None
        return True

    def age(self) -> float:
        """Seconds since the log was read last."""
        return time.monotonic() - self._checked

    def state(self) -> SnapshotState:
        """How current the snapshot is."""
        generation = self._live.release.generation if self._live else 0
        return SnapshotState(generation, self._newest, self.age(), self._trouble)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.refresh()


def _ended(stop: Event, thread: Thread) -> None:
    stop.set()
    thread.join(_AT_THE_END_SECONDS)


def _refuse_going_back(known: int, found: int) -> None:
    """The log only grows: one that has become shorter is a store that is away, or another one in its place."""
    if found < known:
        message = f"the release log ends at {found}, and {known} was read from it before; see that the store is there"
        raise UnavailableError(message)
