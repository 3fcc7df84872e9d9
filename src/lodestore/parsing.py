"""What files say: the bytes of one document as text and what is known about it, and row files as records.

Nothing here lists folders or knows a source. Whatever the bytes are, the answer is a value: `Parsed`
or `Record` when they could be read, `Unparsed` with a stable reason when they could not.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import sys
import zipfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from docx.document import Document as WordDocument
    from docx.opc.coreprops import CoreProperties
    from docx.table import _Cell, _Row
    from markdown_it.token import Token

__all__ = [
    "DOCUMENTS",
    "ROWS",
    "Parsed",
    "Reason",
    "Record",
    "Unparsed",
    "mime_of",
    "one_line",
    "parse",
    "records",
    "shortened",
]

Reason = Literal[
    "empty",
    "not_utf8",
    "too_large",
    "unparsable",
    "missing_id",
    "missing_text",
    "duplicate_id",
    "unsupported",
]

_DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

DOCUMENTS: Mapping[str, str] = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".txt": "text/plain",
    ".pdf": "application/pdf",
    ".docx": _DOCX,
}
"""Suffixes of files that are one document each."""

ROWS: Mapping[str, str] = {
    ".jsonl": "application/jsonl",
    ".ndjson": "application/jsonl",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".parquet": "application/vnd.apache.parquet",
}
"""Suffixes of files that hold one document a row."""

_BOM = b"\xef\xbb\xbf"
_FOREIGN = re.compile("[\udc80-\udcff]")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UNPACKED = 200_000_000  # bytes; a small DOCX can claim to hold terabytes
_BATCH = 512
_TOLD = 80

# pypdf tells every oddity of a damaged file to its logger; the reject already says what matters.
logging.getLogger("pypdf").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Parsed:
    """The text of one document, and what the document itself says about it."""

    text: str
    title: str | None = None
    author: str | None = None
    date: str | None = None
    category: str | None = None
    language: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unparsed:
    """Why something could not become a document."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a row file; `line` counts from 1 (in Parquet: the row, elsewhere: the line where it ends).

    `header` has the names of all columns of the file, where it has columns.
    """

    line: int
    values: Mapping[str, Any]
    header: tuple[str, ...] = ()


def mime_of(name: str) -> str:
    """The media type that a file's name promises; `application/octet-stream` for one that is not read.

    >>> mime_of("guide/Setup.MD"), mime_of("logo.png")
    ('text/markdown', 'application/octet-stream')
    """
    suffix = PurePosixPath(name).suffix.lower()
    return DOCUMENTS.get(suffix) or ROWS.get(suffix) or "application/octet-stream"


def one_line(value: object) -> str | None:
    """A value as one line of text, lists joined by commas; None when nothing is left.

    >>> one_line(["Ada  Lovelace", " Grace Hopper"])
    'Ada Lovelace, Grace Hopper'
    >>> one_line(" ") is None
    True
    """
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return ", ".join(line for line in map(one_line, value) if line) or None
    if isinstance(value, date):  # datetime is one too
        return value.isoformat()
    return " ".join(str(value).split()) or None


def shortened(text: str) -> str:
    """The text as a message tells it: an id may be a whole page."""
    return text if len(text) <= _TOLD else f"{text[:_TOLD]}..."


def parse(data: bytes, mime: str) -> Parsed | Unparsed:
    """The document that these bytes hold, or why they hold none. Never raises for any bytes."""
    if not data.removeprefix(_BOM).strip():
        return Unparsed("empty", f"{len(data)} bytes and no text")
    if mime not in _TEXTS and mime not in _BINARIES:
        return Unparsed("unsupported", f"no parser for {mime}")
    try:
        parsed = _BINARIES[mime](data) if mime in _BINARIES else _from_text(data, _TEXTS[mime])
    except Exception as error:  # noqa: BLE001 - damaged bytes break a parser in any way; each becomes a reject
        return Unparsed("unparsable", _told(error))
    if isinstance(parsed, Parsed) and not parsed.text.strip():
        return Unparsed("empty", "no text in it; a scan needs OCR first" if mime in _BINARIES else "no text in it")
    return parsed


def _told(error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _from_text(data: bytes, reader: Callable[[str], Parsed | Unparsed]) -> Parsed | Unparsed:
    try:
        text = data.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        guess = "; it looks like UTF-16" if data.startswith(_UTF16) else ""
        return Unparsed("not_utf8", f"byte {error.start} is not UTF-8{guess}; save the file as UTF-8")
    if "\0" in text:
        return Unparsed("unparsable", f"a NUL at character {text.index(chr(0))}: binary data under the name of text")
    return reader(text.replace("\r\n", "\n").replace("\r", "\n"))


def _plain(text: str) -> Parsed:
    return Parsed(text)


# Markdown

_ACCESS = re.compile(r"^[\"']?access[\"']?\s*:", re.MULTILINE)
_FRONT = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


def _markdown(text: str) -> Parsed | Unparsed:
    front, content = _front_matter(text)
    if "front_matter_error" in front and _ACCESS.search(text):
        # As text it would lose who may see it, and the source's default may be everyone.
        said = f"its front matter names access, and is no YAML ({front['front_matter_error']}); mend it"
        return Unparsed("unparsable", said)
    stated = {key: one_line(front.pop(key, None)) for key in ("title", "author", "date", "category", "language")}
    title = stated.pop("title") or _heading(content)
    return Parsed(content, title=title, metadata=front, **stated)


def _front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The front matter and the text after it. A block that is no YAML stays text, and the metadata says why."""
    found = _FRONT.match(text)
    if found is None:
        return {}, text
    import yaml

    try:
        values = _yaml(found[1])
    except yaml.YAMLError as error:
        return {"front_matter_error": _told(error)}, text
    if values is None:
        return {}, text[found.end() :]
    if not isinstance(values, dict):  # prose between two rules
        return {}, text
    return {str(key): value for key, value in values.items()}, text[found.end() :]


