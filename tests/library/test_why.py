"""Every way in which a document can fail to answer has its own reason, and a mend."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from lodestore import cli
from lodestore.conditions import COLUMNS
from lodestore.consistency import consistency
from lodestore.datasets import build, leaks
from lodestore.errors import FilterError, GoldenError, RefusedError, RequestError, RetentionError
from lodestore.evaluation import evaluate
from lodestore.filters import parse
from lodestore.project import open_project
from lodestore.retrieval import MAX_K
from lodestore.why import Reason
from lodestore.wire import rfc3339

SETTINGS = """
[[documents]]
name = "handbook"
uri = "docs/**/*.md"
max_retire = 1.0
[features]
modules = ["lodestore.standard"]
[embedding.features]
content = "words@1"
title = "words@1"
[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"
[context]
log_queries = true
[[golden]]
name = "main"
queries = "golden/queries.jsonl"
qrels = "golden/qrels.tsv"
[[golden]]
name = "second"
queries = "golden/queries.jsonl"
qrels = "golden/qrels.tsv"
"""
TOPICS = {
    "billing": "Invoices are sent on the first of the month. A refund takes five days after the approval of billing.",
    "travel": "Trains are booked at the desk in the lobby. Flights need the approval of a manager beforehand.",
    "security": "Passwords have sixteen characters or more. Lost badges are reported to the guard at once.",
    "kitchen": "The dishwasher runs at noon on every working day. Coffee beans are bought on Fridays by the office.",
    "garden": "The roses are watered in the evening. Nobody walks on the lawn before the summer party.",
}
QUERIES = [
    {"id": "q1", "text": "how long does a refund take", "segment": "money"},
    {"id": "q2", "text": "who approves flights", "segment": "travel"},
    {"id": "q3", "text": "something that nobody wrote about the moon", "segment": "odd"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\tbilling.md\t1\nq2\ttravel.md\t1\nq3\tkitchen.md\t1\n"


def ingest(project):
    steps = project.pipeline
    for step in (steps.read_documents, steps.add_templates, steps.cut_chunks, steps.fill_maintained):
        step()
    steps.promote_first()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Documents: some stay, one leaves, one is broken, one is stored but not embedded."""
    place = tmp_path_factory.mktemp("why")
    for name in ("docs", "golden", "templates"):
        (place / name).mkdir()
    for name, text in TOPICS.items():
        (place / "docs" / f"{name}.md").write_text(f"# {name.title()}\n\n{text}\n", encoding="utf-8")
    (place / "docs" / "old.md").write_text("# Old\n\nThe fax machine stands in the cellar of the old house.\n")
    (place / "docs" / "broken.md").write_bytes(b"\xff\xfe\x00broken")
    (place / "golden" / "queries.jsonl").write_text("\n".join(map(json.dumps, QUERIES)))
    (place / "golden" / "qrels.tsv").write_text(QRELS)
    template = (
        "---\nid: qa_basic\nversion: 1.0.0\nvariables:\n  context: {}\n  question: {}\n---\n{context}\n\n{question}\n"
    )
    (place / "templates" / "qa_basic.md").write_text(template)
    (place / "lodestore.toml").write_text(SETTINGS)
    project = open_project(place)
    ingest(project)
    (place / "then").write_text(rfc3339(project.clock()))
    (place / "docs" / "old.md").unlink()
    ingest(project)
    (place / "docs" / "late.md").write_text("# Late\n\nThe parking garage opens at six in the morning.\n")
    project.pipeline.read_documents()
    return place


@pytest.fixture(scope="module")
def store(folder):
    return open_project(folder).store


def test_a_document_that_is_found_is_told_with_its_place(store):
    found = store.why("refund days", "handbook/billing.md", k=2)

    assert (found.reason, found.rank, found.mend) == (Reason.FOUND, 1, "")
    assert found.to_json()["reason"] == "found"


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_a_low_rank_is_told_with_what_the_last_place_needs(store, mode):
    found = store.why("the approval of a manager for flights", "billing.md", k=1, mode=mode)

    assert found.reason is Reason.RANKED
    assert found.document_id == "handbook/billing.md"
    assert found.rank > 1
    assert found.score < found.needed
    assert f"rank {found.rank}, place 1 needs" in found.sentence


def test_a_document_without_a_word_of_the_query_has_no_rank_in_a_text_search(store):
    found = store.why("roses", "handbook/kitchen.md", mode="text")

    assert (found.reason, found.rank) == (Reason.RANKED, None)


@pytest.mark.parametrize(
    ("document", "reason", "says"),
    [
        ("handbook/nobody.md", Reason.NEVER_READ, "no source has ever shown.*handbook"),
        ("handbook/biling.md", Reason.NEVER_READ, "similar: handbook/billing.md"),
        ("handbook/broken.md", Reason.REJECTED, "was turned away"),
        ("handbook/old.md", Reason.RETIRED, "was retired at 20"),
        ("old.md", Reason.RETIRED, "was retired at 20"),
        ("handbook/late.md", Reason.NOT_EMBEDDED, "none of them embedded"),
    ],
)
def test_each_loss_on_the_way_has_its_reason_and_its_mend(store, document, reason, says):
    found = store.why("anything at all", document)

    assert found.reason is reason
    assert re.search(says, found.sentence)
    assert found.mend
    assert (found.at is not None) == (reason is Reason.RETIRED)


def test_a_filter_that_leaves_the_document_out_is_named_with_what_the_document_has(store):
    found = store.why(
        "refund", "handbook/billing.md", filter="mime = 'text/markdown' and word_count > 9000 and source = 'wiki'"
    )

    assert found.reason is Reason.FILTERED
    assert "word_count" in found.sentence
    assert "source = 'handbook'" in found.sentence
    assert "mime" not in found.sentence


def test_what_a_mandatory_filter_hides_is_told_as_never_read(store):
    hidden = parse("source = 'wiki'", COLUMNS)

    for document in ("handbook/billing.md", "handbook/old.md", "handbook/broken.md"):
        found = store.why("refund", document, mandatory=hidden)
        assert found.reason is Reason.NEVER_READ
        assert "similar" not in found.sentence


@pytest.mark.parametrize(
    ("query", "document", "options", "error", "says"),
    [
        ("", "a", {}, RequestError, "query is empty"),
        ("x", " ", {}, RequestError, "document is empty"),
        ("x", "a", {"k": 0}, RequestError, "k is 0"),
        ("x", "a", {"filter": "colour = 'red'"}, FilterError, "colour"),
    ],
)
def test_a_question_that_makes_no_sense_names_the_part(store, query, document, options, error, says):
    with pytest.raises(error, match=says):
        store.why(query, document, **options)


# -- the facade's search


def test_a_search_as_of_then_finds_what_has_left_since(folder, store):
    project = open_project(folder)
    then = next(iter(project.tables.read("documents__retired")["visible_until"].to_pylist()))
    earlier = then - timedelta(milliseconds=1)

    before = store.search("fax machine in the cellar", as_of=earlier, mode="hybrid", k=1)
    now = store.search("fax machine in the cellar", k=10)

    assert before.hits[0].document_id == "handbook/old.md"
    assert before.to_json()["as_of"].endswith("Z")
    assert before.notes
    assert "handbook/old.md" not in {hit.document_id for hit in now.hits}


@pytest.mark.parametrize(
    ("query", "options", "error", "says"),
    [
        ("x", {"filter": "colour = 'red'"}, FilterError, "unknown column 'colour'"),
        ("x", {"filter": "word_count = 'many'"}, FilterError, "word_count"),
        ("x", {"filter": "(source = 'a'"}, FilterError, r"'\)'"),
        ("x", {"filter": "source = 'a'; drop table documents"}, FilterError, "';"),
        ("x", {"mandatory": "colour = 'red'"}, FilterError, "colour"),
        ("x", {"k": 0}, RequestError, "k is 0"),
        ("x", {"k": 1_000_000}, RequestError, f"1 to {MAX_K:,}"),
        ("", {}, RequestError, "query is empty"),
        ("y" * 100_000, {}, RequestError, "100,000 characters"),
        ("x", {"mode": "psychic"}, RequestError, "mode is 'psychic'"),
        ("x", {"diversity": 2}, RequestError, "diversity is 2"),
        ("x", {"neighbours": -1}, RequestError, "neighbours is -1"),
        ("x", {"per_document": 0}, RequestError, "per_document is 0"),
    ],
)
def test_bad_input_is_an_error_that_names_the_part(store, query, options, error, says):
    with pytest.raises(error, match=says):
        store.search(query, **options)


def test_moments_outside_of_what_is_known_are_errors(folder, store):
    now = open_project(folder).clock()

    with pytest.raises(RequestError, match="future"):
        store.search("x", as_of=now + timedelta(days=1))
    with pytest.raises(RetentionError, match="retention"):
        store.search("x", as_of=now - timedelta(days=400))


def test_a_mandatory_filter_cannot_be_widened(store):
    hits = store.search("refund", filter="source = 'handbook' or source = 'wiki'", mandatory="source = 'wiki'").hits

    assert hits == ()


def test_many_queries_are_answered_by_one_release_in_their_order(store):
    found = store.search_many(["refund days", "lost badges"], k=1)

    assert [one.hits[0].document_id for one in found] == ["handbook/billing.md", "handbook/security.md"]
    assert len({one.release for one in found}) == 1


def test_titles_join_as_a_third_ranking_of_the_same_release(store):
    found = store.search("kitchen", titles=True, k=3, explain=True)

    assert found.hits[0].title_rank == 1
    assert found.explain["weights"] == {"vector": 1.0, "text": 1.0, "title": 0.5}
    assert store.search("kitchen", k=3).hits[0].title_rank is None


def test_the_weights_of_the_settings_reach_every_hybrid_search(folder):
    other = folder / "words_first.toml"
    other.write_text((folder / "lodestore.toml").read_text() + "\n[search]\nweights = { vector = 0.0, text = 2.5 }\n")
    store = open_project(other).store
    asked = "the approval of a manager"

    weighted, by_words = store.search(asked, k=3, explain=True), store.search(asked, k=3, mode="text")
    then = store.search(asked, k=3, as_of=open_project(other).clock())

    assert weighted.explain["weights"] == {"vector": 0.0, "text": 2.5}
    words = [hit.chunk_id for hit in by_words.hits]
    assert [hit.chunk_id for hit in weighted.hits][: len(words)] == words
    assert [hit.chunk_id for hit in then.hits] == [hit.chunk_id for hit in weighted.hits]
    assert [hit.score for hit in weighted.hits[: len(words)]] == pytest.approx(
        [2.5 / (60 + n) for n in range(1, len(words) + 1)]
    )


def test_the_explanation_has_release_table_filter_fusion_and_ranks(store):
    told = store.search("refund", filter="source = 'handbook'", explain=True).to_json()["explain"]

    assert told["filter"] == "`source` = 'handbook'"
    assert told["index"] is None
    assert told["fusion"] == "reciprocal rank fusion"
    assert told["release"] == 1
    assert {"vector", "text", "title"} == set(next(iter(told["ranks"].values())))


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_the_explanation_has_the_score_of_each_side_as_that_side_gives_it(store, mode):
    asked = "who takes the refund"
    found = store.search(asked, mode=mode, k=3, explain=True).to_json()
    told = found["explain"]["scores"]
    alone = {one: {hit.chunk_id: hit.score for hit in store.search(asked, mode=one, k=50).hits} for one in ("vector", "text")}  # fmt: skip

    assert set(told) == {hit["chunk_id"] for hit in found["hits"]}
    for hit in found["hits"]:
        said = told[hit["chunk_id"]]
        sides = {side: alone[side][hit["chunk_id"]] for side in said.keys() & {"vector", "text"}}
        assert sides
        assert {side: said[side] for side in sides} == pytest.approx(sides, abs=1e-5)
        assert said.get("fused", hit["score"]) == hit["score"]
        assert "vector_score" not in hit
    assert ("fused" in next(iter(told.values()))) is (mode == "hybrid")


# -- golden sets


def test_an_evaluation_has_segments_with_intervals_and_the_worst_queries(folder):
    found = evaluate(open_project(folder), name="main", mode="hybrid").to_json()

    assert set(found["segments"]) == {"money", "travel", "odd"}
    assert found["segments"]["money"]["ndcg@10"]["value"] == 1.0
    assert found["worst"][0]["id"] == "q3"
    assert found["worst"][0]["wanted"] == ["handbook/kitchen.md"]


def test_several_named_sets_are_measured_each_or_together(folder):
    project = open_project(folder)

    assert evaluate(project, name="second").golden == "second"
    assert evaluate(project).to_json()["queries"] == 6
    with pytest.raises(GoldenError, match="did you mean 'second'"):
        evaluate(project, name="secnd")


def test_a_set_in_the_form_of_beir_is_measured_under_the_filters_of_its_queries(folder):
    place = folder / "beir"
    place.mkdir()
    asked = [
        {"_id": "1", "text": "refund", "metadata": {"url": "x"}},
        {"_id": "2", "text": "refund", "filter": "title = 'Kitchen'"},
        {"_id": "3", "text": "refund", "filter": {"title": {"in": ["Travel", "Garden"]}}},
    ]
    (place / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)))
    (place / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{n}\tbilling.md\t2\n" for n in (1, 2, 3))
    )

    found = evaluate(open_project(with_golden(folder, "beir", "beir")), name="beir")

    assert found.found["1"][0] == "handbook/billing.md"
    assert found.found["2"] == ["handbook/kitchen.md"]
    assert set(found.found["3"]) == {"handbook/travel.md", "handbook/garden.md"}
    assert found.scores.ndcg.tolist() == [1.0, 0.0, 0.0]


