"""Entity rows to ask both sides about: keys of a view's own files, at moments where the two could differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lodestore.errors import SourceError
from lodestore.events import EventSource, files
from lodestore.spec import FeatureView
from lodestore.tables import MOMENT

__all__ = ["ROW", "Told", "entity_rows", "in_feast", "told_by"]

ROW = "lodestore_row"
_EVENT = "event_timestamp"
_CREATED = "created_timestamp"
_HOUR = timedelta(hours=1)
_MONTH = timedelta(days=30)
_TICK = timedelta(microseconds=1)
_SEED = 0x9E3779B97F4A7C15
Numbers: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Told:
    """A view's files as one table, by the view's own names, its times in microseconds, sorted by keys and event time."""

    table: pa.Table
    keys: tuple[str, ...]
    _found: dict[tuple[object, ...], pa.Table] = field(default_factory=dict, repr=False, compare=False)

    def of(self, key: tuple[object, ...]) -> pa.Table:
        """The rows of this key."""
        if key not in self._found:
            found = self.table
            for name, value in zip(self.keys, key, strict=True):
                found = found.filter(pc.equal(found[name], value))
            self._found[key] = found
        return self._found[key]

    def newest(self, key: tuple[object, ...], moment: object) -> pa.Table:
        """The rows of this key that have its newest event time at or before the moment; several are a tie."""
        found = self.of(key)
        found = found.filter(pc.less_equal(found[_EVENT], pa.scalar(moment, MOMENT)))
        return found.filter(pc.equal(found[_EVENT], pc.max(found[_EVENT]))) if found.num_rows else found


def told_by(source: EventSource, view: FeatureView, *, root: Path) -> Told:
    """The files of the source; those that are not Parquet, or lack a column, are a `SourceError`."""
    names = [*view.entity.keys, _EVENT, *(one.name for one in view.stored)]
    found = files(source, root=root)
    try:
        created = source.columns.get(_CREATED, _CREATED)
        names += [_CREATED] if created in set(pq.read_schema(found[0].path).names) - set(source.ignore) else []
        theirs = [source.columns.get(name, name) for name in names]
        tables = [pq.read_table(one.path, columns=theirs).select(theirs) for one in found]
        table = pa.concat_tables(tables, promote_options="permissive").rename_columns(names)
    except (pa.ArrowException, KeyError, OSError) as error:
        message = f"events.{source.name}.uri: {source.uri} cannot be read: {error}"
        raise SourceError(message) from error
    for name in (_EVENT, _CREATED):
        if name in names:
            table = table.set_column(names.index(name), name, _moments(table[name], source.zone))
    table = table.filter(pc.is_valid(table[_EVENT]))
    for key in view.entity.keys:
        table = table.filter(pc.is_valid(table[key]))
    order = [(one, "ascending") for one in (*view.entity.keys, _EVENT)]
    return Told(table.take(pc.sort_indices(table, sort_keys=order)), view.entity.keys)


def _moments(column: pa.ChunkedArray, zone: str | None) -> pa.ChunkedArray:
    """The times in UTC and whole microseconds; what lies between two counts from the later one on."""
    if column.type.tz is None:
        column = pc.assume_timezone(column, zone or "UTC")
    if column.type.unit == "ns":
        return _rounded_up(column.cast(pa.int64()))
    return column.cast(MOMENT)


def _rounded_up(nanos: pa.ChunkedArray) -> pa.ChunkedArray:
    whole = -(-np.asarray(nanos.fill_null(0)) // 1_000)
    return pa.chunked_array([pa.array(whole, mask=np.asarray(nanos.is_null()))]).cast(MOMENT)


def entity_rows(told: Told, *, ttl: timedelta | None, rows: int) -> pa.Table:
    """About that many different entity rows, always the same ones.

    They lie evenly over the files, each by a hash at the row's time, just before it, an hour later, at the end of the
    TTL or just beyond it (without one: a month later). The first and the last row of their keys are always asked at
    their own time, and as many as a fifth more where two rows have the same keys and time.
    """
    table, total = told.table, told.table.num_rows
    if not total:
        return _numbered(table.select([*told.keys, _EVENT]))
    events = np.asarray(table[_EVENT].cast(pa.int64()))
    same = _same_keys(table, told.keys)
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    spread = _evenly(events, max(rows - 2 * min(len(starts), rows // 3), 1))
    groups = np.unique(np.searchsorted(starts, spread, side="right")) - 1
    ends = np.concatenate([starts[groups], np.append(starts, total)[groups + 1] - 1])
    ties = np.flatnonzero(same & (events[:-1] == events[1:]))
    ties = ties[_evenly(events[ties], max(rows // 5, 1))]
    lasting = (ttl or _MONTH) // _TICK
    steps = np.array([0, -2, _HOUR // _TICK, lasting, lasting + 1])
    chosen = steps[_mixed(events[spread], spread + total) % len(steps)]
    places = np.concatenate([spread, ends, ties])
    moments = np.concatenate([events[spread] + chosen, events[ends], events[ties]])
    asked = table.select(told.keys).take(pa.array(places))
    asked = asked.append_column(_EVENT, pa.array(moments).cast(MOMENT))
    return _numbered(asked.group_by([*told.keys, _EVENT], use_threads=False).aggregate([]))


def _evenly(events: Numbers, count: int) -> Numbers:
    """As many places, evenly over all of them; a hash takes one of each part, so that no rhythm of the rows is met."""
    count = min(count, len(events))
    bounds = np.linspace(0, len(events), count + 1).astype(np.int64)
    return bounds[:-1] + _mixed(events[bounds[:-1]], bounds[:-1]) % np.diff(bounds)


def _mixed(events: Numbers, places: Numbers) -> Numbers:
    """A number for each row that tells nothing of its place (the last step of splitmix64), the same in every run."""
    mixed = events.astype(np.uint64) + places.astype(np.uint64) * np.uint64(_SEED)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


def _same_keys(table: pa.Table, keys: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Of each row but the last, whether the next one has the same keys."""
    same = np.ones(table.num_rows - 1, dtype=bool)
    for name in keys:
        column = table[name]
        same &= np.asarray(pc.equal(column.slice(0, len(column) - 1), column.slice(1)))
    return same


def _numbered(asked: pa.Table) -> pa.Table:
    return asked.append_column(ROW, pa.array(np.arange(asked.num_rows)))


def in_feast(asked: pa.Table, keys: Mapping[str, str]) -> pa.Table:
    """The same rows with the keys as Feast calls them."""
    return asked.rename_columns([keys.get(name, name) for name in asked.column_names])
