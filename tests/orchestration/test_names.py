"""The names that the library refuses for views are those that Dagster refuses for assets."""

from __future__ import annotations

from dagster._core.definitions.utils import DISALLOWED_NAMES

from lodestore.catalog import RESERVED


def test_what_dagster_allows_no_asset_to_be_called_is_no_view():
    assert RESERVED == DISALLOWED_NAMES