def test_as_many_documents_count_as_are_asked_for(folder, capsys):
    one, three = (evaluate(open_project(folder), name="main", k=k).to_json() for k in (1, 3))

    assert {"ndcg@1", "recall@1", "mrr"} <= set(one)
    assert one["recall@1"]["value"] <= three["recall@3"]["value"]
    assert run(folder, "evaluate", "--golden", "main", "--k", "3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["recall@3"] == three["recall@3"]
    for k in (0, 101, True):
        with pytest.raises(RequestError, match=f"k is {k}"):
            evaluate(open_project(folder), k=k)


def test_an_interval_is_that_of_the_bootstrap_over_the_queries_scores(folder):
    found = evaluate(open_project(folder), name="main")

    told = found.to_json()["ndcg@10"]
    drawn = np.random.default_rng(1).choice(found.scores.ndcg, (20_000, len(found.scores))).mean(axis=1)

    assert told["value"] == pytest.approx(found.scores.ndcg.mean())
    assert [told["low"], told["high"]] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.05)


# -- datasets and replays


def test_a_dataset_holds_nothing_that_is_younger_than_its_question(folder):
    project = open_project(folder)
    then = project.tables.read("documents__retired").to_pylist()[0]["visible_until"] - timedelta(milliseconds=1)
    now = project.clock()
    questions = pa.table(
        {
            "query": ["fax machine", "fax machine"],
            "event_timestamp": pa.array([then, now], pa.timestamp("us", tz="UTC")),
            "user_id": ["ada", "ada"],
            "label": [1, 0],
        }
    )

    made = build(
        questions, past=project.past, history=project.store.historical,
        features=["user_profile:expertise_level"], k=3,
    )  # fmt: skip

    rows = made.to_pylist()
    first = [row["document_id"] for row in rows if row["event_timestamp"] == then]
    second = [row["document_id"] for row in rows if row["event_timestamp"] == now]
    assert first[0] == "handbook/old.md"
    assert "handbook/old.md" not in second
    assert [row["rank"] for row in rows] == [1, 2, 3, 1, 2, 3]
    assert leaks(made) == 0
    assert {"label", "user_profile:expertise_level"} <= set(made.column_names)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"event_timestamp": []}, "no column 'query'"),
        ({"query": ["x"], "event_timestamp": ["2026-01-01"]}, "event_timestamp is string"),
        ({"query": ["x"], "event_timestamp": ["2026-01-01"], "rank": [1]}, "column 'rank'"),
    ],
)
def test_questions_that_cannot_be_asked_are_told(folder, columns, says):
    project = open_project(folder)

    with pytest.raises(RequestError, match=says):
        build(pa.table(columns), past=project.past, history=project.store.historical)


