"""What is declared: entities, features, feature views, services. Frozen values, no I/O, no heavy import."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

from lodestore.errors import DeclarationError, UnknownFeatureError, nearest

__all__ = [
    "Entity",
    "Feature",
    "FeatureRef",
    "FeatureService",
    "FeatureView",
    "Kind",
    "OnDemandView",
    "Source",
    "boolean",
    "category",
    "checked_name",
    "embedding",
    "integer",
    "is_owner",
    "list_of",
    "number",
    "on_demand",
    "prompt",
    "struct",
    "text",
    "timestamp",
]

_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
_OWNER = re.compile(r"team:[\w.-]+|[^@\s]+@[^@\s]+\.[^@\s]+")
# Columns that every history has beside its keys and features.
_RESERVED = frozenset({"event_timestamp", "created_timestamp", "event_id", "ingested_at"})

type_names = ("string", "integer")
KeyType = Literal["string", "integer"]
MadeFrom = Literal["", "document", "question", "questions"]


def checked_name(name: str, what: str) -> str:
    """Return `name` when it can be part of a table's name; otherwise say what is wrong with it.

    >>> checked_name("user_profile", "feature view")
    'user_profile'
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "__" in name:
        message = (
            f"{what} {name!r}: a name has small letters, digits and single underscores, "
            "and starts with a letter or a digit"
        )
        raise DeclarationError(message)
    return name


class Kind(enum.StrEnum):
    """What values a feature has."""

    CATEGORY = "category"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"
    TIMESTAMP = "timestamp"
    STRUCT = "struct"
    LIST = "list"
    EMBEDDING = "embedding"
    PROMPT = "prompt"


class Source(enum.StrEnum):
    """Where a view's values come from."""

    BATCH = "batch"
    STREAMING = "streaming"
    ON_DEMAND = "on_demand"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Feature:
    """One typed value of an entity. The view that holds it gives it its name."""

    kind: Kind
    name: str = ""
    doc: str = ""
    pii: bool = False
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()
    max_length: int | None = None
    schema: Mapping[str, Any] | None = None
    item: Feature | None = None
    space: str | None = None
    wide: bool = False
    made_from: str = ""

    def __post_init__(self) -> None:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            message = f"{self.kind}: minimum {self.minimum} lies above maximum {self.maximum}; swap them"
            raise DeclarationError(message)
        if any(one is not None and not math.isfinite(one) for one in (self.minimum, self.maximum)):
            message = (
                f"{self.kind}: bounds {self.minimum}, {self.maximum}: leave out a bound that is not a finite number"
            )
            raise DeclarationError(message)
        if self.max_length is not None and self.max_length < 1:
            message = f"{self.kind}: max_length {self.max_length} is below 1; leave it out for no limit"
            raise DeclarationError(message)

    def without_prose(self) -> Feature:
        """The same feature as far as stored values are concerned."""
        return replace(self, doc="", pii=False)


def category(*categories: str, doc: str = "", pii: bool = False) -> Feature:
    """One of the named values."""
    if not all(isinstance(one, str) for one in categories):
        message = f"category{categories!r}: categories are texts, each an argument of its own: category('a', 'b')"
        raise DeclarationError(message)
    if not categories or len(set(categories)) != len(categories):
        message = f"category{categories!r}: give one or more different values"
        raise DeclarationError(message)
    return Feature(Kind.CATEGORY, doc=doc, pii=pii, categories=tuple(categories))


def integer(
    *, minimum: int | None = None, maximum: int | None = None, doc: str = "", pii: bool = False, wide: bool = False
) -> Feature:
    """A whole number of 64 bits; beyond 2^53 - 1 only when `wide`, then a string on the wire."""
    return Feature(Kind.INTEGER, doc=doc, pii=pii, minimum=minimum, maximum=maximum, wide=wide)


def number(*, minimum: float | None = None, maximum: float | None = None, doc: str = "", pii: bool = False) -> Feature:
    """A finite number of double precision."""
    return Feature(Kind.NUMBER, doc=doc, pii=pii, minimum=minimum, maximum=maximum)


def boolean(*, doc: str = "", pii: bool = False) -> Feature:
    """True or false."""
    return Feature(Kind.BOOLEAN, doc=doc, pii=pii)


