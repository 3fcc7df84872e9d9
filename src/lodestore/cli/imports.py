"""import: coming over from another feature store."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lodestore.cli.page import Block, Facts, Table
from lodestore.cli.session import Session, command, group

if TYPE_CHECKING:
    from lodestore.feast.description import Description
    from lodestore.feast.interpreter import Interpreter
    from lodestore.feast.placement import Page, Placement
    from lodestore.feast.proof import Proof, Proven
    from lodestore.feast.translation import Translation
    from lodestore.project import Project
    from lodestore.spec import FeatureView

__all__ = ["import_"]

import_ = group("import", "Come over from another feature store.")

_PATH = click.Path(path_type=Path)
_TITLES = {
    "carried": "Came over",
    "different": "Came over and is different",
    "left": "Did not come over",
}


@command(import_)
@click.argument("repository", metavar="REPO", type=_PATH)
@click.option(
    "--python",
    type=_PATH,
    envvar="LODESTORE_FEAST_PYTHON",
    help="The Python that has Feast; by default that of the command `feast`, or of the active environment.",
)
@click.option("--into", type=_PATH, metavar="DIR", help="The project; by default the one here or above.")
@click.option("--out", type=_PATH, metavar="FILE", help="Write the declarations alone, into this file.")
@click.option("--module", metavar="NAME", help="The name of the module; by default feast_ and Feast's project.")
@click.option("--prefix", default="", metavar="TEXT", help="Comes before the names of entities, views and services.")
@click.option("--plan", "planned", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--force", is_flag=True, help="Also over a module or sections that were changed since they were written.")
@click.option("--verify", is_flag=True, help="Write nothing, and compare the values of both.")
@click.option(
    "--rows", type=click.IntRange(1, 1_000_000), default=500, help="Entity rows a view that --verify asks for."
)
def feast(
    session: Session,
    repository: Path,
    python: Path | None,
    into: Path | None,
    out: Path | None,
    module: str | None,
    prefix: str,
    *,
    planned: bool,
    force: bool,
    verify: bool,
    rows: int,
) -> None:
    """Write the declarations that the Feast repository REPO stands for.

    REPO is the folder of feature_store.yaml. Its code runs in the Python that has Feast, never here. What came over,
    what is different and what did not come over is told line by line. After `lodestore run features`, --verify asks
    both sides for the same rows.
    """
    from lodestore.feast import interpreter, placement, translation

    _check_options(into, out, planned=planned, verify=verify)
    place = interpreter.repository_of(repository)
    project = None if out is not None else _project(session, into)
    root = Path(out or "").absolute().parent if project is None else project.settings.root
    asked = interpreter.find(python, os.environ)
    described = asked.describe(place)
    translated = translation.translate(described, repository=place, root=root, prefix=prefix)
    if project is not None and verify:
        _verify(session, project, translated, asked, place, rows)
        return
    _refuse_nothing(place, described, translated)
    translated, values = _in_versions(project, translated, module)
    placed = _placed(project, translated, values, out, module)
    translated = replace(translated, remarks=(*translated.remarks, *placement.removed(placed)))
    written = [] if planned else _written(placed, force=force)
    value = _value(place, prefix, described, translated, placed, written, planned=planned)
    session.show(value, _page(value, placed, translated, planned=planned))


def _check_options(into: Path | None, out: Path | None, *, planned: bool, verify: bool) -> None:
    wrong = ""
    if into is not None and out is not None:
        wrong = "--into and --out: give one of them, a project or a file"
    if verify and (planned or out is not None):
        wrong = f"--verify compares and writes nothing; leave out {'--plan' if planned else '--out'}"
    if wrong:
        raise click.UsageError(wrong, click.get_current_context())


def _project(session: Session, into: Path | None) -> Project:
    from lodestore.errors import SettingsError
    from lodestore.project import open_project

    try:
        return session.project if into is None else open_project(into)
    except SettingsError as error:
        if "lodestore init" not in str(error):
            raise
        message = f"{error}; then import into it, or write the declarations alone with --out FILE"
        raise SettingsError(message) from error


def _refuse_nothing(place: Path, described: Description, translated: Translation) -> None:
    from lodestore.errors import RefusedError

    if translated.views:
        return
    why = "; ".join(f"{one.name}: {one.what}" for one in translated.remarks if one.outcome == "left")
    message = f"nothing of {place} can come over: {why or f'its {described.told_by} define no feature view'}"
    raise RefusedError(message)


def _in_versions(
    project: Project | None, translated: Translation, module: str | None
) -> tuple[Translation, list[tuple[str, object]]]:
    """In the versions that an earlier import wrote, or the next ones where it takes that; and what the project declares."""
    from lodestore.feast import placement, translation
    from lodestore.feast.report import Remark

    if project is None:
        return translated, []
    own = placement.module_of(project.settings, translated.project, name=module)
    values, broken = translation.declared_beside(project.settings.features.modules, own)
    made = translation.revised(translated, translation.own_views(values, own))
    if not broken:
        return made, values
    what = f"it does not load ({broken}): it is written anew, every view in version 1"
    mend = "where a view had a later version, bring the module back and import again"
    return replace(made, remarks=(*made.remarks, Remark("module", own, "different", what, mend))), values


def _placed(
    project: Project | None,
    translated: Translation,
    values: list[tuple[str, object]],
    out: Path | None,
    module: str | None,
) -> Placement:
    from lodestore.catalog import catalog_of
    from lodestore.feast import placement, translation

    if project is None:
        return placement.place_module(Path(str(out)), translated)
    placed = placement.place(project.settings, translated, name=module)
    others = translation.others_of(values, placed.module)
    translation.refuse_taken(translated, others)
    whole = (*others.views.values(), *others.on_demand.values(), *others.services.values())
    catalog_of([*whole, *translated.views, *translated.services])
    return placed


def _written(placed: Placement, *, force: bool) -> list[str]:
    from lodestore.feast.placement import write

    return [str(path) for path in write(placed, force=force)]


def _value(
    place: Path,
    prefix: str,
    described: Description,
    translated: Translation,
    placed: Placement,
    written: list[str],
    *,
    planned: bool,
) -> dict[str, Any]:
    from lodestore.feast.report import counted

    return {
        "feast": described.feast,
        "project": described.project,
        "told_by": described.told_by,
        "repository": str(place),
        "verify": _verifying(place, prefix),
        "plan": planned,
        "module": placed.module,
        "files": [str(one.path) for one in placed.pages],
        "written": written,
        "sections": placed.sections,
        "needs_force": [one.foreign for one in placed.pages if one.changed and one.foreign],
        "counts": counted(translated.remarks),
        "report": [one.to_json() for one in translated.remarks],
    } | ({"would_write": {str(one.path): one.after for one in placed.pages if one.changed}} if planned else {})


def _verifying(place: Path, prefix: str) -> str:
    """The command that compares both sides, for the same names in the same environment."""
    context = click.get_current_context()
    given = ["--into", str(context.params["into"])] if context.params["into"] is not None else []
    given += ["--prefix", prefix] if prefix else []
    if context.get_parameter_source("python") is click.core.ParameterSource.COMMANDLINE:
        given += ["--python", str(context.params["python"])]
    return shlex.join(["lodestore", "import", "feast", str(place), *given, "--verify"])


def _page(value: Mapping[str, Any], placed: Placement, translated: Translation, *, planned: bool) -> Iterator[Block]:
    yield f"The project {_shown(value['project'])} of Feast {value['feast']}, as its {value['told_by']} tell it"
    for outcome, title in _TITLES.items():
        lines = [one for one in translated.remarks if one.outcome == outcome]
        rows = [[one.kind, _shown(one.name), _shown(one.what), _shown(one.mend)] for one in lines]
        mends = any(row[3] for row in rows)
        columns = ("kind", "name", "what", "do")[: 4 if mends else 3]
        if rows:
            told = [row[: len(columns)] for row in rows]
            yield Table(columns, told, title=f"{title}: {len(rows)}", text=frozenset({"what", "do"}))
    if planned:
        yield from map(_planned, placed.pages)
        return
    for one in placed.pages:
        yield f"{one.path}: {'written' if str(one.path) in value['written'] else 'as it was'}"
    if len(placed.pages) == 1 and placed.sections:
        yield f"\nFor lodestore.toml:\n\n{placed.sections}"
    if len(placed.pages) > 1:
        into = click.get_current_context().params["into"]
        there = "" if into is None else f"--config {shlex.quote(str(into))} "
        yield f"\nNext:\n  lodestore {there}run features\n  {value['verify']}"


def _planned(page: Page) -> str:
    """What would be written: the whole of a new file, the changed lines of another."""
    import difflib

    if not page.changed:
        return f"\n{page.path} stays as it is"
    if page.before is None:
        return f"\nWould write {page.path}:\n\n{page.after}"
    refusal = f" with --force only: {page.foreign}" if page.foreign else ""
    lines = difflib.unified_diff(
        page.before.splitlines(), page.after.splitlines(), "as it is", "as it would be", lineterm=""
    )
    return f"\nWould change {page.path}{refusal}\n\n" + "\n".join(lines)


def _shown(text: str) -> str:
    """The text on one line; what a terminal would obey becomes a space."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


