"""Backups, every night where the settings name a place for them. How one is made is the library's."""

import dagster as dg

from lodestore.backup import backup_again
from lodestore.project import Project

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


def backing_up() -> list[dg.JobDefinition]:
    """The one job."""
    return [backup]
