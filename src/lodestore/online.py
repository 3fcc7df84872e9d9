"""Online rows: what an online store keeps, how it is written as bytes, and which of two rows wins.

A row is the newest known state of one key in one namespace. A namespace is a view and its version
(`user_profile@1`) or one embedding of it. Every adapter stores the bytes that `encode_row` makes and
decides by `settle`, or by the same rule where the server decides.

Layout of a stored row, all numbers big-endian:

    1 byte    schema, now 1
    16 bytes  event and created timestamp, microseconds UTC, each with its sign bit flipped,
              so that the later row has the greater bytes
    2 bytes   length of the event id, 0 for none
    2 bytes   length of the key, 0 when the store's own key says it
    then      event id, key, payload

A payload is a JSON object of feature values after one byte; timestamps and vectors, which JSON cannot
tell apart from numbers and lists, have their own part.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.bulk import Bytes, as_column, as_list, fixed_column, joined, json_column, json_objects, pieces
from lodestore.errors import BadVectorError, DamagedRowError, RequestError, SchemaVersionError, StoreError
from lodestore.spec import Feature, Kind

__all__ = [
    "BATCH_BYTES",
    "BATCH_ROWS",
    "SCHEMES",
    "STAMP",
    "Addressed",
    "Delivery",
    "JournalEntry",
    "Key",
    "Keys",
    "OnlineRow",
    "OnlineStore",
    "Settled",
    "Status",
    "Written",
    "addressed",
    "batches",
    "decode_key",
    "decode_payload",
    "decode_payloads",
    "decode_row",
    "deliveries",
    "deliveries_of_columns",
    "encode_batch",
    "encode_columns",
    "encode_key",
    "encode_key_columns",
    "encode_keys",
    "encode_payload",
    "encode_row",
    "encode_rows",
    "encode_texts",
    "encode_values",
    "hashed_key",
    "key_within",
    "mark_key",
    "micros_of",
    "moment_of",
    "namespace_prefix",
    "settle",
    "slices",
    "time_and_payload",
    "time_and_values",
    "times_and_payloads",
]

Key: TypeAlias = tuple[str | int, ...]
"""The values of a row's join keys, in the entity's order. 42 and "42" are different keys."""

Keys: TypeAlias = Sequence[Key] | pa.Array
"""The keys of many rows, or an Arrow column of type `binary` with the encoded ones."""

BATCH_ROWS: Final = 1_000
BATCH_BYTES: Final = 1 << 20
"""The most that one transaction writes: with either limit it holds the writer lock for some 10 ms."""

SCHEMES: Final = ("redis://", "rediss://", "valkey://", "valkeys://")
"""How the address of an online store on a server begins."""

STAMP: Final = slice(1, 17)
"""Where a stored row carries its timestamps; comparing these bytes compares the times."""

_SCHEMA: Final = 1
_HEADER: Final = struct.Struct(">BQQHH")
_HEADER_SIZE: Final = _HEADER.size
_EVENT: Final = struct.Struct(">BQ8xI").unpack_from  # of the header: schema, event, and both lengths as one
_AFTER_HEADER: Final = itemgetter(slice(_HEADER_SIZE, None))
_HEADER_COLUMNS: Final = np.dtype(
    [("schema", "u1"), ("event", ">u8"), ("created", ">u8"), ("event_id", ">u2"), ("key", ">u2")]
)
_SIGN: Final = 1 << 63
_LONGEST: Final = 65_535
_FEW: Final = 4  # keys, up to which they are encoded one by one
_LONGEST_NAMESPACE: Final = 255
_SHOWN: Final = 200
_INTEGER, _STRING = 1, 2
_INTEGER_PART: Final = struct.Struct(">BQ")
_PLAIN, _EXTENDED = 1, 2
_VECTORS_ALONE: Final = b"[{},{},{"  # how the head of a row begins that holds nothing but vectors
_HEAD_LENGTH: Final = struct.Struct(">BI")
_HEAD_SIZE: Final = _HEAD_LENGTH.size
_MANY: Final = 4  # rows from which on reading them as one text is quicker
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_JSON_KINDS: Final = frozenset({Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN, Kind.CATEGORY, Kind.TEXT, Kind.PROMPT})
_STRICT: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


class Status(enum.StrEnum):
    """What an online value is, or why there is none. All but PRESENT come with a null."""

    PRESENT = "PRESENT"
    NULL = "NULL"
    NOT_FOUND = "NOT_FOUND"
    EXPIRED = "EXPIRED"
    OTHER_VERSION = "OTHER_VERSION"
    UNAVAILABLE = "UNAVAILABLE"


class OnlineRow(NamedTuple):
    """The state of one key: when it became true, when it was made, by which event, and its encoded values."""

    event_micros: int
    created_micros: int
    payload: bytes
    event_id: bytes | None = None


_MADE: Final = tuple.__new__


class JournalEntry(NamedTuple):
    """A pushed row that still has to go offline. Sequences only grow, also after an empty journal."""

    sequence: int
    namespace: str
    key: Key
    row: OnlineRow


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the rows of one write; the three numbers add up to the rows given."""

    accepted: int = 0
    duplicates: int = 0
    late: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(self.accepted + other.accepted, self.duplicates + other.duplicates, self.late + other.late)


