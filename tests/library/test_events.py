"""Event files: which ones a source has, and each of their rows with its line."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestore.errors import DeclarationError, SourceError
from lodestore.events import EventSource, TextRow, files, rows


def source(uri: str = "*.jsonl", **columns: str) -> EventSource:
    return EventSource("users", "profile", uri, columns)


def read(path: Path, content: str | bytes, **columns: str) -> list[tuple[int, Any]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(rows(source(**columns), path))


def names(folder: Path, uri: str) -> list[str]:
    return [one.path.relative_to(folder).as_posix() for one in files(source(uri), root=folder)]


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("*.jsonl", ["a.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "deep/b.jsonl"]),
        (".", ["a.jsonl", "c.CSV", "deep/b.jsonl", "odd[1].jsonl"]),
        ("deep", ["deep/b.jsonl"]),
        ("odd[1].jsonl", ["odd[1].jsonl"]),
        ("?.CSV", ["c.CSV"]),
    ],
)
def test_a_source_is_a_file_a_folder_or_a_glob(tmp_path: Path, uri: str, found: list[str]) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.jsonl", "c.CSV", "deep/b.jsonl", "readme.txt", "odd[1].jsonl"):
        (tmp_path / name).touch()
    if uri in {"*.jsonl", "**/*.jsonl"}:
        (tmp_path / "odd[1].jsonl").unlink()

    assert names(tmp_path, uri) == found


def test_an_absolute_glob_is_not_looked_for_in_the_project(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert [one.path.name for one in files(source(str(tmp_path / "*.jsonl")), root=Path("/nowhere"))] == ["a.jsonl"]


def test_the_state_of_a_file_changes_when_the_file_does(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{}", encoding="utf-8")
    (before,) = files(source(), root=tmp_path)
    (same,) = files(source(), root=tmp_path)
    file.write_text("{} ", encoding="utf-8")
    (after,) = files(source(), root=tmp_path)

    assert before == same
    assert before.state != after.state


@pytest.mark.parametrize("uri", ["none.jsonl", "*.jsonl", "none/**/*.csv"])
def test_a_source_without_files_names_its_setting(tmp_path: Path, uri: str) -> None:
    with pytest.raises(SourceError, match=r"events\.users\.uri: .* matches no file"):
        files(source(uri), root=tmp_path)


def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(SourceError, match=r"a\.txt is none of \.jsonl, \.ndjson, \.csv, \.parquet"):
        files(source("*"), root=tmp_path)


@pytest.mark.parametrize(("name", "uri"), [("a b", "x"), ("a", "s3://x"), ("a", " ")])
def test_a_source_that_cannot_be_is_refused_when_it_is_declared(name: str, uri: str) -> None:
    with pytest.raises(DeclarationError):
        EventSource(name, "profile", uri)


def test_json_lines_come_with_their_line_numbers(tmp_path: Path) -> None:
    content = '\ufeff{"a": 1}\n\n[1]\n{"a": \n{"a": "é"}\r\n'
    found = read(tmp_path / "a.jsonl", content)

    assert found[0] == (1, {"a": 1})
    assert found[1] == (3, "a JSON object is expected, not list")
    assert found[2][0] == 4
    assert found[2][1].startswith("not JSON: ")
    assert found[3] == (5, {"a": "é"})


def test_a_line_that_is_not_utf_8_or_too_deep_stops_no_other(tmp_path: Path) -> None:
    content = b'{"a": "\xfc"}\n' + b"[" * 100_000 + b'\n{"a": ' + b"9" * 5000 + b'}\n{"a": 1}\n'
    found = read(tmp_path / "a.jsonl", content)

    assert found[0] == (1, "not UTF-8; save the file as UTF-8")
    assert found[1][1].startswith("not JSON")
    assert found[2][1].startswith("not JSON")
    assert found[3] == (4, {"a": 1})


def test_csv_rows_are_text_with_the_line_on_which_they_begin(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", '\ufeffa,b\n1,\n"two\nlines",x\n\n3,y\n')

    assert found == [(2, {"a": "1", "b": None}), (3, {"a": "two\nlines", "b": "x"}), (6, {"a": "3", "b": "y"})]
    assert all(type(row) is TextRow for _, row in found)


def test_a_csv_row_with_more_or_fewer_values_than_columns_is_told_so(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", "a,b\n1\n1,2,3\n1,2\n")

    assert found[0] == (2, "1 values; the header names 2 columns")
    assert found[1] == (3, "3 values; the header names 2 columns")
    assert found[2] == (4, {"a": "1", "b": "2"})


def test_a_csv_row_that_does_not_parse_stops_no_other(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", 'a,b\n"x"y,1\n' + "z" * 200_000 + ",1\n1,2\n")

    assert [line for line, _ in found] == [2, 3, 4]
    assert found[0][1].startswith("not CSV: ")
    assert found[1][1].startswith("not CSV: ")
    assert found[2][1] == {"a": "1", "b": "2"}


def test_a_csv_file_in_another_encoding_marks_only_the_rows_that_show_it(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", "a\nBücher\nplain\n".encode("latin-1"))
    assert found[1] == (3, {"a": "plain"})
    assert found[0][1] == {"a": "B\udcfccher"}


@pytest.mark.parametrize(("header", "told"), [("a,b,a", "'a' twice"), ("a,,b", "a column without a name")])
def test_a_csv_header_that_is_ambiguous_is_refused(tmp_path: Path, header: str, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        read(tmp_path / "a.csv", f"{header}\n1,2,3\n")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    assert read(tmp_path / name, "") == []


def test_parquet_rows_keep_their_types(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, None], "b": [{"c": [1.5]}, None]}), tmp_path / "a.parquet")
    assert list(rows(source(), tmp_path / "a.parquet")) == [
        (1, {"a": 1, "b": {"c": [1.5]}}),
        (2, {"a": None, "b": None}),
    ]


@pytest.mark.parametrize("content", [b"", b"PAR1 but no more"])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceError, match=r"a\.parquet is not a Parquet file"):
        read(tmp_path / "a.parquet", content)


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.jsonl cannot be read: No such file"):
        list(rows(source(), tmp_path / "gone.jsonl"))


def test_columns_are_renamed_to_those_of_the_view(tmp_path: Path) -> None:
    renamed = EventSource("users", "profile", "x", {"user_id": "who", "age": "years"})
    (tmp_path / "a.jsonl").write_text('{"who": "u1", "years": 3, "x": 1}', encoding="utf-8")

    assert list(rows(renamed, tmp_path / "a.jsonl")) == [(1, {"user_id": "u1", "age": 3, "x": 1})]


@given(st.binary(max_size=200), st.sampled_from(["a.jsonl", "a.csv", "a.parquet"]))
def test_whatever_the_bytes_each_row_is_values_or_a_reason(content: bytes, name: str) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        try:
            found = read(Path(folder) / name, content)
        except SourceError:
            return
        assert all(line >= 1 and isinstance(one, str | dict) for line, one in found)


def test_a_line_that_breaks_off_is_told_with_the_place_where_it_does(tmp_path: Path) -> None:
    ((number, told),) = read(tmp_path / "a.jsonl", '{"user_id": "u1", \n')

    assert number == 1
    assert str(told).endswith("at character 18"), told


def test_columns_that_are_not_the_views_can_be_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": "u1", "age": 3, "note": "x"}', encoding="utf-8")

    told = EventSource("users", "profile", "a.jsonl", {"user_id": "id"}, ignore=("note",))

    assert list(rows(told, file)) == [(1, {"user_id": "u1", "age": 3})]


def test_a_name_that_is_left_out_is_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"at": "2026-01-01T00:00:00Z", "event_timestamp": "never"}', encoding="utf-8")

    told = EventSource("users", "profile", "a.jsonl", {"event_timestamp": "at"}, ignore=("event_timestamp",))

    assert list(rows(told, file)) == [(1, {"event_timestamp": "2026-01-01T00:00:00Z"})]


@pytest.mark.parametrize(("zone", "hour"), [("UTC", 12), ("Europe/Berlin", 11)])
def test_times_of_parquet_without_a_zone_stand_in_the_zone_of_the_source(tmp_path: Path, zone: str, hour: int) -> None:
    moment = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - that is the point
    whole = datetime(2026, 1, 1, 6, tzinfo=UTC)
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"at": [moment], "often": [[moment]], "whole": pa.array([whole]), "no": [None]}), file)

    ((_, row),) = rows(EventSource("users", "profile", "a.parquet", zone=zone), file)

    assert row["at"] == datetime(2026, 1, 1, hour, tzinfo=UTC)
    assert row["often"] == [row["at"]]
    assert row["whole"] == whole
    assert row["no"] is None


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "", "Europe"])
def test_a_zone_that_is_none_is_an_error_that_names_it(zone: str) -> None:
    with pytest.raises(DeclarationError, match="write UTC"):
        EventSource("users", "profile", "a.parquet", zone=zone)


def test_what_is_read_from_a_file_depends_on_what_is_left_out_of_it() -> None:
    plain = EventSource("users", "profile", "a.parquet", {"user_id": "id"})

    readings = [plain.reading, replace(plain, ignore=("a",)).reading, replace(plain, zone="UTC").reading]

    assert readings[0] == {"user_id": "id"}
    assert len({str(one) for one in readings}) == 3
