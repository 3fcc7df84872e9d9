"""Lodestore: the feature store for LLM applications."""
