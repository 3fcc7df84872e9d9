"""Counters and latency histograms in the text format of Prometheus. Only names and numbers, never a value."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

__all__ = ["BOUNDS", "MEDIA", "Figures", "Metrics", "Series", "as_text"]

MEDIA = b"text/plain; version=0.0.4; charset=utf-8"
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HELP = {
    "lodestore_requests_total": "Requests answered, by endpoint, view and status.",
    "lodestore_cache_total": "Look-ups of a cache, by outcome.",
    "lodestore_shed_total": "Requests turned away because too many were waiting.",
    "lodestore_degraded_total": "Answers without a part that is down, or with stale features, by what is missing.",
}
_Labels: TypeAlias = tuple[tuple[str, str], ...]
Series: TypeAlias = tuple[str, _Labels]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted and timed until a moment. A series is a name and its labels; they add up over workers."""

    counts: Mapping[Series, float] = field(default_factory=dict)
    times: Mapping[_Labels, tuple[float, ...]] = field(default_factory=dict)

    def __add__(self, other: Figures) -> Figures:
        counts = {one: self.counts.get(one, 0) + other.counts.get(one, 0) for one in {**self.counts, **other.counts}}
        nothing = (0.0,) * (len(BOUNDS) + 2)
        times = {
            one: tuple(map(sum, zip(self.times.get(one, nothing), other.times.get(one, nothing), strict=True)))
            for one in {**self.times, **other.times}
        }
        return Figures(counts, times)

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON types, which `from_json` turns back."""
        counts = [[name, labels, value] for (name, labels), value in self.counts.items()]
        return {"counts": counts, "times": [[labels, values] for labels, values in self.times.items()]}

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> Figures:
        """The figures that `to_json` told."""
        counts = {(name, _labels_in(labels)): value for name, labels, value in told["counts"]}
        return Figures(counts, {_labels_in(labels): tuple(values) for labels, values in told["times"]})


def _labels_in(told: Iterable[Iterable[str]]) -> _Labels:
    return tuple((name, value) for name, value in told)


class Metrics:
    """What one worker has done. Counting is for the event loop alone; `figures` may be asked by any thread."""

    def __init__(self) -> None:
        self._counts: dict[Series, float] = {}
        self._times: dict[tuple[str, str], list[float]] = {}
        self._requests: dict[tuple[str, str, int], int] = {}

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """The counter is greater by `amount`."""
        key = (name, tuple(labels.items()))
        self._counts[key] = self._counts.get(key, 0) + amount

    def request(self, endpoint: str, view: str, status: int, seconds: float) -> None:
        """One more request is counted and timed."""
        place = (endpoint, view, status)
        self._requests[place] = self._requests.get(place, 0) + 1
        times = self._times.get((endpoint, view))
        if times is None:
            times = self._times[endpoint, view] = [0.0] * (len(BOUNDS) + 2)
        times[bisect_left(BOUNDS, seconds)] += 1
        times[-1] += seconds

    def figures(self) -> Figures:
        """What was counted so far."""
        requests: dict[Series, float] = {
            ("lodestore_requests_total", (("endpoint", one), ("view", view), ("status", str(status)))): float(count)
            for (one, view, status), count in self._requests.copy().items()
        }
        times: dict[_Labels, tuple[float, ...]] = {
            (("endpoint", endpoint), ("view", view)): tuple(values)
            for (endpoint, view), values in self._times.copy().items()
        }
        return Figures({**self._counts.copy(), **requests}, times)


def as_text(figures: Figures, gauges: Mapping[Series, float]) -> str:
    """Everything, as Prometheus reads it."""
    return "\n".join([*_counters(figures), *_gauges(gauges), *_histograms(figures), ""])


def _counters(figures: Figures) -> Iterator[str]:
    told = ""
    for (name, labels), value in sorted(figures.counts.items()):
        if name != told:
            yield f"# HELP {name} {_HELP.get(name, name)}"
            yield f"# TYPE {name} counter"
            told = name
        yield f"{name}{_shown(labels)} {value:.17g}"


def _gauges(gauges: Mapping[Series, float]) -> Iterator[str]:
    told = ""
    for (name, labels), value in sorted(gauges.items()):
        if name != told:
            yield f"# TYPE {name} gauge"
            told = name
        yield f"{name}{_shown(labels)} {value:.10g}"


def _histograms(figures: Figures) -> Iterator[str]:
    name = "lodestore_request_seconds"
    yield f"# HELP {name} Time to answer, by endpoint and view."
    yield f"# TYPE {name} histogram"
    for labels, times in sorted(figures.times.items()):
        total = 0.0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), times, strict=False):
            total += count
            yield f"{name}_bucket{_shown((*labels, ('le', bound)))} {total:.17g}"
        yield f"{name}_sum{_shown(labels)} {times[-1]:.6f}"
        yield f"{name}_count{_shown(labels)} {total:.17g}"


def _shown(labels: Iterable[tuple[str, str]]) -> str:
    shown = ",".join(f'{name}="{value}"' for name, value in labels if value)
    return f"{{{shown}}}" if shown else ""
