"""The release log: one row per generation, predecessors per slot, and holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lodestore.adapters.lance import LanceStore
from lodestore.errors import ConflictError, RefusedError, UnknownNameError, UnknownReleaseError
from lodestore.logs import Logs
from lodestore.releases import NOTHING, Release, ReleaseLog, Slot, predecessor, predecessors
from lodestore.testing import FrozenClock, MemoryStore

CONTENT = Slot("embedding", "content")
TITLE = Slot("embedding", "title")
PROMPT = Slot("template", "qa_basic")
VIEW = Slot("view", "user_profile")


def release_log(store: MemoryStore | LanceStore | None = None, clock: FrozenClock | None = None) -> ReleaseLog:
    clock = clock or FrozenClock()
    return ReleaseLog(Logs(store or MemoryStore(), clock), clock)


def promote(log: ReleaseLog, *, base: Release | None = None, **values: object) -> Release:
    changes = {Slot("embedding", name): value for name, value in values.items()}
    return log.publish(changes, action="promote", author="ann", base=base)


changes = st.dictionaries(st.sampled_from([CONTENT, TITLE, PROMPT]), st.sampled_from(["a", "b", "c", None]), min_size=1)


@given(story=st.lists(changes, max_size=8))
def test_the_newest_release_is_every_change_in_turn(story):
    clock = FrozenClock()
    log = release_log(clock=clock)
    slots: dict[Slot, object] = {}
    states = []
    for change in story:
        clock.advance(timedelta(minutes=1))
        log.publish(change, action="promote", author="ann")
        slots = {slot: value for slot, value in {**slots, **change}.items() if value is not None}
        states.append((clock(), slots))

    assert log.live().slots == slots
    assert log.live().generation == len(story)
    assert [one.generation for one in log.history()] == list(range(1, len(story) + 1))
    for generation, (moment, then) in enumerate(states, start=1):
        assert log.at(moment) == log.at(moment + timedelta(seconds=59)) == log.generation(generation)
        assert log.generation(generation).slots == then


class Rollbacks(RuleBasedStateMachine):
    """A slot's values, the latest use last: promotions and rollbacks alike bring a value to the end."""

    def __init__(self) -> None:
        super().__init__()
        self.log = release_log()
        self.used: list[str] = []

    def use(self, value: str) -> None:
        promote(self.log, content=value)
        self.used = [one for one in self.used if one != value] + [value]

    @rule(value=st.sampled_from("abcd"))
    def promote_content(self, value: str) -> None:
        self.use(value)

    @rule(value=st.sampled_from("xyz"))
    def promote_another_slot(self, value: str) -> None:
        promote(self.log, title=value)

    @rule()
    def roll_back(self) -> None:
        history = self.log.history()
        if len(self.used) < 2:
            with pytest.raises(RefusedError, match="embedding:content has no earlier value"):
                predecessor(history, CONTENT)
        else:
            assert predecessor(history, CONTENT) == self.used[-2]
            self.use(self.used[-2])

    @invariant()
    def the_log_tells_the_same_story(self) -> None:
        assert self.log.live().slots.get(CONTENT) == (self.used[-1] if self.used else None)
        assert predecessors(self.log.history(), CONTENT) == self.used[-2::-1]


TestRollbacks = Rollbacks.TestCase
TestRollbacks.settings = settings(max_examples=20, stateful_step_count=10, deadline=None)


def test_the_predecessor_is_the_previous_distinct_value_so_a_second_rollback_undoes_the_first():
    log = release_log()
    for value in "abbc":
        promote(log, content=value)

    promote(log, content=predecessor(log.history(), CONTENT))
    assert log.live().embeddings == {"content": "b"}

    promote(log, content=predecessor(log.history(), CONTENT))
    assert log.live().embeddings == {"content": "c"}


def test_a_rollback_of_one_slot_leaves_the_others():
    log = release_log()
    promote(log, content="a", title="t1")
    promote(log, content="b", title="t2")

    promote(log, content=predecessor(log.history(), CONTENT))

    assert log.live().embeddings == {"content": "a", "title": "t2"}
    assert predecessors(log.history(), CONTENT) == ["b"]
    assert predecessors(log.history(), TITLE) == ["t1"]


# -- the race


