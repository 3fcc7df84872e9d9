"""The rollout as a state machine, and the decisions of the sensor as values."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lodestore.errors import ConflictError, HeldError, InUseError, RefusedError
from lodestore.logs import Logs
from lodestore.models import EmbeddingVersion
from lodestore.releases import NOTHING, Hold, Release, ReleaseLog, Slot, predecessor, predecessors
from lodestore.rollout import (
    MAX_ATTEMPTS,
    State,
    decide,
    restore_changes,
    rollback_changes,
    since,
    slot_of,
    verify_droppable,
    verify_promotable,
)
from lodestore.testing import FrozenClock, MemoryStore

CONTENT = Slot("embedding", "content")


def version(name: str, feature: str = "content") -> EmbeddingVersion:
    return EmbeddingVersion(feature, name, "1", "c0ffee00", f"fingerprint of {name}", 4)


A, B = version("a"), version("b")


def live(one: EmbeddingVersion | None, generation: int = 1) -> Release:
    return NOTHING if one is None else Release(generation, {slot_of(one): one.key}, id=str(generation))


def hold(one: EmbeddingVersion) -> Hold:
    return Hold(slot_of(one), one.fingerprint, one.label, "me", "worse", FrozenClock()())


def state(declared: EmbeddingVersion, alive: EmbeddingVersion | None, *holds: Hold, **more: object) -> State:
    base = State((declared,), live(alive), holds, {})
    return replace(base, **more)


def test_a_declared_version_that_is_not_live_is_launched_once() -> None:
    decision = decide(state(B, A))

    assert [one.version for one in decision.launches] == [B]
    assert decision == decide(state(B, A))


def test_what_is_live_launches_nothing() -> None:
    assert decide(state(A, A)).launches == ()


def test_a_first_version_is_left_to_ingestion() -> None:
    assert decide(state(A, None)).launches == ()


def test_twenty_ticks_after_a_rollback_launch_nothing() -> None:
    held = state(B, A, hold(B))

    assert [decide(held).launches for _ in range(20)] == [()] * 20
    assert "held" in decide(held).notes[0]


def test_a_hold_ends_when_its_slot_declares_something_else() -> None:
    decision = decide(state(A, A, hold(B)))

    assert [one.version for one in decision.lift] == [B.label]


def test_a_version_that_keeps_failing_waits_for_a_person() -> None:
    keys = {decide(state(B, A, failures={B.key: n})).launches[0].run_key for n in range(MAX_ATTEMPTS)}

    assert len(keys) == MAX_ATTEMPTS
    assert decide(state(B, A, failures={B.key: MAX_ATTEMPTS})).launches == ()


def test_a_version_whose_gate_waits_for_a_person_is_not_launched_again() -> None:
    (launch,) = decide(state(B, A)).launches

    assert decide(state(B, A, settled=frozenset({launch.run_key}))).launches == ()


def test_a_release_of_another_slot_launches_no_second_run_and_going_back_and_forth_launches_again() -> None:
    prompt = Slot("template", "qa_basic")
    log = ReleaseLog(Logs(MemoryStore(), FrozenClock()), FrozenClock())
    keys = []
    for change in ({slot_of(A): A.key}, {prompt: {"1.1.0": 1.0}}, {slot_of(A): B.key}, {slot_of(A): A.key}):
        log.publish(change, action="promote", author="me")
        if log.live().slots[slot_of(A)] == A.key:
            now = replace(state(B, A), live=log.live(), since={slot_of(B): since(log.history(), slot_of(B))})
            keys.append(decide(now).launches[0].run_key)

    first, after_the_template, there_again = keys
    assert first == after_the_template
    assert there_again != first


def test_a_version_that_was_refused_is_tried_again_once_its_hold_has_ended_and_it_is_declared_anew() -> None:
    (first,) = decide(state(B, A)).launches

    (second,) = decide(state(B, A, freed={B.key: 1})).launches

    assert first.run_key != second.run_key


def test_a_held_version_is_promoted_only_by_name() -> None:
    with pytest.raises(HeldError, match="b@1 is held"):
        verify_promotable(B, [hold(B)], by_name=False)

    verify_promotable(B, [hold(B)], by_name=True)


def test_the_live_version_and_the_way_back_are_not_dropped() -> None:
    history = [live(A, 1), live(B, 2)]

    with pytest.raises(InUseError, match="is live"):
        verify_droppable(B, history, keep=1)
    with pytest.raises(InUseError, match="where a rollback"):
        verify_droppable(A, history, keep=1)
    verify_droppable(version("c"), history, keep=1)


SLOTS = (CONTENT, Slot("embedding", "title"), Slot("template", "qa_basic"))
VALUES = st.sampled_from(["one", "two", "three"])


class Rollouts(RuleBasedStateMachine):
    """Promotions, rollbacks, restores and races in any order, against a list of what should be live."""

    @initialize()
    def start(self) -> None:
        self.clock = FrozenClock()
        self.log = ReleaseLog(Logs(MemoryStore(), self.clock), self.clock)
        self.model: list[dict[Slot, str]] = []

    def _publish(self, changes: dict[Slot, str | None]) -> None:
        self.clock.advance(timedelta(seconds=1))
        self.log.publish(changes, action="promote", author="test")
        after = {**(self.model[-1] if self.model else {}), **changes}
        self.model.append({slot: value for slot, value in after.items() if value is not None})

    @rule(slot=st.sampled_from(SLOTS), value=VALUES)
    def promote(self, slot: Slot, value: str) -> None:
        self._publish({slot: value})

    @rule(first=VALUES, second=VALUES)
    def promote_two_slots_in_one_release(self, first: str, second: str) -> None:
        self._publish({SLOTS[0]: first, SLOTS[2]: second})

    @precondition(lambda self: self.model)
    @rule(slot=st.sampled_from(SLOTS))
    def roll_back_one_slot(self, slot: Slot) -> None:
        history = self.log.history()
        earlier = [one[slot] for one in self.model if slot in one and one[slot] != self.model[-1].get(slot)]
        if not earlier:
            with pytest.raises(RefusedError):
                rollback_changes(history, slot)
            return
        changes = rollback_changes(history, slot)
        assert changes == {slot: earlier[-1]}
        self._publish(changes)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def restore_a_whole_release(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, len(self.model)))
        target = self.log.generation(number)
        self._publish(restore_changes(self.log.live(), target))
        assert self.model[-1] == self.model[number - 1]

    @precondition(lambda self: self.model)
    @rule(value=VALUES)
    def lose_a_race(self, value: str) -> None:
        stale = self.log.live()
        self._publish({CONTENT: value})
        with pytest.raises(ConflictError, match=f"release {stale.generation + 1}"):
            self.log.publish({CONTENT: "late"}, action="promote", author="late", base=stale)

    @invariant()
    def the_log_is_the_pointer(self) -> None:
        if not getattr(self, "model", None):
            return
        history = self.log.history()
        assert [one.generation for one in history] == list(range(1, len(self.model) + 1))
        assert [dict(one.slots) for one in history] == self.model
        assert dict(self.log.live().slots) == self.model[-1]

    @invariant()
    def a_slot_never_rolls_back_to_what_is_live(self) -> None:
        for slot in SLOTS if getattr(self, "model", None) else ():
            history = self.log.history()
            try:
                target = predecessor(history, slot)
            except RefusedError:
                continue
            assert target != history[-1].slots.get(slot)


class HeldRollouts(RuleBasedStateMachine):
    """Declarations, sensor ticks, promotions, rollbacks with holds, drops and template activations in any order."""

    versions = (A, B, version("c"))

    @initialize()
    def start(self) -> None:
        self.clock = FrozenClock()
        self.log = ReleaseLog(Logs(MemoryStore(), self.clock), self.clock)
        self.declared = A
        self.dropped: set[str] = set()
        self._publish({CONTENT: A.key})

    def _publish(self, changes: dict[Slot, object]) -> None:
        self.clock.advance(timedelta(seconds=1))
        self.log.publish(changes, action="promote", author="test")

    def _named(self, key: str) -> EmbeddingVersion:
        return next(one for one in self.versions if one.key == key)

    def _hold(self, one: EmbeddingVersion) -> None:
        self.clock.advance(timedelta(seconds=1))
        self.log.hold(CONTENT, fingerprint=one.fingerprint, version=one.label, author="me", reason="worse")

    def _free(self, one: Hold | EmbeddingVersion) -> None:
        self.clock.advance(timedelta(seconds=1))
        label = one.version if isinstance(one, Hold) else one.label
        self.log.release_hold(CONTENT, fingerprint=one.fingerprint, version=label, author="me", reason="")

    def _state(self) -> State:
        return State((self.declared,), self.log.live(), tuple(self.log.holds()), {})

    @rule(one=st.sampled_from(versions))
    def change_the_declaration(self, one: EmbeddingVersion) -> None:
        self.declared = one

    @rule(number=st.integers(1, 9))
    def activate_a_template_in_between(self, number: int) -> None:
        before = self.log.live().embeddings
        self._publish({Slot("template", "qa_basic"): {f"1.0.{number}": 1.0}})
        assert self.log.live().embeddings == before

    @rule()
    def tick_and_carry_out(self) -> None:
        decision = decide(self._state())
        for hold in decision.lift:
            assert hold.fingerprint != self.declared.fingerprint
            self._free(hold)
        for launch in decision.launches:
            held = {hold.fingerprint for hold in self.log.holds()}
            assert launch.version.fingerprint not in held
            self.dropped.discard(launch.version.key)
            self._publish({CONTENT: launch.version.key})
        assert decide(self._state()).launches == ()

    @rule()
    def roll_back(self) -> None:
        history = self.log.history()
        try:
            changes = rollback_changes(history, CONTENT)
        except RefusedError:
            return
        assert changes[CONTENT] not in self.dropped
        left = self._named(history[-1].embeddings["content"])
        self._publish(changes)
        self._hold(left)
        self._free(self._named(changes[CONTENT]))
        assert all(one.version != left for _ in range(20) for one in decide(self._state()).launches)

    @rule(one=st.sampled_from(versions))
    def drop(self, one: EmbeddingVersion) -> None:
        history = self.log.history()
        needed = {history[-1].embeddings["content"], *predecessors(history, CONTENT)[:1]}
        if one.key in needed:
            with pytest.raises(InUseError):
                verify_droppable(one, history, keep=1)
        else:
            verify_droppable(one, history, keep=1)
            self.dropped.add(one.key)

    @invariant()
    def what_is_live_is_there(self) -> None:
        if hasattr(self, "log"):
            assert self.log.live().embeddings["content"] not in self.dropped

    @invariant()
    def the_way_back_is_there(self) -> None:
        if hasattr(self, "log"):
            assert not set(predecessors(self.log.history(), CONTENT)[:1]) & self.dropped


TestHeldRollouts = HeldRollouts.TestCase
TestHeldRollouts.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
