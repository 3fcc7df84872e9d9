"""Draining, publishing and the check of skew, run by Dagster over a small project."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from lodestore.project import open_project
from lodestore.rows import checked_rows
from orchestration.definitions import build
from orchestration.draining import journal_waits

HOUR = timedelta(hours=1)


def test_the_sensor_starts_one_run_when_rows_wait_and_the_run_takes_them(make_project: Callable[..., Path]) -> None:
    folder = make_project()
    definitions = build(str(folder))
    project = open_project(folder)

    def tick(instance: dg.DagsterInstance) -> Any:
        context = dg.build_sensor_context(instance=instance, resources={"project": project})
        return journal_waits(context)

    with dg.DagsterInstance.ephemeral() as instance:
        idle = tick(instance)
        project.store.push("user_profile", [{"user_id": "ada", "event_timestamp": project.clock()}])
        asked = tick(instance)
        result = definitions.resolve_job_def("drain").execute_in_process(instance=instance)

    assert not idle.run_requests
    assert len(asked.run_requests) == 1
    assert result.success
    assert (project.online.journal_size(), project.tables.count("fv__user_profile__v1")) == (0, 1)


def test_a_backfill_of_a_stretch_of_time_is_run_config_of_the_online_asset(make_project: Callable[..., Path]) -> None:
    folder = make_project()
    definitions, project = build(str(folder)), open_project(folder)
    view = project.catalog.view("user_profile")
    now = project.clock()
    rows = [
        {"user_id": name, "event_timestamp": now - age * HOUR, "account_age_days": age}
        for name, age in (("old", 9), ("mid", 5), ("new", 1))
    ]
    project.features.record(view, checked_rows(view, rows, now=now))
    bounds = {"start": (now - 6 * HOUR).isoformat(), "end": (now - 2 * HOUR).isoformat(), "views": ["user_profile"]}

    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("online")],
            run_config={"ops": {"online": {"config": bounds}}},
        )

    answer = project.store.online(["user_profile:account_age_days"], {"user_id": ["old", "mid", "new"]})
    assert result.success
    assert answer.columns["user_profile:account_age_days"] == [None, 5, None]


def test_the_check_on_the_online_asset_measures_the_skew(make_project: Callable[..., Path]) -> None:
    folder = make_project("\n[online]\nskew_every = 1\n")
    project = open_project(folder)
    project.store.push("user_profile", [{"user_id": "ada", "event_timestamp": project.clock(), "account_age_days": 3}])
    project.store.online(["user_profile:account_age_days"], {"user_id": ["ada"]})

    definitions = build(str(folder))
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey("online")], raise_on_error=False
        )

    checks = {one.check_name: one for one in result.get_asset_check_evaluations() if one.check_name.startswith("skew")}
    assert set(checks) == {"skew_mismatch", "skew_missing", "skew_extra"}
    assert all(one.passed for one in checks.values())
