"""A backup is the whole store as it was at one moment, and the store that is made of it answers as that one did."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lodestore import cli
from lodestore.adapters.lance import LanceStore
from lodestore.backup import backup, check, read_backup, restore
from lodestore.doctor import examine
from lodestore.errors import RefusedError, SchemaVersionError, SourceError, StoreError
from lodestore.logs import utc_now
from lodestore.project import open_project
from lodestore.releases import Slot
from tests.object_store import object_store
from tests.served import NOW, build

LEVEL = "user_profile:expertise_level"
QUERIES = ("when are refunds paid", "where do guests park", "when does the kitchen close")
# Dies with the signal that nobody can catch, when the third table is at hand.
DYING = """
import os, signal, sys
from lodestore import backup
from lodestore.project import open_project

def die(done, of):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

getattr(backup, sys.argv[1])(open_project(sys.argv[2]), sys.argv[3], progress=die)
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
    return {name: project.tables.read(name) for name in project.tables.names() if name not in {"heartbeats", "audit"}}


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
    backup(project, str(tmp_path / "kept"))
    store = project.settings.store_uri

    for place, said in (
        ("full", "not empty"),
        ("kept", "a backup already"),
        (f"{store}/kept", "in the store itself"),
        (store, "in the store itself"),
    ):
        with pytest.raises(RefusedError, match=said):
            backup(project, str(tmp_path / place))
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
    told = change(dataset.to_table()["manifest"][0].as_py())
    lance.write_dataset(
        pa.table({"manifest": pa.array([told], pa.large_string())}), f"{place}/backup.lance", mode="overwrite"
    )


def test_what_no_longer_reads_is_no_backup(project, tmp_path):
    backup(project, str(tmp_path / "kept"))
    shutil.copytree(tmp_path / "kept/backup.lance", tmp_path / "said.lance")
    for change, error, said in (
        (lambda told: told.replace('"schema_version": 1', '"schema_version": 9'), SchemaVersionError, "version 9"),
        (lambda told: told.replace('"format": 1', '"format": 7'), SchemaVersionError, "install that version"),
        (lambda told: told[:100], SourceError, "damaged"),
        (lambda _: "[]", SourceError, "damaged"),
        (lambda told: json.dumps({**json.loads(told), "tables": [{"name": "x"}]}), SourceError, "damaged"),
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


def test_what_cannot_go_online_leaves_the_store_whole_and_is_told(project, tmp_path):
    backup(project, str(tmp_path / "kept"))
    other = elsewhere(project)
    os.environ["LODESTORE_ONLINE__URL"] = "redis://127.0.0.1:1/0"
    try:
        other = open_project(other.settings.root)
    finally:
        del os.environ["LODESTORE_ONLINE__URL"]

    restored = restore(other, str(tmp_path / "kept"))

    assert len(restored.troubles) == 1
    assert other.live().search("when are refunds paid", k=1).hits[0].title == "Refunds"
