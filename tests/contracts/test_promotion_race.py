"""Several real processes promote at once: exactly one wins, the others are told who did."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from lodestore.adapters.lance import LanceStore
from lodestore.logs import Logs, utc_now
from lodestore.releases import ReleaseLog, Slot

PROCESSES = 4
SCRIPT = """
import sys
from pathlib import Path
from lodestore.adapters.lance import LanceStore
from lodestore.errors import ConflictError
from lodestore.logs import Logs, utc_now
from lodestore.releases import ReleaseLog, Slot

folder, name = sys.argv[1:]
log = ReleaseLog(Logs(LanceStore(folder), utc_now), utc_now)
base = log.live()
print("ready", flush=True)
sys.stdin.readline()
try:
    log.publish({Slot("embedding", "content"): name}, action="promote", author=name, base=base)
    print("won")
except ConflictError as error:
    print("told", error)
"""


def test_of_several_processes_that_promote_at_once_exactly_one_wins(tmp_path: Path) -> None:
    log = ReleaseLog(Logs(LanceStore(str(tmp_path)), utc_now), lambda: datetime.now(UTC))
    log.publish({Slot("embedding", "content"): "first"}, action="promote", author="test")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([*command, f"racer{n}"], **pipes) for n in range(PROCESSES)]
    for one in racers:
        assert one.stdout.readline() == "ready\n"
    for one in racers:
        one.stdin.write("go\n")
        one.stdin.flush()

    said = [one.communicate(timeout=60)[0].strip() for one in racers]

    live = log.live()
    losers = [one for one in said if one != "won"]
    assert said.count("won") == 1
    assert live.generation == 2
    assert all(one.startswith("told") and f"made by {live.author} first" in one for one in losers)
