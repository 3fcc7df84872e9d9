"""Coming from Feast, by the description in tests/feast/described.json.

Feast 0.67.0 made it of tests/feast/repository; tests/feast/record.py makes it again.
"""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
import tomllib
import types
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestore import cli, on_demand
from lodestore.catalog import catalog_of
from lodestore.errors import RefusedError, SourceError, UnavailableError
from lodestore.events import files, rows
from lodestore.feast.description import described
from lodestore.feast.interpreter import Interpreter, find, repository_of
from lodestore.feast.module import is_untouched, module_text
from lodestore.feast.placement import place
from lodestore.feast.translation import translate
from lodestore.logs import utc_now
from lodestore.project import open_project
from lodestore.rows import check_rows
from lodestore.settings import load
from lodestore.spec import Kind, Source
from tests.feast.data import build

RECORDED = json.loads((Path(__file__).parents[1] / "feast" / "described.json").read_text(encoding="utf-8"))
BARE = '[store]\nuri = ".lodestore"\n'


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The Feast repository with its data, which Feast itself is not needed for."""
    return build(tmp_path_factory.mktemp("feast") / "repository")


@pytest.fixture(scope="module")
def translated(repository):
    return translate(described(RECORDED), repository=repository, root=repository.parent)


@pytest.fixture(scope="module")
def written(translated):
    return loaded(module_text(translated))


@pytest.fixture
def project(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "lodestore.toml").write_text(BARE, encoding="utf-8")
    return tmp_path / "project"


@pytest.fixture
def python(tmp_path):
    """What stands for the Python that has Feast: it prints what was recorded."""
    return pretended(tmp_path, RECORDED)


@pytest.fixture
def call(capsys, monkeypatch, repository):
    monkeypatch.delenv("LODESTORE_FEAST_PYTHON", raising=False)

    def run(*words, expect=0):
        with own_imports():
            code = cli.run(["import", "feast", *map(str, words)])
        told = capsys.readouterr()
        assert code == expect, told
        return told

    return run


@contextmanager
def own_imports():
    """Each project's modules are its own, as in a process of its own."""
    known, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - known:
        if name.startswith(("feast_", "mine")):
            del sys.modules[name]


def pretended(folder, told, *, name="python"):
    path = folder / name
    text = told if isinstance(told, str) else f"print({json.dumps(json.dumps(told))})"
    script = folder / f"{name}.script"
    script.write_text(f"{text}\n", encoding="utf-8")
    # The first line of a script can name no interpreter whose path has a space.
    words = shlex.join([sys.executable, str(script)])
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def loaded(text):
    module = types.ModuleType("written")
    exec(compile(text, "written.py", "exec"), vars(module))
    return module


def told(translated, kind, name, outcome=None):
    return [
        one.what
        for one in translated.remarks
        if (one.kind, one.name) == (kind, name) and outcome in {None, one.outcome}
    ]


def view(translated, name):
    return next(one for one in translated.views if one.name == name)


# --- what comes over


def test_the_written_module_declares_what_was_translated(translated, written):
    whole = catalog_of([*translated.views, *translated.services])

    assert catalog_of(vars(written).values()) == whole
    assert len(whole.views) == 12


def test_an_ordinary_view_comes_over_as_it_is(translated):
    hourly = view(translated, "driver_hourly_stats")

    assert hourly.entity.keys == ("driver_id",)
    assert hourly.entity.types == ("integer",)
    assert hourly.ttl == timedelta(days=1)
    assert hourly.owner == "fleet@example.com"
    assert {name: one.kind for name, one in hourly.features.items()} == {
        "conv_rate": Kind.NUMBER,
        "acc_rate": Kind.NUMBER,
        "avg_daily_trips": Kind.INTEGER,
    }
    assert hourly.features["conv_rate"].doc == "rides taken of rides offered"


def test_several_entities_are_one_with_several_keys(translated):
    entity = view(translated, "trips").entity

    assert (entity.name, entity.keys, entity.types) == (
        "customer_driver",
        ("customer_id", "driver_id"),
        ("string", "integer"),
    )


def test_a_ttl_of_zero_is_none_and_microseconds_are_kept(translated):
    assert view(translated, "customer_profile").ttl is None
    assert view(translated, "trips").ttl == timedelta(hours=2, microseconds=5)


def test_a_view_without_a_schema_has_the_columns_of_its_file(translated):
    assert list(view(translated, "inferred_stats").features) == ["pace"]


