"""A few users and what they did just now, as event files: the demo's only made-up data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

__all__ = ["write"]

# Profiles expire after a day: files that are older than this are written anew.
_RENEW_AFTER = timedelta(hours=12)


def write(folder: Path, *, now: datetime | None = None) -> bool:
    """The event files of the demo are there and young enough; tells whether they were written."""
    moment = now or datetime.now(UTC)
    users, sessions = folder / "users.jsonl", folder / "sessions.jsonl"
    if users.is_file() and moment.timestamp() - users.stat().st_mtime < _RENEW_AFTER.total_seconds():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    _lines(users, _profiles(moment))
    _lines(sessions, _sessions(moment))
    return True


def _profiles(now: datetime) -> list[dict[str, object]]:
    people = [("ada", "expert", "en", 2_190), ("ben", "beginner", "en", 4), ("chloe", "intermediate", "fr", 310)]
    return [
        {
            "user_id": name,
            "event_timestamp": now.isoformat(),
            "expertise_level": level,
            "preferred_language": language,
            "account_age_days": days,
            "user_preferences": {"tone": "plain"},
        }
        for name, level, language, days in people
    ]


def _sessions(now: datetime) -> list[dict[str, object]]:
    return [
        {
            "user_id": name,
            "event_timestamp": (now - timedelta(minutes=minutes)).isoformat(),
            "session_queries_count": count,
            "last_active": (now - timedelta(minutes=minutes)).isoformat(),
        }
        for name, count, minutes in (("ada", 1, 12), ("ada", 2, 9), ("ben", 1, 3))
    ]


def _lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
