"""Work on whole columns, undisturbed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["undisturbed"]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Python's search for cycles rests meanwhile.

    A step over many rows makes hundreds of thousands of tuples and bytes and not one cycle, and the search
    through them takes 40 % of its time. Steps are bounded, so that what rests does not rest for long.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
