"""Changing an embedding model: planned, tried, built, judged, promoted, rolled back, dropped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestore import golden as goldens
from lodestore import rollout
from lodestore.canary import Canaries, CanaryReading
from lodestore.chunking import Chunker, ready
from lodestore.errors import BudgetError, GateError, GoldenError, RefusedError, RetentionError
from lodestore.gate import GateOptions, GateReport, Measured, Verdict, compared, judge, mean_overlap
from lodestore.golden import GoldenSet
from lodestore.locks import Locks
from lodestore.logs import Logs
from lodestore.models import EmbeddingVersion
from lodestore.pipeline import Pipeline
from lodestore.ports import Embedder, OfflineStore, VectorStore
from lodestore.ranking import Ranked, Where, index_recall, ranked
from lodestore.reembed import batches_by_length, difference, document_vectors
from lodestore.releases import Release, ReleaseLog, Slot
from lodestore.rollout import State, slot_of
from lodestore.spaces import Gap
from lodestore.tables import chunk_table, in_list
from lodestore.trial import TRIAL_SECONDS, Trial, sampled
from lodestore.versions import CHUNKED, Versions, of_events

__all__ = ["Changes", "Plan"]

_T = TypeVar("_T")

# Writing and indexing all rows takes about this many times what comparing them takes: 4.9 at 356, 5.7 at 2,060 rows.
_WRITING_IN_LOOKS = 4
_TIMED_BATCHES = 5  # what a plan embeds to learn the speed of this machine
_TRIAL_TIMED = 16  # rows that are embedded to learn the speed
_RECALL_QUERIES = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """What building a version would take.

    `cpu_seconds` is what the processors work, `seconds` what passes when the machine is as busy as now.
    `questions` are those of users that are embedded again, `lost` those that cannot be: neither their
    texts nor vectors of this model are kept, and their users' values stay OTHER_VERSION.
    """

    key: str
    label: str
    rows: int
    to_embed: int
    cached: int
    tokens: int
    tokens_per_second: float
    seconds: float
    disk_bytes: int
    truncated_share: float
    new_chunker: bool
    cpu_seconds: float = 0.0
    questions: int = 0
    lost: int = 0

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON types."""
        from dataclasses import asdict

        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Cost:
    """Seconds that passed, and seconds that processors worked."""

    seconds: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(self.seconds + other.seconds, self.cpu + other.cpu)

    def __mul__(self, times: float) -> _Cost:
        return _Cost(self.seconds * times, self.cpu * times)


_NOTHING = _Cost()


