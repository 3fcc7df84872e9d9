"""Training sets: for every row of an entity table, the features as they were known at its moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from lodestore import asof, declarations, ondemand, spaces
from lodestore.catalog import Catalog
from lodestore.errors import RequestError, nearest
from lodestore.logs import Logs, utc_now
from lodestore.ports import OfflineStore
from lodestore.releases import Release, ReleaseLog
from lodestore.spec import FeatureRef, FeatureView, Kind, OnDemandView
from lodestore.tables import MOMENT, view_schema, view_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Entities", "assert_no_leak", "historical"]

Entities = TypeVar("Entities", pa.Table, "pd.DataFrame")

# The most of a history that is held in memory at once.
_HELD_BYTES = 256 << 20
_TIMES = ("event_timestamp", "created_timestamp")


def historical(
    entities: Entities,
    features: Sequence[str | FeatureRef],
    *,
    catalog: Catalog,
    offline: OfflineStore,
    as_known_at: datetime | None = None,
) -> Entities:
    """The entity table, or data frame, with a column for each feature, named by its full reference, as of each row's event_timestamp.

    Every row comes out once, in its order. Values are null where nothing was known or the TTL had
    passed. On-demand features are computed row by row; their request inputs are columns of the
    entity table. `as_known_at` leaves out what was recorded later. Vectors are those of the live
    version of their space, of every row the same one; references without a version are answered by
    the view's live version. A data frame keeps its index and comes back as one.
    """
    joined = _historical(_table_of(entities), features, catalog, offline, as_known_at)
    return joined if isinstance(entities, pa.Table) else _beside(entities, joined)


def _table_of(entities: Any) -> pa.Table:  # noqa: ANN401 - whatever was given
    if isinstance(entities, pa.Table):
        return entities
    if not hasattr(entities, "iloc"):
        message = (
            f"entities are a {type(entities).__name__}; give an Arrow table or a data frame, such as "
            "pyarrow.Table.from_pylist(rows)"
        )
        raise RequestError(message)
    try:
        return pa.Table.from_pandas(entities, preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        message = f"the entities do not fit an Arrow table: {error}"
        raise RequestError(message) from error


def _beside(frame: pd.DataFrame, joined: pa.Table) -> pd.DataFrame:
    """The frame with its index and its columns as they are, and the new ones beside them, row by row."""
    new = {name: _column(joined[name]) for name in joined.column_names[len(frame.columns) :]}
    return frame.assign(**new)


def _column(column: pa.ChunkedArray) -> Any:  # noqa: ANN401 - an extension array of pandas
    """The column for a data frame; whole numbers stay whole where some are null, for a float would lose their last digits."""
    import pandas as pd

    whole = column.null_count and pa.types.is_integer(column.type)
    return column.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get if whole else None).array


def _historical(
    entities: pa.Table,
    features: Sequence[str | FeatureRef],
    catalog: Catalog,
    offline: OfflineStore,
    as_known_at: datetime | None,
) -> pa.Table:
    release, joined = _live(offline), entities
    catalog = declarations.complete(catalog, Logs(offline))
    wanted = _wanted(features, catalog)
    for view, refs in _by_view(_stored(wanted, catalog), catalog, release.views):
        plain = [ref for ref in refs if view.feature(ref.feature).kind is not Kind.EMBEDDING]
        with _of_view(view):
            joined = _join(joined, view, plain, offline, as_known_at) if plain else joined
            for ref in refs:
                if ref not in plain:
                    joined = _join_vectors(joined, view, ref, offline, release, as_known_at)
    for name in dict.fromkeys(ref.view for ref in wanted if ref.view in catalog.on_demand):
        joined = _computed(joined, catalog.on_demand[name], catalog, release.views)
    return joined.select([*entities.column_names, *map(str, wanted)])


@contextmanager
def _of_view(view: FeatureView) -> Iterator[None]:
    """What the join says about keys and columns, it says about this view."""
    try:
        yield
    except RequestError as error:
        if view.name in str(error):
            raise
        message = f"{view.name}: {error}"
        raise RequestError(message) from error


def _wanted(features: Sequence[str | FeatureRef], catalog: Catalog) -> list[FeatureRef]:
    if isinstance(features, str) or not isinstance(features, Iterable):
        message = f"features {features!r}: give a list of references, such as ['user_profile:expertise_level']"
        raise RequestError(message)
    refs = [one if isinstance(one, FeatureRef) else FeatureRef.parse(one) for one in features]
    if not refs:
        message = "no features were asked for; name some as VIEW:FEATURE"
        raise RequestError(message)
    for ref in refs:
        catalog.check(ref)
    return list(dict.fromkeys(refs))


def _stored(wanted: Sequence[FeatureRef], catalog: Catalog) -> list[FeatureRef]:
    """The features that lie in tables: those that were asked for, and those that on-demand views read."""
    refs: dict[FeatureRef, None] = {}
    for ref in wanted:
        view = catalog.on_demand.get(ref.view)
        refs |= dict.fromkeys(view.reads if view else (ref,))
    return list(refs)


def _live(offline: OfflineStore) -> Release:
    return ReleaseLog(Logs(offline), utc_now).live()


def _by_view(
    refs: Sequence[FeatureRef], catalog: Catalog, live: Mapping[str, int]
) -> Iterator[tuple[FeatureView, list[FeatureRef]]]:
    groups: dict[tuple[str, int | None], list[FeatureRef]] = {}
    for ref in refs:
        groups.setdefault((ref.view, ref.version), []).append(ref)
    for members in groups.values():
        for ref in members:
            view = catalog.served(ref, live)
        yield view, members


def _join_vectors(
    entities: pa.Table,
    view: FeatureView,
    ref: FeatureRef,
    offline: OfflineStore,
    release: Release,
    as_known_at: datetime | None,
) -> pa.Table:
    """The entity table with the vectors of the live version; where none is live, that is an error."""
    feature = view.feature(ref.feature)
    known = {key: one for key, one in spaces.versions_of(Logs(offline)).items() if key in release.embeddings.values()}
    version = known.get(spaces.slot_key(feature, release.embeddings) or "")
    if version is None:
        message = f"{ref}: no version of {feature.space!r} is live, so there are no vectors; run: lodestore run ingest"
        raise RequestError(message)
    return asof.join(
        entities,
        spaces.history(offline, view, feature, version, entities.select(_keys_of(entities, view))),
        keys=view.entity.keys,
        features={"vector": str(ref)},
        ttl=view.ttl,
        as_known_at=as_known_at,
    )


def _keys_of(entities: pa.Table, view: FeatureView) -> list[str]:
    for key in view.entity.keys:
        if key not in entities.column_names:
            message = f"{view.name} needs the key {key!r} as a column of the entity table"
            raise RequestError(message + nearest(key, entities.column_names))
    return list(view.entity.keys)


def _join(
    entities: pa.Table,
    view: FeatureView,
    refs: Sequence[FeatureRef],
    offline: OfflineStore,
    as_known_at: datetime | None,
) -> pa.Table:
    return asof.join(
        entities,
        _held(_history(view, [ref.feature for ref in refs], offline)),
        keys=view.entity.keys,
        features={ref.feature: str(ref) for ref in refs},
        ttl=view.ttl,
        as_known_at=as_known_at,
    )


def _held(history: pa.RecordBatchReader) -> pa.Table | pa.RecordBatchReader:
    """A history that is small enough as a table, which is joined several times faster; of others what was read goes on."""
    batches, size = [], 0
    for batch in history:
        batches.append(batch)
        size += batch.nbytes
        if size > _HELD_BYTES:
            return pa.RecordBatchReader.from_batches(history.schema, chain(batches, history))
    return pa.Table.from_batches(batches, history.schema)


def _history(view: FeatureView, features: Sequence[str], offline: OfflineStore) -> pa.RecordBatchReader:
    """The view's rows, a bounded piece at a time; the moment of ingestion tells the order of arrival."""
    names = [*view.entity.keys, *_TIMES, *features]
    told = view_schema(view)
    schema = pa.schema([*(told.field(name) for name in names), pa.field("arrival", pa.int64())])
    table = view_table(view)
    if not offline.count(table):
        return pa.RecordBatchReader.from_batches(schema, iter(()))
    batches = offline.batches(table, [*names, "ingested_at"])
    return pa.RecordBatchReader.from_batches(schema, (_arrived(batch, names, schema) for batch in batches))


