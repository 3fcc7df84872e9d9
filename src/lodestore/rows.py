"""Rows of a view, checked whole: types, bounds, categories, times. Every bad row is named at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from lodestore.errors import InvalidRowsError, RequestError, nearest
from lodestore.spec import Feature, FeatureView, Kind
from lodestore.tables import view_schema
from lodestore.wire import digest, dumps, from_rfc3339

__all__ = ["CheckedRows", "Problem", "check_rows", "checked_rows"]

# Clocks of sources differ a little; beyond this an event's time is a mistake.
MAX_AHEAD = timedelta(minutes=5)
_TIMES = ("event_timestamp", "created_timestamp")
_MAX_TEXT = 1_000_000


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one row; `row` counts from 1."""

    row: int
    what: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.what}"


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """The good rows as a table of the view's columns, and what is wrong with the others."""

    table: pa.Table
    problems: tuple[Problem, ...]


class _WrongError(ValueError):
    """A value that does not fit its column."""


def checked_rows(view: FeatureView, rows: Iterable[Mapping[str, Any]], *, now: datetime) -> pa.Table:
    """The rows as a table, or `InvalidRowsError` that names every bad one."""
    found = check_rows(view, rows, now=now)
    if found.problems:
        raise InvalidRowsError(view.name, map(str, found.problems))
    return found.table


def check_rows(view: FeatureView, rows: Iterable[Mapping[str, Any]], *, now: datetime) -> CheckedRows:
    """Sort rows into good and bad ones. Good ones have every column, an event id and times in UTC."""
    readers = _readers(view, now)
    good: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for number, row in enumerate(rows, start=1):
        faults: list[str] = []
        values = _row(view, row, readers, faults, now)
        if faults:
            problems.extend(Problem(number, fault) for fault in faults)
        else:
            good.append(values)
    return CheckedRows(pa.Table.from_pylist(good, schema=view_schema(view)), tuple(problems))


def _readers(view: FeatureView, now: datetime) -> dict[str, Callable[[Any], Any]]:
    keys = zip(view.entity.keys, view.entity.types, strict=True)
    readers: dict[str, Callable[[Any], Any]] = {key: (_key_text if kind == "string" else _integer) for key, kind in keys}
    readers |= {name: (lambda value: _time(value, now)) for name in _TIMES}
    readers["event_id"] = _event_id
    return readers | {one.name: _reader(one) for one in view.stored}


