"""A store that can find rows first and read them afterwards gives what its own search gives, and reads no row in vain."""

from __future__ import annotations

import random
import shutil
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from lodestore.adapters.lance import LanceStore
from lodestore.errors import DimensionError, ReadingGoneError, StoreError
from lodestore.retrieval import Titles, Weights, candidates, search
from lodestore.tables import embedding_schema

DIMENSION, ROWS, TABLE = 16, 600, "emb__t"
WORDS = [f"word{n}" for n in range(200)]


def rows(names, seed=1):
    """Texts are all of another length, and so are titles: no two rows fit a query equally well."""
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    lengths = draw.sample(range(5, 5 + len(names)), len(names))
    return pa.Table.from_pylist(
        [
            {
                "row_id": name, "row_hash": name, "vector": vector, "text": " ".join(draw.choices(WORDS, k=length)),
                "start": 0, "end": 9, "document_id": f"docs/{name}", "source": "docs",
                "title": " ".join(draw.choices(WORDS, k=length // 5)), "category": draw.choice("abc"),
            }
            for name, length, vector in zip(
                names, lengths, rng.standard_normal((len(names), DIMENSION), np.float32), strict=True
            )
        ],
        schema=embedding_schema(DIMENSION),
    )  # fmt: skip


def filled(folder, *, index_from):
    made = LanceStore(str(folder), index_from=index_from)
    made.ensure(TABLE, embedding_schema(DIMENSION), key="row_id")
    made.append(TABLE, rows([f"r{n:04}" for n in range(ROWS)]))
    made.index(TABLE)
    return made


@pytest.fixture(scope="module", params=[10**9, 300], ids=["exact", "indexed"])
def store(request, tmp_path_factory):
    return filled(tmp_path_factory.mktemp("found"), index_from=request.param)


class ItsOwn:
    """The same store by its own search alone."""

    def __init__(self, store):
        self.nearest, self.matching = store.nearest, store.matching


class Watched(ItsOwn):
    """The same store, which notes what is read of it and may fail at that."""

    def __init__(self, store, error=None):
        super().__init__(store)
        self._store, self._error, self.taken = store, error, []

    def reading(self, name):
        made = self._store.reading(name)
        watched = type("Reading", (), {"nearest": made.nearest, "matching": made.matching, "take": self._take})()
        self._made = made
        return watched

    def _take(self, places, columns):
        if self._error is not None:
            raise self._error
        self.taken.append((len(places), list(columns)))
        return self._made.take(places, columns)


@pytest.mark.parametrize("where", [None, "category = 'a'", "category = 'none'", "title LIKE '%word7%'"])
@pytest.mark.parametrize("k", [1, 7, 30])
@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_the_same_hits_are_found_in_the_same_order_with_the_same_scores(store, mode, k, where):
    compared = 0
    for query, vector in questions(10, seed=k):
        options = {"k": k, "mode": mode, "where": where, "weights": Weights(1.0, 0.7)}
        ours, own = (search(one, TABLE, query, vector, **options) for one in (store, ItsOwn(store)))

        if mode == "vector" or not ties(store, query, candidates(k), where):
            compared += 1
            assert [told(one) for one in ours] == [told(one) for one in own]
        assert [one.score for one in ours] == pytest.approx([one.score for one in own], abs=0.01)
        if where == "category = 'a'":
            assert {one.category for one in ours} <= {"a"}
    assert compared or k == 30  # so deep there are always some that tie


def questions(count, *, seed):
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    for _ in range(count):
        yield " ".join(draw.choices(WORDS, k=2)), rng.standard_normal(DIMENSION).astype(np.float32)


def ties(store, query, depth, where):
    """Whether two rows fit the words equally well: which of them comes first is then nobody's promise."""
    found = search(ItsOwn(store), TABLE, query, None, k=depth + 1, mode="text", where=where)
    scores = [round(one.score, 5) for one in found]
    return len({*scores}) < len(scores)


def told(hit):
    scores = (hit.score, hit.vector_score, hit.text_score, hit.fused_score)
    return hit.to_json() | {"score": 0}, [None if one is None else pytest.approx(one, abs=1e-5) for one in scores]


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_no_more_rows_are_read_than_are_given(store, mode):
    watched = Watched(store)
    hits = search(watched, TABLE, "word1 word2", np.ones(DIMENSION, np.float32), k=6, mode=mode)

    assert len(hits) == 6
    assert [count for count, _ in watched.taken] == [6]
    assert "vector" not in watched.taken[0][1]


def test_titles_and_a_look_at_every_candidate_need_all_their_rows(store):
    watched, vector = Watched(store), np.ones(DIMENSION, np.float32)
    every = search(watched, TABLE, "word1", vector, k=5, mode="hybrid", every=True)
    titled = {"titles": Titles(TABLE, vector), "weights": Weights(1, 1, 1)}
    search(watched, TABLE, "word1", vector, k=5, mode="hybrid", **titled)

    assert len(every) > 5
    assert not watched.taken


def test_when_the_files_of_a_reading_are_gone_the_store_itself_answers(store):
    gone = Watched(store, ReadingGoneError("not found"))
    vector = np.ones(DIMENSION, np.float32)
    for mode in ("vector", "text", "hybrid"):
        found = search(gone, TABLE, "word1", vector, k=5, mode=mode)
        assert [one.chunk_id for one in found] == [
            one.chunk_id for one in search(store, TABLE, "word1", vector, k=5, mode=mode)
        ]


def test_a_store_that_is_away_is_asked_once_and_not_waited_for_twice(store):
    away, vector = Watched(store, StoreError("it does not answer")), np.ones(DIMENSION, np.float32)
    away.nearest = away.matching = lambda *_, **__: pytest.fail("asked again")
    for mode in ("vector", "text", "hybrid"):
        with pytest.raises(StoreError, match="does not answer"):
            search(away, TABLE, "word1", vector, k=5, mode=mode)


def test_a_vector_of_another_length_is_told_as_such(store):
    for mode in ("vector", "hybrid"):
        with pytest.raises(
            DimensionError, match=f"the query has 3 numbers, table {TABLE} holds vectors of {DIMENSION}"
        ):
            search(store, TABLE, "word1", np.ones(3, np.float32), k=5, mode=mode)


def test_a_reading_whose_files_are_gone_is_not_kept_and_a_bad_question_costs_none(tmp_path):
    store = filled(tmp_path, index_from=10**9)
    first, ones = store.reading(TABLE), np.ones(DIMENSION, np.float32)
    with pytest.raises(DimensionError):
        first.nearest(np.ones(3, np.float32), 1)
    with pytest.raises(StoreError, match="nosuch") as told:
        first.nearest(ones, 1, where="nosuch = 1")
    assert store.reading(TABLE) is first
    assert told.value.__cause__ is not told.value

    shutil.rmtree(tmp_path / f"{TABLE}.lance")
    for look in (
        lambda: first.nearest(ones, 5),
        lambda: first.take([0], ["text"]),
        lambda: first.matching("nobody", 5),
    ):
        with pytest.raises(ReadingGoneError):
            look()
    with pytest.raises(StoreError, match=r"not in the store|not found|has none now"):
        store.reading(TABLE).nearest(ones, 1)


def test_a_look_that_was_overtaken_by_a_change_is_not_kept(tmp_path, monkeypatch):
    filled(tmp_path, index_from=10**9)
    store, vector = LanceStore(str(tmp_path), consistency=timedelta(hours=1)), np.full(DIMENSION, 3.0, np.float32)
    looked, made = store._reading, []

    def slow(*given):
        found = looked(*given)
        if not made:
            made.append(found)
            store.append(TABLE, like(vector, "new"))
        return found

    monkeypatch.setattr(store, "_reading", slow)
    store.reading(TABLE)
    assert search(store, TABLE, "x", vector, k=1, mode="vector")[0].chunk_id == "new"


def test_what_was_written_here_is_found_at_once_however_old_a_look_may_be(tmp_path):
    made = filled(tmp_path, index_from=300)
    store, vector = LanceStore(str(tmp_path), consistency=timedelta(hours=1)), np.full(DIMENSION, 3.0, np.float32)
    search(store, TABLE, "word1", vector, k=3, mode="vector")
    store.append(TABLE, like(vector, "new"))
    assert search(store, TABLE, "x", vector, k=1, mode="vector")[0].chunk_id == "new"
    store.delete(TABLE, "row_id", ["new"])
    assert search(store, TABLE, "x", vector, k=1, mode="vector")[0].chunk_id != "new"
    assert made.count(TABLE) == ROWS


def like(vector, name):
    one = rows([name], seed=9)
    place = one.schema.get_field_index("vector")
    return one.set_column(place, one.schema.field(place), pa.array([vector.tolist()], one.schema.field(place).type))


def test_rows_that_came_left_or_changed_are_found_as_they_are_now(tmp_path):
    store = filled(tmp_path, index_from=300)
    vector = np.full(DIMENSION, 3.0, np.float32)
    search(store, TABLE, "word1", vector, k=3, mode="hybrid")
    store.append(TABLE, like(vector, "new"))
    assert search(store, TABLE, "x", vector, k=1, mode="vector")[0].chunk_id == "new"

    store.delete(TABLE, "row_id", ["new"])
    assert search(store, TABLE, "x", vector, k=1, mode="vector")[0].chunk_id != "new"


def test_a_table_that_was_made_anew_is_found_anew(tmp_path):
    store, other = filled(tmp_path, index_from=10**9), LanceStore(str(tmp_path))
    vector = np.ones(DIMENSION, np.float32)
    search(store, TABLE, "word1", vector, k=3, mode="vector")
    other.ensure("another", embedding_schema(DIMENSION))
    other.drop(TABLE)
    with pytest.raises(StoreError, match=f"{TABLE} is not in the store"):
        search(store, TABLE, "word1", vector, k=3, mode="vector")

    other.ensure(TABLE, embedding_schema(DIMENSION), key="row_id")
    other.append(TABLE, rows(["only"], seed=3))
    other.index(TABLE)
    for mode in ("vector", "hybrid"):
        assert [one.chunk_id for one in search(store, TABLE, "word1", vector, k=3, mode=mode)] == ["only"]


@pytest.mark.parametrize("index_from", [10**9, 300], ids=["exact", "indexed"])
@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_a_table_that_another_process_made_anew_with_as_many_versions_is_seen(tmp_path, mode, index_from):
    """By its number alone the new version is the old one, whose text index lies in memory."""

    def make(store, prefix, word):
        store.ensure(TABLE, embedding_schema(DIMENSION), key="row_id")
        written = rows([f"{prefix}{n}" for n in range(400)], seed=len(word))
        place = written.schema.get_field_index("text")
        texts = pa.array([word * (n + 1) for n in range(400)], written.schema.field(place).type)
        store.append(TABLE, written.set_column(place, written.schema.field(place), texts))
        store.index(TABLE)

    store, vector = LanceStore(str(tmp_path), index_from=index_from), np.ones(DIMENSION, np.float32)
    make(store, "old", "alpha ")
    before = store.revision(TABLE)
    search(store, TABLE, "alpha", vector, k=3, mode=mode)
    search(store, TABLE, "beta", vector, k=3, mode=mode)

    other = LanceStore(str(tmp_path), index_from=index_from)
    other.drop(TABLE)
    make(other, "new", "beta ")
    assert other.revision(TABLE) == before
    for _ in range(2):
        found = [one.chunk_id for one in search(store, TABLE, "beta", vector, k=3, mode=mode)]
        assert len(found) == 3
        assert all(one.startswith("new") for one in found)
