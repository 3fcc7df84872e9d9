"""When jobs run by themselves: one line of cron for each."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from zoneinfo import ZoneInfo

from lodestore.errors import SettingsError

__all__ = ["ScheduleOptions"]

_FIELD = re.compile(r"(\*|\w+(-\w+)?)(/\d+)?(,(\*|\w+(-\w+)?)(/\d+)?)*")
_FIELDS = 5


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """`[schedule]`: minute, hour, day, month and weekday for each job that runs by itself; empty for never."""

    ingest: str = "15 3 * * *"
    features: str = "5 * * * *"
    monitor: str = "35 * * * *"
    maintain: str = "15 4 * * *"
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        for job, cron in self.lines().items():
            parts = cron.split()
            if len(parts) != _FIELDS or not all(_FIELD.fullmatch(part) for part in parts):
                message = f"schedule.{job} is {cron!r}; give minute, hour, day, month and weekday, such as '35 * * * *'"
                raise SettingsError(message)
        try:
            ZoneInfo(self.timezone)
        except (LookupError, ValueError, OSError) as error:
            message = f"schedule.timezone is {self.timezone!r}; give a name such as 'Europe/Vienna'"
            raise SettingsError(message) from error

    def lines(self) -> dict[str, str]:
        """Job -> its line, of those that run by themselves."""
        found = {one.name: getattr(self, one.name).strip() for one in fields(self) if one.name != "timezone"}
        return {job: cron for job, cron in found.items() if cron}
