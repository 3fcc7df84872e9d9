"""What a Feast repository says about itself, read from the JSON that Feast's own interpreter printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from lodestore.errors import SourceError

__all__ = [
    "Description",
    "FeastEntity",
    "FeastField",
    "FeastOnDemand",
    "FeastService",
    "FeastSource",
    "FeastView",
    "Projection",
    "clean_texts",
    "described",
]


@dataclass(frozen=True, slots=True)
class FeastField:
    """A field of a schema; `type` as Feast writes it, such as `Array(Float32)`."""

    name: str
    type: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    vector_index: bool = False


@dataclass(frozen=True, slots=True)
class FeastEntity:
    """An entity with its only join key; `value_type` as Feast writes it, such as `INT64`."""

    name: str
    join_key: str
    value_type: str = "UNKNOWN"
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeastSource:
    """Where a view's values come from. Of a file that could be opened, `columns` tells the Arrow types.

    `more`, here and elsewhere, names settings that are not as Feast has them by itself, and that nothing here needs. `wide` are columns with whole numbers beyond 2^53 - 1, `infinite` those with infinite numbers.
    """

    name: str
    kind: str
    timestamp_field: str = ""
    created_timestamp_column: str = ""
    field_mapping: Mapping[str, str] = field(default_factory=dict)
    path: str = ""
    format: str = ""
    columns: Mapping[str, str] | None = None
    problem: str = ""
    wide: tuple[str, ...] = ()
    infinite: tuple[str, ...] = ()
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FeastView:
    """A feature view that stores values; `ttl` is None where they do not expire."""

    name: str
    kind: str
    entities: tuple[str, ...]
    keys: tuple[FeastField, ...]
    fields: tuple[FeastField, ...]
    ttl: timedelta | None
    source: FeastSource | None
    stream: FeastSource | None
    online: bool = True
    enabled: bool = True
    views: tuple[str, ...] = ()
    aggregations: int = 0
    code: str = ""
    more: tuple[str, ...] = ()
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Projection:
    """The part of a view that a service or an on-demand view reads; no features means all of them."""

    view: str
    alias: str = ""
    features: tuple[str, ...] = ()
    join_key_map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeastOnDemand:
    """An on-demand feature view; `code` is its text, which is never run here."""

    name: str
    mode: str
    reads: tuple[Projection, ...]
    inputs: tuple[FeastField, ...]
    fields: tuple[FeastField, ...]
    singleton: bool = False
    code: str = ""
    more: tuple[str, ...] = ()
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeastService:
    """A feature service."""

    name: str
    projections: tuple[Projection, ...]
    more: tuple[str, ...] = ()
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Description:
    """A whole repository, each kind in the order of its names. `told_by` is "files" or "registry"."""

    feast: str
    project: str
    told_by: str
    online_store: str
    entities: tuple[FeastEntity, ...]
    views: tuple[FeastView, ...]
    on_demand: tuple[FeastOnDemand, ...]
    services: tuple[FeastService, ...]
    others: tuple[tuple[str, str], ...]


def described(told: Mapping[str, Any]) -> Description:
    """The description in this JSON; `SourceError` where it is none."""
    try:
        clean = clean_texts(told)
        return Description(
            feast=clean["feast"],
            project=clean["project"],
            told_by=clean["told_by"],
            online_store=clean["online_store"],
            entities=tuple(_by_name(FeastEntity(**one) for one in clean["entities"])),
            views=tuple(_by_name(_view(one) for one in clean["views"])),
            on_demand=tuple(_by_name(_on_demand(one) for one in clean["on_demand"])),
            services=tuple(_by_name(_service(one) for one in clean["services"])),
            others=tuple(sorted((one["kind"], one["name"]) for one in clean["others"])),
        )
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        message = f"the description of the Feast repository is none: {type(error).__name__}: {error}"
        raise SourceError(message) from error


def _by_name(found: Any) -> Sequence[Any]:  # noqa: ANN401 - objects that have a name
    return sorted(found, key=lambda one: one.name)


def clean_texts(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """The same with texts that UTF-8 can hold: JSON allows half a character, files do not."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {clean_texts(name): clean_texts(one) for name, one in value.items()}
    return [clean_texts(one) for one in value] if isinstance(value, list) else value


def _fields(told: Sequence[Mapping[str, Any]]) -> tuple[FeastField, ...]:
    return tuple(FeastField(**one) for one in told)


def _source(told: Mapping[str, Any] | None) -> FeastSource | None:
    if told is None:
        return None
    lists = {name: tuple(told.get(name, ())) for name in ("wide", "infinite", "more")}
    return FeastSource(**{**told, **lists})


def _view(told: Mapping[str, Any]) -> FeastView:
    seconds = told["ttl"]
    whole = {
        "entities": tuple(told["entities"]),
        "keys": _fields(told["keys"]),
        "fields": _fields(told["fields"]),
        # Feast writes 0 for values that never expire.
        "ttl": max(timedelta(seconds=seconds or 0), timedelta(0)) or None,
        "source": _source(told["source"]),
        "stream": _source(told["stream"]),
        "views": tuple(told["views"]),
        "more": tuple(told.get("more", ())),
    }
    return FeastView(**{**told, **whole})


def _projections(told: Sequence[Mapping[str, Any]]) -> tuple[Projection, ...]:
    return tuple(Projection(**{**one, "features": tuple(one["features"])}) for one in told)


def _on_demand(told: Mapping[str, Any]) -> FeastOnDemand:
    parts = {"reads": _projections(told["reads"]), "more": tuple(told.get("more", ()))}
    return FeastOnDemand(**{**told, **parts, "inputs": _fields(told["inputs"]), "fields": _fields(told["fields"])})


def _service(told: Mapping[str, Any]) -> FeastService:
    parts = {"projections": _projections(told["projections"]), "more": tuple(told.get("more", ()))}
    return FeastService(**{**told, **parts})
