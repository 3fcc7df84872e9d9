"""drift: two files compared, the store compared with its baselines, baselines listed and replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lodestore.cli.page import Block, Table, ago
from lodestore.cli.session import Session, command, pairs

if TYPE_CHECKING:
    import pyarrow as pa

    from lodestore.baselines import Pinned
    from lodestore.drift import Report
    from lodestore.monitor import Compared

__all__ = ["drift"]

_COLUMNS = ("feature", "kind", "measure", "value", "limit", "p", "verdict")


class _Drift(click.Group):
    """A group whose first word may also be the baseline or a file: then two files are compared."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the hidden command in front of what names no other one."""
        if args and args[0] not in {*self.commands, "-h", "--help"}:
            args = ["files", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Both uses."""
        formatter.write_usage(ctx.command_path, "--baseline FILE FILE [--id COLUMN] [--kind COLUMN=KIND]... [--json]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...")


drift = _Drift("drift", help="Tell whether data has changed: two files, or the store against its baselines.")


@command(drift, "files")
@click.argument("current", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--baseline", required=True, type=click.Path(path_type=Path), metavar="FILE", help="What was right.")
@click.option("--id", "ids", help="The column that names rows; the farthest ones are told by it.")
@click.option("--kind", "kinds", multiple=True, metavar="COLUMN=KIND", help="numeric, category, text or embedding.")
def files(session: Session, current: Path, baseline: Path, ids: str | None, kinds: tuple[str, ...]) -> None:
    """Compare FILE with the baseline file: Parquet, CSV or JSON lines. Exits 1 when a column drifted."""
    from lodestore.drift import compare

    before, after = _table(baseline), _table(current)
    wanted = dict(pairs(kinds, "--kind"))
    _known(before, after, [*wanted, *([ids] if ids else [])])
    found = compare(before, after, ids=ids, kinds=wanted or None)
    session.show(found.to_dict(), _report_page(found))
    if found.drifted:
        click.get_current_context().exit(1)


def _table(path: Path) -> pa.Table:
    """The file's table; one with twice the same column cannot be compared."""
    from lodestore.errors import SourceError
    from lodestore.tablefiles import read_table

    table = read_table(path)
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        message = f"{path}: two columns are called {twice[0]!r}; rename one"
        raise SourceError(message)
    return table


def _known(before: pa.Table, after: pa.Table, names: Sequence[str]) -> None:
    from lodestore.errors import RequestError, nearest

    known = list(dict.fromkeys([*before.column_names, *after.column_names]))
    for name in names:
        if name not in known:
            message = f"neither file has a column {name!r}{nearest(name, known)}"
            raise RequestError(message)


def _report_page(report: Report) -> Iterator[Block]:
    yield f"{report.rows_current:,} rows against {report.rows_baseline:,} of the baseline"
    yield Table(_COLUMNS, [[getattr(one, name) for name in _COLUMNS] for one in report.features])
    yield from ("",) if report.features else ()
    for one in report.features:
        if one.drifted or one.verdict == "insufficient_data":
            yield f"{one.feature}: {one.explanation}"
    if report.sees and any(one.kind == "numeric" for one in report.features):
        yield f"A shift of {report.sees:.2g} standard deviations or more would be seen in a number (in 85 of 100 windows)"
    yield f"Drifted: {', '.join(report.drifted) or 'nothing'}"


files.hidden = True


@command(drift, "check")
@click.argument("subjects", nargs=-1, metavar="[SUBJECT]...")
def check(session: Session, subjects: tuple[str, ...]) -> None:
    """Compare the store with its baselines. Exits 1 when something drifted.

    SUBJECT is a view or an embedding feature, such as user_profile or content; by default all of them.
    """
    from lodestore import monitor

    known = monitor.subjects(session.project)
    chosen = [monitor.subject_named(known, name) for name in subjects] or list(known)
    found = [monitor.compared(session.project, known[name]) for name in chosen]
    drifted = [one.subject for one in found if one.drifted]
    session.show({"subjects": [one.to_json() for one in found], "drifted": drifted}, _compared_page(found))
    if drifted:
        click.get_current_context().exit(1)


def _compared_page(found: Sequence[Compared]) -> Iterator[Block]:
    rows = [[one.subject, one.rows, "drift" if one.drifted else "none", one.sentence()] for one in found]
    yield Table(("subject", "rows", "drift", "told"), rows, text=frozenset({"told"}), empty="nothing to compare yet")


@command(drift, "baselines")
def baselines(session: Session) -> None:
    """List every baseline ever pinned; the newest of a subject is in use."""
    found = session.project.baselines.every()
    used = {one.subject: one.id for one in found}
    values = [_baseline(one, in_use=used[one.subject] == one.id) for one in found]
    rows = [[one["id"], one["rows"], "yes" if one["in_use"] else "no", ago(one["at"]), one["reason"]] for one in values]
    empty = "none yet; lodestore run monitor pins the first ones"
    session.show(values, [Table(("baseline", "rows", "in use", "pinned", "why"), rows, empty=empty)])


def _baseline(one: Pinned, *, in_use: bool) -> dict[str, Any]:
    from lodestore.wire import rfc3339

    named = {"id": one.id, "subject": one.subject, "in_use": in_use, "at": rfc3339(one.at), "reason": one.reason}
    return {**named, "rows": one.baseline.rows or len(one.level), "columns": one.baseline.summary()}


@command(drift, "rebaseline")
@click.argument("subjects", nargs=-1, metavar="[SUBJECT]...")
@click.option("--reason", required=True, help="Why what is there now is right.")
def rebaseline(session: Session, subjects: tuple[str, ...], reason: str) -> None:
    """Pin what the data looks like now. The old baselines stay in the log."""
    from lodestore import monitor

    made = monitor.rebaseline(session.project, subjects, reason=reason)
    rows = [[one.id, one.baseline.rows or len(one.level)] for one in made]
    empty = "no subject has enough rows"
    session.show([_baseline(one, in_use=True) for one in made], [Table(("baseline", "rows"), rows, empty=empty)])
