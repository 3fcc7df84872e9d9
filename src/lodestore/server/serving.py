"""One worker at work: the project, its snapshot, keys, caches, thread pools and metrics.

Three threads keep it current: one watches the release log (`Snapshots`), one reads keys and table versions,
one loads models. What is known of release and keys is also noted beside the online rows, so that a worker
that starts answers feature reads before the system of record is open.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from secrets import token_hex
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import orjson

from lodestore.adapters.lance import LanceStore
from lodestore.errors import LodestoreError, UnavailableError
from lodestore.keys import Key, Keys
from lodestore.live import Live
from lodestore.logs import Logs
from lodestore.models import EmbeddingVersion
from lodestore.online import SERVER_NOTE
from lodestore.outcomes import Outcomes
from lodestore.past import Past
from lodestore.releases import Release
from lodestore.retrieval import SearchResult
from lodestore.server.access import Access
from lodestore.server.board import Board, Note
from lodestore.server.caches import ByteCache, SingleFlight
from lodestore.server.gathering import Gathering
from lodestore.server.lanes import Lane
from lodestore.server.metrics import Figures, Metrics, Series, as_text
from lodestore.server.options import ServerOptions
from lodestore.server.served import ServedFeatures, ServedLive, ServedTemplates
from lodestore.server.tracing import Tracing
from lodestore.server.vectors import QueryVectors, VectorCache
from lodestore.snapshot import Snapshots
from lodestore.store import Lodestore
from lodestore.why import Reasons
from lodestore.wire import jsonable

if TYPE_CHECKING:
    from lodestore.project import Project

__all__ = ["Serving"]

_log = logging.getLogger("lodestore.server")
_NOTE_SECONDS = 60.0
# Searches may look at a table as it was this long ago; asking for its newest version each time costs a millisecond.
_CONSISTENCY = timedelta(seconds=1)
_PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_FIRST = "it is being read for the first time"


class Serving:
    """Everything that the routes use. `open` and `close` are for a thread; the rest is said where it is not."""

    def __init__(
        self, project: Project, options: ServerOptions | None = None, *, tracing: Tracing | None = None
    ) -> None:
        self.tracing = tracing
        self.options = options or ServerOptions.of(project.settings.serve)
        self.project = replace(project, consistency=_CONSISTENCY)
        # Release log, keys, models and templates are read as they are now, on a connection of their own.
        self.watching = replace(project, consistency=timedelta(0))
        self.metrics = Metrics()
        self.access = Access()
        self.inflight = 0
        limits = self.options
        self.searching = Lane("search", self.metrics, threads=limits.search_threads, most=limits.max_queued)
        self.reading = Lane("read", self.metrics, threads=limits.search_threads, most=limits.max_queued)
        self.writing = Lane("write", self.metrics, threads=limits.write_threads, most=limits.max_queued)
        self.found: ByteCache[tuple[SearchResult, bytes]] = ByteCache(limits.search_cache, lambda one: 2 * len(one[1]))
        self.finding: SingleFlight[tuple[SearchResult, bytes]] = SingleFlight()
        self.vectors = VectorCache(limits.vector_cache)
        self.snapshots = Snapshots(watch=self._watch, warm=self._warm)
        self._models: dict[str, QueryVectors] = {}
        self._versions: Mapping[str, int] = {}
        self._pinned: dict[str, Live] = {}
        self._noted: tuple[Live, float] | None = None
        self._templates: ServedTemplates | None = None
        self._noted_at = 0.0
        self._began = time.monotonic()
        self._note_text = b""
        self._trouble = _FIRST
        self._opened = False
        self._ids, self._own = count(1), token_hex(5)
        self._unpinned = False
        self.board = Board.of_environment(self._own)
        self._stopping = Event()
        self._wake = Event()
        self._looked = Event()
        self._threads: list[Thread] = []

    # -- life

    def open(self) -> None:
        """Features can be read; release log, keys and models are opened in the background."""
        project = self.project
        catalog, online = project.catalog, project.online
        # Reading online rows needs no open table; this one connects when it is first used, which is by a push.
        offline = LanceStore(project.settings.store_uri, storage=project.settings.store.storage)
        logs, limit = Logs(offline, project.clock), project.settings.online.journal_limit
        self.features = ServedFeatures(
            catalog, offline, online, logs, project.clock, locks=project.locks, journal_limit=limit
        )
        self.on_loop = project.settings.online.url == "lmdb"
        # A store on a server is asked once for what many requests want.
        self.gathering = None if self.on_loop else Gathering(online, self.reading, self.metrics)
        self._recall(offline)
        for name, work in (("start", self._start), ("models", self._load_models)):
            thread = Thread(target=work, name=f"lodestore-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        if not self.access.known:
            # Whoever calls before the first look at keys and release waits at the door, which another worker may open.
            self._looked.wait(_PATIENCE_SECONDS)

    def close(self) -> None:
        """What runs is finished, and nothing is watched any more."""
        self._stopping.set()
        self._looked.set()
        self._wake.set()
        self.snapshots.stop()
        for lane in (self.searching, self.reading, self.writing):
            lane.close()
        for thread in self._threads:
            thread.join(_PATIENCE_SECONDS)
        self.project.online.close()

    def next_id(self) -> str:
        """A request id that no other request has, of this worker or another one."""
        return f"{self._own}{next(self._ids):x}"

    # -- the snapshot

    def live(self) -> Live | None:
        """The snapshot to answer by; None while none was read. Costs nothing."""
        if self._opened:
            return self.snapshots.current()
        return self._noted[0] if self._noted is not None else None

    def age(self) -> float:
        """Seconds since it was certain that the snapshot is the newest release."""
        if self._opened:
            return self.snapshots.age()
        return time.time() - self._noted[1] if self._noted is not None else 0.0

    def why_closed(self) -> str:
        """Why there is no snapshot yet."""
        return self._trouble

    def stale(self) -> tuple[str, ...]:
        """The mark of an answer by a snapshot that could not be checked for a while; beyond the limit, an error."""
        age = self.age()
        starting = not self._opened and time.monotonic() - self._began < _PATIENCE_SECONDS
        if age > self.options.max_age and not starting:
            message = f"release: the release log could not be read for {age:.0f} s; see that the store can be reached"
            raise UnavailableError(message)
        return ("release",) if age > self.options.marked_after else ()

    async def searchable(self, live: Live | None, *, model: bool) -> Live | None:
        """The snapshot to search by. A worker that has just started lets searches wait until it can answer them.

        What waits holds no thread. A store or a model that failed is waited for by nobody.
        """
        if not self._is_loading(model=model):
            return live
        end = time.monotonic() + self.options.search_wait
        while self._is_loading(model=model) and time.monotonic() < end:  # noqa: ASYNC110 - threads bring it about
            await asyncio.sleep(_LOOK_SECONDS)
        return self.live()

    def _is_loading(self, *, model: bool) -> bool:
        if not self._opened:
            return self._trouble == _FIRST
        return model and self.search_state()[0] == "loading"

    async def at(self, live: Live, generation: int | None, *, search: bool = True) -> Live:
        """The snapshot of that generation: the live one or its predecessor, its models loaded where it is to search."""
        if generation is None or generation == live.release.generation:
            return live
        return await self.reading.run(lambda: self._pin(generation, live.release, search=search))

    def _pin(self, generation: int, newest: Release, *, search: bool) -> Live:
        release = self.watching.releases.served(generation, live=newest)
        live = self._pinned.get(release.id)
        if live is None:
            live = self._made(release)
            self._pinned = {release.id: live}
        if search:
            self._load(live)
        return live

    def _watch(self) -> Release:
        return self.watching.releases.live()

    def _made(self, release: Release) -> Live:
        self.features.know(release)
        made = self.watching.snapshot(release)
        return ServedLive(
            release,
            made.versions,
            self._embedder,
            self.project.tables,
            counter=made.counter,
            weights=made.weights,
            retained=made.retained,
            reranker=made.reranker,
        )

    def _warm(self, release: Release) -> Live:
        """The snapshot of a release. When searches work now, they must work on it too before it is used."""
        live = self._made(release)
        if self.search_state()[0] == "ready":
            self._load(live)
        self._wake.set()
        return live

    # -- models

    def _embedder(self, version: EmbeddingVersion) -> QueryVectors:
        found = self._models.get(version.fingerprint)
        if found is None:
            found = QueryVectors(
                lambda: self.watching.embedder(version), version.fingerprint, version.dimension, self.vectors
            )
            found = self._models.setdefault(version.fingerprint, found)
        return found

    def _load(self, live: Live) -> None:
        """The snapshot's models are loaded, its tables open, its tokenizer there."""
        for version in live.versions.values():
            self._embedder(version).load()
            self.project.tables.count(version.table)
        if "content" in live.versions:
            live.count_tokens(["warm"])

    def _load_models(self) -> None:
        """Whatever model the snapshot needs is loaded; one that fails is tried again after a while."""
        while not self._stopping.is_set():
            self._wake.clear()
            live = self.live()
            if live is not None and self.search_state()[0] in {"loading", "degraded"} and live.versions:
                try:
                    self._load(live)
                except Exception as error:  # noqa: BLE001 - told by readyz and the log, and tried again
                    _log.warning("the model of release %s does not load: %s", live.release.generation, error)
            self._wake.wait(self.options.retry_model)

    def search_state(self) -> tuple[str, str]:
        """What searches can do now, and why: loading, ready, degraded (text alone) or empty."""
        live = self.live() if self._opened else None
        if live is None:
            return "loading", self._trouble
        version = live.versions.get("content")
        if version is None:
            return "empty", "nothing is live yet; run: lodestore run ingest"
        model = self._embedder(version)
        if model.ready:
            return "ready", ""
        return ("loading", f"{version.label} is being loaded") if model.trouble is None else ("degraded", model.trouble)

    # -- the in-process store

    def templates(self) -> ServedTemplates:
        """Prompt templates; for a thread."""
        if self._templates is None:
            self._templates = ServedTemplates(self.watching.logs)
        return self._templates

    def store(self, live: Live) -> Lodestore:
        """The store as applications use it, over this snapshot; for a thread."""
        watching, sources = self.watching, [one.name for one in self.project.settings.documents]
        return Lodestore(
            live=lambda: live,
            features=lambda: self.features,
            templates=self.templates(),
            releases=watching.releases,
            clock=self.project.clock,
            options=self.project.settings.context,
            reranker=watching.reranker,
            contexts=watching.contexts,
            outcomes=Outcomes(watching.logs),
            past=self._past,
            reasons=lambda: Reasons(self.project.tables, watching.corpus, live=lambda: live, sources=sources),
        )

    def _past(self) -> Past:
        settings = self.project.settings
        return Past(
            self.project.tables,
            self.watching.releases,
            registered=self.watching.versions.registered,
            embedder=self._embedder,
            clock=self.project.clock,
            keep=timedelta(days=settings.retention.days),
            weights=settings.search.weights,
        )

    def table_version(self, table: str) -> int | None:
        """The version of a table that searches look at, or an older one; None when it is not known."""
        return self._versions.get(table)

    # -- figures

    def note(self) -> Note:
        """What this worker has done, and how it stands."""
        state, live, vectors = self.snapshots.state(), self.live(), self.vectors
        gauges = {
            "lodestore_release": live.release.generation if live else 0,
            "lodestore_newest_release": state.newest,
            "lodestore_snapshot_age_seconds": self.age(),
            "lodestore_keys_age_seconds": self.access.age,
            "lodestore_inflight_requests": self.inflight,
            "lodestore_search_cache_bytes": self.found.bytes,
            "lodestore_search_ready": float(self.search_state()[0] == "ready"),
            "lodestore_vector_hits": vectors.hits,
            "lodestore_vector_misses": vectors.misses,
            "lodestore_vector_coalesced": vectors.joined,
        }
        gauges |= {f"lodestore_waiting_{one.name}": one.waiting for one in (self.searching, self.reading, self.writing)}
        series: dict[Series, float] = {(name, ()): float(value) for name, value in gauges.items()}
        for place, age in self.features.ages().items():
            series["lodestore_view_age_seconds", (("view", place),)] = age
        return Note(self._own, self.metrics.figures(), series)

    def figures_of_all(self) -> str:
        """What all workers have done, those that died included, and how each that lives stands; for a thread."""
        own = self._pinned_note()
        notes = {one.worker: one for one in self.board.read()} | {own.worker: own}
        gauges = {
            (name, (*labels, ("worker", one.worker))): value
            for one in notes.values()
            for (name, labels), value in one.gauges.items()
        }
        return as_text(sum((one.figures for one in notes.values()), Figures()), gauges)

    def _pinned_note(self) -> Note:
        """What this worker tells of itself, on the board first: so no later answer, by whichever worker, counts less."""
        try:
            return self.board.pin(self.note)
        except Exception as error:  # noqa: BLE001 - figures never end the thread that reads keys and tables anew
            if not self._unpinned:  # told once, not every half second
                _log.warning("the figures of this worker are not pinned, /metrics of others may count less: %s", error)
            self._unpinned = True
            return self.note()

    # -- what keeps it current

    def _start(self) -> None:
        """Release log and keys are read, and then again and again."""
        while not self._stopping.is_set() and not self._try(self._first):
            self._looked.set()
            self._stopping.wait(1.0)
        if self._stopping.is_set():
            return
        self.snapshots.start()
        while not self._stopping.wait(self.options.tick):
            self.features.probe()
            self._try(self._tick)
            if self.board.shared:
                self._pinned_note()

    def _first(self) -> None:
        self.access.use(Keys(self.watching.logs).all())
        self.snapshots.current()
        self.snapshots.refresh()
        self._opened = True
        self._looked.set()
        self._wake.set()
        self._tick()

    def _tick(self) -> None:
        keys = Keys(self.watching.logs).all()
        self.access.use_newer(keys)
        live = self.snapshots.current()
        version = live.versions.get("content")
        # The handle that searches use never goes back: a search cannot see an older table than this says.
        self._versions = {} if version is None else {version.table: _version_of(self.project.tables, version.table)}
        self._remember(live.release, keys)

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - told by readyz and the log, and tried again
            if str(error) != self._trouble:
                _log.warning("the store cannot be read: %s", error)
            self._trouble = str(error)
            return False
        self._trouble = ""
        return True

    # -- the note beside the online rows

    def _remember(self, release: Release, keys: list[Key]) -> None:
        """Release and keys are noted for workers that start; the keys as hashes, as in their log."""
        rows = [{**key.to_json(), "digest": key.digest} for key in keys]
        told = {"uri": self.project.settings.store_uri, "release": release.to_row(), "keys": rows}
        text = orjson.dumps(jsonable(told))
        if text != self._note_text or time.time() - self._noted_at > _NOTE_SECONDS:
            self._noted_at = time.time()
            self.project.online.set_meta(
                SERVER_NOTE, orjson.dumps({"at": self._noted_at, "note": orjson.Fragment(text)})
            )
            self._note_text = text

    def _recall(self, offline: LanceStore) -> None:
        """Until the log is read, the release and the keys that a worker noted last are used."""
        try:
            found = self.project.online.get_meta(SERVER_NOTE)
        except LodestoreError as error:
            _log.warning("the online store does not answer: %s", error)
            return
        if not found:
            return
        told = orjson.loads(found)
        note = told["note"]
        if note["uri"] != self.project.settings.store_uri:
            return
        release = Release.from_row({**note["release"], "at": datetime.fromisoformat(note["release"]["at"])})
        self.features.know(release)
        self._noted = (ServedLive(release, {}, self._embedder, offline), told["at"])
        self.access.use([_key(row) for row in note["keys"]])


def _version_of(tables: LanceStore, name: str) -> int:
    return tables.revision(name)


def _key(row: Mapping[str, Any]) -> Key:
    moments = {name: row[name] and datetime.fromisoformat(row[name]) for name in ("at", "revoked_at")}
    return Key(**{**row, **moments, "scopes": frozenset(row["scopes"])})
