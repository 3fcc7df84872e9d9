"""Composing a context: the user's features, retrieval, diversity, packing, the prompt. Writes nothing down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from lodestore.catalog import Catalog
from lodestore.conditions import condition
from lodestore.context import Context, ContextOptions, instructed, instruction_for, messages_of, pack, turns, values_for
from lodestore.diversity import mmr
from lodestore.errors import DeclarationError, ModelError, RequestError, StoreError, UnknownNameError
from lodestore.features import Features, OnlineAnswer
from lodestore.live import Live
from lodestore.models import EmbeddingVersion
from lodestore.online import Status
from lodestore.ports import Embedder, VectorStore
from lodestore.prompts import PromptTemplate, render
from lodestore.rerank import Reranker
from lodestore.retrieval import (
    COLUMNS,
    MAX_K,
    NOWHERE,
    Hit,
    Mode,
    Readable,
    Reading,
    Spot,
    candidates,
    checked_query,
    hits_at,
    spotted,
)
from lodestore.spec import FeatureRef
from lodestore.templates import Templates

__all__ = ["Composed", "Composer", "Request", "User"]

_USER_FEATURES = (
    "user_profile:expertise_level",
    "user_profile:preferred_language",
    "user_activity:session_queries_count",
)
# Searches by words run here beside those by meaning: both wait for the engine, not for Python.
_WORDS = ThreadPoolExecutor(8, thread_name_prefix="lodestore-words")
_KNOWN = frozenset({Status.PRESENT, Status.NULL, Status.EXPIRED})


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for; None stands for what the settings say."""

    query: str
    user_id: str | None = None
    template: str | None = None
    variables: Mapping[str, object] = field(default_factory=dict)
    history: object = None
    filter: str | Mapping[str, Any] | None = None
    k: int | None = None
    token_budget: int | None = None
    mode: Mode = "hybrid"

    def __post_init__(self) -> None:
        for name, value, most in (("k", self.k, MAX_K), ("token_budget", self.token_budget, None)):
            if value is not None and (isinstance(value, bool) or value < 1 or (most and value > most)):
                message = f"{name} is {value}; give at least 1" + (f", at most {most:,}" if most else "")
                raise RequestError(message)
        if self.user_id is not None and not (isinstance(self.user_id, str) and self.user_id):
            message = f"user_id is {self.user_id!r}; give a text, or leave it out for nobody in particular"
            raise RequestError(message)


@dataclass(frozen=True, slots=True)
class User:
    """Whom a context is for: the features by reference, and whether anything is stored about them."""

    known: bool = False
    features: Mapping[str, Any] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Composed:
    """A context, and the vector of its question with the version that made it; None where no vector was needed."""

    context: Context
    vector: np.ndarray | None
    version: EmbeddingVersion | None


