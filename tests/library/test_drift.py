"""Drift: the verdicts are right, bad input gets one too, and a pinned baseline speaks like the window it was."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lodestore.drift import (
    Baseline,
    Verdict,
    category_drift,
    compare,
    embedding_drift,
    guess_language,
    jensen_shannon,
    numeric_drift,
    psi,
    sketch,
    text_drift,
    variation,
)
from lodestore.drift.numeric import NumericSketch
from lodestore.drift.shares import two_proportions
from lodestore.drift.verdict import Evidence, Signal, judge
from lodestore.errors import RequestError, SchemaVersionError, StoreError

ENGLISH = "the roof of the house is not dry and that is bad for us"
GERMAN = "das Dach ist nicht dicht und das ist für uns von Nachteil"


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(scope="module")
def topics():
    world = np.random.default_rng(1)
    return _unit(world.standard_normal((25, 384)) + 0.5 * world.standard_normal(384))


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _cloud(rng, rows, topics):
    noise = rng.standard_normal((rows, topics.shape[1])) / np.sqrt(topics.shape[1])
    return _unit(topics[rng.integers(len(topics), size=rows)] + noise).astype(np.float32)


def _vectors(array):
    return pa.FixedSizeListArray.from_arrays(pa.array(array.astype(np.float32).ravel()), array.shape[1])


def _mixed(rng, rows):
    return pa.table(
        {
            "age": rng.gamma(2, 30, rows),
            "level": rng.choice(["beginner", "expert", "intermediate"], rows, p=[0.5, 0.2, 0.3]),
            "paid": rng.random(rows) < 0.3,
            "notes": [f"{ENGLISH} {'and more ' * size}" for size in rng.integers(1, 80, rows)],
            "vector": _vectors(rng.standard_normal((rows, 16)) + 1),
            "seen": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * rows, pa.timestamp("us", "UTC")),
            "user_id": [f"u{at}" for at in range(rows)],
        }
    )


# Numbers


def test_the_same_distribution_is_no_drift(rng):
    found = numeric_drift(rng.standard_normal(2_000), rng.standard_normal(2_000), feature="age")

    assert found.verdict is Verdict.NONE
    assert (found.feature, found.kind, found.n_baseline, found.n_current) == ("age", "numeric", 2_000, 2_000)


def test_a_quarter_of_a_spread_is_seen_among_500_rows_in_most_windows(rng):
    caught = [numeric_drift(rng.standard_normal(500), rng.standard_normal(500) + 0.25).drifted for _ in range(200)]

    assert np.mean(caught) >= 0.85


def test_a_spread_that_grows_by_a_quarter_is_seen_among_5000_rows(rng):
    caught = [numeric_drift(rng.standard_normal(5_000), rng.standard_normal(5_000) * 1.25).drifted for _ in range(50)]

    assert all(caught)


def test_a_shift_too_small_to_matter_is_no_drift_however_sure_it_is(rng):
    found = numeric_drift(rng.standard_normal(100_000), rng.standard_normal(100_000) + 0.03)

    assert found.p < 1e-4
    assert found.verdict is Verdict.NONE


def test_a_constant_that_moves_is_drift_and_one_that_stays_is_none():
    still, moved = np.full(500, 3.0), np.full(500, 3.1)

    assert numeric_drift(still, moved).drifted
    assert numeric_drift(moved, still).drifted
    assert numeric_drift(still, still).verdict is Verdict.NONE


def test_nan_counts_as_null_and_two_more_points_of_it_are_drift(rng):
    before, after = rng.standard_normal(5_000), rng.standard_normal(5_000)
    after[:100] = np.nan

    found = numeric_drift(before, after)

    assert (found.verdict, found.measure) == (Verdict.DRIFT, "null_share")
    assert found.value == pytest.approx(0.02)
    assert "0.00% -> 2.00%" in found.explanation


def test_the_first_infinite_value_is_told_and_leaves_the_moments_alone(rng):
    before, after = rng.standard_normal(500), rng.standard_normal(500)
    after[7] = np.inf

    found = numeric_drift(before, after)

    assert (found.verdict, found.measure) == (Verdict.DRIFT, "infinite_share")
    assert "1 of 500 values are infinite" in found.explanation
    assert np.isfinite(found.current["mean"])


def test_infinite_values_that_were_always_there_are_no_drift(rng):
    before, after = rng.standard_normal(1_000), rng.standard_normal(1_000)
    before[:50] = np.inf
    after[:50] = -np.inf

    assert numeric_drift(before, after).verdict is Verdict.NONE


def test_numbers_beyond_what_can_be_added_up_still_compare():
    huge = np.linspace(1e308, 1.7e308, 200)

    found = numeric_drift(huge, huge)

    assert found.verdict is Verdict.NONE
    assert json.dumps(found.to_dict(), allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_an_array_against_itself_has_no_psi_and_no_drift(values):
    array = np.array(values)

    assert psi(array, array) == 0
    assert not numeric_drift(array, array).drifted


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 50), st.floats(-50, 50))
def test_the_verdict_does_not_depend_on_the_unit_of_measurement(seed, scale, offset):
    draw = np.random.default_rng(seed)
    before, after = draw.standard_normal(200), draw.standard_normal(200) + 0.3

    plain = numeric_drift(before, after)
    scaled = numeric_drift(before * scale + offset, after * scale + offset)

    assert scaled.verdict is plain.verdict
    assert scaled.p == pytest.approx(plain.p, rel=1e-6)


def test_the_distance_is_that_of_kolmogorov_and_smirnov(rng):
    before, after = rng.standard_normal(800), rng.standard_normal(600) + 0.5

    found = numeric_drift(before, after)

    assert found.measure == "ks"
    assert found.value == pytest.approx(stats.ks_2samp(before, after).statistic)


# Families of features


def test_twenty_quiet_features_raise_nothing_in_98_of_100_runs(rng):
    def window():
        return pa.table({f"f{at}": rng.standard_normal(500) for at in range(20)})

    alarms = sum(bool(compare(window(), window()).drifted) for _ in range(200))

    assert alarms <= 4


def test_a_quarter_of_a_spread_in_one_of_twenty_features_is_seen_among_500_rows(rng):
    quiet = [Evidence(f"f{at}", "numeric", (Signal("ks", 1.0, 0.05, 0.9),)) for at in range(19)]

    def found(rows_before):
        before = NumericSketch.of(rng.standard_normal(rows_before))
        moved = NumericSketch.of(rng.standard_normal(500) + 0.25)
        return judge([Evidence("moved", "numeric", before.signals(moved, min_rows=30)), *quiet])[0].drifted

    # a baseline of eight windows, and one of two
    assert np.mean([found(4_000) for _ in range(200)]) >= 0.9
    assert np.mean([found(1_000) for _ in range(200)]) >= 0.75


def test_the_shift_that_a_report_says_it_sees_is_seen_in_about_85_of_100_windows(rng):
    before, after = ({f"f{at}": rng.standard_normal(n) for at in range(5)} for n in (2_000, 400))
    size = compare(pa.table(before), pa.table(after)).sees

    caught = [
        compare(
            pa.table({f"f{at}": rng.standard_normal(2_000) for at in range(5)}),
            pa.table({f"f{at}": rng.standard_normal(400) + size * (at == 0) for at in range(5)}),
        ).drifted
        for _ in range(200)
    ]

    assert 0.75 <= np.mean(["f0" in one for one in caught]) <= 0.95


def test_a_comparison_without_rows_sees_no_shift():
    empty = pa.table({"a": pa.array([], pa.float64())})

    assert compare(empty, empty).sees is None


# What is usual


def weeks(rng, count, rows=3_000, between=0.0, features=1):
    """Windows whose means differ among each other by `between` standard deviations."""
    return [
        pa.table({f"f{at}": rng.standard_normal(rows) + between * rng.standard_normal() for at in range(features)})
        for _ in range(count)
    ]


def test_weeks_that_differ_by_themselves_raise_alarms_only_until_eight_are_known(rng):
    plain, fitted = 0, 0
    for _ in range(30):
        *history, now = weeks(rng, 27, rows=1_500, between=0.2, features=2)
        pinned = sketch(pa.concat_tables(history[-8:]))
        known = variation([sketch(one) for one in history])
        plain += bool(compare(pinned, now).drifted)
        fitted += bool(compare(pinned, now, natural=known).drifted)

    assert plain >= 15
    assert fitted <= 2


def test_weeks_that_differ_by_themselves_still_show_what_is_far_beyond_that(rng):
    *history, now = weeks(rng, 27, between=0.1)
    known = variation([sketch(one) for one in history])
    pinned = sketch(pa.concat_tables(history[-8:]))
    moved = pa.table({"f0": now["f0"].to_numpy() + 1.0})

    found = compare(pinned, moved, natural=known)["f0"]

    assert found.drifted
    assert found.limit > 0.05
    assert "26 windows differ by themselves" in found.explanation


def test_the_limits_of_quiet_weeks_stay_what_they_were(rng):
    known = [variation([sketch(one) for one in weeks(rng, 9, rows=300)])["f0"] for _ in range(60)]

    # one in twenty histories looks restless by chance
    assert {one.windows for one in known} == {9}
    assert sum(bool(one.typical) for one in known) <= 9


def test_a_drift_that_lasts_does_not_become_its_own_excuse(rng):
    before, after = weeks(rng, 6), weeks(rng, 6)
    after = [pa.table({"f0": one["f0"].to_numpy() + 0.6}) for one in after]
    known = variation([sketch(one) for one in (*before, *after[:-1])])

    assert compare(before[0], after[-1], natural=known).drifted == ("f0",)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_fewer_than_eight_windows_say_nothing_of_what_is_usual(rng, count):
    known = variation([sketch(one) for one in weeks(rng, count, rows=200, between=1.0)])

    assert not any(one.typical for one in known.values())


def test_what_is_usual_is_known_of_categories_and_nulls_too(rng):
    def week():
        share, empty = rng.uniform(0.3, 0.7), rng.uniform(0.0, 0.1)
        level = np.where(rng.random(2_000) < share, "a", "b").astype(object)
        age = np.where(rng.random(2_000) < empty, np.nan, rng.standard_normal(2_000))
        return pa.table({"level": pa.array(level, pa.string()), "age": age})

    history = [week() for _ in range(26)]
    known = variation([sketch(one) for one in history])
    pinned = sketch(pa.concat_tables(history[-8:]))

    alarms = [compare(pinned, week(), natural=known).drifted for _ in range(40)]
    plain = [compare(pinned, week()).drifted for _ in range(40)]

    assert sum(map(bool, plain)) >= 20
    assert sum(map(bool, alarms)) <= 3


def test_a_column_that_came_later_has_no_past(rng):
    old, new = weeks(rng, 9), [one.append_column("g", pa.array(rng.random(one.num_rows))) for one in weeks(rng, 2)]

    known = variation([sketch(one) for one in (*old, *new)])

    assert (known["g"].windows, known["g"].typical) == (2, {})
    assert known["f0"].windows == 11


def test_holm_gives_the_second_feature_what_the_first_no_longer_needs():
    def case(name, p):
        return Evidence(name, "numeric", (Signal("ks", 1.0, 0.05, p),))

    found = judge([case("a", 0.001), case("b", 0.009), case("c", 0.5)], alpha=0.02)

    assert [one.drifted for one in found] == [True, True, False]


@pytest.mark.parametrize(("hits_a", "hits_b"), [(0, 3), (2, 9), (300, 360)])
def test_two_proportions_agree_with_scipy(hits_a, hits_b):
    found = two_proportions(hits_a, 2_000, hits_b, 2_000)

    table = [[hits_a, 2_000 - hits_a], [hits_b, 2_000 - hits_b]]
    exact = stats.fisher_exact(table).pvalue
    normal = stats.chi2_contingency(table, correction=False).pvalue
    assert found == pytest.approx(exact if hits_a + hits_b < 20 else normal)


# Categories


def test_swapped_categories_are_drift_and_named(rng):
    before = rng.choice(["a", "b"], 1_000, p=[0.7, 0.3])
    after = np.where(before == "a", "b", "a")

    found = category_drift(before, after)

    assert (found.verdict, found.measure) == (Verdict.DRIFT, "js")
    assert "'a'" in found.explanation


def test_a_category_never_seen_before_is_drift(rng):
    before = rng.choice(["a", "b"], 2_000)
    after = np.concatenate([rng.choice(["a", "b"], 1_970), np.full(30, "alien")])

    found = category_drift(before, after)

    assert found.drifted
    assert "'alien' (30 rows)" in found.explanation


def test_a_long_tail_of_rare_categories_is_no_drift(rng):
    shares = 1 / np.arange(1, 2_001)
    names = np.array([f"c{at}" for at in range(2_000)])

    alarms = [
        category_drift(*(rng.choice(names, 500, p=shares / shares.sum()) for _ in range(2))).drifted for _ in range(60)
    ]

    assert sum(alarms) <= 2


@given(st.lists(st.integers(0, 50), min_size=2, max_size=8).filter(any))
def test_the_distance_of_frequencies_is_zero_on_itself_and_never_above_one(counts):
    array = np.array(counts, dtype=np.float64)

    assert jensen_shannon(array, array) == 0
    assert 0 <= jensen_shannon(array, array[::-1]) <= 1 + 1e-9


# Texts


def test_texts_in_another_language_are_drift(rng):
    before = [f"{ENGLISH} {'and so on ' * size}" for size in rng.integers(1, 9, 300)]
    after = [text if at % 4 else GERMAN for at, text in enumerate(before)]

    found = text_drift(before, after)

    assert found.drifted
    assert "language" in found.explanation


def test_texts_that_grow_longer_are_drift(rng):
    before = ["word " * size for size in rng.integers(5, 20, 400)]
    after = ["word " * size for size in rng.integers(15, 40, 400)]

    found = text_drift(before, after)

    assert (found.drifted, found.measure) == (True, "length_ks")


@pytest.mark.parametrize(
    ("text", "language"),
    [(ENGLISH, "english"), (GERMAN, "german"), ("это дом", "cyrillic"), ("这是一个房子", "chinese"), ("", "unknown")],
)
def test_a_language_is_guessed_from_script_and_small_words(text, language):
    assert guess_language(text) == language


# Embeddings


def test_five_per_cent_of_off_topic_documents_are_seen_among_500(rng, topics):
    before = _cloud(rng, 500, topics[:20])
    after = np.concatenate([_cloud(rng, 475, topics[:20]), _cloud(rng, 25, topics[20:])])
    names = [f"doc-{at}" for at in range(500)]

    found = embedding_drift(before, after, 0, names=names)

    assert (found.verdict, found.measure) == (Verdict.DRIFT, "far_share")
    farthest = found.explanation.split("farthest: ")[1].split(";")[0].split(", ")
    assert all(int(name.removeprefix("doc-")) >= 475 for name in farthest)


def test_five_per_cent_of_off_topic_documents_are_seen_among_5000(rng, topics):
    before = _cloud(rng, 5_000, topics[:20])
    after = np.concatenate([_cloud(rng, 4_750, topics[:20]), _cloud(rng, 250, topics[20:])])

    assert embedding_drift(before, after, 0).drifted


def test_documents_of_the_same_topics_are_no_drift(rng, topics):
    alarms = [embedding_drift(_cloud(rng, 500, topics), _cloud(rng, 500, topics), at).drifted for at in range(20)]

    assert sum(alarms) <= 1


def test_a_silently_swapped_model_of_the_same_dimension_is_drift(rng, topics):
    turn = np.linalg.qr(rng.standard_normal((384, 384)))[0]
    before = _cloud(rng, 100, topics)

    assert embedding_drift(before, (_cloud(rng, 100, topics) @ turn), 0).drifted


def test_topics_that_change_their_shares_are_drift(rng, topics):
    found = embedding_drift(_cloud(rng, 1_000, topics), _cloud(rng, 1_000, topics[:12]), 0)

    assert found.drifted
    assert "mmd" in found.explanation


def test_vectors_that_are_no_longer_of_length_one_are_drift(rng, topics):
    found = embedding_drift(_cloud(rng, 300, topics), 2 * _cloud(rng, 300, topics), 0)

    assert (found.verdict, found.measure) == (Verdict.DRIFT, "norm")


def test_another_dimension_is_drift_and_unusable_vectors_are_counted(rng, topics):
    before, after = _cloud(rng, 300, topics), _cloud(rng, 300, topics)
    after[:30] = np.nan

    assert "384 numbers a vector -> 64" in embedding_drift(before, after[:, :64], 0).explanation
    assert embedding_drift(before, after, 0).measure == "bad_share"


# Whole tables


def test_every_column_is_compared_as_what_it_is(rng):
    found = compare(_mixed(rng, 400), _mixed(rng, 400))

    kinds = {one.feature: one.kind for one in found.features}
    assert found.drifted == ()
    assert kinds == {
        "age": "numeric",
        "level": "category",
        "paid": "category",
        "notes": "text",
        "vector": "embedding",
        "seen": "timestamp",
        "user_id": "identifier",
    }
    assert "freshness" in found["seen"].explanation


def test_a_pinned_baseline_speaks_as_the_window_that_it_was(rng):
    before, after = _mixed(rng, 5_000), _mixed(rng, 600)

    stored = Baseline.from_json(sketch(before).to_json())

    assert stored.rows == 5_000
    assert compare(stored, after).to_dict() == compare(before, after).to_dict()


def test_a_sketch_of_many_numbers_keeps_their_distribution(rng):
    before, after = rng.lognormal(size=300_000), rng.lognormal(size=70_000) * 1.2

    found = numeric_drift(before, after)

    assert found.value == pytest.approx(stats.ks_2samp(before, after).statistic, abs=5e-4)
    assert (found.n_baseline, found.n_current) == (300_000, 70_000)


def test_a_report_is_json_with_the_names_that_drifted(rng):
    before = pa.table({"age": rng.standard_normal(500), "size": rng.standard_normal(500)})
    after = pa.table({"age": rng.standard_normal(500), "size": rng.standard_normal(500) + 2})

    found = json.loads(json.dumps(compare(before, after).to_dict(), allow_nan=False))

    assert found["rows"] == {"baseline": 500, "current": 500}
    assert found["drifted"] == ["size"]
    needed = {"feature", "kind", "measure", "value", "limit", "p", "verdict", "baseline", "current"}
    assert needed <= set(found["features"][0])


def test_a_private_column_shows_counts_alone(rng):
    before = pa.table({"email": [f"{name}@home.example" for name in rng.choice(["anna", "ben"], 300)]})
    after = pa.table({"email": [f"{name}@far.example" for name in rng.choice(["carla", "dorothea"], 300)]})

    report = compare(before, after, private={"email"})

    assert report.drifted == ("email",)
    assert "example" not in json.dumps(report.to_dict())
    assert "example" not in sketch(before, private={"email"}).to_json()


def test_the_farthest_documents_are_told_by_their_id(rng, topics):
    before = pa.table(
        {"vector": _vectors(_cloud(rng, 300, topics[:5])), "document_id": [f"d{at}" for at in range(300)]}
    )
    after = pa.table({"vector": _vectors(_cloud(rng, 300, topics[9:])), "document_id": [f"e{at}" for at in range(300)]})

    report = compare(before, after, ids="document_id")

    assert [one.feature for one in report.features] == ["vector"]
    assert "farthest: e" in report["vector"].explanation


# Bad input: a verdict each, no exception


@pytest.mark.parametrize(("rows", "told"), [(0, "is empty"), (1, "has 1 row,"), (29, "has 29 rows")])
def test_a_window_too_small_is_insufficient_data(rng, rows, told):
    report = compare(_mixed(rng, 400), _mixed(rng, 400).slice(0, rows))

    assert {one.verdict for one in report.features} == {Verdict.INSUFFICIENT_DATA}
    assert all(told in one.explanation for one in report.features)


def test_an_empty_baseline_is_insufficient_data(rng):
    report = compare(_mixed(rng, 400).slice(0, 0), _mixed(rng, 400))

    assert {one.verdict for one in report.features} == {Verdict.INSUFFICIENT_DATA}


def test_all_null_is_drift_where_there_were_values_and_insufficient_where_there_were_none(rng):
    nulls = pa.table({"age": pa.nulls(400, pa.float64())})
    untyped = pa.table({"age": pa.nulls(400)})
    values = pa.table({"age": rng.standard_normal(400)})

    assert compare(values, nulls)["age"].measure == "null_share"
    assert compare(values, untyped).drifted == ("age",)
    assert compare(untyped, values).drifted == ("age",)
    assert compare(nulls, nulls)["age"].verdict is Verdict.INSUFFICIENT_DATA
    assert "all null" in compare(nulls, untyped)["age"].explanation


def test_a_column_that_vanished_is_drift_and_a_new_one_is_noted(rng):
    values = rng.standard_normal(400)

    report = compare(pa.table({"old": values}), pa.table({"new": values}))

    assert report.drifted == ("old",)
    assert "vanished" in report["old"].explanation
    assert (report["new"].verdict, "new column" in report["new"].explanation) == (Verdict.NONE, True)


def test_numbers_that_became_mixed_strings_are_drift_with_their_count(rng):
    before = pa.table({"age": rng.standard_normal(400)})
    after = pa.table({"age": ["n/a" if at < 3 else str(at) for at in range(400)]})

    found = compare(before, after)["age"]

    assert found.drifted
    assert "3 of 400 values are no numbers" in found.explanation


def test_vectors_of_another_or_of_mixed_length_have_their_verdicts(rng):
    before = pa.table({"v": _vectors(rng.standard_normal((100, 8)))})
    ragged = pa.table({"v": pa.array([[1.0] * (8 if at % 2 else 5) for at in range(100)], pa.list_(pa.float32()))})

    assert "8 numbers a vector -> 4" in compare(before, pa.table({"v": _vectors(np.ones((100, 4)))}))["v"].explanation
    assert compare(before, ragged).drifted == ("v",)


def test_types_without_a_detector_are_compared_by_their_nulls():
    column = pa.array([{"a": 1}] * 100)
    gaps = pa.array([{"a": 1}] * 60 + [None] * 40, column.type)

    assert compare(pa.table({"s": column}), pa.table({"s": column}))["s"].verdict is Verdict.NONE
    assert compare(pa.table({"s": column}), pa.table({"s": gaps})).drifted == ("s",)


def _odd_columns():
    ones = [1.5, None, 2.5, float("nan"), float("inf")] * 20
    words = ["a", None, "b", "", "long " * 30] * 20
    pairs = [[1.0, 2.0], None, [0.0, 0.0], [None, 1.0], [3.0, float("inf")]] * 20
    return {
        "floats": pa.array(ones),
        "half": pa.array(np.linspace(0, 1, 100, dtype=np.float16)),
        "big": pa.array([2**64 - 1, 0] * 50, pa.uint64()),
        "decimal": pa.array([1, 2, None, 3] * 25, pa.decimal128(10, 2)),
        "truth": pa.array([True, False, None, True] * 25),
        "words": pa.array(words),
        "large": pa.array(words, pa.large_string()),
        "view": pa.array(words, pa.string_view()),
        "coded": pa.array(words).dictionary_encode(),
        "pairs": pa.array(pairs, pa.list_(pa.float64(), 2)),
        "lists": pa.array(pairs, pa.large_list(pa.float32())),
        "ragged": pa.array([[], [1.0], [1.0, 2.0], None] * 25, pa.list_(pa.float32())),
        "bytes": pa.array([b"a", None] * 50),
        "days": pa.array([1, None] * 50, pa.date32()),
        "nothing": pa.nulls(100),
        "structs": pa.array([{"a": 1}, None] * 50),
    }


@pytest.mark.parametrize("before", _odd_columns().values(), ids=list(_odd_columns()))
def test_any_column_against_any_other_has_a_verdict(before):
    pinned = sketch(pa.table({"x": before}))
    stored = Baseline.from_json(pinned.to_json())

    for after in _odd_columns().values():
        for rows in (0, 1, 100):
            found = compare(stored, pa.table({"x": after.slice(0, rows)}))["x"]
            assert found.explanation
            assert json.dumps(found.to_dict(), allow_nan=False)
    assert compare(stored, pa.table({"x": before})).drifted == ()
    assert compare(pinned, pa.table({"x": pa.chunked_array([], before.type)}))["x"].verdict != Verdict.DRIFT


def test_a_baseline_of_another_version_compares_nothing(rng):
    pinned = sketch(_mixed(rng, 400), subject="user_profile@1")

    report = compare(pinned, _mixed(rng, 400), subject="user_profile@2")

    assert {one.verdict for one in report.features} == {Verdict.INSUFFICIENT_DATA}
    assert "'user_profile@1'" in report["age"].explanation


def test_a_declared_kind_is_obeyed_or_its_misfit_told(rng):
    table = pa.table({"zip": rng.integers(0, 5, 200), "name": rng.choice(["a", "b"], 200)})

    report = compare(table, table, kinds={"zip": "category", "name": "number"})

    assert report["zip"].kind == "category"
    assert "declared numeric, but the baseline holds string" in report["name"].explanation
    with pytest.raises(RequestError, match=r"unknown kind 'numbr'.*numeric"):
        compare(table, table, kinds={"zip": "numbr"})


def test_a_stored_baseline_that_cannot_be_read_says_what_to_do():
    with pytest.raises(SchemaVersionError, match=r"format 99.*rebaseline"):
        Baseline.from_json('{"format": 99}')
    with pytest.raises(StoreError, match="rebaseline"):
        Baseline.from_json('{"format": 1}')
