"""Event files: rows for a view, read from JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

from lodestore.errors import DeclarationError, SourceError
from lodestore.spec import checked_name

__all__ = ["EventFile", "EventSource", "files", "rows"]

_KINDS = (".jsonl", ".ndjson", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class EventSource:
    """One entry of `[[events]]`: files whose rows are values of a view.

    `columns` maps the view's columns to the files' where their names differ.
    """

    name: str
    view: str
    uri: str
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_name(self.name, "event source")
        if "://" in self.uri:
            message = f"event source {self.name!r}: {self.uri} is not local; events are read from files on this machine"
            raise DeclarationError(message)


@dataclass(frozen=True, slots=True)
class EventFile:
    """A file as it is now; `state` changes when the file does."""

    path: Path
    state: str


def files(source: EventSource, *, root: Path) -> list[EventFile]:
    """The source's files, sorted; a source without any is an error that names the setting."""
    pattern = str((root / source.uri).expanduser())
    if Path(pattern).is_dir():
        found = [path for path in Path(pattern).rglob("*") if path.suffix in _KINDS]
    else:
        found = [Path(one) for one in glob(pattern, recursive=True)]
    if not found:
        message = f"events.{source.name}.uri: {pattern} matches no file; write the files there or change the setting"
        raise SourceError(message)
    for path in found:
        if path.suffix not in _KINDS:
            message = f"events.{source.name}.uri: {path.name} is none of {', '.join(_KINDS)}"
            raise SourceError(message)
    return [EventFile(path, _state(path)) for path in sorted(found)]


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def rows(source: EventSource, path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Each row as (its number from 1, its values); a row that cannot be read is (number, why)."""
    renamed = {theirs: ours for ours, theirs in source.columns.items()}
    read = {".csv": _csv, ".parquet": _parquet}.get(path.suffix, _jsonl)
    for number, row in read(path):
        if isinstance(row, str):
            yield number, row
        else:
            yield number, {renamed.get(key, key): value for key, value in row.items()}


def _jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _json_row(line)


def _json_row(line: bytes) -> Mapping[str, Any] | str:
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not JSON: {error}"
    return row if isinstance(row, dict) else f"a JSON object is expected, not {type(row).__name__}"


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=1):
            yield number, {key: (value if value != "" else None) for key, value in row.items() if key}


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        for batch in pq.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pa.ArrowInvalid as error:
        message = f"{path} is not a Parquet file: {error}"
        raise SourceError(message) from error
