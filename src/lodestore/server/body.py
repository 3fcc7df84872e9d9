"""The parts of a request, each of the type that it should have; whatever is wrong is named."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from lodestore.errors import RequestError, nearest
from lodestore.server.problems import HttpError

__all__ = ["a_flag", "a_list", "a_number", "a_text", "a_whole", "an_object", "parsed"]

_SHOWN = 60
_MISSING: Any = object()


def parsed(body: bytes, known: Collection[str]) -> dict[str, Any]:
    """The body as a JSON object that has no key but the known ones."""
    try:
        values = orjson.loads(body)
    except ValueError as error:
        message = f"the body is not JSON: {error}"
        raise HttpError(400, "json", message) from None
    if not isinstance(values, dict):
        message = f"the body is a JSON {_kind(values)}; send an object"
        raise RequestError(message)
    for key in values:
        if key not in known:
            message = f"the body has {_brief(key)}, which means nothing here{nearest(key, known)}"
            raise RequestError(message)
    return values


def a_text(values: Mapping[str, Any], name: str, default: Any = _MISSING) -> Any:  # noqa: ANN401 - text, or the default
    """The text of that name; null counts as left out."""
    return _of(values, name, str, "text", default)


def a_flag(values: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """True or false."""
    return bool(_of(values, name, bool, "true or false", default))


def a_list(values: Mapping[str, Any], name: str, default: Any = _MISSING) -> Any:  # noqa: ANN401 - a list, or the default
    """The list of that name."""
    return _of(values, name, list, "a list", default)


def an_object(values: Mapping[str, Any], name: str, default: Any = _MISSING) -> Any:  # noqa: ANN401 - an object, or the default
    """The object of that name."""
    return _of(values, name, dict, "an object", default)


def a_whole(
    values: Mapping[str, Any],
    name: str,
    default: Any = _MISSING,  # noqa: ANN401 - a number, or the default
    *,
    low: int = 0,
    high: int = 2**53 - 1,
) -> Any:  # noqa: ANN401 - a number, or the default
    """The whole number of that name, between `low` and `high`."""
    value = _of(values, name, int, "a whole number", default)
    if value is not default and (isinstance(value, bool) or not low <= value <= high):
        message = f"{name} is {_brief(value)}; a whole number from {low:,} to {high:,} is expected"
        raise RequestError(message)
    return value


def a_number(values: Mapping[str, Any], name: str, default: Any = _MISSING) -> Any:  # noqa: ANN401 - a number, or the default
    """The finite number of that name."""
    value = _of(values, name, int | float, "a number", default)
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        message = f"{name} is {_brief(value)}; a number is expected"
        raise RequestError(message)
    return value


def _of(values: Mapping[str, Any], name: str, kind: Any, wanted: str, default: Any) -> Any:  # noqa: ANN401 - any JSON value
    value = values.get(name)
    if type(value) is kind:  # as nearly always
        return value
    if value is None:
        if default is _MISSING:
            message = f"the body lacks {name}; {wanted} is expected"
            raise RequestError(message)
        return default
    if not isinstance(value, kind):
        message = f"{name} is {_brief(value)}; {wanted} is expected"
        raise RequestError(message)
    return value


def _kind(value: object) -> str:
    return {list: "list", str: "string", type(None): "null", bool: "boolean"}.get(type(value), "number")


def _brief(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
