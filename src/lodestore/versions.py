"""Embedding versions: which are declared, which are registered, and what state each is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lodestore.chunking import WHOLE, Chunker, ChunkOptions
from lodestore.errors import FingerprintError, UnknownModelError
from lodestore.logs import Logs
from lodestore.models import EmbeddingModel, EmbeddingVersion, Identity, identify, labels
from lodestore.releases import Release, ReleaseLog, Slot, predecessors
from lodestore.wire import canonical

__all__ = ["CHUNKED", "Declared", "State", "Versions", "slot_of"]

# Features whose rows come from documents, and how: in chunks, or whole.
CHUNKED: Mapping[str, bool] = {"content": True, "title": False}

State = str  # live, predecessor, held, candidate or retired


def slot_of(feature: str) -> Slot:
    """The release slot of an embedding feature."""
    return Slot("embedding", feature)


@dataclass(frozen=True, slots=True)
class Declared:
    """An embedding version as the settings want it, with everything that runs it."""

    version: EmbeddingVersion
    model: EmbeddingModel
    identity: Identity
    chunker: Chunker | None


class Versions:
    """The registry of embedding versions, beside what the settings declare."""

    def __init__(
        self,
        logs: Logs,
        releases: ReleaseLog,
        *,
        models: tuple[EmbeddingModel, ...],
        features: Mapping[str, str],
        chunks: ChunkOptions,
        root: Path,
        keep: int,
    ) -> None:
        self._logs = logs
        self._releases = releases
        self._models = labels(models)
        self._features = dict(features)
        self._chunks = chunks
        self._root = root
        self._keep = keep
        self._identities: dict[str, Identity] = {}

    # -- declared

    @property
    def features(self) -> tuple[str, ...]:
        """The declared embedding features that come from documents."""
        return tuple(name for name in self._features if name in CHUNKED)

    @property
    def declared_labels(self) -> dict[str, str]:
        """Feature -> declared model and version."""
        return dict(self._features)

    def model(self, label: str) -> EmbeddingModel:
        """The declared model of that label."""
        if label not in self._models:
            raise UnknownModelError(label, self._models)
        return self._models[label]

    def identity(self, label: str) -> Identity:
        """Who the declared model is; read once."""
        if label not in self._identities:
            self._identities[label] = identify(self.model(label), root=self._root)
        return self._identities[label]

    def declared(self, feature: str) -> Declared:
        """The version that the settings want for a feature."""
        if feature not in self._features:
            raise UnknownModelError(feature, self._features, note=" (embedding features)")
        return self.of(feature, self._features[feature])

    def of(self, feature: str, label: str) -> Declared:
        """The version of a feature by one model; it uses the live chunker where that cuts nothing off."""
        model, identity = self.model(label), self.identity(label)
        chunker = self._chunker(feature, identity) if CHUNKED.get(feature, True) else None
        version = EmbeddingVersion(
            feature,
            model.name,
            model.version,
            chunker.id if chunker else WHOLE,
            identity.fingerprint,
            identity.dimension,
        )
        self._refuse_changed(version)
        return Declared(version, model, identity, chunker)

    def _chunker(self, feature: str, identity: Identity) -> Chunker:
        own = Chunker(identity, self._chunks)
        live = self._releases.live().embeddings.get(feature)
        if live is None:
            return own
        serving = self.registered(live)
        used = Chunker(self.identity(serving.label), self._chunks) if serving.label in self._models else own
        if used.id != serving.chunker:
            return own  # the size in the settings has changed since
        roomy = identity.max_tokens is None or (used.limit is not None and used.limit <= identity.max_tokens)
        return used if roomy else own

    def _refuse_changed(self, version: EmbeddingVersion) -> None:
        for known in self.all():
            if known.label == version.label and known.fingerprint != version.fingerprint:
                message = (
                    f"{version.label} is registered with fingerprint {known.fingerprint[:12]}, its files now give "
                    f"{version.fingerprint[:12]}: the model changed under the same name. Declare it as a new version"
                )
                raise FingerprintError(message)

    # -- registered

    def register(self, declared: Declared) -> EmbeddingVersion:
        """The version is in the registry; a second registration changes nothing."""
        version, identity = declared.version, declared.identity
        self._logs.put(
            "models",
            {
                "key": version.key,
                "feature": version.feature,
                "model": version.model,
                "version": version.version,
                "chunker": version.chunker,
                "fingerprint": version.fingerprint,
                "source": declared.model.source,
                "parts": canonical(identity.parts).decode(),
                "dimension": version.dimension,
                "max_tokens": identity.max_tokens,
            },
        )
        return version

    def all(self) -> list[EmbeddingVersion]:
        """Every registered version, oldest first."""
        return [_version(row) for row in self._logs.rows("models")]

    def registered(self, key: str) -> EmbeddingVersion:
        """The registered version of that partition key."""
        found = {one.key: one for one in self.all()}
        if key not in found:
            raise UnknownModelError(key, found)
        return found[key]

    def find(self, feature: str, label: str) -> EmbeddingVersion:
        """The newest registered version of a feature by that label."""
        found = [one for one in self.all() if one.feature == feature and one.label == label]
        if not found:
            raise UnknownModelError(label, {one.label for one in self.all() if one.feature == feature})
        return found[-1]

    # -- roles

    def states(self) -> dict[str, State]:
        """Partition key -> what the version is now."""
        history = self._releases.history()
        live = history[-1] if history else Release(0)
        held = {(hold.slot, hold.fingerprint) for hold in self._releases.holds()}
        return {one.key: self._state(one, live, history, held) for one in self.all()}

    def _state(self, one: EmbeddingVersion, live: Release, history: list[Release], held: set[Any]) -> State:
        slot = slot_of(one.feature)
        if live.embeddings.get(one.feature) == one.key:
            return "live"
        if (slot, one.fingerprint) in held:
            return "held"
        if one.key in predecessors(history, slot)[: self._keep]:
            return "predecessor"
        return "candidate" if self._wanted(one) else "retired"

    def _wanted(self, one: EmbeddingVersion) -> bool:
        return self._features.get(one.feature) == one.label and self.declared(one.feature).version.key == one.key

    def maintained(self, *, first: bool = True) -> list[EmbeddingVersion]:
        """The versions that every ingestion brings up to date: live, predecessors, candidates.

        With `first`, a declared feature without a live version counts, so that a first one is built.
        """
        history = self._releases.history()
        live = history[-1] if history else Release(0)
        held = {(hold.slot, hold.fingerprint) for hold in self._releases.holds()}
        keys: dict[str, None] = {}
        for feature in self.features:
            slot = slot_of(feature)
            if feature in live.embeddings:
                keys[live.embeddings[feature]] = None
            elif first and (slot, self.declared(feature).version.fingerprint) not in held:
                keys[self.register(self.declared(feature)).key] = None
            for key in predecessors(history, slot)[: self._keep]:
                keys[key] = None
        states = self.states()
        # A version that is being built is filled up too, so that it is complete when it is promoted.
        keys |= {key: None for key, state in states.items() if state == "candidate"}
        return [one for one in self.all() if one.key in keys]

    def runnable(self, version: EmbeddingVersion, make: Callable[[EmbeddingModel, Identity], Any]) -> Any:  # noqa: ANN401
        """What embeds for this version, when its model is still declared and still the same."""
        model, identity = self.model(version.label), self.identity(version.label)
        self._refuse_changed(
            EmbeddingVersion(
                version.feature, version.model, version.version, version.chunker, identity.fingerprint, identity.dimension
            )
        )
        return make(model, identity)


def _version(row: Mapping[str, Any]) -> EmbeddingVersion:
    texts = (row["feature"], row["model"], row["version"], row["chunker"], row["fingerprint"])
    return EmbeddingVersion(*texts, dimension=row["dimension"])
