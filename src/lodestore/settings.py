"""Settings: lodestore.toml, the environment, and where each value came from."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from lodestore.chunking import ChunkOptions
from lodestore.documents import DocumentSource
from lodestore.errors import LodestoreError, SettingsError, nearest
from lodestore.events import EventSource
from lodestore.gate import GateOptions
from lodestore.models import EmbeddingModel

__all__ = ["DEFAULT_PORT", "Settings", "load"]

FILE = "lodestore.toml"
PREFIX = "LODESTORE_"
DEFAULT_PORT = 7373
_OWN = frozenset({"LODESTORE_CONFIG", "LODESTORE_HOME"})


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """`[store]`: where the system of record lies."""

    uri: str = ".lodestore"
    lock_wait: float = 60.0
    storage: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeatureOptions:
    """`[features]`: the modules whose declarations are the catalog."""

    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """`[embedding]`: which model each feature should have, and the models."""

    promote: Literal["auto", "manual"] = "auto"
    features: Mapping[str, str] = field(default_factory=dict)
    models: tuple[EmbeddingModel, ...] = ()
    batch_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class ReleaseOptions:
    """`[release]`: how many predecessors of a slot are kept up to date."""

    keep: int = 1


@dataclass(frozen=True, slots=True)
class GoldenFiles:
    """`[golden]`: queries and judgements."""

    queries: str
    qrels: str
    name: str = "main"


@dataclass(frozen=True, slots=True)
class TemplateOptions:
    """`[templates]`: the folder of the prompt templates."""

    folder: str = "templates"


@dataclass(frozen=True, slots=True)
class OnlineOptions:
    """`[online]`: where online rows lie; `sync` makes an acknowledgement wait for the disk."""

    url: str = "lmdb"
    sync: bool = False


@dataclass(frozen=True, slots=True)
class AlertOptions:
    """`[alerts]`: apprise URLs."""

    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """`[serve]`: the feature server."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    workers: int = 1


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """`[context]`: the personalised prompt; the budget counts tokens of the live model's tokenizer."""

    template: str = "qa_basic"
    k: int = 6
    token_budget: int = 1500
    service: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that lodestore.toml may say."""

    store: StoreOptions = field(default_factory=StoreOptions)
    documents: tuple[DocumentSource, ...] = ()
    events: tuple[EventSource, ...] = ()
    features: FeatureOptions = field(default_factory=FeatureOptions)
    embedding: EmbeddingOptions = field(default_factory=EmbeddingOptions)
    chunks: ChunkOptions = field(default_factory=ChunkOptions)
    golden: tuple[GoldenFiles, ...] = ()
    gate: GateOptions = field(default_factory=GateOptions)
    release: ReleaseOptions = field(default_factory=ReleaseOptions)
    templates: TemplateOptions = field(default_factory=TemplateOptions)
    context: ContextOptions = field(default_factory=ContextOptions)
    online: OnlineOptions = field(default_factory=OnlineOptions)
    alerts: AlertOptions = field(default_factory=AlertOptions)
    serve: ServeOptions = field(default_factory=ServeOptions)
    root: Path = field(default_factory=Path.cwd, metadata={"hidden": True})
    home: Path = field(default_factory=Path.cwd, metadata={"hidden": True})
    origins: Mapping[str, str] = field(default_factory=dict, metadata={"hidden": True})

    @property
    def store_uri(self) -> str:
        """The store's address: a URI as it is, a folder made absolute."""
        uri = self.store.uri
        return uri if "://" in uri else str((self.home / uri).resolve())

    @property
    def local(self) -> Path:
        """The folder on this machine for what is never on an object store: online rows, locks."""
        return Path(self.store_uri) if "://" not in self.store_uri else (self.home / ".lodestore").resolve()

    def flat(self) -> Iterator[tuple[str, Any, str]]:
        """Each setting as (path, value, where it came from)."""
        for path, value in _leaves(self, ""):
            yield path, value, self.origins.get(path, "default")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - settings are of every type
    if is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            if not one.metadata.get("hidden"):
                yield from _leaves(getattr(value, one.name), f"{path}.{one.name}" if path else one.name)
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        for one in value:
            yield from _leaves(one, f"{path}.{_entry_name(one)}")
    elif isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield f"{path}.{key}", inner
    else:
        yield path, value


