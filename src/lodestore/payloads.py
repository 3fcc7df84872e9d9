"""Payloads: the feature values of a row as bytes, one by one or a column at a time.

A payload is a JSON object of feature values after one byte; timestamps and vectors, which JSON cannot
tell apart from numbers and lists, have their own part.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.bulk import Bytes, as_list, json_column, json_objects, pieces
from lodestore.errors import BadVectorError, DamagedRowError, RequestError, SchemaVersionError
from lodestore.moments import micros_of, moment_of
from lodestore.spec import Feature, Kind

__all__ = ["decode_payload", "decode_payloads", "encode_batch", "encode_columns", "encode_payload", "encode_rows"]

_SHOWN: Final = 200
_PLAIN, _EXTENDED = 1, 2
_VECTORS_ALONE: Final = b"[{},{},{"  # how the head of a row begins that holds nothing but vectors
_HEAD_LENGTH: Final = struct.Struct(">BI")
_HEAD_SIZE: Final = _HEAD_LENGTH.size
_MANY: Final = 4  # rows from which on reading them as one text is quicker
_JSON_KINDS: Final = frozenset({Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN, Kind.CATEGORY, Kind.TEXT, Kind.PROMPT})
_STRICT: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


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
    except (ValueError, IndexError, OverflowError, struct.error) as error:
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
        except (ValueError, IndexError, OverflowError, struct.error):
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
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
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
