"""The catalog: what the modules of a project declare, and what cannot be declared together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lodestore.catalog import Catalog, catalog_of, collect
from lodestore.errors import DeclarationError, UnknownFeatureError, UnknownServiceError, UnknownViewError
from lodestore.spec import Entity, FeatureRef, FeatureService, FeatureView, integer, on_demand, text

user = Entity("user", key="user_id")


def view(name: str = "profile", version: int = 1, entity: Entity = user, **features: object) -> FeatureView:
    return FeatureView(name, entity=entity, version=version, features=features or {"age": integer()})  # type: ignore[arg-type]


@on_demand(reads=(FeatureRef("profile", "age"),), features={"next_age": integer()}, version=2)
def older(age: int | None) -> dict[str, object]:
    """One year on."""
    return {"next_age": (age or 0) + 1}


def test_the_highest_version_of_a_view_is_the_latest() -> None:
    catalog = catalog_of([view(version=2), view(version=10), view(version=9), "something else", None])

    assert catalog.latest["profile"].version == 10
    assert catalog.view("profile").version == 10
    assert catalog.view("profile", 2).version == 2


def test_an_empty_catalog_has_nothing() -> None:
    assert dict(Catalog().latest) == {}
    with pytest.raises(UnknownViewError, match="none is known yet"):
        Catalog().view("profile")


@pytest.mark.parametrize(
    ("ref", "error", "told"),
    [
        ("profil:age", UnknownViewError, "did you mean 'profile'"),
        ("profile:agee", UnknownFeatureError, "did you mean 'profile:age'"),
        ("profile@3:age", UnknownViewError, "unknown feature view 'profile@3'; did you mean 'profile@1'"),
        ("oldr:next_age", UnknownViewError, "did you mean 'older'"),
        ("older:next_aeg", UnknownFeatureError, "did you mean 'older:next_age'"),
        ("older@1:next_age", UnknownViewError, "did you mean 'older@2'"),
    ],
)
def test_an_unknown_reference_names_the_nearest(ref: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        catalog_of([view(), older]).check(FeatureRef.parse(ref))


@pytest.mark.parametrize("ref", ["profile:age", "profile@1:age", "older:next_age", "older@2:next_age"])
def test_a_declared_reference_passes(ref: str) -> None:
    catalog_of([view(), older]).check(FeatureRef.parse(ref))


def test_services_are_found_by_name() -> None:
    service = FeatureService("app", [FeatureRef("profile", "age")])
    catalog = catalog_of([view(), service])

    assert catalog.service("app") is service
    with pytest.raises(UnknownServiceError, match=r"unknown feature service 'ap'; did you mean 'app'"):
        catalog.service("ap")


def test_an_equal_declaration_may_be_met_twice() -> None:
    assert len(catalog_of([view(), view(), older, older]).views) == 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([view(), view(age=text())], "feature view profile@1 is declared twice with different contents"),
        ([view(), older, replace(older, version=3)], "on-demand view older is declared twice"),
        (
            [view(), FeatureService("a", ["profile:age"]), FeatureService("a", ["profile:age"], version=2)],
            "feature service a is declared twice",
        ),
        ([view(), view("older"), older], "older: a view and an on-demand view share the name"),
        ([view(), view("other", entity=Entity("user", key="uid"))], "entity user .of view other. is declared twice"),
        ([view(), older, replace(older, name="older_still", reads=(FeatureRef("older", "next_age"),))], "stored features only"),
    ],
)  # fmt: skip
def test_declarations_that_contradict_each_other_are_refused(values: list[object], told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        catalog_of(values)


@pytest.mark.parametrize("values", [[older], [FeatureService("app", ["profile:age"])]])
def test_what_reads_a_feature_that_nobody_declared_is_refused(values: list[object]) -> None:
    with pytest.raises(UnknownViewError, match="profile"):
        catalog_of(values)


def test_a_catalog_cannot_be_changed() -> None:
    catalog = catalog_of([view()])
    with pytest.raises(TypeError):
        catalog.views["profile", 2] = view(version=2)  # type: ignore[index]
    with pytest.raises(TypeError):
        catalog.latest["other"] = view()  # type: ignore[index]


# Modules

HEAD = "from lodestore import spec\nuser = spec.Entity('user')\n"
VIEW = "{0} = spec.FeatureView('{0}', entity=user, features={{'age': spec.integer()}})\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module into a package of its own for each test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def written(name: str, content: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        for one in set(sys.modules) - before:
            monkeypatch.delitem(sys.modules, one)

    return written


def test_modules_are_collected_with_their_submodules(write: Callable[[str, str], None]) -> None:
    write("declared_a/__init__.py", HEAD + VIEW.format("one"))
    write(
        "declared_a/deep/__init__.py",
        "from declared_a import user, one\nfrom lodestore import spec\n" + VIEW.format("two"),
    )

    assert sorted(collect(["declared_a", "declared_a.deep"]).latest) == ["one", "two"]


def test_no_modules_are_an_empty_catalog() -> None:
    assert dict(collect([]).views) == {}


def test_a_module_that_is_missing_is_named_with_where_it_was_looked_for() -> None:
    with pytest.raises(DeclarationError, match=r"features\.modules: no_such_module cannot be imported.*folder of"):
        collect(["no_such_module"])


def test_a_module_that_breaks_is_named_with_its_error(write: Callable[[str, str], None]) -> None:
    write("declared_b.py", "1 / 0")
    with pytest.raises(DeclarationError, match="declared_b cannot be imported: ZeroDivisionError"):
        collect(["declared_b"])


def test_a_wrong_declaration_in_a_module_keeps_its_own_words(write: Callable[[str, str], None]) -> None:
    write("declared_c.py", "from lodestore import spec\nspec.Entity('A B')")
    with pytest.raises(DeclarationError, match=r"^entity 'A B'"):
        collect(["declared_c"])


@pytest.mark.parametrize("name", ["documents", "release", "ingest"])
def test_a_view_may_not_be_called_like_an_asset_or_a_job_of_ours(name):
    with pytest.raises(DeclarationError, match=name):
        catalog_of([FeatureView(name, entity=Entity("user", key="user_id"), features={"age": integer()})])


def test_a_view_is_named_with_or_without_its_version():
    user = Entity("user", key="user_id")
    old, new = (FeatureView("profile", entity=user, version=one, features={"age": integer()}) for one in (1, 2))
    catalog = catalog_of([old, new])

    assert (catalog.pinned("profile"), catalog.pinned("profile@1")) == (new, old)
    for wrong in ("profile@v2", "profile@", "profile@\u00b2", "profile@3", "nobody"):
        with pytest.raises(UnknownViewError):
            catalog.pinned(wrong)


@pytest.mark.parametrize("name", ["class", "type", "config"])
def test_a_view_has_no_name_that_dagster_keeps_for_itself(name: str) -> None:
    with pytest.raises(DeclarationError, match=f"feature view {name}: Dagster"):
        catalog_of([view(name)])