def test_pushed_views_are_streaming_and_those_of_a_warehouse_external(translated):
    sources = {one.name: one.source for one in translated.views}

    assert sources["driver_now"] is sources["driver_clicks"] is Source.STREAMING
    assert sources["customer_value"] is Source.EXTERNAL
    assert "customer_value" not in {one.view for one in translated.events}


def test_a_tag_that_says_personal_is_heeded(translated):
    assert view(translated, "customer_profile").features["mail"].pii


def test_whole_numbers_that_need_64_bits_get_them(translated):
    features = view(translated, "every_type_of").features

    assert features["huge"].wide
    assert not features["camel_case"].wide


def test_columns_are_mapped_left_out_and_read_in_utc(translated):
    events = {one.view: one for one in translated.events}

    assert events["customer_profile"].columns == {"plan": "Plan Name", "event_timestamp": "updated"}
    assert events["customer_profile"].zone == "UTC"
    assert events["driver_hourly_stats"].columns == {"created_timestamp": "created"}
    assert events["driver_hourly_stats"].ignore == ("checked_by",)
    assert events["driver_hourly_stats"].uri == "repository/data/hourly.parquet"


def test_every_row_of_every_file_that_comes_over_fits_its_view(translated, repository):
    checked = {}
    for source in translated.events:
        (file,) = files(source, root=repository.parent)
        found = [row for _, row in rows(source, file.path)]
        checked[source.view] = check_rows(view(translated, source.view), found, now=utc_now())

    assert {name: one.problems for name, one in checked.items()} == dict.fromkeys(checked, ())
    assert checked["driver_hourly_stats"].table.num_rows == 1_320


def test_a_service_has_the_features_that_it_selects_and_no_others(repository):
    said = json.loads(json.dumps(RECORDED))
    plain = {"alias": "", "join_key_map": {}}
    selected = [
        {"view": "driver_hourly_stats", "features": ["acc_rate"], **plain},
        {"view": "driver_now", "features": [], **plain},
    ]
    said["services"] = [said["services"][0] | {"name": "chosen", "projections": selected}]

    made = translate(described(said), repository=repository, root=repository)

    (service,) = made.services
    now = [f"driver_now:{name}" for name in view(made, "driver_now").features]
    assert list(map(str, service.features)) == ["driver_hourly_stats:acc_rate", *now]


def test_a_service_has_those_features_that_came_over(translated):
    services = {one.name: list(map(str, one.features)) for one in translated.services}

    assert services["matching_v2"][-1] == "trips:rides_together"
    assert "customer_profile:active" in services["ranking"]
    assert "nothing_left" not in services


# --- what is told


@pytest.mark.parametrize(
    ("kind", "name", "outcome", "what"),
    [
        ("feature view", "rates", "left", "it has no entity"),
        ("feature view", "weighed", "left", "its entity scale did not come over"),
        ("entity", "scale", "left", "its key weight is DOUBLE"),
        ("source", "far_file", "left", "not on this machine"),
        ("source", "gone_file", "left", "cannot be read"),
        ("source", "value_table", "left", "BigQuerySource"),
        ("source", "clicks", "left", "KafkaSource"),
        ("feature", "Every Type-of:raw", "left", "Bytes"),
        ("feature", "Every Type-of:absent", "left", "no column 'absent'"),
        ("feature", "Every Type-of:attributes", "left", "does not fit Map"),
        ("feature", "Every Type-of:numbers", "different", "vector index"),
        ("feature", "Every Type-of:event_id", "different", "becomes event_id_value"),
        ("feature view", "documents", "different", "becomes documents_view"),
        ("feature view", "class", "different", "becomes class_view"),
        ("feature view", "customer_profile", "different", "online=False"),
        ("feature view", "driver_hourly_stats", "different", "ttl also holds online"),
        ("feature view", "driver_hourly_stats", "left", "tags: tier=gold"),
        ("source", "profile_file", "different", "without a zone are read as UTC"),
        ("on-demand view", "conv_rate_plus", "left", "data frames"),
        ("feature service", "ranking", "left", "on-demand view conv_rate_plus"),
        ("feature service", "Matching v2", "left", "driver_id as origin_id"),
        ("feature service", "Matching v2", "different", "alias who"),
        ("FileSource", "spare_file", "left", "no counterpart"),
        ("feature view", "class", "left", "offline, org"),
        ("source", "trips_file", "left", "description, owner"),
        ("feature service", "ranking", "left", "logging_config"),
    ],
)
def test_nothing_is_dropped_without_a_word(translated, kind, name, outcome, what):
    assert any(what in line for line in told(translated, kind, name, outcome))


