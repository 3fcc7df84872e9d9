"""Who is calling: keys from the log, read anew every half second, checked for each request."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from lodestore.errors import FilterError, StoreError
from lodestore.filters import Filter, parse
from lodestore.keys import SCOPES, Key, key_id_of
from lodestore.server.problems import HttpError
from lodestore.store import COLUMNS

__all__ = ["ANYBODY", "Access", "Caller", "is_loopback"]

_FORWARDED = (b"x-forwarded-for", b"x-real-ip", b"forwarded")
_log = logging.getLogger("lodestore.server")


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with these scopes, and the filter that is part of all that they search."""

    id: str
    scopes: frozenset[str]
    filter: Filter | None = None


ANYBODY = Caller("", frozenset(SCOPES))


@lru_cache(maxsize=1_024)
def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class Access:
    """The keys as they were read last. As long as there never was a key, everybody on this machine may do all."""

    def __init__(self) -> None:
        self._keys: Mapping[str, tuple[Key, Filter | None]] = {}
        self._read_at: float | None = None

    @property
    def known(self) -> bool:
        """Whether the keys were read."""
        return self._read_at is not None

    @property
    def age(self) -> float:
        """Seconds since the keys were read."""
        return 0.0 if self._read_at is None else time.monotonic() - self._read_at

    def use_newer(self, keys: Sequence[Key]) -> None:
        """These are the keys from now on, in a process that has used others before.

        Keys are revoked and never removed. Where one is missing, the store is not what it was: without its keys it would
        open to everybody on this machine, so that those which are known stay and a `StoreError` tells it.
        """
        missing = sorted(self._keys.keys() - {one.id for one in keys})
        if missing:
            message = f"the store lacks {len(missing)} keys that it had ({missing[0]}, ...); if that is right, start the server again"
            raise StoreError(message)
        self.use(keys)

    def use(self, keys: Sequence[Key]) -> None:
        """These are the keys from now on."""
        usable = {}
        for key in keys:
            try:
                usable[key.id] = (key, None if key.filter is None else parse(key.filter, COLUMNS))
            except FilterError as error:
                _log.error("key %s opens nothing, its filter no longer parses: %s", key.id, error)
                usable[key.id] = (_closed(key), None)
        self._keys = usable
        self._read_at = time.monotonic()

    def caller(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes], wanted: str) -> Caller:
        """Who calls, when they may do what is `wanted`; otherwise 401 or 403."""
        if self._read_at is None:
            message = "the keys have not been read yet; try again in a second"
            raise HttpError(503, "unavailable", message, retry_after="1")
        if not self._keys:
            return _somebody_here(scope, headers)
        caller = self._proved(headers)
        if wanted not in caller.scopes:
            message = f"key {caller.id} has the scopes {', '.join(sorted(caller.scopes))}; this needs {wanted}"
            raise HttpError(403, "forbidden", message)
        return caller

    def _proved(self, headers: Mapping[bytes, bytes]) -> Caller:
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        token = token.strip()
        found = self._keys.get(key_id_of(token))
        if scheme.lower() != "bearer" or found is None or not found[0].is_proved_by(token):
            message = "give a valid key as `Authorization: Bearer KEY`; make one with: lodestore keys add"
            raise HttpError(401, "unauthenticated", message, www_authenticate="Bearer")
        key, where = found
        return Caller(key.id, key.scopes, where)


def _closed(key: Key) -> Key:
    """The same key as one that opens nothing."""
    return Key(key.id, "", key.scopes, key.filter, key.note, key.author, key.at, datetime.now(UTC))


def _somebody_here(scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Caller:
    """Without keys, only this machine is answered, and no web page that happens to be open on it."""
    client = scope.get("client")
    # A proxy on this machine passes on what comes from wherever it says.
    passed_on = not headers.keys().isdisjoint(_FORWARDED) and not all(
        # Every line of them: of a header that comes twice, `headers` has the last one.
        _is_from_here(value)
        for name, value in scope.get("headers", headers.items())
        if name in _FORWARDED
    )
    if passed_on or (client is not None and _is_elsewhere(str(client[0]))):
        message = "without keys only this machine is answered; make a key with: lodestore keys add --scope read"
        raise HttpError(403, "forbidden", message)
    page = _page_of(headers.get(b"origin"), headers.get(b"host", b""))
    if page:
        message = f"a page of {page} may not call a server without keys; make a key with: lodestore keys add"
        raise HttpError(403, "forbidden", message)
    return ANYBODY


@lru_cache(maxsize=1_024)
def _is_elsewhere(address: str) -> bool:
    """Whether the peer has an IP address that is not this machine's own; a Unix socket has none."""
    try:
        return not ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _is_from_here(passed_on: bytes) -> bool:
    """Whether a proxy says that every sender is this machine; what is no address is somebody else."""
    try:
        return all(ipaddress.ip_address(one.strip()).is_loopback for one in passed_on.decode("latin-1").split(","))
    except ValueError:
        return False


@lru_cache(maxsize=1_024)
def _page_of(origin: bytes | None, host: bytes) -> str:
    """The foreign name by which a web page may have sent this: its origin, or a domain that leads here."""
    names = [] if origin is None else [_hostname(origin.decode("latin-1").partition("://")[2])]
    name = _hostname(host.decode("latin-1"))
    names += [name] if "." in name else []
    return next((one or "no name" for one in names if not is_loopback(one)), "")


def _hostname(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