class Composer:
    """Makes contexts. One call uses one snapshot for search, template and token counts."""

    def __init__(
        self,
        *,
        features: Callable[[], Features],
        templates: Templates,
        options: ContextOptions,
        reranker: Reranker | None = None,
    ) -> None:
        self._features = features
        self._templates = templates
        self._reranker = reranker
        self.options = options
        self._about_user: tuple[Catalog, list[str]] | None = None

    def user(self, request: Request) -> User:
        """What is stored about the asker, and what follows from that for the question."""
        features = self._features()
        refs = self._refs(features)
        if request.user_id is None or not refs:
            return User()
        answer = features.online(refs, {"user_id": [request.user_id]}, inputs={"query_text": [request.query]})
        stored = [ref for ref in refs if ref.partition(":")[0] not in features.catalog.on_demand]
        statuses = {answer.statuses[ref][0] for ref in stored}
        down = ("features",) if Status.UNAVAILABLE in statuses else ()
        return User(bool(statuses & _KNOWN), _values(answer, refs), down)

    def _refs(self, features: Features) -> list[str]:
        """What of the catalog is about a user and needs nothing but the question; worked out once for a catalog."""
        catalog = features.catalog
        known = self._about_user
        if known is None or known[0] is not catalog:
            check_filters(self.options.filters, features)
            wanted = [*_USER_FEATURES, *self.options.filters.values()]
            if self.options.service is not None:
                wanted += [str(one) for one in catalog.service(self.options.service).features]
            made = [f"{name}:{one}" for name, view in catalog.on_demand.items() for one in view.features]
            refs = list(dict.fromkeys(one for one in (*wanted, *made) if _is_of_user(features, one)))
            known = self._about_user = catalog, refs
        return known[1]

    def compose(
        self,
        live: Live,
        request: Request,
        *,
        context_id: str,
        user: User | None = None,
        template: PromptTemplate | None = None,
    ) -> Composed:
        """The context for the question. A given user or template is taken as it is: so is a context replayed."""
        clock = _Laps()
        found_user = self.user(request) if user is None else user
        clock.lap("features")
        chosen = template or self._template(live, request, context_id)
        # A reranker reads every candidate anyway.
        reading = _reading(live) if self._reranker is None else None
        try:
            vector, hits, degraded = self._found(live, request, found_user, reading, clock)
        except (ModelError, StoreError):
            if reading is None:
                raise
            # Files that were taken away meanwhile are opened anew by the store's own search, which also knows how to do without.
            vector, hits, degraded = self._found(live, request, found_user, None, clock)
        context = self._rendered(live, request, found_user, hits, chosen, clock)
        context = replace(
            context,
            release=live.release.generation,
            context_id=context_id,
            degraded=(*found_user.degraded, *degraded),
            timings_ms=clock.told(),
        )
        return Composed(context, vector, live.versions.get("content"))

    def _found(
        self, live: Live, request: Request, user: User, reading: Reading | None, clock: _Laps
    ) -> tuple[np.ndarray | None, tuple[Hit, ...], tuple[str, ...]]:
        """The question's vector where one was needed, the hits to cite, and what was down."""
        k, pool = request.k or self.options.k, self._pool(request.k or self.options.k)
        checked_query(request.query, k=pool, mode=request.mode)
        where = condition(request.filter, filters=self.options.filters, features=user.features)
        if reading is not None:
            vector, hits = self._spotted(live, request, reading, where, k, pool, clock)
            return vector, hits, ()
        watched = _Watched(live.vectors, live.embedder, depth=max(candidates(k), pool))
        search = replace(live, vectors=watched, embedder=watched.embedder)
        if request.mode == "hybrid" and "content" in live.versions:
            watched.ahead(live.version().table, request.query, where)
        found = search.search(request.query, k=pool, mode=request.mode, where=where)
        clock.lap("retrieval", but={"embedding": watched.embedding_ms})
        return watched.vector, self._selected(request.query, found.hits, watched, k, clock), found.degraded

    def _spotted(
        self, live: Live, request: Request, reading: Reading, where: str | None, k: int, pool: int, clock: _Laps
    ) -> tuple[np.ndarray | None, tuple[Hit, ...]]:
        """The same in a table where rows are found first and read afterwards."""
        depth = max(candidates(k), pool) if request.mode == "hybrid" else pool
        words, vector, embedding_ms = None, None, 0.0
        if request.mode != "vector":
            words = _WORDS.submit(reading.matching, request.query, depth, where=where)
        if request.mode != "text":
            started = time.perf_counter()
            vector = live.embed([request.query])[0]
            embedding_ms = (time.perf_counter() - started) * 1000
        near = NOWHERE if vector is None else reading.nearest(vector, depth, where=where)
        matching = NOWHERE if words is None else words.result()
        if request.mode == "hybrid":
            spots = spotted(near, matching, pool, weights=live.weights)
        else:
            one = near if words is None else matching
            spots = [Spot(place, score) for place, score in zip(one.places[:pool], one.scores, strict=False)]
        clock.lap("retrieval", but={"embedding": embedding_ms})
        scores = np.array([one.score for one in spots])
        chosen = self._chosen(scores, lambda: _vectors_at(reading, spots), k, clock)
        hits = hits_at(reading, [spots[place] for place in chosen])
        clock.lap("reading")
        return vector, hits

    def _pool(self, k: int) -> int:
        """How many hits there are to choose from."""
        chosen = self._reranker is not None or self.options.diversity > 0
        return min(MAX_K, k * self.options.candidates) if chosen else k

    def _selected(self, query: str, hits: Sequence[Hit], watched: _Watched, k: int, clock: _Laps) -> tuple[Hit, ...]:
        """The k hits to cite, best first: by the reranker where there is one, and none like those before it."""
        scores = np.array([hit.score for hit in hits])
        if self._reranker is not None and len(hits) > 1:
            scores = self._reranker.score(query, [hit.text for hit in hits])
            clock.lap("rerank")
        return tuple(hits[place] for place in self._chosen(scores, lambda: watched.vectors_of(hits), k, clock))

    def _chosen(self, scores: np.ndarray, vectors: Callable[[], np.ndarray], k: int, clock: _Laps) -> Sequence[int]:
        """Places of at most k of the scored, best first, none like those before it."""
        if self.options.diversity == 0 or len(scores) < 2:  # noqa: PLR2004 - one is varied enough
            return np.argsort(-scores, kind="stable")[:k].tolist()
        chosen = mmr(scores, vectors(), k=k, diversity=self.options.diversity)
        clock.lap("diversity")
        return chosen

    def _template(self, live: Live, request: Request, context_id: str) -> PromptTemplate:
        """The live version for this user; who is nobody in particular is somebody else each time."""
        name = request.template or self.options.template
        return self._templates.live(name, live.release, sticky=request.user_id or context_id)

    def _rendered(
        self, live: Live, request: Request, user: User, hits: Sequence[Hit], template: PromptTemplate, clock: _Laps
    ) -> Context:
        packed = pack(hits, budget=request.token_budget or self.options.token_budget, count=live.count_tokens)
        clock.lap("packing")
        history = turns(request.history)
        instruction = instruction_for(user.features)
        values = values_for(
            template,
            context=packed.text,
            question=request.query,
            instruction=instruction,
            variables=request.variables,
            history=history,
        )
        made = instructed(template, render(template, values), instruction)
        messages = messages_of(template, made, history)
        spoken = made.text if messages is made.messages else "\n\n".join(one.text for one in messages)
        clock.lap("prompt")
        n_tokens = live.count_tokens([spoken])[0]
        clock.lap("counting")
        told = tuple({"role": one.role, "content": one.text} for one in messages)
        return Context(
            0, "", made.text, told, packed.hits, user.features, template.template_id, template.version, n_tokens,
            user.known, (), {}, template.content_hash, instruction, packed.text,
        )  # fmt: skip


