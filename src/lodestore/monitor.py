"""What the store's data looks like now, measured against what it looked like when it was right."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore import evaluation, vectors, windows
from lodestore.baselines import FIRST, Pinned, of_golden, of_version, of_view
from lodestore.drift import LEAST_WINDOWS, Baseline, Natural, Report, compare, sketch, variation
from lodestore.errors import GoldenError, RequestError, SchemaVersionError, StoreError, UnknownNameError
from lodestore.metrics import Interval, paired_bootstrap
from lodestore.models import EmbeddingVersion
from lodestore.spec import FeatureView
from lodestore.tables import view_table
from lodestore.vectors import Health
from lodestore.windows import version_window, view_window
from lodestore.wire import rfc3339

if TYPE_CHECKING:
    from lodestore.project import Project

__all__ = [
    "Compared",
    "Lag",
    "Level",
    "Speed",
    "VectorState",
    "compared",
    "documents_age",
    "golden_level",
    "lag",
    "pin_first",
    "pin_live",
    "rebaseline",
    "search_speed",
    "subject_named",
    "subjects",
    "vector_state",
]

_ANCHORS = 50  # rows whose neighbours are kept
_NEAREST = 10
_SEARCHES = 20
_LAG_ENTITIES = 500
_FEWEST_QUERIES = 5
_TOLERANCE = 0.02
_KINDS = {"vector": "embedding", "text": "text", "category": "category", "word_count": "numeric"}
_AGREE = 0.05  # a window that differs this surely from the newest is no part of its baseline

Subject = FeatureView | EmbeddingVersion


@dataclass(frozen=True, slots=True)
class Compared:
    """A subject against its baseline and, where history allows, against the window before.

    Without a baseline there is no report; `note` says why. `new` tells that this very window was pinned.
    `against` says what `previous` compares with, `natural` what past windows differ by.
    """

    subject: str
    rows: int
    pinned: Pinned | None = None
    report: Report | None = None
    previous: Report | None = None
    note: str = ""
    new: bool = False
    against: str = ""
    natural: Mapping[str, Natural] = field(default_factory=dict)

    @property
    def windows(self) -> int:
        """How many past windows the limits were fitted on; 0 while there are fewer than eight."""
        return max((one.windows for one in self.natural.values()), default=0)

    @property
    def widened(self) -> tuple[str, ...]:
        """The features whose windows differ by themselves, so that their limits are wider than the defaults."""
        return tuple(name for name, one in self.natural.items() if one.typical)

    @property
    def drifted(self) -> tuple[str, ...]:
        """The features that drifted from the baseline."""
        return self.report.drifted if self.report else ()

    def sentence(self) -> str:
        """What was found, with both sample sizes and the baseline."""
        if self.report is None or self.pinned is None:
            return self.note
        against = f"n {self.report.rows_current:,} against {self.report.rows_baseline:,} of baseline {self.pinned.id}"
        since = f"{against}, pinned {rfc3339(self.pinned.at)[:10]}"
        if not self.drifted:
            thin = sum(one.verdict == "insufficient_data" for one in self.report.features)
            told = f", {thin} with too little data" if thin else ""
            return f"no drift among {len(self.report.features)} columns{told} ({since}){self._reach()}"
        found = "; ".join(f"{name}: {self.report[name].explanation}" for name in self.drifted)
        return f"{found} ({since}){self._lately()}"

    def _reach(self) -> str:
        """From where on a shift is seen, where numbers are compared."""
        seen = self.report.sees if self.report else None
        numbers = self.report is not None and any(one.kind == "numeric" for one in self.report.features)
        return f"; a shift of {seen:.2g} standard deviations would be seen" if seen and numbers else ""

    def _lately(self) -> str:
        if self.previous is None:
            return ""
        moved = set(self.drifted) & set(self.previous.drifted)
        word = f"it moved since {self.against}" if moved else f"unchanged since {self.against}: a new level"
        return f"; {word}"

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON types."""
        pinned = None if self.pinned is None else {"id": self.pinned.id, "at": rfc3339(self.pinned.at)}
        return {
            "subject": self.subject,
            "rows": self.rows,
            "baseline": pinned,
            "new": self.new,
            "note": self.note,
            "report": self.report.to_dict() if self.report else None,
            "previous": self.previous.to_dict() if self.previous else None,
            "previous_is": self.against,
            "windows": self.windows,
            "widened": list(self.widened),
            "drifted": list(self.drifted),
        }


