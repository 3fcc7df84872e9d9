"""Rows of a view, checked whole: types, bounds, categories, times. Every bad row is named at once."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.bulk import as_list, fixed_column, joined, json_column, pieces
from lodestore.errors import DeclarationError, InvalidRowsError, RequestError, nearest
from lodestore.events import TextRow
from lodestore.moments import micros_of
from lodestore.spec import Feature, FeatureView, Kind
from lodestore.tables import MOMENT, view_schema
from lodestore.wire import MAX_SAFE_INTEGER, from_rfc3339, is_missing, json_value

__all__ = [
    "CheckedRows",
    "CheckedValues",
    "Problem",
    "check_rows",
    "check_table",
    "check_value",
    "check_values",
    "checked_rows",
    "rows_of",
]

# Clocks of sources differ a little; beyond this an event's time is a mistake.
MAX_AHEAD = timedelta(minutes=5)
_TIMES = ("event_timestamp", "created_timestamp")
_MAX_TEXT = 1_000_000
_LONGEST_KEY = 1024
_LONGEST_EVENT_ID = 256
_SHOWN = 80
_BITS = 63
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_VALUE = (pa.ArrowException, ArithmeticError, LookupError, ValueError)
# What a Python datetime can be.
_FIRST_MICROS = micros_of(datetime(1, 1, 1, tzinfo=UTC))
_LAST_MICROS = micros_of(datetime.max.replace(tzinfo=UTC))
_DIGITS = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
# Types whose values are neither missing nor in need of unpacking.
_SIMPLE = frozenset({str, int, bool, dict, list})
_WORDS = {"true": True, "false": False, "1": True, "0": False}

_Reader: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one row; `row` counts from 1."""

    row: int
    what: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.what}"


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """The good rows as a table of the view's columns, and what is wrong with the others.

    `due` is when the first of those that lie in the future no longer does.
    """

    table: pa.Table
    problems: tuple[Problem, ...]
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class CheckedValues:
    """The same in Python: the columns of the good rows, without the time of arrival; a struct is JSON text."""

    columns: Mapping[str, list[Any]]
    problems: tuple[Problem, ...]
    due: datetime | None = None


class _WrongError(ValueError):
    """A value that does not fit its column."""


def checked_rows(view: FeatureView, rows: Iterable[Mapping[str, Any]], *, now: datetime) -> pa.Table:
    """The rows as a table, or `InvalidRowsError` that names every bad one."""
    found = check_rows(view, rows, now=now)
    if found.problems:
        raise InvalidRowsError(view.name, map(str, found.problems))
    return found.table


def check_rows(view: FeatureView, rows: Iterable[object], *, now: datetime) -> CheckedRows:
    """Sort rows into good and bad ones. Good ones have every column, an event id and times in UTC.

    In rows that are a `TextRow`, as CSV gives them, numbers, booleans and lists are read from their
    text; in all others 42 and "42" are different things. A row without an event id gets one from its
    values: the same row offered again is known. The value of a personal feature is never part of a problem.
    """
    found = check_values(view, rows, now=now)
    return CheckedRows(_table(view, found.columns, now), found.problems, found.due)


def check_values(view: FeatureView, rows: Iterable[object], *, now: datetime) -> CheckedValues:
    """As `check_rows`, but the good rows stay Python values: for a few rows the way through Arrow is the longest part."""
    offered = rows if isinstance(rows, Sequence) else list(rows)
    early: list[datetime] = []
    untyped = TextRow in {*map(type, offered)}
    columns = _faultless(view, offered, _readers(view, now, early, untyped=untyped))
    problems: tuple[Problem, ...] = ()
    if columns is None:
        early = []
        columns, problems = _sorted_out(view, offered, _readers(view, now, early, untyped=untyped))
    created = zip(columns["created_timestamp"], columns["event_timestamp"], strict=True)
    columns["created_timestamp"] = [one or event for one, event in created]
    columns["event_id"] = _event_ids(view.name, columns)
    return CheckedValues(columns, problems, min(early) - MAX_AHEAD if early else None)


