"""Releases: immutable rows that say what is live. The newest one is live; nothing else stores liveness."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal
from uuid import uuid4

from lodestore.errors import ConflictError, RefusedError, RetentionError, UnknownNameError, UnknownReleaseError
from lodestore.logs import Logs
from lodestore.wire import canonical, rfc3339

__all__ = ["NOTHING", "Hold", "Release", "ReleaseLog", "Slot", "SlotKind", "predecessor", "predecessors"]

SlotKind = Literal["embedding", "template", "view"]
_KINDS: tuple[SlotKind, ...] = ("embedding", "template", "view")


_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """One thing that a release decides: an embedding feature, a template or a view."""

    kind: SlotKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Release:
    """What is live from `at` on: a value for each slot.

    An embedding's value is a partition key, a template's a map from version to weight, a view's
    its version number.
    """

    generation: int
    slots: Mapping[Slot, Any] = field(default_factory=dict)
    id: str = ""
    action: str = ""
    author: str = ""
    reason: str = ""
    at: datetime = _NEVER

    def _of(self, kind: SlotKind) -> dict[str, Any]:
        return {slot.name: value for slot, value in sorted(self.slots.items()) if slot.kind == kind}

    @property
    def embeddings(self) -> dict[str, str]:
        """Feature -> partition key of its live embedding version."""
        return self._of("embedding")

    @property
    def templates(self) -> dict[str, dict[str, float]]:
        """Template -> the weights of its live versions."""
        return self._of("template")

    @property
    def views(self) -> dict[str, int]:
        """View -> its live version."""
        return self._of("view")

    def next(self, changes: Mapping[Slot, Any], *, action: str, author: str, reason: str, at: datetime) -> Release:
        """The release that follows with these slots changed; a value of None removes its slot."""
        slots = {slot: value for slot, value in {**self.slots, **changes}.items() if value is not None}
        return Release(self.generation + 1, MappingProxyType(slots), uuid4().hex, action, author, reason, at)

    def to_row(self) -> dict[str, Any]:
        """The row of the release log."""
        slots = {str(slot): value for slot, value in sorted(self.slots.items())}
        return {
            "generation": self.generation,
            "id": self.id,
            "slots": canonical(slots).decode(),
            "action": self.action,
            "author": self.author,
            "reason": self.reason,
            "at": self.at,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Release:
        """Read a row of the release log."""
        slots = {Slot(*name.split(":", 1)): value for name, value in json.loads(row["slots"]).items()}
        texts = (row["id"], row["action"], row["author"], row["reason"])
        return cls(row["generation"], MappingProxyType(slots), *texts, at=row["at"])


NOTHING = Release(0)


@dataclass(frozen=True, slots=True)
class Hold:
    """A version that is neither rebuilt nor promoted until its declaration changes or a person says so."""

    slot: Slot
    fingerprint: str
    version: str
    author: str
    reason: str
    at: datetime


def predecessors(history: Sequence[Release], slot: Slot) -> list[Any]:
    """The distinct values that the slot had before its live one, newest first."""
    values: list[Any] = []
    for release in reversed(history):
        value = release.slots.get(slot)
        if value is not None and value not in values:
            values.append(value)
    live = history[-1].slots.get(slot) if history else None
    return [value for value in values if value != live]


def predecessor(history: Sequence[Release], slot: Slot) -> Any:  # noqa: ANN401 - a slot's value
    """Where a rollback of this slot goes: its previous distinct value. Two rollbacks in a row undo each other."""
    earlier = predecessors(history, slot)
    if not earlier:
        message = f"{slot} has no earlier value; there is nothing to roll back to"
        raise RefusedError(message)
    return earlier[0]


class ReleaseLog:
    """The log whose newest row is what is live."""

    def __init__(self, logs: Logs, clock: Callable[[], datetime]) -> None:
        self._logs = logs
        self._clock = clock

    def history(self) -> list[Release]:
        """All releases, oldest first."""
        rows = self._logs.rows("releases")
        return sorted(map(Release.from_row, rows), key=lambda one: one.generation)

    def live(self) -> Release:
        """The newest release; before the first one, `NOTHING`."""
        history = self.history()
        return history[-1] if history else NOTHING

    def at(self, moment: datetime) -> Release:
        """What was live at that moment."""
        history = self.history()
        past = [one for one in history if one.at <= moment]
        if not past:
            known = [str(one.generation) for one in history]
            first = f", the first release is of {rfc3339(history[0].at)}" if history else ""
            raise UnknownReleaseError(rfc3339(moment), known, note=f"; nothing was live yet{first}")
        return past[-1]

    def generation(self, number: int) -> Release:
        """The release of that generation."""
        found = {one.generation: one for one in self.history()}
        if number not in found:
            raise UnknownReleaseError(str(number), map(str, found))
        return found[number]

    def served(self, generation: int, *, live: Release) -> Release:
        """The release of that generation, which has to be `live` or its predecessor: those answer requests."""
        if generation == live.generation:
            return live
        found = self.generation(generation)
        if found.generation != live.generation - 1:
            message = (
                f"release {generation} is not served; live is {live.generation}, its predecessor {live.generation - 1}"
            )
            raise RetentionError(message)
        return found

    def publish(
        self, changes: Mapping[Slot, Any], *, action: str, author: str, reason: str = "", base: Release | None = None
    ) -> Release:
        """Make one release with these changes live, or raise `ConflictError` when somebody was faster.

        `base` is the release that the decision was made on; by default the live one.
        """
        base = self.live() if base is None else base
        release = base.next(changes, action=action, author=author, reason=reason, at=self._clock())
        if self._logs.put("releases", release.to_row()):
            return release
        winner = self.generation(release.generation)
        if winner.id == release.id:
            return release
        message = (
            f"release {release.generation} was made by {winner.author or 'somebody else'} first "
            f"({winner.action}); look at it with: lodestore release show, then decide again"
        )
        raise ConflictError(message)

    def slot(self, name: str) -> Slot:
        """The live slot of that name; `kind:name` where two kinds share it."""
        slots = list(self.live().slots)
        kind, colon, rest = name.partition(":")
        if colon and kind in _KINDS:
            slots, name = [slot for slot in slots if slot.kind == kind], rest
        matches = [slot for slot in slots if slot.name == name]
        if len(matches) != 1:
            known = [str(slot) for slot in slots] if matches else [slot.name for slot in slots]
            raise UnknownNameError(name, known)
        return matches[0]

    # -- holds

    def hold(self, slot: Slot, *, fingerprint: str, version: str, author: str, reason: str) -> None:
        """The version is held for this slot."""
        self._write_hold(slot, fingerprint, version, "held", author, reason)

    def release_hold(self, slot: Slot, *, fingerprint: str, version: str, author: str, reason: str) -> None:
        """The version is no longer held for this slot."""
        self._write_hold(slot, fingerprint, version, "freed", author, reason)

    def _write_hold(self, slot: Slot, fingerprint: str, version: str, state: str, author: str, reason: str) -> None:
        row = {"id": uuid4().hex, "slot": str(slot), "fingerprint": fingerprint, "version": version}
        self._logs.put("holds", {**row, "state": state, "author": author, "reason": reason})

    def freed(self, slot: Slot, fingerprint: str) -> int:
        """How often a hold of this version of the slot has ended."""
        marks = (str(slot), fingerprint, "freed")
        return sum((row["slot"], row["fingerprint"], row["state"]) == marks for row in self._logs.rows("holds"))

    def holds(self) -> list[Hold]:
        """What is held now."""
        latest: dict[tuple[str, str], Mapping[str, Any]] = {}
        for row in self._logs.rows("holds"):
            latest[row["slot"], row["fingerprint"]] = row
        return [
            Hold(
                Slot(*row["slot"].split(":", 1)),
                row["fingerprint"],
                row["version"],
                row["author"],
                row["reason"],
                row["at"],
            )
            for row in latest.values()
            if row["state"] == "held"
        ]