# -- windows


def subjects(project: Project) -> dict[str, Subject]:
    """What has baselines: every declared view, every live embedding version, by the name of its baselines."""
    live = [project.versions.registered(key) for key in project.releases.live().embeddings.values()]
    views = {of_view(one): one for one in project.catalog.latest.values()}
    return {**views, **{of_version(one): one for one in live}}


# -- baselines


def _subject(one: Subject) -> str:
    return of_view(one) if isinstance(one, FeatureView) else of_version(one)


def _kinds(one: Subject) -> dict[str, str]:
    """The columns that are compared, and as what."""
    if isinstance(one, FeatureView):
        return {feature.name: feature.kind.value for feature in one.stored}
    return dict(_KINDS)


def _private(one: Subject) -> list[str]:
    return [feature.name for feature in one.stored if feature.pii] if isinstance(one, FeatureView) else []


def _sketched(project: Project, one: Subject, window: pa.Table) -> tuple[Baseline, dict[str, tuple[str, ...]]]:
    kinds = {name: kind for name, kind in _kinds(one).items() if name in window.column_names}
    pinned = sketch(window.select(list(kinds)), kinds, subject=_subject(one), private=_private(one))
    return pinned, {} if isinstance(one, FeatureView) else _neighbours(project, one, window)


def _neighbours(project: Project, version: EmbeddingVersion, window: pa.Table) -> dict[str, tuple[str, ...]]:
    """The nearest rows of some evenly drawn ones, as a search finds them now."""
    picks = np.random.default_rng(1).permutation(window.num_rows)[:_ANCHORS]
    some = window.select(["row_id", "vector"]).take(pa.array(np.sort(picks)))
    return dict(_nearest(project, version, some))


def _nearest(project: Project, version: EmbeddingVersion, rows: pa.Table) -> Iterable[tuple[str, tuple[str, ...]]]:
    for name, vector in zip(rows["row_id"].to_pylist(), rows["vector"].to_pylist(), strict=True):
        array = np.asarray(vector, dtype=np.float32)
        if np.isfinite(array).all() and array.any():
            found = project.tables.nearest(version.table, array, _NEAREST + 1, columns=["row_id"])
            yield name, tuple(one for one in found["row_id"].to_pylist() if one != name)[:_NEAREST]


def _window(project: Project, one: Subject) -> pa.Table:
    return view_window(project, one) if isinstance(one, FeatureView) else version_window(project, one)


def _reference(project: Project, one: Subject, window: pa.Table) -> pa.Table:
    """The rows that a new baseline is made of: the newest window and those before it that are like it.

    More windows see smaller changes. What differs from the newest window ends them: a baseline says what is right now.
    """
    if not isinstance(one, FeatureView):
        return window
    options, pool = project.settings.drift, window.slice(0, 0)
    for before in windows.earlier(project, one, windows=options.baseline_windows - 1):
        wider = pa.concat_tables([pool, before.select(window.column_names)])
        if _report(project, one, wider, window, alpha=_AGREE).drifted:
            break
        pool = wider
    return pa.concat_tables([pool, window])


def pin_first(project: Project, one: Subject) -> Pinned | None:
    """The subject has a baseline, once there are enough rows; returns what was pinned just now, if anything."""
    if project.baselines.exists(_subject(one)):
        return None
    least = project.settings.drift.min_rows
    if isinstance(one, EmbeddingVersion) and project.tables.count(one.table) < least:
        return None
    window = _window(project, one)
    if window.num_rows < least:
        return None
    return _pin(project, one, window, FIRST)


def _pin(project: Project, one: Subject, window: pa.Table, reason: str) -> Pinned:
    baseline, neighbours = _sketched(project, one, _reference(project, one, window))
    return project.baselines.pin(_subject(one), baseline, reason=reason, neighbours=neighbours)


def pin_live(project: Project) -> list[Pinned]:
    """Every live embedding version has a baseline, as far as there are rows; returns what was pinned just now."""
    live = [one for one in subjects(project).values() if not isinstance(one, FeatureView)]
    return [made for one in live if (made := pin_first(project, one)) is not None]


