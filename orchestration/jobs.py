"""The jobs, by what they are for."""

from typing import TypeAlias

import dagster as dg

from assets.house import House

__all__ = ["Job", "jobs"]

# Dagster does not export the class of what define_asset_job() returns.
Job: TypeAlias = object


def jobs(house: House, views: list[str]) -> list[Job]:
    """The jobs that schedules, sensors and `lodestore run` start; light ones run in one process."""
    corpus = ("documents", "chunks", "live_embeddings", "templates", "release")
    features = (*views, "online")
    return [
        _job(house, "ingest", corpus, "Read, chunk and embed the documents; a first healthy version goes live."),
        _job(house, "reembed", ("embeddings",), "Build an embedding version beside the live one, measure it, promote it."),
        _job(house, "features", features, "Record event files and computed views, publish the newest values."),
        _job(house, "monitor", ("store_health",), "Take a reading of the whole store."),
    ]


def _job(house: House, name: str, assets: tuple[str, ...], description: str) -> Job:
    return dg.define_asset_job(
        name,
        dg.AssetSelection.assets(*(house.key(one) for one in assets)),
        description=description,
        executor_def=dg.in_process_executor,
    )
