"""Locks between processes: one writer at a time, and a clear word for whoever has to wait too long."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lodestore.errors import StoreBusyError, StoreWriteError

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["Locks"]

WRITER = "writer"

_log = logging.getLogger("lodestore.locks")
_SILENT_SECONDS = 2.0


class Locks:
    """Named locks in a local folder. The kernel frees them when their process dies."""

    def __init__(self, folder: Path, *, wait: float) -> None:
        self._folder = folder
        self._wait = wait

    @contextmanager
    def hold(self, name: str, act: str) -> Iterator[None]:
        """Hold the lock `name` while `act` goes on; `StoreBusyError` names who has it.

        Whoever waits longer than two seconds is told for whom. Holding a lock that this thread already holds is a
        mistake of the program.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self._file(name), thread_local=False)
        silent = min(self._wait, _SILENT_SECONDS)
        try:
            lock.acquire(timeout=silent)
        except Timeout:
            self._wait_for(lock, name, act, self._wait - silent)
        try:
            self._note(name, act)
            yield
        finally:
            lock.release()

    def writer(self, act: str):  # type: ignore[no-untyped-def]  # noqa: ANN201 - a context manager
        """Hold the store-wide writer lock."""
        return self.hold(WRITER, act)

    def _wait_for(self, lock: FileLock, name: str, act: str, seconds: float) -> None:
        from filelock import Timeout

        if seconds > 0:
            _log.warning("%s waits, up to %g s: %s", act, self._wait, self._holder(name))
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            message = (
                f"{act}: waited {self._wait:g} s; {self._holder(name)}. "
                "Wait for it to end, or set store.lock_wait to wait longer"
            )
            raise StoreBusyError(message) from None

    def _file(self, name: str) -> Path:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = self._folder / f"{name}.lock"
            file.touch()
        except OSError as error:
            message = (
                f"{self._folder} cannot be written ({error.strerror}); free some room, change its rights, "
                "or move the store with LODESTORE_HOME"
            )
            raise StoreWriteError(message) from error
        return file

    def _note(self, name: str, act: str) -> None:
        (self._folder / f"{name}.holder").write_text(f"process {os.getpid()} ({act})", encoding="utf-8")

    def _holder(self, name: str) -> str:
        file = self._folder / f"{name}.holder"
        who = file.read_text(encoding="utf-8") if file.is_file() else "another process"
        return f"{who} is writing to this store"
