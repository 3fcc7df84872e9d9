"""Declarations of views over time: what each version said, what a changed one would do, what is still served.

The log `views` keeps what every version of a view promised. Applications rely on that: within a version
features may come and limits may move, but none may go or change its type. A version that is no longer
declared in code is still served, from what the log remembers of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Literal

from lodestore.catalog import Catalog
from lodestore.errors import RefusedError
from lodestore.logs import Logs
from lodestore.spec import Entity, Feature, FeatureView, Kind
from lodestore.tables import quoted
from lodestore.wire import canonical, digest

__all__ = ["Change", "ViewPlan", "agree", "compare", "complete", "plan", "remembered", "shape"]

State = Literal["new", "same", "changed", "incompatible", "undeclared"]
_LIMITS = ("minimum", "maximum", "max_length", "categories", "schema")
_TYPE = ("kind", "item", "space", "wide", "made_from")


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between a stored declaration and the declared one."""

    what: Literal["added", "removed", "retyped", "limits", "keys", "space", "clock", "personal"]
    subject: str
    detail: str
    compatible: bool = True
    backfill: bool = False


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """What a view's version would do when it is used next."""

    view: str
    version: int
    state: State
    changes: tuple[Change, ...] = ()

    @property
    def needs_backfill(self) -> bool:
        """Whether rows have to be computed again before every feature has its values."""
        return any(one.backfill for one in self.changes)

    @property
    def refused(self) -> tuple[Change, ...]:
        """What is not allowed within a version."""
        return tuple(one for one in self.changes if not one.compatible)


# Shapes: declarations as JSON


def shape(view: FeatureView) -> dict[str, Any]:
    """The declaration as far as applications and stored rows rely on it, in JSON types."""
    return {
        "entity": view.entity.name,
        "keys": [list(one) for one in zip(view.entity.keys, view.entity.types, strict=True)],
        "source": view.source.value,
        "ttl": _seconds(view.ttl),
        "fresh_within": _seconds(view.fresh_within),
        "features": {name: _feature_shape(one) for name, one in view.features.items()},
    }


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _feature_shape(feature: Feature) -> dict[str, Any]:
    out: dict[str, Any] = {"kind": feature.kind.value}
    plain = ("minimum", "maximum", "max_length", "space", "wide", "made_from", "pii")
    out |= {name: getattr(feature, name) for name in plain if getattr(feature, name)}
    out |= {name: getattr(feature, name) for name in ("minimum", "maximum") if getattr(feature, name) is not None}
    if feature.categories:
        out["categories"] = list(feature.categories)
    if feature.schema is not None:
        out["schema"] = dict(feature.schema)
    return out | ({"item": _feature_shape(feature.item)} if feature.item is not None else {})


def _feature(name: str, said: Mapping[str, Any]) -> Feature:
    values = {one: said[one] for one in said if one not in {"kind", "item", "categories", "schema"}}
    item = _feature("", said["item"]) if "item" in said else None
    schema = MappingProxyType(said["schema"]) if "schema" in said else None
    categories = tuple(said.get("categories", ()))
    return Feature(Kind(said["kind"]), name=name, item=item, schema=schema, categories=categories, **values)


def _view(name: str, version: int, said: Mapping[str, Any]) -> FeatureView:
    keys = [tuple(one) for one in said["keys"]]
    ttl, fresh = said["ttl"], said["fresh_within"]
    return FeatureView(
        name,
        entity=Entity(said["entity"], tuple(key for key, _ in keys), type=tuple(kind for _, kind in keys)),
        version=version,
        source=said["source"],
        ttl=None if ttl is None else timedelta(seconds=ttl),
        fresh_within=None if fresh is None else timedelta(seconds=fresh),
        features={one: _feature(one, told) for one, told in said["features"].items()},
    )


# Differences


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """What changed from one shape to the other, what breaks applications first."""
    changes = list(_key_changes(before, now))
    old, new = before["features"], now["features"]
    changes += [
        Change("removed", name, "applications of this version read it", compatible=False)
        for name in old
        if name not in new
    ]
    for name in new:
        changes += list(_feature_changes(name, old.get(name), new[name]))
    changes += [
        Change("clock", name, f"{_told(before[name])} becomes {_told(now[name])}")
        for name in ("ttl", "fresh_within")
        if before[name] != now[name]
    ]
    return sorted(changes, key=lambda one: one.compatible)


