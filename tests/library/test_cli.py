from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from datetime import timedelta

import click
import pyarrow.parquet as pq
import pytest

from lodestore import cli
from lodestore.cli.jobs import dagster_home, workspace
from lodestore.cli.state import masked
from lodestore.errors import SettingsError
from lodestore.init import begin
from lodestore.logs import utc_now
from lodestore.project import open_project
from lodestore.wire import rfc3339

DEFINITIONS = """
import dagster as dg

@dg.asset
def numbers() -> None: ...

@dg.asset
def broken() -> None:
    raise ValueError("the well is dry")

@dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name="versions"))
def vectors(context) -> None:
    print("built", context.partition_key)

class Wanted(dg.Config):
    text: str

@dg.op
def says(config: Wanted) -> None:
    print("said", config.text)

@dg.job
def speak():
    says()

@dg.op(out=dg.Out(dg.Nothing))
def judge(context) -> None:
    context.add_output_metadata({"outcome": "words@2 was not promoted: the gate says refused", "refused": True})

@dg.job
def decide():
    judge()

defs = dg.Definitions(
    assets=[numbers, broken, vectors],
    jobs=[
        dg.define_asset_job("count", [numbers]),
        dg.define_asset_job("fail", [broken]),
        dg.define_asset_job("reembed", [vectors]),
        speak,
        decide,
    ],
)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A small project by a tiny model, with a first release."""
    place = tmp_path_factory.mktemp("cli") / "project"
    begin(place, now=utc_now())
    text = (place / "lodestore.toml").read_text()
    text = (
        text.replace("minilm", "words")
        .replace("gt_all_words_l6_v2", "wordllama")
        .replace("assets.features", "lodestore.standard")
    )
    (place / "lodestore.toml").write_text(text)
    steps = open_project(place).pipeline
    for step in (
        steps.read_documents,
        steps.add_templates,
        steps.cut_chunks,
        steps.fill_maintained,
        steps.promote_first,
    ):
        step()
    for view in steps.views():
        steps.record(view)
        steps.publish(view)
    return place


@pytest.fixture
def own(built, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(built, tmp_path / "project")


@pytest.fixture
def call(capsys):
    def run(place, *words, expect=0):
        code = cli.run(["--config", str(place), *words])
        told = capsys.readouterr()
        assert code == expect, told
        return told

    return run


@pytest.fixture
def answer(call):
    def run(place, *words, expect=0):
        return json.loads(call(place, *words, "--json", expect=expect).out)

    return run


# --- the whole


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from lodestore import cli; code = cli.run(['--help']);"
        "print(sorted({'numpy', 'pyarrow', 'lancedb', 'torch', 'rich', 'yaml'} & set(sys.modules)), code)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[] 0"
    assert "materialize" in done.stdout


@pytest.mark.parametrize("name", [*cli.COMMANDS, *cli.ALIASES])
def test_every_command_is_where_the_list_says(name):
    command = cli.commands.get_command(click.Context(cli.commands), name)

    assert command is not None
    assert command.name == cli.ALIASES.get(name, name)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["stauts"], "did you mean 'status'?"),
        (["search", "x", "--kk", "3"], "'--k'"),
        (["templates", "rendr"], "did you mean 'render'?"),
        (
            ["online", "user_profile:expertise_levl", "--entity", "user_id=u1"],
            "did you mean 'user_profile:expertise_level'?",
        ),
        (["views", "show", "user_profle"], "did you mean 'user_profile'?"),
        (["online", "user_profile:expertise_level"], "--entity"),
        (["release", "promote", "content"], "NAME=VALUE"),
        (["historical", "--entities", "no.csv", "--features", "a:b", "--out", "x.csv"], "no such file"),
        (["historical", "--entities", "no.txt", "--features", "a:b", "--out", "x.csv"], ".parquet"),
    ],
)
def test_wrong_usage_exits_2_with_a_hint(built, call, words, hint):
    told = call(built, *words, expect=2)

    assert told.err.startswith("lodestore: error: ")
    assert hint in told.err
    assert told.out == ""


