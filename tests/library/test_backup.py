"""A backup is the whole store as it was at one moment, and the store that is made of it answers as that one did."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lodestore import cli
from lodestore.adapters.lance import LanceStore
from lodestore.backup import _moment, backup, backup_again
from lodestore.doctor import examine
from lodestore.errors import (
    RefusedError,
    SchemaVersionError,
    SourceError,
    StoreBusyError,
    StoreError,
    StoreWriteError,
)
from lodestore.locks import Locks
from lodestore.logs import utc_now
from lodestore.manifest import check, read_backup
from lodestore.online import SERVER_NOTE
from lodestore.project import open_project
from lodestore.releases import Slot
from lodestore.restore import restore
from lodestore.tables import LOGS, RESTORING
from tests.object_store import object_store
from tests.served import NOW, build, started, until

LEVEL = "user_profile:expertise_level"
QUERIES = ("when are refunds paid", "where do guests park", "when does the kitchen close")
# Dies with the signal that nobody can catch, when the third table is at hand.
DYING = """
import os, signal, sys
from lodestore import backup, restore
from lodestore.project import open_project

def die(done, of):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

getattr({"backup": backup, "restore": restore}[sys.argv[1]], sys.argv[1])(open_project(sys.argv[2]), sys.argv[3], progress=die)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with a built project, only ever copied."""
    root = tmp_path_factory.mktemp("built")
    project = build(root)
    project.store.push("user_profile", [{"user_id": "u1", "expertise_level": "expert", "event_timestamp": NOW}])
    project.store.context("when are refunds paid", user_id="u1", template="qa_basic")
    project.online.close()
    return root


@pytest.fixture
def project(built, tmp_path):
    shutil.copytree(built, tmp_path / "one")
    return open_project(tmp_path / "one")


def elsewhere(project, name="two"):
    """The same project on another machine, without a store."""
    root = project.settings.root.with_name(name)
    shutil.copytree(project.settings.root, root, ignore=shutil.ignore_patterns(".lodestore"))
    return open_project(root)


def answers(project):
    live = project.live()
    found = {
        query: [hit for mode in ("vector", "text", "hybrid") for hit in live.search(query, k=3, mode=mode).hits]
        for query in QUERIES
    }
    online = project.store.online([LEVEL], {"user_id": [f"u{n}" for n in range(50)]})
    asked = pa.table({"user_id": ["u1", "u2"], "event_timestamp": pa.array([NOW + timedelta(minutes=1)] * 2)})
    return {
        "release": project.releases.live(),
        "search": {
            query: [(hit.chunk_id, round(hit.score, 5), hit.text) for hit in hits] for query, hits in found.items()
        },
        "online": (online.columns, online.statuses),
        "historical": project.store.historical(asked, [LEVEL]).to_pylist(),
        "templates": [one.content_hash for one in project.templates.all()],
        "contexts": [row["id"] for row in project.logs.rows("contexts")],
    }


def tables(project):
    return {
        name: project.tables.read(name)
        for name in project.tables.names()
        if name not in {"heartbeats", "audit", "store"}
    }


def test_the_store_that_is_made_of_a_backup_answers_as_the_one_that_was_backed_up(project, tmp_path):
    made = backup(project, str(tmp_path / "kept"))
    wanted, rows = answers(project), tables(project)
    shutil.rmtree(project.settings.store_uri)
    other = elsewhere(project)

    restored = restore(other, str(tmp_path / "kept"))

    assert restored.backup == read_backup(str(tmp_path / "kept")) == made
    assert (restored.troubles, made.left_out) == ((), ())
    assert restored.online >= 50
    assert answers(other) == wanted
    assert wanted["historical"][0][LEVEL] == "expert"
    assert len(wanted["contexts"]) == 1
    found = tables(other)
    assert found.keys() == rows.keys()
    assert all(found[name].equals(rows[name]) for name in rows)


def test_the_restored_store_goes_on_like_any_other(project, tmp_path):
    backup(project, str(tmp_path / "kept"))
    other = elsewhere(project)
    restore(other, str(tmp_path / "kept"))
    (other.settings.root / "docs/pool.md").write_text("# Pool\n\nThe pool opens at six in the morning.\n")

    other.pipeline.read_documents()
    other.pipeline.cut_chunks()
    other.pipeline.fill_maintained()
    told = other.store.push("user_profile", [{"user_id": "new", "expertise_level": "expert", "event_timestamp": NOW}])

    assert other.live().search("when does the pool open", k=1).hits[0].title == "Pool"
    assert told.accepted == 1
    assert other.store.online([LEVEL], {"user_id": ["new"]}).columns[LEVEL] == ["expert"]


def test_another_moment_is_chosen_when_upkeep_takes_the_files_of_the_first_one(project, tmp_path):
    view = "fv__user_profile__v1"
    calls = []

    def tidy(done, of):
        calls.append(done)
        if len(calls) == 1:
            row = {"user_id": "late", "expertise_level": "expert", "event_timestamp": NOW}
            project.store.push("user_profile", [row])
            assert project.features.drain() == 1
            project.tables.compact(view, keep=timedelta(milliseconds=1))

    before = project.tables.count(view) + 1  # with the row of the fixture
    made = backup(project, str(tmp_path / "kept"), progress=tidy)

    assert calls.count(0) == 2
    assert made.tables[view].rows == before + 1
    assert check(str(tmp_path / "kept")) == made


def test_a_moment_at_which_somebody_writes_is_none(project, monkeypatch, caplog):
    monkeypatch.setattr("lodestore.locks._SILENT_SECONDS", 0.1)
    project.locks._wait = 0.1
    elsewhere = Locks(project.settings.local / "_locks", wait=1)

    for name in ("writer", "drain"):
        with elsewhere.hold(name, "ingesting"), pytest.raises(StoreBusyError, match="ingesting"):
            _moment(project)
    project.locks._wait = 10.0
    with ThreadPoolExecutor(1) as pool:
        with elsewhere.hold("drain", "a long drain"):
            waits = pool.submit(_moment, project)
            until(lambda: "a long drain" in "".join(caplog.messages))
            with elsewhere.writer("writing beside"):  # nobody who waits for a drain holds it
                assert not waits.done()
        assert "releases" in waits.result(10)[1]


def test_the_release_is_looked_at_before_what_it_refers_to(project, monkeypatch):
    asked = []
    real = project.tables.revision
    monkeypatch.setattr(project.tables, "revision", lambda name: (asked.append(name), real(name))[1])

    _moment(project)

    assert asked[0] == "releases"
    assert len(asked) == len(set(asked)) == len(project.tables.names())


def test_a_copy_that_is_not_what_was_copied_is_no_backup(project, tmp_path, monkeypatch):
    real = LanceStore.copy

    def careless(self, name, to, *, revision):
        real(self, name, to, revision=revision)
        if name == "templates":
            to.remove(name, "true")

    monkeypatch.setattr(LanceStore, "copy", careless)
    with pytest.raises(StoreError, match="table templates is not what was copied: 0 rows of 1"):
        backup(project, str(tmp_path / "kept"))
    with pytest.raises(SourceError, match="did not end"):
        read_backup(str(tmp_path / "kept"))


def test_of_two_backups_to_one_place_at_once_one_is_told(project, tmp_path):
    other, begun = open_project(project.settings.root), []

    def meanwhile(done, of):
        if done == 3 and not begun:
            begun.append(backup(other, str(tmp_path / "kept")))

    with pytest.raises(StoreError, match="another backup was begun at the same place"):
        backup(project, str(tmp_path / "kept"), progress=meanwhile)


def test_what_an_unfinished_backup_left_is_not_in_the_next_one(project, tmp_path):
    def stop(done, of):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(project, str(tmp_path / "kept"), progress=stop)
    (tmp_path / "kept/emb__old.lance").mkdir()
    shutil.copytree(project.settings.local / "documents.lance", tmp_path / "kept/emb__old.lance", dirs_exist_ok=True)

    backup(project, str(tmp_path / "kept"))

    assert not (tmp_path / "kept/emb__old.lance").exists()


def nightly(project, place, monkeypatch, keep=1):
    monkeypatch.setenv("LODESTORE_BACKUP__URI", str(place))
    monkeypatch.setenv("LODESTORE_BACKUP__KEEP", str(keep))
    return backup_again(open_project(project.settings.root))


def test_only_what_the_job_made_there_of_this_store_is_ever_removed(project, tmp_path, monkeypatch):
    by_hand = [backup(project, str(tmp_path / place)).uri for place in ("night/mine", "night2/theirs")]
    first = nightly(project, tmp_path / "night2", monkeypatch).uri
    second = nightly(project, tmp_path / "night", monkeypatch).uri
    other = elsewhere(project)
    restore(other, second)
    mine = nightly(other, tmp_path / "night", monkeypatch).uri

    last = nightly(project, tmp_path / "night", monkeypatch).uri

    assert not Path(second).exists()
    for kept in (*by_hand, first, mine, last):
        check(kept)
    assert nightly(other, tmp_path / "night", monkeypatch).uri != mine
    assert not Path(mine).exists()
    check(last)


def test_what_lies_where_a_backup_lay_and_is_something_else_is_left_alone(project, tmp_path, monkeypatch):
    first = nightly(project, tmp_path / "night", monkeypatch).uri
    shutil.rmtree(first)
    shutil.copytree(project.settings.store_uri, first)

    nightly(project, tmp_path / "night", monkeypatch)

    assert LanceStore(first).count("documents") == project.tables.count("documents")


def test_nights_on_which_the_disk_was_full_leave_nothing_behind(project, tmp_path, monkeypatch):
    def full(done, of):
        if done == 4:
            raise StoreWriteError

    monkeypatch.setenv("LODESTORE_BACKUP__URI", str(tmp_path / "night"))
    for _ in range(2):
        with pytest.raises(StoreWriteError):
            backup_again(open_project(project.settings.root), progress=full)
        assert len(list((tmp_path / "night").iterdir())) == 1

    made = nightly(project, tmp_path / "night", monkeypatch)

    assert [str(one) for one in (tmp_path / "night").iterdir()] == [made.uri]


def test_nothing_is_drained_into_a_store_that_is_being_restored(project, tmp_path):
    backup(project, str(tmp_path / "kept"))
    other = elsewhere(project)
    early = open_project(other.settings.root)
    assert early.releases.live().generation == 0  # it has the empty store open
    row = {"user_id": "early", "expertise_level": "expert", "event_timestamp": NOW}

    def push(done, of):
        if done == 1:
            early.store.push("user_profile", [row])
            early.locks._wait = 0.1
            with pytest.raises(StoreBusyError):
                early.features.drain()

    restored = restore(other, str(tmp_path / "kept"), progress=push)

    assert restored.troubles == ()
    open_project(other.settings.root).features.drain()
    asked = {"user_id": ["early"]}
    assert other.store.online([LEVEL], asked).columns[LEVEL] == ["expert"]
    assert other.tables.count("fv__user_profile__v1", "user_id = 'early'") == 1

    other.tables.ensure(RESTORING, LOGS["store"].schema)
    with pytest.raises(StoreError, match="pushed rows wait in the journal"):
        early.features.drain()


def test_a_store_that_somebody_writes_to_meanwhile_is_not_taken_for_the_backup(project, tmp_path):
    backup(project, str(tmp_path / "kept"))
    other = elsewhere(project)
    store = LanceStore(other.settings.store_uri)

    def write(done, of):
        if done == of - 1:
            store.ensure("fv__foreign__v1", LOGS["store"].schema)

    with pytest.raises(StoreError, match=r"was changed while it was restored \(fv__foreign__v1\)"):
        restore(other, str(tmp_path / "kept"), progress=write)
    with pytest.raises(StoreError, match="is being restored"):
        open_project(other.settings.root).live()
    restore(open_project(other.settings.root), str(tmp_path / "kept"))
    assert "fv__foreign__v1" not in open_project(other.settings.root).tables.names()


def test_who_waited_for_a_restore_that_was_killed_opens_nothing(project, tmp_path):
    other = elsewhere(project)
    locks = Locks(other.settings.local / "_locks", wait=10)
    with ThreadPoolExecutor(1) as pool:
        with locks.writer("restoring"):
            waits = pool.submit(lambda: other.tables)
            until(lambda: not waits.done() and (other.settings.local / "_locks/writer.lock").exists())
            LanceStore(other.settings.store_uri).ensure(RESTORING, LOGS["store"].schema)
        with pytest.raises(StoreError, match="is being restored"):
            waits.result(30)


def test_a_backup_is_no_store_to_work_in(project, tmp_path, monkeypatch):
    kept = backup(project, str(tmp_path / "kept")).uri
    monkeypatch.setenv("LODESTORE_STORE__URI", kept)

    with pytest.raises(
        StoreError, match=rf"is a backup; name another \[store\] uri, and run: lodestore restore {kept}"
    ):
        open_project(project.settings.root).live()
    with pytest.raises(RefusedError, match="lie one in the other"):
        restore(open_project(project.settings.root), kept)


def test_servers_that_start_after_a_restore_know_nothing_of_what_was_before(project, tmp_path):
    backup(project, str(tmp_path / "kept"))
    other = elsewhere(project)
    other.online.set_meta(SERVER_NOTE, b'{"of": "before"}')

    restore(other, str(tmp_path / "kept"))

    assert other.online.get_meta(SERVER_NOTE) == b""
    with started(open_project(other.settings.root)) as http:
        body = {"features": [LEVEL], "entities": {"user_id": ["u1"]}}
        assert http.post("/v1/features", json=body).json()["columns"][LEVEL] == ["expert"]


@pytest.mark.parametrize("place", ["", " ", "~nosuchuser/x", "x" * 300, "s3:/bucket", "loop/x", "letter.txt/x", "a\0b"])
def test_a_place_that_is_none_is_told_in_a_line(project, tmp_path, monkeypatch, capsys, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LODESTORE_CONFIG", str(project.settings.root / "lodestore.toml"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "letter.txt").write_text("dear")

    for words in (["backup", place], ["restore", place], ["restore", "--check", place]):
        assert cli.run(words) in {1, 2}
        said = capsys.readouterr().err
        assert said.startswith("lodestore: error: ")
        assert "bug" not in said
        assert "LODESTORE_HOME" not in said
    assert sorted(one.name for one in tmp_path.iterdir()) == ["letter.txt", "loop", "one"]


def test_whatever_somebody_put_into_a_store_keeps_it_from_being_restored_over(project, tmp_path):
    kept = backup(project, str(tmp_path / "kept")).uri
    passing = {"store", "heartbeats", "views", "watermarks", "checks", "alerts", "audit"}

    for log in sorted(LOGS.keys() - passing):
        other = elsewhere(project, f"with-{log}")
        first = LOGS[log].schema.names[0]
        other.logs.put(
            log, {first: 1 if first == "generation" else "x", **({"generation": 1} if log == "releases" else {})}
        )

        with pytest.raises(RefusedError, match=f"{log} has 1 rows"):
            restore(open_project(other.settings.root), kept)


def test_what_is_written_while_tables_are_copied_is_in_the_next_backup(project, tmp_path):
    def write(done, of):
        assert 0 <= done < of
        if done == 0:
            rows = [{"user_id": f"late{n}", "expertise_level": "expert", "event_timestamp": NOW} for n in range(3)]
            project.store.push("user_profile", rows)
            assert project.features.drain() == 3
            project.releases.publish({Slot("template", "qa_basic"): {}}, action="promote", author="somebody")

    before = project.tables.count("fv__user_profile__v1")
    first = backup(project, str(tmp_path / "first"), progress=write)
    second = backup(project, str(tmp_path / "second"))

    assert first.tables["fv__user_profile__v1"].rows == before + 1  # the row of the fixture waited in the journal
    assert second.tables["fv__user_profile__v1"].rows == before + 4
    assert (first.generation, second.generation) == (1, 2)
    assert check(str(tmp_path / "first")) == first


def test_rows_that_cannot_be_brought_along_are_told(project, tmp_path, capsys):
    root = project.settings.root
    project.store.push("orders", [{"order_id": 1, "total": 2, "event_timestamp": NOW}])
    project.online.close()
    text = (
        (root / "served_declarations.py")
        .read_text()
        .replace('orders = FeatureView("orders"', 'orders = FeatureView("bills"')
    )
    (root / "served_declarations.py").write_text(text)
    for log in (root / ".lodestore").glob("views.lance"):
        shutil.rmtree(log)
    program = [sys.executable, "-m", "lodestore", "--config", str(root), "backup", str(tmp_path / "kept")]

    done = subprocess.run(program, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "Not in it: pushed rows that wait: " in done.stdout
    assert "orders" in done.stdout


@pytest.mark.parametrize("act", ["backup", "restore"])
def test_what_was_killed_is_unfinished_and_says_so_and_the_next_one_ends_it(project, tmp_path, act):
    kept = str(tmp_path / "kept")
    other = elsewhere(project)
    if act == "restore":
        backup(project, kept)
    at = project if act == "backup" else other
    at.online.close()

    died = subprocess.run([sys.executable, "-c", DYING, act, str(at.settings.root), kept], check=False)

    assert died.returncode == -signal.SIGKILL
    if act == "backup":
        with pytest.raises(SourceError, match="did not end"):
            read_backup(kept)
        backup(open_project(project.settings.root), kept)
    else:
        with pytest.raises(StoreError, match=r"is being restored.*lodestore restore"):
            answers(open_project(other.settings.root))
    other = open_project(other.settings.root)
    restore(other, kept)
    assert answers(other) == answers(open_project(project.settings.root))


def test_a_damaged_backup_is_found_and_no_store_is_made_of_it(project, tmp_path):
    made = backup(project, str(tmp_path / "kept"))
    good = shutil.copytree(tmp_path / "kept", tmp_path / "good")
    name = next(one for one in made.tables if one.startswith("emb__content"))
    for file in (tmp_path / "kept" / f"{name}.lance" / "data").iterdir():
        held = bytearray(file.read_bytes())
        place = held.find(b"Refunds are paid")
        assert place > 0
        held[place : place + 7] = b"Refused"
        file.write_bytes(bytes(held))
    other = elsewhere(project)

    with pytest.raises(StoreError, match=f"table {name} is not what was copied"):
        check(str(tmp_path / "kept"))
    with pytest.raises(StoreError, match=f"table {name} is not what was copied"):
        restore(other, str(tmp_path / "kept"))
    with pytest.raises(StoreError, match="is being restored"):
        open_project(other.settings.root).live()

    restore(open_project(other.settings.root), str(good))
    assert answers(open_project(other.settings.root)) == answers(project)


def test_a_backup_goes_nowhere_where_something_is(project, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    (tmp_path / "link").symlink_to(project.settings.store_uri)
    backup(project, str(tmp_path / "kept"))
    store = project.settings.store_uri

    for place, said in (
        ("full", "not empty"),
        ("kept", "a backup already"),
        (f"{store}/kept", "lie one in the other"),
        (f"file://{store}/kept", "lie one in the other"),
        (store, "lie one in the other"),
        (str(project.settings.root), "lie one in the other"),
        ("link/kept", "lie one in the other"),
    ):
        with pytest.raises(RefusedError, match=said):
            backup(project, place if "://" in place else str(tmp_path / place))
    assert [one.name for one in (tmp_path / "full").iterdir()] == ["letter.txt"]


def test_a_store_with_anything_in_it_is_not_restored_over(project, tmp_path):
    backup(project, str(tmp_path / "kept"))
    before = tables(project)

    with pytest.raises(RefusedError, match=r"is not empty: \w+ has [\d,]+ rows"):
        restore(project, str(tmp_path / "kept"))

    assert tables(project).keys() == before.keys()


def test_a_store_that_was_only_looked_at_is_empty(project, tmp_path):
    backup(project, str(tmp_path / "kept"))
    other = elsewhere(project)
    assert other.releases.live().generation == 0
    assert "store" in other.tables.names()

    restore(open_project(other.settings.root), str(tmp_path / "kept"))

    assert answers(open_project(other.settings.root)) == answers(project)


def manifest(place, change):
    """The backup says something else of itself."""
    import lance

    dataset = lance.dataset(f"{place}/backup.lance")
    *before, last = dataset.to_table()["manifest"].to_pylist()
    said = pa.array([*before, change(last)], pa.large_string())
    lance.write_dataset(pa.table({"manifest": said}), f"{place}/backup.lance", mode="overwrite")


def with_tables(told, tables):
    return json.dumps({**json.loads(told), "tables": tables})


def test_what_no_longer_reads_is_no_backup(project, tmp_path):
    backup(project, str(tmp_path / "kept"))
    shutil.copytree(tmp_path / "kept/backup.lance", tmp_path / "said.lance")
    for change, error, said in (
        (lambda told: told.replace('"schema_version": 1', '"schema_version": 9'), SchemaVersionError, "version 9"),
        (lambda told: told.replace('"format": 1', '"format": 7'), SchemaVersionError, "install that version"),
        (lambda _: '{"format": 2, "lodestore": "9.9", "schema_version": 1, "other": 1}', SchemaVersionError, "9.9"),
        (lambda told: told[:100], SourceError, "damaged"),
        (lambda _: "[]", SourceError, "damaged"),
        (lambda _: "{}", SourceError, "damaged"),
        (lambda told: with_tables(told, []), SourceError, "it lacks releases, store"),
        (lambda told: with_tables(told, [{"name": "x"}]), SourceError, "damaged"),
        (lambda told: told.replace('"name": "audit"', '"name": "restoring"'), SourceError, "no table of a store"),
        (lambda told: told.replace('"name": "audit"', '"name": "../evil"'), SourceError, "no table of a store"),
        (lambda told: told.replace('"release": 1', '"release": "x"'), SourceError, "no count"),
    ):
        manifest(tmp_path / "kept", change)

        with pytest.raises(error, match=said):
            read_backup(str(tmp_path / "kept"))

        shutil.rmtree(tmp_path / "kept/backup.lance")
        shutil.copytree(tmp_path / "said.lance", tmp_path / "kept/backup.lance")


def test_a_table_that_is_missing_from_the_backup_is_named(project, tmp_path):
    backup(project, str(tmp_path / "kept"))
    shutil.rmtree(tmp_path / "kept/releases.lance")

    with pytest.raises(StoreError, match="releases"):
        check(str(tmp_path / "kept"))


def test_the_commands_say_what_they_did_and_what_is_wrong(project, tmp_path, capsys, monkeypatch):
    kept, other = tmp_path / "kept", elsewhere(project)

    def command(root, *words):
        monkeypatch.setenv("LODESTORE_CONFIG", str(root / "lodestore.toml"))
        code = cli.run(list(words))
        return code, capsys.readouterr()

    code, said = command(project.settings.root, "backup", str(kept), "--json")
    told = json.loads(said.out)
    assert (code, told["uri"], told["release"], told["format"]) == (0, str(kept), 1, 1)
    assert {"name", "revision", "rows", "digest"} == told["tables"][0].keys()

    code, said = command(other.settings.root, "restore", "--check", str(kept))
    assert code == 0
    assert "Every row was read and is as it was" in said.out
    assert not Path(other.settings.store_uri).joinpath("store.lance").exists()

    code, said = command(other.settings.root, "restore", str(kept), "--json")
    assert (code, json.loads(said.out)["troubles"]) == (0, [])
    code, said = command(other.settings.root, "search", "when are refunds paid", "--json")
    assert json.loads(said.out)["hits"][0]["title"] == "Refunds"

    for words in (
        ("restore", str(kept)),
        ("restore", str(tmp_path / "nowhere")),
        ("restore", str(tmp_path)),
        ("backup", str(kept)),
    ):
        code, said = command(other.settings.root, *words)
        assert code in {1, 2}
        assert said.err.startswith("lodestore: error: ")
        assert "Traceback" not in said.err


def test_a_wanted_backup_that_nobody_made_is_a_finding(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LODESTORE_CONFIG", str(project.settings.root / "lodestore.toml"))
    assert cli.run(["backup"]) == 2
    assert "no place for backups is set; name one as [backup] uri" in capsys.readouterr().err
    monkeypatch.setenv("LODESTORE_BACKUP__URI", str(tmp_path / "kept"))

    def found(days):
        later = open_project(project.settings.root)
        later.clock = lambda: utc_now() + timedelta(days=days)
        return [one for one in examine(later) if one.code == "backup_overdue"]

    assert found(2) == []
    (finding,) = found(4)
    assert (finding.severity, finding.mend[:16]) == ("warning", "lodestore backup")
    assert cli.run(["backup"]) == 0
    (made,) = (tmp_path / "kept").iterdir()
    assert read_backup(str(made)).rows > 0
    assert found(2) == []
    assert len(found(4)) == 1


def test_a_table_keeps_its_vector_index(tmp_path):
    rng = np.random.default_rng(7)
    rows = pa.table(
        {
            "row_id": [f"r{n}" for n in range(400)],
            "vector": pa.FixedSizeListArray.from_arrays(rng.standard_normal(400 * 8).astype(np.float32), 8),
            "title": ["one"] * 400,
            "text": [f"word{n}" for n in range(400)],
        }
    )
    one, two = (LanceStore(str(tmp_path / name), index_from=256) for name in ("one", "two"))
    one.ensure("emb", rows.schema, key="row_id")
    one.append("emb", rows)
    one.index("emb")

    one.copy("emb", two, revision=one.revision("emb"))
    shutil.rmtree(tmp_path / "one")

    assert two.indexed("emb")
    assert two.tail("emb").unindexed == 0
    vector = np.asarray(rows["vector"][17].as_py())
    assert two.nearest("emb", vector, 1, columns=["row_id"])["row_id"].to_pylist() == ["r17"]
    assert two.matching("emb", "word17", 1, columns=["row_id"])["row_id"].to_pylist() == ["r17"]
    two.upsert("emb", rows.slice(17, 1), key="row_id")
    assert two.count("emb") == 400


def test_a_backup_lies_on_an_object_store_and_so_may_the_store_that_is_made_of_it(project, tmp_path, monkeypatch):
    bucket = "lodestore-backups"
    with object_store(bucket) as options:
        for name, value in options.items():
            monkeypatch.setenv(f"LODESTORE_STORE__STORAGE__{name.upper()}", value)
        here = open_project(project.settings.root)
        made = backup(here, f"s3://{bucket}/first")
        with pytest.raises(RefusedError, match="a backup already"):
            backup(here, f"s3://{bucket}/first")

        other = elsewhere(project)
        restore(open_project(other.settings.root), f"s3://{bucket}/first")
        assert answers(open_project(other.settings.root)) == answers(project)

        monkeypatch.setenv("LODESTORE_STORE__URI", f"s3://{bucket}/store")
        there = elsewhere(project, "three")
        restored = restore(there, f"s3://{bucket}/first")
        assert restored.backup == made
        assert answers(open_project(there.settings.root)) == answers(project)


def test_what_cannot_go_online_leaves_the_store_whole_and_is_told(project, tmp_path, monkeypatch, capsys):
    backup(project, str(tmp_path / "kept"))
    other = elsewhere(project)
    with monkeypatch.context() as away:
        away.setenv("LODESTORE_ONLINE__URL", "redis://127.0.0.1:1/0")
        other = open_project(other.settings.root)

    restored = restore(other, str(tmp_path / "kept"))

    assert len(restored.troubles) == 1
    shutil.rmtree(other.settings.store_uri)
    monkeypatch.setenv("LODESTORE_CONFIG", str(other.settings.root / "lodestore.toml"))
    monkeypatch.setenv("LODESTORE_ONLINE__URL", "redis://127.0.0.1:1/0")
    assert cli.run(["restore", str(tmp_path / "kept")]) == 1
    assert "Not online again: " in capsys.readouterr().out
    assert other.live().search("when are refunds paid", k=1).hits[0].title == "Refunds"
