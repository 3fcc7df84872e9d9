"""The suites: what has to hold for documents, chunks, vectors, templates and every feature view."""

import importlib
from collections.abc import Callable, Iterable, Iterator

import dagster as dg
import numpy as np
import pyarrow as pa

from assets.house import House
from lodestore.project import Project
from lodestore.spec import Feature, FeatureView, Kind, Source
from lodestore.tables import CHUNKS, DOCUMENTS, LOGS, chunk_table
from lodestore.versions import of_events
from lodestore.windows import view_window
from quality.expectations import Expectation, Suite, expect, suite_checks

__all__ = ["extends", "suites", "view_suite"]

_WARNING, _INFO = "warning", "info"
_Extension = Callable[[], Iterable[Expectation]]
_EXTENSIONS: dict[str, list[_Extension]] = {}


def extends(name: str) -> Callable[[_Extension], _Extension]:
    """Add what a function returns to the suite of that name: a view, `documents`, `chunks`, `embeddings`, `templates`."""

    def register(function: _Extension) -> _Extension:
        _EXTENSIONS.setdefault(name, []).append(function)
        return function

    return register


def suites(house: House, views: Iterable[FeatureView]) -> list[dg.AssetChecksDefinition]:
    """Every suite as a group of checks."""
    importlib.import_module("quality.own")  # what was added by hand registers itself
    assets = {"documents": "documents", "chunks": "chunks", "embeddings": "live_embeddings", "templates": "templates"}
    made = [(_with_extensions(one), assets[one.name]) for one in (_documents(), _chunks(), _embeddings(), _templates())]
    made += [(view_suite(view), view.name) for view in views]
    return [suite_checks(suite, house.key(asset)) for suite, asset in made]


def _with_extensions(suite: Suite) -> Suite:
    added = [one for function in _EXTENSIONS.get(suite.name, ()) for one in function()]
    names = {one.name for one in added}
    kept = [one for one in suite.expectations if one.name not in names]
    return Suite(suite.name, (*kept, *added), suite.frame, suite.ids, suite.private)


def _some_rows(severity: str = "critical") -> Expectation:
    return expect(
        "expect_table_row_count_to_be_between", min_value=1, severity=severity, name="gx_row_count",
        says="There is at least one row.",
    )  # fmt: skip


def _filled(column: str, *, severity: str = "critical", mostly: float | None = None) -> Expectation:
    part = {} if mostly is None else {"mostly": mostly}
    return expect(
        "expect_column_values_to_not_be_null", column=column, severity=severity, name=f"gx_{column}_not_null",
        says=f"{column} is never null." if mostly is None else f"{column} is null in at most {1 - mostly:.0%} of rows.",
        **part,
    )  # fmt: skip


def _ranged(column: str, low: float | None, high: float | None, *, severity: str = "critical") -> Expectation:
    bounds = {name: value for name, value in (("min_value", low), ("max_value", high)) if value is not None}
    told = " and ".join(
        f"{'at least' if name == 'min_value' else 'at most'} {value:g}" for name, value in bounds.items()
    )
    return expect(
        "expect_column_values_to_be_between", column=column, severity=severity, name=f"gx_{column}_between",
        says=f"{column} is {told}.", **bounds,
    )  # fmt: skip


# -- the corpus


def _read(project: Project, name: str, schema: pa.Schema, columns: list[str]) -> pa.Table:
    found = project.tables.read(name, columns)
    return found if found.num_rows else pa.schema([schema.field(one) for one in columns]).empty_table()


def _documents() -> Suite:
    columns = ["document_id", "source", "mime", "content_hash", "word_count"]
    expectations = (
        _some_rows(_WARNING),
        _filled("document_id"),
        expect("expect_column_values_to_be_unique", column="document_id", name="gx_document_id_unique",
               says="No document is stored twice."),
        _filled("source"),
        _filled("content_hash"),
        _filled("word_count"),
        _ranged("word_count", 1, None, severity=_WARNING),
    )  # fmt: skip
    return Suite(
        "documents", expectations, lambda project: _read(project, "documents", DOCUMENTS, columns), "document_id"
    )


def _chunks() -> Suite:
    expectations = (
        _some_rows(_WARNING),
        _filled("chunk_id"),
        expect("expect_column_values_to_be_unique", column="chunk_id", name="gx_chunk_id_unique",
               says="No chunk is stored twice."),
        _filled("document_id"),
        _filled("n_tokens"),
        _ranged("n_tokens", 1, None),
        expect("expect_column_pair_values_a_to_be_greater_than_b", column_A="end", column_B="start",
               name="gx_span", says="Every chunk ends after it starts."),
    )  # fmt: skip
    return Suite("chunks", expectations, _chunk_rows, "chunk_id")


def _chunk_rows(project: Project) -> pa.Table:
    columns = ["chunk_id", "document_id", "n_tokens", "start", "end"]
    names = [chunk_table(one.id) for one in project.pipeline.chunkers()]
    tables = [_read(project, name, CHUNKS, columns) for name in names]
    return pa.concat_tables(tables) if tables else _read(project, "chunks__", CHUNKS, columns)


