"""Rows on their way into an online store: as it takes them, in which batches, and which of two rows wins.

Every adapter decides by `settle`, or by the same rule where the server decides.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.bulk import Bytes, as_column, as_list, cuts, joined
from lodestore.errors import RequestError
from lodestore.online import (
    BATCH_BYTES,
    BATCH_ROWS,
    LONGEST,
    STAMP,
    Key,
    Keys,
    OnlineRow,
    Written,
    checked_event_id,
    decode_row,
    encode_key,
    encode_keys,
    encode_row,
    hashed_key,
    headers_of,
)

__all__ = [
    "Addressed",
    "Delivery",
    "Settled",
    "addressed",
    "batches",
    "deliveries",
    "deliveries_of_columns",
    "settle",
    "slices",
]


class Delivery(NamedTuple):
    """A row on its way into a store: the store's key for it, its stored bytes, its event id."""

    key: bytes
    stored: bytes
    event_id: bytes | None = None


_LARGEST_COLUMN: Final = 1 << 30  # bytes; an Arrow column ends at 2 GiB
_KEY_OF: Final = attrgetter("key")


@dataclass(frozen=True, slots=True)
class Settled:
    """What one batch changes: the rows to put, the deliveries to journal, the event ids to remember."""

    rows: Mapping[bytes, bytes]
    journal: Sequence[Delivery]
    events: Mapping[bytes, bytes]
    written: Written


def settle(
    batch: Iterable[Delivery], *, stored: Callable[[bytes], bytes | None], seen: Container[bytes] = frozenset()
) -> Settled:
    """What the batch changes; `stored` gives the row of a key, `seen` has the event ids seen before.

    The newer event wins, then the row created later, then the one that arrived later. A late row still goes
    into the journal: history keeps it.
    """
    rows: dict[bytes, bytes] = {}
    journal: list[Delivery] = []
    events: dict[bytes, bytes] = {}
    duplicates = late = 0
    for one in batch:
        key, value, event_id = one
        if event_id is not None:
            if event_id in seen or event_id in events:
                duplicates += 1
                continue
            events[event_id] = value[1:9]
        journal.append(one)
        before = rows.get(key) or stored(key)
        if before is None or before[STAMP] <= value[STAMP]:
            rows[key] = value
        else:
            late += 1
    return Settled(rows, journal, events, Written(len(journal) - late, duplicates, late))


