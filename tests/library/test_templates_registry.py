"""Templates in the store: versions that never change, and which one is live for whom."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lodestore.errors import TemplateError, UnknownTemplateError
from lodestore.logs import Logs
from lodestore.prompts import PromptTemplate, parse
from lodestore.releases import Release, Slot
from lodestore.templates import Templates
from lodestore.testing import FrozenClock, MemoryStore

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def source(version: str = "1.0.0", text: str = "Hi {name}", name: str = "hello") -> str:
    return f"---\nid: {name}\nversion: {version}\nfamily: general\nvariables:\n  name: {{}}\n---\n{text}\n"


def template(*args: str, **kwargs: str) -> PromptTemplate:
    return parse(source(*args, **kwargs), origin="test")


def registry(store: Any = None) -> Templates:
    return Templates(Logs(store or MemoryStore(), FrozenClock(NOON)))


def live(**weights: float) -> Release:
    return Release(
        1, {Slot("template", "hello"): {name.replace("_", "."): one for name, one in weights.items()}}, at=NOON
    )


def test_a_template_is_stored_once_and_known_from_then_on() -> None:
    templates = registry()

    assert templates.add([template()]).new == ("hello 1.0.0",)
    again = templates.add([template(), template("1.1.0")])
    assert (again.new, again.known) == (("hello 1.1.0",), ("hello 1.0.0",))
    assert templates.get("hello", "1.1.0") == template("1.1.0")
    assert templates.newest() == {"hello": "1.1.0"}


def test_versions_are_ordered_as_numbers() -> None:
    templates = registry()
    templates.add([template("1.10.0"), template("1.9.0"), template("1.0.0", name="bye")])

    assert [str(one) for one in templates.all()] == ["bye 1.0.0", "hello 1.9.0", "hello 1.10.0"]
    assert templates.newest() == {"bye": "1.0.0", "hello": "1.10.0"}


def test_changed_text_under_a_stored_version_names_the_next_and_stores_nothing() -> None:
    templates = registry()
    templates.add([template(), template("1.0.1")])
    with pytest.raises(TemplateError, match=r"hello 1\.0\.0 is stored with another text; .* version 1\.0\.2"):
        templates.add([template("2.0.0"), template("1.0.0", "Bye {name}")])

    assert [one.version for one in templates.all()] == ["1.0.0", "1.0.1"]


def test_two_texts_under_one_version_in_one_batch_are_refused_and_one_text_twice_is_not() -> None:
    templates = registry()
    with pytest.raises(TemplateError, match="another text"):
        templates.add([template(), template("1.0.0", "Bye {name}")])
    assert templates.all() == []

    added = templates.add([template(), template()])
    assert (added.new, added.known) == (("hello 1.0.0",), ("hello 1.0.0",))


class Raced(MemoryStore):
    """A store into which another process puts a template just before ours."""

    def __init__(self, other: PromptTemplate) -> None:
        super().__init__()
        self.other: PromptTemplate | None = other

    def insert(self, name: str, rows: Any, *, key: str) -> int:
        other, self.other = self.other, None
        if other is not None:
            registry(self).add([other])
        return super().insert(name, rows, key=key)


def test_who_loses_a_race_against_another_text_is_told_so() -> None:
    with pytest.raises(TemplateError, match="another text"):
        registry(Raced(template("1.0.0", "Bye {name}"))).add([template()])


def test_who_loses_a_race_against_the_same_text_does_not_notice() -> None:
    assert registry(Raced(template())).add([template()]).new == ("hello 1.0.0",)


def test_an_unknown_template_or_version_names_the_nearest() -> None:
    templates = registry()
    templates.add([template()])

    with pytest.raises(UnknownTemplateError, match="'helo'; did you mean 'hello'"):
        templates.get("helo", "1.0.0")
    with pytest.raises(UnknownTemplateError, match=r"'hello 1\.1\.0'; did you mean 'hello 1\.0\.0'"):
        templates.get("hello", "1.1.0")
    with pytest.raises(UnknownTemplateError, match="'helo'; did you mean 'hello'"):
        templates.live("helo", live(**{"1_0_0": 1.0}))


def test_a_version_that_another_process_stored_is_found() -> None:
    store = MemoryStore()
    templates = registry(store)
    templates.add([template()])
    registry(store).add([template("1.1.0")])

    assert templates.get("hello", "1.1.0").version == "1.1.0"


class Counting(MemoryStore):
    """A store that counts how often it is read."""

    reads = 0

    def read(self, *args: Any, **kwargs: Any) -> Any:
        self.reads += 1
        return super().read(*args, **kwargs)


def test_a_live_template_is_read_from_the_store_once() -> None:
    store = Counting()
    templates = registry(store)
    templates.add([template()])
    templates.live("hello", live(**{"1_0_0": 1.0}))
    before = store.reads
    templates.live("hello", live(**{"1_0_0": 1.0}))

    assert store.reads == before


def test_a_split_gives_each_user_one_version_for_good() -> None:
    templates = registry()
    templates.add([template(), template("1.1.0")])
    split = live(**{"1_0_0": 0.5, "1_1_0": 0.5})
    chosen = {user: templates.live("hello", split, sticky=user).version for user in map(str, range(50))}

    assert set(chosen.values()) == {"1.0.0", "1.1.0"}
    assert all(templates.live("hello", split, sticky=user).version == one for user, one in chosen.items())


def test_a_folder_of_templates_is_stored(tmp_path: Path) -> None:
    (tmp_path / "hello.md").write_text(source(), encoding="utf-8")
    templates = registry()

    assert templates.add_folder(tmp_path).new == ("hello 1.0.0",)
    assert templates.add_folder(tmp_path).known == ("hello 1.0.0",)


def test_features_of_a_split_are_those_of_its_heaviest_version() -> None:
    templates = registry()
    templates.add([template(), template("1.1.0")])
    (row,) = templates.as_features(live(**{"1_0_0": 0.2, "1_1_0": 0.8})).to_pylist()

    assert (row["template_id"], row["version"], row["event_timestamp"]) == ("hello", "1.1.0", NOON)
    assert registry().as_features(Release(0)).num_rows == 0
