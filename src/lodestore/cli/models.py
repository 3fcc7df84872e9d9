"""models: embedding models and their versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from lodestore.cli.page import Block, Facts, Table
from lodestore.cli.session import Session, command, group

if TYPE_CHECKING:
    from lodestore.models import EmbeddingModel
    from lodestore.project import Project

__all__ = ["models"]

models = group("models", "Embedding models and their versions.")


@command(models, "list")
def listed(session: Session) -> None:
    """List the declared models, and every version that the store has."""
    from lodestore.status import versions

    project = session.project
    wanted = project.versions.declared_labels
    declared = [
        {
            "model": one.label,
            "source": one.source,
            "for": [name for name, label in wanted.items() if label == one.label],
        }
        for one in project.settings.embedding.models
    ]
    stored = versions(project)
    session.show({"models": declared, "versions": stored}, _list_page(declared, stored))


def _list_page(declared: list[dict[str, Any]], versions: tuple[Mapping[str, Any], ...]) -> Iterator[Block]:
    rows = [[one["model"], one["source"], one["for"]] for one in declared]
    yield Table(("model", "source", "wanted for"), rows, title="Declared", empty="none; add [[embedding.models]]")
    columns = ("feature", "version", "state", "rows", "dim", "fingerprint")
    table = [[str(one[name])[:12] if name == "fingerprint" else one[name] for name in columns] for one in versions]
    yield Table(columns, table, title="In the store", empty="none yet; run: lodestore run ingest")


@command(models)
@click.argument("label", metavar="MODEL@VERSION")
def show(session: Session, label: str) -> None:
    """Show who a model is: its fingerprint, what that was made of, and where it is used."""
    from lodestore.errors import UnknownModelError
    from lodestore.status import versions

    project = session.project
    stored = [one for one in versions(project) if label in {one["version"], one["key"]}]
    found = [one for one in project.settings.embedding.models if one.label == label]
    if not stored and not found:
        known = [one.label for one in project.settings.embedding.models]
        raise UnknownModelError(label, [*known, *(one.label for one in project.versions.all())])
    value = {"model": label, **(_declared(project, found[0]) if found else {}), "versions": stored}
    session.show(value, _show_page(value))


def _declared(project: Project, model: EmbeddingModel) -> dict[str, Any]:
    """What the settings say, and who the files are; a model that is not installed has no identity here."""
    from lodestore.errors import ModelError

    out: dict[str, Any] = {"source": model.source}
    try:
        identity = project.versions.identity(model.label)
    except ModelError as error:
        return out | {"problem": str(error)}
    out |= {"fingerprint": identity.fingerprint, "dimension": identity.dimension, "max_tokens": identity.max_tokens}
    return out | {"layout": identity.layout, "parts": dict(identity.parts)}


def _show_page(value: Mapping[str, Any]) -> Iterator[Block]:
    names = ("source", "problem", "fingerprint", "dimension", "max_tokens", "layout")
    yield Facts({name: value[name] for name in names if name in value}, title=value["model"])
    if "parts" in value:
        rows = [[name, str(one)] for name, one in value["parts"].items()]
        yield Table(("part", "value"), rows, title="What the fingerprint is made of", text=frozenset({"value"}))
    rows = [[one["feature"], one["state"], one["rows"], one["key"]] for one in value["versions"]]
    yield Table(("feature", "state", "rows", "partition"), rows, title="In the store", empty="not built yet")
