"""Feature views: one asset each, from what is declared."""

from collections.abc import Collection, Iterable, Sequence

import dagster as dg

from assets import metadata
from assets.automation import view_freshness
from assets.house import House
from lodestore.catalog import TAKEN
from lodestore.events import EventSource
from lodestore.project import Project
from lodestore.spec import FeatureView

__all__ = ["view_assets"]

_GROUPS = {"prompt_templates": "prompts"}


def view_assets(
    house: House, views: Iterable[FeatureView], events: Sequence[EventSource]
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Every declared view, and the event files that feed some of them as external assets."""
    specs = [_events(house, one) for one in events]
    fed = {
        name: [house.key("events", one.name) for one in events if one.view == name] for name in {e.view for e in events}
    }
    declared = list(views)
    own = TAKEN.union(one.name for one in declared)
    above = {one.name: [_upstream(house, name, own) for name in one.upstream] for one in declared}
    return [*specs, *(_view(house, view, [*above[view.name], *fed.get(view.name, [])]) for view in declared)]


def _upstream(house: House, name: str, own: Collection[str]) -> dg.AssetKey:
    """An asset of Lodestore by its name; any other is somebody else's, whose key no prefix of ours changes."""
    return house.key(name) if name in own else dg.AssetKey(name.split("/"))


def _events(house: House, source: EventSource) -> dg.AssetSpec:
    return dg.AssetSpec(
        house.key("events", source.name),
        group_name="features",
        kinds={"file"},
        description=f"Event files outside of Lodestore: `{source.uri}`.",
    )


def _view(house: House, view: FeatureView, deps: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    @dg.asset(
        key=house.key(view.name),
        deps=deps,
        group_name=_GROUPS.get(view.name, "features"),
        kinds={"lancedb", view.source.value},
        owners=[view.owner] if view.owner else None,
        description=_described(view),
        freshness_policy=view_freshness(view),
        tags={"lodestore/version": str(view.version)},
    )
    def feature_view(project: dg.ResourceParam[Project]) -> dg.MaterializeResult:
        project.contexts.flush()
        done = project.pipeline.record(view)
        facts = metadata.view_figures(project, view, read=done.read, added=done.added, problems=len(done.problems))
        return dg.MaterializeResult(metadata=facts)

    return feature_view


def _described(view: FeatureView) -> str:
    ttl = f", values expire after {view.ttl}" if view.ttl else ""
    lines = [f"{view.doc or view.name} Version {view.version} by {', '.join(view.entity.keys)}{ttl}.", ""]
    lines += [
        f"- `{one.name}` ({one.kind}{', personal' if one.pii else ''}): {one.doc}" for one in view.features.values()
    ]
    return "\n".join(lines)
