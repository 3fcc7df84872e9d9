"""The composition root: from lodestore.toml to something that works."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from lodestore import rollout
from lodestore.adapters.factory import embedder
from lodestore.adapters.lance import LanceStore
from lodestore.baselines import Baselines, PinningReleases
from lodestore.canary import Canaries
from lodestore.catalog import Catalog, collect
from lodestore.changes import Changes
from lodestore.chunking import Chunker
from lodestore.contexts import ContextLog
from lodestore.corpus import Corpus
from lodestore.errors import SettingsError, StoreError
from lodestore.features import Features
from lodestore.live import Live
from lodestore.locks import Locks
from lodestore.logs import Logs, utc_now
from lodestore.models import EmbeddingVersion
from lodestore.online import SCHEMES, OnlineStore
from lodestore.outcomes import Outcomes
from lodestore.past import Past
from lodestore.pipeline import Pipeline
from lodestore.ports import Clock, Embedder
from lodestore.releases import Release, ReleaseLog
from lodestore.rerank import Reranker, reranker_of
from lodestore.retention import kept_since
from lodestore.settings import Settings, load
from lodestore.snapshot import Snapshots
from lodestore.spaces import Spaces, spaces_of
from lodestore.store import Lodestore, compiled
from lodestore.tables import BACKUP, RESTORING, ensure_logs
from lodestore.templates import Templates
from lodestore.tokens import CountTokens, TokenCounter, counter_of_file
from lodestore.versions import Versions, slot_of
from lodestore.why import Reasons

__all__ = ["Project", "open_project"]


@dataclass(eq=False)
class Project:
    """Everything of one project, made when it is first used."""

    settings: Settings
    clock: Clock = utc_now
    consistency: timedelta = timedelta(0)

    @cached_property
    def tables(self) -> LanceStore:
        """The system of record, its schema version checked."""
        options = self.settings.store
        tables = LanceStore(self.settings.store_uri, storage=options.storage, consistency=self.consistency)
        if not _is_made(tables):
            with self.locks.writer("making the store"):
                if not _is_made(tables):  # somebody may have restored one meanwhile, or begun to
                    ensure_logs(tables)
        Logs(tables, self.clock).check_schema()
        return tables

    @cached_property
    def locks(self) -> Locks:
        """The locks between processes."""
        return Locks(self.settings.local / "_locks", wait=self.settings.store.lock_wait)

    @cached_property
    def logs(self) -> Logs:
        """The logs."""
        return Logs(self.tables, self.clock)

    @cached_property
    def catalog(self) -> Catalog:
        """What the project's modules declare."""
        return collect(self.settings.features.modules)

    @cached_property
    def online(self) -> OnlineStore:
        """The online rows."""
        from lodestore.adapters.lmdb import LmdbOnlineStore

        url = self.settings.online.url
        if url.startswith(SCHEMES):
            from lodestore.adapters.valkey import ValkeyOnlineStore

            return ValkeyOnlineStore.open(url)
        if url != "lmdb":
            message = f"online.url is {url!r}; write lmdb, or redis://host:6379/0"
            raise SettingsError(message)
        return LmdbOnlineStore.open(self.settings.local / "_online", sync=self.settings.online.sync)

    @cached_property
    def features(self) -> Features:
        """Features, offline and online."""
        return Features(
            self.catalog,
            self.tables,
            self.online,
            self.logs,
            self.clock,
            locks=self.locks,
            journal_limit=self.settings.online.journal_limit,
            skew_every=self.settings.online.skew_every,
        )

    @cached_property
    def spaces(self) -> Spaces:
        """Embedding features: published, and made again after a change of the model."""
        return Spaces(self.catalog, self.tables, self.online, self.logs, self.clock, embedder=self.embedder)

    @cached_property
    def corpus(self) -> Corpus:
        """Documents and chunks."""
        return Corpus(self.tables, self.logs, self.clock)

    @cached_property
    def releases(self) -> ReleaseLog:
        """What is and was live."""
        return PinningReleases(self.logs, self.clock, self._pin)

    def _pin(self) -> None:
        """What has just gone live has a baseline."""
        from lodestore import monitor

        monitor.pin_live(self)

    @cached_property
    def baselines(self) -> Baselines:
        """What data looked like when it was right."""
        return Baselines(self.tables, self.logs)

    @cached_property
    def templates(self) -> Templates:
        """Prompt templates."""
        return Templates(self.logs)

    @cached_property
    def versions(self) -> Versions:
        """Embedding versions."""
        embedding = self.settings.embedding
        return Versions(
            self.logs,
            self.releases,
            models=embedding.models,
            features=embedding.features,
            chunks=self.settings.chunks,
            root=self.settings.root,
            keep=self.settings.release.keep,
            count_tokens=self.corpus.token_counts,
            spaces=lambda: spaces_of(self.catalog),
        )

    @cached_property
    def _embedders(self) -> dict[str, Embedder]:
        return {}

    def embedder(self, version: EmbeddingVersion) -> Embedder:
        """What embeds for a version; one model is loaded once."""
        if version.fingerprint not in self._embedders:
            self._embedders[version.fingerprint] = self.versions.runnable(version, embedder)
        return self._embedders[version.fingerprint]

    def live(self) -> Live:
        """A snapshot of what is live now."""
        return self.snapshot(self.releases.live())

    def snapshot(self, release: Release) -> Live:
        """A snapshot of that release."""
        versions = {feature: self.versions.registered(key) for feature, key in release.embeddings.items()}
        options = (self.settings.search.weights, self.reranker, self.retained)
        return Live(release, versions, self.embedder, self.tables, self.counter, *options)

    def retained(self, release: Release, feature: str) -> list[EmbeddingVersion]:
        """The versions of a feature whose vectors can be searched beside the live one, newest first."""
        history = [one for one in self.releases.history() if one.generation <= release.generation]
        keys = rollout.retained(history, slot_of(feature), keep=self.settings.release.keep)
        found = [self.versions.registered(key) for key in keys]
        return [one for one in found if self.tables.count(one.table)]

    @cached_property
    def past(self) -> Past:
        """What would have been found at an earlier moment."""
        return Past(
            self.tables,
            self.releases,
            registered=self.versions.registered,
            embedder=self.embedder,
            clock=self.clock,
            keep=timedelta(days=self.settings.retention.days),
            weights=self.settings.search.weights,
            reranker=self.reranker,
            kept_since=lambda: kept_since(self.logs),
        )

    @cached_property
    def reasons(self) -> Reasons:
        """Why a document is not found."""
        sources = [one.name for one in self.settings.documents]
        return Reasons(self.tables, self.corpus, live=self.live, sources=sources)

    def warm(self, release: Release) -> Live:
        """A snapshot whose tables are open and whose models are loaded."""
        live = self.snapshot(release)
        for feature, version in live.versions.items():
            self.tables.count(version.table)
            if version.fingerprint not in self._warmed:
                live.embed(["warm"], feature)
                self._warmed.add(version.fingerprint)
        return live

    @cached_property
    def _warmed(self) -> set[str]:
        return set()

    @cached_property
    def snapshots(self) -> Snapshots:
        """The snapshot that answers, and the watch over the log, on a connection of its own."""
        own = LanceStore(self.settings.store_uri, storage=self.settings.store.storage)
        log = ReleaseLog(Logs(own, self.clock), self.clock)
        return Snapshots(watch=log.live, warm=self.warm, first=self.snapshot)

    def counter(self, version: EmbeddingVersion) -> CountTokens:
        """Counts tokens by the tokenizer that `[context] tokenizer` names, or else by that of the version's model."""
        named = self.settings.context.tokenizer
        label = version.label if named is None else named
        if label not in self._counters:
            self._counters[label] = self._counter(label)
        return self._counters[label]

    @cached_property
    def _counters(self) -> dict[str, TokenCounter]:
        return {}

    def _counter(self, label: str) -> TokenCounter:
        if label.startswith("path:"):
            return counter_of_file(self.settings.root / label.removeprefix("path:"))
        return TokenCounter(Chunker(self.versions.identity(label), self.settings.chunks).count)

    @cached_property
    def contexts(self) -> ContextLog:
        """The log of recorded contexts."""
        return ContextLog(self.logs, self.settings.local / "_contexts")

    @cached_property
    def reranker(self) -> Reranker | None:
        """What reorders hits by reading them with the question, where the settings name one."""
        return reranker_of(self.settings.context.reranker, root=self.settings.root)

    @cached_property
    def template_folder(self) -> Path | None:
        """The folder of the templates; None when the settings name none and there is none."""
        folder = self.settings.root / self.settings.templates.folder
        return folder if folder.is_dir() or "templates.folder" in self.settings.origins else None

    @cached_property
    def pipeline(self) -> Pipeline:
        """The steps of the jobs."""
        return Pipeline(
            store=self.tables,
            vectors=self.tables,
            corpus=self.corpus,
            versions=self.versions,
            releases=self.releases,
            templates=self.templates,
            features=lambda: self.features,
            locks=self.locks,
            clock=self.clock,
            sources=self.settings.documents,
            events=self.settings.events,
            template_folder=self.template_folder,
            embedder=self.embedder,
            root=self.settings.root,
            batch_tokens=self.settings.embedding.batch_tokens,
            canaries=Canaries(self.logs),
            spaces=lambda: self.spaces,
        )

    @cached_property
    def changes(self) -> Changes:
        """The acts of a model change."""
        files = [
            (one.name, self.settings.root / one.queries, self.settings.root / one.qrels) for one in self.settings.golden
        ]
        return Changes(
            store=self.tables,
            vectors=self.tables,
            logs=self.logs,
            releases=self.releases,
            versions=self.versions,
            pipeline=self.pipeline,
            locks=self.locks,
            embedder=self.embedder,
            golden=files,
            options=self.settings.gate,
            where=compiled,
            keep=self.settings.release.keep,
            automatic=self.settings.embedding.promote == "auto",
            batch_tokens=self.settings.embedding.batch_tokens,
            preview=self._preview,
        )

    def _preview(self, version: EmbeddingVersion) -> Mapping[str, Any] | None:
        from lodestore.preview import of_gate

        return of_gate(self, version)

    @cached_property
    def store(self) -> Lodestore:
        """What applications use."""
        return Lodestore(
            live=self.snapshots.current,
            features=lambda: self.features,
            templates=self.templates,
            releases=self.releases,
            clock=self.clock,
            options=self.settings.context,
            reranker=self.reranker,
            contexts=self.contexts,
            outcomes=Outcomes(self.logs),
            past=lambda: self.past,
            reasons=lambda: self.reasons,
            snapshot=self.snapshot,
        )


def _is_made(tables: LanceStore) -> bool:
    """Whether there is a store; a `StoreError` for what nobody may open."""
    names = tables.names()
    if RESTORING in names:
        message = (
            f"the store {tables.uri} is being restored, or that was interrupted; wait for it, or run again: "
            "lodestore restore BACKUP"
        )
        raise StoreError(message)
    if BACKUP in names:
        message = f"{tables.uri} is a backup; name another [store] uri, and run: lodestore restore {tables.uri}"
        raise StoreError(message)
    return "store" in names


def open_project(path: Path | str | None = None) -> Project:
    """The project of lodestore.toml in `path`, in this folder, or above it; that folder is on the import path."""
    settings = load(path)
    place = str(settings.root)
    if place not in sys.path:
        sys.path.insert(0, place)
    return Project(settings)
