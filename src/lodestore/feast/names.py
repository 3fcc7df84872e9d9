"""Names of Feast objects as names that are valid here, each given once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from hashlib import sha256

__all__ = ["Names", "valid"]

_LONGEST = 80
_HEX = 8


def valid(text: str) -> str:
    """The nearest name of small letters, digits and single underscores.

    >>> valid("driver_hourly_stats"), valid("Driver-Stats v2"), valid("camelCase"), valid("_a__b")
    ('driver_hourly_stats', 'driver_stats_v2', 'camel_case', 'a_b')
    >>> valid("Größe"), valid("??")
    ('grosse', 'unnamed_e270aeb3')
    """
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain).lower()
    name = re.sub(r"[^a-z0-9]+", "_", words).strip("_") or f"unnamed_{_digest(text)}"
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - _HEX - 1].rstrip('_')}_{_digest(text)}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:_HEX]


class Names:
    """Valid names of one kind; none is given twice, and none of `reserved`.

    A text of `known` that is a valid name keeps it: no other text becomes that.

    >>> names = Names(reserved={"documents"}, suffix="view", known=["Trip-Stats", "trip_stats"])
    >>> names.take("camelCase"), names.take("Camel_Case"), names.take("documents")
    ('camel_case', 'camel_case_2', 'documents_view')
    >>> names.take("Trip-Stats"), names.take("trip_stats")
    ('trip_stats_2', 'trip_stats')
    """

    def __init__(
        self, *, reserved: Iterable[str] = (), suffix: str = "value", prefix: str = "", known: Iterable[str] = ()
    ) -> None:
        self._reserved = frozenset(reserved)
        self._suffix = suffix
        self._prefix = prefix
        whole = {f"{prefix}{one}" for one in known}
        self._kept = {one for one in whole if valid(one) == one} - self._reserved
        self._given: set[str] = set()

    def take(self, text: str) -> str:
        """The name for this text, which nobody else gets."""
        whole = f"{self._prefix}{text}"
        name = valid(whole)
        if whole in self._kept - self._given:
            self._given.add(whole)
            return whole
        if name in self._reserved:
            name = f"{name}_{self._suffix}"
        free, number = name, 1
        while free in self._given or free in self._reserved or free in self._kept:
            number += 1
            free = f"{name}_{number}"
        self._given.add(free)
        return free
