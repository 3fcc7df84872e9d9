"""Point-in-time retrieval datasets: nothing in a row is younger than its question, and it is what would have been found."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestore import cli
from lodestore.datasets import CHUNK_COLUMNS, build, leaks
from lodestore.errors import LodestoreError
from lodestore.historical import assert_no_leak
from lodestore.project import open_project
from lodestore.tables import MOMENT
from lodestore.wire import rfc3339

SETTINGS = """
[[documents]]
name = "notes"
uri = "docs/*.md"
max_retire = 1.0
[[events]]
name = "users"
view = "user_profile"
uri = "users.jsonl"
[features]
modules = ["lodestore.standard"]
[embedding.features]
content = "words@1"
[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"
"""
WORDS = ("refund", "train", "badge", "coffee", "rose", "desk", "guard", "noon")
LEVELS = ("beginner", "intermediate", "expert")
LEVEL = "user_profile:expertise_level"


def ingest(project):
    steps = project.pipeline
    for step in (steps.read_documents, steps.cut_chunks, steps.fill_maintained, steps.promote_first):
        step()


def rows_now(project):
    table = project.live().version("content").table
    rows = project.tables.read(table, ["row_id", "text", "vector", "visible_from"]).to_pylist()
    return {row["row_id"]: row for row in rows}


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Four ingestions of documents that come, change and go; what was there is kept under a moment after each."""
    place = tmp_path_factory.mktemp("history")
    (place / "docs").mkdir()
    (place / "lodestore.toml").write_text(SETTINGS)
    rng, seen, events = np.random.default_rng(5), [], []
    for turn in range(4):
        for n in rng.choice(8, size=4, replace=False):
            file = place / "docs" / f"{n}.md"
            if turn > 1 and file.exists() and rng.random() < 0.3:
                file.unlink()
            else:
                file.write_text(f"# Note {n}\n\n{' '.join(rng.choice(WORDS, 12))} in turn {turn}.\n")
        now = datetime.now(UTC).isoformat()
        events.append({"user_id": "ada", "event_timestamp": now, "expertise_level": LEVELS[turn % 3]})
        (place / "users.jsonl").write_text("\n".join(map(json.dumps, events)))
        project = open_project(place)
        ingest(project)
        project.pipeline.record(project.catalog.view("user_profile"))
        seen.append((project.clock(), rows_now(project)))
    return project, seen


def boundaries(seen):
    """The very moments at which chunks became visible, and those around them that lie within the history."""
    born = sorted({row["visible_from"] for _, rows in seen for row in rows.values()})
    around = [at + timedelta(microseconds=shift) for at in born for shift in (-1, 0, 1)]
    return [at for at in around if seen[0][0] <= at <= seen[-1][0]]


def questions(moments):
    texts = [f"{WORDS[n % len(WORDS)]} {WORDS[(3 * n + 1) % len(WORDS)]}" for n in range(len(moments))]
    columns = {"query": texts, "event_timestamp": pa.array(moments, MOMENT), "user_id": ["ada"] * len(moments)}
    return pa.table({**columns, "label": list(range(len(moments)))})


def made_of(project, asked, **options):
    return build(asked, past=project.past, history=project.store.historical, features=[LEVEL], k=3, **options)


@pytest.mark.parametrize("mode", ["vector", "hybrid", "text"])
def test_no_row_holds_a_chunk_or_a_feature_that_is_younger_than_its_question(history, mode):
    project, seen = history
    moments = [at for at, _ in seen] + boundaries(seen)

    made = made_of(project, questions(moments), mode=mode)

    assert made.num_rows > len(moments)
    assert leaks(made) == 0
    assert all(row["visible_from"] is None or row["visible_from"] <= row["event_timestamp"] for row in made.to_pylist())
    entities = made.select(["user_id", "event_timestamp"])
    assert_no_leak(entities, [LEVEL], made, catalog=project.catalog, offline=project.tables)


def test_the_chunks_are_those_that_plain_arithmetic_finds_among_what_was_there(history):
    project, seen = history
    made = made_of(project, questions([at for at, _ in seen])).to_pylist()
    live = project.live()

    for n, (at, rows) in enumerate(seen):
        mine = [row for row in made if row["label"] == n]
        (vector,) = live.embed([mine[0]["query"]])
        cosines = {name: float(np.dot(row["vector"], vector)) for name, row in rows.items()}
        best = sorted(cosines.values(), reverse=True)[:3]
        assert [row["score"] for row in mine] == pytest.approx(best, abs=1e-5)
        assert [row["rank"] for row in mine] == [1, 2, 3]
        assert all(row["event_timestamp"] == at and row["text"] == rows[row["chunk_id"]]["text"] for row in mine)
        assert [row[LEVEL] for row in mine] == [LEVELS[n % 3]] * 3, (n, at)


def test_a_dataset_that_leaks_is_counted(history):
    project, seen = history
    made = made_of(project, questions([seen[-1][0]]))
    place = made.schema.get_field_index("event_timestamp")
    early = pa.array([datetime(2020, 1, 1, tzinfo=UTC)] * made.num_rows, MOMENT)

    assert leaks(made.set_column(place, "event_timestamp", early)) == made.num_rows == 3


def test_the_command_writes_parquet_with_the_questions_their_features_and_the_chunks(history, tmp_path, capsys):
    project, seen = history
    asked = [
        {"query": "refund", "event_timestamp": rfc3339(at), "user_id": "ada", "clicked": n}
        for n, (at, _) in enumerate(seen)
    ]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)))

    code = cli.run([
        "--config", str(project.settings.root), "golden", "dataset", "--questions", str(tmp_path / "asked.jsonl"),
        "--features", LEVEL, "--k", "2", "--filter", "source = 'notes'", "--out", str(tmp_path / "set.parquet"), "--json",
    ])  # fmt: skip

    told, written = json.loads(capsys.readouterr().out), pq.read_table(tmp_path / "set.parquet")
    assert (code, told["rows"], told["leaks"]) == (0, 2 * len(seen), 0)
    assert written.column_names == ["query", "event_timestamp", "user_id", "clicked", LEVEL, *CHUNK_COLUMNS.names]
    assert written["rank"].to_pylist() == [1, 2] * len(seen)
    assert leaks(written) == 0


