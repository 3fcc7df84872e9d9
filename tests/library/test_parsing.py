from __future__ import annotations

import io
import json
import re
import zipfile
from datetime import UTC, datetime

import docx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from lodestore.parsing import DOCUMENTS, ROWS, Parsed, Record, Unparsed, mime_of, parse, records

MARKDOWN, HTML, PLAIN, PDF, DOCX = (DOCUMENTS[one] for one in (".md", ".html", ".txt", ".pdf", ".docx"))


def pdf(*pages: str, info: str = "") -> bytes:
    """A PDF with one line of Helvetica a page, written object by object."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        drawn = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET"
        page = "/Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< {page} /Contents {5 + 2 * number} 0 R >>")
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
    objects.append(f"<< {info} >>")
    out, starts = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        starts.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{start:010d} 00000 n \n" for start in starts)
    size, last = len(objects) + 1, len(objects)
    trailer = f"trailer\n<< /Size {size} /Root 1 0 R /Info {last} 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + f"xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


def word(document) -> bytes:
    held = io.BytesIO()
    document.save(held)
    return held.getvalue()


def rows(data: bytes, suffix: str, *, columns=("id", "text"), max_bytes=10_000) -> list[Record | Unparsed]:
    return list(records(io.BytesIO(data), ROWS[suffix], columns=columns, max_bytes=max_bytes))


# Markdown


def test_front_matter_leaves_the_content_and_becomes_what_is_known():
    text = (
        "---\ntitle: Keys\nauthor: [Ada, Grace]\ndate: 2024-02-30\nlanguage: en\nversion: 1.10\n---\n# Other\n\nBody.\n"
    )

    parsed = parse(text.encode(), MARKDOWN)

    assert parsed == Parsed(
        "# Other\n\nBody.\n",
        title="Keys",
        author="Ada, Grace",
        date="2024-02-30",
        language="en",
        metadata={"version": "1.10"},
    )


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("## First\n\n# The *big* `one`\n", "The big one"),
        ("### Only `this`\n\ntext", "Only this"),
        ("Under\nlined\n=====\n", "Under lined"),
        ("```\n# a comment\n```\n", None),
        ("plain words", None),
        ("#\n\n## Named\n", "Named"),
    ],
)
def test_a_markdown_title_is_the_first_h1_else_the_first_heading(text, title):
    assert parse(text.encode(), MARKDOWN) == Parsed(text, title=title)


def test_prose_between_rules_is_no_front_matter():
    text = "---\nJust words.\n\n---\nMore.\n"

    assert parse(text.encode(), MARKDOWN) == Parsed(text)


def test_front_matter_that_is_no_yaml_stays_text_and_says_why():
    text = "---\ntitle: [open\n---\nBody.\n"

    parsed = parse(text.encode(), MARKDOWN)

    assert parsed.text == text
    assert "ParserError" in parsed.metadata["front_matter_error"]


def test_front_matter_never_unfolds_aliases():
    text = "---\na: &a [x, x]\nb: [*a, *a]\n---\nBody.\n"

    assert "aliases" in parse(text.encode(), MARKDOWN).metadata["front_matter_error"]


def test_line_ends_and_byte_order_marks_do_not_change_a_text():
    assert parse(b"\xef\xbb\xbf# A\r\n\r\nb\r\n", MARKDOWN) == parse(b"# A\n\nb\n", MARKDOWN)


@given(st.text(alphabet=st.characters(exclude_characters="\0\r", exclude_categories=["Cs"])))
@settings(max_examples=60, deadline=None)
def test_markdown_without_front_matter_keeps_every_character(text):
    parsed = parse(("x\n" + text).encode(), MARKDOWN)

    assert parsed.text == "x\n" + text


# HTML


def test_a_page_becomes_its_blocks_as_lines_without_its_frame():
    page = """<!doctype html><html lang="de"><head><title> The  page </title>
      <meta name="Author" content="Ada"><meta property="article:published_time" content="2024-05-01">
      <meta name="description" content="About"><style>p {}</style></head>
      <body><nav>Menu</nav><h1>Head</h1><p>One <b>bo</b>ld
      line<br>and next.</p><!-- hidden --><ul><li>a</li><li>b</li></ul>
      <table><tr><th>k</th><th>v</th></tr><tr><td>1</td><td>2</td></tr></table>
      <pre>if x:
    go()</pre><script>bad()</script><noscript>no</noscript><footer>Foot</footer></body></html>"""

    parsed = parse(page.encode(), HTML)

    assert parsed == Parsed(
        "Head\n\nOne bold line\nand next.\n\na\nb\n\nk | v\n1 | 2\n\nif x:\n    go()",
        title="The page",
        author="Ada",
        date="2024-05-01",
        language="de",
        metadata={"description": "About"},
    )


def test_a_page_without_a_title_is_called_by_its_first_h1():
    assert parse(b"<h2>x</h2><h1>The <i>name</i></h1>", HTML).title == "The name"


def test_xhtml_and_a_lone_word_are_pages_too():
    xhtml = b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><p>Text</p></body></html>'

    assert parse(xhtml, HTML).text == "Text"
    assert parse(b"readme.txt", HTML).text == "readme.txt"


def test_a_page_of_scripts_alone_is_empty():
    assert parse(b"<html><body><script>x()</script></body></html>", HTML).reason == "empty"


def test_deeply_nested_tags_break_nothing():
    assert isinstance(parse(b"<div>" * 20_000 + b"x", HTML), (Parsed, Unparsed))


# PDF


def test_a_pdf_gives_the_text_of_its_pages_and_its_properties():
    info = "/Title (Manual) /Author (Ada) /CreationDate (D:20240131120000Z) /Keywords (a, b)"

    parsed = parse(pdf("Page one", "Page two", info=info), PDF)

    assert parsed == Parsed(
        "Page one\n\nPage two",
        title="Manual",
        author="Ada",
        date="2024-01-31T12:00:00",
        metadata={"keywords": "a, b", "pages": 2},
    )


def test_an_encrypted_pdf_is_unparsable():
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("Secret"))))
    writer.encrypt("pass", algorithm="RC4-128")
    held = io.BytesIO()
    writer.write(held)

    answer = parse(held.getvalue(), PDF)

    assert answer == Unparsed("unparsable", "the PDF is encrypted; store it without a password")


def test_a_pdf_without_text_is_empty_and_the_reader_is_told_of_scans():
    answer = parse(pdf(""), PDF)

    assert answer.reason == "empty"
    assert "OCR" in answer.detail


# DOCX


def test_a_word_file_gives_headings_paragraphs_and_tables_in_order():
    document = docx.Document()
    document.add_heading("Rates", level=1)
    document.add_paragraph("Before.")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ("k", "v", "1", "2"), strict=True):
        cell.text = text
    document.add_paragraph("After.")
    core = document.core_properties
    core.title, core.author, core.created = "Price list", "Ada", datetime(2024, 3, 1, tzinfo=UTC)
    core.category, core.language, core.keywords = "sales", "en", "money"

    parsed = parse(word(document), DOCX)

    assert parsed.text == "Rates\n\nBefore.\n\nk | v\n1 | 2\n\nAfter."
    assert (parsed.title, parsed.author, parsed.category, parsed.language) == ("Price list", "Ada", "sales", "en")
    assert parsed.date.startswith("2024-03-01")
    assert parsed.metadata == {"keywords": "money"}


def test_a_word_file_without_properties_is_called_by_its_heading_and_gets_no_date():
    document = docx.Document()
    document.add_heading("Rates", level=2)
    whole, bare = zipfile.ZipFile(io.BytesIO(word(document))), io.BytesIO()
    with zipfile.ZipFile(bare, "w") as kept:
        for name in whole.namelist():
            if name == "_rels/.rels":
                kept.writestr(name, re.sub(rb"<Relationship [^>]*core\.xml[^>]*>", b"", whole.read(name)))
            elif name != "docProps/core.xml":
                kept.writestr(name, whole.read(name))

    assert parse(bare.getvalue(), DOCX) == Parsed("Rates", title="Rates")


def test_merged_and_nested_cells_are_told_once():
    document = docx.Document()
    table = document.add_table(rows=1, cols=3)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    table.cell(0, 2).add_table(rows=1, cols=1).cell(0, 0).text = "inner"

    assert parse(word(document), DOCX).text == "wide | inner"


def test_a_word_file_that_unpacks_to_far_too_much_is_refused_unread():
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as bomb, bomb.open("word/document.xml", "w") as part:
        for _ in range(201):
            part.write(bytes(1_000_000))

    assert parse(held.getvalue(), DOCX).reason == "too_large"


# Any bytes


@pytest.mark.parametrize("mime", sorted(set(DOCUMENTS.values())))
def test_nothing_and_blanks_are_empty(mime):
    assert {parse(data, mime).reason for data in (b"", b" \n\t", b"\xef\xbb\xbf")} == {"empty"}


@pytest.mark.parametrize("mime", [PDF, DOCX])
def test_garbage_is_unparsable(mime):
    assert parse(bytes(range(1, 256)) * 9, mime).reason == "unparsable"


@pytest.mark.parametrize("mime", [MARKDOWN, HTML, PLAIN])
def test_text_of_another_encoding_is_told_where_it_breaks(mime):
    answer = parse("caf\u00e9 noir".encode("latin-1"), mime)

    assert answer.reason == "not_utf8"
    assert "byte 3" in answer.detail
    assert "UTF-16" in parse("x".encode("utf-16"), mime).detail


@pytest.mark.parametrize("mime", [MARKDOWN, HTML, PLAIN])
def test_binary_under_the_name_of_text_is_unparsable(mime):
    assert parse(b"abc\0def", mime).reason == "unparsable"


@pytest.mark.parametrize("cut", [20, 200, 500])
def test_a_pdf_cut_short_never_raises(cut):
    assert isinstance(parse(pdf("Page one")[:cut], PDF), (Parsed, Unparsed))


@given(data=st.binary(max_size=200), mime=st.sampled_from(sorted(set(DOCUMENTS.values()))))
@settings(max_examples=80, deadline=None)
def test_no_bytes_make_a_parser_raise(data, mime):
    answer = parse(data, mime)

    assert isinstance(answer, Unparsed) or answer.text.strip()


def test_an_unknown_kind_is_unsupported():
    assert parse(b"x", mime_of("a.png")).reason == "unsupported"


# Row files


def test_bad_json_lines_are_told_by_number_and_the_others_go_on():
    data = (
        b'\xef\xbb\xbf{"id": 1}\n\n{bad\n[1]\n{"id": "\xff"}\n{"id": "'
        + b"x" * 99
        + b'"}\r\n{"id": 123456789012345678901}'
    )

    found = rows(data, ".jsonl", max_bytes=60)

    assert [one if isinstance(one, Record) else (one.reason, one.detail.split(":")[0]) for one in found] == [
        Record(1, {"id": 1}),
        ("unparsable", "line 3"),
        ("unparsable", "line 4"),
        ("not_utf8", "line 5"),
        ("too_large", "line 6"),
        Record(7, {"id": 123456789012345678901}),
    ]


def test_json_nested_without_end_is_one_bad_line():
    assert [one.reason for one in rows(b'{"a":' + b"[" * 90_000, ".jsonl", max_bytes=100_000)] == ["unparsable"]


def test_csv_keeps_its_strings_and_long_quoted_cells():
    long = "line\n" * 40_000
    data = f'id,text\r\n007,"{long}"\r\n\r\n8,"a ""b"""\r\n9\r\n'.encode("utf-8-sig")

    first, second, third = rows(data, ".csv")

    assert first.values == {"id": "007", "text": long}
    assert second.values == {"id": "8", "text": 'a "b"'}
    assert third.reason == "unparsable"
    assert "1 cells, the header has 2" in third.detail


