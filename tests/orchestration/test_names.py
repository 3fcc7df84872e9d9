"""The names that the library refuses for views are those that Dagster refuses for assets."""

from __future__ import annotations

from dagster._core.definitions.utils import DISALLOWED_NAMES

from lodestore.catalog import RESERVED, TAKEN
from orchestration.definitions import build


def test_what_dagster_allows_no_asset_to_be_called_is_no_view():
    assert RESERVED == DISALLOWED_NAMES


def test_no_view_bears_the_name_of_a_job(make_project):
    repository = build(str(make_project())).get_repository_def()

    assert {one for one in repository.job_names if not one.startswith("__")} <= TAKEN