def check_filters(filters: Mapping[str, str], features: Features) -> None:
    """Every filter reads a feature of a user; one that does not would filter nothing, which is an error."""
    for column, ref in filters.items():
        features.catalog.check(FeatureRef.parse(ref))
        if not _is_of_user(features, ref):
            message = f"context.filters.{column}: {ref} is no feature of a user, so nothing can be filtered by it"
            raise DeclarationError(message)


def _is_of_user(features: Features, ref: str) -> bool:
    """Whether the catalog has the feature, by the user's key alone and no input but the question."""
    catalog = features.catalog
    parsed = FeatureRef.parse(ref)
    try:
        catalog.check(parsed)
    except UnknownNameError:
        return False
    made = catalog.on_demand.get(parsed.view)
    reads = [parsed] if made is None else made.reads
    keyed = all(catalog.view(one.view, one.version).entity.keys == ("user_id",) for one in reads)
    return keyed and (made is None or set(made.inputs) <= {"query_text"})


def _values(answer: OnlineAnswer, refs: Sequence[str]) -> dict[str, Any]:
    return {ref: answer.columns[ref][0] for ref in refs}


def _reading(live: Live) -> Reading | None:
    """The content table of the snapshot to find rows in first and read them afterwards; None where that is not to be had.

    Titles join a search by the documents of its candidates, which have to be read for that.
    """
    titled = live.weights.title > 0 and "title" in live.versions
    store = live.vectors
    if titled or "content" not in live.versions or not isinstance(store, Readable):
        return None
    return store.reading(live.version().table)


def _vectors_at(reading: Reading, spots: Sequence[Spot]) -> np.ndarray:
    return _matrix(reading.take([one.place for one in spots], ["vector"])["vector"])


