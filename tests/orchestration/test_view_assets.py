"""What one declaration becomes in the asset graph: dependencies, policies, checks, and what they say when time passes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from lodestore.project import open_project
from lodestore.rows import checked_rows
from orchestration.definitions import build

DECLARATIONS = """
from datetime import timedelta
from lodestore import Entity, FeatureView, integer, text

user = Entity("user", key="user_id")
orders = FeatureView("orders", entity=user, owner="team:shop", doc="What a user ordered.",
                     upstream=("dbt/dim_users", "raw_orders"), fresh_within=timedelta(hours=2), ttl=timedelta(days=9),
                     features={"count": integer(minimum=0, doc="how many"), "card": text(pii=True)})
summed = FeatureView("summed", entity=user, upstream=("orders", "documents"), features={"total": integer()})
"""


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    module = f"upstream_{abs(hash(request.node.name))}"  # Python remembers modules by name
    (tmp_path / f"{module}.py").write_text(DECLARATIONS)
    (tmp_path / "lodestore.toml").write_text(f'[features]\nmodules = ["{module}"]\n')
    return tmp_path


def parents(definitions: dg.Definitions, *key: str) -> set[tuple[str, ...]]:
    node = definitions.resolve_asset_graph().get(dg.AssetKey(key))
    return {tuple(one.path) for one in node.parent_keys}


@pytest.mark.parametrize("prefix", [(), ("search",)])
def test_what_a_view_names_upstream_is_above_it_in_the_graph(folder: Path, prefix: Sequence[str]) -> None:
    """Assets of others keep their keys; our own have the prefix."""

    @dg.asset(key=dg.AssetKey(["dbt", "dim_users"]))
    def dim_users() -> None: ...

    @dg.asset
    def raw_orders() -> None: ...

    merged = dg.Definitions.merge(dg.Definitions(assets=[dim_users, raw_orders]), build(str(folder), key_prefix=prefix))

    assert parents(merged, *prefix, "orders") == {("dbt", "dim_users"), ("raw_orders",)}
    assert parents(merged, *prefix, "summed") == {(*prefix, "orders"), (*prefix, "documents")}
    assert (*prefix, "orders") in parents(merged, *prefix, "online")
    dg.Definitions.validate_loadable(merged)


def test_a_run_of_everything_makes_what_is_upstream_first(folder: Path) -> None:
    made = []

    @dg.asset(key=dg.AssetKey(["dbt", "dim_users"]))
    def dim_users() -> None:
        made.append("dim_users")

    wanted = dg.AssetSelection.assets(["orders"], ["dbt", "dim_users"]).without_checks()
    theirs = dg.Definitions(assets=[dim_users], jobs=[dg.define_asset_job("both", wanted)])
    merged = dg.Definitions.merge(theirs, build(str(folder)))
    with dg.DagsterInstance.ephemeral() as instance:
        result = merged.resolve_job_def("both").execute_in_process(instance=instance)

    steps = [one.step_key for one in result.all_events if one.is_step_success]
    assert result.success
    assert made == ["dim_users"]
    assert steps == ["dbt__dim_users", "orders"]


def test_owner_words_version_and_clock_of_a_view_are_those_of_its_asset(folder: Path) -> None:
    spec = {one.key.to_user_string(): one for one in build(str(folder)).resolve_all_asset_specs()}["orders"]

    assert list(spec.owners) == ["team:shop"]
    assert spec.tags["lodestore/version"] == "1"
    assert "What a user ordered" in str(spec.description)
    assert "`card` (text, personal)" in str(spec.description)
    assert spec.freshness_policy == dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=2), warn_window=timedelta(hours=1)
    )


def test_a_view_without_an_event_for_too_long_is_stale_in_its_check_and_in_the_reading_of_the_store(
    folder: Path,
) -> None:
    project, definitions = open_project(folder), build(str(folder))
    view = project.catalog.view("orders")

    def record(age: timedelta) -> None:
        row = {"user_id": "ada", "event_timestamp": datetime.now(UTC) - age, "count": 1}
        project.features.record(view, checked_rows(view, [row], now=datetime.now(UTC)))

    def look() -> tuple[bool, float, str, float]:
        wanted = [dg.AssetKey("orders"), dg.AssetKey("store_health")]
        with dg.DagsterInstance.ephemeral() as instance:
            job = definitions.resolve_implicit_global_asset_job_def()
            result = job.execute_in_process(instance=instance, asset_selection=wanted, raise_on_error=False)
            (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "fresh"]
            health = instance.get_latest_materialization_event(dg.AssetKey("store_health"))
        assert health is not None
        assert health.asset_materialization is not None
        facts = health.asset_materialization.metadata
        return check.passed, float(check.metadata["value"].value), str(check.severity.value), facts["stale_views"].value

    record(timedelta(hours=3))
    old = look()
    record(timedelta(minutes=1))
    new = look()

    assert (old[0], old[2], old[3]) == (False, "WARN", 1)
    assert old[1] == pytest.approx(3 * 3600, abs=120)
    assert (new[0], new[3]) == (True, 0)
