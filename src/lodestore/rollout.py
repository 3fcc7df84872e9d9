"""Rollout: what a changed declaration asks for, what may go live, and the way back. Decided in values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lodestore.errors import HeldError, InUseError
from lodestore.models import EmbeddingVersion
from lodestore.releases import Hold, Release, Slot, predecessor, predecessors

__all__ = [
    "Decision",
    "Launch",
    "State",
    "decide",
    "retained",
    "rollback_changes",
    "since",
    "verify_droppable",
    "verify_promotable",
]

# A version whose runs failed this often waits for a person.
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Launch:
    """One re-embedding run to start: the version to build, and a key that starts it once."""

    version: EmbeddingVersion
    run_key: str


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the decision depends on."""

    declared: tuple[EmbeddingVersion, ...]
    live: Release
    holds: tuple[Hold, ...]
    failures: Mapping[str, int]  # partition key -> failed runs
    following: frozenset[Slot] = frozenset()  # slots without a version that answer by another slot's
    settled: frozenset[str] = frozenset()  # run keys whose gate waits for a person
    since: Mapping[Slot, int] = field(default_factory=dict)  # the generation with which each slot got its live value
    freed: Mapping[str, int] = field(default_factory=dict)  # partition key -> holds of it that have ended
    forgiven: Mapping[str, int] = field(default_factory=dict)  # of the failed runs, those from before it was declared


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do: runs to launch, holds to lift because their declaration has changed, and why nothing else."""

    launches: tuple[Launch, ...] = ()
    lift: tuple[Hold, ...] = ()
    notes: tuple[str, ...] = ()


def decide(state: State) -> Decision:
    """What the declared versions ask for.

    A declared version that is live, held, or given up on asks for nothing; a feature without a
    live version is built by ingestion. A hold ends when its slot declares something else.
    """
    wanted = {slot_of(one): one for one in state.declared}
    lift = tuple(one for one in state.holds if one.slot in wanted and wanted[one.slot].fingerprint != one.fingerprint)
    held = {(one.slot, one.fingerprint): one for one in state.holds if one not in lift}
    launches, notes = [], []
    for slot, version in sorted(wanted.items()):
        why_not = _why_not(slot, version, state, held)
        if why_not is None:
            launches.append(Launch(version, run_key(version, state)))
        else:
            notes.append(why_not)
    return Decision(tuple(launches), lift, tuple(notes))


def run_key(version: EmbeddingVersion, state: State) -> str:
    """One key for one attempt: it changes with the fingerprint, when its own slot changes, a hold ends, and after a failure.

    A run key counts for ever. Going there and back and there again has to launch again; a release that changes
    other slots, such as an activated template, must not.
    """
    attempt = state.failures.get(version.key, 0) + 1
    changed = f"{state.since.get(slot_of(version), 0)}.{state.freed.get(version.key, 0)}"
    return f"reembed/{version.key}/{version.fingerprint[:12]}/{changed}/{attempt}"


def since(history: Sequence[Release], slot: Slot) -> int:
    """The generation with which the slot got the value that it has now; 0 where it never had one."""
    found, before = 0, None
    for release in history:
        value = release.slots.get(slot)
        found, before = (release.generation if value != before else found), value
    return found


def _why_not(slot: Slot, version: EmbeddingVersion, state: State, held: Mapping[tuple[Slot, str], Hold]) -> str | None:
    live = state.live.slots.get(slot)
    if live is None and slot not in state.following:
        return f"{slot}: nothing is live yet; ingestion builds the first version"
    if live == version.key:
        return f"{slot}: {version.label} is live"
    hold = held.get((slot, version.fingerprint))
    if hold is not None:
        return f"{slot}: {version.label} is held: {hold.reason}"
    if state.failures.get(version.key, 0) - state.forgiven.get(version.key, 0) >= MAX_ATTEMPTS:
        return f"{slot}: {version.label} failed {MAX_ATTEMPTS} times; look at its runs, then: lodestore run reembed"
    if run_key(version, state) in state.settled:
        return f"{slot}: {version.label} waits for a person: lodestore models promote {version.label}"
    return None


def slot_of(version: EmbeddingVersion) -> Slot:
    """The slot that the version would take."""
    return Slot("embedding", version.feature)


def rollback_changes(history: Sequence[Release], slot: Slot, *, follows: bool = False) -> dict[Slot, Any]:
    """The change that takes one slot back to its previous distinct value, and no other.

    A slot that follows another while it is empty goes back to that when it had no value before.
    """
    if follows and not predecessors(history, slot):
        return {slot: None}
    return {slot: predecessor(history, slot)}


def restore_changes(live: Release, target: Release) -> dict[Slot, Any]:
    """The changes that make every slot what it was in `target`."""
    gone: dict[Slot, Any] = {slot: None for slot in live.slots if slot not in target.slots}
    back = {slot: value for slot, value in target.slots.items() if live.slots.get(slot) != value}
    return gone | back


def verify_promotable(version: EmbeddingVersion, holds: Iterable[Hold], *, by_name: bool) -> None:
    """A held version is promoted only when a person names it."""
    for hold in holds:
        if (hold.slot, hold.fingerprint) == (slot_of(version), version.fingerprint) and not by_name:
            message = (
                f"{version.label} is held for {hold.slot.name} by {hold.author} since {hold.at:%Y-%m-%d %H:%M}: "
                f"{hold.reason}. To promote it all the same: lodestore models promote {version.label}"
            )
            raise HeldError(message)


def retained(history: Sequence[Release], slot: Slot, *, keep: int) -> list[Any]:
    """The values of the slot that no drop takes away and that are not live: where rollbacks of it would go."""
    return predecessors(history, slot)[: max(keep, 1)]


def verify_droppable(version: EmbeddingVersion, history: Sequence[Release], *, keep: int) -> None:
    """What is live, or is where a rollback of its slot would go, is not dropped."""
    if not history:
        return
    slot = slot_of(version)
    if history[-1].slots.get(slot) == version.key:
        message = f"{version.key} is live; promote another version first"
        raise InUseError(message)
    if version.key in retained(history, slot, keep=keep):
        message = (
            f"{version.key} is where a rollback of {slot.name} goes; it can be dropped when a later version "
            "has taken that place"
        )
        raise InUseError(message)
