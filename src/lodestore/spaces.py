"""Embedding features: vectors as values of an entity, each kept with the model version that made it.

A vector without its version is a wrong vector waiting to happen, so the version is part of the place:
online a namespace (`user_activity@1/last_query_embedding/content__minilm__1__...`), offline a table
(`emb__user_activity_v1_last_query_embedding__content__minilm__1__...`). What `made_from` says decides
where values come from: a document's own rows in the version's table, a user's questions, or pushed
rows that name their version.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.bulk import undisturbed
from lodestore.catalog import Catalog
from lodestore.declarations import complete
from lodestore.errors import UnknownModelError, nearest
from lodestore.events import TextRow
from lodestore.logs import Logs
from lodestore.models import EmbeddingVersion
from lodestore.moments import micros_of, moment_of
from lodestore.online import JournalEntry, Key, OnlineRow, OnlineStore
from lodestore.payloads import decode_payload, encode_columns, encode_payload
from lodestore.ports import Clock, Embedder, OfflineStore
from lodestore.spec import Feature, FeatureView, Kind
from lodestore.tables import MOMENT, in_list, retired
from lodestore.vectors import checked, normalised, norms
from lodestore.wire import digest

__all__ = [
    "FOLLOWED",
    "HALF_LIFE",
    "Gap",
    "Question",
    "Rebuilt",
    "Spaces",
    "Vector",
    "identified",
    "namespace",
    "of_questions",
    "slot_key",
    "spaces_of",
    "value_table",
    "versions_of",
]

HALF_LIFE = timedelta(days=7)
"""After that long a question counts half as much in the mean of a user's questions."""

FOLLOWED = "content"
"""Whose model embeds questions while their own space has no version: the one that answers them."""

_ASKED = ("question", "questions")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Entities whose vectors are held in memory at once, those that are written at once, and texts of one call of a model.
_HELD = 100_000
_WINDOW = 5_000
_TEXTS = 256
_WEIGHT = "weight"
_TEXT = "text"


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector with the version that made it."""

    version: EmbeddingVersion
    values: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What a user asked: its vector, the version that embedded it, and its text where a rebuild should be possible.

    `space` is the one of the features that it is noted for, by default that of its version.
    """

    vector: np.ndarray[Any, Any]
    version: EmbeddingVersion
    text: str | None = None
    space: str | None = None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of one embedding feature online, in one version."""

    view: str
    feature: str
    version: str
    written: int
    removed: int = 0
    embedded: int = 0
    reused: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """What a version has of all the vectors that came with events, and what of the rest it can get.

    `copied` are those that another table of the same fingerprint has, `embedded` those whose texts are
    kept, `lost` those of which neither is there: they stay OTHER_VERSION.
    """

    rows: int = 0
    have: int = 0
    copied: int = 0
    embedded: int = 0
    lost: int = 0
    tokens: int = 0
    bad: int = 0
    doubled: int = 0

    def __add__(self, other: Gap) -> Gap:
        """Both together."""
        return Gap(*(getattr(self, one) + getattr(other, one) for one in self.__slots__))


# Names


def spaces_of(catalog: Catalog) -> frozenset[str]:
    """The spaces of the catalog whose vectors come with events: asked by users, or pushed."""
    features = [one for view in catalog.views.values() for one in view.embeddings]
    return frozenset(one.space for one in features if one.space is not None and one.made_from != "document")


def of_questions(view: FeatureView) -> tuple[str, ...]:
    """The spaces in which a view notes questions."""
    return tuple(dict.fromkeys(one.space or "" for one in of_kind(view, *_ASKED)))


def slot_key(feature: Feature, live: Mapping[str, str]) -> str | None:
    """The partition key of the live version of the feature; questions follow the content until they have their own."""
    own = live.get(feature.space or "")
    return live.get(FOLLOWED) if own is None and feature.made_from in _ASKED else own


def _bound(feature: Feature, version: EmbeddingVersion, own: Collection[str]) -> bool:
    """Whether the version makes the feature's values, where the spaces of `own` have versions of their own."""
    follows = version.feature == FOLLOWED and feature.made_from in _ASKED and feature.space not in own
    return follows or feature.space == version.feature


def prefix(view: FeatureView, feature: str) -> str:
    """What the namespaces of every version of the feature begin with."""
    return f"{view.name}@{view.version}/{feature}/"


def namespace(view: FeatureView, feature: str, key: str) -> str:
    """Where the values of one version are online; `key` is the version's partition key."""
    return prefix(view, feature) + key


def value_table(view: FeatureView, feature: str, key: str) -> str:
    """The history of the values of one version; questions share one, whatever is made from them."""
    return f"emb__{view.name}_v{view.version}_{feature}__{key}"


