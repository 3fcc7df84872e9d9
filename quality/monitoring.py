"""What the monitor job looks at: drift, vectors, canary, golden level, publication. Every value is the library's."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import dagster as dg

from assets import metadata
from assets.house import House
from lodestore import monitor
from lodestore.canary import LIMIT as CANARY_LIMIT
from lodestore.drift import Drift
from lodestore.models import EmbeddingVersion
from lodestore.monitor import Compared, Subject, VectorState
from lodestore.playbook import guide
from lodestore.project import Project
from lodestore.spec import FeatureView
from lodestore.versions import of_events
from quality.bridge import Measured, evaluated, guarded, spec

__all__ = ["monitoring_checks"]

_VECTORS = ("vector_health", "norms", "merged_vectors", "anisotropy", "neighbours")
_NORM_SPREAD = 0.05  # vectors are normalised by almost every model: any spread at all is news
_MOST_MERGED = 0.05
_MOST_COLLAPSED, _RISE = 0.95, 0.2
_KEPT_NEIGHBOURS = 0.5
_MOST_BEHIND = 0.01
_SHOWN = 20
_DOCUMENT_HOURS = 36.0
_SLOW = 100.0  # milliseconds: a search of a large, indexed table takes about five


def monitoring_checks(house: House, views: Iterable[FeatureView]) -> list[dg.AssetChecksDefinition]:
    """The checks of the monitor job; none blocks, for nothing comes after."""
    embeddings = house.key("live_embeddings")
    return [
        _group("vector_monitoring", embeddings, {"vectors": _vectors, "drift": _embedding_drift, "canary": _canaries, "speed": _speeds},
               (*_VECTORS, "embedding_drift", "canary", "search_speed")),
        _group("document_monitoring", house.key("documents"), {"documents": _documents}, ("documents_fresh",)),
        _group("answer_monitoring", house.key("release"), {"golden": _golden}, ("golden_level",)),
        *(_view_group(house.key(view.name), view) for view in views),
    ]  # fmt: skip


_Measure = Callable[[Project, dg.AssetKey], Iterable[Measured]]


def _group(
    name: str, key: dg.AssetKey, measures: Mapping[str, _Measure], checks: tuple[str, ...]
) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(name=name, specs=[spec(one, key) for one in checks], can_subset=True)
    def group(
        context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
    ) -> Iterator[dg.AssetCheckResult]:
        wanted = {one.name for one in context.selected_asset_check_keys}
        found = [one for kind, measure in measures.items() if wanted & set(_OF[kind]) for one in measure(project, key)]
        yield from evaluated(context, project, found)

    return group


# Which checks a measurement answers: one that nobody asked for is not taken, for it may load a model.
_OF = {
    "documents": ("documents_fresh",),
    "vectors": _VECTORS,
    "drift": ("embedding_drift",),
    "canary": ("canary",),
    "speed": ("search_speed",),
    "golden": ("golden_level",),
}


def _view_group(key: dg.AssetKey, view: FeatureView) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name=f"{view.name}_monitoring", specs=[spec(one, key) for one in ("drift", "published")], can_subset=True
    )
    def group(
        context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
    ) -> Iterator[dg.AssetCheckResult]:
        found = guarded(["drift"], key, lambda: [_drift("drift", project, view, key)])
        found += guarded(["published"], key, lambda: [_lag(project, view, key)])
        yield from evaluated(context, project, found)

    return group


# -- drift


def _drift(check: str, project: Project, one: Subject, key: dg.AssetKey, partition: str = "") -> Measured:
    found = monitor.compared(project, one)
    name = one.name if isinstance(one, FeatureView) else one.feature
    return Measured(
        check, key, not found.drifted, len(found.drifted), 0, found.sentence(), _settled(name),
        warning=True, partition=partition, facts=_facts(found), plotted=True,
    )  # fmt: skip


def _settled(name: str) -> str:
    return (
        f"lodestore drift check {name}, then if the new level is right: "
        f"lodestore drift rebaseline {name} --reason '...'"
    )


def _facts(found: Compared) -> dict[str, object]:
    """The loudest measure of each column, as numbers that the UI plots."""
    facts: dict[str, object] = {"rows": found.rows, "baseline": found.pinned.id if found.pinned else "none"}
    if found.report is None:
        return facts
    told = {one.feature: one for one in found.report.features}
    facts |= {f"{name} {one.measure}": one.value for name, one in list(told.items())[:_SHOWN] if one.value is not None}
    facts |= {"drifted": ", ".join(found.drifted)} if found.drifted else {}
    facts |= {"columns": metadata.table([_row(one) for one in told.values()])} if told else {}
    facts |= {"sees_shift": found.report.sees} if found.report.sees else {}
    # words and not numbers: what hardly changes needs no plot
    if found.windows:
        facts["limits"] = f"fitted on {found.windows} windows, wider for: {', '.join(found.widened) or 'no column'}"
    if found.previous is not None:
        facts[f"drifted since {found.against}"] = ", ".join(found.previous.drifted) or "no column"
    return facts


def _row(one: Drift) -> dict[str, object]:
    """A column's line of the table in the UI."""
    numbers = {name: getattr(one, name) for name in ("value", "limit", "p")}
    shown = {name: "-" if number is None else f"{number:.3g}" for name, number in numbers.items()}
    return {"column": one.feature, "kind": one.kind, "measure": one.measure, **shown, "verdict": one.verdict.value}


