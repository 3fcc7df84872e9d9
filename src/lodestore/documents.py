"""Documents, and where they come from: folders, globs, files, fsspec URIs, row files and Python callables.

`read` answers with everything that a source holds now. What cannot be read becomes a `Rejected`
with a stable reason and stops nothing else; what keeps the list from being whole is told by
`Reading.complete`, so that nobody retires documents because a network was down.
"""

from __future__ import annotations

import errno
import importlib
import io
import json
import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from lodestore.addresses import hidden, shown
from lodestore.errors import SettingsError, SourceError, nearest
from lodestore.parsing import (
    DOCUMENTS,
    ROWS,
    Parsed,
    Reason,
    Record,
    Unparsed,
    mime_of,
    one_line,
    parse,
    records,
    shortened,
)
from lodestore.spec import checked_name
from lodestore.wire import digest, dumps, jsonable

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Document", "DocumentSource", "Reading", "Rejected", "read"]

_FIELDS = ("id", "title", "text", "author", "date", "category", "access", "uri", "vector", "metadata")
_MAGIC = re.compile(r"[*?\[]")
_PYTHON = re.compile(r"python:([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
_SUPPORTED = frozenset({*DOCUMENTS.values(), *ROWS.values()})
_STAMPS = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """Where documents are, and how their columns are called there.

    `columns` maps our field (id, title, text, author, date, category, access, uri, vector, metadata) to
    the file's column; any other key becomes metadata. A field that is not mapped is read from the column
    of its own name, except for `vector`, which is read only when mapped. `max_bytes` limits one
    document: a file, or a row of a row file. `category` and `access` (who may see it) are those of
    documents that say nothing of it themselves.
    """

    name: str
    uri: str
    columns: Mapping[str, str] = field(default_factory=dict)
    max_retire: float = 0.2
    max_bytes: int = 20_000_000
    category: str | None = None
    access: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked_name(self.name, "documents")
        if not isinstance(self.uri, str) or not self.uri.strip():
            raise SettingsError(_wrong(self, "uri", self.uri, "a folder, a glob, a file or a URI"))
        if not 0 <= self.max_retire <= 1:
            raise SettingsError(_wrong(self, "max_retire", self.max_retire, "a share from 0 to 1"))
        if self.max_bytes < 1:
            raise SettingsError(_wrong(self, "max_bytes", self.max_bytes, "a number of bytes, at least 1"))
        for key, column in self.columns.items():
            if not key or not isinstance(column, str) or not column:
                raise SettingsError(_wrong(self, f"columns.{key}", column, "the name of a column"))
        object.__setattr__(self, "columns", dict(self.columns))


def _wrong(source: DocumentSource, setting: str, value: object, wanted: str) -> str:
    return f"documents.{source.name}.{setting}: {value!r} is not {wanted}"


@dataclass(frozen=True, slots=True)
class Document:
    """One document as it stands in its source now; `content_hash` changes exactly when what it says does."""

    document_id: str
    source: str
    uri: str
    title: str
    content: str
    content_hash: str
    mime: str
    author: str | None
    category: str | None
    event_timestamp: datetime
    word_count: int
    metadata: Mapping[str, Any]
    vector: tuple[float, ...] | None = None
    access: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something in a source that is no document, and why; `document_id` is None where it has none."""

    source: str
    uri: str
    document_id: str | None
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything a source holds now. When it is not `complete`, a missing document may still exist."""

    source: str
    documents: tuple[Document, ...]
    rejects: tuple[Rejected, ...]
    complete: bool = True
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Something that keeps the reading from being complete."""

    what: str


@dataclass(frozen=True, slots=True)
class _File:
    """A file that is there: its path below the source's root, how users call it, and how to open it."""

    name: str
    uri: str
    size: int | None
    modified: datetime | None
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class _Listing:
    """The files that a uri means; `single` when it names one, `exact` when each of them was asked for."""

    files: tuple[_File, ...]
    troubles: tuple[str, ...] = ()
    single: bool = False
    exact: bool = False


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a document was found."""

    document_id: str
    uri: str
    mime: str
    modified: datetime | None
    now: datetime


_Item = Document | Rejected | _Trouble


def read(source: DocumentSource, *, root: Path, now: datetime) -> Reading:
    """Everything that the source holds now, in an order that depends on names alone.

    Relative paths are relative to `root`. A uri that names nothing raises SourceError. Of two
    documents of one id the later is rejected.
    """
    documents: dict[str, Document] = {}
    rejects: list[Rejected] = []
    troubles: list[str] = []
    for item in _items(source, root, now):
        if isinstance(item, _Trouble):
            troubles.append(item.what)
        elif isinstance(item, Rejected):
            rejects.append(item)
        elif item.document_id in documents:
            rejects.append(_duplicate(item, documents[item.document_id]))
        else:
            documents[item.document_id] = item
    problem = "; ".join(troubles) or None
    return Reading(source.name, tuple(documents.values()), tuple(rejects), complete=not troubles, problem=problem)


def _duplicate(later: Document, first: Document) -> Rejected:
    detail = f"{shortened(first.uri)} has this id already, and came first"
    return Rejected(later.source, later.uri, later.document_id, "duplicate_id", detail)


def _items(source: DocumentSource, root: Path, now: datetime) -> Iterator[_Item]:
    if source.uri.startswith("python:"):
        yield from _from_callable(source, now)
        return
    listing = _remote(source) if _is_remote(source.uri) else _local(source, root)
    yield from map(_Trouble, listing.troubles)
    for file in listing.files:
        if mime_of(file.name) in _SUPPORTED:
            yield from _from_file(source, file, listing, now)
        elif listing.single:
            raise SourceError(_unsupported(source, file))
        elif listing.exact:
            yield _rejected(source, file, Unparsed("unsupported", f"no parser for {PurePosixPath(file.name).name}"))


def _unsupported(source: DocumentSource, file: _File) -> str:
    known = " ".join((*DOCUMENTS, *ROWS))
    return f"documents.{source.name}.uri: {file.uri} has a kind that is not read; these are: {known}"


def _rejected(source: DocumentSource, file: _File, why: Unparsed, *, row: bool = False) -> Rejected:
    document_id = None if row else _clean(f"{source.name}/{file.name}")
    return Rejected(source.name, _clean(file.uri), document_id, why.reason, _clean(why.detail))


def _clean(text: str) -> str:
    """The text as something that can be stored: bytes of a name that are not UTF-8 become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


# Listing


def _is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith(("file://", "local://"))


def _local(source: DocumentSource, root: Path) -> _Listing:
    bare = source.uri.removeprefix("file://").removeprefix("local://")
    path = root / Path(bare).expanduser()
    try:
        if path.is_file():
            return _Listing((_local_file(path, path.parent, root),), single=True)
        if path.is_dir():
            return _walked(path, "**", root)
        if path.exists():
            raise SourceError(_nowhere(source, path, "is neither a file nor a folder; name one of them"))
        fixed, pattern = _split(bare)
        prefix = root / Path(fixed or ".").expanduser()
        if pattern and prefix.is_dir():
            return _walked(prefix, pattern, root)
    except PermissionError as error:
        raise SourceError(
            _nowhere(source, path, f"may not be read ({error.strerror}); let this user read it")
        ) from error
    raise SourceError(_nowhere(source, prefix, "does not exist; correct the uri or create it"))


def _nowhere(source: DocumentSource, place: object, what: str) -> str:
    return _clean(hidden(f"documents.{source.name}.uri = {source.uri!r}: {place} {what}", source.uri))


def _split(path: str) -> tuple[str, str]:
    """The folder that a glob starts from and what follows it; an empty pattern where nothing is a glob.

    >>> _split("docs/guide/**/*.md")
    ('docs/guide', '**/*.md')
    >>> _split("/*.md"), _split("docs/a.md")
    (('/', '*.md'), ('docs/a.md', ''))
    """
    parts = path.split("/")
    first = next((place for place, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    fixed = "/".join(parts[:first])
    return fixed or ("/" if path.startswith("/") else ""), "/".join(parts[first:])


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path is meant by a glob; `**` is any number of folders, at the end everything below.

    >>> _matches(("a.md",), ("**", "*.md")), _matches(("x", "y", "a.md"), ("*", "*.md"))
    (True, False)
    """
    if not pattern:
        return not parts
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        return any(_matches(parts[start:], rest) for start in range(len(parts))) if rest else bool(parts)
    return bool(parts) and fnmatchcase(parts[0], head) and _matches(parts[1:], rest)


def _is_exact(pattern: str) -> bool:
    """Whether a glob says which kind of file it wants: `*.rst` does, `**` and `*` do not."""
    return bool(pattern.rpartition("/")[2].strip("*"))


def _walked(folder: Path, pattern: str, root: Path) -> _Listing:
    troubles: list[str] = []
    wanted = tuple(pattern.split("/"))
    found = sorted((path.relative_to(folder).parts, path) for path in _walk(folder, troubles))
    files = tuple(_local_file(path, folder, root) for parts, path in found if _matches(parts, wanted))
    return _Listing(files, tuple(troubles), exact=_is_exact(pattern))


def _walk(folder: Path, troubles: list[str]) -> Iterator[Path]:
    """Every file below that is not hidden, each real folder once: links are followed last, loops end.

    What cannot be listed is added to `troubles`.
    """
    seen: set[tuple[int, int]] = set()
    plain, linked = deque([folder]), deque[Path]()
    while plain or linked:
        here = (plain or linked).popleft()
        try:
            status = here.stat()
            entries = sorted(here.iterdir()) if (status.st_dev, status.st_ino) not in seen else []
        except OSError as error:
            troubles.append(f"{_clean(str(here))} could not be listed: {error.strerror}")
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (linked if entry.is_symlink() else plain).append(entry)
            elif entry.is_file() or (entry.is_symlink() and not entry.exists()):  # a broken link is told later
                yield entry


def _local_file(path: Path, folder: Path, root: Path) -> _File:
    name = path.relative_to(folder).as_posix()
    place = Path(os.path.normpath(path))
    base = Path(os.path.normpath(root))
    uri = place.relative_to(base).as_posix() if place.is_relative_to(base) else place.as_posix()
    try:
        status = path.stat()
    except OSError:  # opening it will tell
        return _File(name, uri, None, None, lambda: path.open("rb"))
    return _File(name, uri, status.st_size, _moment(status.st_mtime), lambda: path.open("rb"))


def _moment(value: object) -> datetime | None:
    """A file system's idea of a time as UTC: seconds, an ISO string or a datetime."""
    if isinstance(value, (int, float)):
        try:
            return datetime.fromtimestamp(value, UTC)
        except (ValueError, OverflowError, OSError):
            return None
    return _instant(one_line(value))


def _remote(source: DocumentSource) -> _Listing:
    protocol, _, rest = source.uri.partition("://")
    # a question mark in a web address starts its query
    fixed, pattern = (rest, "") if protocol.startswith("http") else _split(rest)
    try:
        # Some drivers connect as soon as they are made.
        system, literal = _driver(source, source.uri)
        system.invalidate_cache()
        if system.isfile(literal):
            fixed, pattern = rest, ""
        return _remote_files(source, system, _driver(source, f"{protocol}://{fixed}")[1], pattern)
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001 - a driver raises what it likes; the reading is then incomplete
        return _Listing((), (_clean(hidden(f"{source.uri} could not be listed: {_short(error)}", source.uri)),))


def _driver(source: DocumentSource, uri: str) -> tuple[AbstractFileSystem, str]:
    """The file system behind a URI, and the path in it."""
    from fsspec.core import url_to_fs

    try:
        return cast("tuple[AbstractFileSystem, str]", url_to_fs(uri))
    except (ImportError, ValueError) as error:
        hint = "install the driver of this protocol, or correct the uri"
        raise SourceError(_nowhere(source, "its protocol", f"cannot be used ({error}); {hint}")) from error


def _remote_files(source: DocumentSource, system: AbstractFileSystem, base: str, pattern: str) -> _Listing:
    single = not pattern and system.isfile(base)
    if not single and not system.isdir(base):
        raise SourceError(_nowhere(source, base, "does not exist; correct the uri or put the documents there"))
    wanted = tuple((pattern or "**").split("/"))
    folder = base.rpartition("/")[0] if single else base.rstrip("/")
    found = {base: system.info(base)} if single else system.find(base, detail=True)
    paths = {path.removeprefix(folder).lstrip("/"): info for path, info in found.items() if info["type"] == "file"}
    parts = {name: tuple(name.split("/")) for name in sorted(paths, key=lambda name: name.split("/"))}
    files = tuple(
        _remote_file(source, system, name, paths[name])
        for name, split in parts.items()
        if single or (_matches(split, wanted) and not any(part.startswith(".") for part in split))
    )
    return _Listing(files, single=single, exact=_is_exact(pattern))


def _remote_file(source: DocumentSource, system: AbstractFileSystem, name: str, info: Mapping[str, Any]) -> _File:
    path = info["name"]
    modified = next((moment for key in _STAMPS if (moment := _moment(info.get(key)))), None)

    def opened() -> BinaryIO:
        # the drivers' own files read lines without a limit
        return io.BufferedReader(cast("io.RawIOBase", system.open(path, "rb")))

    return _File(hidden(name, source.uri), shown(system.unstrip_protocol(path)), info.get("size"), modified, opened)


def _short(error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {said}"


# Reading


def _from_file(source: DocumentSource, file: _File, listing: _Listing, now: datetime) -> Iterator[_Item]:
    """The documents of one file. A row file that breaks off leaves the reading incomplete: its ids are unknown."""
    rows = mime_of(file.name) in ROWS.values()
    try:
        if rows:
            yield from _rows(source, file, listing, now)
        else:
            yield _whole(source, file, now)
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001 - drivers and parsers raise what they like; it is told, not lost
        said = hidden(_short(error), source.uri)
        yield _rejected(source, file, Unparsed("unparsable", f"could not be read: {said}"), row=rows)
        gone = isinstance(error, OSError) and error.errno in {errno.ENOENT, errno.ELOOP}
        if not gone:  # a broken link holds no document
            yield _Trouble(f"{_clean(file.uri)} could not be read: {_clean(said)}")


def _whole(source: DocumentSource, file: _File, now: datetime) -> Document | Rejected:
    """The one document that a file is."""
    if file.size is not None and file.size > source.max_bytes:
        return _rejected(source, file, _too_large(source, file.size))
    with file.open() as stream:
        data = stream.read(source.max_bytes + 1)
    if len(data) > source.max_bytes:
        return _rejected(source, file, _too_large(source, len(data)))
    mime = mime_of(file.name)
    parsed = parse(data, mime)
    if isinstance(parsed, Unparsed):
        return _rejected(source, file, parsed)
    titled = replace(parsed, title=parsed.title or PurePosixPath(file.name).stem)
    origin = _Origin(f"{source.name}/{file.name}", file.uri, mime, file.modified, now)
    return _document(source, origin, titled)


def _too_large(source: DocumentSource, size: int) -> Unparsed:
    return Unparsed("too_large", f"{size} bytes or more; documents.{source.name}.max_bytes is {source.max_bytes}")


def _rows(source: DocumentSource, file: _File, listing: _Listing, now: datetime) -> Iterator[_Item]:
    mime = mime_of(file.name)
    columns = {*_FIELDS, "_id", *source.columns.values()}
    origin = _Origin("", file.uri, "text/plain", file.modified, now)
    with file.open() as stream, closing(records(stream, mime, columns=columns, max_bytes=source.max_bytes)) as found:
        for row in found:
            if isinstance(row, Unparsed):
                yield _rejected(source, file, row, row=True)
                continue
            lacking = _lacking(source, row)
            if lacking is not None and listing.single:
                raise SourceError(_nowhere(source, file.uri, f"has {lacking.detail}"))
            if lacking is not None:
                yield _rejected(source, file, lacking, row=True)
                return
            yield _from_row(source, row, origin)


def _lacking(source: DocumentSource, row: Record) -> Unparsed | None:
    """What the columns of a file lack, as one reject for the whole file; None when they are all there."""
    if not row.header:  # rows that stand for themselves, as in JSONL
        return None
    reasons: dict[str, Reason] = {"id": "missing_id", "text": "missing_text"}
    for name in dict.fromkeys(("id", "text", *source.columns)):
        column = _column(source, row.values, name)
        if column not in row.header:
            setting = f"documents.{source.name}.columns.{name}"
            detail = f"no column {column!r}, which {setting} names or means by default{nearest(column, row.header)}"
            return Unparsed(reasons.get(name, "unparsable"), detail)
    return None


def _column(source: DocumentSource, values: Mapping[str, Any], name: str) -> str:
    """The column that holds a field; `_id` stands in for an `id` that is not there."""
    if name == "id" and name not in source.columns and name not in values and "_id" in values:
        return "_id"
    return source.columns.get(name, name)


def _from_row(source: DocumentSource, row: Record, origin: _Origin) -> Document | Rejected:
    cells = {name: row.values.get(_column(source, row.values, name)) for name in _FIELDS if name != "vector"}
    key, text = cells["id"], cells["text"]
    known = isinstance(key, (str, int, float)) and not isinstance(key, bool) and str(key).strip()
    document_id = f"{source.name}/{key}" if known else None
    uri = one_line(cells["uri"]) or f"{origin.uri}#{key if known else row.line}"
    fault = _row_fault(source, document_id, text)
    if document_id is None or fault is not None:
        column = _column(source, row.values, "id")
        why = fault or Unparsed("missing_id", f"its {column} is {_kind(key)}; an id is a text or a number")
        return _refused(source, document_id, uri, replace(why, detail=f"line {row.line}: {why.detail}"))
    here = replace(origin, document_id=document_id, uri=uri)
    try:
        vector = _vector(row.values.get(source.columns.get("vector", "")))
        return _document(source, here, _row_parsed(source, row, cells), vector=vector)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        why = Unparsed("unparsable", f"line {row.line}: {_short(error)}")
        return _refused(source, document_id, uri, why)


def _kind(key: object) -> str:
    """What stands where an id should; its values may be part of the document, and are not told."""
    if key is None:
        return "nothing"
    return "empty" if isinstance(key, str) else f"of type {type(key).__name__}"


def _row_fault(source: DocumentSource, document_id: str | None, text: object) -> Unparsed | None:
    if document_id is None:
        return None
    if not isinstance(text, str):
        found = "nothing" if text is None else type(text).__name__
        return Unparsed("missing_text", f"its text is {found}; documents.{source.name}.columns.text names the column")
    if not text.strip():
        return Unparsed("empty", "its text is empty")
    size = len(text.encode("utf-8", "replace"))
    return _too_large(source, size) if size > source.max_bytes else None


def _row_parsed(source: DocumentSource, row: Record, cells: Mapping[str, Any]) -> Parsed:
    extra = {key: row.values.get(column) for key, column in source.columns.items() if key not in _FIELDS}
    extra |= {} if cells["access"] is None else {"access": cells["access"]}
    return Parsed(
        cells["text"],
        title=one_line(cells["title"]),
        author=one_line(cells["author"]),
        date=one_line(cells["date"]),
        category=one_line(cells["category"]),
        metadata={**_metadata(cells["metadata"]), **extra},
    )


def _metadata(value: object) -> Mapping[str, Any]:
    """A row's own metadata: an object, or the JSON of one as CSV has it; anything else under its name."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = json.loads(value)
    if isinstance(value, Mapping):
        return value
    return {} if value in (None, "") else {"metadata": value}


def _vector(value: object) -> tuple[float, ...] | None:
    """A ready-made vector: numbers, or their JSON; ValueError when it is none."""
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else None
    if value is None:
        return None
    vector = tuple(float(number) for number in cast("Iterable[float]", value))
    if not vector or not all(map(math.isfinite, vector)):
        message = "its vector is empty or holds a number that is not finite"
        raise ValueError(message)
    return vector


def _refused(source: DocumentSource, document_id: str | None, uri: str, why: Unparsed) -> Rejected:
    clean = None if document_id is None else _clean(document_id)
    return Rejected(source.name, _clean(uri), clean, why.reason, _clean(why.detail))


def _document(
    source: DocumentSource, origin: _Origin, parsed: Parsed, *, vector: tuple[float, ...] | None = None
) -> Document | Rejected:
    """The finished document, or a reject when its strings cannot be stored."""
    dated = _instant(parsed.date)
    try:
        access = _access(parsed.metadata.get("access"))
    except ValueError as error:  # nobody may guess who may see it
        return _refused(source, origin.document_id, origin.uri, Unparsed("unparsable", str(error)))
    unread = {"date": parsed.date} if parsed.date and dated is None else {}
    spoken = {"language": parsed.language} if parsed.language else {}
    document = Document(
        document_id=origin.document_id,
        source=source.name,
        uri=origin.uri,
        title=parsed.title or "",
        content=parsed.text,
        content_hash="",
        mime=origin.mime,
        author=parsed.author,
        category=parsed.category or source.category,
        event_timestamp=dated or origin.modified or origin.now,
        word_count=len(parsed.text.split()),
        metadata=_plain({**parsed.metadata, **spoken, **unread}),
        vector=vector,
        access=(source.access or None) if access is None else access,
    )
    if "\0" in f"{document.document_id}{document.uri}{document.title}{document.content}":
        why = Unparsed("unparsable", "a NUL character: binary data under the name of text")
        return _refused(source, origin.document_id, origin.uri, why)
    try:
        strings = (document.title, document.content, document.author or "", dumps(document.metadata))
        "".join((document.document_id, document.uri, *strings)).encode()
        return replace(document, content_hash=_content_hash(document, dated))
    except UnicodeEncodeError as error:
        why = Unparsed("not_utf8", f"{error.reason} at character {error.start}: half a character or foreign bytes")
        return _refused(source, origin.document_id, origin.uri, why)


def _access(value: object) -> tuple[str, ...] | None:
    """Who may see a document: names, sorted, each once; None when it says nothing. ValueError for anything else.

    >>> _access("team-b, team-a"), _access(["everyone"]), _access('["a, b"]'), _access([])
    (('team-a', 'team-b'), ('everyone',), ('a, b',), ())
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        value = json.loads(value) if value.lstrip().startswith("[") else value.split(",")
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) and one.strip() for one in value):
        message = f"its access is {str(value)[:60]!r}; write a list of names, such as [team-a, everyone]"
        raise ValueError(message)
    return tuple(sorted({one.strip() for one in value}))


def _plain(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: jsonable(value) for name, value in metadata.items()}


def _instant(raw: str | None) -> datetime | None:
    """An ISO 8601 date or time as UTC; None when it is something else. Without a zone it is UTC.

    >>> _instant("2024-01-31").isoformat(), _instant("last spring")
    ('2024-01-31T00:00:00+00:00', None)
    """
    try:
        moment = datetime.fromisoformat(raw or "")
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _content_hash(document: Document, dated: datetime | None) -> str:
    """SHA-256 of what the document says: neither where it lies nor when its file was touched."""
    said: dict[str, object] = {
        "title": document.title,
        "content": document.content,
        "author": document.author,
        "category": document.category,
        "date": dated.isoformat() if dated else None,
        "metadata": document.metadata,
    }
    if document.vector is not None:
        said["vector"] = document.vector
    if document.access is not None:
        said["access"] = document.access
    return digest(said)


# Python callables


def _from_callable(source: DocumentSource, now: datetime) -> Iterator[_Item]:
    """The rows that a callable yields. When it fails part-way, what it yielded counts and the rest is unknown."""
    function = _callable(source)
    origin = _Origin("", source.uri, "text/plain", None, now)
    try:
        for number, row in enumerate(function(), 1):
            if isinstance(row, Mapping):
                yield _from_row(source, Record(number, row), origin)
            else:
                why = Unparsed("unparsable", f"row {number}: not a mapping but {type(row).__name__}")
                yield _refused(source, None, source.uri, why)
    except Exception as error:  # noqa: BLE001 - it is the user's code; what it raised is told in the reading
        yield _Trouble(f"{source.uri} broke off: {_clean(_short(error))}")


def _callable(source: DocumentSource) -> Callable[[], Iterable[object]]:
    named = _PYTHON.fullmatch(source.uri)
    if named is None:
        raise SourceError(_nowhere(source, source.uri, "is not of the form python:MODULE:FUNCTION"))
    module_name, function_name = named.groups()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        place = f"module {module_name}"
        raise SourceError(_nowhere(source, place, f"cannot be imported ({_short(error)}); correct it")) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        hint = nearest(function_name, [name for name in vars(module) if not name.startswith("_")])
        raise SourceError(_nowhere(source, f"module {module_name}", f"has no function {function_name!r}{hint}"))
    return cast("Callable[[], Iterable[object]]", function)
