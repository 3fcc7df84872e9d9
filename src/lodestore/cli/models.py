"""models: embedding models and their versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from lodestore.cli.page import Block, Facts, Table, ago
from lodestore.cli.session import Session, author, command, group

if TYPE_CHECKING:
    from lodestore.changes import Plan
    from lodestore.metrics import Interval
    from lodestore.models import EmbeddingModel
    from lodestore.project import Project
    from lodestore.releases import Release

__all__ = ["models"]

models = group("models", "Embedding models and their versions.")


@command(models, "list")
def listed(session: Session) -> None:
    """List the declared models, and every version that the store has."""
    from lodestore.status import versions

    project = session.project
    wanted = project.versions.declared_labels
    declared = [
        {
            "model": one.label,
            "source": one.source,
            "for": [name for name, label in wanted.items() if label == one.label],
        }
        for one in project.settings.embedding.models
    ]
    stored = versions(project)
    session.show({"models": declared, "versions": stored}, _list_page(declared, stored))


def _list_page(declared: list[dict[str, Any]], versions: tuple[Mapping[str, Any], ...]) -> Iterator[Block]:
    rows = [[one["model"], one["source"], one["for"]] for one in declared]
    yield Table(("model", "source", "wanted for"), rows, title="Declared", empty="none; add [[embedding.models]]")
    columns = ("feature", "version", "state", "rows", "dim", "fingerprint")
    table = [[str(one[name])[:12] if name == "fingerprint" else one[name] for name in columns] for one in versions]
    yield Table(columns, table, title="In the store", empty="none yet; run: lodestore run ingest")


@command(models)
@click.argument("label", metavar="MODEL@VERSION")
def show(session: Session, label: str) -> None:
    """Show who a model is: its fingerprint, what that was made of, and where it is used."""
    from lodestore.errors import UnknownModelError
    from lodestore.status import versions

    project = session.project
    stored = [one for one in versions(project) if label in {one["version"], one["key"]}]
    found = [one for one in project.settings.embedding.models if one.label == label]
    if not stored and not found:
        known = [one.label for one in project.settings.embedding.models]
        raise UnknownModelError(label, [*known, *(one.label for one in project.versions.all())])
    told = [one | {"gate": _gate(project, one["key"])} for one in stored]
    value = {"model": label, **(_declared(project, found[0]) if found else {}), "versions": told}
    session.show(value, _show_page(value))


def _gate(project: Project, key: str) -> dict[str, Any] | None:
    """The newest report of the version's gate, and when it was made."""
    from lodestore.wire import rfc3339

    row = project.changes.report(project.versions.registered(key))
    return None if row is None else {"at": rfc3339(row["at"]), **json.loads(row["report"])}


def _declared(project: Project, model: EmbeddingModel) -> dict[str, Any]:
    """What the settings say, and who the files are; a model that is not installed has no identity here."""
    from lodestore.errors import ModelError

    out: dict[str, Any] = {"source": model.source}
    try:
        identity = project.versions.identity(model.label)
    except ModelError as error:
        return out | {"problem": str(error)}
    out |= {"fingerprint": identity.fingerprint, "dimension": identity.dimension, "max_tokens": identity.max_tokens}
    return out | {"layout": identity.layout, "parts": dict(identity.parts)}


def _show_page(value: Mapping[str, Any]) -> Iterator[Block]:
    names = ("source", "problem", "fingerprint", "dimension", "max_tokens", "layout")
    yield Facts({name: value[name] for name in names if name in value}, title=value["model"])
    if "parts" in value:
        rows = [[name, str(one)] for name, one in value["parts"].items()]
        yield Table(("part", "value"), rows, title="What the fingerprint is made of", text=frozenset({"value"}))
    rows = [[one["feature"], one["state"], one["rows"], one["key"]] for one in value["versions"]]
    yield Table(("feature", "state", "rows", "partition"), rows, title="In the store", empty="not built yet")
    for one in value["versions"]:
        if one["gate"] is not None:
            yield Facts(_gate_facts(one["gate"]), title=f"Gate of {one['feature']}, {ago(one['gate']['at'])}")


def _gate_facts(report: Mapping[str, Any]) -> dict[str, object]:
    facts: dict[str, object] = {"verdict": report["verdict"], "because": "; ".join(report["reasons"])}
    facts |= {f"{one['name']} against {report['live_label']}": _difference(one) for one in report["metrics"]}
    preview = report.get("preview")
    if preview is None:
        return facts
    if "note" in preview:
        return facts | {"no preview": preview["note"]}
    counts = f"{preview['citations_changed']} cite otherwise, {preview['prompts_changed']} prompts change"
    return facts | {f"of {preview['questions']} {preview['source']} questions": counts}


