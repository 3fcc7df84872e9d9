"""Conditions: filters over the declared columns, and those that follow from what is known about a user."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from lodestore.errors import FilterError
from lodestore.filters import And, Column, ColumnType, Filter, IsNull, combine, parse
from lodestore.tables import FILTERABLE, MOMENT

__all__ = ["COLUMNS", "compiled", "condition", "demanded", "narrowed"]

_TYPES: Mapping[pa.DataType, ColumnType] = MappingProxyType(
    {pa.string(): "string", pa.int64(): "integer", MOMENT: "timestamp", pa.list_(pa.string()): "list"}
)
COLUMNS = tuple(Column(name, _TYPES[kind]) for name, kind in FILTERABLE.items())
# True of no row: what somebody sees who is on no access list.
_NOTHING = And((IsNull("access"), IsNull("access", negated=True)))


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
    feature without a value asks nothing, but for `access`: who is on no list sees nothing. `mandatory` is a filter of its own, which nothing else widens.

    >>> condition(None, filters={"category": "user_profile:topics"}, features={"user_profile:topics": ["faq"]})
    "`category` in ('faq')"
    """
    asked = _asked(filter)
    known = {} if features is None else features
    own = [_of_feature(column, known.get(ref)) for column, ref in (filters or {}).items()]
    both = combine(asked, *own, demanded(mandatory))
    return None if both is None else both.sql()


def narrowed(
    filter: str | Mapping[str, Any] | None,  # noqa: A002 - the word of the wire
    mandatory: str | Mapping[str, Any] | Filter | None,
) -> str | None:
    """What the caller asks and what is mandatory, as the text of one filter.

    >>> narrowed("category = 'faq' or category is null", "access in ('sales')")
    "(`category` = 'faq' or `category` is null) and `access` contains 'sales'"
    """
    both = combine(_asked(filter), demanded(mandatory))
    return None if both is None else both.canonical()


def demanded(mandatory: str | Mapping[str, Any] | Filter | None) -> Filter | None:
    """The filter that a caller makes mandatory: ready, or to be read; None when there is none.

    An empty one is an error: who demands something and has nothing to demand would see everything.
    """
    if mandatory is None or isinstance(mandatory, Filter):
        return mandatory
    if mandatory in ("", {}):
        message = "the mandatory filter is empty, which would let everything through; name a condition, or leave it out"
        raise FilterError(message)
    return parse(mandatory, COLUMNS)


def _asked(filter: str | Mapping[str, Any] | None) -> Filter | None:  # noqa: A002 - the word of the wire
    return None if filter in (None, "", {}) else parse(filter, COLUMNS)


def _of_feature(column: str, value: object) -> Filter | None:
    if value is None or value == []:
        return _NOTHING if column == "access" else None
    return parse({column: {"in": value if isinstance(value, list) else [value]}}, COLUMNS)
