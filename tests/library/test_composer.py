"""A context is made by one snapshot, for one user, by the settings."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from lodestore.answer import answer
from lodestore.composer import Composer, Request
from lodestore.context import ContextOptions, turns
from lodestore.doctor import examine
from lodestore.errors import DeclarationError, ModelError, RequestError, SettingsError, StoreError, UnknownNameError
from lodestore.project import Project, open_project
from lodestore.promotion import activate
from lodestore.rerank import reranker_of
from lodestore.standard import INSTRUCTIONS

SETTINGS = """
[[documents]]
name = "handbook"
uri = "docs.jsonl"
columns = { id = "id", title = "title", text = "text", category = "category" }

[[events]]
name = "users"
view = "user_profile"
uri = "users.jsonl"

[features]
modules = ["lodestore.standard", "own_topics"]

[embedding.features]
content = "words@1"

[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"
"""
TOPICS = """
from lodestore import FeatureView, list_of, text
from lodestore.standard import user

topics = FeatureView("topics", entity=user, features={"categories": list_of(text()), "mail": text(pii=True)})
"""
REFUND = "A refund is paid back after five days to the card that was used."
DOCUMENTS = [
    {"id": "a", "title": "Refunds", "category": "money", "text": REFUND},
    {"id": "b", "title": "Refunds again", "category": "money", "text": REFUND},
    {"id": "c", "title": "Invoices", "category": "money", "text": "Invoices list refunds in red at their end."},
    {"id": "d", "title": "Travel", "category": "office", "text": "A cancelled flight: the agency pays the refund."},
    {"id": "e", "title": "Kitchen", "category": "office", "text": "Coffee beans are bought on Fridays."},
]
QUESTION = "when is a refund paid?"
CHAT = """---
id: plain_chat
version: 1.0.0
variables: [context, question, instruction]
---
## system

{instruction} {context}

## user

{question}
"""
NEXT = "---\nid: qa_basic\nversion: 1.1.0\nvariables: [context, question]\n---\nNEW {context}\n{question}\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A project with a first release, built once."""
    folder = tmp_path_factory.mktemp("composer") / "project"
    folder.mkdir()
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)), encoding="utf-8")
    at = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    rows = [
        {"user_id": "ada", "event_timestamp": at, "expertise_level": "expert"},
        {"user_id": "ben", "event_timestamp": at, "expertise_level": "beginner", "preferred_language": "fr"},
    ]
    (folder / "users.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "lodestore.toml").write_text(SETTINGS, encoding="utf-8")
    (folder / "own_topics.py").write_text(TOPICS, encoding="utf-8")
    shutil.copytree(Path(__file__).parents[2] / "templates", folder / "templates")
    (folder / "templates" / "plain_chat.md").write_text(CHAT, encoding="utf-8")
    project = open_project(folder)
    steps = project.pipeline
    for step in (
        steps.read_documents,
        steps.add_templates,
        steps.cut_chunks,
        steps.fill_maintained,
        steps.promote_first,
    ):
        step()
    for view in steps.views():
        steps.record(view)
        steps.publish(view)
    return folder


@pytest.fixture
def project(original, tmp_path):
    """A copy of it that a test may change."""
    return open_project(shutil.copytree(original, tmp_path / "project"))


def with_options(project, **options):
    return Project(replace(project.settings, context=ContextOptions(**options)))


def documents(made):
    return [hit.document_id.removeprefix("handbook/") for hit in made.hits]


def test_a_beginner_and_an_expert_get_another_prompt_from_the_same_chunks(project):
    beginner = project.store.context(QUESTION, user_id="ben")
    expert = project.store.context(QUESTION, user_id="ada")

    assert beginner.hits == expert.hits
    assert INSTRUCTIONS["beginner"] in beginner.prompt
    assert "Answer in the language fr." in beginner.prompt
    assert INSTRUCTIONS["expert"] in expert.prompt
    assert (beginner.user_known, expert.user_known) == (True, True)


def test_a_template_without_a_place_for_the_instruction_is_opened_by_it_whatever_it_is_for(project):
    values = {"language": "python", "task": "sort", "requirements": "stable"}

    plain = project.store.context(QUESTION, user_id="ben")
    code = project.store.context(QUESTION, user_id="ada", template="code_generation", variables=values)

    assert plain.prompt.startswith(f"{INSTRUCTIONS['beginner']} Answer in the language fr.\n\nAnswer the question")
    assert "Context: [1] " in plain.prompt
    assert code.messages[0] == {"role": "system", "content": INSTRUCTIONS["expert"]}
    assert code.messages[1]["content"].startswith("You are an experienced programmer.")
    assert "\n\n".join(one["content"] for one in code.messages) == code.prompt


def test_an_unknown_user_gets_the_middle_and_is_marked(project):
    made = project.store.context(QUESTION, user_id="nobody")

    assert not made.user_known
    assert INSTRUCTIONS["intermediate"] in made.prompt
    assert made.features["user_profile:expertise_level"] is None


def test_every_citation_maps_to_its_chunk_document_uri_and_span(project):
    made = project.store.context(QUESTION, k=3)

    for one in made.to_json()["hits"]:
        assert f"[{one['n']}] {one['title']}\n{one['text'].strip()}" in made.prompt
        assert one["chunk_id"]
        assert one["document_id"].startswith("handbook/")
        assert one["uri"]
        assert one["end"] - one["start"] == len(one["text"])
    assert [one["n"] for one in made.to_json()["hits"]] == [1, 2, 3]


class Unread:
    """A store whose tables cannot be read by place, or whose files are taken away while they are."""

    def __init__(self, store, broken=None):
        self.nearest, self.matching = store.nearest, store.matching
        if broken is not None:
            self.reading = lambda _: broken


class Broken:
    """A reading of files that are gone."""

    def nearest(self, *_, **__):
        message = "Not found"
        raise StoreError(message)

    matching = take = nearest


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
@pytest.mark.parametrize("diversity", [0.0, 0.5])
@pytest.mark.parametrize("broken", [None, Broken()])
def test_a_context_is_the_same_from_a_store_that_cannot_be_read_by_place(project, mode, diversity, broken):
    composer = with_options(project, diversity=diversity, k=3).store.composer
    live, request = project.live(), Request(QUESTION, "ada", mode=mode)

    quick = composer.compose(live, request, context_id="c")
    plain = composer.compose(replace(live, vectors=Unread(live.vectors, broken)), request, context_id="c")

    assert quick.context.hits == plain.context.hits
    assert len(quick.context.hits) == 3
    assert (quick.context.prompt, quick.context.messages) == (plain.context.prompt, plain.context.messages)
    assert mode == "text" or np.array_equal(quick.vector, plain.vector)


def test_the_same_thing_is_not_cited_twice_while_something_else_is_left(project):
    plain = with_options(project, diversity=0.0, k=2).store.context(QUESTION)
    varied = with_options(project, diversity=0.5, k=2).store.context(QUESTION)

    assert set(documents(plain)) == {"a", "b"}
    assert len({"a", "b"} & set(documents(varied))) == 1


def test_a_reranker_decides_the_order_and_reads_question_and_text(project):
    class LongestFirst:
        asked = ()

        def score(self, query, texts):
            self.asked = (query, len(texts))
            return np.array([float(len(text)) for text in texts])

    reranker = LongestFirst()
    composer = Composer(
        features=lambda: project.features,
        templates=project.templates,
        options=ContextOptions(k=2, diversity=0.0),
        reranker=reranker,
    )

    made = composer.compose(project.live(), Request(QUESTION), context_id="c").context

    lengths = [len(hit.text) for hit in made.hits]
    assert reranker.asked == (QUESTION, len(DOCUMENTS))
    assert lengths == sorted((len(one["text"]) for one in DOCUMENTS), reverse=True)[:2]
    assert "rerank" in made.timings_ms


def test_a_reranker_that_is_no_folder_or_no_path_is_named(tmp_path):
    with pytest.raises(SettingsError, match="write path:FOLDER"):
        reranker_of("hub:some/model", root=tmp_path)
    with pytest.raises(ModelError, match="is no folder"):
        reranker_of("path:nowhere", root=tmp_path).score("q", ["t"])
    assert reranker_of(None, root=tmp_path) is None


def test_a_filter_follows_the_users_features_and_narrows_what_the_caller_asks(project):
    chosen = with_options(project, filters={"category": "topics:categories"})
    row = {"user_id": "ada", "event_timestamp": project.clock(), "categories": ["office"], "mail": "ada@example.org"}
    chosen.store.push("topics", [row])

    mine = chosen.store.context(QUESTION, user_id="ada")
    other = chosen.store.context(QUESTION, user_id="ben")
    both = chosen.store.context(QUESTION, user_id="ada", filter="category = 'money'")

    assert {hit.category for hit in mine.hits} == {"office"}
    assert {hit.category for hit in other.hits} == {"office", "money"}
    assert both.hits == ()


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("topics:categoris", "did you mean 'topics:categories'"),
        ("topcs:categories", "did you mean 'topics'"),
        ("document_features:word_count", "no feature of a user"),
    ],
)
def test_a_filter_that_reads_nothing_is_an_error_and_never_no_filter(project, ref, told):
    chosen = with_options(project, filters={"category": ref})

    with pytest.raises((UnknownNameError, DeclarationError), match=told):
        chosen.store.context(QUESTION, user_id="ada")
    (found,) = [one for one in examine(chosen) if one.code == "unknown_feature"]
    assert told in found.what


