"""One night's upkeep of a real store: it answers as before, holds less, and says what it did."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from lodestore.doctor import examine
from lodestore.errors import RetentionError, SettingsError, StoreBusyError, StoreError
from lodestore.indexes import IndexReading
from lodestore.maintain import NAME, maintain
from lodestore.project import Project
from lodestore.settings import RetentionOptions, load
from lodestore.tables import retired
from lodestore.why import Reason

START = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = """
[store]
lock_wait = 0.05
[[documents]]
name = "handbook"
uri = "docs/**/*.md"
max_retire = 1.0
[retention]
days = 7
[embedding.features]
content = "words@1"
[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"
"""


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        self.now += timedelta(milliseconds=1)
        return self.now


@pytest.fixture
def project(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "lodestore.toml").write_text(SETTINGS)
    return Project(load(tmp_path, environ={}), clock=Clock())


def write(project, name, text):
    file = project.settings.root / "docs" / f"{name}.md"
    if text is None:
        file.unlink()
    else:
        file.write_text(f"# {name}\n\n{text}\n")


def ingest(project):
    steps = project.pipeline
    for step in (steps.read_documents, steps.cut_chunks, steps.fill_maintained, steps.promote_first):
        step()


def days(project, count):
    project.clock.now += timedelta(days=count)
    return project.clock.now


def lived(project):
    """A document leaves on day 1, another is rewritten on day 9; returns both mornings and the table."""
    write(project, "fax", "The fax machine stands in the cellar.")
    write(project, "rules", "The old rules of the garden say no football.")
    ingest(project)
    early = days(project, 1)
    write(project, "fax", None)
    ingest(project)
    late = days(project, 8)
    write(project, "rules", "The new rules of the garden allow football.")
    ingest(project)
    days(project, 1)
    return early, late, project.live().version("content").table


def texts(project, query, moment):
    found = project.past.search(query, moment, mode="vector")
    return {hit.text.strip() for hit in found.hits}


def test_what_left_beyond_the_retention_is_gone_and_within_it_answers_are_the_same(project):
    early, late, table = lived(project)
    before = texts(project, "rules of the garden", late)

    done = maintain(project, keep_files=timedelta(milliseconds=1))

    assert done.forgotten[retired(table)] == 1
    assert done.forgotten[retired("documents")] == 1
    assert project.tables.count(retired(table)) == 1
    assert texts(project, "rules of the garden", late) == before
    assert any("no football" in one for one in before)
    with pytest.raises(RetentionError, match="9 d ago"):
        project.past.at(early)
    assert maintain(project).forgotten == {}


def test_files_of_older_states_are_gone_and_a_reader_with_an_open_handle_goes_on(project):
    _, _, table = lived(project)
    reader = Project(project.settings, clock=project.clock)
    reader.tables.count(table)
    vector = np.ones(256, dtype=np.float32)
    rows = reader.tables.nearest(table, vector, 5).num_rows

    maintain(project, keep_files=timedelta(milliseconds=1))

    assert len(project.tables._open(table).list_versions()) == 1
    assert reader.tables.nearest(table, vector, 5).num_rows == rows
    assert "football" in reader.tables.matching(table, "football", 1)["text"][0].as_py()


def test_files_stay_as_long_as_the_settings_say(project):
    _, _, table = lived(project)
    states = len(project.tables._open(table).list_versions())

    maintain(project)

    assert len(project.tables._open(table).list_versions()) >= states
    with pytest.raises(SettingsError, match="file_hours is 0"):
        RetentionOptions(file_hours=0)


def test_why_still_knows_when_a_document_left(project):
    early, _, _ = lived(project)
    maintain(project)

    told = project.reasons.why("where is the fax machine", "handbook/fax.md")

    assert told.reason is Reason.RETIRED
    assert told.at - early < timedelta(seconds=5)


def test_an_index_that_finds_too_little_is_made_anew(project, monkeypatch):
    lived(project)
    readings = iter([0.4, 0.999])

    def read(tables, version, **_):
        del tables
        recall = next(readings)
        return IndexReading(version.key, 2, 0.0, (type("One", (), {"recall": recall, "full": True, "share": 1.0})(),))

    monkeypatch.setattr("lodestore.indexes.read_index", read)

    done = maintain(project)

    assert done.rebuilt == (project.live().version("content").key,)
    assert done.to_json()["recall"] == {done.rebuilt[0]: 0.999}


def test_a_table_that_is_being_written_is_left_for_the_next_night(project):
    _, _, table = lived(project)

    with project.locks.hold(table, "embedding"):
        done = maintain(project)

    assert set(done.skipped) == {table, retired(table)}
    assert "documents" in done.compacted
    with project.locks.writer("reading"), pytest.raises(StoreBusyError, match="forgetting"):
        maintain(project)


def test_a_table_that_fails_stops_no_other_one_and_is_told(project, monkeypatch):
    _, late, table = lived(project)
    compact = project.tables.compact

    def broken(name, **options):
        if name in {"documents", "contexts"}:
            message = f"table {name} cannot be compacted: it is broken"
            raise StoreError(message)
        compact(name, **options)

    monkeypatch.setattr(project.tables, "compact", broken)

    with pytest.raises(StoreError, match=r"contexts cannot be compacted.*1 more tables; the rest was maintained"):
        maintain(project, keep_files=timedelta(milliseconds=1))
    assert len(project.tables._open(table).list_versions()) == 1
    assert texts(project, "rules", late)


def test_a_sign_of_life_is_left_and_old_ones_are_swept_but_for_the_last(project):
    lived(project)
    for name, ago in (("daemon", 30), ("daemon", 20), ("sensor", 40)):
        project.logs.put("heartbeats", {"name": name, "detail": "", "at": project.clock() - timedelta(days=ago)})
    maintain(project)

    rows = [row["name"] for row in project.logs.rows("heartbeats")]

    assert sorted(rows) == ["daemon", NAME, "sensor"]


def test_doctor_says_when_nobody_maintains_the_store_and_takes_upkeep_for_no_daemon(project):
    lived(project)
    assert "maintenance_overdue" in {one.code for one in examine(project)}

    maintain(project)

    codes = {one.code for one in examine(project)}
    assert "maintenance_overdue" not in codes
    assert "daemon_not_running" in codes


def test_an_empty_store_is_maintained_too(project):
    done = maintain(project)

    assert (done.forgotten, done.indexes, done.skipped) == ({}, (), ())
