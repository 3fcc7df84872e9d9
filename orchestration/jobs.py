"""The jobs, by what they are for."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import dagster as dg

from assets.house import House

__all__ = ["Job", "jobs"]

# Dagster does not export the class of what define_asset_job() returns.
Job: TypeAlias = Any


def jobs(house: House, views: list[str], watching: Sequence[dg.AssetChecksDefinition] = ()) -> list[Job]:
    """The jobs that schedules, sensors and `lodestore run` start; light ones run in one process.

    The checks of `watching` are the monitor's alone: no other job waits for them.
    """
    corpus = ("documents", "chunks", "live_embeddings", "templates", "release")
    # The reading costs a tenth of a second and comes last: after `ingest` and `features` every asset has been made.
    features = (*views, "online", "store_health")
    apart = dg.AssetSelection.checks(*watching) if watching else dg.AssetSelection.assets()

    def job(name: str, assets: tuple[str, ...], description: str) -> Job:
        chosen = dg.AssetSelection.assets(*(house.key(one) for one in assets))
        return _job(name, chosen | apart if name == "monitor" else chosen - apart, description)

    return [
        job("ingest", corpus, "Read, chunk and embed the documents; a first healthy version goes live."),
        job("reembed", ("embeddings",), "Build an embedding version beside the live one, measure it, promote it."),
        job("features", features, "Record event files and computed views, publish the newest values."),
        job("monitor", ("store_health",), "Take a reading of the whole store, and compare it with its baselines."),
    ]


def _job(name: str, selection: dg.AssetSelection, description: str) -> Job:
    return dg.define_asset_job(
        name,
        selection,
        description=description,
        executor_def=dg.in_process_executor,
    )
