"""Access lists: they come with the documents, stand in the searched table, and no request gets around them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from lodestore.conditions import COLUMNS, condition
from lodestore.documents import DocumentSource, Rejected, read
from lodestore.errors import FilterError
from lodestore.filters import parse
from lodestore.keys import Keys
from lodestore.project import open_project
from lodestore.server.app import application
from lodestore.why import Reason

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SETTINGS = """
[[documents]]
name = "files"
uri = "docs/**/*.md"
access = ["everyone"]
[[documents]]
name = "rows"
uri = "rows.jsonl"
columns = { access = "groups" }
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
TEMPLATE = (
    "---\nid: qa_basic\nversion: 1.0.0\nvariables:\n  context: {}\n  question: {}\n---\n{context}\n\n{question}\n"
)
FILES = {
    "open.md": "# Holidays\n\nThe salary office is closed on holidays.\n",
    "board.md": "---\naccess: [board]\n---\n# Salaries\n\nThe salary of the board is paid in March.\n",
    "both.md": "---\naccess: board, sales\n---\n# Bonus\n\nThe salary bonus of sales is decided by the board.\n",
}
ROWS = [
    {"id": "sales", "title": "Sales", "text": "The salary of sales people is public to sales.", "groups": ["sales"]},
    {"id": "nobody", "title": "Sealed", "text": "The salary that nobody may see.", "groups": []},
    {"id": "silent", "title": "Silent", "text": "A salary of a row that names no list."},
]
LISTS = {
    "files/open.md": ["everyone"],
    "files/board.md": ["board"],
    "files/both.md": ["board", "sales"],
    "rows/sales": ["sales"],
    "rows/nobody": [],
    "rows/silent": None,
}
SECRET = "board"


def ingest(project):
    steps = project.pipeline
    for step in (steps.read_documents, steps.add_templates, steps.cut_chunks):
        step()
    filled = steps.fill_maintained()
    steps.promote_first()
    return filled


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    place = tmp_path_factory.mktemp("access")
    for name in ("docs", "templates"):
        (place / name).mkdir()
    for name, text in FILES.items():
        (place / "docs" / name).write_text(text)
    (place / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (place / "users.jsonl").write_text("")
    (place / "templates" / "qa_basic.md").write_text(TEMPLATE)
    (place / "lodestore.toml").write_text(SETTINGS)
    made = open_project(place)
    ingest(made)
    return made


def found(project, **options):
    return {hit.document_id for hit in project.store.search("salary", k=50, **options).hits}


def test_lists_come_with_files_and_rows_and_from_their_source(project):
    table = project.live().version("content").table
    rows = project.tables.read(table, ["document_id", "access"]).to_pylist()

    assert {row["document_id"]: row["access"] for row in rows} == LISTS


GROUPS = st.sampled_from(["board", "sales", "everyone", "nobody's"])
QUOTED = GROUPS.map(lambda one: "'" + one.replace("'", "''") + "'")
ASKED = st.one_of(
    st.none(),
    QUOTED.map(lambda one: f"access contains {one}"),
    QUOTED.map(lambda one: f"access in ({one}) or access is null or access is not null"),
    QUOTED.map(lambda one: f"not access contains {one} or word_count >= 0"),
    st.just({"or": [{"access": {"is_null": True}}, {"access": {"is_null": False}}]}),
)


@given(groups=st.sets(GROUPS, min_size=1), asked=ASKED, mode=st.sampled_from(["vector", "text", "hybrid"]))
@settings(max_examples=40, deadline=None)
def test_whatever_is_asked_only_rows_that_python_lets_through_come_back(project, groups, asked, mode):
    mandatory = {"access": {"in": sorted(groups)}}
    mine = {name for name, names in LISTS.items() if not groups.isdisjoint(names or ())}
    asks = None if asked is None else parse(asked, COLUMNS)
    wanted = {name for name in mine if asks is None or asks.matches({"access": LISTS[name], "word_count": 1})}

    assert found(project, filter=asked, mandatory=mandatory, mode=mode) == wanted


def test_a_batch_a_past_search_a_context_and_why_are_bound_too(project):
    own, wide = "access in ('sales')", "access is null or access is not null"
    mine = {"files/both.md", "rows/sales"}

    (batch,) = project.store.search_many(["salary"], filter=wide, mandatory=own)
    made = project.store.context("salary", filter=wide, mandatory=own, record=False)
    told = project.store.why("salary", "files/board.md", filter=wide, mandatory=own)

    assert {hit.document_id for hit in batch.hits} == mine
    assert found(project, filter=wide, mandatory=own, as_of=project.clock()) == mine
    assert {hit.document_id for hit in made.hits} == mine
    assert "March" not in made.prompt
    assert told.reason is Reason.NEVER_READ


def test_the_extras_of_a_search_show_nothing_that_is_not_on_the_list(project):
    own = "access in ('sales')"
    extras = {"per_document": 3, "neighbours": 5, "diversity": 0.5, "highlight": True, "explain": True}

    told = project.store.search("salary", k=50, mandatory=own, **extras).to_json()

    assert {hit["document_id"] for hit in told["hits"]} == {"files/both.md", "rows/sales"}
    assert "March" not in json.dumps(told)


@pytest.mark.parametrize("groups", [None, []])
def test_a_user_who_is_on_no_list_sees_nothing(project, groups):
    by_user = {"access": "user_profile:teams"}

    where = condition(None, filters=by_user, features={"user_profile:teams": groups})
    sales = condition(None, filters=by_user, features={"user_profile:teams": ["sales"]})

    table = project.live().version("content").table
    assert project.tables.count(table, where) == 0
    assert project.tables.count(table, sales) == 2


def test_a_key_with_a_list_sees_its_own_over_http_whatever_it_asks(project):
    keys = Keys(project.logs)
    tokens = {"sales": keys.add(["read"], filter="access in ('sales', 'everyone')").token}
    tokens["all"] = keys.add(["read", "admin"]).token
    tokens["sales admin"] = keys.add(["admin"], filter="access in ('sales', 'everyone')").token
    with TestClient(application(project), base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)) as http:

        def post(path, who, body):
            return http.post(path, json=body, headers={"authorization": f"Bearer {tokens[who]}"})

        def ready():
            return http.get("/readyz").json()["parts"]["search"]["state"] == "ready"

        wait(ready)
        for where in (None, "access contains 'board'", {"access": {"is_null": True}}, "access is not null"):
            body = {"query": "salary", "k": 50, "filter": where, "mode": "text"}
            mine = {hit["document_id"] for hit in post("/v1/search", "sales", body).json()["hits"]}
            batch = post("/v1/search/batch", "sales", {"queries": [body]}).json()["results"][0]["hits"]
            assert mine <= {"files/open.md", "files/both.md", "rows/sales"}, where
            assert {hit["document_id"] for hit in batch} == mine
            prompt = post("/v1/context", "sales", {"query": "salary", "filter": where}).json()["prompt"]
            assert "March" not in prompt
            own = {"query": "salary", "filter": where, "mandatory": "access in ('sales')"}
            assert "holidays" not in post("/v1/context", "all", own).json()["prompt"]
        everything = post("/v1/search", "all", {"query": "salary", "k": 50, "mode": "text"}).json()["hits"]
        assert {hit["document_id"] for hit in everything} == set(LISTS)
        for path, status in (("files/board.md", 404), ("files/both.md", 200), ("rows/silent", 404)):
            headers = {"authorization": f"Bearer {tokens['sales']}"}
            assert http.get(f"/v1/documents/{path}", headers=headers).status_code == status
        told = post("/v1/why", "sales admin", {"query": "salary", "document_id": "files/board.md"}).json()
        assert told["reason"] == "never_read"


