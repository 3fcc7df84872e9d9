"""Progress of long steps: a bar where somebody looks on, lines in the log where nobody does."""

from __future__ import annotations

import io
import logging
import sys
from types import SimpleNamespace

import pytest

from resources import progress as module


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def context(monkeypatch) -> SimpleNamespace:
    monkeypatch.setattr(module, "_EVERY", 0.0)
    return SimpleNamespace(log=logging.getLogger("a step"))


def test_progress_stands_in_the_log(context, caplog) -> None:
    with caplog.at_level(logging.INFO), module.progress(context, "content__minilm__1") as tell:
        tell(5, 10)

    assert "content__minilm__1: 5 of 10" in caplog.text


def test_a_terminal_shows_a_bar(context, monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    with module.progress(context, "content__minilm__1") as tell:
        tell(10, 10)

    assert "content__minilm__1" in terminal.getvalue()