def value_schema(view: FeatureView, dimension: int) -> pa.Schema:
    """The columns of such a history."""
    keys = zip(view.entity.keys, view.entity.types, strict=True)
    return pa.schema(
        [
            *((key, pa.string() if kind == "string" else pa.int64()) for key, kind in keys),
            *((name, MOMENT) for name in ("event_timestamp", "created_timestamp", "ingested_at")),
            ("event_id", pa.string()),
            (_TEXT, pa.large_string()),
            ("vector", pa.list_(pa.float32(), dimension)),
        ]
    )


def versions_of(logs: Logs) -> dict[str, EmbeddingVersion]:
    """Every registered embedding version, by partition key."""
    names = ("feature", "model", "version", "chunker", "fingerprint", "dimension")
    return {str(row["key"]): EmbeddingVersion(*(row[name] for name in names)) for row in logs.rows("models")}


def of_kind(view: FeatureView, *made_from: str) -> list[Feature]:
    """The view's embedding features that are made so."""
    return [one for one in view.embeddings if one.made_from in made_from]


# Vectors in rows


def identified(view: FeatureView, row: Any) -> Any:  # noqa: ANN401 - a row, or something that is none
    """A row with vectors and without an event id gets one that the vectors are part of."""
    vectors = isinstance(row, Mapping) and any(row.get(one.name) is not None for one in view.embeddings)
    if not vectors or row.get("event_id") is not None:
        return row
    # A row of a file without types stays one: its other values are still to be read from their text.
    return type(row)({**row, "event_id": digest([view.name, row])})


def check_vectors(
    view: FeatureView, rows: Iterable[object], versions: Callable[[], Mapping[str, EmbeddingVersion]] | None
) -> tuple[dict[str, list[tuple[int, Vector]]], dict[int, list[str]]]:
    """The vectors of the rows by feature, each with the place of its row, and what is wrong, by row from 1 on."""
    names = [one.name for one in view.embeddings]
    known: Mapping[str, EmbeddingVersion] | None = None
    found: dict[str, list[tuple[int, Vector]]] = {}
    wrong: dict[int, list[str]] = {}
    for place, row in enumerate(rows):
        values = {name: row[name] for name in names if row.get(name) is not None} if isinstance(row, Mapping) else {}
        for name, value in values.items():
            known = (versions() if versions else {}) if known is None else known
            one = _vector_of(view.features[name], _from_text(row, value), known)
            if isinstance(one, str):
                wrong.setdefault(place + 1, []).append(f"{name}: {one}")
            else:
                found.setdefault(name, []).append((place, one))
    return found, wrong


def _from_text(row: object, value: object) -> object:
    """The value; where its file has no types, what its JSON says."""
    if not isinstance(row, TextRow) or not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _vector_of(feature: Feature, value: object, known: Mapping[str, EmbeddingVersion]) -> Vector | str:
    """The labelled vector, or what is wrong with it."""
    if feature.made_from:
        return f"this vector is made from the {feature.made_from}; leave it out of the row"
    if not isinstance(value, Mapping) or set(value) != {"version", "vector"}:
        return 'a vector names the version that made it: {"version": "minilm@1", "vector": [...]}'
    label = value["version"]
    if not isinstance(label, str):
        return f"the version of a vector is a {type(label).__name__}; write its label, such as minilm@1"
    fitting = [one for one in known.values() if one.feature == feature.space]
    version = next((one for one in fitting if label in {one.label, one.key, one.fingerprint}), None)
    if version is None:
        return f"no version {label!r} of {feature.space}{nearest(str(label), [one.label for one in fitting])}"
    try:
        given = np.asarray(value["vector"])
    except (TypeError, ValueError, OverflowError):
        return "a vector is a list of numbers"
    if given.dtype.kind not in "fiu":
        return "a vector is a list of numbers"
    with np.errstate(over="ignore"):  # what is too great for 32 bits is infinite, and refused as that
        array = given.astype(np.float32)
    if array.shape != (version.dimension,):
        return f"a vector of shape {list(array.shape)}; {version.label} has {version.dimension} numbers"
    if not np.isfinite(array).all() or not array.any():
        return "NaN or infinite numbers, or only zeros"
    return Vector(version, array)


# The recency-weighted mean


def decay(micros: np.ndarray[Any, Any] | int) -> Any:  # noqa: ANN401 - a number or an array of them
    """How much a question counts that long after it was asked, in (0, 1]."""
    return np.exp2(-np.maximum(micros, 0) / (HALF_LIFE / _MICROSECOND))


def blended(
    mean: np.ndarray[Any, Any], weight: float, at: int, vector: np.ndarray[Any, Any], when: int
) -> tuple[np.ndarray[Any, Any], float]:
    """The mean and its weight with one more question; the order in which questions come does not matter.

    `at` is the time of the newest question in the mean, `when` that of the new one, in microseconds.
    """
    newest = max(at, when)
    old, new = weight * float(decay(newest - at)), float(decay(newest - when))
    return (mean * old + vector * new) / (old + new), old + new


