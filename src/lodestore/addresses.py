"""Addresses as they may be shown: without passwords, tokens and signatures."""

from __future__ import annotations

import re

__all__ = ["hidden", "shown"]

_MASK = "***"
_PARTS = re.compile(r"(?P<scheme>[A-Za-z][\w.+-]*)://(?:(?P<user>[^/?#\s]*)@)?[^?#\s]*(?:\?(?P<query>[^#\s]*))?")
_WEB = frozenset({"http", "https"})


def shown(address: str) -> str:
    """The address without what is secret in it.

    >>> shown("redis://me:p@ss@host:6379/0"), shown("https://token@host/a?sig=s3cret"), shown("s3://bucket/a@b.md")
    ('redis://me:***@host:6379/0', 'https://***@host/a?***', 's3://bucket/a@b.md')
    """
    return hidden(address, address)


def hidden(text: str, address: str) -> str:
    """The text without what is secret in `address`: drivers quote addresses in their errors."""
    found = _PARTS.search(address)
    if found is None:
        return text
    user, query, web = found["user"] or "", found["query"], found["scheme"].lower() in _WEB
    name, colon, _ = user.partition(":")
    if colon:
        text = text.replace(f"{user}@", f"{name}:{_MASK}@")
    elif user and web:  # a token alone
        text = text.replace(f"{user}@", f"{_MASK}@")
    if query and web:
        text = text.replace(f"?{query}", f"?{_MASK}")
    return text
