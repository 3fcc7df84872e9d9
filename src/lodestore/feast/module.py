"""Declarations as the text of a Python module: the same values give the same bytes, in the formatter's own form.

Texts from outside are only ever string literals and comments, so that nothing of them can run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from hashlib import sha256
from keyword import iskeyword, issoftkeyword

import lodestore
from lodestore.feast.services import Stub
from lodestore.feast.translation import Translation
from lodestore.spec import Entity, Feature, FeatureRef, FeatureService, FeatureView, Kind, Source

__all__ = ["came_from", "declares", "is_untouched", "literal", "module_text"]

_MARK = "# lodestore import feast: "
_ORIGIN = "# of "
_INTRO = '''"""What came from a Feast repository{project}.

Written by `lodestore import feast`, which writes it anew when it is called again, unless it was changed since: the
first line tells. Leave it as it is, and put what is yours into another module.
"""
'''
_WIDTH = 96  # well below the formatter's, which counts wide characters as two
_INDENT = "    "
_KINDS = {"FeatureView": "feature view", "FeatureService": "feature service"}
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
_CONSTRUCTORS: Mapping[Kind, str] = {
    Kind.TEXT: "text",
    Kind.INTEGER: "integer",
    Kind.NUMBER: "number",
    Kind.BOOLEAN: "boolean",
    Kind.TIMESTAMP: "timestamp",
    Kind.STRUCT: "struct",
    Kind.LIST: "list_of",
}

_ANNOTATIONS: Mapping[Kind, str] = {
    Kind.TEXT: "str",
    Kind.INTEGER: "int",
    Kind.NUMBER: "float",
    Kind.BOOLEAN: "bool",
    Kind.TIMESTAMP: "object",
    Kind.STRUCT: "Mapping[str, object]",
    Kind.LIST: "list[object]",
}


def module_text(translation: Translation) -> str:
    """The module that declares all of it, with a first line that tells whether somebody changed the rest."""
    body = "".join(_body(translation))
    return f"{_MARK}{_digest(body)}\n{body}"


def is_untouched(text: str) -> bool:
    """Whether the text is that of a written module, as it was written."""
    first, _, body = text.partition("\n")
    return first == f"{_MARK}{_digest(body)}"


def came_from(text: str) -> str:
    """The line that tells of which repository a module was written, with which prefix; empty where there is none."""
    line = text.split("\n", 2)[1:2]
    return line[0] if text.startswith(_MARK) and line and line[0].startswith(_ORIGIN) else ""


def declares(text: str) -> list[tuple[str, str]]:
    r"""The kinds and names of the views and services that a written module declares; none of another's, or a broken one.

    >>> declares('# lodestore import feast: 0\ntrips = FeatureView("trips", entity=driver)')
    [('feature view', 'trips')]
    """
    try:
        body = ast.parse(text).body if text.startswith(_MARK) else []
    except (SyntaxError, ValueError, RecursionError):
        return []
    calls = [one.value for one in body if isinstance(one, ast.Assign) and isinstance(one.value, ast.Call)]
    named = [(one.func.id, one.args[0]) for one in calls if isinstance(one.func, ast.Name) and one.args]
    told = [(_KINDS[func], one.value) for func, one in named if func in _KINDS and isinstance(one, ast.Constant)]
    return [(kind, str(name)) for kind, name in told]


def _digest(body: str) -> str:
    return sha256(body.encode()).hexdigest()[:32]


def _body(translation: Translation) -> Iterator[str]:
    names = _Variables()
    entities = {one.name: names.take(one.name, "entity") for one in translation.entities}
    views = {one.name: names.take(one.name, "view") for one in translation.views}
    parts = [_assigned(entities[one.name], *_entity(one)) for one in translation.entities]
    parts += [_assigned(views[one.name], *_view(one, entities[one.entity.name])) for one in translation.views]
    parts += [_assigned(names.take(one.name, "service"), *_service(one, views)) for one in translation.services]
    project = (
        f", the project {literal(translation.project)}" if re.fullmatch(r"[\w-]{1,60}", translation.project) else ""
    )
    yield f"{_ORIGIN}{literal(translation.repository)}, prefix {literal(translation.prefix)}\n"
    yield _INTRO.format(project=project)
    code = "\n".join(parts)
    yield from _imports(code)
    if code:
        yield f"\n{code}"
    kinds = {FeatureRef(one.name, name): each for one in translation.views for name, each in one.features.items()}
    for stub in translation.stubs:
        yield "\n" + "".join(f"# {line}".rstrip() + "\n" for line in _commented(stub, views, kinds))


class _Variables:
    """Names of variables, each given once: no keywords, nothing that the module imports."""

    def __init__(self) -> None:
        self._taken = {"timedelta", *lodestore.__all__}

    def take(self, name: str, kind: str) -> str:
        """The name itself where it is free and can be a variable, and otherwise one that also says what it is."""
        fits = name.isidentifier() and not iskeyword(name) and not issoftkeyword(name)
        given = name if fits else f"{kind}_{name}"
        while given in self._taken:
            given = f"{given}_{kind}"
        self._taken.add(given)
        return given


def _imports(code: str) -> Iterator[str]:
    """The imports that the code needs, in the order that linters want."""
    words = {*re.findall(r"\b\w+(?=\()|Source(?=\.)", _without_literals(code))}
    if "timedelta" in words:
        yield "\nfrom datetime import timedelta\n"
    used = sorted(words & {"Entity", "FeatureService", "FeatureView", "Source", *_CONSTRUCTORS.values()})
    if used:
        line = f"from lodestore import {', '.join(used)}\n"
        yield "\n" + (line if len(line) <= _WIDTH else f"from lodestore import ({_listed(used)})\n")


def _without_literals(code: str) -> str:
    return re.sub(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', '""', code)


def _listed(names: Iterable[str]) -> str:
    return "\n" + "".join(f"{_INDENT}{one},\n" for one in names)


# Values as source text


def literal(text: str) -> str:
    r"""The text as a string literal on one line, in the quotes that the formatter prefers.

    >>> print(literal('say "hi"'), literal("it's"), literal("a\nb\x00"))
    'say "hi"' "it's" "a\nb\x00"
    """
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + "".join(_escaped(one, quote) for one in text) + quote


def _escaped(one: str, quote: str) -> str:
    if one in _ESCAPES:
        return _ESCAPES[one]
    if one == quote:
        return f"\\{one}"
    if one.isprintable():
        return one
    code = ord(one)
    return f"\\x{code:02x}" if code < 1 << 8 else f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def _assigned(variable: str, name: str, arguments: list[str]) -> str:
    """An assignment: on one line where it is short, and otherwise one line an argument."""
    line = f"{variable} = {name}({', '.join(arguments)})\n"
    if len(line) <= _WIDTH and "\n" not in line[:-1]:
        return line
    return f"{variable} = {name}({_listed(arguments)})\n"


def _entity(one: Entity) -> tuple[str, list[str]]:
    single = len(one.keys) == 1
    arguments = [literal(one.name), f"key={literal(one.keys[0]) if single else _tuple(one.keys)}"]
    if set(one.types) == {"integer"}:
        arguments.append('type="integer"')
    elif set(one.types) != {"string"}:
        arguments.append(f"type={_tuple(one.types)}")
    return "Entity", arguments + _doc(one.doc)


def _tuple(texts: Iterable[str]) -> str:
    words = [literal(one) for one in texts]
    line = f"({', '.join(words)})"
    if len(line) <= _WIDTH - 2 * len(_INDENT):
        return line
    lines = "".join(f"{_INDENT * 2}{one},\n" for one in words)
    return f"(\n{lines}{_INDENT})"


def _doc(text: str) -> list[str]:
    return [f"doc={literal(text)}"] if text else []


def _view(one: FeatureView, entity: str) -> tuple[str, list[str]]:
    arguments = [literal(one.name), f"entity={entity}"]
    if one.version != 1:
        arguments.append(f"version={one.version}")
    if one.owner:
        arguments.append(f"owner={literal(one.owner)}")
    if one.source is not Source.BATCH:
        arguments.append(f"source=Source.{one.source.name}")
    if one.ttl is not None:
        arguments.append(f"ttl={_span(one.ttl)}")
    return "FeatureView", [*arguments, *_doc(one.doc), f"features={_features(one.features, 1)}"]


def _span(span: timedelta) -> str:
    """The span in the greatest unit that it is whole in; microseconds apart.

    >>> _span(timedelta(days=2)), _span(timedelta(hours=36)), _span(timedelta(seconds=90, microseconds=5))
    ('timedelta(days=2)', 'timedelta(hours=36)', 'timedelta(seconds=90, microseconds=5)')
    """
    seconds = span.days * 86_400 + span.seconds
    units = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}
    unit, size = next((unit, size) for unit, size in units.items() if seconds % size == 0)
    parts = [f"{unit}={seconds // size}"] if seconds else []
    parts += [f"microseconds={span.microseconds}"] if span.microseconds else []
    return f"timedelta({', '.join(parts)})"


def _features(features: Mapping[str, Feature], depth: int) -> str:
    margin = _INDENT * (depth + 1)
    lines = []
    for name, one in features.items():
        line = f"{margin}{literal(name)}: {_feature(one)},\n"
        if len(line) > _WIDTH and _arguments(one):
            inner = "".join(f"{margin}{_INDENT}{part},\n" for part in _arguments(one))
            line = f"{margin}{literal(name)}: {_CONSTRUCTORS[one.kind]}(\n{inner}{margin}),\n"
        lines.append(line)
    return f"{{\n{''.join(lines)}{_INDENT * depth}}}"


def _feature(one: Feature) -> str:
    return f"{_CONSTRUCTORS[one.kind]}({', '.join(_arguments(one))})"


def _arguments(one: Feature) -> list[str]:
    arguments = [] if one.item is None else [_feature(one.item)]
    arguments += ["wide=True"] if one.wide else []
    arguments += _doc(one.doc)
    return arguments + (["pii=True"] if one.pii else [])


def _service(one: FeatureService, views: Mapping[str, str]) -> tuple[str, list[str]]:
    refs = "".join(f"{_INDENT * 2}{_ref(ref, views)},\n" for ref in one.features)
    owner = [f"owner={literal(one.owner)}"] if one.owner else []
    return "FeatureService", [literal(one.name), f"[\n{refs}{_INDENT}]", *owner, *_doc(one.doc)]


def _ref(ref: FeatureRef, views: Mapping[str, str]) -> str:
    """The reference by its view, so that a wrong one is found at once; a long one as text, which no formatter breaks."""
    short = _subscript(ref, views)
    return short if len(short) <= _WIDTH else literal(str(ref))


def _subscript(ref: FeatureRef, views: Mapping[str, str]) -> str:
    return f"{views[ref.view]}[{literal(ref.feature)}]"


# On-demand views, as comments


def _commented(stub: Stub, views: Mapping[str, str], kinds: Mapping[FeatureRef, Feature]) -> Iterator[str]:
    """The declaration without a body, then Feast's function, line by line; a comment cannot be left from within."""
    yield f"The on-demand view {stub.name}: write its function in a module of yours, from"
    yield f"    from collections.abc import Mapping; from lodestore import on_demand, {', '.join(_used(stub)) or 'text'}"
    yield ""
    yield from _declaration(stub, views, kinds)
    yield ""
    yield "What Feast ran:"
    for line in stub.code.splitlines() or ["(its text cannot be had)"]:
        yield "    " + "".join(one if one.isprintable() else _escaped(one, "") for one in line)


def _used(stub: Stub) -> list[str]:
    kinds = {one.kind for one in (*stub.inputs.values(), *stub.features.values())}
    kinds |= {one.item.kind for one in (*stub.inputs.values(), *stub.features.values()) if one.item is not None}
    return sorted(_CONSTRUCTORS[kind] for kind in kinds)


def _declaration(stub: Stub, views: Mapping[str, str], kinds: Mapping[FeatureRef, Feature]) -> Iterator[str]:
    yield "@on_demand("
    if stub.reads:
        yield from ("    reads=(", *(f"        {_subscript(ref, views)}," for ref in stub.reads), "    ),")
    if stub.inputs:
        yield from f"    inputs={_features(stub.inputs, 1)},".splitlines()
    yield from f"    features={_features(stub.features, 1)},".splitlines()
    yield ")"
    given = {**{ref.feature: kinds[ref] for ref in stub.reads}, **stub.inputs}
    yield f"def {stub.name}("
    yield from (f"    {name}: {_ANNOTATIONS[one.kind]} | None," for name, one in given.items())
    yield ") -> Mapping[str, object]:"
    yield f"    return {{{', '.join(f'{literal(name)}: ...' for name in stub.features)}}}"
