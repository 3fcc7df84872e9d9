"""What the server allows, keeps and waits for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lodestore.settings import ServeOptions

__all__ = ["ServerOptions"]

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Limits of one worker. Times are in seconds, sizes in bytes.

    `rows_on_loop` is the most cells that a feature request may have and still be read on the event loop:
    with LMDB a cell costs about a microsecond, less than to hand the request to a thread.
    """

    max_body: int = 8 * _MIB
    max_k: int = 1_000
    max_entities: int = 5_000
    max_values: int = 200_000
    max_batch: int = 64
    max_inflight: int = 512
    max_queued: int = 128
    rows_on_loop: int = 1_000
    search_threads: int = 8
    write_threads: int = 2
    search_cache: int = 64 * _MIB
    vector_cache: int = 32 * _MIB
    tick: float = 0.5
    retry_model: float = 30.0
    marked_after: float = 15.0
    max_age: float = 900.0
    search_wait: float = 10.0
    log_requests: bool = False

    @classmethod
    def of(cls, settings: ServeOptions) -> ServerOptions:
        """What `[serve]` says, and the defaults of what it does not speak of."""
        known = {one.name for one in fields(settings)}
        return cls(**{one.name: getattr(settings, one.name) for one in fields(cls) if one.name in known})