def test_a_template_of_the_settings_that_nobody_has_is_told_by_doctor(project):
    (found,) = [one for one in examine(with_options(project, template="qa_bsic")) if one.code == "unknown_template"]

    assert "did you mean 'qa_basic'" in found.what


def test_what_is_personal_is_neither_in_the_log_nor_in_the_features_of_a_replay(project):
    chosen = with_options(project, filters={"author": "topics:mail"})
    row = {"user_id": "ada", "event_timestamp": project.clock(), "mail": "ada@example.org"}
    chosen.store.push("topics", [row])
    made = chosen.store.context(QUESTION, user_id="ada")
    chosen.contexts.flush()

    assert made.features["topics:mail"] == "ada@example.org"
    assert "ada@example.org" not in str(chosen.tables.read("contexts").to_pylist())


def test_earlier_turns_stand_before_the_last_message_or_in_their_own_place(project):
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]

    apart = project.store.context(QUESTION, template="plain_chat", history=history, record=False)
    inside = project.store.context(QUESTION, template="qa_chat", history=history, record=False)
    plain = project.store.context(QUESTION, history=history, record=False)

    assert [one["role"] for one in apart.messages] == ["system", "user", "assistant", "user"]
    assert [one["content"] for one in apart.messages[1:]] == ["Hello", "Hi", QUESTION]
    assert "user: Hello\nassistant: Hi" in inside.messages[0]["content"]
    assert [one["role"] for one in plain.messages] == ["system", "user", "assistant", "user"]
    assert apart.n_tokens > project.store.context(QUESTION, template="plain_chat", record=False).n_tokens


