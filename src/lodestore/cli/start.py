"""init: a new project."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lodestore.cli.page import Block
from lodestore.cli.session import Session, command

if TYPE_CHECKING:
    from lodestore.init import Begun

__all__ = ["init"]


@command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Also into a folder that has files; none of them is overwritten.")
def init(session: Session, folder: Path, *, force: bool) -> None:
    """Write a new project into DIR.

    It has settings, a few documents and events, features, templates, a golden set and the Dagster
    folders, and works at once.
    """
    from lodestore.init import begin
    from lodestore.logs import utc_now

    begun = begin(folder, now=utc_now(), force=force, command=_called())
    value = {"folder": begun.folder, "written": begun.written, "left": begun.left, "next": begun.next_commands}
    session.show(value, _page(begun))


def _called() -> str:
    """The word that starts this command from any folder: its name where that is found, its path otherwise."""
    here = Path(sys.argv[0]).absolute()
    found = shutil.which(here.name)
    if found is not None and Path(found).absolute() == here:
        return here.name
    return (
        shlex.quote(str(here)) if os.access(here, os.X_OK) else "lodestore"
    )  # python -m lodestore has no file to call


def _page(begun: Begun) -> Iterator[Block]:
    tops = dict.fromkeys(one.split("/")[0] + ("/" if "/" in one else "") for one in begun.written)
    yield f"A new project is in {begun.folder}: {len(begun.written)} files"
    yield f"  {'  '.join(sorted(tops))}"
    if begun.left:
        yield f"Left alone, as they were there: {', '.join(begun.left)}"
    yield "\nNext:"
    for one in begun.next_commands:
        yield f"  {one}"
