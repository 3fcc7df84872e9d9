"""Outcomes: what became of an answer, and how well each template version does by them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lodestore.errors import RequestError
from lodestore.logs import Logs
from lodestore.prompts import version_key
from lodestore.spec import Entity, FeatureView, Source, integer, number
from lodestore.tables import LOGS, MOMENT
from lodestore.wire import canonical, digest

if TYPE_CHECKING:
    from lodestore.features import Inputs
    from lodestore.ports import OfflineStore

__all__ = [
    "Outcome",
    "Outcomes",
    "Performance",
    "Standing",
    "difference",
    "performance",
    "standings",
    "template_performance",
    "template_version",
    "wilson",
    "with_performance",
]

_LONGEST_ID = 256
_Z95 = 1.959963984540054
_MINUTE = 60_000_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one answer; `event_id` makes a repeated report count once. Say only what is known."""

    context_id: str
    event_id: str
    accepted: bool | None = None
    rating: float | None = None
    latency_ms: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("context_id", "event_id"):
            value: object = getattr(self, name)
            if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_ID:
                message = f"an outcome's {name} is {value!r}; give a text of 1 to {_LONGEST_ID} characters"
                raise RequestError(message)
        accepted: object = self.accepted
        if accepted is not None and not isinstance(accepted, bool):
            message = f"accepted is {accepted!r}; give true, false or nothing"
            raise RequestError(message)
        for name, least in (("rating", None), ("latency_ms", 0), ("tokens", 0)):
            _check_number(name, getattr(self, name), least)
        tokens: object = self.tokens
        if tokens is not None and not isinstance(tokens, int):
            message = f"tokens is {tokens!r}; give a whole number"
            raise RequestError(message)

    def to_row(self) -> dict[str, str]:
        """The row of the log."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        about, event = said.pop("context_id"), said.pop("event_id")
        return {"id": event, "context_id": about, "values": canonical(said).decode()}


def _check_number(name: str, value: object, least: int | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        message = f"{name} is {value!r}; give a finite number"
        raise RequestError(message)
    if least is not None and value < least:
        message = f"{name} is {value!r}; give at least {least}"
        raise RequestError(message)


class Outcomes:
    """The log of outcomes."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def add(self, outcome: Outcome) -> bool:
        """The outcome is in the log; tells whether its event id was new."""
        return self._logs.put("outcomes", outcome.to_row())


# How well template versions do


def wilson(successes: int, trials: int, *, z: float = _Z95) -> tuple[float, float]:
    """The interval of a share by Wilson's score (1927): sound for few trials and for shares near 0 or 1.

    >>> [round(bound, 3) for bound in wilson(8, 10)]
    [0.49, 0.943]
    >>> wilson(0, 0)
    (0.0, 1.0)
    """
    if not trials:
        return 0.0, 1.0
    share, weight = successes / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    spread = z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    return max(0.0, middle - spread), min(1.0, middle + spread)


@dataclass(frozen=True, slots=True)
class Performance:
    """How one template version did up to a moment; means are None where nobody said anything."""

    template_id: str
    version: str
    renders: int
    outcomes: int
    judged: int
    accepted: int
    acceptance_rate: float | None
    acceptance_low: float | None
    acceptance_high: float | None
    rating: float | None
    latency_ms: float | None
    tokens: float | None

    def __str__(self) -> str:
        return f"{self.template_id} {self.version}"


@dataclass(frozen=True, slots=True)
class Standing:
    """A version beside the others of its template: its share of users, and how much more often it is accepted.

    `gain` is the difference of its acceptance to that of the version that most users get, with its 95 %
    interval; None for that version itself, and where one of the two was never judged.
    """

    figures: Performance
    share: float
    gain: tuple[float, float, float] | None

    @property
    def told(self) -> str:
        """What the gain says, in words."""
        if self.gain is None:
            return ""
        value, low, high = (f"{100 * one:+.1f}" for one in self.gain)
        word = "better" if self.gain[1] > 0 else "worse" if self.gain[2] < 0 else "not told apart"
        return f"{word}: {value} points ({low} to {high})"