@pytest.mark.parametrize(
    "history",
    [3, [3], [{"role": "system", "content": "obey"}], [{"role": "user"}], [{"role": "user", "content": "a", "x": 1}]],
)
def test_a_turn_that_is_none_is_refused_and_so_is_a_system_message(history):
    with pytest.raises(RequestError, match="history"):
        turns(history)


def test_a_history_that_is_one_text_needs_a_place(project):
    assert "before" in project.store.context(QUESTION, template="qa_chat", history="before").prompt
    with pytest.raises(RequestError, match="has no variable history"):
        project.store.context(QUESTION, history="before")


def test_the_budget_is_counted_by_the_tokenizer_of_the_settings(project):
    folder = Path(importlib.util.find_spec("wordllama").origin).parent
    (file,) = [*folder.rglob("l2_supercat_tokenizer_config.json"), *folder.rglob("*tokenizer*.json")][:1]
    own = with_options(project, tokenizer=f"path:{file}").store.context(QUESTION, record=False)
    live = project.store.context(QUESTION, record=False)

    assert own.n_tokens > 0
    assert live.n_tokens == project.live().count_tokens([live.prompt])[0]
    with pytest.raises(SettingsError, match="is no file"):
        with_options(project, tokenizer="path:nowhere.json").store.context(QUESTION, record=False)


def test_a_context_is_made_by_the_snapshot_that_it_started_with(project):
    old = project.live()
    project.templates.add_folder(_folder(project, "next", NEXT))
    activate(project, "qa_basic", {"1.1.0": 1.0}, author="test")
    composer = project.store.composer

    before = composer.compose(old, Request(QUESTION), context_id="c").context
    after = composer.compose(project.live(), Request(QUESTION), context_id="c").context

    assert (before.release, before.template_version) == (1, "1.0.0")
    assert (after.release, after.template_version) == (2, "1.1.0")


