from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import docx
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestore.documents import Document, DocumentSource, Rejected, read
from lodestore.errors import DeclarationError, SettingsError, SourceError

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Flaky(MemoryFileSystem):
    """A memory file system that loses its connection at files called `lost`, and everywhere when it is `down`."""

    protocol = "flaky"
    down: ClassVar[bool] = False
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("flaky://"))

    def find(self, *args, **kwargs):
        if Flaky.down:
            message = "connection reset"
            raise RuntimeError(message)
        return super().find(*args, **kwargs)

    def _open(self, path, *args, **kwargs):
        if "lost" in path and "r" in kwargs.get("mode", args[0] if args else "rb"):
            message = "connection reset"
            raise OSError(message)
        return super()._open(path, *args, **kwargs)


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def flaky():
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.store.clear()
    Flaky.down = False
    return fsspec.filesystem("flaky")


def write(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def reading(root: Path, uri: str, **options):
    return read(DocumentSource("s", uri, **options), root=root, now=NOW)


def ids(found) -> list[str]:
    return [one.document_id for one in found]


# Sources


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"uri": ""}, "documents.s.uri"),
        ({"max_retire": 1.5}, "documents.s.max_retire: 1.5"),
        ({"max_retire": float("nan")}, "documents.s.max_retire"),
        ({"max_bytes": 0}, "documents.s.max_bytes: 0"),
        ({"columns": {"id": ""}}, "documents.s.columns.id"),
    ],
)
def test_a_wrong_setting_of_a_source_is_named(options, said):
    with pytest.raises(SettingsError, match=said):
        DocumentSource("s", **{"uri": "docs", **options})


def test_a_source_has_a_name_that_a_table_can_have():
    with pytest.raises(DeclarationError, match="documents 'My Docs'"):
        DocumentSource("My Docs", "docs")


# Folders, globs, files


def test_a_folder_is_every_supported_file_below_that_is_not_hidden(tmp_path):
    write(
        tmp_path / "docs",
        {
            "b.md": "# B",
            "a/x.TXT": "x",
            "a/logo.png": b"\x89PNG",
            ".hidden.md": "no",
            ".git/c.md": "no",
            "a.md": "text",
            "dir.md/inner.html": "<p>in</p>",
        },
    )

    found = reading(tmp_path, "docs")

    assert ids(found.documents) == ["s/a/x.TXT", "s/a.md", "s/b.md", "s/dir.md/inner.html"]
    assert [one.title for one in found.documents] == ["x", "a", "B", "inner"]
    assert found.documents[0].uri == "docs/a/x.TXT"
    assert (found.rejects, found.complete, found.problem) == ((), True, None)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("docs/**/*.md", ["a.md", "g/b.md", "g/h/c.md"]),
        ("docs/*.md", ["a.md"]),
        ("docs/*/[b-z].md", ["g/b.md"]),
        ("docs/**", ["a.md", "g/b.md", "g/d.txt", "g/h/c.md"]),
        ("docs/g/**/?.txt", ["d.txt"]),
        ("docs/*.html", []),
    ],
)
def test_ids_are_relative_to_the_fixed_part_of_a_glob(tmp_path, pattern, expected):
    write(tmp_path / "docs", {"a.md": "a", "g/b.md": "b", "g/h/c.md": "c", "g/d.txt": "d"})

    found = reading(tmp_path, pattern)

    assert ids(found.documents) == [f"s/{one}" for one in expected]
    assert found.complete


def test_a_name_with_brackets_is_a_name_when_it_exists(tmp_path):
    write(tmp_path, {"[draft].md": "x", "d.md": "y"})

    assert ids(reading(tmp_path, "[draft].md").documents) == ["s/[draft].md"]


def test_one_file_is_called_by_its_name(tmp_path):
    write(tmp_path, {"deep/guide.md": "# Guide\n\none two"})

    (document,) = reading(tmp_path, (tmp_path / "deep/guide.md").as_uri()).documents

    assert (document.document_id, document.uri, document.mime) == ("s/guide.md", "deep/guide.md", "text/markdown")
    assert document.word_count == 4


@pytest.mark.parametrize("uri", ["nowhere", "nowhere/**/*.md", "nowhere.md", "memory://nowhere/*.md", "memory://x.md"])
def test_a_source_that_is_not_there_is_an_error_with_its_setting(tmp_path, memory, uri):
    assert not memory.store

    with pytest.raises(SourceError, match=r"documents\.s\.uri = .*does not exist; correct"):
        reading(tmp_path, uri)


