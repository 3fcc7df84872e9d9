"""When jobs run by themselves."""

import dagster as dg

from lodestore.schedule import ScheduleOptions

__all__ = ["schedules"]

# Names that were there before the times became settings: Dagster keeps the history of a schedule by its name.
_NAMES = {
    "ingest": ("documents_daily", "Read the document sources, once a night unless [schedule] says otherwise."),
    "features": ("features_hourly", "Record events and publish features, every hour unless [schedule] says otherwise."),
    "monitor": ("monitor_hourly", "Take a reading of the whole store, every hour unless [schedule] says otherwise."),
    "maintain": (
        "maintain_nightly",
        "Remove what left beyond the retention, compact tables, mend indexes, once a night unless [schedule] says otherwise.",
    ),
}


def schedules(options: ScheduleOptions | None = None) -> list[dg.ScheduleDefinition]:
    """Documents and upkeep every night, features and monitoring every hour, or as the settings say; all also on demand."""
    chosen = options or ScheduleOptions()
    return [
        dg.ScheduleDefinition(
            name=_NAMES[job][0],
            job_name=job,
            cron_schedule=cron,
            execution_timezone=chosen.timezone,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=_NAMES[job][1],
        )
        for job, cron in chosen.lines().items()
    ]