@pytest.mark.parametrize("words", [[], ["templates"]])
def test_a_group_alone_shows_its_help(words, capsys):
    assert cli.run(words) == 2
    assert capsys.readouterr().err.startswith("Usage: lodestore")


def test_with_json_an_error_is_an_object_too(built, answer):
    found = answer(built, "models", "show", "wrods@1", expect=2)

    assert found["error"]["code"] == "unknown-model"
    assert "words@1" in found["error"]["message"]


def test_a_missing_settings_file_is_wrong_usage(tmp_path, call):
    assert "does not exist" in call(tmp_path, "status", expect=2).err


@pytest.fixture
def failing(monkeypatch):
    def fail(error):
        @click.command()
        def status():
            raise error

        monkeypatch.setattr("lodestore.cli.state.status", status)

    return fail


def test_a_bug_is_one_line_and_the_way_to_its_traceback(failing, capsys):
    failing(ZeroDivisionError("oh"))

    assert cli.run(["status"]) == 1

    told = capsys.readouterr().err
    assert "ZeroDivisionError: oh" in told
    assert "LODESTORE_DEBUG=1" in told
    assert "Traceback" not in told


def test_a_bug_shows_its_traceback_when_asked(failing, capsys, monkeypatch):
    monkeypatch.setenv("LODESTORE_DEBUG", "1")
    failing(ZeroDivisionError("oh"))

    cli.run(["status"])

    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_exits_130(failing):
    failing(KeyboardInterrupt())

    assert cli.run(["status"]) == 130


def test_a_reader_that_went_away_is_no_error():
    script = "import sys; from lodestore import cli; cli.main()"
    command = f"{shlex.quote(sys.executable)} -c '{script}' --help | true"

    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)

    assert done.stderr == ""


def test_what_project_code_prints_never_mixes_with_json(own, call):
    (own / "loud.py").write_text("from lodestore.standard import *\nprint('hello from the module')\n")
    text = (own / "lodestore.toml").read_text().replace("lodestore.standard", "loud")
    (own / "lodestore.toml").write_text(text)

    told = call(own, "views", "list", "--json")

    assert json.loads(told.out)["views"]
    assert "hello from the module" in told.err


# --- state


def test_status_shows_the_live_versions(built, call, answer):
    assert answer(built, "status")["release"]["embeddings"] == {"content": "words@1", "title": "words@1"}
    assert "Release 1 is live" in call(built, "status").out


def test_doctor_exits_1_for_an_error_only(built, own, answer):
    assert answer(built, "doctor")["ok"] is True

    text = (own / "lodestore.toml").read_text()
    (own / "lodestore.toml").write_text(
        text.replace('source = "package:wordllama"', 'source = "package:no_such_model"', 1)
    )
    found = answer(own, "doctor", expect=1)

    assert found["ok"] is False
    assert found["findings"][0]["code"] == "model_unavailable"
    assert set(found["findings"][0]) == {"code", "what", "severity", "mend"}


def test_doctor_names_event_sources_that_bring_nothing(own, answer):
    text = (own / "lodestore.toml").read_text()
    more = '[[events]]\nname = "typo"\nview = "user_profil"\nuri = "events/*.jsonl"\n'
    more += '[[events]]\nname = "away"\nview = "user_profile"\nuri = "nowhere/*.jsonl"\n'
    (own / "lodestore.toml").write_text(text + "\n" + more)

    found = {one["code"]: one for one in answer(own, "doctor", expect=1)["findings"]}

    assert "did you mean 'user_profile'" in found["unknown_event_view"]["what"]
    assert found["no_event_files"]["what"].startswith("events.away.uri: ")
    assert found["no_event_files"]["severity"] == "warning"


