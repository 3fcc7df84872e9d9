"""Any Great Expectations 1.x suite as one group of asset checks.

Great Expectations takes seconds to import: what stands here is plain values, and it is imported
inside the check alone.
"""

import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from lodestore.errors import LodestoreError
from lodestore.playbook import guide, marked
from lodestore.project import Project
from lodestore.wire import digest, jsonable
from quality.bridge import Measured, evaluated

__all__ = ["Expectation", "Outcome", "Suite", "expect", "imported", "suite_checks", "validated"]

_MOST_IDS = 10
_RAISED = "it raised an exception"
_ID = "lodestore_id"
# What a validation may say of a column without quoting a value.
_COUNTS = ("element_count", "unexpected_count", "unexpected_percent", "missing_count", "missing_percent")
# Arguments that name columns and hold no value of theirs.
_NAMING = ("column", "column_A", "column_B", "column_list", "column_set")
_CRITICAL, _INFO = "critical", "info"


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation of a suite, by the names of Great Expectations.

    `critical` blocks, `warning` warns, `info` is told in the result and fails nothing.
    """

    name: str
    type: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    severity: str = _CRITICAL
    says: str = ""

    @property
    def blocking(self) -> bool:
        """Whether what comes after waits for it."""
        return self.severity == _CRITICAL

    def about(self, columns: Iterable[str]) -> bool:
        """Whether one of the columns is named anywhere in the arguments: as a column, in a list, in a condition."""
        told = json.dumps(jsonable(dict(self.kwargs)), default=str)
        return any(re.search(rf"\b{re.escape(one)}\b", told) for one in columns)


@dataclass(frozen=True, slots=True)
class Suite:
    """Expectations of one asset, and the rows that they are about.

    `ids` names the column by which failing rows are told. Of `private` columns no observed value is shown.
    """

    name: str
    expectations: tuple[Expectation, ...]
    frame: Callable[[Project], pa.Table]
    ids: str | None = None
    private: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one expectation. `error` is why it could not be evaluated, which is no pass."""

    expectation: Expectation
    passed: bool
    counts: Mapping[str, float] = field(default_factory=dict)
    observed: str | float | None = None
    ids: tuple[str, ...] = ()
    error: str = ""

    @property
    def value(self) -> float:
        """Rows that break it; 1 where only the whole passes or fails."""
        return self.counts.get("unexpected_count", 0.0 if self.passed else 1.0)

    def sentence(self) -> str:
        """What was found, in words without values."""
        if self.error:
            return f"{self.expectation.name} could not be evaluated: {self.error}"
        if "unexpected_count" in self.counts and "element_count" in self.counts:
            told = f"{self.counts['unexpected_count']:,.0f} of {self.counts['element_count']:,.0f} rows break it"
        else:
            told = "nothing observed" if self.observed is None else f"observed {self.observed}"
        shown = f": {', '.join(self.ids)}" if self.ids and not self.passed else ""
        return f"{(self.expectation.says or self.expectation.type).rstrip('.')}: {told}{shown}"


def expect(type: str, *, severity: str = _CRITICAL, says: str = "", name: str = "", **kwargs: Any) -> Expectation:  # noqa: A002, ANN401 - the word, and the values, of Great Expectations
    """An expectation with a name that stays the same as long as its meaning does."""
    return Expectation(name or _named(type, kwargs), type, kwargs, severity, says)


def _named(kind: str, kwargs: Mapping[str, Any]) -> str:
    """`gx_age_between` of `expect_column_values_to_be_between` of the column age."""
    word = re.sub(r"^expect_(column_values_to_|column_|table_|multicolumn_|compound_columns_)?(be_|to_be_)?", "", kind)
    word = word.replace("to_be_", "")
    columns = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    columns += list(kwargs.get("column_list", ()))
    return re.sub(r"\W+", "_", "_".join(["gx", *map(str, columns), word]).lower())


