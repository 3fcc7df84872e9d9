"""A live snapshot answers by one release: its table, its model, and no vector of any other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lodestore.errors import (
    BadVectorError,
    DimensionError,
    FingerprintError,
    RequestError,
    UnavailableError,
    UnknownModelError,
)
from lodestore.live import Live
from lodestore.models import EmbeddingVersion
from lodestore.releases import NOTHING, Release
from lodestore.store import Lodestore
from lodestore.tables import embedding_schema
from lodestore.testing import HashEmbedder, MemoryStore
from lodestore.versions import slot_of

TEXTS = [f"text number {n} says word{n}" for n in range(20)]


def version(embedder, label="a"):
    return EmbeddingVersion("content", label, "1", "c", embedder.fingerprint, embedder.dimension)


@pytest.fixture
def embedders():
    return {"a": HashEmbedder(label="a@1"), "b": HashEmbedder(label="b@1")}


@pytest.fixture
def live(embedders):
    """Two versions have the same rows; the first one is live."""
    store = MemoryStore()
    versions = {label: version(embedder, label) for label, embedder in embedders.items()}
    for label, one in versions.items():
        store.ensure(one.table, embedding_schema(one.dimension), key="row_id")
        vectors = embedders[label].embed_documents(TEXTS)
        rows = [
            {"row_id": f"c{n}", "document_id": f"docs/{n}", "source": "even" if n % 2 == 0 else "odd", "vector": vector,
             "text": text, "start": 0, "end": len(text)}
            for n, (text, vector) in enumerate(zip(TEXTS, vectors, strict=True))
        ]  # fmt: skip
        store.append(one.table, pa.Table.from_pylist(rows, schema=embedding_schema(one.dimension)))
        store.index(one.table)
    release = Release(3, {slot_of("content"): versions["a"].key})
    return Live(release, {"content": versions["a"]}, lambda one: embedders[one.model], store)


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_an_answer_names_its_release_and_version(live, mode):
    found = live.search("word7", k=3, mode=mode)

    assert (found.release, found.version, found.mode) == (3, "a@1", mode)
    assert found.hits[0].document_id == "docs/7"
    assert found.took_ms >= 0


def test_the_query_is_embedded_by_the_model_of_the_searched_table(live, embedders):
    live.search("word7", mode="vector")

    assert (embedders["a"].queried, embedders["b"].queried) == (1, 0)


def test_a_text_search_embeds_nothing(live, embedders):
    live.search("word7", mode="text")

    assert embedders["a"].queried == 0


@pytest.mark.parametrize("mode", ["hybrid", "vector"])
def test_a_filter_leaves_k_hits_where_there_are_k(live, mode):
    hits = live.search("word7", k=5, mode=mode, where="source = 'even'").hits

    assert len(hits) == 5
    assert {hit.source for hit in hits} == {"even"}


def test_before_anything_is_live_the_way_there_is_told():
    empty = Live(NOTHING, {}, lambda _: HashEmbedder(), MemoryStore())

    with pytest.raises(UnavailableError, match="lodestore run ingest"):
        empty.search("anything")
    with pytest.raises(UnavailableError, match="lodestore run ingest"):
        empty.search_vector([1.0], fingerprint="a@1")


def test_an_unknown_feature_is_told_with_the_nearest(live):
    with pytest.raises(UnknownModelError, match="did you mean 'content'"):
        live.search("x", feature="contents")


@pytest.mark.parametrize("label", [True, False])
def test_a_vector_that_names_the_live_model_finds_what_its_text_finds(live, embedders, label):
    (vector,) = embedders["a"].embed_queries(["word7"])
    name = "a@1" if label else embedders["a"].fingerprint

    assert live.search_vector(vector, fingerprint=name, k=1).hits[0].document_id == "docs/7"


def test_a_vector_of_another_model_is_refused_though_its_length_fits(live, embedders):
    (vector,) = embedders["b"].embed_queries(["word7"])

    for name in ("b@1", embedders["b"].fingerprint):
        with pytest.raises(FingerprintError, match="live is a@1"):
            live.search_vector(vector, fingerprint=name)


@pytest.mark.parametrize("name", ["", None])
def test_a_vector_without_a_name_is_refused(live, name):
    with pytest.raises(FingerprintError, match="names no model"):
        live.search_vector(np.ones(16), fingerprint=name)


@pytest.mark.parametrize(
    ("vector", "error", "says"),
    [
        (np.ones(15), DimensionError, r"shape \(15,\), a@1 has 16"),
        (np.ones((1, 16)), DimensionError, r"shape \(1, 16\)"),
        ([], DimensionError, r"shape \(0,\)"),
        (np.full(16, np.nan), RequestError, "NaN"),
        (np.zeros(16), RequestError, "only zeros"),
        (["a"] * 16, RequestError, "no list of numbers"),
        ([[1.0], [1.0, 2.0]], RequestError, "no list of numbers"),
    ],
)
def test_a_vector_that_no_search_can_use_is_refused(live, vector, error, says):
    with pytest.raises(error, match=says):
        live.search_vector(vector, fingerprint="a@1")


def test_k_and_the_query_are_checked_before_anything_is_embedded(live, embedders):
    for query, k in (("", 1), ("x", 0)):
        with pytest.raises(RequestError):
            live.search(query, k=k)
    with pytest.raises(RequestError, match="k is 0"):
        live.search_vector(np.ones(16), fingerprint="a@1", k=0)

    assert embedders["a"].queried == 0


def test_a_batch_is_answered_by_one_release_though_another_goes_live_meanwhile(live, embedders):
    other = replace(live, release=Release(4), versions={"content": version(embedders["b"], "b")})
    lives = iter([live, other, other, other])
    store = Lodestore(
        live=lambda: next(lives), features=dict, templates=None, releases=None, clock=None,
    )  # fmt: skip

    first = store.search_many(["word1", "word2", "word3"], k=2)
    second = store.search_many(["word1", "word2"], k=2)

    assert {(one.release, one.version) for one in first} == {(3, "a@1")}
    assert {(one.release, one.version) for one in second} == {(4, "b@1")}
    assert (embedders["a"].queried, embedders["b"].queried) == (3, 2)


class Broken(HashEmbedder):
    def embed_queries(self, texts):
        return super().embed_queries(texts) * np.nan


def test_a_model_that_gives_no_vector_for_the_query_is_told(live, embedders):
    embedders["a"] = Broken(label="a@1")

    with pytest.raises(BadVectorError, match="a@1 gave 1 NaN"):
        live.search("word7")
