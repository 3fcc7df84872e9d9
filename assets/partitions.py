"""One partition for each embedding version: feature, model, version and chunker."""

import dagster as dg

__all__ = ["embedding_versions"]

embedding_versions = dg.DynamicPartitionsDefinition(name="embedding_versions")
