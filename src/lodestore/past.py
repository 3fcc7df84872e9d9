"""Search as of a moment: the rows that were visible then, by the release that was live then.

A row is visible from `visible_from` on; what left a table stands in its `__retired` table until
`visible_until`. Both are scanned exactly and merged, so a later change, a compaction or the removal
of old table versions changes no answer within the retention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.errors import RequestError, RetentionError, StoreError
from lodestore.grouping import Extras
from lodestore.live import Live
from lodestore.models import EmbeddingVersion
from lodestore.ports import Clock, Embedder, OfflineStore, VectorStore
from lodestore.releases import Release, ReleaseLog
from lodestore.rerank import Reranker
from lodestore.retrieval import Mode, SearchResult, Weights
from lodestore.tables import retired
from lodestore.wire import from_rfc3339, rfc3339, span

__all__ = ["NOTE", "Past", "PastTables", "visible_at"]

NOTE = "word statistics are those of today's rows, not of that moment"
_NO_EXTRAS = Extras()


class Tables(OfflineStore, VectorStore, Protocol):
    """Tables that can be read and searched."""


def _literal(moment: datetime) -> str:
    return f"timestamp '{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"


def visible_at(moment: datetime, *, left: bool = False) -> str:
    """The condition for rows that were visible at `moment`; `left` for rows of a retired table.

    >>> visible_at(datetime(2026, 1, 2, tzinfo=UTC))
    "visible_from <= timestamp '2026-01-02 00:00:00.000000'"
    """
    since = f"visible_from <= {_literal(moment)}"
    return f"{since} AND visible_until > {_literal(moment)}" if left else since


@dataclass(frozen=True, slots=True)
class PastTables:
    """The tables as they were at `moment`: what a `Live` snapshot searches instead of today's."""

    tables: Tables
    moment: datetime

    def nearest(
        self,
        name: str,
        vector: np.ndarray,
        k: int,
        *,
        where: str | None = None,
        exact: bool = True,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """The k nearest rows of that moment by cosine, best first; always exact."""
        del exact

        def look(table: str, condition: str, depth: int) -> pa.Table:
            return self.tables.nearest(table, vector, depth, where=condition, exact=True, columns=_with_id(columns))

        return self._best(name, k, where, look, columns)

    def matching(
        self, name: str, query: str, k: int, *, where: str | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The k best rows of that moment by BM25, best first, by the word statistics of today."""

        def look(table: str, condition: str, depth: int) -> pa.Table:
            return self.tables.matching(table, query, depth, where=condition, columns=_with_id(columns))

        def worded(table: str, condition: str, depth: int) -> pa.Table:
            try:
                return look(table, condition, depth)
            except StoreError:
                # Rows that left are given their text index when somebody first asks for their words.
                self.tables.index(table)
                return look(table, condition, depth)

        return self._best(name, k, where, worded, columns)

    def _best(
        self,
        name: str,
        k: int,
        where: str | None,
        look: Callable[[str, str, int], pa.Table],
        columns: Sequence[str] | None,
    ) -> pa.Table:
        """The k best of both tables. A row that stands in both counts once, so a second look may go deeper."""
        depth = k
        while True:
            sides = self._sides(name, where, partial(_deep, look, depth))
            found = _merged(sides)
            if found.num_rows >= k or all(side.num_rows < depth for side in sides):
                best = found.slice(0, k)
                return best if columns is None else best.select([*columns, "_score"])
            depth *= 2

    def _sides(self, name: str, where: str | None, look: Callable[[tuple[str, str]], pa.Table]) -> list[pa.Table]:
        """What `look` finds in the live table and in what left it, which comes first. Both are looked at together."""
        left, live = self._part(name, where, left=True), self._part(name, where)
        with ThreadPoolExecutor(1) as pool:
            gone = pool.submit(lambda: look(left) if self.tables.count(left[0]) else None)
            there, past = look(live), gone.result()
        return [there] if past is None else [past, there]

    def _part(self, name: str, where: str | None, *, left: bool = False) -> tuple[str, str]:
        """A table with rows of that moment, and the condition for them."""
        condition = visible_at(self.moment, left=left)
        return retired(name) if left else name, f"({condition}) AND ({where})" if where else condition

    def read(self, name: str, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """The rows of that moment that match."""
        sides = self._sides(name, where, lambda part: self.tables.read(part[0], _with_id(columns), part[1]))
        found = _once(pa.concat_tables([_alike(side, sides[-1]) for side in sides]))
        return found if columns is None else found.select(list(columns))

    def index(self, name: str) -> None:
        """Nothing: the past is searched as it is."""

    def indexed(self, name: str) -> bool:
        """Whether a search by vector goes through an index: never."""
        del name
        return False

    def probing(self, name: str) -> Mapping[str, object]:
        """How a search goes: exactly, over what is there and what has left."""
        return {"index": None, "as_of": rfc3339(self.moment), "tables": [name, retired(name)]}


def _deep(look: Callable[[str, str, int], pa.Table], depth: int, part: tuple[str, str]) -> pa.Table:
    return look(*part, depth)


def _with_id(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(dict.fromkeys(["row_id", *columns]))


def _alike(part: pa.Table, other: pa.Table) -> pa.Table:
    """The part with the columns of the other; a retired row has two more."""
    return part.select(other.column_names).cast(other.schema)


def _once(rows: pa.Table) -> pa.Table:
    """Each row id once, at its first place."""
    ids = rows["row_id"].to_pylist()
    first = {one: place for place, one in reversed(list(enumerate(ids)))}
    return rows if len(first) == len(ids) else rows.take(pa.array(sorted(first.values()), pa.int64()))


def _merged(sides: Sequence[pa.Table]) -> pa.Table:
    """All rows by falling score, each once. What left at a later moment is what was there; it comes first."""
    rows = _once(pa.concat_tables([_alike(side, sides[-1]) for side in sides]))
    order = pc.sort_indices(rows, [("_score", "descending")])
    return rows.take(order)


class Past:
    """What the store would have answered at a moment."""

    def __init__(
        self,
        tables: Tables,
        releases: ReleaseLog,
        *,
        registered: Callable[[str], EmbeddingVersion],
        embedder: Callable[[EmbeddingVersion], Embedder],
        clock: Clock,
        keep: timedelta,
        weights: Weights | None = None,
        reranker: Reranker | None = None,
        kept_since: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        self._tables = tables
        self._releases = releases
        self._registered = registered
        self._embedder = embedder
        self._clock = clock
        self._keep = keep
        self._weights = weights or Weights()
        self._reranker = reranker
        self._kept_since = kept_since
        self._whole: set[tuple[str, int]] = set()

    def at(self, moment: datetime) -> Live:
        """The snapshot of that moment. Ask it as you would ask today's."""
        self.verify(moment)
        release = self._releases.at(moment)
        versions = {feature: self._registered(key) for feature, key in release.embeddings.items()}
        for version in versions.values():
            self._check_history(version, release)
        tables = PastTables(self._tables, moment)
        return Live(release, versions, self._embedder, tables, weights=self._weights, reranker=self._reranker)

    def search(
        self,
        query: str,
        moment: datetime,
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        where: str | None = None,
        extras: Extras = _NO_EXTRAS,
    ) -> SearchResult:
        """The k best chunks as they would have been found at that moment; the answer says what it cannot know."""
        found = self.at(moment).find(query, k=k, mode=mode, where=where, extras=extras)
        return told(found, moment)

    def verify(self, moment: datetime) -> None:
        """The moment is one that can be asked about; otherwise say why not, and which is the oldest one."""
        _is_moment(moment)
        if moment.tzinfo is None:
            message = f"as_of {moment.isoformat()} has no time zone; add one, for example +00:00"
            raise RequestError(message)
        now = self._clock()
        if moment > now:
            message = f"as_of {rfc3339(moment)} lies in the future, by {span(moment - now)}; leave it out to search now"
            raise RequestError(message)
        if now - moment > self._keep:
            message = (
                f"as_of {rfc3339(moment)} is {span(now - moment)} ago; what left the tables is kept for "
                f"{span(self._keep)} ([retention] days), so ask about a moment since {rfc3339(now - self._keep)}"
            )
            raise RetentionError(message)
        whole = self._kept_since()
        if whole is not None and moment < whole:
            message = (
                f"as_of {rfc3339(moment)} lies before {rfc3339(whole)}; what left the tables before that was taken out "
                "when [retention] days was shorter, so ask about a later moment"
            )
            raise RetentionError(message)

    def _check_history(self, version: EmbeddingVersion, release: Release) -> None:
        """The version's table still has what it was promoted with; a dropped and rebuilt one has not."""
        if (version.table, release.generation) in self._whole:
            return
        born = max(self._promoted(version, release), self._clock() - self._keep)
        there = self._tables.count(version.table, visible_at(born))
        if not there and not self._tables.count(retired(version.table), visible_at(born, left=True)):
            message = (
                f"{version.key} was live then (release {release.generation}), but its rows of that time are gone: the "
                "version was dropped since; ask about a moment of a version that is kept ([release] keep)"
            )
            raise RetentionError(message)
        self._whole.add((version.table, release.generation))

    def _promoted(self, version: EmbeddingVersion, release: Release) -> datetime:
        """When the version's unbroken time up to this release began."""
        since = release.at
        for one in reversed(self._releases.history()):
            if one.generation > release.generation:
                continue
            if one.embeddings.get(version.feature) != version.key:
                return since
            since = one.at
        return since


def _is_moment(given: object) -> None:
    if not isinstance(given, datetime):
        message = f"as_of is {given!r}; give a datetime with a time zone, such as datetime.now(UTC)"
        raise RequestError(message)


def told(found: SearchResult, moment: datetime) -> SearchResult:
    """The result with its moment, and with a note where it depends on words."""
    return replace(found, as_of=moment, notes=() if found.mode == "vector" else (NOTE,))


def moment_of(text: str) -> datetime:
    """The moment that a text names: RFC 3339, or a day, which means its beginning in UTC.

    >>> moment_of("2026-01-02").isoformat()
    '2026-01-02T00:00:00+00:00'
    """
    day = len(text) == len("2026-01-02")
    return from_rfc3339(f"{text}T00:00:00Z" if day else text, "as_of")
