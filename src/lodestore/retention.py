"""Retention: what left the tables is kept for a while, and then it is gone, and the store knows since when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pyarrow as pa

from lodestore.logs import Logs
from lodestore.ports import OfflineStore
from lodestore.tables import in_list, retired
from lodestore.wire import from_rfc3339, rfc3339

__all__ = ["forget", "kept_since", "last_cards"]

_MARK = "retired"
_DOCUMENTS = retired("documents")
# What a retired document still tells when its time is over: that it was there, and when it left.
_STRIPPED = ("content", "metadata", "ready_vector")
_AT_ONCE = 500


def kept_since(logs: Logs) -> datetime | None:
    """Since when the record of what left is whole; None where nothing was ever taken from it."""
    last = logs.last("watermarks", f"name = '{_MARK}'")
    return None if last is None else from_rfc3339(str(last["value"]), "the mark of the retired tables")


def forget(store: OfflineStore, logs: Logs, *, before: datetime) -> Mapping[str, int]:
    """Rows that left a table before that moment are gone; returns how many of each table.

    The mark is written first: a crash in between leaves rows that nobody asks for any more, never a
    question about a moment that is answered by half of its rows. Retired documents keep their card (id,
    title, dates) without what they said, so that `why` can still say when one left.
    """
    known = kept_since(logs)
    if known is None or known < before:
        logs.put("watermarks", {"name": _MARK, "value": rfc3339(before)})
    left = f"visible_until <= timestamp '{before.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"
    tables = [name for name in store.names() if name.endswith(retired("")) and name != _DOCUMENTS]
    gone = {name: store.remove(name, left) for name in tables}
    return {name: count for name, count in {**gone, _DOCUMENTS: last_cards(store, left)}.items() if count}


def last_cards(store: OfflineStore, left: str) -> int:
    """Of the retired documents that match, nothing is kept but their cards; returns how many lost their text."""
    full = f"({left}) AND content IS NOT NULL"
    ids = store.read(_DOCUMENTS, ["retired_id"], full)["retired_id"].to_pylist() if store.count(_DOCUMENTS) else []
    for start in range(0, len(ids), _AT_ONCE):
        rows = store.read(_DOCUMENTS, None, in_list("retired_id", ids[start : start + _AT_ONCE]))
        for name in _STRIPPED:
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(
                place, rows.schema.field(name), pa.nulls(rows.num_rows, rows.schema.field(name).type)
            )
        store.upsert(_DOCUMENTS, rows, key="retired_id")
    return len(ids)