def running_means(micros: np.ndarray[Any, Any], vectors: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], float]:
    """The mean after each question of one user, in order of time, and the weight at the end."""
    means = np.empty_like(vectors, dtype=np.float64)
    mean, weight, at = np.zeros(vectors.shape[1]), 0.0, int(micros[0]) if len(micros) else 0
    for place, (when, vector) in enumerate(zip(micros.tolist(), vectors, strict=True)):
        mean, weight = blended(mean, weight, at, vector, when)
        at, means[place] = when, mean
    return means, weight


# Histories, for training sets


def history(
    offline: OfflineStore, view: FeatureView, feature: Feature, version: EmbeddingVersion, keys: pa.Table
) -> pa.Table:
    """The values of the feature in one version for these entities, with the moments from which they hold."""
    if feature.made_from == "document":
        return _document_history(offline, view, version, keys)
    source = _source(view, feature)
    table = value_table(view, source, version.key)
    found = offline.read(table, where=_among(view, keys)) if offline.count(table) else pa.table({})
    if not found.num_rows:
        return value_schema(view, version.dimension).empty_table()
    found = found.append_column("arrival", found["ingested_at"].cast(MOMENT).cast(pa.int64()))
    return _mean_history(view, found) if feature.made_from == "questions" else found


def _among(view: FeatureView, keys: pa.Table) -> str:
    """A condition that leaves out the other entities: by the first key alone, for the join looks at all of them."""
    name, kind = view.entity.keys[0], view.entity.types[0]
    values = [one for one in pc.unique(keys[name]).to_pylist() if one is not None]
    if len(values) > _WINDOW:
        return "true"
    return in_list(name, values) if kind == "string" else f"{name} IN ({', '.join(map(str, values)) or 'NULL'})"


def _mean_history(view: FeatureView, questions: pa.Table) -> pa.Table:
    """The questions, each with the mean of those up to it in place of its own vector."""
    ordered = questions.sort_by([(key, "ascending") for key in (*view.entity.keys, "event_timestamp")])
    vectors = _matrix(ordered["vector"])
    micros = ordered["event_timestamp"].cast(pa.int64()).to_numpy()
    made = [running_means(micros[part], vectors[part])[0] for part in _runs(ordered.select(list(view.entity.keys)))]
    place = ordered.schema.get_field_index("vector")
    return ordered.set_column(place, "vector", _fixed(np.concatenate(made)))


def _runs(keys: pa.Table) -> Iterator[slice]:
    """The stretches of equal keys of a sorted table."""
    columns = [column.to_numpy() for column in keys.columns]
    changes = np.zeros(max(keys.num_rows - 1, 0), dtype=bool)
    for column in columns:
        changes |= column[1:] != column[:-1]
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), keys.num_rows]
    return (slice(low, high) for low, high in pairwise(edges) if high > low)


def _document_history(offline: OfflineStore, view: FeatureView, version: EmbeddingVersion, keys: pa.Table) -> pa.Table:
    """Each document's mean at every moment at which one of its rows came or went."""
    ids = [one for one in pc.unique(keys[view.entity.key]).to_pylist() if one is not None]
    times, documents, means = [], [], []
    for start in range(0, len(ids), _WINDOW):
        for document, moment, mean in _changes(_spans(offline, version, ids[start : start + _WINDOW])):
            times.append(moment)
            documents.append(document)
            means.append(mean)
    none = pa.nulls(0, pa.list_(pa.float32(), version.dimension))
    moments = pa.array(times, pa.int64()).cast(MOMENT)
    made = pa.concat_arrays([_nullable(means, version.dimension)]) if means else none
    return pa.table({view.entity.key: pa.array(documents, pa.string()), "event_timestamp": moments, "vector": made})


def _spans(offline: OfflineStore, version: EmbeddingVersion, ids: Sequence[str]) -> pa.Table:
    """The rows of these documents, those that left among them, with the time in which each was visible."""
    names = ["document_id", "vector", "visible_from"]
    parts = []
    for table, until in ((version.table, False), (retired(version.table), True)):
        if offline.count(table):
            rows = offline.read(table, [*names, "visible_until"] if until else names, in_list("document_id", ids))
            parts.append(rows if until else rows.append_column("visible_until", pa.nulls(rows.num_rows, MOMENT)))
    return pa.concat_tables(parts, promote_options="permissive") if parts else pa.table({"document_id": []})