def test_every_object_of_the_repository_has_a_line(translated):
    named = {(one.kind, one.name) for one in translated.remarks}

    expected = {("entity", one["name"]) for one in RECORDED["entities"]}
    expected |= {("feature view", one["name"]) for one in RECORDED["views"]}
    expected |= {("on-demand view", one["name"]) for one in RECORDED["on_demand"]}
    expected |= {("feature service", one["name"]) for one in RECORDED["services"]}
    assert expected <= named


def test_a_valid_name_stays_with_what_has_it_in_feast(repository):
    """Each kind has one more of a name that becomes the valid one, and comes before it."""
    said = json.loads(json.dumps(RECORDED))
    for kind, name in (("entities", "driver"), ("views", "driver_now"), ("services", "ranking")):
        (one,) = [each for each in said[kind] if each["name"] == name]
        said[kind] = [json.loads(json.dumps(one)) | {"name": name.title().replace("_", "-")}, *said[kind]]
    (now,) = [one for one in said["views"] if one["name"] == "driver_now"]
    now["fields"] = [{**now["fields"][0], "name": "Speed"}, *now["fields"]]
    now["source"]["columns"]["Speed"] = now["source"]["columns"]["speed"]
    said["entities"][0]["join_key"] = "Driver-Id"

    made = translate(described(said), repository=repository, root=repository)

    assert made.origins["driver_now"].feast == "driver_now"
    assert made.origins["driver_now_2"].feast == "Driver-Now"
    assert made.origins["driver_now"].features == {"speed_2": "Speed", "speed": "speed"}
    assert told(made, "entity", "driver", "carried") == ["Entity driver, key driver_id (integer)"]
    assert told(made, "entity", "Driver", "carried") == ["Entity driver_2, key driver_id_2 (integer)"]
    assert told(made, "feature service", "ranking", "carried")[0].startswith("FeatureService ranking,")
    assert told(made, "feature service", "Ranking", "carried")[0].startswith("FeatureService ranking_2,")


# --- the written text


def test_the_same_description_gives_the_same_bytes(translated, repository):
    shuffled = RECORDED | {"views": RECORDED["views"][::-1], "entities": RECORDED["entities"][::-1]}

    again = translate(described(shuffled), repository=repository, root=repository.parent)

    assert module_text(again) == module_text(translated)


def test_the_module_is_as_the_formatter_would_have_it(translated):
    assert formatted(module_text(translated)) == module_text(translated)


def formatted(text):
    words = [Path(sys.executable).with_name("ruff"), "format", "--config", "line-length = 120", "--isolated", "-"]
    return subprocess.run(words, input=text, capture_output=True, text=True, check=True).stdout


def test_a_changed_module_is_known_by_its_first_line(translated):
    text = module_text(translated)

    assert is_untouched(text)
    assert not is_untouched(text.replace("timedelta(days=1)", "timedelta(days=2)"))
    assert not is_untouched("x = 1\n")


def test_a_comment_becomes_the_on_demand_view_that_it_describes(translated, written):
    text = module_text(translated)
    start, end = text.index("# @on_demand("), text.index("# What Feast ran:")
    lines = [line.removeprefix("# ").removeprefix("#") for line in text[start:end].splitlines()]
    scope = {**vars(written), "on_demand": on_demand, "Mapping": dict}

    exec("\n".join(lines), scope)

    made = scope["conv_rate_plus"]
    assert list(map(str, made.reads)) == [
        f"driver_hourly_stats:{one}" for one in ("conv_rate", "acc_rate", "avg_daily_trips")
    ]
    assert list(made.inputs) == ["bonus", "hour"]


TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            '"""',
            "'''",
            "\\",
            "a\"b'c",
            "\n# x",
            "\r",
            "\x00",
            "\u2028",
            "\ud800",
            "import os",
            "class",
            "__a__",
            "${X}",
            "{}",
            "%s",
            "é" * 90,
        ]
    ),
)