def text(*, max_length: int | None = None, doc: str = "", pii: bool = False) -> Feature:
    """Text; `max_length` counts characters."""
    return Feature(Kind.TEXT, doc=doc, pii=pii, max_length=max_length)


def timestamp(*, doc: str = "", pii: bool = False) -> Feature:
    """A moment, with its zone; stored in UTC to the microsecond."""
    return Feature(Kind.TIMESTAMP, doc=doc, pii=pii)


def struct(schema: Mapping[str, Any] | None = None, *, doc: str = "", pii: bool = False) -> Feature:
    """A JSON object; `schema` is a JSON Schema that each value has to satisfy."""
    return Feature(Kind.STRUCT, doc=doc, pii=pii, schema=MappingProxyType(dict(schema)) if schema else None)


def list_of(item: Feature, *, max_length: int | None = None, doc: str = "", pii: bool = False) -> Feature:
    """A list whose items all fit `item`; `max_length` counts items."""
    if item.kind in {Kind.LIST, Kind.STRUCT, Kind.EMBEDDING}:
        message = f"list_of({item.kind}): items are plain values; use struct() for anything deeper"
        raise DeclarationError(message)
    return Feature(Kind.LIST, doc=doc, pii=pii, item=item, max_length=max_length)


def embedding(space: str, *, made_from: MadeFrom = "", doc: str = "", pii: bool = False) -> Feature:
    """A vector in the space of the embedding feature `space`; its length is that of the live version.

    `made_from` says where values come from: "document" is the normalised mean of the document's rows in
    the version's table, "question" the last recorded question of a user, "questions" the mean of all of
    them, recent ones counting more. Without it, rows bring the vector with the version that made it.
    """
    if made_from not in {"", "document", "question", "questions"}:
        message = f"embedding({space!r}): made_from {made_from!r} is none of document, question, questions"
        raise DeclarationError(message)
    return Feature(Kind.EMBEDDING, doc=doc, pii=pii, space=checked_name(space, "embedding space"), made_from=made_from)


def prompt(*, doc: str = "") -> Feature:
    """The text of a prompt template."""
    return Feature(Kind.PROMPT, doc=doc)


@dataclass(frozen=True, slots=True, init=False)
class Entity:
    """What features are about, and the join key (or keys) that tells one from another."""

    name: str
    keys: tuple[str, ...]
    types: tuple[KeyType, ...]
    doc: str = ""

    def __init__(
        self,
        name: str,
        key: str | tuple[str, ...] = (),
        *,
        type: KeyType | tuple[KeyType, ...] = "string",  # noqa: A002 - the word users expect
        doc: str = "",
    ) -> None:
        checked_name(name, "entity")
        keys = (key,) if isinstance(key, str) else tuple(key)
        keys = keys or (f"{name}_id",)
        types = (type,) * len(keys) if isinstance(type, str) else tuple(type)
        for one in keys:
            checked_name(one, f"entity {name!r}: key")
        if len(set(keys)) != len(keys) or _RESERVED & set(keys):
            message = f"entity {name!r}: keys {', '.join(keys)}: give different names, none of {sorted(_RESERVED)}"
            raise DeclarationError(message)
        if len(types) != len(keys) or any(one not in type_names for one in types):
            message = f"entity {name!r}: {len(keys)} keys need as many types out of {type_names}, got {types}"
            raise DeclarationError(message)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "keys", keys)
        object.__setattr__(self, "types", types)
        object.__setattr__(self, "doc", doc)

    @property
    def key(self) -> str:
        """The only key of an entity that has one."""
        if len(self.keys) != 1:
            message = f"entity {self.name!r} has the keys {', '.join(self.keys)}; name one"
            raise DeclarationError(message)
        return self.keys[0]


@dataclass(frozen=True, slots=True)
class FeatureRef:
    """`view:feature`, or `view@2:feature` where a version is pinned."""

    view: str
    feature: str
    version: int | None = None

    def __str__(self) -> str:
        pin = "" if self.version is None else f"@{self.version}"
        return f"{self.view}{pin}:{self.feature}"

    @classmethod
    def parse(cls, text: str) -> FeatureRef:
        """Read `view:feature`.

        >>> FeatureRef.parse("user_profile@2:expertise_level")
        FeatureRef(view='user_profile', feature='expertise_level', version=2)
        """
        return _parsed(text if isinstance(text, str) else repr(text))


