"""What comes with a hit: its document's other chunks, those beside it, the words that matched, variety."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestore.corpus import Corpus
from lodestore.drafting import draft, write
from lodestore.errors import GoldenError, RefusedError, RequestError, SettingsError, UnknownModelError
from lodestore.golden import read
from lodestore.grouping import Extras, by_document, spans
from lodestore.live import Live
from lodestore.logs import Logs, utc_now
from lodestore.models import EmbeddingVersion
from lodestore.releases import Release
from lodestore.retrieval import Hit, Weights
from lodestore.tables import CHUNKS, DOCUMENTS, chunk_table, embedding_schema
from lodestore.testing import HashEmbedder, MemoryStore
from lodestore.versions import slot_of
from lodestore.why import Reason, Reasons

MODEL = HashEmbedder()
VERSION = EmbeddingVersion("content", "a", "1", "c", MODEL.fingerprint, MODEL.dimension)


@pytest.fixture
def live():
    """Six documents of four chunks each; every chunk of a document says the document's word."""
    store = MemoryStore()
    store.ensure(VERSION.table, embedding_schema(16), key="row_id")
    texts = {(d, c): f"topic{d} topic{d} part{c} common" for d in range(6) for c in range(4)}
    vectors = MODEL.embed_documents(list(texts.values()))
    rows = [
        {"row_id": f"d{d}c{c}", "document_id": f"docs/{d}", "source": "docs", "text": text, "vector": vector,
         "start": c * 100, "end": c * 100 + 90}
        for ((d, c), text), vector in zip(texts.items(), vectors, strict=True)
    ]  # fmt: skip
    store.append(VERSION.table, pa.Table.from_pylist(rows, schema=embedding_schema(16)))
    store.index(VERSION.table)
    return Live(Release(1, {slot_of("content"): VERSION.key}), {"content": VERSION}, lambda _: MODEL, store)


@pytest.mark.parametrize("mode", ["vector", "hybrid", "text"])
def test_as_many_documents_come_back_as_were_asked_for_each_with_its_best_chunks(live, mode):
    hits = live.find("topic3 common part2", k=5, mode=mode, extras=Extras(per_document=2)).hits

    assert len({hit.document_id for hit in hits}) == len(hits) == 5
    assert hits[0].chunk_id == "d3c2"
    assert [one.document_id for one in hits[0].others] == ["docs/3"]


def test_documents_run_out_before_k_does(live):
    assert len(live.find("common", k=50, mode="vector", extras=Extras(per_document=1)).hits) == 6


def test_a_hit_comes_with_the_chunks_beside_it_as_far_as_the_document_goes(live):
    hits = live.find("topic3 topic3 part0 common", k=24, mode="vector", extras=Extras(neighbours=2)).hits
    found = {hit.chunk_id: hit for hit in hits}

    assert found["d3c0"].before == ()
    assert [text[-13:-7] for text in found["d3c0"].after] == [" part1", " part2"]
    assert [text[-13:-7] for text in found["d3c3"].before] == [" part1", " part2"]


def test_highlights_are_spans_of_the_hit_s_own_text(live):
    hit = live.find("part2", k=1, mode="text", extras=Extras(highlight=True)).hits[0]

    assert [hit.text[start:end] for start, end in hit.highlights] == ["part2"]
    assert hit.to_json()["highlights"] == ((14, 19),)


def test_diversity_passes_over_what_was_said_already(live):
    plain = live.find("topic3 topic4", k=3, mode="vector").hits
    varied = live.find("topic3 topic4", k=3, mode="vector", extras=Extras(diversity=0.7)).hits

    assert varied[0].chunk_id == plain[0].chunk_id
    assert len({hit.document_id for hit in varied}) > len({hit.document_id for hit in plain})


class ByPart:
    """A reranker that prefers the last parts."""

    def score(self, query, texts):
        del query
        return np.array([float(text.split("part")[1][0]) for text in texts])


def test_a_reranker_orders_the_candidates_and_its_scores_are_told(live):
    found = replace(live, reranker=ByPart()).find(
        "topic3 common", k=3, mode="vector", extras=Extras(rerank=True, explain=True)
    )

    assert [hit.score for hit in found.hits] == [3.0, 3.0, 3.0]
    assert found.explain["rerank"] is True
    said = found.explain["scores"][found.hits[0].chunk_id]
    assert said["rerank"] == 3.0
    assert -1 <= said["vector"] <= 1


def test_reranking_without_a_reranker_says_where_to_name_one(live):
    with pytest.raises(RequestError, match=r"\[context\] reranker"):
        live.find("topic3", extras=Extras(rerank=True))


def test_titles_that_are_asked_for_but_not_live_are_an_error(live):
    with pytest.raises(UnknownModelError, match="title"):
        live.find("x", extras=Extras(titles=True))
    assert live.find("topic3").hits


@pytest.mark.parametrize("mode", ["vector", "text"])
def test_titles_that_cannot_join_are_an_error_and_not_left_out(live, mode):
    with pytest.raises(RequestError, match=f"titles join a hybrid search.*{mode}"):
        live.find("x", mode=mode, extras=Extras(titles=True))