# Both sides compared


def _verify(
    session: Session, project: Project, translated: Translation, asked: Interpreter, repository: Path, rows: int
) -> None:
    from lodestore.feast.proof import prove
    from lodestore.logs import utc_now
    from lodestore.tables import view_table

    proven = prove(
        translated,
        asked,
        repository,
        root=project.settings.root,
        catalog=project.catalog,
        joined=lambda entities, refs: project.store.historical(entities, list(refs)),
        read=lambda refs, keys: project.store.online(list(refs), keys.to_pydict()).columns,
        now=utc_now(),
        counted=lambda view: project.tables.count(view_table(view)),
        refused=lambda view: project.features.turned_away(view, _sources(project, view)),
        rows=rows,
    )
    session.show(_proven_value(proven), _proven_page(proven))
    if not proven.holds:
        click.get_current_context().exit(1)


def _sources(project: Project, view: FeatureView) -> list[str]:
    return [one.name for one in project.settings.events if one.view == view.name]


def _proven_value(proven: Proven) -> dict[str, Any]:
    from lodestore.wire import jsonable

    return {
        "ok": proven.holds,
        "values": proven.compared,
        "views": [_proof_value(one) for one in proven.proofs if not one.why],
        "not_compared": [_left_value(one) for one in proven.proofs if one.why],
        "examples": jsonable(
            [
                {"feature": each.feature, "keys": dict(each.keys), "event_timestamp": each.moment}
                | {"ours": each.ours, "theirs": each.theirs}
                for one in proven.proofs
                for each in one.different
            ]
        ),
    }


