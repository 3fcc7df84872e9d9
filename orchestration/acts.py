"""Jobs that are one act on the release: promote and roll back, from the launchpad or the command line."""

import dagster as dg

from lodestore.project import Project

__all__ = ["acts"]


class PromoteConfig(dg.Config):
    """`feature` and `version` as in lodestore.toml; `accept_loss` overrides quality, never health."""

    feature: str = "content"
    version: str
    accept_loss: bool = False
    reason: str = ""


class RollbackConfig(dg.Config):
    """`slot`: the embedding feature, template or view that goes back to its previous value."""

    slot: str = "content"
    reason: str = "rolled back in Dagster"


@dg.op(out=dg.Out(dg.Nothing))
def promote_version(context: dg.OpExecutionContext, config: PromoteConfig, project: dg.ResourceParam[Project]) -> None:
    """The version is live."""
    version = project.versions.find(config.feature, config.version)
    release = project.changes.promote(
        version, author="dagster", by_name=True, accept_loss=config.accept_loss, reason=config.reason
    )
    context.add_output_metadata({"generation": release.generation, "live": version.key})


@dg.op(out=dg.Out(dg.Nothing))
def roll_back(context: dg.OpExecutionContext, config: RollbackConfig, project: dg.ResourceParam[Project]) -> None:
    """The slot is at its previous value; what left is held."""
    release = project.changes.rollback(project.releases.slot(config.slot), author="dagster", reason=config.reason)
    context.add_output_metadata({"generation": release.generation, "slots": str(dict(release.slots))})


@dg.job(executor_def=dg.in_process_executor, description="Make a built embedding version live.")
def promote() -> None:
    """The job of that name."""
    promote_version()


@dg.job(executor_def=dg.in_process_executor, description="Take one slot back to its previous value, at once.")
def rollback() -> None:
    """The job of that name."""
    roll_back()


def acts() -> list[dg.JobDefinition]:
    """Both jobs."""
    return [promote, rollback]
