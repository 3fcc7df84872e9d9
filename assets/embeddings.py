"""Vectors: one partition and one table for each embedding version."""

import dagster as dg

from assets import metadata, stages
from assets.house import House
from assets.partitions import embedding_versions
from lodestore.models import EmbeddingVersion
from lodestore.project import Project
from lodestore.reembed import Filled
from resources.progress import progress

__all__ = ["embedding_assets"]

GROUP = "embeddings"


def embedding_assets(house: House) -> list[dg.AssetsDefinition]:
    """The tables of vectors, and the step that keeps those in use up to date."""
    return [_embeddings(house), _live_embeddings(house)]


def _embeddings(house: House) -> dg.AssetsDefinition:
    @dg.graph_asset(
        key=house.key("embeddings"),
        ins={"chunks": dg.AssetIn(house.key("chunks"), dagster_type=dg.Nothing)},
        partitions_def=embedding_versions,
        group_name=GROUP,
        kinds={"lancedb", "pytorch"},
        owners=["team:ml"],
        description=(
            "The vectors of one version, built beside the live one: planned, embedded, indexed, checked, measured on "
            "golden queries, promoted or refused. Every stage can be run again and does only what is left."
        ),
    )
    def embeddings(chunks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - a composition, not a function
        return stages.promote(stages.gate(stages.check(stages.index(stages.embed(stages.plan(chunks))))))

    return embeddings


def _live_embeddings(house: House) -> dg.AssetsDefinition:
    @dg.asset(
        key=house.key("live_embeddings"),
        deps=[house.key("chunks")],
        group_name=GROUP,
        kinds={"lancedb", "pytorch"},
        owners=["team:ml"],
        description=(
            "Every version that serves or may serve (live, candidate, predecessor) holds exactly the current "
            "chunks. Each is noted as a materialisation of its partition of `embeddings`."
        ),
    )
    def live_embeddings(context: dg.AssetExecutionContext, project: dg.ResourceParam[Project]) -> dg.MaterializeResult:
        keys = [one.key for one in project.versions.maintained()]
        context.instance.add_dynamic_partitions(str(embedding_versions.name), keys)
        filled, missed = _each_filled(context, project, house)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": sum(one.rows for one in filled),
                "versions": metadata.table(filled),
                "embedded": sum(one.embedded for one in filled),
                "reused": sum(one.reused for one in filled),
                "missed": missed,
            }
        )

    return live_embeddings


def _each_filled(
    context: dg.AssetExecutionContext, project: Project, house: House
) -> tuple[list[Filled], dict[str, str]]:
    """What was filled, and why a version that does not serve was not."""
    missed: dict[str, str] = {}
    filled = project.pipeline.each_maintained(
        lambda one: _filled(context, project, house, one),
        otherwise=lambda one, error: missed.update({one.key: str(error)}),
    )
    for key, why in missed.items():
        context.log.warning("%s does not serve and is not up to date: %s", key, why)
    return filled, missed


def _filled(context: dg.AssetExecutionContext, project: Project, house: House, version: EmbeddingVersion) -> Filled:
    with progress(context, version.key) as tell:
        filled = project.pipeline.fill(version, progress=tell)
    facts = stages.built(version, project.pipeline.health(version))
    context.log_event(dg.AssetMaterialization(house.key("embeddings"), partition=version.key, metadata=facts))
    return filled
