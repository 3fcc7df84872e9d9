"""What people decide about what is live: several slots in one release, one slot back, a whole release back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lodestore.errors import GateError, RefusedError, RequestError, RetentionError, UnknownNameError, UnknownViewError
from lodestore.models import EmbeddingVersion
from lodestore.project import Project
from lodestore.releases import Release, Slot, predecessor
from lodestore.versions import slot_of

__all__ = ["activate", "promote", "rollback_release", "rollback_template", "slot_named"]


def slot_named(project: Project, name: str) -> Slot:
    """The slot of that name, live or not yet; `kind:name` where two kinds share it."""
    known = [slot_of(one) for one in project.versions.declared_labels]
    known += [Slot("template", one) for one in project.templates.newest()]
    known += [Slot("view", one) for one in project.catalog.latest]
    slots = dict.fromkeys([*project.releases.live().slots, *known])
    matches = [slot for slot in slots if name in {slot.name, str(slot)}]
    if len(matches) != 1:
        raise UnknownNameError(name, [str(one) if matches else one.name for one in matches or slots])
    return matches[0]


def promote(project: Project, wanted: Mapping[str, str], *, author: str, reason: str = "") -> Release:
    """Every slot of `wanted` has its value, in one release; a version that cannot serve is refused.

    A version that was held is free again: somebody named it.
    """
    if not wanted:
        message = "nothing to promote; write SLOT=VALUE, for example content=minilm@2 or qa_basic=1.1.0"
        raise RequestError(message)
    base = project.releases.live()
    changes = {slot: _value(project, slot, value) for slot, value in _slots(project, wanted)}
    with project.locks.writer("promoting"):
        release = _publish(project, changes, base, action="promote", author=author, reason=reason)
        _free(project, changes, author, reason)
    return release


def _slots(project: Project, wanted: Mapping[str, str]) -> Iterable[tuple[Slot, str]]:
    for name, value in wanted.items():
        yield slot_named(project, name), value


def _value(project: Project, slot: Slot, value: str) -> Any:  # noqa: ANN401 - a slot's value
    if slot.kind == "embedding":
        return _healthy(project, project.versions.find(slot.name, value)).key
    if slot.kind == "template":
        return {project.templates.get(slot.name, value).version: 1.0}
    if not value.isdigit():
        pinned = f"{slot.name}@{value}"
        raise UnknownViewError(pinned, [f"{one}@{number}" for one, number in project.catalog.views])
    return project.catalog.view(slot.name, int(value)).version


def _healthy(project: Project, version: EmbeddingVersion) -> EmbeddingVersion:
    health = project.pipeline.health(version)
    if not health.healthy:
        message = f"{version.feature} {version.label} cannot serve: {health.why_not()}; run: lodestore run reembed"
        raise GateError(message)
    return version


def _publish(project: Project, changes: Mapping[Slot, Any], base: Release, **why: str) -> Release:
    if all(base.slots.get(slot) == value for slot, value in changes.items()):
        shown = ", ".join(str(slot) for slot in changes)
        message = f"{shown}: live already in release {base.generation}; nothing was changed"
        raise RefusedError(message)
    return project.releases.publish(
        changes, action=why["action"], author=why["author"], reason=why["reason"], base=base
    )


def _free(project: Project, changes: Mapping[Slot, Any], author: str, reason: str) -> None:
    held = {(hold.slot, hold.fingerprint): hold for hold in project.releases.holds()}
    for slot, key in changes.items():
        if slot.kind != "embedding":
            continue
        hold = held.get((slot, project.versions.registered(key).fingerprint))
        if hold is not None:
            named = {"fingerprint": hold.fingerprint, "version": hold.version}
            project.releases.release_hold(slot, **named, author=author, reason=reason or "promoted by name")


def activate(
    project: Project, template_id: str, weights: Mapping[str, float], *, author: str, reason: str = ""
) -> Release:
    """These versions of the template are live, in these proportions."""
    if not weights or any(not weight > 0 for weight in weights.values()):
        message = f"{template_id}: give one or more versions, each with a weight above 0, such as 1.0.0=0.9 1.1.0=0.1"
        raise RequestError(message)
    value = {project.templates.get(template_id, version).version: weight for version, weight in weights.items()}
    base = project.releases.live()
    with project.locks.writer("activating a template"):
        return _publish(
            project, {Slot("template", template_id): value}, base, action="promote", author=author, reason=reason
        )


def rollback_template(project: Project, template_id: str, *, author: str, reason: str = "") -> Release:
    """The template's previous live value is live again; other slots stay as they are."""
    history = project.releases.history()
    slot = project.releases.slot(f"template:{template_id}")
    change = {slot: predecessor(history, slot)}
    with project.locks.writer("rolling a template back"):
        return _publish(project, change, history[-1], action="rollback", author=author, reason=reason)


def rollback_release(project: Project, *, author: str, reason: str = "", to: int | None = None) -> Release:
    """A whole earlier release is live again, as a new one: that of generation `to`, or the one before.

    Two rollbacks in a row go back two steps. Embedding versions that it leaves are held, so that no
    sensor promotes them again.
    """
    history = project.releases.history()
    target = project.releases.generation(to) if to is not None else _before(history)
    live = history[-1]
    changes = {slot: target.slots.get(slot) for slot in {*live.slots, *target.slots}}
    for slot, key in target.slots.items():
        if slot.kind == "embedding" and live.slots.get(slot) != key:
            _present(project, target, project.versions.registered(key))
    with project.locks.writer("rolling a release back"):
        release = _publish(project, changes, live, action="rollback", author=author, reason=reason)
        _hold(project, live, release, author, reason or f"rolled back to release {target.generation}")
    return release


def _before(history: Sequence[Release]) -> Release:
    stack: list[Release] = []
    for release in history:
        places = [place for place, one in enumerate(stack) if one.slots == release.slots]
        stack = stack[: places[0]] if places else stack
        stack.append(release)
    if len(stack) < 2:  # noqa: PLR2004 - the live one and one before it
        message = "no earlier release differs from the live one; there is nothing to roll back to"
        raise RefusedError(message)
    return stack[-2]


def _present(project: Project, target: Release, version: EmbeddingVersion) -> None:
    if not project.tables.count(version.table):
        message = f"release {target.generation} needs {version.feature} {version.label}, whose table was dropped"
        raise RetentionError(message)


def _hold(project: Project, left: Release, now: Release, author: str, reason: str) -> None:
    for slot, key in left.slots.items():
        if slot.kind == "embedding" and now.slots.get(slot) != key:
            version = project.versions.registered(key)
            named = {"fingerprint": version.fingerprint, "version": version.label}
            project.releases.hold(slot, **named, author=author, reason=reason)
