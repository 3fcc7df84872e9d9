"""An indexed table: k rows whenever k exist, whatever the filter; recall and tail under watch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.adapters.lance import EF, INDEX_FROM, PROBES, REFINE, LanceStore
from lodestore.conditions import COLUMNS
from lodestore.filters import Contains, combine, parse
from lodestore.grouping import Extras
from lodestore.indexes import IndexReading, read_index, settled
from lodestore.live import Live
from lodestore.models import EmbeddingVersion
from lodestore.ranking import SelectiveRecall
from lodestore.releases import Release
from lodestore.retrieval import search
from lodestore.tables import FILTERABLE, embedding_schema
from lodestore.testing import HashEmbedder

DIMENSION = 16
VERSION = EmbeddingVersion("content", "m", "1", "c", "f", DIMENSION)
TOPICS = 20


def cloud(rows, seed):
    """Unit vectors about topics, and the topic of each."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(1).standard_normal((TOPICS, DIMENSION))
    of = rng.integers(TOPICS, size=rows)
    found = topics[of] + 0.6 * rng.standard_normal((rows, DIMENSION))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32), of


def table(rows, seed=0, prefix="r"):
    vectors, of = cloud(rows, seed)
    schema = embedding_schema(DIMENSION)
    known = {
        "row_id": [f"{prefix}{n:06}" for n in range(rows)],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION),
        "document_id": [f"docs/{n}" for n in range(rows)],
        "category": [f"topic{one}" for one in of],
        "word_count": list(range(rows)),
        "text": [f"topic{one} word{n % 50}" for n, one in enumerate(of)],
        "title": ["t"] * rows,
        "start": [0] * rows,
        "end": [1] * rows,
        "source": ["docs"] * rows,
        "access": [["all"] if n % 100 else ["all", "board"] for n in range(rows)],
    }
    columns = [
        pa.array(known[name], schema.field(name).type) if name in known else pa.nulls(rows, schema.field(name).type)
        for name in schema.names
    ]
    return pa.table(columns, schema=schema)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = LanceStore(str(tmp_path_factory.mktemp("indexed")))
    made.ensure(VERSION.table, embedding_schema(DIMENSION))
    made.append(VERSION.table, table(INDEX_FROM))
    made.index(VERSION.table)
    return made


@pytest.fixture(scope="module")
def rows():
    made = table(INDEX_FROM)
    return made.select(["row_id", *[name for name in FILTERABLE if name in made.column_names]]).to_pylist()


@pytest.mark.parametrize("k", [1, 10, 200])
@pytest.mark.parametrize(
    ("where", "left"),
    [
        (None, INDEX_FROM),
        ("word_count < 10000", 10_000),
        ("word_count < 2000", 2_000),
        ("word_count < 200", 200),
        ("word_count < 5", 5),
        ("word_count < 0", 0),
    ],
)
def test_k_rows_come_back_whenever_k_exist(store, where, left, k):
    (query,), _ = cloud(1, 7)
    assert store.indexed(VERSION.table)

    found = store.nearest(VERSION.table, query, k, where=where, columns=["row_id"])

    assert found.num_rows == min(k, left)


def test_a_filter_that_leaves_only_what_is_far_from_the_query_still_gives_k(store):
    vectors, of = cloud(40, 8)
    for query, topic in zip(vectors, of, strict=True):
        far = f"category = 'topic{(topic + 1) % TOPICS}' AND word_count < 4000"
        exact = store.nearest(VERSION.table, query, 10, where=far, exact=True, columns=["row_id"])
        found = store.nearest(VERSION.table, query, 10, where=far, columns=["row_id"])
        assert found.num_rows == exact.num_rows == 10


def test_an_access_list_is_a_filter_that_nothing_asked_can_widen(store):
    (query,), _ = cloud(1, 9)
    asked = parse("word_count < 5000 or word_count >= 0", COLUMNS)
    mandatory = Contains("access", ("board", "owner"))
    where = combine(asked, mandatory).sql()

    for mode in ("vector", "hybrid", "text"):
        hits = search(store, VERSION.table, "topic3 word7 word0 word50", query, k=20, mode=mode, where=where)
        assert len(hits) == 20
        assert all(int(hit.document_id.removeprefix("docs/")) % 100 == 0 for hit in hits)


@pytest.mark.parametrize(
    "said",
    [
        "access contains 'board'",
        "access in ('board', 'nobody')",
        "access contains_any ('board')",
        {"access": {"contains": "board"}},
        {"access": {"in": ["board"]}},
    ],
)
def test_each_form_of_an_access_list_says_the_same(store, said):
    assert store.count(VERSION.table, parse(said, COLUMNS).sql()) == INDEX_FROM // 100


