"""templates: prompt templates, their versions, and which are live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lodestore.cli import given
from lodestore.cli.page import Block, Facts, Table, shares
from lodestore.cli.session import Session, author, command, group

if TYPE_CHECKING:
    from lodestore.project import Project
    from lodestore.prompts import PromptTemplate
    from lodestore.releases import Release

__all__ = ["templates"]

_FILE = ".md"

templates = group("templates", "Prompt templates, their versions, and which are live.")


@command(templates, "list")
def listed(session: Session) -> None:
    """List every version of every template, with its share of what is live."""
    live = session.project.releases.live().templates
    stored = {str(one) for one in session.project.templates.all()}
    rows = [
        {
            "template": one.template_id,
            "version": one.version,
            "live": _share(live.get(one.template_id, {}), one.version),
            "stored": str(one) in stored,
            "family": one.family,
            "variables": [variable.name for variable in one.variables],
            "content_hash": one.content_hash,
            "doc": one.doc,
        }
        for one in _known(session.project)
    ]
    session.show({"templates": rows}, _list_page(rows))


def _known(project: Project) -> list[PromptTemplate]:
    """The stored versions, and those of the folder that no job has stored yet."""
    from lodestore.prompts import read_folder, version_key

    found = {str(one): one for one in project.templates.all()}
    if project.template_folder is not None:
        found = {**{str(one): one for one in read_folder(project.template_folder)}, **found}
    return sorted(found.values(), key=lambda one: (one.template_id, version_key(one.version)))


def _share(weights: Mapping[str, float], version: str) -> float:
    return weights.get(version, 0.0) / (sum(weights.values()) or 1.0)


def _list_page(rows: list[dict[str, Any]]) -> Iterator[Block]:
    states = ["live" if one["live"] == 1 else f"{one['live']:.0%}" if one["live"] else _state(one) for one in rows]
    table = [
        [one["template"], one["version"], state, one["variables"], one["doc"]]
        for one, state in zip(rows, states, strict=True)
    ]
    columns = ("template", "version", "state", "variables", "doc")
    yield Table(columns, table, empty="none; put one into templates/NAME.md", text=frozenset({"doc", "variables"}))


def _state(one: Mapping[str, Any]) -> str:
    return "stored" if one["stored"] else "file only"


def _template(project: Project, template_id: str, version: str | None) -> PromptTemplate:
    """That version; without one the live one, the newest stored one, or the newest file, in this order."""
    from lodestore.errors import UnknownTemplateError

    if version is not None and version.endswith(_FILE):
        return _draft(template_id, version)
    known = _known(project)
    mine = {one.version: one for one in known if one.template_id == template_id}
    if not mine:
        raise UnknownTemplateError(template_id, {one.template_id for one in known})
    if version is not None:
        if version not in mine:
            missing = f"{template_id} {version}"
            raise UnknownTemplateError(missing, [str(one) for one in mine.values()])
        return mine[version]
    weights = project.releases.live().templates.get(template_id) or {}
    return mine[max(weights, key=lambda one: weights[one])] if weights else list(mine.values())[-1]


def _draft(template_id: str, file: str) -> PromptTemplate:
    """The template of a file that nobody stored yet."""
    from lodestore.errors import TemplateError
    from lodestore.prompts import read_file

    found = read_file(Path(file))
    if found.template_id != template_id:
        message = f"{file} is the template {found.template_id!r}, not {template_id!r}; name the one that it is"
        raise TemplateError(message)
    return found


@command(templates)
@click.argument("template_id", metavar="ID")
@click.option("--version", help="By default the live one; a file such as draft.md is tried as it is.")
def show(session: Session, template_id: str, version: str | None) -> None:
    """Show one version: its variables and its text."""
    found = _template(session.project, template_id, version)
    share = _share(session.project.releases.live().templates.get(template_id, {}), found.version)
    variables = [
        {"name": one.name, "type": one.type, "required": one.required, "default": one.default,
         "max_length": one.max_length, "doc": one.doc}
        for one in found.variables
    ]  # fmt: skip
    value = {"template": found.template_id, "version": found.version, "live": share, "family": found.family}
    value |= {"content_hash": found.content_hash, "doc": found.doc, "variables": variables, "text": found.text}
    session.show(value, _show_page(value))


def _show_page(value: Mapping[str, Any]) -> Iterator[Block]:
    live = "live" if value["live"] == 1 else f"{value['live']:.0%} of users" if value["live"] else "not live"
    facts = {"state": live, "family": value["family"], "content hash": value["content_hash"][:12], "doc": value["doc"]}
    yield Facts(facts, title=f"{value['template']} {value['version']}")
    rows = [[one["name"], one["type"], one["required"], one["default"], one["doc"]] for one in value["variables"]]
    yield Table(("variable", "type", "required", "default", "doc"), rows, title="Variables", text=frozenset({"doc"}))
    yield f"\n{value['text']}"


@command(templates)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def add(session: Session, files: tuple[Path, ...]) -> None:
    """Store the templates of FILES or folders; nothing goes live by that."""
    from lodestore.prompts import read_file, read_folder

    offered = [one for path in files for one in (read_folder(path) if path.is_dir() else [read_file(path)])]
    with session.project.pipeline.writing("adding prompt templates"):
        done = session.project.templates.add(offered)
    session.show({"new": done.new, "known": done.known}, _added(done.new, done.known))


def _added(new: Iterable[str], known: Iterable[str]) -> Iterator[Block]:
    for one in known:
        yield f"{one} was there already."
    for one in new:
        yield f"{one} is stored. Make it live with: lodestore templates activate {one}"


@command(templates)
@click.argument("template_id", metavar="ID")
@click.argument("a")
@click.argument("b")
def diff(session: Session, template_id: str, a: str, b: str) -> None:
    """Show what changes from version A to version B; either may be a file such as draft.md."""
    from lodestore.prompts import diff as differences

    before, after = (_template(session.project, template_id, one) for one in (a, b))
    found = differences(before, after)
    variables = {
        "added": found.variables_added, "removed": found.variables_removed, "changed": found.variables_changed
    }  # fmt: skip
    value = {
        "template": template_id,
        "from": a,
        "to": b,
        "same": found.same,
        "text": found.text,
        "variables": variables,
        "family": {"from": before.family, "to": after.family},
    }
    page: list[Block] = [found.text] if found.text else []
    told: dict[str, Any] = {f"variables {word}": names for word, names in variables.items() if names}
    page += [Facts(told | ({"family": f"{before.family} -> {after.family}"} if found.family_changed else {}))]
    session.show(value, ["Nothing differs."] if found.same else page)


@command(templates)
@click.argument("template_id", metavar="ID")
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="Once for each variable.")
@click.option("--version", help="By default the live one; a file such as draft.md is tried as it is.")
def render(session: Session, template_id: str, variables: tuple[str, ...], version: str | None) -> None:
    """Print the prompt that the template makes of these values."""
    from lodestore.prompts import render as rendered

    found = _template(session.project, template_id, version)
    made = rendered(found, given.variables(found, variables))
    value = {"template": found.template_id, "version": found.version, "content_hash": found.content_hash}
    messages = [{"role": one.role, "content": one.text} for one in made.messages]
    session.show({**value, "text": made.text, "messages": messages}, [made.text])


@command(templates)
@click.argument("template_id", metavar="ID")
@click.argument("versions", nargs=-1, required=True, metavar="VERSION[=WEIGHT]...")
@click.option("--reason", default="", help="Why; it stays in the log.")
@click.option("--author", "by", help="Who; by default the user of this machine.")
def activate(session: Session, template_id: str, versions: tuple[str, ...], reason: str, by: str | None) -> None:
    """Make a version live, or several by weight, such as: 1.0.0=0.9 1.1.0=0.1."""
    from lodestore.promotion import activate as activated

    weights = dict(_weight(one) for one in versions)
    if len(weights) < len(versions):
        message = f"{template_id}: a version is given twice; give each one weight"
        raise click.UsageError(message, click.get_current_context())
    _told(session, activated(session.project, template_id, weights, author=by or author(), reason=reason), template_id)


def _weight(text: str) -> tuple[str, float]:
    version, sign, weight = text.partition("=")
    try:
        return version, float(weight) if sign else 1.0
    except ValueError:
        message = f"{text!r}: a weight is a number, such as {version}=0.1"
        raise click.UsageError(message, click.get_current_context()) from None


@command(templates)
@click.argument("template_id", metavar="ID")
@click.option("--reason", default="", help="Why; it stays in the log.")
@click.option("--author", "by", help="Who; by default the user of this machine.")
def rollback(session: Session, template_id: str, reason: str, by: str | None) -> None:
    """Make the version that was live before live again."""
    from lodestore.promotion import rollback_template

    _told(session, rollback_template(session.project, template_id, author=by or author(), reason=reason), template_id)


def _told(session: Session, made: Release, template_id: str) -> None:
    weights = made.templates.get(template_id, {})
    value = {"generation": made.generation, "id": made.id, "template": template_id, "versions": weights}
    session.show(value, [f"Release {made.generation} is live: {template_id} {shares(weights)}."])