def test_settings_say_where_they_come_from(built, answer, monkeypatch):
    monkeypatch.setenv("LODESTORE_CHUNKS__SIZE", "100")

    found = answer(built, "settings")

    assert found["chunks.size"] == {"value": 100, "origin": "LODESTORE_CHUNKS__SIZE"}
    assert found["online.sync"]["origin"] == "default"


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("embedding.models.a@1.api_key", "abc", "***"),
        ("embedding.models.a@1.api_key", None, None),
        ("store.storage.aws_secret_access_key", "abc", "***"),
        ("online.url", "redis://:pw@host/0", "redis://:***@host/0"),
        ("alerts.urls", ("slack://a/b/c",), ["slack://***"]),
        ("store.uri", ".lodestore", ".lodestore"),
    ],
)
def test_secrets_in_settings_are_masked(path, value, shown):
    assert masked(path, value) == shown


# --- retrieval


def test_search_answers_in_the_shape_that_others_parse(built, answer, call):
    found = answer(built, "search", "how do I get my money back?", "--k", "3")

    assert set(found) == {"release", "version", "mode", "took_ms", "hits"}
    assert found["mode"] == "hybrid"
    assert len(found["hits"]) == 3
    assert {"chunk_id", "document_id", "score", "title", "uri", "text"} <= set(found["hits"][0])
    assert found["hits"][0]["document_id"] in call(built, "search", "how do I get my money back?").out


def test_search_explains_and_filters(built, answer):
    words = ("search", "battery", "--filter", "title = 'Privacy and your data'", "--explain")

    found = answer(built, *words)

    assert {one["title"] for one in found["hits"]} == {"Privacy and your data"}
    assert "title" in found["explain"]["filter"]


def test_context_is_made_for_the_user(built, answer):
    found = answer(built, "context", "how do I clean it?", "--user", "u1", "--no-record")

    assert found["user_known"] is True
    assert found["template"] == {"id": "qa_basic", "version": "1.0.0"}
    assert "how do I clean it?" in found["prompt"]
    assert [one["n"] for one in found["hits"]] == list(range(1, len(found["hits"]) + 1))


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_evaluate_measures_with_an_interval(built, answer, mode):
    found = answer(built, "evaluate", "--mode", mode)

    assert (found["version"], found["mode"], found["queries"]) == ("words@1", mode, 12)
    for name in ("ndcg@10", "recall@10", "mrr"):
        assert 0.5 < found[name]["low"] <= found[name]["value"] <= found[name]["high"] <= 1


def test_evaluate_names_judged_documents_that_nobody_ever_read(own, answer):
    with (own / "golden" / "qrels.tsv").open("a") as file:
        file.write("q01\tnowhere.md\t2\n")

    assert "nowhere.md" in answer(own, "evaluate", expect=2)["error"]["message"]


def test_evaluate_takes_a_golden_set_and_a_version_by_name(built, answer):
    found = answer(built, "evaluate", "--golden", "main", "--version", "words@1")

    assert found["golden"] == "main"
    assert answer(built, "evaluate", "--golden", "mian", expect=2)["error"]["code"] == "golden"


# --- values


def test_online_and_get_are_the_same(built, answer):
    words = ("user_profile:expertise_level", "--entity", "user_id=u2", "--entity", "user_id=nobody")

    found = answer(built, "online", *words)

    assert found == answer(built, "get", *words)
    assert found["columns"]["user_profile:expertise_level"] == ["expert", None]
    assert found["statuses"]["user_profile:expertise_level"] == ["PRESENT", "NOT_FOUND"]


def test_one_input_counts_for_every_entity(built, answer):
    words = ("personalized:personalized_context", "--entity", "user_id=u1", "--entity", "user_id=u2")

    found = answer(built, "online", *words, "--input", "query_text=what = x")

    assert [one.endswith("what = x") for one in found["columns"]["personalized:personalized_context"]] == [True, True]


