"""Work on whole columns: undisturbed, and as bytes made by Arrow instead of row by row.

Columns here are Arrow arrays of type `binary`, of at most 2 GiB: `pieces` cuts a table accordingly.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "Bytes",
    "as_binary",
    "as_column",
    "as_list",
    "cuts",
    "fixed_column",
    "is_text",
    "joined",
    "json_column",
    "json_objects",
    "pieces",
    "undisturbed",
]

Bytes: TypeAlias = Sequence[bytes] | pa.Array
"""The bytes of many rows: a list, or an Arrow column of type `binary`."""

_PIECE_ROWS = 100_000
_PIECE_BYTES = 32 << 20  # JSON makes of a byte six at most, and 2 GiB is the end of a column
_COMMA = ord(",")
_ESCAPED = np.zeros(256, bool)
_ESCAPED[[*range(0x20), ord('"'), ord("\\")]] = True


class undisturbed:  # noqa: N801 - used as a word; a generator would cost more than a small step
    """Python's search for cycles rests meanwhile.

    A step over many rows makes hundreds of thousands of tuples and bytes and not one cycle, and the search
    through them takes 40 % of its time. Steps are bounded, so that what rests does not rest for long.
    """

    __slots__ = ("_was",)

    def __enter__(self) -> None:
        self._was = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._was:
            gc.enable()


def pieces(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """The same rows in batches that columns of bytes can hold."""
    for part in cuts(_sizes(table), rows=_PIECE_ROWS, size=_PIECE_BYTES):
        yield from table.slice(part.start, part.stop - part.start).combine_chunks().to_batches()


def cuts(sizes: np.ndarray[Any, Any], *, rows: int, size: int) -> Iterator[slice]:
    """Where to cut rows of these sizes so that no part has more rows or bytes; a huge row is a part by itself."""
    ends, start, before = np.cumsum(sizes), 0, 0
    while start < len(ends):
        within = int(np.searchsorted(ends, before + size, side="right"))
        stop = min(max(within, start + 1), start + rows)
        yield slice(start, stop)
        start, before = stop, int(ends[stop - 1])


def _sizes(table: pa.Table) -> np.ndarray[Any, Any]:
    """How many bytes each row has, where that matters: rows differ in size, and text is what makes them large."""
    if table.nbytes <= _PIECE_BYTES:
        return np.zeros(table.num_rows, np.int64)
    sizes = np.full(table.num_rows, _row_bytes(table), np.int64)
    for column in table.columns:
        if is_text(column.type):
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64)
    return sizes


def _row_bytes(table: pa.Table) -> int:
    """What a row has beside its texts, on average."""
    others = [one.nbytes for one in table.columns if not is_text(one.type)]
    return sum(others) // max(1, table.num_rows)


def is_text(of: pa.DataType) -> bool:
    """Whether a column of that type has texts."""
    return bool(pa.types.is_string(of) or pa.types.is_large_string(of))


def as_binary(texts: pa.Array) -> pa.Array:
    """The bytes of a column of texts that is part of one of the `pieces`, whatever it was cut from; nothing is copied."""
    if not len(texts):
        return pa.array([], pa.binary())
    _, ends, data = texts.buffers()
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    places = np.frombuffer(ends, kind)[texts.offset : texts.offset + len(texts) + 1]
    held = pa.py_buffer(b"") if data is None else data.slice(int(places[0]), int(places[-1] - places[0]))
    offsets = pa.py_buffer((places - places[0]).astype(np.int32))
    whole = pa.Array.from_buffers(pa.binary(), len(texts), [None, offsets, held])
    return pc.if_else(texts.is_valid(), whole, None) if texts.null_count else whole


def joined(*parts: pa.Array | bytes) -> pa.Array:
    """For each row its parts, one after the other; bytes are the same in every row.

    >>> joined(b"a", pa.array([b"1", b"2"]), b"z").to_pylist()
    [b'a1z', b'a2z']
    """
    return pc.binary_join_element_wise(*(pa.scalar(one) if isinstance(one, bytes) else one for one in parts), b"")


def as_list(column: Bytes) -> list[bytes]:
    """The bytes of each row."""
    if not isinstance(column, pa.Array):
        return list(column)
    made: list[bytes] = column.to_numpy(zero_copy_only=False).tolist()
    return made


def as_column(rows: Bytes) -> pa.Array:
    """The bytes of all rows as one column."""
    return rows if isinstance(rows, pa.Array) else pa.array(rows, pa.binary())


def fixed_column(data: bytes, width: int) -> pa.Array:
    """The data cut into rows of `width` bytes.

    >>> fixed_column(b"abcd", 2).to_pylist()
    [b'ab', b'cd']
    """
    ends = np.arange(0, len(data) + 1, width, dtype=np.int32)
    return pa.Array.from_buffers(pa.binary(), len(ends) - 1, [None, pa.py_buffer(ends), pa.py_buffer(data)])


def json_column(column: pa.Array) -> pa.Array:
    r"""Each value as JSON: texts, numbers or booleans, and nulls. NaN is null.

    >>> json_column(pa.array(["a", None, 'b",'])).to_pylist()
    [b'"a"', b'null', b'"b\\","']
    >>> json_column(pa.array([1.5, None, float("nan")])).to_pylist()
    [b'1.5', b'null', b'null']
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_text(column.type):
        return _json_texts(column)
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type) or pa.types.is_floating(column.type):
        return _json_numbers(column)
    return pa.array([orjson.dumps(one) for one in column.to_pylist()], pa.binary())


