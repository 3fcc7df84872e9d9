"""Features in use: history appended, newest values published, read back in the order that was asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore import events
from lodestore.catalog import Catalog
from lodestore.errors import RequestError, nearest
from lodestore.logs import Logs
from lodestore.online import (
    JournalEntry,
    Key,
    OnlineRow,
    OnlineStore,
    Status,
    columns_of,
    decode_payload,
    encode_columns,
    encode_payload,
    moment_of,
)
from lodestore.ports import Clock, OfflineStore
from lodestore.rows import MAX_AHEAD, check_rows
from lodestore.spec import FeatureRef, FeatureView, Kind, OnDemandView
from lodestore.tables import MOMENT, view_schema, view_table
from lodestore.wire import rfc3339

__all__ = ["Features", "Inputs", "OnlineAnswer", "Published", "Recorded"]

_MICROSECOND = timedelta(microseconds=1)
_ROWS_PER_STEP = 50_000


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of rows that were offered to a view's history."""

    view: str
    read: int
    added: int
    known: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a view's newest values online."""

    view: str
    keys: int
    written: int
    late: int
    removed: int = 0


@dataclass(frozen=True, slots=True)
class OnlineAnswer:
    """Columns in the order of the rows that were asked, keyed by full reference."""

    release: int
    columns: Mapping[str, list[Any]]
    statuses: Mapping[str, list[Status]]
    event_timestamps: Mapping[str, list[datetime | None]]
    stale: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The answer of `online`."""
        times = {
            name: [None if one is None else rfc3339(one) for one in column]
            for name, column in self.event_timestamps.items()
        }
        out: dict[str, Any] = {"release": self.release, "columns": self.columns}
        out |= {"statuses": self.statuses, "event_timestamps": times}
        return out | ({"stale": list(self.stale)} if self.stale else {})


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a view's compute function may read."""

    store: OfflineStore
    live_templates: pa.Table | None = field(default=None, repr=False)

    def documents(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The live documents."""
        return self.store.read("documents", columns)

    def history(self, view: FeatureView) -> pa.Table:
        """Every recorded row of another view."""
        return self.store.read(view_table(view))

    def templates(self) -> pa.Table:
        """The live prompt templates, one row each."""
        return pa.table({}) if self.live_templates is None else self.live_templates


class Features:
    """Histories in the system of record, newest values online."""

    def __init__(
        self, catalog: Catalog, offline: OfflineStore, online: OnlineStore, logs: Logs, clock: Clock
    ) -> None:
        self.catalog = catalog
        self._offline = offline
        self._online = online
        self._logs = logs
        self._clock = clock

    # -- offline

    def record(self, view: FeatureView, table: pa.Table) -> int:
        """Rows whose event id the history does not have are appended; returns how many."""
        name = view_table(view)
        self._offline.ensure(name, view_schema(view))
        table = _first_of_each(table)
        known = self._offline.read(name, ["event_id"])["event_id"]
        fresh = table.filter(pc.invert(pc.is_in(table["event_id"], known.combine_chunks())))
        self._offline.append(name, fresh)
        return fresh.num_rows

    def record_events(self, source: events.EventSource, *, root: Path) -> Recorded:
        """The source's new rows are in the history; bad ones are rejects and stop nothing else."""
        view = self.catalog.view(source.view)
        total = Recorded(view.name, 0, 0, 0)
        for file in events.files(source, root=root):
            mark = f"events/{source.name}/{file.path}"
            if self._mark(mark) == file.state:
                continue
            total = _sum(total, self._record_file(view, source, file.path))
            self._set_mark(mark, file.state)
        return total

    def _record_file(self, view: FeatureView, source: events.EventSource, path: Path) -> Recorded:
        good: list[Mapping[str, Any]] = []
        numbers: list[int] = []
        problems: list[str] = []
        for number, row in events.rows(source, path):
            if isinstance(row, str):
                problems.append(f"{path.name}, row {number}: {row}")
            else:
                good.append(row)
                numbers.append(number)
        found = check_rows(view, good, now=self._clock())
        problems += [f"{path.name}, row {numbers[one.row - 1]}: {one.what}" for one in found.problems]
        added = self.record(view, found.table)
        self._note_rejects(source.name, str(path), problems)
        return Recorded(view.name, len(numbers), added, found.table.num_rows - added, tuple(problems))

    def _note_rejects(self, source: str, uri: str, problems: Sequence[str]) -> None:
        from lodestore.corpus import reject

        self._logs.put_all("rejects", [reject(source, f"{uri}#{n}", "invalid_row", one) for n, one in enumerate(problems)])

    def compute(self, view: FeatureView, inputs: Inputs) -> Recorded:
        """What the view's function makes of its inputs is in the history, where it is new."""
        if view.compute is None:
            return Recorded(view.name, 0, 0, 0)
        made = view.compute(inputs)
        table = made if isinstance(made, pa.Table) else pa.Table.from_pandas(made, preserve_index=False)
        found = check_rows(view, table.to_pylist(), now=self._clock())
        added = self.record(view, found.table)
        problems = tuple(str(one) for one in found.problems)
        return Recorded(view.name, table.num_rows, added, found.table.num_rows - added, problems)

    # -- online

    def materialize(self, view: FeatureView, *, start: datetime | None = None, end: datetime | None = None) -> Published:
        """The newest value of each entity is online.

        Without bounds, only rows that came since the last time are looked at; with bounds, the
        rows whose events lie in [start, end).
        """
        name, namespace = view_table(view), _namespace(view)
        mark = f"materialize/{namespace}"
        bounded = start is not None or end is not None
        where = _between(start, end) if bounded else _since(self._mark(mark), self._online.count(namespace))
        if self._offline.count(name, where) == 0:
            return Published(view.name, self._online.count(namespace), 0, 0)
        newest, written, late = "", 0, 0
        for batch in self._offline.batches(name, None, where):
            table = pa.Table.from_batches([batch])
            step = self._publish(view, namespace, table)
            written, late = written + step[0], late + step[1]
            newest = max(newest, rfc3339(pc.max(table["ingested_at"]).as_py()))
        if not bounded:
            self._set_mark(mark, newest)
        return Published(view.name, self._online.count(namespace), written, late)

    def _publish(self, view: FeatureView, namespace: str, table: pa.Table) -> tuple[int, int]:
        keys = list(zip(*(table[key].to_pylist() for key in view.entity.keys), strict=True))
        stamps = [table[name].cast(pa.int64()).to_numpy() for name in ("event_timestamp", "created_timestamp")]
        payloads = encode_columns(table, list(view.stored))
        done = self._online.write_columns(namespace, keys, stamps[0], stamps[1], payloads)
        return done.accepted, done.late

    def withdraw(self, view: FeatureView, present: Iterable[Key]) -> int:
        """Keys that are no longer among `present` are no longer online; returns how many."""
        namespace, kept = _namespace(view), set(present)
        gone = [key for key, _ in self._online.scan(namespace) if key not in kept]
        return self._online.delete(namespace, gone) if gone else 0

    def online(
        self,
        refs: Sequence[str | FeatureRef],
        entities: Mapping[str, Sequence[str | int]],
        *,
        inputs: Mapping[str, Sequence[Any]] | None = None,
        release: int = 0,
    ) -> OnlineAnswer:
        """The features of these entities, row by row as asked; duplicates keep their places."""
        wanted = [one if isinstance(one, FeatureRef) else FeatureRef.parse(one) for one in refs]
        if not wanted:
            message = "no features were asked for; name some as VIEW:FEATURE"
            raise RequestError(message)
        for ref in wanted:
            self.catalog.check(ref)
        rows = _row_count(entities, inputs or {})
        read = self._read(_stored_refs(wanted, self.catalog), entities, rows)
        for ref in wanted:
            if ref.view in self.catalog.on_demand and str(ref) not in read.columns:
                self._on_demand(self.catalog.on_demand[ref.view], read, inputs or {}, rows)
        names = [str(ref) for ref in wanted]
        return OnlineAnswer(
            release,
            {**{key: list(values) for key, values in entities.items()}, **{name: read.columns[name] for name in names}},
            {name: read.statuses[name] for name in names},
            {name: read.times[name] for name in names},
        )

    def _read(self, refs: Sequence[FeatureRef], entities: Mapping[str, Sequence[Any]], rows: int) -> _Read:
        out = _Read({}, {}, {})
        now = _micros(self._clock())
        groups: dict[tuple[str, int | None], list[FeatureRef]] = {}
        for ref in refs:
            groups.setdefault((ref.view, ref.version), []).append(ref)
        for (name, version), members in groups.items():
            view = self.catalog.view(name, version)
            keys = _keys(view, entities, rows)
            stored = self._online.read(_namespace(view), keys)
            found = columns_of(stored, [one.feature for one in members], ttl=view.ttl, now_micros=now)
            times = [None if one is None else moment_of(one) for one in found.event_micros]
            for ref in members:
                out.columns[str(ref)] = found.columns[ref.feature]
                out.statuses[str(ref)] = found.statuses[ref.feature]
                out.times[str(ref)] = times
        return out

    def _on_demand(self, view: OnDemandView, read: _Read, inputs: Mapping[str, Sequence[Any]], rows: int) -> None:
        missing = [name for name in view.inputs if name not in inputs]
        if missing:
            message = f"{view.name} needs the request input {', '.join(missing)}{nearest(missing[0], inputs)}"
            raise RequestError(message)
        given = {ref.feature: read.columns[str(ref)] for ref in view.reads}
        given |= {name: list(inputs[name]) for name in view.inputs}
        made = [view.function(**{name: column[row] for name, column in given.items()}) for row in range(rows)]
        times = [_oldest([read.times[str(ref)][row] for ref in view.reads]) for row in range(rows)]
        for name in view.features:
            column = [one.get(name) for one in made]
            key = f"{view.name}:{name}"
            read.columns[key] = column
            read.statuses[key] = [Status.NULL if one is None else Status.PRESENT for one in column]
            read.times[key] = times

    # -- activity

    def seen(self, user_id: str, *, request_id: str, at: datetime) -> None:
        """One more question of this user is counted; the same request counts once."""
        view = self.catalog.latest.get("user_activity")
        if view is None:
            return
        (row,) = self._online.read(_namespace(view), [(user_id,)])
        (count,) = columns_of([row], ["session_queries_count"], ttl=view.ttl, now_micros=_micros(at)).columns.values()
        values = {"session_queries_count": (count[0] or 0) + 1, "last_active": at}
        stamp = _micros(at)
        event = OnlineRow(stamp, stamp, encode_payload(values), request_id.encode())
        self._online.write(_namespace(view), [((user_id,), event)], journal=True)

    def drain(self, *, limit: int = 10_000) -> int:
        """Journalled rows are in their histories, and only then gone from the journal; returns how many."""
        moved = 0
        while entries := self._online.journal_read(limit):
            by_view: dict[str, list[dict[str, Any]]] = {}
            for entry in entries:
                by_view.setdefault(entry.namespace, []).append(self._journal_row(entry))
            for namespace, rows in by_view.items():
                name, version = namespace.split("@")
                view = self.catalog.view(name, int(version))
                self.record(view, check_rows(view, rows, now=self._clock()).table)
            self._online.journal_ack(entries[-1].sequence)
            moved += len(entries)
        return moved

    def _journal_row(self, entry: JournalEntry) -> dict[str, Any]:
        name, version = entry.namespace.split("@")
        view = self.catalog.view(name, int(version))
        times = {"event_timestamp": moment_of(entry.row.event_micros), "created_timestamp": moment_of(entry.row.created_micros)}
        event = {} if entry.row.event_id is None else {"event_id": entry.row.event_id.decode()}
        return {**dict(zip(view.entity.keys, entry.key, strict=True)), **times, **event, **decode_payload(entry.row.payload)}

    # -- marks

    def _mark(self, name: str) -> str | None:
        row = self._logs.last("watermarks", f"name = '{name.replace(chr(39), chr(39) * 2)}'")
        return None if row is None else str(row["value"])

    def _set_mark(self, name: str, value: str) -> None:
        self._logs.put("watermarks", {"name": name, "value": value})

    # -- figures

    def figures(self) -> list[dict[str, Any]]:
        """Each view with its rows, entities, newest event and state."""
        return [self._figures(view) for view in self.catalog.latest.values()]

    def age(self, view: FeatureView) -> timedelta | None:
        """How long ago the view's newest event was; None without rows."""
        times = self._offline.read(view_table(view), ["event_timestamp"])["event_timestamp"]
        return self._clock() - pc.max(times).as_py() if len(times) else None

    def _figures(self, view: FeatureView) -> dict[str, Any]:
        table = self._offline.read(view_table(view), [*view.entity.keys, "event_timestamp"])
        latest = pc.max(table["event_timestamp"]).as_py() if table.num_rows else None
        state = "empty" if latest is None else "fresh"
        if latest is not None and view.fresh_within is not None and self._clock() - latest > view.fresh_within:
            state = "stale"
        entities = table.group_by(list(view.entity.keys)).aggregate([]).num_rows if table.num_rows else 0
        return {
            "name": view.name,
            "entity": view.entity.name,
            "rows": table.num_rows,
            "entities": entities,
            "latest_event": None if latest is None else rfc3339(latest),
            "state": state,
        }


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Read:
    columns: dict[str, list[Any]]
    statuses: dict[str, list[Status]]
    times: dict[str, list[datetime | None]]


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _sum(one: Recorded, other: Recorded) -> Recorded:
    counts = (one.read + other.read, one.added + other.added, one.known + other.known)
    return Recorded(one.view, *counts, problems=one.problems + other.problems)


def _first_of_each(table: pa.Table) -> pa.Table:
    """One row per event id: the first, in the order of arrival."""
    numbered = table.append_column("place", pa.array(np.arange(table.num_rows)))
    first = numbered.group_by("event_id").aggregate([("place", "min")])["place_min"]
    return table.take(first.combine_chunks().sort())


def _namespace(view: FeatureView) -> str:
    return f"{view.name}@{view.version}"


def _between(start: datetime | None, end: datetime | None) -> str:
    bounds = []
    if start is not None:
        bounds.append(f"event_timestamp >= {_literal(start)}")
    if end is not None:
        bounds.append(f"event_timestamp < {_literal(end)}")
    return " AND ".join(bounds)


def _since(mark: str | None, online_rows: int) -> str | None:
    """Everything when nothing is online yet: online rows are rebuilt from the history at any time."""
    if mark is None or online_rows == 0:
        return None
    return f"ingested_at > {_literal(datetime.fromisoformat(mark))}"


def _literal(moment: datetime) -> str:
    return f"timestamp '{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"


def _stored_refs(wanted: Sequence[FeatureRef], catalog: Catalog) -> list[FeatureRef]:
    """The stored features behind these: their own, and what on-demand views read."""
    refs: dict[FeatureRef, None] = {}
    for ref in wanted:
        view = catalog.on_demand.get(ref.view)
        refs |= dict.fromkeys(view.reads if view else (ref,))
    return list(refs)


def _row_count(entities: Mapping[str, Sequence[Any]], inputs: Mapping[str, Sequence[Any]]) -> int:
    lengths = {f"entities.{name}": len(values) for name, values in entities.items()}
    lengths |= {f"inputs.{name}": len(values) for name, values in inputs.items()}
    if not lengths or len(set(lengths.values())) != 1:
        shown = ", ".join(f"{name} has {n}" for name, n in lengths.items()) or "none were given"
        message = f"entities and inputs are aligned row by row: {shown}"
        raise RequestError(message)
    return next(iter(lengths.values()))


def _keys(view: FeatureView, entities: Mapping[str, Sequence[Any]], rows: int) -> list[Key]:
    columns = []
    for key, kind in zip(view.entity.keys, view.entity.types, strict=True):
        if key not in entities:
            message = f"{view.name} needs the key {key!r}{nearest(key, entities)}"
            raise RequestError(message)
        wanted = str if kind == "string" else int
        for value in entities[key]:
            if not isinstance(value, wanted) or isinstance(value, bool):
                message = f"key {key} is {value!r}, a {type(value).__name__}; {view.entity.name} is keyed by {kind}"
                raise RequestError(message)
        columns.append(entities[key])
    return list(zip(*columns, strict=True)) if columns else [()] * rows


def _oldest(times: Sequence[datetime | None]) -> datetime | None:
    known = [one for one in times if one is not None]
    return min(known) if known else None
