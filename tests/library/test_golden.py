from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestore.errors import GoldenError
from lodestore.golden import GoldenQuery, GoldenSet, read, resolve

QUERIES = '{"id": "q1", "text": "how do I get a refund?"}\n{"_id": "q2", "text": "opening hours"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\trefunds.md\t2\nq1\thours.md\t0\nq2\thours.md\t1\n"


@pytest.fixture
def golden(tmp_path):
    def make(queries=QUERIES, qrels=QRELS, encoding="utf-8"):
        (tmp_path / "queries.jsonl").write_bytes(queries.encode(encoding))
        (tmp_path / "qrels.tsv").write_bytes(qrels.encode(encoding))
        return read("main", tmp_path / "queries.jsonl", tmp_path / "qrels.tsv")

    return make


def plain(judgements):
    return {query: dict(judged) for query, judged in judgements.items()}


def judged(**judgements):
    queries = tuple(GoldenQuery(query, "text") for query in judgements)
    return GoldenSet("main", queries, judgements)


# --- reading


def test_queries_and_judgements_are_read(golden):
    found = golden()

    assert found.name == "main"
    assert found.queries == (GoldenQuery("q1", "how do I get a refund?"), GoldenQuery("q2", "opening hours"))
    assert plain(found.judgements) == {"q1": {"refunds.md": 2.0, "hours.md": 0.0}, "q2": {"hours.md": 1.0}}
    assert found.documents == ("refunds.md", "hours.md")
    assert found.unjudged == ()


def test_a_query_may_have_a_segment_and_a_filter(golden):
    row = {"id": 7, "text": "x", "segment": "billing", "filter": {"category": {"in": ["a"]}}, "metadata": {}}

    found = golden(json.dumps(row), "qid\tdocid\trel\n7\ta\t1\n")

    assert found.queries == (GoldenQuery("7", "x", "billing", {"category": {"in": ["a"]}}),)


@pytest.mark.parametrize(
    "qrels",
    [
        "q1 0 a 1\nq2 0 b 3\n",
        "q1\t0\ta\t1\nq2\t0\tb\t3\n",
        "query_id\tdoc_id\trelevance\nq1\ta\t1\nq2\tb\t3\n",
        "Score\tQuery-ID\tCorpus-ID\n1\tq1\ta\n3\tq2\tb\n",
        "qid\titer\tdocument_id\tlabel\r\nq1\t0\ta\t1.0\r\n\r\nq2\tQ0\tb\t3\r\n",
    ],
)
def test_judgements_come_with_a_header_or_in_the_four_columns_of_trec(golden, qrels):
    assert plain(golden(qrels=qrels).judgements) == {"q1": {"a": 1.0}, "q2": {"b": 3.0}}


def test_a_byte_order_mark_is_no_part_of_the_first_line(golden):
    assert golden(encoding="utf-8-sig").judgements == golden().judgements


def test_document_ids_may_hold_spaces_between_tabs(golden):
    found = golden(qrels="query-id\tcorpus-id\tscore\nq1\tour house/rules of it.md\t1\n")

    assert found.documents == ("our house/rules of it.md",)


def test_a_judgement_below_0_is_kept_as_0(golden):
    assert golden(qrels="q1 0 a -1\nq1 0 b 1\n").judgements["q1"] == {"a": 0.0, "b": 1.0}


def test_queries_without_a_relevant_document_are_kept_apart(golden):
    found = golden(QUERIES + '{"id": "q3", "text": "x"}\n', "q1 0 a 1\nq2 0 a 0\n")

    assert len(found.queries) == 3
    assert found.unjudged == ("q2", "q3")
    assert [one.query_id for one in found.judged] == ["q1"]


def test_the_same_judgement_twice_is_one_judgement(golden):
    assert golden(qrels="q1 0 a 1\nq1 0 a 1\n").judgements["q1"] == {"a": 1.0}


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1).filter(str.strip)


