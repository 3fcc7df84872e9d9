"""What applications see: the release, and the newest features online."""

from collections.abc import Iterable

import dagster as dg
from pydantic import Field

from assets import metadata
from assets.house import House
from lodestore.project import Project
from lodestore.publishing import publish
from lodestore.spec import FeatureView

__all__ = ["serving_assets"]

GROUP = "serving"


class Backfill(dg.Config):
    """`start` and `end` as RFC 3339, each may be left out; without both, what is new is published.

    `views` names those that are meant, none meaning all.
    """

    start: str | None = None
    end: str | None = None
    views: list[str] = Field(default_factory=list)


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
        shown = metadata.table(slots)
        return dg.MaterializeResult(metadata={"generation": live.generation, "new": made is not None, "slots": shown})

    return release


def _online(house: House, views: list[dg.AssetKey]) -> dg.AssetsDefinition:
    @dg.asset(
        key=house.key("online"),
        deps=[*views, house.key("release")],
        group_name=GROUP,
        kinds={"lmdb"},
        owners=["team:mlops"],
        description="The newest value of every entity, where a request reads it in microseconds. To publish a stretch "
        "of time again, materialise with the config start and end.",
    )
    def online(config: Backfill, project: dg.ResourceParam[Project]) -> dg.MaterializeResult:
        drained = project.features.drain()
        done = publish(project, start=config.start, end=config.end, views=config.views)
        project.pipeline.promote_views()
        tables = {"views": metadata.table(done.views), "vectors": metadata.table(done.vectors)}
        rows = sum(one.keys for one in done.views)
        return dg.MaterializeResult(metadata={"dagster/row_count": rows, "drained": drained, **tables})

    return online
