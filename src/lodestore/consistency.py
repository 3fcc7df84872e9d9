"""Served and offline: contexts that were served are made again from history, and their chunks compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    `lost` chunks were served and do not come back, `gained` ones come back and were not served; both over
    all contexts. `skipped` contexts could not be made again: their question is not in the log, or their
    tables are gone.
    """

    replayed: int
    skipped: int
    overlap: float
    different: tuple[str, ...]
    lost: int = 0
    gained: int = 0

    def sentence(self) -> str:
        """What was measured, as a person says it."""
        if not self.replayed and self.skipped:
            return (
                f"none of {self.skipped} served contexts can be replayed; [context] log_queries keeps their questions"
            )
        said = f"{self.replayed} served contexts replayed, {self.overlap:.1%} of their chunks the same"
        if self.different:
            said += f"; {len(self.different)} differ, by {self.lost} chunks lost and {self.gained} gained"
        return said + (f"; {self.skipped} could not be replayed" if self.skipped else "")


def consistency(project: Project, *, sample: int = _SAMPLE) -> Consistency:
    """Replay the newest served contexts whose questions were logged, and compare the chunks of each."""
    from lodestore.replay import replay

    pairs: dict[str, tuple[Sequence[str], Sequence[str]]] = {}
    logged = project.contexts.newest(sample)
    for one in logged:
        if one.query is None:
            continue
        try:
            again = replay(project, one.context_id)
        except LodestoreError:
            continue
        pairs[one.context_id] = (one.chunks, [hit.chunk_id for hit in again.context.hits])
    return _compared(pairs, skipped=len(logged) - len(pairs))


def _compared(pairs: Mapping[str, tuple[Sequence[str], Sequence[str]]], *, skipped: int) -> Consistency:
    shares = {name: overlap(was, now, max(len(was), len(now), 1)) for name, (was, now) in pairs.items()}
    different = tuple(name for name, share in shares.items() if share < 1)
    mean = float(np.mean(list(shares.values()))) if shares else 1.0
    lost = sum(len(set(was) - set(now)) for was, now in pairs.values())
    gained = sum(len(set(now) - set(was)) for was, now in pairs.values())
    return Consistency(len(pairs), skipped, mean, different, lost, gained)