def _difference(metric: Mapping[str, Any]) -> str:
    return "{value:+.3f} ({low:+.3f} to {high:+.3f})".format(**metric["difference"])


_FEATURE = click.option("--feature", default="content", show_default=True, help="The embedding feature.")


@command(models)
@click.argument("label", metavar="[MODEL@VERSION]", required=False)
@_FEATURE
@click.option("--budget", type=float, metavar="SECONDS", help="Refuse (exit 1) when the build would take longer.")
def plan(session: Session, label: str | None, feature: str, budget: float | None) -> None:
    """Show what building a version would take: chunks, cache hits, tokens, seconds, disk.

    Without a version, the one that the settings declare.
    """
    changes = session.project.changes
    made = changes.plan(changes.candidate(feature, label), budget=budget)
    session.show(made.to_json(), [Facts(_plan_facts(made), title=f"{feature} {made.label}")])


def _plan_facts(made: Plan) -> dict[str, object]:
    return {
        "rows": made.rows,
        "to embed": made.to_embed,
        "vectors reused": made.cached,
        "tokens": made.tokens,
        "work": f"about {made.cpu_seconds:,.1f} CPU seconds",
        "time": f"about {made.seconds:,.1f} s at {made.tokens_per_second:,.0f} tokens/s, as busy as this machine is now",
        "disk": f"about {made.disk_bytes / 1e6:,.1f} MB",
        "cut off by the model": f"{made.truncated_share:.2%} of the chunks",
        "chunks": "cut anew for this model" if made.new_chunker else "those of the live version",
        "questions embedded again": made.questions,
        "questions that cannot be": f"{made.lost:,}{_LOST if made.lost else ''}",
    }


_LOST = "; their texts are not kept ([context] log_queries), so their users' vectors stay OTHER_VERSION"


@command(models)
@click.argument("label", metavar="MODEL@VERSION")
@_FEATURE
@click.option("--seconds", type=click.FloatRange(1), help="How long it may take, about; a minute unless told.")
def trial(session: Session, label: str, feature: str, seconds: float | None) -> None:
    """Embed judged documents and a sample, and estimate how the version will do."""
    from lodestore.trial import TRIAL_SECONDS

    changes = session.project.changes
    tried = changes.trial(changes.candidate(feature, label), seconds=seconds or TRIAL_SECONDS)
    facts: dict[str, object] = {name: _interval(one) for name, one in tried.candidate.items()}
    if tried.difference is not None:
        facts[f"ndcg@10 against {tried.live_label}"] = _interval(tried.difference)
    facts |= {"queries": tried.queries, "rows": tried.rows, "took": f"{tried.seconds:,.0f} s"}
    session.show(tried, [Facts(facts, title=f"{feature} {tried.label}, on a sample")])


def _interval(one: Interval) -> str:
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


@command(models)
@click.argument("label", metavar="MODEL@VERSION")
@_FEATURE
@click.option("--accept-loss", is_flag=True, help="Promote it although the gate refused it; needs --reason.")
@click.option("--reason", default="", help="Why; it is kept in the release log.")
def promote(session: Session, label: str, feature: str, reason: str, *, accept_loss: bool) -> None:
    """Make a built version live, by name."""
    project = session.project
    version = project.versions.find(feature, label)
    release = project.changes.promote(version, author=author(), by_name=True, accept_loss=accept_loss, reason=reason)
    _say_live(session, release, feature)


@command(models)
@click.argument("feature", default="content")
@click.option("--reason", default="rolled back", show_default=True, help="Why; it is kept in the release log.")
def rollback(session: Session, feature: str, reason: str) -> None:
    """Take one embedding feature back to its previous version, at once; what leaves is held."""
    project = session.project
    release = project.changes.rollback(project.releases.slot(f"embedding:{feature}"), author=author(), reason=reason)
    _say_live(session, release, feature)


def _say_live(session: Session, release: Release, feature: str) -> None:
    from lodestore.spaces import FOLLOWED
    from lodestore.status import release_json

    key = release.embeddings.get(feature)
    label = session.project.versions.registered(key).label if key else f"follows {FOLLOWED} again; that"
    session.show(
        release_json(session.project, release), [f"{feature} {label} is live since release {release.generation}"]
    )


@command(models)
@click.argument("label", metavar="MODEL@VERSION")
@_FEATURE
def drop(session: Session, label: str, feature: str) -> None:
    """Delete a version's vectors; refused while it is live or where a rollback would go."""
    project = session.project
    version = project.versions.find(feature, label)
    project.changes.drop(version)
    session.show({"dropped": version.key}, [f"{version.key} was dropped"])