def test_one_file_of_a_kind_that_is_not_read_is_an_error(tmp_path):
    write(tmp_path, {"a.xyz": "x"})

    with pytest.raises(SourceError, match=r"a\.xyz has a kind that is not read.*\.docx"):
        reading(tmp_path, "a.xyz")


def test_a_glob_that_asks_for_a_kind_that_is_not_read_is_told(tmp_path):
    write(tmp_path, {"d/a.rst": "x"})

    assert [(one.document_id, one.reason) for one in reading(tmp_path, "d/*.rst").rejects] == [
        ("s/a.rst", "unsupported")
    ]
    assert reading(tmp_path, "d/*").rejects == ()


def test_a_pipe_is_neither_a_file_nor_a_folder(tmp_path):
    os.mkfifo(tmp_path / "p.md")

    with pytest.raises(SourceError, match="neither a file nor a folder"):
        reading(tmp_path, "p.md")
    assert reading(tmp_path, "*.md").documents == ()


def test_links_are_followed_and_their_loops_end(tmp_path):
    write(tmp_path, {"docs/z/a.md": "a", "far/b.md": "b"})
    (tmp_path / "docs/again").symlink_to(tmp_path / "docs")
    (tmp_path / "docs/alias").symlink_to(tmp_path / "docs/z")
    (tmp_path / "docs/far").symlink_to(tmp_path / "far")
    (tmp_path / "docs/self.md").symlink_to(tmp_path / "docs/self.md")
    (tmp_path / "docs/gone.md").symlink_to(tmp_path / "never")

    found = reading(tmp_path, "docs")

    assert ids(found.documents) == ["s/far/b.md", "s/z/a.md"]
    assert [(one.document_id, one.reason) for one in found.rejects] == [
        ("s/gone.md", "unparsable"),
        ("s/self.md", "unparsable"),
    ]
    assert found.complete


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_what_may_not_be_read_leaves_the_reading_incomplete(tmp_path):
    write(tmp_path, {"docs/a.md": "a", "docs/b.md": "b", "docs/closed/c.md": "c"})
    (tmp_path / "docs/a.md").chmod(0)
    (tmp_path / "docs/closed").chmod(0)

    found = reading(tmp_path, "docs")
    (tmp_path / "docs/closed").chmod(0o700)

    assert ids(found.documents) == ["s/b.md"]
    assert ids(found.rejects) == ["s/a.md"]
    assert not found.complete
    assert "closed could not be listed" in found.problem


def test_a_name_that_is_not_utf8_is_rejected_in_words_that_can_be_stored(tmp_path):
    (tmp_path / "docs").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/docs/\xff.md")).write_text("x", encoding="utf-8")

    assert reading(tmp_path, "docs").rejects == (
        Rejected(
            "s",
            "docs/?.md",
            "s/?.md",
            "not_utf8",
            "surrogates not allowed at character 2: half a character or foreign bytes",
        ),
    )


# Bad files


def test_bad_files_go_to_the_rejects_with_their_reason_and_stop_nothing(tmp_path):
    noise = bytes(range(1, 256)) * 4
    bad = {
        "a.pdf": (noise, "unparsable"),
        "b.docx": (noise, "unparsable"),
        "c.html": (noise, "not_utf8"),
        "d.md": (b"", "empty"),
        "e.txt": (b" \n ", "empty"),
        "f.txt": ("gr\u00fcn".encode("latin-1"), "not_utf8"),
        "g.md": (b"x" * 100_001, "too_large"),
        "h.md": (b"PK\0\0", "unparsable"),
        "i.docx": (b"%PDF-1.4", "unparsable"),
    }
    write(tmp_path / "docs", {name: data for name, (data, _) in bad.items()} | {"good.md": "# Good"})
    document = docx.Document()
    document.add_paragraph("words")
    document.save(tmp_path / "docs/z.docx")

    found = reading(tmp_path, "docs", max_bytes=100_000)

    told = {one.document_id.removeprefix("s/"): one.reason for one in found.rejects}
    assert told == {name: reason for name, (_, reason) in bad.items()}
    assert {"s/good.md", "s/z.docx"} <= set(ids(found.documents))
    assert found.complete


# What a document is


def test_a_touched_file_is_the_same_document_and_an_edited_one_is_not(tmp_path):
    write(tmp_path, {"a.md": "one"})
    before = reading(tmp_path, "a.md").documents[0]

    os.utime(tmp_path / "a.md", (1_700_000_000, 1_700_000_000))
    touched = reading(tmp_path, "a.md").documents[0]
    write(tmp_path, {"a.md": "two"})
    edited = reading(tmp_path, "a.md").documents[0]

    assert touched.event_timestamp == datetime.fromtimestamp(1_700_000_000, UTC)
    assert touched.content_hash == before.content_hash
    assert edited.content_hash != before.content_hash


