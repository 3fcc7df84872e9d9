"""Query parameters, and lists that come page by page."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from lodestore.errors import RequestError, nearest

__all__ = ["PAGE", "page", "paged", "parameters", "whole"]

PAGE = frozenset({"limit", "cursor"})
_DEFAULT, _MOST = 100, 1_000
_MANY = 50
_T = TypeVar("_T")


def parameters(raw: bytes, known: frozenset[str]) -> dict[str, str]:
    """The parameters of a query string, each one known and given once."""
    try:
        pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=_MANY)
    except ValueError:
        message = f"the query string has more than {_MANY} parameters"
        raise RequestError(message) from None
    out: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            message = f"the query parameter {name[:60]!r} means nothing here{nearest(name, known)}"
            raise RequestError(message)
        if name in out:
            message = f"the query parameter {name} is given twice; give it once"
            raise RequestError(message)
        out[name] = value
    return out


def whole(given: dict[str, str], name: str, default: int, *, low: int, high: int) -> int:
    """The whole number of that name."""
    text = given.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < len(str(high)) + 1 and low <= int(text) <= high):
        message = f"{name} is {text[:60]!r}; a whole number from {low} to {high} is expected"
        raise RequestError(message)
    return int(text)


def page(items: Sequence[_T], given: dict[str, str], key: Callable[[_T], str]) -> tuple[Sequence[_T], str | None]:
    """The items after the cursor, and the cursor of the next page; None at the end. Items are in the order of `key`."""
    limit = whole(given, "limit", _DEFAULT, low=1, high=_MOST)
    after = _after(given.get("cursor"))
    rest = [one for one in items if after is None or key(one) > after]
    shown = rest[:limit]
    return shown, _cursor(key(shown[-1])) if len(rest) > limit else None


def _cursor(last: str) -> str:
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def _after(cursor: str | None) -> str | None:
    if not cursor:
        return None
    try:
        return base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        message = f"cursor {cursor[:60]!r} is none of ours; give the `next` of the page before, or leave it out"
        raise RequestError(message) from None


def paged(name: str, shown: Sequence[Any], following: str | None) -> dict[str, Any]:
    """A page as it goes over the wire."""
    return {name: shown, "next": following}
