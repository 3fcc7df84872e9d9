"""The nightly backup: one op over the library's, on a schedule only where there is a place for backups."""

from __future__ import annotations

import dagster as dg
import pytest

from lodestore.backup import kept as backups
from lodestore.errors import SettingsError
from lodestore.manifest import check
from lodestore.project import open_project
from orchestration.definitions import build


def test_the_job_makes_a_backup_and_keeps_as_many_as_are_wanted(make_project, tmp_path, monkeypatch):
    folder, kept = make_project(), tmp_path / "kept"
    monkeypatch.setenv("LODESTORE_BACKUP__URI", str(kept))
    monkeypatch.setenv("LODESTORE_BACKUP__KEEP", "2")
    definitions = build(str(folder))
    made = []
    with dg.DagsterInstance.ephemeral() as instance:
        definitions.resolve_job_def("ingest").execute_in_process(instance=instance)
        for _ in range(3):
            result = definitions.resolve_job_def("backup").execute_in_process(instance=instance)
            assert result.success
            (output,) = [one.step_output_data for one in result.all_events if one.is_successful_output]
            made.append(output.metadata["uri"].value)

    project = open_project(folder)
    assert backups(project) == made[:0:-1]
    assert sorted(str(one) for one in kept.iterdir()) == made[1:]
    assert check(made[-1]).rows == output.metadata["rows"].value > 0


def test_it_runs_by_itself_only_where_there_is_a_place(make_project, monkeypatch):
    folder = str(make_project())
    assert "backup_nightly" not in {one.name for one in build(folder).get_repository_def().schedule_defs}

    monkeypatch.setenv("LODESTORE_BACKUP__URI", "kept")
    schedule = build(folder).get_repository_def().get_schedule_def("backup_nightly")

    assert schedule.job_name == "backup"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    monkeypatch.setenv("LODESTORE_BACKUP__SCHEDULE", "")
    assert "backup_nightly" not in {one.name for one in build(folder).get_repository_def().schedule_defs}
    monkeypatch.setenv("LODESTORE_BACKUP__SCHEDULE", "at night")
    with pytest.raises(SettingsError, match=r"backup\.schedule is 'at night'; give minute"):
        build(folder)
