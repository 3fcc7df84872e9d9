"""Two workers under load, and one of them is killed: nobody else notices, and it comes back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.served import LEVELS, build, serving, until

CONNECTIONS = 8
SECONDS = float(os.environ.get("SOAK_SECONDS", "12"))
# The ids that a worker gives to requests begin alike: that is how an answer tells its worker.
WORKER = slice(0, 10)


@dataclass
class Visitor:
    """One connection at a time, kept until it breaks, and what happened on it."""

    url: str
    name: int
    stop: threading.Event
    answered: Counter = field(default_factory=Counter)
    # The worker of the connection that broke, and when.
    broken: list = field(default_factory=list)
    wrong: list = field(default_factory=list)
    worker: str = ""
    tried: int = 0
    pushed: int = 0

    def run(self):
        while not self.stop.is_set():
            with httpx.Client(base_url=self.url, timeout=150) as http:
                self.worker = ""
                self.visit(http)

    def visit(self, http):
        # A new connection now and then: otherwise a worker that comes back would have nobody to answer.
        for turn in range(1, 61):
            if self.stop.is_set():
                return
            try:
                answer, right = self.ask(http, turn)
            except httpx.TransportError:
                self.broken.append((self.worker, time.monotonic()))
                return
            self.worker = answer.headers["lodestore-request-id"][WORKER]
            self.answered[self.worker] += 1
            if answer.status_code != httpx.codes.OK or not right(answer.json()):
                self.wrong.append(answer.text[:300])

    def ask(self, http, turn):
        """A read, mostly; now and then a search, or a push that the next read has to show."""
        n = (self.name * 7 + turn) % 50
        if turn % 20 == 0:
            self.tried += 1
            now = datetime.now(UTC).isoformat()
            row = {"order_id": self.name, "total": self.tried, "event_timestamp": now}
            answer = http.post("/v1/push", json={"view": "orders", "rows": [row]})
            self.pushed = self.tried
            return answer, lambda told: told["accepted"] == 1
        if turn % 5 == 1 and self.pushed:
            # By whatever worker this connection has: the last push that was acknowledged, or one that broke off.
            body = {"features": ["orders:total"], "entities": {"order_id": [self.name]}}
            answer = http.post("/v1/features", json=body)
            return answer, lambda told: self.pushed <= int(told["columns"]["orders:total"][0]) <= self.tried
        if turn % 10 == 5:
            body = {"query": f"refunds {turn}", "filter": "category = 'public'", "mode": "text"}
            return http.post("/v1/search", json=body), lambda told: told["hits"][0]["title"] == "Refunds"
        body = {"features": ["user_profile:expertise_level"], "entities": {"user_id": [f"u{n}"]}}
        answer = http.post("/v1/features", json=body)
        return answer, lambda told: told["columns"]["user_profile:expertise_level"] == [LEVELS[n % 3]]


def workers_of(pid):
    """The process ids of the workers: children that were spawned with the server's code."""
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [one for one in children if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_own_connections_alone_and_is_replaced(tmp_path, monkeypatch):
    # However slow this machine is, a worker that starts is waited for.
    monkeypatch.setenv("LODESTORE_SERVE__SEARCH_WAIT", "120")
    with serving(build(tmp_path), "--workers", "2") as (url, process):
        until(lambda: len(workers_of(process.pid)) == 2, 30)
        stop = threading.Event()
        visitors = [Visitor(url, name, stop) for name in range(CONNECTIONS)]
        threads = [threading.Thread(target=one.run) for one in visitors]
        for one in threads:
            one.start()

        until(lambda: len({one.worker for one in visitors if one.worker}) == 2, 60)
        before = set().union(*(one.answered for one in visitors))
        killed = workers_of(process.pid)[0]
        os.kill(killed, signal.SIGKILL)
        at = time.monotonic()
        until(lambda: len(set().union(*(one.answered for one in visitors)) - before) == 1, 60)
        back = time.monotonic() - at
        threading.Event().wait(max(2.0, SECONDS - back))
        stop.set()
        for one in threads:
            one.join(60)

        assert killed not in workers_of(process.pid)
        assert len(workers_of(process.pid)) == 2

    broken = [one for visitor in visitors for one in visitor.broken]
    (dead,) = {worker for worker, _ in broken if worker}
    assert dead in before
    assert all(len(one.broken) <= 1 for one in visitors)
    assert [one for visitor in visitors for one in visitor.wrong] == []
    assert sum(sum(one.answered.values()) for one in visitors) > 1_000
