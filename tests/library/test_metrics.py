from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.errors import GoldenError, RequestError
from lodestore.metrics import (
    Interval,
    bootstrap_mean,
    collapse,
    mrr,
    ndcg,
    overlap,
    paired_bootstrap,
    recall,
    score,
)

documents = st.sampled_from([f"d{place}" for place in range(12)])
rankings = st.lists(documents, max_size=20)
judgements = st.dictionaries(documents, st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=1).filter(
    lambda judged: any(judged.values())
)
places = st.integers(1, 12)
scores = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def best(judged):
    return sorted(judged, key=judged.get, reverse=True)


# --- laws


@given(ranked=rankings, judged=judgements, k=places)
def test_every_measure_lies_between_0_and_1(ranked, judged, k):
    for value in (ndcg(ranked, judged, k=k), recall(ranked, judged, k), mrr(ranked, judged, k)):
        assert 0 <= value <= 1


@given(judged=judgements, k=places)
def test_the_best_order_scores_1(judged, k):
    assert ndcg(best(judged), judged, k=k) == 1
    assert recall(best(judged), judged, len(judged)) == 1
    assert mrr(best(judged), judged) == 1


@given(ranked=rankings, judged=judgements, k=places)
def test_irrelevant_documents_at_the_end_change_nothing(ranked, judged, k):
    longer = [*ranked, "x1", "x2"]

    assert ndcg(longer, judged, k=k) == ndcg(ranked, judged, k=k)
    assert recall(longer, judged, k) == recall(ranked, judged, k)
    assert mrr(longer, judged, k) == mrr(ranked, judged, k)


@given(ranked=rankings, judged=judgements, k=places)
def test_a_document_counts_once_at_its_first_place(ranked, judged, k):
    once = collapse(ranked)

    assert ndcg(ranked, judged, k=k) == ndcg(once, judged, k=k)
    assert recall([*ranked, *ranked], judged, k) == recall(once, judged, k)
    assert mrr([*ranked, *ranked], judged) == mrr(once, judged)


@given(ranked=rankings, judged=judgements, k=places)
def test_more_places_never_find_less(ranked, judged, k):
    assert recall(ranked, judged, k) <= recall(ranked, judged, k + 1)
    assert mrr(ranked, judged, k) <= mrr(ranked, judged)


@given(ranked=st.lists(documents, min_size=2, unique=True), judged=judgements, data=st.data())
def test_moving_a_better_document_up_never_costs_ndcg(ranked, judged, data):
    upper = data.draw(st.integers(0, len(ranked) - 2))
    swapped = list(ranked)
    swapped[upper], swapped[upper + 1] = ranked[upper + 1], ranked[upper]
    gain = judged.get(swapped[upper], 0) - judged.get(ranked[upper], 0)

    change = ndcg(swapped, judged, k=5) - ndcg(ranked, judged, k=5)

    assert change * gain >= 0


@given(ranked=rankings, judged=judgements, factor=st.sampled_from([2.0, 10.0]))
def test_the_scale_of_the_judgements_does_not_matter(ranked, judged, factor):
    scaled = {one: value * factor for one, value in judged.items()}

    assert ndcg(ranked, scaled) == pytest.approx(ndcg(ranked, judged))


@given(a=rankings, b=rankings, k=places)
def test_overlap_is_symmetric_and_1_on_itself(a, b, k):
    assert overlap(a, b, k) == overlap(b, a, k)
    assert overlap(a, a, k) == 1
    assert 0 <= overlap(a, b, k) <= 1


# --- values worked out by hand


def test_ndcg_is_linear_in_the_gain_and_logarithmic_in_the_rank():
    judged = {"a": 3.0, "b": 2.0, "c": 1.0}
    found = 2 + 1 / math.log2(3) + 3 / math.log2(5)
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)

    assert ndcg(["b", "c", "x", "a"], judged) == pytest.approx(found / ideal)


def test_the_ideal_order_of_ndcg_holds_what_was_not_found():
    assert ndcg(["a"], {"a": 1.0, "b": 1.0}) == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert ndcg(["a"], {"a": 1.0, "b": 1.0}, k=1) == 1


def test_recall_and_reciprocal_rank_look_at_k_places():
    ranked, judged = ["x", "x", "y", "a", "b"], {"a": 1.0, "b": 2.0, "c": 0.0}

    assert recall(ranked, judged, 3) == 0.5
    assert recall(ranked, judged, 4) == 1
    assert mrr(ranked, judged) == pytest.approx(1 / 3)
    assert mrr(ranked, judged, 2) == 0


def test_a_ranking_that_found_nothing_scores_0():
    assert ndcg([], {"a": 1.0}) == recall([], {"a": 1.0}) == mrr([], {"a": 1.0}) == 0


def test_judgements_of_0_and_below_gain_nothing():
    assert ndcg(["bad", "a"], {"a": 1.0, "bad": -1.0}) == ndcg(["x", "a"], {"a": 1.0})


def test_an_answer_that_lost_documents_is_another_answer():
    assert overlap(["a", "b", "c", "d"], ["b", "a"], 4) == 0.5
    assert overlap(["a", "b", "x"], ["b", "a", "y"], 2) == 1
    assert overlap([], []) == 1


def test_chunks_collapse_to_documents_at_their_best_rank():
    assert collapse(["d2", "d1", "d2", "d3", "d1"]) == ["d2", "d1", "d3"]


