"""What people decide about a whole release: several slots at once, template shares, a release back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lodestore.errors import RefusedError, RequestError, UnknownNameError, UnknownTemplateError, UnknownViewError
from lodestore.models import EmbeddingVersion
from lodestore.project import Project
from lodestore.releases import Release, Slot
from lodestore.versions import slot_of

__all__ = ["activate", "planned", "promote", "rollback_release", "rollback_template", "slot_named"]


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


def promote(
    project: Project, wanted: Mapping[str, str], *, author: str, accept_loss: bool = False, reason: str = ""
) -> Release:
    """Every slot of `wanted` has its value, in one release; what a gate or the health forbids is refused.

    An embedding version that was held is free again: somebody named it. `accept_loss` with a reason
    overrides the gate's word on quality, never on health.
    """
    base = project.releases.live()
    versions, others = _wanted(project, wanted, base)
    release = project.changes.promote(
        *versions, author=author, by_name=True, accept_loss=accept_loss, reason=reason, also=others
    )
    for hold in project.releases.holds():
        if hold.slot.kind == "view" and str(others.get(hold.slot)) == hold.version:
            project.releases.release_hold(
                hold.slot, fingerprint=hold.fingerprint, version=hold.version, author=author, reason="promoted by name"
            )
    return release


def planned(project: Project, wanted: Mapping[str, str], *, author: str) -> Release:
    """The release that a promotion of these values would make; nothing is changed, and no gate is asked."""
    base = project.releases.live()
    versions, others = _wanted(project, wanted, base)
    changes = {**others, **{Slot("embedding", one.feature): one.key for one in versions}}
    return base.next(changes, action="promote", author=author, reason="planned", at=project.clock())


def _wanted(
    project: Project, wanted: Mapping[str, str], base: Release
) -> tuple[list[EmbeddingVersion], dict[Slot, Any]]:
    """The embedding versions and the other slots' values that differ from what is live."""
    versions: list[EmbeddingVersion] = []
    others: dict[Slot, Any] = {}
    for slot, value in [(slot_named(project, name), value) for name, value in wanted.items()]:
        if slot.kind == "embedding":
            version = project.versions.find(slot.name, value)
            versions += [version] if base.slots.get(slot) != version.key else []
            continue
        found = _value(project, slot, value)
        others |= {slot: found} if base.slots.get(slot) != found else {}
    if not versions and not others:
        message = f"{', '.join(wanted) or 'nothing'}: live already in release {base.generation}; nothing was changed"
        raise RefusedError(message)
    return versions, others


def _value(project: Project, slot: Slot, value: str) -> Any:  # noqa: ANN401 - a slot's value
    if slot.kind == "template":
        return {project.templates.get(slot.name, value).version: 1.0}
    if not (value.isascii() and value.isdigit()):
        pinned = f"{slot.name}@{value}"
        raise UnknownViewError(pinned, [f"{one}@{number}" for one, number in project.catalog.views])
    return project.catalog.view(slot.name, int(value)).version


def activate(
    project: Project, template_id: str, weights: Mapping[str, float], *, author: str, reason: str = ""
) -> Release:
    """These versions of the template are live, in these proportions."""
    if not weights or any(not 0 < weight < math.inf for weight in weights.values()):
        message = f"{template_id}: give one or more versions, each with a weight above 0, such as 1.0.0=0.9 1.1.0=0.1"
        raise RequestError(message)
    total = math.fsum(weights.values())
    # The slot holds shares, of which the choice for each user expects that they make 1.
    parts = dict(weights) if math.isclose(total, 1) else {name: weight / total for name, weight in weights.items()}
    value = {project.templates.get(template_id, version).version: part for version, part in parts.items()}
    base, slot = project.releases.live(), Slot("template", template_id)
    if base.slots.get(slot) == value:
        message = f"{template_id}: just so live already in release {base.generation}; nothing was changed"
        raise RefusedError(message)
    return project.releases.publish({slot: value}, action="promote", author=author, reason=reason, base=base)


def rollback_template(project: Project, template_id: str, *, author: str, reason: str = "") -> Release:
    """The template's previous live value is live again; other slots stay as they are."""
    slot, live = Slot("template", template_id), project.releases.live()
    if slot not in live.slots:
        raise UnknownTemplateError(template_id, live.templates)
    return project.changes.rollback(slot, author=author, reason=reason)


def rollback_release(project: Project, *, author: str, reason: str = "", to: int | None = None) -> Release:
    """A whole earlier release is live again, as a new one: that of generation `to`, or the one before.

    Two rollbacks in a row go back two steps. Embedding versions that it leaves are held, so that no
    sensor promotes them again.
    """
    history = project.releases.history()
    target = project.releases.generation(to) if to is not None else _before(history)
    if target.slots == history[-1].slots:
        message = f"release {target.generation} is what is live; nothing was changed"
        raise RefusedError(message)
    return project.changes.restore(target, author=author, reason=reason)


def _before(history: Sequence[Release]) -> Release:
    """The newest release that differs from the live one, where going back to one takes off what came after it."""
    stack: list[Release] = []
    for release in history:
        places = [place for place, one in enumerate(stack) if one.slots == release.slots]
        stack = stack[: places[0]] if places else stack
        stack.append(release)
    if len(stack) < 2:  # noqa: PLR2004 - the live one and one before it
        message = "no earlier release differs from the live one; there is nothing to roll back to"
        raise RefusedError(message)
    return stack[-2]