@st.composite
def descriptions(draw):
    """A repository whose every text is anything at all."""
    words = lambda: {"description": draw(TEXTS), "owner": draw(TEXTS), "tags": {draw(TEXTS): draw(TEXTS)}}  # noqa: E731
    names = draw(st.lists(TEXTS, min_size=1, max_size=3, unique=True))
    kinds = st.sampled_from(["Int64", "String", "Float32", "Array(String)", "Json", "Bytes", "Struct({a: Int64})"])
    field = lambda: {"name": draw(TEXTS), "type": draw(kinds), "description": draw(TEXTS), "tags": {}}  # noqa: E731
    entities = [{"name": one, "join_key": draw(TEXTS), "value_type": "INT64", **words()} for one in names]
    views = [
        {
            **words(), "name": one, "kind": "FeatureView", "entities": draw(st.lists(st.sampled_from(names), max_size=3, unique=True)), "keys": [],
            "fields": [field() for _ in range(draw(st.integers(1, 3)))], "ttl": draw(st.floats(0, 1e8)),
            "source": None, "stream": None, "views": [],
        }
        for one in draw(st.lists(TEXTS, min_size=1, max_size=3, unique=True))
    ]  # fmt: skip
    read = {"view": views[0]["name"], "alias": "", "features": [], "join_key_map": {}}
    made = {**words(), "name": draw(TEXTS), "mode": draw(TEXTS), "reads": [read], "code": draw(TEXTS)}
    made |= {"inputs": [field()], "fields": [field()]}
    service = {**words(), "name": draw(TEXTS), "projections": [read]}
    whole = {"feast": "0.67.0", "project": draw(TEXTS), "told_by": "files", "online_store": ""}
    return whole | {"entities": entities, "views": views, "on_demand": [made], "services": [service], "others": []}


ALLOWED = {"Entity", "FeatureView", "FeatureService", "timedelta", "text", "integer", "number", "list_of", "struct"}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(descriptions())
def test_whatever_a_repository_says_the_module_declares_and_does_nothing_else(said):
    made = translate(described(said), repository=Path("/r"), root=Path("/r"))
    text = module_text(made)
    tree = ast.parse(text)

    assert {type(one) for one in tree.body} <= {ast.Expr, ast.ImportFrom, ast.Assign}
    assert {one.module for one in tree.body if isinstance(one, ast.ImportFrom)} <= {"datetime", "lodestore"}
    assert {one.func.id for one in ast.walk(tree) if isinstance(one, ast.Call)} <= ALLOWED
    assert formatted(text) == text
    assert catalog_of(vars(loaded(text)).values()) == catalog_of([*made.views, *made.services])


# --- into a project


def test_an_import_adds_a_module_and_event_files_to_the_project(project, repository, python, call):
    call(repository, "--python", python, "--into", project)

    settings = load(project, environ={})
    assert settings.features.modules == ("feast_driver_ranking",)
    assert {one.view for one in settings.events} >= {"trips", "driver_hourly_stats", "every_type_of"}
    assert (project / "lodestore.toml").read_text().startswith(BARE)


def test_what_was_imported_is_recorded_and_joined(project, repository, python, call):
    call(repository, "--python", python, "--into", project)

    with own_imports():
        opened = open_project(project)
        done = {one.name: opened.pipeline.record(one) for one in opened.pipeline.views()}

    assert done["driver_hourly_stats"].added == 1_320
    assert not any(one.problems for one in done.values())


def test_a_second_import_writes_nothing(project, repository, python, call):
    call(repository, "--python", python, "--into", project)
    before = {path: path.read_bytes() for path in project.rglob("*.*") if path.is_file()}

    value = json.loads(call(repository, "--python", python, "--into", project, "--json").out)

    assert value["written"] == []
    assert {path: path.read_bytes() for path in before} == before


