"""Embedding features: each vector with its version, never a wrong one."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.catalog import catalog_of
from lodestore.errors import InvalidRowsError, RequestError
from lodestore.events import EventSource
from lodestore.historical import historical
from lodestore.online import Status
from lodestore.project import Project, open_project
from lodestore.publishing import publish
from lodestore.releases import Slot
from lodestore.spaces import HALF_LIFE, blended, running_means, value_table
from lodestore.tables import MOMENT
from lodestore.testing import FrozenClock
from lodestore.vectors import mean_direction
from lodestore.wire import dumps, rfc3339

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
MEAN, LAST = "user_activity:interaction_history_embedding", "user_activity:last_query_embedding"
CONTENT, TITLE = "document_features:content_embedding", "document_features:title_embedding"
MINE = """
from lodestore import Entity, FeatureView, embedding, text
shop = Entity("shop", key="shop_id")
taste = FeatureView("taste", entity=shop, source="streaming",
                    features={"style": embedding("content"), "name": text()})
"""
MODULES = '[features]\nmodules = ["lodestore.standard"]'


@pytest.fixture
def project(make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Project:
    folder = make_project()
    (folder / "house_features.py").write_text(MINE, encoding="utf-8")
    settings_file = folder / "lodestore.toml"
    text = settings_file.read_text(encoding="utf-8")
    more = MODULES.replace('standard"]', 'standard", "house_features"]')
    settings_file.write_text(text.replace(MODULES, more).replace('*.md"', '*.md"\nmax_retire = 1.0'), encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(__import__("sys").modules, "house_features", raising=False)
    made = open_project(folder)
    made.pipeline.read_documents()
    made.pipeline.cut_chunks()
    made.pipeline.fill_maintained()
    made.pipeline.promote_first()
    return made


def read(project: Project, ref: str, **entities: Any) -> tuple[Any, Status]:
    answer = project.store.online([ref], {name: [value] for name, value in entities.items()})
    return answer.columns[ref][0], answer.statuses[ref][0]


def ask(project: Project, text: str, *, user: str = "ada", at: datetime | None = None, kept: bool = True) -> np.ndarray:
    live = project.live()
    vector = live.embed([text])[0]
    project.features.seen(
        user,
        request_id=text,
        at=at or project.clock(),
        query_vector=vector,
        version=live.version(),
        query_text=text if kept else None,
    )
    return vector


def with_glove(project: Project) -> Project:
    """The same project once another model is live for content."""
    settings_file = project.settings.root / "lodestore.toml"
    settings_file.write_text(settings_file.read_text().replace('content = "words@1"', 'content = "glove@1"'))
    changed = open_project(project.settings.root)
    version = changed.versions.register(changed.versions.declared("content"))
    chunker = changed.versions.chunker(version)
    assert chunker is not None
    changed.corpus.sync_chunks(chunker)
    changed.pipeline.fill(version)
    changed.releases.publish({Slot("embedding", "content"): version.key}, action="promote", author="test")
    return changed


# Documents


def test_a_documents_content_vector_is_the_normalised_mean_of_its_chunks(project: Project) -> None:
    publish(project)

    value, status = read(project, CONTENT, document_id="handbook/travel.md")

    rows = project.tables.read(project.live().version().table, ["vector"], "document_id = 'handbook/travel.md'")
    assert status is Status.PRESENT
    assert np.allclose(value, mean_direction(np.array(rows["vector"].to_pylist())), atol=1e-6)


def test_a_title_vector_is_that_of_the_title_table(project: Project) -> None:
    publish(project)

    value, _ = read(project, TITLE, document_id="handbook/travel.md")

    table = project.live().version("title").table
    row = project.tables.read(table, ["vector"], "document_id = 'handbook/travel.md'")
    assert np.allclose(value, mean_direction(np.array(row["vector"].to_pylist())), atol=1e-6)


def test_a_second_publication_writes_no_vector(project: Project) -> None:
    first = publish(project)

    second = publish(project)

    assert sum(one.written for one in first.vectors) == 8
    assert sum(one.written for one in second.vectors) == 0


def test_a_document_that_is_gone_has_no_vector(project: Project) -> None:
    publish(project)
    (project.settings.root / "docs" / "travel.md").unlink()
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()
    project.pipeline.fill_maintained()

    publish(project, views=["document_features"])

    assert read(project, CONTENT, document_id="handbook/travel.md") == (None, Status.NOT_FOUND)


# After a change of the model


def test_a_value_of_another_version_is_no_value_until_it_is_made_again(project: Project) -> None:
    publish(project)
    changed = with_glove(project)

    before = read(changed, CONTENT, document_id="handbook/travel.md")
    publish(changed)
    value, status = read(changed, CONTENT, document_id="handbook/travel.md")

    assert before == (None, Status.OTHER_VERSION)
    assert (status, len(value)) == (Status.PRESENT, 50)


def test_questions_are_embedded_again_from_their_stored_texts(project: Project) -> None:
    for text in ("where are trains booked", "when does the dishwasher run"):
        ask(project, text)
    project.features.drain()
    changed = with_glove(project)

    before = [read(changed, ref, user_id="ada")[1] for ref in (LAST, MEAN)]
    done = publish(changed)
    (last, _), (mean, status) = read(changed, LAST, user_id="ada"), read(changed, MEAN, user_id="ada")

    wanted = changed.live().embed(["where are trains booked", "when does the dishwasher run"])
    assert before == [Status.OTHER_VERSION, Status.OTHER_VERSION]
    assert sum(one.embedded for one in done.vectors) == 2
    assert np.allclose(last, wanted[1], atol=1e-5)
    assert np.allclose(mean, wanted.mean(axis=0), atol=1e-3)
    assert status is Status.PRESENT
    assert sum(one.embedded for one in publish(changed).vectors) == 0


def test_questions_that_were_asked_before_a_new_version_of_the_view_still_reach_their_history(project: Project) -> None:
    ask(project, "where are trains booked")
    project.features.drain()
    ask(project, "when does the dishwasher run")
    waiting = project.online.journal_size()
    newer = open_project(project.settings.root)
    views = dict(newer.catalog.views)
    views["user_activity", 2] = replace(views.pop(("user_activity", 1)), version=2)
    newer.__dict__["catalog"] = catalog_of(views.values())

    moved = newer.features.drain()

    table = value_table(project.catalog.view("user_activity"), "last_query_embedding", project.live().version().key)
    assert (moved, newer.online.journal_size()) == (waiting, 0)
    assert newer.tables.count(table) == 2


def test_a_question_whose_text_is_not_kept_stays_with_its_version(project: Project) -> None:
    ask(project, "where are trains booked", kept=False)
    project.features.drain()
    changed = with_glove(project)

    publish(changed)

    assert read(changed, LAST, user_id="ada") == (None, Status.OTHER_VERSION)


# Questions


def test_a_question_is_there_at_the_next_read_and_counts_once(project: Project) -> None:
    first = ask(project, "where are trains booked")
    ask(project, "where are trains booked")
    second = ask(project, "when does the dishwasher run")

    last, _ = read(project, LAST, user_id="ada")
    mean, _ = read(project, MEAN, user_id="ada")

    assert np.allclose(last, second)
    assert np.allclose(mean, (first + second) / 2, atol=1e-4)
    assert read(project, LAST, user_id="ben") == (None, Status.NOT_FOUND)
    assert project.features.drain() == 4
    assert publish(project).views


def test_the_mean_from_the_history_is_the_mean_online(project: Project) -> None:
    now = project.clock()
    for place, text in enumerate(("trains", "dishwasher", "badges")):
        ask(project, text, at=now - (3 - place) * timedelta(minutes=10))
    project.features.drain()
    online, _ = read(project, MEAN, user_id="ada")

    project.online.drop(f"user_activity@1/interaction_history_embedding/{project.live().version().key}")
    publish(project, views=["user_activity"])

    again, _ = read(project, MEAN, user_id="ada")
    assert np.allclose(online, again, atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_in_which_questions_arrive_does_not_change_their_mean(times: list[int], random: Any) -> None:
    vectors = np.eye(6)[: len(times)]
    order = sorted(range(len(times)), key=times.__getitem__)
    wanted, total = running_means(np.array([times[at] for at in order]), vectors[order])

    shuffled = random.sample(range(len(times)), len(times))
    mean, weight, at = vectors[shuffled[0]], 1.0, times[shuffled[0]]
    for one in shuffled[1:]:
        mean, weight = blended(mean, weight, at, vectors[one], times[one])
        at = max(at, times[one])

    assert np.allclose(mean, wanted[-1], atol=1e-9)
    assert weight == pytest.approx(total)


def test_after_the_half_life_a_question_counts_half() -> None:
    micros = np.array([0, HALF_LIFE // timedelta(microseconds=1)])

    means, weight = running_means(micros, np.eye(2))

    assert np.allclose(means[-1], [1 / 3, 2 / 3])
    assert weight == pytest.approx(1.5)


# Vectors in rows


def push(project: Project, value: object) -> Any:
    row = {"shop_id": "s1", "event_timestamp": project.clock(), "style": value, "name": "Corner"}
    return project.store.push("taste", [row])


def test_a_ready_made_vector_that_names_its_version_is_online_and_in_the_history(project: Project) -> None:
    vector = np.linspace(0, 1, 256, dtype=np.float32)

    push(project, {"version": "words@1", "vector": vector.tolist()})
    project.features.drain()

    assert np.allclose(read(project, "taste:style", shop_id="s1")[0], vector)
    assert project.tables.names("emb__taste_v1_style__") != []
    assert read(with_glove(project), "taste:style", shop_id="s1") == (None, Status.OTHER_VERSION)


def write_events(folder: Path, kind: str, rows: list[dict[str, Any]]) -> EventSource:
    """A file of rows; a vector is a JSON object, in CSV as text."""
    path = folder / f"shops.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("\n".join(map(dumps, rows)), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "style": dumps(row["style"])} for row in rows)
    return EventSource("shops", "taste", path.name)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_vectors_in_event_files_are_online_and_in_training_sets_under_their_version(
    project: Project, kind: str
) -> None:
    at = project.clock() - timedelta(hours=1)
    vectors = np.random.default_rng(1).random((3, 256), dtype=np.float32)
    label = project.live().version().fingerprint if kind == "parquet" else "words@1"
    rows = [
        {"shop_id": f"s{n}", "event_timestamp": rfc3339(at), "style": {"version": label, "vector": one.tolist()}}
        for n, one in enumerate(vectors)
    ]
    source = write_events(project.settings.root, kind, rows)

    done = project.features.record_events(source, root=project.settings.root)
    publish(project, views=["taste"])

    assert (done.added, done.problems) == (3, ())
    for n, one in enumerate(vectors):
        assert np.allclose(read(project, "taste:style", shop_id=f"s{n}")[0], one)
    asked = pa.table({"shop_id": ["s2", "s2"], "event_timestamp": pa.array([at, at - timedelta(seconds=1)], MOMENT)})
    found = historical(asked, ["taste:style"], catalog=project.catalog, offline=project.tables)["taste:style"]
    assert np.allclose(found[0].as_py(), vectors[2])
    assert found[1].as_py() is None
    assert project.features.record_events(source, root=project.settings.root).added == 0


def test_a_vector_without_its_version_is_a_reject_that_names_its_line_and_stops_no_other_row(project: Project) -> None:
    at = rfc3339(project.clock() - timedelta(hours=1))
    labelled = {"version": "words@1", "vector": [0.5] * 256}
    rows = [
        {"shop_id": "s1", "event_timestamp": at, "name": "one", "style": [0.5] * 256},
        {"shop_id": "s2", "event_timestamp": at, "name": "two", "style": labelled},
        {"shop_id": "s3", "event_timestamp": at, "name": 3, "style": {**labelled, "version": "wards@1"}},
        {"shop_id": "s4", "event_timestamp": at, "name": "four", "style": {**labelled, "vector": [0.5] * 9}},
        {"shop_id": "s5", "event_timestamp": at, "name": "five", "style": labelled},
    ]
    source = write_events(project.settings.root, "jsonl", rows)

    done = project.features.record_events(source, root=project.settings.root)
    publish(project, views=["taste"])

    assert done.added == 2
    assert [one.partition(":")[0] for one in done.problems] == [f"shops.jsonl, line {n}" for n in (1, 3, 4)]
    assert "style: a vector names the version that made it" in done.problems[0]
    assert "name: int is no text; style: no version 'wards@1' of content" in done.problems[1]
    assert "did you mean 'words@1'" in done.problems[1]
    assert [read(project, "taste:name", shop_id=f"s{n}")[0] for n in range(1, 6)] == [None, "two", None, None, "five"]
    assert read(project, "taste:style", shop_id="s1") == (None, Status.NOT_FOUND)
    assert read(project, "taste:style", shop_id="s5")[1] is Status.PRESENT


def test_rows_that_differ_in_their_vector_alone_are_two_events(project: Project) -> None:
    at = project.clock()
    vectors = [{"version": "words@1", "vector": [number] * 256} for number in (1.0, 2.0)]
    rows = [{"shop_id": "s1", "event_timestamp": at, "style": one} for one in (*vectors, vectors[1])]

    written = [project.store.push("taste", [row]) for row in rows]

    assert [(one.accepted, one.duplicates) for one in written] == [(1, 0), (1, 0), (0, 1)]
    assert read(project, "taste:style", shop_id="s1")[0][0] == 2.0


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([0.1] * 256, "names the version that made it"),
        ({"version": "words@1", "vector": [0.1] * 9}, r"shape \[9\]; words@1 has 256 numbers"),
        ({"version": "wards@1", "vector": [0.1] * 256}, "did you mean 'words@1'"),
        ({"version": "words@1", "vector": [float("nan")] * 256}, "NaN or infinite"),
        ({"version": "words@1", "vector": [0.0] * 256}, "only zeros"),
        ({"version": "words@1", "vector": ["x"]}, "list of numbers"),
    ],
)
def test_a_vector_that_does_not_fit_stops_the_push_and_is_named(project: Project, value: object, told: str) -> None:
    with pytest.raises(InvalidRowsError, match=f"row 1: style: .*{told}"):
        push(project, value)

    assert read(project, "taste:name", shop_id="s1") == (None, Status.NOT_FOUND)
    assert project.online.journal_size() == 0


# Training sets


def test_history_has_the_vectors_as_they_were_and_none_before_they_were(project: Project) -> None:
    now = project.clock()
    first = ask(project, "trains", at=now - timedelta(minutes=30))
    second = ask(project, "dishwasher", at=now - timedelta(minutes=10))
    project.features.drain()
    moments = [now - timedelta(minutes=age) for age in (40, 20, 5)]
    rows = pa.table({"user_id": ["ada"] * 3, "event_timestamp": pa.array(moments, pa.timestamp("us", "UTC"))})

    found = project.store.historical(rows, [LAST, MEAN, "user_activity:session_queries_count"])

    last, mean = found[LAST].to_pylist(), found[MEAN].to_pylist()
    assert last[0] is None
    assert np.allclose(last[1:], [first, second])
    assert np.allclose(mean[1:], [first, (first + second) / 2], atol=1e-3)


def test_a_documents_vector_of_then_is_the_one_of_its_chunks_of_then(project: Project) -> None:
    publish(project)
    before, _ = read(project, CONTENT, document_id="handbook/travel.md")
    then = project.clock()
    (project.settings.root / "docs" / "travel.md").write_text("# Travel\n\nShips leave at dawn.\n", encoding="utf-8")
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()
    project.pipeline.fill_maintained()
    publish(project)
    after, _ = read(project, CONTENT, document_id="handbook/travel.md")
    moments = pa.array([datetime(2020, 1, 1, tzinfo=UTC), then, project.clock()], pa.timestamp("us", "UTC"))
    rows = pa.table({"document_id": ["handbook/travel.md"] * 3, "event_timestamp": moments})

    found = project.store.historical(rows, [CONTENT])[CONTENT].to_pylist()

    assert found[0] is None
    assert np.allclose(found[1], before, atol=1e-6)
    assert np.allclose(found[2], after, atol=1e-6)
    assert not np.allclose(before, after, atol=1e-2)


def test_vectors_of_a_space_without_a_live_version_are_refused(make_project: Callable[..., Path]) -> None:
    project = open_project(make_project())
    rows = pa.table({"user_id": ["ada"], "event_timestamp": pa.array([NOON], pa.timestamp("us", "UTC"))})

    with pytest.raises(RequestError, match="no version of 'interaction' is live"):
        project.store.historical(rows, [LAST])
    assert FrozenClock(NOON)() == NOON
