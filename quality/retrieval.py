"""Whether search still finds what is there: the index against exact search, and answers against their replay."""

from collections.abc import Iterator

import dagster as dg

from assets.house import House
from lodestore.consistency import consistency
from lodestore.indexes import MOST_UNSEEN, settled
from lodestore.playbook import guide
from lodestore.project import Project
from quality.bridge import Measured, evaluated, guarded, spec

__all__ = ["retrieval_checks"]

_INDEX = ("index_recall", "index_tail")
_LEAST_OVERLAP = 0.95
_SHOWN = 10


def retrieval_checks(house: House) -> list[dg.AssetChecksDefinition]:
    """The checks of the monitor job that search the store."""
    return [_index_checks(house.key("live_embeddings")), _replay_checks(house.key("release"))]


def _index_checks(key: dg.AssetKey) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(name="index_monitoring", specs=[spec(one, key) for one in _INDEX], can_subset=True)
    def group(
        context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
    ) -> Iterator[dg.AssetCheckResult]:
        yield from evaluated(context, project, guarded(_INDEX, key, lambda: _indexes(project, key)))

    return group


def _indexes(project: Project, key: dg.AssetKey) -> Iterator[Measured]:
    limit, rebuild = project.settings.gate.min_recall, project.settings.search.rebuild
    for version in project.live().versions.values():
        found = settled(project.tables, version, limit=limit, rebuild=rebuild)
        yield Measured(
            "index_recall", key, found.worst >= limit and found.full, found.worst, limit, found.sentence(),
            guide("index_recall").settle, partition=version.key,
            facts={f"recall at {one.share:.0%}": one.recall for one in found.recalls},
        )  # fmt: skip
        yield Measured(
            "index_tail", key, found.unseen <= MOST_UNSEEN, found.unseen, MOST_UNSEEN,
            f"the index has not seen {found.unseen:.1%} of {found.rows:,} rows", guide("index_tail").settle,
            warning=True, partition=version.key,
        )  # fmt: skip


def _replay_checks(key: dg.AssetKey) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(name="replay_monitoring", specs=[spec("context_replay", key)], can_subset=True)
    def group(
        context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
    ) -> Iterator[dg.AssetCheckResult]:
        yield from evaluated(context, project, guarded(["context_replay"], key, lambda: _replays(project, key)))

    return group


def _replays(project: Project, key: dg.AssetKey) -> Iterator[Measured]:
    found = consistency(project)
    yield Measured(
        "context_replay", key, found.overlap >= _LEAST_OVERLAP, found.overlap, _LEAST_OVERLAP, found.sentence(),
        guide("context_replay").settle, warning=True,
        facts={
            "replayed": found.replayed, "skipped": found.skipped, "lost": found.lost, "gained": found.gained,
            "different": list(found.different[:_SHOWN]),
        },
    )  # fmt: skip
