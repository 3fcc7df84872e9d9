"""status, doctor, settings: what is live, what is wrong, and where each setting came from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from lodestore.addresses import shown
from lodestore.cli.page import Block, Facts, Table, ago, shares
from lodestore.cli.session import Session, command

if TYPE_CHECKING:
    from lodestore.doctor import Finding
    from lodestore.status import Status

__all__ = ["doctor", "settings", "status"]

_SECRET = re.compile(r"(key|token|secret|password|credential)[^.]*$", re.IGNORECASE)
_HIDDEN = "***"


@command()
def status(session: Session) -> None:
    """Show what is live, declared, held, fresh and failing. Exits 0 whatever it shows."""
    from lodestore.status import status as measured

    found = measured(session.project)
    session.show(found, _status_page(found, session.project.settings.store_uri))


def _status_page(found: Status, store: str) -> Iterator[Block]:
    yield from _release(found, store)
    yield Facts({**found.documents, "chunks": found.chunks}, title="Documents")
    columns = ("feature", "version", "state", "rows", "dim", "fingerprint")
    rows = [[str(one[name])[:12] if name == "fingerprint" else one[name] for name in columns] for one in found.versions]
    yield Table(columns, rows, title="Embedding versions", empty="none yet; run: lodestore run ingest")
    yield _slots(found)
    yield _views(found)
    if found.online["state"] != "ready":
        yield f"Online values are unavailable: {found.online['detail']}"
    yield from _held(found)
    yield from _checks(found)


def _release(found: Status, store: str) -> Iterator[Block]:
    live = found.release
    if live["generation"]:
        made = f"{live['action']} by {live['author']}" if live["author"] else live["action"]
        yield f"Release {live['generation']} is live since {ago(live['at'])} ({made}), store {store}"
    else:
        yield f"Nothing is live yet, store {store}; run: lodestore run ingest features"


def _slots(found: Status) -> Table:
    """Each slot with what is live beside what is declared."""
    rows: list[list[str]] = []
    for kind in ("embeddings", "templates", "views"):
        live: Mapping[str, Any] = found.release[kind]
        wanted: Mapping[str, Any] = found.declared[kind]
        names = sorted({*live, *wanted})
        rows += [[kind.removesuffix("s"), name, shares(live.get(name)), shares(wanted.get(name))] for name in names]
    return Table(("kind", "slot", "live", "declared"), rows, title="Slots", empty="nothing is declared")


def _views(found: Status) -> Table:
    columns = ("name", "entity", "state", "rows", "entities", "latest_event")
    rows = [[ago(one[name]) if name == "latest_event" else one[name] for name in columns] for one in found.views]
    headings = ("view", "entity", "state", "rows", "entities", "newest event")
    return Table(headings, rows, title="Feature views", empty="none is declared")


def _held(found: Status) -> Iterator[Block]:
    if found.holds:
        rows = [[one["slot"], one["version"], one["author"], one["reason"], ago(one["at"])] for one in found.holds]
        yield Table(("slot", "version", "by", "why", "since"), rows, title="Held", text=frozenset({"why"}))


def _checks(found: Status) -> Iterator[Block]:
    checks = found.checks
    if checks.passed or checks.failing:
        yield Facts({"passed": checks.passed, "warned": checks.warned, "failed": checks.failed}, title="Checks")
    if checks.failing:
        rows = [[one["check"], one["severity"], ago(one["since"]), one["mend"]] for one in checks.failing]
        yield Table(("failing", "severity", "since", "mend"), rows, text=frozenset({"mend"}))
    if found.alerts:
        rows = [[one["check"], one["delivery"], ago(one["at"]), one["text"]] for one in found.alerts]
        yield Table(("alert", "delivery", "since", "text"), rows, text=frozenset({"text"}))


@command()
def doctor(session: Session) -> None:
    """Look for what is wrong, and say what mends it. Exits 1 only for a finding of severity error."""
    from lodestore.doctor import examine

    found = examine(session.project)
    ill = any(one.severity == "error" for one in found)
    session.show({"ok": not ill, "findings": found}, _findings(found))
    if ill:
        click.get_current_context().exit(1)


def _findings(found: Iterable[Finding]) -> Iterator[Block]:
    counts: dict[str, int] = {}
    for one in found:
        counts[one.severity] = counts.get(one.severity, 0) + 1
        yield f"{one.severity:<7}  {one.code}: {one.what}"
        yield f"         mend: {one.mend}"
    said = ", ".join(f"{n} {word}{'s' if n > 1 else ''}" for word, n in counts.items())
    yield f"\n{said}" if said else "All is well."


@command()
def settings(session: Session) -> None:
    """Show each setting and where it came from.

    Secrets are masked.
    """
    from lodestore.settings import load

    found = {
        path: {"value": masked(path, value), "origin": origin} for path, value, origin in load(session.config).flat()
    }
    rows = [[path, one["value"], one["origin"]] for path, one in found.items()]
    session.show(found, [Table(("setting", "value", "from"), rows, text=frozenset({"value"}))])


def masked(path: str, value: Any) -> Any:  # noqa: ANN401 - settings are of every type
    """The value with its secrets hidden: keys, the passwords in URLs, and alert addresses, which are secrets as a whole.

    >>> masked("online.url", "redis://me:secret@host:6379/0")
    'redis://me:***@host:6379/0'
    """
    if value is None or value in ("", ()):
        return value
    if _SECRET.search(path.rpartition(".")[2]):
        return _HIDDEN
    if path == "alerts.urls" and not isinstance(value, str):
        return [f"{one.partition('://')[0]}://{_HIDDEN}" for one in value]
    if isinstance(value, str):
        return shown(value)
    return value
