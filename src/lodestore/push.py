"""Pushed rows: checked whole, visible to the next read of every process, on their way to the history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa

from lodestore.online import OnlineRow, OnlineStore, Written, encode_columns
from lodestore.rows import checked_rows
from lodestore.spec import FeatureView

__all__ = ["push"]


def push(view: FeatureView, rows: Iterable[Mapping[str, Any]], online: OnlineStore, *, now: datetime) -> Written:
    """The rows are online and in the journal, or, when one of them is bad, none is and the error names every bad one.

    A row whose event id was seen counts as a duplicate, one older than the stored row as late. Both
    stay harmless: pushing the same rows twice changes nothing.
    """
    table = checked_rows(view, rows, now=now)
    keys = zip(*(table[key].to_pylist() for key in view.entity.keys), strict=True)
    return online.write(f"{view.name}@{view.version}", zip(keys, _online_rows(view, table), strict=True), journal=True)


def _online_rows(view: FeatureView, table: pa.Table) -> list[OnlineRow]:
    events, created = (table[name].cast(pa.int64()).to_pylist() for name in ("event_timestamp", "created_timestamp"))
    ids = [one.encode() for one in table["event_id"].to_pylist()]
    payloads = encode_columns(table, list(view.stored))
    return [OnlineRow(*one) for one in zip(events, created, payloads, ids, strict=True)]
