"""Embedding versions: which are declared, which are registered, and what state each is in."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lodestore.chunking import EVENTS, READY, WHOLE, Chunker, ChunkOptions, ready, whole
from lodestore.errors import DeclarationError, FingerprintError, ModelError, UnknownModelError, nearest
from lodestore.logs import Logs
from lodestore.models import EmbeddingModel, EmbeddingVersion, Identity, identify, labels
from lodestore.releases import ReleaseLog, Slot, predecessors
from lodestore.tables import quoted
from lodestore.wire import canonical

__all__ = ["CHUNKED", "Declared", "State", "Versions", "of_events", "slot_of"]

# Features whose rows come from documents, and how: in chunks, or whole.
CHUNKED: Mapping[str, bool] = {"content": True, "title": False}

State = str  # live, predecessor, held, candidate or retired
_MAINTAINED = frozenset({"live", "predecessor", "candidate"})


def slot_of(feature: str) -> Slot:
    """The release slot of an embedding feature."""
    return Slot("embedding", feature)


def of_events(version: EmbeddingVersion) -> bool:
    """Whether the version's vectors come with events, such as what users ask, and not from documents."""
    return version.feature not in CHUNKED


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
        count_tokens: Callable[[str, Chunker], np.ndarray],
        spaces: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._logs = logs
        self._releases = releases
        self._models = labels(models)
        self._features = dict(features)
        self._chunks = chunks
        self._root = root
        self._keep = keep
        self._count_tokens = count_tokens
        self._spaces = spaces
        self._identities: dict[str, Identity] = {}

    # -- declared

    @property
    def features(self) -> tuple[str, ...]:
        """The declared embedding features: of documents, and the spaces of the catalog whose vectors come with events."""
        more = [name for name in self._features if name not in CHUNKED]
        known = self._spaces() if more else ()
        for name in more:
            if name not in known:
                all_known = sorted({*CHUNKED, *known})
                message = (
                    f"embedding.features.{name} is no embedding feature{nearest(name, all_known)}; "
                    f"known: {', '.join(all_known)}"
                )
                raise DeclarationError(message)
        return tuple(self._features)

    @property
    def declared_labels(self) -> dict[str, str]:
        """Feature -> declared model and version."""
        return dict(self._features)

    def model(self, label: str) -> EmbeddingModel:
        """The declared model of that label, or the registered one: what is live outlives its line in the settings."""
        if label in self._models:
            return self._models[label]
        rows = [row for row in self._logs.rows("models") if f"{row['model']}@{row['version']}" == label]
        if not rows:
            raise UnknownModelError(label, self._models)
        return _remembered(rows[-1])

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
        external = identity.layout == "external"
        cut = CHUNKED.get(feature, False) and not external
        chunker = self._best_chunker(feature, label, identity) if cut else None
        uncut = READY if external else WHOLE if feature in CHUNKED else EVENTS
        version = EmbeddingVersion(
            feature,
            model.name,
            model.version,
            chunker.id if chunker else uncut,
            identity.fingerprint,
            identity.dimension,
        )
        self._refuse_changed(version)
        return Declared(version, model, identity, chunker)

    def _best_chunker(self, feature: str, label: str, identity: Identity) -> Chunker:
        """The live version's chunker where this model would cut nothing off its chunks; else one of its own.

        A version that was registered before keeps its chunker, so that going back to a model finds
        its vectors, and a document that comes later does not change what is being built.
        """
        own = Chunker(identity, self._chunks)
        live = self._releases.live().embeddings.get(feature)
        try:
            used = self.chunker(self.registered(live)) if live is not None else None
        except ModelError:  # the live model is gone, which is a reason to move off it
            return own
        if used is None or used.options != self._chunks:
            return own
        mine = [one for one in reversed(self.all()) if (one.feature, one.label) == (feature, label)]
        if any(one.chunker == used.id for one in mine):
            return used
        for one in mine:
            try:
                before = self.chunker(one)
            except ModelError:  # cut by a model that is gone: nothing new can be cut that way
                continue
            if before is not None and before.options == self._chunks:
                return before
        return used if self._reads_whole(used, identity) else own

    def _reads_whole(self, used: Chunker, identity: Identity) -> bool:
        """Whether the model would see every chunk of that chunker to its end."""
        if identity.max_tokens is None:
            return True
        counts = self._count_tokens(used.id, Chunker(identity, self._chunks))
        return not len(counts) or int(counts.max()) <= identity.max_tokens

    def chunker(self, version: EmbeddingVersion) -> Chunker | None:
        """What cuts the texts of a registered version, whatever the settings say today; None where nothing is cut."""
        if whole(version.chunker) or ready(version.chunker) or of_events(version):
            return None
        (row,) = self._logs.rows("models", f"key = {quoted(version.key)}")
        how = json.loads(row["parts"]).get("chunking", {"model": version.label, "size": self._chunks.size})
        chunker = Chunker(self.identity(how["model"]), ChunkOptions(how["size"]))
        if chunker.id != version.chunker:
            message = (
                f"{version.key} was cut by chunker {version.chunker}, of which only {chunker.id} can be made again from "
                f"{how['model']}; install the model as it was, or promote a version that can be built"
            )
            raise ModelError(message)
        return chunker

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
                "parts": canonical({**identity.parts, **_chunking(declared.chunker)}).decode(),
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
        known = self.all()
        live = self._releases.live().embeddings
        held = self._held(known)
        before = {key for feature in live for key in self._kept(feature, held)}
        return {one.key: self._state(one, live, held, before) for one in known}

    def predecessors(self) -> list[EmbeddingVersion]:
        """The versions to which a rollback of their slot may go."""
        states = self.states()
        return [one for one in self.all() if states[one.key] == "predecessor"]

    def _state(self, one: EmbeddingVersion, live: Mapping[str, str], held: set[str], before: set[str]) -> State:
        if live.get(one.feature) == one.key:
            return "live"
        if one.key in held:
            return "held"
        if one.key in before:
            return "predecessor"
        return "candidate" if self._wanted(one) else "retired"

    def _held(self, known: Sequence[EmbeddingVersion]) -> set[str]:
        """The keys of held versions."""
        held = {(hold.slot, hold.fingerprint) for hold in self._releases.holds()}
        return {one.key for one in known if (slot_of(one.feature), one.fingerprint) in held}

    def _kept(self, feature: str, held: set[str]) -> list[str]:
        """The keys to which a rollback of the feature may go, newest first; a held one is no place to go."""
        before = predecessors(self._releases.history(), slot_of(feature))
        return [key for key in before if key not in held][: self._keep]

    def _wanted(self, one: EmbeddingVersion) -> bool:
        if self._features.get(one.feature) != one.label:
            return False
        try:
            return self.declared(one.feature).version.key == one.key
        except ModelError:  # it cannot be read just now, which is told when it is filled
            return True

    def maintained(self, *, first: bool = True) -> list[EmbeddingVersion]:
        """The versions that every ingestion brings up to date: live, predecessors, built candidates; never a held one.

        A candidate counts from its first gate report on: before that its own job builds it, and an
        ingestion neither waits for that job nor does its work.

        With `first`, a declared feature without a live version counts, so that a first one is built. Questions
        follow the content while their space has no version: once that is live, its first one is a change
        like any other, built by its own job.
        What is live stays so, and is kept up to date, when its line is gone from the settings.
        """
        live = self._releases.live().embeddings
        if first:
            self.register_first()
        states, built = self.states(), {row["key"] for row in self._logs.rows("gates")}
        return [
            one
            for one in self.all()
            if states[one.key] in _MAINTAINED
            and (states[one.key] != "candidate" or one.key in built or self._is_first(one, live))
        ]

    def register_first(self) -> list[ModelError]:
        """Features without a live version have a registered one; returns what is wrong with models that cannot be read."""
        live, errors = self._releases.live().embeddings, []
        for feature in self.features:
            if feature not in live and (feature in CHUNKED or not live):
                try:
                    self.register(self.declared(feature))
                except ModelError as error:
                    errors.append(error)
        return errors

    def trouble(self, version: EmbeddingVersion) -> str | None:
        """Why a registered version cannot be brought up to date here; None where its model and chunker are there."""
        if ready(version.chunker):
            return None
        try:
            self.runnable(version, lambda _, identity: identity)
            self.chunker(version)
        except ModelError as error:
            return str(error)
        return None

    def _is_first(self, one: EmbeddingVersion, live: Mapping[str, str]) -> bool:
        """Whether ingestion builds the version, because nothing that could answer in its place is live."""
        return one.feature not in live and (not of_events(one) or not live)

    def runnable(self, version: EmbeddingVersion, make: Callable[[EmbeddingModel, Identity], Any]) -> Any:  # noqa: ANN401
        """What embeds for this version, when its model is still declared and still the same."""
        model, identity = self.model(version.label), self.identity(version.label)
        self._refuse_changed(
            EmbeddingVersion(
                version.feature,
                version.model,
                version.version,
                version.chunker,
                identity.fingerprint,
                identity.dimension,
            )
        )
        return make(model, identity)


def _version(row: Mapping[str, Any]) -> EmbeddingVersion:
    texts = (row["feature"], row["model"], row["version"], row["chunker"], row["fingerprint"])
    return EmbeddingVersion(*texts, dimension=row["dimension"])


def _chunking(chunker: Chunker | None) -> dict[str, Any]:
    """What it takes to make the chunker again, beside the identity of its model."""
    return {} if chunker is None else {"chunking": {"model": chunker.model, "size": chunker.options.size}}


def _remembered(row: Mapping[str, Any]) -> EmbeddingModel:
    """The model as it was registered. A key for an endpoint is never stored, so it has none."""
    parts = json.loads(row["parts"])
    return EmbeddingModel(
        row["model"],
        row["version"],
        row["source"],
        dimension=row["dimension"],
        max_tokens=row["max_tokens"],
        query_prompt=parts["prompts"]["query"],
        document_prompt=parts["prompts"]["document"],
        normalize=parts["normalize"],
        precision=parts["precision"],
        model=parts.get("model"),
    )