def test_a_change_in_feast_that_breaks_a_version_makes_the_next_one(tmp_path, project, repository, python, call):
    views = [json.loads(json.dumps(one)) for one in RECORDED["views"]]
    hourly = next(one for one in views if one["name"] == "driver_hourly_stats")
    hourly["fields"] = [one for one in hourly["fields"] if one["name"] != "acc_rate"]
    now = next(one for one in views if one["name"] == "driver_now")
    now["ttl"] = 60.0
    changed = pretended(tmp_path, RECORDED | {"views": views}, name="changed")

    call(repository, "--python", python, "--into", project)
    value = json.loads(call(repository, "--python", changed, "--into", project, "--json").out)
    again = json.loads(call(repository, "--python", changed, "--into", project, "--json").out)

    written = catalog_of(vars(loaded((project / "feast_driver_ranking.py").read_text())).values())
    assert written.latest["driver_hourly_stats"].version == 2
    assert written.latest["driver_now"].version == 1
    assert any("acc_rate removed" in one["what"] and "version 2" in one["what"] for one in value["report"])
    assert again["written"] == []


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("broken", [None, b"x = (", b"raise RuntimeError", b"import nowhere", b"\xff"])
def test_a_written_module_that_does_not_load_is_written_anew(project, repository, python, call, folder, broken):
    if folder:
        (project / "mine_features").mkdir()
        (project / "mine_features" / "__init__.py").touch()
        (project / "lodestore.toml").write_text('[features]\nmodules = ["mine_features"]\n', encoding="utf-8")
    call(repository, "--python", python, "--into", project)
    (path,) = project.rglob("feast_driver_ranking.py")
    text = path.read_text()
    path.unlink() if broken is None else path.write_bytes(broken)

    words = [] if broken is None else ["--force"]
    value = json.loads(call(repository, "--python", python, "--into", project, "--json", *words).out)

    assert path.read_text() == text
    assert folder or any(one["kind"] == "module" and "does not load" in one["what"] for one in value["report"])


def test_another_module_that_does_not_load_is_still_told(project, repository, python, call):
    (project / "mine.py").write_text("import nowhere\n", encoding="utf-8")
    (project / "lodestore.toml").write_text('[features]\nmodules = ["mine"]\n', encoding="utf-8")

    refused = call(repository, "--python", python, "--into", project, "--force", expect=2)

    assert "mine cannot be imported" in refused.err


def fewer(tmp_path, *gone):
    """The recorded repository without these views and services."""
    kept = {kind: [one for one in RECORDED[kind] if one["name"] not in gone] for kind in ("views", "services")}
    return pretended(tmp_path, RECORDED | kept, name="fewer")


def test_what_feast_no_longer_has_is_told_and_goes_by_force_only(tmp_path, project, repository, python, call):
    call(repository, "--python", python, "--into", project)
    before = {path: path.read_bytes() for path in project.glob("*.*")}
    less = fewer(tmp_path, "trips", "driver_now", "ranking")

    refused = call(repository, "--python", less, "--into", project, expect=1).err
    plan = json.loads(call(repository, "--python", less, "--into", project, "--plan", "--json").out)

    assert {path: path.read_bytes() for path in before} == before
    for told in ("feature view trips", "feature view driver_now", "feature service ranking", "[[events]] trips"):
        assert told in " ".join(refused.split())
        assert told in {f"{one['kind']} {one['name']}" for one in plan["report"] if "earlier import" in one["what"]}
        assert any(told in one for one in plan["needs_force"])
    call(repository, "--python", less, "--into", project, "--force")
    assert '"trips"' not in (project / "feast_driver_ranking.py").read_text()


@pytest.mark.parametrize("prefix", ["", "other_"])
def test_a_second_repository_of_the_same_project_is_refused(tmp_path, project, repository, python, call, prefix):
    call(repository, "--python", python, "--into", project)
    before = {path: path.read_bytes() for path in project.glob("*.*")}
    second = repository
    if not prefix:
        second = build(tmp_path / "second")
    words = [second, "--python", python, "--into", project, "--prefix", prefix]

    refused = call(*words, expect=1).err

    assert "--module" in refused
    assert str(repository) in refused
    assert {path: path.read_bytes() for path in before} == before
    call(*words, "--force")
    assert str(second) in (project / "feast_driver_ranking.py").read_text()


def test_a_second_repository_comes_into_a_module_of_its_own(project, repository, python, call):
    call(repository, "--python", python, "--into", project)

    call(repository, "--python", python, "--into", project, "--prefix", "b_", "--module", "feast_second")

    assert load(project, environ={}).features.modules == ("feast_second", "feast_driver_ranking")


def test_a_folder_of_modules_takes_the_module_in(project, repository, python, call):
    (project / "mine_features").mkdir()
    (project / "mine_features" / "__init__.py").touch()
    (project / "lodestore.toml").write_text('[features]\nmodules = ["mine_features"] # ours\n', encoding="utf-8")

    value = json.loads(call(repository, "--python", python, "--into", project, "--json").out)

    assert value["module"] == "mine_features.feast_driver_ranking"
    assert 'modules = ["mine_features"] # ours' in (project / "lodestore.toml").read_text()


