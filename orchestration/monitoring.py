"""The job that replaces baselines, from the launchpad or `lodestore run rebaseline`."""

import dagster as dg

from lodestore import monitor
from lodestore.project import Project

__all__ = ["baseline_jobs"]


class RebaselineConfig(dg.Config):
    """`subjects`: views and embedding features, none for all; `reason`: why what is there now is right."""

    subjects: list[str] = []  # noqa: RUF012 - a pydantic field, copied for each instance
    reason: str


@dg.op(out=dg.Out(dg.Nothing))
def pin_baselines(context: dg.OpExecutionContext, config: RebaselineConfig, project: dg.ResourceParam[Project]) -> None:
    """What the subjects look like now is their baseline; the old ones stay."""
    made = monitor.rebaseline(project, config.subjects, reason=config.reason)
    context.add_output_metadata(
        {"baselines": ", ".join(one.id for one in made) or "none: too few rows", "reason": config.reason}
    )


@dg.job(executor_def=dg.in_process_executor, description="Pin new baselines for drift, with a reason.")
def rebaseline() -> None:
    """The job of that name."""
    pin_baselines()


def baseline_jobs() -> list[dg.JobDefinition]:
    """The one job."""
    return [rebaseline]
