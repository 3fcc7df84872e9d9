"""Outcomes count once, and say how well each template version does, then as well as now."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestore import standard
from lodestore.catalog import catalog_of
from lodestore.errors import RequestError
from lodestore.features import Features, Inputs
from lodestore.historical import historical
from lodestore.logs import Logs
from lodestore.outcomes import Outcome, Outcomes, difference, performance, standings, wilson
from lodestore.prompts import parse
from lodestore.releases import Release, Slot
from lodestore.templates import Templates
from lodestore.testing import FrozenClock, MemoryOnlineStore, MemoryStore

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class World:
    """Logs in memory under a clock that stands still."""

    def __init__(self) -> None:
        self.clock = FrozenClock(NOON)
        self.store = MemoryStore()
        self.logs = Logs(self.store, self.clock)
        self.outcomes = Outcomes(self.logs)
        catalog = catalog_of(vars(standard).values())
        self.features = Features(catalog, self.store, MemoryOnlineStore(), self.logs, self.clock)

    def context(self, name, version="1.0.0", **more):
        self.logs.put("contexts", {"id": name, "template": json.dumps({"id": "qa", "version": version}), **more})

    def said(self, context, event, **values):
        return self.outcomes.add(Outcome(context, event, **values))

    def record(self):
        done = self.features.compute(standard.template_performance, Inputs(self.store))
        self.features.materialize(standard.template_performance)
        return done


@pytest.fixture
def world():
    return World()


def test_an_outcome_counts_once(world):
    world.context("c1")

    assert world.said("c1", "e1", accepted=True)
    assert not world.said("c1", "e1", accepted=False)
    (one,) = performance(world.store)
    assert (one.outcomes, one.judged, one.accepted) == (1, 1, 1)


def test_figures_are_of_their_version_and_of_what_was_said(world):
    for n in range(4):
        world.context(f"c{n}", version=f"1.{n % 2}.0")
    world.said("c0", "e0", accepted=True, rating=5, latency_ms=100, tokens=10)
    world.said("c2", "e2", accepted=False, rating=2, latency_ms=300)
    world.said("c1", "e1", tokens=7)
    world.said("unknown", "e9", accepted=False)

    first, second = performance(world.store)

    assert (first.version, first.renders, first.outcomes, first.judged, first.accepted) == ("1.0.0", 2, 2, 2, 1)
    assert (first.acceptance_rate, first.rating, first.latency_ms, first.tokens) == (0.5, 3.5, 200.0, 10.0)
    assert (first.acceptance_low, first.acceptance_high) == wilson(1, 2)
    assert (second.version, second.judged, second.acceptance_rate, second.tokens) == ("1.1.0", 0, None, 7.0)
    assert (second.acceptance_low, second.rating) == (None, None)


def test_figures_join_as_they_were_known_at_each_moment(world):
    world.context("c1")
    world.clock.advance(5 * MINUTE)
    world.said("c1", "e1", accepted=True)
    world.clock.advance(5 * MINUTE)
    world.said("c1", "e2", accepted=False)
    world.record()

    moments = [NOON - MINUTE, NOON + MINUTE, NOON + 6 * MINUTE, NOON + 11 * MINUTE]
    asked = pa.table({"template_id": ["qa"] * 4, "version": ["1.0.0"] * 4, "event_timestamp": moments})
    refs = ["template_performance:renders", "template_performance:acceptance_rate"]
    joined = historical(asked, refs, catalog=world.features.catalog, offline=world.store)

    assert joined[refs[0]].to_pylist() == [None, 1, 1, 1]
    assert joined[refs[1]].to_pylist() == [None, None, 1.0, 0.5]


def test_a_second_computation_adds_only_what_is_new_and_the_newest_is_online(world):
    world.context("c1")
    assert world.record().added == 1
    assert world.record().added == 0

    world.clock.advance(5 * MINUTE)
    world.said("c1", "e1", accepted=True, rating=4)
    done = world.record()

    keys = {"template_id": ["qa", "qa"], "version": ["1.0.0", "9.9.9"]}
    answer = world.features.online(["template_performance:accepted", "template_performance:rating"], keys)
    assert (done.added, done.problems) == (1, ())
    assert answer.columns["template_performance:accepted"] == [1, None]
    assert answer.columns["template_performance:rating"] == [4.0, None]


def test_an_outcome_that_comes_before_its_context_is_counted_when_that_is_there(world):
    world.clock.advance(MINUTE)
    world.said("c1", "e1", accepted=True)
    assert world.record().added == 0

    world.context("c1", at=NOON)
    world.record()

    (one,) = performance(world.store)
    assert (one.renders, one.accepted) == (1, 1)


def test_the_live_template_carries_its_figures_as_a_feature(world):
    text = "---\nid: qa\nversion: 1.0.0\nvariables: [name]\n---\nHi {name}\n"
    registry = Templates(world.logs)
    registry.add([parse(text, origin="t")])
    release = Release(1, {Slot("template", "qa"): {"1.0.0": 1.0}}, at=NOON)

    def metrics():
        live = registry.as_features(release)
        done = world.features.compute(standard.prompt_templates, Inputs(world.store, live))
        world.features.materialize(standard.prompt_templates)
        answer = world.features.online(["prompt_templates:performance_metrics"], {"template_id": ["qa"]})
        return done.added, answer.columns["prompt_templates:performance_metrics"][0]

    assert metrics() == (1, None)
    world.context("c1")
    world.clock.advance(MINUTE)
    world.said("c1", "e1", accepted=True)
    added, found = metrics()
    assert added == 1
    assert (found["renders"], found["accepted"], found["acceptance_rate"]) == (1, 1, 1.0)
    assert metrics()[0] == 0


def test_versions_stand_beside_the_one_that_most_users_get(world):
    accepted = {"1.0.0": (20, 40), "1.9.0": (38, 40), "1.10.0": (2, 40), "1.11.0": (21, 40), "2.0.0": (0, 0)}
    for version, (yes, judged) in accepted.items():
        world.context(f"c{version}", version=version)
        for n in range(judged):
            world.said(f"c{version}", f"e{version}{n}", accepted=n < yes)

    found = standings(performance(world.store), {"qa": {"1.0.0": 0.9, "1.9.0": 0.1}})

    assert [one.figures.version for one in found] == list(accepted)
    assert [one.share for one in found] == [0.9, 0.1, 0.0, 0.0, 0.0]
    assert found[0].told == found[4].told == ""
    assert [one.told.partition(":")[0] for one in found[1:4]] == ["better", "worse", "not told apart"]
    assert found[1].told.startswith("better: +45.0 points (+")
    assert standings(performance(world.store), {})[1].gain is None


@given(*[st.tuples(st.integers(0, 60), st.integers(0, 60)).filter(sum)] * 2)
def test_a_difference_lies_in_its_interval_and_turns_with_its_sides(ours, theirs):
    pairs = [(yes, yes + no) for yes, no in (ours, theirs)]

    value, low, high = difference(*pairs)
    turned = difference(*pairs[::-1])

    assert -1 - 1e-9 <= low <= value <= high <= 1 + 1e-9
    assert turned == pytest.approx((-value, -high, -low))
    assert difference(pairs[0], pairs[0])[1] < 0 < difference(pairs[0], pairs[0])[2]


@given(st.integers(0, 500), st.integers(0, 500))
def test_the_interval_holds_the_share_and_narrows_with_more_trials(successes, failures):
    trials = successes + failures
    low, high = wilson(successes, trials)

    assert 0 <= low <= high <= 1
    if trials:
        assert low - 1e-9 <= successes / trials <= high + 1e-9
        wide = wilson(successes * 4, trials * 4)
        assert wide[1] - wide[0] < high - low


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"event_id": ""}, "event_id is ''"),
        ({"event_id": "e" * 300}, "event_id is"),
        ({"accepted": "yes"}, "accepted is 'yes'"),
        ({"rating": float("nan")}, "rating is nan"),
        ({"rating": True}, "rating is True"),
        ({"latency_ms": -1}, "latency_ms is -1; give at least 0"),
        ({"tokens": 1.5}, "tokens is 1.5; give a whole number"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(values, told):
    with pytest.raises(RequestError, match=told):
        Outcome(**{"context_id": "c", "event_id": "e", **values})