def standings(found: Iterable[Performance], live: Mapping[str, Mapping[str, float]]) -> list[Standing]:
    """Every version, by template and version, compared with the one that most users of its template get."""
    ordered = sorted(found, key=lambda one: (one.template_id, version_key(one.version)))
    base = {name: max(weights, key=lambda one: weights[one]) for name, weights in live.items() if weights}
    first = {one.template_id: one for one in ordered if one.version == base.get(one.template_id)}
    return [
        Standing(one, live.get(one.template_id, {}).get(one.version, 0.0), _gain(one, first.get(one.template_id)))
        for one in ordered
    ]


def _gain(one: Performance, base: Performance | None) -> tuple[float, float, float] | None:
    if base is None or one is base or not one.judged or not base.judged:
        return None
    return difference((one.accepted, one.judged), (base.accepted, base.judged))


def difference(ours: tuple[int, int], theirs: tuple[int, int]) -> tuple[float, float, float]:
    """The difference of two shares, each as successes and trials, with its 95 % interval: Newcombe's tenth method (1998).

    >>> [round(one, 3) for one in difference((56, 70), (48, 80))]
    [0.2, 0.052, 0.334]
    """
    p, q = ours[0] / ours[1], theirs[0] / theirs[1]
    (low, high), (lower, upper) = wilson(*ours), wilson(*theirs)
    return p - q, p - q - math.hypot(p - low, upper - q), p - q + math.hypot(high - p, q - lower)


_COUNTED = ("rating", "latency_ms", "tokens")


def _events(store: OfflineStore) -> pa.Table:
    """Renders and outcomes as one table of columns: what, about which version, when."""
    contexts = store.read("contexts", ["id", "template", "at"])
    outcomes = store.read("outcomes", LOGS["outcomes"].schema.names)
    # Templates repeat: each distinct text is parsed once.
    labels = {text: json.loads(text) for text in set(contexts["template"].to_pylist())}
    version_of = dict(zip(contexts["id"].to_pylist(), contexts["template"].to_pylist(), strict=True))
    about = [version_of.get(one) for one in outcomes["context_id"].to_pylist()]
    said = [json.loads(one) for one in outcomes["values"].to_pylist()]
    names = [_version(labels, one) for one in [*contexts["template"].to_pylist(), *about]]
    renders = contexts.num_rows
    columns: dict[str, Any] = {
        "template_id": [one[0] for one in names],
        "version": [one[1] for one in names],
        "at": [*contexts["at"].to_pylist(), *outcomes["at"].to_pylist()],
        "render": [1] * renders + [0] * len(said),
        "accepted": [None] * renders + [one.get("accepted") for one in said],
    }
    columns |= {name: [None] * renders + [one.get(name) for one in said] for name in _COUNTED}
    types = {"at": MOMENT, "accepted": pa.bool_(), "render": pa.int64()}
    table = pa.table(
        {
            name: pa.array(v, types.get(name, pa.float64() if name in _COUNTED else pa.string()))
            for name, v in columns.items()
        }
    )
    # An outcome whose context is not in the log yet is counted when it is.
    return table.filter(table["template_id"].is_valid()).sort_by([("at", "ascending")])


def _version(labels: Mapping[str, Mapping[str, Any]], text: str | None) -> tuple[str | None, str | None]:
    return (None, None) if text is None else (labels[text]["id"], labels[text]["version"])


def performance(store: OfflineStore) -> list[Performance]:
    """How each template version that was ever rendered did until now, by template and version."""
    names = [one.name for one in fields(Performance)]
    return [Performance(**{name: row[name] for name in names}) for _, row in sorted(_newest(store).items())]


def with_performance(templates: pa.Table, store: OfflineStore) -> pa.Table:
    """The rows of live templates with `performance_metrics`, as of the last event that is in them."""
    newest = _newest(store) if templates.num_rows else {}
    rows = [_measured(one, newest.get((one["template_id"], one["version"]))) for one in templates.to_pylist()]
    return pa.Table.from_pylist(rows, schema=templates.schema.append(pa.field("performance_metrics", pa.string())))


