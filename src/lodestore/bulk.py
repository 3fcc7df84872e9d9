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
    "as_column",
    "as_list",
    "fixed_column",
    "joined",
    "json_column",
    "json_objects",
    "pieces",
    "undisturbed",
]

Bytes: TypeAlias = Sequence[bytes] | pa.Array
"""The bytes of many rows: a list, or an Arrow column of type `binary`."""

_PIECE_ROWS = 100_000
_PIECE_BYTES = 128 << 20  # JSON makes of a byte six at most, and 2 GiB is the end of a column
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
    rows = _PIECE_ROWS
    if table.nbytes > _PIECE_BYTES:
        rows = max(1, min(rows, table.num_rows * _PIECE_BYTES // table.nbytes))
    for start in range(0, table.num_rows, rows):
        piece = table.slice(start, min(rows, table.num_rows - start)).combine_chunks()
        yield piece.to_batches()[0]


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
    if pa.types.is_null(column.type):
        return pa.array([b"null"] * len(column), pa.binary())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return _json_numbers(column)
    plain = column.cast(pa.string())
    if _ESCAPED[_bytes_of(plain)].any():
        # Written a line each: line ends within texts are escapes, so that no text can look like a boundary.
        whole = orjson.dumps(pc.fill_null(plain, "").to_pylist(), option=orjson.OPT_INDENT_2)
        texts = pa.array(whole[4:-2].split(b",\n  "), pa.binary())
    else:
        texts = joined(b'"', plain.cast(pa.binary()), b'"')
    return _with_nulls(texts, column)


def _with_nulls(texts: pa.Array, column: pa.Array) -> pa.Array:
    return pc.if_else(column.is_valid(), texts, b"null") if column.null_count else texts


def _json_numbers(column: pa.Array) -> pa.Array:
    if not len(column):
        return pa.array([], pa.binary())
    filled = column.fill_null(False if pa.types.is_boolean(column.type) else 0) if column.null_count else column
    values: Any = filled.to_numpy(zero_copy_only=False)
    if values.dtype == np.float32:  # which has fewer digits as itself than as the Python number that single rows have
        values = values.astype(np.float64)
    text = np.frombuffer(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY), np.uint8)[1:-1]
    commas = np.flatnonzero(text == _COMMA)
    ends = np.empty(len(commas) + 2, np.int32)
    ends[0], ends[1:-1], ends[-1] = 0, commas - np.arange(len(commas)), len(text) - len(commas)
    data = text[text != _COMMA]
    texts = pa.Array.from_buffers(pa.binary(), len(ends) - 1, [None, pa.py_buffer(ends), pa.py_buffer(data)])
    return _with_nulls(texts, column)


def _bytes_of(texts: pa.Array) -> np.ndarray[Any, Any]:
    """The bytes of all texts of a `string` or `binary` column, one after the other."""
    _, ends, data = texts.buffers()
    if data is None or not len(texts):
        return np.empty(0, np.uint8)
    places = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, np.uint8)[places[0] : places[-1]]


def json_objects(columns: Mapping[str, pa.Array], *, before: bytes = b"{", after: bytes = b"}") -> pa.Array:
    """One JSON object for each row, from columns of JSON, of which there is one at least.

    >>> json_objects({"a": pa.array([b"1", b"2"]), "b": pa.array([b"null", b'"x"'])}).to_pylist()
    [b'{"a":1,"b":null}', b'{"a":2,"b":"x"}']
    """
    parts: list[pa.Array | bytes] = []
    for place, (name, column) in enumerate(columns.items()):
        parts += [b"%b%b:" % (b"," if place else before, orjson.dumps(name)), column]
    return joined(*parts, after)
