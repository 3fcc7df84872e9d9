"""The point-in-time join: what was known about an entity at a moment, and the test that nothing else leaked in.

Every row of the entity table comes out exactly once, in its order, with its other columns. It takes
the newest row of the history with its keys at or before its time; of rows with one event time the
one created last wins, then the one that arrived last. Only then does the TTL decide: a row that
expired is never replaced by an older one.

DuckDB runs the join over Arrow: nothing is copied that is not needed, and what does not fit into
memory is spilled to disk. Moments count to the microsecond.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore.errors import RequestError, SourceError, StoreError, nearest
from lodestore.lookback import Told, places

__all__ = ["History", "Limits", "assert_no_leak", "history_from", "join", "leaks"]

History: TypeAlias = "pa.Table | pa.RecordBatchReader | pa.dataset.Dataset"
KnownAt: TypeAlias = Literal["now", "row"]

EVENT = "event_timestamp"
CREATED = "created_timestamp"
ARRIVAL = "arrival"

_MOMENT = pa.timestamp("us", "UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_FOREVER = 2**63 - 1  # microseconds, more than any two moments lie apart
_NEVER = -(2**63)  # the arrival of a row that does not say when it arrived
_SHOWN = 5

# Tables: asked(row, t, key), told(key, event, created, arrival, ordinal, f0...). Whatever the keys
# are, one number g stands for them from here on: joins and sorts of numbers are several times faster.
_GROUPS = """
CREATE TEMP TABLE groups AS
SELECT key, row_number() OVER () AS g FROM (SELECT DISTINCT key FROM asked WHERE key IS NOT NULL)
"""
_ENTITIES = "CREATE TEMP TABLE entity AS SELECT row, t, g FROM asked JOIN groups USING (key)"
_HISTORY = "CREATE TEMP TABLE history AS SELECT told.* EXCLUDE (key), g FROM told JOIN groups USING (key)"

# The newest event first; ties are settled only for the events that some row matched.
_CHOSEN = """
CREATE TEMP TABLE chosen AS
WITH matched AS MATERIALIZED (
    SELECT entity.row, entity.t, history.g, history.event
    FROM entity ASOF JOIN history ON entity.g = history.g AND entity.t >= history.event
),
winner AS (
    SELECT g, event, ordinal FROM history SEMI JOIN matched USING (g, event)
    QUALIFY row_number() OVER (PARTITION BY g, event ORDER BY created DESC, arrival DESC, ordinal DESC) = 1
)
SELECT row, ordinal FROM matched JOIN winner USING (g, event) WHERE t - event <= $ttl
"""

# A row is seen once it has happened and was created. Among what was seen so far the best only ever
# gets better, so that a running maximum turns two conditions on time into one.
_CHOSEN_AS_KNOWN = """
CREATE TEMP TABLE chosen AS
WITH step AS (
    SELECT g, greatest(event, created) AS seen,
           max(struct_pack(event := event, created := created, arrival := arrival, ordinal := ordinal))
               OVER (PARTITION BY g ORDER BY greatest(event, created)) AS best
    FROM history
)
SELECT entity.row, step.best.ordinal AS ordinal
FROM entity ASOF JOIN step ON entity.g = step.g AND entity.t >= step.seen
WHERE entity.t - step.best.event <= $ttl
"""
_CHOICES: Mapping[KnownAt, str] = {"now": _CHOSEN, "row": _CHOSEN_AS_KNOWN}

_JOINED = """
SELECT history.* EXCLUDE (g, event, created, arrival, ordinal)
FROM asked LEFT JOIN chosen USING (row) LEFT JOIN history USING (ordinal)
ORDER BY asked.row
"""

_CHANGED = """
SELECT row FROM (SELECT joined.row, joined.value AS a, known.value AS b FROM joined JOIN known USING (row))
WHERE a IS DISTINCT FROM b ORDER BY row
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one join may use; what is None, DuckDB decides: 80 % of the memory, every core, the system's temp folder."""

    memory: str | None = None  # as DuckDB writes it: "2GB"
    threads: int | None = None
    spill: Path | None = None  # a folder with room for what does not fit into memory


