"""serve: the feature server."""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import click

from lodestore.cli.session import Session, command
from lodestore.errors import RefusedError

__all__ = ["free_port", "serve"]

# What is in flight when the server is told to stop may take that long to be finished.
_GRACE_SECONDS = 30


@command()
@click.option("--host", help="The address to listen at; by default this machine alone. [serve] host says it too.")
@click.option("--port", type=click.IntRange(0, 65_535), help="The port; 0 takes a free one. [serve] port says it too.")
@click.option("--workers", type=click.IntRange(1), help="How many processes. [serve] workers says it too.")
def serve(session: Session, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve features, search and prompts over HTTP.

    Without keys, only this machine is answered: make a key with `lodestore keys add` before other
    machines may call.
    """
    from lodestore.settings import load

    if session.config is not None:
        # The workers are processes of their own; they find the project as this one did.
        os.environ["LODESTORE_CONFIG"] = str(Path(session.config).resolve())
    options = load(session.config).serve
    address = host or options.host
    _check_address(session, address)
    number = options.port if port is None else port
    free_port(address, number, "--port N, or [serve] port")
    processes = workers or options.workers
    with _board() if processes > 1 else nullcontext():
        _run(address, number, processes)


@contextmanager
def _board() -> Iterator[None]:
    """The workers have a folder where they pin their figures, as long as the server runs."""
    from lodestore.server.board import FOLDER

    with tempfile.TemporaryDirectory(prefix="lodestore-serve-", ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER] = folder
        yield


def free_port(host: str, port: int, way_out: str) -> None:
    """The address can be listened at; otherwise the error says why, and how to name another one."""
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in places:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except (OSError, UnicodeError) as error:
        taken = isinstance(error, OSError) and error.errno in {errno.EADDRINUSE, errno.EACCES}
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        mend = f"name another port: {way_out}" if taken else "name an address of this machine: --host, or [serve] host"
        message = f"{host}:{port} cannot be listened at ({why}); {mend}"
        raise RefusedError(message) from None


def _check_address(session: Session, host: str) -> None:
    from lodestore.keys import Keys
    from lodestore.server.access import is_loopback

    if not is_loopback(host) and not Keys(session.project.logs).all():
        message = (
            f"{host} can be reached from other machines, and there is no key yet; make one with: "
            "lodestore keys add --scope read, or serve this machine alone: --host 127.0.0.1"
        )
        raise RefusedError(message)


def _run(host: str, port: int, workers: int) -> None:
    """Serve until a signal says to stop; then finish what is in flight."""
    import uvicorn

    from lodestore.server.lines import LOGGING
    from lodestore.server.protocol import UVICORN

    # The server takes the signal, finishes, and raises it once more: by then the work is done.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(
        "lodestore.server.app:create",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        log_config=dict(LOGGING),
        **UVICORN,
    )