def rebaseline(project: Project, names: Sequence[str], *, reason: str) -> list[Pinned]:
    """What these subjects look like now is their baseline from now on; without names, all of them. The old ones stay.

    A subject is named by its whole name or by what follows the colon. The level on golden queries of
    a rebased embedding version is taken anew at its next measurement.
    """
    if not reason.strip():
        message = "a baseline is replaced for a reason; add --reason 'why the new level is right'"
        raise RequestError(message)
    known = subjects(project)
    chosen = [subject_named(known, name) for name in names] if names else list(known)
    made = []
    for name in dict.fromkeys(chosen):
        window = _window(project, known[name])
        if window.num_rows < project.settings.drift.min_rows:
            if names:
                message = f"{name}: the window has {window.num_rows} rows, {project.settings.drift.min_rows} are needed"
                raise RequestError(message)
            continue
        made.append(_pin(project, known[name], window, reason))
        made += _releveled(project, known[name], reason)
    return made


def _releveled(project: Project, one: Subject, reason: str) -> list[Pinned]:
    if isinstance(one, FeatureView) or not project.baselines.exists(of_golden(one)):
        return []
    measured = evaluation.evaluate(project, label=one.label).scores
    level = dict(zip(measured.query_ids, measured.ndcg.tolist(), strict=True))
    return [project.baselines.pin(of_golden(one), Baseline(0, subject=of_golden(one)), reason=reason, level=level)]


def subject_named(known: Mapping[str, Subject], name: str) -> str:
    """The subject of that name; `user_profile` or `content` will do where nothing else is called so."""
    heads = [one for one in known if name in {one, one.partition(":")[2]}]
    found = heads or [one for one in known if _short(one) == name]
    if len(found) != 1:
        raise UnknownNameError(name, known, note="; baselines are kept of these")
    return found[0]


def _short(subject: str) -> str:
    return subject.partition(":")[2].partition("@")[0].partition("__")[0]


def compared(project: Project, one: Subject) -> Compared:
    """The subject's newest window against its baseline; the first window with enough rows becomes the baseline."""
    name = _subject(one)
    window, wanted = _window(project, one), project.settings.drift.min_rows
    try:
        pinned = project.baselines.current(name)
    except (StoreError, SchemaVersionError) as error:
        return Compared(name, window.num_rows, note=str(error))
    if pinned is None:
        if window.num_rows < wanted:
            note = f"no baseline yet: the window has {window.num_rows} rows, {wanted} are needed"
            return Compared(name, window.num_rows, note=note)
        pinned = _pin(project, one, window, FIRST)
        note = f"{pinned.baseline.rows:,} rows are the baseline from now on: {pinned.id}"
        return Compared(name, window.num_rows, pinned, note=note, new=True)
    usual = _usual(project, one)
    report = _report(project, one, pinned.baseline, window, natural=usual)
    previous, against = _previous(project, one, window)
    return Compared(name, window.num_rows, pinned, report, previous, against=against, natural=usual)


def _usual(project: Project, one: Subject) -> dict[str, Natural]:
    """What past windows of a stream of events differ by, once there are eight; nothing is known of other subjects."""
    if not isinstance(one, FeatureView):
        return {}
    before = windows.past(project, one)
    if len(before) < LEAST_WINDOWS:
        return {}
    kinds = _kinds(one)
    held = [{name: kind for name, kind in kinds.items() if name in window.column_names} for window in before]
    sketches = [sketch(window.select(list(some)), some) for window, some in zip(before, held, strict=True)]
    return variation(sketches, min_rows=project.settings.drift.min_rows)


def _report(
    project: Project,
    one: Subject,
    before: pa.Table | Baseline,
    window: pa.Table,
    *,
    natural: Mapping[str, Natural] | None = None,
    alpha: float | None = None,
) -> Report:
    options = project.settings.drift
    kinds = {name: kind for name, kind in _kinds(one).items() if name in window.column_names}
    ids = None if isinstance(one, FeatureView) else "document_id"
    return compare(
        before if isinstance(before, Baseline) else before.select(list(kinds)),
        window.select([*kinds, *([ids] if ids else [])]),
        kinds=kinds,
        private=_private(one),
        ids=ids,
        subject=_subject(one) if isinstance(before, Baseline) else None,
        natural=natural,
        alpha=alpha or options.alpha,
        min_rows=options.min_rows,
    )


