"""Wrong input to the commands about prompts ends in one line that names what is wrong, and never in a traceback."""

from __future__ import annotations

import json

import pytest

from lodestore import cli
from lodestore.project import open_project
from tests.served import build

TYPED = """---
id: typed
version: 1.0.0
variables: {n: {type: integer}, note: {required: false, max_length: 5}, question: {}}
---
{n} {note} {question} {"a": {"b": 1}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = build(tmp_path_factory.mktemp("misuse")).settings.root
    (root / "typed.md").write_text(TYPED, encoding="utf-8")
    (root / "latin.md").write_bytes(b"bad \xff")
    (root / "plain.md").write_text("no front matter", encoding="utf-8")
    project = open_project(root)
    project.templates.add_folder(root / "templates")
    assert cli.run(["templates", "add", str(root / "typed.md"), "--config", str(root)]) == 0
    assert cli.run(["templates", "activate", "typed", "1.0.0", "--config", str(root)]) == 0
    project.store.context("refunds", request_id="r1")
    project.store.context("refunds", request_id="r2")
    return root


MISUSE = [
    ("templates lst", 2, "did you mean 'list'"),
    ("templates show", 2, "Missing argument 'ID'"),
    ("templates show nope", 2, "unknown prompt template 'nope'; known: qa_basic, typed"),
    ("templates show qa_basic --version 9", 2, "unknown prompt template 'qa_basic 9'; did you mean"),
    ("templates show qa_basic --version nofile.md", 2, "nofile.md: cannot be read: No such file"),
    ("templates show qa_basic --version {root}/latin.md", 2, "latin.md: byte 4 is not UTF-8"),
    ("templates show qa_basic --version {root}/typed.md", 2, "is the template 'typed', not 'qa_basic'"),
    ("templates add nofile.md", 2, "nofile.md: cannot be read"),
    ("templates add {root}/plain.md", 2, "no front matter; open the file with"),
    ("templates diff typed 1.0.0", 2, "Missing argument 'B'"),
    ("templates diff nope 1 2", 2, "unknown prompt template 'nope'"),
    ("templates diff typed 1.0.0 2.0.0", 2, "did you mean 'typed 1.0.0'"),
    ("templates render typed --var n=1", 2, "variable 'question' is missing"),
    ("templates render typed --var n=x --var question=q", 2, "variable 'n' takes an integer, not a string"),
    ("templates render typed --var n=1 --var question=q --var note=toolong", 2, "'note' has 7 characters, at most 5"),
    ("templates render typed --var n=1 --var question=q --var nt=x", 2, "unknown variable 'nt'; did you mean 'note'"),
    ("templates render typed --var n", 2, "--var 'n': write NAME=VALUE"),
    ("templates render typed --var n=1 --var n=2", 2, "--var n is given twice"),
    ("templates activate nope 1.0.0", 2, "unknown prompt template 'nope'"),
    ("templates activate typed 9.9.9", 2, "did you mean 'typed 1.0.0'"),
    ("templates activate typed 1.0.0=much", 2, "a weight is a number, such as 1.0.0=0.1"),
    ("templates activate typed 1.0.0=-1", 2, "each with a weight above 0"),
    ("templates activate typed 1.0.0=nan", 2, "each with a weight above 0"),
    ("templates activate typed 1.0.0=1 1.0.0=2", 2, "a version is given twice"),
    ("templates activate typed 1.0.0", 1, "just so live already"),
    ("templates rollback typed", 1, "has no earlier value"),
    ("templates rollback nope", 2, "unknown prompt template 'nope'; known: qa_basic, typed"),
    ("context", 2, "Missing argument 'QUERY'"),
    ("context ''", 2, "the query is empty"),
    ("context refund --user ''", 2, "user_id is ''; give a text"),
    ("context refund --template nope", 2, "unknown prompt template 'nope'"),
    ("context refund --template typed", 2, "variable 'n' is missing"),
    ("context refund --var question=mine", 2, "variable 'question' is filled in by Lodestore"),
    ("context refund --var tone=kind", 2, "unknown variable 'tone'; known: context, question"),
    ("context refund --k 0", 2, "k is 0; give at least 1"),
    ("context refund --budget -1", 2, "token_budget is -1; give at least 1"),
    ("context refund --filter 'nope = 1'", 2, "unknown column 'nope'"),
    ("context refund --mode fuzzy", 2, "'fuzzy' is not one of"),
    ("context refund --history before", 2, "has no variable history for a text"),
    ("context refund --history '[1]'", 2, "history, turn 1: write an object with role and content"),
    ("context refund --history '[{'", 2, "--history is no JSON"),
    ("replay", 2, "Missing argument 'CONTEXT_ID'"),
    ("replay nothing", 2, "unknown context 'nothing'; known: "),
    ('replay "it\'s"', 2, 'unknown context "it\'s"'),
    ("replay ''", 2, "several start so"),
    ("release diff 1 99 --replay 3", 2, "unknown release '99'"),
]


@pytest.mark.parametrize(("line", "code", "told"), MISUSE)
def test_a_wrong_word_is_told_in_a_line(folder, capsys, line, code, told):
    import shlex

    words = shlex.split(line.replace("{root}", str(folder)))

    assert cli.run([*words, "--config", str(folder)]) == code

    captured = capsys.readouterr()
    first, *rest = captured.err.strip().splitlines()
    assert told in first
    assert rest == [] or rest[0].lstrip().startswith("See: lodestore")
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_typed_variable_of_a_context_is_what_the_variable_takes(folder, capsys):
    words = ["context", "refund", "--template", "typed", "--var", "n=3", "--config", str(folder), "--json"]

    assert cli.run(words) == 0
    made = json.loads(capsys.readouterr().out)
    again = ["replay", made["context_id"], "--query", "refund", "--config", str(folder)]

    assert '3  refund {"a": {"b": 1}}' in made["prompt"]
    assert cli.run([*again, "--var", "n=3"]) == 0
    assert cli.run([*again, "--var", "n=4"]) == 1
    assert "DIFFERS" in capsys.readouterr().out
