"""Features in use: history appended, newest values published, read back in the order that was asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore import declarations, events, ondemand, skew
from lodestore.bulk import undisturbed
from lodestore.catalog import Catalog
from lodestore.columns import columns_of, oldest_of
from lodestore.errors import DamagedRowError, DeclarationError, RequestError, SourceError, StoreError, UnknownViewError
from lodestore.inputs import Inputs
from lodestore.locks import Locks
from lodestore.logs import Logs, utc_now
from lodestore.models import EmbeddingVersion
from lodestore.moments import micros_of, moment_of, text_of
from lodestore.online import JournalEntry, Key, OnlineRow, OnlineStore, Status, Written, encode_key_columns
from lodestore.payloads import decode_payload, encode_columns, encode_payload
from lodestore.plans import Group, Plan, Vectors, encoded_keys, keys_of, plan_of, refuse_foreign
from lodestore.ports import Clock, OfflineStore
from lodestore.push import JOURNAL_LIMIT, note_newest, push, refuse_overflow
from lodestore.releases import NOTHING, Release, ReleaseLog
from lodestore.rows import check_rows
from lodestore.spaces import (
    FOLLOWED,
    Question,
    Spaces,
    Vector,
    check_vectors,
    identified,
    of_questions,
    versions_of,
)
from lodestore.spec import FeatureRef, FeatureView, OnDemandView
from lodestore.tables import RESTORING, quoted, view_schema, view_table
from lodestore.wire import digest, dumps, jsonable, rfc3339

__all__ = ["Features", "Inputs", "OnlineAnswer", "Published", "Recorded"]

_log = logging.getLogger("lodestore.features")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LOOKED_UP_FOR = 1_000_000
_MADE = tuple.__new__
_T = TypeVar("_T")
# For how long pushes leave the system of record alone once it did not answer.
_PAUSE = timedelta(seconds=10)
# The most rows that are held in memory at once.
_ROWS_PER_STEP = 50_000
# Why a row is in the log of rejects, which documents share, and that it no longer is.
_REJECTED = "invalid_row"
_RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of rows that were offered to a view's history; `due` is when the first early one can be offered again."""

    view: str
    read: int
    added: int
    known: int
    problems: tuple[str, ...] = ()
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a view's newest values online."""

    view: str
    keys: int
    written: int
    late: int
    removed: int = 0


class OnlineAnswer(NamedTuple):
    """Columns in the order of the rows that were asked, keyed by full reference."""

    release: int
    columns: Mapping[str, Sequence[Any]]
    statuses: Mapping[str, list[Status]]
    event_micros: Mapping[str, list[int | None]]
    stale: tuple[str, ...] = ()
    wide: frozenset[str] = frozenset()

    @property
    def event_timestamps(self) -> dict[str, list[datetime | None]]:
        """When each value became true, in UTC; features of one view share their list."""
        return _each_once(self.event_micros, moment_of)

    @property
    def event_texts(self) -> dict[str, list[str | None]]:
        """The same as RFC 3339 text."""
        return _each_once(self.event_micros, text_of)

    def to_json(self) -> dict[str, Any]:
        """The answer of `online`, in JSON types: moments as RFC 3339, integers declared wide as text."""
        columns = {name: self._column(name) for name in self.columns}
        out: dict[str, Any] = {"release": self.release, "columns": columns}
        out |= {"statuses": jsonable(self.statuses), "event_timestamps": self.event_texts}
        return out | ({"stale": list(self.stale)} if self.stale else {})

    def _column(self, name: str) -> object:
        column = self.columns[name]
        return [None if one is None else str(one) for one in column] if name in self.wide else jsonable(column)


def _each_once(columns: Mapping[str, list[int | None]], made_of: Callable[[int], _T]) -> dict[str, list[_T | None]]:
    """What is made of each number, column by column; what columns share is made once."""
    made: dict[int, list[_T | None]] = {}
    out = {}
    for name, column in columns.items():
        found = made.get(id(column))
        if found is None:
            found = made[id(column)] = [None if one is None else made_of(one) for one in column]
        out[name] = found
    return out


Fetch: TypeAlias = Callable[[str, Sequence[bytes]], list[bytes | None]]
"""Gives stored rows of a namespace by their encoded keys, as an online store does."""