@pytest.mark.parametrize(
    "before",
    [
        '[features] # mine\nmodules = ["lodestore.standard"] # more\n',
        '[features]\nmodules = [ # one a line\n  "lodestore.standard",\n]\n[store]\nuri = "x"\n',
        "[features]\nmodules = []\n",
        "[features]\n[store]\n",
        '[[events]]\nname = "trips"\nview = "user_profile"\nuri = "a.jsonl"\n[features]\nmodules = ["lodestore.standard"]',
        "",
    ],
)
def test_settings_keep_what_they_said(project, translated, before):
    (project / "lodestore.toml").write_text(before, encoding="utf-8")

    placed = place(load(project, environ={}), translated)

    was, now = tomllib.loads(before), tomllib.loads(placed.pages[1].after)
    modules = was.get("features", {}).get("modules", [])
    assert now["features"]["modules"] == ["feast_driver_ranking", *modules]
    assert now["events"][: len(was.get("events", []))] == was.get("events", [])
    assert len({one["name"] for one in now["events"]}) == len(now["events"]) >= len(translated.events)


def test_settings_that_cannot_be_added_to_are_refused(project, translated):
    text = 'events = [{ name = "a", view = "b", uri = "c" }]\n'
    (project / "lodestore.toml").write_text(text, encoding="utf-8")

    with pytest.raises(RefusedError, match="--out FILE"):
        place(load(project, environ={}), translated)


def test_settings_of_which_a_text_looks_like_a_section_are_refused(project, translated):
    text = "[store]\nuri = '''\n[features]\nmodules = []\n'''\n[features]\nmodules = [\"lodestore.standard\"]\n"
    (project / "lodestore.toml").write_text(text, encoding="utf-8")

    with pytest.raises(RefusedError, match="cannot be added to"):
        place(load(project, environ={}), translated)


def test_settings_keep_their_rights_and_the_ends_of_their_lines(project, repository, python, call):
    path = project / "lodestore.toml"
    path.write_bytes(b"\xef\xbb\xbf" + BARE.replace("\n", "\r\n").encode())
    path.chmod(0o600)

    call(repository, "--python", python, "--into", project)
    again = json.loads(call(repository, "--python", python, "--into", project, "--json").out)

    written = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert written.startswith(b"\xef\xbb\xbf[store]\r\n")
    assert written.count(b"\r\n") == written.count(b"\n") > 20
    assert again["written"] == []


def test_a_file_that_cannot_be_written_leaves_nothing_beside_it(project, repository, python, call, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)

    call(repository, "--python", python, "--into", project, expect=1)

    assert [path.name for path in project.iterdir()] == ["lodestore.toml"]


def test_what_comes_next_names_the_project(project, repository, python, call):
    shown = call(repository, "--python", python, "--into", project).out

    assert f"lodestore --config {project} run features" in shown
    assert f"--into {project}" in shown.partition("Next:")[2]


def test_a_plan_writes_nothing_and_shows_it(project, repository, python, call):
    shown = call(repository, "--python", python, "--into", project, "--plan").out

    assert [path.name for path in project.iterdir()] == ["lodestore.toml"]
    assert "Would write" in shown
    assert "+[[events]]" in shown
    assert "Did not come over" in shown


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("feast_driver_ranking.py", "timedelta(days=1)", "timedelta(days=2)"),
        ("lodestore.toml", 'zone = "UTC"', 'zone = "Europe/Berlin"'),
    ],
)
def test_what_somebody_changed_is_not_written_over(project, repository, python, call, name, old, new):
    call(repository, "--python", python, "--into", project)
    changed = (project / name).read_text().replace(old, new)
    (project / name).write_text(changed, encoding="utf-8")

    refused = call(repository, "--python", python, "--into", project, expect=1)

    assert "--force" in refused.err
    assert name in refused.err
    assert (project / name).read_text() == changed
    call(repository, "--python", python, "--into", project, "--force")
    assert old in (project / name).read_text()


def test_a_module_of_somebody_elses_is_not_written_over(project, repository, python, call):
    (project / "feast_driver_ranking.py").write_text("mine = 1\n", encoding="utf-8")

    refused = call(repository, "--python", python, "--into", project, expect=1)

    assert "--module" in refused.err
    assert (project / "lodestore.toml").read_text() == BARE


TAKEN = """
from lodestore import Entity, FeatureView, integer

driver = Entity("driver", key="driver_id")
trips = FeatureView("trips", entity=driver, features={"a": integer()})
"""


