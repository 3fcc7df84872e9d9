"""The context log: what each recorded context was made of, without what is personal, so that it can be made again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lodestore.catalog import Catalog
from lodestore.composer import Request
from lodestore.context import Context
from lodestore.errors import UnknownContextError
from lodestore.logs import Logs
from lodestore.spec import FeatureRef, Kind
from lodestore.spool import Spool
from lodestore.tables import quoted
from lodestore.wire import canonical, digest

__all__ = ["ContextLog", "LoggedContext", "id_for", "logged", "seal"]

_REQUEST = ("template", "filter", "k", "token_budget", "mode")
_PERSONAL = ("query", "variables", "history")
_SHOWN_IDS = 5


def id_for(user_id: str | None, request_id: str) -> str:
    """The id of the context of that request: a repeated request has the same one, so it is logged once.

    >>> id_for("ada", "r1") == id_for("ada", "r1") != id_for("ben", "r1")
    True
    """
    return digest([user_id, request_id])[:32]


def seal(context: str, value: object) -> str:
    """A hash that tells whether a value is the same one, and links it with no other context.

    >>> seal("c1", "why?") == seal("c1", "why?") != seal("c2", "why?")
    True
    """
    return digest([context, value])


@dataclass(frozen=True, slots=True)
class LoggedContext:
    """One row of the log. `request` has the question itself only where the settings ask for that."""

    context_id: str
    release: int
    template_id: str
    template_version: str
    template_hash: str
    weights: Mapping[str, float]
    chunks: tuple[str, ...]
    features: Mapping[str, Any]
    prompt_seal: str
    request: Mapping[str, Any]
    at: datetime
    user_id: str | None = None
    request_id: str | None = None
    seals: Mapping[str, str] = field(default_factory=dict)

    @property
    def query(self) -> str | None:
        """The question, where it was logged."""
        return self.request.get("query")

    def to_row(self) -> dict[str, Any]:
        """The row of the log."""
        template = {"id": self.template_id, "version": self.template_version, "content_hash": self.template_hash}
        return {
            "id": self.context_id,
            "request_id": self.request_id,
            "user": self.user_id,
            "release": str(self.release),
            "template": _text({**template, "weights": dict(self.weights)}),
            "chunks": _text(list(self.chunks)),
            "features": _text(dict(self.features)),
            "prompt_hash": self.prompt_seal,
            "request": _text({**self.request, "seals": dict(self.seals)}),
            "at": self.at,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> LoggedContext:
        """Read a row of the log."""
        template, request = json.loads(row["template"]), json.loads(row["request"])
        seals = request.pop("seals")
        return cls(
            row["id"], int(row["release"]), template["id"], template["version"], template["content_hash"],
            template["weights"], tuple(json.loads(row["chunks"])), json.loads(row["features"]), row["prompt_hash"],
            request, row["at"], row["user"], row["request_id"], seals,
        )  # fmt: skip


def _text(value: object) -> str:
    return canonical(value).decode()


def logged(
    made: Context,
    request: Request,
    *,
    catalog: Catalog,
    weights: Mapping[str, float],
    at: datetime,
    request_id: str | None,
    log_queries: bool,
) -> LoggedContext:
    """What the log keeps of a context. Of the question, the variables and the history only seals, unless asked to."""
    mine = made.context_id
    said: dict[str, Any] = {name: getattr(request, name) for name in _REQUEST}
    personal = {name: getattr(request, name) for name in _PERSONAL}
    if log_queries:
        said |= personal
    seals = {name: seal(mine, value) for name, value in personal.items()}
    seals |= {"context": seal(mine, made.context_text), "instruction": seal(mine, made.instruction)}
    return LoggedContext(
        mine, made.release, made.template_id, made.template_version, made.template_hash, weights,
        tuple(hit.chunk_id for hit in made.hits), dict(_public(made.features, catalog)), seal(mine, made.prompt),
        said, at, request.user_id, request_id, {**seals, "features": seal(mine, _stored(made.features, catalog))},
    )  # fmt: skip


def _stored(features: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """The stored features: what is computed on demand may repeat the question."""
    return {ref: value for ref, value in features.items() if ref.partition(":")[0] not in catalog.on_demand}


def _public(features: Mapping[str, Any], catalog: Catalog) -> Iterator[tuple[str, Any]]:
    """The values that the log may keep: nothing personal, no vectors."""
    for ref, value in _stored(features, catalog).items():
        parsed = FeatureRef.parse(ref)
        feature = catalog.view(parsed.view, parsed.version).feature(parsed.feature)
        if not feature.pii and feature.kind is not Kind.EMBEDDING:
            yield ref, value


class ContextLog:
    """The log of recorded contexts: written in microseconds, read whole."""

    def __init__(self, logs: Logs, folder: Path) -> None:
        self._logs = logs
        self._spool = Spool(logs, "contexts", folder)

    def add(self, made: LoggedContext) -> None:
        """The context is logged, once under its id."""
        self._spool.add(made.to_row())

    def flush(self) -> int:
        """What waits is in the table; returns how many rows were new."""
        return self._spool.flush()

    def get(self, name: str) -> LoggedContext:
        """The context of that id, or of the only one that starts so."""
        rows = self._rows(f"starts_with(id, {quoted(name)})", lambda one: one.startswith(name))
        if len(rows) != 1:
            known = [row["id"] for row in rows] or [row["id"] for row in self._newest(_SHOWN_IDS)]
            raise UnknownContextError(name, known, note="; several start so" if rows else "")
        return LoggedContext.from_row(rows[0])

    def newest(self, limit: int) -> list[LoggedContext]:
        """The latest contexts, newest first."""
        return [LoggedContext.from_row(row) for row in self._newest(limit)]

    def _newest(self, limit: int) -> list[dict[str, Any]]:
        rows = self._rows(None, lambda _: True)
        return sorted(rows, key=lambda row: row["at"], reverse=True)[:limit]

    def _rows(self, where: str | None, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
        # Those that wait are read first: a row that is moved in between is then seen twice, not never.
        waiting = {row["id"]: row for row in self._spool.rows() if wanted(row["id"])}
        return list({**waiting, **{row["id"]: row for row in self._logs.rows("contexts", where)}}.values())
