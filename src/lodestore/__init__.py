"""Lodestore: the feature store for LLM applications.

Names are imported when they are first used: `import lodestore` costs a millisecond.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lodestore.errors import LodestoreError as LodestoreError
    from lodestore.spec import Entity as Entity
    from lodestore.spec import Feature as Feature
    from lodestore.spec import FeatureRef as FeatureRef
    from lodestore.spec import FeatureService as FeatureService
    from lodestore.spec import FeatureView as FeatureView
    from lodestore.spec import OnDemandView as OnDemandView
    from lodestore.spec import Source as Source
    from lodestore.spec import boolean as boolean
    from lodestore.spec import category as category
    from lodestore.spec import embedding as embedding
    from lodestore.spec import integer as integer
    from lodestore.spec import list_of as list_of
    from lodestore.spec import number as number
    from lodestore.spec import on_demand as on_demand
    from lodestore.spec import prompt as prompt
    from lodestore.spec import struct as struct
    from lodestore.spec import text as text
    from lodestore.spec import timestamp as timestamp
    from lodestore.store import Lodestore as Lodestore

_HOMES = {
    "lodestore.errors": ("LodestoreError",),
    "lodestore.store": ("Lodestore",),
    "lodestore.spec": (
        "Entity",
        "Feature",
        "FeatureRef",
        "FeatureService",
        "FeatureView",
        "OnDemandView",
        "Source",
        "boolean",
        "category",
        "embedding",
        "integer",
        "list_of",
        "number",
        "on_demand",
        "prompt",
        "struct",
        "text",
        "timestamp",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: PLE0604 - made from the table above, so that the two cannot differ
    "open",
    *sorted(_HOME),
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        message = f"module 'lodestore' has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(_HOME[name]), name)


def open(path: str | Path | None = None) -> Lodestore:  # noqa: A001 - lodestore.open() reads as it should
    """Open the project of lodestore.toml in `path`, in this folder or above it.

    What is live is watched: a promoted release answers within a second or two, as soon as its
    models are loaded.
    """
    from lodestore.project import open_project

    project = open_project(path)
    project.snapshots.start()
    return project.store