def _embeddings() -> Suite:
    expectations = (
        _some_rows(_WARNING),
        _filled("norm"),
        _ranged("norm", 1e-6, 1e6),
        *(one for name in ("nan_count", "inf_count", "is_zero") for one in (_filled(name), _ranged(name, 0, 0))),
        _filled("dim"),
        _ranged("wrong_dim", 0, 0),
        _filled("wrong_dim"),
    )
    return Suite("embeddings", expectations, vector_statistics, "row_id")


def vector_statistics(project: Project) -> pa.Table:
    """A few numbers for each vector of the versions in use, a batch at a time: never the vectors themselves."""
    tables = [
        _statistics(batch, version.dimension)
        for version in project.versions.maintained(first=False)
        if not of_events(version)
        for batch in project.tables.batches(version.table, ["row_id", "vector", "norm"])
    ]
    return pa.concat_tables(tables) if tables else _STATISTICS.empty_table()


_STATISTICS = pa.schema(
    [("row_id", pa.string()), ("norm", pa.float64())]
    + [(name, pa.int64()) for name in ("nan_count", "inf_count", "is_zero", "dim", "wrong_dim")]
)


def _statistics(batch: pa.RecordBatch, dimension: int) -> pa.Table:
    column = batch.column("vector")
    size = column.type.list_size
    vectors = np.full((batch.num_rows, size), np.nan, dtype=np.float32)
    vectors[column.is_valid().to_numpy(zero_copy_only=False)] = (
        column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
    )
    counts = [np.isnan(vectors).sum(axis=1), np.isinf(vectors).sum(axis=1), ~vectors.any(axis=1)]
    sizes = [np.full(batch.num_rows, size), np.full(batch.num_rows, abs(size - dimension))]
    arrays = [pa.array(one.astype(np.int64)) for one in (*counts, *sizes)]
    return pa.Table.from_arrays([batch.column("row_id"), batch.column("norm"), *arrays], schema=_STATISTICS)


def _templates() -> Suite:
    columns = ["key", "template_id", "version", "family", "content_hash", "variables"]
    expectations = (
        _some_rows(_WARNING),
        expect("expect_column_values_to_be_unique", column="key", name="gx_key_unique",
               says="No version of a template is stored twice."),
        _filled("template_id"),
        _filled("content_hash"),
        expect("expect_column_values_to_match_regex", column="version", regex=r"^[0-9]+(\.[0-9]+)*([.+-].*)?$",
               severity=_WARNING, name="gx_version_form", says="Versions are numbers with dots."),
        _filled("version"),
    )  # fmt: skip
    schema = LOGS["templates"].schema
    return Suite("templates", expectations, lambda project: _read(project, "templates", schema, columns), "key")


# -- feature views


def view_suite(view: FeatureView) -> Suite:
    """What the declaration says: types, bounds, categories, lengths, and at least one row; then what was added by hand."""
    # That nobody is active is no fault of a stream.
    quiet = view.source is Source.STREAMING
    expectations = [_some_rows(_INFO if quiet else _WARNING), _filled("event_id")]
    for feature in view.stored:
        expectations += _of(feature)
    private = frozenset(feature.name for feature in view.stored if feature.pii)

    def rows(project: Project) -> pa.Table:
        return view_window(project, view)

    return _with_extensions(Suite(view.name, tuple(expectations), rows, "event_id", private))


def _of(feature: Feature) -> Iterator[Expectation]:
    """Expectations warn: a history cannot be taken back, and bad rows were refused before they came in."""
    name = feature.name
    yield expect("expect_column_to_exist", column=name, name=f"gx_{name}_exists", says=f"The column {name} is there.")
    ranged = feature.minimum is not None or feature.maximum is not None
    if ranged:
        yield _ranged(name, feature.minimum, feature.maximum, severity=_WARNING)
    if feature.categories:
        yield expect(
            "expect_column_values_to_be_in_set", column=name, value_set=list(feature.categories), severity=_WARNING,
            name=f"gx_{name}_in_set", says=f"{name} is one of its declared categories.",
        )  # fmt: skip
    if ranged or feature.categories:
        # A range alone holds for a column of nothing but nulls. Whether nulls are wrong, no declaration says:
        # what was filled and no longer is, drift tells.
        yield _filled(name, severity=_INFO, mostly=0.5)
    if feature.kind in {Kind.TEXT, Kind.CATEGORY} and feature.max_length is not None:
        yield expect(
            "expect_column_value_lengths_to_be_between", column=name, min_value=0, max_value=feature.max_length,
            severity=_WARNING, name=f"gx_{name}_length", says=f"{name} has at most {feature.max_length} characters.",
        )  # fmt: skip
    if feature.kind in {Kind.INTEGER, Kind.NUMBER}:
        yield expect(
            "expect_column_values_to_be_in_type_list", column=name, type_list=list(_TYPES[feature.kind]),
            name=f"gx_{name}_type", says=f"{name} is a column of type {feature.kind}.",
        )  # fmt: skip


# An integer column with nulls is one of floats in pandas.
_TYPES = {
    Kind.INTEGER: ("int64", "Int64", "float64", "object"),
    Kind.NUMBER: ("float64", "object"),
}
