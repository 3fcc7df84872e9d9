"""A draft is tried before it is stored, and what changes is told: text, variables, family."""

from __future__ import annotations

import json

import pytest

from lodestore import cli
from lodestore.project import open_project

DRAFT = (
    "---\nid: qa_basic\nversion: 2.0.0\nfamily: gpt\nvariables: [context, question]\n---\nDRAFT {context} {question}\n"
)
OLD = "---\nid: hello\nversion: 1.0.0\nvariables: [name, mood]\n---\nHi {name}, {mood}?\n"
NEW = "---\nid: hello\nversion: 1.1.0\nfamily: claude\nvariables: [name, place]\n---\nHi {name} in {place}!\n"


@pytest.fixture
def folder(make_project):
    return make_project()


def told(capsys, folder, *words, expect=0):
    assert cli.run([*words, "--config", str(folder), "--json"]) == expect
    captured = capsys.readouterr()
    return json.loads(captured.out) if expect == 0 else captured.err


def test_a_draft_file_is_rendered_without_being_stored(folder, tmp_path, capsys):
    draft = tmp_path / "draft.md"
    draft.write_text(DRAFT, encoding="utf-8")
    words = (
        "templates",
        "render",
        "qa_basic",
        "--version",
        str(draft),
        "--var",
        "context={question}",
        "--var",
        "question=q",
    )

    found = told(capsys, folder, *words)

    assert (found["version"], found["text"]) == ("2.0.0", "DRAFT {question} q")
    assert open_project(folder).templates.all() == []


def test_a_draft_of_another_template_is_refused(folder, tmp_path, capsys):
    (tmp_path / "hello.md").write_text(OLD, encoding="utf-8")

    said = told(capsys, folder, "templates", "show", "qa_basic", "--version", str(tmp_path / "hello.md"), expect=2)

    assert "is the template 'hello', not 'qa_basic'" in said


def test_a_difference_tells_text_variables_and_family(folder, tmp_path, capsys):
    for name, text in (("old", OLD), ("new", NEW)):
        (tmp_path / f"{name}.md").write_text(text, encoding="utf-8")

    found = told(capsys, folder, "templates", "diff", "hello", str(tmp_path / "old.md"), str(tmp_path / "new.md"))

    assert found["variables"] == {"added": ["place"], "removed": ["mood"], "changed": []}
    assert found["family"] == {"from": "general", "to": "claude"}
    assert "-Hi {name}, {mood}?" in found["text"]


def test_the_store_lists_and_renders_templates_as_the_client_does(folder):
    project = open_project(folder)
    project.pipeline.add_templates()
    project.pipeline.promote_first()

    made = project.store.render("qa_basic", {"context": "c", "question": "{context}"})
    named = project.store.render("qa_basic", {"context": "c", "question": "q"}, version="1.0.0")

    assert "Question: {context}" in made.text
    assert named.messages[0].role == "user"
    assert "code_generation 1.0.0" in [str(one) for one in project.store.templates()]


def test_versions_are_listed_stored_made_live_split_and_taken_back(folder, tmp_path, capsys):
    open_project(folder).pipeline.add_templates()
    open_project(folder).pipeline.promote_first()
    draft = tmp_path / "draft.md"
    draft.write_text(DRAFT, encoding="utf-8")

    def live():
        rows = told(capsys, folder, "templates", "list")["templates"]
        return {one["version"]: one["live"] for one in rows if one["template"] == "qa_basic"}

    added = told(capsys, folder, "templates", "add", str(draft))
    again = told(capsys, folder, "templates", "add", str(draft))
    states = [live()]
    for words in (("activate", "qa_basic", "1.0.0=0.9", "2.0.0=0.1"), ("activate", "qa_basic", "2.0.0")):
        told(capsys, folder, "templates", *words)
        states.append(live())
    told(capsys, folder, "templates", "rollback", "qa_basic")

    assert (added, again["new"], again["known"]) == ({"new": ["qa_basic 2.0.0"], "known": []}, [], ["qa_basic 2.0.0"])
    assert states == [{"1.0.0": 1.0, "2.0.0": 0.0}, {"1.0.0": 0.9, "2.0.0": 0.1}, {"1.0.0": 0.0, "2.0.0": 1.0}]
    assert live() == {"1.0.0": 0.9, "2.0.0": 0.1}


def test_a_stored_version_that_changed_is_refused_and_the_next_one_named(folder, tmp_path, capsys):
    draft = tmp_path / "draft.md"
    draft.write_text(DRAFT, encoding="utf-8")
    told(capsys, folder, "templates", "add", str(draft))
    draft.write_text(DRAFT.replace("DRAFT", "OTHER"), encoding="utf-8")

    said = told(capsys, folder, "templates", "add", str(draft), expect=2)
    shown = told(capsys, folder, "templates", "show", "qa_basic", "--version", "2.0.0")

    assert "qa_basic 2.0.0 is stored with another text; give the changed text version 2.0.1" in said
    assert shown["text"].startswith("DRAFT")
    assert shown["family"] == "gpt"
