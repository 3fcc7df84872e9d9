"""What every command has: the project, and one place to print to."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from lodestore.cli.page import Block, printed

if TYPE_CHECKING:
    from lodestore.project import Project

__all__ = ["Session", "author", "command", "group", "pairs"]


class Session:
    """One command at work: its project, opened when it is first used, and its output."""

    def __init__(self, config: Path | None, *, as_json: bool) -> None:
        self.config = config
        self.as_json = as_json
        self._out: TextIO = sys.stdout

    @cached_property
    def project(self) -> Project:
        """The project of the settings file that was named or found."""
        from lodestore.project import open_project

        return open_project(self.config)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """While JSON is wanted, whatever else prints goes to the error stream."""
        if not self.as_json:
            yield
            return
        with contextlib.redirect_stdout(sys.stderr):
            yield

    def show(self, value: Any, page: Iterable[Block]) -> None:  # noqa: ANN401 - any JSON value
        """The answer is printed: the value as JSON, or the page for people."""
        if self.as_json:
            from lodestore.wire import dumps

            click.echo(dumps(value, indent=2), file=self._out)
        else:
            printed(page, self._out)

    def note(self, text: str) -> None:
        """A word beside the answer, on the error stream."""
        click.echo(text, err=True)


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    help_json = "Print JSON alone; notes go to the error stream."
    function = click.option("--json", "as_json", is_flag=True, help=help_json)(function)
    kind = click.Path(path_type=Path)
    return click.option("--config", "settings_file", type=kind, help="The settings file.", hidden=True)(function)


def command(
    parent: click.Group | None = None, name: str | None = None, *, epilog: str | None = None
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that takes a `Session` first; `--json` and `--config` come by themselves."""

    def wrap(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def body(*, settings_file: Path | None, as_json: bool, **values: Any) -> None:  # noqa: ANN401 - whatever the options are
            given = click.get_current_context().find_root().obj or {}
            session = Session(settings_file or given.get("config"), as_json=as_json or bool(given.get("as_json")))
            with session.at_work():
                function(session, **values)

        made = click.command(name or function.__name__, epilog=epilog)(_options(body))
        made.params.sort(key=lambda one: one.name in {"as_json", "settings_file"})  # what all have comes last
        if parent is not None:
            parent.add_command(made)
        return made

    return wrap


class _Group(click.Group):
    """A group in the order of its declarations, whose unknown words are told like every other mistake."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from lodestore.errors import nearest

        word = args[0]
        if not word.startswith("-") and word not in self.commands:
            message = f"there is no command {ctx.command_path} {word!r}{nearest(word, self.commands)}"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)


def group(name: str, text: str) -> click.Group:
    """Make a group of commands."""
    return _Group(name, help=text)


def pairs(given: Iterable[str], what: str) -> list[tuple[str, str]]:
    """Split each NAME=VALUE at its first equals sign."""
    out = []
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name:
            message = f"{what} {one!r}: write NAME=VALUE"
            raise click.UsageError(message, click.get_current_context(silent=True))
        out.append((name, value))
    return out


def author() -> str:
    """Who runs the command, as the machine knows them."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
