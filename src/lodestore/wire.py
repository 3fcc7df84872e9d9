"""How values look in JSON: moments in UTC with a Z, no NaN, stable key order where hashes depend on it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from uuid import UUID

from lodestore.errors import RequestError

__all__ = [
    "MAX_SAFE_INTEGER",
    "canonical",
    "digest",
    "dumps",
    "from_rfc3339",
    "is_missing",
    "json_value",
    "jsonable",
    "rfc3339",
    "span",
]

MAX_SAFE_INTEGER = 2**53 - 1
_SHOWN = 80


def rfc3339(moment: datetime) -> str:
    """The moment in UTC as RFC 3339 text with a Z.

    >>> rfc3339(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05Z'
    """
    if moment.tzinfo is None:
        message = f"{moment.isoformat()} has no time zone; add one, for example +00:00"
        raise RequestError(message)
    return _in_utc(moment, "timestamp").isoformat().replace("+00:00", "Z")


def from_rfc3339(text: str, what: str = "timestamp") -> datetime:
    """The moment that an RFC 3339 text names; a text without a zone is refused.

    >>> from_rfc3339("2026-01-02T05:04:05+02:00")
    datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    """
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        message = f"{what} {_brief(text)} is not a timestamp; write it like 2026-01-31T12:00:00Z"
        raise RequestError(message) from None
    if moment.tzinfo is None:
        day = text if len(text) > len("2026-01-31") else f"{text}T00:00:00"
        message = f"{what} {text!r} has no time zone; write it like {day}Z or {day}+02:00"
        raise RequestError(message)
    return _in_utc(moment, what)


def _in_utc(moment: datetime, what: str) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        message = f"{what} {moment.isoformat()} lies outside the years 1 to 9999 in UTC"
        raise RequestError(message) from None


def _brief(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."


def span(delta: timedelta) -> str:
    """A length of time as a person says it.

    >>> span(timedelta(seconds=90)), span(timedelta(days=2)), span(timedelta(milliseconds=12))
    ('1 m 30 s', '2 d', '12 ms')
    """
    seconds = delta.total_seconds()
    if seconds <= -1:
        return f"-{span(-delta)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    whole = round(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    shown = [f"{n} {unit}" for n, unit in parts if n]
    return " ".join(shown[:2])


_PLAIN = frozenset({str, int, bool, type(None)})
_MISSING = frozenset({"NAType", "NaTType"})
_UNCLEAR = frozenset("MmSV")  # NumPy's moments, spans and bytes: their plain values have no zone, no unit or no meaning


def is_missing(value: object) -> bool:
    """Whether the value is how pandas or NumPy write that there is none: NaN, NaT or NA.

    >>> is_missing(float("nan")), is_missing(None), is_missing("")
    (True, False, False)
    """
    return type(value).__name__ in _MISSING or (isinstance(value, float | Decimal) and math.isnan(value))


def jsonable(value: object) -> object:
    """The value as plain JSON types; NaN, NaT, NA and infinities become null, moments RFC 3339 text, sets sorted lists."""
    kind = type(value)
    if kind in _PLAIN:  # most values are, and each of the questions below costs more than this one
        return value
    if kind is list or kind is tuple:
        return [jsonable(one) for one in value]  # type: ignore[attr-defined]  # mypy does not narrow by `is`
    match value:
        case Enum():
            return jsonable(value.value)
        case None | bool() | str() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case date() | timedelta():
            return _time(value)
        case Mapping():
            return {str(k.value if isinstance(k, Enum) else k): jsonable(v) for k, v in value.items()}
        case set() | frozenset():
            return sorted((jsonable(one) for one in value), key=canonical)
        case _:
            return _object(value)


# What is written as text and means the same.
_TEXTUAL = (UUID, PurePath, time, IPv4Address, IPv6Address, IPv4Network, IPv6Network)


def json_value(value: object) -> object:
    """`jsonable` for a value that somebody gives: what JSON has no word for is a TypeError, also deep inside, and not its text.

    NaN, NaT and NA are null; an infinite number, a moment without a zone (`RequestError`), a key that is no text, bytes
    and objects of unknown classes are refused.

    >>> json_value({"a": (Decimal("1.5"), float("nan"))})
    {'a': ['1.5', None]}
    """
    if type(value) in _PLAIN:
        return value
    if is_missing(value):
        return None
    match value:
        case Enum():
            return json_value(value.value)
        case bool() | str() | int():
            return value
        case float() | Decimal():
            return _finite(value)
        case Mapping():
            return {_key(name): json_value(one) for name, one in value.items()}
        case list() | tuple():
            return [json_value(one) for one in value]
        case set() | frozenset():
            return sorted((json_value(one) for one in value), key=canonical)
        case _:
            return _object_given(value)


def _object_given(value: object) -> object:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, date | timedelta):
        return _time(value)
    if isinstance(value, _TEXTUAL):
        return str(value)
    if hasattr(value, "to_json"):
        return json_value(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return json_value({one.name: getattr(value, one.name) for one in fields(value)})
    if hasattr(value, "tolist") and hasattr(value, "dtype") and value.dtype.kind not in _UNCLEAR:
        return json_value(value.tolist())
    message = f"a value of type {type(value).__name__} is none that JSON has"
    raise TypeError(message)


def _finite(value: float | Decimal) -> float | str:
    if not math.isfinite(value):
        message = f"{value} is no finite number"
        raise TypeError(message)
    return value if isinstance(value, float) else str(value)


def _key(name: object) -> str:
    told = name.value if isinstance(name, Enum) else name
    if not isinstance(told, str):
        message = f"the key {_brief(name)} is no text"
        raise TypeError(message)
    return told


def _time(value: date | timedelta) -> str | float | None:
    if is_missing(value):
        return None
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        return rfc3339(value if value.tzinfo else value.replace(tzinfo=UTC))
    return value.isoformat()


def _object(value: object) -> object:
    """By the first that fits: its own `to_json`, its fields, its numbers, its items, its text."""
    if is_missing(value):
        return None
    if hasattr(value, "to_json"):
        return jsonable(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return jsonable({one.name: getattr(value, one.name) for one in fields(value)})
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, Iterable):
        return [jsonable(one) for one in value]
    return str(value)


def dumps(value: object, *, indent: int | None = None) -> str:
    """The value as JSON text."""
    return json.dumps(jsonable(value), ensure_ascii=False, indent=indent, allow_nan=False)


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no blanks: equal values give equal bytes on every machine.

    >>> canonical({"b": 1, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    text = json.dumps(jsonable(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def digest(value: object) -> str:
    """SHA-256 over the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical(value)).hexdigest()