def _embedding_drift(project: Project, key: dg.AssetKey) -> Iterator[Measured]:
    for version in _searched(project):

        def measure(version: EmbeddingVersion = version) -> list[Measured]:
            return [_drift("embedding_drift", project, version, key, version.key)]

        yield from guarded(["embedding_drift"], key, measure, partition=version.key)


def _live(project: Project) -> list[EmbeddingVersion]:
    return [project.versions.registered(one) for one in project.releases.live().embeddings.values()]


def _searched(project: Project) -> list[EmbeddingVersion]:
    """The live versions with a table of their own; what users ask is watched through its view."""
    return [one for one in _live(project) if not of_events(one)]


# -- vectors


def _vectors(project: Project, key: dg.AssetKey) -> Iterator[Measured]:
    for version in _searched(project):

        def measure(version: EmbeddingVersion = version) -> list[Measured]:
            return list(_of_state(monitor.vector_state(project, version), key))

        yield from guarded(_VECTORS, key, measure, partition=version.key)


def _of_state(state: VectorState, key: dg.AssetKey) -> Iterator[Measured]:
    health = state.health
    bad = health.bad + state.wrong_dimension
    counts = {"nan": health.nan, "infinite": health.infinite, "zero": health.zero, "dimension": health.dimension}
    yield _about(
        "vector_health", state, key, bad == 0, bad, 0,
        f"{health.nan} NaN, {health.infinite} infinite, {health.zero} zero vectors, "
        f"{state.wrong_dimension} of another dimension, n {health.rows:,}", warning=False, facts=counts,
    )  # fmt: skip
    spread = health.norm_std / health.norm_mean if health.norm_mean else 0.0
    yield _about("norms", state, key, spread <= _NORM_SPREAD, spread, _NORM_SPREAD,
                 f"lengths {health.norm_mean:.4g} +- {health.norm_std:.2g}, from {health.norm_min:.4g} to {health.norm_max:.4g}")  # fmt: skip
    merged = state.merged / max(1, health.rows)
    yield _about("merged_vectors", state, key, merged <= _MOST_MERGED, merged, _MOST_MERGED,
                 f"{state.merged:,} of {state.texts:,} different texts have the vector of another text")  # fmt: skip
    yield from _directions(state, key)