def _yaml(block: str) -> object:
    """The YAML with every scalar as the text that was written: `version: 1.10` stays 1.10."""
    import yaml

    # a few nested aliases unfold into billions of values
    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(block)):
        message = "aliases (*name) are not read in front matter"
        raise yaml.YAMLError(message)
    return yaml.BaseLoader(block).get_single_data()


def _heading(text: str) -> str | None:
    """The first H1, else the first heading of any level; inline marks are taken off."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").disable("inline").parse(text)
    found = [
        (opening.tag, title)
        for opening, inline in pairwise(tokens)
        if opening.type == "heading_open" and (title := _unmarked(inline.content))
    ]
    return next((title for tag, title in found if tag == "h1"), found[0][1] if found else None)


def _unmarked(line: str) -> str | None:
    from markdown_it import MarkdownIt

    inline = MarkdownIt("commonmark").parseInline(line)
    children = (child for token in inline for child in token.children or ())
    return one_line("".join(" " if child.type.endswith("break") else _shown(child) for child in children))


def _shown(token: Token) -> str:
    return "" if token.type == "html_inline" else str(token.content)


# HTML

_DROPPED = ["script", "style", "nav", "footer", "noscript", "template", "svg"]
_APART = frozenset(
    [
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "p",
        "pre",
        "blockquote",
        "table",
        "ul",
        "ol",
        "dl",
        "section",
        "article",
        "figure",
    ]
)
_LINES = frozenset(
    [
        "address",
        "aside",
        "br",
        "caption",
        "dd",
        "details",
        "div",
        "dt",
        "fieldset",
        "figcaption",
        "form",
        "header",
        "hr",
        "li",
        "main",
        "summary",
        "tr",
    ]
)
_SPACE = re.compile(r"\s+")
_NAMED = {
    "author": ("author", "dc.creator", "dcterms.creator", "article:author"),
    "date": ("date", "dc.date", "dcterms.date", "article:published_time", "article:modified_time", "last-modified"),
    "category": ("category", "article:section"),
}


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some text, or (with `breaks`) the wish that at least so many line ends stand here."""

    text: str = ""
    breaks: int = 0
    verbatim: bool = False


def _html(text: str) -> Parsed:
    import warnings

    from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning, XMLParsedAsHTMLWarning

    with warnings.catch_warnings():  # XHTML and one-line pages are read as what they are
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        soup = BeautifulSoup(text, "lxml")
    return _page(soup)


def _page(soup: BeautifulSoup) -> Parsed:
    for dropped in soup.find_all(_DROPPED):
        dropped.decompose()
    named = _meta(soup)
    stated = {key: next((named[one] for one in names if one in named), None) for key, names in _NAMED.items()}
    language = one_line(soup.html.get("lang")) if soup.html else None
    metadata = {key: value for key, value in named.items() if key in {"description", "keywords"}}
    text = _laid_out(_pieces(soup.body, verbatim=False)) if soup.body else ""
    return Parsed(text, title=_page_title(soup), language=language, metadata=metadata, **stated)


def _meta(soup: BeautifulSoup) -> dict[str, str]:
    """What the meta tags say, by their small-letter names; the first of a name counts."""
    named: dict[str, str] = {}
    for tag in soup.find_all("meta"):
        name = tag.get("name") or tag.get("property") or tag.get("http-equiv")
        content = one_line(tag.get("content"))
        if name and content:
            named.setdefault(str(name).lower(), content)
    return named


