"""A filter is a checked tree over declared columns; it compiles to SQL and decides rows by itself.

Two forms say the same. As text: `category in ('faq', 'guide') and not (age < 3 or owner is null)`.
As JSON: `{"category": {"in": ["faq", "guide"]}, "not": {"or": [{"age": {"lt": 3}}, {"owner": {"is_null": true}}]}}`.

Nothing that a caller wrote reaches the database: text becomes nodes, nodes hold typed values, and
SQL is written anew from them. Nulls follow SQL: a comparison with null is unknown, and a row
matches only where the whole filter is true.

In the table a timestamp column is `timestamp[us, tz=UTC]`, a number is a double (NaN sorts above
every number), a list holds strings. Text sorts by code points.
"""

from __future__ import annotations

import json
import math
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from numbers import Real
from typing import Any, Final, Literal, NamedTuple, NoReturn, get_args

from lodestore.errors import DeclarationError, FilterError, nearest

__all__ = [
    "MAX_CONDITIONS",
    "MAX_DEPTH",
    "MAX_ITEMS",
    "MAX_TEXT",
    "MAX_VALUES",
    "And",
    "Column",
    "ColumnType",
    "Comparison",
    "Contains",
    "Filter",
    "IsNull",
    "Membership",
    "Not",
    "Or",
    "Value",
    "combine",
    "parse",
]

MAX_TEXT: Final = 10_000
"""Characters of a filter's text, and of one string in its JSON form."""
MAX_DEPTH: Final = 32
"""Levels of parentheses and `not`, or of `and`, `or`, `not` in JSON."""
MAX_ITEMS: Final = 1_000
"""Values of one list."""
MAX_CONDITIONS: Final = 500
"""Conditions of one filter; with MAX_DEPTH it keeps the SQL within what the table's parser takes."""
MAX_VALUES: Final = 10_000
"""Values of all lists of one filter."""

ColumnType = Literal["string", "integer", "number", "boolean", "timestamp", "list"]
Operator = Literal["=", "!=", "<", "<=", ">", ">="]
Value = str | int | float | bool | datetime
Truth = bool | None
"""True, false or unknown."""

