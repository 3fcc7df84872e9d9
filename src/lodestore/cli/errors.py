"""How an error looks on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from lodestore.errors import LodestoreError

__all__ = ["BUG", "exit_code", "tell"]

BUG = (
    "{kind}: {error}\nThis is a bug in Lodestore, or in code of your project that it called. "
    "For the traceback, set LODESTORE_DEBUG=1 and run it again."
)


def exit_code(error: Exception) -> int:
    """What the process says about the error: 1 a finding or a refusal, 2 wrong usage."""
    if isinstance(error, (LodestoreError, click.ClickException)):
        return error.exit_code
    return 1


def tell(message: str, code: str, *, as_json: bool, problems: Sequence[str] = ()) -> None:
    """The message is on the error stream; with `as_json` it is an object on the other one, too."""
    click.echo(f"lodestore: error: {message}", err=True)
    if as_json:
        error: dict[str, object] = {"code": code, "message": message}
        if problems:
            error["problems"] = list(problems)
        click.echo(json.dumps({"error": error}, ensure_ascii=False))