def _page_title(soup: BeautifulSoup) -> str | None:
    found = (soup.find(name) for name in ("title", "h1"))
    return next((title for tag in found if tag and (title := one_line(tag.get_text()))), None)


def _pieces(node: Tag, *, verbatim: bool) -> Iterator[_Piece]:
    from bs4 import Tag
    from bs4.element import NavigableString

    for child in node.children:
        if isinstance(child, Tag):
            yield from _tag_pieces(child, verbatim=verbatim)
        elif type(child) is NavigableString:  # comments and declarations are subclasses
            yield _Piece(child if verbatim else _SPACE.sub(" ", child), verbatim=verbatim)


def _tag_pieces(tag: Tag, *, verbatim: bool) -> Iterator[_Piece]:
    breaks = 2 if tag.name in _APART else int(tag.name in _LINES)
    yield _Piece(breaks=breaks)
    if tag.name in {"td", "th"} and tag.find_previous_sibling(["td", "th"]):
        yield _Piece(" | ")
    yield from _pieces(tag, verbatim=verbatim or tag.name == "pre")
    yield _Piece(breaks=0 if tag.name == "br" else breaks)


def _laid_out(pieces: Iterable[_Piece]) -> str:
    """The pieces as lines: blocks on lines of their own, runs of spaces as one, preformatted text as it is."""
    out: list[str] = []
    ends, spaced = 2, True  # line ends that stand at the end of `out`, and whether a space would be one too many
    for piece in pieces:
        text = "\n" * (piece.breaks - ends) if piece.breaks else piece.text
        if spaced and not piece.verbatim and not piece.breaks:
            text = text.lstrip(" ")
        if text:
            out.append(text)
            bare = text.rstrip("\n")
            ends = len(text) - len(bare) + (0 if bare else ends)
            spaced = text[-1] in " \n"
    return "\n".join(line.rstrip() for line in "".join(out).split("\n")).strip("\n")


# PDF and DOCX


def _pdf(data: bytes) -> Parsed | Unparsed:
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted:
        return Unparsed("unparsable", "the PDF is encrypted; store it without a password")
    pages = [_mended(page.extract_text()).strip() for page in reader.pages]
    known = {str(key).lstrip("/").lower(): value for key, value in (reader.metadata or {}).items()}
    metadata = {key: line for key in ("subject", "keywords") if (line := _known(known, key))}
    return Parsed(
        "\n\n".join(page for page in pages if page),
        title=_known(known, "title"),
        author=_known(known, "author"),
        date=_pdf_date(_known(known, "creationdate")),
        metadata={**metadata, "pages": len(pages)},
    )


def _known(known: Mapping[str, object], key: str) -> str | None:
    value = known.get(key)
    return one_line(_mended(value)) if isinstance(value, str) else None


def _mended(text: str) -> str:
    """The text without NULs and with half characters (lone surrogates) replaced, as PDFs produce both."""
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _pdf_date(raw: str | None) -> str | None:
    """A PDF's date as ISO 8601.

    >>> _pdf_date("D:20240131120000+01'00'")
    '2024-01-31T12:00:00+01:00'
    """
    found = re.match(r"(?:D:)?(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d))?(?:([+-]\d\d)'?(\d\d))?", raw or "")
    if found is None:
        return raw
    year, month, day, hour, minute, second, zone, zone_minute = found.groups()
    time = f"T{hour}:{minute}:{second}" if hour else ""
    return f"{year}-{month}-{day}{time}" + (f"{zone}:{zone_minute}" if zone and time else "")


def _docx(data: bytes) -> Parsed | Unparsed:
    import docx

    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        unpacked = sum(part.file_size for part in packed.infolist())
        stated = "docProps/core.xml" in packed.namelist()
    if unpacked > _UNPACKED:
        return Unparsed("too_large", f"{unpacked} bytes once unpacked; at most {_UNPACKED} are read")
    document = docx.Document(io.BytesIO(data))
    # without that part the library makes up a title and today's date
    return _described(document, document.core_properties if stated else None)


def _described(document: WordDocument, core: CoreProperties | None) -> Parsed:
    known = {
        key: one_line(getattr(core, key, None))
        for key in ("title", "author", "created", "category", "language", "subject", "keywords")
    }
    return Parsed(
        "\n\n".join(_paragraphs(document)),
        title=known["title"] or _docx_heading(document),
        author=known["author"],
        date=known["created"],
        category=known["category"],
        language=known["language"],
        metadata={key: line for key in ("subject", "keywords") if (line := known[key])},
    )


