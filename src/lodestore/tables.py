"""The tables of the system of record: their names, columns and keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pyarrow as pa

from lodestore.ports import OfflineStore
from lodestore.spec import Feature, FeatureView, Kind

__all__ = [
    "BACKUP",
    "CHUNKS",
    "DOCUMENTS",
    "FILTERABLE",
    "LOGS",
    "MOMENT",
    "RESTORING",
    "SCHEMA_VERSION",
    "Log",
    "arrow_type",
    "chunk_table",
    "embedding_schema",
    "ensure_logs",
    "in_list",
    "quoted",
    "retired",
    "retired_schema",
    "view_schema",
    "view_table",
]

# Raised when a table changes so that older code would read it wrongly.
SCHEMA_VERSION = 1

# A backup has this table, and no store that anybody opens.
BACKUP = "backup"
# As long as a store has this table, it is being made of a backup, and nobody else opens it.
RESTORING = "restoring"

MOMENT = pa.timestamp("us", tz="UTC")

DOCUMENTS = pa.schema(
    [
        ("document_id", pa.string()),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("title", pa.string()),
        ("content", pa.large_string()),
        ("content_hash", pa.string()),
        ("mime", pa.string()),
        ("author", pa.string()),
        ("category", pa.string()),
        # Who may see it. Filters over it are those that a key or a caller makes mandatory.
        ("access", pa.list_(pa.string())),
        ("metadata", pa.string()),
        ("word_count", pa.int64()),
        ("event_timestamp", MOMENT),
        ("ingested_at", MOMENT),
        # Only where the source brings one. LanceDB takes a column named vector for one of fixed length.
        ("ready_vector", pa.list_(pa.float32())),
    ]
)

CHUNKS = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("document_id", pa.string()),
        ("document_hash", pa.string()),
        ("ordinal", pa.int64()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("text", pa.large_string()),
        ("n_tokens", pa.int64()),
        ("truncated", pa.bool_()),
        ("content_hash", pa.string()),
        ("visible_from", MOMENT),
    ]
)

# What a filter may name, with the types of the filter language.
FILTERABLE: Mapping[str, pa.DataType] = MappingProxyType(
    {
        "document_id": pa.string(),
        "source": pa.string(),
        "title": pa.string(),
        "uri": pa.string(),
        "mime": pa.string(),
        "author": pa.string(),
        "category": pa.string(),
        "access": pa.list_(pa.string()),
        "word_count": pa.int64(),
        "event_timestamp": MOMENT,
    }
)


def quoted(value: str) -> str:
    """The value as an SQL string.

    >>> quoted("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


def in_list(column: str, values: Iterable[str]) -> str:
    """A condition: the column has one of the values; no value means never.

    >>> in_list("id", ["a", "b"])
    "id IN ('a', 'b')"
    """
    shown = ", ".join(quoted(value) for value in values)
    return f"{column} IN ({shown})" if shown else "false"


def chunk_table(chunker: str) -> str:
    """The table of one chunker's chunks."""
    return f"chunks__{chunker}"


def retired(table: str) -> str:
    """The table that keeps what left `table`."""
    return f"{table}__retired"


def retired_schema(schema: pa.Schema) -> pa.Schema:
    """The columns of a retired table: the same rows, when they left, and a key that keeps a retry from doubling them."""
    left = schema.append(pa.field("visible_until", MOMENT))
    return left.append(pa.field("retired_id", pa.string(), nullable=False))


def embedding_schema(dimension: int) -> pa.Schema:
    """One table of vectors. Text and filter columns are copied, so that a search reads one table."""
    return pa.schema(
        [
            ("row_id", pa.string()),
            ("row_hash", pa.string()),
            ("vector", pa.list_(pa.float32(), dimension)),
            ("content_hash", pa.string()),
            ("fingerprint", pa.string()),
            ("norm", pa.float64()),
            ("start", pa.int64()),
            ("end", pa.int64()),
            ("text", pa.large_string()),
            ("embedded_at", MOMENT),
            ("visible_from", MOMENT),
            *FILTERABLE.items(),
        ]
    )


def view_table(view: FeatureView) -> str:
    """The offline table of a view's version."""
    return f"fv__{view.name}__v{view.version}"


_TYPES = {
    Kind.CATEGORY: pa.string(),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.TEXT: pa.large_string(),
    Kind.PROMPT: pa.large_string(),
    Kind.TIMESTAMP: MOMENT,
    Kind.STRUCT: pa.large_string(),
}


def arrow_type(feature: Feature) -> pa.DataType:
    """The column type of a stored feature; a struct is JSON text."""
    if feature.kind is Kind.LIST and feature.item is not None:
        return pa.list_(arrow_type(feature.item))
    return _TYPES[feature.kind]


def view_schema(view: FeatureView) -> pa.Schema:
    """The offline table of a view: keys, times, event id, arrival, features without vectors."""
    keys = zip(view.entity.keys, view.entity.types, strict=True)
    return pa.schema(
        [
            *((key, pa.string() if kind == "string" else pa.int64()) for key, kind in keys),
            ("event_timestamp", MOMENT),
            ("created_timestamp", MOMENT),
            ("event_id", pa.string()),
            ("ingested_at", MOMENT),
            *((one.name, arrow_type(one)) for one in view.stored),
        ]
    )


@dataclass(frozen=True, slots=True)
class Log:
    """A table of small rows that only grows; `key` makes a second row under it impossible."""

    name: str
    schema: pa.Schema
    key: str | None = None


def _log(name: str, key: str | None, *columns: str, **typed: pa.DataType) -> Log:
    fields = [(column, pa.string()) for column in columns]
    return Log(name, pa.schema([*fields, *typed.items(), ("at", MOMENT)]), key)


LOGS: Mapping[str, Log] = MappingProxyType({
    one.name: one
    for one in (
        _log("store", "name", "name", "value"),
        _log("releases", "generation", "id", "slots", "action", "author", "reason", generation=pa.int64()),
        _log("models", "key", "key", "feature", "model", "version", "chunker", "fingerprint", "source", "parts",
             dimension=pa.int64(), max_tokens=pa.int64()),
        _log("holds", "id", "id", "slot", "fingerprint", "version", "state", "author", "reason"),
        _log("gates", "id", "id", "key", "verdict", "report"),
        _log("templates", "key", "key", "template_id", "version", "family", "variables", "messages",
             "content_hash", "doc", is_chat=pa.bool_()),
        _log("checks", None, "check", "partition", "asset", "severity", "run_id", "detail", "mend",
             passed=pa.bool_(), value=pa.float64(), limit=pa.float64()),
        _log("alerts", "id", "id", "check", "state", "text", "delivery"),
        _log("baselines", "id", "id", "subject", "sketch", "reason"),
        _log("canaries", "key", "key", "fingerprint", "texts", "vectors"),
        _log("rejects", None, "id", "source", "uri", "document_id", "reason", "detail", "run"),
        _log("contexts", "id", "id", "request_id", "user", "release", "template", "chunks", "features", "prompt_hash",
             "request"),
        _log("outcomes", "id", "id", "context_id", "values"),
        _log("watermarks", None, "name", "value"),
        _log("tombstones", "id", "id", "kind"),
        _log("audit", "id", "id", "act", "subject", "author", "detail"),
        _log("heartbeats", None, "name", "detail"),
        _log("views", "key", "key", "name", "declaration", version=pa.int64()),
        _log("keys", "id", "id", "key_id", "state", "digest", "scopes", "filter", "note", "author"),
    )
})  # fmt: skip


def ensure_logs(store: OfflineStore, names: Iterable[str] = LOGS) -> None:
    """The logs exist."""
    for name in names:
        store.ensure(name, LOGS[name].schema, key=LOGS[name].key)
