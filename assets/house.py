"""Where assets stand: their keys, with the prefix that a larger code location gives them."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

__all__ = ["House"]


@dataclass(frozen=True, slots=True)
class House:
    """Makes asset keys; `prefix` comes first in each."""

    prefix: Sequence[str] = ()

    def key(self, *names: str) -> dg.AssetKey:
        """The key of one asset."""
        return dg.AssetKey([*self.prefix, *names])