def imported(suite: Any) -> tuple[Expectation, ...]:  # noqa: ANN401 - a GX suite, its JSON, or the path of that
    """The expectations of a suite made elsewhere: an ExpectationSuite, its JSON object, or a JSON file.

    A name comes from `meta` (`id` or `name`), or from type and column; of two equal ones the
    second gets a suffix made of its arguments.
    """
    if isinstance(suite, (str, Path)):
        suite = json.loads(Path(suite).read_text(encoding="utf-8"))
    found = suite if isinstance(suite, Mapping) else suite.to_json_dict()
    out: dict[str, Expectation] = {}
    for one in found["expectations"]:
        meta, kwargs = one.get("meta") or {}, one.get("kwargs") or {}
        name = re.sub(r"\W+", "_", str(meta.get("id") or meta.get("name") or _named(one["type"], kwargs)))
        if name in out:
            name = f"{name}_{digest(jsonable(kwargs))[:6]}"
        says = str(meta.get("says") or one.get("description") or "")
        out[name] = Expectation(name, one["type"], kwargs, one.get("severity") or _CRITICAL, says)
    return tuple(out.values())


# -- as asset checks


class SuiteConfig(dg.Config):
    """`data_docs`: write the pages of Great Expectations, without values, into `_data_docs` beside the store."""

    data_docs: bool = False


def suite_checks(suite: Suite, asset: dg.AssetKey) -> dg.AssetChecksDefinition:
    """One group of checks, one check an expectation; any part of it can run alone."""

    @dg.multi_asset_check(
        name=f"{suite.name}_expectations",
        specs=[_spec(one, asset, suite.private) for one in suite.expectations],
        can_subset=True,
    )
    def expectations(
        context: dg.AssetCheckExecutionContext, config: SuiteConfig, project: dg.ResourceParam[Project]
    ) -> Iterator[dg.AssetCheckResult]:
        wanted = {key.name for key in context.selected_asset_check_keys}
        chosen = [one for one in suite.expectations if one.name in wanted]
        docs = project.settings.local / "_data_docs" / f"{suite.name}.html" if config.data_docs else None
        outcomes = _outcomes(suite, chosen, project, docs)
        yield from evaluated(context, project, [_measured(one, asset, suite.private) for one in outcomes])

    return expectations


def _spec(one: Expectation, asset: dg.AssetKey, private: frozenset[str]) -> dg.AssetCheckSpec:
    says = one.says or f"`{one.type}` with {_shown(one, private)}."
    settle = guide(one.name).settle
    text = f"{says} Usual cause: {guide(one.name).cause}. Settle it with: {marked(settle)}."
    return dg.AssetCheckSpec(
        one.name, asset=asset, blocking=one.blocking, description=text, metadata={"expectation": one.type}
    )


def _shown(one: Expectation, private: frozenset[str]) -> str:
    """The arguments; where a private column is among them, its name and numbers alone: a set may list what rows hold."""
    kwargs = dict(one.kwargs)
    if one.about(private):
        kwargs = {key: value for key, value in kwargs.items() if key in _NAMING or isinstance(value, (int, float))}
    return json.dumps(jsonable(kwargs), sort_keys=True, default=str)


def _outcomes(suite: Suite, chosen: Sequence[Expectation], project: Project, docs: Path | None) -> list[Outcome]:
    """Where the rows themselves cannot be read, every expectation fails as an error."""
    try:
        table = suite.frame(project)
    except LodestoreError as error:
        return [Outcome(one, passed=False, error=str(error)) for one in chosen]
    return validated(chosen, table, ids=suite.ids, private=suite.private, docs=docs)


def _measured(one: Outcome, asset: dg.AssetKey, private: frozenset[str]) -> Measured:
    facts: dict[str, object] = {"expectation": one.expectation.type, "kwargs": _shown(one.expectation, private)}
    facts |= {name: float(value) for name, value in one.counts.items()}
    facts |= {} if one.observed is None else {"observed": one.observed}
    facts |= {"failing_ids": ", ".join(one.ids)} if one.ids else {}
    facts |= {"error": one.error} if one.error else {}
    passed = one.passed or (one.expectation.severity == _INFO and not one.error)
    return Measured(
        one.expectation.name, asset, passed, one.value, 0, one.sentence(), guide(one.expectation.name).settle,
        warning=not one.expectation.blocking and not one.error, facts=facts,
    )  # fmt: skip


# -- the edge: Great Expectations at work


