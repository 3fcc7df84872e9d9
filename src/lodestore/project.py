"""The composition root: from lodestore.toml to something that works."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from lodestore.adapters.factory import embedder
from lodestore.adapters.lance import LanceStore
from lodestore.catalog import Catalog, collect
from lodestore.changes import Changes
from lodestore.chunking import Chunker
from lodestore.corpus import Corpus
from lodestore.errors import SettingsError
from lodestore.features import Features
from lodestore.live import Live
from lodestore.locks import Locks
from lodestore.logs import Logs, utc_now
from lodestore.models import EmbeddingVersion
from lodestore.online import OnlineStore
from lodestore.pipeline import Pipeline
from lodestore.ports import Clock, Embedder
from lodestore.releases import ReleaseLog
from lodestore.settings import Settings, load
from lodestore.store import Lodestore, compiled
from lodestore.tables import ensure_logs
from lodestore.templates import Templates
from lodestore.versions import Versions

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
        if tables.names("store") != ["store"]:
            with self.locks.writer("making the store"):
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
        if url.startswith(("redis://", "rediss://", "valkey://")):
            from lodestore.adapters.valkey import ValkeyOnlineStore

            return ValkeyOnlineStore.open(url)
        if url != "lmdb":
            message = f"online.url is {url!r}; write lmdb, or redis://host:6379/0"
            raise SettingsError(message)
        return LmdbOnlineStore.open(self.settings.local / "_online", sync=self.settings.online.sync)

    @cached_property
    def features(self) -> Features:
        """Features, offline and online."""
        return Features(self.catalog, self.tables, self.online, self.logs, self.clock)

    @cached_property
    def corpus(self) -> Corpus:
        """Documents and chunks."""
        return Corpus(self.tables, self.logs, self.clock)

    @cached_property
    def releases(self) -> ReleaseLog:
        """What is and was live."""
        return ReleaseLog(self.logs, self.clock)

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
        release = self.releases.live()
        versions = {feature: self.versions.registered(key) for feature, key in release.embeddings.items()}
        return Live(release, versions, self.embedder, self.tables)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of the texts, by the tokenizer of the live content model."""
        version = self.live().version("content")
        return Chunker(self.versions.identity(version.label), self.settings.chunks).count(texts)

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
        )

    @cached_property
    def store(self) -> Lodestore:
        """What applications use."""
        context = self.settings.context
        return Lodestore(
            live=self.live,
            features=lambda: self.features,
            templates=self.templates,
            releases=self.releases,
            count_tokens=self.count_tokens,
            clock=self.clock,
            template=context.template,
            k=context.k,
            token_budget=context.token_budget,
        )


def open_project(path: Path | str | None = None) -> Project:
    """The project of lodestore.toml in `path`, in this folder, or above it; that folder is on the import path."""
    settings = load(path)
    place = str(settings.root)
    if place not in sys.path:
        sys.path.insert(0, place)
    return Project(settings)
