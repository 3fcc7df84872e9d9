"""Rows wait in a file and arrive whole, whatever stands in them; what is no row is set aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lodestore.logs import Logs
from lodestore.spool import Spool
from lodestore.testing import FrozenClock, MemoryStore


@pytest.fixture
def logs() -> Logs:
    return Logs(MemoryStore(), FrozenClock())


def row(name: str) -> dict[str, Any]:
    return {"id": name, "request_id": name, "user": name}


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u0085", "\x0b", "\x1c", "\r", "\n"])
def test_a_row_arrives_whole_whatever_line_ends_stand_in_it(logs: Logs, tmp_path: Path, sign: str) -> None:
    spool = Spool(logs, "contexts", tmp_path)

    spool.add(row(f"a{sign}b"))
    waiting, moved = spool.rows(), spool.flush()

    assert [one["user"] for one in waiting] == [f"a{sign}b"]
    assert (moved, [one["user"] for one in logs.rows("contexts")]) == (1, [f"a{sign}b"])


def test_a_line_that_is_no_row_is_set_aside_and_stops_no_other(logs: Logs, tmp_path: Path) -> None:
    spool = Spool(logs, "contexts", tmp_path)
    spool.add(row("before"))
    spool.close()
    (file,) = tmp_path.glob("*.jsonl")
    with file.open("a", encoding="utf-8") as more:
        more.write('{"id": "torn\n')
        more.write('{"id": "last", "request_id": "last", "user": "last"}\n{"id": "cut sh')

    moved = spool.flush()

    assert (moved, spool.flush(), spool.rows()) == (2, 0, [])
    assert {one["id"] for one in logs.rows("contexts")} == {"before", "last"}
    assert [one.read_text(encoding="utf-8") for one in tmp_path.glob("*.broken")] == ['{"id": "torn']
