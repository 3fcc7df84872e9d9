"""replay: a logged context made again, and what differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from lodestore.cli import given
from lodestore.cli.page import Block, Facts, Table, ago
from lodestore.cli.session import Session, command

if TYPE_CHECKING:
    from lodestore.replay import Replay

__all__ = ["replay"]


@command()
@click.argument("name", metavar="CONTEXT_ID")
@click.option("--query", help="The question, where the log does not keep it.")
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="Variables that the caller gave.")
@click.option("--history", help="The earlier turns that the caller gave, as JSON or as one text.")
@click.option("--prompt", is_flag=True, help="Also print the prompt.")
def replay(
    session: Session, name: str, query: str | None, variables: tuple[str, ...], history: str | None, *, prompt: bool
) -> None:
    """Make a logged context again as of then, and tell what differs.

    Exit code 0: all of it is the same; 1: something differs.
    """
    from lodestore.replay import replay as again
    from lodestore.wire import rfc3339

    logged = session.project.contexts.get(name)
    template = session.project.templates.get(logged.template_id, logged.template_version)
    values = given.variables(template, variables)
    made = again(session.project, logged.context_id, query=query, variables=values, history=given.turns(history))
    session.show(made.to_json() | {"at": rfc3339(made.logged.at)}, _page(made, prompt=prompt))
    if not made.same:
        click.get_current_context().exit(1)


def _page(made: Replay, *, prompt: bool) -> Iterator[Block]:
    from lodestore.wire import rfc3339

    logged = made.logged
    facts = {
        "made": ago(rfc3339(logged.at)),
        "release": logged.release,
        "template": f"{logged.template_id} {logged.template_version}",
        "user": logged.user_id or "nobody in particular",
    }
    yield Facts(facts, title=f"Context {logged.context_id}")
    rows = [[one.name, "same" if one.same else "DIFFERS", one.note] for one in made.parts]
    yield Table(("part", "now", "note"), rows, title="Parts", text=frozenset({"note"}))
    if prompt:
        yield f"\n{made.context.prompt}"
