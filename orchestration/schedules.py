"""When jobs run by themselves."""

import dagster as dg

__all__ = ["schedules"]


def schedules() -> list[dg.ScheduleDefinition]:
    """Documents and upkeep every night, features and monitoring every hour; all also on demand."""
    running = dg.DefaultScheduleStatus.RUNNING
    return [
        dg.ScheduleDefinition(
            name="documents_daily",
            job_name="ingest",
            cron_schedule="15 3 * * *",
            default_status=running,
            description="Read the document sources once a night.",
        ),
        dg.ScheduleDefinition(
            name="features_hourly",
            job_name="features",
            cron_schedule="5 * * * *",
            default_status=running,
            description="Record events and publish features every hour.",
        ),
        dg.ScheduleDefinition(
            name="monitor_hourly",
            job_name="monitor",
            cron_schedule="35 * * * *",
            default_status=running,
            description="Take a reading of the whole store every hour.",
        ),
        dg.ScheduleDefinition(
            name="maintain_nightly",
            job_name="maintain",
            cron_schedule="15 4 * * *",
            default_status=running,
            description="Remove what left beyond the retention, compact tables, mend indexes, once a night.",
        ),
    ]