def batches(rows: Iterable[Delivery]) -> Iterator[list[Delivery]]:
    """The same rows, in order, in batches within BATCH_ROWS and BATCH_BYTES; a huge row is one by itself."""
    batch: list[Delivery] = []
    size = 0
    for one in rows:
        if batch and (len(batch) == BATCH_ROWS or size + len(one.stored) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += len(one.stored)
    if batch:
        yield batch


# From rows to deliveries


def deliveries(
    rows: Iterable[tuple[Key, OnlineRow]], *, prefix: bytes = b"", longest: int = LONGEST * 2
) -> list[Delivery]:
    """The rows as a store takes them; a store's key longer than `longest` bytes is hashed.

    They are sorted by key, because scattered writes take three times as long; rows of one key stay in order.
    """
    out = []
    for key, row in rows:
        encoded = encode_key(key)
        address, carried = prefix + encoded, b""
        if len(address) > longest:
            address, carried = hashed_key(prefix, encoded), encoded
        out.append(Delivery(address, encode_row(row, key=carried), row.event_id))
    if len(out) > 1:
        out.sort(key=_KEY_OF)
    return out


def deliveries_of_columns(
    keys: Keys,
    event_micros: np.ndarray[Any, Any],
    created_micros: np.ndarray[Any, Any],
    payloads: Bytes,
    *,
    event_ids: Bytes | None = None,
    prefix: bytes = b"",
    longest: int = LONGEST * 2,
) -> Iterator[Delivery]:
    """The rows as a store takes them, sorted by key, made one by one so that the payloads are not held twice."""
    values = as_list(payloads) if isinstance(payloads, pa.Array) else payloads
    ids = as_list(_checked_columns(keys, event_micros, created_micros, values, event_ids))
    headers = as_list(headers_of(event_micros, created_micros, [*map(len, ids)]))
    encoded = _encoded(keys)
    return (
        _delivery(
            prefix,
            encoded[at],
            headers[at] + ids[at] + values[at],
            longest,
            ids[at] or None,
        )
        for at in sorted(range(len(encoded)), key=encoded.__getitem__)
    )


def _encoded(keys: Keys) -> list[bytes]:
    return as_list(keys) if isinstance(keys, pa.Array) else encode_keys(keys)


def _checked_columns(
    keys: Keys,
    event_micros: np.ndarray[Any, Any],
    created_micros: np.ndarray[Any, Any],
    payloads: Bytes,
    event_ids: Bytes | None,
) -> Bytes:
    """The event ids, empty ones where there are none; all columns are equally long."""
    ids = [b""] * len(keys) if event_ids is None else event_ids
    lengths = {len(keys), len(event_micros), len(created_micros), len(payloads), len(ids)}
    if len(lengths) != 1:
        message = f"columns of different lengths {sorted(lengths)}: give one value of each for every key"
        raise RequestError(message)
    if event_ids is not None and len(ids):
        column = as_column(ids)
        if column.null_count:
            message = f"{column.null_count} rows have no event id; give one for every row, or none at all"
            raise RequestError(message)
        bounds = pc.min_max(pc.binary_length(column))
        if not 0 < bounds["min"].as_py() <= bounds["max"].as_py() <= LONGEST:
            for one in as_list(ids):
                checked_event_id(one)
    return ids


class Addressed(NamedTuple):
    """Rows as columns, sorted by the store's key for them; of one key in the order in which they came."""

    addresses: list[bytes]
    stored: list[bytes]
    event_ids: Bytes


def addressed(
    keys: Keys,
    event_micros: np.ndarray[Any, Any],
    created_micros: np.ndarray[Any, Any],
    payloads: Bytes,
    *,
    event_ids: Bytes | None = None,
    prefix: bytes,
    longest: int,
) -> Addressed | None:
    """The same rows as columns; None where there are none, they are too large, or a key is too long for the store."""
    ids = _checked_columns(keys, event_micros, created_micros, payloads, event_ids)
    if not len(keys):
        return None
    if event_ids is not None:
        return _addressed_by_arrow(keys, event_micros, created_micros, payloads, ids, prefix, longest)
    encoded = _encoded(keys)
    if len(prefix) + max(map(len, encoded)) > longest:
        return None
    # Row by row, so that long payloads, which are mostly vectors, are held once.
    headers = as_list(headers_of(event_micros, created_micros, [0] * len(ids)))
    stored = [header + payload for header, payload in zip(headers, as_list(payloads), strict=True)]
    addresses = [prefix + one for one in encoded]
    if len(addresses) == 1:
        return Addressed(addresses, stored, ids)
    in_order = itemgetter(*sorted(range(len(encoded)), key=encoded.__getitem__))
    return Addressed(list(in_order(addresses)), list(in_order(stored)), ids)


def _addressed_by_arrow(
    keys: Keys,
    event_micros: np.ndarray[Any, Any],
    created_micros: np.ndarray[Any, Any],
    payloads: Bytes,
    event_ids: Bytes,
    prefix: bytes,
    longest: int,
) -> Addressed | None:
    size = payloads.nbytes if isinstance(payloads, pa.Array) else sum(map(len, payloads))
    if size > _LARGEST_COLUMN:
        return None
    ids = as_column(event_ids)
    addresses = joined(prefix, as_column(keys if isinstance(keys, pa.Array) else encode_keys(keys)))
    if pc.max(pc.binary_length(addresses)).as_py() > longest:
        return None
    headers = headers_of(event_micros, created_micros, pc.binary_length(ids).to_numpy())
    order = pc.sort_indices(addresses)  # a stable one
    stored = joined(headers, ids, as_column(payloads)).take(order)
    return Addressed(as_list(addresses.take(order)), as_list(stored), ids.take(order))


def slices(stored: Sequence[bytes]) -> Iterator[slice]:
    """Where to cut rows into batches within BATCH_ROWS and BATCH_BYTES."""
    sizes = np.fromiter(map(len, stored), np.int64, len(stored))
    return cuts(sizes, rows=BATCH_ROWS, size=BATCH_BYTES)


def _delivery(prefix: bytes, key: bytes, stored: bytes, longest: int, event_id: bytes | None) -> Delivery:
    address = prefix + key
    if len(address) <= longest:
        return Delivery(address, stored, event_id)
    return Delivery(hashed_key(prefix, key), encode_row(decode_row(stored), key=key), event_id)
