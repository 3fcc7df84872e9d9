"""When jobs run by themselves: one line of cron for each."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import timedelta
from zoneinfo import ZoneInfo

from lodestore.errors import SettingsError

__all__ = ["ScheduleOptions", "check_cron", "longest_pause"]

_FIELD = re.compile(r"(\*|\w+(-\w+)?)(/\d+)?(,(\*|\w+(-\w+)?)(/\d+)?)*")
# Minute, hour, day of the month, month, day of the week: the lowest and the highest number of each.
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """`[schedule]`: minute, hour, day, month and weekday for each job that runs by itself; empty for never.

    A project has its own copy of the schedules' module, which knows these jobs and no other: a job that comes later has
    its line elsewhere.
    """

    ingest: str = "15 3 * * *"
    features: str = "5 * * * *"
    monitor: str = "35 * * * *"
    maintain: str = "15 4 * * *"
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        for job, cron in self.lines().items():
            check_cron(f"schedule.{job}", cron)
        try:
            ZoneInfo(self.timezone)
        except (LookupError, ValueError, OSError) as error:
            message = f"schedule.timezone is {self.timezone!r}; give a name such as 'Europe/Vienna'"
            raise SettingsError(message) from error

    def lines(self) -> dict[str, str]:
        """Job -> its line, of those that run by themselves."""
        found = {one.name: getattr(self, one.name).strip() for one in fields(self) if one.name != "timezone"}
        return {job: cron for job, cron in found.items() if cron}


def check_cron(setting: str, cron: str) -> None:
    """The line says minute, hour, day, month and weekday; otherwise a `SettingsError` names the setting."""
    parts = cron.split()
    if len(parts) != len(_BOUNDS) or not all(map(_is_field, parts, _BOUNDS)):
        message = f"{setting} is {cron!r}; give minute, hour, day, month and weekday, such as '35 * * * *'"
        raise SettingsError(message)


def longest_pause(cron: str) -> timedelta:
    """How long it may be from one run to the next, roughly: a day, a week, a month or a year.

    >>> longest_pause("45 4 * * *"), longest_pause("45 4 * * 0")
    (datetime.timedelta(days=1), datetime.timedelta(days=7))
    """
    _, _, day, month, weekday = cron.split()
    if month != "*":
        return timedelta(days=366)
    return timedelta(days=31 if day != "*" else 7 if weekday != "*" else 1)


def _is_field(part: str, bounds: tuple[int, int]) -> bool:
    lowest, highest = bounds
    named = [int(number) for number in re.findall(r"(?<![/\d])\d+", part)]
    steps = [int(number) for number in re.findall(r"/(\d+)", part)]
    return bool(_FIELD.fullmatch(part)) and all(lowest <= one <= highest for one in named) and 0 not in steps
