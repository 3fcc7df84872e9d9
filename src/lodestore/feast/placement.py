"""Where an import goes: the module among the project's features, and the event files in lodestore.toml.

Both are marked with a hash of what was written. What somebody changed since is not written over.
"""

from __future__ import annotations

import codecs
import importlib.util
import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from lodestore.errors import DeclarationError, RefusedError, StoreWriteError
from lodestore.events import EventSource
from lodestore.feast.module import came_from, declares, is_untouched, module_text
from lodestore.feast.names import Names, valid
from lodestore.feast.report import Remark
from lodestore.feast.translation import Translation
from lodestore.settings import Settings

__all__ = ["Page", "Placement", "event_sections", "module_of", "place", "place_module", "removed", "write"]

_BEGIN = "# lodestore import feast: {digest} {name}\n"
_END = "# end of {name}\n"
_SECTION = re.compile(r"^[ \t]*\[features\][ \t]*(?:#.*)?$", re.MULTILINE)
_MODULES = re.compile(r"^[ \t]*modules[ \t]*=[ \t]*\[", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """A file as it is to be; `before` is None where there is none yet.

    `foreign` tells why it is written with --force only: somebody else wrote it, or it loses what `removed` lists, by
    kind and name.
    """

    path: Path
    before: str | None
    after: str
    foreign: str = ""
    removed: tuple[tuple[str, str], ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything has to be written."""
        return self.before != self.after


@dataclass(frozen=True, slots=True)
class Placement:
    """The module by its dotted name, the sections of the settings, and the files that say so."""

    module: str
    sections: str
    pages: tuple[Page, ...]


def module_of(settings: Settings, project: str, *, name: str | None = None) -> str:
    """The dotted name of the module: in the first folder of modules that the settings name, or else beside them."""
    word = _module_name(name or f"feast_{valid(project)}")
    folders = [one for one in settings.features.modules if (settings.root / one.replace(".", "/")).is_dir()]
    return f"{folders[0]}.{word}" if folders else word


def place(settings: Settings, translation: Translation, *, name: str | None = None) -> Placement:
    """What the project's files have to say. Nothing is written."""
    module = module_of(settings, translation.project, name=name)
    folder, _, word = module.rpartition(".")
    text = settings.file.read_text(encoding="utf-8-sig")
    base, inner, foreign = _without_block(text, word, settings.file)
    tree = tomllib.loads(base)
    path = settings.root / f"{module.replace('.', '/')}.py"
    if not folder:
        _refuse_shadow(word, path)
    wanted = [] if folder or module in tree.get("features", {}).get("modules", []) else [module]
    sections = event_sections(_renamed(translation.events, tree))
    after = _settings_text(base, tree, word, sections, wanted, settings.file)
    gone = _sections_gone(inner, sections)
    why = [*([foreign] if foreign else []), *_taken_away(settings.file, gone)]
    pages = (_page(path, module_text(translation)), Page(settings.file, text, after, "; ".join(why), gone))
    return Placement(module, sections, pages)


def place_module(path: Path, translation: Translation) -> Placement:
    """The module alone, in a file of any name; the settings stay as they are."""
    return Placement(path.stem, event_sections(translation.events), (_page(path, module_text(translation)),))


def removed(placement: Placement) -> list[Remark]:
    """A line about each view, service and section of an earlier import that this one does not have."""
    what = "an earlier import wrote it, and this one does not: it goes"
    mend = "--force takes it away; --module NAME writes another module beside it"
    return [Remark(kind, name, "left", what, mend) for page in placement.pages for kind, name in page.removed]


def write(placement: Placement, *, force: bool = False) -> list[Path]:
    """The pages that change are written, each whole or not at all; returns which. `force` writes over what was changed."""
    due = [page for page in placement.pages if page.changed]
    foreign = [page.foreign for page in due if page.foreign]
    if foreign and not force:
        raise RefusedError("; ".join(foreign))
    for page in due:
        try:
            _write(page.path, page.after)
        except OSError as error:
            message = f"{page.path} cannot be written ({error.strerror}); change the rights, or name another place"
            raise StoreWriteError(message) from error
    return [page.path for page in due]


def _write(path: Path, text: str) -> None:
    """The file has the text, with the mark, the line ends and the rights that it had; a failure leaves nothing beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.exists() else b""
    ends = "\r\n" if before.count(b"\r\n") * 2 > before.count(b"\n") else "\n"
    mark = codecs.BOM_UTF8 if before.startswith(codecs.BOM_UTF8) else b""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_bytes(mark + text.replace("\n", ends).encode())
        if path.exists():
            shutil.copymode(path, beside)
        os.replace(beside, path)  # noqa: PTH105 - what it says, on every system
    finally:
        beside.unlink(missing_ok=True)


def _module_name(name: str) -> str:
    if not name.isidentifier() or not name.isascii():
        message = f"--module {name!r}: a module's name has letters, digits and underscores, such as feast_import"
        raise DeclarationError(message)
    return name


def _refuse_shadow(name: str, path: Path) -> None:
    """A module of the project must not stand before one that other code means."""
    found = importlib.util.find_spec(name)
    if found is not None and found.origin != str(path):
        message = f"--module {name}: another module has this name ({found.origin}); name it otherwise"
        raise RefusedError(message)


def _page(path: Path, text: str) -> Page:
    try:
        before = path.read_bytes().decode("utf-8-sig", "replace").replace("\r\n", "\n") if path.exists() else None
    except OSError as error:
        message = f"{path} cannot be read: {error}"
        raise RefusedError(message) from error
    if before is None:
        return Page(path, before, text)
    gone = tuple(one for one in declares(before) if one not in set(declares(text)))
    why = []
    if not is_untouched(before):
        why.append(
            f"{path} is not as `lodestore import feast` wrote it; name another module with --module, or write over it "
            "with --force"
        )
    if came_from(before) not in {"", came_from(text)}:
        why.append(
            f"{path} came {came_from(before).removeprefix('# ')}, and this import is {came_from(text).removeprefix('# ')}; name "
            "a module of its own with --module, or write over it with --force"
        )
    return Page(path, before, text, "; ".join([*why, *_taken_away(path, gone)]), gone)


def _taken_away(path: Path, gone: Sequence[tuple[str, str]]) -> list[str]:
    if not gone:
        return []
    named = ", ".join(f"{kind} {name}" for kind, name in gone)
    return [f"{path} loses {named}, which this import does not have; --force takes that away"]


# Settings


def event_sections(events: Sequence[EventSource]) -> str:
    """The `[[events]]` sections of lodestore.toml."""
    return "\n".join("".join(f"{line}\n" for line in _section(one)) for one in events)


def _section(one: EventSource) -> Iterator[str]:
    yield "[[events]]"
    yield f"name = {_toml(one.name)}"
    yield f"view = {_toml(one.view)}"
    yield f"uri = {_toml(one.uri)}"
    if one.columns:
        pairs = ", ".join(f"{ours} = {_toml(theirs)}" for ours, theirs in one.columns.items())
        yield f"columns = {{ {pairs} }}"
    if one.ignore:
        yield f"ignore = [{', '.join(map(_toml, one.ignore))}]"
    if one.zone:
        yield f"zone = {_toml(one.zone)}"


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _renamed(events: Sequence[EventSource], tree: Mapping[str, Any]) -> list[EventSource]:
    """The same under names that the project's own sections do not have."""
    own = tree.get("events", [])
    taken = [str(one.get("name")) for one in own if isinstance(one, dict)] if isinstance(own, list) else []
    names = Names(reserved=taken, suffix="feast", known=[one.name for one in events])
    return [replace(one, name=names.take(one.name)) for one in events]


def _block(text: str, name: str) -> re.Match[str] | None:
    pattern = rf"\n?^# lodestore import feast: (\w+) {re.escape(name)}\n(.*?)^# end of {re.escape(name)}\n"
    return re.search(pattern, text, re.MULTILINE | re.DOTALL)


def _without_block(text: str, name: str, file: Path) -> tuple[str, str, str]:
    """The settings without what an earlier import wrote, that, and why it must not be written where somebody changed it."""
    found = _block(text, name)
    if found is None:
        return text, "", ""
    foreign = ""
    if _digest(found[2]) != found[1]:
        foreign = (
            f"{file}: the sections between '# lodestore import feast: ... {name}' and '# end of {name}' are not "
            "as they were written; move what is yours out of them, or write over them with --force"
        )
    return text[: found.start()] + text[found.end() :], found[2], foreign


def _sections_gone(before: str, after: str) -> tuple[tuple[str, str], ...]:
    """The sections of views that have none any more; a section may change its name."""
    try:
        old = tomllib.loads(before).get("events", [])
    except tomllib.TOMLDecodeError:
        return ()
    kept = {one["view"] for one in tomllib.loads(after).get("events", [])}
    return tuple(("[[events]]", str(one.get("name"))) for one in old if one.get("view") not in kept)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:32]


def _settings_text(
    base: str, tree: Mapping[str, Any], name: str, sections: str, modules: Sequence[str], file: Path
) -> str:
    """The settings with the module and the sections; `RefusedError` where the file's form does not allow it."""
    inner = sections
    if modules and "features" not in tree:
        inner = f"[features]\nmodules = [{_toml(modules[0])}]\n" + (f"\n{sections}" if sections else "")
    elif modules:
        base = _with_module(base, modules[0])
    after = base
    if inner:
        gap = "" if base.endswith("\n") or not base else "\n"
        after = f"{base}{gap}\n{_BEGIN.format(digest=_digest(inner), name=name)}{inner}{_END.format(name=name)}"
    _check(after, tree, sections, modules, file)
    return after


def _with_module(text: str, module: str) -> str:
    """The text with the module first in `[features] modules`; the same text where that cannot be found."""
    section = _SECTION.search(text)
    start = _MODULES.search(text, section.end()) if section else None
    if section is None:
        return text
    if start is None or "\n[" in text[section.end() : start.start()]:
        return f"{text[: section.end()]}\nmodules = [{_toml(module)}]{text[section.end() :]}"
    rest = text[start.end() :]
    comma = "" if rest.lstrip().startswith("]") else ", "
    return f"{text[: start.end()]}{_toml(module)}{comma}{rest}"


def _check(after: str, tree: Mapping[str, Any], sections: str, modules: Sequence[str], file: Path) -> None:
    """The text says what the file said, the sections and the modules, and nothing else."""
    wanted = json.loads(json.dumps(tree, default=str))
    features = wanted.setdefault("features", {}) if modules else {}
    if modules:
        features["modules"] = [*modules, *features.get("modules", [])]
    events = tomllib.loads(sections).get("events", [])
    if events:
        wanted["events"] = [*wanted.get("events", []), *events] if isinstance(wanted.get("events", []), list) else None
    try:
        said = json.loads(json.dumps(tomllib.loads(after), default=str))
    except tomllib.TOMLDecodeError:
        said = None
    if said != wanted:
        message = (
            f"{file} is written in a form that cannot be added to; write [[events]] sections and [features] modules, or "
            "use --out FILE and add by hand what it shows"
        )
        raise RefusedError(message)
