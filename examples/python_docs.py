"""The default corpus: what every CPython ships about itself. Nothing is downloaded.

Two sources of documents: the topics of the language reference that `help()` shows, and the
docstrings of the standard library's modules.
"""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

__all__ = ["modules", "topics"]

_PRIVATE = frozenset({"test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "site-packages", "pydoc_data"})
_BEFORE = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING})
_DEEPEST = 2  # json, json.decoder; what lies deeper is detail


def topics() -> Iterator[dict[str, str]]:
    """One document per topic of the language reference."""
    from pydoc_data.topics import topics as texts

    for name, text in sorted(texts.items()):
        yield {"id": name, "title": _heading(text) or name, "text": text, "category": "reference"}


def _heading(text: str) -> str:
    first = text.strip().splitlines()[0]
    return first if len(first) < 100 else ""  # noqa: PLR2004 - a line that long is no heading


def modules() -> Iterator[dict[str, str]]:
    """One document per public module of the standard library that says what it is for."""
    library = Path(sysconfig.get_path("stdlib"))
    # No deeper than asked: below lie thousands of files, site-packages among them.
    found = [path for depth in range(_DEEPEST) for path in library.glob("*/" * depth + "*.py")]
    for path in sorted([*found, *library.glob("*/" * _DEEPEST + "__init__.py")]):
        name = _module(path.relative_to(library))
        if name is None:
            continue
        said = _docstring(path)
        if len(said) > 120:  # noqa: PLR2004 - shorter ones only repeat the name
            yield {"id": name, "title": f"Module {name}", "text": said, "category": "library"}


def _module(path: Path) -> str | None:
    parts = [part.removesuffix(".py") for part in path.parts if part != "__init__.py"]
    hidden = any(part.startswith("_") or part in _PRIVATE for part in parts)
    if hidden or not parts or len(parts) > _DEEPEST or parts[0] not in sys.stdlib_module_names:
        return None
    return ".".join(parts)


def _docstring(path: Path) -> str:
    """The module's first string, without parsing what comes after it."""
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.STRING:
                said = ast.literal_eval(token.string)
                return inspect.cleandoc(said) if isinstance(said, str) else ""
            if token.type not in _BEFORE:
                break
    return ""
