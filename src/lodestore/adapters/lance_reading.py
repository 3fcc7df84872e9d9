"""One table as it is at one version: searched for the places of rows first, read only where something is wanted.

The engine's own query reads the wanted columns of every candidate, which takes longer than finding them:
of 48 candidates for a context six are cited. Places are positions in the files of that version; a reading
never changes its version, so a place found by it is the row that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from lodestore.retrieval import Spots

__all__ = ["LanceReading"]


class LanceReading:
    """Searches of one table at one version. Threads may share it."""

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401 - lance ships no types
        *,
        worded: Callable[[], None],
        telling: Callable[[], AbstractContextManager[None]],
        probes: int,
        refine: int,
        ef: Callable[[int], int],
        text_columns: Sequence[str],
    ) -> None:
        self._dataset = dataset
        self._worded = worded
        self._telling = telling
        self._probes = probes
        self._refine = refine
        self._ef = ef
        self._text_columns = list(text_columns)

    @property
    def version(self) -> int:
        """The version of the table."""
        return int(self._dataset.version)

    @cached_property
    def _indexed(self) -> bool:
        return any("vector" in one.field_names for one in self._dataset.describe_indices())

    def nearest(self, vector: np.ndarray, k: int, *, where: str | None = None, exact: bool = False) -> Spots:
        """Where the k nearest rows by cosine are, best first, with scores in [-1, 1]."""
        with self._telling():
            found = self._near(vector, k, where, exact=exact)
            if found.num_rows < k and not exact and self._indexed:
                # An index may find too few under a filter that leaves few rows.
                found = self._near(vector, k, where, exact=True)
        scores = np.clip(1.0 - found["_distance"].to_numpy().astype(np.float64), -1.0, 1.0)
        return Spots(found["_rowid"].to_pylist(), scores.tolist())

    def _near(self, vector: np.ndarray, k: int, where: str | None, *, exact: bool) -> pa.Table:
        asked: dict[str, Any] = {"column": "vector", "q": pa.array(vector, pa.float32()), "k": k, "metric": "cosine"}
        how = {"use_index": False} if exact else self._wide(k)
        return self._dataset.scanner(
            columns=["_rowid", "_distance"], nearest=asked | how, filter=where, prefilter=True
        ).to_table()

    def _wide(self, k: int) -> dict[str, int]:
        """How far an index is searched for k rows: as far as the store's own search goes."""
        return {"refine_factor": self._refine, "nprobes": self._probes, "ef": self._ef(k)}

    def matching(self, query: str, k: int, *, where: str | None = None) -> Spots:
        """Where the k best rows by BM25 are, best first: a row is as good as the better of its columns.

        So says the engine's search of several columns, too, which takes half as long again as a search of each.
        """
        best: dict[int, float] = {}
        with self._telling():
            self._worded()
            for column in self._text_columns:
                for place, score in self._by_words(query, column, k, where):
                    best[place] = max(score, best.get(place, score))
            if not best:
                # Words that nobody wrote are looked up in memory alone; a look at a row tells whether its files are there.
                self._dataset.scanner(columns=self._text_columns[:1], limit=1).to_table()
        chosen = sorted(best.items(), key=lambda one: -one[1])[:k]
        return Spots([place for place, _ in chosen], [score for _, score in chosen])

    def _by_words(self, query: str, column: str, k: int, where: str | None) -> Iterator[tuple[int, float]]:
        from lance.query import MatchQuery

        asked = MatchQuery(query, column)
        found = self._dataset.scanner(
            columns=["_rowid", "_score"], full_text_query=asked, limit=k, filter=where, prefilter=True
        ).to_table()
        return zip(found["_rowid"].to_pylist(), found["_score"].to_pylist(), strict=True)

    def take(self, places: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """These columns of the rows at the places, in their order."""
        with self._telling():
            return self._dataset._take_rows(list(places), columns=list(columns))  # noqa: SLF001 - the only way by row id