def _row(
    view: FeatureView,
    row: Mapping[str, Any],
    readers: Mapping[str, Callable[[Any], Any]],
    faults: list[str],
    now: datetime,
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    vectors = {one.name for one in view.embeddings}
    for name, value in row.items():
        if name in vectors:
            continue
        if name not in readers:
            faults.append(f"unknown column {name!r}{nearest(name, readers)}")
            continue
        try:
            values[name] = None if _is_null(value) else readers[name](value)
        except _WrongError as error:
            faults.append(f"{name}: {error}")
    faults.extend(f"{key} is missing" for key in view.entity.keys if values.get(key) is None and key not in str(faults))
    if values.get("event_timestamp") is None and not any(fault.startswith("event_timestamp") for fault in faults):
        faults.append("event_timestamp is missing")
    values.setdefault("created_timestamp", None)
    values["created_timestamp"] = values["created_timestamp"] or values.get("event_timestamp")
    values["event_id"] = values.get("event_id") or (None if faults else digest([view.name, values]))
    values["ingested_at"] = now
    return values


def _is_null(value: Any) -> bool:  # noqa: ANN401 - any value
    return value is None or (isinstance(value, float) and math.isnan(value))


def _key_text(value: Any) -> str:  # noqa: ANN401 - any value
    if not isinstance(value, str):
        message = f"{value!r} is {type(value).__name__}; the key is declared as a string"
        raise _WrongError(message)
    if not value or len(value) > 1024:  # noqa: PLR2004 - long enough for any id
        message = f"a key of {len(value)} characters; 1 to 1024 are allowed"
        raise _WrongError(message)
    return value


def _event_id(value: Any) -> str:  # noqa: ANN401 - any value
    if not isinstance(value, str) or not value or len(value) > 256:  # noqa: PLR2004 - long enough for any id
        message = f"{value!r} is no event id; give text of 1 to 256 characters"
        raise _WrongError(message)
    return value


def _time(value: Any, now: datetime) -> datetime:  # noqa: ANN401 - any value
    moment = _moment(value)
    if moment > now + MAX_AHEAD:
        message = f"{moment.isoformat()} lies {moment - now} in the future; the clock of the source is wrong"
        raise _WrongError(message)
    return moment


def _moment(value: Any) -> datetime:  # noqa: ANN401 - any value
    if isinstance(value, str):
        try:
            return from_rfc3339(value)
        except RequestError as error:
            raise _WrongError(str(error)) from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            message = f"{value.isoformat()} has no time zone; add one, for example with .replace(tzinfo=UTC)"
            raise _WrongError(message)
        return value.astimezone(UTC)
    message = f"{value!r} is no timestamp; write it like 2026-01-31T12:00:00Z"
    raise _WrongError(message)


def _reader(feature: Feature) -> Callable[[Any], Any]:
    plain: Mapping[Kind, Callable[[Any], Any]] = {
        Kind.INTEGER: _integer,
        Kind.NUMBER: _number,
        Kind.BOOLEAN: _boolean,
        Kind.TIMESTAMP: _moment,
        Kind.STRUCT: lambda value: _struct(value, feature),
        Kind.LIST: lambda value: _list(value, feature),
        Kind.CATEGORY: lambda value: _category(value, feature),
    }
    read = plain.get(feature.kind, lambda value: _text(value, feature))
    if feature.minimum is None and feature.maximum is None:
        return read
    return lambda value: _bounded(read(value), feature)


def _integer(value: Any) -> int:  # noqa: ANN401 - any value
    if isinstance(value, str) and value.lstrip("-").isdigit():
        value = int(value)  # CSV has no types
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        message = f"{value!r} is no whole number"
        raise _WrongError(message)
    if not -(2**63) <= value < 2**63:
        message = f"{value} does not fit 64 bits"
        raise _WrongError(message)
    return value


def _number(value: Any) -> float:  # noqa: ANN401 - any value
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        message = f"{value!r} is no finite number"
        raise _WrongError(message)
    return number


def _boolean(value: Any) -> bool:  # noqa: ANN401 - any value
    named = {"true": True, "false": False}
    if isinstance(value, str) and value.lower() in named:
        return named[value.lower()]
    if not isinstance(value, bool):
        message = f"{value!r} is neither true nor false"
        raise _WrongError(message)
    return value


def _text(value: Any, feature: Feature) -> str:  # noqa: ANN401 - any value
    limit = feature.max_length or _MAX_TEXT
    if not isinstance(value, str):
        message = f"{type(value).__name__} is no text"
        raise _WrongError(message)
    if len(value) > limit:
        message = f"text of {len(value):,} characters; at most {limit:,} are allowed"
        raise _WrongError(message)
    return value


def _category(value: Any, feature: Feature) -> str:  # noqa: ANN401 - any value
    if value not in feature.categories:
        message = f"{value!r} is none of {', '.join(feature.categories)}"
        raise _WrongError(message)
    return str(value)


def _struct(value: Any, feature: Feature) -> str:  # noqa: ANN401 - any value
    import json

    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            message = "text that is not JSON"
            raise _WrongError(message) from None
    if not isinstance(value, Mapping):
        message = f"{type(value).__name__} is no JSON object"
        raise _WrongError(message)
    if feature.schema is not None:
        _fits_schema(value, feature.schema)
    return dumps(value)


def _fits_schema(value: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    from jsonschema import ValidationError, validate

    try:
        validate(value, dict(schema))
    except ValidationError as error:
        message = f"does not fit its schema: {error.message}"
        raise _WrongError(message) from None


def _list(value: Any, feature: Feature) -> list[Any]:  # noqa: ANN401 - any value
    if isinstance(value, str) or not isinstance(value, Sequence) or feature.item is None:
        message = f"{type(value).__name__} is no list"
        raise _WrongError(message)
    if feature.max_length is not None and len(value) > feature.max_length:
        message = f"a list of {len(value)} items; at most {feature.max_length} are allowed"
        raise _WrongError(message)
    read = _reader(feature.item)
    return [None if _is_null(one) else read(one) for one in value]


def _bounded(value: float, feature: Feature) -> float:
    if feature.minimum is not None and value < feature.minimum:
        message = f"{value} is below {feature.minimum}"
        raise _WrongError(message)
    if feature.maximum is not None and value > feature.maximum:
        message = f"{value} is above {feature.maximum}"
        raise _WrongError(message)
    return value