def test_a_document_is_dated_by_itself_before_its_file(tmp_path):
    write(
        tmp_path,
        {
            "a.md": "---\ndate: 2024-03-01\ncategory: own\nlanguage: fr\n---\nx",
            "b.md": "---\ndate: 2024-03-01T02:00:00+02:00\n---\nx",
            "c.md": "---\ndate: last spring\n---\nx",
        },
    )
    os.utime(tmp_path / "c.md", (0, 0))

    a, b, c = reading(tmp_path, "*.md", category="general").documents

    assert a.event_timestamp == b.event_timestamp == datetime(2024, 3, 1, tzinfo=UTC)
    assert (a.category, b.category) == ("own", "general")
    assert (a.metadata, c.metadata) == ({"language": "fr"}, {"date": "last spring"})
    assert c.event_timestamp == datetime(1970, 1, 1, tzinfo=UTC)


@given(
    first=st.fixed_dictionaries({"title": st.text(max_size=4), "text": st.text("ab", min_size=1, max_size=2)}),
    second=st.fixed_dictionaries({"title": st.text(max_size=4), "text": st.text("ab", min_size=1, max_size=2)}),
)
@settings(max_examples=60, deadline=None)
def test_equal_hashes_mean_equal_documents(tmp_path_factory, first, second):
    root = tmp_path_factory.mktemp("rows")
    lines = [json.dumps({"id": number, **row}) for number, row in enumerate((first, second))]
    (root / "r.jsonl").write_text("\n".join(lines), encoding="utf-8")

    documents = reading(root, "r.jsonl").documents

    if len(documents) == 2:
        a, b = documents
        assert (a.content_hash == b.content_hash) == ((a.title, a.content) == (b.title, b.content))


# Rows


def test_jsonl_rows_are_documents_and_bad_ones_are_told(tmp_path):
    rows = [
        '{"id": 42, "title": "T", "text": "hello there", "author": ["A", "B"], "date": "2024-01-01", "category": "c"}',
        '{"_id": "x", "text": "beir", "uri": "https://x.test/1", "metadata": {"k": [1, NaN]}}',
        '{"text": "no id"}',
        '{"id": true, "text": "no id"}',
        '{"id": "n"}',
        '{"id": "l", "text": ["x"]}',
        '{"id": "e", "text": "  "}',
        '{"id": 42, "text": "again"}',
        '{"id": "z", "text": "a\\u0000b"}',
        '{"id": "u", "text": "\\ud800"}',
        '{"id": "b", "text": "' + "x" * 200 + '"}',
        "not json",
    ]
    write(tmp_path, {"r.jsonl": "\n".join(rows)})

    found = reading(tmp_path, "r.jsonl", max_bytes=120)

    first, second = found.documents
    assert (first.document_id, first.title, first.author, first.category) == ("s/42", "T", "A, B", "c")
    assert (first.uri, first.mime, first.event_timestamp) == (
        "r.jsonl#42",
        "text/plain",
        datetime(2024, 1, 1, tzinfo=UTC),
    )
    assert (second.document_id, second.title, second.uri) == ("s/x", "", "https://x.test/1")
    assert second.metadata == {"k": [1, None]}
    assert [(one.document_id, one.reason) for one in found.rejects] == [
        (None, "missing_id"),
        (None, "missing_id"),
        ("s/n", "missing_text"),
        ("s/l", "missing_text"),
        ("s/e", "empty"),
        ("s/42", "duplicate_id"),
        ("s/z", "unparsable"),
        ("s/u", "not_utf8"),
        (None, "too_large"),
        (None, "unparsable"),
    ]
    assert "line 12" in found.rejects[-1].detail
    assert found.complete


def test_what_stands_in_the_column_of_ids_is_told_by_its_type_alone(tmp_path):
    secret = "the salary of Ann"
    rows = [{"id": {"text": secret}, "text": "x"}, {"id": [secret], "text": "x"}, {"id": None, "text": "x"}]
    write(tmp_path, {"r.jsonl": "\n".join(map(json.dumps, rows))})

    found = reading(tmp_path, "r.jsonl")

    assert [one.reason for one in found.rejects] == ["missing_id"] * 3
    assert secret not in str(found)
    assert [one.detail for one in found.rejects] == [
        f"line {line}: its id is {what}; an id is a text or a number"
        for line, what in ((1, "of type dict"), (2, "of type list"), (3, "nothing"))
    ]