def test_a_pushed_row_is_read_at_once_and_counts_once(own, answer, tmp_path):
    row = {"user_id": "u9", "event_timestamp": rfc3339(utc_now()), "session_queries_count": 7}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))

    first = answer(own, "push", "user_activity", str(tmp_path / "rows.jsonl"))
    second = answer(own, "push", "user_activity", str(tmp_path / "rows.jsonl"))
    found = answer(own, "online", "user_activity:session_queries_count", "--entity", "user_id=u9")

    assert first == {"accepted": 1, "duplicates": 0, "late": 0}
    assert second == {"accepted": 0, "duplicates": 1, "late": 0}
    assert found["columns"]["user_activity:session_queries_count"] == [7]


def test_a_file_without_rows_is_nothing_to_push(own, call, tmp_path):
    for name in ("rows.jsonl", "rows.csv"):
        (tmp_path / name).write_text("")

        said = call(own, "push", "user_activity", str(tmp_path / name), expect=2).err

        assert f"{name} has no rows; nothing was pushed into user_activity" in said


@pytest.mark.parametrize(
    "words",
    [
        ["  "],
        ["x", "--k", "0"],
        ["x", "--filter", "categry = 'x'"],
        ["x", "--rerank"],
        ["x", "--titles", "--mode", "vector"],
    ],
)
def test_a_search_that_cannot_be_is_refused_before_a_model_is_loaded(built, words):
    script = (
        "import sys; from lodestore import cli, project; project.embedder = lambda *_, **__: print('loaded');"
        f"print(cli.run(['--config', {str(built)!r}, 'search', *{words!r}]))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["2"] or done.stdout.splitlines() == ["1"]


def test_push_names_every_bad_row_and_stores_none(own, answer, tmp_path):
    good = {"user_id": "u9", "event_timestamp": rfc3339(utc_now()), "session_queries_count": 7}
    lines = [json.dumps(good), json.dumps({**good, "session_queries_count": -1}), "nonsense"]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))

    found = answer(own, "push", "user_activity", str(tmp_path / "rows.jsonl"), expect=1)
    read = answer(own, "online", "user_activity:session_queries_count", "--entity", "user_id=u9")

    assert [one.partition(":")[0] for one in found["error"]["problems"]] == ["row 2", "row 3"]
    assert read["statuses"]["user_activity:session_queries_count"] == ["NOT_FOUND"]


def test_materialize_brings_a_lost_online_store_back(own, answer):
    shutil.rmtree(own / ".lodestore" / "_online")

    done = answer(own, "materialize", "user_profile")

    assert (done["keys"], done["written"]) == (5, 5)
    assert answer(own, "materialize", "user_profile")["written"] == 0


def test_historical_joins_as_of_each_row(built, answer, tmp_path):
    now, before = rfc3339(utc_now()), rfc3339(utc_now() - timedelta(days=3))
    (tmp_path / "in.csv").write_text(f"user_id,event_timestamp,query_text\nu2,{now},a\nu2,{before},b\nnobody,{now},c\n")
    words = ("--features", "user_profile:expertise_level", "--features", "personalized:personalized_context")

    done = answer(
        built, "historical", "--entities", str(tmp_path / "in.csv"), *words, "--out", str(tmp_path / "out.parquet")
    )
    found = pq.read_table(tmp_path / "out.parquet")

    assert done["known"] == {"user_profile:expertise_level": 1, "personalized:personalized_context": 3}
    assert found["query_text"].to_pylist() == ["a", "b", "c"]
    assert found["user_profile:expertise_level"].to_pylist() == ["expert", None, None]
    assert found["personalized:personalized_context"].to_pylist()[1:] == ["b", "c"]


