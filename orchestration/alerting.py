"""The sensor that tells when a check begins to fail, and when it passes again. What to say is the library's."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lodestore.alerts import Alert, AlertOptions, Desk, Evaluation
from lodestore.heartbeats import beat
from lodestore.playbook import guide
from lodestore.project import Project

__all__ = ["alert_sensors", "crashed_checks"]

_EVERY_SECONDS = AlertOptions().every_seconds
_RUNS_AT_ONCE = 50
# Owners of what is no view; as assets/ declares them.
_OWNERS = {
    "documents": "team:data",
    "chunks": "team:data",
    "live_embeddings": "team:ml",
    "templates": "team:prompts",
    "release": "team:mlops",
    "online": "team:mlops",
}


def alert_sensors(every: int = _EVERY_SECONDS) -> list[dg.SensorDefinition]:
    """The one sensor; it runs as soon as the daemon does, `every` so many seconds."""

    @dg.sensor(
        name="check_alerts",
        minimum_interval_seconds=every,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Tells each check that begins to fail, and each recovery, once; a run's findings in one message, to the "
            "addresses of [alerts]. What cannot be delivered is kept and tried again."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext, project: dg.ResourceParam[Project]) -> dg.SensorResult:
        return _look(context, project)

    return [sensor]


def _look(context: dg.SensorEvaluationContext, project: Project) -> dg.SensorResult:
    """Note what is new, send what is due, move the cursor last."""
    beat(project.logs, project.clock)
    cursor = json.loads(context.cursor or "{}")
    failed, until = _failed_runs(context.instance, cursor.get("runs", 0.0))
    desk = Desk(project.logs, project.clock, project.settings.alerts, _owners(project))
    since = datetime.fromisoformat(cursor["checks"]) if cursor.get("checks") else None
    made, read = desk.note(since, [one for run in failed for one in crashed_checks(context.instance, run)])
    done = desk.deliver()
    tried = [one for delivery in done for one in delivery.alerts]
    context.log.info("%d new, %d delivered or tried again", len(made), len(tried))
    moved = json.dumps({"checks": read.isoformat() if read else None, "runs": until})
    events = [_noted(one) for one in tried if one.delivery == "logged"]
    reason = "; ".join(one.problem for one in done if one.problem) or f"{len(made)} new findings"
    return dg.SensorResult(skip_reason=reason, cursor=moved, asset_events=events)


(check_alerts,) = alert_sensors()


def _owners(project: Project) -> dict[str, str]:
    return {**_OWNERS, **{name: view.owner for name, view in project.catalog.latest.items() if view.owner}}


def _noted(alert: Alert) -> dg.AssetObservation:
    """An alert without an address, in the event log of its asset."""
    metadata = {"alert": alert.text, "state": alert.state, "severity": alert.severity}
    key = dg.AssetKey.from_user_string(alert.asset)
    return dg.AssetObservation(key, description=alert.text.split("\n", 1)[0], metadata=metadata)


def _failed_runs(instance: dg.DagsterInstance, since: float) -> tuple[list[dg.DagsterRun], float]:
    """Runs that failed after the moment, oldest first, and the moment to read on from."""
    after = datetime.fromtimestamp(since, UTC) if since else None
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=after)
    records = instance.get_run_records(filters, limit=_RUNS_AT_ONCE, order_by="update_timestamp", ascending=True)
    until = max((one.update_timestamp.timestamp() for one in records), default=since)
    return [one.dagster_run for one in records], until


def crashed_checks(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[Evaluation]:
    """The checks that were planned in a failed run and whose step raised instead of giving a result.

    Checks after a blocking failure did not run at all: they say nothing.
    """
    kinds = dg.DagsterEventType
    wanted = {kinds.ASSET_CHECK_EVALUATION_PLANNED, kinds.ASSET_CHECK_EVALUATION, kinds.STEP_FAILURE}
    entries = instance.all_logs(run.run_id, of_type=wanted)
    broken = {one.step_key: one for one in _events(entries, kinds.STEP_FAILURE)}
    given = {one.event_specific_data.asset_check_key for one in _events(entries, kinds.ASSET_CHECK_EVALUATION)}
    at = {one.dagster_event.step_key: one.timestamp for one in entries if one.dagster_event is not None}
    for event in _events(entries, kinds.ASSET_CHECK_EVALUATION_PLANNED):
        key = event.event_specific_data.asset_check_key
        if event.step_key in broken and key not in given:
            error = broken[event.step_key].step_failure_data.error
            told = f"the check itself could not run: {_reason(error)}"
            yield Evaluation(
                key.name, key.asset_key.to_user_string(), "", passed=False, severity="error", value=None, limit=None,
                detail=told, mend=guide(key.name).settle, run_id=run.run_id,
                at=datetime.fromtimestamp(at[event.step_key], UTC),
            )  # fmt: skip


def _events(entries: Iterable[dg.EventLogEntry], kind: dg.DagsterEventType) -> list[Any]:
    return [
        one.dagster_event for one in entries if one.dagster_event is not None and one.dagster_event.event_type == kind
    ]


def _reason(error: object) -> str:
    """The kind of the innermost error: its text may hold what no message should."""
    while getattr(error, "cause", None) is not None:
        error = error.cause  # type: ignore[attr-defined]
    return str(getattr(error, "cls_name", None) or "an error")
