"""Rows on their way to a log: in a file of this process at once, in the table a batch at a time.

A commit to the system of record takes many milliseconds and leaves a fragment behind, which is too much
for each request. A line in a file takes microseconds and outlives the process. Whoever moves rows next
also moves what dead processes left: a file's lock says whether its writer lives.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock, Timer
from typing import IO, Any
from uuid import uuid4

from lodestore.errors import LodestoreError, StoreWriteError
from lodestore.logs import Logs
from lodestore.wire import from_rfc3339, jsonable

__all__ = ["Spool"]

# Rows wait that long for others to be committed with them, unless there are enough before.
_SECONDS = 10.0
_ROWS = 500


class Spool:
    """The rows of one log that are not in its table yet. Threads may share it, processes share the folder."""

    def __init__(self, logs: Logs, log: str, folder: Path) -> None:
        self._logs = logs
        self._log = log
        self._folder = folder
        self._lock = Lock()
        self._moving = Lock()
        self._file: IO[str] | None = None
        self._hold: Any = None
        self._pid = 0
        self._waiting = 0
        self._timer: Timer | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """The row outlives this process, and is in the table soon; a key that is taken changes nothing there."""
        line = json.dumps(jsonable(row), ensure_ascii=False) + "\n"
        with self._lock:
            try:
                file = self._open()
                file.write(line)
                file.flush()
            except OSError as error:
                message = f"{self._folder} cannot be written ({error.strerror}); free some room or change its rights"
                raise StoreWriteError(message) from error
            self._waiting += 1
            self._schedule()

    def rows(self) -> list[dict[str, Any]]:
        """The rows that wait, of every process."""
        return [row for file in self._files() for row in _read(file)]

    def flush(self) -> int:
        """What waits, here and from processes that ended, is in the table; returns how many rows were new."""
        with self._moving:
            self._let_go()
            return sum(self._move(file) for file in self._files())

    def close(self) -> None:
        """This process writes no more; its rows wait in their file."""
        self._let_go()

    def _open(self) -> IO[str]:
        if self._file is not None and self._pid == os.getpid():
            return self._file
        from filelock import FileLock

        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._log}-{uuid4().hex}.jsonl"
        self._hold = FileLock(path.with_suffix(".lock"), thread_local=False)
        self._hold.acquire()
        self._file, self._pid, self._waiting = path.open("a", encoding="utf-8"), os.getpid(), 0
        atexit.register(self.close)
        return self._file

    def _schedule(self) -> None:
        if self._waiting >= _ROWS:
            self._cancel()
        elif self._timer is not None:
            return
        self._timer = Timer(0.0 if self._waiting >= _ROWS else _SECONDS, self._flush_later)
        self._timer.daemon = True
        self._timer.start()

    def _flush_later(self) -> None:
        try:
            self.flush()
        except LodestoreError:
            # The rows are safe in their file; whoever moves rows next sees the same trouble, or none.
            return

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _let_go(self) -> None:
        with self._lock:
            self._cancel()
            if self._file is not None:
                atexit.unregister(self.close)
                self._file.close()
                if self._pid == os.getpid():
                    self._hold.release()
            self._file, self._hold, self._waiting = None, None, 0

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._log}-*.jsonl")) if self._folder.is_dir() else []

    def _move(self, file: Path) -> int:
        """The file's rows are in the table and the file is gone, unless its writer still lives."""
        from filelock import FileLock, Timeout

        hold = FileLock(file.with_suffix(".lock"), thread_local=False)
        try:
            hold.acquire(timeout=0)
        except Timeout:
            return 0
        try:
            broken: list[str] = []
            done = self._logs.put_all(self._log, _read(file, broken))
            if broken:  # kept for whoever wants to look, and never in the way of the next rows
                file.with_suffix(".broken").write_text("\n".join(broken), encoding="utf-8")
            # Only after the commit: a crash in between offers the rows again, whose keys are then taken.
            file.unlink(missing_ok=True)
        finally:
            hold.release()
        file.with_suffix(".lock").unlink(missing_ok=True)
        return done


def _read(file: Path, broken: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a file; a last line that a crash cut short is none, any other that is no row goes to `broken`."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:  # moved by another process
        return
    # Not splitlines(): it also cuts at characters that stand in texts, such as U+2028.
    for line in text.split("\n")[:-1]:
        try:
            row = json.loads(line)
            found = {**row, "at": from_rfc3339(row["at"])} if "at" in row else row
        except (ValueError, TypeError, KeyError):
            if broken is not None:
                broken.append(line)
            continue
        yield found