def _faultless(view: FeatureView, rows: Sequence[Any], readers: Mapping[str, _Reader]) -> dict[str, list[Any]] | None:
    """The columns of rows that are all fine, read one after the other; None where one is not."""
    if view.derive is not None:
        return None
    passed = {one.name for one in view.embeddings}
    columns: dict[str, list[Any]] = {name: [None] * len(rows) for name in readers}
    try:
        for place, row in enumerate(rows):
            if type(row) is not dict and not isinstance(row, Mapping):
                return None
            for name, value in row.items():
                if name in passed:
                    continue
                read = readers[name]
                if value is not None:
                    columns[name][place] = read(value) if type(value) in _SIMPLE else _read(read, value)
    except (_WrongError, KeyError, TypeError):  # a bad value, an unknown column
        return None
    whole = all(None not in columns[name] for name in (*view.entity.keys, "event_timestamp"))
    return columns if whole else None


def _sorted_out(
    view: FeatureView, offered: Sequence[object], readers: Mapping[str, _Reader]
) -> tuple[dict[str, list[Any]], tuple[Problem, ...]]:
    """The columns of the good rows, and everything that is wrong with the others."""
    faults: dict[int, list[str]] = {}
    given = _mappings(offered, faults, view.derive)
    broken = set(faults)
    _unknown_columns(given, readers.keys(), {one.name for one in view.embeddings}, faults)
    columns = {name: _column(name, given, read, faults) for name, read in readers.items()}
    for name in (*view.entity.keys, "event_timestamp"):
        _require(name, columns[name], broken, faults)
    bad = {place for place, what in faults.items() if what}
    if bad:
        columns = {name: [one for at, one in enumerate(all_) if at not in bad] for name, all_ in columns.items()}
    return columns, tuple(Problem(place + 1, what) for place in sorted(bad) for what in faults[place])


def check_table(view: FeatureView, table: pa.Table, *, now: datetime) -> CheckedRows:
    """As `check_rows` does it, a whole column at a time where every value fits; otherwise row by row, to name what does not.

    Event ids are the same either way.
    """
    columns = _fitting_columns(view, table, now) if view.derive is None and not view.embeddings else None
    if columns is None:
        return check_rows(view, rows_of(view, table), now=now)
    events = columns["event_timestamp"]
    columns["created_timestamp"] = pc.coalesce(columns["created_timestamp"], events)
    columns["event_id"] = _ids_of_columns(view.name, columns)
    columns["ingested_at"] = pa.repeat(pa.scalar(now, MOMENT), table.num_rows)
    schema = view_schema(view)
    return CheckedRows(pa.table([columns[name].cast(schema.field(name).type) for name in schema.names], schema), ())