def test_the_explanation_of_an_indexed_search_names_the_index_and_how_thoroughly_it_is_probed(store):
    (query,), _ = cloud(1, 9)

    class Model(HashEmbedder):
        def embed_queries(self, texts):
            return np.stack([query] * len(texts))

    live = Live(Release(7), {"content": VERSION}, lambda _: Model(DIMENSION), store)

    told = live.find("topic3 word7", k=5, where="word_count < 9000", extras=Extras(explain=True)).explain

    assert (told["release"], told["table"], told["filter"]) == (7, VERSION.table, "word_count < 9000")
    assert {name: told[name] for name in ("index", "nprobes", "refine", "ef")} == {
        "index": "IVF_HNSW_SQ", "nprobes": PROBES, "refine": REFINE, "ef": EF,
    }  # fmt: skip
    assert (told["fusion"], told["candidates"], told["rerank"]) == ("reciprocal rank fusion", 20, False)
    assert len(told["ranks"]) == len(told["scores"]) == 5


SAID = st.recursive(
    st.one_of(
        st.tuples(st.sampled_from(["<", "<=", ">", ">=", "=", "!="]), st.integers(-10, INDEX_FROM + 10)).map(
            lambda pair: f"word_count {pair[0]} {pair[1]}"
        ),
        st.lists(st.integers(0, TOPICS), min_size=1, max_size=4).map(
            lambda ns: f"category in ({', '.join(repr(f'topic{n}') for n in ns)})"
        ),
        st.sampled_from(["access contains 'board'", "author is null", "author is not null", "source = 'docs'"]),
    ),
    lambda inner: st.one_of(
        inner.map(lambda one: f"not ({one})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda three: "({}) {} ({})".format(*three)),
    ),
    max_leaves=4,
)


@given(said=SAID, k=st.sampled_from([1, 10, 40]), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_every_mode_gives_only_rows_that_python_lets_through_and_k_of_them_whenever_k_exist(store, rows, said, k, seed):
    (query,), _ = cloud(1, seed)
    filter_ = parse(said, COLUMNS)
    allowed = {row["row_id"] for row in rows if filter_.matches(row)}
    words = "topic1 topic2 topic3"
    worded = sum(row["category"] in words.split() for row in rows if row["row_id"] in allowed)

    for mode, most in (("vector", len(allowed)), ("hybrid", len(allowed)), ("text", worded)):
        hits = search(store, VERSION.table, words, query, k=k, mode=mode, where=filter_.sql())
        assert {hit.chunk_id for hit in hits} <= allowed
        assert len(hits) == min(k, most)


def test_recall_is_measured_for_each_selectivity(store):
    found = read_index(store, VERSION, queries=10)

    assert [one.share for one in found.recalls] == [1.0, 0.5, 0.1, 0.01]
    assert found.worst >= 0.98
    assert found.full
    assert "of the exact ten nearest" in found.sentence()


def test_an_index_that_finds_enough_is_left_alone(store):
    assert not settled(store, VERSION, limit=0.5, rebuild=True, queries=3).rebuilt


def test_an_index_that_finds_too_little_is_rebuilt_where_that_is_allowed(tmp_path):
    few = LanceStore(str(tmp_path), index_from=300)
    few.ensure(VERSION.table, embedding_schema(DIMENSION))
    few.append(VERSION.table, table(400))
    few.index(VERSION.table)

    left = settled(few, VERSION, limit=1.1, rebuild=False, queries=3)
    found = settled(few, VERSION, limit=1.1, rebuild=True, queries=3)

    assert (left.rebuilt, found.rebuilt) == (False, True)
    assert "rebuilt" in found.sentence()


def test_rows_that_the_index_has_not_seen_are_counted_and_found(store):
    name = VERSION.table
    store.append(name, table(100, seed=5, prefix="new"))
    vectors, _ = cloud(100, 5)

    assert store.tail(name).unindexed == 100
    assert store.nearest(name, vectors[0], 1, columns=["row_id"])["row_id"].to_pylist() == ["new000000"]
    assert store.probing(name)["unindexed"] == 100
    store.compact(name)
    assert store.tail(name).share == 0


def test_a_small_table_is_exact_and_has_no_tail(tmp_path):
    small = LanceStore(str(tmp_path))
    small.ensure(VERSION.table, embedding_schema(DIMENSION))
    small.append(VERSION.table, table(50).select(embedding_schema(DIMENSION).names))
    small.index(VERSION.table)

    found = read_index(small, VERSION)

    assert (found.recalls, found.worst, found.unseen) == ((), 1.0, 0.0)
    assert "searched exactly" in found.sentence()
    assert small.probing(VERSION.table) == {"index": None}


def test_the_worst_selectivity_speaks_for_the_index():
    recalls = (SelectiveRecall(1.0, 0.99, full=True), SelectiveRecall(0.01, 0.5, full=False))

    assert (IndexReading("k", 1, 0.0, recalls).worst, IndexReading("k", 1, 0.0, recalls).full) == (0.5, False)


def test_every_filterable_column_is_copied_into_the_searched_table():
    assert set(FILTERABLE) <= set(embedding_schema(DIMENSION).names)
