"""Declarations: what can be declared, and what the errors say about the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.errors import DeclarationError, UnknownFeatureError
from lodestore.spec import (
    Entity,
    Feature,
    FeatureRef,
    FeatureService,
    FeatureView,
    Kind,
    Source,
    boolean,
    category,
    checked_name,
    embedding,
    integer,
    list_of,
    number,
    on_demand,
    prompt,
    struct,
    text,
    timestamp,
)

user = Entity("user", key="user_id")
view = partial(FeatureView, "profile", entity=user)
AGE = {"age": integer()}


def test_the_defaults_are_the_documented_ones() -> None:
    made = view(features=AGE)

    assert (made.version, made.source, made.owner, made.ttl, made.fresh_within) == (1, Source.BATCH, None, None, None)
    assert view(features=AGE, ttl=timedelta(hours=1)).fresh_within == timedelta(hours=1)
    assert Entity("user").keys == ("user_id",)
    assert user.types == ("string",)


def test_every_constructor_gives_its_kind_and_takes_doc_and_pii() -> None:
    made: dict[Kind, Callable[..., Feature]] = {
        Kind.CATEGORY: partial(category, "a"),
        Kind.INTEGER: integer,
        Kind.NUMBER: number,
        Kind.BOOLEAN: boolean,
        Kind.TEXT: text,
        Kind.TIMESTAMP: timestamp,
        Kind.STRUCT: struct,
        Kind.LIST: partial(list_of, text()),
        Kind.EMBEDDING: partial(embedding, "content"),
    }
    for kind, constructor in made.items():
        feature = constructor(doc="why", pii=True)
        assert (feature.kind, feature.doc, feature.pii) == (kind, "why", True)
        assert feature.without_prose() == constructor()
    assert prompt(doc="why").kind is Kind.PROMPT


def test_a_view_names_its_features_and_sets_vectors_apart() -> None:
    made = view(features={"age": integer(), "taste": embedding("content")})

    assert made.feature("age").name == "age"
    assert [one.name for one in made.stored] == ["age"]
    assert [one.name for one in made.embeddings] == ["taste"]
    assert made["age"] == FeatureRef("profile", "age")
    with pytest.raises(UnknownFeatureError, match="did you mean 'profile:age'"):
        made["aeg"]


def test_declarations_cannot_be_changed() -> None:
    made = view(features=AGE)
    with pytest.raises(FrozenInstanceError):
        made.version = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        made.features["x"] = text()  # type: ignore[index]


@pytest.mark.parametrize(
    ("declare", "told"),
    [
        (lambda: Entity("A"), "entity 'A': a name has small letters"),
        (lambda: Entity("user", key="user-id"), "key 'user-id'"),
        (lambda: Entity("user", key=("a", "a")), "give different names"),
        (lambda: Entity("user", key="event_id"), "none of"),
        (lambda: Entity("user", key=("a", "b"), type=("string",)), "2 keys need as many types"),
        (lambda: Entity("user", type="float"), "out of"),  # type: ignore[arg-type]
        (lambda: Entity("user", key=("a", "b")).key, "has the keys a, b; name one"),
        (category, "one or more different values"),
        (lambda: category("a", "a"), "one or more different values"),
        (lambda: category(["a", "b"]), "each an argument of its own"),  # type: ignore[arg-type]
        (lambda: integer(minimum=2, maximum=1), "minimum 2 lies above maximum 1"),
        (lambda: number(maximum=float("nan")), "not a finite number"),
        (lambda: text(max_length=0), "max_length 0 is below 1"),
        (lambda: list_of(struct()), "items are plain values"),
        (lambda: embedding("A"), "embedding space 'A'"),
        (lambda: FeatureView("a__b", entity=user, features=AGE), "feature view 'a__b'"),
        (lambda: view(features={}), "has no features"),
        (lambda: view(features={"user_id": text()}), "name of a key or of a reserved column"),
        (lambda: view(features={"ingested_at": text()}), "name of a key or of a reserved column"),
        (lambda: view(features={"age": int}), "is type; write integer"),
        (lambda: view(features=AGE, version=0), "version 0 is not a whole number from 1 on"),
        (lambda: view(features=AGE, version="1"), "version '1' is not a whole number"),
        (lambda: view(features=AGE, owner="me"), "neither team:NAME nor a mail address"),
        (lambda: view(features=AGE, ttl=timedelta(0)), "ttl 0:00:00 is not a positive time"),
        (lambda: view(features=AGE, fresh_within=-timedelta(1)), "fresh_within"),
        (lambda: view(features=AGE, source="strem"), "source 'strem'; did you mean 'streaming'"),
        (lambda: view(features=AGE, source="zzz"), "source 'zzz'; known: batch, external"),
        (lambda: view(features=AGE, upstream="dbt/users"), "write upstream=.'dbt/users',."),
        (lambda: FeatureRef.parse("age"), "write VIEW:FEATURE"),
        (lambda: FeatureRef.parse(5), "write VIEW:FEATURE"),  # type: ignore[arg-type]
        (lambda: FeatureService("A", []), "feature service 'A'"),
        (lambda: FeatureService("a", ["age"]), "write VIEW:FEATURE"),
    ],
)
def test_what_cannot_be_declared_is_told_why(declare: Callable[[], object], told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        declare()


def test_an_on_demand_view_is_its_function_with_declared_parameters() -> None:
    made = view(features=AGE)

    @on_demand(reads=(made["age"],), inputs={"extra": integer()}, features={"total": integer()})
    def summed(age: int, *, extra: int) -> dict[str, object]:
        """The sum."""
        return {"total": age + extra}

    assert summed(1, extra=2) == {"total": 3}
    assert (summed.name, summed.doc) == ("summed", "The sum.")
    assert summed["total"] == FeatureRef("summed", "total")
    with pytest.raises(UnknownFeatureError, match="did you mean 'summed:total'"):
        summed["totl"]


def one_parameter(age: int) -> dict[str, object]:
    return {"total": age}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "takes .'age'., but declares .."),
        ({"inputs": {"aeg": integer()}}, "takes .'age'., but declares .'aeg'."),
        ({"reads": (FeatureRef("a", "age"), FeatureRef("b", "age"))}, "reads age twice"),
        ({"reads": (FeatureRef("a", "age"),), "inputs": {"age": integer()}}, "reads age twice"),
        ({"inputs": {"age": integer()}, "features": {"age": integer()}}, "name of a key or of a reserved column"),
        ({"inputs": {"age": integer()}, "features": {}}, "has no features"),
    ],
)
def test_an_on_demand_view_whose_parts_do_not_fit_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        on_demand(**{"features": {"total": integer()}, **options})(one_parameter)


def test_a_service_takes_views_references_and_texts_once_each() -> None:
    made = view(features={"age": integer(), "level": text()})
    service = FeatureService("app", [made["age"], made, "profile:level", "profile@2:age"])

    assert [str(one) for one in service.features] == ["profile:age", "profile:level", "profile@2:age"]


names = st.from_regex(r"[a-z0-9]+(_[a-z0-9]+)*", fullmatch=True)


@given(names, names, st.none() | st.integers(1, 999))
@settings(max_examples=50, deadline=None)
def test_a_reference_is_read_back_from_its_text(view_name: str, feature: str, version: int | None) -> None:
    ref = FeatureRef(view_name, feature, version)
    assert FeatureRef.parse(str(ref)) == ref


@given(st.text())
def test_a_name_is_either_fit_for_a_table_or_refused(name: str) -> None:
    try:
        checked = checked_name(name, "view")
    except DeclarationError:
        return
    assert checked == name
    assert "__" not in name
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
