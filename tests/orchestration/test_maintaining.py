"""The nightly job: the library's upkeep as one op, on a schedule that runs by itself."""

from __future__ import annotations

import dagster as dg

from lodestore.maintain import NAME
from lodestore.project import open_project
from orchestration.definitions import build


def test_the_job_maintains_the_store_and_tells_what_it_did(make_project):
    folder = make_project()
    definitions = build(str(folder))
    with dg.DagsterInstance.ephemeral() as instance:
        definitions.resolve_job_def("ingest").execute_in_process(instance=instance)
        result = definitions.resolve_job_def("maintain").execute_in_process(instance=instance)
        (output,) = [one.step_output_data for one in result.all_events if one.is_successful_output]

    assert result.success
    assert output.metadata["compacted"].value > 5
    project = open_project(folder)
    assert [row["name"] for row in project.logs.rows("heartbeats")] == [NAME]
    assert project.store.search("when are invoices sent", k=1).hits


def test_the_schedule_starts_it_every_night_by_itself(make_project):
    repository = build(str(make_project())).get_repository_def()
    schedule = repository.get_schedule_def("maintain_nightly")

    assert schedule.job_name == "maintain"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.cron_schedule.split()[2:] == ["*", "*", "*"]