def _previous(project: Project, one: Subject, window: pa.Table) -> tuple[Report | None, str]:
    """This window against one before, and which that was; nothing where history has too few rows.

    Of events the last one with the same weekdays, or else the one right before; of vectors those that were there before.
    """
    wanted = project.settings.drift.min_rows
    if isinstance(one, FeatureView):
        before, told = _last_week(project, one)
    else:
        limit, told = project.clock() - windows.span(project), "the rows that were there before"
        recent = pc.greater(window["visible_from"], pa.scalar(limit, window["visible_from"].type))
        before, window = window.filter(pc.invert(recent)), window.filter(recent)
    if min(before.num_rows, window.num_rows) < wanted:
        return None, ""
    return _report(project, one, before, window), told


def _last_week(project: Project, view: FeatureView) -> tuple[pa.Table, str]:
    weeks, span = windows.weeks_before(project), windows.span(project)
    before = view_window(project, view, ago=weeks)
    if weeks == span or before.num_rows >= project.settings.drift.min_rows:
        return before, "the same weekdays before" if weeks > span else "the window before"
    return view_window(project, view, ago=span), "the window before"


# -- vectors


@dataclass(frozen=True, slots=True)
class VectorState:
    """What a version's vectors are like. Of unmeasured things the value is None; `texts` counts different ones.

    `anisotropy` is the mean cosine of two random rows, `expected_anisotropy` that of the baseline;
    `stability` the share of pinned neighbours, still there, that are neighbours now.
    """

    key: str
    health: Health
    wrong_dimension: int
    texts: int
    anisotropy: float | None = None
    expected_anisotropy: float | None = None
    stability: float | None = None
    anchors: int = 0

    @property
    def merged(self) -> int:
        """How many different texts share their vector with another text."""
        different = self.health.rows - self.health.nan - self.health.infinite - self.health.duplicates
        return max(0, self.texts - different)


def vector_state(project: Project, version: EmbeddingVersion) -> VectorState:
    """Measure a version's vectors; never raises for what they hold."""
    window = version_window(project, version)
    array = _array(window["vector"], version.dimension)
    held = getattr(window["vector"].type, "list_size", version.dimension)
    pinned = project.baselines.current(of_version(version))
    expected = None
    if pinned is not None and "vector" in pinned.baseline.columns:
        expected = vectors.anisotropy(getattr(pinned.baseline.columns["vector"].sketch, "sample", np.zeros((0, 1))))
    measured = vectors.health(array)
    stability, anchors = _stability(project, version, window, pinned.neighbours if pinned else {})
    wrong = 0 if held == version.dimension else window.num_rows
    return VectorState(
        version.key,
        measured,
        wrong,
        pc.count_distinct(window["content_hash"]).as_py(),
        measured.anisotropy,
        expected,
        stability,
        anchors,
    )