def _directions(state: VectorState, key: dg.AssetKey) -> Iterator[Measured]:
    if state.anisotropy is not None:
        expected = state.expected_anisotropy
        limit = _MOST_COLLAPSED if expected is None else min(_MOST_COLLAPSED, expected + _RISE)
        told = "" if expected is None else f", {expected:.3f} in the baseline"
        yield _about("anisotropy", state, key, state.anisotropy <= limit, state.anisotropy, limit,
                     f"two random rows have a cosine of {state.anisotropy:.3f}{told}")  # fmt: skip
    if state.stability is not None:
        yield _about("neighbours", state, key, state.stability >= _KEPT_NEIGHBOURS, state.stability, _KEPT_NEIGHBOURS,
                     f"{state.anchors} pinned rows kept {state.stability:.0%} of their neighbours")  # fmt: skip


def _about(
    check: str, state: VectorState, key: dg.AssetKey, passed: bool, value: float, limit: float, what: str,
    *, warning: bool = True, facts: Mapping[str, object] | None = None,
) -> Measured:  # fmt: skip
    return Measured(
        check, key, passed, value, limit, what, guide(check).settle,
        warning=warning, partition=state.key, facts=facts or {}, plotted=check != "vector_health",
    )  # fmt: skip


# -- the model, the answers, the online rows


def _canaries(project: Project, key: dg.AssetKey) -> Iterator[Measured]:
    """One reading for each model that is live, in however many features."""
    seen = {version.fingerprint: version for version in _live(project)}
    for version in seen.values():

        def measure(version: EmbeddingVersion = version) -> list[Measured]:
            found = project.changes.canary(version)
            if found is None:  # vectors that come ready-made have no model to ask
                return []
            told = f"on {found.texts} pinned texts the smallest cosine is {found.smallest:.4f}"
            return [Measured("canary", key, found.alive, found.smallest, CANARY_LIMIT, told, guide("canary").settle,
                             partition=version.label, plotted=True)]  # fmt: skip

        yield from guarded(["canary"], key, measure, partition=version.label)


def _speeds(project: Project, key: dg.AssetKey) -> Iterator[Measured]:
    for version in _live(project):

        def measure(version: EmbeddingVersion = version) -> list[Measured]:
            found = monitor.search_speed(project, version)
            if found is None:
                return []
            told = f"{found.searches} searches took {found.median:.1f} ms in the middle, {found.slowest:.1f} ms at most"
            return [Measured("search_speed", key, found.median <= _SLOW, found.median, _SLOW, told,
                             guide("search_speed").settle, warning=True, partition=version.key, plotted=True)]  # fmt: skip

        yield from guarded(["search_speed"], key, measure, partition=version.key)


def _golden(project: Project, key: dg.AssetKey) -> list[Measured]:
    return guarded(["golden_level"], key, lambda: _golden_measured(project, key))


def _golden_measured(project: Project, key: dg.AssetKey) -> list[Measured]:
    found = monitor.golden_level(project)
    if found is None:
        return []
    change = f"{found.change.value:+.3f}, {found.change.low:+.3f} to {found.change.high:+.3f}"
    told = (
        f"nDCG@10 {found.ndcg:.3f} on {found.queries} golden queries, {found.recorded:.3f} when it went live ({change})"
    )
    return [Measured("golden_level", key, not found.fallen, found.ndcg, found.recorded, told,
                     guide("golden_level").settle, plotted=True)]  # fmt: skip


def _documents(project: Project, key: dg.AssetKey) -> Iterator[Measured]:
    age = monitor.documents_age(project)
    if age is not None and project.settings.documents:
        hours = age.total_seconds() / 3600
        told = f"the documents were last read {hours:,.1f} hours ago"
        yield Measured("documents_fresh", key, hours <= _DOCUMENT_HOURS, hours, _DOCUMENT_HOURS, told,
                       guide("documents_fresh").settle, warning=True, plotted=True)  # fmt: skip


def _lag(project: Project, view: FeatureView, key: dg.AssetKey) -> Measured:
    found = monitor.lag(project, view)
    told = f"{found.behind:,} of {found.entities:,} entities have an older row online than in their history, or none"
    return Measured(
        "published", key, found.share <= _MOST_BEHIND, found.share, _MOST_BEHIND, told, guide("published").settle,
        warning=True, plotted=True,
    )  # fmt: skip
