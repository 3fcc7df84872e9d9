"""Dagster resources: from settings to a part of the library."""
