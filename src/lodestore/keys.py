"""Access keys: who may call the server, for what, and about which documents.

The log `keys` only grows: one row adds a key, another one revokes it. A token is shown once, when its
key is made; the store has its SHA-256 alone. A token has 256 random bits, so a slow hash would protect
nothing more.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from lodestore.errors import RequestError, UnknownNameError, nearest
from lodestore.filters import parse
from lodestore.logs import Logs
from lodestore.store import COLUMNS

__all__ = ["SCOPES", "AddedKey", "Key", "Keys", "key_id_of"]

SCOPES = ("read", "push", "admin", "erase")
_PREFIX = "ls"
_REVOKED = "revoked"


def _digest(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def key_id_of(token: str) -> str:
    """The id that a token carries; empty when it is no token.

    >>> key_id_of("ls_0a1b2c3d4e5f_secret"), key_id_of("nonsense")
    ('0a1b2c3d4e5f', '')
    """
    parts = token.split("_", 2)
    return parts[1] if len(parts) == len(("prefix", "id", "secret")) and parts[0] == _PREFIX else ""


@dataclass(frozen=True, slots=True)
class Key:
    """What a key allows. `filter` is part of every search that is made with it."""

    id: str
    digest: str = field(repr=False)
    scopes: frozenset[str]
    filter: str | None
    note: str
    author: str
    at: datetime
    revoked_at: datetime | None = None

    def is_proved_by(self, token: str) -> bool:
        """Whether this is the key's token; takes equally long for every wrong one."""
        return hmac.compare_digest(self.digest, _digest(token)) and self.revoked_at is None

    def to_json(self) -> dict[str, Any]:
        """The key without anything that proves it."""
        told = {"id": self.id, "scopes": sorted(self.scopes), "filter": self.filter, "note": self.note}
        return {**told, "author": self.author, "at": self.at, "revoked_at": self.revoked_at}


@dataclass(frozen=True, slots=True)
class AddedKey:
    """A new key, and its token: the only time that anybody sees it."""

    key: Key
    token: str = field(repr=False)


class Keys:
    """The keys of a store."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def add(
        self,
        scopes: Iterable[str],
        *,
        filter: str | None = None,  # noqa: A002 - the word of the wire
        note: str = "",
        author: str = "",
    ) -> AddedKey:
        """A key with these scopes is valid from now on."""
        wanted = _checked_scopes(scopes)
        if filter is not None:
            parse(filter, COLUMNS)
        key_id = secrets.token_hex(6)
        token = f"{_PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
        self._put(key_id, key_id, "added", _digest(token), ",".join(wanted), filter, note, author)
        return AddedKey(self.get(key_id), token)

    def revoke(self, key_id: str, *, author: str = "") -> Key:
        """The key is no longer valid; revoking it again changes nothing."""
        self.get(key_id)
        self._put(f"{key_id}/{_REVOKED}", key_id, _REVOKED, "", "", None, "", author)
        return self.get(key_id)

    def get(self, key_id: str) -> Key:
        """The key of that id."""
        found = {one.id: one for one in self.all()}
        if key_id not in found:
            raise UnknownNameError(key_id, found, note=" (keys)")
        return found[key_id]

    def all(self) -> list[Key]:
        """Every key that was ever added, oldest first."""
        rows = self._logs.rows("keys")
        revoked = {row["key_id"]: row["at"] for row in rows if row["state"] == _REVOKED}
        return [_key(row, revoked.get(row["key_id"])) for row in rows if row["state"] != _REVOKED]

    def _put(self, *values: str | None) -> None:
        names = ("id", "key_id", "state", "digest", "scopes", "filter", "note", "author")
        self._logs.put("keys", dict(zip(names, values, strict=True)))


def _key(row: dict[str, Any], revoked_at: datetime | None) -> Key:
    scopes = frozenset(row["scopes"].split(","))
    return Key(row["key_id"], row["digest"], scopes, row["filter"], row["note"], row["author"], row["at"], revoked_at)


def _checked_scopes(scopes: Iterable[str]) -> list[str]:
    wanted = sorted(set(scopes))
    for one in wanted:
        if one not in SCOPES:
            message = f"scope {one!r}{nearest(one, SCOPES)}"
            raise RequestError(message)
    if not wanted:
        message = f"a key without a scope opens nothing; give one or more of {', '.join(SCOPES)}"
        raise RequestError(message)
    return wanted
