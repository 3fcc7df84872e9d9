"""The stages of a re-embedding run, each with its figures: plan, embed, index, check, gate, promote."""

import json
from dataclasses import asdict
from typing import Any

import dagster as dg

from assets import metadata
from assets.charts import intervals
from lodestore.gate import GateReport, Verdict
from lodestore.models import EmbeddingVersion
from lodestore.pipeline import VersionHealth
from lodestore.preview import shown
from lodestore.project import Project
from lodestore.tables import embedding_schema
from resources.progress import progress

__all__ = ["PlanConfig", "built", "check", "embed", "gate", "index", "plan", "promote"]

# Each stage hands its successor nothing but the order: what it did stands in the store.
_AFTER = {"before": dg.In(dg.Nothing)}


class PlanConfig(dg.Config):
    """`budget`: the seconds that the build may take; the run stops before it embeds anything when it would take more."""

    budget: float | None = None


def _version(context: dg.OpExecutionContext, project: Project) -> EmbeddingVersion:
    return project.versions.registered(context.partition_key)


def built(version: EmbeddingVersion, health: VersionHealth) -> dict[str, Any]:
    """What a version's materialisation shows."""
    facts = {"model": version.label, "dimension": version.dimension, "fingerprint": version.fingerprint[:12]}
    return metadata.figures(embedding_schema(version.dimension), health.rows, coverage=health.coverage, **facts)


@dg.op(ins=_AFTER, out=dg.Out(dg.Nothing))
def plan(context: dg.OpExecutionContext, config: PlanConfig, project: dg.ResourceParam[Project]) -> None:
    """Price the build: chunks, cache hits, tokens, seconds, disk, share of truncated chunks."""
    made = project.changes.plan(_version(context, project), budget=config.budget)
    context.add_output_metadata(asdict(made))


@dg.op(ins=_AFTER, out=dg.Out(dg.Nothing))
def embed(context: dg.OpExecutionContext, project: dg.ResourceParam[Project]) -> None:
    """Embed what is missing; vectors of the same fingerprint are reused. Features bound to the version are made."""
    version = _version(context, project)
    with progress(context, version.key) as tell:
        filled = project.pipeline.fill(version, progress=tell)
    bound = metadata.table(project.pipeline.bind(version))
    context.add_output_metadata({**asdict(filled), "features": bound})


@dg.op(ins=_AFTER, out=dg.Out(dg.Nothing))
def index(context: dg.OpExecutionContext, project: dg.ResourceParam[Project]) -> None:
    """The indexes that searches need cover every row."""
    context.add_output_metadata({"vector_index": project.pipeline.index(_version(context, project))})


@dg.op(ins=_AFTER, out=dg.Out(dg.Nothing))
def check(context: dg.OpExecutionContext, project: dg.ResourceParam[Project]) -> None:
    """Every chunk has its vector, every vector is sound, the running model is the registered one."""
    version = _version(context, project)
    health, canary = project.pipeline.health(version), project.changes.canary(version)
    smallest = canary.smallest if canary else None
    context.add_output_metadata({**asdict(health), "canary": smallest, "fit_to_serve": health.healthy})


@dg.op(ins=_AFTER, out=dg.Out(str))
def gate(context: dg.OpExecutionContext, project: dg.ResourceParam[Project]) -> str:
    """Measure the version on golden queries against the live one; the report is kept."""
    version = _version(context, project)
    report = project.changes.gate(version)
    seen = {"preview": dg.MetadataValue.md(shown(report.preview))} if report.preview else {}
    context.add_output_metadata({"verdict": report.verdict.value, **pictured(report), **seen})
    return json.dumps(report.to_json())


# A job is called promote; Dagster wants the names of ops and jobs to differ.
@dg.op(name="promote_if_passed", out=dg.Out(dg.Nothing))
def promote(context: dg.OpExecutionContext, gate: str, project: dg.ResourceParam[Project]) -> None:
    """Make the version live when the gate has passed it and the settings promote by themselves."""
    version = _version(context, project)
    verdict = json.loads(gate)["verdict"]
    outcome = project.changes.promote_judged(version, verdict, author="reembed")
    context.log.info(outcome)
    facts = built(version, project.pipeline.health(version))
    live = project.releases.live()
    refused = verdict in {Verdict.REFUSED, Verdict.UNHEALTHY}
    context.add_output_metadata({**facts, "outcome": outcome, "refused": refused, "generation": live.generation})


def pictured(report: GateReport) -> dict[str, dg.MetadataValue]:
    """The report as Markdown with a small plot."""
    chart = intervals([(one.name, one.candidate, one.live) for one in report.metrics])
    return {"report": dg.MetadataValue.md(report.markdown() + chart)}
