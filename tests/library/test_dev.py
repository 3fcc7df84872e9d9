"""The UI and the server run side by side, and end together with everything that they started."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lodestore import cli
from lodestore.cli.dev import together

# Starts a child that hears no SIGTERM, tells its id, and does not end by itself either.
PARENT = """
import pathlib, signal, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
child.stdout.readline()
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""


def gone(pid: int, *, within: float = 10) -> bool:
    """Whether the process has ended: a signal takes a moment to be carried out."""
    end = time.monotonic() + within
    while runs(pid) and time.monotonic() < end:
        os.sched_yield()
    return not runs(pid)


def runs(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    return False


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The signal handlers that were there are there again."""
    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


def test_nothing_that_a_command_started_outlives_the_others(tmp_path: Path) -> None:
    parent = [sys.executable, "-c", textwrap.dedent(PARENT)]
    waits = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)\nsys.exit(3)"
    first = [sys.executable, "-c", waits, str(tmp_path / "stubborn")]
    second = [*parent, str(tmp_path / "stubborn")]

    code = together([first, second], cwd=tmp_path, env=dict(os.environ), grace=0.1)

    assert code == 3
    assert gone(int((tmp_path / "stubborn").read_text(encoding="utf-8")))


def test_the_ui_and_the_server_do_not_want_one_port(tmp_path, monkeypatch, capsys):
    (tmp_path / "lodestore.toml").write_text("")
    (tmp_path / "workspace.yaml").write_text("load_from: [{python_file: {relative_path: code.py}}]")
    (tmp_path / "code.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LODESTORE_SERVE__PORT", "4321")

    code = cli.run(["dev", "--port", "4321"])

    assert code == 1
    assert "would both listen at port 4321; name another one: --port N" in capsys.readouterr().err
