"""What has to be read and computed for a list of feature references, and where each one's answer then is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from lodestore.catalog import Catalog
from lodestore.errors import RequestError, nearest
from lodestore.online import Key, encode_keys, encode_texts, encode_values
from lodestore.releases import Release
from lodestore.spaces import namespace, prefix, slot_key
from lodestore.spec import FeatureRef, FeatureView, Kind, OnDemandView

__all__ = ["Alone", "Group", "Plan", "Vectors", "encoded_keys", "keys_of", "plan_of", "refuse_foreign"]

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Group:
    """Features that one read of one view answers; `wanted` names each one's column, and the feature."""

    view: FeatureView
    namespace: str
    wanted: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Vectors:
    """An embedding feature to read: where its values of the live version are, and those of all versions."""

    view: FeatureView
    feature: str
    key: str
    namespace: str | None
    prefix: str


class Alone(NamedTuple):
    """All that a list of references of one view with one join key asks for; `wanted` as in a group."""

    view: FeatureView
    namespace: str
    wanted: tuple[tuple[str, str], ...]
    key: str
    texts: bool

    def keys(self, entities: Mapping[str, Sequence[Any]]) -> list[bytes] | None:
        """The encoded keys, where the entities are this key's column and nothing unusual; otherwise None."""
        if type(entities) is dict and len(entities) == 1:
            values = entities.get(self.key)
            if type(values) is list and values:
                if self.texts:
                    return encode_texts(values)
                if {*map(type, values)} == {int}:
                    return encode_values(values)
        return None


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be read and computed for a list of references, and where each one's answer then is.

    `whole_keys` are those that every view which is read has as whole numbers.
    """

    outputs: tuple[tuple[str, str], ...]
    groups: tuple[Group, ...]
    vectors: tuple[Vectors, ...]
    on_demand: tuple[OnDemandView, ...]
    reads: Mapping[FeatureRef, str]
    clocks: tuple[tuple[str, int], ...]
    wide: frozenset[str]
    known_keys: frozenset[str]
    known_inputs: frozenset[str]
    whole_keys: frozenset[str]
    alone: Alone | None = None


def plan_of(catalog: Catalog, refs: Sequence[str | FeatureRef], release: Release) -> Plan:
    """What these references ask for, by the release that answers; a name that nothing declares is an error."""
    wanted = [one if isinstance(one, FeatureRef) else FeatureRef.parse(one) for one in refs]
    if not wanted:
        message = "no features were asked for; name some as VIEW:FEATURE"
        raise RequestError(message)
    live = release.views
    for ref in wanted:
        catalog.check(ref)
    stored = [ref for ref in wanted if ref.view not in catalog.on_demand]
    made = {ref.view: catalog.on_demand[ref.view] for ref in wanted if ref.view in catalog.on_demand}
    reads = [ref for view in made.values() for ref in view.reads]
    views = {ref: catalog.served(ref, live) for ref in (*stored, *reads)}
    keys = {ref: f"{view.namespace}:{ref.feature}" for ref, view in views.items()}
    outputs = [(str(ref), keys.get(ref, f"{ref.view}:{ref.feature}")) for ref in wanted]
    wide = [str(ref) for ref in wanted if (made.get(ref.view) or views[ref]).features[ref.feature].wide]
    groups, vectors = _groups(views), _vectors(views, release.embeddings)
    clocks = _clocks(views.values())
    known_keys = frozenset(key for view in catalog.views.values() for key in view.entity.keys)
    # A context gives its question to every read, whether a view asks for it or not.
    known_inputs = frozenset(["query_text", *(name for view in catalog.on_demand.values() for name in view.inputs)])
    return Plan(
        tuple(outputs), groups, vectors, tuple(made.values()), keys, clocks, frozenset(wide),
        known_keys, known_inputs, _whole_keys(views.values()), None if vectors or made else _alone(groups, wanted),
    )  # fmt: skip


def _whole_keys(views: Iterable[FeatureView]) -> frozenset[str]:
    """The keys that are whole numbers in all of these views that have them."""
    keys = [pair for view in views for pair in zip(view.entity.keys, view.entity.types, strict=True)]
    return frozenset(key for key, kind in keys if kind == "integer") - {key for key, kind in keys if kind == "string"}


def _alone(groups: tuple[Group, ...], wanted: Sequence[FeatureRef]) -> Alone | None:
    """What all the references ask for, where it is one view with one key."""
    view = groups[0].view
    if len(groups) > 1 or len(view.entity.keys) > 1:
        return None
    columns = tuple((str(ref), ref.feature) for ref in wanted)
    return Alone(view, groups[0].namespace, columns, view.entity.keys[0], view.entity.types[0] == "string")


def _clocks(views: Iterable[FeatureView]) -> tuple[tuple[str, int], ...]:
    """Namespaces that promise to be fresh, with the microseconds that they promise."""
    promised = {one.namespace: one.fresh_within for one in views if one.fresh_within is not None}
    return tuple((place, limit // _MICROSECOND) for place, limit in promised.items())


def _groups(views: Mapping[FeatureRef, FeatureView]) -> tuple[Group, ...]:
    grouped: dict[str, tuple[FeatureView, dict[str, None]]] = {}
    for ref, view in views.items():
        if view.features[ref.feature].kind is not Kind.EMBEDDING:
            grouped.setdefault(view.namespace, (view, {}))[1][ref.feature] = None
    return tuple(
        Group(view, place, tuple((f"{place}:{name}", name) for name in names))
        for place, (view, names) in grouped.items()
    )


def _vectors(views: Mapping[FeatureRef, FeatureView], live: Mapping[str, str]) -> tuple[Vectors, ...]:
    out: dict[str, Vectors] = {}
    for ref, view in views.items():
        feature = view.features[ref.feature]
        if feature.kind is Kind.EMBEDDING:
            key, version = f"{view.namespace}:{ref.feature}", slot_key(feature, live)
            place = None if version is None else namespace(view, ref.feature, version)
            out[key] = Vectors(view, ref.feature, key, place, prefix(view, ref.feature))
    return tuple(out.values())


def refuse_foreign(plan: Plan, entities: Iterable[str], inputs: Iterable[str]) -> None:
    """A name that no view of the catalog has is a slip; one that another view has may come along."""
    for word, names, known in (("key", entities, plan.known_keys), ("request input", inputs, plan.known_inputs)):
        for name in names:
            if name not in known:
                message = f"no view has the {word} {name!r}{nearest(name, known)}"
                raise RequestError(message)


def keys_of(view: FeatureView, entities: Mapping[str, Sequence[Any]]) -> list[Key]:
    """The keys of the rows that are asked for; a column that is missing or of another type is a `RequestError`."""
    keys, types = view.entity.keys, view.entity.types
    columns = [_key_column(view, keys[at], types[at], entities) for at in range(len(keys))]
    return list(zip(*columns, strict=True))


def encoded_keys(view: FeatureView, entities: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """The same keys as an online store has them."""
    return encode_keys(keys_of(view, entities))


def _key_column(view: FeatureView, key: str, kind: str, entities: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    values = entities.get(key)
    if values is None:
        given = ", ".join(map(repr, entities)) or "none"
        message = f"{view.name} needs the key {key!r}; the keys that were given: {given}"
        raise RequestError(message)
    wanted = str if kind == "string" else int
    for one in values:
        if type(one) is not wanted:
            _refuse_keys(view, key, kind, values)
            break
    return values


def _refuse_keys(view: FeatureView, key: str, kind: str, values: Sequence[object]) -> None:
    """Subclasses of the wanted type pass; anything else is an error that names the first."""
    wanted = str if kind == "string" else int
    for value in values:
        if not isinstance(value, wanted) or isinstance(value, bool):
            message = f"key {key} is {value!r}, a {type(value).__name__}; {view.entity.name} is keyed by {kind}"
            raise RequestError(message)
