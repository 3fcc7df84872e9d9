"""Counters and latency histograms in the text format of Prometheus. Only names and numbers, never a value."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

__all__ = ["BOUNDS", "MEDIA", "Metrics"]

MEDIA = b"text/plain; version=0.0.4; charset=utf-8"
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HELP = {
    "lodestore_requests_total": "Requests answered, by endpoint, view and status.",
    "lodestore_cache_total": "Look-ups of a cache, by outcome.",
    "lodestore_shed_total": "Requests turned away because too many were waiting.",
    "lodestore_degraded_total": "Answers without a part that is down, or with stale features, by what is missing.",
}
_Labels = tuple[tuple[str, str], ...]


class Metrics:
    """What one worker has done. Counting is for the event loop alone."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, _Labels], float] = {}
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

    def text(self, gauges: Mapping[str, float]) -> str:
        """Everything, with these gauges, as Prometheus reads it."""
        return "\n".join([*self._lines(gauges), ""])

    def _lines(self, gauges: Mapping[str, float]) -> Iterator[str]:
        requests: dict[tuple[str, _Labels], float] = {
            ("lodestore_requests_total", (("endpoint", one), ("view", view), ("status", str(status)))): float(count)
            for (one, view, status), count in self._requests.items()
        }
        told = ""
        for (name, labels), value in sorted({**self._counts, **requests}.items()):
            if name != told:
                yield f"# HELP {name} {_HELP.get(name, name)}"
                yield f"# TYPE {name} counter"
                told = name
            yield f"{name}{_labels(labels)} {value:g}"
        for name, value in gauges.items():
            bare = name.partition("{")[0]
            if bare != told:
                yield f"# TYPE {bare} gauge"
                told = bare
            yield f"{name} {value:.10g}"
        yield from self._histograms()

    def _histograms(self) -> Iterator[str]:
        name = "lodestore_request_seconds"
        yield f"# HELP {name} Time to answer, by endpoint and view."
        yield f"# TYPE {name} histogram"
        for (endpoint, view), times in sorted(self._times.items()):
            labels = (("endpoint", endpoint), ("view", view))
            total = 0.0
            for bound, count in zip((*map(str, BOUNDS), "+Inf"), times, strict=False):
                total += count
                yield f"{name}_bucket{_labels((*labels, ('le', bound)))} {total:g}"
            yield f"{name}_sum{_labels(labels)} {times[-1]:.6f}"
            yield f"{name}_count{_labels(labels)} {total:g}"


def _labels(labels: Iterable[tuple[str, str]]) -> str:
    shown = ",".join(f'{name}="{value}"' for name, value in labels if value)
    return f"{{{shown}}}" if shown else ""
