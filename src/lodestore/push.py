"""Pushed rows: checked whole, visible to the next read of every process, on their way to the history."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from lodestore.bulk import as_binary, pieces, undisturbed
from lodestore.errors import InvalidRowsError, RequestError, UnavailableError
from lodestore.frames import is_columnar, offered
from lodestore.models import EmbeddingVersion
from lodestore.moments import micros_of
from lodestore.online import BATCH_ROWS, Key, OnlineRow, OnlineStore, Written, encode_key_columns
from lodestore.payloads import encode_batch, encode_payload, encode_rows
from lodestore.rows import Problem, check_table, check_values, rows_of
from lodestore.spaces import Vector, check_vectors, identified, namespace
from lodestore.spec import FeatureView

__all__ = ["JOURNAL_LIMIT", "note_newest", "push", "refuse_overflow"]

JOURNAL_LIMIT = 1_000_000
"""The most rows that may wait for the history. More means that nobody drains, or that the store is away."""

_NOTED_EVERY = 1_000_000
_TIMES = ("event_timestamp", "created_timestamp")

Versions = Callable[[], Mapping[str, EmbeddingVersion]]


def push(
    view: FeatureView,
    rows: Iterable[Mapping[str, Any]] | pa.Table,
    online: OnlineStore,
    *,
    now: datetime,
    versions: Versions | None = None,
) -> Written:
    """The rows are online and in the journal, or, when one of them is bad, none is and the error names every bad one.

    A row whose event id was seen counts as a duplicate, one older than the stored row as late. Both
    stay harmless: pushing the same rows twice changes nothing. A vector comes as
    `{"version": "minilm@1", "vector": [...]}`; `versions` tells the registered ones.
    """
    if type(rows) is not list and (
        isinstance(rows, str | bytes | Mapping) or not (isinstance(rows, Iterable) or is_columnar(rows))
    ):
        message = f"{view.name}: rows are a {type(rows).__name__}; give a list of rows, such as [{{...}}], or a table"
        raise RequestError(message)
    if not isinstance(rows, pa.Table) and is_columnar(rows):
        rows = offered(view.name, rows)
    with undisturbed():
        return _push(view, rows, online, now, versions)


def _push(
    view: FeatureView,
    rows: Iterable[Mapping[str, Any]] | pa.Table,
    online: OnlineStore,
    now: datetime,
    versions: Versions | None,
) -> Written:
    embeddings = bool(view.embeddings)
    if isinstance(rows, pa.Table) and not embeddings:
        found = check_table(view, rows, now=now)
        _refuse_bad(view, found.problems, {})
        return sum((_stored_batch(view, one, online) for one in pieces(found.table)), Written())
    offered = rows_of(view, rows) if isinstance(rows, pa.Table) else rows
    given = [identified(view, one) for one in offered] if embeddings else list(offered)
    checked = check_values(view, given, now=now)
    vectors, wrong = check_vectors(view, given, versions) if embeddings else ({}, {})
    _refuse_bad(view, checked.problems, wrong)
    keys, columns = _made(view, checked.columns)
    for feature, column in vectors.items():
        _push_vectors(view, feature, [(keys[at], columns.row(at), one) for at, one in column], online)
    return _stored(view, keys, columns, online)


def _stored(view: FeatureView, keys: list[Key], columns: _Columns, online: OnlineStore) -> Written:
    if len(keys) <= BATCH_ROWS:  # one transaction either way; a few rows are made quicker one by one
        written = online.write(view.namespace, [(key, columns.row(at)) for at, key in enumerate(keys)], journal=True)
    else:
        events, created = (np.asarray(one, dtype=np.int64) for one in (columns.events, columns.created))
        written = online.write_columns(
            view.namespace, keys, events, created, columns.payloads, event_ids=columns.ids, journal=True
        )
    if keys:
        note_newest(online, view.namespace, int(max(columns.events)))
    return written


def note_newest(online: OnlineStore, place: str, micros: int) -> None:
    """The namespace is known, to the second, to have had an event then; that tells whether it is fresh."""
    found = online.get_meta(f"newest/{place}")
    if found is None or int(found) + _NOTED_EVERY < micros:
        online.set_meta(f"newest/{place}", b"%d" % micros)


def refuse_overflow(view: FeatureView, online: OnlineStore, limit: int) -> None:
    """Fewer rows than `limit` wait for the history; otherwise nothing more is taken: `UnavailableError`."""
    waiting = online.journal_size()
    if waiting >= limit:
        message = (
            f"{view.name}: {waiting:,} pushed rows wait for the history, the limit is {limit:,}; run: lodestore run "
            "features, look at the store with: lodestore doctor, or raise online.journal_limit, then push again"
        )
        raise UnavailableError(message)


def _refuse_bad(view: FeatureView, problems: Iterable[Problem], wrong: Mapping[int, list[str]]) -> None:
    named: dict[int, list[str]] = {}
    for one in problems:
        named.setdefault(one.row, []).append(one.what)
    for row, what in wrong.items():
        named.setdefault(row, []).extend(what)
    told = [f"row {row}: {'; '.join(what)}" for row, what in sorted(named.items())]
    if told:
        raise InvalidRowsError(view.name, told)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Rows as an online store takes them."""

    events: Sequence[int]
    created: Sequence[int]
    payloads: list[bytes]
    ids: list[bytes]

    def row(self, at: int) -> OnlineRow:
        return OnlineRow(self.events[at], self.created[at], self.payloads[at], self.ids[at])


def _stored_batch(view: FeatureView, batch: pa.RecordBatch, online: OnlineStore) -> Written:
    """The same for rows that are columns already."""
    events, created = (batch[name].cast(pa.int64()).to_numpy() for name in _TIMES)
    features = list(view.stored)
    written = online.write_columns(
        view.namespace,
        encode_key_columns([batch[name] for name in view.entity.keys]),
        events,
        created,
        encode_batch(batch.select([one.name for one in features]), features),
        event_ids=as_binary(batch["event_id"]),
        journal=True,
    )
    note_newest(online, view.namespace, int(events.max()))
    return written


def _made(view: FeatureView, columns: Mapping[str, list[Any]]) -> tuple[list[Key], _Columns]:
    """The same from Python values."""
    keys = list(zip(*(columns[name] for name in view.entity.keys), strict=True))
    events, created = ([micros_of(one) for one in columns[name]] for name in _TIMES)
    payloads = encode_rows({one.name: columns[one.name] for one in view.stored}, list(view.stored), rows=len(keys))
    return keys, _Columns(events, created, payloads, [one.encode() for one in columns["event_id"]])


def _push_vectors(
    view: FeatureView, feature: str, rows: Iterable[tuple[Key, OnlineRow, Vector]], online: OnlineStore
) -> None:
    """The vectors are online under their versions; before the rows, whose event ids make a repeat harmless."""
    grouped: dict[str, list[tuple[Key, OnlineRow]]] = {}
    for key, row, vector in rows:
        payload = encode_payload({feature: vector.values})
        grouped.setdefault(vector.version.key, []).append((key, row._replace(payload=payload)))
    for version, members in grouped.items():
        online.write(namespace(view, feature, version), members, journal=True)