def _array(column: pa.ChunkedArray, dimension: int) -> np.ndarray:
    """The vectors as an array; null rows are NaN."""
    size = getattr(column.type, "list_size", dimension)
    out = np.full((len(column), size), np.nan, dtype=np.float32)
    valid = column.is_valid().to_numpy()
    if valid.any():
        flat = [chunk.drop_null().flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
        out[valid] = np.concatenate(flat).reshape(-1, size)
    return out


def _stability(
    project: Project, version: EmbeddingVersion, window: pa.Table, pinned: Mapping[str, tuple[str, ...]]
) -> tuple[float | None, int]:
    """The mean share of kept neighbours, and of how many rows; neighbours that left the corpus do not count."""
    if not pinned:
        return None, 0
    present = set(project.tables.read(version.table, ["row_id"])["row_id"].to_pylist())
    some = window.filter(pc.is_in(window["row_id"], pa.array(list(pinned), pa.string())))
    shares = []
    for name, now in _nearest(project, version, some.select(["row_id", "vector"])):
        still = [one for one in pinned[name] if one in present]
        if still:
            shares.append(len(set(still) & set(now)) / len(still))
    return (float(np.mean(shares)), len(shares)) if shares else (None, 0)


@dataclass(frozen=True, slots=True)
class Speed:
    """How long searches of a version's vectors took, in milliseconds: the middle one and the slowest."""

    key: str
    searches: int
    median: float
    slowest: float


def search_speed(project: Project, version: EmbeddingVersion) -> Speed | None:
    """Search for some of the version's own vectors, one at a time, after one that is not counted; None without rows."""
    rows = next(iter(project.tables.batches(version.table, ["vector"])), None)
    if rows is None or not rows.num_rows:
        return None
    found = _array(pa.chunked_array([rows.column("vector")[: _SEARCHES + 1]]), version.dimension)
    sound = found[np.isfinite(found).all(axis=1) & found.any(axis=1)]
    taken = []
    for vector in sound:
        start = time.perf_counter()
        project.tables.nearest(version.table, vector, _NEAREST, columns=["row_id"])
        taken.append(1_000 * (time.perf_counter() - start))
    warm = taken[1:] or taken
    return Speed(version.key, len(warm), float(np.median(warm)), max(warm)) if warm else None


# -- answers


def documents_age(project: Project) -> timedelta | None:
    """How long ago an ingestion looked at the documents; None before the first."""
    last = project.logs.last("checks", "`check` = 'has_rows'")
    return None if last is None else project.clock() - last["at"]


@dataclass(frozen=True, slots=True)
class Level:
    """The live content version on the golden queries, against the level that it reached when it was first measured."""

    key: str
    ndcg: float
    recorded: float
    change: Interval
    queries: int
    new: bool = False

    @property
    def fallen(self) -> bool:
        """Whether answers are surely worse, and by enough to matter."""
        return self.change.high < 0 and self.change.value < -_TOLERANCE


def golden_level(project: Project) -> Level | None:
    """Ask the golden queries of the live release; the first answers are the level. None where there is nothing to ask."""
    live = project.releases.live().embeddings.get("content")
    if live is None or not project.settings.golden:
        return None
    version = project.versions.registered(live)
    try:
        scores = evaluation.evaluate(project).scores
    except GoldenError:
        if project.changes.golden() is None:
            return None
        raise
    found = dict(zip(scores.query_ids, scores.ndcg.tolist(), strict=True))
    return _level(project, version, found)


def _level(project: Project, version: EmbeddingVersion, found: Mapping[str, float]) -> Level | None:
    pinned = project.baselines.current(of_golden(version))
    common = sorted(found.keys() & pinned.level.keys()) if pinned else []
    if len(found) < _FEWEST_QUERIES:
        return None
    # Another golden set has another level; one that grew keeps the level of the queries that it had.
    if pinned is None or len(common) < _FEWEST_QUERIES:
        reason = "first measurement" if pinned is None else "the golden set is another one"
        project.baselines.pin(of_golden(version), Baseline(0, subject=of_golden(version)), reason=reason, level=found)
        mean = float(np.mean(list(found.values())))
        return Level(version.key, mean, mean, Interval(0.0, 0.0, 0.0), len(found), new=True)
    now, before = ([side[one] for one in common] for side in (found, pinned.level))
    change = paired_bootstrap(now, before, seed=20)
    return Level(version.key, float(np.mean(now)), float(np.mean(before)), change, len(common))


@dataclass(frozen=True, slots=True)
class Lag:
    """How many of the newest entities of a history have an older row online, or none."""

    view: str
    entities: int
    behind: int

    @property
    def share(self) -> float:
        """The share that is behind, in [0, 1]."""
        return self.behind / self.entities if self.entities else 0.0


def lag(project: Project, view: FeatureView) -> Lag:
    """Compare what requests read with what training data would say, on the entities of the newest events."""
    keys = list(view.entity.keys)
    rows = project.tables.read(view_table(view), [*keys, "event_timestamp"])
    if not rows.num_rows:
        return Lag(view.name, 0, 0)
    if view.compute is not None and keys == ["document_id"]:
        present = project.tables.read("documents", ["document_id"])
        rows = rows.filter(pc.is_in(rows["document_id"], present["document_id"].combine_chunks()))
    newest = rows.group_by(keys).aggregate([("event_timestamp", "max")])
    if view.ttl is not None:  # what has expired is rightly gone online
        newest = newest.filter(pc.greater(newest["event_timestamp_max"], project.clock() - view.ttl))
    newest = newest.sort_by([("event_timestamp_max", "descending")]).slice(0, _LAG_ENTITIES)
    names = list(zip(*(newest[key].to_pylist() for key in keys), strict=True))
    stored = project.online.read(view.namespace, names)
    times = newest["event_timestamp_max"].cast(pa.int64()).to_pylist()
    behind = sum(row is None or row.event_micros < at for row, at in zip(stored, times, strict=True))
    return Lag(view.name, len(names), behind)