class _Watched:
    """A snapshot's tables and model at work for one question: keeps its vector, those of the hits, and the time.

    A varied choice is made among what a plain search for as many hits looks at, so no side looks deeper
    than `depth`.
    """

    def __init__(self, store: VectorStore, embedder: Callable[[EmbeddingVersion], Embedder], *, depth: int) -> None:
        self._store = store
        self._depth = depth
        self._embedder = embedder
        self._rows: dict[str, np.ndarray] = {}
        self.vector: np.ndarray | None = None
        self.embedding_ms = 0.0
        self._words: Future[pa.Table] | None = None
        self._begun: tuple[object, ...] = ()

    def embedder(self, version: EmbeddingVersion) -> Embedder:
        return _Timed(self._embedder(version), self)

    def nearest(
        self,
        name: str,
        vector: np.ndarray,
        k: int,
        *,
        where: str | None = None,
        exact: bool = False,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        if columns is None or "row_id" not in columns:
            return self._store.nearest(name, vector, k, where=where, exact=exact, columns=columns)
        self.vector = vector
        return self._kept(
            self._store.nearest(
                name, vector, min(k, self._depth), where=where, exact=exact, columns=[*columns, "vector"]
            )
        )

    def ahead(self, name: str, query: str, where: str | None) -> None:
        """The search by words begins, while the question is embedded and searched for by meaning."""
        self._begun = (name, query, self._depth, where, COLUMNS)
        self._words = _WORDS.submit(self._by_words, name, query, self._depth, where, COLUMNS)

    def matching(
        self, name: str, query: str, k: int, *, where: str | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        if columns is None or "row_id" not in columns:
            return self._store.matching(name, query, k, where=where, columns=columns)
        asked = (name, query, min(k, self._depth), where, tuple(columns))
        begun = self._words is not None and self._begun == asked
        return self._kept(self._words.result() if begun and self._words else self._by_words(*asked))

    def _by_words(self, name: str, query: str, k: int, where: str | None, columns: tuple[str, ...]) -> pa.Table:
        return self._store.matching(name, query, k, where=where, columns=[*columns, "vector"])

    def index(self, name: str) -> None:
        self._store.index(name)

    def indexed(self, name: str) -> bool:
        return self._store.indexed(name)

    def _kept(self, found: pa.Table) -> pa.Table:
        if found.num_rows:
            self._rows.update(zip(found["row_id"].to_pylist(), _matrix(found["vector"]), strict=True))
        return found.drop_columns(["vector"])

    def vectors_of(self, hits: Sequence[Hit]) -> np.ndarray:
        """A row for each hit; zeros where its vector is not known."""
        blank = np.zeros_like(next(iter(self._rows.values()))) if self._rows else np.zeros(1, np.float32)
        return np.stack([self._rows.get(hit.chunk_id, blank) for hit in hits])


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """The vectors of a column, as rows."""
    flat = column.combine_chunks()
    return flat.flatten().to_numpy().reshape(len(flat), -1)


class _Timed:
    """An embedder whose time is told."""

    def __init__(self, embedder: Embedder, watched: _Watched) -> None:
        self._embedder = embedder
        self._watched = watched
        self.fingerprint = embedder.fingerprint
        self.dimension = embedder.dimension

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        return self._embedder.embed_documents(texts)

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        started = time.perf_counter()
        made = self._embedder.embed_queries(texts)
        self._watched.embedding_ms += (time.perf_counter() - started) * 1000
        return made


class _Laps:
    """A stopwatch with named laps, in milliseconds."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str, *, but: Mapping[str, float] | None = None) -> None:
        """The time since the last lap belongs to `name`, except for what belongs to others."""
        now = time.perf_counter()
        spent = (now - self._last) * 1000
        for part, value in {**(but or {}), name: spent - sum((but or {}).values())}.items():
            self._laps[part] = self._laps.get(part, 0.0) + value
        self._last = now

    def told(self) -> dict[str, float]:
        """Each lap and their sum."""
        return {**self._laps, "total": sum(self._laps.values())}