@given(texts=st.lists(words, min_size=1, max_size=5), ascii_only=st.booleans())
def test_any_text_survives_the_file(tmp_path_factory, texts, ascii_only):
    folder = tmp_path_factory.mktemp("golden")
    rows = [json.dumps({"id": place, "text": text}, ensure_ascii=ascii_only) for place, text in enumerate(texts)]
    (folder / "queries.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "qrels.tsv").write_text("0 0 a 1\n", encoding="utf-8")

    found = read("any", folder / "queries.jsonl", folder / "qrels.tsv")

    assert [one.text for one in found.queries] == texts


# --- what is wrong is named with its file and line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{id: 1}", "is not JSON"),
        ("[1]", "is list, not an object"),
        ('{"text": "x"}', "id is None"),
        ('{"id": true, "text": "x"}', "id is True"),
        ('{"id": " ", "text": "x"}', "id is ' '"),
        ('{"id": "q9"}', "text is None"),
        ('{"id": "q9", "text": "  "}', "text is '  '"),
        ('{"id": "q1", "text": "again"}', "id 'q1' comes a second time"),
        ('{"id": "q9", "text": "x", "segment": 3}', "segment is 3; give a string"),
        ('{"id": "q9", "text": "x", "filter": []}', r"filter is \[\]; give a string or an object"),
    ],
)
def test_a_bad_query_is_named_with_its_file_and_line(golden, line, message):
    with pytest.raises(GoldenError, match=rf"queries\.jsonl:4: {message}"):
        golden(f"{QUERIES}\n{line}\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1\ta", r"has 2 columns instead of 3 \(query, document, score\)"),
        ("q1\ta\t1\t1", "has 4 columns"),
        ("q1\ta\thigh", "the score 'high' is not a finite number"),
        ("q1\ta\tnan", "the score 'nan' is not a finite number"),
        ("q1\t\t1", "the document is empty"),
        ("q1\trefunds.md\t1", "query 'q1' judges 'refunds.md' 1, but 2 before"),
    ],
)
def test_a_bad_judgement_is_named_with_its_file_and_line(golden, line, message):
    with pytest.raises(GoldenError, match=rf"qrels\.tsv:5: {message}"):
        golden(qrels=QRELS + line)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("query-id\tcorpus-id\tscor", "unknown column 'scor'; the header is query-id, corpus-id, score"),
        ("q1\ta\t1", "unknown column 'q1'"),
        ("query-id\tscore", r"needs one column for the document \(corpus-id, .*, has 0"),
        ("query-id\tqid\tcorpus-id\tscore", r"needs one column for the query \(.*, has 2"),
    ],
)
def test_a_bad_header_is_named(golden, header, message):
    with pytest.raises(GoldenError, match=rf"qrels\.tsv:1: {message}"):
        golden(qrels=header)


def test_judgements_of_queries_that_nobody_asks_are_an_error(golden):
    with pytest.raises(GoldenError, match=r"judges 'q4', 'q5', 'q6', 'q7', 'q8' and 2 more, which .*queries\.jsonl"):
        golden(qrels="".join(f"q{number} 0 a 1\n" for number in range(4, 11)))


@pytest.mark.parametrize(("queries", "qrels", "message"), [("\n", QRELS, "holds no query"), (QUERIES, "", "is empty")])
def test_an_empty_file_is_an_error(golden, queries, qrels, message):
    with pytest.raises(GoldenError, match=message):
        golden(queries, qrels)


def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(GoldenError, match=r"none\.jsonl: cannot be read \(No such file"):
        read("main", tmp_path / "none.jsonl", tmp_path / "none.tsv")


def test_a_file_in_another_encoding_is_an_error(golden):
    with pytest.raises(GoldenError, match="is not UTF-8"):
        golden('{"id": "q1", "text": "Übung"}', encoding="latin-1")


# --- full document ids


def test_a_source_id_and_a_full_id_name_the_same_document():
    golden = judged(q1={"doc17": 1.0, "faq/a/b.md": 2.0}, q2={"a/b.md": 1.0})

    found = resolve(golden, ["faq/doc17", "faq/a/b.md"])

    assert plain(found.judgements) == {"q1": {"faq/doc17": 1.0, "faq/a/b.md": 2.0}, "q2": {"faq/a/b.md": 1.0}}
    assert resolve(found, ["faq/doc17", "faq/a/b.md"]) == found


def test_a_source_id_that_several_sources_have_is_an_error():
    with pytest.raises(
        GoldenError, match=r"'doc17' is in several sources: 'faq/doc17', 'wiki/doc17'; write the full id"
    ):
        resolve(judged(q1={"doc17": 1.0}), ["wiki/doc17", "faq/doc17"])


def test_a_full_id_wins_over_a_short_one_that_reads_alike():
    found = resolve(judged(q1={"a/b": 1.0}), ["a/b", "x/a/b"])

    assert plain(found.judgements) == {"q1": {"a/b": 1.0}}


def test_one_document_judged_under_both_names_is_an_error():
    with pytest.raises(GoldenError, match="query 'q1' judges 'faq/a' by its full and by its short id"):
        resolve(judged(q1={"a": 1.0, "faq/a": 2.0}), ["faq/a"])


def test_unknown_documents_are_named_up_to_five_and_counted():
    golden = judged(q1={f"d{number}": 1.0 for number in range(8)})

    with pytest.raises(GoldenError, match=r"7 of 8 judged documents are not known: 'd1', .*'d5' and 2 more; .*drop"):
        resolve(golden, ["s/d0"])


def test_unknown_documents_can_be_dropped():
    golden = judged(q1={"a": 1.0, "gone": 1.0}, q2={"gone": 1.0})

    found = resolve(golden, ["s/a"], missing="drop")

    assert plain(found.judgements) == {"q1": {"s/a": 1.0}, "q2": {}}
    assert found.unjudged == ("q2",)


def test_resolving_leaves_the_given_set_as_it_was():
    golden = judged(q1={"a": 1.0})

    resolve(golden, ["s/a"])

    assert plain(golden.judgements) == {"q1": {"a": 1.0}}


def test_judgements_cannot_be_changed(golden):
    with pytest.raises(TypeError, match="does not support item assignment"):
        golden().judgements["q1"]["x"] = 1.0
