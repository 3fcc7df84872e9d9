"""From a measured value to an asset check, and into the store's own log of checks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from assets.charts import trend
from lodestore.errors import LodestoreError
from lodestore.playbook import guide
from lodestore.project import Project

__all__ = ["Measured", "evaluated", "guarded", "spec"]

_SHOWN_POINTS = 48


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured value against its limit. `mend` is the command or the act that settles a failure.

    `facts` are more numbers and ids for the UI; `plotted` draws the value's history under them.
    """

    check: str
    asset: dg.AssetKey
    passed: bool
    value: float
    limit: float
    what: str
    mend: str
    warning: bool = False
    partition: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    plotted: bool = False

    @property
    def severity(self) -> dg.AssetCheckSeverity:
        """A failed warning stops nothing."""
        return dg.AssetCheckSeverity.WARN if self.warning else dg.AssetCheckSeverity.ERROR


def spec(check: str, asset: dg.AssetKey, *, blocking: bool = False) -> dg.AssetCheckSpec:
    """A check whose description is its entry in the playbook."""
    return dg.AssetCheckSpec(check, asset=asset, blocking=blocking, description=guide(check).description())


def guarded(
    checks: Iterable[str], asset: dg.AssetKey, measure: Callable[[], Iterable[Measured]], *, partition: str = ""
) -> list[Measured]:
    """What was measured; where measuring itself fails, every one of these checks fails and says why."""
    try:
        return list(measure())
    except LodestoreError as error:
        return [
            Measured(one, asset, passed=False, value=1, limit=0, what=f"could not be measured: {error}",
                     mend=guide(one).settle, partition=partition)
            for one in checks
        ]  # fmt: skip


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
        yield _result(group, _history(project, group[0]) if any(one.plotted for one in group) else {})
    # A blocking check without a result would let everything after it go on unasked.
    for asset, name in sorted(wanted - set(groups)):
        yield dg.AssetCheckResult(passed=True, asset_key=asset, check_name=name, description="nothing to measure yet")


def _result(group: list[Measured], more: Mapping[str, dg.MetadataValue]) -> dg.AssetCheckResult:
    worst = min(group, key=lambda one: (one.passed, one.warning))
    where = {one.partition: one.value for one in group if one.partition}
    facts = {
        f"{one.partition} {name}".strip() if len(group) > 1 else name: value
        for one in group
        for name, value in one.facts.items()
    }
    return dg.AssetCheckResult(
        passed=all(one.passed for one in group),
        asset_key=worst.asset,
        check_name=worst.check,
        severity=worst.severity,
        description=worst.what if worst.passed else f"{worst.what}. To mend: {worst.mend}",
        metadata={"value": float(worst.value), "limit": float(worst.limit), **where, **facts, **more},
    )


def _history(project: Project, one: Measured) -> dict[str, dg.MetadataValue]:
    """The last values of the check as a small picture, every partition among them."""
    asset = one.asset.to_user_string()
    rows = project.logs.rows("checks", f"`check` = '{one.check}' AND asset = '{asset}'")
    shown = rows[-_SHOWN_POINTS:]
    if not shown:
        return {}
    picture = trend([row["value"] for row in shown], one.limit, [not row["passed"] for row in shown])
    return {"history": dg.MetadataValue.md(picture)}


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
