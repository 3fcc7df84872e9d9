"""The board of a server with several workers: each pins its figures there, so that any of them tells those of all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

from lodestore.server.metrics import Figures, Series

__all__ = ["FOLDER", "Board", "Note"]

FOLDER = "LODESTORE_BOARD"
"""The environment variable by which `lodestore serve` tells its workers where the board is."""

_GONE_AFTER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Note:
    """What one worker pinned: figures that stay when it dies, and gauges that tell how it stands now."""

    worker: str
    figures: Figures
    gauges: Mapping[Series, float]


class Board:
    """A folder with one file for each worker that there ever was. Without a folder, a worker knows of itself alone."""

    def __init__(self, worker: str, folder: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._worker = worker
        self._folder = folder
        self._clock = clock
        self._lock = Lock()

    @classmethod
    def of_environment(cls, worker: str) -> Board:
        """The board of the server that started this process; of no other worker where there is none."""
        folder = os.environ.get(FOLDER)
        return cls(worker, Path(folder) if folder else None)

    @property
    def shared(self) -> bool:
        """Whether there may be other workers."""
        return self._folder is not None

    def pin(self, make: Callable[[], Note]) -> Note:
        """Whoever reads the board sees what `make` gives in place of the worker's last note, whole; OSError else.

        Called by several threads, one after the other: a later note never counts less.
        """
        with self._lock:
            note = make()
            if self._folder is not None:
                gauges = [[name, labels, value] for (name, labels), value in note.gauges.items()]
                told = {"at": self._clock(), "figures": note.figures.to_json(), "gauges": gauges}
                place = self._folder / f"{self._worker}.json"
                written = place.with_suffix(".new")
                written.write_bytes(orjson.dumps(told))
                written.replace(place)
            return note

    def read(self) -> list[Note]:
        """The notes of all workers. One that has not been heard of for a while has figures, and no gauges any more."""
        if self._folder is None:
            return []
        return [self._note(one.stem, orjson.loads(one.read_bytes())) for one in sorted(self._folder.glob("*.json"))]

    def _note(self, worker: str, told: Mapping[str, Any]) -> Note:
        gone = self._clock() - told["at"] > _GONE_AFTER_SECONDS
        shown = [] if gone else told["gauges"]
        gauges = {(name, tuple((label, value) for label, value in labels)): number for name, labels, number in shown}
        return Note(worker, Figures.from_json(told["figures"]), gauges)
