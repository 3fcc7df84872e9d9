"""`lodestore drift`: two files, bad files, and the store against its baselines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestore.cli import run
from lodestore.project import open_project

MakeProject = Callable[..., Path]


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., str]:
    def write(name: str, **columns) -> str:
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table(columns), path)
        return str(path)

    return write


def told(capsys, *arguments: str) -> tuple[int, dict]:
    code = run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_shift_in_a_file_is_a_finding_and_the_same_file_is_none(files, capsys):
    rng = np.random.default_rng(0)
    before = files("before", x=rng.standard_normal(500), kind=rng.choice(["a", "b"], 500))
    after = files("after", x=rng.standard_normal(500) + 1, kind=rng.choice(["a", "b"], 500))

    moved, found = told(capsys, "drift", "--baseline", before, after)
    same, quiet = told(capsys, "drift", before, "--baseline", before)

    assert (moved, same) == (1, 0)
    assert found["rows"] == {"baseline": 500, "current": 500}
    assert (found["drifted"], quiet["drifted"]) == (["x"], [])
    assert {"feature", "kind", "measure", "value", "limit", "p", "verdict", "baseline", "current"} <= found["features"][
        0
    ].keys()


@pytest.mark.parametrize(("values", "verdict"), [
    ([], "insufficient_data"),
    ([1.0], "insufficient_data"),
    ([None] * 300, "drift"),
    ([7.0] * 300, "drift"),
    ([float("inf")] * 300, "drift"),
    (["1", "x"] * 150, "drift"),
])  # fmt: skip
def test_bad_windows_have_their_verdict_and_their_words(files, capsys, values, verdict):
    before = files("before", x=np.random.default_rng(0).standard_normal(300))
    now = pa.array(values, pa.float64()) if not values or values[0] is None else pa.array(values)

    _, found = told(capsys, "drift", "--baseline", before, files("after", x=now))

    (one,) = found["features"]
    assert one["verdict"] == verdict
    assert one["explanation"]


def test_a_column_that_vanished_is_drift(files, capsys):
    before = files("before", x=np.arange(50.0), y=np.arange(50.0))

    code, found = told(capsys, "drift", "--baseline", before, files("after", x=np.arange(50.0)))

    assert code == 1
    assert found["drifted"] == ["y"]


@pytest.mark.parametrize(("name", "content", "said"), [
    ("none.csv", None, "there is no such file"),
    ("data.xlsx", "x", "ends in .csv"),
    ("bad.parquet", "PAR1", "is not PARQUET"),
    ("empty.csv", "", "is not CSV"),
    ("twice.csv", "a,a\n1,2\n", "two columns are called 'a'"),
    ("bad.jsonl", "{\n", "line 1: not JSON"),
])  # fmt: skip
def test_a_file_that_is_no_table_is_told_by_name_and_fault(files, capsys, tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_text(content, encoding="utf-8")

    code = run(["drift", "--baseline", files("before", a=[1, 2]), str(path)])

    assert code == 2
    assert name in (error := capsys.readouterr().err)
    assert said in error


def test_an_unknown_column_is_told_with_the_nearest(files, capsys):
    before = files("before", user_id=["a"], x=[1])

    code = run(["drift", "--baseline", before, before, "--id", "userid"])

    assert code == 2
    assert "user_id" in capsys.readouterr().err


def test_the_store_is_checked_listed_and_rebased(make_project: MakeProject, capsys):
    folder = make_project("[drift]\nmin_rows = 5\n")
    for number in range(8):
        (folder / "docs" / f"more{number}.md").write_text(f"# More\n\nof number {number}\n", encoding="utf-8")
    project = open_project(folder)
    project.pipeline.read_documents()
    assert project.versions.maintained()
    project.pipeline.cut_chunks()
    project.pipeline.fill_maintained()
    project.pipeline.promote_first()
    config = ("--config", str(folder))

    checked, found = told(capsys, *config, "drift", "check", "content")
    unreasoned = run([*config, "drift", "rebaseline", "content"])
    capsys.readouterr()
    rebased, made = told(capsys, *config, "drift", "rebaseline", "content", "--reason", "new")
    _, listed = told(capsys, *config, "drift", "baselines")

    assert (checked, unreasoned, rebased) == (0, 2, 0)
    assert found["subjects"][0]["baseline"]["id"].endswith("#1")
    assert [one["reason"] for one in made] == ["new"]
    mine = [(one["id"][-2:], one["in_use"]) for one in listed if "content" in one["subject"]]
    assert mine == [("#1", False), ("#2", True)]
