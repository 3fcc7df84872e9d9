"""Prompt templates: versioned texts with declared variables, rendered in one pass.

A template file is YAML front matter, then the text:

    ---
    id: qa_basic
    version: 1.0.0
    family: general
    variables: [context, question]
    ---
    Context: {context}

    Question: {question}

`variables` is a list of names, or a mapping from each name to its options (type, default, required,
max_length, doc). `{name}` is a variable, `{{name}}` is the literal `{name}`, every other brace is
text, so JSON needs no escaping. Lines `## system`, `## user` and `## assistant` make the text a chat
template. Blank lines around a text are not part of it.

Rendering puts values between the literal parts and never looks at them again: a value that contains
`{question}` stays that text.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lodestore.errors import DeclarationError, TemplateError, nearest
from lodestore.spec import checked_name

if TYPE_CHECKING:
    import yaml

__all__ = [
    "FAMILIES",
    "RESERVED",
    "TYPES",
    "Message",
    "PromptTemplate",
    "Rendered",
    "TemplateDiff",
    "Variable",
    "choose",
    "conflict",
    "diff",
    "next_version",
    "parse",
    "read_file",
    "read_folder",
    "render",
    "version_key",
]

FAMILIES = ("general", "code", "llama", "gpt", "claude", "mistral")
TYPES = ("string", "integer", "number", "boolean", "list", "json")

# What the context step fills in by itself, and therefore with values of these types.
RESERVED: Mapping[str, tuple[str, ...]] = {
    "context": ("string",),
    "question": ("string",),
    "instruction": ("string",),
    "history": ("string", "list"),
}

# Applications call these by name with exactly these variables.
_FIXED: Mapping[str, tuple[str, ...]] = {
    "qa_basic": ("context", "question"),
    "qa_with_citations": ("context", "question"),
    "code_generation": ("language", "task", "requirements"),
}

_KEYS = ("id", "version", "family", "variables", "doc")
_OPTIONS = ("type", "default", "required", "max_length", "doc")
_ROLES = ("system", "user", "assistant")
_MAX_BYTES = 1 << 20
_MAX_FRONT = 1 << 16
_MAX_PROBLEMS = 20
_ROUNDING = 1e-6

_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_BRACES = re.compile(rf"\{{\{{(?P<literal>{_IDENTIFIER})\}}\}}|\{{(?P<name>{_IDENTIFIER})\}}")
_FRONT = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_SECTION = re.compile(rf"^##[ \t]+({'|'.join(_ROLES)})[ \t]*$", re.IGNORECASE | re.MULTILINE)
_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_VERSION = re.compile(rf"{_NUMBER}(?:\.{_NUMBER}){{0,2}}")


@dataclass(frozen=True, slots=True)
class Variable:
    """A declared variable; `max_length` counts the characters that are inserted.

    An optional variable that is not given renders as its default, and as nothing when that is None.
    """

    name: str
    type: str = "string"
    required: bool = True
    default: Any = field(default=None, hash=False)
    max_length: int | None = None
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat: system, user or assistant."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt with its values in place, as one text and as messages.

    The text of a chat template is its messages with a blank line between them; a plain template is
    one user message.
    """

    text: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A template taken apart once: literal parts at even places, variable names at odd ones."""

    variables: Mapping[str, Variable]
    defaults: Mapping[str, str]
    messages: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class PromptTemplate:
    """One version of one prompt. Message texts are source: their variables are still in braces."""

    template_id: str
    version: str
    family: str
    variables: tuple[Variable, ...]
    messages: tuple[Message, ...]
    is_chat: bool = False
    doc: str = ""

    def __str__(self) -> str:
        return f"{self.template_id} {self.version}"

    @property
    def text(self) -> str:
        """The source text, as it stands below the front matter."""
        if not self.is_chat:
            return self.messages[0].text
        return "\n\n".join(f"## {message.role}\n\n{message.text}" for message in self.messages)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256, in hex, of what decides a rendered prompt: family, variables and messages.

        Descriptions are left out, and so is the order of declaration: mending a `doc` needs no new version.
        """
        variables = [{**asdict(one), "doc": ""} for one in sorted(self.variables, key=lambda one: one.name)]
        content = {"family": self.family, "variables": variables, "messages": [asdict(one) for one in self.messages]}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def compiled(self) -> Compiled:
        """The template taken apart, ready for `render`."""
        return Compiled(
            variables={one.name: one for one in self.variables},
            defaults={one.name: _default_text(one) for one in self.variables if not one.required},
            messages=tuple((message.role, _parts(message.text)) for message in self.messages),
        )

    def to_row(self) -> dict[str, str | bool]:
        """Return the template as flat values for a table; variables and messages are JSON text."""
        return {
            "template_id": self.template_id,
            "version": self.version,
            "family": self.family,
            "variables": json.dumps([asdict(one) for one in self.variables], ensure_ascii=False),
            "messages": json.dumps([asdict(one) for one in self.messages], ensure_ascii=False),
            "is_chat": self.is_chat,
            "content_hash": self.content_hash,
            "doc": self.doc,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> PromptTemplate:
        """Build the template that `to_row` wrote; other columns are ignored, a changed row is an error."""
        name = f"stored template {row.get('template_id')} {row.get('version')}"
        try:
            template = cls(
                template_id=row["template_id"],
                version=row["version"],
                family=row["family"],
                variables=tuple(Variable(**one) for one in json.loads(row["variables"])),
                messages=tuple(Message(**one) for one in json.loads(row["messages"])),
                is_chat=bool(row["is_chat"]),
                doc=row["doc"],
            )
            expected = row["content_hash"]
        except (KeyError, TypeError, ValueError) as error:
            message = f"{name} cannot be read: {error!r}; restore it from a backup or add it anew"
            raise TemplateError(message) from error
        if template.content_hash != expected:
            message = f"{name} is not what was stored: its content hash is {template.content_hash}, not {expected}; restore it from a backup"
            raise TemplateError(message)
        return template


# Versions


def version_key(version: str) -> tuple[int, int, int]:
    """Turn a version into numbers that compare in order; numbers left out are 0.

    >>> version_key("1.10") > version_key("1.9.3")
    True
    """
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        message = f"version {_brief(version)}: write one to three numbers with dots between them, like 1.0.0"
        raise TemplateError(message)
    numbers = [int(part) for part in version.split(".")]
    major, minor, patch = numbers + [0] * (3 - len(numbers))
    return major, minor, patch


def next_version(version: str) -> str:
    """Name the version after this one: its last number, plus one.

    >>> next_version("1.0.9"), next_version("2")
    ('1.0.10', '3')
    """
    version_key(version)
    *head, last = version.split(".")
    return ".".join([*head, str(int(last) + 1)])


def conflict(existing: PromptTemplate, offered: PromptTemplate, *, taken: Iterable[str] = ()) -> None:
    """Return when both may be stored; otherwise name the next version that is free.

    They may not when both bear the same id and version but not the same content. `taken` are the
    versions of that id that are stored.
    """
    if existing.template_id != offered.template_id or existing.content_hash == offered.content_hash:
        return
    if version_key(existing.version) != version_key(offered.version):
        return
    used = {version_key(version) for version in taken}
    free = next_version(offered.version)
    while version_key(free) in used:
        free = next_version(free)
    if existing.messages != offered.messages:
        message = f"{existing} is stored with another text; give the changed text version {free}"
    else:
        message = (
            f"{existing} is stored with other variables or another family; give the changed template version {free}"
        )
    raise TemplateError(message)


@dataclass(frozen=True, slots=True)
class TemplateDiff:
    """What changed from one template to another; `text` is a unified diff, empty for equal texts."""

    text: str
    variables_added: tuple[str, ...]
    variables_removed: tuple[str, ...]
    variables_changed: tuple[str, ...]
    family_changed: bool

    @property
    def same(self) -> bool:
        """Whether nothing changed that shows in a rendered prompt."""
        changed = self.variables_added or self.variables_removed or self.variables_changed
        return not (self.text or changed or self.family_changed)


def diff(a: PromptTemplate, b: PromptTemplate) -> TemplateDiff:
    """Tell what changes from `a` to `b`; a variable has changed when anything but its doc differs."""
    before = {one.name: {**asdict(one), "doc": ""} for one in a.variables}
    after = {one.name: {**asdict(one), "doc": ""} for one in b.variables}
    lines = difflib.unified_diff(a.text.split("\n"), b.text.split("\n"), str(a), str(b), lineterm="")
    return TemplateDiff(
        text="\n".join(lines),
        variables_added=tuple(sorted(after.keys() - before.keys())),
        variables_removed=tuple(sorted(before.keys() - after.keys())),
        variables_changed=tuple(sorted(name for name in before.keys() & after.keys() if before[name] != after[name])),
        family_changed=a.family != b.family,
    )


# Experiments


def choose(weights: Mapping[str, float], key: str) -> str:
    """Pick one of the names in proportion to the weights; the same key gets the same name on every machine.

    Weighted rendezvous hashing: the highest -weight / ln(u) wins, where u comes from the SHA-256 of
    the name and the key. A name whose share grows against every other's keeps all its keys. Put the
    experiment's name into the key, or the same users meet the new version of everything.

    >>> choose({"1.0.0": 0.9, "1.1.0": 0.1}, "qa_basic/u1")
    '1.0.0'
    """
    problems = list(_weight_problems(weights))
    if problems:
        raise TemplateError("; ".join(problems))
    return max(sorted(weights), key=lambda name: -weights[name] / math.log(_uniform(name, key)))


def _weight_problems(weights: Mapping[str, float]) -> Iterator[str]:
    if not weights:
        yield "no weights: give each version a share, like 1.0.0=0.9 and 1.1.0=0.1"
        return
    wrong = {name: weight for name, weight in weights.items() if not _positive(weight)}
    yield from (
        f"weight of {name!r} is {_brief(weight)}: give a share above 0, at most 1" for name, weight in wrong.items()
    )
    if not wrong and not math.isclose(total := math.fsum(weights.values()), 1, rel_tol=0, abs_tol=_ROUNDING):
        yield f"weights {dict(weights)} sum to {total:g}: make it 1"


def _positive(weight: object) -> bool:
    return isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight <= 1 + _ROUNDING


def _uniform(name: str, key: str) -> float:
    """Draw the number strictly between 0 and 1 that a name and a key decide."""
    digest = hashlib.sha256(f"{name}\0{key}".encode(errors="surrogatepass")).digest()
    return ((int.from_bytes(digest[:8]) >> 12) + 0.5) / 2**52


# Rendering


def render(template: PromptTemplate, values: Mapping[str, object]) -> Rendered:
    """Put the values in place; when any does not fit, one error names every problem."""
    plan = template.compiled
    texts = dict(plan.defaults)
    problems = []
    for name, value in values.items():
        variable = plan.variables.get(name)
        if variable is None:
            problems.append(f"unknown variable {_brief(name)}{_nearest(name, plan.variables)}")
            continue
        try:
            texts[name] = _inserted(variable, value)
        except TemplateError as error:
            problems.append(str(error))
    if problems or len(texts) != len(plan.variables):
        missing = [
            f"variable {name!r} is missing" for name in plan.variables if name not in texts and name not in values
        ]
        raise TemplateError(f"{template}: " + "; ".join(missing + problems))
    messages = tuple(Message(role, _joined(parts, texts)) for role, parts in plan.messages)
    return Rendered("\n\n".join(message.text for message in messages), messages)


def _parts(text: str) -> tuple[str, ...]:
    """Split a text: literal parts at even places, variable names at odd ones."""
    parts: list[str] = []
    run: list[str] = []
    end = 0
    for match in _BRACES.finditer(text):
        run.append(text[end : match.start()])
        end = match.end()
        if match["literal"]:
            run.append("{" + match["literal"] + "}")
            continue
        parts += ["".join(run), match["name"]]
        run = []
    return (*parts, "".join(run) + text[end:])


def _joined(parts: tuple[str, ...], texts: Mapping[str, str]) -> str:
    pieces = list(parts)
    pieces[1::2] = [texts[name] for name in parts[1::2]]
    return "".join(pieces)


def _inserted(variable: Variable, value: object) -> str:
    """Turn a value into the text that stands for it; messages tell its type and length, never the value itself."""
    try:
        text = _SHOWN[variable.type](value)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"variable {variable.name!r} {error}"
        raise TemplateError(message) from None
    if variable.max_length is not None and len(text) > variable.max_length:
        message = f"variable {variable.name!r} has {len(text)} characters, at most {variable.max_length} fit"
        raise TemplateError(message)
    if not text.isascii() and not _encodes(text):
        message = f"variable {variable.name!r} is not Unicode text: it holds half of a surrogate pair"
        raise TemplateError(message)
    return text


def _default_text(variable: Variable) -> str:
    return "" if variable.default is None else _inserted(variable, variable.default)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_WORDS = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "a list",
    tuple: "a list",
    dict: "an object",
    type(None): "null",
}


