"""The upkeep of the store, every night. What there is to do is the library's."""

import dagster as dg

from lodestore.maintain import maintain as maintained
from lodestore.project import Project

__all__ = ["maintaining"]


@dg.op(out=dg.Out(dg.Nothing))
def keep_in_shape(context: dg.OpExecutionContext, project: dg.ResourceParam[Project]) -> None:
    """What left beyond the retention is gone, tables are compact, indexes find what is there."""
    done = maintained(project)
    for one in done.indexes:
        context.log.info("%s: %s", one.key, one.sentence())
    context.add_output_metadata(done.to_json())


@dg.job(
    executor_def=dg.in_process_executor,
    description="Remove what left beyond [retention], compact tables, rebuild an index that finds too little.",
)
def maintain() -> None:
    """The job of that name."""
    keep_in_shape()


def maintaining() -> list[dg.JobDefinition]:
    """The one job."""
    return [maintain]
