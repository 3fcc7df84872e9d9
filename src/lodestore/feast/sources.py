"""The file source of a Feast view as an entry of `[[events]]`: which columns are read, under which names, in which zone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lodestore.events import EventSource
from lodestore.feast.description import FeastSource, FeastView

__all__ = ["Unread", "event_source", "named_from", "physical", "times_of", "unread"]

_VARIABLE = re.compile(r"\$\{\w+\}")
_NO_ZONE = re.compile(r"timestamp\[\w+\]")
_EVENT = "event_timestamp"
_CREATED = "created_timestamp"


@dataclass(frozen=True, slots=True)
class Unread:
    """Why the rows of a view's source are not read here, and what to do about it."""

    why: str
    mend: str


def physical(source: FeastSource | None, name: str) -> str:
    """The column of the file that Feast calls `name`."""
    mapping = {} if source is None else source.field_mapping
    return next((theirs for theirs, ours in mapping.items() if ours == name), name)


def unread(view: FeastView, name: str) -> Unread | None:
    """Why the view's rows cannot be read from its source; None where they can. `name` is the view's name here."""
    push = f"bring its rows with `lodestore push {name} FILE`, or write Parquet files and add [[events]]"
    if view.views or view.code or view.aggregations:
        return Unread(_made_by(view), f"write its rows by a function of yours, compute= of {name}, or {push}")
    source = view.source
    if source is None:
        return Unread("it has no batch source", push)
    if source.kind != "FileSource":
        return Unread(f"{source.kind} {source.name!r} is not read from here", push)
    if "://" in source.path:
        return Unread(f"{source.path} is not on this machine", push)
    if source.format not in {"", "ParquetFormat"}:
        return Unread(f"{source.path} is {source.format}", push)
    if source.columns is None or source.problem:
        return Unread(f"{source.path} cannot be read: {source.problem}", "write the file, then import again")
    return _unfit(source)


def _made_by(view: FeastView) -> str:
    if view.views:
        return f"its rows are made from the views {', '.join(view.views)}"
    return "its rows are aggregated by Feast" if view.aggregations else "its rows are made by a function of Feast"


def _unfit(source: FeastSource) -> Unread | None:
    columns = source.columns or {}
    event, _ = times_of(source)
    if event not in columns:
        return Unread(f"{source.path} has no event time: no column {event!r}", "name timestamp_field in Feast")
    if not columns[event].startswith("timestamp["):
        why = f"the event times of {source.path} are {columns[event]}"
        return Unread(why, "write them as timestamps, then import again")
    if Path(source.path).suffix.lower() not in {".parquet", ""}:
        return Unread(f"{source.path} does not end in .parquet", "rename the file, here and in Feast")
    if "\0" in source.path:
        return Unread(f"{source.path!r} is no path that a file can have", "rename it, here and in Feast")
    if any(map(_VARIABLE.search, (source.path, *columns))):
        return Unread(f"{source.path} or a column of it has ${{...}} in its name", "rename it, here and in Feast")
    return None


def times_of(source: FeastSource) -> tuple[str, str | None]:
    """The columns of the event and the created times. Where Feast names no event time, it is the only timestamp."""
    columns = source.columns or {}
    stamps = [name for name, kind in columns.items() if kind.startswith("timestamp[")]
    inferred = stamps[0] if len(stamps) == 1 else ""
    event = physical(source, source.timestamp_field) if source.timestamp_field else inferred
    created = physical(source, source.created_timestamp_column) if source.created_timestamp_column else None
    if created == event or (created is not None and not columns.get(created, "").startswith("timestamp[")):
        created = None
    return event, created


def event_source(
    name: str, source: FeastSource, used: Mapping[str, str], *, repository: Path, root: Path
) -> EventSource:
    """The entry for the view `name`; `used` are its keys and features with the columns of the file that have them."""
    columns = source.columns or {}
    event, created = times_of(source)
    wanted = {**used, _EVENT: event} | ({_CREATED: created} if created else {})
    known = set(wanted.values())
    naive = any(_NO_ZONE.search(columns[one]) for one in known if one in columns)
    return EventSource(
        name,
        name,
        named_from(root, Path(os.path.normpath(repository / source.path))),  # a link stays one
        columns={ours: theirs for ours, theirs in wanted.items() if ours != theirs},
        ignore=tuple(one for one in columns if one not in known),
        zone="UTC" if naive else None,
    )


def named_from(root: Path, path: Path) -> str:
    """The path as the settings name it: from the project's folder where it lies there, and as a whole otherwise."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
