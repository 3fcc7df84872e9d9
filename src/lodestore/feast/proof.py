"""Both sides asked the same, and their answers compared value by value. A difference is explained or it is one."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lodestore.catalog import Catalog
from lodestore.errors import LodestoreError
from lodestore.events import EventSource
from lodestore.feast.interpreter import Interpreter
from lodestore.feast.sample import ROW, Told, entity_rows, in_feast, told_by
from lodestore.feast.translation import Origin, Translation
from lodestore.spec import Feature, FeatureView, Kind
from lodestore.wire import is_missing

__all__ = ["REASONS", "Difference", "Proof", "Proven", "prove"]

REASONS: Mapping[str, str] = {
    "lost": "Feast lost the entity row: it has rows of the key, but none of that time that had not expired",
    "tie": "several rows have the same keys and times: Feast takes any of them, Lodestore the last one of the file",
    "late": "several rows have the same keys and event time: Lodestore takes the one created last, Feast did not",
    "expired": "online: the value is older than the TTL: null here, and Feast goes on answering it",
    "older": "online: Feast answers an older row of its files, or none: it was published before the newest came",
    "rounded": "a whole number beyond 2^53, of which Feast made a float because others are null",
}
_SHOWN = 5
_NOTHING = "Feast's online store has nothing of it"
Joined: TypeAlias = Callable[[pa.Table, Sequence[str]], pa.Table]
"""Our side: the entity rows with the features beside them."""
Read: TypeAlias = Callable[[Sequence[str], pa.Table], Mapping[str, Sequence[object]]]
"""Our side online: a column for each feature, in the order of the keys."""
Way: TypeAlias = Literal["historical", "online"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that nothing explains; a personal feature shows none."""

    feature: str
    keys: Mapping[str, object]
    moment: datetime
    ours: object
    theirs: object


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared of one view; `problem`: why nothing was, or why that proves nothing; `note`: why it need not be.

    `present` of the `equal` values are not null; `explained` counts values by the reasons of `REASONS`. `missing` are
    the features in Feast that the project's view does not have.
    """

    view: str
    feast: str
    kind: Way = "historical"
    rows: int = 0
    values: int = 0
    equal: int = 0
    present: int = 0
    explained: Mapping[str, int] | None = None
    different: tuple[Difference, ...] = ()
    different_count: int = 0
    refused: int = 0
    refusals: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether both sides are the same in all that could be asked; an online store that fails is no history."""
        unproven = bool(self.problem) and self.kind == "historical"
        return not (unproven or self.different_count or self.refused or self.missing)

    @property
    def why(self) -> str:
        """Why nothing counts as compared; empty where something does."""
        return self.problem or self.note


@dataclass(frozen=True, slots=True)
class Proven:
    """The proofs of all views."""

    proofs: tuple[Proof, ...]

    @property
    def compared(self) -> int:
        """How many values were compared."""
        return sum(one.values for one in self.proofs)

    @property
    def holds(self) -> bool:
        """Whether something was compared, every view with a file was, every difference is explained, and no row was refused."""
        return bool(self.compared) and all(one.holds for one in self.proofs)


@dataclass(frozen=True, slots=True)
class _Question:
    view: FeatureView
    origin: Origin
    told: Told
    asked: pa.Table
    features: Mapping[str, str]  # ours -> Feast's
    refused: Mapping[str, str]
    missing: tuple[str, ...]  # as Feast calls them
    now: datetime

    @property
    def refs(self) -> list[str]:
        return [f"{self.view.name}@{self.view.version}:{name}" for name in self.features]

    def keys_of(self, rows: pa.Table) -> list[tuple[object, ...]]:
        return list(zip(*(rows[key].to_pylist() for key in self.view.entity.keys), strict=True))


