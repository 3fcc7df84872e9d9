"""What users ask can be embedded by a model of its own: a slot with versions, a plan, a gate, a way back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lodestore.errors import DeclarationError, GoldenError, HeldError, InUseError, RetentionError
from lodestore.gate import Verdict
from lodestore.online import Status
from lodestore.project import Project, open_project
from lodestore.publishing import publish
from lodestore.releases import Slot
from lodestore.rollout import decide
from lodestore.status import status

MakeProject = Callable[..., Path]
LAST, MEAN = "user_activity:last_query_embedding", "user_activity:interaction_history_embedding"
SLOT = Slot("embedding", "interaction")
KEEPING = "\n[context]\nlog_queries = true\n[gate]\nmin_queries = 6\n"
QUESTIONS = ("where are trains booked", "when does the dishwasher run")


def ingest(folder: Path) -> Project:
    project = open_project(folder)
    project.pipeline.read_documents()
    project.pipeline.add_templates()
    project.pipeline.cut_chunks()
    project.pipeline.fill_maintained()
    project.pipeline.promote_first()
    return project


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    """A project with something live, whose questions are kept as texts."""
    place = make_project(KEEPING)
    ingest(place)
    return place


def declaring(folder: Path, line: str) -> Project:
    """The project once the line stands among its embedding features."""
    file = folder / "lodestore.toml"
    name = line.split(maxsplit=1)[0]
    kept = [one for one in file.read_text().splitlines() if not one.startswith(f"{name} =")]
    place = kept.index("[embedding.features]") + 1
    file.write_text("\n".join([*kept[:place], line, *kept[place:]]), encoding="utf-8")
    return open_project(folder)


def ask(project: Project, *texts: str, user: str = "ada") -> None:
    for text in texts:
        project.store.context(text, user_id=user)
    project.features.drain()


def read(project: Project, ref: str = LAST, user: str = "ada") -> tuple[Any, Status]:
    answer = project.store.online([ref], {"user_id": [user]})
    return answer.columns[ref][0], answer.statuses[ref][0]


def changed(folder: Path, label: str, feature: str = "interaction") -> Project:
    """The declared model was built, judged and promoted as the job does it."""
    project = declaring(folder, f'{feature} = "{label}"')
    version = project.changes.candidate(feature)
    project.pipeline.fill(version)
    report = project.changes.gate(version)
    assert report.verdict is Verdict.PASSED, report.markdown()
    assert "live since" in project.changes.promote_judged(version, report.verdict, author="test")
    return open_project(folder)


def embedded(project: Project, label: str, text: str, feature: str = "interaction") -> np.ndarray:
    version = project.versions.find(feature, label)
    return project.embedder(version).embed_queries([text])[0]


def test_without_a_line_of_its_own_questions_follow_the_model_of_the_content(folder: Path) -> None:
    project = open_project(folder)

    ask(project, QUESTIONS[0])

    value, status_ = read(project)
    assert status_ is Status.PRESENT
    assert np.allclose(value, embedded(project, "words@1", QUESTIONS[0], "content"), atol=1e-5)
    assert "interaction" not in project.releases.live().embeddings


def test_a_line_asks_for_one_run_and_its_version_goes_live_with_no_gap(folder: Path) -> None:
    ask(open_project(folder), *QUESTIONS)
    project = declaring(folder, 'interaction = "glove@1"')

    (launch,) = decide(project.changes.state()).launches
    version = project.changes.candidate("interaction")
    plan = project.changes.plan(version)
    filled = project.pipeline.fill(version)
    before = read(project)
    report = project.changes.gate(version)
    project.changes.promote_judged(version, report.verdict, author="test")

    after = open_project(folder)
    assert launch.version == version
    assert version.key == "interaction__glove__1__events"
    assert (plan.rows, plan.to_embed, plan.cached, plan.lost) == (2, 2, 0, 0)
    assert plan.cpu_seconds > 0
    assert (filled.rows, filled.embedded) == (2, 2)
    assert len(before[0]) == 256  # the live version answered all the while
    assert report.reasons == ("no golden set applies to it: health is enough",)
    last, mean = read(after), read(after, MEAN)
    assert np.allclose(last[0], embedded(after, "glove@1", QUESTIONS[1]), atol=1e-5)
    assert np.allclose(mean[0], np.mean([embedded(after, "glove@1", one) for one in QUESTIONS], axis=0), atol=1e-3)
    assert after.releases.live().embeddings["content"].startswith("content__words")
    assert decide(after.changes.state()).launches == ()


def test_a_new_question_is_embedded_by_the_space_s_own_model(folder: Path) -> None:
    project = changed(folder, "glove@1")

    ask(project, QUESTIONS[0])

    value, _ = read(project)
    assert np.allclose(value, embedded(project, "glove@1", QUESTIONS[0]), atol=1e-5)
    assert project.pipeline.gap(project.versions.find("interaction", "glove@1")).have == 1


def test_going_back_to_a_model_copies_its_vectors_and_calls_nothing(folder: Path) -> None:
    ask(open_project(folder), *QUESTIONS)
    changed(folder, "glove@1")
    project = declaring(folder, 'interaction = "words@1"')
    version = project.changes.candidate("interaction")

    plan = project.changes.plan(version)
    filled = project.pipeline.fill(version)

    assert (plan.to_embed, plan.cached) == (0, 2)  # content's words@1 noted them under the same fingerprint
    assert (filled.embedded, filled.reused) == (0, 2)
    assert project.pipeline.fill(version).touched == 0


def test_a_later_version_is_judged_by_its_health_and_rolled_back_alone(folder: Path) -> None:
    ask(open_project(folder), *QUESTIONS)
    changed(folder, "glove@1")
    project = changed(folder, "words@1")
    ask(project, "what does a permit cost")
    publish(project)
    content = project.releases.live().embeddings["content"]

    release = project.changes.rollback(SLOT, author="me", reason="odd neighbours")

    after = open_project(folder)
    value, _ = read(after)
    assert release.embeddings["interaction"] == "interaction__glove__1__events"
    assert release.embeddings["content"] == content
    assert np.allclose(value, embedded(after, "glove@1", "what does a permit cost"), atol=1e-5)
    assert [decide(after.changes.state()).launches for _ in range(20)] == [()] * 20
    with pytest.raises(HeldError, match="odd neighbours"):
        after.changes.promote(after.versions.find("interaction", "words@1"), author="sensor")


def test_the_first_version_rolls_back_to_following_the_content(folder: Path) -> None:
    ask(open_project(folder), *QUESTIONS)
    project = changed(folder, "glove@1")

    release = project.changes.rollback(SLOT, author="me")

    after = open_project(folder)
    value, status_ = read(after)
    assert "interaction" not in release.embeddings
    assert (len(value), status_) == (256, Status.PRESENT)
    assert decide(after.changes.state()).launches == ()


def test_what_is_asked_during_the_build_is_in_the_version_before_it_goes_live(folder: Path) -> None:
    project = declaring(folder, 'interaction = "glove@1"')
    version = project.changes.candidate("interaction")
    project.pipeline.fill(version)
    open_project(folder).store.context(QUESTIONS[0], user_id="ada")  # still in the journal

    project.changes.promote(version, author="test")

    assert read(open_project(folder))[1] is Status.PRESENT


def test_without_texts_the_plan_counts_what_is_lost_and_the_values_say_other_version(make_project: MakeProject) -> None:
    folder = make_project()
    ask(ingest(folder), *QUESTIONS)
    project = declaring(folder, 'interaction = "glove@1"')

    plan = project.changes.plan(project.changes.candidate("interaction"))

    after = changed(folder, "glove@1")
    assert (plan.rows, plan.to_embed, plan.lost) == (0, 0, 2)
    assert read(after) == (None, Status.OTHER_VERSION)
    ask(after, QUESTIONS[0])
    assert read(after)[1] is Status.PRESENT


def test_a_new_content_model_makes_the_questions_that_follow_it_again_before_it_goes_live(folder: Path) -> None:
    ask(open_project(folder), *QUESTIONS)
    project = declaring(folder, 'content = "glove@1"')
    version = project.changes.candidate("content")
    plan = project.changes.plan(version)
    project.pipeline.fill(version)
    project.changes.gate(version)

    project.changes.promote(version, author="me", by_name=True, accept_loss=True, reason="a test")

    after = open_project(folder)
    ref = "document_features:content_embedding"
    document = after.store.online([ref], {"document_id": ["handbook/travel.md"]})
    assert (plan.questions, plan.lost) == (2, 0)
    assert np.allclose(read(after)[0], embedded(after, "glove@1", QUESTIONS[1], "content"), atol=1e-5)
    assert document.statuses[ref] == [Status.PRESENT]
    assert len(document.columns[ref][0]) == 50


def test_a_trial_says_that_golden_queries_do_not_apply(folder: Path) -> None:
    project = declaring(folder, 'interaction = "glove@1"')

    with pytest.raises(GoldenError, match="lodestore models plan"):
        project.changes.trial(project.changes.candidate("interaction"))


def test_a_version_that_is_dropped_loses_no_text_and_cannot_be_rolled_back_to(folder: Path) -> None:
    ask(open_project(folder), QUESTIONS[0])
    first = changed(folder, "glove@1").versions.find("interaction", "glove@1")
    ask(open_project(folder), QUESTIONS[1])
    project = changed(folder, "words@1")
    with pytest.raises(InUseError, match="where a rollback of interaction goes"):
        project.changes.drop(first)
    third = '\n[[embedding.models]]\nname = "words"\nversion = "2"\nsource = "package:wordllama"\nmax_tokens = 64\n'
    (folder / "lodestore.toml").write_text((folder / "lodestore.toml").read_text() + third)
    project = changed(folder, "words@2")

    project.changes.drop(first)

    back = project.releases.generation(2)
    assert back.embeddings["interaction"] == first.key
    with pytest.raises(RetentionError, match="was dropped"):
        project.changes.restore(back, author="me")
    assert project.pipeline.gap(project.versions.find("interaction", "words@2")).have == 2
    assert project.changes.plan(project.changes.candidate("interaction", "glove@1")).to_embed == 2


def test_the_state_of_the_project_shows_the_slot(folder: Path) -> None:
    ask(open_project(folder), *QUESTIONS)
    project = changed(folder, "glove@1")

    told = status(project)

    assert told.release["embeddings"]["interaction"] == "glove@1"
    mine = [one for one in told.versions if one["feature"] == "interaction"]
    assert [(one["version"], one["state"], one["rows"]) for one in mine] == [("glove@1", "live", 2)]


def test_in_a_new_project_the_first_ingestion_makes_the_slot_live_too(make_project: MakeProject) -> None:
    folder = make_project()
    declaring(folder, 'interaction = "glove@1"')

    project = ingest(folder)

    assert project.releases.live().embeddings["interaction"] == "interaction__glove__1__events"
    assert project.releases.live().generation == 1


def test_a_name_that_no_view_knows_is_told_with_the_nearest(folder: Path) -> None:
    project = declaring(folder, 'interacton = "glove@1"')

    with pytest.raises(DeclarationError, match="did you mean 'interaction'"):
        project.changes.state()


def test_a_question_is_answered_though_the_space_s_own_model_does_not_load(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = changed(folder, "glove@1")
    store = project.store
    broken = project.versions.find("interaction", "glove@1")

    class Broken:
        fingerprint, dimension = broken.fingerprint, broken.dimension

        def embed_queries(self, texts: list[str]) -> np.ndarray:
            return np.full((len(texts), self.dimension), np.nan)

    project._embedders[broken.fingerprint] = Broken()  # type: ignore[assignment]
    made = store.context(QUESTIONS[0], user_id="ada")

    assert made.hits
    assert "a question is missing from interaction" in caplog.text