def join(
    entities: pa.Table,
    history: History,
    *,
    keys: tuple[str, ...],
    features: Mapping[str, str],
    ttl: timedelta | None = None,
    as_known_at: datetime | None = None,
    known_at: KnownAt = "now",
    arrival: str | None = ARRIVAL,
    timestamp: str = EVENT,
    limits: Limits | None = None,
) -> pa.Table:
    """Append to `entities` what `history` knew about each row at its time.

    `features` maps columns of the history to the names they get; `timestamp` is the event time in
    both tables. By default a row of the history counts from its event time on, whenever it was
    created. `as_known_at` leaves out what was created after that moment; `known_at="row"` what was
    created after the entity row's own time, the strictest training set. A history without
    created_timestamp is known from its event timestamps on; without an arrival column the order of
    its rows is the order of arrival. Null keys match nothing, nor do history rows without a time.

    A RecordBatchReader is read once, to its end. The result is held in memory, the history is not; a table, which
    is there already, is looked through without DuckDB, several times faster, unless `limits` are given.
    Many views: join one after the other, each result is the next one's entities.
    """
    if known_at not in _CHOICES:
        message = f"known_at is {known_at!r}; give 'now', or 'row' for what was known at each row's time"
        raise RequestError(message)
    plan = _Plan.of(entities, history.schema, keys, features, timestamp, arrival)
    asked = plan.asked(entities)
    lasting = _FOREVER if ttl is None else _ticks(ttl)
    if isinstance(history, pa.Table) and limits is None and (known_at == "now" or CREATED not in history.schema.names):
        found = plan.looked_up(asked, history, lasting, as_known_at)
        if found is not None:
            return plan.append(entities, found)
    with _connection(limits or Limits()) as connection:
        connection.from_arrow(asked).project(plan.asking).create("asked")
        told = connection.from_arrow(history).project(plan.telling)
        told.filter(_visible(asked, lasting, as_known_at)).create_view("told")
        for statement in (_GROUPS, _ENTITIES, _HISTORY):
            connection.execute(statement)
        connection.execute(_choice(known_at, history.schema), {"ttl": lasting})
        found = connection.sql(_JOINED).to_arrow_table()
    return plan.append(entities, found)


def _visible(asked: pa.Table, ttl: int, as_known_at: datetime | None) -> str:
    """Write as SQL which rows can matter at all, so that the others are dropped while they are read."""
    times = asked.column("t")
    oldest = max((pc.min(times).as_py() or 0) - ttl, _NEVER)
    known_by = _FOREVER if as_known_at is None else _since_epoch(as_known_at)
    return f"event BETWEEN {oldest} AND {pc.max(times).as_py() or 0} AND created <= {known_by}"


def _choice(known_at: KnownAt, schema: pa.Schema) -> str:
    # what is known from its event time on needs no second condition, and the first way is faster
    return _CHOICES[known_at] if CREATED in schema.names else _CHOSEN


@dataclass(frozen=True, slots=True)
class _Plan:
    """A join whose columns are known to be there and to fit."""

    keys: tuple[str, ...]
    features: Mapping[str, str]
    timestamp: str
    types: tuple[pa.DataType, ...]  # of the features, in the history
    texts: tuple[bool, ...]  # whether each key is compared as text
    arrival: str | None
    asking: str  # the columns of `asked`, as SQL
    telling: str  # the columns of `told`, as SQL

    @classmethod
    def of(
        cls,
        entities: pa.Table,
        schema: pa.Schema,
        keys: Sequence[str],
        features: Mapping[str, str],
        timestamp: str,
        arrival: str | None,
    ) -> _Plan:
        """Check everything that can be checked before a row is read."""
        _check_names(entities, keys, features)
        texts = [
            _joins_as_text(key, _type(entities.schema, key, "entities"), _type(schema, key, "history")) for key in keys
        ]
        _check_moment(_type(entities.schema, timestamp, "entities"), f"entities: {timestamp}")
        return cls(
            tuple(keys),
            dict(features),
            timestamp,
            tuple(_type(schema, source, "history") for source in features),
            tuple(texts),
            _arrival_column(schema, arrival),
            f"row, t, {_key([f'k{place}' for place in range(len(keys))], texts)} AS key",
            _telling(schema, _key([_quoted(key) for key in keys], texts), features, timestamp, arrival),
        )

    def asked(self, entities: pa.Table) -> pa.Table:
        """Take the rows' numbers, times and keys: all of the entities that the join needs."""
        columns = {"row": pa.array(np.arange(entities.num_rows)), "t": _entity_times(entities, self.timestamp)}
        return pa.table(columns | {f"k{place}": entities.column(key) for place, key in enumerate(self.keys)})

    def looked_up(self, asked: pa.Table, history: pa.Table, ttl: int, as_known_at: datetime | None) -> pa.Table | None:
        """Find the same in memory; None where that cannot be done."""
        sides = [history.schema.field(key).type for key in self.keys]
        sides += [asked.schema.field(f"k{place}").type for place in range(len(self.keys))]
        if not all(_is_plain_key(_plain(one)) for one in sides):
            return None
        event = _in_micros(history.column(self.timestamp), f"history: {self.timestamp}").cast(pa.int64())
        created = event
        if CREATED in history.schema.names:
            created = pc.coalesce(_in_micros(history.column(CREATED), f"history: {CREATED}").cast(pa.int64()), event)
        arrival = None if self.arrival is None else history.column(self.arrival).cast(pa.int64())
        pairs = list(zip(self.keys, self.texts, strict=True))
        told = Told([_comparable(history.column(key), text) for key, text in pairs], event, created, arrival)
        keys = [_comparable(asked.column(f"k{place}"), text) for place, text in enumerate(self.texts)]
        known_by = _FOREVER if as_known_at is None else _since_epoch(as_known_at)
        found = places(keys, asked.column("t").to_numpy(), told, ttl=ttl, known_by=known_by)
        if found is None:
            return None
        return pa.table({f"f{place}": history.column(source).take(found) for place, source in enumerate(self.features)})

    def append(self, entities: pa.Table, found: pa.Table) -> pa.Table:
        """Put the found values beside the entities, in the types that the history has."""
        out = entities
        for place, (output, kind) in enumerate(zip(self.features.values(), self.types, strict=True)):
            out = out.append_column(output, _cast(found.column(f"f{place}"), kind))
        return out