def prove(
    translation: Translation,
    interpreter: Interpreter,
    repository: Path,
    *,
    root: Path,
    catalog: Catalog,
    joined: Joined,
    read: Read,
    now: datetime,
    counted: Callable[[FeatureView], int],
    refused: Callable[[FeatureView], Mapping[str, str]],
    rows: int,
) -> Proven:
    """Both sides' values of each view whose file came over: about `rows` historical ones, and those online `now`.

    `counted` says how many rows a view's history has, `refused` which rows of its files are turned away, and why.
    """
    events = {one.view: one for one in translation.events}
    questions: list[_Question] = []
    proofs: list[Proof] = []
    for name, origin in translation.origins.items():
        try:
            made = _question(origin, events.get(name), catalog, root, rows, now, counted, refused)
        except LodestoreError as error:
            made = Proof(name, origin.feast, problem=str(error))
        if isinstance(made, Proof):
            proofs.append(made)
        else:
            questions.append(made)
    proofs += _answered(questions, interpreter, repository, joined)
    proofs += _online(questions, interpreter, repository, read, now)
    return Proven(tuple(sorted(proofs, key=lambda one: (one.kind, one.view))))


def _question(
    origin: Origin,
    source: EventSource | None,
    catalog: Catalog,
    root: Path,
    rows: int,
    now: datetime,
    counted: Callable[[FeatureView], int],
    refused: Callable[[FeatureView], Mapping[str, str]],
) -> _Question | Proof:
    """What to ask of a view, or why nothing can be; rows that are turned away are a reason before all others."""
    proof = Proof(origin.view, origin.feast)
    if source is None:
        return replace(proof, note="its rows are not read from a file")
    if origin.view not in catalog.latest:
        why = (
            "the project does not declare it; run lodestore import feast without --verify first, with the same --prefix"
        )
        return replace(proof, problem=why)
    view = catalog.latest[origin.view]
    turned_away = refused(view)
    proof = replace(proof, **_refusals(turned_away))
    features = {ours: theirs for ours, theirs in origin.features.items() if ours in view.features}
    missing = tuple(theirs for ours, theirs in origin.features.items() if ours not in view.features)
    proof = replace(proof, missing=missing)
    if not features:
        return replace(proof, problem="the project's view has none of its features")
    told = told_by(source, view, root=root)
    if not counted(view):
        if turned_away:
            return replace(proof, problem="all rows of its files are refused")
        if not told.table.num_rows:
            return replace(proof, note="its file has no rows")
        return replace(proof, problem="its history is empty; run: lodestore run features")
    asked = entity_rows(told, ttl=view.ttl, rows=rows)
    return _Question(view, origin, told, asked, features, turned_away, missing, now)


def _refusals(refused: Mapping[str, str]) -> dict[str, Any]:
    shown = tuple(f"{place}: {why}" for place, why in list(refused.items())[:_SHOWN])
    return {"refused": len(refused), "refusals": shown}