def test_taken_names_are_refused_and_a_prefix_helps(project, repository, python, call):
    (project / "mine.py").write_text(TAKEN, encoding="utf-8")
    (project / "lodestore.toml").write_text('[features]\nmodules = ["mine"]\n', encoding="utf-8")

    refused = call(repository, "--python", python, "--into", project, expect=1)

    assert "feature view trips" in refused.err
    assert "entity driver, whose key here is driver_id (string)" in refused.err
    assert "--prefix" in refused.err
    assert not (project / "feast_driver_ranking.py").exists()
    call(repository, "--python", python, "--into", project, "--prefix", "feast_")
    assert 'FeatureView(\n    "feast_trips"' in (project / "feast_driver_ranking.py").read_text()


def test_declarations_alone_go_into_a_file(tmp_path, repository, python, call):
    shown = call(repository, "--python", python, "--out", tmp_path / "mine.py").out

    assert is_untouched((tmp_path / "mine.py").read_text())
    assert "[[events]]" in shown


def test_json_is_alone_on_its_stream(project, repository, python, call):
    value = json.loads(call(repository, "--python", python, "--into", project, "--plan", "--json").out)

    assert value["feast"] == RECORDED["feast"]
    assert value["counts"]["left"] == sum(one["outcome"] == "left" for one in value["report"]) > 0
    assert value["plan"] is True
    assert [Path(one).name for one in value["would_write"]] == ["feast_driver_ranking.py", "lodestore.toml"]
    assert value["written"] == []


def test_the_python_can_be_named_by_a_variable_that_is_no_setting(project, repository, python, call, monkeypatch):
    monkeypatch.setenv("LODESTORE_FEAST_PYTHON", str(python))

    value = json.loads(call(repository, "--into", project, "--json").out)

    assert value["verify"] == f"lodestore import feast {repository.resolve()} --into {project} --verify"


# --- what can be wrong


def test_a_folder_without_settings_says_how_to_make_some(tmp_path, repository, python, call):
    (tmp_path / "empty").mkdir()

    refused = call(repository, "--python", python, "--into", tmp_path / "empty", expect=2)

    assert "lodestore init" in refused.err
    assert "--out" in refused.err


@pytest.mark.parametrize(
    "words", [["--into", "a", "--out", "b.py"], ["--verify", "--plan"], ["--verify", "--out", "b.py"], ["--rows", "0"]]
)
def test_options_that_do_not_go_together_are_wrong_usage(repository, call, words):
    call(repository, *words, expect=2)


def test_a_repository_is_a_folder_with_its_settings(tmp_path, repository):
    (tmp_path / "shop" / "feature_repo").mkdir(parents=True)
    (tmp_path / "shop" / "feature_repo" / "feature_store.yaml").touch()

    assert repository_of(repository / "feature_store.yaml") == repository.resolve()
    with pytest.raises(SourceError, match=r"did you mean .*feature_repo\?"):
        repository_of(tmp_path / "shop")
    with pytest.raises(SourceError, match="no folder"):
        repository_of(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"no feature_store\.yaml; name the folder"):
        repository_of(tmp_path)


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"error": {"kind": "absent", "message": "x"}}, UnavailableError, "has no Feast; .*--python"),
        ({"error": {"kind": "old", "message": "Feast 0.10; 0.40 or newer is needed"}}, UnavailableError, "upgrade"),
        ({"error": {"kind": "broken", "message": "numpy"}}, UnavailableError, "cannot be imported: numpy"),
        ({"error": {"kind": "repository", "message": "E: x"}}, SourceError, "does not load: E: x; `feast plan`"),
        ({"feast": "0.67.0"}, SourceError, "is none: KeyError"),
        ([], SourceError, "before it could describe"),
        ("raise SystemExit('no more memory')", SourceError, "ended with 1 .*no more memory"),
    ],
)
def test_what_goes_wrong_in_the_other_python_is_told(tmp_path, repository, said, error, message):
    with pytest.raises(error, match=message):
        Interpreter(pretended(tmp_path, said)).describe(repository)


def test_a_python_that_does_not_answer_is_not_waited_for(tmp_path, repository):
    path = pretended(tmp_path, "import time; time.sleep(60)")

    with pytest.raises(UnavailableError, match=r"within 0 s"):
        Interpreter(path, seconds=0.2).describe(repository)


def test_a_python_without_feast_says_so(repository):
    with pytest.raises(UnavailableError, match="has no Feast"):
        Interpreter(Path(sys.executable)).describe(repository)


