"""Whatever makes no sense is told by its part, the same in process, on the command line and over HTTP; and so is `why`."""

from __future__ import annotations

import json
import threading
import time
from datetime import date

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from lodestore import cli
from lodestore.errors import LodestoreError, RequestError
from lodestore.keys import Keys
from lodestore.past import moment_of
from lodestore.project import open_project
from lodestore.retrieval import MAX_K
from lodestore.server.app import application
from lodestore.tables import chunk_table

SETTINGS = """
[[documents]]
name = "handbook"
uri = "docs/**/*.md"
max_retire = 1.0
[embedding.features]
content = "words@1"
[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"
"""
TEXTS = {
    "billing.md": "# Billing\n\nA refund takes five days after the approval of billing.\n",
    "travel.md": "# Travel\n\nFlights need the approval of a manager beforehand.\n",
    "long.md": "# Garden\n\nThe roses are watered in the evening.\n",
    "kitchen.md": "# Kitchen\n\nThe dishwasher runs at noon on every working day.\n",
}

# (what is asked, the part that has to be named)
BAD = [
    pytest.param({"filter": "colour = 'red'"}, "unknown column 'colour'", id="unknown column"),
    pytest.param({"filter": "categry = 'red'"}, "did you mean 'category'", id="misspelt column"),
    pytest.param({"filter": "word_count = 'many'"}, "'word_count' (integer): 'many'", id="wrong type"),
    pytest.param({"filter": "event_timestamp > 7"}, "'event_timestamp' (timestamp): 7", id="wrong type of a time"),
    pytest.param({"filter": "access = 'a'"}, "'access' (list) does not take =", id="list"),
    pytest.param({"filter": "(source = 'a'"}, "expected and, or, or ')'", id="unbalanced"),
    pytest.param({"filter": "source = 'a"}, "the quote ' is never closed", id="open quote"),
    pytest.param({"filter": "source = 'a'; drop table documents"}, "unexpected ';", id="hostile"),
    pytest.param({"filter": "source = 'a' or 1 = 1"}, "expected a column; found '1'", id="always true"),
    pytest.param({"filter": "(" * 500 + "source = 'a'" + ")" * 500}, "nested deeper than 32", id="deep"),
    pytest.param({"filter": "source = 'a' or " * 2_000}, "the limit is 10000", id="long"),
    pytest.param({"k": 0}, "k is 0", id="k of 0"),
    pytest.param({"k": 1_000_000}, f"from 1 to {MAX_K:,}", id="k of a million"),
    pytest.param({"query": ""}, "query is empty", id="empty query"),
    pytest.param({"query": " \n"}, "query is empty", id="blank query"),
    pytest.param({"query": "y" * 100_000}, "100,000 characters", id="long query"),
    pytest.param({"as_of": "2999-01-01T00:00:00Z"}, "as_of 2999-01-01T00:00:00Z lies in the future", id="future"),
    pytest.param({"as_of": "1999-01-01T00:00:00Z"}, "[retention] days", id="long ago"),
    pytest.param({"as_of": "yesterday"}, "as_of", id="no moment"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Documents that are found, one that has left, one that is broken, one that is not embedded yet."""
    place = tmp_path_factory.mktemp("bad")
    (place / "docs").mkdir()
    for name, text in {**TEXTS, "old.md": "# Old\n\nThe fax machine stands in the cellar.\n"}.items():
        (place / "docs" / name).write_text(text)
    (place / "docs" / "broken.md").write_bytes(b"\xff\xfe\x00broken")
    (place / "lodestore.toml").write_text(SETTINGS)
    project = open_project(place)
    ingest(project)
    (place / "docs" / "old.md").unlink()
    ingest(project)
    (place / "docs" / "late.md").write_text("# Late\n\nThe parking garage opens at six.\n")
    project.pipeline.read_documents()
    # Chunks are cut to what their model reads; a version that keeps the chunks of another one may read less.
    table = chunk_table(project.live().version("content").chunker)
    rows = project.tables.read(table, None, "document_id = 'handbook/long.md'")
    cut = pa.array([True] * rows.num_rows)
    rows = rows.set_column(rows.schema.get_field_index("truncated"), "truncated", cut)
    project.tables.upsert(table, rows, key="chunk_id")
    return place


def ingest(project):
    steps = project.pipeline
    for step in (steps.read_documents, steps.cut_chunks, steps.fill_maintained, steps.promote_first):
        step()


@pytest.fixture(scope="module")
def project(folder):
    return open_project(folder)


@pytest.fixture(scope="module")
def served(project):
    keys = Keys(project.logs)
    tokens = {scope: keys.add([scope]).token for scope in ("read", "admin")}
    with TestClient(application(project), base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)) as http:
        pause, end = threading.Event(), time.monotonic() + 10
        while http.get("/readyz").json()["parts"]["search"]["state"] != "ready":
            assert time.monotonic() < end
            pause.wait(0.02)

        def post(path, body, scope="read"):
            return http.post(path, json=body, headers={"authorization": f"Bearer {tokens[scope]}"})

        yield post


def command(folder, capsys, *words):
    code = cli.run(["--config", str(folder), *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("asked", "part"), BAD)
def test_in_process_the_part_is_named(project, asked, part):
    def ask(query="refund", as_of=None, **options):
        return project.store.search(query, as_of=as_of and moment_of(as_of), **options)

    with pytest.raises(LodestoreError) as told:
        ask(**asked)

    assert part in str(told.value)


@pytest.mark.parametrize(("asked", "part"), BAD)
def test_on_the_command_line_the_part_is_named_without_a_traceback(folder, capsys, asked, part):
    given = {"query": "refund", **asked}
    options = [word for name in ("k", "filter", "as_of") if name in given
               for word in (f"--{name.replace('_', '-')}", str(given[name]))]  # fmt: skip

    code, told = command(folder, capsys, "search", given["query"], *options)

    assert code in {1, 2}
    assert part in told["error"]["message"]
    assert told["error"]["code"] != "bug"


@pytest.mark.parametrize(("asked", "part"), BAD)
def test_over_http_the_part_is_named(served, asked, part):
    answer = served("/v1/search", {"query": "refund", **asked})

    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert part in answer.json()["detail"]


VECTORS = [
    pytest.param([1.0] * 384, "words@1", "384", id="wrong length"),
    pytest.param([1.0] * 256, "minilm@1", "minilm@1", id="another model"),
    pytest.param([1.0] * 256, "f" * 64, "f" * 12, id="another fingerprint"),
    pytest.param([1.0] * 256, None, "names no model", id="no name"),
    pytest.param([0.0] * 256, "words@1", "only zeros", id="no direction"),
    pytest.param([], "words@1", "0", id="empty"),
]


@pytest.mark.parametrize(("vector", "version", "part"), VECTORS)
def test_a_vector_that_does_not_fit_is_told_by_its_part(project, served, vector, version, part):
    with pytest.raises(LodestoreError) as told:
        project.store.search(vector=vector, version=version)
    answer = served("/v1/search", {"vector": vector, "version": version})

    assert part in str(told.value)
    assert 400 <= answer.status_code < 500
    assert part in answer.json()["detail"]


# What only a program or a shell can send.
ODD = [
    pytest.param({"as_of": "2026-01-01"}, "as_of is '2026-01-01'; give a datetime", id="a moment as text"),
    pytest.param({"as_of": date(2026, 1, 1)}, "give a datetime with a time zone", id="a day"),
    pytest.param({"mandatory": ""}, "mandatory filter is empty", id="an empty list"),
    pytest.param({"mandatory": {}}, "mandatory filter is empty", id="an empty object"),
    pytest.param({"titles": "yes"}, "titles is 'yes'", id="titles as text"),
    pytest.param({"rerank": 1}, "rerank is 1", id="rerank as a number"),
    pytest.param({"query": "\ud800"}, "half of a surrogate pair", id="half a character"),
    pytest.param({"query": b"refund"}, "the query is bytes", id="bytes"),
]


@pytest.mark.parametrize(("asked", "part"), ODD)
def test_what_no_type_of_a_search_allows_is_told_by_its_part(project, asked, part):
    with pytest.raises(LodestoreError) as told:
        project.store.search(**{"query": "refund", **asked})

    assert part in str(told.value)


@pytest.mark.parametrize("queries", ["refund", b"refund", None, 5])
def test_one_text_is_no_list_of_queries(project, queries):
    with pytest.raises(RequestError, match="give a list of queries"):
        project.store.search_many(queries)


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ({"query": ""}, "entry 2: the query is empty"),
        ({"query": "x", "k": 0}, "entry 2: k is 0"),
        ({"query": "x", "filter": "colour = 1"}, "entry 2: filter at character 1: unknown column 'colour'"),
        ({"vector": [1.0], "mode": "text"}, "entry 2: a vector is searched by meaning"),
        (7, "entry 2: an object with"),
    ],
)
def test_a_bad_query_of_a_batch_is_told_with_its_place(served, query, part):
    answer = served("/v1/search/batch", {"queries": [{"query": "refund"}, query]})

    assert answer.status_code == 422
    assert part in answer.json()["detail"]


def test_a_bad_query_of_a_batch_in_process_is_told_with_its_place_too(project):
    with pytest.raises(RequestError, match="query 2: the query is empty"):
        project.store.search_many(["refund", " "])


@pytest.mark.parametrize("demanded", ["", {}])
def test_an_empty_mandatory_filter_lets_nothing_through_wherever_it_is_given(project, served, demanded):
    asks = [
        lambda: project.store.search_many(["refund"], mandatory=demanded),
        lambda: project.store.why("refund", "handbook/billing.md", mandatory=demanded),
        lambda: project.store.context("refund", mandatory=demanded, record=False),
    ]
    for ask in asks:
        with pytest.raises(LodestoreError, match="mandatory filter is empty"):
            ask()
    for path, body, scope in (
        ("/v1/search", {"query": "refund"}, "read"),
        ("/v1/search/batch", {"queries": [{"query": "refund", "mandatory": demanded}]}, "read"),
        ("/v1/why", {"query": "refund", "document_id": "a"}, "admin"),
        ("/v1/context", {"query": "refund"}, "read"),
    ):
        answer = served(path, body if "queries" in body else {**body, "mandatory": demanded}, scope)
        assert answer.status_code == 422
        assert "mandatory filter is empty" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("vector", "version", "part"),
    [
        ([1.0] * 256, ["words@1"], "the version of the vector is list"),
        ([1j] * 256, "words@1", "no list of numbers"),
        ([None] * 256, "words@1", "no list of numbers"),
        ([1e39] * 256, "words@1", "infinite"),
    ],
)
def test_a_vector_that_only_a_program_can_send_is_told_without_a_warning(project, vector, version, part):
    with pytest.raises(LodestoreError, match=part):
        project.store.search(vector=vector, version=version)


def test_a_vector_is_not_searched_by_words(project):
    with pytest.raises(RequestError, match="a vector is searched by meaning"):
        project.store.search(vector=[1.0] * 256, version="words@1", mode="text")


COMMANDS = [
    pytest.param(["search", "x", "--as-of", ""], "as_of '' is not a timestamp", id="as of nothing"),
    pytest.param(["search", "\udcff"], "half of a surrogate pair", id="bytes that are no text"),
    pytest.param(["why", "x", "--document", "\udcff"], r"the document is '\udcff'", id="a document of such bytes"),
    pytest.param(["golden", "draft", "--seed", "-1"], "seed is -1", id="a seed below 0"),
    pytest.param(["golden", "draft", "--out", "docs/billing.md"], "cannot be written", id="a file for a folder"),
]


@pytest.mark.parametrize(("words", "part"), COMMANDS)
def test_other_commands_name_the_part_too(folder, capsys, words, part):
    code, told = command(folder, capsys, *words)

    assert code in {1, 2}
    assert part in told["error"]["message"]
    assert told["error"]["code"] != "bug"


# -- why: each cause, wherever it is asked

CAUSES = [
    pytest.param("refund days", "handbook/billing.md", {}, "found", id="found"),
    pytest.param("dishwasher", "handbook/travel.md", {"k": 1}, "ranked", id="ranked"),
    pytest.param("refund", "handbook/billing.md", {"filter": "word_count > 9000"}, "filtered", id="filtered"),
    pytest.param("dishwasher", "handbook/long.md", {"k": 1}, "cut", id="cut"),
    pytest.param("x", "handbook/nobody.md", {}, "never_read", id="never read"),
    pytest.param("x", "handbook/broken.md", {}, "rejected", id="rejected"),
    pytest.param("x", "handbook/old.md", {}, "retired", id="retired"),
    pytest.param("x", "handbook/late.md", {}, "not_embedded", id="not embedded"),
]


@pytest.mark.parametrize(("query", "document", "options", "reason"), CAUSES)
def test_each_cause_is_told_by_the_command_and_over_http_alike(
    folder, served, capsys, query, document, options, reason
):
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]

    code, told = command(folder, capsys, "why", query, "--document", document, *words)
    answer = served("/v1/why", {"query": query, "document_id": document, **options}, "admin").json()

    assert (code, told["reason"]) == (0, reason)
    same = ("reason", "sentence", "mend", "rank", "document_id", "at")
    assert {name: told[name] for name in same} == {name: answer[name] for name in same}
    assert told["mend"] or reason == "found"


def test_why_over_http_needs_the_admin_scope(served):
    answer = served("/v1/why", {"query": "x", "document_id": "a"}, "read")

    assert answer.status_code == 403
    assert "admin" in answer.json()["detail"]