def _answered(
    questions: Sequence[_Question], interpreter: Interpreter, repository: Path, joined: Joined
) -> list[Proof]:
    """Feast answers all questions in one process, since starting it takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        asks = [_ask(one, one.asked, Path(folder), place) for place, one in enumerate(questions)]
        answers = interpreter.values(repository, asks) if asks else []
        return [
            _failed(one, "historical", answer["problem"]) or _historical(one, ask["out"], joined)
            for one, ask, answer in zip(questions, asks, answers, strict=True)
        ]


def _ask(one: _Question, rows: pa.Table, folder: Path, place: int) -> dict[str, Any]:
    entities = folder / f"asked{place}.parquet"
    pq.write_table(in_feast(rows, one.origin.keys), entities)
    out = str(folder / f"given{place}.parquet")
    names = list(one.features.values())
    return {"view": one.origin.feast, "features": names, "entities": str(entities), "row": ROW, "out": out}


def _failed(one: _Question, kind: Way, problem: str) -> Proof | None:
    if not problem:
        return None
    missing = one.missing if kind == "historical" else ()
    failed = Proof(one.view.name, one.origin.feast, kind, missing=missing, problem=f"Feast: {problem}")
    return replace(failed, **_refusals(one.refused))


def _historical(one: _Question, out: str, joined: Joined) -> Proof:
    told = pq.read_table(out)
    place = {row: at for at, row in enumerate(told[ROW].to_pylist())}
    ours = joined(one.asked, one.refs)
    moments = one.asked["event_timestamp"].to_pylist()
    theirs = {}
    for ref, feast in zip(one.refs, one.features.values(), strict=True):
        given = told[feast].to_pylist()
        theirs[ref] = [given[place[row]] if row in place else _LOST for row in range(one.asked.num_rows)]
    mine = {ref: ours[ref].to_pylist() for ref in one.refs}
    weighed = _weighed(one, "historical", one.keys_of(one.asked), moments, mine, theirs)
    if weighed.present or weighed.different_count or not _has_values(one):
        return weighed
    return replace(weighed, problem="nothing but nulls is the same on both sides, and its file has values")


def _has_values(one: _Question) -> bool:
    """Whether the file has any value of these features that is not null."""
    return any(not pc.all(pc.is_null(one.told.table[name], nan_is_null=True)).as_py() for name in one.features)


def _online(
    questions: Sequence[_Question], interpreter: Interpreter, repository: Path, read: Read, now: datetime
) -> list[Proof]:
    """What both online stores say now; a view of which Feast's has nothing is not compared."""
    with tempfile.TemporaryDirectory() as folder:
        keys = [one.asked.group_by(one.view.entity.keys, use_threads=False).aggregate([]) for one in questions]
        asks = [_ask(one, rows, Path(folder), at) for at, (one, rows) in enumerate(zip(questions, keys, strict=True))]
        answers = interpreter.values(repository, asks, online=True) if asks else []
        return [
            _empty(one, answer) or _failed(one, "online", answer["problem"]) or _read(one, rows, ask["out"], read, now)
            for one, rows, ask, answer in zip(questions, keys, asks, answers, strict=True)
        ]


def _empty(one: _Question, answer: Mapping[str, Any]) -> Proof | None:
    return Proof(one.view.name, one.origin.feast, "online", note=_NOTHING) if answer.get("nothing") else None


def _read(one: _Question, rows: pa.Table, out: str, read: Read, now: datetime) -> Proof:
    told = pq.read_table(out)
    theirs = {ref: told[name].to_pylist() for ref, name in zip(one.refs, one.features.values(), strict=True)}
    if all(value is None for column in theirs.values() for value in column):
        return Proof(one.view.name, one.origin.feast, "online", note=_NOTHING)
    mine = read(one.refs, rows)
    return _weighed(one, "online", one.keys_of(rows), [now] * rows.num_rows, mine, theirs)


def _weighed(
    one: _Question,
    kind: Way,
    keys: Sequence[tuple[object, ...]],
    moments: Sequence[datetime],
    ours: Mapping[str, Sequence[object]],
    theirs: Mapping[str, Sequence[object]],
) -> Proof:
    """Both sides' columns, compared value by value."""
    explained: Counter[str] = Counter()
    different: list[Difference] = []
    present = 0
    for ref, name in zip(one.refs, one.features, strict=True):
        feature = one.view.feature(name)
        for key, moment, mine, others in zip(keys, moments, ours[ref], theirs[ref], strict=True):
            reason = _reason(one, kind, feature, key, moment, mine, others)
            if reason is None:
                different.append(_difference(one, feature, ref, key, moment, mine, others))
            elif reason:
                explained[reason] += 1
            else:
                present += mine is not None
    values = len(keys) * len(one.refs)
    return Proof(
        one.view.name,
        one.origin.feast,
        kind,
        rows=len(keys),
        values=values,
        equal=values - explained.total() - len(different),
        present=present,
        explained=dict(explained),
        different=tuple(different[:_SHOWN]),
        different_count=len(different),
        missing=one.missing if kind == "historical" else (),
        **_refusals(one.refused),
    )