def _folder(project, name, text):
    folder = project.settings.root / name
    folder.mkdir()
    (folder / "one.md").write_text(text, encoding="utf-8")
    return folder


def test_an_experiment_is_sticky_by_user_and_each_exposure_is_logged(project):
    project.templates.add_folder(_folder(project, "next", NEXT))
    activate(project, "qa_basic", {"1.0.0": 0.5, "1.1.0": 0.5}, author="test")
    composer, live = project.store.composer, project.live()

    def version(user, name):
        return composer.compose(live, Request("coffee", user, mode="text"), context_id=name).context.template_version

    users = {f"u{n}": version(f"u{n}", "first") for n in range(40)}
    anonymous = Counter(version(None, f"c{n}") for n in range(40))

    assert set(users.values()) == {"1.0.0", "1.1.0"}
    assert all(version(user, "later") == one for user, one in list(users.items())[:10])
    assert len(anonymous) == 2
    made = project.store.context(QUESTION, user_id="u1")
    row = project.contexts.get(made.context_id)
    assert (row.template_version, row.weights) == (users["u1"], {"1.0.0": 0.5, "1.1.0": 0.5})


def test_proportions_of_any_size_go_live_as_shares(project):
    project.templates.add_folder(_folder(project, "next", NEXT))

    made = activate(project, "qa_basic", {"1.0.0": 3, "1.1.0": 1}, author="test")

    assert made.templates["qa_basic"] == {"1.0.0": 0.75, "1.1.0": 0.25}
    context = project.store.composer.compose(
        project.live(), Request("coffee", "u1", mode="text"), context_id="c"
    ).context
    assert context.template_version in {"1.0.0", "1.1.0"}
    with pytest.raises(RequestError, match="weight above 0"):
        activate(project, "qa_basic", {"1.0.0": float("inf")}, author="test")


def test_every_step_has_its_time_and_they_add_up(project):
    made = project.store.context(QUESTION, user_id="ada").timings_ms

    steps = {name: value for name, value in made.items() if name != "total"}
    assert list(steps) == [
        "features", "embedding", "retrieval", "diversity", "reading", "packing", "prompt", "counting", "record",
    ]  # fmt: skip
    assert min(steps.values()) > 0
    assert made["total"] == pytest.approx(sum(steps.values()))


def test_a_language_model_answers_from_the_context_and_its_outcome_is_kept(project):
    class Model:
        def complete(self, messages, **_):
            from lodestore.answer import Completion

            return Completion(f"See [1]. ({len(messages)})", "stop", 12, 3.5)

    done = answer(project.store, QUESTION, Model(), user_id="ada")
    again = project.store.outcome(done.context.context_id, event_id=f"{done.context.context_id}/answer")

    assert done.cited == done.context.hits[:1]
    assert done.reported
    assert not again


@pytest.mark.parametrize(("name", "value"), [("k", 0), ("k", 2_000), ("token_budget", 0)])
def test_a_size_out_of_bounds_is_named(name, value):
    with pytest.raises(RequestError, match=f"{name} is {value}"):
        Request("q", **{name: value})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"diversity": 1.5}, "diversity is 1.5"),
        ({"candidates": 0}, "candidates is 0"),
        ({"filters": {"category": "expert"}}, "write VIEW:FEATURE"),
    ],
)
def test_a_setting_out_of_bounds_is_named(options, told):
    with pytest.raises(SettingsError, match=told):
        ContextOptions(**options)


def test_templates_are_served_as_features_with_nulls_for_unknown_ones(project):
    answer_ = project.store.online(
        ["prompt_templates:version", "prompt_templates:template_content", "prompt_templates:variables"],
        {"template_id": ["qa_basic", "nowhere", "qa_chat", "qa_basic"]},
    )

    assert answer_.columns["prompt_templates:version"] == ["1.0.0", None, "1.0.0", "1.0.0"]
    assert answer_.columns["prompt_templates:template_content"][1] is None
    assert "{question}" in answer_.columns["prompt_templates:template_content"][0]
    assert [one.value for one in answer_.statuses["prompt_templates:version"]] == [
        "PRESENT", "NOT_FOUND", "PRESENT", "PRESENT",
    ]  # fmt: skip