def _proof_value(one: Proof) -> dict[str, Any]:
    return {
        "view": one.view,
        "feast": one.feast,
        "kind": one.kind,
        "rows": one.rows,
        "values": one.values,
        "equal": one.equal,
        "present": one.present,
        "explained": dict(one.explained or {}),
        "different": one.different_count,
        "refused": one.refused,
        "refusals": list(one.refusals),
        "missing": list(one.missing),
    }


def _left_value(one: Proof) -> dict[str, Any]:
    told = {"view": one.view, "kind": one.kind, "why": one.why, "ok": one.holds}
    return told | {"refused": one.refused, "refusals": list(one.refusals), "missing": list(one.missing)}


def _explained(one: Proof) -> int:
    return sum((one.explained or {}).values())


def _proven_page(proven: Proven) -> Iterator[Block]:
    from lodestore.feast.proof import REASONS

    compared = [one for one in proven.proofs if not one.why]
    rows = [
        [
            one.view,
            one.kind,
            one.rows,
            one.values,
            one.equal,
            one.present,
            _explained(one),
            one.different_count,
            one.refused,
        ]
        for one in compared
    ]
    yield Table(
        ("view", "", "rows", "values", "equal", "not null", "explained", "different", "rows refused"),
        rows,
        title="Compared",
    )
    for reason, why in REASONS.items():
        count = sum((one.explained or {}).get(reason, 0) for one in compared)
        if count:
            yield f"\n{count} explained, {reason}: {why}"
    for one in compared:
        for each in one.different:
            yield Facts(
                {**each.keys, "at": each.moment, "here": each.ours, "Feast": each.theirs},
                title=f"{each.feature} differs",
            )
    for one in (each for each in proven.proofs if each.kind == "historical"):
        if one.refused:
            yield f"\n{one.view}: {one.refused} rows of its files are refused, such as"
            yield from (f"  {_shown(each)}" for each in one.refusals)
        if one.missing:
            names = _shown(", ".join(one.missing))
            yield f"\n{one.view}: the project's view does not have {names}; run lodestore import feast without --verify"
    left = [[one.view, one.kind, "" if one.holds else "fails", _shown(one.why)] for one in proven.proofs if one.why]
    if left:
        yield Table(("view", "", "", "why"), left, title="Not compared", text=frozenset({"why"}))
    equal, explained = sum(one.equal for one in compared), sum(map(_explained, compared))
    different = sum(one.different_count for one in compared)
    present = sum(one.present for one in compared)
    yield f"\n{proven.compared:,} values compared: {equal:,} equal ({present:,} of them not null), {explained:,} explained, {different:,} different"