_LOST = object()


def _difference(
    one: _Question, feature: Feature, ref: str, key: Sequence[object], moment: datetime, ours: object, theirs: object
) -> Difference:
    shown = ("(personal)", "(personal)") if feature.pii else (ours, None if theirs is _LOST else theirs)
    return Difference(ref, dict(zip(one.view.entity.keys, key, strict=True)), moment, *shown)


def _reason(
    one: _Question,
    kind: Way,
    feature: Feature,
    key: tuple[object, ...],
    moment: datetime,
    ours: object,
    theirs: object,
) -> str | None:
    """Empty where both are the same, the reason where the difference is a known one, None where it is not."""
    mine, others = _plain(ours, feature), _plain(theirs, feature)
    if theirs is not _LOST and mine == others:
        return ""
    tied = one.told.newest(key, moment)
    lasting = not _is_expired(tied, moment, one.view.ttl)
    owed = _plain(_winner(tied)[feature.name], feature) if tied.num_rows and lasting else None
    if mine != owed:
        return None  # nothing that Feast does explains a value that the file does not give
    if theirs is _LOST:
        return None if tied.num_rows and lasting else "lost"
    if isinstance(mine, int) and isinstance(others, float) and float(mine) == others:
        return "rounded"
    if tied.num_rows > 1 and lasting and others in _values(tied, feature):
        return "late" if _is_late(tied) else "tie"
    return _reason_online(one, feature, key, others, tied, lasting=lasting) if kind == "online" else None


def _reason_online(
    one: _Question, feature: Feature, key: tuple[object, ...], others: object, tied: pa.Table, *, lasting: bool
) -> str | None:
    """Why Feast's store has another value than the one that is owed: nothing of it expires, and it may lie behind."""
    if not tied.num_rows:
        return None
    if not lasting and others in _values(tied, feature):
        return "expired"
    if others is None:
        return "older"
    known = one.told.of(key)
    earlier = known.filter(pc.less(known["event_timestamp"], tied["event_timestamp"][0]))
    if others not in _values(earlier, feature):
        return None
    return "older" if lasting else "expired"


def _values(rows: pa.Table, feature: Feature) -> list[object]:
    return [_plain(value, feature) for value in rows[feature.name].to_pylist()]


def _is_expired(tied: pa.Table, moment: datetime, ttl: timedelta | None) -> bool:
    """Whether these rows are older than the TTL at that moment; what is exactly as old counts."""
    return bool(tied.num_rows) and ttl is not None and moment - tied["event_timestamp"][0].as_py() > ttl


def _winner(tied: pa.Table) -> Mapping[str, Any]:
    """The row that counts here: the one created last, then the last one of the file; equal rows are one, where the first is."""
    rows = list({repr(row): row for row in tied.to_pylist()}.values())
    created = [row.get("created_timestamp") or row["event_timestamp"] for row in rows]
    return dict(rows[max(range(len(rows)), key=lambda at: (created[at], at))])


def _is_late(tied: pa.Table) -> bool:
    """Whether the created times tell which of the rows counts."""
    if "created_timestamp" not in tied.column_names:
        return False
    created = sorted((one for one in tied["created_timestamp"].to_pylist() if one is not None), reverse=True)
    return len(created) > 1 and created[0] != created[1]


def _plain(value: Any, feature: Feature) -> Any:  # noqa: ANN401 - any value
    """The value in a form that both sides share."""
    if value is None or is_missing(value) or (isinstance(value, float) and math.isnan(value)):
        return None
    if feature.kind is Kind.STRUCT:
        return _parsed(value) if isinstance(value, str) else value
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return datetime.combine(moment.date(), moment.timetz()).astimezone(UTC)
    if isinstance(value, list) and feature.item is not None:
        return [_plain(one, feature.item) for one in value]
    return value


def _parsed(text: str) -> object:
    """What the JSON says; a text that is none is compared as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
