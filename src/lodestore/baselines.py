"""Pinned baselines: what a view, or the vectors of a version, looked like when somebody said that it was right."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lodestore.drift import ALPHA, MIN_ROWS, Baseline
from lodestore.errors import ConflictError, LodestoreError, RequestError, SettingsError, StoreError
from lodestore.logs import Logs
from lodestore.models import EmbeddingVersion
from lodestore.ports import Clock, OfflineStore
from lodestore.releases import Release, ReleaseLog, Slot
from lodestore.spec import FeatureView
from lodestore.tables import quoted

__all__ = ["FIRST", "Baselines", "DriftOptions", "Pinned", "PinningReleases", "of_golden", "of_version", "of_view"]

# Why a baseline is there that nobody asked for.
FIRST = "first window with enough rows"
_LEAST_ROWS = 5


@dataclass(frozen=True, slots=True)
class DriftOptions:
    """`[drift]`: how many days a window of events has, how few rows are too few, and the chance of a false alarm a run.

    `baseline_windows`: how many windows of events a new baseline has at most.
    """

    window_days: float = 7.0
    min_rows: int = MIN_ROWS
    alpha: float = ALPHA
    baseline_windows: int = 8

    def __post_init__(self) -> None:
        if self.window_days <= 0:
            message = f"window_days is {self.window_days}; give more than 0 days"
            raise SettingsError(message)
        if self.min_rows < _LEAST_ROWS:
            message = f"min_rows is {self.min_rows}; no test says anything about fewer than {_LEAST_ROWS} rows"
            raise SettingsError(message)
        if self.baseline_windows < 1:
            message = f"baseline_windows is {self.baseline_windows}; a baseline has at least 1 window"
            raise SettingsError(message)
        if not 0 < self.alpha < 1:
            message = f"alpha is {self.alpha}; it is a probability between 0 and 1, such as {ALPHA}"
            raise SettingsError(message)


def of_view(view: FeatureView) -> str:
    """The subject under which a view's baselines are kept: a new version of the view has none of the old one's."""
    return f"view:{view.name}@{view.version}"


def of_version(version: EmbeddingVersion) -> str:
    """The subject of an embedding version's baselines."""
    return f"embedding:{version.key}"


def of_golden(version: EmbeddingVersion) -> str:
    """The subject under which the level is kept that a version reached on the golden queries."""
    return f"golden:{version.key}"


@dataclass(frozen=True, slots=True)
class Pinned:
    """One pinned baseline. `neighbours`: row id -> the ids of its nearest rows on that day; `level`: query id -> nDCG."""

    id: str
    subject: str
    reason: str
    at: datetime
    baseline: Baseline
    neighbours: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    level: Mapping[str, float] = field(default_factory=dict)


class Baselines:
    """The log of baselines. The newest of a subject is in use; the older ones stay."""

    def __init__(self, store: OfflineStore, logs: Logs) -> None:
        self._store = store
        self._logs = logs

    def current(self, subject: str) -> Pinned | None:
        """The baseline in use, if one was pinned."""
        row = self._logs.last("baselines", f"subject = {quoted(subject)}")
        return None if row is None else _pinned(row)

    def exists(self, subject: str) -> bool:
        """Whether the subject has a baseline; reads no sketch."""
        return self._store.count("baselines", f"subject = {quoted(subject)}") > 0

    def every(self) -> list[Pinned]:
        """All baselines ever pinned, oldest first."""
        return [_pinned(row) for row in self._logs.rows("baselines")]

    def pin(
        self,
        subject: str,
        baseline: Baseline,
        *,
        reason: str = FIRST,
        neighbours: Mapping[str, tuple[str, ...]] | None = None,
        level: Mapping[str, float] | None = None,
    ) -> Pinned:
        """The baseline is the one in use from now on; of two that are pinned at once, one is refused."""
        if not reason.strip():
            message = f"{subject}: a baseline is replaced for a reason; add --reason 'why the new level is right'"
            raise RequestError(message)
        number = self._store.count("baselines", f"subject = {quoted(subject)}") + 1
        whole: dict[str, Any] = json.loads(baseline.to_json())
        whole |= {"neighbours": {key: list(ids) for key, ids in (neighbours or {}).items()}, "level": dict(level or {})}
        row = {"id": f"{subject}#{number}", "subject": subject, "sketch": json.dumps(whole), "reason": reason}
        if not self._logs.put("baselines", row):
            message = (
                f"{subject}: another run has pinned baseline {number} just now; look at it: lodestore drift baselines"
            )
            raise ConflictError(message)
        found = self.current(subject)
        if found is None:
            message = f"{subject}: baseline {number} was pinned and cannot be read back; look at the store"
            raise StoreError(message)
        return found


def _pinned(row: Mapping[str, Any]) -> Pinned:
    found = json.loads(row["sketch"])
    neighbours = {key: tuple(ids) for key, ids in found.get("neighbours", {}).items()}
    baseline = Baseline.from_json(row["sketch"])
    return Pinned(
        row["id"], row["subject"], row["reason"], row["at"], baseline, neighbours, dict(found.get("level", {}))
    )


class PinningReleases(ReleaseLog):
    """The release log that, after each release, pins what the vectors that went live look like."""

    def __init__(self, logs: Logs, clock: Clock, pin: Callable[[], object]) -> None:
        super().__init__(logs, clock)
        self._pin = pin

    def publish(
        self, changes: Mapping[Slot, Any], *, action: str, author: str, reason: str = "", base: Release | None = None
    ) -> Release:
        """The release is live, and every embedding version in it has a baseline."""
        release = super().publish(changes, action=action, author=author, reason=reason, base=base)
        if action == "promote" and any(slot.kind == "embedding" for slot in changes):
            # What is out is out: where pinning fails, the monitor job pins the baseline later.
            with suppress(LodestoreError):
                self._pin()
        return release