def _personal(feature: Mapping[str, Any]) -> bool:
    return bool(feature.get("pii") or (feature.get("item") or {}).get("pii"))


def _key_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    if before["keys"] != now["keys"]:
        told = " becomes ".join(", ".join(f"{key} ({kind})" for key, kind in one["keys"]) for one in (before, now))
        yield Change("keys", now["entity"], told, compatible=False)


def _feature_changes(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> Iterator[Change]:
    if old is None:
        yield Change("added", name, f"{new['kind']}; null until rows bring it", backfill=True)
        return
    if _personal(old) != _personal(new):
        told = "shown nowhere from now on" if _personal(new) else "its values were promised to stay unseen"
        yield Change("personal", name, told, compatible=_personal(new))
    asked = str(old.get("made_from")).startswith("question") and old.get("made_from") == new.get("made_from")
    for what in _TYPE:
        if asked and what == "space" and old.get(what) != new.get(what):
            # No row brings these vectors and no row has to fit: the store makes them, in whatever model is live.
            yield Change("space", name, f"{_told(old.get(what))} becomes {_told(new.get(what))}; made again from texts")
        elif old.get(what) != new.get(what):
            yield Change(
                "retyped", name, f"{what} {_told(old.get(what))} becomes {_told(new.get(what))}", compatible=False
            )
    for what in _LIMITS:
        if old.get(what) != new.get(what):
            yield Change("limits", name, f"{what} {_told(old.get(what))} becomes {_told(new.get(what))}, for new rows")


def _told(value: object) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


# The log


def remembered(logs: Logs, name: str | None = None) -> dict[tuple[str, int], dict[str, Any]]:
    """The newest shape of every stored version, of one view or of all."""
    rows = logs.rows("views", None if name is None else f"name = {quoted(name)}")
    return {(str(row["name"]), int(row["version"])): json.loads(row["declaration"]) for row in rows}


def plan(catalog: Catalog, logs: Logs) -> list[ViewPlan]:
    """What using every declared view would do; stored versions that nobody declares come last."""
    stored = remembered(logs)
    out = [_plan(view, stored.get(key)) for key, view in sorted(catalog.views.items())]
    gone = sorted(set(stored) - set(catalog.views))
    return out + [ViewPlan(name, version, "undeclared") for name, version in gone]


def _plan(view: FeatureView, before: Mapping[str, Any] | None) -> ViewPlan:
    if before is None:
        return ViewPlan(view.name, view.version, "new")
    changes = tuple(compare(before, shape(view)))
    refused = any(not one.compatible for one in changes)
    state: State = "incompatible" if refused else "changed" if changes else "same"
    return ViewPlan(view.name, view.version, state, changes)


def agree(view: FeatureView, logs: Logs) -> ViewPlan:
    """The log has the view's declaration; `RefusedError` where it breaks what this version promised."""
    known = remembered(logs, view.name)
    found = _plan(view, known.get((view.name, view.version)))
    if found.refused:
        told = "; ".join(f"{one.subject} {one.what}: {one.detail}" for one in found.refused)
        free = 1 + max(version for _, version in known)
        message = (
            f"feature view {view.name}@{view.version} is in use and its declaration changed: {told}; declare "
            f"version={free} and leave version {view.version} as it was"
        )
        raise RefusedError(message)
    if found.state != "same":
        said = canonical(shape(view)).decode()
        written = len(logs.rows("views", f"name = {quoted(view.name)}"))
        row = {"key": digest([view.name, view.version, said, written]), "name": view.name, "declaration": said}
        logs.put("views", {**row, "version": view.version})
    return found


def complete(catalog: Catalog, logs: Logs) -> Catalog:
    """The catalog with the versions that are no longer declared but that the log remembers."""
    old = {key: _view(*key, said) for key, said in remembered(logs).items() if key not in catalog.views}
    older = {
        key: view for key, view in old.items() if key[0] in catalog.latest and key[1] < catalog.latest[key[0]].version
    }
    return Catalog(MappingProxyType({**catalog.views, **older}), catalog.on_demand, catalog.services)
