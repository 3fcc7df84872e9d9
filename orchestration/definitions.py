"""The code location: everything that Dagster shows and runs."""

from collections.abc import Sequence

import dagster as dg

from assets.corpus import corpus_assets
from assets.embeddings import embedding_assets
from assets.house import House
from assets.monitoring import monitoring_assets
from assets.prompts import template_assets
from assets.serving import serving_assets
from assets.views import view_assets
from lodestore.project import open_project
from lodestore.settings import Settings
from orchestration.acts import acts
from orchestration.alerting import alert_sensors
from orchestration.backing_up import backing_up
from orchestration.draining import draining
from orchestration.jobs import jobs
from orchestration.maintaining import maintaining
from orchestration.monitoring import baseline_jobs
from orchestration.schedules import schedules
from orchestration.sensors import sensors
from quality.corpus import corpus_checks
from quality.monitoring import monitoring_checks
from quality.retrieval import retrieval_checks
from quality.skew import skew_checks
from quality.suites import suites
from quality.views import view_checks
from resources.project import ProjectResource

__all__ = ["build", "defs"]


def build(path: str | None = None, *, key_prefix: Sequence[str] = ()) -> dg.Definitions:
    """The definitions of the project whose settings lie at `path`.

    `key_prefix` comes first in every asset key, so that they can be merged into a larger code
    location: `Definitions.merge(mine, build("lodestore.toml", key_prefix=["lodestore"]))`.
    Needs no network, no secret and no model.
    """
    project, house = open_project(path), House(tuple(key_prefix))
    settings: Settings = project.settings
    views = list(project.catalog.latest.values())
    watching = [*monitoring_checks(house, views), *retrieval_checks(house), *suites(house, views)]
    return dg.Definitions(
        assets=[
            *corpus_assets(house, settings.documents),
            *embedding_assets(house),
            *template_assets(house),
            *view_assets(house, views, settings.events),
            *serving_assets(house, views),
            *monitoring_assets(house, views),
        ],
        asset_checks=[*corpus_checks(house), *view_checks(house, views), *skew_checks(house), *watching],
        jobs=[
            *jobs(house, [one.name for one in views], watching),
            *acts(),
            *baseline_jobs(),
            *maintaining(),
            *backing_up(settings)[0],
            *draining()[0],
        ],
        schedules=[*schedules(settings.schedule), *backing_up(settings)[1]],
        sensors=[*sensors(), *alert_sensors(settings.alerts.every_seconds), *draining()[1]],
        resources={"project": ProjectResource(path=path)},
    )


defs = build()