def test_tabs_separate_the_cells_of_tsv():
    assert rows(b"id\ttext\n1\ta, b\n", ".tsv") == [Record(2, {"id": "1", "text": "a, b"}, ("id", "text"))]


def test_of_parquet_only_the_wanted_columns_are_read():
    held = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", None], "huge": [[0.5] * 9] * 2}), held)

    found = rows(held.getvalue(), ".parquet")

    header = ("id", "text", "huge")
    assert found == [Record(1, {"id": 1, "text": "a"}, header), Record(2, {"id": 2, "text": None}, header)]


@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=5), st.integers()), max_size=5))
@settings(max_examples=30, deadline=None)
def test_json_lines_read_back_what_was_written(given_rows):
    data = "\n".join(json.dumps(row) for row in given_rows).encode()

    assert [one.values for one in rows(data, ".jsonl")] == given_rows


def test_front_matter_that_names_access_and_is_no_yaml_is_never_text():
    broken = b"---\ntitle: Q3: plans\naccess: [board]\n---\nSecret.\n"

    found = parse(broken, "text/markdown")

    assert isinstance(found, Unparsed)
    assert "access" in found.detail


@pytest.mark.parametrize(
    ("data", "reason", "says"),
    [
        (b"id,text,text\n1,a,b\n", "unparsable", "'text'"),
        ("id,text\n1,a\n".encode("utf-16"), "not_utf8", "UTF-16"),
    ],
)
def test_a_csv_whose_header_cannot_be_right_is_one_reject(data, reason, says):
    found = list(records(io.BytesIO(data), "text/csv", columns=("id", "text"), max_bytes=1_000))

    assert [one.reason for one in found] == [reason]
    assert says in found[0].detail