@pytest.fixture(params=["memory", "lance"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ReleaseLog, ReleaseLog]:
    shared = MemoryStore()
    stores = [shared if request.param == "memory" else LanceStore(str(tmp_path)) for _ in range(2)]
    return release_log(stores[0]), release_log(stores[1])


def test_of_two_decisions_on_one_base_the_second_is_told_who_was_first(two):
    one, other = two
    base = promote(one, content="a")

    promote(one, content="b", base=base)
    with pytest.raises(ConflictError, match="release 2 was made by ann first \\(promote\\)"):
        promote(other, content="c", base=base)

    assert [log.live().embeddings for log in two] == [{"content": "b"}] * 2
    assert promote(other, content="c").generation == 3


def test_of_two_decisions_at_once_exactly_one_wins(two):
    def decide(log: ReleaseLog, value: str, base: Release) -> Release | ConflictError:
        try:
            return promote(log, content=value, base=base)
        except ConflictError as error:
            return error

    promote(two[0], content="first")
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            base = two[0].live()
            outcomes = list(pool.map(decide, two, "ab", [base, base]))
            winners = [one for one in outcomes if isinstance(one, Release)]
            assert len(winners) == 1
            assert two[0].live() == two[1].live() == winners[0]


# -- reading


def test_before_the_first_release_nothing_is_live():
    log = release_log()

    assert log.live() == NOTHING
    assert log.history() == []
    with pytest.raises(UnknownReleaseError, match="nothing was live yet"):
        log.at(datetime(2030, 1, 1, tzinfo=UTC))


def test_before_the_first_moment_nothing_was_live():
    log = release_log(clock=FrozenClock(datetime(2026, 1, 2, tzinfo=UTC)))
    promote(log, content="a")

    with pytest.raises(UnknownReleaseError, match="2026-01-01"):
        log.at(datetime(2026, 1, 1, tzinfo=UTC))


def test_an_unknown_generation_names_the_known_ones():
    log = release_log()
    promote(log, content="a")

    with pytest.raises(UnknownReleaseError, match="known: 1"):
        log.generation(7)


def test_a_release_comes_back_from_its_row_as_it_was():
    log = release_log()
    slots = {CONTENT: "content__minilm__1__c", PROMPT: {"1.0.0": 0.9, "1.1.0": 0.1}, VIEW: 2}

    made = log.publish(slots, action="promote", author="Änn", reason="it's `better`")

    assert Release.from_row(made.to_row()) == log.live() == made
    assert (made.embeddings, made.templates, made.views) == (
        {"content": "content__minilm__1__c"},
        {"qa_basic": {"1.0.0": 0.9, "1.1.0": 0.1}},
        {"user_profile": 2},
    )


def test_a_release_cannot_be_changed():
    log = release_log()
    made = promote(log, content="a")

    with pytest.raises(TypeError):
        made.slots[CONTENT] = "b"  # type: ignore[index]


def test_a_slot_is_found_by_its_name_or_by_kind_and_name_where_two_share_it():
    log = release_log()
    log.publish({CONTENT: "a", TITLE: "t", Slot("view", "title"): 1}, action="promote", author="ann")

    assert log.slot("content") == CONTENT
    assert log.slot("view:title") == Slot("view", "title")
    with pytest.raises(UnknownNameError, match="view:title"):
        log.slot("title")
    with pytest.raises(UnknownNameError, match="did you mean 'content'"):
        log.slot("contnt")
    with pytest.raises(UnknownNameError) as caught:
        log.slot("embedding:contnt")
    assert "did you mean 'content'" in str(caught.value)
    log.publish({Slot("view", "contents"): 1}, action="promote", author="ann")
    with pytest.raises(UnknownNameError, match="did you mean 'contents'"):
        log.slot("view:content")


# -- holds


acts = st.tuples(st.sampled_from([CONTENT, TITLE]), st.sampled_from(["f1", "f2"]), st.booleans())


@given(story=st.lists(acts, max_size=10))
def test_what_is_held_is_what_was_last_said_of_it(story):
    log = release_log()
    model: set[tuple[Slot, str]] = set()
    for slot, fingerprint, held in story:
        write = log.hold if held else log.release_hold
        write(slot, fingerprint=fingerprint, version="m@1", author="ann", reason="worse")
        (model.add if held else model.discard)((slot, fingerprint))

    assert {(one.slot, one.fingerprint) for one in log.holds()} == model


def test_a_hold_says_who_and_why_and_a_release_leaves_it():
    clock = FrozenClock()
    log = release_log(clock=clock)

    log.hold(CONTENT, fingerprint="f1", version="minilm@2", author="gate", reason="nDCG@10 fell")
    promote(log, content="a")

    (hold,) = log.holds()
    assert (hold.slot, hold.version, hold.author, hold.reason, hold.at) == (
        CONTENT,
        "minilm@2",
        "gate",
        "nDCG@10 fell",
        clock(),
    )
