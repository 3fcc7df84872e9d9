"""Baselines: a window pinned as sketches, so that later windows are compared with it alone."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.drift.category import CategorySketch
from lodestore.drift.embedding import EmbeddingSketch
from lodestore.drift.numeric import NumericSketch
from lodestore.drift.text import TextSketch
from lodestore.errors import RequestError, SchemaVersionError, StoreError, nearest

__all__ = ["Baseline", "Column", "DriftKind", "Family", "PresenceSketch", "Sketch", "family", "read", "sketch"]

FORMAT = 1
_FEW = 50  # different values that a category may have
_SHORT = 40  # characters that its values have on average
_IDENTIFIERS = ("id", "key")


class DriftKind(enum.StrEnum):
    """How a column is compared."""

    NUMERIC = "numeric"
    CATEGORY = "category"
    TEXT = "text"
    EMBEDDING = "embedding"
    TIMESTAMP = "timestamp"
    IDENTIFIER = "identifier"
    OTHER = "other"


class Family(enum.StrEnum):
    """What a column holds, as far as two windows have to agree on it."""

    NUMBERS = "numbers"
    TRUTH = "truth values"
    STRINGS = "strings"
    VECTORS = "vectors"
    TIMES = "times"
    NOTHING = "nulls only"
    OTHER = "other values"


_SAME = {
    "integer": "numeric",
    "number": "numeric",
    "boolean": "category",
    "prompt": "text",
    "struct": "other",
    "list": "other",
}
_FITTING = {
    DriftKind.NUMERIC: {Family.NUMBERS, Family.TRUTH},
    DriftKind.CATEGORY: {Family.STRINGS, Family.TRUTH, Family.NUMBERS},
    DriftKind.TEXT: {Family.STRINGS},
    DriftKind.EMBEDDING: {Family.VECTORS},
}


@dataclass(frozen=True, slots=True)
class PresenceSketch:
    """A column of which only nulls are compared."""

    rows: int
    nulls: int

    @classmethod
    def of_column(cls, column: pa.ChunkedArray) -> PresenceSketch:
        """The sketch of any Arrow column."""
        return cls(len(column), column.null_count)

    @property
    def values(self) -> int:
        """How many rows hold a value."""
        return self.rows - self.nulls

    def summary(self) -> dict[str, Any]:
        """Counts of rows and nulls."""
        return {"rows": self.rows, "nulls": self.nulls}

    def to_dict(self) -> dict[str, Any]:
        """The sketch as JSON-ready values."""
        return self.summary()

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> PresenceSketch:
        """The sketch that `to_dict` wrote."""
        return cls(found["rows"], found["nulls"])


Sketch = NumericSketch | CategorySketch | TextSketch | EmbeddingSketch | PresenceSketch

_SKETCHES: Mapping[DriftKind, type[Sketch]] = {
    DriftKind.NUMERIC: NumericSketch,
    DriftKind.CATEGORY: CategorySketch,
    DriftKind.TEXT: TextSketch,
    DriftKind.EMBEDDING: EmbeddingSketch,
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a baseline."""

    kind: DriftKind
    family: Family
    type: str
    sketch: Sketch


@dataclass(frozen=True, slots=True)
class Baseline:
    """A pinned window: one sketch a column, and whose window it is (`subject`, such as a view's version)."""

    rows: int
    columns: Mapping[str, Column] = field(default_factory=dict)
    subject: str = ""

    def to_json(self) -> str:
        """The baseline as JSON text that `from_json` reads back."""
        columns = {
            name: {"kind": one.kind, "family": one.family, "type": one.type, "sketch": one.sketch.to_dict()}
            for name, one in self.columns.items()
        }
        return json.dumps({"format": FORMAT, "subject": self.subject, "rows": self.rows, "columns": columns})

    @classmethod
    def from_json(cls, text: str) -> Baseline:
        """The baseline that `to_json` wrote."""
        try:
            found = json.loads(text)
            version = found["format"]
            if version == FORMAT:
                columns = {name: _column(one) for name, one in found["columns"].items()}
                return cls(found["rows"], columns, found["subject"])
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            message = f"a stored drift baseline cannot be read ({fault!r}); pin a new one: lodestore drift rebaseline"
            raise StoreError(message) from fault
        message = (
            f"a stored drift baseline has format {version!r}, this Lodestore reads {FORMAT}; "
            "pin a new one: lodestore drift rebaseline"
        )
        raise SchemaVersionError(message)

    def summary(self) -> dict[str, Any]:
        """What each column looked like, in numbers."""
        return {name: {"kind": one.kind.value, **one.sketch.summary()} for name, one in self.columns.items()}


