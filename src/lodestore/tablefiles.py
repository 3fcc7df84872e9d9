"""Tables in files: CSV, JSON lines or Parquet, told by the ending of the name."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from lodestore.errors import SourceError
from lodestore.tables import MOMENT
from lodestore.wire import dumps, from_rfc3339

__all__ = ["check_name", "read_table", "with_moments", "write_table"]

_KINDS = (".csv", ".jsonl", ".ndjson", ".parquet")


def read_table(path: Path, *, texts: Iterable[str] = ()) -> pa.Table:
    """The table of a file; the columns `texts` of a CSV are text whatever they look like, such as ids."""
    check_name(path)
    _check_there(path)
    try:
        match path.suffix:
            case ".csv":
                from pyarrow import csv

                return csv.read_csv(path, convert_options=_options(texts))
            case ".parquet":
                import pyarrow.parquet as pq

                return pq.read_table(path)
            case _:
                return pa.Table.from_pylist(_rows(path))
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise SourceError(message) from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        message = f"{path} is not {path.suffix[1:].upper()}: {error}"
        raise SourceError(message) from error


def _options(texts: Iterable[str]) -> object:
    from pyarrow import csv

    kinds = dict.fromkeys(texts, pa.string()) | {"event_timestamp": pa.string()}
    return csv.ConvertOptions(column_types=kinds, strings_can_be_null=True)


def _check_there(path: Path) -> None:
    if not path.is_file():
        message = f"{path}: there is no such file"
        raise SourceError(message)


def check_name(path: Path) -> None:
    """The name says which kind of file it is; otherwise the error tells the kinds."""
    if path.suffix not in _KINDS:
        message = f"{path}: the name of a table file ends in {', '.join(_KINDS)}"
        raise SourceError(message)


def _rows(path: Path) -> list[dict[str, object]]:
    out = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            message = f"{path}, line {number}: not JSON: {error}"
            raise SourceError(message) from None
        if not isinstance(row, dict):
            message = f"{path}, line {number}: a JSON object is expected, not {type(row).__name__}"
            raise SourceError(message)
        out.append(row)
    return out


def with_moments(table: pa.Table, column: str = "event_timestamp") -> pa.Table:
    """The same table with RFC 3339 texts of that column as moments in UTC; what is a moment already stays."""
    if column not in table.column_names or not _is_text(table.schema.field(column).type):
        return table
    texts = enumerate(table[column].to_pylist(), start=1)
    moments = [None if one is None else from_rfc3339(one.strip(), f"row {row}: {column}") for row, one in texts]
    place = table.schema.get_field_index(column)
    return table.set_column(place, column, pa.array(moments, MOMENT))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def write_table(table: pa.Table, path: Path) -> None:
    """The table is in the file; CSV has lists as JSON text."""
    check_name(path)
    try:
        match path.suffix:
            case ".csv":
                from pyarrow import csv

                csv.write_csv(_flat(table), path)
            case ".parquet":
                import pyarrow.parquet as pq

                pq.write_table(table, path)
            case _:
                path.write_text("".join(f"{dumps(row)}\n" for row in table.to_pylist()), encoding="utf-8")
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        raise SourceError(message) from error


def _flat(table: pa.Table) -> pa.Table:
    for place, one in enumerate(table.schema):
        if pa.types.is_nested(one.type):
            texts = [None if value is None else dumps(value) for value in table[one.name].to_pylist()]
            table = table.set_column(place, one.name, pa.array(texts, pa.string()))
    return table
