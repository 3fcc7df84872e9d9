"""What is wrong with a project, and what mends it: findings as values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from lodestore import golden
from lodestore.backup import NIGHTLY, kept
from lodestore.composer import check_filters
from lodestore.context import ContextOptions
from lodestore.errors import (
    DeclarationError,
    LodestoreError,
    ModelError,
    SettingsError,
    SourceError,
    UnknownNameError,
    nearest,
)
from lodestore.events import files
from lodestore.maintain import NAME as MAINTAIN
from lodestore.project import Project
from lodestore.prompts import read_folder
from lodestore.schedule import longest_pause
from lodestore.settings import GoldenFiles
from lodestore.spec import Source
from lodestore.status import checks_of
from lodestore.tables import quoted
from lodestore.wire import rfc3339, span

__all__ = ["Finding", "Severity", "examine"]

Severity = Literal["note", "warning", "error"]

# Sensors beat every half minute or so; a daemon that was silent for longer does not run.
_SILENCE = timedelta(minutes=5)
_UNKEPT = timedelta(days=3)
_SHOWN = 3
# What this check finds is a finding of its own, with what mends it.
_TOLD_ALREADY = "sources_whole"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    code: str
    what: str
    severity: Severity
    mend: str


def examine(project: Project) -> tuple[Finding, ...]:
    """Every finding, errors first. Where the store itself cannot be used, nothing else is looked at."""
    found = list(_guarded(_store, project))
    if not found:
        found = [one for probe in _PROBES for one in _guarded(probe, project)]
    order: list[Severity] = ["error", "warning", "note"]
    return tuple(sorted(found, key=lambda one: order.index(one.severity)))


def _guarded(probe: Callable[[Project], Iterable[Finding]], project: Project) -> Iterator[Finding]:
    """What the probe finds; an error that it meets is a finding too."""
    try:
        yield from probe(project)
    except SettingsError:
        raise
    except LodestoreError as error:
        code = {"store-write": "store_not_writable", "unavailable": "online_store_unreachable"}
        way_out = "mend what the message names, then run: lodestore doctor"
        yield Finding(code.get(error.code, error.code.replace("-", "_")), str(error), "error", way_out)


def _store(project: Project) -> Iterator[Finding]:
    with project.locks.hold("doctor", "looking whether the store can be written"):
        project.tables.count("store")
    yield from ()


def _catalog(project: Project) -> Iterator[Finding]:
    if not project.catalog.latest:
        mend = 'name your modules in the settings: [features] modules = ["assets.features"]'
        yield Finding("no_views", "no feature view is declared", "note", mend)


def _documents(project: Project) -> Iterator[Finding]:
    if not project.settings.documents:
        yield Finding(
            "no_documents_declared", "no source of documents is declared", "note", "add [[documents]] to the settings"
        )
    elif not project.tables.count("documents"):
        names = ", ".join(one.name for one in project.settings.documents)
        yield Finding("no_documents_read", f"no document of {names} was read yet", "warning", "lodestore run ingest")


def _rejects(project: Project) -> Iterator[Finding]:
    rejects = project.corpus.rejects()
    if rejects:
        shown = "; ".join(f"{one['uri']}: {one['detail'] or one['reason']}" for one in rejects[:_SHOWN])
        more = f"; and {len(rejects) - _SHOWN} more" if len(rejects) > _SHOWN else ""
        mend = "mend or remove these, then: lodestore run ingest features"
        yield Finding("rejects", f"{len(rejects)} turned away: {shown}{more}", "warning", mend)


def _sources(project: Project) -> Iterator[Finding]:
    for one in project.corpus.problems():
        mend = "mend the source, or do what the message says, then: lodestore run ingest"
        yield Finding("nothing_retired", one["detail"], "warning", mend)


def _events(project: Project) -> Iterator[Finding]:
    known = {one.name for one in project.catalog.latest.values()}
    for source in project.settings.events:
        if source.view not in known:
            what = f"events.{source.name}.view is {source.view!r}{nearest(source.view, known)}"
            yield Finding("unknown_event_view", what, "error", "correct the name under [[events]], or declare the view")
            continue
        try:
            files(source, root=project.settings.root)
        except SourceError as error:
            yield Finding("no_event_files", str(error), "warning", "put the files there, then: lodestore run features")


def _models(project: Project) -> Iterator[Finding]:
    for label in sorted(set(project.versions.declared_labels.values())):
        try:
            project.versions.identity(label)
        except ModelError as error:
            mend = "install the model, or change [embedding.features]"
            yield Finding("model_unavailable", str(error), "error", mend)
    try:
        _ = project.versions.features
    except DeclarationError as error:
        yield Finding("unknown_embedding_feature", str(error), "error", "correct the name in [embedding.features]")
    if not project.versions.declared_labels:
        mend = 'name one in the settings: [embedding.features] content = "minilm@1"'
        yield Finding("no_model", "no embedding feature has a model", "note", mend)


def _release(project: Project) -> Iterator[Finding]:
    live = project.releases.live()
    if not live.generation:
        yield Finding("no_release", "nothing is live yet", "warning", "lodestore run ingest")
        return
    serving = {feature: project.versions.registered(key) for feature, key in live.embeddings.items()}
    held = {(hold.slot.name, hold.version) for hold in project.releases.holds()}
    for feature, label in project.versions.declared_labels.items():
        if feature in serving and serving[feature].label != label:
            what = f"{feature} is declared as {label}, live is {serving[feature].label}"
            yield _not_live(what, f"{feature}={label}", held=(feature, label) in held)
    for feature, version in serving.items():
        if not project.pipeline.built(version):
            what = f"{feature} {version.label} is live, and its table {version.table} is empty or gone"
            yield Finding("live_table_missing", what, "error", "lodestore run ingest")


def _not_live(what: str, slot: str, *, held: bool) -> Finding:
    if held:
        mend = f"change the declaration, or: lodestore release promote {slot} --accept-loss --reason '...'"
        return Finding("declared_not_live", f"{what}; it is held", "note", mend)
    return Finding("declared_not_live", what, "warning", "lodestore run reembed")


def _views(project: Project) -> Iterator[Finding]:
    for figures in project.features.figures():
        name = figures["name"]
        if figures["state"] == "empty" and project.catalog.view(name).compute is None:
            # A computed view without rows had nothing to compute from: that is no fault of its own.
            yield Finding("empty_view", f"{name} has no rows yet", "note", _filling(project, name))
        elif figures["state"] == "stale":
            view = project.catalog.view(name)
            limit = "" if view.fresh_within is None else f", older than its fresh_within of {span(view.fresh_within)}"
            what = f"{name}: the newest event is of {figures['latest_event']}{limit}"
            yield Finding("stale_view", what, "warning", _filling(project, name))


def _filling(project: Project, name: str) -> str:
    """What brings rows to the view."""
    view = project.catalog.view(name)
    sources = [one.uri for one in project.settings.events if one.view == name]
    if sources:
        return f"put new events into {', '.join(sources)}, then: lodestore run features"
    if view.compute is not None:
        return "lodestore run features"
    return f"lodestore push {name} FILE" if view.source is Source.STREAMING else f"add [[events]] for {name}"


def _checks(project: Project) -> Iterator[Finding]:
    checks = checks_of(project.logs.rows("checks"))
    for row in checks.failing:
        if row["check"] == _TOLD_ALREADY:
            continue
        severity: Severity = "warning" if row["severity"].lower() in {"warn", "warning"} else "error"
        partition = f" of {row['partition']}" if row["partition"] else ""
        detail = f": {row['detail']}" if row["detail"] else ""
        what = f"check {row['check']}{partition} fails since {row['since']}{detail}"
        yield Finding("failing_check", what, severity, row["mend"] or "lodestore run monitor, then look at the check")


def _daemon(project: Project) -> Iterator[Finding]:
    last: dict[str, Any] | None = project.logs.last("heartbeats", f"name <> {quoted(MAINTAIN)}")
    mend = "lodestore dev, or: dagster dev; without it nothing runs by itself, and lodestore run works as ever"
    if last is None:
        yield Finding("daemon_not_running", "no sensor has ever reported", "note", mend)
    elif project.clock() - last["at"] > _SILENCE:
        what = f"no sensor has reported since {rfc3339(last['at'])}"
        yield Finding("daemon_not_running", what, "note", mend)


def _upkeep(project: Project) -> Iterator[Finding]:
    history = project.releases.history()
    last = project.logs.last("heartbeats", f"name = {quoted(MAINTAIN)}")
    since = last["at"] if last is not None else history[0].at if history else project.clock()
    if project.clock() - since > _UNKEPT:
        what = f"the store was not maintained since {rfc3339(since)}: what left the tables and old files pile up"
        yield Finding("maintenance_overdue", what, "note", "lodestore run maintain; the daemon does it every night")


def _backups(project: Project) -> Iterator[Finding]:
    """Where backups are wanted by themselves, the last one is not older than its schedule and three days allow."""
    options = project.settings.backup
    if not options.uri or not options.schedule.strip():
        return
    places, history = kept(project), project.releases.history()
    last = project.logs.last("audit", f"act = {quoted(NIGHTLY)} AND subject = {quoted(places[0])}") if places else None
    since = last["at"] if last is not None else history[0].at if history else project.clock()
    if project.clock() - since > longest_pause(options.schedule) + _UNKEPT:
        what = f"no backup was made since {rfc3339(since)}, though [backup] uri names a place for them"
        yield Finding("backup_overdue", what, "warning", "lodestore backup; the daemon does it every night")


def _golden(project: Project) -> Iterator[Finding]:
    if not project.settings.golden:
        mend = (
            "add [golden] with queries and qrels, so that a new model is judged before it goes live; "
            "for a first set from your own documents: lodestore golden draft"
        )
        yield Finding("no_golden_set", "no golden set is declared", "note", mend)
        return
    there = frozenset(project.tables.read("documents", ["document_id"])["document_id"].to_pylist())
    for declared in project.settings.golden:
        yield from _golden_set(project, declared, there)


def _golden_set(project: Project, declared: GoldenFiles, there: frozenset[str]) -> Iterator[Finding]:
    wanted, root = project.settings.gate.min_queries, project.settings.root
    asked = golden.read(declared.name, root / declared.queries, root / declared.qrels)
    judged = len(asked.judged)
    lost = judged - len(golden.resolve(asked, project.corpus.ever_seen()).answerable(there).judged) if there else 0
    if lost:
        what = (
            f"of {judged} judged queries of golden set {declared.name!r} {lost} have no relevant document in the store"
        )
        mend = (
            "judge documents that are there, or draft queries about them: lodestore golden draft; the others judge no "
            "new model"
        )
        yield Finding("golden_not_in_store", what, "warning", mend)
    if judged < wanted:
        what = f"golden set {declared.name!r} has {judged} judged queries, fewer than gate.min_queries = {wanted}"
        mend = "add queries, or lower gate.min_queries; until then a person promotes new versions"
        yield Finding("few_golden_queries", what, "note", mend)


def _templates(project: Project) -> Iterator[Finding]:
    folder = project.template_folder
    if folder is None or not folder.is_dir() or not read_folder(folder):
        where = project.settings.templates.folder
        yield Finding(
            "no_templates", f"there is no prompt template in {where}/", "note", f"put one into {where}/NAME.md"
        )


def _context(project: Project) -> Iterator[Finding]:
    options, folder = project.settings.context, project.template_folder
    here = [one.template_id for one in read_folder(folder)] if folder is not None and folder.is_dir() else []
    known = {*project.templates.newest(), *here}
    if known and options.template not in known and options.template != ContextOptions().template:
        what = f"context.template is {options.template!r}{nearest(options.template, known)}"
        yield Finding("unknown_template", what, "error", "correct [context] template in the settings")
    try:
        check_filters(options.filters, project.features)
        if options.service is not None:
            project.catalog.service(options.service)
    except (DeclarationError, UnknownNameError) as error:
        what = f"[context]: {error}"
        yield Finding("unknown_feature", what, "error", "correct [context] filters or service in the settings")


def _online(project: Project) -> Iterator[Finding]:
    project.online.ping()
    waiting = project.online.journal_size()
    if waiting:
        yield Finding(
            "journal_waiting",
            f"pushed rows that are not in their history yet: {waiting}",
            "note",
            "lodestore run drain; with a daemon, its sensor does so within a minute",
        )


_PROBES = (
    _catalog,
    _documents,
    _rejects,
    _sources,
    _events,
    _models,
    _release,
    _views,
    _checks,
    _daemon,
    _upkeep,
    _backups,
    _golden,
    _templates,
    _context,
    _online,
)
