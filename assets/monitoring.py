"""How the store as a whole stands, one reading an hour: the numbers become plots in the UI."""

from collections.abc import Iterable

import dagster as dg

from assets import metadata
from assets.house import House
from lodestore.project import Project
from lodestore.spec import FeatureView

__all__ = ["monitoring_assets"]


def monitoring_assets(house: House, views: Iterable[FeatureView]) -> list[dg.AssetsDefinition]:
    """The reading, after everything that it reads."""
    del views  # by way of `online`: a check that blocks a view must not keep the reading from being taken
    watched = [house.key("release"), house.key("online")]

    @dg.asset(
        key=house.key("store_health"),
        deps=watched,
        group_name="monitoring",
        kinds={"lancedb", "lmdb"},
        owners=["team:mlops"],
        description="Documents, versions, views and failing checks, as `lodestore status` shows them.",
    )
    def store_health(project: dg.ResourceParam[Project]) -> dg.MaterializeResult:
        counts = project.corpus.figures()
        versions = [{"version": key, "state": state} for key, state in project.versions.states().items()]
        views = project.features.figures()
        return dg.MaterializeResult(
            metadata={
                "documents": counts["live"],
                "rejected": counts["rejected"],
                "stale_views": sum(one["state"] == "stale" for one in views),
                "generation": project.releases.live().generation,
                "holds": len(project.releases.holds()),
                "versions": metadata.table(versions),
                "views": metadata.table(views),
            }
        )

    return [store_health]
