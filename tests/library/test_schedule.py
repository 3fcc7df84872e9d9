"""When jobs run by themselves, as the settings say it."""

from __future__ import annotations

import pytest

from lodestore.errors import SettingsError
from lodestore.schedule import ScheduleOptions


def test_an_empty_line_means_that_the_job_never_runs_by_itself():
    found = ScheduleOptions(ingest="", monitor=" */15 6-20 * * mon-fri ").lines()

    assert "ingest" not in found
    assert found["monitor"] == "*/15 6-20 * * mon-fri"
    assert found["features"] == "5 * * * *"


@pytest.mark.parametrize(("given", "told"), [
    ({"monitor": "hourly"}, "schedule.monitor is 'hourly'"), ({"ingest": "* * * *"}, "minute, hour"),
    ({"maintain": "* * * * $"}, "schedule.maintain"), ({"timezone": "Vienna"}, "schedule.timezone is 'Vienna'"),
])  # fmt: skip
def test_a_line_without_sense_says_so(given, told):
    with pytest.raises(SettingsError, match=told):
        ScheduleOptions(**given)


@pytest.mark.parametrize("line", ["99 99 * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "*/0 * * * *"])
def test_a_time_that_never_comes_is_refused(line: str) -> None:
    with pytest.raises(SettingsError, match=r"schedule\.ingest"):
        ScheduleOptions(ingest=line)
