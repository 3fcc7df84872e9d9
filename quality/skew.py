"""Whether applications were served what a training set would hold in the same place."""

from collections.abc import Iterator

import dagster as dg

from assets.house import House
from lodestore.project import Project
from lodestore.skew import Skew, measure, samples
from quality.bridge import Measured, evaluated, spec

__all__ = ["skew_checks"]

_LIMIT = 0.01
_MEND = {
    "skew_mismatch": "look for late events or clocks that are wrong, then: lodestore run features",
    "skew_missing": "publish more often: values were recorded and not yet online when they were asked for",
    "skew_extra": "drain the journal: lodestore run drain; then look for rows that were deleted from histories",
}


def skew_checks(house: House) -> list[dg.AssetChecksDefinition]:
    """The shares of sampled online reads that the point-in-time join answers otherwise."""
    key = house.key("online")

    @dg.multi_asset_check(
        name="skew_checks",
        specs=[
            spec("skew_mismatch", key),
            spec("skew_missing", key),
            spec("skew_extra", key),
        ],
        can_subset=True,
    )
    def checks(
        context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
    ) -> Iterator[dg.AssetCheckResult]:
        found = measure(samples(project.online), catalog=project.catalog, offline=project.tables)
        yield from evaluated(context, project, _measured(found, key))

    return [checks]


def _measured(found: dict[str, Skew], key: dg.AssetKey) -> Iterator[Measured]:
    for view, skew in found.items():
        counts = {"skew_mismatch": skew.mismatched, "skew_missing": skew.missing, "skew_extra": skew.extra}
        for name, count in counts.items():
            rate = skew.rate(count)
            what = f"{view}: {count:,} of {skew.values:,} sampled values ({rate:.1%}), at most {_LIMIT:.0%} are usual"
            yield Measured(name, key, rate <= _LIMIT, rate, _LIMIT, what, _MEND[name], warning=True, partition=view)
