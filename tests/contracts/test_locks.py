"""Locks between real processes: one holds, others wait, and the kernel frees what the dead held."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from lodestore.errors import StoreBusyError, StoreError, StoreWriteError
from lodestore.locks import Locks
from tests.served import until

HOLDER = """
import sys
from pathlib import Path
from lodestore.locks import Locks

with Locks(Path(sys.argv[1]), wait=10).writer("cutting chunks"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_who_waits_too_long_is_told_which_process_does_what(tmp_path):
    with holder(tmp_path) as other:
        with (
            pytest.raises(StoreBusyError, match=r"store\.lock_wait") as caught,
            Locks(tmp_path, wait=0.1).writer("ingesting"),
        ):
            pytest.fail("two writers at once")

        assert str(caught.value).startswith("ingesting: waited 0.1 s")
        assert f"process {other.pid} (cutting chunks)" in str(caught.value)


def test_who_waits_for_long_is_told_meanwhile_for_whom(tmp_path, monkeypatch, caplog):
    def work() -> None:
        with Locks(tmp_path, wait=30).writer("ingesting"):
            pass

    monkeypatch.setattr("lodestore.locks._SILENT_SECONDS", 0.1)
    with holder(tmp_path) as other, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(work)
        until(lambda: caplog.messages)
        assert not waiting.done()
        other.communicate("done\n", timeout=30)
        waiting.result(timeout=30)

    told = f"ingesting waits, up to 30 s: process {other.pid} (cutting chunks) is writing to this store"
    assert caplog.messages == [told]


@pytest.mark.parametrize(
    ("wait", "waited", "told"), [(60.0, [2.0, 58.0], 1), (2.0, [2.0, 0.0], 0), (0.5, [0.5, 0.0], 0)]
)
def test_who_waits_is_told_only_while_there_is_something_to_wait_for(tmp_path, monkeypatch, caplog, wait, waited, told):
    asked = []

    def never(self, timeout):
        asked.append(timeout)
        raise Timeout(self.lock_file)

    monkeypatch.setattr(FileLock, "acquire", never)

    with pytest.raises(StoreBusyError, match=rf"waited {wait:g} s"), Locks(tmp_path, wait=wait).writer("ingesting"):
        pytest.fail("held")

    assert asked == waited
    assert len(caplog.messages) == told


def test_who_waits_gets_the_lock_when_it_is_free(tmp_path):
    def work() -> str:
        with Locks(tmp_path, wait=30).writer("ingesting"):
            return (tmp_path / "writer.holder").read_text()

    with holder(tmp_path) as other, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(work)
        other.communicate("done\n", timeout=30)

        assert waiting.result(timeout=30) == f"process {os.getpid()} (ingesting)"


def test_a_killed_process_holds_nothing(tmp_path):
    with holder(tmp_path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait(timeout=30)

        with Locks(tmp_path, wait=5).writer("ingesting"):
            assert f"process {os.getpid()}" in (tmp_path / "writer.holder").read_text()


def test_other_names_are_other_locks(tmp_path):
    with holder(tmp_path), Locks(tmp_path, wait=0.1).hold("emb__content", "embedding"):
        pass


def test_an_error_while_it_is_held_frees_the_lock(tmp_path):
    locks = Locks(tmp_path, wait=0.1)
    with pytest.raises(ZeroDivisionError), locks.writer("ingesting"):
        raise ZeroDivisionError

    with locks.writer("ingesting"):
        pass


def test_holding_twice_in_one_thread_is_an_error_and_no_deadlock(tmp_path):
    locks = Locks(tmp_path, wait=0.1)

    with (
        locks.writer("outer"),
        pytest.raises(StoreBusyError, match=f"process {os.getpid()} \\(outer\\)"),
        locks.writer("inner"),
    ):
        pytest.fail("held twice")


def test_threads_of_one_process_take_turns(tmp_path):
    inside: list[int] = []

    def work(_: int) -> int:
        with Locks(tmp_path, wait=30).writer("ingesting"):
            inside.append(1)
            seen = len(inside)
            inside.pop()
            return seen

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(12))) == [1] * 12


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")

    with (
        pytest.raises(StoreWriteError, match=r"file.*LODESTORE_HOME") as caught,
        Locks(tmp_path / "file", wait=1).writer("x"),
    ):
        pytest.fail("held")

    assert isinstance(caught.value, StoreError)
