"""What the jobs do, one step a method. Each step can be run again at any time: it does only what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from lodestore.canary import Canaries
from lodestore.chunking import Chunker, ready, whole
from lodestore.corpus import ChunkSync, Corpus, DocumentSync
from lodestore.documents import DocumentSource, read
from lodestore.errors import ModelError, SourceError
from lodestore.events import EventSource
from lodestore.features import Features, Inputs, Published, Recorded
from lodestore.locks import Locks
from lodestore.models import EmbeddingVersion
from lodestore.ports import Clock, Embedder, OfflineStore, Progress, VectorStore
from lodestore.reembed import Filled, Filling, difference
from lodestore.releases import Release, ReleaseLog, Slot
from lodestore.spaces import FOLLOWED, Gap, Rebuilt, Spaces
from lodestore.spec import FeatureView
from lodestore.tables import chunk_table, embedding_schema, view_table
from lodestore.templates import Added, Templates
from lodestore.versions import Versions, of_events, slot_of

__all__ = ["Pipeline", "VersionHealth"]


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class VersionHealth:
    """Whether a version's table can serve: every row there, every vector sound."""

    key: str
    rows: int
    wanted: int
    missing: int
    surplus: int
    bad: int
    duplicates: int
    may_be_empty: bool = False  # before anybody has asked anything, there are no vectors of questions

    @property
    def coverage(self) -> float:
        """The share of wanted rows that are there and current, in [0, 1]."""
        return 1.0 if not self.wanted else 1 - self.missing / self.wanted

    @property
    def healthy(self) -> bool:
        """Whether it may serve."""
        there = self.rows > 0 or self.may_be_empty
        return there and not (self.missing or self.surplus or self.bad or self.duplicates)

    def why_not(self) -> str:
        """What keeps it from serving."""
        faults = {"rows missing": self.missing, "rows too many": self.surplus, "bad vectors": self.bad}
        faults["doubled rows"] = self.duplicates
        shown = [f"{count} {what}" for what, count in faults.items() if count]
        return ", ".join(shown) or ("no rows" if not self.rows else "nothing")