def _entry_name(entry: Any) -> str:  # noqa: ANN401 - any of the array entries
    name = str(entry.name)
    version = getattr(entry, "version", None)
    return f"{name}@{version}" if version else name


def load(path: Path | str | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of `path`, of LODESTORE_CONFIG, or of lodestore.toml in this folder or above it."""
    env = os.environ if environ is None else environ
    file = _find(Path(path) if path else None, env)
    tree = _substituted(_parse(file), env, file.name)
    origins: dict[str, str] = {}
    for dotted, _ in _paths(tree):
        origins[dotted] = file.name
    for word, value in sorted(env.items()):
        if word.startswith(PREFIX) and word not in _OWN:
            origins[_override(tree, word, value)] = word
    root = file.parent.resolve()
    home = Path(env["LODESTORE_HOME"]).expanduser() if env.get("LODESTORE_HOME") else root
    built = _build(Settings, tree, "", file.name)
    settings = dataclasses.replace(built, root=root, home=home.resolve(), origins=origins)
    _unique(settings)
    return settings


def _find(path: Path | None, env: Mapping[str, str]) -> Path:
    named = path or (Path(env["LODESTORE_CONFIG"]) if env.get("LODESTORE_CONFIG") else None)
    if named is not None:
        file = named / FILE if named.is_dir() else named
        if not file.is_file():
            message = f"settings file {file} does not exist; name another with LODESTORE_CONFIG or --config"
            raise SettingsError(message)
        return file.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder / FILE
    message = f"there is no {FILE} in {here} or above it; make a project with: lodestore init DIR"
    raise SettingsError(message)


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{file} is not valid TOML: {error}"
        raise SettingsError(message) from error
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}"
        raise SettingsError(message) from error


def _substituted(value: Any, env: Mapping[str, str], where: str) -> Any:  # noqa: ANN401 - a TOML tree
    if isinstance(value, dict):
        return {key: _substituted(inner, env, f"{where}: {key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [_substituted(inner, env, where) for inner in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        if match[1] not in env:
            message = f"{where}: ${{{match[1]}}} is not set; export {match[1]}=..."
            raise SettingsError(message)
        return env[match[1]]

    return re.sub(r"\$\{(\w+)\}", fill, value)


def _paths(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - a TOML tree
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield from _paths(inner, f"{path}.{key}" if path else key)
    elif isinstance(tree, list) and tree and isinstance(tree[0], dict):
        for inner in tree:
            name = f"{inner.get('name')}@{inner['version']}" if "version" in inner else inner.get("name", "?")
            yield from _paths(inner, f"{path}.{name}")
    else:
        yield path, tree


def _override(tree: dict[str, Any], word: str, value: str) -> str:
    """Put the variable's value into the tree; returns the path that it set."""
    parts = word.removeprefix(PREFIX).lower().split("__")
    if parts[0] not in _sections():
        message = f"{word}: there is no section {parts[0]!r}{nearest(parts[0], _sections())}"
        raise SettingsError(message)
    spot: Any = tree
    for place, part in enumerate(parts[:-1]):
        spot = _step(spot, part, parts[place + 1], word)
    if not isinstance(spot, dict):
        message = f"{word}: name the setting, for example {PREFIX}STORE__URI"
        raise SettingsError(message)
    spot[parts[-1]] = value
    return ".".join(parts)


def _step(spot: Any, part: str, following: str, word: str) -> Any:  # noqa: ANN401 - a TOML tree
    inner = spot.setdefault(part, {})
    if isinstance(inner, list):
        named = {str(entry.get("name", "")).lower(): entry for entry in inner if isinstance(entry, dict)}
        if following not in named:
            message = f"{word}: {part} has no entry {following!r}{nearest(following, named)}"
            raise SettingsError(message)
        # The entry's name is the next word: stand in for the list with a map of its entries.
        return named
    return inner


def _sections() -> list[str]:
    return [one.name for one in fields(Settings) if not one.metadata.get("hidden")]


def _build(kind: type[Any], tree: Any, path: str, where: str) -> Any:  # noqa: ANN401 - any options class
    if not isinstance(tree, dict):
        message = f"{where}: {path or 'the file'} is {type(tree).__name__}; a table is expected"
        raise SettingsError(message)
    hints = typing.get_type_hints(kind)
    known = {one.name: one for one in fields(kind) if not one.metadata.get("hidden")}
    for key in tree:
        if key not in known:
            shown = f"{path}.{key}" if path else key
            message = f"{where}: unknown setting {shown}{nearest(key, known)}"
            raise SettingsError(message)
    missing = [
        one.name
        for one in known.values()
        if one.name not in tree and one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    ]
    if missing:
        message = f"{where}: {path or 'the file'} lacks {', '.join(missing)}"
        raise SettingsError(message)
    values = {key: _value(hints[key], value, f"{path}.{key}" if path else key, where) for key, value in tree.items()}
    try:
        return kind(**values)
    except LodestoreError as error:
        message = f"{where}: [{path}] {error}"
        raise SettingsError(message) from error


def _value(hint: Any, value: Any, path: str, where: str) -> Any:  # noqa: ANN401, C901 - one case per kind of setting
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, path, where)
    if origin is tuple:
        return _entries(arguments[0], value, path, where)
    if origin in {Mapping, dict} or hint is Mapping:
        return _strings(value, path, where)
    if origin in {types.UnionType, typing.Union}:
        (inner,) = [one for one in arguments if one is not type(None)]
        return _value(inner, value, path, where)
    if origin is Literal:
        if value not in arguments:
            message = f"{where}: {path} is {value!r}{nearest(str(value), map(str, arguments))}"
            raise SettingsError(message)
        return value
    return _scalar(hint, value, path, where)


