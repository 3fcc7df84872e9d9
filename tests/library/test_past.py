"""Search as of a moment gives what a search at that moment gave, whatever came after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.adapters.lance import LanceStore
from lodestore.chunking import WHOLE, hash_text
from lodestore.corpus import Corpus
from lodestore.errors import RequestError, RetentionError, UnknownReleaseError
from lodestore.grouping import Extras
from lodestore.live import Live
from lodestore.logs import Logs
from lodestore.models import EmbeddingVersion
from lodestore.past import NOTE, Past
from lodestore.reembed import Filling
from lodestore.releases import ReleaseLog
from lodestore.retention import forget, kept_since
from lodestore.tables import DOCUMENTS, retired
from lodestore.testing import HashEmbedder, MemoryStore
from lodestore.versions import slot_of

START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = ("apple", "boat", "cloud", "drum", "eagle", "fern")
QUERIES = ("apple boat", "cloud", "drum eagle fern")


class Clock:
    """A moment that moves a millisecond whenever somebody looks."""

    def __init__(self):
        self.now = START

    def __call__(self):
        self.now += timedelta(milliseconds=1)
        return self.now

    def pause(self, **span):
        self.now += timedelta(**(span or {"seconds": 1}))
        return self.now


@dataclass
class World:
    """Titled documents, two versions that embed the titles, and what was there at each moment."""

    store: object
    clock: Clock = field(default_factory=Clock)
    snapshots: list = field(default_factory=list)
    keep: timedelta = timedelta(days=30)

    def __post_init__(self):
        self.logs = Logs(self.store, self.clock)
        self.corpus = Corpus(self.store, self.logs, self.clock)
        self.releases = ReleaseLog(self.logs, self.clock)
        self.embedders = {name: HashEmbedder(label=f"{name}@1") for name in "ab"}
        self.versions = {
            name: EmbeddingVersion("title", name, "1", WHOLE, made.fingerprint, made.dimension)
            for name, made in self.embedders.items()
        }

    def write(self, document, text, category="x"):
        row = dict.fromkeys(DOCUMENTS.names) | {
            "document_id": document, "source": "docs", "title": text, "content": text, "category": category,
            "content_hash": hash_text(text + category), "ingested_at": self.clock(),
        }  # fmt: skip
        self.store.upsert("documents", pa.Table.from_pylist([row], schema=DOCUMENTS), key="document_id")

    def remove(self, document):
        self.corpus.retire([document])

    def fill(self):
        for name, version in self.versions.items():
            Filling(self.store, version, self.embedders[name], same_fingerprint=(), clock=self.clock).run()
            self.store.index(version.table)

    def promote(self, name):
        self.releases.publish({slot_of("title"): self.versions[name].key}, action="promote", author="test")

    def maintain(self):
        """What left longer ago than is kept is gone."""
        forget(self.store, self.logs, before=self.clock() - self.keep)

    def compact(self):
        for version in self.versions.values():
            self.store.compact(version.table)
            self.store.compact(retired(version.table))

    def note(self):
        """The rows of the live version are remembered, under the moment of now."""
        moment = self.clock.pause()
        key = self.releases.live().embeddings["title"]
        (version,) = [one for one in self.versions.values() if one.key == key]
        rows = self.store.read(version.table, ["row_id", "text", "vector"]).to_pylist()
        self.snapshots.append((moment, version, rows))
        self.clock.pause()

    @property
    def past(self):
        by_key = {one.key: one for one in self.versions.values()}
        return Past(
            self.store, self.releases, registered=by_key.__getitem__, embedder=lambda one: self.embedders[one.model],
            clock=self.clock, keep=self.keep, kept_since=lambda: kept_since(self.logs),
        )  # fmt: skip

    def expected(self, version, rows, query):
        """Scores by row id, by plain arithmetic over the remembered rows."""
        (vector,) = self.embedders[version.model].embed_queries([query])
        return {row["row_id"]: float(np.dot(row["vector"], vector)) for row in rows}


TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
DOCUMENT = st.sampled_from(["docs/1", "docs/2", "docs/3", "docs/4"])
STEP = st.one_of(
    st.tuples(st.just("write"), DOCUMENT, TEXT, st.sampled_from("xy")),
    st.tuples(st.just("remove"), DOCUMENT),
    st.tuples(st.just("promote"), st.sampled_from("ab")),
    st.tuples(st.just("compact")),
    st.tuples(st.just("maintain")),
)


def replayed(world, steps):
    world.write("docs/0", "apple drum")
    world.fill()
    world.promote("a")
    world.note()
    for name, *arguments in steps:
        getattr(world, name)(*arguments)
        world.fill()
        world.note()


def answers_as_then(world, k=3):
    for moment, version, rows in world.snapshots:
        live = world.past.at(moment)
        assert live.version("title").key == version.key
        for query in QUERIES:
            expected = world.expected(version, rows, query)
            hits = live.find(query, k=k, mode="vector", feature="title").hits
            assert len(hits) == min(k, len(rows))
            best = sorted(expected.values(), reverse=True)[:k]
            assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-5)
            assert all(hit.score == pytest.approx(expected[hit.chunk_id], abs=1e-5) for hit in hits)
            texts = {row["row_id"]: row["text"] for row in rows}
            assert all(hit.text == texts[hit.chunk_id] for hit in hits)


@given(st.lists(STEP, max_size=8))
@settings(max_examples=20, deadline=None)
def test_every_moment_of_a_history_answers_as_it_did_then(steps):
    world = World(MemoryStore())

    replayed(world, steps)

    answers_as_then(world)


@given(st.lists(STEP, min_size=6, max_size=14), st.integers(0, 12))
@settings(max_examples=20, deadline=None)
def test_after_upkeep_every_moment_within_the_retention_answers_as_then_and_none_beyond_it(steps, seconds):
    world = World(MemoryStore(), keep=timedelta(seconds=seconds))

    replayed(world, [*steps, ("maintain",)])

    oldest = world.clock.now - world.keep
    within = [one for one in world.snapshots if one[0] > oldest + timedelta(milliseconds=100)]
    for moment, _, _ in world.snapshots:
        if moment < oldest:
            with pytest.raises(RetentionError):
                world.past.at(moment)
    for snapshot in within:
        world.snapshots = [snapshot]
        # Asking takes time, too: the clock of each question starts where the history ended.
        world.clock.now = oldest + world.keep
        answers_as_then(world)


class Watched:
    """Tables that note which of them a search touches."""

    def __init__(self, store):
        self.store, self.touched = store, set()

    def __getattr__(self, name):
        act = getattr(self.store, name)

        def noted(table, *arguments, **options):
            self.touched.add(table)
            return act(table, *arguments, **options)

        return noted


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_the_live_path_never_looks_at_what_has_left(mode):
    world = World(MemoryStore())
    replayed(world, STEPS)
    watched = Watched(world.store)
    version = next(one for one in world.versions.values() if one.key == world.releases.live().embeddings["title"])
    assert world.store.count(retired(version.table))

    live = Live(world.releases.live(), {"title": version}, lambda one: world.embedders[one.model], watched)
    live.find("apple boat", k=3, mode=mode, feature="title")

    assert watched.touched == {version.table}


def test_a_retention_that_was_shorter_once_is_remembered_when_it_is_longer_again():
    world = World(MemoryStore(), keep=timedelta(seconds=3))
    replayed(world, [*STEPS, ("maintain",)])
    first = world.snapshots[0][0]
    world.keep = timedelta(days=30)

    with pytest.raises(RetentionError, match=r"lies before 2026.*retention. days was shorter"):
        world.past.at(first)
    world.snapshots = world.snapshots[-1:]
    answers_as_then(world)


def test_a_second_upkeep_forgets_nothing_and_never_moves_the_mark_back():
    world = World(MemoryStore(), keep=timedelta(seconds=3))
    replayed(world, STEPS)
    world.maintain()
    mark = kept_since(world.logs)

    assert forget(world.store, world.logs, before=START) == {}
    assert kept_since(world.logs) == mark
    assert world.store.remove("watermarks", "value < '2000'") == 0


def test_a_retired_document_keeps_its_card_and_loses_its_text():
    world = World(MemoryStore(), keep=timedelta(seconds=1))
    replayed(world, [("remove", "docs/0"), ("write", "docs/1", "boat", "x"), ("maintain",)])

    (row,) = world.store.read(retired("documents")).to_pylist()

    assert (row["document_id"], row["content"], row["metadata"]) == ("docs/0", None, None)
    assert row["visible_until"] is not None
    assert "docs/0" in world.corpus.ever_seen()


STEPS = [
    ("write", "docs/1", "boat cloud", "x"),
    ("write", "docs/1", "eagle fern", "x"),
    ("promote", "b"),
    ("remove", "docs/0"),
    ("write", "docs/0", "apple drum", "x"),
    ("write", "docs/2", "cloud", "y"),
    ("promote", "a"),
    ("remove", "docs/1"),
]


@pytest.fixture(scope="module")
def lance(tmp_path_factory):
    """One history for all tests that only ask; compaction may not change an answer, so it may be one of them."""
    world = World(LanceStore(str(tmp_path_factory.mktemp("past"))))
    replayed(world, STEPS)
    return world


def test_a_real_store_answers_as_it_did_then(lance):
    answers_as_then(lance)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_long_random_history_on_a_real_store_answers_as_it_did_then(tmp_path, seed):
    rng = np.random.default_rng(seed)
    acts = ["write", "write", "write", "remove", "promote", "compact"]
    steps = []
    for act in rng.choice(acts, 14):
        document = f"docs/{rng.integers(4)}"
        text = " ".join(rng.choice(WORDS, rng.integers(1, 4)))
        given = {"write": (document, text, str(rng.choice(["x", "y"]))), "remove": (document,)}
        steps.append((act, *given.get(act, (str(rng.choice(["a", "b"])),) if act == "promote" else ())))
    world = World(LanceStore(str(tmp_path)))

    replayed(world, steps)
    answers_as_then(world)
    for version in world.versions.values():
        for name in (version.table, retired(version.table)):
            world.store.compact(name, keep=timedelta(milliseconds=1))

    answers_as_then(world)


def test_compaction_and_the_removal_of_old_files_change_no_answer(lance):
    answers_as_then(lance)

    lance.maintain()
    for version in lance.versions.values():
        for name in (version.table, retired(version.table)):
            lance.store.compact(name, keep=timedelta(milliseconds=1))
            assert len(lance.store._open(name).list_versions()) == 1

    answers_as_then(lance)


def test_a_text_search_of_the_past_finds_words_that_have_left_and_says_what_it_cannot_know(lance):
    moment = lance.snapshots[1][0]
    live = lance.past.at(moment)

    found = live.find("boat", k=5, mode="text", feature="title").hits
    told = lance.past.at(moment).find("boat", k=5, mode="hybrid", feature="title")

    assert [hit.document_id for hit in found] == ["docs/1"]
    assert told.hits[0].text == "boat cloud"
    assert "today's rows" in NOTE


def test_only_rows_of_that_moment_come_back_in_any_mode(lance):
    for moment, _, rows in lance.snapshots:
        there = {(row["row_id"], row["text"]) for row in rows}
        for mode in ("text", "hybrid", "vector"):
            hits = lance.past.at(moment).find("apple boat cloud drum", k=10, mode=mode, feature="title").hits
            assert {(hit.chunk_id, hit.text) for hit in hits} <= there


def test_a_filter_holds_in_the_past_as_well(lance):
    moment = lance.snapshots[6][0]

    hits = lance.past.at(moment).find("cloud", k=5, mode="vector", feature="title", where="category = 'y'").hits

    assert [hit.document_id for hit in hits] == ["docs/2"]


def test_the_explanation_names_the_moment_and_the_tables(lance):
    moment = lance.snapshots[1][0]

    told = lance.past.at(moment).find(
        "cloud", mode="vector", feature="title", extras=Extras(explain=True, diversity=0.5)
    )

    assert told.explain["index"] is None
    assert len(told.explain["tables"]) == 2


@pytest.fixture
def short():
    world = World(MemoryStore())
    replayed(world, STEPS[:2])
    return world


def test_beyond_the_retention_the_answer_is_an_error_with_the_oldest_moment(short):
    moment = short.snapshots[0][0]
    short.clock.pause(days=31)

    with pytest.raises(RetentionError, match=r"\[retention\] days.*since 2026-01-02"):
        short.past.at(moment)


def test_a_moment_in_the_future_or_without_a_zone_or_before_everything_is_refused(short):
    with pytest.raises(RequestError, match="lies in the future, by 1 h"):
        short.past.at(short.clock.now + timedelta(hours=1))
    with pytest.raises(RequestError, match="no time zone"):
        short.past.at(datetime(2026, 1, 1))  # noqa: DTZ001 - the point
    with pytest.raises(UnknownReleaseError, match="nothing was live yet"):
        short.past.at(START)


@pytest.mark.parametrize("rebuilt", [False, True])
def test_a_version_that_was_dropped_since_is_an_error_not_an_empty_answer(rebuilt):
    world = World(MemoryStore())
    replayed(world, [("promote", "b")])
    table = world.versions["a"].table
    world.store.drop(table)
    if rebuilt:
        world.fill()

    with pytest.raises(RetentionError, match=r"was live then .release 1.*dropped"):
        world.past.at(world.snapshots[0][0])
