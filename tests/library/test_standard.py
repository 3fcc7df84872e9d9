"""The standard views: what they declare, and what they make of what they read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lodestore import standard
from lodestore.catalog import catalog_of
from lodestore.features import Features, Inputs
from lodestore.logs import Logs
from lodestore.releases import Release, Slot
from lodestore.spec import Kind
from lodestore.tables import DOCUMENTS
from lodestore.templates import Templates
from lodestore.testing import FrozenClock, MemoryOnlineStore, MemoryStore

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
NAMES = {
    "user_profile": "user_preferences expertise_level preferred_language account_age_days signed_up_at",
    "user_activity": "last_query_embedding interaction_history_embedding session_queries_count last_active",
    "document_features": (
        "title category author metadata summary word_count access_count content_embedding title_embedding"
    ),
    "prompt_templates": "template_content variables model_family version content_hash performance_metrics",
    "template_performance": (
        "renders outcomes judged accepted acceptance_rate acceptance_low acceptance_high rating latency_ms tokens"
    ),
}


def test_the_views_declare_the_documented_features() -> None:
    catalog = catalog_of(vars(standard).values())

    assert {name: " ".join(view.features) for name, view in catalog.latest.items()} == NAMES
    assert list(catalog.on_demand["personalized"].features) == ["personalized_context", "expertise_modifier"]
    assert list(catalog.services) == ["assistant"]
    assert all(feature.kind in Kind for view in catalog.latest.values() for feature in view.features.values())


@pytest.mark.parametrize(
    ("level", "opening", "modifier"),
    [
        ("beginner", "Explain in simple terms: what is a GIL?", 1.5),
        ("intermediate", "Explain in detail: what is a GIL?", 1.0),
        ("expert", "Give a technical deep dive on: what is a GIL?", 0.8),
        (None, "what is a GIL?", 1.0),
        ("guru", "what is a GIL?", 1.0),
    ],
)
def test_a_question_is_put_at_the_level_of_its_user(level: str | None, opening: str, modifier: float) -> None:
    made = standard.personalized(level, "what is a GIL?")
    assert made == {"personalized_context": opening, "expertise_modifier": modifier}


@pytest.mark.parametrize("level", [None, "expert"])
def test_where_nothing_is_asked_there_is_no_question(level: str | None) -> None:
    assert standard.personalized(level, None)["personalized_context"] is None


def test_every_level_has_an_instruction() -> None:
    levels = standard.user_profile.feature("expertise_level").categories
    assert set(standard.INSTRUCTIONS) == set(levels)


def features(store: MemoryStore) -> Features:
    clock = FrozenClock(NOON)
    return Features(catalog_of(vars(standard).values()), store, MemoryOnlineStore(), Logs(store, clock), clock)


def test_document_features_are_those_of_the_live_documents() -> None:
    store = MemoryStore()
    used = features(store)
    store.ensure("documents", DOCUMENTS, key="document_id")
    row = dict.fromkeys(DOCUMENTS.names) | {
        "document_id": "faq/1",
        "title": "One",
        "word_count": 3,
        "ingested_at": NOON,
    }
    store.insert("documents", DOCUMENTS.empty_table().from_pylist([row], DOCUMENTS), key="document_id")
    done = used.compute(standard.document_features, Inputs(store))
    again = used.compute(standard.document_features, Inputs(store))
    used.materialize(standard.document_features)
    answer = used.online(
        ["document_features:title", "document_features:word_count", "document_features:summary"],
        {"document_id": ["faq/1"]},
    )

    assert (done.added, done.problems, again.added) == (1, (), 0)
    assert [column[0] for column in answer.columns.values()] == ["faq/1", "One", 3, None]


def test_without_documents_or_templates_there_are_no_rows() -> None:
    store = MemoryStore()
    used = features(store)

    assert used.compute(standard.document_features, Inputs(store)).read == 0
    assert used.compute(standard.prompt_templates, Inputs(store)).read == 0


def test_template_features_are_those_of_the_live_versions() -> None:
    store = MemoryStore()
    used = features(store)
    registry = Templates(Logs(store, FrozenClock(NOON)))
    from lodestore.prompts import parse

    registry.add(
        [parse("---\nid: hello\nversion: 1.0.0\nfamily: general\nvariables:\n  name: {}\n---\nHi {name}\n", origin="t")]
    )
    live = registry.as_features(Release(1, {Slot("template", "hello"): {"1.0.0": 1.0}}, at=NOON))
    done = used.compute(standard.prompt_templates, Inputs(store, live))
    used.materialize(standard.prompt_templates)
    refs = ["prompt_templates:version", "prompt_templates:variables", "prompt_templates:performance_metrics"]
    answer = used.online(refs, {"template_id": ["hello"]})

    assert (done.added, done.problems) == (1, ())
    assert answer.columns["prompt_templates:version"] == ["1.0.0"]
    assert answer.columns["prompt_templates:variables"][0]["name"]["required"] is True
    assert answer.columns["prompt_templates:performance_metrics"] == [None]
