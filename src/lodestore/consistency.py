"""Served and offline: contexts that were served are made again from history, and their chunks compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lodestore.errors import LodestoreError
from lodestore.metrics import overlap

if TYPE_CHECKING:
    from lodestore.project import Project

__all__ = ["Consistency", "consistency"]

_SAMPLE = 50


@dataclass(frozen=True, slots=True)
class Consistency:
    """The mean share of chunks that a replay has in common with what was served, and who differs.

    `skipped` contexts could not be made again: their question is not in the log, or their tables are gone.
    """

    replayed: int
    skipped: int
    overlap: float
    different: tuple[str, ...]

    def sentence(self) -> str:
        """What was measured, as a person says it."""
        said = f"{self.replayed} served contexts replayed, {self.overlap:.1%} of their chunks the same"
        return said + (f"; {self.skipped} could not be replayed" if self.skipped else "")


def consistency(project: Project, *, sample: int = _SAMPLE) -> Consistency:
    """Replay the newest served contexts whose questions were logged, and compare the chunks of each."""
    from lodestore.replay import replay

    shares: dict[str, float] = {}
    logged = project.contexts.newest(sample)
    for one in logged:
        if one.query is None:
            continue
        try:
            again = replay(project, one.context_id)
        except LodestoreError:
            continue
        chunks = [hit.chunk_id for hit in again.context.hits]
        shares[one.context_id] = overlap(one.chunks, chunks, max(len(one.chunks), len(chunks), 1))
    different = tuple(name for name, share in shares.items() if share < 1)
    mean = float(np.mean(list(shares.values()))) if shares else 1.0
    return Consistency(len(shares), len(logged) - len(shares), mean, different)
