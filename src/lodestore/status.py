"""What is live, declared, held, fresh and failing: one value, read from the store alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lodestore.alerts import alerts_of
from lodestore.errors import LodestoreError, ModelError, StoreError, UnavailableError
from lodestore.models import EmbeddingVersion
from lodestore.project import Project
from lodestore.prompts import read_folder, version_key
from lodestore.releases import Release
from lodestore.tables import chunk_table
from lodestore.versions import of_events
from lodestore.wire import rfc3339

__all__ = ["Checks", "Status", "checks_of", "declared", "release_json", "status", "versions"]

_MILD = frozenset({"warn", "warning"})


@dataclass(frozen=True, slots=True)
class Checks:
    """The last word of every check, by partition."""

    passed: int = 0
    warned: int = 0
    failed: int = 0
    failing: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that `status` shows."""

    release: Mapping[str, Any]
    declared: Mapping[str, Any]
    holds: tuple[Mapping[str, Any], ...]
    versions: tuple[Mapping[str, Any], ...]
    documents: Mapping[str, int]
    chunks: int
    views: tuple[Mapping[str, Any], ...]
    online: Mapping[str, str]
    checks: Checks
    alerts: tuple[Mapping[str, Any], ...]


def status(project: Project) -> Status:
    """The state of the project now; an empty store has one too."""
    live = project.releases.live()
    return Status(
        release_json(project, live),
        declared(project),
        tuple(_holds(project)),
        versions(project),
        project.corpus.figures(),
        _chunks(project, live),
        tuple(project.features.figures()),
        _online(project),
        checks_of(project.logs.rows("checks")),
        tuple(_alerts(project.logs.rows("alerts"))),
    )


def _online(project: Project) -> dict[str, str]:
    """Whether the online store answers; nothing else of the status needs it."""
    try:
        project.online.ping()
    except (StoreError, UnavailableError) as error:
        return {"state": "unavailable", "detail": str(error)}
    return {"state": "ready", "detail": ""}


def release_json(project: Project, release: Release) -> dict[str, Any]:
    """The release in words: embeddings by their labels."""
    labels = {feature: project.versions.registered(key).label for feature, key in release.embeddings.items()}
    out: dict[str, Any] = {"id": release.id, "generation": release.generation, "embeddings": labels}
    out |= {"templates": release.templates, "views": release.views}
    if release.generation:
        out |= {"at": rfc3339(release.at), "action": release.action, "author": release.author}
        out["reason"] = release.reason
    return out


def declared(project: Project) -> dict[str, Any]:
    """What the settings, the template files and the feature modules want; not all of it need be live."""
    return {
        "embeddings": project.versions.declared_labels,
        "templates": _offered(project),
        "views": {name: view.version for name, view in project.catalog.latest.items()},
    }


def _offered(project: Project) -> dict[str, str]:
    """Template id -> the highest version among the files; what does not parse is for `doctor` to tell."""
    if project.template_folder is None:
        return {}
    newest: dict[str, str] = {}
    try:
        found = read_folder(project.template_folder)
    except LodestoreError:
        return {}
    for one in sorted(found, key=lambda one: version_key(one.version)):
        newest[one.template_id] = one.version
    return dict(sorted(newest.items()))


def _holds(project: Project) -> Iterable[dict[str, Any]]:
    for hold in project.releases.holds():
        named = {"slot": str(hold.slot), "version": hold.version, "fingerprint": hold.fingerprint}
        yield {**named, "author": hold.author, "reason": hold.reason, "at": rfc3339(hold.at)}


def versions(project: Project) -> tuple[dict[str, Any], ...]:
    """Every registered embedding version, with its state and how many rows it has."""
    states = _states(project)
    return tuple(
        {
            "feature": one.feature,
            "version": one.label,
            "state": states[one.key],
            "rows": _rows(project, one),
            "dim": one.dimension,
            "fingerprint": one.fingerprint,
            "key": one.key,
        }
        for one in project.versions.all()
    )


def _rows(project: Project, version: EmbeddingVersion) -> int:
    return project.pipeline.gap(version).have if of_events(version) else project.tables.count(version.table)


def _states(project: Project) -> dict[str, str]:
    """What each version is; where a declared model is not installed, only liveness is known."""
    try:
        return project.versions.states()
    except ModelError:
        serving = set(project.releases.live().embeddings.values())
        return {one.key: "live" if one.key in serving else "unknown" for one in project.versions.all()}


def _chunks(project: Project, live: Release) -> int:
    key = live.embeddings.get("content")
    if key is not None:
        return project.tables.count(chunk_table(project.versions.registered(key).chunker))
    tables = [name for name in project.tables.names("chunks__") if not name.endswith("__retired")]
    return max((project.tables.count(name) for name in tables), default=0)


def checks_of(rows: Iterable[Mapping[str, Any]]) -> Checks:
    """The last result of each check of each asset and partition, from the rows of the log, oldest first."""
    latest: dict[tuple[str, str, str | None], dict[str, Any]] = {}
    for row in rows:
        key = (row["asset"], row["check"], row["partition"])
        before = latest.get(key)
        lasting = before is not None and not before["passed"] and not row["passed"]
        latest[key] = {**row, "since": before["since"] if before and lasting else row["at"]}
    bad = [row for row in latest.values() if not row["passed"]]
    mild = [row for row in bad if str(row["severity"]).lower() in _MILD]
    failing = sorted(map(_failing, bad), key=lambda row: (row["severity"], row["check"]))
    return Checks(len(latest) - len(bad), len(mild), len(bad) - len(mild), tuple(failing))


def _failing(row: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: row[name] or "" for name in ("check", "asset", "severity", "mend", "detail")}
    return {**named, "partition": row["partition"], "since": rfc3339(row["since"])}


def _alerts(rows: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """The alerts that nothing has settled yet, each at its transition; a late delivery settles nothing."""
    latest = {one.key: one for one in alerts_of(rows)}
    for one in latest.values():
        if one.state == "failing":
            told = {"check": one.key, "state": one.state, "severity": one.severity, "text": one.text}
            yield {**told, "delivery": one.delivery, "at": rfc3339(one.at)}
