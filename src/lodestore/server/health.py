"""How the worker stands: alive, ready by part, its figures, and what is live."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from lodestore.errors import RequestError, nearest
from lodestore.releases import Release
from lodestore.server.endpoint import Answer, Call, as_json
from lodestore.server.metrics import MEDIA, as_text
from lodestore.wire import from_rfc3339, rfc3339

__all__ = ["healthz", "metrics", "readyz", "release"]

_AT = frozenset({"at"})
_PART = frozenset({"part"})
_SERVING = frozenset({"ready", "degraded", "empty"})


async def healthz(call: Call) -> Answer:
    """GET /healthz: the process answers."""
    del call
    return Answer(as_json({"ok": True}))


async def readyz(call: Call) -> Answer:
    """GET /readyz: 200 when every part, or the one that is named, can answer; else 503 with what is missing."""
    wanted = call.query(_PART).get("part")
    parts = _parts(call)
    if wanted is not None and wanted not in parts:
        message = f"part is {wanted[:60]!r}{nearest(wanted, parts)}"
        raise RequestError(message)
    asked = parts if wanted is None else {wanted: parts[wanted]}
    ready = all(one["state"] in _SERVING for one in asked.values())
    told = {"ready": ready, "parts": parts, "release": call.live.release.generation if call.live else 0}
    return Answer(as_json(told), status=200 if ready else 503, headers={} if ready else {"retry-after": "1"})


def _parts(call: Call) -> dict[str, dict[str, str]]:
    serving = call.serving
    open_ = call.live is not None and serving.access.known
    features = ("degraded", "the online store does not answer") if serving.features.lost else ("ready", "")
    parts = {"features": features if open_ else ("loading", serving.why_closed()), "search": serving.search_state()}
    return {name: {"state": state} | ({"why": why} if why else {}) for name, (state, why) in parts.items()}


async def metrics(call: Call) -> Answer:
    """GET /metrics: what all workers of this server have done, for Prometheus."""
    serving = call.serving
    if not serving.board.shared:
        note = serving.note()
        return Answer(as_text(note.figures, note.gauges).encode(), MEDIA)
    return Answer((await serving.reading.run(serving.figures_of_all)).encode(), MEDIA)


async def release(call: Call) -> Answer:
    """GET /v1/release: what is live, and whether this worker is behind; or what was live `at` a moment."""
    live, at = call.snapshot, call.query(_AT).get("at")
    one, state = live.release, call.serving.snapshots.state()
    labels = {feature: version.label for feature, version in live.versions.items()}
    if at is not None:
        moment = from_rfc3339(at, "at")
        one, labels = await call.serving.reading.run(lambda: _was_live(call, moment))
    told: dict[str, Any] = {"id": one.id, "generation": one.generation, "embeddings": labels}
    told |= {"templates": one.templates, "views": one.views}
    if one.generation:
        told |= {"at": rfc3339(one.at), "action": one.action, "author": one.author, "reason": one.reason}
    told["newest"] = max(state.newest, one.generation)
    if state.trouble and at is None:
        told["behind_because"] = state.trouble
    return Answer(as_json(told))


def _was_live(call: Call, moment: datetime) -> tuple[Release, dict[str, str]]:
    watching = call.serving.watching
    one = watching.releases.at(moment)
    versions = watching.snapshot(one).versions
    return one, {feature: version.label for feature, version in versions.items()}