def test_historical_leaves_out_what_was_recorded_later(built, answer, tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"user_id": "u2", "event_timestamp": rfc3339(utc_now())}))
    words = ("--features", "user_profile:expertise_level", "--out", str(tmp_path / "out.csv"))

    done = answer(
        built, "history", "--entities", str(tmp_path / "in.jsonl"), *words, "--as-known-at", "2020-01-01T00:00:00Z"
    )

    assert done["known"] == {"user_profile:expertise_level": 0}
    assert (tmp_path / "out.csv").read_text().startswith('"user_id"')


def test_historical_refuses_moments_without_a_zone(built, call, tmp_path):
    (tmp_path / "in.csv").write_text("user_id,event_timestamp\nu2,2026-01-01 10:00:00\n")
    words = ("--features", "user_profile:expertise_level", "--out", str(tmp_path / "out.csv"))

    assert "row 1" in call(built, "historical", "--entities", str(tmp_path / "in.csv"), *words, expect=2).err


# --- declarations


def test_views_are_listed_and_shown(built, answer, call):
    listed = answer(built, "views", "list")
    shown = answer(built, "views", "show", "user_profile")

    assert [one["name"] for one in listed["on_demand"]] == ["personalized"]
    assert shown["live"] == 1
    assert shown["figures"]["entities"] == 5
    assert "query_text" in call(built, "views", "show", "personalized").out


def test_models_are_listed_and_shown(built, answer):
    listed = answer(built, "models", "list")
    shown = answer(built, "models", "show", "words@1")

    assert listed["models"][0]["for"] == ["content", "title"]
    assert shown["dimension"] == 256
    assert {one["state"] for one in shown["versions"]} == {"live"}


# --- releases and templates


@pytest.fixture
def newer(own, tmp_path):
    """The file of a second version of qa_basic."""
    text = (own / "templates" / "qa_basic.md").read_text()
    file = tmp_path / "newer.md"
    file.write_text(text.replace("version: 1.0.0", "version: 1.1.0").replace("Answer:", "Your answer:"))
    return str(file)


def test_a_template_is_added_compared_activated_and_rolled_back(own, answer, newer):
    assert answer(own, "templates", "add", newer) == {"new": ["qa_basic 1.1.0"], "known": []}
    assert "+Your answer:" in answer(own, "templates", "diff", "qa_basic", "1.0.0", "1.1.0")["text"]

    split = answer(own, "templates", "activate", "qa_basic", "1.0.0=0.9", "1.1.0=0.1")
    whole = answer(own, "templates", "activate", "qa_basic", "1.1.0")
    back = answer(own, "templates", "rollback", "qa_basic")

    assert split["versions"] == back["versions"] == {"1.0.0": 0.9, "1.1.0": 0.1}
    assert whole["versions"] == {"1.1.0": 1.0}
    assert back["generation"] == 4


def test_activating_what_is_live_is_refused_and_makes_no_release(own, answer):
    answer(own, "templates", "activate", "qa_basic", "1.0.0", expect=1)

    assert answer(own, "release", "show")["generation"] == 1


def test_render_prints_the_prompt_of_the_live_version(built, answer, call):
    words = ("templates", "render", "qa_basic", "--var", "context=the {question} stays", "--var", "question=why?")

    found = answer(built, *words)

    assert {"template", "version", "content_hash", "text"} <= set(found)
    assert "the {question} stays" in found["text"]
    assert call(built, *words).out == found["text"] + "\n"


def test_render_names_a_missing_variable(built, call):
    assert "'question' is missing" in call(built, "templates", "render", "qa_basic", "--var", "context=x", expect=2).err


def test_templates_of_the_folder_work_before_any_job(tmp_path, answer):
    begin(tmp_path / "new", now=utc_now())

    listed = answer(tmp_path / "new", "templates", "list")["templates"]
    found = answer(tmp_path / "new", "templates", "render", "qa_basic", "--var", "context=c", "--var", "question=q")

    assert {one["stored"] for one in listed} == {False}
    assert found["version"] == "1.0.0"


