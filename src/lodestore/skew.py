"""Skew between serving and training: a sample of online reads, answered again by the point-in-time join.

Samples lie in a fixed number of places of the online store, so that they need no cleaning and no table:
a new one takes the place of a random older one. Personal features are never sampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa

from lodestore import ondemand
from lodestore.catalog import Catalog
from lodestore.historical import historical
from lodestore.moments import moment_of
from lodestore.online import Key, OnlineStore
from lodestore.payloads import decode_payload, encode_payload
from lodestore.ports import OfflineStore
from lodestore.spec import FeatureRef, FeatureView
from lodestore.tables import MOMENT

__all__ = ["EVERY", "Sample", "Skew", "measure", "note", "samples"]

EVERY = 1_000
"""Of so many online reads one is sampled."""

_PLACES = 500
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Sample:
    """What one entity's features were, as they were served at a moment."""

    view: str
    version: int
    key: Key
    at: datetime
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Skew:
    """How many sampled values differ from what a training set would have in their place."""

    values: int = 0
    mismatched: int = 0
    missing: int = 0
    extra: int = 0

    def __add__(self, other: Skew) -> Skew:
        return Skew(
            self.values + other.values,
            self.mismatched + other.mismatched,
            self.missing + other.missing,
            self.extra + other.extra,
        )

    def rate(self, count: int) -> float:
        """The count as a share of all values, in [0, 1]."""
        return count / self.values if self.values else 0.0


# Noting


def note(online: OnlineStore, view: FeatureView, key: Key, values: Mapping[str, Any], *, micros: int) -> None:
    """The read is among the samples; of personal features nothing is kept."""
    plain = {name: value for name, value in values.items() if not view.features[name].pii}
    head = orjson.dumps([view.name, view.version, list(key), micros])
    online.set_meta(f"skew/{micros % _PLACES}", head + b"\n" + encode_payload(plain))


def samples(online: OnlineStore) -> list[Sample]:
    """The samples that are kept, in the order of their time."""
    found = (online.get_meta(f"skew/{place}") for place in range(_PLACES))
    return sorted((_sample(one) for one in found if one), key=lambda one: one.at)


def _sample(stored: bytes) -> Sample:
    head, _, payload = stored.partition(b"\n")
    view, version, key, micros = orjson.loads(head)
    return Sample(view, version, tuple(key), moment_of(micros), decode_payload(payload))


# Answering again


def measure(
    found: Iterable[Sample], *, catalog: Catalog, offline: OfflineStore, since: datetime | None = None
) -> dict[str, Skew]:
    """The skew by view. Samples of views or features that are no longer declared are passed over.

    A value that is only online is extra (the history never got it, or not yet), one that only the
    history has is missing (it was not published in time), two different ones are a mismatch.
    """
    grouped: dict[tuple[str, int, tuple[str, ...]], list[Sample]] = {}
    for one in found:
        view = catalog.views.get((one.view, one.version))
        if view is not None and (since is None or one.at >= since) and set(one.values) <= set(view.features):
            grouped.setdefault((one.view, one.version, tuple(sorted(one.values))), []).append(one)
    out: dict[str, Skew] = {}
    for (name, version, features), members in grouped.items():
        if features:
            skew = _compared(catalog.view(name, version), features, members, catalog, offline)
            out[name] = out.get(name, Skew()) + skew
    return out


def _compared(
    view: FeatureView, features: Sequence[str], members: Sequence[Sample], catalog: Catalog, offline: OfflineStore
) -> Skew:
    columns: dict[str, Any] = {
        key: pa.array([one.key[place] for one in members], pa.string() if kind == "string" else pa.int64())
        for place, (key, kind) in enumerate(zip(view.entity.keys, view.entity.types, strict=True))
    }
    columns["event_timestamp"] = pa.array([one.at for one in members], MOMENT)
    refs = [FeatureRef(view.name, name, view.version) for name in features]
    joined = historical(pa.table(columns), refs, catalog=catalog, offline=offline)
    total = Skew()
    for name, ref in zip(features, refs, strict=True):
        then = ondemand.as_online(view.features[name], joined[str(ref)])
        total += sum((_one(sample.values[name], value) for sample, value in zip(members, then, strict=True)), Skew())
    return total


def _one(served: object, then: object) -> Skew:
    if served is None or then is None:
        return Skew(1, 0, int(served is None and then is not None), int(served is not None and then is None))
    return Skew(1, int(not _same(served, then)))


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= _TOLERANCE * max(1.0, abs(one), abs(other))
    return bool(one == other)
