"""Whole arrays of vectors: their length, their health, their mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lodestore.errors import BadVectorError, DimensionError
from lodestore.vectors import anisotropy, checked, health, mean_direction, neighbours_kept, normalised, norms

SOUND = hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=st.floats(-100, 100, width=32))


@given(SOUND)
def test_normalised_rows_have_length_one_or_stay_zero(vectors):
    vectors[np.abs(vectors) < 1e-3] = 0

    lengths = norms(normalised(vectors))

    assert np.all(np.isclose(lengths, 1, atol=1e-5) | (norms(vectors) == 0))


@given(SOUND)
def test_normalising_changes_nothing_that_it_was_given(vectors):
    before = vectors.copy()

    normalised(vectors)

    assert np.array_equal(vectors, before)


def test_health_counts_each_kind_of_bad_row_once():
    rows = np.array([[np.nan, np.inf], [np.inf, 0], [0, 0], [3, 4], [3, 4]])

    found = health(rows)

    assert (found.rows, found.nan, found.infinite, found.zero, found.bad, found.duplicates) == (5, 1, 1, 1, 3, 1)
    assert (found.norm_max, found.norm_min, found.healthy) == (5.0, 0.0, False)


def test_health_of_nothing_sound_has_no_spread():
    found = health(np.full((2, 3), np.nan))

    assert (found.norm_mean, found.norm_std, found.duplicates) == (0.0, 0.0, 0)


def test_anisotropy_is_one_for_a_collapsed_model_and_small_for_random_directions():
    rng = np.random.default_rng(0)

    assert anisotropy(np.ones((10, 4))) == pytest.approx(1.0)
    assert abs(anisotropy(rng.standard_normal((500, 64)))) < 0.01
    assert anisotropy(np.array([[np.nan, 1.0], [0.0, 0.0]])) is None


def test_health_tells_how_lengths_are_spread_and_how_alike_directions_are():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1_000, 8)) + 2

    found = health(np.vstack([rows, np.full((1, 8), np.nan)]))

    lengths = np.linalg.norm(rows, axis=1)
    assert (found.norm_p01, found.norm_p99) == pytest.approx(tuple(np.quantile(lengths, [0.01, 0.99])))
    assert found.anisotropy == pytest.approx(anisotropy(rows))
    assert health(np.ones((1, 3))).anisotropy is None


def test_neighbours_are_kept_by_a_turn_and_lost_to_chance():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1_200, 16))
    turn = np.linalg.qr(rng.standard_normal((16, 16)))[0]

    assert neighbours_kept(rows, 5 * rows @ turn) > 0.99
    assert neighbours_kept(rows, rng.standard_normal((1_200, 16))) < 0.05
    assert neighbours_kept(rows[:3], rows[:3], k=10) == 1
    assert neighbours_kept(rows[:1], rows[:1]) is None
    with pytest.raises(BadVectorError, match="3 rows before and 2 after"):
        neighbours_kept(rows[:3], rows[:2])


def test_the_mean_direction_has_length_one_and_minds_weights():
    mean = mean_direction(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([3.0, 1.0]))

    assert np.allclose(mean, np.array([3.0, 1.0]) / np.sqrt(10))


def test_checked_gives_float32_for_anything_that_is_sound():
    array = checked([[1, 2], [3, 4]], texts=2, dimension=2, label="m@1")

    assert array.dtype == np.float32
    assert array.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("vectors", "error", "says"),
    [
        (np.array([[1.0, np.nan]]), BadVectorError, "1 NaN, 0 infinite and 0 zero"),
        (np.array([[1.0, np.inf]]), BadVectorError, "0 NaN, 1 infinite"),
        (np.array([[1.0, 1e300]]), BadVectorError, "1 infinite"),  # too large for 32 bits
        (np.zeros((1, 2)), BadVectorError, "1 zero"),
        (np.ones((2, 2)), BadVectorError, r"shape \(2, 2\) for 1 texts"),
        (np.ones(2), BadVectorError, "one row per text"),
        (np.ones((1, 3)), DimensionError, "m@1 writes 3 numbers, 2 are registered"),
        ([[1.0], [1.0, 2.0]], BadVectorError, "no array of numbers"),
        ("words", BadVectorError, "no array of numbers"),
    ],
)
def test_checked_says_what_is_wrong(vectors, error, says):
    with np.errstate(over="ignore"), pytest.raises(error, match=says):
        checked(vectors, texts=1, dimension=2, label="m@1")