def sketch(
    table: pa.Table,
    kinds: Mapping[str, str] | None = None,
    *,
    subject: str = "",
    private: Collection[str] = (),
    seed: int = 0,
) -> Baseline:
    """The table pinned as a baseline.

    `kinds` says how columns are compared, the others are told by their types. Of a `private` column
    of strings no value is kept, unless `kinds` makes it a category.
    """
    declared = {name: _declared(name, kind) for name, kind in (kinds or {}).items()}
    columns = {}
    for name in table.column_names:
        values = _decoded(table[name])
        kind = declared.get(name) or _inferred(name, values, private=name in private)
        held = family(values.type)
        fits = held in _FITTING.get(kind, {held})
        found = read(kind, values, seed=seed) if fits else PresenceSketch.of_column(values)
        columns[name] = Column(kind, held, str(values.type), found)
    return Baseline(table.num_rows, columns, subject)


def read(kind: DriftKind, column: pa.ChunkedArray, *, limit: int | None = None, seed: int = 0) -> Sketch:
    """The sketch of a column that is compared as `kind`; `limit` is how many vectors it keeps."""
    column = _decoded(column)
    if family(column.type) is Family.NOTHING:
        return PresenceSketch.of_column(column)
    readers: Mapping[DriftKind, Callable[[], Sketch]] = {
        DriftKind.NUMERIC: lambda: NumericSketch.of_column(column),
        DriftKind.CATEGORY: lambda: CategorySketch.of_column(column),
        DriftKind.TEXT: lambda: TextSketch.of_column(column, seed=seed),
        DriftKind.EMBEDDING: lambda: EmbeddingSketch.of_column(
            column, seed=seed, **({"limit": limit} if limit else {})
        ),
    }
    return readers.get(kind, lambda: PresenceSketch.of_column(column))()


def family(arrow: pa.DataType) -> Family:
    """What values of an Arrow type are.

    >>> family(pa.list_(pa.float32(), 3)).value
    'vectors'
    """
    types = pa.types
    if types.is_dictionary(arrow):
        return family(arrow.value_type)
    is_list = types.is_list(arrow) or types.is_large_list(arrow) or types.is_fixed_size_list(arrow)
    tests: tuple[tuple[Family, bool], ...] = (
        (Family.NOTHING, types.is_null(arrow)),
        (Family.TRUTH, types.is_boolean(arrow)),
        (Family.NUMBERS, types.is_integer(arrow) or types.is_floating(arrow) or types.is_decimal(arrow)),
        (Family.STRINGS, types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow)),
        (Family.TIMES, types.is_temporal(arrow)),
        (Family.VECTORS, is_list and types.is_floating(arrow.value_type)),
    )
    return next((held for held, true in tests if true), Family.OTHER)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without dictionary encoding or views, which not every kernel takes."""
    held = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return column.cast(pa.large_string() if pa.types.is_string_view(held) else held)


def _declared(name: str, kind: str) -> DriftKind:
    """The kind that a user or a declaration names."""
    known = [one.value for one in DriftKind]
    wanted = _SAME.get(kind, kind)
    if wanted not in known:
        message = f"column {name!r}: unknown kind {kind!r}{nearest(kind, known)}"
        raise RequestError(message)
    return DriftKind(wanted)


def _inferred(name: str, column: pa.ChunkedArray, *, private: bool) -> DriftKind:
    """How a column is compared when nobody says so."""
    held = family(column.type)
    if held is Family.STRINGS:
        return _inferred_strings(name, column, private=private)
    if held is Family.NUMBERS:
        return DriftKind.IDENTIFIER if _identifies(name, column) else DriftKind.NUMERIC
    simple = {
        Family.TRUTH: DriftKind.CATEGORY,
        Family.VECTORS: DriftKind.EMBEDDING,
        Family.TIMES: DriftKind.TIMESTAMP,
    }
    return simple.get(held, DriftKind.OTHER)


def _identifies(name: str, column: pa.ChunkedArray) -> bool:
    """Whether a column is called an identifier and holds no value twice."""
    called = name.lower().rsplit("_", 1)[-1] in _IDENTIFIERS
    return called and len(column) > 1 and pc.count_distinct(column).as_py() == len(column)


def _inferred_strings(name: str, column: pa.ChunkedArray, *, private: bool) -> DriftKind:
    """Few and short values are categories; identifiers are all different; anything else is text."""
    if _identifies(name, column):
        return DriftKind.IDENTIFIER
    texts = column.drop_null()
    lengths = pc.utf8_length(texts).to_numpy()
    short = not len(lengths) or float(np.mean(lengths)) < _SHORT
    few = pc.count_distinct(texts).as_py() <= _FEW
    return DriftKind.CATEGORY if few and short and not private else DriftKind.TEXT


def _column(found: Mapping[str, Any]) -> Column:
    """One column as `to_json` wrote it."""
    kind, held = DriftKind(found["kind"]), Family(found["family"])
    wanted = _SKETCHES.get(kind, PresenceSketch)
    # a column of nulls, or one that does not fit its declared kind, was pinned by its presence alone
    reader = wanted if held in _FITTING.get(kind, set()) else PresenceSketch
    return Column(kind, held, found["type"], reader.from_dict(found["sketch"]))