class Pipeline:
    """The steps from sources to what is live."""

    def __init__(
        self,
        *,
        store: OfflineStore,
        vectors: VectorStore,
        corpus: Corpus,
        versions: Versions,
        releases: ReleaseLog,
        templates: Templates,
        features: Callable[[], Features],
        locks: Locks,
        clock: Clock,
        sources: Sequence[DocumentSource],
        events: Sequence[EventSource],
        template_folder: Path | None,
        embedder: Callable[[EmbeddingVersion], Embedder],
        root: Path,
        batch_tokens: int,
        canaries: Canaries,
        spaces: Callable[[], Spaces],
    ) -> None:
        self._store = store
        self._vectors = vectors
        self.corpus = corpus
        self.versions = versions
        self.releases = releases
        self.templates = templates
        self._features = features
        self._locks = locks
        self._clock = clock
        self._sources = tuple(sources)
        self._events = tuple(events)
        self._template_folder = template_folder
        self._embedder = embedder
        self._root = root
        self._batch_tokens = batch_tokens
        self._canaries = canaries
        self._spaces = spaces

    def writing(self, act: str) -> AbstractContextManager[None]:
        """Hold the store-wide writer lock while `act` goes on."""
        return self._locks.writer(act)

    # -- documents and chunks

    def read_documents(self) -> list[DocumentSync]:
        """Every source is read; the store's documents follow it.

        A source that cannot be read stops no other one; its error is raised at the end. Documents
        of sources that are no longer declared are retired, once every declared one could be read.
        """
        out, errors = [], []
        for source in self._sources:
            try:
                reading = read(source, root=self._root, now=self._clock())
            except SourceError as error:
                errors.append(error)
                continue
            with self.writing(f"reading the documents of {source.name}"):
                out.append(self.corpus.sync(source, reading))
        if errors:
            raise errors[0] if len(errors) == 1 else SourceError("; ".join(map(str, errors)))
        with self.writing("retiring the documents of undeclared sources"):
            return out + self.corpus.forget_sources(one.name for one in self._sources)

    def chunkers(self) -> list[Chunker]:
        """The chunkers of every version that is kept up to date.

        One that is not live and whose model is gone has none: filling it tells, after the others are filled.
        """
        found = (self._chunker(version) for version in self.versions.maintained())
        return list({chunker.id: chunker for chunker in found if chunker is not None}.values())

    def _chunker(self, version: EmbeddingVersion) -> Chunker | None:
        try:
            return self.versions.chunker(version)
        except ModelError:
            if version.key in self.releases.live().embeddings.values():
                raise
            return None

    def cut_chunks(self) -> list[ChunkSync]:
        """The chunks of every chunker in use follow the documents."""
        with self.writing("cutting chunks"):
            return [self.corpus.sync_chunks(chunker) for chunker in self.chunkers()]

    # -- embeddings

    def fill(
        self,
        version: EmbeddingVersion,
        *,
        progress: Progress | None = None,
        documents: frozenset[str] | None = None,
    ) -> Filled:
        """The version's table holds exactly the current rows, indexed; nothing is embedded twice.

        With `documents`, only their rows are added, and nothing is taken out: a trial. What users asked is
        embedded for a version of events, as far as its texts are kept.
        """
        if of_events(version):
            return self._fill_events(version)
        siblings = [one.table for one in self.versions.all() if one.fingerprint == version.fingerprint]
        with self._locks.hold(version.table, f"embedding {version.key}"):
            filling = Filling(
                self._store,
                version,
                self._embedder(version),
                same_fingerprint=siblings,
                clock=self._clock,
                batch_tokens=self._batch_tokens,
                progress=progress,
            )
            filled = filling.run(documents)
            if filled.embedded:
                self._canaries.pin(version, self._embedder(version))
            # Also where nothing was written: the last run may have died before it came to this.
            self._vectors.index(version.table)
        return filled

    def _fill_events(self, version: EmbeddingVersion) -> Filled:
        """What users asked, up to this moment, is in the version's histories and online in it."""
        started, spent = time.monotonic(), time.process_time()
        with self._locks.hold(version.table, f"embedding {version.key}"):
            # The version's own table stays empty; that it exists says that the version was built and not dropped.
            self._store.ensure(version.table, embedding_schema(version.dimension), key="row_id")
            self._features().drain()
            before = self.gap(version)
            self._spaces().bind(version, own=self._own())
            after = self.gap(version)
            if after.have and not ready(version.chunker):
                self._canaries.pin(version, self._embedder(version))
        copied = before.copied - after.copied
        embedded = after.have - before.have - copied
        seconds, cpu = time.monotonic() - started, time.process_time() - spent
        return Filled(version.key, after.have, embedded, copied, 0, before.tokens - after.tokens, seconds, cpu)

    def _own(self) -> frozenset[str]:
        """The spaces that have a live version of their own."""
        return frozenset(self.releases.live().embeddings)

    def gap(self, version: EmbeddingVersion) -> Gap:
        """What the version has of the vectors that came with events, and what of the rest it can get."""
        return self._spaces().gap(version, own=self._own())

    def texts(self, version: EmbeddingVersion) -> Iterator[list[str]]:
        """The questions that the version would have to embed."""
        return self._spaces().texts(version, own=self._own())

    def bind(self, version: EmbeddingVersion) -> list[Rebuilt]:
        """Every feature whose values the version makes is online in it: its going live leaves no gap.

        A project without feature modules has no such features.
        """
        own = self._own()
        if self._spaces().asks(version, own=own):
            self._features().drain()
        return self._spaces().bind(version, own=own)

    def index(self, version: EmbeddingVersion) -> bool:
        """The indexes that searches need cover every row; tells whether there is one over the vectors."""
        if of_events(version):
            return False
        self._vectors.index(version.table)
        return self._vectors.indexed(version.table)

    def as_many(self, version: EmbeddingVersion) -> bool:
        """Whether the version's table has as many rows as there are texts for it; False where only reading tells."""
        if of_events(version) or ready(version.chunker) or whole(version.chunker):
            return False
        return self._store.count(version.table) == self._store.count(chunk_table(version.chunker))

    def current(self, version: EmbeddingVersion) -> bool:
        """Whether the version's table holds exactly the rows that it should."""
        if of_events(version):
            return self.health(version).healthy
        gap = difference(self._store, version)
        return not (gap.write.num_rows or len(gap.remove))

    def built(self, version: EmbeddingVersion) -> bool:
        """Whether the version's vectors are there, and were not dropped."""
        return bool(self._store.revision(version.table) if of_events(version) else self._store.count(version.table))

    def drop(self, version: EmbeddingVersion) -> None:
        """The version's vectors are gone."""
        if of_events(version):
            live = self.releases.live().embeddings
            heir = live.get(version.feature) or live.get(FOLLOWED)
            if heir is not None:  # texts that only this version's rows hold go on to the live one
                self.bind(self.versions.registered(heir))
            self._spaces().drop(version)
        self._store.drop(version.table)

    def fill_maintained(self, *, progress: Progress | None = None) -> list[Filled]:
        """Live, predecessor and candidate versions are up to date, first versions built."""
        return self.each_maintained(lambda version: self.fill(version, progress=progress))

    def each_maintained(
        self,
        act: Callable[[EmbeddingVersion], _T],
        *,
        otherwise: Callable[[EmbeddingVersion, ModelError], None] | None = None,
    ) -> list[_T]:
        """The act was done for every version that is kept up to date, live ones first.

        One that fails, because its model is gone say, keeps no other from being done. Where it does not
        serve, `otherwise` hears of it; every other error is raised at the end, as one.
        """
        errors, done = self.versions.register_first(), []
        states = self.versions.states()
        slots = self.releases.live().embeddings
        for version in sorted(self.versions.maintained(first=False), key=lambda one: states.get(one.key) != "live"):
            try:
                done.append(act(version))
            except ModelError as error:
                if otherwise is None or slots.get(version.feature, version.key) == version.key:
                    errors.append(error)
                else:
                    otherwise(version, error)
        if errors:
            raise errors[0] if len(errors) == 1 else ModelError("; ".join(map(str, errors)))
        return done

    def health(self, version: EmbeddingVersion) -> VersionHealth:
        """Measure whether the version's table can serve."""
        if of_events(version):
            found = self.gap(version)
            missing = found.copied + found.embedded
            return VersionHealth(
                version.key, found.have, found.have + missing, missing, 0, found.bad, found.doubled, may_be_empty=True
            )
        gap = difference(self._store, version)
        table = self._store.read(version.table, ["row_id", "norm"])
        norms = table["norm"].to_numpy() if table.num_rows else pa.array([], pa.float64()).to_numpy()
        bad = int((~(norms > 0) | ~(norms < float("inf"))).sum())
        unique = pc.count_distinct(table["row_id"]).as_py() if table.num_rows else 0
        counts = (gap.write.num_rows, len(gap.remove), bad, table.num_rows - unique)
        return VersionHealth(version.key, table.num_rows, gap.wanted, *counts)

    # -- release

    def promote_first(self, *, author: str = "ingest") -> Release | None:
        """What has no live version yet gets its first one, where it is healthy; one release for all of it."""
        if not self._firsts(self.releases.live()):
            return None
        with self.writing("promoting first versions"):
            # Looked at again under the lock: another run may have been first, which is just as well.
            live = self.releases.live()
            changes = self._firsts(live)
            if not changes:
                return None
            return self.releases.publish(
                changes, action="promote", author=author, reason="first healthy version", base=live
            )

    def _firsts(self, live: Release) -> dict[Slot, object]:
        return self._first_embeddings(live) | self._first_templates(live) | self._view_versions(live)

    def _first_embeddings(self, live: Release) -> dict[Slot, object]:
        changes: dict[Slot, object] = {}
        for version in self.versions.maintained():
            missing = version.feature not in live.embeddings
            if missing and self.built(version) and self.health(version).healthy:
                changes[slot_of(version.feature)] = version.key
        return changes

    def _first_templates(self, live: Release) -> dict[Slot, object]:
        newest = self.templates.newest()
        return {
            Slot("template", name): {version: 1.0} for name, version in newest.items() if name not in live.templates
        }

    def _view_versions(self, live: Release) -> dict[Slot, object]:
        """The views to go live: those that have no live version yet, and newer ones that have rows and are not held."""
        declared = self._features().catalog.latest.values()
        return {Slot("view", one.name): one.version for one in declared if self._goes_live(one, live)}

    def _goes_live(self, view: FeatureView, live: Release) -> bool:
        now = live.views.get(view.name)
        if now is None or now == view.version:
            return now is None
        held = {(hold.slot, hold.version) for hold in self.releases.holds()}
        return (Slot("view", view.name), str(view.version)) not in held and self._store.count(view_table(view)) > 0

    def promote_views(self, *, author: str = "features") -> Release | None:
        """Newer versions of views are live as soon as they have rows; one release for all of them."""
        if not self._view_versions(self.releases.live()):
            return None
        with self.writing("promoting versions of views"):
            live = self.releases.live()
            changes = self._view_versions(live)
            if not changes:
                return None
            return self.releases.publish(changes, action="promote", author=author, reason="has rows", base=live)

    # -- templates

    def add_templates(self) -> Added:
        """The template files are in the store."""
        if self._template_folder is None:
            return Added((), ())
        with self.writing("adding prompt templates"):
            return self.templates.add_folder(self._template_folder)

    # -- features

    def views(self) -> list[FeatureView]:
        """The declared views, newest versions."""
        return list(self._features().catalog.latest.values())

    def record(self, view: FeatureView) -> Recorded:
        """The view's history has what its event files, or its compute function, say."""
        features = self._features()
        total = Recorded(view.name, 0, 0, 0)
        with self.writing(f"recording {view.name}"):
            for source in self._events:
                if source.view == view.name:
                    total = _plus(total, features.record_events(source, root=self._root))
            if view.compute is not None:
                live = self.templates.as_features(self.releases.live())
                total = _plus(total, features.compute(view, Inputs(self._store, live)))
        return total

    def publish(self, view: FeatureView) -> Published:
        """The view's newest values are online; entities that are gone from a computed view are not."""
        features = self._features()
        published = features.materialize(view)
        if view.name == "document_features":
            ids: Iterable[str] = self._store.read("documents", ["document_id"])["document_id"].to_pylist()
            removed = features.withdraw(view, {(one,) for one in ids})
            return Published(view.name, published.keys - removed, published.written, published.late, removed)
        return published


def _plus(one: Recorded, other: Recorded) -> Recorded:
    counts = (one.read + other.read, one.added + other.added, one.known + other.known)
    return Recorded(one.view, *counts, problems=one.problems + other.problems)
