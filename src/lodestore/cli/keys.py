"""keys: who may call the server."""

from __future__ import annotations

from typing import Any

import click

from lodestore.cli.page import Block, Facts, Table, cell
from lodestore.cli.session import Session, author, command, group

__all__ = ["keys"]

keys = group("keys", "Keys: who may call the server, for what, and about which documents.")


@command(keys)
@click.option("--scope", "scopes", multiple=True, required=True, help="read, push, admin or erase; repeat it for more.")
@click.option("--filter", "where", help="A condition on documents that every search with this key gets.")
@click.option("--note", default="", help="Whose it is; it is shown in the list.")
@click.option("--author", "by", help="Who adds it; by default the user of this machine.")
def add(session: Session, scopes: tuple[str, ...], where: str | None, note: str, by: str | None) -> None:
    """Make a key. Its token is shown this once and never again."""
    from lodestore.keys import Keys

    wanted = [one for given in scopes for one in given.split(",") if one]
    added = Keys(session.project.logs).add(wanted, filter=where, note=note, author=by or author())
    page: list[Block] = [Facts(_shown(added.key.to_json()), title="Key"), f"\n{added.token}\n"]
    page.append("Keep it now: the store has only its hash. Send it as `Authorization: Bearer KEY`.")
    session.show({**added.key.to_json(), "token": added.token}, page)


@command(keys, "list")
def list_(session: Session) -> None:
    """List the keys, oldest first; never what proves them."""
    from lodestore.keys import Keys

    found = [one.to_json() for one in Keys(session.project.logs).all()]
    columns = ("id", "scopes", "filter", "note", "state", "since")
    rows = [
        [one["id"], cell(one["scopes"]), cell(one["filter"]), one["note"], _state(one), _since(one)] for one in found
    ]
    empty = "none yet: without keys, only this machine is answered"
    session.show({"keys": found}, [Table(columns, rows, empty=empty, text=frozenset({"filter", "note"}))])


@command(keys)
@click.argument("key_id", metavar="ID")
@click.option("--author", "by", help="Who revokes it; by default the user of this machine.")
def revoke(session: Session, key_id: str, by: str | None) -> None:
    """Make a key invalid, in running servers within two seconds."""
    from lodestore.keys import Keys

    found = Keys(session.project.logs).revoke(key_id, author=by or author())
    session.show(found.to_json(), [f"Key {found.id} is revoked."])


def _state(one: dict[str, Any]) -> str:
    return "revoked" if one["revoked_at"] else "live"


def _since(one: dict[str, Any]) -> str:
    return f"{one['revoked_at'] or one['at']:%Y-%m-%d %H:%M:%S} UTC"


def _shown(one: dict[str, Any]) -> dict[str, Any]:
    return {"id": one["id"], "scopes": one["scopes"], "filter": one["filter"], "note": one["note"]}
