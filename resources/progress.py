"""Progress of long steps: a bar on a terminal, a line in the Dagster log every few seconds."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from lodestore.ports import Progress

__all__ = ["progress"]

_EVERY = 5.0  # seconds between two lines in the log


@contextmanager
def progress(context: dg.AssetExecutionContext | dg.OpExecutionContext, what: str) -> Iterator[Progress]:
    """A function to be told (done, of); the bar is gone at the end."""
    from tqdm import tqdm

    started = time.monotonic()
    last = started
    with tqdm(desc=what, unit="chunk", leave=False, disable=not sys.stderr.isatty()) as bar:

        def tell(done: int, of: int) -> None:
            nonlocal last
            bar.total = of
            bar.update(done - bar.n)
            now = time.monotonic()
            if now - last >= _EVERY:
                last = now
                rate = done / (now - started)
                context.log.info("%s: %s of %s, %.0f a second", what, done, of, rate)

        yield tell
