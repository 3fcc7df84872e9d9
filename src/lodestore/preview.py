"""Preview: the same questions put to two releases, and whose citations and prompts change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from lodestore.composer import Composer, Request, User
from lodestore.context import Context
from lodestore.contexts import LoggedContext
from lodestore.errors import LodestoreError, RequestError
from lodestore.replay import request_of, snapshot_of
from lodestore.wire import jsonable

if TYPE_CHECKING:
    from lodestore.live import Live
    from lodestore.models import EmbeddingVersion
    from lodestore.project import Project
    from lodestore.releases import Release

__all__ = ["Asked", "Change", "Preview", "of_gate", "preview", "preview_version", "shown"]

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that is put to both releases: a logged one under its context id, or a golden one under its own."""

    id: str
    request: Request
    user: User


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one question. Documents are the cited ones, in the order of their citations."""

    id: str
    user_id: str | None
    citations: bool
    prompt: bool
    template_before: str
    template_after: str
    documents_before: tuple[str, ...]
    documents_after: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing changes."""
        return not (self.citations or self.prompt)


@dataclass(frozen=True, slots=True)
class Preview:
    """What changes from one release to another, over logged or golden questions."""

    before: int
    after: int
    source: Literal["logged", "golden"]
    changes: tuple[Change, ...]

    @property
    def citations(self) -> int:
        """For how many questions other chunks are cited, or in another order."""
        return sum(one.citations for one in self.changes)

    @property
    def prompts(self) -> int:
        """For how many questions the prompt is another."""
        return sum(one.prompt for one in self.changes)

    def to_json(self) -> dict[str, Any]:
        """The preview as JSON types; questions that stay the same are only counted."""
        counts = {"questions": len(self.changes), "citations_changed": self.citations, "prompts_changed": self.prompts}
        changed = [jsonable(asdict(one)) for one in self.changes if not one.same]
        return {"from": self.before, "to": self.after, "source": self.source, **counts, "changed": changed}


def shown(value: Mapping[str, Any]) -> str:
    """A preview in JSON as a person reads it in the UI: ids only, no questions; where there is none, why."""
    if "note" in value:
        return f"No preview: {value['note']}"
    head = (
        f"{value['questions']} {value['source']} questions, release {value['from']} -> {value['to']}: "
        f"{value['citations_changed']} cite otherwise, {value['prompts_changed']} prompts change"
    )
    changed = value["changed"][:_SHOWN]
    if not changed:
        return head
    lines = [head, "", "| question | template | cited before | cited after |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {one['id']} | {_templates(one)} | {', '.join(one['documents_before'])} | {', '.join(one['documents_after'])} |"
        for one in changed
    ]
    left = len(value["changed"]) - len(changed)
    return "\n".join([*lines, "", f"and {left} more"] if left else lines)


def _templates(change: Mapping[str, Any]) -> str:
    before, after = change["template_before"], change["template_after"]
    return before if before == after else f"{before} -> {after}"


def preview(project: Project, before: Release, after: Release, *, limit: int) -> Preview:
    """At most `limit` questions put to both: the newest logged ones where the log keeps them, or else golden ones.

    Nothing is recorded. Each logged question is asked with the features that its user had then.
    """
    source, asked = _questions(project, limit)
    composer = project.store.composer
    lives = [snapshot_of(project, one) for one in (before, after)]
    changes = tuple(_changed(one, *(_made(composer, live, one) for live in lives)) for one in asked)
    return Preview(before.generation, after.generation, source, changes)


def preview_version(project: Project, version: EmbeddingVersion, *, limit: int) -> Preview:
    """What would change if the built version went live now: for the report of its gate."""
    from lodestore.rollout import slot_of

    live = project.releases.live()
    after = live.next(
        {slot_of(version): version.key}, action="preview", author="preview", reason="", at=project.clock()
    )
    return preview(project, live, after, limit=limit)


def of_gate(project: Project, version: EmbeddingVersion) -> dict[str, Any] | None:
    """What the report of a version's gate says of it, as JSON types; a preview that cannot be made says why."""
    limit = project.settings.gate.replay
    if not limit:
        return None
    try:
        told = preview_version(project, version, limit=limit).to_json()
    except LodestoreError as error:
        return {"note": str(error)}
    # The report is kept for good: it names contexts, which can be erased, and no users.
    changed = [{name: value for name, value in one.items() if name != "user_id"} for one in told["changed"]]
    return {**told, "changed": changed}


def _questions(project: Project, limit: int) -> tuple[Literal["logged", "golden"], list[Asked]]:
    if limit < 1:
        message = f"--replay is {limit}; give at least 1"
        raise RequestError(message)
    logged = [one for one in project.contexts.newest(limit) if one.query is not None]
    if logged:
        return "logged", [_logged(one) for one in logged]
    golden = project.changes.golden()
    if golden is None:
        message = (
            "there is no question to replay: set log_queries = true in [context] to keep those that are asked, "
            "or declare golden queries in [golden]"
        )
        raise RequestError(message)
    if project.settings.context.filters:
        message = (
            "golden questions have no user, and [context] filters look at what is known of one: nothing would be found; "
            "set log_queries = true in [context] to replay questions of users"
        )
        raise RequestError(message)
    chosen = golden.queries[:limit]
    return "golden", [Asked(one.query_id, Request(one.text, filter=one.filter), User()) for one in chosen]


def _logged(row: LoggedContext) -> Asked:
    return Asked(row.context_id, request_of(row), User(features=row.features))


def _made(composer: Composer, live: Live, asked: Asked) -> Context:
    return composer.compose(live, asked.request, context_id=asked.id, user=asked.user).context


def _changed(asked: Asked, before: Context, after: Context) -> Change:
    chunks = [[hit.chunk_id for hit in one.hits] for one in (before, after)]
    return Change(
        asked.id,
        asked.request.user_id,
        chunks[0] != chunks[1],
        before.prompt != after.prompt or before.messages != after.messages,
        f"{before.template_id} {before.template_version}",
        f"{after.template_id} {after.template_version}",
        _documents(before),
        _documents(after),
    )


def _documents(made: Context) -> tuple[str, ...]:
    return tuple(dict.fromkeys(hit.document_id for hit in made.hits))