@lru_cache(maxsize=4_096)
def _parsed(text: str) -> FeatureRef:
    match = re.fullmatch(r"([a-z0-9_]+)(?:@(\d{1,9}))?:([a-z0-9_]+)", text)
    if match is None:
        message = f"feature {text!r}: write VIEW:FEATURE, or VIEW@VERSION:FEATURE"
        raise DeclarationError(message)
    view, version, feature = match.groups()
    return FeatureRef(view, feature, int(version) if version else None)


def _named(view: str, features: Mapping[str, object], taken: Iterable[str]) -> Mapping[str, Feature]:
    if not features:
        message = f"feature view {view!r} has no features"
        raise DeclarationError(message)
    out = {}
    for name, feature in features.items():
        checked_name(name, f"{view}: feature")
        if name in taken or name in _RESERVED:
            message = f"{view}: feature {name!r} has the name of a key or of a reserved column"
            raise DeclarationError(message)
        if not isinstance(feature, Feature):
            message = f"{view}: feature {name!r} is {type(feature).__name__}; write integer(), text(), category(...)"
            raise DeclarationError(message)
        out[name] = replace(feature, name=name)
    return MappingProxyType(out)


def _unknown(view: str, feature: str, features: Iterable[str]) -> UnknownFeatureError:
    return UnknownFeatureError(f"{view}:{feature}", [f"{view}:{one}" for one in features])


def is_owner(text: str) -> bool:
    """Whether the text is an owner as views have them: team:NAME, or a mail address."""
    return _OWNER.fullmatch(text) is not None


def _checked_view(name: str, version: object, owner: str | None, clocks: Mapping[str, timedelta | None]) -> None:
    checked_name(name, "feature view")
    if not isinstance(version, int) or version < 1:
        message = f"feature view {name!r}: version {version!r} is not a whole number from 1 on"
        raise DeclarationError(message)
    if owner is not None and not is_owner(owner):
        message = f"feature view {name!r}: owner {owner!r} is neither team:NAME nor a mail address"
        raise DeclarationError(message)
    for word, span in clocks.items():
        if span is not None and span <= timedelta(0):
            message = f"feature view {name!r}: {word} {span} is not a positive time"
            raise DeclarationError(message)


def _source(name: str, source: Source | str) -> Source:
    try:
        return Source(source)
    except ValueError:
        message = f"feature view {name!r}: source {source!r}{nearest(str(source), map(str, Source))}"
        raise DeclarationError(message) from None


@dataclass(frozen=True, slots=True, init=False)
class FeatureView:
    """A group of features of one entity that are computed, stored and expire together.

    `compute` makes all rows of the view from other tables; `derive` gives values to one offered row that
    follow from its others, before the row is checked.
    """

    name: str
    entity: Entity
    features: Mapping[str, Feature]
    version: int
    owner: str | None
    source: Source
    ttl: timedelta | None
    fresh_within: timedelta | None
    upstream: tuple[str, ...]
    compute: Callable[..., Any] | None
    derive: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None
    doc: str
    embeddings: tuple[Feature, ...] = field(init=False, repr=False, compare=False)
    """The features whose values are vectors; they live in their own tables, by model version."""
    stored: tuple[Feature, ...] = field(init=False, repr=False, compare=False)
    """The features that the offline table has as columns: all but the embeddings."""
    namespace: str = field(init=False, repr=False, compare=False)
    """Where an online store has the view's rows: its name and version, such as `user_profile@1`."""

    def __init__(
        self,
        name: str,
        *,
        entity: Entity,
        features: Mapping[str, Feature],
        version: int = 1,
        owner: str | None = None,
        source: Source | str = Source.BATCH,
        ttl: timedelta | None = None,
        fresh_within: timedelta | None = None,
        upstream: Iterable[str] = (),
        compute: Callable[..., Any] | None = None,
        derive: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
        doc: str = "",
    ) -> None:
        _checked_view(name, version, owner, {"ttl": ttl, "fresh_within": fresh_within})
        if isinstance(upstream, str):
            message = f"feature view {name!r}: upstream is one text; write upstream=({upstream!r},)"
            raise DeclarationError(message)
        known = _named(name, features, entity.keys)
        values = {
            "name": name,
            "entity": entity,
            "features": known,
            "version": version,
            "owner": owner,
            "source": _source(name, source),
            "ttl": ttl,
            "fresh_within": fresh_within or ttl,
            "upstream": tuple(upstream),
            "compute": compute,
            "derive": derive,
            "doc": doc,
            "embeddings": tuple(one for one in known.values() if one.kind is Kind.EMBEDDING),
            "stored": tuple(one for one in known.values() if one.kind is not Kind.EMBEDDING),
            "namespace": f"{name}@{version}",
        }
        for word, value in values.items():
            object.__setattr__(self, word, value)

    def __getitem__(self, feature: str) -> FeatureRef:
        """A reference to one feature; an unknown name is an error that names the nearest."""
        self.feature(feature)
        return FeatureRef(self.name, feature)

    def feature(self, name: str) -> Feature:
        """The feature of that name."""
        try:
            return self.features[name]
        except KeyError:
            raise _unknown(self.name, name, self.features) from None


