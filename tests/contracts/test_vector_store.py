"""One suite for every vector store, the fake included, over an embedding table as the library writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestore.adapters.lance import LanceStore
from lodestore.errors import DimensionError, StoreError
from lodestore.retrieval import search
from lodestore.tables import embedding_schema
from lodestore.testing import HashEmbedder, MemoryStore

DIMENSION = 16
SCHEMA = embedding_schema(DIMENSION)
TABLE = "emb__content__hash__1__c1"
# As few rows as an index can be tested with.
INDEXED_FROM = 300
MODEL = HashEmbedder(DIMENSION)
TOPICS = ["refund", "shipping", "password", "invoice", "warranty"]


def document(place: int, **given: object) -> dict[str, object]:
    topic = TOPICS[place % len(TOPICS)]
    row = {"row_id": f"r{place}", "document_id": f"d{place // 2}", "title": f"Help on {topic}", "word_count": place}
    return {**row, "text": f"{topic} question number{place}", "start": 0, "end": 9, "source": "faq", **given}


def rows(documents: list[dict[str, object]]) -> pa.Table:
    vectors = MODEL.embed_documents([str(one["text"]) for one in documents])
    full = [{"vector": vector, **one} for vector, one in zip(vectors, documents, strict=True)]
    return pa.Table.from_pylist(full, schema=SCHEMA)


def asked(text: str) -> np.ndarray:
    return MODEL.embed_queries([text])[0]


def ids(found: pa.Table) -> list[str]:
    return found["row_id"].to_pylist()


@pytest.fixture(params=["memory", "lance"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore | LanceStore:
    store = MemoryStore() if request.param == "memory" else LanceStore(str(tmp_path), index_from=INDEXED_FROM)
    store.ensure(TABLE, SCHEMA, key="row_id")
    return store


@pytest.fixture
def store(empty):
    empty.append(TABLE, rows([document(place) for place in range(40)]))
    empty.index(TABLE)
    return empty


@pytest.fixture
def large(empty):
    empty.append(TABLE, rows([document(place) for place in range(2 * INDEXED_FROM)]))
    empty.index(TABLE)
    return empty


# -- by vector


def test_a_row_is_nearest_to_itself_with_a_cosine_of_one(store):
    found = store.nearest(TABLE, asked(document(7)["text"]), 3, columns=["row_id"])

    assert ids(found)[0] == "r7"
    assert found["_score"][0].as_py() == pytest.approx(1.0, abs=1e-6)
    assert found.column_names == ["row_id", "_score"]


def test_scores_are_the_cosines_best_first(store):
    query = asked("refund question") * 7.5

    found = store.nearest(TABLE, query, 40)

    vectors = np.array(found["vector"].to_pylist())
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    scores = found["_score"].to_numpy()
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, cosines, atol=1e-5)
    assert (np.diff(scores) <= 0).all()


vectors_of = st.lists(st.floats(-1e3, 1e3, width=32), min_size=DIMENSION, max_size=DIMENSION)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=vectors_of)
def test_a_score_never_leaves_the_range_of_a_cosine(store, numbers):
    for query in (np.array(numbers), -np.array(numbers), asked("refund"), -asked("refund question number0")):
        scores = store.nearest(TABLE, query, 40, columns=["row_id"])["_score"].to_numpy()

        assert ((scores >= -1) & (scores <= 1)).all()


def test_more_asked_than_there_are_gives_every_row(store):
    assert len(set(ids(store.nearest(TABLE, asked("x"), 1_000)))) == 40


def test_an_exact_search_and_the_default_one_agree_on_a_small_table(store):
    for place in range(10):
        query = asked(f"{TOPICS[place % 5]} number{place}")

        assert ids(store.nearest(TABLE, query, 10, exact=True)) == ids(store.nearest(TABLE, query, 10))


def test_a_filter_narrows_the_search_not_its_answer(store):
    query = asked(document(0)["text"])

    found = store.nearest(TABLE, query, 5, where="`word_count` >= 35")

    assert sorted(ids(found)) == ["r35", "r36", "r37", "r38", "r39"]
    assert store.nearest(TABLE, query, 5, where="`word_count` > 1000").num_rows == 0


def test_a_filter_gives_k_rows_of_an_indexed_table_whenever_k_exist(large):
    for where, exist in (
        ("`word_count` % 60 = 7", 10),
        ("`row_id` in ('r1', 'r599')", 2),
        ("`title` = 'Help on refund'", 120),
    ):
        found = large.nearest(TABLE, asked("shipping question number1"), 10, where=where, columns=["row_id"])

        assert len(set(ids(found))) == min(10, exist)


def test_an_index_finds_nearly_all_that_an_exact_search_finds(large):
    queries = [asked(f"{TOPICS[place % 5]} number{place}") for place in range(0, 600, 30)]

    shared = [
        len(set(ids(large.nearest(TABLE, query, 10))) & set(ids(large.nearest(TABLE, query, 10, exact=True))))
        for query in queries
    ]

    assert np.mean(shared) >= 9.5


def test_a_row_that_is_added_after_indexing_is_found_at_once(large):
    large.upsert(TABLE, rows([document(9_001, text="an unheard of parcel", title="Lost")]), key="row_id")

    assert ids(large.nearest(TABLE, asked("an unheard of parcel"), 1)) == ["r9001"]
    assert ids(large.matching(TABLE, "parcel", 3)) == ["r9001"]
    assert ids(large.matching(TABLE, "lost", 3)) == ["r9001"]


def test_a_row_that_is_deleted_is_found_no_more(large):
    large.delete(TABLE, "row_id", ["r7"])

    assert "r7" not in ids(large.nearest(TABLE, asked(document(7)["text"]), 50))
    assert "r7" not in ids(large.matching(TABLE, "number7", 50))


def test_a_row_that_changes_is_found_by_what_it_says_now(large):
    large.upsert(TABLE, rows([document(7, text="giraffe")]), key="row_id")

    assert ids(large.nearest(TABLE, asked("giraffe"), 1)) == ["r7"]
    assert ids(large.matching(TABLE, "giraffe", 5)) == ["r7"]
    assert ids(large.matching(TABLE, "number7", 5)) == []


def test_compaction_and_a_second_indexing_keep_the_answers(large):
    large.upsert(TABLE, rows([document(place) for place in range(600, 620)]), key="row_id")
    query = asked("warranty question number604")
    before = (
        ids(large.nearest(TABLE, query, 5, exact=True)),
        sorted(ids(large.matching(TABLE, "number604 number3", 5))),
    )

    large.compact(TABLE)
    large.index(TABLE)

    assert (
        ids(large.nearest(TABLE, query, 5, exact=True)),
        sorted(ids(large.matching(TABLE, "number604 number3", 5))),
    ) == before
    assert ids(large.nearest(TABLE, query, 1)) == before[0][:1]
    assert large.count(TABLE) == len(set(large.read(TABLE, ["row_id"])["row_id"].to_pylist())) == 620


def test_vectors_without_a_direction_are_never_found(empty):
    empty.append(TABLE, rows([document(0, vector=[0.0] * DIMENSION), document(1, vector=None), document(2)]))

    assert ids(empty.nearest(TABLE, asked("anything"), 10)) == ["r2"]
    assert ids(empty.nearest(TABLE, np.zeros(DIMENSION), 10)) == []


def test_a_query_of_another_length_is_named_with_both_lengths(store):
    with pytest.raises(DimensionError, match=rf"query has 5 numbers, table {TABLE} holds vectors of 16"):
        store.nearest(TABLE, np.ones(5), 3)


def test_vectors_of_another_length_are_not_stored(store):
    other = pa.Table.from_pylist([document(99, vector=[1.0] * 5)], schema=embedding_schema(5))

    with pytest.raises(StoreError, match=TABLE):
        store.append(TABLE, other)

    assert store.count(TABLE) == 40


# -- by words


def test_words_of_the_text_and_of_the_title_are_found(store):
    assert ids(store.matching(TABLE, "number17", 5)) == ["r17"]
    assert set(ids(store.matching(TABLE, "HELP", 40))) == {f"r{place}" for place in range(40)}
    assert store.matching(TABLE, "refund", 3, columns=["row_id"]).column_names == ["row_id", "_score"]


def test_the_rarer_word_decides_who_is_first(store):
    found = store.matching(TABLE, "question number17", 10)

    assert ids(found)[0] == "r17"
    assert found.num_rows == 10
    assert (np.diff(found["_score"].to_numpy()) <= 0).all()


def test_a_filter_narrows_a_text_search_too(store):
    assert sorted(ids(store.matching(TABLE, "question", 3, where="`word_count` >= 37"))) == ["r37", "r38", "r39"]


@pytest.mark.parametrize(
    "query",
    [
        'AND OR ( " * : ^',
        '"',
        "'",
        "",
        "   ",
        "\\",
        "text:refund~2",
        "🙂",
        "\x00",
        "+-&&||!(){}[]",
        "x" * 20_000,
        "`",
        "%_",
        "zzz",
    ],
)
def test_no_query_is_an_operator_or_a_crash(store, query):
    assert store.matching(TABLE, query, 5).num_rows == (5 if "refund" in query else 0)


def test_the_words_of_a_hostile_query_are_still_searched(store):
    assert ids(store.matching(TABLE, 'number17 AND ( NOT "', 5))[0] == "r17"


def test_words_beyond_ascii_are_found(empty):
    empty.append(TABLE, rows([document(0, text="Übergröße für Žluťoučký"), document(1, text="возврат денег")]))
    empty.index(TABLE)

    assert ids(empty.matching(TABLE, "übergröße", 5)) == ["r0"]
    assert ids(empty.matching(TABLE, "возврат", 5)) == ["r1"]


def test_a_text_search_before_any_index_says_what_is_missing(empty):
    empty.append(TABLE, rows([document(place) for place in range(5)]))

    with pytest.raises(StoreError, match=rf"table {TABLE} has no text index.*call index\(\)"):
        empty.matching(TABLE, "number3", 5)

    empty.index(TABLE)
    assert ids(empty.matching(TABLE, "number3", 5)) == ["r3"]


def test_a_table_without_text_has_no_text_to_search(empty):
    empty.ensure("plain", pa.schema([("row_id", pa.string()), ("vector", pa.list_(pa.float32(), DIMENSION))]))
    empty.append("plain", pa.table({"row_id": ["a"], "vector": [asked("x")]}))
    empty.index("plain")

    assert ids(empty.nearest("plain", asked("x"), 1)) == ["a"]
    with pytest.raises(StoreError, match="plain"):
        empty.matching("plain", "x", 1)


# -- the edges


def test_an_empty_table_answers_with_no_rows(empty):
    for _ in range(2):
        assert empty.nearest(TABLE, asked("x"), 5).num_rows == 0
        assert empty.nearest(TABLE, asked("x"), 5, columns=["row_id"]).column_names == ["row_id", "_score"]
        assert empty.matching(TABLE, "x", 5, columns=["row_id"]).column_names == ["row_id", "_score"]
        empty.index(TABLE)


def test_a_table_indexed_while_empty_finds_what_comes_later(empty):
    empty.index(TABLE)

    empty.append(TABLE, rows([document(3)]))

    assert ids(empty.matching(TABLE, "number3", 5)) == ["r3"]
    assert ids(empty.nearest(TABLE, asked("refund"), 5)) == ["r3"]


@pytest.mark.parametrize(
    "act",
    [
        lambda s: s.nearest("emb__no", asked("x"), 3),
        lambda s: s.matching("emb__no", "x", 3),
        lambda s: s.index("emb__no"),
    ],
)
def test_searching_an_absent_table_names_it_and_the_way_out(empty, act):
    with pytest.raises(StoreError, match=r"table emb__no is not in the store .*; run the job that makes it"):
        act(empty)


def test_a_column_or_a_filter_that_the_table_lacks_is_named(store):
    for act in (
        lambda: store.nearest(TABLE, asked("x"), 3, columns=["nope"]),
        lambda: store.nearest(TABLE, asked("x"), 3, where="`nope` = 1"),
        lambda: store.matching(TABLE, "refund", 3, where="`nope` = 1"),
    ):
        with pytest.raises(StoreError, match="nope"):
            act()


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_every_mode_of_retrieval_finds_the_row_that_says_it(store, mode):
    hits = search(
        store, TABLE, "number17 password", asked(document(17)["text"]), k=3, mode=mode, where="`source` = 'faq'"
    )

    assert hits[0].chunk_id == "r17"
    assert len(hits) == 3


def test_only_a_table_of_many_rows_gets_an_index_over_its_vectors(tmp_path):
    store = LanceStore(str(tmp_path), index_from=INDEXED_FROM)
    store.ensure(TABLE, SCHEMA, key="row_id")
    store.append(TABLE, rows([document(place) for place in range(INDEXED_FROM - 1)]))
    store.index(TABLE)
    assert not store.indexed(TABLE)

    store.append(TABLE, rows([document(INDEXED_FROM)]))
    store.index(TABLE)

    assert store.indexed(TABLE)


def test_searches_leave_stderr_empty(large, capfd):
    large.append(TABLE, rows([document(9_002)]))
    for columns in (None, ["row_id"]):
        large.nearest(TABLE, asked("x"), 3, columns=columns, where="`word_count` > 1")
        large.nearest(TABLE, asked("x"), 3, columns=columns, exact=True)
        large.matching(TABLE, "refund", 3, columns=columns)
    large.compact(TABLE)
    large.index(TABLE)

    assert capfd.readouterr().err == ""