def test_the_python_is_that_of_the_command_or_of_the_active_environment(tmp_path):
    for folder in ("tools/bin", "active/bin"):
        (tmp_path / folder).mkdir(parents=True)
        pretended(tmp_path / folder, {})
    pretended(tmp_path / "tools" / "bin", {}, name="feast")

    active = {"VIRTUAL_ENV": str(tmp_path / "active"), "PATH": ""}

    assert find(tmp_path / "tools/bin/python", {}).path == tmp_path / "tools/bin/python"
    assert find(None, active | {"PATH": str(tmp_path / "tools/bin")}).path == tmp_path / "tools/bin/python"
    assert find(None, active).path == tmp_path / "active/bin/python"
    with pytest.raises(UnavailableError, match="--python"):
        find(None, {"PATH": ""})
    with pytest.raises(SourceError, match="no such file"):
        find(tmp_path / "nowhere", {})


def test_a_repository_without_views_is_refused(tmp_path, project, repository, call):
    python = pretended(tmp_path, RECORDED | {"views": [], "services": [], "on_demand": []}, name="other")

    refused = call(repository, "--python", python, "--into", project, expect=1)

    assert "nothing of" in refused.err


def test_a_key_of_two_types_leaves_the_second_view(repository):
    views = [json.loads(json.dumps(one)) for one in RECORDED["views"]]
    other = next(one for one in views if one["name"] == "inferred_stats")
    other["source"]["columns"]["driver_id"] = "string"

    made = translate(described(RECORDED | {"views": views}), repository=repository, root=repository)

    assert "inferred_stats" not in {one.name for one in made.views}
    assert told(made, "feature view", "inferred_stats", "left") == ["the key of driver has another type"]


def test_a_path_that_settings_would_change_is_left(repository):
    views = [json.loads(json.dumps(one)) for one in RECORDED["views"] if one["name"] == "driver_now"]
    views[0]["source"]["path"] = "data/${HOME}.parquet"

    made = translate(described(RECORDED | {"views": views}), repository=repository, root=repository)

    assert made.events == ()
    assert any("${...}" in line for line in told(made, "source", "now_file", "left"))


def test_a_link_to_a_file_stays_one(tmp_path, repository):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "now.parquet").symlink_to(repository / "data" / "now.parquet")
    views = [json.loads(json.dumps(one)) for one in RECORDED["views"] if one["name"] == "driver_now"]
    views[0]["source"]["path"] = "data/../data/now.parquet"

    made = translate(described(RECORDED | {"views": views}), repository=tmp_path, root=tmp_path)

    assert [one.uri for one in made.events] == ["data/now.parquet"]


def test_a_path_that_no_file_can_have_is_left(repository):
    views = [json.loads(json.dumps(one)) for one in RECORDED["views"] if one["name"] == "driver_now"]
    views[0]["source"]["path"] = "data/a\0.parquet"

    made = translate(described(RECORDED | {"views": views}), repository=repository, root=repository)

    assert made.events == ()
    assert "no path that a file can have" in told(made, "source", "now_file", "left")[0]


def test_half_a_character_in_what_a_repository_raises_can_be_told(tmp_path, project, repository, call):
    python = pretended(tmp_path, {"error": {"kind": "repository", "message": "E: \ud800"}}, name="half")

    refused = call(repository, "--python", python, "--into", project, "--json", expect=2)

    refused.out.encode()
    assert "does not load: E: ?" in refused.out + refused.err


def test_values_that_feast_makes_itself_are_not_read_from_its_files(repository):
    views = [one | {"code": "def f(): ..."} for one in RECORDED["views"] if one["name"] == "driver_now"]

    made = translate(described(RECORDED | {"views": views}), repository=repository, root=repository)

    assert made.events == ()
    assert "function of Feast" in told(made, "source", "now_file", "left")[0]


def test_numbers_beyond_what_a_number_can_be_are_told(repository):
    views = [json.loads(json.dumps(one)) for one in RECORDED["views"] if one["name"] == "driver_now"]
    views[0]["source"]["infinite"] = ["speed"]

    made = translate(described(RECORDED | {"views": views}), repository=repository, root=repository)

    assert "the file has infinite values: their rows are refused" in told(made, "feature", "driver_now:speed")


def test_a_prefix_comes_before_every_name_and_no_key(repository):
    made = translate(described(RECORDED), repository=repository, root=repository, prefix="feast_")

    names = [one.name for one in (*made.entities, *made.views, *made.services)]
    assert all(one.startswith("feast_") for one in names)
    assert made.entities[1].keys == ("customer_id",)
