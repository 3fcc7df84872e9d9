"""A new project: settings, documents, events, features, templates, a golden set and the Dagster folders."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from lodestore.errors import RefusedError, StoreWriteError, UnavailableError
from lodestore.wire import rfc3339

__all__ = ["HOUSE", "Begun", "begin", "house"]

# The folders that a project has a copy of: they are thin, and its owners change them.
HOUSE = ("resources", "assets", "quality", "orchestration")
_SCAFFOLD = Path(__file__).parent / "scaffold"
# Files whose names have to be other ones in the package: a dotfile would act there.
_RENAMED = {"gitignore": ".gitignore"}


@dataclass(frozen=True, slots=True)
class Begun:
    """What `init` wrote, what it found and left as it was, and what to do next."""

    folder: str
    written: tuple[str, ...]
    left: tuple[str, ...]
    next_commands: tuple[str, ...]


def begin(folder: Path, *, now: datetime, force: bool = False, command: str = "lodestore") -> Begun:
    """A project that works at once is in `folder`; no file that was there is changed.

    A folder that has files is refused unless `force` is given. `command` is how the command line is called
    here, for the commands that come next.
    """
    if folder.exists() and not folder.is_dir():
        message = f"{folder} is a file; name a folder that is new or empty"
        raise RefusedError(message)
    if not force and folder.is_dir() and any(folder.iterdir()):
        message = f"{folder} is not empty; name another folder, or add --force: what is there stays as it is"
        raise RefusedError(message)
    written: list[str] = []
    left: list[str] = []
    for name, content in sorted(_contents(now)):
        (written if _put(folder / name, content) else left).append(name)
    return Begun(str(folder), tuple(written), tuple(left), _next(folder, command))


def _put(path: Path, content: bytes) -> bool:
    """The file is there; tells whether it is new."""
    if path.exists():
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror}); change the rights, or name another folder"
        raise StoreWriteError(message) from error
    return True


def _next(folder: Path, command: str) -> tuple[str, ...]:
    commands = (f"{command} run ingest features", f'{command} search "how do I get my money back?"')
    return (f"cd {shlex.quote(str(folder))}", *commands)


def _contents(now: datetime) -> Iterator[tuple[str, bytes]]:
    """Every file of a new project, by its path within it."""
    for name, path in _below(_SCAFFOLD / "starter"):
        yield _RENAMED.get(name, name), path.read_bytes()
    for name, path in _below(_SCAFFOLD / "templates"):
        yield f"templates/{name}", path.read_bytes()
    for name, path in house():
        yield name, path.read_bytes()
    yield "events/users.jsonl", _lines(_profiles(now))
    yield "events/sessions.jsonl", _lines(_sessions(now))


def house() -> list[tuple[str, Path]]:
    """The files of the Dagster folders, by their path in a project.

    A wheel carries them in `scaffold/project`; in a checkout of Lodestore they are the repository's own.
    """
    packaged = _SCAFFOLD / "project"
    root = packaged if packaged.is_dir() else _SCAFFOLD.parents[2]
    missing = [part for part in HOUSE if not (root / part).is_dir()]
    if missing:
        message = f"this installation of lodestore lacks its {', '.join(missing)}; install it again"
        raise UnavailableError(message)
    return [(f"{part}/{name}", path) for part in HOUSE for name, path in _below(root / part)]


def _below(folder: Path) -> list[tuple[str, Path]]:
    found = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted((path.relative_to(folder).as_posix(), path) for path in found)


def _lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _profiles(now: datetime) -> list[dict[str, Any]]:
    """A few users; a profile is valid for a day, so these are of just now."""
    people = [
        ("u1", "beginner", "en", 4, {"tone": "friendly"}),
        ("u2", "expert", "en", 812, {"tone": "brief"}),
        ("u3", "intermediate", "de", 96, {}),
        ("u4", "expert", "fr", 1403, {"tone": "formal"}),
        ("u5", "beginner", "es", 0, {}),
    ]
    names = ("user_id", "expertise_level", "preferred_language", "account_age_days", "user_preferences")
    moment = rfc3339((now - timedelta(minutes=10)).replace(microsecond=0))
    return [{**dict(zip(names, one, strict=True)), "event_timestamp": moment} for one in people]


def _sessions(now: datetime) -> list[dict[str, Any]]:
    """What some of them did in the last half hour."""
    seen = [("u1", 28, 1), ("u2", 25, 1), ("u2", 17, 2), ("u1", 12, 2), ("u4", 9, 1), ("u2", 3, 3)]
    rows = []
    for user, minutes, count in seen:
        moment = rfc3339((now - timedelta(minutes=minutes)).replace(microsecond=0))
        rows.append({"user_id": user, "event_timestamp": moment, "session_queries_count": count, "last_active": moment})
    return rows
