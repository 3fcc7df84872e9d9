"""The corpus follows its sources, and never retires what may still be there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lodestore.adapters.lance import LanceStore
from lodestore.chunking import Chunker, ChunkOptions
from lodestore.corpus import Corpus, reject
from lodestore.documents import Document, DocumentSource, Reading, Rejected, read
from lodestore.logs import Logs
from lodestore.models import EmbeddingModel, identify
from lodestore.tables import CHUNKS, chunk_table, retired
from lodestore.testing import FrozenClock, MemoryStore
from lodestore.wire import digest

SOURCE = DocumentSource("docs", "docs", max_retire=1.0)
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


class Recording:
    """A store that notes what is written to it."""

    def __init__(self, inner):
        self._inner = inner
        self.writes = []

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def _note(self, verb, name, rows):
        if rows:
            self.writes.append((verb, name, rows))

    def append(self, name, rows):
        self._note("append", name, rows.num_rows)
        self._inner.append(name, rows)

    def upsert(self, name, rows, *, key):
        self._note("upsert", name, rows.num_rows)
        self._inner.upsert(name, rows, key=key)

    def insert(self, name, rows, *, key):
        self._note("insert", name, rows.num_rows)
        return self._inner.insert(name, rows, key=key)

    def delete(self, name, column, values):
        ids = list(values)
        self._note("delete", name, len(ids))
        self._inner.delete(name, column, ids)


@pytest.fixture(params=["memory", "lance"])
def store(request, tmp_path):
    return Recording(MemoryStore() if request.param == "memory" else LanceStore(str(tmp_path / "store")))


@pytest.fixture
def clock():
    return FrozenClock(WHEN)


@pytest.fixture
def corpus(store, clock):
    return Corpus(store, Logs(store, clock), clock)


@pytest.fixture(scope="module")
def chunker():
    identity = identify(EmbeddingModel("words", "1", "package:wordllama"), root=Path())
    return Chunker(identity, ChunkOptions(16))


def document(name, text="some text", *, title="", source="docs", category=None):
    return Document(
        f"{source}/{name}", source, f"{name}.md", title, text, digest([title, text, category]), "text/markdown", None,
        category, WHEN, len(text.split()), {"lang": "en"},
    )  # fmt: skip


def reading(*documents, rejects=(), complete=True, problem=None):
    return Reading("docs", documents, tuple(rejects), complete, problem)


def refused(name, *, reason="unparsable", detail="line 2: no JSON", named=True):
    return Rejected("docs", f"{name}.md", f"docs/{name}" if named else None, reason, detail)


def live(store):
    return sorted(store.read("documents", ["document_id"])["document_id"].to_pylist())


def gone(store):
    return sorted(store.read(retired("documents"), ["document_id"])["document_id"].to_pylist())


def test_a_first_reading_adds_every_document(corpus, store):
    done = corpus.sync(SOURCE, reading(document("a"), document("b")))

    assert (done.read, done.added, done.touched) == (2, 2, 2)
    assert live(store) == ["docs/a", "docs/b"]


def test_a_document_comes_back_as_it_was_stored(corpus):
    one = document('it\'s 100% 你好 \\ "x"', "text\nwith 'quotes'", title="T", category="c")
    corpus.sync(SOURCE, reading(one))

    assert corpus.documents([one.document_id]) == [one]


def test_a_second_run_changes_nothing_and_writes_nothing(corpus, store, chunker):
    same = reading(document("a"), document("b"), rejects=[refused("c"), refused("rows", named=False)])
    corpus.sync(SOURCE, same)
    corpus.sync_chunks(chunker)
    corpus.forget_sources(["docs"])
    store.writes.clear()

    done = corpus.sync(SOURCE, same)
    cut = corpus.sync_chunks(chunker)
    corpus.forget_sources(["docs"])

    assert store.writes == []
    assert (done.touched, done.unchanged, cut.written, cut.retired) == (0, 2, 0, 0)


def test_a_changed_document_replaces_its_chunks_and_no_others(corpus, store, chunker):
    corpus.sync(SOURCE, reading(document("a", "one " * 40), document("b", "two " * 40)))
    before = corpus.sync_chunks(chunker)
    ours = store.read(chunk_table(chunker.id), ["chunk_id"], "document_id = 'docs/b'")["chunk_id"].to_pylist()

    done = corpus.sync(SOURCE, reading(document("a", "three"), document("b", "two " * 40)))
    after = corpus.sync_chunks(chunker)

    chunks = store.read(chunk_table(chunker.id), ["chunk_id", "document_id", "text"]).to_pylist()
    assert (done.changed, done.unchanged, after.written) == (1, 1, 1)
    assert after.retired == before.chunks - len(ours) == store.count(retired(chunk_table(chunker.id)))
    assert [one["text"] for one in chunks if one["document_id"] == "docs/a"] == ["three"]
    assert {one["chunk_id"] for one in chunks if one["document_id"] == "docs/b"} == set(ours)


def test_a_chunk_that_stays_keeps_the_moment_since_when_it_is_visible(corpus, store, chunker, clock):
    corpus.sync(SOURCE, reading(document("a", "a text that stays")))
    corpus.sync_chunks(chunker)
    clock.advance(timedelta(hours=1))

    corpus.sync(SOURCE, reading(document("a", "a text that stays", category="new")))
    corpus.sync_chunks(chunker)

    (row,) = store.read(chunk_table(chunker.id), ["visible_from", "document_hash"]).to_pylist()
    assert row == {
        "visible_from": WHEN,
        "document_hash": document("a", "a text that stays", category="new").content_hash,
    }


def test_a_vanished_document_is_retired_with_its_chunks(corpus, store, chunker):
    corpus.sync(SOURCE, reading(document("a"), document("b")))
    corpus.sync_chunks(chunker)

    done = corpus.sync(SOURCE, reading(document("b")))
    cut = corpus.sync_chunks(chunker)

    assert (done.retired, done.problem, cut.retired) == (1, None, 1)
    assert (live(store), gone(store)) == (["docs/b"], ["docs/a"])
    assert store.read(chunk_table(chunker.id), ["document_id"])["document_id"].to_pylist() == ["docs/b"]


def test_other_sources_are_left_alone(corpus, store):
    corpus.sync(SOURCE, reading(document("a")))
    other = DocumentSource("other", "other", max_retire=1.0)
    corpus.sync(other, Reading("other", (document("x", source="other"),), ()))

    corpus.sync(other, Reading("other", (), ()))

    assert live(store) == ["docs/a"]


def test_a_document_that_comes_back_and_leaves_again_has_two_lives_on_record(corpus, store, clock):
    for _ in range(2):
        corpus.sync(SOURCE, reading(document("a")))
        clock.advance(timedelta(hours=1))
        corpus.sync(SOURCE, reading())
        clock.advance(timedelta(hours=1))

    assert gone(store) == ["docs/a", "docs/a"]


def test_retiring_again_after_a_crash_writes_nothing_twice(corpus, store):
    corpus.sync(SOURCE, reading(document("a")))
    row = store.read("documents")

    corpus.retire(["docs/a"])
    store.upsert("documents", row, key="document_id")  # as if the delete had not come about
    corpus.retire(["docs/a"])

    assert (gone(store), live(store)) == (["docs/a"], [])


def test_more_than_max_retire_retires_nothing_and_says_so(corpus, store):
    guarded = replace(SOURCE, max_retire=0.2)
    corpus.sync(guarded, reading(*[document(str(n)) for n in range(10)]))

    done = corpus.sync(guarded, reading(*[document(str(n)) for n in range(7)]))

    assert (done.retired, store.count("documents")) == (0, 10)
    assert "3 of 10" in done.problem
    assert "LODESTORE_DOCUMENTS__DOCS__MAX_RETIRE=1 lodestore run ingest" in done.problem


def test_a_source_whose_documents_were_kept_is_told_until_it_is_mended(corpus, store):
    guarded = replace(SOURCE, max_retire=0.2)
    corpus.sync(guarded, reading(*[document(str(n)) for n in range(10)]))
    corpus.sync(guarded, reading(*[document(str(n)) for n in range(7)]))

    (told,) = corpus.problems()
    corpus.sync(guarded, reading(*[document(str(n)) for n in range(7)]))
    again, figures = store.count("rejects"), corpus.figures()
    corpus.sync(guarded, reading(*[document(str(n)) for n in range(9)]))

    assert "3 of 10" in told["detail"]
    assert (again, figures["rejected"], corpus.rejects()) == (1, 0, [])
    assert (corpus.problems(), store.count("documents")) == ([], 9)


def test_the_problem_of_an_undeclared_source_is_resolved(corpus):
    corpus.sync(SOURCE, reading(document("a")))
    corpus.sync(SOURCE, reading(complete=False))

    corpus.forget_sources(["another"])

    assert corpus.problems() == []


def test_up_to_max_retire_is_retired(corpus, store):
    guarded = replace(SOURCE, max_retire=0.2)
    corpus.sync(guarded, reading(*[document(str(n)) for n in range(10)]))

    done = corpus.sync(guarded, reading(*[document(str(n)) for n in range(8)]))

    assert (done.retired, done.problem, store.count("documents")) == (2, None, 8)


@pytest.mark.parametrize("problem", [None, "the network was down"])
def test_an_incomplete_reading_retires_nothing_and_says_so(corpus, store, problem):
    corpus.sync(SOURCE, reading(document("a"), document("b")))

    done = corpus.sync(SOURCE, reading(document("b", "changed"), document("c"), complete=False, problem=problem))

    assert (done.retired, done.added, done.changed) == (0, 1, 1)
    assert done.problem
    assert live(store) == ["docs/a", "docs/b", "docs/c"]


def test_a_rejected_file_that_used_to_be_read_stays(corpus, store):
    corpus.sync(SOURCE, reading(document("a"), document("b")))

    done = corpus.sync(SOURCE, reading(document("b"), rejects=[refused("a")]))

    assert (done.retired, done.rejected, done.problem) == (0, 1, None)
    assert live(store) == ["docs/a", "docs/b"]


def test_a_row_without_a_readable_id_may_be_the_missing_document(corpus, store):
    corpus.sync(SOURCE, reading(document("a"), document("b")))

    done = corpus.sync(SOURCE, reading(document("b"), rejects=[refused("rows.jsonl", named=False)]))

    assert done.retired == 0
    assert "1 documents" in done.problem
    assert "rows.jsonl" in done.problem
    assert live(store) == ["docs/a", "docs/b"]


def test_the_row_that_may_be_the_missing_document_is_told_in_short(corpus):
    corpus.sync(SOURCE, reading(document("a"), document("b")))

    done = corpus.sync(SOURCE, reading(document("b"), rejects=[refused("r" * 500, named=False)]))

    assert "r" * 70 in done.problem
    assert "r" * 81 not in done.problem


def test_a_row_without_an_id_is_no_problem_while_nothing_is_missing(corpus):
    done = corpus.sync(SOURCE, reading(document("b"), rejects=[refused("rows.jsonl", named=False)]))

    assert (done.problem, done.rejected) == (None, 1)


def test_a_broken_line_of_a_real_file_retires_nothing(corpus, store, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "a", "text": "first"}\n{"id": "b", "text": "second"}\n')
    source = DocumentSource("docs", str(file), max_retire=1.0)
    corpus.sync(source, read(source, root=tmp_path, now=WHEN))
    file.write_text('{"id": "a", "text": "first"}\n{"id": "b", "text": "sec\n')

    done = corpus.sync(source, read(source, root=tmp_path, now=WHEN))

    assert (done.retired, done.rejected) == (0, 1)
    assert done.problem
    assert live(store) == ["docs/a", "docs/b"]


def test_documents_of_undeclared_sources_are_retired(corpus, store):
    corpus.sync(SOURCE, reading(document("a")))
    corpus.sync(replace(SOURCE, name="old"), Reading("old", (document("x", source="old"),), ()))

    (forgotten,) = corpus.forget_sources(["docs"])

    assert (forgotten.source, forgotten.retired) == ("old", 1)
    assert (live(store), gone(store)) == (["docs/a"], ["old/x"])


def test_no_declared_source_at_all_empties_nothing(corpus, store):
    corpus.sync(SOURCE, reading(document("a")))

    assert corpus.forget_sources([]) == []
    assert live(store) == ["docs/a"]


def test_a_reject_is_logged_once_and_resolved_when_it_is_mended(corpus, store):
    bad = reading(document("a"), rejects=[refused("b")])
    corpus.sync(SOURCE, bad)
    corpus.sync(SOURCE, bad)
    first = store.count("rejects")

    corpus.sync(SOURCE, reading(document("a"), document("b")))

    assert (first, store.count("rejects"), corpus.rejects()) == (1, 2, [])


def test_a_reject_for_another_reason_is_logged_anew(corpus):
    corpus.sync(SOURCE, reading(rejects=[refused("b")]))
    corpus.sync(SOURCE, reading(rejects=[refused("b", reason="too_large", detail="9 bytes")]))

    (row,) = corpus.rejects()
    assert (row["reason"], row["detail"]) == ("too_large", "9 bytes")


def test_two_bad_rows_of_one_file_are_two_rejects(corpus):
    rows = [refused("rows", named=False), refused("rows", named=False, detail="line 9: no JSON")]

    corpus.sync(SOURCE, reading(rejects=rows))

    assert corpus.figures() == {"live": 0, "retired": 0, "rejected": 2}


def test_an_incomplete_reading_resolves_no_reject(corpus):
    corpus.sync(SOURCE, reading(rejects=[refused("b")]))

    corpus.sync(SOURCE, reading(complete=False))

    assert len(corpus.rejects()) == 1


def test_rejects_of_an_undeclared_source_are_resolved(corpus):
    corpus.sync(SOURCE, reading(rejects=[refused("b")]))

    corpus.forget_sources(["other"])

    assert corpus.rejects() == []


def test_rejected_rows_of_event_files_are_not_ours_to_resolve(corpus, store, clock):
    Logs(store, clock).put("rejects", reject("docs", "events.jsonl#1", "invalid_row", "no user_id"))

    corpus.sync(SOURCE, reading(document("a")))
    corpus.forget_sources(["docs", "other"])

    assert len(corpus.rejects()) == 1
    assert corpus.figures()["rejected"] == 0


def test_a_document_that_appears_twice_in_two_sources_is_two_documents(corpus, store):
    corpus.sync(SOURCE, reading(document("a")))
    corpus.sync(replace(SOURCE, name="other"), Reading("other", (document("a", source="other"),), ()))

    assert live(store) == ["docs/a", "other/a"]


def test_a_large_reading_is_written_in_bounded_pieces(corpus, store, chunker):
    corpus.sync(SOURCE, reading(*[document(f"{n:04}", f"text number {n}") for n in range(1_100)]))
    corpus.sync_chunks(chunker)

    sizes = [rows for verb, name, rows in store.writes if verb == "upsert" and name == "documents"]
    cuts = [rows for verb, name, rows in store.writes if verb == "upsert" and name == chunk_table(chunker.id)]
    assert sum(sizes) == 1_100 == sum(cuts)
    assert max(sizes + cuts) <= 500


def test_chunks_cut_before_a_crash_count_once(corpus, store, chunker):
    corpus.sync(SOURCE, reading(document("a", "one " * 40), document("b", "two " * 40)))
    whole = corpus.sync_chunks(chunker).chunks
    name = chunk_table(chunker.id)
    store.delete(name, "document_id", ["docs/b"])  # as if the second step had not come about

    again = corpus.sync_chunks(chunker)

    assert again.chunks == whole
    assert corpus.doubled(name, "chunk_id") == 0
    assert store.read(name, CHUNKS.names).num_rows == whole


def test_a_document_of_blanks_has_no_chunks(corpus, chunker):
    corpus.sync(SOURCE, reading(document("a", " \n\t ")))

    assert corpus.sync_chunks(chunker).chunks == 0
