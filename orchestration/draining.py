"""Pushed rows on their way to the history: one job, started whenever some wait."""

import dagster as dg

from lodestore.project import Project

__all__ = ["draining", "journal_waits"]

_EVERY_SECONDS = 60
_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


@dg.op(out=dg.Out(dg.Nothing))
def drain_journal(context: dg.OpExecutionContext, project: dg.ResourceParam[Project]) -> None:
    """Every pushed row that waited is in the history of its view."""
    moved = project.features.drain()
    context.add_output_metadata({"moved": moved, "waiting": project.online.journal_size()})


@dg.job(executor_def=dg.in_process_executor, description="Take pushed rows from the journal to their histories.")
def drain() -> None:
    """The job of that name."""
    drain_journal()


@dg.sensor(
    job_name="drain",
    minimum_interval_seconds=_EVERY_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a draining run when pushed rows wait for their history and none is under way.",
)
def journal_waits(context: dg.SensorEvaluationContext, project: dg.ResourceParam[Project]) -> dg.SensorResult:
    """Rows wait, nobody takes them: start one run."""
    waiting = project.online.journal_size()
    under_way = context.instance.get_runs(dg.RunsFilter(job_name="drain", statuses=_UNDER_WAY), limit=1)
    if not waiting or under_way:
        return dg.SensorResult(skip_reason="a draining run is under way" if under_way else "no pushed row waits")
    return dg.SensorResult(run_requests=[dg.RunRequest(tags={"lodestore/waiting": str(waiting)})])


def draining() -> tuple[list[dg.JobDefinition], list[dg.SensorDefinition]]:
    """The job and its sensor."""
    return [drain], [journal_waits]
