from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lodestore import events, golden, prompts
from lodestore.catalog import collect
from lodestore.documents import read
from lodestore.errors import RefusedError
from lodestore.init import HOUSE, begin, house
from lodestore.rows import check_rows
from lodestore.settings import load

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def begun(tmp_path):
    return begin(tmp_path / "project", now=NOW)


@pytest.fixture
def folder(begun):
    return Path(begun.folder)


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_new_project_has_everything_that_it_names(begun, tmp_path):
    settings = load(tmp_path / "project", environ={})

    assert files(settings.root) == set(begun.written)
    assert (settings.root / ".gitignore").read_text().startswith(".lodestore/")
    assert {one.label for one in settings.embedding.models} == set(settings.embedding.features.values())
    assert len(prompts.read_folder(settings.root / settings.templates.folder)) >= 3


def test_its_golden_set_judges_documents_that_it_has(folder):
    settings = load(folder, environ={})
    documents = read(settings.documents[0], root=settings.root, now=NOW).documents
    files = settings.golden[0]

    asked = golden.read(files.name, settings.root / files.queries, settings.root / files.qrels)
    resolved = golden.resolve(asked, [one.document_id for one in documents])

    assert len(documents) >= 4
    assert len(resolved.judged) == len(asked.queries) >= settings.gate.min_queries


def test_its_events_are_recent_and_fit_their_views(folder):
    settings = load(folder, environ={})
    catalog = collect(["lodestore.standard"])

    for source in settings.events:
        rows = [row for file in events.files(source, root=settings.root) for _, row in events.rows(source, file.path)]
        checked = check_rows(catalog.view(source.view), rows, now=NOW)
        times = checked.table["event_timestamp"].to_pylist()
        assert checked.problems == ()
        assert all(timedelta(0) < NOW - one < timedelta(hours=1) for one in times)


def test_the_scaffold_is_the_house_itself(begun, tmp_path):
    copied = {name: (tmp_path / "project" / name).read_bytes() for name in begun.written if name.split("/")[0] in HOUSE}

    own = {
        path.relative_to(REPOSITORY).as_posix(): path.read_bytes()
        for part in HOUSE
        for path in (REPOSITORY / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert copied == own
    assert dict(house()).keys() == own.keys()


def test_the_wheel_carries_the_house():
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    if "force-include" not in wheel:
        pytest.skip("pyproject.toml does not ship the Dagster folders yet")

    shipped = {part: f"lodestore/scaffold/project/{part}" for part in HOUSE}

    assert wheel["force-include"] == shipped


@pytest.mark.parametrize("name", ["workspace.yaml", "dg.toml"])
def test_dagster_finds_the_code_of_a_project_as_it_finds_ours(folder, name):
    assert (folder / name).read_text() == (REPOSITORY / name).read_text()


@pytest.mark.parametrize("path", sorted((REPOSITORY / "templates").glob("*.md")), ids=lambda path: path.name)
def test_the_templates_of_a_project_are_ours(folder, path):
    assert (folder / "templates" / path.name).read_bytes() == path.read_bytes()


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")

    with pytest.raises(RefusedError, match="--force"):
        begin(tmp_path, now=NOW)

    assert files(tmp_path) == {"mine.txt"}


def test_force_leaves_every_file_that_is_there_alone(tmp_path):
    (tmp_path / "lodestore.toml").write_text("# mine")

    begun = begin(tmp_path, now=NOW, force=True)

    assert begun.left == ("lodestore.toml",)
    assert (tmp_path / "lodestore.toml").read_text() == "# mine"
    assert "workspace.yaml" in begun.written


def test_a_second_init_with_force_writes_nothing(begun, tmp_path):
    again = begin(tmp_path / "project", now=NOW, force=True)

    assert again.written == ()
    assert again.left == begun.written


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "project").write_text("")

    with pytest.raises(RefusedError, match="is a file"):
        begin(tmp_path / "project", now=NOW)


def test_what_comes_next_is_called_as_this_command_was(tmp_path):
    begun = begin(tmp_path / "mine", now=NOW, command="/opt/venv/bin/lodestore")

    assert begun.next_commands[1].startswith("/opt/venv/bin/lodestore run ingest")