def _changes(spans: pa.Table) -> Iterator[tuple[str, int, np.ndarray[Any, Any] | None]]:
    if not spans.num_rows:
        return
    ordered = spans.sort_by("document_id")
    vectors = _matrix(ordered["vector"])
    low = ordered["visible_from"].cast(pa.int64()).to_numpy()
    high = ordered["visible_until"].cast(pa.int64()).fill_null(2**63 - 1).to_numpy()
    ids = ordered["document_id"]
    for part in _runs(ordered.select(["document_id"])):
        for moment in np.unique(np.concatenate([low[part], high[part]])).tolist():
            there = (low[part] <= moment) & (moment < high[part])
            if moment < 2**63 - 1:
                yield ids[part.start].as_py(), moment, _direction(vectors[part][there]) if there.any() else None


# Arrays


def _matrix(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    flat = column.combine_chunks().flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(column), -1)


def _fixed(vectors: np.ndarray[Any, Any]) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def _nullable(vectors: Sequence[np.ndarray[Any, Any] | None], dimension: int) -> pa.Array:
    return pa.array([None if one is None else one.tolist() for one in vectors], pa.list_(pa.float32(), dimension))


def _direction(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return normalised(vectors.mean(axis=0, dtype=np.float64)[None])[0]


def _questions(view: FeatureView, space: str | None) -> str:
    """The feature under whose name questions are kept in a space: the first of those that are made from them."""
    return next(one.name for one in of_kind(view, *_ASKED) if one.space == space)


def _source(view: FeatureView, feature: Feature) -> str:
    """The feature under whose name the rows are kept that the feature's values are made from."""
    return _questions(view, feature.space) if feature.made_from in _ASKED else feature.name


# In use


class Spaces:
    """Embedding features in the store: noted, derived, published, rebuilt after a change of the model."""

    def __init__(
        self,
        catalog: Catalog,
        offline: OfflineStore,
        online: OnlineStore,
        logs: Logs,
        clock: Clock,
        *,
        embedder: Callable[[EmbeddingVersion], Embedder] | None = None,
    ) -> None:
        self._catalog = catalog
        self._offline = offline
        self._online = online
        self._logs = logs
        self._clock = clock
        self._embedder = embedder

    # -- noting

    def ask(self, view: FeatureView, key: Key, question: Question, *, event_id: bytes, at: datetime) -> bool:
        """The user's last question and the mean of all are online, and the question is in the journal.

        A question that was noted before changes nothing.
        """
        stamp, version = micros_of(at), question.version
        vector = checked(np.atleast_2d(question.vector), texts=1, dimension=version.dimension, label=version.label)[0]
        space = question.space or version.feature
        source = _questions(view, space)
        values: dict[str, object] = {source: vector}
        values |= {_TEXT: question.text} if question.text else {}
        row = OnlineRow(stamp, stamp, encode_payload(values), event_id)
        noted = self._online.write(namespace(view, source, version.key), [(key, row)], journal=True)
        if noted.duplicates:
            return False
        for feature in of_kind(view, "questions"):
            if feature.space == space:
                self._blend(namespace(view, feature.name, version.key), feature.name, key, vector, stamp)
        return True

    def _blend(self, place: str, name: str, key: Key, vector: np.ndarray[Any, Any], when: int) -> None:
        created = micros_of(self._clock())

        def blend(before: OnlineRow | None) -> OnlineRow:
            mean, weight, at = vector.astype(np.float64), 1.0, when
            if before is not None:
                held = decode_payload(before.payload)
                at, old = max(before.event_micros, when), np.asarray(held[name], np.float64)
                mean, weight = blended(old, held[_WEIGHT], before.event_micros, vector, when)
            payload = encode_payload({name: mean.astype(np.float32), _WEIGHT: weight})
            # Of two questions at once, the one that is blended second has to win.
            return OnlineRow(at, created if before is None else max(before.created_micros, created), payload)

        self._online.change(place, key, blend, journal=False)

    # -- draining

    def drain(self, where: str, entries: Sequence[JournalEntry]) -> bool:
        """The journalled vectors are in their history; False when nobody declares the namespace any more."""
        place, _, rest = where.partition("/")
        feature, _, key = rest.partition("/")
        name, _, number = place.partition("@")
        pinned = (name, int(number))
        # What was pushed to a version that is no longer declared has a history of its own, too.
        view = self._catalog.views.get(pinned) or complete(self._catalog, self._logs).views.get(pinned)
        version = versions_of(self._logs).get(key)
        if view is None or version is None or feature not in view.features:
            return False
        rows = [_history_row(view, feature, one, self._clock()) for one in entries]
        self._keep(view, feature, version, pa.Table.from_pylist(rows, value_schema(view, version.dimension)))
        return True

    def _keep(self, view: FeatureView, feature: str, version: EmbeddingVersion, rows: pa.Table) -> int:
        table = value_table(view, feature, version.key)
        self._offline.ensure(table, value_schema(view, version.dimension), key="event_id")
        return self._offline.insert(table, rows, key="event_id") if rows.num_rows else 0

    def record(self, view: FeatureView, feature: str, table: pa.Table, vectors: Sequence[tuple[int, Vector]]) -> int:
        """The vectors of these rows of the table are in the histories of their versions; returns how many were new."""
        grouped: dict[str, list[tuple[int, Vector]]] = {}
        for at, vector in vectors:
            grouped.setdefault(vector.version.key, []).append((at, vector))
        return sum(self._record(view, feature, table, members) for members in grouped.values())

    def _record(self, view: FeatureView, feature: str, table: pa.Table, vectors: Sequence[tuple[int, Vector]]) -> int:
        version = vectors[0][1].version
        schema = value_schema(view, version.dimension)
        rows = table.select([name for name in schema.names if name not in {_TEXT, "vector"}]).take(
            pa.array([at for at, _ in vectors])
        )
        rows = rows.append_column(_TEXT, pa.nulls(rows.num_rows, pa.large_string()))
        rows = rows.append_column("vector", _fixed(np.stack([one.values for _, one in vectors])))
        place = rows.schema.get_field_index("ingested_at")
        arrived = pa.array([self._clock()] * rows.num_rows, MOMENT)
        return self._keep(view, feature, version, rows.set_column(place, "ingested_at", arrived).select(schema.names))

    # -- publishing

    def publish(self, view: FeatureView, live: Mapping[str, str]) -> list[Rebuilt]:
        """Every embedding feature of the view is online in the live version of its space.

        What another version made is made again: of documents from the version's table, of questions
        from their texts. Where nothing changed since the last time, nothing is done.
        """
        known = versions_of(self._logs)
        keys = [(feature, slot_key(feature, live)) for feature in view.embeddings]
        return [self._publish(view, feature, _named(known, key)) for feature, key in keys if key is not None]

    def bind(
        self, version: EmbeddingVersion, *, own: Collection[str], views: Iterable[FeatureView] | None = None
    ) -> list[Rebuilt]:
        """Every feature whose values the version makes is online in it, so that it can go live without a gap.

        `own` are the spaces that have versions of their own; questions in others follow the content.
        """
        among = self._catalog.views.values() if views is None else views
        return [
            self._publish(view, feature, version)
            for view in among
            for feature in view.embeddings
            if _bound(feature, version, own)
        ]

    def asks(self, version: EmbeddingVersion, *, own: Collection[str]) -> bool:
        """Whether questions are among what the version makes vectors of."""
        return any(asked for _, _, asked in self._sources(version, own))

    def gap(self, version: EmbeddingVersion, *, own: Collection[str]) -> Gap:
        """What the version has of the vectors that came with events, and what of the rest it can get."""
        total = Gap()
        for view, source, asked in self._sources(version, own):
            total += self._gap(view, source, version, asked=asked)
        return total

    def _sources(self, version: EmbeddingVersion, own: Collection[str]) -> list[tuple[FeatureView, str, bool]]:
        """Where rows are kept that the version has to have: the view, the feature, and whether they are questions."""
        found = {
            (view.name, view.version, _source(view, feature)): (view, feature.made_from in _ASKED)
            for view in self._catalog.views.values()
            for feature in view.embeddings
            if feature.made_from != "document" and _bound(feature, version, own)
        }
        return [(view, source, asked) for (_, _, source), (view, asked) in found.items()]

    def _gap(self, view: FeatureView, source: str, version: EmbeddingVersion, *, asked: bool) -> Gap:
        own = value_table(view, source, version.key)
        have, bad, rows = set[str](), 0, 0
        for batch in self._offline.batches(own, ["event_id", "vector"]) if self._offline.count(own) else ():
            have.update(batch.column("event_id").to_pylist())
            lengths = norms(_matrix(pa.chunked_array([batch.column("vector")])))
            bad, rows = bad + int((~np.isfinite(lengths) | (lengths == 0)).sum()), rows + batch.num_rows
        held, copied, tokens = len(have), 0, 0
        for table in self._siblings(view, source, version):
            new = set(self._offline.read(table, ["event_id"])["event_id"].to_pylist()) - have
            have, copied = have | new, copied + len(new)
        kept = len(have)
        others = [one for one in self._offline.names(value_table(view, source, "")) if one != own]
        for table in others if asked else ():
            for piece in self._missing(table, have):
                have.update(piece["event_id"].to_pylist())
                tokens += sum(map(_tokens, piece[_TEXT].to_pylist()))
        every = have.union(*(self._offline.read(table, ["event_id"])["event_id"].to_pylist() for table in others))
        return Gap(len(every), held, copied, len(have) - kept, len(every) - len(have), tokens, bad, rows - held)

    def texts(self, version: EmbeddingVersion, *, own: Collection[str]) -> Iterator[list[str]]:
        """The texts that the version would have to embed, as many at a time as one call of the model takes."""
        for view, source, asked in self._sources(version, own):
            mine = value_table(view, source, version.key)
            have: set[str] = set()
            for table in [mine, *self._siblings(view, source, version)]:
                if self._offline.count(table):
                    have.update(self._offline.read(table, ["event_id"])["event_id"].to_pylist())
            for table in self._offline.names(value_table(view, source, "")) if asked else ():
                for piece in self._missing(table, have):
                    have.update(piece["event_id"].to_pylist())
                    yield piece[_TEXT].to_pylist()

    def drop(self, version: EmbeddingVersion) -> None:
        """The version's values are gone, in the histories and online; those of other versions stay."""
        for view in self._catalog.views.values():
            for feature in view.embeddings:
                self._offline.drop(value_table(view, feature.name, version.key))
                self._online.drop(namespace(view, feature.name, version.key))

    def _publish(self, view: FeatureView, feature: Feature, version: EmbeddingVersion) -> Rebuilt:
        if feature.made_from == "document":
            return self._once(view, feature, version, version.table, self._documents)
        if feature.made_from in _ASKED:
            source = _source(view, feature)
            reused = self._copy(view, source, version)
            embedded = self._embed_again(view, source, version)
            done = self._once(view, feature, version, value_table(view, source, version.key), self._values)
            return Rebuilt(view.name, feature.name, version.label, done.written, done.removed, embedded, reused)
        return self._once(view, feature, version, value_table(view, feature.name, version.key), self._values)

    def _once(
        self,
        view: FeatureView,
        feature: Feature,
        version: EmbeddingVersion,
        table: str,
        write: Callable[[FeatureView, Feature, EmbeddingVersion], tuple[int, int]],
    ) -> Rebuilt:
        """Write the values, unless the table is as it was when they were written last."""
        place, state = namespace(view, feature.name, version.key), self._state(table)
        mark = f"spaces/{digest(place)[:32]}"
        there = next(self._online.scan(place), None) is not None
        if not state:
            return Rebuilt(view.name, feature.name, version.label, 0, self._online.drop(place) if there else 0)
        if there and self._online.get_meta(mark) == state:
            return Rebuilt(view.name, feature.name, version.label, 0)
        with undisturbed():
            written, removed = write(view, feature, version)
        self._online.set_meta(mark, state)
        return Rebuilt(view.name, feature.name, version.label, written, removed)

    def _state(self, table: str) -> bytes:
        """What changes when the table does: its rows and its newest arrival; empty for no rows."""
        rows = self._offline.count(table)
        if not rows:
            return b""
        column = "embedded_at" if "embedded_at" in self._offline.batches(table).schema.names else "ingested_at"
        newest = [pc.max(batch[column]).as_py() for batch in self._offline.batches(table, [column])]
        return f"{rows} {micros_of(max(one for one in newest if one is not None))}".encode()

    def _documents(self, view: FeatureView, feature: Feature, version: EmbeddingVersion) -> tuple[int, int]:
        place = namespace(view, feature.name, version.key)
        rows = _Rows(self._offline, version.table, ("document_id",), version.dimension)
        now, written = np.full(len(rows.entities), micros_of(self._clock())), 0
        for part, means, _ in rows.means(np.ones(rows.count)):
            written += self._write(place, feature.name, rows.entities[part], now[part], normalised(means))
        kept = set(rows.entities)
        gone = [key for key, _ in self._online.scan(place) if key not in kept]
        return written, self._online.delete(place, gone) if gone else 0

    def _write(
        self,
        place: str,
        name: str,
        keys: list[Key],
        micros: np.ndarray[Any, Any],
        vectors: np.ndarray[Any, Any],
        weights: Sequence[float] = (),
    ) -> int:
        columns, features = {name: _fixed(vectors)}, [Feature(Kind.EMBEDDING, name=name)]
        if weights:
            columns, features = {**columns, _WEIGHT: pa.array(weights)}, [*features, Feature(Kind.NUMBER, name=_WEIGHT)]
        created = np.full(len(keys), micros_of(self._clock()))
        payloads = encode_columns(pa.table(columns), features)
        return self._online.write_columns(place, keys, micros.astype(np.int64), created, payloads).accepted

    def _values(self, view: FeatureView, feature: Feature, version: EmbeddingVersion) -> tuple[int, int]:
        """The newest value of each entity, or the mean of its questions."""
        table = value_table(view, _source(view, feature), version.key)
        rows = _Rows(self._offline, table, view.entity.keys, version.dimension, times=True)
        place, written, mean = namespace(view, feature.name, version.key), 0, feature.made_from == "questions"
        for part, vectors, weights in rows.means(rows.recency() if mean else rows.newest()):
            told = weights.tolist() if mean else ()
            written += self._write(place, feature.name, rows.entities[part], rows.last[part], vectors, told)
        return written, 0

    # -- after a change of the model

    def _siblings(self, view: FeatureView, source: str, version: EmbeddingVersion) -> list[str]:
        """Tables of the same rows whose vectors the same model made for another feature or version."""
        stem, known = value_table(view, source, ""), versions_of(self._logs)
        same = {one.key for one in known.values() if one.fingerprint == version.fingerprint} - {version.key}
        return [table for table in self._offline.names(stem) if table.removeprefix(stem) in same]

    def _copy(self, view: FeatureView, source: str, version: EmbeddingVersion) -> int:
        """Questions that the same model embedded before are in the version's table, with their vectors; how many."""
        own, copied = value_table(view, source, version.key), 0
        for table in self._siblings(view, source, version):
            held = self._offline.read(own, ["event_id"])["event_id"].to_pylist() if self._offline.count(own) else []
            have = pa.array(held, pa.string())
            for batch in self._offline.batches(table):
                rows = pa.Table.from_batches([batch])
                new = rows.filter(pc.invert(pc.is_in(rows["event_id"], have)))
                arrived = pa.array([self._clock()] * new.num_rows, MOMENT)
                new = new.set_column(new.schema.get_field_index("ingested_at"), "ingested_at", arrived)
                schema = value_schema(view, version.dimension)
                copied += self._keep(view, source, version, new.select(schema.names).cast(schema))
        return copied

    def _embed_again(self, view: FeatureView, source: str, version: EmbeddingVersion) -> int:
        """Questions whose texts are kept and whose vectors the version does not have are embedded; how many."""
        if self._embedder is None:
            return 0
        stem, own = value_table(view, source, ""), value_table(view, source, version.key)
        have = set(self._offline.read(own, ["event_id"])["event_id"].to_pylist()) if self._offline.count(own) else set()
        embedded = 0
        for table in self._offline.names(stem):
            if table != own:
                for rows in self._missing(table, have):
                    have.update(rows["event_id"].to_pylist())
                    embedded += self._keep(view, source, version, self._embedded(view, version, rows))
        return embedded

    def _missing(self, table: str, have: set[str]) -> Iterator[pa.Table]:
        names = [one for one in self._offline.batches(table).schema.names if one != "vector"]
        for batch in self._offline.batches(table, names, f"{_TEXT} IS NOT NULL"):
            new = [place for place, one in enumerate(batch["event_id"].to_pylist()) if one not in have]
            for start in range(0, len(new), _TEXTS):
                yield pa.Table.from_batches([batch]).take(new[start : start + _TEXTS])

    def _embedded(self, view: FeatureView, version: EmbeddingVersion, rows: pa.Table) -> pa.Table:
        texts = rows[_TEXT].to_pylist()
        made = self._embedder(version).embed_queries(texts) if self._embedder is not None else np.empty((0, 0))
        vectors = _fixed(checked(made, texts=len(texts), dimension=version.dimension, label=version.label))
        schema = value_schema(view, version.dimension)
        arrived = pa.array([self._clock()] * rows.num_rows, MOMENT)
        columns = {**{name: rows[name] for name in rows.column_names}, "vector": vectors, "ingested_at": arrived}
        return pa.table([columns[name] for name in schema.names], names=schema.names)


class _Rows:
    """The rows of a table with vectors, by entity; the vectors themselves are streamed, never all held."""

    def __init__(
        self, offline: OfflineStore, table: str, keys: Sequence[str], dimension: int, *, times: bool = False
    ) -> None:
        self._offline, self._table, self._names, self._dimension = offline, table, list(keys), dimension
        self._id = "event_id" if times else "row_id"
        stamps = ["event_timestamp", "created_timestamp"] if times else []
        self._read = offline.read(table, [*self._names, self._id, *stamps])
        self.count = self._read.num_rows
        self._codes, self.entities = _codes(self._read.select(self._names))
        self._stamps = [self._read[name].cast(pa.int64()).to_numpy() for name in stamps]
        self.last = np.full(len(self.entities), -(2**63), dtype=np.int64)
        if times:
            np.maximum.at(self.last, self._codes, self._stamps[0])

    def recency(self) -> np.ndarray[Any, Any]:
        """How much each row counts at the moment of its entity's last one."""
        return np.asarray(decay(self.last[self._codes] - self._stamps[0]))

    def newest(self) -> np.ndarray[Any, Any]:
        """One for the newest row of each entity, by event, creation and arrival; nothing for the others."""
        order = np.lexsort((np.arange(self.count), self._stamps[1], self._stamps[0], self._codes))
        weights = np.zeros(self.count)
        ends = np.flatnonzero(np.diff(self._codes[order], append=-1))
        weights[order[ends]] = 1.0
        return weights

    def _pieces(self, ids: pa.Array) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """The vectors as they stream, each with the number of its row; -1 for one that came meanwhile."""
        at = 0
        for batch in self._offline.batches(self._table, [self._id, "vector"]):
            found, end = batch.column(self._id), at + batch.num_rows
            if ids.slice(at, batch.num_rows).equals(found):  # the usual case: the same order as before
                rows = np.arange(at, end)
            else:
                rows = pc.index_in(found, ids).fill_null(-1).to_numpy(zero_copy_only=False)
            at = end
            yield rows, _matrix(pa.chunked_array([batch.column("vector")]))

    def means(
        self, weights: np.ndarray[Any, Any]
    ) -> Iterator[tuple[slice, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """The weighted mean and the weight of each entity, some thousand at a time.

        One pass over the vectors serves `_HELD` entities. A row that came after the keys were read does
        not count; it will next time.
        """
        ids = self._read[self._id].combine_chunks()
        for first in range(0, len(self.entities), _HELD):
            size = min(_HELD, len(self.entities) - first)
            sums, totals = np.zeros((size, self._dimension), dtype=np.float32), np.zeros(size)
            for rows, vectors in self._pieces(ids):
                codes = np.where(rows >= 0, self._codes[rows] - first, -1)
                share = np.where((codes >= 0) & (codes < size), weights[rows], 0.0)
                there = np.flatnonzero(share)
                _add(sums, totals, codes[there], share[there], vectors if len(there) == len(rows) else vectors[there])
            for start in range(0, size, _WINDOW):
                end = min(start + _WINDOW, size)
                part, sum_ = totals[start:end], sums[start:end]
                mean: np.ndarray[Any, Any] = sum_ if (part == 1).all() else sum_ / np.maximum(part, 1e-30)[:, None]
                yield slice(first + start, first + end), mean, part


def _add(
    sums: np.ndarray[Any, Any],
    totals: np.ndarray[Any, Any],
    codes: np.ndarray[Any, Any],
    weights: np.ndarray[Any, Any],
    vectors: np.ndarray[Any, Any],
) -> None:
    """Each vector, times its weight, is part of its entity's sum."""
    scaled = vectors if (weights == 1).all() else vectors * weights[:, None].astype(np.float32)
    if len(codes) and (np.diff(codes) == 1).all():  # the usual case: each entity has one row, in the order of the rows
        part = slice(int(codes[0]), int(codes[-1]) + 1)
        if totals[part].any():
            sums[part] += scaled
        else:
            sums[part] = scaled
        totals[part] += weights
        return
    counts = np.bincount(codes, minlength=len(totals))
    totals += np.bincount(codes, weights, minlength=len(totals))
    if counts.max(initial=0) <= 1:
        sums[codes] += scaled
        return
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    sums[codes[order][starts]] += np.add.reduceat(scaled[order], starts, axis=0)


def _codes(keys: pa.Table) -> tuple[np.ndarray[Any, Any], list[Key]]:
    """A number for each row that says whose it is, and the entities in the order of the numbers."""
    if keys.num_columns == 1:
        coded = keys.column(0).combine_chunks().dictionary_encode()
        return coded.indices.to_numpy().astype(np.int64), [
            (one,) for one in coded.dictionary.to_numpy(zero_copy_only=False).tolist()
        ]
    places: dict[Key, int] = {}
    rows = zip(*(column.to_pylist() for column in keys.columns), strict=True)
    codes = np.array([places.setdefault(row, len(places)) for row in rows], dtype=np.int64)
    return codes, list(places)


def _tokens(text: str) -> int:
    """About how many tokens the text has: three characters make one, and each text has two of its own."""
    return len(text) // 3 + 2


def _named(known: Mapping[str, EmbeddingVersion], key: str) -> EmbeddingVersion:
    if key not in known:
        raise UnknownModelError(key, known)
    return known[key]


def _history_row(view: FeatureView, feature: str, entry: JournalEntry, now: datetime) -> dict[str, Any]:
    values = decode_payload(entry.row.payload)
    times = {
        "event_timestamp": moment_of(entry.row.event_micros),
        "created_timestamp": moment_of(entry.row.created_micros),
        "ingested_at": now,
    }
    event = entry.row.event_id.decode() if entry.row.event_id else digest([*entry.key, entry.row.event_micros])
    keys = dict(zip(view.entity.keys, entry.key, strict=True))
    return {**keys, **times, "event_id": event, _TEXT: values.get(_TEXT), "vector": values[feature].tolist()}
