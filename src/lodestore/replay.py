"""Replay: a logged context made again as of then, and what differs, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lodestore.composer import Request, User
from lodestore.contexts import LoggedContext, seal
from lodestore.errors import RequestError, RetentionError
from lodestore.past import PastTables
from lodestore.prompts import RESERVED

if TYPE_CHECKING:
    from lodestore.context import Context
    from lodestore.live import Live
    from lodestore.project import Project
    from lodestore.releases import Release

__all__ = ["Part", "Replay", "replay", "request_of", "snapshot_of"]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a context: whether it is the same, and where it is not, what it was and is."""

    name: str
    same: bool
    was: object = None
    now: object = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Replay:
    """A context made again, over the chunks as they were then."""

    logged: LoggedContext
    context: Context
    parts: tuple[Part, ...]

    @property
    def same(self) -> bool:
        """Whether every part is what it was."""
        return all(one.same for one in self.parts)

    def to_json(self) -> dict[str, Any]:
        """The answer of `replay`."""
        parts = [
            {"part": one.name, "same": one.same}
            | ({} if one.same else {"was": one.was, "now": one.now, "note": one.note})
            for one in self.parts
        ]
        head = {"context_id": self.logged.context_id, "at": self.logged.at, "release": self.logged.release}
        return {**head, "same": self.same, "parts": parts, "prompt": self.context.prompt}


def replay(
    project: Project,
    name: str,
    *,
    query: str | None = None,
    variables: Mapping[str, object] | None = None,
    history: object = None,
) -> Replay:
    """The logged context of that id, made again by its release, its features and its template version.

    The log keeps question, variables and history only where `[context] log_queries` says so; otherwise
    they have to be given, and a seal tells whether they are the same.
    """
    logged = project.contexts.get(name)
    project.past.verify(logged.at)
    request = request_of(logged, query=query, variables=variables, history=history)
    release = snapshot_of(project, project.releases.generation(logged.release))
    live = replace(release, vectors=PastTables(project.tables, logged.at))
    template = project.templates.get(logged.template_id, logged.template_version)
    user = User(features=logged.features)
    composed = project.store.composer.compose(live, request, context_id=logged.context_id, user=user, template=template)
    return Replay(logged, composed.context, tuple(_parts(logged, request, composed.context)))


def request_of(
    logged: LoggedContext,
    *,
    query: str | None = None,
    variables: Mapping[str, object] | None = None,
    history: object = None,
) -> Request:
    """What was asked for then; what the log does not keep has to be given."""
    asked = query if logged.query is None else logged.query
    if asked is None:
        message = (
            f"the question of context {logged.context_id} is not in the log (context.log_queries is off); "
            "give it: lodestore replay CONTEXT_ID --query '...'"
        )
        raise RequestError(message)
    said = logged.request
    # Contexts of earlier versions were asked for with variables that Lodestore fills in, and that went nowhere.
    kept = {name: value for name, value in (said.get("variables") or {}).items() if name not in RESERVED}
    return Request(
        asked,
        logged.user_id,
        said["template"],
        variables or kept,
        history or said.get("history"),
        said["filter"],
        said["k"],
        said["token_budget"],
        said["mode"],
    )


def snapshot_of(project: Project, release: Release) -> Live:
    """What that release answers with, as long as its tables are there."""
    live = project.snapshot(release)
    for version in live.versions.values():
        if not project.tables.count(version.table):
            message = (
                f"release {release.generation} searched {version.feature} {version.label}, whose table is gone; "
                "only what is kept (release.keep) can be made again"
            )
            raise RetentionError(message)
    return live


def _parts(logged: LoggedContext, request: Request, made: Context) -> list[Part]:
    mine = logged.context_id
    now = {
        "query": request.query,
        "variables": request.variables,
        "history": request.history,
        "features": dict(made.features),
        "instruction": made.instruction,
        "context": made.context_text,
    }
    sealed = {name: seal(mine, value) == logged.seals.get(name) for name, value in now.items()}
    chunks = tuple(hit.chunk_id for hit in made.hits)
    notes = {
        "query": "not the question that was asked",
        "features": "personal features are not in the log",
        "context": "a cited chunk has another text or title",
    }
    given = [
        Part(name, sealed[name], note=notes.get(name, "")) for name in ("query", "variables", "history", "features")
    ]
    same_template = made.template_hash == logged.template_hash
    return [
        *given,
        Part("template", same_template, logged.template_hash, made.template_hash),
        Part("instruction", sealed["instruction"]),
        Part("chunks", chunks == logged.chunks, list(logged.chunks), list(chunks)),
        Part("context", sealed["context"], note=notes["context"]),
        Part("prompt", seal(mine, made.prompt) == logged.prompt_seal),
    ]
