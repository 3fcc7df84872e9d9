"""The bridge: any suite as asset checks, with names, counts and ids, and without a raw value."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from lodestore.project import open_project
from lodestore.spec import Entity, FeatureView, category, integer, number, text
from quality import suites
from quality.expectations import Suite, expect, imported, suite_checks, validated

MakeProject = Callable[..., Path]
KEY = dg.AssetKey("people")
PEOPLE = pa.table(
    {
        "id": [f"p{n}" for n in range(40)],
        "age": [*range(20, 58), -1, None],
        "email": [*(f"p{n}@example.org" for n in range(39)), "leaked"],
    }
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def outcome(kind: str, **kwargs):
    (found,) = validated([expect(kind, **kwargs)], PEOPLE, ids="id", private=["email"])
    return found


def test_an_expectation_that_holds_passes_with_its_counts() -> None:
    found = outcome("expect_column_values_to_be_between", column="age", min_value=-1)

    assert found.passed
    assert found.counts["element_count"] == 40
    assert found.counts["missing_count"] == 1


def test_failing_rows_are_told_by_their_ids_and_at_most_ten_of_them() -> None:
    one = outcome("expect_column_values_to_be_between", column="age", min_value=0)
    many = outcome("expect_column_values_to_be_between", column="age", min_value=100)

    assert one.ids == ("p38",)
    assert one.value == 1
    assert len(many.ids) == 10
    assert "39 of 40 rows break it" in many.sentence()


def test_of_a_private_column_no_value_is_shown() -> None:
    found = outcome("expect_column_values_to_match_regex", column="email", regex="@")
    most = outcome("expect_column_most_common_value_to_be_in_set", column="email", value_set=["x"])

    assert found.ids == ("p39",)
    assert "leaked" not in repr(found.sentence())
    assert most.observed is None


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        ("expect_multicolumn_sum_to_equal", {"column_list": ["email", "age"], "sum_total": 3}),
        ("expect_column_values_to_be_between", {"column": "email", "min_value": 30}),
        (
            "expect_column_values_to_be_between",
            {"column": "age", "row_condition": "email > leaked", "condition_parser": "pandas"},
        ),
    ],
)
def test_an_error_about_a_private_column_quotes_nothing(kind, kwargs) -> None:
    found = outcome(kind, **kwargs)

    assert found.error == "it raised an exception"


def test_the_arguments_of_a_private_column_show_no_value(make_project: MakeProject, instance) -> None:
    known = expect(
        "expect_column_values_to_be_in_set", column="email", value_set=["leaked"], mostly=0.9, severity="warning"
    )
    suite = Suite("people", (known,), lambda _: PEOPLE, "id", private=frozenset({"email"}))
    checks = suite_checks(suite, KEY)
    defs = dg.Definitions(
        assets=[dg.AssetSpec(KEY)], asset_checks=[checks], resources={"project": open_project(make_project())}
    )

    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)

    (found,) = result.get_asset_check_evaluations()
    (spec,) = checks.check_specs
    assert json.loads(found.metadata["kwargs"].value) == {"column": "email", "mostly": 0.9}
    assert "leaked" not in repr(found)
    assert "leaked" not in (spec.description or "")


EVERY_KIND = (
    ("expect_column_values_to_be_unique", {"column": "age"}),
    ("expect_column_values_to_match_strftime_format", {"column": "email", "strftime_format": "%Y"}),
    ("expect_column_value_z_scores_to_be_less_than", {"column": "age", "threshold": 1, "double_sided": True}),
    ("expect_column_distinct_values_to_equal_set", {"column": "email", "value_set": ["x"]}),
    ("expect_column_quantile_values_to_be_between",
     {"column": "age", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 1]]}}),
    ("expect_column_kl_divergence_to_be_less_than",
     {"column": "email", "partition_object": {"values": ["a", "b"], "weights": [0.5, 0.5]}, "threshold": 0.1}),
    ("expect_column_pair_values_to_be_equal", {"column_A": "age", "column_B": "id"}),
    ("expect_compound_columns_to_be_unique", {"column_list": ["age", "id"]}),
    ("expect_select_column_values_to_be_unique_within_record", {"column_list": ["email", "id"]}),
    ("expect_table_columns_to_match_ordered_list", {"column_list": ["a"]}),
    ("expect_table_column_count_to_equal", {"value": 3}),
    ("unexpected_rows_expectation", {"unexpected_rows_query": "select * from {batch}"}),
    ("expect_table_row_count_to_equal_other_table", {"other_table_name": "x"}),
)  # fmt: skip


def test_every_kind_of_expectation_has_an_outcome_and_what_needs_sql_is_an_error() -> None:
    asked = [expect(kind, name=f"n{at}", **kwargs) for at, (kind, kwargs) in enumerate(EVERY_KIND)]

    found = validated(asked, PEOPLE, ids="id", private=["email"])

    assert [one.expectation for one in found] == asked
    assert [one.expectation.type for one in found if one.error] == [kind for kind, _ in EVERY_KIND[-2:]]
    assert "leaked" not in repr([one.sentence() for one in found])


@pytest.mark.parametrize(
    ("kind", "kwargs", "told"),
    [
        ("expect_column_values_to_be_between", {"column": "nope", "min_value": 1}, "does not exist"),
        ("expect_nonsense", {}, "not found"),
        ("expect_column_values_to_be_between", {"column": "age", "min_value": "x", "max_value": 3}, ""),
    ],
)
def test_an_expectation_that_cannot_be_evaluated_is_an_error_and_no_pass(kind, kwargs, told) -> None:
    found = outcome(kind, **kwargs)

    assert not found.passed
    assert found.error
    assert told in found.error


def test_an_empty_table_fails_its_row_count_and_raises_nothing() -> None:
    rows, filled = validated(
        [
            expect("expect_table_row_count_to_be_between", min_value=1),
            expect("expect_column_values_to_not_be_null", column="age"),
        ],
        PEOPLE.slice(0, 0),
        ids="id",
    )

    assert not rows.passed
    assert rows.observed == 0
    assert filled.passed


def test_a_suite_made_with_great_expectations_comes_in_whole_with_stable_names(tmp_path: Path) -> None:
    made = {
        "name": "mine",
        "expectations": [
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "age"}, "meta": {"id": "my age"}},
            {
                "type": "expect_column_mean_to_be_between",
                "kwargs": {"column": "age", "min_value": 1},
                "severity": "warning",
            },
            {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "age", "min_value": 2}},
        ],
    }
    (tmp_path / "suite.json").write_text(json.dumps(made), encoding="utf-8")

    found = imported(tmp_path / "suite.json")
    names = [one.name for one in found]

    assert names[:2] == ["my_age", "gx_age_mean_between"]
    assert names[2].startswith("gx_age_mean_between_")
    assert [one.blocking for one in found] == [True, False, True]
    assert imported(made) == found
    assert [one.passed for one in validated(found, PEOPLE)] == [False, True, True]


def definitions(folder: Path, severity: str) -> dg.Definitions:
    @dg.asset(key=KEY)
    def people() -> None: ...

    @dg.asset(deps=[KEY])
    def after() -> None: ...

    bad = expect("expect_column_values_to_be_between", column="age", min_value=0, severity=severity)
    good = expect("expect_table_row_count_to_be_between", min_value=1)
    suite = Suite("people", (bad, good), lambda _: PEOPLE, "id")
    return dg.Definitions(
        assets=[people, after], asset_checks=[suite_checks(suite, KEY)], resources={"project": open_project(folder)}
    )


@pytest.mark.parametrize(("severity", "goes_on"), [("critical", False), ("warning", True)])
def test_critical_blocks_what_comes_after_and_a_warning_does_not(
    make_project: MakeProject, instance: dg.DagsterInstance, severity: str, goes_on: bool
) -> None:
    job = definitions(make_project(), severity).resolve_implicit_global_asset_job_def()

    result = job.execute_in_process(instance=instance, raise_on_error=False)

    done = {event.asset_key for event in result.get_asset_materialization_events()}
    (bad,) = [one for one in result.get_asset_check_evaluations() if not one.passed]
    assert bad.check_name == "gx_age_between"
    assert bad.metadata["failing_ids"].value == "p38"
    assert json.loads(bad.metadata["kwargs"].value) == {"column": "age", "min_value": 0}
    assert bad.metadata["unexpected_count"].value == 1
    assert (dg.AssetKey("after") in done) is goes_on


def test_one_expectation_can_run_alone(make_project: MakeProject, instance: dg.DagsterInstance) -> None:
    folder = make_project()
    defs = definitions(folder, "warning")
    alone = dg.AssetSelection.checks(dg.AssetCheckKey(KEY, "gx_row_count_between"))
    job = dg.define_asset_job("alone", alone)
    whole = dg.Definitions.merge(defs, dg.Definitions(jobs=[job]))

    result = whole.resolve_job_def("alone").execute_in_process(instance=instance)

    assert [one.check_name for one in result.get_asset_check_evaluations()] == ["gx_row_count_between"]


def test_data_docs_come_on_request_and_hold_no_value(make_project: MakeProject, instance: dg.DagsterInstance) -> None:
    folder = make_project()
    job = definitions(folder, "warning").resolve_implicit_global_asset_job_def()

    job.execute_in_process(
        instance=instance, run_config={"ops": {"people_expectations": {"config": {"data_docs": True}}}}
    )

    (page,) = (folder / ".lodestore" / "_data_docs").iterdir()
    html = page.read_text(encoding="utf-8")
    assert page.name == "people.html"
    assert "age" in html
    assert "p38" not in html


def test_a_view_gets_its_suite_from_its_declaration_and_from_what_was_added_by_hand(monkeypatch) -> None:
    monkeypatch.setattr(suites, "_EXTENSIONS", {})
    view = FeatureView(
        "profile",
        entity=Entity("user"),
        features={
            "level": category("a", "b"),
            "age": integer(minimum=0, maximum=150),
            "score": number(),
            "email": text(pii=True, max_length=80),
        },
    )
    suites.extends("profile")(lambda: [expect("expect_column_mean_to_be_between", column="age", min_value=18)])

    suite = suites.view_suite(view)

    kinds = {one.name: one.severity for one in suite.expectations}
    assert suite.private == {"email"}
    assert kinds["gx_row_count"] == "warning"
    assert {"gx_level_in_set", "gx_level_not_null", "gx_age_between", "gx_age_not_null", "gx_age_type"} <= kinds.keys()
    assert {"gx_score_type", "gx_email_length", "gx_age_mean_between"} <= kinds.keys()


def test_the_definitions_import_no_great_expectations() -> None:
    told = "import sys; import orchestration.definitions; print('great_expectations' in sys.modules, 'torch' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )

    assert done.stdout.split() == ["False", "False"]


def test_great_expectations_tells_nobody_what_it_does() -> None:
    told = (
        "import os, sys\nfrom quality.expectations import _context_config, _great_expectations\n"
        "_great_expectations()\n"
        "print(os.environ['GX_ANALYTICS_ENABLED'], _context_config().analytics_enabled, 'posthog' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )

    assert done.stdout.split() == ["false", "False", "False"]