def _paragraphs(container: WordDocument | _Cell) -> Iterator[str]:
    """The paragraphs in order; a table is one of them, a line a row, nested tables inside their cell."""
    from docx.table import Table

    for item in container.iter_inner_content():
        text = "\n".join(map(_row_text, item.rows)) if isinstance(item, Table) else item.text
        if text.strip():
            yield text.strip()


def _row_text(row: _Row) -> str:
    cells = {id(cell._tc): cell for cell in row.cells}  # noqa: SLF001 - a merged cell is listed once for each column
    return " | ".join(" ".join(" ".join(_paragraphs(cell)).split()) for cell in cells.values())


def _docx_heading(document: WordDocument) -> str | None:
    """The first paragraph in the style Title, else the first heading."""
    styled = [(str(one.style.name), one_line(one.text)) for one in document.paragraphs if one.style is not None]
    titles = [text for style, text in styled if style == "Title" and text]
    headings = [text for style, text in styled if style.startswith("Heading") and text]
    return next(iter(titles + headings), None)


_TEXTS: Mapping[str, Callable[[str], Parsed | Unparsed]] = {
    "text/markdown": _markdown,
    "text/html": _html,
    "text/plain": _plain,
}
_BINARIES: Mapping[str, Callable[[bytes], Parsed | Unparsed]] = {"application/pdf": _pdf, _DOCX: _docx}


# Row files


def records(
    stream: BinaryIO, mime: str, *, columns: Collection[str], max_bytes: int
) -> Generator[Record | Unparsed, None, None]:
    """The rows of a row file in order, each of them alone good or bad.

    Of Parquet only `columns` are read. A file that is broken as a whole raises what its parser raises, after the rows that could be read.
    Close the generator when you stop early; the stream may be closed with it.
    """
    if mime == "application/jsonl":
        yield from _json_rows(stream, max_bytes)
    elif mime == ROWS[".parquet"]:
        yield from _parquet_rows(stream, columns)
    else:
        yield from _csv_rows(stream, "\t" if mime == ROWS[".tsv"] else ",")


def _json_rows(stream: BinaryIO, max_bytes: int) -> Iterator[Record | Unparsed]:
    for number, line in enumerate(_lines(stream, max_bytes), 1):
        bare = (line.removeprefix(_BOM) if number == 1 else line).strip()
        if len(bare) > max_bytes:
            yield Unparsed("too_large", f"line {number}: over {max_bytes} bytes")
        elif bare:
            yield _json_row(number, bare)


def _lines(stream: BinaryIO, limit: int) -> Iterator[bytes]:
    """Every line; of one that is longer than `limit` only the start, so that it never fills the memory."""
    size = limit + 8  # the line end and a byte order mark come on top
    while line := stream.readline(size):
        yield line
        while line and not line.endswith(b"\n"):
            line = stream.readline(size)


def _json_row(number: int, line: bytes) -> Record | Unparsed:
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Unparsed("not_utf8", f"line {number}: byte {error.start} is not UTF-8")
    except (ValueError, RecursionError) as error:
        return Unparsed("unparsable", f"line {number}: {_told(error)}")
    if not isinstance(values, dict):
        return Unparsed("unparsable", f"line {number}: not an object but {type(values).__name__}")
    return Record(number, values)


def _csv_rows(stream: BinaryIO, delimiter: str) -> Iterator[Record | Unparsed]:
    # bytes that are not UTF-8 travel as lone surrogates, so that only their row is refused
    with io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="") as text, _roomy_cells():
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        header = tuple(next(reader, ()))
        if any(map(_FOREIGN.search, header)):
            guess = "; it looks like UTF-16" if header[0].encode("utf-8", "surrogateescape").startswith(_UTF16) else ""
            yield Unparsed("not_utf8", f"its header is not UTF-8{guess}; save the file as UTF-8")
            return
        doubled = next((name for name in header if header.count(name) > 1), None)
        if doubled is not None:
            yield Unparsed("unparsable", f"two columns are called {doubled!r}; rename one")
            return
        for cells in reader:
            if cells and len(cells) != len(header):
                found = f"line {reader.line_num}: {len(cells)} cells, the header has {len(header)}"
                yield Unparsed("unparsable", found)
            elif cells:
                yield Record(reader.line_num, dict(zip(header, cells, strict=True)), header)


@contextmanager
def _roomy_cells() -> Iterator[None]:
    """The csv module takes cells of any size within, and is as before afterwards."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parquet_rows(stream: BinaryIO, columns: Collection[str]) -> Iterator[Record]:
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(stream)
    header = tuple(file.schema_arrow.names)
    wanted = [name for name in header if name in columns]
    number = 0
    for batch in file.iter_batches(batch_size=_BATCH, columns=wanted or None):
        for values in batch.to_pylist():
            number += 1
            yield Record(number, values, header)
