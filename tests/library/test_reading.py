"""A table that is searched for places first and read afterwards gives what a search gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from lodestore.adapters.lance import LanceStore
from lodestore.errors import StoreError
from lodestore.retrieval import COLUMNS, Readable
from lodestore.tables import embedding_schema

TABLE = "emb__content__words__1__aaaa"
DIMENSION = 16
WORDS = np.array(["refund", "invoice", "travel", "coffee", "train", "desk", "card", "noon"])
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rows(count: int, *, start: int = 0) -> pa.Table:
    random = np.random.default_rng(start)
    vectors = random.standard_normal((count, DIMENSION)).astype(np.float32)
    columns = {
        "row_id": [f"{one:08x}" for one in range(start, start + count)],
        "vector": vectors.tolist(),
        "text": [" ".join(one) for one in WORDS[random.integers(0, len(WORDS), (count, 12))]],
        "document_id": [f"docs/{one}" for one in range(start, start + count)],
        "title": [f"title {one}" for one in range(start, start + count)],
        "category": ["money" if one % 50 == 0 else "office" for one in range(start, start + count)],
        "start": [0] * count,
        "end": [10] * count,
        "visible_from": [NOW] * count,
    }
    schema = embedding_schema(DIMENSION)
    return pa.table({one.name: pa.array(columns.get(one.name, [None] * count), one.type) for one in schema})


def filled(store: LanceStore, count: int) -> LanceStore:
    store.ensure(TABLE, embedding_schema(DIMENSION), key="row_id")
    store.append(TABLE, rows(count))
    store.index(TABLE)
    return store


@pytest.fixture(scope="module", params=[100_000, 1_000], ids=["exact", "indexed"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanceStore:
    """Two thousand rows, with an index over their vectors and without."""
    return filled(LanceStore(str(tmp_path_factory.mktemp("reading")), index_from=request.param), 2_000)


def question(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)


def ids(store: LanceStore, places: list[int]) -> list[str]:
    return store.reading(TABLE).take(places, ["row_id"])["row_id"].to_pylist()


@pytest.mark.parametrize("where", [None, "category = 'money'"])
@pytest.mark.parametrize("exact", [False, True])
def test_the_nearest_places_are_those_of_the_nearest_rows(store, where, exact):
    for seed in range(5):
        spots = store.reading(TABLE).nearest(question(seed), 24, where=where, exact=exact)
        found = store.nearest(TABLE, question(seed), 24, where=where, exact=exact, columns=["row_id"])

        assert ids(store, spots.places) == found["row_id"].to_pylist()
        assert spots.scores == pytest.approx(found["_score"].to_pylist(), abs=1e-6)


def test_an_index_that_finds_too_few_under_a_filter_is_asked_past(store):
    where = "category = 'money'"

    assert len(store.reading(TABLE).nearest(question(1), 40, where=where).places) == 40


@pytest.mark.parametrize("where", [None, "category = 'money'"])
def test_places_by_words_have_the_scores_of_the_rows_by_words(store, where):
    spots = store.reading(TABLE).matching("refund card title", 24, where=where)
    found = store.matching(TABLE, "refund card title", 2_000, where=where, columns=["row_id"])

    known = dict(zip(found["row_id"].to_pylist(), found["_score"].to_pylist(), strict=True))
    assert spots.scores == pytest.approx(found["_score"].to_pylist()[:24])
    assert [known[one] for one in ids(store, spots.places)] == pytest.approx(spots.scores)


def test_rows_come_in_the_order_of_their_places_with_every_column(store):
    spots = store.reading(TABLE).nearest(question(2), 6)

    taken = store.reading(TABLE).take(spots.places[::-1], [*COLUMNS, "vector"])

    found = store.nearest(TABLE, question(2), 6, columns=[*COLUMNS, "vector"]).drop_columns(["_score"])
    assert taken.to_pylist() == found.to_pylist()[::-1]


def test_what_was_written_is_read_at_once_by_this_and_by_another_process(tmp_path):
    store, other = filled(LanceStore(str(tmp_path)), 10), LanceStore(str(tmp_path))
    assert isinstance(store, Readable)
    assert len(other.reading(TABLE).nearest(question(0), 50).places) == 10

    store.append(TABLE, rows(5, start=10))
    store.delete(TABLE, "row_id", ["00000003"])

    for one in (store, other):
        found = ids(one, one.reading(TABLE).nearest(question(0), 50).places)
        assert sorted(found) == [f"{at:08x}" for at in range(15) if at != 3]


def test_a_reading_keeps_its_version_and_is_never_older_than_the_revision_that_was_told(tmp_path):
    store = filled(LanceStore(str(tmp_path)), 10)
    slow = LanceStore(str(tmp_path), consistency=timedelta(hours=1))
    before = slow.reading(TABLE)
    store.append(TABLE, rows(5, start=10))

    assert slow.reading(TABLE) is before
    fresh = LanceStore(str(tmp_path), consistency=timedelta(hours=1))
    assert fresh.reading(TABLE).version >= fresh.revision(TABLE)
    assert len(before.nearest(question(0), 50).places) == 10
    assert len(fresh.reading(TABLE).nearest(question(0), 50).places) == 15


def test_a_table_that_was_dropped_and_made_again_is_opened_anew(tmp_path):
    store, other = filled(LanceStore(str(tmp_path)), 10), LanceStore(str(tmp_path))
    assert len(other.reading(TABLE).nearest(question(0), 50).places) == 10

    store.drop(TABLE)
    with pytest.raises(StoreError, match="is not in the store"):
        LanceStore(str(tmp_path)).reading(TABLE)
    filled(store, 7)

    # As many commits made it as the old one: only its files tell that it is another.
    with pytest.raises(StoreError, match="Not found"):
        other.reading(TABLE).nearest(question(0), 50)
    assert len(other.reading(TABLE).nearest(question(0), 50).places) == 7


def test_words_are_not_searched_without_their_index(tmp_path):
    store = LanceStore(str(tmp_path))
    store.ensure(TABLE, embedding_schema(DIMENSION), key="row_id")
    store.append(TABLE, rows(10))

    with pytest.raises(StoreError, match="has no text index"):
        store.reading(TABLE).matching("refund", 5)
