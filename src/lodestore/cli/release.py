"""release: what is live, what was, and the way to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from lodestore.cli.page import Block, Facts, Table, ago, shares
from lodestore.cli.session import Session, author, command, group, pairs

if TYPE_CHECKING:
    from lodestore.preview import Preview
    from lodestore.project import Project
    from lodestore.releases import Release, Slot

__all__ = ["release"]

release = group("release", "Releases: what is live, what was, and the way to another.")


@command(release)
@click.argument("generation", type=int, required=False)
@click.option("--at", "moment", metavar="TIME", help="What was live then, such as 2026-01-31T12:00:00Z.")
def show(session: Session, generation: int | None, moment: str | None) -> None:
    """Show the live release, or another."""
    from lodestore.status import release_json
    from lodestore.wire import from_rfc3339

    releases = session.project.releases
    if moment is not None:
        found = releases.at(from_rfc3339(moment, "--at"))
    else:
        found = releases.live() if generation is None else releases.generation(generation)
    value = release_json(session.project, found)
    session.show(value, _release_page(value))


def _release_page(value: Mapping[str, Any]) -> Iterator[Block]:
    if not value["generation"]:
        yield "Nothing is live yet; run: lodestore run ingest"
        return
    made = {"since": ago(value["at"]), "made by": value["author"], "how": value["action"], "why": value["reason"]}
    yield Facts({**made, "id": value["id"]}, title=f"Release {value['generation']}")
    kinds = ("embeddings", "templates", "views")
    rows = [[kind.removesuffix("s"), name, shares(one)] for kind in kinds for name, one in value[kind].items()]
    yield Table(("kind", "slot", "live"), rows, title="Slots")


@command(release)
@click.option("--limit", default=20, show_default=True, help="How many, newest first.")
def history(session: Session, limit: int) -> None:
    """List the releases, newest first, with what each changed."""
    from lodestore.wire import rfc3339

    found = session.project.releases.history()
    rows = []
    for before, one in zip([None, *found], found, strict=False):
        why = {"action": one.action, "author": one.author, "reason": one.reason}
        changes = _changes(session.project, before, one)
        rows.append({"generation": one.generation, "id": one.id, "at": rfc3339(one.at), **why, "changes": changes})
    newest = rows[::-1][:limit]
    session.show({"releases": newest}, _history_page(newest))


def _history_page(rows: list[dict[str, Any]]) -> Iterator[Block]:
    table = [
        [one["generation"], ago(one["at"]), one["action"], one["author"], "; ".join(map(_change, one["changes"]))]
        for one in rows
    ]
    columns = ("release", "since", "how", "by", "changes")
    yield Table(columns, table, empty="none yet; run: lodestore run ingest", text=frozenset({"changes"}))


def _changes(project: Project, before: Release | None, after: Release) -> list[dict[str, Any]]:
    """Each slot that differs, with its value before and after."""
    old: Mapping[Slot, Any] = before.slots if before is not None else {}
    changed = [slot for slot in sorted({*old, *after.slots}) if old.get(slot) != after.slots.get(slot)]
    return [
        {"slot": str(slot), "from": _value(project, slot, old), "to": _value(project, slot, after.slots)}
        for slot in changed
    ]


def _value(project: Project, slot: Slot, slots: Mapping[Slot, Any]) -> Any:  # noqa: ANN401 - a slot's value
    value = slots.get(slot)
    return project.versions.registered(value).label if slot.kind == "embedding" and value else value


def _change(one: Mapping[str, Any]) -> str:
    name = one["slot"].partition(":")[2]
    return (
        f"{name} {shares(one['to'])}" if one["from"] is None else f"{name} {shares(one['from'])} -> {shares(one['to'])}"
    )


@command(release)
@click.argument("a", type=int)
@click.argument("b", type=int)
@click.option("--replay", type=int, metavar="N", help="Also put N logged or golden questions to both.")
def diff(session: Session, a: int, b: int, replay: int | None) -> None:
    """Show what differs between two releases, and with --replay whose citations and prompts change."""
    releases = session.project.releases
    before, after = releases.generation(a), releases.generation(b)
    value, page = _difference(session.project, before, after, replay)
    session.show(value, page)


def _difference(
    project: Project, before: Release, after: Release, replay: int | None
) -> tuple[dict[str, Any], list[Block]]:
    """What differs between two releases, and with `replay` what becomes of so many questions."""
    a, b = before.generation, after.generation
    changes = _changes(project, before, after)
    rows = [[one["slot"], shares(one["from"]), shares(one["to"])] for one in changes]
    page: list[Block] = [Table(("slot", f"release {a}", f"release {b}"), rows, empty="nothing differs")]
    value: dict[str, Any] = {"from": a, "to": b, "changes": changes}
    if replay is not None:
        from lodestore.preview import preview

        found = preview(project, before, after, limit=replay)
        value["replay"] = found.to_json()
        page += _preview_page(found)
    return value, page


def _preview_page(found: Preview) -> Iterator[Block]:
    counts = {"questions": f"{len(found.changes)}, {found.source}", "cite otherwise": found.citations}
    yield Facts({**counts, "prompts changed": found.prompts}, title="Replay")
    rows = [
        [one.id, one.user_id, ", ".join(one.documents_before), ", ".join(one.documents_after), one.template_after]
        for one in found.changes
        if not one.same
    ]
    columns = ("question", "user", "cited before", "cited after", "template")
    yield Table(columns, rows, empty="nothing changes", text=frozenset({"cited before", "cited after"}))


@command(release)
@click.argument("slots", nargs=-1, required=True, metavar="SLOT=VALUE...")
@click.option("--accept-loss", is_flag=True, help="Override the gate on quality, never on health; needs --reason.")
@click.option("--reason", default="", help="Why; it stays in the log.")
@click.option("--author", "by", help="Who; by default the user of this machine.")
@click.option("--plan", is_flag=True, help="Only show what would change; nothing goes live.")
@click.option("--replay", type=int, metavar="N", help="With --plan: put N logged or golden questions to both.")
def promote(
    session: Session,
    slots: tuple[str, ...],
    reason: str,
    by: str | None,
    replay: int | None,
    *,
    accept_loss: bool,
    plan: bool,
) -> None:
    """Make these values live in one release.

    Such as: content=minilm@2 qa_basic=1.1.0. An embedding version has to have passed the gate.
    """
    from lodestore.promotion import planned
    from lodestore.promotion import promote as promoted

    wanted = dict(pairs(slots, "slot"))
    if plan:
        after = planned(session.project, wanted, author=by or author())
        value, page = _difference(session.project, session.project.releases.live(), after, replay)
        session.show(value, page)
        return
    if replay is not None:
        message = "--replay belongs to --plan; the report of an embedding version's gate has a preview of its own"
        raise click.UsageError(message, click.get_current_context())
    made = promoted(session.project, wanted, author=by or author(), accept_loss=accept_loss, reason=reason)
    _told(session, made)


@command(release)
@click.option("--to", type=int, metavar="GENERATION", help="Which release; by default the one before.")
@click.option("--reason", default="", help="Why; it stays in the log.")
@click.option("--author", "by", help="Who; by default the user of this machine.")
def rollback(session: Session, to: int | None, reason: str, by: str | None) -> None:
    """Make an earlier release live again, whole. Embedding versions that it leaves are held."""
    from lodestore.promotion import rollback_release

    _told(session, rollback_release(session.project, to=to, author=by or author(), reason=reason))


def _told(session: Session, made: Release) -> None:
    before = session.project.releases.generation(made.generation - 1) if made.generation > 1 else None
    changes = _changes(session.project, before, made)
    value = {"generation": made.generation, "id": made.id, "changes": changes}
    session.show(value, [f"Release {made.generation} is live.", *(f"  {_change(one)}" for one in changes)])
