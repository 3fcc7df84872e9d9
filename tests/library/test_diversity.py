"""A varied choice starts with the best and never repeats itself while something else is left."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lodestore.diversity import mmr

SCORES = hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-5, 5))


def vectors(rows, seed):
    return np.random.default_rng(seed).standard_normal((rows, 4))


@given(SCORES, st.integers(0, 9), st.integers(1, 15), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_each_place_is_chosen_once_and_as_many_as_were_asked_for(scores, seed, k, diversity):
    chosen = mmr(scores, vectors(len(scores), seed), k=k, diversity=diversity)

    assert len(set(chosen)) == len(chosen) == min(k, len(scores))
    assert set(chosen) <= set(range(len(scores)))


@given(SCORES, st.integers(0, 9), st.floats(0, 0.99))
@settings(max_examples=50, deadline=None)
def test_the_most_relevant_is_always_first(scores, seed, diversity):
    scores = np.round(scores, 3)

    assert scores[mmr(scores, vectors(len(scores), seed), k=3, diversity=diversity)[0]] == scores.max()


@given(SCORES, st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_without_diversity_the_order_is_that_of_relevance(scores, seed):
    scores = np.round(scores, 3)
    chosen = mmr(scores, vectors(len(scores), seed), k=len(scores), diversity=0)

    assert chosen == np.argsort(-scores, kind="stable").tolist()


def test_the_scale_of_scores_and_the_length_of_vectors_change_nothing():
    scores, rows = np.array([0.9, 0.8, 0.1, 0.5]), vectors(4, 1)

    assert mmr(scores, rows, k=4, diversity=0.4) == mmr(scores * 7 + 3, rows * 50, k=4, diversity=0.4)


def test_a_copy_comes_after_something_else_and_a_row_of_zeros_is_like_nothing():
    rows = np.array([[1.0, 0], [1, 0], [0, 0], [0, 1]])

    assert mmr(np.array([4.0, 3.9, 1, 2]), rows, k=3, diversity=0.5) == [0, 3, 2]


def test_nothing_to_choose_from_is_no_choice():
    assert mmr(np.array([]), np.zeros((0, 3)), k=3, diversity=0.5) == []