def _json_texts(column: pa.Array) -> pa.Array:
    plain = as_binary(column)
    if not _ESCAPED[_bytes_of(plain)].any():
        return _with_nulls(joined(b'"', plain, b'"'), column)
    # Written a line each: line ends within texts are escapes, so that no text can look like a boundary.
    whole = orjson.dumps([one or "" for one in column.to_pylist()], option=orjson.OPT_INDENT_2)
    return _with_nulls(pa.array(whole[4:-2].split(b",\n  "), pa.binary()), column)


def _with_nulls(texts: pa.Array, column: pa.Array) -> pa.Array:
    return pc.if_else(column.is_valid(), texts, b"null") if column.null_count else texts


def _json_numbers(column: pa.Array) -> pa.Array:
    if not len(column):
        return pa.array([], pa.binary())
    filled = column.fill_null(False if pa.types.is_boolean(column.type) else 0) if column.null_count else column
    if pa.types.is_floating(column.type):  # a narrow one has fewer digits than the Python number of a single row
        filled = filled.cast(pa.float64())
    values: Any = filled.to_numpy(zero_copy_only=False)
    text = np.frombuffer(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY), np.uint8)[1:-1]
    commas = np.flatnonzero(text == _COMMA)
    ends = np.empty(len(commas) + 2, np.int32)
    ends[0], ends[1:-1], ends[-1] = 0, commas - np.arange(len(commas)), len(text) - len(commas)
    data = text[text != _COMMA]
    texts = pa.Array.from_buffers(pa.binary(), len(ends) - 1, [None, pa.py_buffer(ends), pa.py_buffer(data)])
    return _with_nulls(texts, column)


def _bytes_of(column: pa.Array) -> np.ndarray[Any, Any]:
    """The bytes of all rows of `as_binary`, one after the other."""
    data = column.buffers()[2] if len(column) else None
    return np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)


def json_objects(columns: Mapping[str, pa.Array], *, before: bytes = b"{", after: bytes = b"}") -> pa.Array:
    """One JSON object for each row, from columns of JSON, of which there is one at least.

    >>> json_objects({"a": pa.array([b"1", b"2"]), "b": pa.array([b"null", b'"x"'])}).to_pylist()
    [b'{"a":1,"b":null}', b'{"a":2,"b":"x"}']
    """
    parts: list[pa.Array | bytes] = []
    for place, (name, column) in enumerate(columns.items()):
        parts += [b"%b%b:" % (b"," if place else before, orjson.dumps(name)), column]
    return joined(*parts, after)