def test_several_slots_go_live_in_one_release_and_back(own, answer, newer):
    answer(own, "templates", "add", newer)

    made = answer(own, "release", "promote", "qa_basic=1.1.0", "content=words@1", "--reason", "shorter")
    differs = answer(own, "release", "diff", "1", "2")
    back = answer(own, "release", "rollback")
    listed = answer(own, "release", "history")["releases"]

    assert [one["slot"] for one in made["changes"]] == ["template:qa_basic"]
    assert differs["changes"] == made["changes"]
    assert back["changes"][0]["to"] == {"1.0.0": 1.0}
    assert [one["action"] for one in listed] == ["rollback", "promote", "promote"]
    assert listed[1]["reason"] == "shorter"


def test_there_is_nothing_before_the_first_release(own, call):
    assert "nothing to roll back to" in call(own, "release", "rollback", expect=1).err
    assert "nothing was live yet" in call(own, "release", "show", "--at", "2020-01-01T00:00:00Z", expect=2).err


def changed(folder):
    """Declare a second version for the content."""
    text = (folder / "lodestore.toml").read_text()
    second = '[[embedding.models]]\nname = "words"\nversion = "2"\nsource = "package:wordllama"\nquery_prompt = "find: "\n\n[chunks]'
    text = text.replace("[chunks]", second).replace('content = "words@1"', 'content = "words@2"')
    (folder / "lodestore.toml").write_text(text)


def test_an_embedding_version_that_a_rollback_leaves_is_held_until_somebody_promotes_it(own, answer):
    changed(own)
    project = open_project(own)
    project.pipeline.fill(project.versions.register(project.versions.declared("content")))

    answer(own, "release", "promote", "content=words@2")
    answer(own, "release", "rollback", "--reason", "worse")
    held = answer(own, "status")["holds"]
    answer(own, "release", "promote", "content=words@2")

    assert [(one["slot"], one["version"], one["reason"]) for one in held] == [("embedding:content", "words@2", "worse")]
    assert answer(own, "status")["holds"] == []
    assert answer(own, "release", "show")["embeddings"] == {"content": "words@2", "title": "words@1"}


def test_a_template_and_a_model_go_live_together_and_each_goes_back_alone(own, answer, newer):
    answer(own, "templates", "add", newer)
    changed(own)
    project = open_project(own)
    project.pipeline.fill(project.versions.register(project.versions.declared("content")))

    made = answer(own, "release", "promote", "qa_basic=1.1.0", "content=words@2")
    back = answer(own, "models", "rollback", "--reason", "worse")
    after = answer(own, "templates", "rollback", "qa_basic")

    assert {one["slot"] for one in made["changes"]} == {"embedding:content", "template:qa_basic"}
    assert back["generation"] == made["generation"] + 1
    live = open_project(own).releases.history()
    assert [dict(one.templates)["qa_basic"] for one in live[-3:]] == [{"1.1.0": 1.0}, {"1.1.0": 1.0}, {"1.0.0": 1.0}]
    assert [one.embeddings["content"].split("__")[2] for one in live[-3:]] == ["2", "1", "1"]
    assert after["generation"] == back["generation"] + 1


# --- init and run


def test_init_writes_a_project_and_says_what_is_next(tmp_path, capsys):
    assert cli.run(["init", str(tmp_path / "my project")]) == 0

    assert f"cd '{tmp_path}/my project'" in capsys.readouterr().out
    assert cli.run(["init", str(tmp_path / "my project")]) == 1


def test_the_workspace_names_the_code(tmp_path):
    (tmp_path / "code.py").write_text("")
    (tmp_path / "workspace.yaml").write_text("load_from:\n  - python_file: code.py\n")

    found = workspace(tmp_path / "elsewhere", tmp_path)

    assert found.file == tmp_path / "code.py"
    assert found.working_directory == tmp_path