def _timed(work: Callable[[], _T]) -> tuple[_T, _Cost]:
    """What the work returned, and what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, _Cost(time.perf_counter() - wall, time.process_time() - cpu)


class Changes:
    """The acts of a model change. Each leaves the live version alone until one release is published."""

    def __init__(
        self,
        *,
        store: OfflineStore,
        vectors: VectorStore,
        logs: Logs,
        releases: ReleaseLog,
        versions: Versions,
        pipeline: Pipeline,
        locks: Locks,
        embedder: Callable[[EmbeddingVersion], Embedder],
        golden: Sequence[tuple[str, Path, Path]],
        options: GateOptions,
        where: Where,
        keep: int,
        automatic: bool,
        batch_tokens: int,
        preview: Callable[[EmbeddingVersion], Mapping[str, Any] | None] = lambda _: None,
    ) -> None:
        self._store = store
        self._vectors = vectors
        self._logs = logs
        self._releases = releases
        self._versions = versions
        self._pipeline = pipeline
        self._locks = locks
        self._embedder = embedder
        self._golden = tuple(golden)
        self._options = options
        self._where = where
        self._keep = keep
        self._automatic = automatic
        self._batch_tokens = batch_tokens
        self._preview = preview
        self._canaries = Canaries(logs)

    # -- before

    def candidate(self, feature: str, label: str | None = None) -> EmbeddingVersion:
        """The version of a feature that is declared, or that `label` names; registered from now on."""
        wanted = self._versions.of(feature, label) if label else self._versions.declared(feature)
        return self._versions.register(wanted)

    def plan(self, version: EmbeddingVersion, *, budget: float | None = None) -> Plan:
        """What the build would take here, from a timed sample; `BudgetError` when it is more than `budget` seconds."""
        made = self._plan_of_events(version) if of_events(version) else self._plan_of_documents(version)
        if budget is not None and made.seconds > budget:
            message = (
                f"{version.label} would take about {made.seconds:,.0f} s, the budget is {budget:,.0f} s; "
                "raise --budget, or try a part first: lodestore models trial"
            )
            raise BudgetError(message)
        return made

    def _plan_of_events(self, version: EmbeddingVersion) -> Plan:
        gap = self._pipeline.gap(version)
        cost = self._cost_of_questions(version, gap)
        return Plan(
            version.key,
            version.label,
            gap.rows - gap.lost,
            gap.embedded,
            gap.copied,
            gap.tokens,
            gap.tokens / cost.seconds if cost.seconds else 0.0,
            cost.seconds,
            (gap.embedded + gap.copied) * (version.dimension * 4 + 300),
            0.0,
            new_chunker=False,
            cpu_seconds=cost.cpu,
            questions=gap.embedded,
            lost=gap.lost,
        )

    def _cost_of_questions(self, version: EmbeddingVersion, gap: Gap) -> _Cost:
        if not gap.embedded:
            return _NOTHING
        pieces = list(islice(self._pipeline.texts(version), _TIMED_BATCHES))
        embedder = self._embedder(version)
        embedder.embed_queries(pieces[0])  # only warms up
        took = _Cost()
        for texts in pieces:
            took += _timed(partial(embedder.embed_queries, texts))[1]
        return took * (gap.embedded / sum(map(len, pieces)))

    def _plan_of_documents(self, version: EmbeddingVersion) -> Plan:
        self._cut(version)
        found, looked = _timed(partial(difference, self._store, version))
        gap, wanted = found.write, found.wanted
        missing = self._missing(version, gap)
        tokens = pc.sum(missing["n_tokens"]).as_py() or 0
        cost = self._cost(version, missing) if missing.num_rows else _NOTHING
        rate = tokens / cost.seconds if cost.seconds else 0.0
        if gap.num_rows:
            cost += looked * (1 + _WRITING_IN_LOOKS * gap.num_rows / max(wanted, 1))
        asked = self._pipeline.gap(version)
        cost += self._cost_of_questions(version, asked)
        return Plan(
            version.key,
            version.label,
            wanted,
            missing.num_rows,
            gap.num_rows - missing.num_rows,
            tokens,
            rate,
            cost.seconds,
            gap.num_rows * (version.dimension * 4 + 1_200),
            self._truncated(version),
            self._new_chunker(version),
            cpu_seconds=cost.cpu,
            questions=asked.embedded,
            lost=asked.lost,
        )

    def _cut(self, version: EmbeddingVersion) -> None:
        """The version's chunks are there, also where it brings a chunker of its own."""
        chunker = self._versions.of(version.feature, version.label).chunker
        if chunker is not None:
            with self._locks.writer(f"cutting chunks for {version.label}"):
                self._pipeline.corpus.sync_chunks(chunker)

    def _missing(self, version: EmbeddingVersion, gap: pa.Table) -> pa.Table:
        """The rows of the gap that the model has to be called for: neither cached nor brought by the documents."""
        if ready(version.chunker):
            return gap.slice(0, 0)
        return gap.filter(pc.invert(pc.is_in(gap["content_hash"], self._cached_hashes(version))))

    def _cached_hashes(self, version: EmbeddingVersion) -> pa.Array:
        tables = [one.table for one in self._versions.all() if one.fingerprint == version.fingerprint]
        found = [self._store.read(name, ["content_hash"])["content_hash"] for name in tables if self._store.count(name)]
        chunks = [chunk for column in found for chunk in column.chunks]
        return pa.concat_arrays(chunks) if chunks else pa.array([], pa.string())

    def _cost(self, version: EmbeddingVersion, missing: pa.Table) -> _Cost:
        """What embedding these rows takes here: some of the very batches are timed, the others interpolated."""
        lengths = missing["n_tokens"].to_pylist()
        batches = list(batches_by_length(lengths, budget=self._batch_tokens))
        places = sorted({round(one) for one in np.linspace(0, len(batches) - 1, _TIMED_BATCHES)})
        embedder = self._embedder(version)
        taken = []
        for turn, place in enumerate([places[0], *places]):
            texts = self._sample_texts(version, missing.take(batches[place]))
            _, took = _timed(partial(document_vectors, embedder, version, texts))
            if turn:  # the first one only warms up
                taken.append(took * (1 / sum(lengths[one] for one in batches[place])))
        tokens = np.array([sum(lengths[one] for one in batch) for batch in batches])
        turns = np.arange(len(batches))
        wall = float((tokens * np.interp(turns, places, [one.seconds for one in taken])).sum())
        cpu = float((tokens * np.interp(turns, places, [one.cpu for one in taken])).sum())
        return _Cost(wall, cpu)

    def _sample_texts(self, version: EmbeddingVersion, rows: pa.Table) -> list[str]:
        ids = rows["row_id"].to_pylist()
        if version.chunker == "whole":
            table, key, column = "documents", "document_id", "title"
        else:
            table, key, column = chunk_table(version.chunker), "chunk_id", "text"
        found = self._store.read(table, [key, column], in_list(key, ids))
        texts = dict(zip(found[key].to_pylist(), found[column].to_pylist(), strict=True))
        return [texts[one] or "" for one in ids]

    def _truncated(self, version: EmbeddingVersion) -> float:
        """The share of chunks that the model would not read to their end, in [0, 1]."""
        declared = self._versions.of(version.feature, version.label)
        if declared.chunker is None or declared.identity.max_tokens is None:
            return 0.0
        own = Chunker(declared.identity, declared.chunker.options)
        counts = self._pipeline.corpus.token_counts(version.chunker, own)
        return float((counts > declared.identity.max_tokens).mean()) if len(counts) else 0.0

    def _new_chunker(self, version: EmbeddingVersion) -> bool:
        live = self._releases.live().embeddings.get(version.feature)
        return live is not None and self._versions.registered(live).chunker != version.chunker

    # -- measuring

    def canary(self, version: EmbeddingVersion) -> CanaryReading | None:
        """How near the running model is to the registered one; None where no model runs."""
        if ready(version.chunker):
            return None
        return self._canaries.read(version, self._embedder(version))

    def golden(self) -> GoldenSet | None:
        """All golden sets as one, documents by their full ids; None when none is declared.

        A judged document that the store turned away or retired counts as one that no version finds;
        one that it never saw is an error.
        """
        known = self._pipeline.corpus.ever_seen()
        sets = [goldens.resolve(goldens.read(name, queries, qrels), known) for name, queries, qrels in self._golden]
        return _merged(sets) if sets else None

    def gate(self, version: EmbeddingVersion) -> GateReport:
        """Measure the built version against the live one; the report is in the log, a refusal holds the version."""
        live = self._rival(version)
        health = self._pipeline.health(version)
        searched = not of_events(version)
        judged = self.golden() if searched and live is not None and health.healthy else None
        golden = None if judged is None else judged.answerable(self._documents())
        ours = self._ranked(version, golden)
        theirs = self._ranked(live, golden)
        metrics: tuple[Measured, ...] = ()
        share = None
        if ours and theirs and golden:
            metrics = compared(ours.scores(golden), theirs.scores(golden))
            share = mean_overlap(list(ours.documents.values()), list(theirs.documents.values()))
        report = judge(
            key=version.key,
            label=version.label,
            live_label=live.label if live else None,
            health=health,
            canary=self.canary(version),
            index_recall=self.index_recall(version),
            metrics=metrics,
            queries=len(golden.judged) if golden and ours and theirs else 0,
            unanswerable=len(judged.judged) - len(golden.judged) if judged and golden else 0,
            options=self._options,
            overlap_at_10=share,
            latency_ms={"candidate": ours.latency_p50, "live": theirs.latency_p50} if ours and theirs else {},
            searched=searched,
        )
        if live is not None and report.healthy and searched and not ready(version.chunker):
            report = replace(report, preview=self._preview(version))
        self._keep_report(report)
        if report.verdict is Verdict.REFUSED:
            self._hold(version, author="gate", reason="; ".join(report.reasons))
        return report

    def _documents(self) -> frozenset[str]:
        """The ids of the documents that are in the store today."""
        return frozenset(self._store.read("documents", ["document_id"])["document_id"].to_pylist())

    def _rival(self, version: EmbeddingVersion) -> EmbeddingVersion | None:
        """The live version of the same feature, unless it is this one."""
        key = self._releases.live().embeddings.get(version.feature)
        return self._versions.registered(key) if key and key != version.key else None

    def _ranked(self, version: EmbeddingVersion | None, golden: GoldenSet | None) -> Ranked | None:
        if version is None or golden is None or not golden.judged or ready(version.chunker):
            return None
        return ranked(self._vectors, version, self._embedder(version), golden, where=self._where)

    def index_recall(self, version: EmbeddingVersion) -> float | None:
        """Recall@10 of the version's index against exact search; None where every search is exact."""
        if of_events(version) or not self._vectors.indexed(version.table):
            return None
        rows = self._store.read(version.table, ["vector"])["vector"]
        picks = np.random.default_rng(0).choice(len(rows), size=min(_RECALL_QUERIES, len(rows)), replace=False)
        some = rows.take(pa.array(np.sort(picks))).combine_chunks()
        return index_recall(self._vectors, version.table, list(some.to_numpy(zero_copy_only=False)))

    def _keep_report(self, report: GateReport) -> None:
        self._logs.put(
            "gates", {"id": uuid4().hex, "key": report.key, "verdict": report.verdict.value, "report": report.dumped()}
        )

    def report(self, version: EmbeddingVersion) -> Mapping[str, Any] | None:
        """The newest gate report of a version."""
        row = self._logs.last("gates", f"key = '{version.key}'")
        return None if row is None else {**row}

    def trial(self, version: EmbeddingVersion, *, seconds: float = TRIAL_SECONDS) -> Trial:
        """Embed judged documents and a sample of others, and estimate; the full run reuses the vectors.

        As many queries, with all their judged documents, and as many others as about `seconds` allow here;
        fewer queries make a wider interval. A model that is slower than one query's documents takes longer.
        """
        if of_events(version):
            message = f"golden queries tell nothing of {version.feature}; price it with: lodestore models plan"
            raise GoldenError(message)
        golden = self.golden()
        if golden is None or not golden.judged:
            message = "a trial needs golden queries; declare [golden], or draft some: lodestore golden draft"
            raise GoldenError(message)
        lost = len(golden.judged)
        golden = golden.answerable(self._documents())
        if not golden.judged:
            message = (
                f"none of the {lost} judged golden queries has a relevant document in the store; judge documents that "
                "are there, or draft queries about them: lodestore golden draft"
            )
            raise GoldenError(message)
        started = time.monotonic()
        self._cut(version)
        costs, rate = self._document_costs(version)
        # What is left after the model was loaded, less what searching and judging take.
        left = 0.75 * seconds - (time.monotonic() - started)
        asked, documents = sampled(
            golden, costs, known=sorted(self._documents()), tokens=left / rate if rate else math.inf
        )
        within = in_list("document_id", documents)
        self._pipeline.fill(version, documents=frozenset(documents))
        ours = ranked(self._vectors, version, self._embedder(version), asked, where=self._where, within=within)
        scores = ours.scores(asked)
        live = self._rival(version)
        gap = None
        if live is not None:
            theirs = ranked(self._vectors, live, self._embedder(live), asked, where=self._where, within=within)
            gap = compared(scores, theirs.scores(asked))[0].difference
        return Trial(
            version.key,
            version.label,
            live.label if live else None,
            len(asked.judged),
            self._store.count(version.table),
            time.monotonic() - started,
            scores.summary(seed=1),
            gap,
        )

    def _document_costs(self, version: EmbeddingVersion) -> tuple[dict[str, int], float]:
        """Tokens that are left to embed by document, and the seconds that one of them takes here."""
        missing = self._missing(version, difference(self._store, version).write)
        if not missing.num_rows:
            return {}, 0.0
        sums = missing.group_by("document_id").aggregate([("n_tokens", "sum")])
        some = missing.slice(0, _TRIAL_TIMED)
        texts, embedder = self._sample_texts(version, some), self._embedder(version)
        document_vectors(embedder, version, texts)  # warms up, and refuses a model that is no good
        self._canaries.pin(version, embedder)  # the build would, and that takes time, too
        _, took = _timed(partial(document_vectors, embedder, version, texts))
        rate = took.seconds / max(1, pc.sum(some["n_tokens"]).as_py())
        return dict(zip(sums["document_id"].to_pylist(), sums["n_tokens_sum"].to_pylist(), strict=True)), rate

    # -- going live

    def promote(
        self,
        *versions: EmbeddingVersion,
        author: str,
        by_name: bool = False,
        accept_loss: bool = False,
        reason: str = "",
        also: Mapping[Slot, Any] | None = None,
    ) -> Release:
        """The versions are live, in one release with the changes of `also`.

        The newest gate report of each has to have passed; `accept_loss` with a reason overrides
        quality, never health. A held version goes live only `by_name`, which lifts the hold.
        """
        base = self._releases.live()
        for version in versions:
            self._verify(version, by_name=by_name, accept_loss=accept_loss, reason=reason)
        changes: dict[Slot, Any] = {**(also or {}), **{slot_of(version): version.key for version in versions}}
        with self._going_live("promoting"):
            for slot, value in changes.items():
                self._verify_present(slot, value)
            release = self._releases.publish(changes, action="promote", author=author, reason=reason, base=base)
        for version in versions:
            self._lift(version, author=author, reason="promoted by name")
        return release

    def _verify(self, version: EmbeddingVersion, *, by_name: bool, accept_loss: bool, reason: str) -> None:
        """The version is complete and fit to serve, and nothing forbids that it goes live."""
        rollout.verify_promotable(version, self._releases.holds(), by_name=by_name)
        self._cut_unmaintained(version)
        # What arrived since it was built; and its index, or its very table, which a killed build left out.
        self._pipeline.fill(version)
        self._verify_serving(version)
        self._verify_report(version, accept_loss=accept_loss, reason=reason)

    def _verify_report(self, version: EmbeddingVersion, *, accept_loss: bool, reason: str) -> None:
        row = self.report(version)
        verdict = Verdict(row["verdict"]) if row is not None else self.gate(version).verdict
        if verdict is Verdict.PASSED:
            return
        if verdict is Verdict.UNHEALTHY:
            message = f"{version.label}: the gate found it unhealthy; no option overrides that: lodestore run reembed"
            raise GateError(message)
        if not accept_loss:
            message = (
                f"{version.label}: the gate says {verdict}; to promote it all the same: "
                f"lodestore models promote {version.label} --accept-loss --reason '...'"
            )
            raise GateError(message)
        if not reason.strip():
            message = "--accept-loss needs a --reason: who reads the log later wants to know why"
            raise GateError(message)

    def rollback(self, slot: Slot, *, author: str, reason: str = "rolled back") -> Release:
        """The slot is at its previous distinct value; what was live is held until its declaration changes."""
        history = self._releases.history()
        embedding = slot.kind == "embedding"
        changes = rollout.rollback_changes(history, slot, follows=embedding and slot.name not in CHUNKED)
        leaving = self._versions.registered(history[-1].slots[slot]) if embedding else None
        with self._caught_up(changes, "rolling back"):
            self._verify_present(slot, changes[slot])
            if leaving is not None:
                # Held before it leaves: a crash in between must not let a sensor bring it back.
                self._hold(leaving, author=author, reason=reason)
            self._hold_view(slot, history[-1], author=author, reason=reason)
            try:
                release = self._releases.publish(
                    changes, action="rollback", author=author, reason=reason, base=history[-1]
                )
            except RefusedError:
                if leaving is not None:
                    self._lift(leaving, author=author, reason="the rollback did not happen")
                self._lift_view(slot, history[-1].slots.get(slot), author=author, reason="the rollback did not happen")
                raise
        self._lift_view(slot, changes[slot], author=author, reason="rolled back to")
        if embedding and changes[slot] is not None:
            self._lift(self._versions.registered(changes[slot]), author=author, reason="rolled back to")
        return release

    def _going_live(self, act: str) -> AbstractContextManager[None]:
        """Nobody drops a version between the look at its table and the release that names it."""
        return self._locks.hold("release", act)

    def _verify_present(self, slot: Slot, value: Any) -> None:  # noqa: ANN401 - a slot's value
        if (
            slot.kind == "embedding"
            and value is not None
            and not self._pipeline.built(self._versions.registered(value))
        ):
            message = f"{value} was dropped; build it again by declaring it: lodestore run reembed"
            raise RetentionError(message)

    @contextmanager
    def _caught_up(self, changes: Mapping[Slot, Any], act: str) -> Iterator[None]:
        """What is to serve again holds what is read today, also where ingestion does not keep it so: a held version.

        Embedding what is missing may take long: others may go live meanwhile, but nobody drops these versions.
        """
        keys = [value for slot, value in changes.items() if slot.kind == "embedding" and value is not None]
        with ExitStack() as held:
            for version in map(self._versions.registered, sorted(keys)):
                held.enter_context(self._kept_from_dropping(version, act))
                self._verify_present(slot_of(version), version.key)
                if not self._trusted(version):
                    self._bring_up(version)
            held.enter_context(self._going_live(act))
            yield

    def _trusted(self, version: EmbeddingVersion) -> bool:
        """Whether every ingestion kept the version up to date, without reading all its rows: a way back is in a hurry.

        It was never held, its model is there, and it has as many rows as it should.
        """
        never_held = version.key in self._maintained() and not self._releases.freed(
            slot_of(version), version.fingerprint
        )
        return never_held and self._versions.trouble(version) is None and self._pipeline.as_many(version)

    def _kept_from_dropping(self, version: EmbeddingVersion, act: str) -> AbstractContextManager[None]:
        return self._locks.hold(f"{version.table}.move", act)

    def _bring_up(self, version: EmbeddingVersion) -> None:
        """The version's chunks, vectors and index are current; `GateError` where it cannot serve all the same."""
        self._cut_unmaintained(version)
        if self._pipeline.current(version):
            self._pipeline.index(version)
        else:
            self._pipeline.fill(version)
        self._verify_serving(version)

    def _cut_unmaintained(self, version: EmbeddingVersion) -> None:
        """The version's chunks follow the documents: ingestion cuts for the versions that it maintains alone."""
        chunker = None if version.key in self._maintained() else self._versions.chunker(version)
        if chunker is not None:
            with self._locks.writer(f"cutting chunks for {version.label}"):
                self._pipeline.corpus.sync_chunks(chunker)

    def _maintained(self) -> set[str]:
        return {one.key for one in self._versions.maintained(first=False)}

    def _verify_serving(self, version: EmbeddingVersion) -> None:
        """The version is whole, and every feature that it makes is online in it; `GateError` where it is not."""
        health = self._pipeline.health(version)
        if not health.healthy:
            message = f"{version.feature} {version.label} cannot serve: {health.why_not()}; run: lodestore run reembed"
            raise GateError(message)
        self._pipeline.bind(version)

    def restore(self, target: Release, *, author: str, reason: str = "") -> Release:
        """Every slot is what it was in `target`; embedding versions that leave are held."""
        base = self._releases.live()
        changes = rollout.restore_changes(base, target)
        with self._caught_up(changes, "restoring a release"):
            for slot, value in changes.items():
                self._verify_present(slot, value)
            embeddings = [slot for slot in changes if slot.kind == "embedding"]
            leaving = [self._versions.registered(base.slots[slot]) for slot in embeddings if base.slots.get(slot)]
            # Held before they leave: a crash in between must not let a sensor bring them back.
            for version in leaving:
                self._hold(version, author=author, reason=reason or "restored")
            for slot in changes:
                self._hold_view(slot, base, author=author, reason=reason or "restored")
            try:
                release = self._releases.publish(changes, action="rollback", author=author, reason=reason, base=base)
            except RefusedError:
                for version in leaving:
                    self._lift(version, author=author, reason="the rollback did not happen")
                for slot in changes:
                    self._lift_view(slot, base.slots.get(slot), author=author, reason="the rollback did not happen")
                raise
        for slot, value in changes.items():
            self._lift_view(slot, value, author=author, reason="rolled back to")
        for slot in embeddings:
            if changes[slot] is not None:
                self._lift(self._versions.registered(changes[slot]), author=author, reason="rolled back to")
        return release

    def _hold_view(self, slot: Slot, left: Release, *, author: str, reason: str) -> None:
        """The version of a view that is left does not come back by itself; naming it in a promotion brings it back."""
        if slot.kind == "view" and slot in left.slots:
            number = str(left.slots[slot])
            self._releases.hold(slot, fingerprint=f"{slot.name}@{number}", version=number, author=author, reason=reason)

    def _lift_view(self, slot: Slot, number: Any, *, author: str, reason: str) -> None:  # noqa: ANN401 - a slot's value
        """This version of the view is no longer held."""
        for hold in self._releases.holds() if slot.kind == "view" else ():
            if (hold.slot, hold.version) == (slot, str(number)):
                self._releases.release_hold(
                    slot, fingerprint=hold.fingerprint, version=hold.version, author=author, reason=reason
                )

    def drop(self, version: EmbeddingVersion) -> None:
        """The version's live table is gone; refused while a slot or a rollback needs it."""
        rollout.verify_droppable(version, self._releases.history(), keep=self._keep)
        act = f"dropping {version.key}"
        with self._kept_from_dropping(version, act), self._locks.writer(act), self._going_live(act):
            rollout.verify_droppable(version, self._releases.history(), keep=self._keep)
            self._pipeline.drop(version)

    def _hold(self, version: EmbeddingVersion, *, author: str, reason: str) -> None:
        self._releases.hold(
            slot_of(version), fingerprint=version.fingerprint, version=version.label, author=author, reason=reason
        )

    def _lift(self, version: EmbeddingVersion, *, author: str, reason: str) -> None:
        for hold in self._releases.holds():
            if (hold.slot, hold.fingerprint) == (slot_of(version), version.fingerprint):
                self._releases.release_hold(
                    hold.slot, fingerprint=hold.fingerprint, version=hold.version, author=author, reason=reason
                )

    def promote_judged(self, version: EmbeddingVersion, verdict: str, *, author: str) -> str:
        """Promote what the gate has just passed, where the settings say so; returns what happened, as a sentence."""
        if verdict != Verdict.PASSED:
            return f"{version.label} was not promoted: the gate says {verdict}"
        if not self._automatic:
            return f"{version.label} passed and waits: lodestore models promote {version.label}"
        release = self.promote(version, author=author, reason="passed the gate")
        return f"{version.label} is live since release {release.generation}"

    def accept(self, decision: rollout.Decision, *, author: str = "sensor") -> None:
        """The decision's versions are registered; holds whose declaration has changed are over."""
        for launch in decision.launches:
            self._versions.register(self._versions.declared(launch.version.feature))
        for hold in decision.lift:
            self._releases.release_hold(
                hold.slot,
                fingerprint=hold.fingerprint,
                version=hold.version,
                author=author,
                reason="its declaration has changed",
            )

    def declared(self) -> list[str]:
        """The partition keys that the settings ask for."""
        return [self._versions.declared(feature).version.key for feature in self._versions.features]

    def state(self, failures: Mapping[str, int] | None = None, forgiven: Mapping[str, int] | None = None) -> State:
        """What the decision about new runs depends on: failed runs by partition, and how many of them are long past."""
        live, history = self._releases.live(), self._releases.history()
        declared = tuple(self._versions.declared(feature).version for feature in self._versions.features)
        waiting = {
            row["key"] for row in self._logs.rows("gates") if row["verdict"] == Verdict.INSUFFICIENT_QUERIES.value
        }
        following = frozenset(slot_of(one) for one in declared if of_events(one) and live.embeddings)
        freed = {one.key: self._releases.freed(slot_of(one), one.fingerprint) for one in declared}
        since = {slot_of(one): rollout.since(history, slot_of(one)) for one in declared}
        state = State(
            declared,
            live,
            tuple(self._releases.holds()),
            dict(failures or {}),
            following,
            since=since,
            freed=freed,
            forgiven=dict(forgiven or {}),
        )
        return replace(state, settled=frozenset(rollout.run_key(one, state) for one in declared if one.key in waiting))


def _merged(sets: Sequence[GoldenSet]) -> GoldenSet:
    """Several sets as one; query ids carry their set's name."""
    if len(sets) == 1:
        return sets[0]
    queries = tuple(replace(query, query_id=f"{one.name}/{query.query_id}") for one in sets for query in one.queries)
    judgements = {f"{one.name}/{name}": judged for one in sets for name, judged in one.judgements.items()}
    return GoldenSet("all", queries, judgements)
