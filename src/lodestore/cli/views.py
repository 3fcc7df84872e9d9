"""views: what is declared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from lodestore.cli.page import Block, Facts, Table, ago
from lodestore.cli.session import Session, command, group

if TYPE_CHECKING:
    from lodestore.catalog import Catalog
    from lodestore.declarations import ViewPlan
    from lodestore.spec import Feature, FeatureView, OnDemandView

__all__ = ["views"]

views = group("views", "Feature views: what is declared.")


@command(views, "list")
def listed(session: Session) -> None:
    """List the declared views, on-demand views and services."""
    catalog = session.project.catalog
    live = session.project.releases.live().views
    value = {
        "views": [_view_json(view, live.get(name)) for name, view in catalog.latest.items()],
        "on_demand": [_on_demand_json(view) for view in catalog.on_demand.values()],
        "services": [
            {"name": name, "features": list(map(str, one.features)), "owner": one.owner, "doc": one.doc}
            for name, one in catalog.services.items()
        ],
    }
    session.show(value, _list_page(value))


def _view_json(view: FeatureView, live: int | None) -> dict[str, Any]:
    return {
        "name": view.name,
        "version": view.version,
        "live": live,
        "entity": view.entity.name,
        "keys": list(view.entity.keys),
        "source": view.source,
        "ttl": _span(view.ttl),
        "fresh_within": _span(view.fresh_within),
        "owner": view.owner,
        "doc": view.doc,
        "upstream": list(view.upstream),
        "features": [_feature_json(name, one) for name, one in view.features.items()],
    }


def _span(delta: timedelta | None) -> float | None:
    """Seconds, as JSON has no spans of time."""
    return None if delta is None else delta.total_seconds()


def _feature_json(name: str, one: Feature) -> dict[str, Any]:
    bounds = {"minimum": one.minimum, "maximum": one.maximum, "max_length": one.max_length, "space": one.space}
    out: dict[str, Any] = {"name": name, "kind": one.kind, "doc": one.doc, "pii": one.pii}
    out |= {word: value for word, value in bounds.items() if value is not None}
    return out | ({"categories": list(one.categories)} if one.categories else {})


def _on_demand_json(view: OnDemandView) -> dict[str, Any]:
    return {
        "name": view.name,
        "version": view.version,
        "reads": list(map(str, view.reads)),
        "inputs": [_feature_json(name, one) for name, one in view.inputs.items()],
        "features": [_feature_json(name, one) for name, one in view.features.items()],
        "owner": view.owner,
        "doc": view.doc,
    }


def _list_page(value: Mapping[str, Any]) -> Iterator[Block]:
    rows = [
        [one["name"], str(one["version"]), one["entity"], one["source"], len(one["features"]), _said(one["ttl"]),
         _said(one["fresh_within"]), one["owner"]]
        for one in value["views"]
    ]  # fmt: skip
    headings = ("view", "version", "entity", "source", "features", "ttl", "fresh within", "owner")
    yield Table(headings, rows, title="Feature views", empty="none; name your modules in [features] of the settings")
    rows = [[one["name"], one["reads"], [given["name"] for given in one["inputs"]]] for one in value["on_demand"]]
    yield Table(("view", "reads", "inputs"), rows, title="On demand")
    rows = [[one["name"], one["features"]] for one in value["services"]]
    yield Table(("service", "features"), rows, title="Services", text=frozenset({"features"}))


def _said(seconds: float | None) -> str | None:
    from lodestore.wire import span

    return None if seconds is None else span(timedelta(seconds=seconds))


@command(views)
@click.argument("name")
def show(session: Session, name: str) -> None:
    """Show one view: its features, its clocks, and how full it is."""
    from lodestore.errors import UnknownViewError

    project, catalog = session.project, session.project.catalog
    word = name.partition("@")[0]
    if word in catalog.on_demand:
        value = _on_demand_json(catalog.on_demand[word])
        session.show(value, _on_demand_page(value))
        return
    if word not in catalog.latest:
        raise UnknownViewError(name, _names(catalog))
    view = catalog.pinned(name)
    figures = project.features.figures_of(view)
    value = _view_json(view, project.releases.live().views.get(word)) | {"figures": figures}
    session.show(value, _view_page(value))


@command(views)
@click.argument("name", required=False)
def plan(session: Session, name: str | None) -> None:
    """Tell what the declarations would do to what is stored.

    A feature may be added to a version; one that is removed or retyped needs a new version. Ends with 1 when a change would be refused.
    """
    from lodestore.declarations import plan as planned
    from lodestore.errors import UnknownViewError

    catalog = session.project.catalog
    if name is not None and name not in catalog.latest:
        raise UnknownViewError(name, catalog.latest)
    found = [one for one in planned(catalog, session.project.logs) if name in {None, one.view}]
    value = {"views": [_plan_json(one) for one in found], "refused": [one.view for one in found if one.refused]}
    session.show(value, _plan_page(value))
    if value["refused"]:
        click.get_current_context().exit(1)


def _plan_json(one: ViewPlan) -> dict[str, Any]:
    changes = [
        {
            "what": it.what,
            "subject": it.subject,
            "detail": it.detail,
            "compatible": it.compatible,
            "backfill": it.backfill,
        }
        for it in one.changes
    ]
    head = {"view": one.view, "version": one.version, "state": one.state, "needs_backfill": one.needs_backfill}
    return {**head, "changes": changes}


def _plan_page(value: Mapping[str, Any]) -> Iterator[Block]:
    rows = [[one["view"], str(one["version"]), one["state"], _mend(one)] for one in value["views"]]
    yield Table(
        ("view", "version", "state", "what to do"),
        rows,
        title="Declared against stored",
        text=frozenset({"what to do"}),
    )
    rows = [
        [
            f"{one['view']}@{one['version']}",
            it["what"],
            it["subject"],
            it["detail"],
            "" if it["compatible"] else "refused",
        ]
        for one in value["views"]
        for it in one["changes"]
    ]
    if rows:
        yield Table(("view", "change", "of", "detail", ""), rows, title="Changes", text=frozenset({"detail"}))


def _mend(one: Mapping[str, Any]) -> str:
    words = {
        "new": "stored with its first rows",
        "incompatible": f"declare version={one['version'] + 1}, leave version {one['version']} as it was",
        "undeclared": "still served to those who pin it; nothing to do",
    }
    return words.get(one["state"], "backfill: lodestore run features" if one["needs_backfill"] else "nothing")


def _names(catalog: Catalog) -> list[str]:
    return [*catalog.latest, *catalog.on_demand]


def _view_page(value: Mapping[str, Any]) -> Iterator[Block]:
    figures = value["figures"]
    yield f"{value['name']}: {value['doc']}" if value["doc"] else value["name"]
    yield Facts({
        "entity": f"{value['entity']} ({', '.join(value['keys'])})",
        "version": f"{value['version']} declared, {value['live'] or 'none'} live",
        "source": value["source"],
        "owner": value["owner"],
        "ttl": _said(value["ttl"]),
        "fresh within": _said(value["fresh_within"]),
        "state": figures["state"],
        "rows": f"{figures['rows']:,} of {figures['entities']:,} entities",
        "newest event": ago(figures["latest_event"]),
    })  # fmt: skip
    yield _features(value)


def _on_demand_page(value: Mapping[str, Any]) -> Iterator[Block]:
    yield f"{value['name']}: {value['doc'] or 'computed when it is asked for'}"
    yield Facts({"reads": value["reads"], "inputs": [one["name"] for one in value["inputs"]], "owner": value["owner"]})
    yield _features(value)


def _features(value: Mapping[str, Any]) -> Table:
    rows = [
        [one["name"], one["kind"], one.get("categories") or _bounds(one), "personal" if one["pii"] else "", one["doc"]]
        for one in value["features"]
    ]
    return Table(("feature", "kind", "values", "pii", "doc"), rows, title="Features", text=frozenset({"doc", "values"}))


def _bounds(one: Mapping[str, Any]) -> str:
    low, high = one.get("minimum"), one.get("maximum")
    words = [] if low is None else [f"from {low}"]
    words += [] if high is None else [f"to {high}"]
    words += [f"up to {one['max_length']} long"] if "max_length" in one else []
    words += [f"space {one['space']}"] if "space" in one else []
    return " ".join(words)