def test_an_id_is_cut_where_a_reject_tells_it(tmp_path):
    row = json.dumps({"id": "i" * 500, "text": "x"})
    write(tmp_path, {"r.jsonl": f"{row}\n{row}\n"})

    (reject,) = reading(tmp_path, "r.jsonl").rejects

    assert reject.document_id == "s/" + "i" * 500
    assert reject.detail == "r.jsonl#" + "i" * 72 + "... has this id already, and came first"


COLUMNS = {"id": "key", "text": "body", "vector": "emb", "lang": "language_code"}


def test_csv_columns_are_mapped_and_ids_stay_strings(tmp_path):
    write(tmp_path, {"r.csv": 'key,body,emb,language_code,other\n007,hello,"[0.5, 1]",en,x\n8,bye,[NaN],en,x\n9,,,,\n'})

    found = reading(tmp_path, "r.csv", columns=COLUMNS)

    (document,) = found.documents
    assert (document.document_id, document.vector, document.metadata) == ("s/007", (0.5, 1.0), {"lang": "en"})
    assert [(one.document_id, one.reason) for one in found.rejects] == [("s/8", "unparsable"), ("s/9", "empty")]


def test_parquet_rows_carry_their_vectors(tmp_path):
    stamps = [datetime(2024, 1, 1, tzinfo=UTC)] * 2
    table = {
        "key": [1, 2],
        "body": ["a", "b"],
        "emb": [[1.0, 0.0], None],
        "language_code": ["en", None],
        "date": stamps,
    }
    pq.write_table(pa.table(table), tmp_path / "r.parquet")

    first, second = reading(tmp_path, "r.parquet", columns=COLUMNS).documents

    assert (first.vector, second.vector) == ((1.0, 0.0), None)
    assert first.event_timestamp == datetime(2024, 1, 1, tzinfo=UTC)
    assert second.metadata == {"lang": None}


def test_another_vector_is_another_document(tmp_path):
    write(tmp_path, {"r.jsonl": '{"id": 1, "text": "x", "v": [1]}\n{"id": 2, "text": "x", "v": [2]}'})

    first, second = reading(tmp_path, "r.jsonl", columns={"vector": "v"}).documents

    assert first.content_hash != second.content_hash


def test_a_column_that_is_not_there_is_an_error_with_the_nearest(tmp_path):
    write(tmp_path, {"r.csv": "id,texts\n1,x\n"})

    with pytest.raises(
        SourceError, match=r"no column 'text', which documents\.s\.columns\.text .*did you mean 'texts'"
    ):
        reading(tmp_path, "r.csv")


def test_a_stray_table_in_a_folder_is_one_reject(tmp_path):
    write(tmp_path, {"d/a.md": "a", "d/sales.csv": "month,sum\n1,2\n2,3\n"})

    found = reading(tmp_path, "d")

    assert ids(found.documents) == ["s/a.md"]
    assert [(one.uri, one.reason) for one in found.rejects] == [("d/sales.csv", "missing_id")]
    assert found.complete


@pytest.mark.parametrize(("name", "data"), [("r.parquet", b"PAR1garbage"), ("r.csv", b'id,text\n1,a\n2,"open\n3,c\n')])
def test_a_row_file_that_breaks_off_retires_nothing(tmp_path, name, data):
    write(tmp_path, {f"d/{name}": data, "d/a.md": "a"})

    found = reading(tmp_path, "d")

    assert "s/a.md" in ids(found.documents)
    assert [(one.document_id, one.reason) for one in found.rejects] == [(None, "unparsable")]
    assert not found.complete
    assert name in found.problem


def test_one_bad_csv_row_is_not_utf8_and_the_next_is_read(tmp_path):
    write(tmp_path, {"r.csv": b"id,text\n1,caf\xe9\n2,ok\n"})

    found = reading(tmp_path, "r.csv")

    assert ids(found.documents) == ["s/2"]
    assert [(one.document_id, one.reason) for one in found.rejects] == [("s/1", "not_utf8")]


def test_of_two_files_with_one_id_the_later_name_loses(tmp_path):
    write(tmp_path, {"d/1.jsonl": '{"id": "k", "text": "first"}', "d/2.jsonl": '{"id": "k", "text": "second"}'})

    found = reading(tmp_path, "d")

    assert [one.content for one in found.documents] == ["first"]
    assert found.rejects == (
        Rejected("s", "d/2.jsonl#k", "s/k", "duplicate_id", "d/1.jsonl#k has this id already, and came first"),
    )


