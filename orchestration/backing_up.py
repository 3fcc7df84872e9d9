"""Backups, every night where the settings name a place for them. How one is made is the library's."""

import dagster as dg

from lodestore.backup import backup_again
from lodestore.project import Project
from lodestore.settings import Settings

__all__ = ["backing_up"]


@dg.op(out=dg.Out(dg.Nothing))
def copy_store(context: dg.OpExecutionContext, project: dg.ResourceParam[Project]) -> None:
    """The whole store lies under [backup] uri once more, was read back, and the oldest backups are gone."""
    made = backup_again(project)
    context.log.info("release %s, %s tables, %s rows: %s", made.generation, len(made.tables), made.rows, made.uri)
    for one in made.left_out:
        context.log.warning("not in it: %s", one)
    context.add_output_metadata({**made.figures(), "uri": made.uri})


@dg.job(
    executor_def=dg.in_process_executor,
    description="Copy the whole store below [backup] uri, read the copy back, keep as many as [backup] keep says.",
)
def backup() -> None:
    """The job of that name."""
    copy_store()


def backing_up(settings: Settings) -> tuple[list[dg.JobDefinition], list[dg.ScheduleDefinition]]:
    """The one job, and its schedule where there is a place for backups."""
    options = settings.backup
    if not options.uri or not options.schedule.strip():
        return [backup], []
    nightly = dg.ScheduleDefinition(
        name="backup_nightly",
        job=backup,
        cron_schedule=options.schedule,
        execution_timezone=settings.schedule.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Copy the store below [backup] uri, once a night unless [backup] schedule says otherwise.",
    )
    return [backup], [nightly]
