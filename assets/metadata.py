"""What an asset shows in the UI: counts, columns and previews. Never document text, never a personal value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import dagster as dg
import pyarrow as pa

from lodestore.project import Project
from lodestore.spec import FeatureView, Kind
from lodestore.tables import view_schema, view_table

__all__ = ["columns", "figures", "preview", "table", "view_preview"]

_PREVIEW_ROWS = 8
# Columns whose text belongs to documents or people: an event log cannot be erased from.
_HIDDEN = frozenset({"content", "text", "vector", "metadata", "title", "author"})

Metadata = Mapping[str, dg.MetadataValue]


def columns(schema: pa.Schema) -> dg.TableSchema:
    """The columns with their types, for the UI's column tab."""
    return dg.TableSchema([dg.TableColumn(one.name, str(one.type)) for one in schema])


def table(rows: Iterable[object]) -> dg.MarkdownMetadataValue:
    """Values as a Markdown table; dataclasses and mappings become rows."""
    found = [_mapping(row) for row in rows]
    if not found:
        return dg.MetadataValue.md("nothing")
    names = list(found[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in found]
    return dg.MetadataValue.md("\n".join(lines))


def _mapping(row: object) -> Mapping[str, object]:
    return asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row)  # type: ignore[call-overload]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")[:120]


def figures(schema: pa.Schema, rows: int, **more: object) -> dict[str, Any]:
    """Row count and columns under the names that the UI knows, with other figures beside them."""
    return {"dagster/row_count": rows, "dagster/column_schema": columns(schema), **more}


def preview(project: Project, name: str, wanted: Sequence[str]) -> dg.MarkdownMetadataValue:
    """A few rows of a table of the store: ids, counts and sizes only."""
    shown = [one for one in wanted if one not in _HIDDEN]
    rows = project.tables.read(name, shown).slice(0, _PREVIEW_ROWS)
    return table(rows.to_pylist())


def view_preview(project: Project, view: FeatureView) -> dg.MarkdownMetadataValue:
    """The newest rows of a view without its personal features, texts and structs."""
    plain = {Kind.CATEGORY, Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN, Kind.TIMESTAMP}
    features = [one.name for one in view.stored if one.kind in plain and not one.pii]
    names = [*view.entity.keys, "event_timestamp", *features]
    rows = project.tables.read(view_table(view), names)
    return table(rows.slice(max(0, rows.num_rows - _PREVIEW_ROWS)).to_pylist())


def view_figures(project: Project, view: FeatureView, **more: object) -> dict[str, Any]:
    """Everything that a view's asset shows."""
    rows = project.tables.count(view_table(view))
    return figures(view_schema(view), rows, preview=view_preview(project, view), **more)
