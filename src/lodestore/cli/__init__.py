"""The command line. A module of commands is imported when one of them runs, and what it needs when it works."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from keyword import iskeyword
from pathlib import Path
from typing import Any

import click

from lodestore.cli.errors import BUG, exit_code, tell
from lodestore.errors import InvalidRowsError, LodestoreError, nearest

__all__ = ["COMMANDS", "main", "run"]

# Command -> the module that has it, in the order of the help. The attribute bears the command's
# name; `doctor` is lodestore.cli.state.doctor, and `import`, which no attribute can be called, is import_.
COMMANDS: dict[str, str] = {
    "init": "lodestore.cli.start",
    "run": "lodestore.cli.jobs",
    "dev": "lodestore.cli.dev",
    "status": "lodestore.cli.state",
    "doctor": "lodestore.cli.state",
    "settings": "lodestore.cli.state",
    "search": "lodestore.cli.retrieve",
    "why": "lodestore.cli.why",
    "context": "lodestore.cli.retrieve",
    "replay": "lodestore.cli.replay",
    "evaluate": "lodestore.cli.retrieve",
    "golden": "lodestore.cli.golden",
    "drift": "lodestore.cli.drift",
    "online": "lodestore.cli.values",
    "push": "lodestore.cli.values",
    "materialize": "lodestore.cli.values",
    "historical": "lodestore.cli.values",
    "views": "lodestore.cli.views",
    "models": "lodestore.cli.models",
    "release": "lodestore.cli.release",
    "templates": "lodestore.cli.templates",
    "keys": "lodestore.cli.keys",
    "backup": "lodestore.cli.backup",
    "restore": "lodestore.cli.backup",
    "import": "lodestore.cli.imports",
    "serve": "lodestore.cli.serve",
}
# Other words for the same thing; they work and stay out of the help.
ALIASES = {"get": "online", "history": "historical"}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of `COMMANDS`."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name or alias; None tells click that there is none."""
        del ctx
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        attribute = f"{name}_" if iskeyword(name) else name.replace("-", "_")
        found: click.Command = getattr(importlib.import_module(COMMANDS[name]), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names; an unknown one is an error that names the nearest."""
        word = args[0]
        if not word.startswith("-") and self.get_command(ctx, word) is None:
            message = f"there is no command {word!r}{nearest(word, [*COMMANDS, *ALIASES])}"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"lodestore {version('lodestore')}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config", type=click.Path(path_type=Path), help="The settings file, or the folder that has lodestore.toml."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON alone; notes go to the error stream.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
@click.pass_context
def commands(ctx: click.Context, config: Path | None, *, as_json: bool) -> None:
    """The feature store for LLM applications, run by Dagster.

    Start with: lodestore init DIR
    """
    ctx.obj = {"config": config, "as_json": as_json}


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 a finding or a refusal, 2 wrong usage."""
    as_json = "--json" in arguments
    try:
        outcome: Any = commands.main(list(arguments), prog_name="lodestore", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _deaf()
    except (KeyboardInterrupt, click.Abort):
        tell("stopped", "interrupted", as_json=as_json)
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except (LodestoreError, click.ClickException) as error:
        _debug(error)
        named = getattr(error, "problems", ())
        tell(_message(error), getattr(error, "code", "usage"), as_json=as_json, problems=named)
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 - the last place where a bug can be told in one line
        _debug(error)
        tell(BUG.format(kind=type(error).__name__, error=error), "bug", as_json=as_json)
        return 1
    return outcome if isinstance(outcome, int) else 0


def _message(error: Exception) -> str:
    if isinstance(error, InvalidRowsError):
        return "\n  ".join([f"{error.view}: nothing was stored", *error.problems])
    if not isinstance(error, click.ClickException):
        return str(error)
    context = getattr(error, "ctx", None)
    hint = f"\nSee: {context.command_path} --help" if context is not None else ""
    return error.format_message() + hint


def _debug(error: Exception) -> None:
    """With LODESTORE_DEBUG set, the whole traceback stands on the error stream."""
    if os.environ.get("LODESTORE_DEBUG"):
        import traceback

        traceback.print_exception(error)


def _deaf() -> int:
    """Nobody reads any more: what is still buffered goes nowhere, so that the end is silent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def main() -> None:
    """The entry point of the `lodestore` command."""
    sys.exit(run(sys.argv[1:]))