def wait(condition):
    import threading
    import time

    pause, end = threading.Event(), time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        pause.wait(0.02)


def test_a_list_that_changes_reaches_the_vectors_and_nothing_is_embedded(project):
    file = project.settings.root / "docs" / "board.md"
    before, then = file.read_text(), project.clock()
    file.write_text(before.replace("[board]", "[sales]"))
    try:
        (filled,) = ingest(project)

        assert (filled.embedded, filled.reused) == (0, 1)
        assert "files/board.md" in found(project, mandatory="access contains 'sales'")
        assert "files/board.md" not in found(project, mandatory="access contains 'board'")
        # Of the past the lists are those of then, as all else is.
        assert "files/board.md" in found(project, mandatory="access contains 'board'", as_of=then)
        assert "files/board.md" not in found(project, mandatory="access contains 'sales'", as_of=then)
    finally:
        file.write_text(before)
        ingest(project)


@pytest.mark.parametrize("written", ["{a: b}", "['']", "[[a], [b]]"])
def test_a_list_that_is_none_is_refused_and_not_taken_for_an_open_document(tmp_path, written):
    (tmp_path / "a.md").write_text(f"---\naccess: {written}\n---\nsecret text\n")

    got = read(DocumentSource("s", "a.md", access=("everyone",)), root=tmp_path, now=NOW)

    assert not got.documents
    (one,) = got.rejects
    assert isinstance(one, Rejected)
    assert "its access is" in one.detail


def test_csv_has_a_list_as_text_or_as_json(tmp_path):
    (tmp_path / "a.csv").write_text('id,text,access\n1,x,"b, a"\n2,y,"[""a"", ""c, d""]"\n3,z,\n')

    got = read(DocumentSource("s", "a.csv"), root=tmp_path, now=NOW)

    assert [one.access for one in got.documents] == [("a", "b"), ("a", "c, d"), None]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("access = 'a'", "does not take =; it takes contains, contains_any, in"),
        ("access contains 7", "'access' .list.: 7 is not text"),
        ("access in ()", "needs at least one value"),
        ("acess contains 'a'", "did you mean 'access'"),
    ],
)
def test_a_list_that_is_asked_for_wrongly_is_told(text, says):
    with pytest.raises(FilterError, match=says):
        parse(text, COLUMNS)