@pytest.mark.parametrize(
    ("query", "moment", "says"),
    [
        ("", None, "row 2: the query is empty"),
        ("x", datetime(2999, 1, 1, tzinfo=UTC), "row 2: as_of 2999-01-01T00:00:00Z lies in the future"),
        ("x", datetime(1999, 1, 1, tzinfo=UTC), r"row 2: as_of 1999.*\[retention\] days"),
        ("x", datetime.now(UTC) - timedelta(days=1), "row 2: .*nothing was live yet"),
    ],
)
def test_a_question_that_cannot_be_asked_is_told_with_its_row(history, query, moment, says):
    project, seen = history
    asked = questions([seen[0][0], moment or seen[0][0]])
    asked = asked.set_column(0, "query", pa.array(["refund", query]))

    with pytest.raises(LodestoreError, match=says):
        made_of(project, asked)


def test_a_filter_of_the_command_that_makes_no_sense_is_told(history, tmp_path, capsys):
    project, seen = history
    asked = {"query": "refund", "event_timestamp": rfc3339(seen[0][0]), "user_id": "ada"}
    (tmp_path / "asked.jsonl").write_text(json.dumps(asked))

    code = cli.run([
        "--config", str(project.settings.root), "golden", "dataset", "--questions", str(tmp_path / "asked.jsonl"),
        "--filter", "colour = 'red'", "--out", str(tmp_path / "set.parquet"), "--json",
    ])  # fmt: skip

    assert code == 2
    assert "unknown column 'colour'" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert not (tmp_path / "set.parquet").exists()