# fsspec


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("memory://docs", ["s/a.md", "s/g/b.jsonl-row"]),
        ("memory://docs/**/*.md", ["s/a.md"]),
        ("memory://docs/a.md", ["s/a.md"]),
        ("memory://docs/*.txt", []),
    ],
)
def test_a_uri_reads_by_the_rules_of_a_folder(tmp_path, memory, uri, expected):
    memory.pipe(
        {
            "/docs/a.md": b"# A",
            "/docs/.h/x.md": b"no",
            "/docs/logo.png": b"no",
            "/docs/g/b.jsonl": b'{"id": "g/b.jsonl-row", "text": "row"}',
        }
    )

    found = reading(tmp_path, uri)

    assert ids(found.documents) == expected
    assert found.complete
    assert all(one.uri.startswith("memory://") for one in found.documents)


def test_a_lost_file_leaves_the_reading_incomplete(tmp_path, flaky):
    flaky.store.clear()
    flaky.pipe({"/d/a.md": b"a", "/d/lost.md": b"b"})

    found = reading(tmp_path, "flaky://d")

    assert ids(found.documents) == ["s/a.md"]
    assert ids(found.rejects) == ["s/lost.md"]
    assert not found.complete
    assert "connection reset" in found.problem


def test_a_listing_that_fails_is_an_incomplete_reading(tmp_path, flaky):
    flaky.pipe({"/d/a.md": b"a"})
    Flaky.down = True

    found = reading(tmp_path, "flaky://d")

    assert (found.documents, found.complete) == ((), False)
    assert "could not be listed: RuntimeError: connection reset" in found.problem


def test_a_protocol_without_a_driver_says_what_to_install(tmp_path):
    with pytest.raises(SourceError, match=r"documents\.s\.uri = 'nope://x'.*install the driver"):
        reading(tmp_path, "nope://x")


# Python


@pytest.fixture
def rows_module(tmp_path, monkeypatch):
    write(
        tmp_path,
        {
            "rows_of_mine.py": """
def good():
    yield {"id": 1, "title": "T", "text": "hello", "date": "2024-01-01", "metadata": {"k": 1}}
    yield ["no"]
    yield {"id": 2, "text": "undated"}

def broken():
    yield {"id": 1, "text": "hello"}
    raise RuntimeError("database away")

constant = 3
"""
        },
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "rows_of_mine"
    sys.modules.pop("rows_of_mine", None)


def test_a_callable_yields_rows(tmp_path, rows_module):
    found = reading(tmp_path, f"python:{rows_module}:good")

    first, second = found.documents
    assert (first.document_id, first.uri, first.metadata) == ("s/1", "python:rows_of_mine:good#1", {"k": 1})
    assert second.event_timestamp == NOW
    assert [one.reason for one in found.rejects] == ["unparsable"]
    assert found.complete


def test_a_callable_that_fails_part_way_keeps_what_it_gave(tmp_path, rows_module):
    found = reading(tmp_path, f"python:{rows_module}:broken")

    assert ids(found.documents) == ["s/1"]
    assert not found.complete
    assert "database away" in found.problem


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("python:rows_of_mine:goood", "did you mean 'good'"),
        ("python:rows_of_mine:constant", "no function 'constant'"),
        ("python:not_a_module:f", "cannot be imported"),
        ("python:rows_of_mine", "python:MODULE:FUNCTION"),
    ],
)
@pytest.mark.usefixtures("rows_module")
def test_a_callable_that_is_not_there_is_an_error(tmp_path, uri, said):
    with pytest.raises(SourceError, match=said):
        reading(tmp_path, uri)


def test_metadata_survives_json(tmp_path):
    write(tmp_path, {"a.md": "---\ntags: [a, b]\nnested: {deep: {er: 1}}\n---\nx"})

    (document,) = reading(tmp_path, "a.md").documents

    assert isinstance(document, Document)
    assert json.loads(json.dumps(document.metadata)) == {"tags": ["a", "b"], "nested": {"deep": {"er": "1"}}}


def test_a_driver_that_cannot_connect_leaves_the_reading_incomplete_and_tells_no_secret(tmp_path):
    source = DocumentSource("far", "ftp://me:s3cret@127.0.0.1:9/docs")

    found = read(source, root=tmp_path, now=NOW)

    assert not found.complete
    assert "could not be listed" in (found.problem or "")
    assert "s3cret" not in (found.problem or "")


def test_an_error_about_an_address_tells_no_secret(tmp_path):
    with pytest.raises(SourceError) as told:
        read(DocumentSource("far", "nothing://me:s3cret@host/docs?token=abc"), root=tmp_path, now=NOW)

    assert "s3cret" not in str(told.value)