def _great_expectations() -> Any:  # noqa: ANN401 - the module ships no types
    """The module, quiet: no analytics, no progress bars, none of its own deprecation warnings."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    os.environ.setdefault("TQDM_DISABLE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
    return gx


def _context_config() -> Any:  # noqa: ANN401
    """A context in memory alone: no folder for docs, no analytics, no progress bars."""
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
    )


def validated(
    expectations: Iterable[Expectation],
    table: pa.Table,
    *,
    ids: str | None = None,
    private: Iterable[str] = (),
    docs: Path | None = None,
) -> list[Outcome]:
    """Every expectation with its outcome, in their order; with `docs` a page about all of them is there, too."""
    chosen, hidden = list(expectations), frozenset(private)
    if not chosen:
        return []
    gx = _great_expectations()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = gx.get_context(mode="ephemeral", project_config=_context_config())
        frame = table.to_pandas()
        asset = context.data_sources.add_pandas("lodestore").add_dataframe_asset("rows")
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
        suite, broken = _suite(gx, chosen, hidden)
        shown = {"result_format": "SUMMARY", "partial_unexpected_count": _MOST_IDS}
        if ids in table.column_names:
            shown |= {"unexpected_index_column_names": [ids], "return_unexpected_index_query": False}
        results = batch.validate(suite, result_format=shown) if suite.expectations else None
    found = {one.expectation_config.meta[_ID]: one for one in (results.results if results else ())}
    outcomes = [broken.get(one.name) or _outcome(one, found[one.name], ids, hidden) for one in chosen]
    if docs is not None and results is not None:
        _write_docs(results, docs)
    return outcomes


def _suite(  # the suite is one of Great Expectations, which ships no types
    gx: Any,  # noqa: ANN401
    chosen: Sequence[Expectation],
    private: frozenset[str],
) -> tuple[Any, dict[str, Outcome]]:
    """The suite as Great Expectations has it, and an error for each expectation that it does not know."""
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    suite, broken = gx.ExpectationSuite(name="lodestore"), {}
    for one in chosen:
        severity = one.severity if one.severity in {"critical", "warning", "info"} else "warning"
        try:
            made = ExpectationConfiguration(
                type=one.type, kwargs=dict(one.kwargs), meta={_ID: one.name}, severity=severity
            )
            suite.add_expectation(made.to_domain_obj())
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one expectation is that one's outcome
            told = _RAISED if one.about(private) else _first_line(f"{type(error).__name__}: {error}")
            broken[one.name] = Outcome(one, passed=False, error=told)
    return suite, broken


def _outcome(one: Expectation, result: Any, ids: str | None, private: frozenset[str]) -> Outcome:  # noqa: ANN401
    quiet = one.about(private)
    problem = _problem(result.exception_info)
    if problem:  # the text of an error may quote a value
        return Outcome(one, passed=False, error=_RAISED if quiet else problem)
    body = result.result or {}
    counts = {name: float(body[name]) for name in _COUNTS if body.get(name) is not None}
    observed = body.get("observed_value")
    rows = () if result.success else body.get("partial_unexpected_index_list") or ()
    failing = [str(row[ids]) for row in rows if isinstance(row, dict) and ids in row][:_MOST_IDS]
    return Outcome(one, bool(result.success), counts, None if quiet else _plain(observed), tuple(failing))


def _problem(info: Any) -> str:  # noqa: ANN401 - a mapping, or a mapping of such mappings
    """What went wrong while it was evaluated; empty when nothing did."""
    if not info:
        return ""
    many = [info] if "raised_exception" in info else list(info.values())
    told = [one.get("exception_message") or _RAISED for one in many if one.get("raised_exception")]
    return _first_line(str(told[0])) if told else ""


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0][:300]


def _plain(value: Any) -> str | float | None:  # noqa: ANN401 - what an expectation observed
    """A number as it is; lists of values are told by their length, for they hold what rows hold."""
    if value is None or isinstance(value, bool):
        return None if value is None else str(value)
    if isinstance(value, (list, tuple, set, dict)):
        return f"{len(value)} values"
    try:
        return float(value)
    except (TypeError, ValueError):
        return "a value"


def _write_docs(results: Any, path: Path) -> None:  # noqa: ANN401 - a GX validation result
    """One page about all results, with counts and without values."""
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    for one in results.results:
        kept = {name: float(one.result[name]) for name in _COUNTS if one.result.get(name) is not None}
        observed = _plain(one.result.get("observed_value"))
        one.result = kept | ({} if observed is None else {"observed_value": observed})
    if not isinstance(results, ExpectationSuiteValidationResult):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        page = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(results))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
