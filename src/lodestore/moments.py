"""Moments as microseconds since 1970, as rows and Arrow have them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["micros_of", "moment_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def moment_of(micros: int) -> datetime:
    """The moment that many microseconds after 1970, in UTC.

    >>> moment_of(1_500_000).isoformat()
    '1970-01-01T00:00:01.500000+00:00'
    """
    return _EPOCH + timedelta(0, 0, micros)


def micros_of(moment: datetime) -> int:
    """The microseconds from 1970 to the moment, which has a zone."""
    return (moment - _EPOCH) // _MICROSECOND
