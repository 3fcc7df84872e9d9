"""Snapshots: swapped when ready, kept when not."""

from __future__ import annotations

import subprocess
import sys
from threading import Thread

import pytest

from lodestore.live import Live
from lodestore.releases import Release
from lodestore.snapshot import Snapshots
from lodestore.testing import MemoryStore


def release(generation: int) -> Release:
    return Release(generation, {}, id=f"release {generation}")


class Log:
    def __init__(self) -> None:
        self.newest = release(1)
        self.broken = False

    def watch(self) -> Release:
        return self.newest

    def warm(self, one: Release) -> Live:
        if self.broken:
            message = "the model does not load"
            raise RuntimeError(message)
        return Live(one, {}, lambda _: pytest.fail("no model is asked for"), MemoryStore())


@pytest.fixture
def log() -> Log:
    return Log()


def test_the_first_call_makes_the_snapshot_and_the_next_ones_share_it(log: Log) -> None:
    snapshots = Snapshots(watch=log.watch, warm=log.warm)

    assert snapshots.current() is snapshots.current()


def test_a_new_release_is_taken_up(log: Log) -> None:
    snapshots = Snapshots(watch=log.watch, warm=log.warm)
    old = snapshots.current()
    log.newest = release(2)

    swapped, again = snapshots.refresh(), snapshots.refresh()

    assert (swapped, again) == (True, False)
    assert (old.release.generation, snapshots.current().release.generation) == (1, 2)


def test_a_release_that_cannot_be_made_ready_leaves_the_old_one_and_says_so(log: Log) -> None:
    snapshots = Snapshots(watch=log.watch, warm=log.warm)
    snapshots.current()
    log.newest, log.broken = release(2), True

    snapshots.refresh()
    behind = snapshots.state()
    log.broken = False
    snapshots.refresh()

    assert (behind.generation, behind.newest) == (1, 2)
    assert "does not load" in str(behind.trouble)
    assert snapshots.state().trouble is None
    assert snapshots.current().release.generation == 2


def test_the_watch_takes_up_a_release_by_itself(log: Log) -> None:
    snapshots = Snapshots(watch=log.watch, warm=log.warm, interval=0.001)
    snapshots.current()
    snapshots.start()
    log.newest = release(7)

    def wait() -> None:
        while snapshots.current().release.generation != 7:
            pass

    waiting = Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(timeout=5)
    snapshots.stop()

    assert snapshots.current().release.generation == 7


def test_a_log_that_became_shorter_is_a_store_that_is_away(log: Log) -> None:
    snapshots = Snapshots(watch=log.watch, warm=log.warm)
    snapshots.current()
    log.newest = release(0)

    assert not snapshots.refresh()

    assert snapshots.current().release.generation == 1
    assert "the release log ends at 0, and 1 was read" in str(snapshots.state().trouble)


def test_a_look_at_the_log_is_finished_before_the_process_ends() -> None:
    """An engine's own threads abort an interpreter that ends under them."""
    script = """
import time, weakref
from lodestore.snapshot import Snapshots

def watch():
    print("looking", flush=True)
    time.sleep(0.3)
    # As libraries do that are imported meanwhile: what they leave to the end has to come after this.
    weakref.finalize(watch, print, "late", flush=True)
    print("looked", flush=True)
    raise RuntimeError

Snapshots(watch=watch, warm=None, interval=0.001).start()
time.sleep(0.1)
"""

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-2:] == ["looked", "late"]
