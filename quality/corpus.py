"""Checks of documents, chunks and vectors."""

from collections.abc import Iterator

import dagster as dg

from assets.house import House
from lodestore.models import EmbeddingVersion
from lodestore.pipeline import VersionHealth
from lodestore.project import Project
from lodestore.tables import chunk_table
from quality.bridge import Measured, evaluated, spec

__all__ = ["corpus_checks"]


def corpus_checks(house: House) -> list[dg.AssetChecksDefinition]:
    """Checks that run with the ingest job; the critical ones block what comes after."""
    return [_document_checks(house), _chunk_checks(house), _vector_checks(house)]


def _document_checks(house: House) -> dg.AssetChecksDefinition:
    key = house.key("documents")

    @dg.multi_asset_check(
        name="document_checks",
        specs=[
            spec("has_rows", key, blocking=True),
            spec("ids_unique", key, blocking=True),
            spec("rejects", key),
            spec("sources_whole", key),
        ],
        can_subset=True,
    )
    def document_checks(
        context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
    ) -> Iterator[dg.AssetCheckResult]:
        yield from evaluated(context, project, _documents(project, key))

    return document_checks


def _documents(project: Project, key: dg.AssetKey) -> Iterator[Measured]:
    counts = project.corpus.figures()
    rows, wanted = counts["live"], 1 if project.settings.documents else 0
    yield Measured(
        "has_rows", key, rows >= wanted, rows, wanted, f"{rows:,} documents", "look at the sources in lodestore.toml"
    )
    doubled = project.corpus.doubled("documents", "document_id")
    yield Measured("ids_unique", key, doubled == 0, doubled, 0, f"{doubled:,} ids stand twice", "lodestore doctor")
    rejected = counts["rejected"]
    yield Measured(
        "rejects", key, rejected == 0, rejected, 0, f"{rejected:,} files were turned away",
        "lodestore doctor names each file and its fault", warning=True,
    )  # fmt: skip
    kept = project.corpus.problems()
    said = "; ".join(one["detail"] for one in kept) or "every source was read to its end"
    mend = "mend the source, or do what is said here, then: lodestore run ingest"
    yield Measured("sources_whole", key, not kept, len(kept), 0, said, mend, warning=True)


def _chunk_checks(house: House) -> dg.AssetChecksDefinition:
    key = house.key("chunks")

    @dg.multi_asset_check(
        name="chunk_checks",
        specs=[
            spec("chunk_ids_unique", key, blocking=True),
            spec("truncated", key),
        ],
        can_subset=True,
    )
    def chunk_checks(
        context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
    ) -> Iterator[dg.AssetCheckResult]:
        yield from evaluated(context, project, _chunks(project, key))

    return chunk_checks


def _chunks(project: Project, key: dg.AssetKey) -> Iterator[Measured]:
    for chunker in project.pipeline.chunkers():
        name = chunk_table(chunker.id)
        doubled = project.corpus.doubled(name, "chunk_id")
        yield Measured(
            "chunk_ids_unique", key, doubled == 0, doubled, 0, f"{doubled:,} ids stand twice", "lodestore doctor",
            partition=chunker.id,
        )  # fmt: skip
        cut = project.tables.count(name, "truncated")
        yield Measured(
            "truncated", key, cut == 0, cut, 0, f"{cut:,} chunks are longer than the model reads",
            "lower chunks.size in lodestore.toml", warning=True, partition=chunker.id,
        )  # fmt: skip


def _vector_checks(house: House) -> dg.AssetChecksDefinition:
    key = house.key("live_embeddings")

    @dg.multi_asset_check(
        name="vector_checks",
        specs=[
            spec("coverage", key, blocking=True),
            spec("vector_ids_unique", key, blocking=True),
            spec("vectors_sound", key, blocking=True),
        ],
        can_subset=True,
    )
    def vector_checks(
        context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
    ) -> Iterator[dg.AssetCheckResult]:
        yield from evaluated(context, project, _vectors(project, key))

    return vector_checks


def _vectors(project: Project, key: dg.AssetKey) -> Iterator[Measured]:
    for version in project.versions.maintained():
        health = project.pipeline.health(version)
        yield _coverage(project, key, version, health)
        yield Measured(
            "vector_ids_unique", key, not health.duplicates, health.duplicates, 0,
            f"{health.duplicates:,} rows stand twice", "lodestore doctor", partition=version.key,
        )  # fmt: skip
        yield Measured(
            "vectors_sound", key, not health.bad, health.bad, 0, f"{health.bad:,} vectors cannot be searched",
            f"lodestore models show {version.label}", partition=version.key,
        )  # fmt: skip


def _coverage(project: Project, key: dg.AssetKey, version: EmbeddingVersion, health: VersionHealth) -> Measured:
    """Every chunk has a vector. What does not serve, such as the way back of a rollback, warns and stops nothing."""
    beside = project.releases.live().embeddings.get(version.feature, version.key) != version.key
    trouble = project.versions.trouble(version) if beside else None
    detail, mend = f"{health.rows:,} of {health.wanted:,} rows of {version.key}", "lodestore run ingest"
    if trouble is not None:
        detail = f"{detail}; {trouble}"
        mend = f"bring the model of {version.label} back; it is left alone once it is no longer where a rollback goes"
    complete = not health.missing and trouble is None
    return Measured(
        "coverage", key, complete, health.coverage, 1.0, detail, mend, warning=beside, partition=version.key
    )
