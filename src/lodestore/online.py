"""Online rows: what an online store keeps, and how it is written as bytes.

A row is the newest known state of one key in one namespace. A namespace is a view and its version
(`user_profile@1`) or one embedding of it. Every adapter stores the bytes that `encode_row` makes.

Layout of a stored row, all numbers big-endian:

    1 byte    schema, now 1
    16 bytes  event and created timestamp, microseconds UTC, each with its sign bit flipped,
              so that the later row has the greater bytes
    2 bytes   length of the event id, 0 for none
    2 bytes   length of the key, 0 when the store's own key says it
    then      event id, key, payload

`lodestore.payloads` tells what a payload is.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.bulk import Bytes, as_binary, fixed_column, is_text, joined
from lodestore.errors import DamagedRowError, RequestError, SchemaVersionError, StoreError

__all__ = [
    "BATCH_BYTES",
    "BATCH_ROWS",
    "LONGEST",
    "SCHEMES",
    "SERVER_NOTE",
    "STAMP",
    "JournalEntry",
    "Key",
    "Keys",
    "OnlineRow",
    "OnlineStore",
    "Status",
    "Written",
    "checked_event_id",
    "decode_key",
    "decode_row",
    "encode_key",
    "encode_key_columns",
    "encode_keys",
    "encode_row",
    "encode_texts",
    "encode_values",
    "hashed_key",
    "headers_of",
    "key_within",
    "mark_key",
    "namespace_prefix",
    "time_and_payload",
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
# Under which name servers note release and keys beside the rows, for workers that start; empty for nothing.
SERVER_NOTE: Final = "server"
"""How the address of an online store on a server begins."""

LONGEST: Final = 65_535
"""The most bytes that a key or an event id has."""

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
_FEW: Final = 4  # keys, up to which they are encoded one by one
_LONGEST_NAMESPACE: Final = 255
_INTEGER, _STRING = 1, 2
_INTEGER_PART: Final = struct.Struct(">BQ")


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
    if not 0 < len(encoded) <= LONGEST:
        message = f"join key of {len(encoded)} bytes: it has 1 to {LONGEST:,}; use a shorter id, such as a hash"
        raise RequestError(message)
    return encoded


def encode_key_columns(columns: Sequence[pa.Array]) -> pa.Array:
    """The keys whose parts are these columns, texts or integers without nulls, as `encode_key` makes them."""
    parts = [part for part in map(_encoded_part, columns) if part is not None]
    if len(parts) == len(columns):
        encoded = parts[0] if len(parts) == 1 else joined(*parts)
        if not len(encoded) or pc.max(pc.binary_length(encoded)).as_py() <= LONGEST:
            return encoded
    return pa.array(encode_keys([*zip(*(one.to_pylist() for one in columns), strict=True)]), pa.binary())


def _encoded_part(column: pa.Array) -> pa.Array | None:
    """One part of each key; None for texts that have zeros, and whatever is neither text nor integer."""
    if column.null_count or not (is_text(column.type) or pa.types.is_signed_integer(column.type)):
        return None
    if pa.types.is_signed_integer(column.type):
        parts = np.empty(len(column), np.dtype([("tag", "u1"), ("value", ">u8")]))
        parts["tag"] = _INTEGER
        parts["value"] = column.to_numpy().astype(np.int64).view(np.uint64) ^ np.uint64(_SIGN)
        return fixed_column(parts.tobytes(), parts.itemsize)
    texts = as_binary(column)
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
        return [whole] if len(whole) <= LONGEST else None
    # No UTF-8 has the byte 255, so that it can stand between two keys.
    encoded = whole.replace(b"\0\0\x02", b"\0\xff\x02").split(b"\xff")
    return encoded if len(whole) <= LONGEST or max(map(len, encoded)) <= LONGEST else None


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


def hashed_key(prefix: bytes, key: bytes) -> bytes:
    """The store's key for a key that is too long for it; the row then carries the key itself."""
    return prefix + b"\x03" + sha256(key).digest()


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
    event_id = checked_event_id(row.event_id)
    try:
        header = _HEADER.pack(_SCHEMA, row.event_micros + _SIGN, row.created_micros + _SIGN, len(event_id), len(key))
    except struct.error as error:
        message = f"timestamps {row.event_micros}, {row.created_micros}: not microseconds of 64 bits"
        raise RequestError(message) from error
    return header + event_id + key + row.payload


def checked_event_id(event_id: bytes | None) -> bytes:
    """The id, empty for none; one that is empty or too long is a `RequestError`."""
    if event_id is None:
        return b""
    if not 0 < len(event_id) <= LONGEST:
        message = f"event id of {len(event_id)} bytes: it has 1 to {LONGEST:,}, or is left out"
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
    return event - _SIGN, stored[_HEADER_SIZE + (lengths >> 16) + (lengths & LONGEST) if lengths else _HEADER_SIZE :]


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
        starts = [_HEADER_SIZE + (one >> 16) + (one & LONGEST) for one in lengths]
        payloads = [one[start:] for one, start in zip(rows, starts, strict=True)]
    return [event - _SIGN for event in events], payloads


def headers_of(
    event_micros: np.ndarray[Any, Any],
    created_micros: np.ndarray[Any, Any],
    id_lengths: Any,  # noqa: ANN401 - numbers
) -> pa.Array:
    """The header of each row, as `encode_row` makes it."""
    headers = np.zeros(len(event_micros), dtype=_HEADER_COLUMNS)
    headers["schema"] = _SCHEMA
    headers["event_id"] = id_lengths
    for name, column in (("event", event_micros), ("created", created_micros)):
        if column.dtype.kind != "i":
            message = f"{name} timestamps of type {column.dtype}: give integers, microseconds UTC"
            raise RequestError(message)
        headers[name] = column.astype(np.int64).view(np.uint64) ^ np.uint64(_SIGN)
    return fixed_column(headers.tobytes(), _HEADER_SIZE)


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
