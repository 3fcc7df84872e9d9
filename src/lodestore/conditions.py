"""Conditions: filters over the declared columns, and those that follow from what is known about a user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lodestore.filters import Column, Filter, combine, parse
from lodestore.tables import FILTERABLE

__all__ = ["COLUMNS", "compiled", "condition", "demanded"]

_TYPES = {"string": "string", "int64": "integer", "double": "number", "bool": "boolean"}
COLUMNS = tuple(
    Column(name, _TYPES.get(str(kind), "timestamp"))  # type: ignore[arg-type]
    for name, kind in FILTERABLE.items()
)


def compiled(filter: str | Mapping[str, Any]) -> str:  # noqa: A002 - the word of the wire
    """A filter over the declared columns, as the condition that the store understands."""
    return parse(filter, COLUMNS).sql()


def condition(
    filter: str | Mapping[str, Any] | None,  # noqa: A002 - the word of the wire
    *,
    filters: Mapping[str, str] | None = None,
    features: Mapping[str, Any] | None = None,
    mandatory: str | Mapping[str, Any] | Filter | None = None,
) -> str | None:
    """What the caller asks and what the user's features ask, both; None when neither asks anything.

    `filters` names for a column the feature whose value it must have; a list means any of its values. A
    feature without a value asks nothing. `mandatory` is a filter of its own, which nothing else widens.

    >>> condition(None, filters={"category": "user_profile:topics"}, features={"user_profile:topics": ["faq"]})
    "`category` in ('faq')"
    """
    asked = None if filter is None or filter in ("", {}) else parse(filter, COLUMNS)
    known = {} if features is None else features
    own = [_of_feature(column, known.get(ref)) for column, ref in (filters or {}).items()]
    both = combine(asked, *own, demanded(mandatory))
    return None if both is None else both.sql()


def demanded(mandatory: str | Mapping[str, Any] | Filter | None) -> Filter | None:
    """The filter that a caller makes mandatory: ready, or to be read; None when there is none."""
    if mandatory is None or isinstance(mandatory, Filter):
        return mandatory
    return None if mandatory in ("", {}) else parse(mandatory, COLUMNS)


def _of_feature(column: str, value: object) -> Filter | None:
    if value is None or value == []:
        return None
    return parse({column: {"in": value if isinstance(value, list) else [value]}}, COLUMNS)
