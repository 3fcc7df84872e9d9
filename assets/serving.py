"""What applications see: the release, and the newest features online."""

from collections.abc import Iterable

import dagster as dg

from assets import metadata
from assets.house import House
from lodestore.project import Project
from lodestore.spec import FeatureView

__all__ = ["serving_assets"]

GROUP = "serving"


def serving_assets(house: House, views: Iterable[FeatureView]) -> list[dg.AssetsDefinition]:
    """The release log's newest row, and the online rows."""
    return [_release(house), _online(house, [house.key(one.name) for one in views])]


def _release(house: House) -> dg.AssetsDefinition:
    @dg.asset(
        key=house.key("release"),
        deps=[house.key("live_embeddings"), house.key("templates")],
        group_name=GROUP,
        kinds={"lancedb"},
        owners=["team:mlops"],
        description="What is live. A feature, template or view that has no live version gets its first healthy one.",
    )
    def release(project: dg.ResourceParam[Project]) -> dg.MaterializeResult:
        made = project.pipeline.promote_first()
        live = project.releases.live()
        slots = [{"slot": str(slot), "value": value} for slot, value in sorted(live.slots.items())]
        facts = {"generation": live.generation, "new": made is not None, "slots": metadata.table(slots)}
        return dg.MaterializeResult(metadata=facts)

    return release


def _online(house: House, views: list[dg.AssetKey]) -> dg.AssetsDefinition:
    @dg.asset(
        key=house.key("online"),
        deps=views,
        group_name=GROUP,
        kinds={"lmdb"},
        owners=["team:mlops"],
        description="The newest value of every entity, where a request reads it in microseconds.",
    )
    def online(project: dg.ResourceParam[Project]) -> dg.MaterializeResult:
        drained = project.features.drain()
        done = [project.pipeline.publish(view) for view in project.pipeline.views()]
        facts = {"dagster/row_count": sum(one.keys for one in done), "views": metadata.table(done), "drained": drained}
        return dg.MaterializeResult(metadata=facts)

    return online
