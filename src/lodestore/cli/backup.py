"""backup, restore: the store as it was at a moment, kept somewhere else, and made of that again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from lodestore.cli.page import Block
from lodestore.cli.session import Session, command

if TYPE_CHECKING:
    from lodestore.manifest import Backup
    from lodestore.restore import Restored

__all__ = ["backup", "restore"]


@command()
@click.argument("destination", metavar="[DEST]", required=False)
def backup(session: Session, destination: str | None) -> None:
    """Copy the whole store to DEST, a new folder or s3://bucket/prefix, and read the copy back.

    Without DEST, one more backup is made under [backup] uri, as the job of that name does every night.
    Writers wait only for a moment. What makes the store useful and lies elsewhere is not in it: settings,
    feature modules, template files, and the run history of Dagster.
    """
    from lodestore.backup import backup as made_of
    from lodestore.backup import backup_again

    project = session.project
    found = backup_again(project) if destination is None else made_of(project, destination)
    session.show({"uri": found.uri, **found.to_json()}, _made(found))
    if found.left_out:
        click.get_current_context().exit(1)


@command()
@click.argument("source", metavar="SRC")
@click.option(
    "--check", "only_check", is_flag=True, help="Read the backup and compare it with what was copied; restore nothing."
)
def restore(session: Session, source: str, *, only_check: bool) -> None:
    """Make the project's store, which must be new or empty, of the backup at SRC.

    The newest values of each view are put online again. Start the server afterwards.
    """
    from lodestore.manifest import check
    from lodestore.restore import restore as made_of

    if only_check:
        found = check(source, storage=session.project.settings.store.storage)
        session.show({"uri": found.uri, **found.to_json()}, [f"{_what(found)}\nEvery row was read and is as it was."])
        return
    restored = made_of(session.project, source)
    told = {**restored.backup.to_json(), "online": restored.online, "troubles": list(restored.troubles)}
    session.show({"uri": restored.backup.uri, **told}, _restored(restored, session.project.settings.store_uri))
    if restored.troubles:
        click.get_current_context().exit(1)


def _what(found: Backup) -> str:
    return (
        f"{found.uri}: the store as of {found.at:%Y-%m-%d %H:%M:%S} UTC, release {found.generation}, "
        f"{len(found.tables)} tables, {found.rows:,} rows"
    )


def _made(found: Backup) -> Iterator[Block]:
    yield _what(found)
    for one in found.left_out:
        yield f"Not in it: {one}"
    yield f"Every row was read back. To restore it: lodestore restore {found.uri}"


def _restored(restored: Restored, store: str) -> Iterator[Block]:
    yield f"{_what(restored.backup)}\nThe store {store} is this again; {restored.online:,} values are online."
    for one in restored.troubles:
        yield f"Not online again: {one}\nRun: lodestore run features"