def rows_of(view: FeatureView, table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table; values that Python cannot have, such as text that is not UTF-8, are an `InvalidRowsError`."""
    columns, told = [], []
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        message = f"{view.name}: the table has the column {twice[0]!r} more than once; name each column once"
        raise RequestError(message)
    for name in table.column_names:
        try:
            columns.append(table[name].to_pylist())
        except _NO_VALUE:
            told += [str(Problem(at, f"{name}: {why}")) for at, why in _unreadable(table[name])]
    if told:
        raise InvalidRowsError(view.name, told)
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _unreadable(column: pa.ChunkedArray) -> Iterator[tuple[int, str]]:
    """The places of the values that Python cannot have, from 1, each with the reason."""
    for at, value in enumerate(column, start=1):
        try:
            value.as_py()
        except _NO_VALUE as error:
            yield at, f"a value that cannot be read ({error})"


def _fitting_columns(view: FeatureView, table: pa.Table, now: datetime) -> dict[str, Any] | None:
    """Every column of the view but the time of arrival; None where a value does not plainly fit."""
    schema = view_schema(view)
    names = [name for name in schema.names if name != "ingested_at"]
    if not set(table.column_names) <= set(names) or len(set(table.column_names)) != table.num_columns:
        return None
    out: dict[str, Any] = {}
    for name in names:
        column = table[name] if name in table.column_names else pa.nulls(table.num_rows, schema.field(name).type)
        if not _plainly_fits(view, name, column, schema.field(name).type, now):
            return None
        out[name] = column
    return out


def _plainly_fits(view: FeatureView, name: str, column: Any, kind: pa.DataType, now: datetime) -> bool:  # noqa: ANN401
    if column.type != kind and not (pa.types.is_string(column.type) and pa.types.is_large_string(kind)):
        return False
    if name in {*view.entity.keys, "event_timestamp"} and column.null_count:
        return False
    if name in view.entity.keys or name == "event_id":
        longest = _LONGEST_KEY if name != "event_id" else _LONGEST_EVENT_ID
        return pa.types.is_integer(kind) or (_is_unicode(column) and _between(pc.utf8_length(column), 1, longest))
    if name in _TIMES:
        return _between(column.cast(pa.int64()), _FIRST_MICROS, micros_of(now + MAX_AHEAD))
    return _feature_fits(view.feature(name), column)


def _is_unicode(column: Any) -> bool:  # noqa: ANN401 - an Arrow column of text
    """Whether all of it is UTF-8, which Arrow promises and does not look at."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _feature_fits(feature: Feature, column: Any) -> bool:  # noqa: ANN401 - an Arrow column
    if feature.kind in {Kind.INTEGER, Kind.NUMBER}:
        widest = math.inf if feature.kind is Kind.NUMBER or feature.wide else MAX_SAFE_INTEGER
        low = -widest if feature.minimum is None else max(feature.minimum, -widest)
        high = widest if feature.maximum is None else min(feature.maximum, widest)
        finite = feature.kind is Kind.INTEGER or pc.all(pc.is_finite(column)).as_py() is not False
        return finite and _between(column, low, high)
    if feature.kind is Kind.CATEGORY:
        among = pc.is_in(column.drop_null(), value_set=pa.array(feature.categories))
        return pc.all(among).as_py() is not False
    if feature.kind in {Kind.TEXT, Kind.PROMPT}:
        return _is_unicode(column) and _between(pc.utf8_length(column), None, feature.max_length or _MAX_TEXT)
    if feature.kind is Kind.TIMESTAMP:
        return _between(column.cast(pa.int64()), _FIRST_MICROS, _LAST_MICROS)
    return feature.kind is Kind.BOOLEAN


def _between(column: Any, low: Any, high: Any) -> bool:  # noqa: ANN401 - any ordered type
    """Whether every value that is there lies between the bounds."""
    bounds = pc.min_max(column)
    least, most = bounds["min"].as_py(), bounds["max"].as_py()
    if least is None:
        return True
    return (low is None or least >= low) and (high is None or most <= high)


def check_value(feature: Feature, value: object) -> str | None:
    """What is wrong with one value of the feature; None when it fits. Null always fits."""
    try:
        _read(_reader(feature, untyped=False), value)
    except _WrongError as error:
        return _told(feature, error)
    return None


# Columns


def _readers(view: FeatureView, now: datetime, early: list[datetime], *, untyped: bool) -> dict[str, _Reader]:
    """What reads each column; times that lie in the future are added to `early`."""
    readers: dict[str, _Reader] = {}
    for key, kind in zip(view.entity.keys, view.entity.types, strict=True):
        readers[key] = _key_text if kind == "string" else partial(_integer, wide=True, texts=untyped)
    readers |= dict.fromkeys(_TIMES, partial(_time, latest=now + MAX_AHEAD, early=early))
    readers["event_id"] = _event_id
    return readers | _feature_readers(view, untyped=untyped)


# What reads the features of a view, with the view: while it is kept, no other object has its id.
_kept: dict[tuple[int, bool], tuple[FeatureView, dict[str, _Reader]]] = {}
_MOST_KEPT = 256


def _feature_readers(view: FeatureView, *, untyped: bool) -> dict[str, _Reader]:
    """Made once for each view: schemas are compiled here, which takes longer than to read a row."""
    kept = _kept.get((id(view), untyped))
    if kept is None:
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        made = {one.name: _guarded(one, _reader(one, untyped=untyped)) for one in view.stored}
        kept = _kept[id(view), untyped] = (view, made)
    return kept[1]


def _mappings(
    rows: Iterable[object],
    faults: dict[int, list[str]],
    derive: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None,
) -> list[Mapping[str, Any]]:
    given: list[Mapping[str, Any]] = []
    for place, row in enumerate(rows):
        if isinstance(row, Mapping):
            given.append(row if derive is None else {**row, **derive(row)})
        else:
            faults[place] = [f"{type(row).__name__} is no row; give an object of columns and values"]
            given.append({})
    return given


def _unknown_columns(
    given: Sequence[Mapping[str, Any]], known: Iterable[str], passed: set[str], faults: dict[int, list[str]]
) -> None:
    fine = {*known, *passed}
    for place, row in enumerate(given):
        if not row.keys() <= fine:
            unknown = [one for one in row if one not in fine]
            what = [f"unknown column {_brief(one)}{nearest(str(one), known)}" for one in unknown]
            faults.setdefault(place, []).extend(what)


def _column(name: str, given: Sequence[Mapping[str, Any]], read: _Reader, faults: dict[int, list[str]]) -> list[Any]:
    out: list[Any] = []
    put = out.append
    for place, row in enumerate(given):
        value = row.get(name)
        if value is None:
            put(None)
            continue
        try:
            put(read(value) if type(value) in _SIMPLE else _read(read, value))
        except _WrongError as error:
            put(None)
            faults.setdefault(place, []).append(f"{name}: {error}")
    return out


def _require(name: str, column: Sequence[object], broken: set[int], faults: dict[int, list[str]]) -> None:
    for place, value in enumerate(column):
        if value is None and place not in broken:
            told = faults.setdefault(place, [])
            if not any(one.startswith(f"{name}: ") for one in told):
                told.append(f"{name} is missing")


def _table(view: FeatureView, columns: Mapping[str, list[Any]], now: datetime) -> pa.Table:
    schema, arrived = view_schema(view), [now] * len(columns["event_id"])
    whole = {**columns, "ingested_at": arrived}
    return pa.Table.from_arrays([pa.array(whole[one.name], one.type) for one in schema], schema=schema)


def _event_ids(view: str, columns: Mapping[str, list[Any]]) -> list[str]:
    """The given ids, and for rows without one a hash of what they say. Nulls say nothing; moments are microseconds."""
    names = sorted(name for name in columns if name != "event_id")
    ids = []
    for given, *values in zip(columns["event_id"], *(columns[name] for name in names), strict=True):
        if given is not None:
            ids.append(given)
            continue
        pairs = zip(names, values, strict=True)
        said = {name: value for name, value in pairs if value is not None} if None in values else dict(pairs)
        ids.append(sha256(orjson.dumps([view, said], micros_of, orjson.OPT_PASSTHROUGH_DATETIME)).hexdigest())
    return ids


def _ids_of_columns(view: str, columns: Mapping[str, Any]) -> pa.ChunkedArray:
    """The same ids, a column at a time: the given ones, and hashes in the places of those that are missing."""
    given = columns["event_id"].cast(pa.string())
    if not given.null_count:
        return given
    said = {
        name: column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        for name, column in columns.items()
        if name != "event_id" and column.null_count < len(column)
    }
    table = pa.table({name: said[name] for name in sorted(said)})
    hashed = pa.chunked_array([_hashes(view, batch) for batch in pieces(table)], pa.string())
    return pc.coalesce(given, hashed) if given.null_count < len(given) else hashed


def _hashes(view: str, batch: pa.RecordBatch) -> pa.Array:
    # Nulls say nothing, so that they take their comma with them; this one is never null, and the commas turn to it.
    middle = batch.schema.names.index("created_timestamp")
    parts: list[pa.Array | bytes] = [b"[%b,{" % orjson.dumps(view)]
    for place, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
        label = b"%b%b:" % (b"," if place > middle else b"", orjson.dumps(name))
        member: list[pa.Array | bytes] = [label, json_column(column), b"," if place < middle else b""]
        parts += [pc.if_else(column.is_valid(), joined(*member), b"")] if column.null_count else member
    digests = b"".join([sha256(one).digest() for one in as_list(joined(*parts, b"}]"))])
    return fixed_column(digests.hex().encode(), 64).cast(pa.string())


# Values


def _read(read: _Reader, value: object) -> Any:  # noqa: ANN401 - any value
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or is_missing(value):
        return None
    return read(value)


def _brief(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 2 * _BITS:
        return f"a whole number of {value.bit_length()} bits"
    try:
        shown = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."


def _guarded(feature: Feature, read: _Reader) -> _Reader:
    """The same reader; when the feature is personal, its errors do not tell the value."""
    if not _personal(feature):
        return read

    def guarded(value: object) -> object:
        try:
            return read(value)
        except _WrongError as error:
            raise _WrongError(_told(feature, error)) from None

    return guarded


def _personal(feature: Feature) -> bool:
    return feature.pii or (feature.item is not None and feature.item.pii)


def _told(feature: Feature, error: _WrongError) -> str:
    if not _personal(feature):
        return str(error)
    bounds = [
        f"{word} {bound}" for word, bound in (("from", feature.minimum), ("to", feature.maximum)) if bound is not None
    ]
    length = [f"at most {feature.max_length:,} long"] if feature.max_length else []
    wanted = ", ".join([feature.kind, *bounds, *length])
    return f"a value that does not fit ({wanted}); it is personal and not shown"


def _unicode(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            message = "text that is not valid Unicode; write the file as UTF-8"
            raise _WrongError(message) from None
    return value


def _key_text(value: object) -> str:
    if not isinstance(value, str):
        message = f"{_brief(value)} is {type(value).__name__}; the key is declared as a string, write it in quotes"
        raise _WrongError(message)
    if not 0 < len(value) <= _LONGEST_KEY:
        message = f"a key of {len(value)} characters; 1 to {_LONGEST_KEY} are allowed"
        raise _WrongError(message)
    return _unicode(value)


def _event_id(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_EVENT_ID:
        message = f"{_brief(value)} is no event id; give text of 1 to {_LONGEST_EVENT_ID} characters"
        raise _WrongError(message)
    return _unicode(value)


def _time(value: object, *, latest: datetime, early: list[datetime]) -> datetime:
    moment = _moment(value)
    if moment > latest:
        early.append(moment)
        ahead = moment - latest + MAX_AHEAD
        message = f"{moment.isoformat()} lies {ahead} in the future; the clock of the source is wrong"
        raise _WrongError(message)
    return moment


def _moment(value: object) -> datetime:
    try:
        if isinstance(value, str):
            return from_rfc3339(value)
        if isinstance(value, datetime) and value.tzinfo is not None:
            return _plain(value).astimezone(UTC)
    except RequestError as error:
        raise _WrongError(str(error)) from None
    except OverflowError:
        message = f"{_brief(value)} lies outside the years 1 to 9999"
        raise _WrongError(message) from None
    if isinstance(value, datetime):
        message = f"{value.isoformat()} has no time zone; add one, for example with .replace(tzinfo=UTC)"
        raise _WrongError(message)
    message = f"{_brief(value)} is no timestamp; write it like 2026-01-31T12:00:00Z"
    raise _WrongError(message)


def _plain(value: datetime) -> datetime:
    """The same moment to the microsecond, without what subclasses add."""
    return value if type(value) is datetime else datetime.combine(value.date(), value.timetz())


def _reader(feature: Feature, *, untyped: bool) -> _Reader:
    plain: Mapping[Kind, Callable[[], _Reader]] = {
        Kind.INTEGER: lambda: partial(_integer, wide=feature.wide, texts=untyped or feature.wide),
        Kind.NUMBER: lambda: partial(_number, untyped=untyped),
        Kind.BOOLEAN: lambda: partial(_boolean, untyped=untyped),
        Kind.TIMESTAMP: lambda: _moment,
        Kind.STRUCT: lambda: partial(_struct, fits=_schema_check(feature)),
        Kind.LIST: lambda: _list_reader(feature, untyped=untyped),
        Kind.CATEGORY: lambda: partial(_category, names=frozenset(feature.categories), feature=feature),
    }
    read = plain.get(feature.kind, lambda: partial(_text, limit=feature.max_length or _MAX_TEXT))()
    if feature.minimum is None and feature.maximum is None:
        return read
    low, high = feature.minimum, feature.maximum
    return partial(_bounded, read=read, low=-math.inf if low is None else low, high=math.inf if high is None else high)


def _integer(value: object, *, wide: bool, texts: bool) -> int:
    if type(value) is int:
        number = value
    elif isinstance(value, float) and value.is_integer() and abs(value) > MAX_SAFE_INTEGER:
        message = f"{_brief(value)} is a float beyond 2^53 - 1, which has lost digits; give a whole number"
        raise _WrongError(message)
    elif (isinstance(value, str) and texts and _DIGITS.fullmatch(value.strip())) or (
        isinstance(value, float) and value.is_integer()
    ):
        number = int(value)
    else:
        hint = "; write it without quotes" if isinstance(value, str) and _DIGITS.fullmatch(value) else ""
        message = f"{_brief(value)} is no whole number{hint}"
        raise _WrongError(message)
    if not -(1 << _BITS) <= number < 1 << _BITS:
        message = f"{_brief(number)} does not fit 64 bits"
        raise _WrongError(message)
    if not wide and abs(number) > MAX_SAFE_INTEGER:
        message = f"{number} is beyond 2^53 - 1, where JSON loses digits; declare integer(wide=True)"
        raise _WrongError(message)
    return number


def _number(value: object, *, untyped: bool) -> float:
    number = math.nan
    if (isinstance(value, int | float) and not isinstance(value, bool)) or (isinstance(value, str) and untyped):
        number = _float(value)
    if not math.isfinite(number):
        hint = "; write it without quotes" if isinstance(value, str) and math.isfinite(_float(value)) else ""
        message = f"{_brief(value)} is no finite number{hint}"
        raise _WrongError(message)
    return number


def _float(value: float | str) -> float:
    """As a float; NaN when it is none, or too great to be one."""
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _boolean(value: object, *, untyped: bool) -> bool:
    if isinstance(value, bool):
        return value
    if untyped and isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    hint = "; write it without quotes" if isinstance(value, str) and value in _WORDS else ""
    message = f"{_brief(value)} is neither true nor false{hint}"
    raise _WrongError(message)


def _text(value: object, *, limit: int) -> str:
    if not isinstance(value, str):
        message = f"{type(value).__name__} is no text"
        raise _WrongError(message)
    if len(value) > limit:
        message = f"text of {len(value):,} characters; at most {limit:,} are allowed"
        raise _WrongError(message)
    return _unicode(value)


def _category(value: object, *, names: frozenset[str], feature: Feature) -> str:
    if not isinstance(value, str) or value not in names:
        close = nearest(value, names) if isinstance(value, str) else ""
        hint = close if "did you mean" in close else ""
        message = f"{_brief(value)} is none of {', '.join(feature.categories)}{hint}"
        raise _WrongError(message)
    return value


def _struct(value: object, *, fits: Callable[[object], None]) -> str:
    if isinstance(value, str):
        value = _json(value)
    if not isinstance(value, Mapping):
        message = f"{type(value).__name__} is no JSON object"
        raise _WrongError(message)
    try:
        told = json_value(value)
        stored = orjson.dumps(told).decode()
        fits(told)
    except (orjson.JSONEncodeError, RequestError, TypeError, RecursionError) as error:
        message = f"an object that JSON cannot hold: {error}"
        raise _WrongError(message) from None
    return stored


def _json(text: str) -> object:
    try:
        return orjson.loads(text)
    except ValueError:
        message = "text that is not JSON"
        raise _WrongError(message) from None


def _schema_check(feature: Feature) -> Callable[[object], None]:
    if feature.schema is None:
        return lambda _: None
    from jsonschema import SchemaError, ValidationError, validators
    from jsonschema.exceptions import best_match

    schema = dict(feature.schema)
    try:
        kind = validators.validator_for(schema)
        kind.check_schema(schema)
    except SchemaError as error:
        message = f"feature {feature.name!r}: its schema is not a JSON Schema: {error.message}"
        raise DeclarationError(message) from error
    validator = kind(schema)

    def fits(value: object) -> None:
        worst: ValidationError | None = best_match(validator.iter_errors(value))
        if worst is not None:
            message = f"does not fit its schema: {_brief(worst.message)}"
            raise _WrongError(message)

    return fits


def _list_reader(feature: Feature, *, untyped: bool) -> _Reader:
    if feature.item is None:
        message = f"feature {feature.name!r}: a list needs the type of its items; write list_of(text())"
        raise DeclarationError(message)
    read = _reader(feature.item, untyped=untyped)
    return partial(_list, read=read, longest=feature.max_length or _MAX_TEXT, untyped=untyped)


def _list(value: object, *, read: _Reader, longest: int, untyped: bool) -> list[Any]:
    if untyped and isinstance(value, str):
        value = _json(value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        message = f"{type(value).__name__} is no list"
        raise _WrongError(message)
    if len(value) > longest:
        message = f"a list of {len(value):,} items; at most {longest:,} are allowed"
        raise _WrongError(message)
    return [_item(place, one, read) for place, one in enumerate(value, start=1)]


def _item(place: int, value: object, read: _Reader) -> object:
    try:
        return _read(read, value)
    except _WrongError as error:
        message = f"item {place}: {error}"
        raise _WrongError(message) from None


def _bounded(value: object, *, read: _Reader, low: float, high: float) -> float:
    number: float = read(value)
    if number < low:
        message = f"{number} is below {low}"
        raise _WrongError(message)
    if number > high:
        message = f"{number} is above {high}"
        raise _WrongError(message)
    return number