def test_served_contexts_are_replayed_and_have_the_same_chunks(folder):
    project = open_project(folder)
    for query in ("refund days", "lost badges"):
        project.store.context(query, user_id="ada")

    found = consistency(project)

    assert (found.replayed, found.skipped, found.overlap, found.different) == (2, 0, 1.0, ())


def test_contexts_whose_questions_are_not_kept_are_told_as_not_replayed(folder):
    silent = folder / "silent.toml"
    silent.write_text((folder / "lodestore.toml").read_text().replace("log_queries = true", "log_queries = false"))
    project = open_project(silent)
    project.store.context("refund days", user_id="ada")

    found = consistency(project, sample=1)

    assert (found.replayed, found.skipped) == (0, 1)
    assert "[context] log_queries" in found.sentence()


# -- the command line


def run(folder, *arguments):
    return cli.run(["--config", str(folder / "lodestore.toml"), *arguments])


def test_why_is_a_command(folder, capsys):
    assert run(folder, "why", "refund", "--document", "handbook/old.md", "--json") == 0

    assert json.loads(capsys.readouterr().out)["reason"] == "retired"
    assert run(folder, "why", "refund", "--document", "handbook/old.md") == 0
    assert "To mend: put it back" in capsys.readouterr().out


def test_search_takes_a_moment_and_what_surrounds_a_hit(folder, capsys):
    options = ["--by-document", "2", "--neighbours", "1", "--highlight", "--diversity", "0.2", "--titles", "--explain"]

    assert run(folder, "search", "refund days", *options) == 0
    page = capsys.readouterr().out
    assert "*refund*" in page
    assert "reciprocal rank fusion" in page
    assert run(folder, "search", "fax", "--as-of", "2999-01-01", "--json") == 2
    assert "future" in capsys.readouterr().err + capsys.readouterr().out