@dataclass(frozen=True, slots=True)
class OnDemandView:
    """Features that are computed when they are asked for, from other features and request inputs."""

    name: str
    reads: tuple[FeatureRef, ...]
    inputs: Mapping[str, Feature]
    features: Mapping[str, Feature]
    function: Callable[..., Mapping[str, object]]
    version: int = 1
    owner: str | None = None
    doc: str = ""

    def __call__(self, *args: object, **kwargs: object) -> Mapping[str, object]:
        """Call the plain function."""
        return self.function(*args, **kwargs)

    def __getitem__(self, feature: str) -> FeatureRef:
        """A reference to one feature; an unknown name is an error that names the nearest."""
        if feature not in self.features:
            raise _unknown(self.name, feature, self.features)
        return FeatureRef(self.name, feature)


def _checked_parameters(name: str, function: Callable[..., object], expected: Sequence[str]) -> None:
    twice = sorted({one for one in expected if expected.count(one) > 1})
    if twice:
        message = f"on-demand view {name!r} reads {', '.join(twice)} twice; its parameters need different names"
        raise DeclarationError(message)
    code = function.__code__
    actual = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    if set(expected) != actual:
        message = f"on-demand view {name!r} takes {sorted(actual)}, but declares {sorted(expected)}"
        raise DeclarationError(message)


def on_demand(
    *,
    reads: Iterable[FeatureRef] = (),
    inputs: Mapping[str, Feature] | None = None,
    features: Mapping[str, Feature],
    version: int = 1,
    owner: str | None = None,
) -> Callable[[Callable[..., Mapping[str, object]]], OnDemandView]:
    """Turn a function into an on-demand view of the same name.

    Its parameters are the names of the features that it reads and of its request inputs; it
    returns one value for each of `features`.
    """

    def wrap(function: Callable[..., Mapping[str, object]]) -> OnDemandView:
        name = checked_name(function.__name__, "on-demand view")
        wanted = tuple(reads)
        given = _named(name, inputs, ()) if inputs else MappingProxyType({})
        expected = [*(ref.feature for ref in wanted), *given]
        _checked_parameters(name, function, expected)
        return OnDemandView(
            name,
            wanted,
            given,
            _named(name, features, expected),
            function,
            version,
            owner,
            (function.__doc__ or "").strip(),
        )

    return wrap


@dataclass(frozen=True, slots=True, init=False)
class FeatureService:
    """A named list of features that one application reads together."""

    name: str
    features: tuple[FeatureRef, ...]
    version: int = 1
    owner: str | None = None
    doc: str = field(default="")

    def __init__(
        self,
        name: str,
        features: Iterable[FeatureRef | FeatureView | OnDemandView | str],
        *,
        version: int = 1,
        owner: str | None = None,
        doc: str = "",
    ) -> None:
        refs: list[FeatureRef] = []
        for one in features:
            if isinstance(one, FeatureRef | str):
                refs.append(FeatureRef.parse(one) if isinstance(one, str) else one)
            else:
                refs.extend(one[name] for name in one.features)
        object.__setattr__(self, "name", checked_name(name, "feature service"))
        object.__setattr__(self, "features", tuple(dict.fromkeys(refs)))
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "owner", owner)
        object.__setattr__(self, "doc", doc)
