"""What a table holds, as one hash: the same rows in the same order give the same one, however their files are cut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Contents", "contents_of"]


@dataclass(frozen=True, slots=True)
class Contents:
    """How many rows a table has, and the SHA-256 of its columns: names, types, nulls and values, in hex."""

    rows: int
    digest: str


def contents_of(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Contents:
    """The contents of a table that comes in batches of any size.

    >>> rows = pa.table({"id": ["a", None, "c"]})
    >>> whole, pieces = (contents_of(rows.schema, rows.to_batches(size)) for size in (3, 1))
    >>> whole == pieces
    True
    """
    columns = [_Column(one.type) for one in schema]
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        for column, values in zip(columns, batch.columns, strict=True):
            column.add(values)
    whole = hashlib.sha256()
    for one, column in zip(schema, columns, strict=True):
        whole.update(f"{one.name}\0{one.type}\0".encode())
        whole.update(column.digest())
    return Contents(rows, whole.hexdigest())


@dataclass(eq=False)
class _Column:
    """The values of one column so far.

    What is null, how long values are and what they say have a hash each, so that it does not matter where a batch ends.
    """

    kind: pa.DataType
    _nulls: Any = field(default_factory=hashlib.sha256)
    _lengths: Any = field(default_factory=hashlib.sha256)
    _values: Any = field(default_factory=hashlib.sha256)
    _parts: tuple[_Column, ...] = ()

    def __post_init__(self) -> None:
        if pa.types.is_dictionary(self.kind):
            self.kind = self.kind.value_type
        if pa.types.is_struct(self.kind):
            self._parts = tuple(_Column(one.type) for one in self.kind)
        elif _is_list(self.kind):
            self._parts = (_Column(self.kind.value_type),)

    def add(self, values: pa.Array) -> None:
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        self._nulls.update(values.is_valid().cast(pa.uint8()).to_numpy(zero_copy_only=False).tobytes())
        self._say(values.drop_null() if values.null_count else values)

    def _say(self, there: pa.Array) -> None:
        """Values of which none is null."""
        if pa.types.is_struct(self.kind):
            for part, values in zip(self._parts, there.flatten(), strict=True):
                part.add(values)
        elif _is_list(self.kind):
            self._lengths.update(_bytes(pc.list_value_length(there).cast(pa.int64())))
            self._parts[0].add(there.flatten())
        elif _is_text(self.kind):
            self._lengths.update(_bytes(pc.binary_length(there).cast(pa.int64())))
            self._values.update(_joined(there))
        elif pa.types.is_boolean(self.kind):
            self._values.update(_bytes(there.cast(pa.uint8())))
        elif not pa.types.is_null(self.kind):
            self._values.update(_bytes(there))

    def digest(self) -> bytes:
        whole = hashlib.sha256()
        for one in (self._nulls, self._lengths, self._values, *self._parts):
            whole.update(one.digest())
        return whole.digest()


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(one(kind) for one in texts)


def _bytes(values: pa.Array) -> bytes:
    plain = values.to_numpy(zero_copy_only=False)
    # Of Python objects, numpy has the addresses.
    return repr(plain.tolist()).encode() if plain.dtype == object else bytes(plain.tobytes())


def _joined(texts: pa.Array) -> pa.Buffer | bytes:
    """The bytes of all values, one after the other."""
    whole = texts.cast(pa.large_binary())
    _, offsets, data = whole.buffers()
    if data is None or not len(whole):
        return b""
    ends = pa.Array.from_buffers(pa.int64(), len(whole) + 1, [None, offsets], offset=whole.offset)
    return data.slice(ends[0].as_py(), ends[len(whole)].as_py() - ends[0].as_py())
