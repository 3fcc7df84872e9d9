"""Event files: rows for a view, read from JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from lodestore.errors import DeclarationError, SourceError
from lodestore.spec import checked_name

__all__ = ["EventFile", "EventSource", "TextRow", "files", "rows"]

_KINDS = (".jsonl", ".ndjson", ".csv", ".parquet")
_MAGIC = frozenset("*?[")

Numbered: TypeAlias = Iterator[tuple[int, dict[str, Any] | str]]
"""Rows as (line, values); what cannot be read is (line, why)."""


class TextRow(dict[str, Any]):
    """A row whose values are all text, for its file has no types: whoever checks it reads them from the text."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class EventSource:
    """One entry of `[[events]]`: files whose rows are values of a view.

    `columns` maps the view's columns to the files' where their names differ; `ignore` names columns of the files
    that are not the view's. `zone` is where the clocks of a Parquet file stood whose times have no zone, such as UTC.
    """

    name: str
    view: str
    uri: str
    columns: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    zone: str | None = None

    def __post_init__(self) -> None:
        checked_name(self.name, "event source")
        _zone_of(self)
        if not self.uri.strip():
            message = f"event source {self.name!r}: its uri is empty; name a file, a folder or a glob"
            raise DeclarationError(message)
        if "://" in self.uri:
            message = f"event source {self.name!r}: {self.uri} is not local; events are read from files on this machine"
            raise DeclarationError(message)

    @property
    def reading(self) -> object:
        """All that decides what is made of a file, in JSON types."""
        return [self.columns, list(self.ignore), self.zone] if self.ignore or self.zone else self.columns


def _zone_of(source: EventSource) -> tzinfo | None:
    if source.zone in {None, "UTC"}:
        return None if source.zone is None else UTC
    try:
        return ZoneInfo(str(source.zone))
    except (KeyError, ValueError, OSError) as error:  # an unknown name, one that is a path, one that is a folder
        message = (
            f"event source {source.name!r}: zone {source.zone!r} is unknown; write UTC, or one such as Europe/Berlin"
        )
        raise DeclarationError(message) from error


@dataclass(frozen=True, slots=True)
class EventFile:
    """A file as it is now; `state` changes when the file does."""

    path: Path
    state: str


def files(source: EventSource, *, root: Path) -> list[EventFile]:
    """The source's files, sorted; a source without any is an error that names the setting."""
    place = root / Path(source.uri).expanduser()
    if place.is_dir():
        found = [path for path in place.rglob("*") if path.suffix.lower() in _KINDS and path.is_file()]
    else:
        found = [place] if place.is_file() else [path for path in _matching(place) if path.is_file()]
    if not found:
        message = f"events.{source.name}.uri: {place} matches no file; write the files there or change the setting"
        raise SourceError(message)
    for path in found:
        if path.suffix.lower() not in _KINDS:
            message = f"events.{source.name}.uri: {path.name} is none of {', '.join(_KINDS)}"
            raise SourceError(message)
    return [EventFile(path, _state(path)) for path in sorted(found)]


def _matching(pattern: Path) -> Iterator[Path]:
    """What a pattern with `*`, `?` or `**` in it names."""
    plain = next((at for at, part in enumerate(pattern.parts) if _MAGIC & set(part)), len(pattern.parts))
    if plain < len(pattern.parts):
        yield from Path(*pattern.parts[:plain]).glob(str(Path(*pattern.parts[plain:])))


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def rows(source: EventSource, path: Path) -> Numbered:
    """Each row as (its line, its values); a row that cannot be read is (its line, why).

    Lines count from 1, the header of a CSV file included; a Parquet file's rows count from 1. A file
    that cannot be read at all is a `SourceError`.
    """
    renamed = {theirs: ours for ours, theirs in source.columns.items()}
    ignored, zone = frozenset(source.ignore), _zone_of(source)
    read = {".csv": _csv, ".parquet": _parquet}.get(path.suffix.lower(), _jsonl)
    try:
        for line, row in read(path):
            if isinstance(row, str):
                yield line, row
            else:
                kept = row.items() if not ignored else [one for one in row.items() if one[0] not in ignored]
                values = kept if zone is None else [(key, _zoned(value, zone)) for key, value in kept]
                yield line, type(row)((renamed.get(key, key), value) for key, value in values)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise SourceError(message) from error


def _zoned(value: Any, zone: tzinfo) -> Any:  # noqa: ANN401 - any value
    """The same moment with its zone, also inside a list; whatever else it is stays."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=zone)
    return [_zoned(one, zone) for one in value] if isinstance(value, list) else value


def _jsonl(path: Path) -> Numbered:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                yield number, _json_row(text.rstrip())  # a line end would be told as a second line of the fault


def _json_row(line: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        return "not UTF-8; save the file as UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.colno}"
    except (ValueError, RecursionError) as error:
        return f"not JSON that can be read: {error}"
    return row if isinstance(row, dict) else f"a JSON object is expected, not {type(row).__name__}"


def _csv(path: Path) -> Numbered:
    # Bytes that are not UTF-8 become text that no column takes: that row is bad, the others are not.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, f"not CSV: {error}"
                continue
            if header is None:
                header = _header(path, cells)
            elif cells:
                yield line, _csv_row(header, cells)


def _header(path: Path, cells: list[str]) -> list[str]:
    twice = sorted({one for one in cells if cells.count(one) > 1})
    if twice or "" in cells:
        message = f"{path}: its header has {f'{twice[0]!r} twice' if twice and twice[0] else 'a column without a name'}"
        raise SourceError(message)
    return cells


def _csv_row(header: list[str], cells: list[str]) -> dict[str, Any] | str:
    if len(cells) != len(header):
        return f"{len(cells)} values; the header names {len(header)} columns"
    return TextRow((name, cell if cell != "" else None) for name, cell in zip(header, cells, strict=True))


def _parquet(path: Path) -> Numbered:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        for batch in pq.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pa.ArrowException as error:
        message = f"{path} is not a Parquet file: {error}"
        raise SourceError(message) from error
