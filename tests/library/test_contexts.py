"""A recorded context is logged without what is personal, and can be made again."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from lodestore import cli
from lodestore.context import ContextOptions
from lodestore.errors import RequestError, RetentionError, UnknownContextError
from lodestore.payloads import decode_payload
from lodestore.project import Project, open_project
from lodestore.replay import replay
from lodestore.tables import view_table

QUESTION = "when is a refund paid?"
LEVELS = {"ada": "expert", "ben": "beginner"}
DOCUMENTS = {
    "billing.md": "# Billing\n\nInvoices are sent on the first of the month. A refund takes five days.\n",
    "travel.md": "# Travel\n\nTrains are booked at the desk. Flights need the approval of a manager.\n",
    "kitchen.md": "# Kitchen\n\nThe dishwasher runs at noon. Coffee beans are bought on Fridays.\n",
}
SETTINGS = """
[[documents]]
name = "handbook"
uri = "docs/**/*.md"

[[events]]
name = "users"
view = "user_profile"
uri = "users.jsonl"

[features]
modules = ["lodestore.standard"]

[embedding.features]
content = "words@1"

[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A project with a first release, built once."""
    folder = tmp_path_factory.mktemp("contexts") / "project"
    folder.mkdir()
    write_project(folder)
    built(folder)
    return folder


@pytest.fixture
def project(original, tmp_path):
    """A copy of it that a test may change."""
    return open_project(shutil.copytree(original, tmp_path / "project", symlinks=True))


def write_project(folder):
    (folder / "docs").mkdir()
    for name, text in DOCUMENTS.items():
        (folder / "docs" / name).write_text(text, encoding="utf-8")
    at = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    rows = [{"user_id": name, "event_timestamp": at, "expertise_level": level} for name, level in LEVELS.items()]
    (folder / "users.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "lodestore.toml").write_text(SETTINGS, encoding="utf-8")
    shutil.copytree(Path(__file__).parents[2] / "templates", folder / "templates")


def built(folder):
    project = open_project(folder)
    steps = project.pipeline
    for step in (
        steps.read_documents,
        steps.add_templates,
        steps.cut_chunks,
        steps.fill_maintained,
        steps.promote_first,
    ):
        step()
    for view in steps.views():
        steps.record(view)
        steps.publish(view)
    return project


def row_of(project, made):
    return project.contexts.get(made.context_id)


def test_a_recorded_context_is_in_the_log_with_its_parts_and_without_the_question(project):
    made = project.store.context(QUESTION, user_id="ada", request_id="r1")

    row = row_of(project, made)
    project.contexts.flush()
    text = str(project.tables.read("contexts").to_pylist())
    assert (row.release, row.template_id, row.template_version) == (1, "qa_basic", "1.0.0")
    assert row.chunks == tuple(hit.chunk_id for hit in made.hits)
    assert row.features["user_profile:expertise_level"] == "expert"
    assert (row.weights, row.user_id, row.request_id) == ({"1.0.0": 1.0}, "ada", "r1")
    assert "refund" not in text
    assert row_of(project, made) == row


def test_a_context_that_is_not_recorded_leaves_nothing_behind(project):
    before = project.store.online(["user_activity:session_queries_count"], {"user_id": ["ada"]})

    made = project.store.context(QUESTION, user_id="ada", record=False)

    after = project.store.online(["user_activity:session_queries_count"], {"user_id": ["ada"]})
    assert before.columns == after.columns
    with pytest.raises(UnknownContextError, match="none is known yet"):
        row_of(project, made)


def test_a_question_is_the_users_last_one_only_when_it_is_recorded(project):
    read = ["user_activity:last_query_embedding", "user_activity:session_queries_count"]

    def activity():
        return [one[0] for one in project.store.online(read, {"user_id": ["ada"]}).columns.values()][1:]

    project.store.context(QUESTION, user_id="ada", record=False)
    project.contexts.flush()
    assert (activity(), project.features.drain(), project.tables.count("contexts")) == ([None, None], 0, 0)

    for n, question in enumerate([QUESTION, "who buys coffee?"], start=1):
        project.store.context(question, user_id="ada")
        vector, count = activity()
        assert np.allclose(vector, project.live().embed([question])[0], atol=1e-6)
        assert count == n


def test_what_was_said_is_in_no_table_unless_a_setting_asks_for_it(project):
    said = {"history": ["my salary is low", "noted"], "template": "qa_chat"}

    def kept(store):
        store.store.context(QUESTION, user_id="ada", **said)
        store.contexts.flush()
        store.features.drain()
        names = [name for name in store.tables.names() if not name.startswith(("chunks__", "emb__", "documents"))]
        rows = str([store.tables.read(name).to_pylist() for name in names])
        return "salary" in rows, QUESTION in rows

    assert kept(project) == (False, False)
    with (project.settings.root / "lodestore.toml").open("a", encoding="utf-8") as out:
        out.write("\n[context]\nlog_queries = true\n")
    assert kept(open_project(project.settings.root)) == (True, True)


def test_a_repeated_request_is_counted_and_logged_once(project):
    made = [project.store.context(QUESTION, user_id="ada", request_id="r1") for _ in range(3)]
    project.store.context(QUESTION, user_id="ada", request_id="r2")
    project.contexts.flush()

    counted = project.store.online(["user_activity:session_queries_count"], {"user_id": ["ada"]})
    assert len({one.context_id for one in made}) == 1
    assert project.tables.count("contexts") == 2
    assert counted.columns["user_activity:session_queries_count"] == [2]


def test_many_requests_at_once_are_each_counted_once_however_often_they_are_sent(project):
    project.store.context(QUESTION, user_id="ada", request_id="warm")
    sent = [f"r{n % 12}" for n in range(36)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: project.store.context(QUESTION, user_id="ada", request_id=one), sent))
    project.contexts.flush()
    moved = project.features.drain()

    read = ["user_activity:session_queries_count", "user_activity:interaction_history_embedding"]
    online = project.store.online(read, {"user_id": ["ada"]}).columns
    view = project.catalog.latest["user_activity"]
    place = f"user_activity@1/interaction_history_embedding/{project.live().version().key}"
    (mean,) = project.online.read(place, [("ada",)])
    assert online["user_activity:session_queries_count"] == [13]
    assert project.tables.count("contexts") == 13
    assert project.tables.count(view_table(view)) == 13
    assert decode_payload(mean.payload)["weight"] == pytest.approx(13, abs=0.01)
    assert moved == 26


def test_a_replay_of_what_did_not_change_is_the_same_in_every_part(project):
    made = project.store.context(QUESTION, user_id="ben")

    again = replay(project, made.context_id[:12], query=QUESTION)

    assert again.same
    assert again.context.prompt == made.prompt
    assert [one.name for one in again.parts] == [
        "query", "variables", "history", "features", "template", "instruction", "chunks", "context", "prompt",
    ]  # fmt: skip


def test_a_replay_is_as_of_then_though_the_user_and_the_documents_have_changed(project):
    made = project.store.context(QUESTION, user_id="ben")
    file = project.settings.root / "docs" / "billing.md"
    file.write_text("# Billing\n\nNothing is ever paid back.\n", encoding="utf-8")
    later = built(project.settings.root)
    later.store.push(
        "user_profile", [{"user_id": "ben", "event_timestamp": later.clock(), "expertise_level": "expert"}]
    )

    today = later.store.context(QUESTION, user_id="ben", record=False)
    again = replay(later, made.context_id, query=QUESTION)

    assert today.prompt != made.prompt
    assert again.same
    assert again.context.prompt == made.prompt


def test_a_replay_is_as_of_the_settings_of_then(project):
    made = project.store.context(QUESTION, user_id="ada")
    project.contexts.flush()
    changed = Project(replace(project.settings, context=ContextOptions(k=1, token_budget=40, template="qa_chat")))

    again = replay(changed, made.context_id, query=QUESTION)

    assert again.same
    assert len(again.context.hits) == len(made.hits) > 1


def test_a_replay_with_another_question_says_which_parts_differ(project):
    made = project.store.context(QUESTION, user_id="ben")

    again = replay(project, made.context_id, query="where is the coffee?")

    differing = [one.name for one in again.parts if not one.same]
    assert {"query", "chunks", "prompt"} <= set(differing)
    assert not {"template", "instruction", "features"} & set(differing)


class Told:
    """A log of one context, whatever it says."""

    def __init__(self, row):
        self.row = row

    def get(self, _):
        return self.row


SEALED = ("query", "variables", "history", "features", "instruction", "context")


@pytest.mark.parametrize("part", [*SEALED, "template", "chunks", "prompt"])
def test_a_replay_names_just_the_part_that_differs(project, part):
    row = row_of(project, project.store.context(QUESTION, user_id="ben"))
    changed = {
        "template": {"template_hash": "another"},
        "chunks": {"chunks": row.chunks[::-1]},
        "prompt": {"prompt_seal": "another"},
    }.get(part, {"seals": {**row.seals, part: "another"}})
    project.__dict__["contexts"] = Told(replace(row, **changed))

    found = replay(project, row.context_id, query=QUESTION)

    assert not found.same
    assert [one.name for one in found.parts if not one.same] == [part]
    assert [one["part"] for one in found.to_json()["parts"] if not one["same"]] == [part]


def test_a_replay_needs_no_question_where_the_log_keeps_it(project):
    with (project.settings.root / "lodestore.toml").open("a", encoding="utf-8") as out:
        out.write("\n[context]\nlog_queries = true\n")
    project = open_project(project.settings.root)
    made = project.store.context(QUESTION, user_id="ben", template="qa_chat", history=["Hello", "Hi"])

    assert replay(project, made.context_id).same
    assert row_of(project, made).query == QUESTION


def test_a_replay_without_the_question_says_how_to_give_it(project):
    made = project.store.context(QUESTION)

    with pytest.raises(RequestError, match=r"log_queries is off.*--query"):
        replay(project, made.context_id)


def test_a_replay_whose_table_was_dropped_says_what_is_kept(project):
    made = project.store.context(QUESTION)
    project.tables.drop(project.live().version("content").table)

    with pytest.raises(RetentionError, match="whose table is gone"):
        replay(project, made.context_id, query=QUESTION)


def test_the_rows_of_a_process_that_died_are_moved_by_the_next_one(project):
    made = project.store.context(QUESTION)
    project.contexts._spool.close()

    other = open_project(project.settings.root)
    assert other.contexts.get(made.context_id).context_id == made.context_id
    assert other.contexts.flush() == 1
    assert not list((other.settings.local / "_contexts").iterdir())
    assert other.contexts.get(made.context_id).chunks == tuple(hit.chunk_id for hit in made.hits)


def test_a_line_that_a_crash_cut_short_is_left_out(project):
    made = project.store.context(QUESTION)
    (file,) = (project.settings.local / "_contexts").glob("*.jsonl")
    with file.open("a", encoding="utf-8") as out:
        out.write('{"id": "half')

    assert project.contexts.flush() == 1
    assert [one.context_id for one in project.contexts.newest(5)] == [made.context_id]


def test_a_file_whose_writer_lives_is_read_but_not_moved(project):
    made = project.store.context(QUESTION)
    other = open_project(project.settings.root)

    assert other.contexts.flush() == 0
    assert other.contexts.get(made.context_id).context_id == made.context_id


def test_the_command_tells_each_part_and_exits_by_it(project, capsys):
    made = project.store.context(QUESTION, user_id="ben")
    folder = str(project.settings.root)

    same = cli.run(["replay", made.context_id, "--query", QUESTION, "--config", folder, "--json"])
    told = capsys.readouterr().out
    other = cli.run(["replay", made.context_id, "--query", "coffee", "--config", folder])
    page = capsys.readouterr().out

    assert (same, other) == (0, 1)
    assert '"same": true' in told
    assert "DIFFERS" in page
    assert cli.run(["replay", "nothing", "--config", folder]) == 2


def test_a_history_among_the_variables_is_the_same_as_one_of_its_own(project):
    turns = ["Hello", "Hi"]
    made = project.store.context(QUESTION, template="qa_chat", variables={"history": turns})

    assert replay(project, made.context_id, query=QUESTION, history=turns).same
    assert not replay(project, made.context_id, query=QUESTION, history=["Bye"]).same
