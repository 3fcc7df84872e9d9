"""Search over one table: ranks fused, filters obeyed, questions that make no sense refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestore.errors import RequestError
from lodestore.retrieval import MAX_K, SearchResult, checked_query, fuse, search
from lodestore.tables import embedding_schema
from lodestore.testing import HashEmbedder, MemoryStore

TEXTS = {"apples": "red apples grow on trees", "pears": "green pears grow too", "cars": "fast cars drive on roads"}


@pytest.fixture
def store():
    made = MemoryStore()
    made.ensure("emb__t", embedding_schema(16), key="row_id")
    vectors = HashEmbedder().embed_documents(list(TEXTS.values()))
    rows = [
        {
            "row_id": name, "row_hash": name, "vector": vector, "text": text, "start": 0, "end": len(text),
            "document_id": f"docs/{name}", "source": "docs", "title": None, "category": "fruit" if "grow" in text else None,
        }
        for (name, text), vector in zip(TEXTS.items(), vectors, strict=True)
    ]  # fmt: skip
    made.append("emb__t", pa.Table.from_pylist(rows, schema=embedding_schema(16)))
    made.index("emb__t")
    return made


def found(store, query, **options):
    vector = HashEmbedder().embed_queries([query])[0]
    return search(store, "emb__t", query, vector, **options)


def test_each_mode_finds_the_text_that_says_it(store):
    for mode in ("vector", "text", "hybrid"):
        assert found(store, "cars on roads", k=1, mode=mode)[0].chunk_id == "cars"


def test_as_many_hits_come_back_as_there_are_under_a_filter(store):
    for mode in ("vector", "hybrid"):
        hits = found(store, "cars on roads", k=2, mode=mode, where="category = 'fruit'")
        assert {hit.chunk_id for hit in hits} == {"apples", "pears"}


def test_a_hybrid_hit_tells_its_rank_on_both_sides(store):
    best, *others = found(store, "fast cars", k=3, mode="hybrid")

    assert (best.vector_rank, best.text_rank) == (1, 1)
    assert {hit.text_rank for hit in others} == {None}


def test_a_title_is_always_text_and_a_category_always_there(store):
    hit = found(store, "fast cars", k=1, mode="vector")[0].to_json()

    assert (hit["title"], hit["uri"], hit["category"]) == ("", "", None)
    assert "text_rank" not in hit


def test_a_vector_search_without_a_vector_is_refused(store):
    with pytest.raises(RequestError, match="needs the query's vector"):
        search(store, "emb__t", "x", None, k=1, mode="vector")


@pytest.mark.parametrize(
    ("query", "k", "mode", "says"),
    [
        ("", 1, "text", "empty"),
        (" \n", 1, "text", "empty"),
        (None, 1, "text", "not text"),
        ("x" * 20_001, 1, "text", "20,001 characters"),
        ("x", 0, "text", "k is 0"),
        ("x", MAX_K + 1, "text", "k is 1001"),
        ("x", True, "text", "k is True"),
        ("x", 1.5, "text", "k is 1.5"),
        ("x", 1, "fuzzy", "known: hybrid, vector, text"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(query, k, mode, says):
    with pytest.raises(RequestError, match=says):
        checked_query(query, k=k, mode=mode)


RANKING = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@given(st.lists(RANKING, min_size=1, max_size=3))
def test_fusing_keeps_every_name_once_in_falling_order(rankings):
    fused = fuse(rankings)

    scores = [score for _, score in fused]
    assert {name for name, _ in fused} == {name for ranking in rankings for name in ranking}
    assert len(fused) == len({name for name, _ in fused})
    assert scores == sorted(scores, reverse=True)


@given(RANKING)
def test_fusing_one_ranking_with_itself_keeps_its_order(ranking):
    assert [name for name, _ in fuse([ranking, ranking])] == ranking


def test_a_weight_of_zero_leaves_a_ranking_without_a_say():
    assert [name for name, _ in fuse([["a", "b"], ["c", "b", "a"]], weights=[1.0, 0.0])][:2] == ["a", "b"]


def test_an_answer_that_lacks_nothing_says_nothing_of_it():
    whole = SearchResult(3, "m@1", "text", 1.23456, ())

    assert whole.to_json() == {"release": 3, "version": "m@1", "mode": "text", "took_ms": 1.235, "hits": []}


def test_scores_are_plain_numbers(store):
    hit = found(store, "cars", k=1, mode="vector")[0]

    assert isinstance(hit.score, float)
    assert not isinstance(hit.score, np.floating)