def _telling(schema: pa.Schema, key: str, features: Mapping[str, str], timestamp: str, arrival: str | None) -> str:
    """Write the columns of `told` as SQL."""
    _check_moment(_type(schema, timestamp, "history"), f"history: {timestamp}")
    created = timestamp
    if CREATED in schema.names:
        _check_moment(_type(schema, CREATED, "history"), f"history: {CREATED}")
        created = CREATED
    columns = {
        "key": key,
        "event": _micros(timestamp),
        "created": f"coalesce({_micros(created)}, {_micros(timestamp)})",
        "arrival": _arrival(schema, arrival),
        "ordinal": "row_number() OVER ()",
    }
    columns |= {f"f{place}": _quoted(source) for place, source in enumerate(features)}
    return ", ".join(f"{expression} AS {name}" for name, expression in columns.items())


def _arrival_column(schema: pa.Schema, arrival: str | None) -> str | None:
    """The column that tells the order of arrival; None where there is none."""
    if arrival is None or (arrival == ARRIVAL and arrival not in schema.names):
        return None
    kind = _type(schema, arrival, "history")
    if not pa.types.is_integer(kind):
        message = f"history: {arrival} is {kind}; arrival is a whole number that grows, or pass arrival=None"
        raise RequestError(message)
    return arrival


