"""From a measured value to an asset check, and into the store's own log of checks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import dagster as dg

from lodestore.project import Project

__all__ = ["Measured", "evaluated"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured value against its limit. `mend` is the command or the act that settles a failure."""

    check: str
    asset: dg.AssetKey
    passed: bool
    value: float
    limit: float
    what: str
    mend: str
    warning: bool = False
    partition: str = ""

    @property
    def severity(self) -> dg.AssetCheckSeverity:
        """A failed warning stops nothing."""
        return dg.AssetCheckSeverity.WARN if self.warning else dg.AssetCheckSeverity.ERROR


def evaluated(
    context: dg.AssetCheckExecutionContext, project: Project, measured: Iterable[Measured]
) -> Iterator[dg.AssetCheckResult]:
    """One result for each selected check, each written to the log that the CLI and the server read.

    Several partitions of one check become one result: the worst of them.
    """
    wanted = {(key.asset_key, key.name) for key in context.selected_asset_check_keys}
    chosen = [one for one in measured if (one.asset, one.check) in wanted]
    project.logs.put_all("checks", [_row(one, context.run.run_id) for one in chosen])
    groups: dict[tuple[dg.AssetKey, str], list[Measured]] = {}
    for one in chosen:
        groups.setdefault((one.asset, one.check), []).append(one)
    for group in groups.values():
        yield _result(group)
    # A blocking check without a result would let everything after it go on unasked.
    for asset, name in sorted(wanted - set(groups)):
        yield dg.AssetCheckResult(passed=True, asset_key=asset, check_name=name, description="nothing to measure yet")


def _result(group: list[Measured]) -> dg.AssetCheckResult:
    worst = min(group, key=lambda one: one.passed)
    where = {one.partition: one.value for one in group if one.partition}
    return dg.AssetCheckResult(
        passed=all(one.passed for one in group),
        asset_key=worst.asset,
        check_name=worst.check,
        severity=worst.severity,
        description=worst.what if worst.passed else f"{worst.what}. To mend: {worst.mend}",
        metadata={"value": worst.value, "limit": worst.limit, **where},
    )


def _row(one: Measured, run_id: str) -> dict[str, object]:
    return {
        "check": one.check,
        "partition": one.partition,
        "asset": one.asset.to_user_string(),
        "severity": "warning" if one.warning else "error",
        "run_id": run_id,
        "detail": one.what,
        "mend": one.mend,
        "passed": one.passed,
        "value": float(one.value),
        "limit": float(one.limit),
    }