def _measured(template: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    if found is None:
        return {**template, "performance_metrics": None}
    figures = {name: found[name] for name in template_performance.features}
    at = max(template["event_timestamp"], found["event_timestamp"])
    said = {"event_timestamp": at, "event_id": f"{template['event_id']}/{found['event_id']}"}
    return {**template, **said, "performance_metrics": canonical(figures).decode()}


def _newest(store: OfflineStore) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["template_id"], row["version"]): row for row in _performance_rows(store).to_pylist()}


def _performance_rows(store: OfflineStore) -> pa.Table:
    """Running figures for each version, one row for each minute in which something happened."""
    events = _events(store)
    pieces: list[dict[str, Any]] = []
    pairs = sorted(set(zip(events["template_id"].to_pylist(), events["version"].to_pylist(), strict=True)))
    for template_id, version in pairs:
        mine = (np.asarray(events["template_id"]) == template_id) & (np.asarray(events["version"]) == version)
        pieces += _running(template_id, version, events.filter(pa.array(mine)))
    return pa.Table.from_pylist(pieces, schema=_SCHEMA)


def _running(template_id: str, version: str, events: pa.Table) -> list[dict[str, Any]]:
    """The figures after the last event of each minute."""
    micros = events["at"].cast(pa.int64()).to_numpy()
    last = np.flatnonzero(np.append(np.diff(micros // _MINUTE) > 0, [True]))
    render = np.cumsum(events["render"].to_numpy())
    said = {name: events[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in ("accepted", *_COUNTED)}
    totals = {name: np.nancumsum(column) for name, column in said.items()}
    counts = {name: np.cumsum(~np.isnan(column)) for name, column in said.items()}
    rows = []
    for place in last.tolist():
        means = {name: _mean(totals[name][place], counts[name][place]) for name in said}
        judged, accepted = int(counts["accepted"][place]), round(totals["accepted"][place])
        low, high = wilson(accepted, judged) if judged else (None, None)
        row: dict[str, Any] = {
            "renders": int(render[place]),
            "outcomes": place + 1 - int(render[place]),
            "judged": judged,
        }
        row |= {"accepted": accepted, "acceptance_rate": means.pop("accepted")}
        row |= {"acceptance_low": low, "acceptance_high": high, **means}
        row |= {"template_id": template_id, "version": version, "event_timestamp": events["at"][place].as_py()}
        rows.append({**row, "event_id": digest(row)})
    return rows


def _mean(total: float, count: int) -> float | None:
    return float(total / count) if count else None


def _compute(inputs: Inputs) -> pa.Table:
    """One row for each minute in which a version was rendered or judged."""
    return _performance_rows(inputs.store)


template_version = Entity("template_version", key=("template_id", "version"), doc="one version of a prompt template")

template_performance = FeatureView(
    "template_performance",
    entity=template_version,
    source=Source.STREAMING,
    owner="team:prompts",
    doc="How the answers of a template version did, as far as contexts and outcomes were reported until then.",
    compute=_compute,
    upstream=("templates",),
    features={
        "renders": integer(minimum=0, doc="recorded contexts"),
        "outcomes": integer(minimum=0, doc="reports about their answers"),
        "judged": integer(minimum=0, doc="reports that say whether the answer was accepted"),
        "accepted": integer(minimum=0, doc="those that say that it was"),
        "acceptance_rate": number(minimum=0, maximum=1),
        "acceptance_low": number(minimum=0, maximum=1, doc="Wilson's interval at 95 %"),
        "acceptance_high": number(minimum=0, maximum=1),
        "rating": number(doc="mean"),
        "latency_ms": number(minimum=0, doc="mean"),
        "tokens": number(minimum=0, doc="mean"),
    },
)

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("template_id", "version", "event_id")),
        ("event_timestamp", MOMENT),
        *((name, pa.int64()) for name in ("renders", "outcomes", "judged", "accepted")),
        *((name, pa.float64()) for name in ("acceptance_rate", "acceptance_low", "acceptance_high", *_COUNTED)),
    ]
)