def _refuse_type(wanted: str, value: object) -> NoReturn:
    given = _WORDS.get(type(value), f"a value of type {type(value).__name__}")
    message = f"takes {wanted}, not {given}"
    raise TypeError(message)


# Each calls the builtin type's own method, so that a subclass cannot run code of its own in a prompt.


def _string(value: object) -> str:
    if not isinstance(value, str):
        _refuse_type("a string", value)
    return str.__str__(value)


def _integer(value: object) -> str:
    if not isinstance(value, int) or isinstance(value, bool):
        _refuse_type("an integer", value)
    if not -(2**63) <= value < 2**63:
        message = "takes an integer of at most 64 bits"
        raise ValueError(message)
    return int.__repr__(value)


def _number(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return _integer(value)
    if not isinstance(value, float):
        _refuse_type("a number", value)
    if not math.isfinite(value):
        message = "takes a finite number, not NaN or infinity"
        raise ValueError(message)
    return float.__repr__(value)


def _boolean(value: object) -> str:
    if not isinstance(value, bool):
        _refuse_type("a boolean", value)
    return "true" if value else "false"


def _list(value: object) -> str:
    if not isinstance(value, list | tuple):
        _refuse_type("a list", value)
    return "\n".join(f"- {_item(item)}" for item in value)


def _item(value: object) -> str:
    if isinstance(value, bool):
        return _boolean(value)
    if isinstance(value, int | float):
        return _number(value)
    if not isinstance(value, str):
        _refuse_type("a list of strings, numbers and booleans", value)
    return _string(value)


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"takes what JSON can say: {error}"
        raise ValueError(message) from None


_SHOWN: Mapping[str, Callable[[object], str]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "list": _list,
    "json": _json,
}


# Reading


def read_folder(folder: Path) -> tuple[PromptTemplate, ...]:
    """Read every template in the folder's `*.md` files, by id and then by version.

    Hidden files and subfolders are left alone. Two files with one id and version are an error.
    """
    if not folder.is_dir():
        message = f"{folder}: there is no such folder of templates; create it, or change its setting"
        raise TemplateError(message)
    paths = [path for path in folder.glob("*.md") if not path.name.startswith(".") and not path.is_dir()]
    read = sorted(
        ((path, read_file(path)) for path in paths),
        key=lambda one: (one[1].template_id, version_key(one[1].version), one[0].name),
    )
    for (first, a), (second, b) in pairwise(read):
        _refuse_twice(first, a, second, b)
    return tuple(template for _, template in read)


def _refuse_twice(first: Path, a: PromptTemplate, second: Path, b: PromptTemplate) -> None:
    if (a.template_id, version_key(a.version)) != (b.template_id, version_key(b.version)):
        return
    if a.content_hash == b.content_hash:
        message = f"{first} and {second} both hold {a}; delete one of them"
    else:
        message = (
            f"{first} and {second} differ, and both say that they are {a}; give one version {next_version(a.version)}"
        )
    raise TemplateError(message)


def read_file(path: Path) -> PromptTemplate:
    """Read the template in one file of UTF-8, at most 1 MiB long."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}"
        raise TemplateError(message) from error
    _refuse_size(len(data), origin=str(path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8"
        raise TemplateError(message) from None
    return parse(text, origin=str(path))


def parse(text: str, *, origin: str) -> PromptTemplate:
    """Read the template that a text describes; `origin`, its file for most, opens every error message."""
    if not _encodes(text):
        message = f"{origin}: not Unicode text: it holds half of a surrogate pair"
        raise TemplateError(message)
    _refuse_size(len(text.encode()), origin=origin)
    head, body = _divided(text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), origin)
    front = _front(head, origin)
    _refuse(_front_problems(front), origin)
    _refuse(_section_problems(body), origin)
    template = _template(front, body)
    _refuse(_template_problems(template), origin)
    return template


def _refuse(problems: Iterable[str], origin: str) -> None:
    found = list(islice(problems, _MAX_PROBLEMS + 1))
    if len(found) > _MAX_PROBLEMS:
        found[_MAX_PROBLEMS:] = ["and more"]
    if found:
        raise TemplateError(f"{origin}: " + "; ".join(found))


def _refuse_size(size: int, *, origin: str) -> None:
    if size > _MAX_BYTES:
        message = f"{origin}: a template has at most 1 MiB; pass what is long as a variable"
        raise TemplateError(message)


def _divided(text: str, origin: str) -> tuple[str, str]:
    match = _FRONT.match(text)
    if match is None:
        message = f"{origin}: no front matter; open the file with id, version and variables between two lines '---'"
        raise TemplateError(message)
    if len(match[1]) > _MAX_FRONT:
        message = f"{origin}: the front matter has at most {_MAX_FRONT:,} characters, not {len(match[1]):,}"
        raise TemplateError(message)
    return match[1], text[match.end() :]


def _front(head: str, origin: str) -> Mapping[object, object]:
    import yaml

    try:
        node = yaml.compose(head, Loader=yaml.SafeLoader)
        _refuse(_node_problems(node), origin)
        front = yaml.safe_load(head)
    except TemplateError:
        raise
    # The safe loader lets plain errors out of odd scalars: 2024-99-99, !!bool perhaps, deep nesting.
    except (
        yaml.YAMLError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        TypeError,
        RecursionError,
    ) as error:
        message = f"{origin}: the front matter is not YAML: {_yaml_reason(error)}"
        raise TemplateError(message) from None
    if not isinstance(front, dict):
        message = f"{origin}: the front matter is not a mapping; write lines such as 'id: qa_basic'"
        raise TemplateError(message)
    return front


def _yaml_reason(error: Exception) -> str:
    """Tell what the loader stumbled over, on one line, with the line of the file where it knows it."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"line {mark.line + 2}: {reason}" if mark else reason


def _node_problems(root: yaml.Node | None) -> Iterator[str]:
    """Find keys given twice, which the loader would pass over, and aliases, which can grow without bound."""
    import yaml

    seen: set[int] = set()
    waiting = [root] if root else []
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            yield f"line {node.start_mark.line + 2}: YAML aliases are not read; write the value out"
            return
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            count = Counter(key.value for key in keys)
            yield from (f"{_brief(key)} is given {n} times" for key, n in count.items() if n > 1)
            waiting += [one for pair in node.value for one in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _front_problems(front: Mapping[object, object]) -> Iterator[str]:
    yield from (f"unknown key {_brief(key)}{_nearest(key, _KEYS)}" for key in front if key not in _KEYS)
    yield from (f"{key} is missing" for key in ("id", "version") if key not in front)
    if "id" in front:
        yield from _id_problems(front["id"])
    if "version" in front:
        yield from _version_problems(front["version"])
    family = front.get("family", "general")
    if family not in FAMILIES:
        yield f"family {_brief(family)} is unknown{_nearest(family, FAMILIES)}"
    if not isinstance(front.get("doc", ""), str):
        yield "doc is not text; put it in quotes"
    yield from _declaration_problems(front.get("variables"))


def _id_problems(value: object) -> Iterator[str]:
    try:
        checked_name(value, "id")  # type: ignore[arg-type]  # it tells what is no string, too
    except DeclarationError as error:
        yield str(error)


def _version_problems(value: object) -> Iterator[str]:
    if isinstance(value, float):
        yield f"version {value} is a number to YAML, to which 1.10 is 1.1; put it in quotes"
        return
    try:
        version_key(_version_text(value))  # type: ignore[arg-type]  # it tells what is no string, too
    except TemplateError as error:
        yield str(error)


def _version_text(value: object) -> object:
    """Take `version: 2` for the version "2"; what is no version stays for `version_key` to refuse."""
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9
    return str(value) if whole else value


def _pairs(declared: object) -> list[tuple[Any, Any]]:
    """Pair names with their options, from either way to write `variables`."""
    if isinstance(declared, dict):
        return [(name, {} if options is None else options) for name, options in declared.items()]
    return [(name, {}) for name in declared] if isinstance(declared, list) else []


def _declaration_problems(declared: object) -> Iterator[str]:
    if declared is not None and not isinstance(declared, list | dict):
        yield f"variables is {_brief(declared)}: write a list of names, or a mapping from names to options"
    pairs = _pairs(declared)
    for name, options in pairs:
        if not isinstance(name, str) or not re.fullmatch(_IDENTIFIER, name):
            yield f"variable {_brief(name)}: a name has letters a to z, digits and underscores, and starts with no digit"
        elif not isinstance(options, dict):
            yield f"variable {name!r}: its options are {_brief(options)}; write them as a mapping, such as 'type: string'"
        else:
            yield from (f"variable {name!r}: {problem}" for problem in _option_problems(options))
    names = Counter(name for name, _ in pairs if isinstance(name, str))
    yield from (f"variable {_brief(name)} is declared {n} times" for name, n in names.items() if n > 1)


def _option_problems(options: Mapping[object, object]) -> Iterator[str]:
    yield from (f"unknown option {_brief(key)}{_nearest(key, _OPTIONS)}" for key in options if key not in _OPTIONS)
    kind = options.get("type", "string")
    if kind not in TYPES:
        yield f"type {_brief(kind)} is unknown{_nearest(kind, TYPES)}"
    if not isinstance(options.get("required", True), bool):
        yield f"required is {_brief(options['required'])}; write true or false"
    if options.get("required") is True and "default" in options:
        yield "it is required, so its default would never be used; drop one of the two"
    limit = options.get("max_length", 1)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        yield f"max_length is {_brief(limit)}; write a whole number of characters above 0"
    if not isinstance(options.get("doc", ""), str):
        yield "doc is not text; put it in quotes"


def _section_problems(body: str) -> Iterator[str]:
    before, *sections = _SECTION.split(body)
    if not sections and not before.strip():
        yield "there is no text below the front matter"
    if sections and before.strip():
        yield f"text stands before the section '## {sections[0]}'; move it into a section"
    roles = sections[0::2]
    for role, text in zip(roles, sections[1::2], strict=True):
        if role not in _ROLES:
            yield f"section '## {role}' is written '## {role.lower()}', in small letters"
        if not text.strip():
            yield f"section '## {role}' is empty"
    if "system" in roles[1:]:
        yield "the section '## system' comes first, and once"


def _template(front: Mapping[object, object], body: str) -> PromptTemplate:
    before, *sections = _SECTION.split(body)
    plain = (Message("user", before.strip("\n")),)
    chat = tuple(Message(role, text.strip("\n")) for role, text in zip(sections[0::2], sections[1::2], strict=True))
    return PromptTemplate(
        template_id=str(front["id"]),
        version=str(_version_text(front["version"])),
        family=str(front.get("family", "general")),
        variables=tuple(_variable(name, options) for name, options in _pairs(front.get("variables"))),
        messages=chat or plain,
        is_chat=bool(chat),
        doc=str(front.get("doc", "")).strip(),
    )


def _variable(name: str, options: Mapping[str, Any]) -> Variable:
    return Variable(
        name=name,
        type=options.get("type", "string"),
        required=options.get("required", "default" not in options),
        default=options.get("default"),
        max_length=options.get("max_length"),
        doc=options.get("doc", "").strip(),
    )


def _template_problems(template: PromptTemplate) -> Iterator[str]:
    declared = [one.name for one in template.variables]
    used = list(dict.fromkeys(name for message in template.messages for name in _parts(message.text)[1::2]))
    for name in used:
        if name not in declared:
            yield f"the text uses {{{name}}}, which is not declared: add it to variables, or write {{{{{name}}}}} for plain text"
    for name in declared:
        if name not in used:
            yield f"variable {name!r} is declared and never used: write {{{name}}} in the text, or remove it"
    wanted = _FIXED.get(template.template_id)
    if wanted and set(wanted) != set(declared):
        has = ", ".join(declared) or "none"
        yield f"{template.template_id} has exactly the variables {', '.join(wanted)}, not {has}; use another id"
    for variable in template.variables:
        yield from _variable_problems(variable)


def _variable_problems(variable: Variable) -> Iterator[str]:
    types = RESERVED.get(variable.name, TYPES)
    if variable.type not in types:
        yield f"variable {variable.name!r} is filled in by Lodestore: its type is {' or '.join(types)}, not {variable.type}"
    try:
        _default_text(variable)
    except TemplateError as error:
        yield f"default: {error}"
        return
    if json.loads(json.dumps(variable.default)) != variable.default:
        yield f"default: variable {variable.name!r} takes what JSON can say: put an object's keys in quotes"


def _nearest(given: object, known: Iterable[str]) -> str:
    return nearest(given if isinstance(given, str) else _brief(given), known)


def _brief(value: object) -> str:
    """Show a value in a message, cut to a line."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a very long {type(value).__name__}"
