"""dev: the Dagster UI, with the feature server beside it, until Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import click

from lodestore.cli.jobs import environment_of, workspace
from lodestore.cli.serve import free_port
from lodestore.cli.session import Session, command

__all__ = ["dev"]

_GRACE_SECONDS = 20


@command()
@click.option("--port", type=click.IntRange(0, 65_535), default=3000, show_default=True, help="Port of the Dagster UI.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The UI has no login: leave it on loopback.")
def dev(session: Session, port: int, host: str) -> None:
    """Open the Dagster UI with its daemon, and the feature server beside it."""
    from lodestore.errors import RefusedError, UnavailableError
    from lodestore.settings import load

    if importlib.util.find_spec("dagster_webserver") is None:
        message = 'dagster-webserver is not installed here; run: pip install "lodestore[dagster]"'
        raise UnavailableError(message)
    settings = load(session.config)
    place = workspace(Path.cwd(), settings.root)
    if port == settings.serve.port != 0:
        message = f"the Dagster UI and the feature server would both listen at port {port}; name another one: --port N"
        raise RefusedError(message)
    free_port(host, port, "--port N")
    free_port(settings.serve.host, settings.serve.port, "[serve] port in lodestore.toml")
    env = environment_of(session, settings.home)
    ui = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-w",
        str(place.path),
        "-p",
        str(port),
        "-h",
        host,
    ]
    server = [sys.executable, "-m", "lodestore", "serve"]
    session.note(f"Dagster UI       http://{host}:{port}   (data in {env['DAGSTER_HOME']})")
    session.note(f"Feature server   http://{settings.serve.host}:{settings.serve.port}/docs")
    session.note("Stop both with Ctrl-C.")
    code = together([ui, server], cwd=place.working_directory, env=env)
    click.get_current_context().exit(code)


def together(commands: list[list[str]], *, cwd: Path, env: dict[str, str], grace: float = _GRACE_SECONDS) -> int:
    """Run the commands side by side until one ends or a signal comes; neither they nor what they started outlives it.

    Each has `grace` seconds to end by itself.
    """
    # Sessions of their own: a background `dagster dev` would ignore SIGTERM otherwise.
    running = [subprocess.Popen(one, cwd=cwd, env=env, start_new_session=True) for one in commands]  # noqa: S603 - ours

    def stop(_signal: int, _frame: FrameType | None) -> None:
        for one in running:
            one.terminate()

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    pid, status = os.wait()
    for one in running:
        if one.pid != pid:
            _ended(one, grace=grace)
    for one in running:
        _swept(one.pid)
        one.wait()
    return max(0, os.waitstatus_to_exitcode(status))


def _ended(process: subprocess.Popen[bytes], *, grace: float) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)


def _swept(group: int) -> None:
    """Nothing of a command's session is left: `dagster dev` that ends in a hurry leaves its webserver and daemon."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
