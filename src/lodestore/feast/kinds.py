"""Feast's types as features: what fits, what becomes wider, what has no counterpart."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from lodestore.feast.description import FeastField, FeastSource
from lodestore.spec import Feature, KeyType, Kind, boolean, integer, list_of, number, struct, text, timestamp

__all__ = ["Carried", "Left", "feature_of", "key_type", "type_in_file"]

_PLAIN: Mapping[str, Callable[[], Feature]] = {
    "String": text,
    "Int32": integer,
    "Int64": integer,
    "Float32": number,
    "Float64": number,
    "Bool": boolean,
    "UnixTimestamp": timestamp,
    "ZonedTimestamp": timestamp,
    "Uuid": text,
    "TimeUuid": text,
    "Decimal": text,
}
_OBJECTS = ("Map", "Json", "Struct(")
_NOTES = {
    "Float32": "Float32 becomes number(), of double precision; the values stay the same",
    "ZonedTimestamp": "the moment is kept, its zone is not: it is stored and answered in UTC",
    "Uuid": "Uuid becomes text()",
    "TimeUuid": "TimeUuid becomes text()",
    "Decimal": "Decimal becomes text(), as Feast stores it",
}
_LIST = re.compile(r"(Array|Set)\((\w+)\)")
_ITEM = re.compile(r"(?:large_|fixed_size_)?list<\w+: (.+?)(?: not null)?>(?:\[\d+\])?")
_VALUES = re.compile(r"dictionary<values=([^,]+),.*")
_FITTING: Mapping[Kind, re.Pattern[str]] = {
    Kind.TEXT: re.compile(r"(large_)?string|null"),
    Kind.INTEGER: re.compile(r"u?int\d+|float|double|null"),
    Kind.NUMBER: re.compile(r"u?int\d+|float|double|halffloat|null"),
    Kind.BOOLEAN: re.compile(r"bool|null"),
    Kind.TIMESTAMP: re.compile(r"timestamp\[.*|null"),
    Kind.STRUCT: re.compile(r"struct<.*|(large_)?string|null"),
}
_KEYS: Mapping[str, KeyType] = {"STRING": "string", "INT32": "integer", "INT64": "integer", "UUID": "string"}
_KEY_COLUMNS: tuple[tuple[str, KeyType], ...] = ((r"(large_)?string", "string"), (r"u?int\d+", "integer"))
_NO_BYTES = frozenset({"Bytes", "PdfBytes", "ImageBytes"})


@dataclass(frozen=True, slots=True)
class Carried:
    """A field that has a counterpart, and what is different about it."""

    feature: Feature
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Left:
    """A field that has none: why, and what to do about it."""

    why: str
    mend: str


def feature_of(field: FeastField, source: FeastSource | None, column: str) -> Carried | Left:
    """The feature that holds the field's values, or why there is none.

    Where the file's columns are known, the feature has to take the values of `column`: one value that does not
    fit would have its whole row refused.
    """
    made = _by_type(field.type)
    if isinstance(made, Left):
        return made
    found = None if source is None or source.columns is None else source.columns.get(column)
    if source is not None and source.columns is not None and found is None:
        return Left(f"the file has no column {column!r}", "write the column, or take the field out of the Feast view")
    if found is not None and not _fits(made.feature, found):
        mend = f"write the column as {_wanted(made.feature)}, then import again"
        return Left(f"the file's column is {found}, which does not fit {field.type}", mend)
    return _with_words(_with_numbers(made, field, found, source, column), field)


def _by_type(kind: str) -> Carried | Left:
    if kind in _PLAIN:
        return Carried(_PLAIN[kind](), _noted(kind))
    if kind.startswith(_OBJECTS):
        return Carried(
            struct(), (f"{kind.partition('(')[0]} becomes struct(): JSON objects, whose fields are not checked",)
        )
    if kind in _NO_BYTES:
        return Left(f"{kind}: no feature holds bytes", "store the bytes elsewhere, and their address as text")
    if kind.startswith(("decimal", "date", "time", "duration")):
        return Left(f"{kind} has no counterpart", "write the column as numbers, text or timestamps")
    matched = _LIST.fullmatch(kind)
    if matched is None or matched[2] not in _PLAIN:
        return Left(f"{kind} has no counterpart", "write the column as JSON objects, which struct() holds")
    set_note = ("Set becomes a list: its items keep the order of the file",) if matched[1] == "Set" else ()
    return Carried(list_of(_PLAIN[matched[2]]()), (*set_note, *_noted(matched[2])))


def _noted(kind: str) -> tuple[str, ...]:
    return (_NOTES[kind],) if kind in _NOTES else ()


def _fits(feature: Feature, column: str) -> bool:
    column = _VALUES.sub(r"\1", column)
    if feature.kind is not Kind.LIST or feature.item is None:
        return _FITTING[feature.kind].fullmatch(column) is not None
    matched = _ITEM.fullmatch(column)
    return column == "null" or (matched is not None and _fits(feature.item, matched[1]))


def _wanted(feature: Feature) -> str:
    words = {Kind.STRUCT: "a struct, or JSON text", Kind.LIST: "a list", Kind.TIMESTAMP: "a timestamp"}
    return words.get(feature.kind, f"a {feature.kind}")


def _with_numbers(
    made: Carried, field: FeastField, found: str | None, source: FeastSource | None, column: str
) -> Carried:
    """What the file's statistics ask for: whole numbers of 64 bits, and a word about infinite ones."""
    feature, notes = made.feature, made.notes
    inner = feature.item or feature
    if source is not None and inner.kind is Kind.INTEGER and column in source.wide:
        inner = replace(inner, wide=True)
        feature = inner if feature.item is None else replace(feature, item=inner)
        notes += ("values beyond 2^53 - 1: integer(wide=True), told as text over HTTP",)
    if inner.kind is Kind.INTEGER and found in {"float", "double"}:
        notes += (f"the file's column is {found}: a row whose value is no whole number is refused",)
    if source is not None and column in source.infinite:
        notes += ("the file has infinite values: their rows are refused",)
    if field.vector_index:
        notes += ("the vector index stays behind: declare embedding(...) to search by it, see docs/models.md",)
    return Carried(feature, notes)


