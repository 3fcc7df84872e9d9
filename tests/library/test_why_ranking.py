"""The place that `why` tells is that of the search itself: what is not found stands behind what is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.corpus import Corpus
from lodestore.live import Live
from lodestore.logs import Logs
from lodestore.models import EmbeddingVersion
from lodestore.releases import Release
from lodestore.retrieval import Weights
from lodestore.tables import CHUNKS, DOCUMENTS, chunk_table, embedding_schema
from lodestore.testing import FrozenClock, HashEmbedder, MemoryStore
from lodestore.versions import slot_of
from lodestore.why import Reason, Reasons

MODEL = HashEmbedder()
VERSION = EmbeddingVersion("content", "a", "1", "c", MODEL.fingerprint, MODEL.dimension)
TITLES = EmbeddingVersion("title", "a", "1", "w", MODEL.fingerprint, MODEL.dimension)
WORDS = [f"word{n}" for n in range(12)]
ROWS = 120


def rows_of(version, texts, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((len(texts), 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [
        {"row_id": f"{version.feature}{n:03}", "document_id": f"docs/{n:03}", "source": "docs", "title": f"title {n}",
         "text": text, "vector": vector.astype(np.float32), "start": 0, "end": len(text)}
        for n, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=embedding_schema(16))


@pytest.fixture(scope="module")
def live():
    """A hundred and twenty documents of one chunk each, by words and vectors that have nothing to do with each other."""
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(2, 9))) for _ in range(ROWS)]
    store = MemoryStore()
    store.ensure("documents", DOCUMENTS, key="document_id")
    for seed, version in enumerate((VERSION, TITLES)):
        store.ensure(version.table, embedding_schema(16), key="row_id")
        store.append(version.table, rows_of(version, texts, seed))
        store.index(version.table)
    read = [dict.fromkeys(DOCUMENTS.names) | {"document_id": f"docs/{n:03}", "source": "docs"} for n in range(ROWS)]
    store.append("documents", pa.Table.from_pylist(read, schema=DOCUMENTS))
    store.ensure(chunk_table("c"), CHUNKS, key="chunk_id")
    versions = {"content": VERSION, "title": TITLES}
    return Live(
        Release(1, {slot_of(name): one.key for name, one in versions.items()}), versions, lambda _: MODEL, store
    )


def reasons(live, tables=None):
    clock = FrozenClock(datetime(2026, 1, 1, tzinfo=UTC))
    tables = tables or live.vectors
    return Reasons(tables, Corpus(live.vectors, Logs(live.vectors, clock), clock), live=lambda: live, sources=["docs"])


@given(
    query=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True).map(" ".join),
    k=st.integers(1, 12),
    mode=st.sampled_from(["hybrid", "vector", "text"]),
    title=st.sampled_from([0.0, 0.5]),
)
@settings(max_examples=12, deadline=None)
def test_every_document_has_the_place_that_the_search_gives_it(live, query, k, mode, title):
    live = replace(live, weights=Weights(title=title))
    hits = live.find(query, k=k, mode=mode).hits
    places = {hit.document_id: place for place, hit in enumerate(hits, start=1)}
    told = {f"docs/{n:03}": reasons(live).why(query, f"docs/{n:03}", k=k, mode=mode) for n in range(0, ROWS, 9)}

    for name, one in told.items():
        if name in places:
            assert (one.reason, one.rank) == (Reason.FOUND, places[name])
        else:
            assert one.reason is Reason.RANKED
            assert one.rank is None or one.rank > len(hits)
            assert one.score is None or one.score <= hits[-1].score
    ranks = [one.rank for one in told.values() if one.rank is not None]
    assert len(ranks) == len(set(ranks))


def test_what_neither_side_offers_is_told_with_its_place_on_each(live):
    near = live.find("word1 word2", k=ROWS, mode="vector").hits
    matching = live.find("word1 word2", k=ROWS, mode="text").hits
    by_words = {hit.document_id: place for place, hit in enumerate(matching, start=1)}
    place, deep = next((p, h) for p, h in enumerate(near, start=1) if p > 20 and by_words.get(h.document_id, 0) > 20)

    told = reasons(live).why("word1 word2", deep.document_id, k=2)

    assert told.rank > 20
    assert told.score == 0
    assert f"place {place} by meaning, {by_words[deep.document_id]} by words" in told.sentence
    assert "its 20 candidates" in told.sentence
    assert told.details["ranks"] == {"vector": place, "text": by_words[deep.document_id]}


class Blind:
    """A store whose index never finds one row."""

    def __init__(self, store, row_id):
        self._store, self._row = store, row_id

    def __getattr__(self, name):
        return getattr(self._store, name)

    def nearest(self, name, vector, k, *, where=None, exact=False, columns=None):
        found = self._store.nearest(name, vector, k + 1, where=where, exact=exact, columns=columns)
        return (found if exact else found.filter(pc.not_equal(found["row_id"], self._row))).slice(0, k)


@pytest.mark.parametrize("mode", ["vector", "hybrid"])
def test_what_the_index_misses_is_told_as_that_and_not_as_a_good_place(live, mode):
    best = live.find("word1", k=1, mode="vector").hits[0]
    blind = Blind(live.vectors, best.chunk_id)

    told = reasons(replace(live, vectors=blind), blind).why("word1", best.document_id, k=1, mode=mode)

    assert told.reason is Reason.RANKED
    assert "the index missed it" in told.sentence
    assert "place 1 by meaning" in told.sentence
    assert told.mend.endswith("lodestore run maintain")
