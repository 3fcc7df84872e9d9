"""Point-in-time retrieval datasets: for each question of the past, the features and the chunks as they were then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lodestore.errors import RequestError, naming, nearest
from lodestore.grouping import Reader
from lodestore.past import Past
from lodestore.retrieval import Hit, Mode, checked_query
from lodestore.tables import MOMENT, in_list

if TYPE_CHECKING:
    from lodestore.live import Live

__all__ = ["CHUNK_COLUMNS", "build", "leaks"]

History = Callable[[pa.Table, Sequence[str]], pa.Table]
"""Entities with an event_timestamp -> the same with a column for each feature, as `historical` makes it."""

CHUNK_COLUMNS = pa.schema(
    [
        ("release", pa.int64()),
        ("version", pa.string()),
        ("rank", pa.int64()),
        ("chunk_id", pa.string()),
        ("document_id", pa.string()),
        ("score", pa.float64()),
        ("text", pa.large_string()),
        ("visible_from", MOMENT),
    ]
)
_NEEDED = ("query", "event_timestamp")


def build(
    questions: pa.Table,
    *,
    past: Past,
    history: History,
    features: Sequence[str] = (),
    k: int = 10,
    mode: Mode = "vector",
    where: str | None = None,
) -> pa.Table:
    """One row for each chunk of each question: the question's columns, its features, then `CHUNK_COLUMNS`.

    `questions` has `query` and `event_timestamp`, the keys of the features' entities (such as
    `user_id`), and whatever else shall come along. Nothing in the answer is younger than its
    question: each row's `visible_from` says since when its chunk could be found. A question without
    any chunk keeps one row, whose chunk columns are null.
    """
    asked = _checked(questions)
    told = history(asked, features) if features else asked
    rows: list[dict[str, Any]] = []
    places: list[int] = []
    for place, (query, moment) in enumerate(zip(*(asked[name].to_pylist() for name in _NEEDED), strict=True)):
        with naming(f"row {place + 1}"):
            checked_query(query, k=k, mode=mode)
            found = _chunks(past.at(moment), query, k, mode, where)
        rows += found
        places += [place] * len(found)
    chunks = pa.Table.from_pylist(rows, schema=CHUNK_COLUMNS)
    joined = told.take(pa.array(places, pa.int64()))
    for column in CHUNK_COLUMNS.names:
        joined = joined.append_column(column, chunks[column])
    return joined


def _checked(questions: pa.Table) -> pa.Table:
    for name in _NEEDED:
        if name not in questions.column_names:
            message = f"the questions have no column {name!r}{nearest(name, questions.column_names)}"
            raise RequestError(message)
    clash = sorted(set(CHUNK_COLUMNS.names) & set(questions.column_names))
    if clash:
        message = f"the questions have a column {clash[0]!r}, which the chunks bring; rename it"
        raise RequestError(message)
    moments = questions["event_timestamp"]
    if not pa.types.is_timestamp(moments.type) or moments.type.tz is None or moments.null_count:
        message = (
            f"event_timestamp is {moments.type} with {moments.null_count} nulls; give a moment with a zone in every row"
        )
        raise RequestError(message)
    place = questions.schema.get_field_index("event_timestamp")
    return questions.set_column(place, "event_timestamp", moments.cast(MOMENT))


def _chunks(live: Live, query: str, k: int, mode: Mode, where: str | None) -> list[dict[str, Any]]:
    result = live.find(query, k=k, mode=mode, where=where)
    since = _since(live, result.hits)
    common = {"release": result.release, "version": result.version}
    found = [
        {
            **common,
            "rank": rank,
            "chunk_id": hit.chunk_id,
            "document_id": hit.document_id,
            "score": hit.score,
            "text": hit.text,
            "visible_from": since[hit.chunk_id],
        }
        for rank, hit in enumerate(result.hits, start=1)
    ]
    return found or [common]


def _since(live: Live, hits: Sequence[Hit]) -> dict[str, datetime]:
    tables = live.vectors
    if not hits or not isinstance(tables, Reader):
        return {}
    ids = in_list("row_id", [hit.chunk_id for hit in hits])
    rows = tables.read(live.version("content").table, ["row_id", "visible_from"], ids)
    return dict(zip(rows["row_id"].to_pylist(), rows["visible_from"].to_pylist(), strict=True))


def leaks(dataset: pa.Table) -> int:
    """How many rows hold a chunk that nobody could have found yet when the question was asked; 0 is right."""
    late = pc.greater(dataset["visible_from"], dataset["event_timestamp"]).fill_null(fill_value=False)
    return int(pc.sum(late).as_py() or 0)