def _with_words(made: Carried, field: FeastField) -> Carried:
    personal = any(
        name.lower() == "pii" and value.lower() in {"true", "yes", "1"} for name, value in field.tags.items()
    )
    feature = replace(made.feature, doc=field.description, pii=personal)
    notes = (*made.notes, "the tag pii becomes pii=True: shown in no preview, check or log") if personal else made.notes
    rest = [name for name in sorted(field.tags) if name.lower() != "pii" or not personal]
    return Carried(feature, (*notes, f"tags stay behind: {', '.join(rest)}") if rest else notes)


def key_type(value_type: str, column: str | None) -> KeyType | None:
    """The type of a join key: that of the file's column where it is known, or else what Feast declares; None for neither."""
    if column is not None:
        plain = _VALUES.sub(r"\1", column)
        return next((kind for pattern, kind in _KEY_COLUMNS if re.fullmatch(pattern, plain)), None)
    return _KEYS.get(value_type)


def type_in_file(column: str) -> str | None:
    """The type, in Feast's words, of a column that no schema names; None for what Feast would not take either.

    >>> type_in_file("double"), type_in_file("list<element: string>"), type_in_file("timestamp[us, tz=UTC]")
    ('Float64', 'Array(String)', 'UnixTimestamp')
    """
    column = _VALUES.sub(r"\1", column)
    words = {"double": "Float64", "float": "Float32", "bool": "Bool", "binary": "Bytes", "int64": "Int64"}
    if column in words:
        return words[column]
    if re.fullmatch(r"u?int\d+", column):
        return "Int64" if column in {"uint32", "uint64"} else "Int32"
    if re.fullmatch(r"(large_)?string", column):
        return "String"
    if column.startswith("timestamp["):
        return "UnixTimestamp"
    matched = _ITEM.fullmatch(column)
    item = type_in_file(matched[1]) if matched else None
    return f"Array({item})" if item else None
