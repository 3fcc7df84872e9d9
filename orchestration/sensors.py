"""Sensors: what has changed, and what to do about it. The decisions are the library's."""

import dagster as dg

from assets.partitions import embedding_versions
from lodestore.heartbeats import beat
from lodestore.project import Project
from lodestore.rollout import decide

__all__ = ["sensors"]

_EVERY_SECONDS = 15


def sensors() -> list[dg.SensorDefinition]:
    """Every sensor; they run as soon as the daemon does."""
    return [model_changes]


@dg.sensor(
    job_name="reembed",
    minimum_interval_seconds=_EVERY_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts one re-embedding run when lodestore.toml declares another embedding version than the live one.",
)
def model_changes(context: dg.SensorEvaluationContext, project: dg.ResourceParam[Project]) -> dg.SensorResult:
    """Declared and live differ, and nothing holds it: add the partition and launch the job, once."""
    beat(project.logs, project.clock)
    decision = decide(project.changes.state(_failures(context.instance)))
    project.changes.accept(decision)
    keys = [one.version.key for one in decision.launches]
    requests = [dg.RunRequest(run_key=one.run_key, partition_key=one.version.key) for one in decision.launches]
    if not requests:
        return dg.SensorResult(skip_reason="; ".join(decision.notes) or "no embedding feature is declared")
    return dg.SensorResult(
        run_requests=requests, dynamic_partitions_requests=[embedding_versions.build_add_request(keys)]
    )


def _failures(instance: dg.DagsterInstance) -> dict[str, int]:
    """Failed re-embedding runs by partition."""
    failed = instance.get_runs(dg.RunsFilter(job_name="reembed", statuses=[dg.DagsterRunStatus.FAILURE]))
    keys = [run.tags.get("dagster/partition", "") for run in failed]
    return {key: keys.count(key) for key in keys}