@pytest.mark.parametrize(("name", "value"), [("vector", -1), ("text", float("nan")), ("title", True)])
def test_a_weight_is_a_number_from_zero_on(name, value):
    with pytest.raises(SettingsError, match=f"weight {name}"):
        Weights(**{name: value})


def test_one_side_of_a_hybrid_search_has_to_count():
    with pytest.raises(SettingsError, match="both 0"):
        Weights(vector=0, text=0)


def test_the_weights_of_the_settings_decide(live):
    by_text = replace(live, weights=Weights(vector=0, text=1))

    hits = by_text.find("part1", k=6).hits
    assert {hit.chunk_id[-1] for hit in hits} == {"1"}


@pytest.mark.parametrize("options", [{"per_document": 101}, {"neighbours": True}, {"diversity": -0.1}])
def test_what_cannot_be_wanted_is_refused(options):
    with pytest.raises(RequestError, match=next(iter(options))):
        Extras(**options)


HITS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 99)), unique=True).map(
    lambda pairs: [Hit(f"{d}{n}", d, 1 / (place + 1), "", "", "", 0, 0, "s") for place, (d, n) in enumerate(pairs)]
)


@given(HITS, st.integers(1, 5), st.integers(1, 3))
def test_grouping_keeps_the_order_of_the_best_and_the_first_chunks(hits, k, chunks):
    groups = by_document(hits, k=k, chunks=chunks)

    firsts = [next(hit for hit in hits if hit.document_id == one) for one in dict.fromkeys(h.document_id for h in hits)]
    assert [one.chunk_id for one in groups] == [one.chunk_id for one in firsts[:k]]
    assert all(len(one.others) < chunks for one in groups)


@given(st.text(max_size=40), st.text(max_size=80))
def test_spans_lie_within_the_text_and_do_not_overlap(query, text):
    found = spans(query, text)

    assert all(0 <= start < end <= len(text) for start, end in found)
    assert all(one[1] <= other[0] for one, other in pairwise(found))


def test_a_document_whose_chunk_was_cut_is_told_so(live):
    store = live.vectors
    corpus = Corpus(store, Logs(store, utc_now), utc_now)
    row = {"document_id": "docs/0", "source": "docs", "title": "t", "content": "c"}
    full = dict.fromkeys(DOCUMENTS.names) | row
    store.append("documents", pa.Table.from_pylist([full], schema=DOCUMENTS))
    store.ensure(chunk_table("c"), CHUNKS, key="chunk_id")
    chunk = dict.fromkeys(CHUNKS.names) | {"chunk_id": "d0c0", "document_id": "docs/0", "truncated": True}
    store.append(chunk_table("c"), pa.Table.from_pylist([chunk], schema=CHUNKS))

    found = Reasons(store, corpus, live=lambda: live, sources=["docs"]).why("topic3", "docs/0", k=3)

    assert found.reason is Reason.CUT
    assert "1 of its chunks" in found.sentence


# -- drafts


class Read:
    def __init__(self, name, title, content):
        self.document_id, self.title, self.content = name, title, content


TEXT = "# Refunds\n\nA refund of an invoice takes five days after the approval.\n\n## Late payment\n\nWho pays late gets a reminder from the billing office.\n"


def test_a_draft_asks_for_headings_and_sentences_and_knows_who_answers():
    made = draft(
        [
            Read("d/1", "Refunds", TEXT),
            Read("d/2", "Roses", "# Roses\n\nRed roses grow behind the old greenhouse near the wall.\n"),
        ],
        count=20,
    )

    assert {one.segment for one in made} == {"synthetic-heading", "synthetic-sentence"}
    owner = {one.text: one.document_id for one in made}
    assert owner["refund invoice takes five days approval"] == "d/1"
    assert made == draft(
        [
            Read("d/1", "Refunds", TEXT),
            Read("d/2", "Roses", "# Roses\n\nRed roses grow behind the old greenhouse near the wall.\n"),
        ],
        count=20,
    )


def test_what_fits_several_documents_is_left_out():
    made = draft([Read("d/1", "Same", TEXT), Read("d/2", "Same", TEXT)], count=20)

    assert made == ()


def test_a_written_draft_reads_back_as_a_golden_set(tmp_path):
    made = draft([Read("d/1", "Refunds", TEXT)], count=3)
    write(made, tmp_path / "q.jsonl", tmp_path / "q.tsv")

    found = read("drafted", tmp_path / "q.jsonl", tmp_path / "q.tsv")

    assert len(found.judged) == len(made) == 3
    assert found.documents == ("d/1",)
    assert '"synthetic": true' in (tmp_path / "q.jsonl").read_text()
    with pytest.raises(RefusedError, match="overwrites nothing"):
        write(made, tmp_path / "q.jsonl", tmp_path / "q.tsv")


def test_a_draft_of_nothing_is_refused():
    with pytest.raises(GoldenError, match="at least 1"):
        draft([], count=0)


def test_vectors_of_the_fake_differ_enough_for_these_tests():
    one, other = MODEL.embed_queries(["topic3", "topic4"])
    assert float(np.dot(one, other)) < 0.9
