"""Windows: the rows of the store that are looked at together, now and before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.models import EmbeddingVersion
from lodestore.spec import FeatureView
from lodestore.tables import embedding_schema, view_schema, view_table

if TYPE_CHECKING:
    from lodestore.project import Project

__all__ = ["HISTORY", "earlier", "past", "span", "version_window", "view_window", "weeks_before"]

HISTORY = 26
"""So many windows are looked back: half a year of weeks."""

_SEEN = ("document_id", "visible_from", "vector", "text", "category", "word_count")
_SAMPLED = 20_000  # rows that are looked at; the share is drawn evenly over the whole table
_WEEK = timedelta(days=7)


def view_window(project: Project, view: FeatureView, *, ago: timedelta = timedelta(0)) -> pa.Table:
    """The stored features of the newest window of events, or of the one that ended some time ago.

    A declared column that the table lacks is left out. A computed view is a state and no stream: its window is the newest row of each entity that is still there.
    """
    held = project.tables.read(view_table(view), None, "false").column_names or view_schema(view).names
    columns = [one for one in ("event_id", *(one.name for one in view.stored)) if one in held]
    empty = view_schema(view).empty_table().select(columns)
    if is_state(project, view):
        return empty if ago else _state(project, view, columns)
    end = project.clock() - ago
    where = f"event_timestamp > {_literal(end - span(project))} AND event_timestamp <= {_literal(end)}"
    found = project.tables.read(view_table(view), columns, where)
    return found if found.num_rows else empty


def is_state(project: Project, view: FeatureView) -> bool:
    """Whether the view is what a function makes of the store, and no event files tell what happened."""
    return view.compute is not None and all(one.view != view.name for one in project.settings.events)


def span(project: Project) -> timedelta:
    """How long a window of events is."""
    return timedelta(days=project.settings.drift.window_days)


def weeks_before(project: Project) -> timedelta:
    """How long ago the last window with the same weekdays ended that shares no event with the newest."""
    return _WEEK * math.ceil(span(project) / _WEEK)


def earlier(project: Project, view: FeatureView, *, windows: int) -> Iterator[pa.Table]:
    """The windows before the newest, back to back, the latest first; only those with enough rows."""
    for back in range(1, windows + 1):
        found = view_window(project, view, ago=back * span(project))
        if found.num_rows >= project.settings.drift.min_rows:
            yield found


def past(project: Project, view: FeatureView) -> list[pa.Table]:
    """The past windows with enough rows, oldest first; of large ones an evenly drawn part."""
    if is_state(project, view) or not project.tables.count(view_table(view)):
        return []
    rng = np.random.default_rng(0)
    return [_drawn(one, rng) for one in earlier(project, view, windows=HISTORY)][::-1]


def _drawn(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    if table.num_rows <= _SAMPLED:
        return table
    return table.take(pa.array(np.sort(rng.choice(table.num_rows, _SAMPLED, replace=False))))


def _literal(moment: object) -> str:
    return f"timestamp '{moment:%Y-%m-%d %H:%M:%S.%f}'"


def _state(project: Project, view: FeatureView, columns: Sequence[str]) -> pa.Table:
    keys = list(view.entity.keys)
    order = ("event_timestamp", "created_timestamp")
    rows = project.tables.read(view_table(view), [*keys, *order, *columns])
    if not rows.num_rows:
        return view_schema(view).empty_table().select(columns)
    if keys == ["document_id"]:
        present = project.tables.read("documents", ["document_id"])
        ids = present["document_id"].combine_chunks() if present.num_rows else pa.array([], pa.string())
        rows = rows.filter(pc.is_in(rows["document_id"], ids))
    rows = rows.append_column("place", pa.array(np.arange(rows.num_rows)))
    newest = rows.sort_by([(name, "ascending") for name in order]).group_by(keys, use_threads=False)
    places = newest.aggregate([("place", "last")])["place_last"].combine_chunks()
    return rows.take(places).select(columns)


def version_window(project: Project, version: EmbeddingVersion) -> pa.Table:
    """Rows of a version's table with what drift looks at; of a large table an evenly drawn part."""
    count = project.tables.count(version.table)
    columns = [*_SEEN, "row_id", "content_hash"]
    if not count:
        return embedding_schema(version.dimension).empty_table().select(columns)
    share, rng = min(1.0, _SAMPLED / count), np.random.default_rng(0)
    kept = []
    for batch in project.tables.batches(version.table, columns):
        drawn = np.flatnonzero(rng.random(batch.num_rows) < share)
        kept.append(batch.take(pa.array(drawn)))
    return pa.Table.from_batches(kept)