def _arrived(batch: pa.RecordBatch, names: Sequence[str], schema: pa.Schema) -> pa.RecordBatch:
    columns = [batch.column(name).cast(schema.field(name).type) for name in names]
    arrival = batch.column("ingested_at").cast(MOMENT).cast(pa.int64())
    return pa.RecordBatch.from_arrays([*columns, arrival], schema=schema)


def _computed(joined: pa.Table, view: OnDemandView, catalog: Catalog, live: Mapping[str, int]) -> pa.Table:
    given = {
        ref.feature: ondemand.as_online(catalog.served(ref, live).feature(ref.feature), joined[str(ref)])
        for ref in view.reads
    }
    given |= {name: _input(joined, view, name) for name in view.inputs}
    ondemand.check_inputs(view, given)
    columns = ondemand.compute(view, given, joined.num_rows)
    for name, feature in view.features.items():
        joined = joined.append_column(f"{view.name}:{name}", ondemand.as_stored(feature, columns[name]))
    return joined


def _input(joined: pa.Table, view: OnDemandView, name: str) -> list[Any]:
    if name not in joined.column_names:
        hint = nearest(name, joined.column_names)
        message = f"{view.name} needs the request input {name!r} as a column of the entity table{hint}"
        raise RequestError(message)
    return list(joined[name].to_pylist())


def assert_no_leak(
    entities: pa.Table | pd.DataFrame,
    features: Sequence[str | FeatureRef],
    joined: pa.Table | pd.DataFrame | None = None,
    *,
    catalog: Catalog,
    offline: OfflineStore,
    as_known_at: datetime | None = None,
) -> None:
    """Raise AssertionError when a training set holds what nobody could know at a row's time.

    `joined` may come from anywhere, with the entities in their order and the features under their full
    references; without one, what `historical` gives is looked at. Every stored scalar is computed again from
    what had happened and been recorded by the row's time. The error counts rows and names their places.
    """
    rows = _table_of(entities)
    made = _historical(rows, features, catalog, offline, as_known_at) if joined is None else _table_of(joined)
    catalog, release = declarations.complete(catalog, Logs(offline)), _live(offline)
    wanted = [ref for ref in _wanted(features, catalog) if ref.view not in catalog.on_demand]
    for view, refs in _by_view(wanted, catalog, release.views):
        plain = [ref for ref in refs if view.feature(ref.feature).kind is not Kind.EMBEDDING]
        if plain:
            asof.assert_no_leak(
                rows,
                _history(view, [ref.feature for ref in plain], offline).read_all(),
                made,
                keys=view.entity.keys,
                features={ref.feature: str(ref) for ref in plain},
                ttl=view.ttl,
                as_known_at=as_known_at,
            )
