"""Sensors: what has changed, and what to do about it. The decisions are the library's."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import dagster as dg

from assets.partitions import embedding_versions
from lodestore.heartbeats import beat
from lodestore.project import Project
from lodestore.rollout import Decision, decide

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
    declared = _declared_since(project, context.cursor)
    failed, past = _failures(context.instance, declared)
    decision = decide(project.changes.state(failed, past))
    project.changes.accept(decision)
    return _launching(decision, cursor=json.dumps(declared))


def _failures(instance: dg.DagsterInstance, declared: Mapping[str, float]) -> tuple[dict[str, int], dict[str, int]]:
    """Failed runs by partition: all of them, and those from before it was declared (again)."""
    statuses = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    failed = instance.get_run_records(dg.RunsFilter(job_name="reembed", statuses=statuses))
    past = [run for run in failed if run.create_timestamp.timestamp() < declared.get(_partition(run), math.inf)]
    return _counted(failed), _counted(past)


def _launching(decision: Decision, *, cursor: str) -> dg.SensorResult:
    """The partitions and runs that were decided on, or why there are none."""
    if not decision.launches:
        return dg.SensorResult(
            skip_reason="; ".join(decision.notes) or "no embedding feature is declared", cursor=cursor
        )
    keys = [one.version.key for one in decision.launches]
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=one.run_key, partition_key=one.version.key) for one in decision.launches],
        dynamic_partitions_requests=[embedding_versions.build_add_request(keys)],
        cursor=cursor,
    )


def _declared_since(project: Project, cursor: str | None) -> dict[str, float]:
    """Partition -> the Unix time from which on it has been declared; 0 for what was when this sensor ran first."""
    known = json.loads(cursor) if cursor else {}
    now = project.clock().timestamp() if cursor else 0.0
    return {key: known.get(key, now) for key in project.changes.declared()}


def _partition(run: dg.RunRecord) -> str:
    return run.dagster_run.tags.get("dagster/partition", "")


def _counted(runs: Sequence[dg.RunRecord]) -> dict[str, int]:
    """Runs by partition."""
    return dict(Counter(map(_partition, runs)))