def with_golden(folder, name, place):
    """The settings with one more golden set, in a file of their own."""
    file = folder / f"with_{name}.toml"
    said = f'[[golden]]\nname = "{name}"\nqueries = "{place}/queries.jsonl"\nqrels = "{place}/qrels.tsv"\n'
    file.write_text(f"{(folder / 'lodestore.toml').read_text()}\n{said}")
    return file


def test_golden_draft_writes_a_set_that_evaluates_and_overwrites_nothing(folder, capsys):
    assert run(folder, "golden", "draft", "--count", "8", "--out", "drafted", "--json") == 0
    assert json.loads(capsys.readouterr().out)["drafted"] == 8
    lines = [json.loads(line) for line in (folder / "drafted" / "queries.jsonl").read_text().splitlines()]
    assert all(one["synthetic"] is True for one in lines)
    found = evaluate(open_project(with_golden(folder, "drafted", "drafted")), name="drafted", mode="hybrid").to_json()
    assert found["queries"] == 8
    assert found["ndcg@10"]["value"] > 0.8
    assert set(found["segments"]) == {"synthetic-heading", "synthetic-sentence"}
    assert run(folder, "golden", "draft", "--out", "drafted") == RefusedError.exit_code
    assert "exists" in capsys.readouterr().err
    assert run(folder, "golden", "list", "--json") == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["golden"]] == ["main", "second"]


def test_golden_dataset_writes_a_file_without_leaks(folder, capsys):
    now = rfc3339(open_project(folder).clock())
    (folder / "asked.jsonl").write_text(json.dumps({"query": "refund", "event_timestamp": now, "user_id": "ada"}))

    code = run(folder, "golden", "dataset", "--questions", str(folder / "asked.jsonl"), "--k", "2",
               "--out", str(folder / "set.parquet"), "--json")  # fmt: skip

    told = json.loads(capsys.readouterr().out)
    assert (code, told["rows"], told["leaks"]) == (0, 2, 0)


def test_evaluate_shows_segments_and_the_worst(folder, capsys):
    assert run(folder, "evaluate", "--golden", "main") == 0

    page = capsys.readouterr().out
    assert "By segment" in page
    assert "Worst" in page
