"""The vector indexes under watch: what they find of the exact answer, what they have not seen, and when they are rebuilt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lodestore.ranking import SelectiveRecall, recall_by_share
from lodestore.tables import in_list

if TYPE_CHECKING:
    from lodestore.adapters.lance import LanceStore
    from lodestore.models import EmbeddingVersion

__all__ = ["MOST_UNSEEN", "IndexReading", "read_index", "settled"]

# A tail of this share of the rows is scanned beside the index at every search.
MOST_UNSEEN = 0.1
_QUERIES = 25


@dataclass(frozen=True, slots=True)
class IndexReading:
    """How one version's index does. Without an index every search is exact, and `recalls` is empty."""

    key: str
    rows: int
    unseen: float
    recalls: tuple[SelectiveRecall, ...]
    rebuilt: bool = False

    @property
    def worst(self) -> float:
        """The lowest recall of any selectivity; 1 where every search is exact."""
        return min((one.recall for one in self.recalls), default=1.0)

    @property
    def full(self) -> bool:
        """Whether every search came back with as many rows as there are, up to k."""
        return all(one.full for one in self.recalls)

    def sentence(self) -> str:
        """What was measured, as a person says it."""
        if not self.recalls:
            return f"{self.rows:,} rows are searched exactly"
        shown = ", ".join(f"{one.recall:.3f} of {one.share:.0%}" for one in self.recalls)
        done = "; the index was rebuilt" if self.rebuilt else ""
        return f"the index finds, of the exact ten nearest: {shown} of the rows{done}"


def read_index(
    tables: LanceStore, version: EmbeddingVersion, *, queries: int = _QUERIES, seed: int = 0
) -> IndexReading:
    """Measure the version's index with some of its own vectors, unfiltered and under filters of each selectivity."""
    tail = tables.tail(version.table)
    if not tables.indexed(version.table):
        return IndexReading(version.key, tail.rows, 0.0, ())
    ids = sorted(tables.read(version.table, ["row_id"])["row_id"].to_pylist())
    picks = np.random.default_rng(seed).choice(len(ids), size=min(queries, len(ids)), replace=False)
    some = tables.read(version.table, ["vector"], in_list("row_id", [ids[place] for place in picks]))
    vectors = np.stack(some["vector"].combine_chunks().to_numpy(zero_copy_only=False))
    return IndexReading(
        version.key, tail.rows, tail.share, tuple(recall_by_share(tables, version.table, list(vectors)))
    )


def settled(
    tables: LanceStore, version: EmbeddingVersion, *, limit: float, rebuild: bool, queries: int = _QUERIES
) -> IndexReading:
    """The reading; where it fell below `limit` and `rebuild` allows it, the index is made anew and read again."""
    found = read_index(tables, version, queries=queries)
    if not rebuild or (found.worst >= limit and found.unseen <= MOST_UNSEEN):
        return found
    tables.rebuild(version.table)
    return replace(read_index(tables, version, queries=queries), rebuilt=True)
