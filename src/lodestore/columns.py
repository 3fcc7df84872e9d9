"""What stored rows say, as columns: values, statuses and event times in the order of the keys asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple, TypeAlias

from lodestore.online import Status, time_and_payload, times_and_payloads
from lodestore.payloads import decode_payload, decode_payloads

__all__ = ["Columns", "columns_of", "oldest_of"]

_ALWAYS: Final = -(1 << 63)
_MICROSECOND: Final = timedelta(microseconds=1)

# Looking an enumeration's member up costs as much as reading a row's header.
_PRESENT: Final = Status.PRESENT
_NULL: Final = Status.NULL
_NOT_FOUND: Final = Status.NOT_FOUND
_EXPIRED: Final = Status.EXPIRED
_NOTHING: Final[Mapping[str, Any]] = {}


Columns: TypeAlias = tuple[dict[str, list[Any]], dict[str, list[Status]], list[int | None]]
"""Values and statuses by name, and the event times, each in the order of the keys asked."""


class _Rows(NamedTuple):
    states: list[Status]
    values: Sequence[Mapping[str, Any]]
    micros: list[int | None]


def oldest_of(ttl: timedelta | None, now_micros: int) -> int:
    """The event time from which on a row has not expired: at most `ttl` before now."""
    return _ALWAYS if ttl is None else now_micros - ttl // _MICROSECOND


def columns_of(stored: Sequence[bytes | None], wanted: Sequence[tuple[str, str]], oldest: int) -> Columns:
    """Stored rows as columns: `wanted` names each column and the feature in it.

    A row older than `oldest` has expired. What is absent, expired or null is None with its status; a feature that
    its row does not have is null: the row is older than the feature.
    """
    if len(stored) == 1:
        return _of_one(stored[0], wanted, oldest)
    found = _whole(stored, oldest) or _with_gaps(stored, oldest)
    columns: dict[str, list[Any]] = {}
    statuses: dict[str, list[Status]] = {}
    for name, feature in wanted:
        columns[name] = column = [one.get(feature) for one in found.values]
        statuses[name] = _statuses(column, found.states)
    return columns, statuses, found.micros


def _of_one(stored: bytes | None, wanted: Sequence[tuple[str, str]], oldest: int) -> Columns:
    """The same for a single row, the most frequent question of all."""
    values: Mapping[str, Any] = _NOTHING
    micros, state = None, _NOT_FOUND
    if stored is not None:
        micros, payload = time_and_payload(stored)
        state = _EXPIRED
        if micros >= oldest:
            state, values = _PRESENT, decode_payload(payload)
    columns, statuses = {}, {}
    for name, feature in wanted:
        value = values.get(feature)
        columns[name] = [value]
        statuses[name] = [state if value is not None or state is not _PRESENT else _NULL]
    return columns, statuses, [micros]


def _whole(stored: Sequence[bytes | None], oldest: int) -> _Rows | None:
    """All rows, a column at a time, where every one is there and none has expired, as nearly always."""
    found = times_and_payloads(stored)
    if found is None or (oldest > _ALWAYS and min(found[0]) < oldest):
        return None
    times, payloads = found
    return _Rows([_PRESENT] * len(stored), decode_payloads(payloads), [*times])


def _with_gaps(stored: Sequence[bytes | None], oldest: int) -> _Rows:
    """The same, where some are absent or have expired."""
    pairs = [None if one is None else time_and_payload(one) for one in stored]
    values = iter(decode_payloads([one[1] for one in pairs if one is not None and one[0] >= oldest]))
    micros = [None if one is None else one[0] for one in pairs]
    states = [_NOT_FOUND if one is None else _PRESENT if one >= oldest else _EXPIRED for one in micros]
    return _Rows(states, [next(values) if one is _PRESENT else _NOTHING for one in states], micros)


def _statuses(column: list[Any], states: list[Status]) -> list[Status]:
    for value in column:
        if value is None:  # by identity: a vector answers `==` number by number
            pairs = zip(column, states, strict=True)
            return [_NULL if one is None and state is _PRESENT else state for one, state in pairs]
    return states.copy()  # so nothing is absent, expired or null