@pytest.mark.parametrize(
    ("text", "hint"),
    [("load_from: [", "YAML"), ("load_from:\n  - python_file: nowhere.py\n", "nowhere.py"), ("{}", "python_file")],
)
def test_a_workspace_that_names_no_code_is_told(tmp_path, text, hint):
    (tmp_path / "workspace.yaml").write_text(text)

    with pytest.raises(SettingsError, match=hint):
        workspace(tmp_path)


def test_a_dagster_yaml_that_is_there_stays(tmp_path):
    dagster_home(tmp_path)
    written = (tmp_path / ".dagster" / "dagster.yaml").read_text()
    (tmp_path / ".dagster" / "dagster.yaml").write_text("mine: true\n")

    dagster_home(tmp_path)

    assert "telemetry" in written
    assert (tmp_path / ".dagster" / "dagster.yaml").read_text() == "mine: true\n"


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """A project whose Dagster code is small."""
    (tmp_path / "lodestore.toml").write_text("")
    (tmp_path / "code.py").write_text(DEFINITIONS)
    (tmp_path / "workspace.yaml").write_text("load_from:\n  - python_file: code.py\n")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return tmp_path


def lodestore(folder, *words):
    script = "import sys; from lodestore import cli; cli.main()"
    return subprocess.run(
        [sys.executable, "-c", script, *words], cwd=folder, capture_output=True, text=True, check=False
    )


def test_jobs_run_in_order_until_one_fails(jobs):
    done = lodestore(jobs, "run", "count", "fail", "speak", "--json")

    outcome = json.loads(done.stdout)["jobs"]
    assert done.returncode == 1
    assert [(one["job"], one["success"]) for one in outcome] == [("count", True), ("fail", False)]
    assert outcome[1]["error"] == "ValueError: the well is dry"
    assert "numbers ok" in done.stderr
    assert "Traceback" not in done.stderr
    assert (jobs / ".dagster" / "dagster.yaml").is_file()


def test_a_job_that_ends_with_a_refusal_says_so_and_exits_with_1(jobs):
    done = lodestore(jobs, "run", "decide")
    told = lodestore(jobs, "run", "decide", "--json")

    assert (done.returncode, told.returncode) == (1, 1)
    assert "words@2 was not promoted" in done.stderr
    assert "decide: refused" in done.stderr
    assert "the live version stays" in done.stdout
    (one,) = json.loads(told.stdout)["jobs"]
    assert (one["success"], one["refused"]) == (True, "words@2 was not promoted: the gate says refused")


def test_run_config_reaches_the_job(jobs):
    config = json.dumps({"ops": {"says": {"config": {"text": "hello"}}}})

    done = lodestore(jobs, "run", "speak", "--config-json", config)

    assert done.returncode == 0, done.stderr
    assert "said hello" in done.stderr
    assert "said" not in done.stdout


def test_an_unknown_job_is_wrong_usage_and_runs_nothing(jobs):
    done = lodestore(jobs, "run", "count", "cuont")

    assert done.returncode == 2
    assert "did you mean 'count'?" in done.stderr
    assert "run " not in done.stderr


def test_reembed_has_nothing_to_build_where_nothing_is_declared(jobs):
    done = lodestore(jobs, "run", "reembed", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jobs"][0]["note"] == "nothing to build: no embedding feature is declared"


def test_reembed_builds_the_declared_version_in_a_partition_of_its_own(own):
    changed(own)
    (own / "code.py").write_text(DEFINITIONS)
    (own / "workspace.yaml").write_text("load_from:\n  - python_file: code.py\n")

    done = lodestore(own, "run", "reembed")

    assert done.returncode == 0, done.stderr
    assert "built content__words__2__" in done.stderr


def test_code_that_does_not_load_is_told_in_one_line(jobs):
    (jobs / "code.py").write_text("import no_such_module\n")

    done = lodestore(jobs, "run", "count")

    assert done.returncode == 2
    assert "No module named 'no_such_module'" in done.stderr
    assert "Traceback" not in done.stderr
