"""Entities and feature views of a Feast repository as declarations, with a line about each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lodestore.catalog import RESERVED, TAKEN
from lodestore.events import EventSource
from lodestore.feast import sources
from lodestore.feast.description import Description, FeastEntity, FeastField, FeastView
from lodestore.feast.kinds import Left, feature_of, key_type, type_in_file
from lodestore.feast.names import Names
from lodestore.feast.report import Outcome, Remark
from lodestore.spec import Entity, Feature, FeatureView, KeyType, Source, is_owner
from lodestore.wire import span

__all__ = ["Origin", "Views", "features_told", "owner_of"]

_COLUMNS = ("event_timestamp", "created_timestamp", "event_id", "ingested_at")
_STREAMS = frozenset({"PushSource", "KafkaSource", "KinesisSource"})


@dataclass(frozen=True, slots=True)
class Origin:
    """What a view is called in Feast, and its keys and features, by their names here."""

    view: str
    feast: str
    keys: Mapping[str, str]
    features: Mapping[str, str]


def features_told(count: int) -> str:
    """The number in words."""
    return "1 feature" if count == 1 else f"{count} features"


def owner_of(owner: str) -> str | None:
    """The owner as it is allowed here: a mail address, or team:NAME.

    >>> owner_of("ann@example.com"), owner_of("Growth Team"), owner_of("")
    ('ann@example.com', 'team:growth-team', None)
    """
    if not owner or is_owner(owner):
        return owner or None
    return f"team:{re.sub(r'[^a-z0-9]+', '-', owner.lower()).strip('-') or 'unknown'}"


@dataclass
class Views:
    """The entities and views that came over so far, by their names in Feast."""

    description: Description
    repository: Path
    root: Path
    prefix: str
    remarks: list[Remark] = field(default_factory=list)
    entities: dict[str, Entity] = field(default_factory=dict)
    views: dict[str, FeatureView] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    events: list[EventSource] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.known = {one.name: one for one in self.description.entities}
        views = [one.name for one in self.description.views] + [one.name for one in self.description.on_demand]
        self.entity_names = Names(prefix=self.prefix, suffix="entity", known=self.known)
        self.view_names = Names(prefix=self.prefix, suffix="view", reserved=TAKEN | RESERVED, known=views)
        joined = sorted({one.join_key for one in self.description.entities})
        names = Names(reserved=_COLUMNS, suffix="key", known=joined)
        self.keys = {one: names.take(one) for one in joined}
        self.types = {one.name: self._key_type(one) for one in self.description.entities}

    def say(self, kind: str, name: str, outcome: Outcome, what: str, mend: str = "") -> None:
        """The line is in the report."""
        self.remarks.append(Remark(kind, name, outcome, what, mend))

    def _key_type(self, entity: FeastEntity) -> KeyType | None:
        found = [_type_in(view, entity) for view in self.description.views if entity.name in view.entities]
        return next((one for one in found if one is not None), None)

    # Entities

    def entity(self, one: FeastEntity) -> None:
        """The entity is declared, or it is said why not."""
        kind = self.types[one.name] or key_type(one.value_type, None)
        if kind is None:
            mend = "write the key as text or whole numbers, in the files and in what asks for it"
            self.say("entity", one.name, "left", f"its key {one.join_key} is {one.value_type}", mend)
            return
        name, key = self.entity_names.take(one.name), self.keys[one.join_key]
        self.types[one.name] = kind
        self.entities[one.name] = Entity(name, key, type=kind, doc=one.description)
        self.say("entity", one.name, "carried", f"Entity {name}, key {key} ({kind})")
        self._renamed("entity", one.name, name, one.name)
        self._renamed("entity", one.name, key, one.join_key, what="key")
        self._kept_words("entity", one.name, one.tags, one.owner)

    def _renamed(self, kind: str, subject: str, ours: str, theirs: str, *, what: str = "name") -> None:
        if ours != theirs:
            self.say(kind, subject, "different", f"the {what} {theirs!r} becomes {ours}", "ask for it by the new one")

    def _kept_words(self, kind: str, name: str, tags: Mapping[str, str], owner: str = "") -> None:
        if tags:
            told = ", ".join(f"{tag}={value}" for tag, value in sorted(tags.items()))
            self.say(kind, name, "left", f"tags: {told}", "note what matters in doc=")
        if owner:
            self.say(kind, name, "left", f"owner {owner}: only views and services have owners")

    def _said_more(self, kind: str, name: str, more: Iterable[str]) -> None:
        if more:
            self.say(kind, name, "left", f"settings without a counterpart: {', '.join(more)}")

    def _entity_of(self, view: FeastView) -> Entity | None:
        """The view's entity; several of Feast's are one with several keys."""
        missing = [name for name in view.entities if name not in self.entities]
        if missing or not view.entities:
            mend = "write a column with the same key in every row, and declare an entity with that key"
            if missing:
                mend = f"mend the entity {missing[0]} first"
            what = f"its entity {missing[0]} did not come over" if missing else "it has no entity"
            self.say("feature view", view.name, "left", what, mend)
            return None
        if len(view.entities) == 1:
            return self.entities[view.entities[0]]
        parts = sorted(view.entities)
        label = "\0".join(parts)
        if label not in self.entities:
            members = [self.entities[name] for name in parts]
            if len({one.key for one in members}) != len(members):
                mend = "give the keys different names, in the files and in Feast"
                self.say("feature view", view.name, "left", f"two of its keys are {members[0].key} here", mend)
                return None
            name = self.entity_names.take("_".join(parts))
            keys, types = [one.key for one in members], [one.types[0] for one in members]
            self.entities[label] = Entity(name, tuple(keys), type=tuple(types))
            self.say("entity", " + ".join(parts), "different", f"one Entity {name} with the keys {', '.join(keys)}")
        return self.entities[label]

    # Views

    def view(self, one: FeastView) -> None:
        """The view is declared and its file is among the events, or it is said why not."""
        entity = self._entity_of(one)
        if entity is None:
            return
        theirs = [self.known[name].join_key for name in sorted(one.entities)]
        wrong = [name for name in one.entities if _type_in(one, self.known[name]) not in {None, self.types[name]}]
        if wrong or _unreadable_key(one, theirs):
            mend = "write the key in the type that it has in the other files: text or whole numbers"
            self.say("feature view", one.name, "left", f"the key of {(wrong or theirs)[0]} has another type", mend)
            return
        name = self.view_names.take(one.name)
        features, origin = self._features(one, entity, dict(zip(entity.keys, theirs, strict=True)), name)
        if not features:
            self.say(
                "feature view", one.name, "left", "none of its features came over", "see the lines of its features"
            )
            return
        streams = one.stream is not None and one.stream.kind in _STREAMS
        self.views[one.name] = FeatureView(
            name,
            entity=entity,
            features=features,
            owner=owner_of(one.owner),
            source=Source.STREAMING if streams else self._source_of(one),
            ttl=one.ttl,
            doc=one.description,
        )
        self.origins[name] = origin
        self._tell_view(one, name, len(features))
        self._read(one, name, origin)

    def _source_of(self, one: FeastView) -> Source:
        outside = one.source is not None and one.source.kind != "FileSource"
        return Source.EXTERNAL if outside else Source.BATCH

    def _features(
        self, one: FeastView, entity: Entity, keys: Mapping[str, str], name: str
    ) -> tuple[dict[str, Feature], Origin]:
        fields = self._fields(one, keys.values())
        names = Names(reserved={*entity.keys, *_COLUMNS}, known=[each.name for each in fields])
        taken = {sources.physical(one.source, key) for key in keys.values()}
        features: dict[str, Feature] = {}
        origins: dict[str, str] = {}
        for each in fields:
            label, column = f"{one.name}:{each.name}", sources.physical(one.source, each.name)
            made = feature_of(each, one.source, column)
            if column in taken:
                made = Left(f"the column {column!r} is a key or another feature already", "take it out of the schema")
            if isinstance(made, Left):
                self.say("feature", label, "left", made.why, made.mend)
                continue
            ours = names.take(each.name)
            taken.add(column)
            features[ours], origins[ours] = made.feature, each.name
            self._renamed("feature", label, ours, each.name)
            for note in made.notes:
                self.say("feature", label, "different", note)
        return features, Origin(name, one.name, dict(keys), origins)

    def _fields(self, one: FeastView, keys: Iterable[str]) -> list[FeastField]:
        """The fields of the schema; without one, every column of the file that is no key and no time, as Feast does it."""
        if one.fields or one.source is None or one.source.columns is None:
            return [each for each in one.fields if each.name not in set(keys)]
        told = dict(one.source.field_mapping)
        passed = {sources.physical(one.source, key) for key in keys} | set(sources.times_of(one.source))
        columns = {name: type_in_file(kind) for name, kind in one.source.columns.items() if name not in passed}
        return [FeastField(told.get(name, name), kind or one.source.columns[name]) for name, kind in columns.items()]

    def _tell_view(self, one: FeastView, name: str, features: int) -> None:
        lasting = "no ttl" if one.ttl is None else f"ttl {span(one.ttl)}"
        self.say("feature view", one.name, "carried", f"FeatureView {name}, {features_told(features)}, {lasting}")
        self._renamed("feature view", one.name, name, one.name)
        owner = owner_of(one.owner)
        if owner != (one.owner or None):
            self.say("feature view", one.name, "different", f"owner {one.owner!r} becomes {owner}")
        if one.ttl is not None:
            what = "the ttl also holds online: an older value is EXPIRED and null, where Feast goes on answering it"
            self.say("feature view", one.name, "different", what, "leave ttl out of the declaration if that is wanted")
        if not one.online:
            self.say("feature view", one.name, "different", "online=False: here every view is published online")
        if not one.enabled:
            self.say("feature view", one.name, "different", "enabled=False: here a declared view is in use")
        self._kept_words("feature view", one.name, one.tags)
        self._said_more("feature view", one.name, one.more)
        if one.stream is not None and one.stream.kind in _STREAMS:
            self._tell_stream(one, name)

    def _tell_stream(self, one: FeastView, name: str) -> None:
        stream = one.stream
        if stream is None or stream.kind == "PushSource":
            self.say("feature view", one.name, "different", "pushed rows: call push() of Lodestore instead of Feast's")
            return
        mend = f"have the consumer send its rows to POST /v1/push?view={name}"
        self.say("source", stream.name, "left", f"{stream.kind}: streams are not consumed here", mend)

    def _read(self, one: FeastView, name: str, origin: Origin) -> None:
        """The rows of the view's file are named in `[[events]]`, or it is said why not."""
        problem = sources.unread(one, name)
        source = one.source
        for each in (source, one.stream):
            if each is not None:
                self._said_more("source", each.name or one.name, each.more)
        if problem is not None or source is None:
            subject = one.name if source is None else source.name or one.name
            self.say("source", subject, "left", problem.why if problem else "", problem.mend if problem else "")
            return
        used = {ours: sources.physical(source, theirs) for ours, theirs in {**origin.keys, **origin.features}.items()}
        made = sources.event_source(name, source, used, repository=self.repository, root=self.root)
        self.events.append(made)
        self.say("source", source.name or one.name, "carried", f"{source.path} is read as the events of {name}")
        for note in _differences(made, source.columns or {}):
            self.say("source", source.name or one.name, "different", note)


def _type_in(view: FeastView, entity: FeastEntity) -> KeyType | None:
    """The type that the view's file gives the entity's key; None where that is not known or none that a key can have."""
    columns = {} if view.source is None else view.source.columns or {}
    found = columns.get(sources.physical(view.source, entity.join_key))
    return None if found is None else key_type("", found)


def _unreadable_key(view: FeastView, keys: Iterable[str]) -> bool:
    columns = None if view.source is None else view.source.columns
    if not columns:
        return False
    return any(key_type("", columns.get(sources.physical(view.source, key), "")) is None for key in keys)


def _differences(made: EventSource, columns: Mapping[str, str]) -> Iterable[str]:
    if made.columns:
        yield "columns are read under other names: " + ", ".join(f"{b} as {a}" for a, b in made.columns.items())
    if made.ignore:
        yield f"columns that no feature has are not read: {', '.join(made.ignore)}"
    if made.zone:
        yield f"times without a zone are read as {made.zone}, as Feast does"
    if any(kind.startswith("timestamp[ns") for kind in columns.values()):
        yield "times count to the microsecond, not to the nanosecond"