def _entries(kind: Any, value: Any, path: str, where: str) -> tuple[Any, ...]:  # noqa: ANN401 - any of the arrays
    if isinstance(value, str):
        value = _toml_value(value)
    if isinstance(value, dict) and is_dataclass(kind):
        value = [value]  # a plain table is an array of one
    if not isinstance(value, list):
        message = f"{where}: {path} is {value!r}; a list is expected"
        raise SettingsError(message)
    out = []
    for place, one in enumerate(value):
        name = one.get("name", place) if isinstance(one, dict) else place
        out.append(_value(kind, one, f"{path}.{name}", where))
    return tuple(out)


def _strings(value: Any, path: str, where: str) -> Mapping[str, str]:  # noqa: ANN401 - a TOML tree
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        message = f"{where}: {path} is {value!r}; a table of names to text is expected"
        raise SettingsError(message)
    return types.MappingProxyType(dict(value))


def _toml_value(text: str) -> Any:  # noqa: ANN401 - any TOML value
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _scalar(kind: Any, value: Any, path: str, where: str) -> Any:  # noqa: ANN401 - str, int, float or bool
    given = value
    if isinstance(value, str) and kind is not str:
        value = _toml_value(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        message = f"{where}: {path} is {given!r}; {words.get(kind, kind)} is expected"
        raise SettingsError(message)
    return value


def _unique(settings: Settings) -> None:
    named = {
        "documents": [one.name for one in settings.documents],
        "events": [one.name for one in settings.events],
        "golden": [one.name for one in settings.golden],
        "embedding.models": [one.label for one in settings.embedding.models],
    }
    for section, names in named.items():
        for name in names:
            if names.count(name) > 1:
                message = f"{FILE}: {section} has two entries named {name!r}; give one of them another name"
                raise SettingsError(message)
    labels = named["embedding.models"]
    for feature, label in settings.embedding.features.items():
        if label not in labels:
            message = f"{FILE}: embedding.features.{feature} is {label!r}{nearest(label, labels)}"
            raise SettingsError(message)
