"""Summaries: sentences of the document itself, always the same ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestore.summaries import ChunkScore, sentences, summarise

TEXT = (
    "# Refunds\n\nA refund is paid to the card that paid. The office has green chairs and tall windows. "
    "A refund takes five days until the card shows it.\n\n| a | b |\n\n- Ask for a refund by mail\n"
)


def test_the_sentences_about_the_matter_are_picked_in_their_order() -> None:
    assert (
        summarise(TEXT) == "A refund is paid to the card that paid. A refund takes five days until the card shows it."
    )


def test_headings_tables_and_scraps_are_no_sentences() -> None:
    assert [one.text for one in sentences(TEXT)][-1] == "Ask for a refund by mail"
    assert summarise("# Only a heading\n\nToo short.") is None
    assert summarise("") is None


def test_a_sentence_in_a_near_chunk_comes_first() -> None:
    text = "The red fox jumps high. The blue whale swims far."
    split = text.index(" The blue") + 1

    picked = summarise(text, count=1, chunks=[ChunkScore(0, split, 0.1), ChunkScore(split, len(text), 0.9)])

    assert picked == "The blue whale swims far."


def test_a_number_with_a_point_does_not_end_a_sentence() -> None:
    assert summarise("Version 1.2 costs 3.50 euros today.") == "Version 1.2 costs 3.50 euros today."


@pytest.mark.parametrize("longest", [5, 40, 400])
def test_a_summary_is_never_longer_than_allowed(longest: int) -> None:
    assert len(summarise(TEXT * 3, longest=longest) or "") <= longest


@given(st.text())
def test_any_text_has_the_same_summary_twice(text: str) -> None:
    assert summarise(text) == summarise(text)