class OnlineStore(Protocol):
    """The newest row of every key, a journal of pushed rows, and a few marks.

    `write` is the rule for events: an older row than the stored one is late and changes nothing, an event id
    that its namespace has seen is a duplicate and not even journalled; otherwise the row is visible to the next
    read of every process. With `journal`, row and journal entry become durable together. Rows are taken in
    batches of at most BATCH_ROWS; an error leaves earlier batches written, and a repeat is safe.

    `write_columns` is `write` for many rows at once, and without event ids for whole states that are computed
    elsewhere. Of more than BATCH_ROWS rows the event ids may be remembered after the rows are stored: what dies in
    between was never acknowledged, and its repeat changes nothing. `drop` removes a namespace's rows; event ids
    stay until `forget_events`.
    """

    def fetch(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The stored rows of these encoded keys, in order, duplicates included; all from one moment."""

    def read(self, namespace: str, keys: Sequence[Key]) -> list[OnlineRow | None]:
        """The same with keys and rows as Python has them."""

    def write(self, namespace: str, rows: Iterable[tuple[Key, OnlineRow]], *, journal: bool = False) -> Written:
        """Every row is stored, late or a duplicate."""

    def change(
        self, namespace: str, key: Key, make: Callable[[OnlineRow | None], OnlineRow], *, journal: bool = True
    ) -> bool:
        """What `make` gives for the stored row is stored in its place; False for a known event id.

        Nobody changes the row in between, so that counting up loses no count. `make` is quick, and may be
        called more than once.
        """

    def write_columns(
        self,
        namespace: str,
        keys: Keys,
        event_micros: np.ndarray[Any, Any],
        created_micros: np.ndarray[Any, Any],
        payloads: Bytes,
        *,
        event_ids: Bytes | None = None,
        journal: bool = False,
    ) -> Written:
        """Every row is stored, late or, with event ids, a duplicate."""

    def journal_read(self, limit: int) -> list[JournalEntry]:
        """The oldest entries, by sequence."""

    def journal_ack(self, up_to_sequence: int) -> None:
        """Entries up to and with that sequence are gone."""

    def journal_size(self) -> int:
        """How many entries wait."""

    def forget_events(self, before_micros: int) -> int:
        """Event ids of events before that time are forgotten; how many there were."""

    def delete(self, namespace: str, keys: Sequence[Key]) -> int:
        """These keys have no row; how many had one."""

    def drop(self, namespace: str) -> int:
        """The namespace has no rows; how many it had."""

    def namespaces(self) -> list[str]:
        """Every namespace that has a row, sorted."""

    def count(self, namespace: str) -> int:
        """How many keys have a row."""

    def scan(self, namespace: str) -> Iterator[tuple[Key, OnlineRow]]:
        """Every row that stays during the scan, once, in no promised order."""

    def get_meta(self, key: str) -> bytes | None:
        """The mark of that name, None when nobody set it."""

    def set_meta(self, key: str, value: bytes) -> None:
        """The mark has that value."""

    def ping(self) -> None:
        """The store answers; otherwise StoreError or UnavailableError."""

    def close(self) -> None:
        """This handle is closed; closing twice does no harm."""


# Keys and namespaces


@lru_cache(maxsize=1_024)
def namespace_prefix(namespace: str) -> bytes:
    r"""The bytes that all keys of a namespace begin with, and no others.

    >>> namespace_prefix("user_profile@1")
    b'user_profile@1\x00'
    """
    encoded = namespace.encode("utf-8", "surrogatepass")
    if not 0 < len(encoded) <= _LONGEST_NAMESPACE or b"\0" in encoded:
        message = f"namespace {namespace!r}: a namespace has 1 to {_LONGEST_NAMESPACE} bytes and no zero character"
        raise RequestError(message)
    return encoded + b"\0"


def encode_key(key: Key) -> bytes:
    r"""The key as bytes: different keys never share theirs, and their order is that of the values.

    >>> encode_key(("u1",))
    b'\x02u1\x00'
    >>> encode_key((7,)) < encode_key((42,)) < encode_key(("42",))
    True
    """
    encoded = _encode_part(key[0]) if len(key) == 1 else b"".join([_encode_part(part) for part in key])
    if not 0 < len(encoded) <= _LONGEST:
        message = f"join key of {len(encoded)} bytes: it has 1 to {_LONGEST:,}; use a shorter id, such as a hash"
        raise RequestError(message)
    return encoded


def _encode_part(part: str | int) -> bytes:
    try:
        if isinstance(part, str):
            return b"\x02%b\x00" % part.encode().replace(b"\0", b"\0\xff")
        if isinstance(part, int) and not isinstance(part, bool):
            return _INTEGER_PART.pack(_INTEGER, part + _SIGN)
    except (UnicodeEncodeError, struct.error) as error:
        message = f"join key value {part!r} is neither valid text nor an integer of 64 bits"
        raise RequestError(message) from error
    message = f"join key value {part!r} is {type(part).__name__}; give text or an integer"
    raise RequestError(message)


def decode_key(encoded: bytes) -> Key:
    r"""The key of these bytes.

    >>> decode_key(encode_key(("a\0b", -3)))
    ('a\x00b', -3)
    """
    parts: list[str | int] = []
    at = 0
    while at < len(encoded):
        tag = encoded[at]
        if tag == _INTEGER:
            parts.append(int.from_bytes(encoded[at + 1 : at + 9], "big") - _SIGN)
            at += 9
        elif tag == _STRING:
            end = _end_of_text(encoded, at + 1)
            parts.append(encoded[at + 1 : end].replace(b"\0\xff", b"\0").decode())
            at = end + 1
        else:
            message = f"stored key {encoded!r}: unknown tag {tag}; the online store is damaged, rebuild it"
            raise StoreError(message)
    return tuple(parts)


def _end_of_text(encoded: bytes, start: int) -> int:
    end = encoded.index(b"\0", start)
    while encoded[end + 1 : end + 2] == b"\xff":
        end = encoded.index(b"\0", end + 2)
    return end


def mark_key(name: str) -> bytes:
    """The name of a mark as bytes, the same in every store."""
    encoded = name.encode("utf-8", "surrogatepass")
    if not 0 < len(encoded) <= _LONGEST_NAMESPACE or b"\0" in encoded:
        message = f"mark {name!r}: its name has 1 to {_LONGEST_NAMESPACE} bytes and no zero character"
        raise RequestError(message)
    return encoded


# Rows


def encode_row(row: OnlineRow, *, key: bytes = b"") -> bytes:
    """The row as stored bytes; `key` goes in where the store's own key is only a hash of it."""
    event_id = _checked_event_id(row.event_id)
    try:
        header = _HEADER.pack(_SCHEMA, row.event_micros + _SIGN, row.created_micros + _SIGN, len(event_id), len(key))
    except struct.error as error:
        message = f"timestamps {row.event_micros}, {row.created_micros}: not microseconds of 64 bits"
        raise RequestError(message) from error
    return header + event_id + key + row.payload


def _checked_event_id(event_id: bytes | None) -> bytes:
    if event_id is None:
        return b""
    if not 0 < len(event_id) <= _LONGEST:
        message = f"event id of {len(event_id)} bytes: it has 1 to {_LONGEST:,}, or is left out"
        raise RequestError(message)
    return event_id


def decode_row(stored: bytes) -> OnlineRow:
    """The row of stored bytes; bytes of another schema are a SchemaVersionError, cut ones a StoreError."""
    if len(stored) < _HEADER_SIZE or stored[0] != _SCHEMA:
        _header(stored)  # tells what is wrong
    _, event, created, id_length, key_length = _HEADER.unpack_from(stored)
    if not id_length and not key_length:  # as materialised rows are; made in the way that costs the least
        return _MADE(OnlineRow, (event - _SIGN, created - _SIGN, stored[_HEADER_SIZE:], None))
    payload_at = _HEADER_SIZE + id_length + key_length
    event_id = stored[_HEADER_SIZE : _HEADER_SIZE + id_length] if id_length else None
    return OnlineRow(event - _SIGN, created - _SIGN, stored[payload_at:], event_id)


def time_and_payload(stored: bytes) -> tuple[int, bytes]:
    """When the event of a stored row happened, and its values as bytes: all that an answer needs of it."""
    if len(stored) < _HEADER_SIZE or stored[0] != _SCHEMA:
        _header(stored)  # tells what is wrong
    _, event, lengths = _EVENT(stored)
    return event - _SIGN, stored[_HEADER_SIZE + (lengths >> 16) + (lengths & _LONGEST) if lengths else _HEADER_SIZE :]


def time_and_values(stored: bytes, oldest: int) -> tuple[int, dict[str, Any] | None]:
    """When the event of a stored row happened, and its values, None when that was before `oldest`."""
    if len(stored) <= _HEADER_SIZE or stored[0] != _SCHEMA:
        time_and_payload(stored)  # tells what is wrong, unless it is the values
    _, event, lengths = _EVENT(stored)
    micros, start = event - _SIGN, _HEADER_SIZE
    if micros < oldest:
        return micros, None
    if lengths:
        start += (lengths >> 16) + (lengths & _LONGEST)
    return micros, decode_payload(stored[start:])


def times_and_payloads(stored: Sequence[bytes | None]) -> tuple[list[int], list[bytes]] | None:
    """The same for many rows, a column at a time; None where one is absent or cut, so that each is looked at."""
    rows = cast("Sequence[bytes]", stored)
    try:
        schemas, events, lengths = zip(*map(_EVENT, rows), strict=False)  # three each
    except (TypeError, ValueError, struct.error):  # one is absent or cut, or there is none
        return None
    if schemas.count(_SCHEMA) != len(stored) or not stored:
        return None
    if not any(lengths):
        payloads = [*map(_AFTER_HEADER, rows)]
    else:
        starts = [_HEADER_SIZE + (one >> 16) + (one & _LONGEST) for one in lengths]
        payloads = [one[start:] for one, start in zip(rows, starts, strict=True)]
    return [event - _SIGN for event in events], payloads


def key_within(stored: bytes) -> bytes:
    """The key that the row itself carries; empty when the store's own key says it."""
    _, _, id_length, key_length = _header(stored)
    key_at = _HEADER.size + id_length
    return stored[key_at : key_at + key_length]


def _header(stored: bytes) -> tuple[int, int, int, int]:
    try:
        schema, event, created, id_length, key_length = _HEADER.unpack_from(stored)
    except struct.error as error:
        message = f"stored row of {len(stored)} bytes is cut; the online store is damaged, rebuild it"
        raise DamagedRowError(message) from error
    if schema != _SCHEMA:
        message = f"stored row of schema {schema}, this version reads {_SCHEMA}; rebuild the online store"
        raise SchemaVersionError(message)
    return event, created, id_length, key_length


# Which row wins


class Delivery(NamedTuple):
    """A row on its way into a store: the store's key for it, its stored bytes, its event id."""

    key: bytes
    stored: bytes
    event_id: bytes | None = None


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


# Payloads


def moment_of(micros: int) -> datetime:
    """The moment that many microseconds after 1970, in UTC.

    >>> moment_of(1_500_000).isoformat()
    '1970-01-01T00:00:01.500000+00:00'
    """
    return _EPOCH + timedelta(0, 0, micros)


def micros_of(moment: datetime) -> int:
    """The microseconds from 1970 to the moment, which has a zone."""
    return (moment - _EPOCH) // _MICROSECOND


def _micros_of(moment: datetime, name: str) -> int:
    if moment.tzinfo is None:
        message = f"feature {name!r}: {moment.isoformat()} has no zone; add one, such as +00:00"
        raise RequestError(message)
    return micros_of(moment)


def encode_payload(values: Mapping[str, object]) -> bytes:
    """The feature values as bytes that `decode_payload` turns back.

    Values are None, str, int of 64 bits, finite float, bool, aware datetime, a list of these, a JSON object, or a
    numpy vector, which is kept as float32. NaN is null, as everywhere; an infinite number is an error.
    """
    plain: dict[str, object] = {}
    stamps: dict[str, object] = {}
    vectors: dict[str, np.ndarray[Any, Any]] = {}
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            vectors[name] = _vector(value, name)
        elif isinstance(value, datetime):
            stamps[name] = _micros_of(value, name)
        elif isinstance(value, list | tuple) and any(isinstance(one, datetime) for one in value):
            stamps[name] = [None if one is None else _micros_of(one, name) for one in value]
        else:
            _refuse_infinite(value, name)
            plain[name] = value
    if not stamps and not vectors:
        return b"\x01" + _json(plain)
    sizes = {name: vector.size for name, vector in vectors.items()}
    return _extended(plain, stamps, sizes) + b"".join([vector.tobytes() for vector in vectors.values()])


def _extended(plain: object, stamps: object, sizes: object) -> bytes:
    head = _json((plain, stamps, sizes))
    head += b" " * (-(len(head) + _HEAD_LENGTH.size) % 4)  # vectors then begin on a multiple of four bytes
    return _HEAD_LENGTH.pack(_EXTENDED, len(head)) + head


def _extended_by_sizes(plain: object, stamps: object, sizes: Mapping[str, int | None]) -> bytes:
    del plain, stamps
    return _head_of(tuple(sizes.items()))


@lru_cache(maxsize=64)
def _head_of(sizes: tuple[tuple[str, int | None], ...]) -> bytes:
    return _extended({}, {}, dict(sizes))


def _json(values: object) -> bytes:
    try:
        return orjson.dumps(values, option=_STRICT)
    except orjson.JSONEncodeError as error:
        message = f"feature values {_shortened(values)}: not storable: {error}"
        raise RequestError(message) from error


def _shortened(values: object) -> str:
    text = repr(values)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _vector(value: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    if value.ndim != 1 or value.dtype.kind not in "fiu":
        message = f"feature {name!r}: an array of shape {value.shape} and type {value.dtype} is not a vector of numbers"
        raise BadVectorError(message)
    return value.astype("<f4", copy=False)


def _refuse_infinite(value: object, name: str) -> None:
    if isinstance(value, float) and math.isinf(value):
        message = f"feature {name!r}: {value} is not a finite number"
        raise RequestError(message)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            _refuse_infinite(one, name)


def decode_payload(payload: bytes) -> dict[str, Any]:
    """The feature values by name; timestamps are aware datetimes in UTC, vectors read-only float32 arrays."""
    try:
        if payload[0] == _PLAIN:
            return orjson.loads(payload[1:])
        if payload[0] == _EXTENDED:
            return _decode_extended(payload)
    except (ValueError, IndexError, struct.error) as error:
        message = f"stored values of {len(payload)} bytes cannot be read ({error}); rebuild the online store"
        raise DamagedRowError(message) from error
    message = f"stored values of schema {payload[0]}, this version reads 1 and 2; rebuild the online store"
    raise SchemaVersionError(message)


def _decode_extended(payload: bytes) -> dict[str, Any]:
    _, length = _HEAD_LENGTH.unpack_from(payload)
    at = _HEAD_SIZE + length
    head = payload[_HEAD_SIZE:at]
    if head.startswith(_VECTORS_ALONE):  # as all rows of an embedding feature are: they share one head
        return _vectors_in(payload, at, _sizes_in(head))
    return _with_parts(orjson.loads(head), payload, at)


def _with_parts(head: list[dict[str, Any]], payload: bytes, at: int) -> dict[str, Any]:
    """The values of a head, with the timestamps and vectors that it describes; the latter begin at `at`."""
    values, stamps, sizes = head
    for name, micros in stamps.items():
        if micros is not None:
            values[name] = [_moment(one) for one in micros] if isinstance(micros, list) else moment_of(micros)
        else:
            values[name] = None
    if sizes:
        values.update(_vectors_in(payload, at, tuple(sizes.items())))
    return values


def _vectors_in(payload: bytes, at: int, sizes: tuple[tuple[str, int | None], ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, size in sizes:
        values[name] = None if size is None else np.frombuffer(payload, "<f4", size, at)
        at += 4 * (size or 0)
    return values


def decode_payloads(payloads: Sequence[bytes]) -> list[dict[str, Any]]:
    """What `decode_payload` gives for each; many are read as one text, which costs less than half."""
    if len(payloads) >= _MANY:
        try:
            found = _decoded_at_once(payloads)
        except (ValueError, IndexError, struct.error):
            found = []  # a damaged one is among them: read one by one, it is told
        if len(found) == len(payloads):
            return found
    return [decode_payload(one) for one in payloads]


def _decoded_at_once(payloads: Sequence[bytes]) -> list[dict[str, Any]]:
    """What all of them hold, where they are of one kind; otherwise nothing."""
    if payloads[0][0] == _PLAIN:
        # No JSON has a byte below the space, so that this one is only where a row begins.
        whole = b",".join(payloads)
        plain: list[dict[str, Any]] = orjson.loads(b"[%b]" % whole.replace(b"\x01", b""))
        return plain if whole.count(b"\x01") == len(payloads) else []
    if {one[0] for one in payloads} != {_EXTENDED}:
        return []
    if payloads[0].startswith(_VECTORS_ALONE, _HEAD_SIZE):
        return _matrix_rows(payloads)
    ends = [_HEAD_SIZE + _HEAD_LENGTH.unpack_from(one)[1] for one in payloads]
    heads = [one[_HEAD_SIZE:end] for one, end in zip(payloads, ends, strict=True)]
    parsed = orjson.loads(b"[%b]" % b",".join(heads))
    return [_with_parts(head, one, end) for head, one, end in zip(parsed, payloads, ends, strict=True)]


def _matrix_rows(payloads: Sequence[bytes]) -> list[dict[str, Any]]:
    """The rows of one feature's vectors, all of one length, cut from one matrix; otherwise nothing."""
    first = payloads[0]
    at = _HEAD_SIZE + _HEAD_LENGTH.unpack_from(first)[1]
    (name, size), *more = _sizes_in(first[_HEAD_SIZE:at])
    head, length = first[:at], len(first)
    if more or not size or not all(len(one) == length and one.startswith(head) for one in payloads):
        return []
    numbers = np.frombuffer(b"".join([one[at:] for one in payloads]), "<f4")
    return [{name: row} for row in numbers.reshape(len(payloads), size)]


@lru_cache(maxsize=64)
def _sizes_in(head: bytes) -> tuple[tuple[str, int | None], ...]:
    return tuple(orjson.loads(head)[2].items())


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else moment_of(micros)


# Whole columns


def encode_columns(table: pa.Table, features: Sequence[Feature]) -> list[bytes]:
    """One payload for each row of the table, from its columns of those names.

    Vectors are fixed-size lists; timestamps without a zone are UTC; structs and lists may come as JSON text.
    """
    missing = [one.name for one in features if one.name not in table.column_names]
    if missing:
        message = f"table has no columns {missing}; it has {table.column_names}"
        raise RequestError(message)
    chosen = table.select([one.name for one in features])
    payloads: list[bytes] = []
    for batch in chosen.to_batches(max_chunksize=8_192) if _holds_vectors(chosen) else pieces(chosen):
        payloads.extend(as_list(encode_batch(batch, features)))
    return payloads


def _holds_vectors(table: pa.Table) -> bool:
    return any(pa.types.is_fixed_size_list(one.type) for one in table.schema)


def encode_rows(columns: Mapping[str, list[Any]], features: Sequence[Feature], *, rows: int) -> list[bytes]:
    """The same payloads from Python columns; a struct is JSON text."""
    if all(one.kind in _JSON_KINDS for one in features) and all(
        math.isfinite(one)
        for feature in features
        if feature.kind is Kind.NUMBER
        for one in columns[feature.name]
        if one
    ):
        return [b"\x01" + _json(one) for one in _records(columns, rows)]
    objects = [one for one in features if one.kind is Kind.STRUCT]
    if objects:
        parsed = {one.name: [_parsed(text, one.name) for text in columns[one.name]] for one in objects}
        columns = {**columns, **parsed}
    return [encode_payload(one) for one in _records(columns, rows)]


def encode_batch(batch: pa.RecordBatch, features: Sequence[Feature]) -> Bytes:
    """The same for one batch, one of `pieces` or smaller."""
    columns = {one.name: batch.column(one.name) for one in features}
    vectors = {name: one for name, one in columns.items() if pa.types.is_fixed_size_list(one.type)}
    stamps = {name: one for name, one in columns.items() if _holds_timestamps(one.type)}
    if columns and not vectors and not stamps and not any(map(_holds_objects, features)):
        for name, column in columns.items():
            _refuse_infinities(column, name)
        return json_objects({name: json_column(one) for name, one in columns.items()}, before=b"\x01{")
    plain = {one.name: _values(columns[one.name], one) for one in features if one.name not in vectors | stamps}
    if vectors and not plain and not stamps and not any(one.null_count for one in vectors.values()):
        return _vector_rows(vectors, batch.num_rows)
    rows = _records(plain, batch.num_rows)
    if not vectors and not stamps:
        return [b"\x01" + _json(row) for row in rows]
    moments = _records({name: _micros_column(one) for name, one in stamps.items()}, batch.num_rows)
    return _with_vectors(rows, moments, vectors)


def _refuse_infinities(column: pa.Array, name: str) -> None:
    if pa.types.is_floating(column.type) and pc.any(pc.is_inf(column)).as_py():
        _refuse_infinite(column.to_pylist(), name)


def _holds_objects(feature: Feature) -> bool:
    return feature.kind in {Kind.STRUCT, Kind.LIST}


def _holds_timestamps(of: pa.DataType) -> bool:
    inner = of.value_type if pa.types.is_list(of) or pa.types.is_large_list(of) else of
    return bool(pa.types.is_timestamp(inner))


def _records(columns: Mapping[str, list[Any]], rows: int) -> list[dict[str, Any]]:
    if not columns:
        return [{}] * rows
    names = tuple(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _with_vectors(
    rows: list[dict[str, Any]], moments: list[dict[str, Any]], vectors: Mapping[str, pa.Array]
) -> list[bytes]:
    raws = [_raw_vectors(column, name) for name, column in vectors.items()]
    sizes = _records(
        {
            name: [None if raw is None else column.type.list_size for raw in raw_column]
            for (name, column), raw_column in zip(vectors.items(), raws, strict=True)
        },
        len(rows),
    )
    # Rows with nothing but vectors have one head for each way in which some of these are null.
    extended = _extended if any(rows) or any(moments) else _extended_by_sizes
    heads = map(extended, rows, moments, sizes)
    tails = zip(*raws, strict=True) if raws else [()] * len(rows)
    return [b"".join((head, *(raw or b"" for raw in tail))) for head, tail in zip(heads, tails, strict=True)]


def _raw_vectors(column: pa.Array, name: str) -> list[memoryview | None]:
    """The bytes of each vector, cut from the one buffer that holds them all."""
    buffer = _numbers_of(column, name).data.cast("B")
    width = 4 * column.type.list_size
    valid = column.is_valid().to_numpy(zero_copy_only=False).tolist()
    return [buffer[at * width : (at + 1) * width] if there else None for at, there in enumerate(valid)]


def _numbers_of(column: pa.Array, name: str) -> np.ndarray[Any, Any]:
    """The numbers of all vectors, one after the other; those of a vector that is null are anything."""
    if column.flatten().null_count:
        message = f"feature {name!r}: a vector has a null in it"
        raise BadVectorError(message)
    size = column.type.list_size
    values = column.values.slice(column.offset * size, len(column) * size)
    filled = values.fill_null(0) if values.null_count else values
    return np.asarray(filled.cast(pa.float32()).to_numpy().astype("<f4", copy=False))


def _vector_rows(vectors: Mapping[str, pa.Array], rows: int) -> list[bytes]:
    """Rows of nothing but vectors, all of them there: one head for all, then the numbers, cut apart in one step."""
    head = _head_of(tuple((name, column.type.list_size) for name, column in vectors.items()))
    parts = [np.broadcast_to(np.frombuffer(head, np.uint8), (rows, len(head)))]
    parts += [_numbers_of(column, name).view(np.uint8).reshape(rows, -1) for name, column in vectors.items()]
    whole = np.concatenate(parts, axis=1)
    return cast("list[bytes]", whole.view(np.dtype((np.void, whole.shape[1]))).ravel().tolist())


def _micros_column(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        return _values(column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()))
    micros = pa.timestamp("us", column.type.value_type.tz)
    return column.cast(pa.list_(micros), safe=False).cast(pa.list_(pa.int64())).to_pylist()


def _values(column: pa.Array, feature: Feature | None = None) -> list[Any]:
    """The column as Python values; numbers and text by way of numpy, which is several times faster."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values = column.to_pylist() if pa.types.is_nested(column.type) else _flat_values(column)
    if feature is None:
        return values
    _refuse_infinities(column, feature.name)
    if pa.types.is_nested(column.type):
        _refuse_infinite(values, feature.name)
    if feature.kind in {Kind.STRUCT, Kind.LIST} and not pa.types.is_nested(column.type):
        return [_parsed(one, feature.name) for one in values]
    return values


def _flat_values(column: pa.Array) -> list[Any]:
    if not column.null_count:
        return column.to_numpy(zero_copy_only=False).tolist()
    filled = column.fill_null(False if pa.types.is_boolean(column.type) else 0) if _is_number(column.type) else column
    values = filled.to_numpy(zero_copy_only=False).tolist()
    for at in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
        values[at] = None
    return values


def _is_number(of: pa.DataType) -> bool:
    return bool(pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_boolean(of))


def _parsed(text: str | None, name: str) -> object:
    if text is None:
        return None
    try:
        return orjson.loads(text)
    except ValueError as error:
        message = f"feature {name!r}: {_shortened(text)} is not JSON: {error}"
        raise RequestError(message) from error


# From rows to deliveries


def hashed_key(prefix: bytes, key: bytes) -> bytes:
    """The store's key for a key that is too long for it; the row then carries the key itself."""
    return prefix + b"\x03" + sha256(key).digest()


def deliveries(
    rows: Iterable[tuple[Key, OnlineRow]], *, prefix: bytes = b"", longest: int = _LONGEST * 2
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
    longest: int = _LONGEST * 2,
) -> Iterator[Delivery]:
    """The rows as a store takes them, sorted by key, made one by one so that the payloads are not held twice."""
    values = as_list(payloads) if isinstance(payloads, pa.Array) else payloads
    ids = as_list(_checked_columns(keys, event_micros, created_micros, values, event_ids))
    headers = _headers(event_micros, created_micros, [*map(len, ids)])
    encoded = _encoded(keys)
    width = _HEADER.size
    return (
        _delivery(
            prefix,
            encoded[at],
            headers[at * width : (at + 1) * width] + ids[at] + values[at],
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
        bounds = pc.min_max(pc.binary_length(as_column(ids)))
        if not 0 < bounds["min"].as_py() <= bounds["max"].as_py() <= _LONGEST:
            for one in as_list(ids):
                _checked_event_id(one)
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
    """The same rows as columns; None where there are none or a key is too long for the store."""
    ids = _checked_columns(keys, event_micros, created_micros, payloads, event_ids)
    if not len(keys):
        return None
    if event_ids is not None:
        return _addressed_by_arrow(keys, event_micros, created_micros, payloads, ids, prefix, longest)
    encoded = _encoded(keys)
    if len(prefix) + max(map(len, encoded)) > longest:
        return None
    # Row by row, so that long payloads, which are mostly vectors, are held once.
    headers = _split(_headers(event_micros, created_micros, [0] * len(ids)))
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
    ids = as_column(event_ids)
    addresses = joined(prefix, as_column(keys if isinstance(keys, pa.Array) else encode_keys(keys)))
    if pc.max(pc.binary_length(addresses)).as_py() > longest:
        return None
    headers = fixed_column(_headers(event_micros, created_micros, pc.binary_length(ids).to_numpy()), _HEADER_SIZE)
    order = pc.sort_indices(addresses)  # a stable one
    stored = joined(headers, ids, as_column(payloads)).take(order)
    return Addressed(as_list(addresses.take(order)), as_list(stored), ids.take(order))


def _split(headers: bytes) -> list[bytes]:
    """The header of each row, cut apart in one step."""
    pieces: list[bytes] = np.frombuffer(headers, np.dtype((np.void, _HEADER_SIZE))).tolist()
    return pieces


def encode_key_columns(columns: Sequence[pa.Array]) -> pa.Array:
    """The keys whose parts are these columns, texts or integers without nulls, as `encode_key` makes them."""
    parts = [_encoded_part(one) for one in columns]
    if any(one is None for one in parts):
        return pa.array(encode_keys([*zip(*(one.to_pylist() for one in columns), strict=True)]), pa.binary())
    return parts[0] if len(parts) == 1 else joined(*parts)


def _encoded_part(column: pa.Array) -> pa.Array | None:
    """One part of each key; None for texts that have zeros."""
    if pa.types.is_integer(column.type):
        parts = np.empty(len(column), np.dtype([("tag", "u1"), ("value", ">u8")]))
        parts["tag"] = _INTEGER
        parts["value"] = column.to_numpy().astype(np.int64).view(np.uint64) ^ np.uint64(_SIGN)
        return fixed_column(parts.tobytes(), parts.itemsize)
    texts = column.cast(pa.string()).cast(pa.binary())
    if pc.any(pc.match_substring(texts, b"\0")).as_py():
        return None
    return joined(b"\x02", texts, b"\0")


def encode_keys(keys: Sequence[Key]) -> list[bytes]:
    """Every key as `encode_key` makes it."""
    if {*map(len, keys)} == {1}:
        return encode_values([key[0] for key in keys])
    return [encode_key(key) for key in keys]


def encode_values(values: Sequence[str | int]) -> list[bytes]:
    """Keys of one value each, as `encode_key` makes them."""
    texts = encode_texts(values) if len(values) > _FEW else None
    return [encode_key((value,)) for value in values] if texts is None else texts


def encode_texts(values: Sequence[str | int]) -> list[bytes] | None:
    """The same for texts alone, in one step; None where one is no text, holds a zero, is not valid or too long."""
    try:
        text = "\0\0\x02".join(values)  # type: ignore[arg-type]  # told by the error
        whole = b"\x02%b\0" % text.encode()
    except (TypeError, UnicodeEncodeError):
        return None
    if text.count("\0") != 2 * (len(values) - 1):
        return None
    if len(values) == 1:
        return [whole] if len(whole) <= _LONGEST else None
    # No UTF-8 has the byte 255, so that it can stand between two keys.
    encoded = whole.replace(b"\0\0\x02", b"\0\xff\x02").split(b"\xff")
    return encoded if len(whole) <= _LONGEST or max(map(len, encoded)) <= _LONGEST else None


def slices(stored: Sequence[bytes]) -> Iterator[slice]:
    """Where to cut rows into batches within BATCH_ROWS and BATCH_BYTES."""
    ends, start, before = np.cumsum(np.fromiter(map(len, stored), np.int64, len(stored))), 0, 0
    while start < len(stored):
        within = int(np.searchsorted(ends, before + BATCH_BYTES, side="right"))
        stop = min(max(within, start + 1), start + BATCH_ROWS)
        yield slice(start, stop)
        start, before = stop, int(ends[stop - 1])


def _delivery(prefix: bytes, key: bytes, stored: bytes, longest: int, event_id: bytes | None) -> Delivery:
    address = prefix + key
    if len(address) <= longest:
        return Delivery(address, stored, event_id)
    return Delivery(hashed_key(prefix, key), encode_row(decode_row(stored), key=key), event_id)


def _headers(
    event_micros: np.ndarray[Any, Any],
    created_micros: np.ndarray[Any, Any],
    id_lengths: Any,  # noqa: ANN401 - numbers
) -> bytes:
    headers = np.zeros(len(event_micros), dtype=_HEADER_COLUMNS)
    headers["schema"] = _SCHEMA
    headers["event_id"] = id_lengths
    for name, column in (("event", event_micros), ("created", created_micros)):
        if column.dtype.kind != "i":
            message = f"{name} timestamps of type {column.dtype}: give integers, microseconds UTC"
            raise RequestError(message)
        headers[name] = column.astype(np.int64).view(np.uint64) ^ np.uint64(_SIGN)
    return headers.tobytes()
