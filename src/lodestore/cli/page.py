"""Pages for people: lines, facts and tables, in colour on a terminal and as plain text anywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import click

__all__ = ["Block", "Facts", "Table", "ago", "brief", "cell", "printed", "shares"]

_STYLES = {
    "green": {"live", "fresh", "present", "ok", "passed", "yes"},
    "yellow": {"stale", "held", "warning", "warn", "candidate", "late", "expired", "note"},
    "red": {"failed", "error", "gone", "unavailable"},
    "bright_black": {"empty", "retired", "null", "not_found", "default", "-", "unknown"},
}
_WORDS = {word: style for style, words in _STYLES.items() for word in words}
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings. `text` names columns of prose, which are wrapped first; without rows, `empty` is said instead."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    empty: str = ""
    text: frozenset[str] = field(default=frozenset())


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values, one a line."""

    values: Mapping[str, Any]
    title: str = ""


Block = str | Table | Facts


def cell(value: Any) -> str:  # noqa: ANN401 - any value
    """The value as people read it in a table."""
    match value:
        case None | "" | () | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case int():
            return f"{value:,}"
        case Mapping():
            return ", ".join(f"{name}={cell(one)}" for name, one in value.items()) or "-"
        case list() | tuple():
            return ", ".join(map(cell, value))
        case _:
            return str(value)


def shares(value: Any) -> str:  # noqa: ANN401 - a slot's value
    """The value of a release's slot: a version alone, or several with their shares."""
    if not isinstance(value, Mapping):
        return cell(value)
    whole = sum(value.values())
    return ", ".join(version if len(value) == 1 else f"{version} {part / whole:.0%}" for version, part in value.items())


def brief(text: str, width: int = 240) -> str:
    """The text on one line, cut at a word."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[:width].rsplit(" ", 1)[0] + " ..."


def ago(text: str | None) -> str:
    """An RFC 3339 moment without what nobody reads: the fractions of its second.

    >>> ago("2026-01-02T03:04:05.678901Z")
    '2026-01-02 03:04:05Z'
    """
    return "-" if not text else text[:19].replace("T", " ") + "Z"


def printed(page: Iterable[Block], out: TextIO) -> None:
    """The page is on the stream."""
    colour = out.isatty()
    for block in page:
        match block:
            case str():
                click.echo(block, file=out)
            case Facts():
                _facts(block, out, colour=colour)
            case Table():
                _table(block, out, colour=colour)


def _styled(text: str, *, colour: bool) -> str:
    style = _WORDS.get(text.lower()) if colour else None
    return click.style(text, fg=style) if style else text


def _heading(title: str, out: TextIO, *, colour: bool) -> None:
    if title:
        click.echo("\n" + (click.style(title, bold=True) if colour else title), file=out)


def _facts(facts: Facts, out: TextIO, *, colour: bool) -> None:
    _heading(facts.title, out, colour=colour)
    width = max(map(len, facts.values), default=0)
    for name, value in facts.values.items():
        click.echo(f"{_GAP}{name:<{width}}{_GAP}{_styled(cell(value), colour=colour)}", file=out)


def _table(table: Table, out: TextIO, *, colour: bool) -> None:
    _heading(table.title, out, colour=colour)
    if not table.rows:
        click.echo(f"{_GAP}{table.empty or 'none'}", file=out)
    elif colour:
        _rich(table, out)
    else:
        _plain(table, out)


def _plain(table: Table, out: TextIO) -> None:
    rows = [[" ".join(cell(one).split()) for one in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(table.columns, *rows, strict=True)]
    right = _numeric(table)
    for row in (list(table.columns), *rows):
        cells = [one.rjust(n) if number else one.ljust(n) for one, n, number in zip(row, widths, right, strict=True)]
        click.echo((_GAP + _GAP.join(cells)).rstrip(), file=out)


def _numeric(table: Table) -> list[bool]:
    columns = zip(*table.rows, strict=True)
    return [all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in column) for column in columns]


def _ratio(table: Table, name: str) -> int | None:
    """Columns of prose share what room the others leave."""
    return 1 if name in table.text else None


def _rich(table: Table, out: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, collapse_padding=True, header_style="bold")
    for name, number in zip(table.columns, _numeric(table), strict=True):
        grid.add_column(Text(name), justify="right" if number else "left", overflow="fold", ratio=_ratio(table, name))
    for row in table.rows:
        grid.add_row(*(Text(cell(one), style=_WORDS.get(cell(one).lower(), "")) for one in row))
    Console(file=out).print(grid)