_COMPARE: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPPOSITE: Final[Mapping[Operator, Operator]] = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_SAFE_INTEGER: Final = 2**53 - 1
_UNQUOTABLE = re.compile(r"[`\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Column:
    """A column that filters may name. A "list" holds strings."""

    name: str
    type: ColumnType

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or _UNQUOTABLE.search(self.name):
            message = f"filter column {self.name!r}: a name has no backtick and no control character, and is not empty"
            raise DeclarationError(message)
        if self.type not in get_args(ColumnType):
            message = f"filter column {self.name!r}: type {self.type!r}{nearest(str(self.type), get_args(ColumnType))}"
            raise DeclarationError(message)


class _Text(NamedTuple):
    """A filter as text, in the parts that `joiner` joins."""

    parts: tuple[str, ...]
    joiner: Literal["", "and", "or"] = ""

    @property
    def whole(self) -> str:
        return f" {self.joiner} ".join(self.parts)


class _Sql(NamedTuple):
    """A filter as SQL, and how many levels it takes of the tables' parser."""

    text: str
    height: int = 0
    joiner: Literal["", "and", "or"] = ""


class Filter(ABC):
    """What every node of a filter can do."""

    __slots__ = ()

    def sql(self) -> str:
        """Write the condition as the tables read it: identifiers in backticks, every literal quoted anew."""
        return self.compiled().text

    def matches(self, row: Mapping[str, object]) -> bool:
        """Tell whether the filter is true of the row; a column that the row lacks is null."""
        return self.truth(row) is True

    @abstractmethod
    def truth(self, row: Mapping[str, object]) -> Truth:
        """Say true, false, or None where a null leaves it unknown."""

    def canonical(self) -> str:
        """Write the filter as text that neither order nor repetition changes: a cache key that still parses."""
        return self.written().whole

    @abstractmethod
    def written(self) -> _Text:
        """Write this node in the text form, sorted, each part once."""

    @abstractmethod
    def compiled(self, *, negate: bool = False) -> _Sql:
        """Write this node or its negation as SQL in which `not` stands before single conditions only.

        The tables' parser takes some fifty levels, and fewer of nested `not (`; so `not` moves inwards
        (which holds for unknown too), and what is nested deepest comes first, where a level costs one.
        """


def _family(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, Real):
        return "number"
    if isinstance(value, str):
        return "string"
    return "timestamp" if isinstance(value, datetime) else type(value).__name__


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _cell(row: Mapping[str, object], column: str, like: Value) -> object:
    cell = row.get(column)
    if cell is None:
        return None
    if _family(cell) != _family(like):
        message = f"filter: the row has a {_family(cell)} in {column!r}, which is compared with a {_family(like)}"
        raise FilterError(message)
    if isinstance(cell, datetime):
        return _utc(cell)
    # the tables order NaN above every number, and a literal is never infinite
    return math.inf if cell != cell else cell  # noqa: PLR0124 - only NaN differs from itself


def _plain(value: Value) -> str:
    """Write the literal of the text form, which reads back as the same value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return _utc(value).replace(tzinfo=None).isoformat() + "Z"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, int) or math.isfinite(value):
        return repr(value)
    message = f"filter: {value!r} is not a finite number"
    raise FilterError(message)


def _literal(value: Value) -> str:
    if isinstance(value, datetime):
        return f"timestamp '{_utc(value).replace(tzinfo=None).isoformat(sep=' ')}'"
    if isinstance(value, int) and not -(2**31) <= value < 2**31:
        # bare, the smallest integer reads as a float, and columns of 32 bits refuse wider literals
        return f"cast('{value}' as bigint)"
    return _plain(value)


def _quoted(column: str) -> str:
    if _UNQUOTABLE.search(column):
        message = f"filter: column {column!r} cannot be quoted"
        raise FilterError(message)
    return f"`{column}`"


def _listed(values: Iterable[Value], literal: Callable[[Value], str]) -> str:
    return ", ".join(sorted({literal(one) for one in values}))


@dataclass(frozen=True, slots=True)
class Comparison(Filter):
    """The column's value compared with one literal."""

    column: str
    operator: Operator
    value: Value

    def truth(self, row: Mapping[str, object]) -> Truth:
        """Unknown where the cell is null."""
        cell = _cell(row, self.column, self.value)
        return None if cell is None else bool(_COMPARE[self.operator](cell, self.value))

    def written(self) -> _Text:
        """As text: column, operator, literal."""
        return _Text((f"{_quoted(self.column)} {self.operator} {_plain(self.value)}",))

    def compiled(self, *, negate: bool = False) -> _Sql:
        """As SQL; the negation has the opposite operator."""
        sign = _OPPOSITE[self.operator] if negate else self.operator
        return _Sql(f"{_quoted(self.column)} {sign} {_literal(self.value)}")


@dataclass(frozen=True, slots=True)
class Membership(Filter):
    """The column's value is one of some, or none of them."""

    column: str
    values: tuple[Value, ...]
    negated: bool = False

    def truth(self, row: Mapping[str, object]) -> Truth:
        """Unknown where the cell is null."""
        cell = _cell(row, self.column, self.values[0])
        return None if cell is None else (cell in self.values) is not self.negated

    def written(self) -> _Text:
        """As text, the values sorted, each once."""
        word = "not in" if self.negated else "in"
        return _Text((f"{_quoted(self.column)} {word} ({_listed(self.values, _plain)})",))

    def compiled(self, *, negate: bool = False) -> _Sql:
        """As SQL; a null is neither in the values nor, as SQL has it, not in them."""
        column, values = _quoted(self.column), _listed(self.values, _literal)
        if self.negated is negate:
            return _Sql(f"{column} in ({values})")
        # bare, the tables take "not in A or not in B" for true of nulls where A and B share no value
        return _joined_sql("and", [_Sql(f"{column} is not null"), _Sql(f"{column} not in ({values})")])


@dataclass(frozen=True, slots=True)
class IsNull(Filter):
    """The column has no value, or has one."""

    column: str
    negated: bool = False

    def truth(self, row: Mapping[str, object]) -> Truth:
        """Never unknown."""
        return (row.get(self.column) is None) is not self.negated

    def written(self) -> _Text:
        """As text."""
        return _Text((self.compiled().text,))

    def compiled(self, *, negate: bool = False) -> _Sql:
        """As SQL."""
        return _Sql(f"{_quoted(self.column)} is {'not null' if self.negated is not negate else 'null'}")


@dataclass(frozen=True, slots=True)
class Contains(Filter):
    """The column's list holds at least one of the values."""

    column: str
    values: tuple[str, ...]

    def truth(self, row: Mapping[str, object]) -> Truth:
        """Unknown where the list itself is null; a null within it is no value."""
        cell = row.get(self.column)
        if cell is None:
            return None
        if isinstance(cell, str) or not isinstance(cell, Collection):
            message = f"filter: the row has a {_family(cell)} in {self.column!r}, which is taken for a list"
            raise FilterError(message)
        return not set(self.values).isdisjoint(cell)

    def written(self) -> _Text:
        """As text, the values sorted, each once."""
        listed = _listed(self.values, _plain)
        single = len(set(self.values)) == 1
        return _Text((f"{_quoted(self.column)} " + (f"contains {listed}" if single else f"contains_any ({listed})"),))

    def compiled(self, *, negate: bool = False) -> _Sql:
        """As SQL that a label index answers."""
        call = f"array_has_any({_quoted(self.column)}, [{_listed(self.values, _literal)}])"
        return _Sql(f"not {call}" if negate else call)


def _all_true(truths: Iterable[Truth]) -> Truth:
    """Three-valued AND.

    >>> _all_true([True, None]), _all_true([False, None]), _all_true([True])
    (None, False, True)
    """
    seen = set(truths)
    return False if False in seen else None if None in seen else True


def _joined_text(joiner: Literal["and", "or"], written: Iterable[_Text]) -> _Text:
    different = {one.whole: one for one in written}
    if len(different) == 1:
        return next(iter(different.values()))
    parts: set[str] = set()
    for text, one in different.items():
        inner = (f"({text})",) if (joiner, one.joiner) == ("and", "or") else (text,)
        parts.update(one.parts if one.joiner == joiner else inner)
    return _Text(tuple(sorted(parts)), joiner)


def _joined_sql(joiner: Literal["and", "or"], parts: Iterable[_Sql]) -> _Sql:
    wrapped = [_Sql(f"({one.text})", one.height + 1) if (joiner, one.joiner) == ("and", "or") else one for one in parts]
    wrapped.sort(key=lambda one: -one.height)
    height = max(one.height + (place > 0) for place, one in enumerate(wrapped))
    return _Sql(f" {joiner} ".join(one.text for one in wrapped), height, joiner)


@dataclass(frozen=True, slots=True)
class And(Filter):
    """All of the parts."""

    parts: tuple[Filter, ...]

    def truth(self, row: Mapping[str, object]) -> Truth:
        """Say false where one part is false, else unknown where one is unknown."""
        return _all_true(part.truth(row) for part in self.parts)

    def written(self) -> _Text:
        """As text, the parts sorted, each once."""
        return _joined_text("and", [part.written() for part in self.parts])

    def compiled(self, *, negate: bool = False) -> _Sql:
        """As SQL; the negation is an OR of negations."""
        return _joined_sql("or" if negate else "and", [part.compiled(negate=negate) for part in self.parts])


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """One or more of the parts."""

    parts: tuple[Filter, ...]

    def truth(self, row: Mapping[str, object]) -> Truth:
        """Say true where one part is true, else unknown where one is unknown."""
        return _opposite(_all_true(_opposite(part.truth(row)) for part in self.parts))

    def written(self) -> _Text:
        """As text, the parts sorted, each once."""
        return _joined_text("or", [part.written() for part in self.parts])

    def compiled(self, *, negate: bool = False) -> _Sql:
        """As SQL; the negation is an AND of negations."""
        return _joined_sql("and" if negate else "or", [part.compiled(negate=negate) for part in self.parts])


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """Not the part; unknown stays unknown."""

    part: Filter

    def truth(self, row: Mapping[str, object]) -> Truth:
        """Say the opposite of the part."""
        return _opposite(self.part.truth(row))

    def written(self) -> _Text:
        """As text."""
        part = self.part.written()
        return _Text((f"not ({part.whole})" if part.joiner else f"not {part.whole}",))

    def compiled(self, *, negate: bool = False) -> _Sql:
        """Write the part, negated."""
        return self.part.compiled(negate=not negate)


def _opposite(truth: Truth) -> Truth:
    return None if truth is None else not truth


def _joined(kind: type[And | Or], parts: Iterable[Filter]) -> Filter:
    flat = tuple(one for part in parts for one in (part.parts if isinstance(part, kind) else (part,)))
    return flat[0] if len(flat) == 1 else kind(flat)


def combine(*filters: Filter | None) -> Filter | None:
    """One filter that is true only where all are; None stands for no filter.

    This is how a mandatory filter stays mandatory: it is a part of its own beside whatever a
    request asks, so no text of the request can widen it.

    >>> tenant = Comparison("tenant", "=", "acme")
    >>> combine(tenant, Or((IsNull("a"), IsNull("b")))).sql()
    "(`a` is null or `b` is null) and `tenant` = 'acme'"
    >>> combine(None, None) is None
    True
    """
    given = [one for one in filters if one is not None]
    return _joined(And, given) if given else None


def parse(source: str | Mapping[str, Any], columns: Iterable[Column]) -> Filter:
    """Read the filter that the text or the JSON object says, over these columns and no others.

    Text that opens with a brace is read as JSON. Whatever is wrong (an unknown column, a value of
    another type, an open parenthesis, more than the limits) is a FilterError that names the part.

    >>> columns = [Column("category", "string"), Column("age", "integer")]
    >>> parse("category in ('faq') and not age < 3", columns).sql()
    "`category` in ('faq') and `age` >= 3"
    >>> parse({"category": {"in": ["faq"]}, "not": {"age": {"lt": 3}}}, columns).canonical()
    "`category` in ('faq') and not `age` < 3"
    """
    conditions = _Conditions(columns)
    if isinstance(source, str):
        if len(source) > MAX_TEXT:
            message = f"filter: {len(source)} characters; the limit is {MAX_TEXT}"
            raise FilterError(message)
        if not source.lstrip().startswith("{"):
            return _TextReader(source, conditions).read()
    node = _decoded(source) if isinstance(source, str) else source
    return _JsonReader(conditions).read(node, "", 0)


# ---------------------------------------------------------------- values


class _BareMoment(str):
    """A date or a timestamp that stood in the text without quotes."""

    __slots__ = ()


class _MisfitError(Exception):
    """Why a value does not fit its column's type; always turned into a FilterError."""


def _refuse(where: str, what: str) -> NoReturn:
    raise FilterError(f"filter {where}: {what}" if where else f"filter: {what}") from None


def _shown(raw: object) -> str:
    """Picture anything that a caller may send, shortly and harmlessly."""
    if isinstance(raw, str):
        return repr(str(raw[:40])) + ("..." if len(raw) > 40 else "")  # noqa: PLR2004 - what fits in a message
    if isinstance(raw, int) and abs(raw) >= 2**64:
        return f"a whole number of {raw.bit_length()} bits"
    if raw is None:
        return "null"
    if isinstance(raw, (int, float, date)):
        return str(raw).lower() if isinstance(raw, bool) else str(raw)
    if isinstance(raw, Mapping):
        return "an object"
    return "a list" if isinstance(raw, (list, tuple)) else f"a {type(raw).__name__}"


def _string(raw: object) -> str:
    if isinstance(raw, _BareMoment) or not isinstance(raw, str):
        reason = "is not text; put it in quotes"
        raise _MisfitError(reason)
    if len(raw) > MAX_TEXT:
        reason = f"has {len(raw)} characters; the limit is {MAX_TEXT}"
        raise _MisfitError(reason)
    if "\0" in raw or any("\ud800" <= one <= "\udfff" for one in raw):
        reason = "holds a NUL character or half of a surrogate pair"
        raise _MisfitError(reason)
    return raw


def _integer(raw: object) -> int:
    # JSON carries integers that a double cannot hold as strings
    if isinstance(raw, str) and re.fullmatch(r"-?[0-9]{16,19}", raw) and abs(int(raw)) > _SAFE_INTEGER:
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        reason = "is not a whole number"
        raise _MisfitError(reason)
    if not -(2**63) <= raw < 2**63:
        reason = "does not fit in 64 bits"
        raise _MisfitError(reason)
    return raw


def _number(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        reason = "is not a number"
        raise _MisfitError(reason)
    try:
        value = float(raw)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        reason = "is not a finite number"
        raise _MisfitError(reason)
    return value + 0.0  # the two zeros are one


def _boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        reason = "is neither true nor false"
        raise _MisfitError(reason)
    return raw


_MOMENT = re.compile(
    r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)(?P<zone>[Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)


def _moment_from_text(text: str) -> datetime:
    match = _MOMENT.fullmatch(text)
    if match is None:
        reason = "is not a timestamp; write 2024-01-31 or 2024-01-31T10:00:00Z, with six decimals at most"
        raise _MisfitError(reason)
    day, time, zone = match.group("day", "time", "zone")
    if time and not zone:
        reason = f"has no time zone; write {day}T{time}Z for UTC, or an offset such as +02:00"
        raise _MisfitError(reason)
    return datetime.fromisoformat(f"{day}T{time or '00:00'}{(zone or 'Z').upper()}")


def _moment(raw: object) -> datetime:
    try:
        if isinstance(raw, str):
            return _moment_from_text(raw).astimezone(UTC)
        if isinstance(raw, datetime) and raw.tzinfo:
            return raw.astimezone(UTC)
    except (ValueError, OverflowError):
        reason = "is not in the calendar"
        raise _MisfitError(reason) from None
    if isinstance(raw, date) and not isinstance(raw, datetime):
        return datetime(raw.year, raw.month, raw.day, tzinfo=UTC)
    reason = "has no time zone" if isinstance(raw, datetime) else "is not a timestamp; write 2024-01-31T10:00:00Z"
    raise _MisfitError(reason)


_READERS: Final[Mapping[ColumnType, Callable[[object], Value]]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "timestamp": _moment,
    "list": _string,
}


def _typed(column: Column, raw: object, where: str) -> Value:
    if raw is None:
        _refuse(where, f'column {column.name!r}: null is no value; write is null, in JSON {{"is_null": true}}')
    try:
        return _READERS[column.type](raw)
    except _MisfitError as misfit:
        _refuse(where, f"column {column.name!r} ({column.type}): {_shown(raw)} {misfit}")


# ---------------------------------------------------------------- conditions, in either form

_TAKES: Final[Mapping[ColumnType, tuple[str, ...]]] = {
    "string": ("=", "!=", "<", "<=", ">", ">=", "in", "not in"),
    "integer": ("=", "!=", "<", "<=", ">", ">=", "in", "not in"),
    "number": ("=", "!=", "<", "<=", ">", ">=", "in", "not in"),
    "timestamp": ("=", "!=", "<", "<=", ">", ">=", "in", "not in"),
    "boolean": ("=", "!=", "in", "not in"),
    "list": ("contains", "contains_any", "in"),
}


class _Conditions:
    """Makes checked conditions and counts them; one for each filter that is read."""

    def __init__(self, columns: Iterable[Column]) -> None:
        self.columns = {column.name: column for column in columns}
        self.made = 0
        self.values = 0

    def column(self, name: str, where: str) -> Column:
        """Find the declared column of that name."""
        if name not in self.columns:
            _refuse(where, f"unknown column {_shown(name)}{nearest(name[:64], self.columns)}")
        self.made += 1
        if self.made > MAX_CONDITIONS:
            _refuse(where, f"more than {MAX_CONDITIONS} conditions, which is the limit")
        return self.columns[name]

    def comparison(self, column: Column, sign: Operator, raw: object, where: str) -> Filter:
        """Make a comparison with one value."""
        self._takes(column, sign, where)
        return Comparison(column.name, sign, _typed(column, raw, where))

    def membership(self, column: Column, word: str, raws: Collection[object], where: str) -> Filter:
        """Make `in`, `not in` or `contains_any` over a list that is neither empty nor beyond the limits.

        Of a list column `in` means that it holds any of the values.
        """
        self._takes(column, word, where)
        if not raws:
            _refuse(where, f"column {column.name!r}: {word} needs at least one value")
        self.values += len(raws)
        if len(raws) > MAX_ITEMS or self.values > MAX_VALUES:
            limits = f"the limit is {MAX_ITEMS}, and {MAX_VALUES} in the whole filter"
            _refuse(where, f"column {column.name!r}: {word} has {len(raws)} values; {limits}")
        values = tuple(dict.fromkeys(_typed(column, raw, where) for raw in raws))
        if column.type == "list":
            return Contains(column.name, tuple(str(one) for one in values))
        return Membership(column.name, values, negated=word == "not in")

    def contains(self, column: Column, raw: object, where: str) -> Filter:
        """Make `contains`: the list holds one value."""
        self._takes(column, "contains", where)
        return Contains(column.name, (str(_typed(column, raw, where)),))

    def _takes(self, column: Column, word: str, where: str) -> None:
        if word not in _TAKES[column.type]:
            takes = ", ".join((*_TAKES[column.type], "is null"))
            _refuse(where, f"column {column.name!r} ({column.type}) does not take {word}; it takes {takes}")


# ---------------------------------------------------------------- the text form


class _Token(NamedTuple):
    kind: Literal["string", "name", "moment", "number", "word", "sign", "mark", "end"]
    text: str
    where: str

    @property
    def word(self) -> str:
        """The keyword that this may be."""
        return self.text.lower() if self.kind in {"word", "mark"} else ""


_TOKEN = re.compile(
    r"""\s*+(?:
      (?P<string>'[^']*+(?:''[^']*+)*+' | "[^"]*+(?:""[^"]*+)*+")
    | (?P<name>`[^`]++`)
    | (?P<moment>[0-9]{4}-[0-9]{2}-[0-9]{2}(?:\ (?=[0-9]{2}:))?[\w:.+-]*)
    | (?P<number>[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![\w.]))
    | (?P<word>\w+)
    | (?P<sign>!=|<=|>=|<>|==|=|<|>)
    | (?P<mark>[(),])
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_SPELT = {"==": "=", "<>": "!="}
_KEYWORDS = frozenset({"and", "or", "not", "in", "is", "null", "true", "false", "contains", "contains_any"})
_LONGEST_NUMBER: Final = 400


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while True:
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            unclosed = text[at] in "'\"`"
            what = f"the quote {text[at]} is never closed" if unclosed else f"unexpected {_shown(text[at : at + 2])}"
            _refuse(f"at character {at + 1}", what)
        kind: Any = match.lastgroup
        at = match.end()
        yield _Token(kind, match.group(kind), f"at character {match.start(kind) + 1}")
        if kind == "end":
            return


def _figure(token: _Token) -> int | float:
    if len(token.text) > _LONGEST_NUMBER:
        _refuse(token.where, f"a number of {len(token.text)} digits; the limit is {_LONGEST_NUMBER}")
    return int(token.text) if re.fullmatch(r"[-+]?[0-9]+", token.text) else float(token.text)


class _TextReader:
    """Reads one text by recursive descent: or, and, not, then a condition or parentheses."""

    def __init__(self, text: str, conditions: _Conditions) -> None:
        self.conditions = conditions
        self.tokens = tuple(_tokens(text))
        self.at = 0

    def read(self) -> Filter:
        if len(self.tokens) == 1:
            _refuse("", "it is empty; leave it out, or write a condition such as category = 'faq'")
        found = self._any_of(0)
        if self.token.kind != "end":
            self._fail("and, or, or the end")
        return found

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def _take(self) -> _Token:
        token = self.token
        self.at += token.kind != "end"
        return token

    def _took(self, word: str) -> bool:
        if self.token.word != word:
            return False
        self.at += 1
        return True

    def _expect(self, word: str, what: str) -> None:
        if not self._took(word):
            self._fail(what)

    def _fail(self, expected: str, token: _Token | None = None) -> NoReturn:
        token = token or self.token
        found = "the end" if token.kind == "end" else _shown(token.text)
        _refuse(token.where, f"expected {expected}; found {found}")

    def _any_of(self, depth: int) -> Filter:
        parts = [self._all_of(depth)]
        while self._took("or"):
            parts.append(self._all_of(depth))
        return _joined(Or, parts)

    def _all_of(self, depth: int) -> Filter:
        parts = [self._one(depth)]
        while self._took("and"):
            parts.append(self._one(depth))
        return _joined(And, parts)

    def _one(self, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            _refuse(self.token.where, f"nested deeper than {MAX_DEPTH} levels, which is the limit")
        if self._took("not"):
            return Not(self._one(depth + 1))
        if self._took("("):
            found = self._any_of(depth + 1)
            self._expect(")", "and, or, or ')'")
            return found
        return self._condition()

    def _column(self) -> Column:
        token = self._take()
        name = token.text[1:-1] if token.kind == "name" else token.text
        reserved = token.word in _KEYWORDS and name not in self.conditions.columns
        if token.kind not in {"word", "name"} or reserved:
            self._fail("a column", token)
        return self.conditions.column(name, token.where)

    def _condition(self) -> Filter:
        where = self.token.where
        column = self._column()
        if self.token.kind == "sign":
            return self.conditions.comparison(column, self._sign(), self._value(), where)
        if self._took("is"):
            negated = self._took("not")
            self._expect("null", "null")
            return IsNull(column.name, negated)
        if self._took("contains"):
            return self.conditions.contains(column, self._value(), where)
        for words in (("in",), ("not", "in"), ("contains_any",)):
            if self._took(words[0]):
                for word in words[1:]:
                    self._expect(word, word)
                return self.conditions.membership(column, " ".join(words), self._list(), where)
        return self._fail(f"an operator for {column.name!r} ({', '.join(_TAKES[column.type])}, is null)")

    def _sign(self) -> Operator:
        token = self._take()
        for sign in _COMPARE:
            if token.text == sign:
                return sign
        return self._fail(f"an operator (write {_SPELT[token.text]})", token)

    def _list(self) -> list[object]:
        self._expect("(", "'(' and a list of values")
        values = [] if self.token.word == ")" else [self._value()]
        while self._took(","):
            values.append(self._value())
        self._expect(")", "',' or ')'")
        return values

    def _value(self) -> object:
        token = self._take()
        if token.kind == "string":
            quote = token.text[0]
            return token.text[1:-1].replace(quote * 2, quote)
        if token.kind == "moment":
            return _BareMoment(token.text)
        if token.kind == "number":
            return _figure(token)
        if token.word in {"true", "false", "null"}:
            return {"true": True, "false": False, "null": None}[token.word]
        return self._fail("a value (text stands in quotes)", token)


# ---------------------------------------------------------------- the JSON form

_SIGNS: Final[Mapping[str, Operator]] = {"eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_LISTS: Final[Mapping[str, str]] = {"in": "in", "not_in": "not in", "contains_any": "contains_any"}
_JSON_OPERATORS = (*_SIGNS, *_LISTS, "contains", "is_null")


def _constant(name: str) -> object:
    _refuse("", f"{name} is not a JSON number")


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        _refuse("", f"{_shown(twice)} stands twice in one object; use and")
    return found


def _decoded(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_constant, object_pairs_hook=_pairs)
    except FilterError:
        raise
    except RecursionError:
        _refuse("", f"nested deeper than {MAX_DEPTH} levels, which is the limit")
    except ValueError as error:
        _refuse("", f"it opens with a brace, but is not JSON: {error}")


def _under(path: str, key: str) -> str:
    return f"{path}.{key[:40]}" if path else f"at {key[:40]}"


class _JsonReader:
    """Reads objects whose members are columns, or `and`, `or`, `not`; all members have to hold."""

    def __init__(self, conditions: _Conditions) -> None:
        self.conditions = conditions

    def read(self, node: object, path: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            _refuse("", f"nested deeper than {MAX_DEPTH} levels, which is the limit")
        if not isinstance(node, Mapping):
            _refuse(path, f'expected an object such as {{"category": "faq"}}; found {_shown(node)}')
        if not node:
            _refuse(path, "an empty object says nothing; leave it out")
        return _joined(And, [self._member(key, value, path, depth) for key, value in node.items()])

    def _member(self, key: object, value: object, path: str, depth: int) -> Filter:
        if not isinstance(key, str):
            _refuse(path, f"a name has to be a string; found {_shown(key)}")
        here = _under(path, ascii(key)[1:-1])
        if key in {"and", "or"}:
            return self._parts(And if key == "and" else Or, value, here, depth)
        if key == "not":
            return Not(self.read(value, here, depth + 1))
        column = self.conditions.column(key, here)
        if not isinstance(value, Mapping):
            return self._condition(column, "eq", value, here)
        if not value:
            _refuse(here, f"no operator; write one of {', '.join(_JSON_OPERATORS)}")
        self.conditions.made += len(value) - 1
        return _joined(And, [self._condition(column, str(name), one, here) for name, one in value.items()])

    def _parts(self, kind: type[And | Or], value: object, path: str, depth: int) -> Filter:
        if not isinstance(value, (list, tuple)) or not value:
            _refuse(path, f"expected a list of objects, one or more; found {_shown(value)}")
        return _joined(kind, [self.read(one, f"{path}[{place}]", depth + 1) for place, one in enumerate(value)])

    def _condition(self, column: Column, name: str, raw: object, path: str) -> Filter:
        if name in _SIGNS:
            if isinstance(raw, (list, tuple)):
                _refuse(path, f'expected one value; found a list: write {{"{column.name}": {{"in": [...]}}}}')
            return self.conditions.comparison(column, _SIGNS[name], raw, path)
        if name in _LISTS:
            if not isinstance(raw, (list, tuple)):
                _refuse(path, f"{name} takes a list; found {_shown(raw)}")
            return self.conditions.membership(column, _LISTS[name], raw, path)
        if name == "contains":
            return self.conditions.contains(column, raw, path)
        if name == "is_null":
            if not isinstance(raw, bool):
                _refuse(path, f"is_null takes true or false; found {_shown(raw)}")
            return IsNull(column.name, negated=not raw)
        _refuse(path, f"unknown operator {_shown(name)}{nearest(name[:64], _JSON_OPERATORS)}")