@pytest.mark.parametrize("measure", [ndcg, recall, mrr])
def test_a_query_without_a_relevant_document_is_an_error(measure):
    for judged in ({}, {"a": 0.0}):
        with pytest.raises(GoldenError, match="no document is judged relevant"):
            measure(["a"], judged)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_judgement_that_is_no_number_is_an_error_that_names_the_document(value):
    with pytest.raises(GoldenError, match=f"document 'b' is judged {value}"):
        ndcg(["a"], {"a": 1.0, "b": value})


@pytest.mark.parametrize("measure", [lambda: ndcg([], {"a": 1}, k=0), lambda: overlap(["a"], ["a"], 0)])
def test_less_than_one_place_is_refused(measure):
    with pytest.raises(RequestError, match="k is 0"):
        measure()


# --- intervals


@settings(max_examples=50)
@given(values=scores, seed=st.integers(0, 2**32))
def test_an_interval_lies_within_the_values_and_is_the_same_for_the_same_seed(values, seed):
    interval = bootstrap_mean(values, seed=seed, rounds=200)

    assert min(values) - 1e-12 <= interval.low <= interval.high <= max(values) + 1e-12
    assert interval.value == pytest.approx(np.mean(values))
    assert interval == bootstrap_mean(values, seed=seed, rounds=200)


@settings(max_examples=50)
@given(values=scores, seed=st.integers(0, 2**32))
def test_a_model_against_itself_differs_by_exactly_0(values, seed):
    assert paired_bootstrap(values, values, seed=seed, rounds=200) == Interval(0.0, 0.0, 0.0)


@settings(max_examples=50)
@given(pairs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1), seed=st.integers(0, 2**32))
def test_changing_sides_mirrors_the_difference(pairs, seed):
    left, right = np.array(pairs).T

    there, back = (paired_bootstrap(*sides, seed=seed, rounds=200) for sides in ((left, right), (right, left)))

    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_about_95_of_100_intervals_hold_the_true_mean():
    random = np.random.default_rng(7)

    intervals = [bootstrap_mean(random.random(100), seed=seed, rounds=500) for seed in range(200)]

    assert 180 <= sum(one.low <= 0.5 <= one.high for one in intervals) <= 198


def test_the_interval_is_that_of_theory():
    values = np.random.default_rng(1).normal(size=1000)
    half = 1.96 * values.std() / math.sqrt(values.size)

    interval = bootstrap_mean(values, seed=2, rounds=10_000)

    assert interval.low == pytest.approx(values.mean() - half, abs=0.005)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.005)


def test_pairing_sees_a_small_gain_that_the_spread_of_queries_would_hide():
    random = np.random.default_rng(3)
    live = random.random(225)

    difference = paired_bootstrap(live + random.normal(0.02, 0.02, 225), live, seed=4)

    assert 0.01 < difference.low < difference.value < difference.high < 0.03


def test_a_wider_level_gives_a_wider_interval():
    values = np.random.default_rng(5).random(60)
    narrow, wide = (bootstrap_mean(values, seed=6, level=level) for level in (0.5, 0.99))

    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("values", [[], [[0.5], [0.5]]])
def test_no_scores_are_an_error(values):
    with pytest.raises(GoldenError, match="one score a query"):
        bootstrap_mean(values, seed=0)


def test_a_score_that_is_no_number_is_an_error_that_names_its_place():
    with pytest.raises(GoldenError, match="live: score 1 is nan"):
        paired_bootstrap([0.5, 0.5], [0.5, math.nan], seed=0)


def test_scores_of_different_queries_cannot_be_paired():
    with pytest.raises(GoldenError, match="candidate has 2 scores, live has 3"):
        paired_bootstrap([0.5] * 2, [0.5] * 3, seed=0)


@pytest.mark.parametrize("options", [{"rounds": 0}, {"level": 1.0}, {"level": 0.0}])
def test_an_interval_of_no_rounds_or_no_level_is_refused(options):
    with pytest.raises(RequestError, match="at least one round"):
        bootstrap_mean([0.5], seed=0, **options)


# --- scores of a whole set


JUDGED = {"q1": {"a": 1.0}, "q2": {"b": 1.0, "c": 1.0}}


def test_a_set_is_scored_query_by_query():
    scored = score({"q2": ["x", "b"], "q1": ["a"], "unjudged": []}, JUDGED, k=2)

    assert scored.query_ids == ("q1", "q2")
    assert scored.recall.tolist() == [1.0, 0.5]
    assert scored.mrr.tolist() == [1.0, 0.5]
    assert len(scored) == 2


def test_the_summary_bears_the_names_that_evaluate_prints():
    summary = score({"q1": ["a"], "q2": ["b", "c"]}, JUDGED).summary(seed=0)

    assert {name: one.to_json() for name, one in summary.items()} == {
        name: {"value": 1.0, "low": 1.0, "high": 1.0} for name in ("ndcg@10", "recall@10", "mrr")
    }


def test_one_segment_can_be_looked_at_alone():
    scored = score({"q1": ["x"], "q2": ["b"]}, JUDGED).only(["q2", "elsewhere"])

    assert scored.query_ids == ("q2",)
    assert scored.mrr.tolist() == [1.0]


def test_a_judged_query_without_a_ranking_is_an_error():
    with pytest.raises(GoldenError, match="1 judged queries have no ranking, the first is 'q2'"):
        score({"q1": ["a"]}, JUDGED)


def test_scores_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        score({"q1": ["a"], "q2": []}, JUDGED).ndcg[0] = 1