class Features:
    """Histories in the system of record, newest values online."""

    def __init__(
        self,
        catalog: Catalog,
        offline: OfflineStore,
        online: OnlineStore,
        logs: Logs,
        clock: Clock,
        *,
        locks: Locks | None = None,
        journal_limit: int = JOURNAL_LIMIT,
        skew_every: int = skew.EVERY,
    ) -> None:
        self.catalog = catalog
        self._offline = offline
        self._online = online
        self._logs = logs
        self._clock = clock
        self._micros = _ticking(clock)
        self._locks = locks
        self._journal_limit = journal_limit
        self._agreed: list[FeatureView] = []
        self._ask_again = _EPOCH
        self._skew_every = skew_every
        self._reads = 0
        self._newest: dict[str, tuple[int, int]] = {}
        self._spaces = Spaces(catalog, offline, online, logs, clock)
        # A release never changes, so that what is to be read for a list of references is found once.
        self._plan: Callable[[tuple[str | FeatureRef, ...], int], Plan] = lru_cache(1_024)(self._planned)

    def _planned(self, refs: tuple[str | FeatureRef, ...], generation: int) -> Plan:
        _check_references(refs)
        release = self._release(generation)
        return plan_of(self.catalog_for(refs, release.views), refs, release)

    def _plan_of(self, refs: Sequence[str | FeatureRef], generation: int) -> Plan:
        if type(refs) is not list:
            _check_references(refs)
        try:
            return self._plan(tuple(refs), generation)
        except TypeError:  # what cannot be looked up
            _check_references(refs)
            raise

    def catalog_for(self, refs: Sequence[str | FeatureRef], live: Mapping[str, int]) -> Catalog:
        """The catalog; with the versions that the store remembers, where one is asked for that is not declared."""
        parsed = [one if isinstance(one, FeatureRef) else FeatureRef.parse(one) for one in refs]
        versions = {(one.view, one.version or live.get(one.view, 0)) for one in parsed}
        declared = {(name, version) in self.catalog.views for name, version in versions if version}
        return self.catalog if all(declared) else declarations.complete(self.catalog, self._logs)

    def _agree(self, view: FeatureView) -> None:
        """The store knows the view's declaration, and nothing that it promised is broken; asked once."""
        if view not in self._agreed:
            declarations.agree(view, self._logs)
            self._agreed.append(view)

    def _release(self, generation: int) -> Release:
        """The release of that generation; 0, or one that nobody made, decides nothing."""
        if not generation:
            return NOTHING
        history = ReleaseLog(self._logs, self._clock).history()
        return next((one for one in history if one.generation == generation), NOTHING)

    # -- offline

    def record(self, view: FeatureView, table: pa.Table) -> int:
        """Rows whose event id the history does not have are appended; returns how many."""
        name = view_table(view)
        self._agree(view)
        self._offline.ensure(name, view_schema(view), key="event_id")
        if not table.num_rows:
            return 0
        table = _first_of_each(table)
        # The time of arrival is that of the insertion, not of the check: see `_news`.
        place = table.schema.get_field_index("ingested_at")
        arrived = pa.array([self._clock()] * table.num_rows, table.schema.field(place).type)
        return self._offline.insert(name, table.set_column(place, table.schema.field(place), arrived), key="event_id")

    def record_events(self, source: events.EventSource, *, root: Path) -> Recorded:
        """The source's new rows are in the history; bad ones are rejects and stop nothing else.

        A file is read again when it changes, or when what is made of it does: the source's columns,
        the view's version or its features, or when a row that lay in the future no longer does.
        """
        view = self.catalog.view(source.view)
        total = Recorded(view.name, 0, 0, 0)
        found = events.files(source, root=root)
        rejects: dict[str, dict[int, str]] = {}
        for file in found:
            mark = f"events/{source.name}/{view.namespace}/{file.path}"
            state = digest([file.state, source.reading, _shape(view)])
            if self._is_read(mark, state):
                continue
            step, readable = self._record_file(view, source, file.path, rejects.setdefault(str(file.path), {}))
            total = _sum(total, step)
            self._note_rejects(source.name, {str(file.path): rejects[str(file.path)]})
            if readable:
                self._set_mark(mark, state if step.due is None else f"{state} {micros_of(step.due)}")
        self._forget_rejects(source.name, {str(file.path) for file in found})
        return total

    def _is_read(self, mark: str, state: str) -> bool:
        """Whether the file was read in this state, and no row of it waited for a time that has come."""
        known, _, due = (self._mark(mark) or "").partition(" ")
        return known == state and (not due or micros_of(self._clock()) < int(due))

    def _record_file(
        self, view: FeatureView, source: events.EventSource, path: Path, rejects: dict[int, str]
    ) -> tuple[Recorded, bool]:
        total = Recorded(view.name, 0, 0, 0)
        numbered = events.rows(source, path)
        try:
            while step := list(islice(numbered, _ROWS_PER_STEP)):
                total = _sum(total, self._record_step(view, step, rejects))
        except SourceError as error:
            rejects[0] = str(error)
            return _with_problems(total, path.name, rejects), False
        return _with_problems(total, path.name, rejects), True

    def _record_step(
        self,
        view: FeatureView,
        step: Sequence[tuple[int, Mapping[str, Any] | str]],
        rejects: dict[int, str],
    ) -> Recorded:
        """The good rows are in the history, the others in `rejects` under their lines."""
        rejects |= {line: row for line, row in step if isinstance(row, str)}
        lines = [line for line, row in step if not isinstance(row, str)]
        rows: list[Any] = [identified(view, row) for _, row in step if not isinstance(row, str)]
        found = check_rows(view, rows, now=self._clock())
        vectors, wrong = check_vectors(view, rows, lambda: versions_of(self._logs)) if view.embeddings else ({}, {})
        for row, what in [*((one.row, one.what) for one in found.problems), *_each(wrong)]:
            line = lines[row - 1]
            rejects[line] = f"{rejects[line]}; {what}" if line in rejects else what
        bad = {one.row for one in found.problems}
        offered = [row for row in range(1, len(rows) + 1) if row not in bad]
        kept = [at for at, row in enumerate(offered) if row not in wrong]
        table = found.table.take(pa.array(kept, pa.int64())) if wrong else found.table
        # Vectors come first: a crash in between offers both again, and both are known by their event ids.
        place = {offered[at] - 1: new for new, at in enumerate(kept)} if vectors else {}
        for feature, column in vectors.items():
            self._spaces.record(view, feature, table, [(place[at], one) for at, one in column if at in place])
        added = self.record(view, table)
        return Recorded(view.name, len(step), added, table.num_rows - added, due=found.due)

    def compute(self, view: FeatureView, inputs: Inputs) -> Recorded:
        """What the view's function makes of its inputs is in the history, where it is new."""
        if view.compute is None:
            return Recorded(view.name, 0, 0, 0)
        table = _computed(view, view.compute(inputs))
        rejects: dict[int, str] = {}
        total = Recorded(view.name, 0, 0, 0)
        for start in range(0, table.num_rows, _ROWS_PER_STEP):
            piece = table.slice(start, _ROWS_PER_STEP).to_pylist()
            total = _sum(total, self._record_step(view, list(enumerate(piece, start + 1)), rejects))
        self.record(view, view_schema(view).empty_table())
        self._note_rejects(f"view:{view.name}", {view.name: rejects})
        return _with_problems(total, view.name, rejects, word="row")

    # -- rejects

    def turned_away(self, view: FeatureView, sources: Iterable[str]) -> dict[str, str]:
        """Where rows of the view are turned away today, with the reason: of these event files, and computed ones."""
        names = [*sources, f"view:{view.name}"]
        return {uri: why for name in names for uri, why in self._open_rejects(name).items()}

    def _open_rejects(self, source: str) -> dict[str, str]:
        """Where rows of this source are turned away today, with the reason; `uri#line`."""
        latest = {str(row["uri"]): row for row in self._logs.rows("rejects", f"source = {quoted(source)}")}
        return {uri: str(row["detail"]) for uri, row in latest.items() if row["reason"] != _RESOLVED}

    def _note_rejects(self, source: str, found: Mapping[str, Mapping[int, str]]) -> None:
        """The rejects of these files are exactly the found ones; what was mended is resolved."""
        known = {uri: why for uri, why in self._open_rejects(source).items() if uri.rpartition("#")[0] in found}
        now = {f"{uri}#{line}": why for uri, lines in found.items() for line, why in lines.items()}
        self._reject(source, {uri: why for uri, why in now.items() if known.get(uri) != why}, set(known) - set(now))

    def _forget_rejects(self, source: str, present: set[str]) -> None:
        """Files that are gone reject nothing."""
        known = self._open_rejects(source)
        self._reject(source, {}, {uri for uri in known if uri.rpartition("#")[0] not in present})

    def _reject(self, source: str, bad: Mapping[str, str], resolved: Iterable[str]) -> None:
        rows = [_reject_row(source, uri, _REJECTED, why) for uri, why in bad.items()]
        self._logs.put_all("rejects", rows + [_reject_row(source, uri, _RESOLVED, "") for uri in sorted(resolved)])

    # -- online

    def materialize(
        self, view: FeatureView, *, start: datetime | None = None, end: datetime | None = None
    ) -> Published:
        """The newest value of each entity is online.

        Without bounds, only rows that came since the last time are looked at; with bounds, the
        rows whose events lie in [start, end).
        """
        namespace = view.namespace
        if start is not None or end is not None:
            written, late = self._publish(view, _between(start, end))
        else:
            written, late = self._publish_news(view)
        return Published(view.name, self._online.count(namespace), written, late)

    def _publish_news(self, view: FeatureView) -> tuple[int, int]:
        mark = f"materialized/{view.namespace}"
        news = self._news(view_table(view), self._published(view, mark))
        if news is None:
            return 0, 0
        where, until, rows = news
        done = self._publish(view, where)
        self._online.set_meta(mark, f"{micros_of(until)} {rows}".encode())
        return done

    def _published(self, view: FeatureView, mark: str) -> tuple[datetime, int] | None:
        """Up to which arrival the history is online, and how many rows it had up to there.

        The mark lies beside the rows that it speaks of: a store that was emptied or replaced has none.
        """
        found = self._online.get_meta(mark)
        if found is None or next(self._online.scan(view.namespace), None) is None:
            return None
        micros, rows = found.decode().split()
        return moment_of(int(micros)), int(rows)

    def _news(self, name: str, published: tuple[datetime, int] | None) -> tuple[str, datetime, int] | None:
        """A condition for what came since, up to which arrival, and how many rows there are up to that.

        Arrivals are no sequence: a slow writer's rows can come after the mark with a time before it, or
        with the same. Then the history has another number of rows up to the mark than it had, and all of
        it is news: publishing twice changes nothing. Rows are counted before they are read, so that one
        that comes in between is looked at next time.
        """
        since = None
        if (
            published is not None
            and self._offline.count(name, f"ingested_at <= {_literal(published[0])}") == published[1]
        ):
            since = f"ingested_at > {_literal(published[0])}"
        if self._offline.count(name, since) == 0:
            return None
        arrivals = (
            pc.max(batch["ingested_at"]).as_py() for batch in self._offline.batches(name, ["ingested_at"], since)
        )
        until = max(one for one in arrivals if one is not None)
        upto = f"ingested_at <= {_literal(until)}"
        return (f"{since} AND {upto}" if since else upto), until, self._offline.count(name, upto)

    def _publish(self, view: FeatureView, where: str) -> tuple[int, int]:
        name, keys = view_table(view), list(view.entity.keys)
        written = late = 0
        if self._offline.count(name, where) == 0:
            return 0, 0
        columns = [*keys, "event_timestamp", "created_timestamp", *(one.name for one in view.stored)]
        for table in _steps(self._offline.batches(name, columns, where)):
            with undisturbed():
                done = self._publish_step(view, _newest_of_each(table, keys))
            written, late = written + done[0], late + done[1]
        return written, late

    def _publish_step(self, view: FeatureView, table: pa.Table) -> tuple[int, int]:
        keys = encode_key_columns([table[key].combine_chunks() for key in view.entity.keys])
        stamps = [table[name].cast(pa.int64()).to_numpy() for name in ("event_timestamp", "created_timestamp")]
        payloads = encode_columns(table, list(view.stored))
        done = self._online.write_columns(view.namespace, keys, stamps[0], stamps[1], payloads)
        note_newest(self._online, view.namespace, int(stamps[0].max()))
        return done.accepted, done.late

    def withdraw(self, view: FeatureView, present: Iterable[Key]) -> int:
        """Keys that are no longer among `present` are no longer online; returns how many."""
        namespace, kept = view.namespace, set(present)
        gone = [key for key, _ in self._online.scan(namespace) if key not in kept]
        return self._online.delete(namespace, gone) if gone else 0

    def online(
        self,
        refs: Sequence[str | FeatureRef],
        entities: Mapping[str, Sequence[str | int]],
        *,
        inputs: Mapping[str, Sequence[Any]] | None = None,
        release: int = 0,
        fetch: Fetch | None = None,
    ) -> OnlineAnswer:
        """The features of these entities, row by row as asked; duplicates keep their places.

        `fetch` reads in place of the online store: one that has just read what many ask for (`wanted`).
        """
        plan = self._plan_of(refs, release)
        now = self._micros()
        self._reads += 1
        sampled = self._skew_every and self._reads % self._skew_every == 0
        read = fetch or self._online.fetch
        alone = plan.alone
        if alone is not None and not inputs and not sampled:
            keys = alone.keys(entities)
            if keys is not None:
                stored = read(alone.namespace, keys)
                columns, statuses, micros = columns_of(stored, alone.wanted, oldest_of(alone.view.ttl, now))
                stale = self._stale(plan, now) if plan.clocks else ()
                moments = dict.fromkeys(statuses, micros)
                # Made in the way that costs the least.
                return _MADE(OnlineAnswer, (release, {**entities, **columns}, statuses, moments, stale, plan.wide))
        return self._of_many_views(plan, entities, inputs, now, release, read, sampled=bool(sampled))

    def _of_many_views(
        self,
        plan: Plan,
        entities: Mapping[str, Sequence[str | int]],
        inputs: Mapping[str, Sequence[Any]] | None,
        now: int,
        release: int,
        fetch: Fetch,
        *,
        sampled: bool,
    ) -> OnlineAnswer:
        _check_mapping("entities", entities, '{"user_id": ["u1"]}')
        if inputs:
            _check_mapping("inputs", inputs, '{"query_text": ["..."]}')
        asked = {key: _listed(f"entities.{key}", values) for key, values in entities.items()}
        given = {name: _listed(f"inputs.{name}", values) for name, values in inputs.items()} if inputs else {}
        rows = _row_count(asked, given)
        read = _Read({}, {}, {})
        for group in plan.groups:
            self._read(group, asked, now, read, fetch)
        for vector in plan.vectors:
            self._read_vectors(vector, asked, now, read, fetch)
        if sampled and rows and plan.groups:
            self._sample(plan.groups[self._reads // self._skew_every % len(plan.groups)], asked, now, read)
        for view in plan.on_demand:
            _compute_on_demand(view, plan, read, given, rows)
        if not (asked.keys() <= plan.known_keys and given.keys() <= plan.known_inputs):
            refuse_foreign(plan, asked, given)
        return OnlineAnswer(
            release,
            {**asked, **{name: read.columns[key] for name, key in plan.outputs}},
            {name: read.statuses[key] for name, key in plan.outputs},
            {name: read.micros[key] for name, key in plan.outputs},
            stale=self._stale(plan, now),
            wide=plan.wide,
        )

    def whole_keys(self, refs: Sequence[str | FeatureRef], *, release: int = 0) -> frozenset[str]:
        """The keys that are whole numbers in all views that these references read."""
        return self._plan_of(refs, release).whole_keys

    def wanted(
        self, refs: Sequence[str | FeatureRef], entities: Mapping[str, Sequence[str | int]], *, release: int = 0
    ) -> dict[str, list[bytes]]:
        """The encoded keys, by namespace, that `online` reads for these references and entities."""
        plan = self._plan_of(refs, release)
        asked = {key: _listed(f"entities.{key}", values) for key, values in entities.items()}
        _row_count(asked, {})
        keys = {group.namespace: encoded_keys(group.view, asked) for group in plan.groups}
        return keys | {
            one.namespace: encoded_keys(one.view, asked) for one in plan.vectors if one.namespace is not None
        }

    def _stale(self, plan: Plan, now: int) -> tuple[str, ...]:
        """The references whose view has had no event for longer than it promises."""
        late = []
        for place, limit in plan.clocks:
            known = self._newest.get(place)
            if known is None or not 0 <= now - known[0] < _LOOKED_UP_FOR:
                known = self._looked_up(place, now)
            if now - known[1] > limit:
                late.append(place)
        return tuple(name for name, key in plan.outputs if key.rpartition(":")[0] in late) if late else ()

    def _looked_up(self, place: str, now: int) -> tuple[int, int]:
        """The present, and when the newest event of the namespace happened; unknown counts as now."""
        found = self._online.get_meta(f"newest/{place}")
        known = self._newest[place] = (now, now if found is None else int(found))
        return known

    def ages(self) -> dict[str, float]:
        """For each namespace that was read: seconds since its newest event, as far as it was looked up."""
        now = self._micros()
        return {place: (now - event) / 1_000_000 for place, (_, event) in sorted(self._newest.copy().items())}

    def _read(self, group: Group, entities: Mapping[str, Sequence[Any]], now: int, out: _Read, fetch: Fetch) -> None:
        stored = fetch(group.namespace, encoded_keys(group.view, entities))
        columns, statuses, micros = columns_of(stored, group.wanted, oldest_of(group.view.ttl, now))
        out.columns.update(columns)
        out.statuses.update(statuses)
        out.micros.update(dict.fromkeys(columns, micros))

    def _sample(self, group: Group, entities: Mapping[str, Sequence[Any]], now: int, read: _Read) -> None:
        """What the first row was answered is kept, for the comparison with the history."""
        (key, *_) = keys_of(group.view, entities)
        values = {name: read.columns[column][0] for column, name in group.wanted}
        skew.note(self._online, group.view, key, values, micros=now)

    def _read_vectors(
        self, group: Vectors, entities: Mapping[str, Sequence[Any]], now: int, out: _Read, fetch: Fetch
    ) -> None:
        """The vectors of the live version; where only another one made any, the status says so and nothing comes."""
        keys = encoded_keys(group.view, entities)
        stored = [None] * len(keys) if group.namespace is None else fetch(group.namespace, keys)
        wanted = ((group.key, group.feature),)
        columns, statuses, micros = columns_of(stored, wanted, oldest_of(group.view.ttl, now))
        missing = [at for at, one in enumerate(stored) if one is None]
        if missing:
            elsewhere = self._of_other_versions(group, [keys[at] for at in missing])
            for at, there in zip(missing, elsewhere, strict=True):
                statuses[group.key][at] = Status.OTHER_VERSION if there else Status.NOT_FOUND
        out.columns.update(columns)
        out.statuses.update(statuses)
        out.micros[group.key] = micros

    def _of_other_versions(self, group: Vectors, keys: Sequence[bytes]) -> list[bool]:
        others = [one for one in self._online.namespaces() if one.startswith(group.prefix) and one != group.namespace]
        rows = [self._online.fetch(one, keys) for one in others]
        return [any(column[at] is not None for column in rows) for at in range(len(keys))]

    # -- pushed rows

    def push(self, view: str, rows: Iterable[Mapping[str, Any]] | pa.Table) -> Written:
        """The rows are visible to the next read of every process; when one of them is bad, none is."""
        declared = self.catalog.pinned(view)
        # Asked first: while the system of record is away the comparison takes seconds, a refusal should not.
        refuse_overflow(declared, self._online, self._journal_limit)
        self._compare(declared)
        return push(declared, rows, self._online, now=self._clock(), versions=lambda: versions_of(self._logs))

    def _compare(self, view: FeatureView) -> None:
        """The declaration breaks no promise, as far as the system of record can be asked.

        While it is away the journal takes the rows, draining asks again, and pushes ask only now and then.
        """
        now = self._clock()
        if view not in self._agreed and now >= self._ask_again:
            try:
                self._agree(view)
            except StoreError:
                self._ask_again = now + _PAUSE
                _log.warning("the declaration of %s could not be compared with the stored one", view.name)

    # -- activity

    def seen(
        self,
        user_id: str,
        *,
        request_id: str,
        at: datetime,
        query_vector: np.ndarray | None = None,
        version: EmbeddingVersion | None = None,
        query_text: str | None = None,
        own_vectors: Mapping[str, Vector] = MappingProxyType({}),
    ) -> None:
        """One more question of this user is counted; the same request counts once.

        What else the view says about the user stays as it was, as long as it has not expired. A vector,
        with the version that made it, becomes the user's last one and part of the mean of all of them.
        Where the text is given it is kept with the vector, so that another model can embed it again.
        `own_vectors` are those of spaces that have a model of their own, by space.
        """
        view = self.catalog.latest.get("user_activity")
        if view is None or len(view.entity.keys) != 1:
            return
        # A request id is only as unique as its client makes it: two users may send the same.
        event_id = digest([user_id, request_id]).encode()
        stamp = micros_of(at)

        def counted(before: OnlineRow | None) -> OnlineRow:
            return _one_more(view, before, at=at, event_id=event_id)

        self._online.change(view.namespace, (user_id,), counted)
        note_newest(self._online, view.namespace, stamp)
        shared = None if query_vector is None or version is None else Vector(version, query_vector)
        for space in of_questions(view):
            vector = own_vectors.get(space, shared)
            if vector is not None:
                question = Question(vector.values, vector.version, query_text, space)
                self._spaces.ask(view, (user_id,), question, event_id=event_id, at=at)

    @property
    def question_spaces(self) -> frozenset[str]:
        """The spaces other than the content's in which the questions of users are noted."""
        view = self.catalog.latest.get("user_activity")
        return frozenset(of_questions(view) if view is not None else ()) - {FOLLOWED}

    def drain(self, *, limit: int = 10_000) -> int:
        """Journalled rows are in their histories, and only then gone from the journal; returns how many.

        Rows that no longer fit their view are rejects. Rows of a view that nobody knows stay in the journal,
        with those behind them, and an error names the view. One process drains at a time; the others wait for it.
        """
        with self._locks.hold("drain", "draining the journal") if self._locks else nullcontext():
            return self._drain(limit)

    def _drain(self, limit: int) -> int:
        if self._offline.names(RESTORING):
            message = "the store is being restored, or that was interrupted; pushed rows wait in the journal until it is whole"
            raise StoreError(message)
        moved = 0
        while entries := self._online.journal_read(limit):
            waiting = self._drain_step(entries)
            # The journal ends at a sequence: what lies behind a row that waits is offered again, and known by its event id.
            first = next((at for at, one in enumerate(entries) if one.namespace in waiting), len(entries))
            if first:
                self._online.journal_ack(entries[first - 1].sequence)
            if waiting:
                known = [view.namespace for view in self.catalog.views.values()]
                note = "; journalled rows wait for it: declare it again until they are drained"
                raise UnknownViewError(waiting[0], known, note=note)
            moved += len(entries)
            if len(entries) < limit:
                break
        return moved

    def _drain_step(self, entries: Sequence[JournalEntry]) -> list[str]:
        """The entries are in their histories, except for those of the returned namespaces."""
        views = {view.namespace: view for view in self.catalog.views.values()}
        if any(one.namespace not in views and "/" not in one.namespace for one in entries):
            older = declarations.complete(self.catalog, self._logs).views.values()
            views = {**{view.namespace: view for view in older}, **views}
        grouped: dict[str, list[JournalEntry]] = {}
        for entry in entries:
            grouped.setdefault(entry.namespace, []).append(entry)
        waiting = []
        for place, members in grouped.items():
            if place in views:
                self._drain_view(views[place], members)
            elif "/" not in place or not self._spaces.drain(place, members):
                waiting.append(place)
        return sorted(waiting)

    def _drain_view(self, view: FeatureView, entries: Sequence[JournalEntry]) -> None:
        bad: dict[str, str] = {}
        rows, places = [], []
        for one in entries:
            try:
                rows.append(_journal_row(view, one))
                places.append(f"{view.namespace}#{one.sequence}")
            except DamagedRowError as error:  # one that cannot be read holds up no other
                bad[f"{view.namespace}#{one.sequence}"] = str(error)
        found = check_rows(view, rows, now=self._clock())
        self.record(view, found.table)
        for problem in found.problems:
            uri = places[problem.row - 1]
            # The row is nowhere else: what is not personal of it is kept with the reason.
            bad[uri] = bad[uri] if uri in bad else f"{problem.what}; row: {_public(view, rows[problem.row - 1])}"
        self._reject("journal", bad, ())

    # -- marks

    def _mark(self, name: str) -> str | None:
        row = self._logs.last("watermarks", f"name = {quoted(name)}")
        return None if row is None else str(row["value"])

    def _set_mark(self, name: str, value: str) -> None:
        self._logs.put("watermarks", {"name": name, "value": value})

    # -- figures

    def figures(self) -> list[dict[str, Any]]:
        """Each view with its rows, entities, newest event and state."""
        return [self.figures_of(view) for view in self.catalog.latest.values()]

    def age(self, view: FeatureView) -> timedelta | None:
        """How long ago the view's newest event was; None without rows."""
        times = self._offline.read(view_table(view), ["event_timestamp"])["event_timestamp"]
        return self._clock() - pc.max(times).as_py() if len(times) else None

    def figures_of(self, view: FeatureView) -> dict[str, Any]:
        """One version of a view with its rows, entities, newest event and state."""
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


class _Read(NamedTuple):
    """What was read, by namespace and feature."""

    columns: dict[str, list[Any]]
    statuses: dict[str, list[Status]]
    micros: dict[str, list[int | None]]


def _ticking(clock: Clock) -> Callable[[], int]:
    """The present in microseconds; the machine's own clock is asked without the detour by a datetime."""
    return (lambda: time.time_ns() // 1_000) if clock is utc_now else (lambda: micros_of(clock()))


def _check_references(refs: object) -> None:
    if (
        isinstance(refs, str)
        or not isinstance(refs, Iterable)
        or not all(isinstance(one, str | FeatureRef) for one in refs)
    ):
        shown = list(refs) if isinstance(refs, tuple) else refs
        message = f"features {shown!r}: give a list of references, such as ['user_profile:expertise_level']"
        raise RequestError(message)


def _check_mapping(what: str, given: object, example: str) -> None:
    if not isinstance(given, Mapping):
        message = f"{what} is {given!r}; give columns by name, such as {example}"
        raise RequestError(message)


def _listed(what: str, values: object) -> list[Any]:
    if type(values) is list:
        return values
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        message = f"{what} is {values!r}; give a list with one value for each row: [{values!r}]"
        raise RequestError(message)
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _row_count(entities: Mapping[str, Sequence[Any]], inputs: Mapping[str, Sequence[Any]]) -> int:
    if len(entities) == 1 and not inputs:  # the usual case
        return len(next(iter(entities.values())))
    lengths = {f"entities.{name}": len(values) for name, values in entities.items()}
    lengths |= {f"inputs.{name}": len(values) for name, values in inputs.items()}
    if not lengths or len(set(lengths.values())) != 1:
        shown = ", ".join(f"{name} has {n}" for name, n in lengths.items()) or "none were given"
        message = f"entities and inputs are aligned row by row: {shown}"
        raise RequestError(message)
    return next(iter(lengths.values()))


def _compute_on_demand(view: OnDemandView, plan: Plan, read: _Read, inputs: Mapping[str, list[Any]], rows: int) -> None:
    """The view's features stand in `read`, computed from what is there and from the inputs."""
    ondemand.check_inputs(view, inputs)
    keys = [plan.reads[ref] for ref in view.reads]
    given = {ref.feature: read.columns[key] for ref, key in zip(view.reads, keys, strict=True)}
    given |= {name: inputs[name] for name in view.inputs}
    made = ondemand.compute(view, given, rows)
    micros = [_oldest([read.micros[key][row] for key in keys]) for row in range(rows)]
    for name in view.features:
        column = made[name]
        key = f"{view.name}:{name}"
        read.columns[key] = column
        read.statuses[key] = [Status.NULL if one is None else Status.PRESENT for one in column]
        read.micros[key] = micros


def _oldest(micros: Sequence[int | None]) -> int | None:
    known = [one for one in micros if one is not None]
    return min(known) if known else None


def _each(wrong: Mapping[int, Sequence[str]]) -> Iterator[tuple[int, str]]:
    return ((row, one) for row, what in wrong.items() for one in what)


def _sum(one: Recorded, other: Recorded) -> Recorded:
    counts = (one.read + other.read, one.added + other.added, one.known + other.known)
    due = min((early for early in (one.due, other.due) if early is not None), default=None)
    return Recorded(one.view, *counts, problems=one.problems + other.problems, due=due)


def _with_problems(total: Recorded, name: str, rejects: Mapping[int, str], *, word: str = "line") -> Recorded:
    """Line 0 stands for the whole of the file."""
    told = [f"{name}, {word} {line}: {why}" if line else f"{name}: {why}" for line, why in sorted(rejects.items())]
    return replace(total, problems=tuple(told))


def _one_more(view: FeatureView, before: OnlineRow | None, *, at: datetime, event_id: bytes) -> OnlineRow:
    """The user's row with one more question; what else it says stays, as long as it has not expired.

    Of two questions at once the earlier one may come second: its row bears the time of the newer one, or it
    would be late and not be counted.
    """
    names = [one.name for one in view.stored]
    kept = before is not None and before.event_micros >= oldest_of(view.ttl, micros_of(at))
    held = decode_payload(before.payload) if before is not None and kept else {}
    values = {name: held[name] for name in names if held.get(name) is not None}
    stamp = micros_of(at) if before is None else max(before.event_micros, micros_of(at))
    counted = {
        "session_queries_count": values.get("session_queries_count", 0) + 1,
        "last_active": moment_of(stamp),
    }
    values |= {name: value for name, value in counted.items() if name in view.features}
    created = stamp if before is None else max(before.created_micros, stamp)
    return OnlineRow(stamp, created, encode_payload(values), event_id)


def _reject_row(source: str, uri: str, reason: str, detail: str) -> dict[str, str]:
    """A row for the log of rejects; what is said of one line is said under one id."""
    return {"id": digest([source, uri]), "source": source, "uri": uri, "reason": reason, "detail": detail, "run": ""}


def _shape(view: FeatureView) -> list[str]:
    """What of the declaration decides which rows fit."""
    return [*view.entity.keys, *view.entity.types, *(repr(one.without_prose()) for one in view.features.values())]


def _computed(view: FeatureView, made: object) -> pa.Table:
    if isinstance(made, pa.Table):
        return made
    try:
        return pa.Table.from_pandas(made, preserve_index=False)
    except (pa.ArrowException, AttributeError, TypeError) as error:
        message = f"feature view {view.name}: compute gave {type(made).__name__}, no Arrow table or data frame: {error}"
        raise DeclarationError(message) from error


def _first_of_each(table: pa.Table) -> pa.Table:
    """One row per event id: the first, in the order of arrival."""
    numbered = table.append_column("place", pa.array(np.arange(table.num_rows)))
    first = numbered.group_by("event_id").aggregate([("place", "min")])["place_min"]
    return table if len(first) == table.num_rows else table.take(first.combine_chunks().sort())


def _steps(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows in tables of at most `_ROWS_PER_STEP`; a store's own batches may be of any size."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS_PER_STEP):
            piece = batch.slice(start, _ROWS_PER_STEP)
            if rows + piece.num_rows > _ROWS_PER_STEP:
                yield pa.Table.from_batches(held)
                held, rows = [], 0
            held.append(piece)
            rows += piece.num_rows
    if held:
        yield pa.Table.from_batches(held)


def _newest_of_each(table: pa.Table, keys: list[str]) -> pa.Table:
    """One row per entity: the newest event, then the one created last, then the one that came last."""
    numbered = table.select([*keys, "event_timestamp", "created_timestamp"])
    numbered = numbered.append_column("place", pa.array(np.arange(table.num_rows)))
    by_time = [(name, "ascending") for name in ("event_timestamp", "created_timestamp", "place")]
    newest = numbered.sort_by(by_time).group_by(keys, use_threads=False).aggregate([("place", "last")])["place_last"]
    return table if len(newest) == table.num_rows else table.take(newest.combine_chunks().sort())


def _between(start: datetime | None, end: datetime | None) -> str:
    if start is not None and end is not None and rfc3339(start) and rfc3339(end) and start >= end:
        message = f"start {rfc3339(start)} is not before end {rfc3339(end)}; no event lies between them"
        raise RequestError(message)
    bounds = [] if start is None else [f"event_timestamp >= {_literal(start)}"]
    bounds += [] if end is None else [f"event_timestamp < {_literal(end)}"]
    return " AND ".join(bounds)


def _literal(moment: datetime) -> str:
    if moment.tzinfo is None:
        message = f"{moment.isoformat()} has no time zone; add one, for example +00:00"
        raise RequestError(message)
    return f"timestamp '{moment.astimezone(UTC).replace(tzinfo=None).isoformat(' ', 'microseconds')}'"


def _journal_row(view: FeatureView, entry: JournalEntry) -> dict[str, Any]:
    times = {
        "event_timestamp": moment_of(entry.row.event_micros),
        "created_timestamp": moment_of(entry.row.created_micros),
    }
    event = {} if entry.row.event_id is None else {"event_id": entry.row.event_id.decode()}
    keys = dict(zip(view.entity.keys, entry.key, strict=True))
    return {**keys, **times, **event, **decode_payload(entry.row.payload)}


def _public(view: FeatureView, row: Mapping[str, Any]) -> str:
    personal = {one.name for one in view.features.values() if one.pii}
    return dumps({name: value for name, value in row.items() if name not in personal})