def _is_plain_key(kind: pa.DataType) -> bool:
    """Text, or whole numbers that 64 bits with a sign hold; DuckDB knows how to compare the others."""
    whole = pa.types.is_integer(kind) and not pa.types.is_uint64(kind)
    return bool(whole or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _comparable(column: pa.ChunkedArray, text: bool) -> pa.ChunkedArray:
    """The key as both sides have it."""
    return _cast(column, pa.large_string() if text else pa.int64())


def _arrival(schema: pa.Schema, arrival: str | None) -> str:
    arrival = _arrival_column(schema, arrival)
    if arrival is None:
        return "0"
    return f"coalesce(CAST({_quoted(arrival)} AS BIGINT), {_NEVER})"


def _key(columns: Sequence[str], texts: Sequence[bool]) -> str:
    """Write the join key as SQL: the column itself, or a row of several; null when one of them is."""
    pairs = zip(columns, texts, strict=True)
    values = [f"CAST({column} AS VARCHAR)" if text else column for column, text in pairs]
    if len(values) == 1:
        return values[0]
    whole = " AND ".join(f"{column} IS NOT NULL" for column in columns)
    return f"CASE WHEN {whole} THEN row({', '.join(values)}) END"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _micros(column: str) -> str:
    # the cast rounds nanoseconds down, to the past, for events and created times alike
    return f"epoch_us(CAST({_quoted(column)} AS TIMESTAMPTZ))"


def _check_names(entities: pa.Table, keys: Sequence[str], features: Mapping[str, str]) -> None:
    if isinstance(keys, str) or not keys or not features:
        message = f"keys={keys!r}, features={features!r}: name at least one key, as a tuple, and one feature"
        raise RequestError(message)
    taken = set(entities.schema.names)
    for output in features.values():
        if output in taken:
            message = (
                f"column {output!r} would come out twice; rename it in the entities, or give it another output name"
            )
            raise RequestError(message)
        taken.add(output)


def _type(schema: pa.Schema, name: str, where: str) -> pa.DataType:
    times = schema.names.count(name)
    if times == 1:
        return schema.field(name).type
    if times:
        message = f"{where}: {times} columns are called {name!r}; rename all but one"
    else:
        message = f"{where}: there is no column {name!r}{nearest(name, schema.names)}"
    raise RequestError(message)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _joins_as_text(key: str, asked: pa.DataType, told: pa.DataType) -> bool:
    """Whether a key is compared as text; keys of two kinds are an error, as they could never match.

    A column of type null, as an empty frame has it, fits everything.
    """
    kinds = (_plain(asked), _plain(told))
    if any(map(pa.types.is_null, kinds)) or all(map(_is_text, kinds)):
        return True
    if kinds[0] == kinds[1] or all(map(pa.types.is_integer, kinds)):
        return False
    message = f"key {key!r} is {asked} in the entities and {told} in the history; cast the entities to {kinds[1]}"
    raise RequestError(message)


def _check_moment(kind: pa.DataType, what: str) -> None:
    if not pa.types.is_timestamp(kind):
        message = f"{what} is {kind}; give timestamps with a time zone, such as timestamp[us, tz=UTC]"
        raise RequestError(message)
    if kind.tz is None:
        message = (
            f"{what} has no time zone ({kind}), so its moments are not known; say which zone is meant, with "
            'pyarrow.compute.assume_timezone(column, "UTC") or, in pandas, column.dt.tz_localize("UTC")'
        )
        raise RequestError(message)


def _in_micros(column: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    """Cast moments to microseconds in UTC, rounding nanoseconds down."""
    column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    try:
        return (pc.floor_temporal(column, unit="microsecond") if column.type.unit == "ns" else column).cast(_MOMENT)
    except pa.ArrowInvalid as error:
        message = f"{what}: a moment lies beyond what microseconds can count ({error}); mend or drop it"
        raise RequestError(message) from error


def _entity_times(entities: pa.Table, timestamp: str) -> pa.ChunkedArray:
    column = entities.column(timestamp)
    if column.null_count:
        rows = np.flatnonzero(column.is_null().to_numpy())[:_SHOWN].tolist()
        message = (
            f"entities: {timestamp} is null in {column.null_count} rows, such as {rows} (from 0); "
            "every row needs a moment to look back from: fill it, or drop the row"
        )
        raise RequestError(message)
    return _in_micros(column, f"entities: {timestamp}").cast(pa.int64())


def _ticks(ttl: timedelta) -> int:
    if ttl < timedelta(0):
        message = f"ttl is {ttl}; give a time that is not negative, or None for no limit"
        raise RequestError(message)
    return min(ttl // _TICK, _FOREVER)


def _since_epoch(moment: object) -> int:
    if not isinstance(moment, datetime):
        message = f"as_known_at {moment!r} is {type(moment).__name__}; give a datetime with a time zone"
        raise RequestError(message)
    if moment != moment:  # noqa: PLR0124 - NaT, which is a datetime that is no moment
        message = "as_known_at is NaT; give a datetime with a time zone"
        raise RequestError(message)
    if moment.utcoffset() is None:
        message = f"as_known_at {moment.isoformat()} has no time zone; add one, such as {moment.isoformat()}+00:00"
        raise RequestError(message)
    return (moment - _EPOCH) // _TICK


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type).dictionary_encode().cast(kind)
    return column.cast(kind)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


@contextmanager
def _connection(limits: Limits) -> Iterator[Any]:
    """Open a DuckDB of its own that spills into a folder which goes with it, and touches nothing else."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="lodestore-asof-", dir=limits.spill) as spill:
        config: dict[str, Any] = {
            "temp_directory": spill,
            "autoinstall_known_extensions": "false",
            "python_enable_replacements": "false",
        }
        config |= {} if limits.memory is None else {"memory_limit": limits.memory}
        config |= {} if limits.threads is None else {"threads": limits.threads}
        try:
            with duckdb.connect(":memory:", config=config) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                yield connection
        except duckdb.OutOfMemoryException as error:
            message = f"the join ran out of memory: {_first_line(error)}; raise Limits(memory=), or lower threads="
            raise StoreError(message) from error
        except duckdb.Error as error:
            message = f"the join could not run: {_first_line(error)}; check the types of the columns"
            raise RequestError(message) from error


def leaks(
    entities: pa.Table,
    history: History,
    joined: pa.Table,
    *,
    keys: tuple[str, ...],
    features: Mapping[str, str],
    ttl: timedelta | None = None,
    as_known_at: datetime | None = None,
    arrival: str | None = ARRIVAL,
    timestamp: str = EVENT,
) -> pa.Table:
    """Return the rows of `joined` that hold something else than was known at their time.

    Each row is computed again from what had happened and been created by then (`known_at="row"`).
    Beside each feature stands `OUTPUT (known)`, what should be there; `row` counts from 0. No rows
    means no leak. `joined` may come from anywhere, as long as it holds the entities in their order.
    The history is read again: give a table or a dataset, not a reader that is already spent.
    """
    _check_joined(entities, joined, keys, features, timestamp)
    known = join(
        entities,
        history,
        keys=keys,
        features=features,
        ttl=ttl,
        as_known_at=as_known_at,
        known_at="row",
        arrival=arrival,
        timestamp=timestamp,
    )
    rows = np.unique(np.concatenate([_changed(joined.column(one), known.column(one)) for one in features.values()]))
    found = joined.take(rows)
    for output in features.values():
        found = found.append_column(f"{output} (known)", known.column(output).take(rows))
    return found.add_column(0, "row", pa.array(rows))


def _check_joined(
    entities: pa.Table, joined: pa.Table, keys: Sequence[str], features: Mapping[str, str], timestamp: str
) -> None:
    for name in (*keys, timestamp, *features.values()):
        _type(joined.schema, name, "joined")
    for name in (*keys, timestamp):
        if entities.num_rows != joined.num_rows or _changed(entities.column(name), joined.column(name)).size:
            message = (
                f"joined has {joined.num_rows} rows, entities {entities.num_rows}, and their {name} must agree row by "
                "row; give the joined table in the order of the entities"
            )
            raise RequestError(message)


def _changed(left: pa.ChunkedArray, right: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the places where two columns differ; null is null, NaN is NaN, and nested values compare too."""
    row = pa.array(np.arange(len(left)))
    with _connection(Limits()) as connection:
        connection.register("joined", pa.table({"row": row, "value": left}))
        connection.register("known", pa.table({"row": row, "value": right}))
        changed = connection.sql(_CHANGED).to_arrow_table()
    return np.asarray(changed.column("row").to_numpy(), dtype=np.int64)


def assert_no_leak(
    entities: pa.Table,
    history: History,
    joined: pa.Table,
    *,
    keys: tuple[str, ...],
    features: Mapping[str, str],
    ttl: timedelta | None = None,
    as_known_at: datetime | None = None,
    arrival: str | None = ARRIVAL,
    timestamp: str = EVENT,
) -> None:
    """Raise AssertionError when `joined` holds what nobody could know at the time; see `leaks`.

    The message counts rows and names their places, never their values, which may be personal.
    """
    found = leaks(
        entities,
        history,
        joined,
        keys=keys,
        features=features,
        ttl=ttl,
        as_known_at=as_known_at,
        arrival=arrival,
        timestamp=timestamp,
    )
    if found.num_rows:
        rows = found.column("row").to_pylist()[:_SHOWN]
        message = (
            f"{found.num_rows} of {joined.num_rows} rows hold values that were not known at their time, such as rows "
            f'{rows} (from 0); leaks() shows them, join(known_at="row") avoids them'
        )
        raise AssertionError(message)


def history_from(table: pa.Table, *, timestamp: str = EVENT, created: str | None = None) -> pa.Table:
    """Make a history of any table: event_timestamp, created_timestamp, arrival, and its other columns.

    `timestamp` and `created` name the columns that hold the times, in any unit and zone. Without a
    created time a row is known from its event time on; without arrival the order of rows is it.
    """
    created = CREATED if created is None and CREATED in table.column_names else created
    event = _moments(table, timestamp)
    if event.null_count:
        message = f"history: {timestamp} is null in {event.null_count} rows; every row needs its event time"
        raise SourceError(message)
    known = event if created is None else pc.coalesce(_moments(table, created), event)
    rest = table.drop_columns([one for one in {timestamp, created, ARRIVAL} if one in table.column_names])
    clash = {EVENT, CREATED} & set(rest.column_names)
    if clash:
        message = f"history: {timestamp!r} would become {EVENT}, but {', '.join(sorted(clash))} is there; drop one"
        raise SourceError(message)
    arrived = table.column(ARRIVAL) if ARRIVAL in table.column_names else pa.array(np.arange(table.num_rows))
    return rest.append_column(EVENT, event).append_column(CREATED, known).append_column(ARRIVAL, arrived)


def _moments(table: pa.Table, name: str) -> pa.ChunkedArray:
    _check_moment(_type(table.schema, name, "history"), f"history: {name}")
    return _in_micros(table.column(name), f"history: {name}")
