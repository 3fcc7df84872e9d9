"""Settings: lodestore.toml, the environment, and where each value came from."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lodestore.addresses import shown
from lodestore.alerts import AlertOptions
from lodestore.baselines import DriftOptions
from lodestore.chunking import ChunkOptions
from lodestore.context import ContextOptions
from lodestore.documents import DocumentSource
from lodestore.errors import LodestoreError, SettingsError, nearest
from lodestore.events import EventSource
from lodestore.gate import GateOptions
from lodestore.models import EmbeddingModel
from lodestore.retrieval import SearchOptions
from lodestore.schedule import ScheduleOptions, check_cron
from lodestore.spec import checked_name

__all__ = ["DEFAULT_PORT", "Settings", "load"]

FILE = "lodestore.toml"
PREFIX = "LODESTORE_"
DEFAULT_PORT = 7373
# Variables of that prefix that are no settings.
_OWN = frozenset({"LODESTORE_CONFIG", "LODESTORE_HOME", "LODESTORE_DEBUG", "LODESTORE_BOARD", "LODESTORE_FEAST_PYTHON"})
# What Kubernetes tells about services of that name: LODESTORE_SERVICE_HOST, LODESTORE_PORT_7373_TCP and the like.
_SERVICE = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_MASK = "***"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_WORDS = {"true": True, "1": True, "false": False, "0": False}

Tree: TypeAlias = Any
"""What TOML holds: a table, a list, text, a number, true or false."""


class _Written(str):
    """Text that stands for a value of any type: from a variable, which has no other."""

    __slots__ = ()


def _within(setting: str, value: float, lowest: float, highest: float = math.inf) -> None:
    if not lowest <= value <= highest:
        wanted = f"at least {lowest}" if math.isinf(highest) else f"{lowest} to {highest}"
        message = f"{setting} is {value}; {wanted} is expected"
        raise SettingsError(message)


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """`[store]`: where the system of record lies."""

    uri: str = ".lodestore"
    lock_wait: float = 60.0
    storage: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _within("lock_wait", self.lock_wait, 0)


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

    def __post_init__(self) -> None:
        _within("batch_tokens", self.batch_tokens, 1)


@dataclass(frozen=True, slots=True)
class ReleaseOptions:
    """`[release]`: how many predecessors of a slot are kept up to date."""

    keep: int = 1

    def __post_init__(self) -> None:
        _within("keep", self.keep, 0)


@dataclass(frozen=True, slots=True)
class RetentionOptions:
    """`[retention]`: for how many days what left the tables is kept, which is how far back a search can ask.

    `file_hours`: how long files of an older state of a table stay for readers that have it open.
    """

    days: float = 30.0
    file_hours: float = 24.0

    def __post_init__(self) -> None:
        _within("days", self.days, 0, 36_500)
        _within("file_hours", self.file_hours, 1, 876_000)


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """`[backup]`: under which folder or prefix the job of that name puts each backup, and how many of them it keeps.

    `schedule`: when it runs by itself, once there is a `uri`; empty for never. The time zone is that of `[schedule]`.
    """

    uri: str = ""
    keep: int = 7
    schedule: str = "45 4 * * *"

    def __post_init__(self) -> None:
        _within("keep", self.keep, 1)
        if self.schedule.strip():
            check_cron("backup.schedule", self.schedule)


@dataclass(frozen=True, slots=True)
class GoldenFiles:
    """`[golden]`: queries and judgements."""

    queries: str
    qrels: str
    name: str = "main"

    def __post_init__(self) -> None:
        checked_name(self.name, "golden set")


@dataclass(frozen=True, slots=True)
class TemplateOptions:
    """`[templates]`: the folder of the prompt templates."""

    folder: str = "templates"


@dataclass(frozen=True, slots=True)
class OnlineOptions:
    """`[online]`: where online rows lie; `sync` makes an acknowledgement wait for the disk.

    While `journal_limit` pushed rows wait for the history, no more are taken. Of `skew_every` reads one
    is sampled and compared with the history; 0 samples none.
    """

    url: str = field(default="lmdb", repr=False, metadata={"shown": True})
    sync: bool = False
    journal_limit: int = 1_000_000
    skew_every: int = 1_000

    def __post_init__(self) -> None:
        _within("journal_limit", self.journal_limit, 1)
        _within("skew_every", self.skew_every, 0)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """`[serve]`: the feature server, and what one worker allows. Sizes are in bytes, times in seconds.

    `max_entities` are the rows of a feature request, `max_values` its rows times its features, `max_batch` the
    searches of a batch. `max_inflight` requests are answered at a time, and `max_queued` wait for a
    thread; what comes beyond is turned away with 503. An answer by a release that could not be checked
    for `marked_after` is marked, beyond `max_age` there is none. A search waits up to `search_wait` for a
    worker that is loading its model. `tracing` makes a span of each request. `log_requests` logs
    each one, without its values; otherwise only those that fail or take longer than a second.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    workers: int = 1
    max_body: int = 8 << 20
    max_k: int = 1_000
    max_entities: int = 5_000
    max_values: int = 200_000
    max_batch: int = 64
    max_inflight: int = 512
    max_queued: int = 128
    search_threads: int = 8
    write_threads: int = 2
    search_cache: int = 64 << 20
    vector_cache: int = 32 << 20
    marked_after: float = 15.0
    max_age: float = 900.0
    search_wait: float = 10.0
    log_requests: bool = False
    tracing: bool = False

    def __post_init__(self) -> None:
        _within("port", self.port, 0, 65_535)
        _within("max_k", self.max_k, 1, 1_000)
        _within("max_body", self.max_body, 1_024)
        counts = ("workers", "max_entities", "max_values", "max_batch", "max_inflight", "max_queued")
        for name in (*counts, "search_threads", "write_threads"):
            _within(name, getattr(self, name), 1)
        for name in ("search_cache", "vector_cache", "marked_after", "max_age", "search_wait"):
            _within(name, getattr(self, name), 0)


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
    retention: RetentionOptions = field(default_factory=RetentionOptions)
    backup: BackupOptions = field(default_factory=BackupOptions)
    search: SearchOptions = field(default_factory=SearchOptions)
    templates: TemplateOptions = field(default_factory=TemplateOptions)
    context: ContextOptions = field(default_factory=ContextOptions)
    online: OnlineOptions = field(default_factory=OnlineOptions)
    alerts: AlertOptions = field(default_factory=AlertOptions)
    drift: DriftOptions = field(default_factory=DriftOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    serve: ServeOptions = field(default_factory=ServeOptions)
    file: Path = field(default=Path(FILE), metadata={"hidden": True})
    root: Path = field(default_factory=Path.cwd, metadata={"hidden": True})
    home: Path = field(default_factory=Path.cwd, metadata={"hidden": True})
    origins: Mapping[str, str] = field(default_factory=dict, metadata={"hidden": True})

    @property
    def store_uri(self) -> str:
        """The store's address: a URI as it is, a folder made absolute."""
        return self._placed(self.store.uri)

    @property
    def backup_uri(self) -> str:
        """Where backups go, in the same way; empty where the settings do not say."""
        return self._placed(self.backup.uri) if self.backup.uri else ""

    def _placed(self, uri: str) -> str:
        return uri if "://" in uri else str((self.home / Path(uri).expanduser()).resolve())

    @property
    def local(self) -> Path:
        """The folder on this machine for what is never on an object store: online rows, locks."""
        return Path(self.store_uri) if "://" not in self.store_uri else (self.home / ".lodestore").resolve()

    def flat(self) -> Iterator[tuple[str, Any, str]]:
        """Each setting as (path, value, where it came from). What is secret shows as `***`."""
        for path, value in _leaves(self, ""):
            yield path, value, _origin(self.origins, path)


def _origin(origins: Mapping[str, str], path: str) -> str:
    """Where the setting, or the whole that it is part of, was set."""
    while path:
        if path in origins:
            return origins[path]
        path = path.rpartition(".")[0]
    return "default"


def _leaves(value: object, path: str, *, secret: bool = False) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            if not one.metadata.get("hidden"):
                yield from _leaves(getattr(value, one.name), _joined(path, one.name), secret=_is_secret(one))
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        for one in value:
            yield from _leaves(one, _joined(path, _label(one.name, getattr(one, "version", None))))
    elif isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield _joined(path, key), _shown(inner, secret=secret)
    else:
        yield path, _shown(value, secret=secret)


def _is_secret(one: dataclasses.Field[Any]) -> bool:
    return not one.repr and not one.metadata.get("shown")


def _shown(value: object, *, secret: bool) -> object:
    if secret and value:
        return _MASK
    return shown(value) if isinstance(value, str) else value


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _label(name: object, version: object) -> str:
    return f"{name}@{version}" if version else str(name)


# Loading


def load(path: Path | str | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of `path`, of LODESTORE_CONFIG, or of lodestore.toml in this folder or above it."""
    env = os.environ if environ is None else environ
    file = _find(Path(path) if path else None, env)
    tree = _listed(_parse(file))
    origins = dict.fromkeys(_paths(tree), file.name)
    for word, value in sorted(env.items()):
        if word.startswith(PREFIX) and word not in _OWN and not _of_a_service(word, value):
            origins[_override(tree, word, value)] = word
    root = file.parent.resolve()
    home = Path(env["LODESTORE_HOME"]).expanduser() if env.get("LODESTORE_HOME") else root
    built = _build(Settings, _substituted(tree, env, file.name), "", file.name)
    places = {"file": file, "root": root, "home": home.resolve()}
    settings = dataclasses.replace(built, **places, origins=types.MappingProxyType(origins))
    _unique(settings, file.name)
    return settings


def _of_a_service(word: str, value: str) -> bool:
    """Whether Kubernetes set the variable, for a service that is called lodestore."""
    link = value.startswith(("tcp://", "udp://", "sctp://"))
    return "__" not in word and bool(_SERVICE.fullmatch(word) or (link and word.endswith("_PORT")))


def _find(path: Path | None, env: Mapping[str, str]) -> Path:
    named = path or (Path(env["LODESTORE_CONFIG"]) if env.get("LODESTORE_CONFIG") else None)
    if named is not None:
        file = named / FILE if named.is_dir() else named
        if not file.is_file():
            by = "" if path else " (from LODESTORE_CONFIG)"
            message = (
                f"settings file {file}{by} does not exist; name another, or make a project with: lodestore init DIR"
            )
            raise SettingsError(message)
        return file.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder / FILE
    message = f"there is no {FILE} in {here} or above it; make a project with: lodestore init DIR"
    raise SettingsError(message)


def _parse(file: Path) -> dict[str, Tree]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        message = f"{file}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise SettingsError(message) from error
    except tomllib.TOMLDecodeError as error:
        message = f"{file} is not valid TOML: {error}"
        raise SettingsError(message) from error
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}"
        raise SettingsError(message) from error


def _listed(tree: dict[str, Tree]) -> dict[str, Tree]:
    """The same tree with a plain table `[golden]` as the array of one that it stands for."""
    hints = typing.get_type_hints(Settings)
    arrays = {one for one in _known(Settings) if typing.get_origin(hints[one]) is tuple}
    return {key: [inner] if key in arrays and isinstance(inner, dict) else inner for key, inner in tree.items()}


def _entry_label(entry: Mapping[str, Tree]) -> str:
    return _label(entry.get("name", "main"), entry.get("version"))


def _paths(tree: Tree, path: str = "") -> Iterator[str]:
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield from _paths(inner, _joined(path, key))
    elif isinstance(tree, list) and any(isinstance(one, dict) for one in tree):
        for one in tree:
            yield from _paths(one, _joined(path, _entry_label(one)) if isinstance(one, dict) else path)
    else:
        yield path


def _substituted(value: Tree, env: Mapping[str, str], where: str, path: str = "") -> Tree:
    """The tree with each `${VAR}` of its texts replaced."""
    if isinstance(value, dict):
        return {key: _substituted(inner, env, where, _joined(path, key)) for key, inner in value.items()}
    if isinstance(value, list):
        names = [_entry_label(one) if isinstance(one, dict) else str(place) for place, one in enumerate(value)]
        return [_substituted(one, env, where, _joined(path, name)) for name, one in zip(names, value, strict=True)]
    if not isinstance(value, str) or isinstance(value, _Written) or not _VARIABLE.search(value):
        return value

    def fill(match: re.Match[str]) -> str:
        if match[1] not in env:
            message = f"{where}: {path}: ${{{match[1]}}} is not set; export {match[1]}=..."
            raise SettingsError(message)
        return env[match[1]]

    return _Written(_VARIABLE.sub(fill, value))


# Overrides: LODESTORE_<SECTION>__<KEY>


def _override(tree: dict[str, Tree], word: str, value: str) -> str:
    """Put the variable's value into the tree; returns the path that it set."""
    parts = word.removeprefix(PREFIX).lower().split("__")
    if parts[0] not in _known(Settings):
        message = f"{word}: there is no section {parts[0]!r}{nearest(parts[0], _known(Settings))}"
        raise SettingsError(message)
    return _put(Settings, tree, parts, word, _Written(value), "")


def _put(hint: Tree, spot: Tree, parts: list[str], word: str, value: str, path: str) -> str:
    """Walk by the types, so that a variable reaches exactly what the file could say."""
    part, rest = parts[0], parts[1:]
    if not isinstance(spot, dict):
        message = f"{word}: {path} in the file is {spot!r}; a table is expected"
        raise SettingsError(message)
    if not is_dataclass(hint):
        return _put_entry(spot, "__".join(parts), value, path)
    inner = _inner_hint(hint, part, word, path)
    here = _joined(path, part)
    origin: Any = typing.get_origin(inner)
    array = origin is tuple and is_dataclass(typing.get_args(inner)[0])
    nested = array or is_dataclass(inner) or origin is Mapping
    if bool(rest) != nested and not (array and not rest):
        more = f"{word}__..." if nested else PREFIX + here.upper().replace(".", "__")
        message = f"{word}: {here} is {'a table, name what is in it' if nested else 'one value'}: {more}"
        raise SettingsError(message)
    if not rest:
        spot[part] = value
        return here
    if array:
        rest = _with_name(spot.get(part, []), rest)
        entry = _named_entry(spot.get(part, []), rest[0], word, here)
        label = _joined(here, _entry_label(entry))
        if len(rest) == 1:
            message = f"{word}: {label} is a table, name what is in it: {word}__..."
            raise SettingsError(message)
        return _put(typing.get_args(inner)[0], entry, rest[1:], word, value, label)
    return _put(inner, spot.setdefault(part, {}), rest, word, value, here)


def _with_name(entries: Tree, rest: list[str]) -> list[str]:
    """A plain table `[golden]` needs no name in a variable either."""
    plain = isinstance(entries, list) and len(entries) == 1 and "name" not in entries[0]
    return [_entry_label(entries[0]), *rest] if plain and rest[0] in entries[0] else rest


def _put_entry(spot: dict[str, Tree], name: str, value: str, path: str) -> str:
    """Under the name as the file writes it, for variables do not tell small letters from capitals."""
    key = next((one for one in spot if one.lower() == name), name)
    spot[key] = value
    return _joined(path, key)


def _inner_hint(kind: Tree, part: str, word: str, path: str) -> Tree:
    if part not in _known(kind):
        message = f"{word}: unknown setting {_joined(path, part)}{nearest(part, _known(kind))}"
        raise SettingsError(message)
    return typing.get_type_hints(kind)[part]


def _named_entry(entries: Tree, name: str, word: str, path: str) -> dict[str, Tree]:
    """The entry of that name; `name_version` or `name@version` where a name has several versions."""
    tables = [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
    labels = {_entry_label(one).lower(): one for one in tables}
    same = [one for one in tables if str(one.get("name", "main")).lower() == name]
    if len(same) == 1:
        return same[0]
    exact = [one for label, one in labels.items() if name in {label, label.replace("@", "_")}]
    if len(exact) == 1:
        return exact[0]
    if same:
        ways = ", ".join(word.replace(name.upper(), _entry_label(one).replace("@", "_").upper(), 1) for one in same)
        message = f"{word}: {path} has several entries named {name!r}; write one of {ways}"
        raise SettingsError(message)
    message = f"{word}: {path} has no entry {name!r}{nearest(name, labels)}"
    raise SettingsError(message)


# From a tree to values


def _known(kind: Tree) -> dict[str, dataclasses.Field[Any]]:
    return {one.name: one for one in fields(kind) if not one.metadata.get("hidden")}


def _build(kind: type[Any], tree: Tree, path: str, where: str) -> Any:  # noqa: ANN401 - any options class
    if not isinstance(tree, dict):
        message = f"{where}: {path or 'the file'} is {type(tree).__name__}; a table is expected"
        raise SettingsError(message)
    known = _known(kind)
    for key in tree:
        if key not in known:
            message = f"{where}: unknown setting {_joined(path, key)}{nearest(key, known)}"
            raise SettingsError(message)
    missing = [one.name for one in known.values() if one.name not in tree and _is_required(one)]
    if missing:
        message = f"{where}: {path or 'the file'} lacks {', '.join(missing)}"
        raise SettingsError(message)
    hints = typing.get_type_hints(kind)
    values = {key: _setting(known[key], hints[key], value, _joined(path, key), where) for key, value in tree.items()}
    try:
        return kind(**values)
    except LodestoreError as error:
        message = f"{where}: [{path}] {error}"
        raise SettingsError(message) from error


def _is_required(one: dataclasses.Field[Any]) -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING


def _setting(one: dataclasses.Field[Any], hint: Tree, value: Tree, path: str, where: str) -> Tree:
    try:
        return _value(hint, value, path, where)
    except SettingsError:
        if one.repr:
            raise
        message = f"{where}: {path} is not of the right type; its value is not shown"
        raise SettingsError(message) from None


def _value(hint: Tree, value: Tree, path: str, where: str) -> Tree:
    origin: Any = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, path, where)
    if origin is tuple:
        return _entries(arguments[0], value, path, where)
    if origin is Mapping:
        return _strings(value, path, where)
    if origin in {types.UnionType, typing.Union}:
        (inner,) = [one for one in arguments if one is not type(None)]
        return _value(inner, value, path, where)
    if origin is Literal:
        if value not in arguments:
            message = f"{where}: {path} is {value!r}{nearest(str(value), map(str, arguments))}"
            raise SettingsError(message)
        return str(value)
    return _scalar(hint, value, path, where)


def _entries(kind: Tree, value: Tree, path: str, where: str) -> tuple[Any, ...]:
    if isinstance(value, _Written):
        value = _written_list(value)
    if not isinstance(value, list):
        hint = f"; write [{_toml(value)}]" if isinstance(value, str) else ""
        message = f"{where}: {path} is {value!r}; a list is expected{hint}"
        raise SettingsError(message)
    names = [_entry_label(one) if isinstance(one, dict) else str(place) for place, one in enumerate(value)]
    return tuple(_value(kind, one, _joined(path, name), where) for name, one in zip(names, value, strict=True))


def _written_list(text: str) -> Tree:
    """A TOML array, or texts with commas between them."""
    value = _toml_value(text) if text.lstrip().startswith("[") else text
    if isinstance(value, str):
        return [_Written(one.strip()) for one in text.split(",") if one.strip()]
    return value


def _strings(value: Tree, path: str, where: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        message = f"{where}: {path} is {value!r}; a table of names to text is expected"
        raise SettingsError(message)
    return types.MappingProxyType({key: _scalar(str, one, _joined(path, key), where) for key, one in value.items()})


def _toml_value(text: str) -> Tree:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _toml(value: Tree) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


def _scalar(kind: Tree, value: Tree, path: str, where: str) -> Tree:
    given = value
    if isinstance(value, _Written):
        value = _read_as(kind, value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or not _is_finite(value):
        words = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}
        hint = f"; write {_toml(value)}" if kind is str and isinstance(value, int | float) else ""
        message = f"{where}: {path} is {given!r}; {words.get(kind, kind)} is expected{hint}"
        raise SettingsError(message)
    return value


def _is_finite(value: Tree) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _read_as(kind: Tree, text: str) -> Tree:
    if kind is str:
        return str(text)
    return _WORDS.get(text.lower(), text) if kind is bool else _toml_value(text)


def _unique(settings: Settings, where: str) -> None:
    labels = [one.label for one in settings.embedding.models]
    named = {
        "documents": [one.name for one in settings.documents],
        "events": [one.name for one in settings.events],
        "golden": [one.name for one in settings.golden],
        "embedding.models": labels,
    }
    for section, names in named.items():
        for name in names:
            if names.count(name) > 1:
                message = f"{where}: {section} has two entries named {name!r}; give one of them another name"
                raise SettingsError(message)
    for feature, label in settings.embedding.features.items():
        checked_name(feature, f"{where}: embedding.features:")
        if label not in labels:
            message = f"{where}: embedding.features.{feature} is {label!r}{nearest(label, labels)}"
            raise SettingsError(message)
