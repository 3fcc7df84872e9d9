"""The server over a real small store: right values, right refusals, and nothing that a body could break."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from lodestore.client import Client
from lodestore.errors import FingerprintError, ModelError, SettingsError, UnavailableError, UnknownViewError
from lodestore.keys import Keys
from lodestore.project import open_project
from lodestore.releases import Slot
from lodestore.server.app import _ROUTES, application
from lodestore.server.caches import ByteCache
from lodestore.server.lines import JsonLines
from lodestore.server.options import ServerOptions
from lodestore.server.tracing import Tracing
from lodestore.server.vectors import QueryVectors, VectorCache
from lodestore.settings import load
from tests.served import LEVELS, NOW, TEMPLATE, build, free_port, serving, started, status, until, write_project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return build(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def http(project):
    with started(project) as client:
        until(lambda: client.get("/readyz").json()["parts"]["search"]["state"] == "ready")
        yield client


def serving_of(http):
    return http.app_state["serving"]


def features(http, refs, entities, **more):
    return http.post("/v1/features", json={"features": refs, "entities": entities, **more})


# -- features


def test_the_same_users_in_another_order_get_their_own_features(http):
    refs = ["user_profile:account_age_days", "user_profile:expertise_level"]
    for order in ([1, 2, 3], [3, 2, 1], [2, 2, 1, 3], [3]):
        told = features(http, refs, {"user_id": [f"u{n}" for n in order]}).json()

        assert told["columns"]["user_profile:account_age_days"] == order
        assert told["columns"]["user_profile:expertise_level"] == [LEVELS[n % 3] for n in order]


def test_each_value_has_a_status_and_a_moment(http):
    told = features(http, ["user_profile:expertise_level"], {"user_id": ["u1", "nobody"]}).json()

    assert told["statuses"] == {"user_profile:expertise_level": ["PRESENT", "NOT_FOUND"]}
    assert told["columns"]["user_profile:expertise_level"] == ["intermediate", None]
    first, second = told["event_timestamps"]["user_profile:expertise_level"]
    assert first.endswith("Z")
    assert second is None
    assert told["release"] == 1


def test_a_service_and_on_demand_features_are_answered(http):
    told = features(http, [], {"user_id": ["u2"]}, service="assistant", inputs={"query_text": ["refunds"]}).json()

    assert told["columns"]["personalized:personalized_context"] == ["Give a technical deep dive on: refunds"]


def test_without_features_of_its_own_a_request_is_for_those_of_the_service(http, project):
    asked = {"entities": {"user_id": ["u2"]}, "service": "assistant", "inputs": {"query_text": ["refunds"]}}
    with Client(str(http.base_url)) as client:
        told = [one.online(None, **asked).columns for one in (project.store, client)]

    assert told[0] == told[1]
    assert "user_profile:expertise_level" in told[0]


def test_a_pinned_view_version_keeps_its_name(http):
    told = features(http, ["user_profile@1:account_age_days"], {"user_id": ["u7"]}).json()

    assert told["columns"]["user_profile@1:account_age_days"] == [7]


def test_every_answer_says_its_release_its_age_and_its_cache(http):
    for path in ("/v1/release", "/nothing", "/healthz", "/v1/documents/none", "/docs"):
        headers = http.get(path).headers
        assert headers["lodestore-release"] == "1"
        assert int(headers["lodestore-age-ms"]) < 5_000
        assert headers["lodestore-cache"] == "none"


def test_an_error_is_a_problem_document_with_a_stable_type(http):
    answer = features(http, ["user_profil:x"], {"user_id": ["u1"]})

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:lodestore:error:unknown-view"
    assert "did you mean 'user_profile'" in answer.json()["detail"]


def test_features_come_as_arrow_when_that_is_asked_for(http):
    body = {"features": ["user_profile:account_age_days"], "entities": {"user_id": ["u5", "nobody"]}}
    answer = http.post("/v1/features", json=body, headers={"accept": "application/vnd.apache.arrow.stream"})

    table = pa.ipc.open_stream(answer.content).read_all()
    assert table["user_profile:account_age_days"].to_pylist() == [5, None]
    assert table["user_profile:account_age_days__status"].to_pylist() == ["PRESENT", "NOT_FOUND"]


@pytest.mark.parametrize(
    "body",
    [
        {"features": ["user_profile:expertise_level"], "entities": {"user_id": [1]}},
        {"features": ["user_profile:expertise_level"], "entities": {"user_id": "u1"}},
        {"features": ["user_profile:expertise_level"], "entities": {"user_id": [["u1"]]}},
        {"features": ["user_profile:expertise_level"], "entities": {"user_id": [True]}},
        {"features": ["user_profile:expertise_level"], "entities": {"user_id": ["u1"], "x": ["a", "b"]}},
        {"features": ["orders:total"], "entities": {"order_id": [2**53]}},
        {"features": [7], "entities": {"user_id": ["u1"]}},
        {"features": ["user_profile"], "entities": {"user_id": ["u1"]}},
        {"features": [], "entities": {"user_id": ["u1"]}},
        {"features": ["user_profile:expertise_level"], "entities": {"user_id": ["u1"]}, "wrong": 1},
        {"features": ["user_profile:expertise_level"], "entities": {"user_id": ["u1"] * 5_001}},
        {"features": ["personalized:expertise_modifier"], "entities": {"user_id": ["u1"]}},
        {"features": ["user_profile:expertise_level"]},
        [],
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_says_why(http, body):
    answer = http.post("/v1/features", json=body)

    assert answer.status_code == 422, answer.text
    assert len(answer.json()["detail"]) > 20


# -- push


def order(order_id, **values):
    return {"order_id": order_id, "event_timestamp": NOW.isoformat(), **values}


def test_a_push_is_visible_at_the_next_read_and_counts_once(http):
    rows = [order(1, total=5, event_id="e1"), order(2, total=6, event_id="e2")]

    assert http.post("/v1/push", json={"view": "orders", "rows": rows}).json() == {
        "accepted": 2,
        "duplicates": 0,
        "late": 0,
    }
    assert features(http, ["orders:total"], {"order_id": [2, 1]}).json()["columns"]["orders:total"] == ["6", "5"]
    assert http.post("/v1/push", json={"view": "orders", "rows": rows}).json()["duplicates"] == 2


def test_when_one_row_is_bad_every_bad_one_is_named_and_none_is_stored(http):
    rows = [order(11, total=1), order("x", total=2), {"order_id": 12, "event_timestamp": "2026-01-02T03:04:05"}]
    answer = http.post("/v1/push", json={"view": "orders", "rows": rows})

    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:lodestore:error:invalid-rows"
    assert [one[:6] for one in answer.json()["problems"]] == ["row 2:", "row 3:"]
    assert "no time zone" in answer.json()["problems"][1]
    assert features(http, ["orders:total"], {"order_id": [11]}).json()["statuses"]["orders:total"] == ["NOT_FOUND"]


def test_a_key_that_json_would_round_is_read_as_text(http):
    huge, near = 2**60 + 1, 2**60
    http.post("/v1/push", json={"view": "orders", "rows": [order(huge, total=1), order(near, total=2)]})

    told = features(http, ["orders:total"], {"order_id": [str(huge), str(near), 7, str(-huge)]}).json()
    assert told["columns"]["order_id"] == [str(huge), str(near), 7, str(-huge)]
    assert told["columns"]["orders:total"] == ["1", "2", None, None]

    refused = features(http, ["orders:total"], {"order_id": [huge]})
    assert (refused.status_code, "write it as text" in refused.json()["detail"]) == (422, True)
    # A key of the same name may be text elsewhere: the views that are asked decide.
    assert features(http, ["user_profile:account_age_days"], {"user_id": ["7"]}).json()["columns"]["user_id"] == ["7"]
    for text in ("7", "007", "1.0", f"0{huge}", f"+{huge}", "seven", " 7", "9" * 5_000, "", "\u0667"):
        assert features(http, ["orders:total"], {"order_id": [text]}).status_code == 422, text


def test_the_client_reads_by_such_keys_and_gives_them_back_as_they_were_given(http, project):
    huge = 2**62 + 1
    with Client(str(http.base_url)) as client:
        client.push("orders", [order(huge, total=3)])
        found = client.online(["orders:total"], {"order_id": [huge, 5_555]})

    assert found.columns == {"order_id": [huge, 5_555], "orders:total": ["3", None]}


def test_wide_integers_travel_as_text(http):
    huge = 2**62 + 1
    http.post("/v1/push", json={"view": "orders", "rows": [order(21, total=str(huge))]})

    assert features(http, ["orders:total"], {"order_id": [21]}).json()["columns"]["orders:total"] == [str(huge)]


def test_a_data_frame_and_a_table_are_pushed_by_the_client(http):
    rows = [order(50 + n, total=None if n else 3, note=f"frame {n}") for n in range(2)]
    with Client(str(http.base_url)) as client:
        assert client.push("orders", pd.DataFrame(rows)).accepted == 2
        assert client.push("orders", pa.Table.from_pylist(rows)).duplicates == 2
        found = client.online(["orders:total", "orders:note"], {"order_id": [50, 51]})

    assert found.columns["orders:total"] == ["3", None]
    assert found.columns["orders:note"] == ["frame 0", "frame 1"]


def test_rows_come_as_lines_or_as_arrow_too(http):
    lines = "\n".join(json.dumps(order(n, total=n)) for n in (31, 32))
    answer = http.post("/v1/push?view=orders", content=lines, headers={"content-type": "application/x-ndjson"})
    assert answer.json()["accepted"] == 2

    sink = io.BytesIO()
    table = pa.table({"order_id": [33], "event_timestamp": [NOW], "total": [33]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    arrow = {"content-type": "application/vnd.apache.arrow.stream"}
    assert http.post("/v1/push?view=orders", content=sink.getvalue(), headers=arrow).json()["accepted"] == 1
    assert http.post("/v1/push?view=orders", content=b"no arrow", headers=arrow).status_code == 400
    told = features(http, ["orders:total"], {"order_id": [31, 32, 33]}).json()
    assert told["columns"]["orders:total"] == ["31", "32", "33"]


FAR = pa.array([253_402_300_800_000_000], pa.int64())


@pytest.mark.parametrize(
    ("name", "column", "status"),
    [
        ("note", pa.array([b"caf\xe9"], pa.binary()).view(pa.string()), 400),
        ("event_timestamp", FAR.cast(pa.timestamp("us", tz="UTC")), 422),
        ("created_timestamp", FAR.cast(pa.timestamp("us", tz="UTC")), 422),
        ("event_timestamp", FAR.cast(pa.timestamp("s", tz="UTC")), 422),
        ("event_timestamp", pa.array([0], pa.int64()).cast(pa.timestamp("us", tz="No/Where")), 422),
        ("event_timestamp", pa.array([2**62], pa.int64()).cast(pa.duration("s")), 422),
        ("order_id", pa.array([2**63], pa.uint64()), 422),
    ],
)
def test_an_arrow_body_with_values_that_cannot_be_is_refused(http, name, column, status):
    table = pa.table({"order_id": [34], "event_timestamp": [NOW], "total": [34]})
    place = table.schema.get_field_index(name)
    table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)

    answer = http.post(
        "/v1/push?view=orders", content=sink.getvalue(), headers={"content-type": "application/vnd.apache.arrow.stream"}
    )

    assert answer.status_code == status, answer.text
    assert name in answer.json()["detail"] or "UTF8" in answer.json()["detail"]
    assert features(http, ["orders:total"], {"order_id": [34]}).json()["statuses"]["orders:total"] == ["NOT_FOUND"]


# -- search


def search(http, query="when are refunds paid", **options):
    return http.post("/v1/search", json={"query": query, **options})


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_every_mode_finds_the_document(http, mode):
    told = search(http, mode=mode, filter="category = 'public'", k=2).json()

    assert told["hits"][0]["document_id"] == "handbook/refunds.md"
    assert (told["release"], told["version"], told["mode"]) == (1, "words@1", mode)


def test_the_same_search_is_made_once_and_another_filter_is_another_search(http):
    assert search(http, "kitchen hours").headers["lodestore-cache"] == "miss"
    assert search(http, "kitchen hours").headers["lodestore-cache"] == "hit"
    other = search(http, "kitchen hours", filter={"category": "secret"})
    assert other.headers["lodestore-cache"] == "miss"
    assert {one["document_id"] for one in other.json()["hits"]} == {"vault/merger.md"}


def test_many_searches_are_answered_in_their_order(http):
    told = http.post("/v1/search/batch", json={"queries": [{"query": "parking", "k": 1}, {"query": "kitchen", "k": 1}]})

    assert [one["hits"][0]["title"] for one in told.json()["results"]] == ["Parking", "Kitchen"]
    assert http.post("/v1/search/batch", json={"queries": []}).status_code == 422


def test_a_vector_has_to_name_the_model_that_made_it(http, project):
    vector = project.live().embed(["free parking for guests"])[0]
    packed = base64.b64encode(vector.astype("<f4").tobytes()).decode()

    for one in (vector.tolist(), packed):
        told = http.post("/v1/search", json={"vector": one, "version": "words@1", "k": 1}).json()
        assert told["hits"][0]["title"] == "Parking"
    for version in ({}, {"version": "minilm@1"}):
        answer = http.post("/v1/search", json={"vector": vector.tolist(), **version})
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:lodestore:error:fingerprint")
    assert http.post("/v1/search", json={"vector": [1.0], "version": "words@1"}).status_code == 422


@pytest.mark.parametrize(
    "options",
    [
        {"query": ""},
        {"query": 5},
        {"k": 0},
        {"k": 10_000},
        {"k": True},
        {"mode": "magic"},
        {"filter": "category = "},
        {"filter": "1 = 1"},
        {"filter": "colour = 'red'"},
        {"filter": {"category": {"like": "%"}}},
        {"filter": 7},
        {"version": "words@1"},
        {"as_of": "2026-01-01T00:00:00"},
        {"vector": [1]},
    ],
)
def test_a_search_that_makes_no_sense_is_refused(http, options):
    answer = http.post("/v1/search", json={"query": "refunds", **options})

    assert answer.status_code == 422, answer.text


def test_a_release_that_is_not_served_is_refused(http):
    assert search(http, release=1).status_code == 200
    assert search(http, release=9).status_code == 404


def test_a_search_as_of_a_moment_is_answered_by_what_was_there_then(http):
    now = datetime.now(UTC).isoformat()
    told = search(http, as_of=now, filter="category = 'public'").json()

    assert told["hits"][0]["title"] == "Refunds"
    assert told["as_of"].endswith("Z")
    before = search(http, as_of="2020-01-01T00:00:00Z")
    assert before.status_code in {404, 409}


def test_the_server_tells_why_a_document_is_not_found(http):
    told = http.post("/v1/why", json={"query": "refunds", "document_id": "handbook/kitchen.md", "k": 1}).json()

    assert told["release"] == 1
    assert http.post("/v1/why", json={"query": "refunds"}).status_code == 422


# -- context, templates, outcomes, documents


def test_the_context_is_a_prompt_for_this_user(http):
    body = {"query": "when are refunds paid", "user_id": "u2", "filter": "category = 'public'", "k": 2}
    told = http.post("/v1/context", json=body).json()

    assert "[1] Refunds" in told["prompt"]
    assert "merger" not in told["prompt"]
    assert told["user_known"] is True
    assert told["features"]["user_profile:expertise_level"] == "expert"
    assert told["template"] == {"id": "qa_basic", "version": "1.0.0"}
    assert told["degraded"] == []


def test_an_unknown_template_or_budget_is_refused(http):
    assert http.post("/v1/context", json={"query": "x", "template": "nope"}).status_code == 404
    assert http.post("/v1/context", json={"query": "x", "token_budget": 0}).status_code == 422


def test_an_outcome_is_stored_once(http, project):
    body = {"context_id": "c1", "event_id": "o1", "accepted": True, "rating": 4.5}

    assert [http.post("/v1/outcomes", json=body).json()["stored"] for _ in range(2)] == [True, False]
    (row,) = project.logs.rows("outcomes", "id = 'o1'")
    assert json.loads(row["values"]) == {"accepted": True, "rating": 4.5}
    assert http.post("/v1/outcomes", json={"context_id": "c1"}).status_code == 422


def test_templates_are_listed_read_and_rendered(http):
    assert [one["id"] for one in http.get("/v1/templates").json()["templates"]] == ["qa_basic"]
    assert http.get("/v1/templates/qa_basic").json()["live_weight"] == 1.0
    told = http.post("/v1/templates/qa_basic/render", json={"variables": {"context": "{question}", "question": "why"}})
    assert told.json()["text"] == "Answer from {question} the question why."
    assert http.post("/v1/templates/qa_basic/render", json={"variables": {}}).status_code == 422
    assert http.get("/v1/templates/qa_basic?version=9.9.9").status_code == 404


def test_lists_come_page_by_page(http):
    names, cursor = [], ""
    while cursor is not None:
        told = http.get(f"/v1/views?limit=2&cursor={cursor}").json()
        names += [one["name"] for one in told["views"]]
        cursor = told["next"]

    assert names == sorted({"document_features", "orders", "personalized", "user_activity", "user_profile"})
    assert http.get("/v1/views?limit=0").status_code == 422
    assert http.get("/v1/views?cursor=%ff").status_code == 422


def test_documents_and_chunks_are_read_by_id(http):
    assert http.get("/v1/documents/handbook/parking.md").json()["title"] == "Parking"
    assert http.get("/v1/documents/handbook/none.md").status_code == 404
    chunk = search(http, "parking", k=1).json()["hits"][0]["chunk_id"]
    told = http.get(f"/v1/chunks/{chunk}?neighbours=1").json()
    assert told["chunk"]["document_id"] == "handbook/parking.md"
    assert http.get(f"/v1/chunks/{chunk}?neighbours=x").status_code == 422
    assert http.get("/v1/chunks/' or 1=1 --").status_code == 404


def test_the_description_names_every_call(http):
    told = http.get("/openapi.json").json()

    routed = {(path.replace(":path", ""), method.lower()) for path, method, _, _ in _ROUTES}
    described = {(path, method) for path, methods in told["paths"].items() for method in methods}
    assert routed - described == {(path, "get") for path in ("/metrics", "/docs", "/openapi.json")}
    assert described <= routed
    assert "Row_orders" in told["components"]["schemas"]
    references = json.dumps(told).split('"$ref": "#/components/schemas/')[1:]
    assert {one.split('"')[0] for one in references} <= set(told["components"]["schemas"])
    assert "http" not in http.get("/docs").text.replace("http-equiv", "")


def test_metrics_have_names_and_numbers_but_no_values(http):
    features(http, ["user_profile:expertise_level"], {"user_id": ["u1"]})
    search(http, "a very private question")
    text = http.get("/metrics").text

    assert 'lodestore_requests_total{endpoint="/v1/features",view="user_profile",status="200"}' in text
    assert "lodestore_release 1" in text
    for value in ("private", "u1", "intermediate"):
        assert value not in text
    (age,) = [one for one in text.splitlines() if one.startswith('lodestore_view_age_seconds{view="user_profile@1"}')]
    assert 290 < float(age.split()[-1]) < 3_000
    for name in ("newest_release", "snapshot_age_seconds", "inflight_requests", "vector_hits", "vector_coalesced"):
        assert f"\nlodestore_{name} " in text
    assert 'lodestore_request_seconds_bucket{endpoint="/v1/features",view="user_profile",le="0.001"}' in text
    assert 'lodestore_cache_total{cache="search",outcome="miss"}' in text


def test_requests_are_logged_as_json_with_their_id_and_without_their_values(project, caplog):
    with started(project, ServerOptions(log_requests=True)) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        with caplog.at_level(logging.INFO, "lodestore.server"):
            body = {"features": ["user_profile:expertise_level"], "entities": {"user_id": ["u4"]}}
            http.post("/v1/features", json=body, headers={"lodestore-request-id": "mine-7"})
            search(http, "a very private question", filter="title = 'secret'")

    lines = [json.loads(JsonLines().format(one)) for one in caplog.records if hasattr(one, "request")]
    read, found = lines[-2:]
    assert (read["endpoint"], read["status"], read["request_id"], read["view"]) == (
        "/v1/features",
        200,
        "mine-7",
        "user_profile",
    )
    assert (read["level"], read["at"][-1]) == ("info", "Z")
    assert found["endpoint"] == "/v1/search"
    for value in ("u4", "private", "secret"):
        assert value not in json.dumps(lines[-2:])


@pytest.mark.parametrize("message", ["plain", "half a pair \udce9", "two\nlines"])
def test_whatever_is_logged_is_one_line_of_json(message):
    line = JsonLines().format(logging.makeLogRecord({"name": "uvicorn.error", "levelname": "INFO", "msg": message}))

    assert "\n" not in line
    assert json.loads(line)["message"] == message


def test_each_request_is_a_span_of_the_callers_trace_without_its_values(project):
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    app = application(project, tracing=Tracing(provider))
    with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        spans.clear()
        body = {"features": ["user_profile:expertise_level"], "entities": {"user_id": ["u4"]}}
        answer = http.post("/v1/features", json=body, headers={"traceparent": parent})
        http.get("/v1/documents/handbook/secret-name.md")

    read, missing = spans.get_finished_spans()
    assert read.name == "POST /v1/features"
    assert f"{read.context.trace_id:x}" == "af7651916cd43dd8448eb211c80319c"
    assert f"{read.parent.span_id:x}" == "b7ad6b7169203331"
    assert dict(read.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/features",
        "http.response.status_code": 200,
        "lodestore.release": 1,
        "lodestore.request_id": answer.headers["lodestore-request-id"],
        "lodestore.cache": "none",
        "lodestore.view": "user_profile",
    }
    assert missing.name == "GET /v1/documents/{id}"
    assert "secret-name" not in missing.to_json()
    assert "u4" not in read.to_json()


def test_tracing_without_opentelemetry_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    with pytest.raises(SettingsError, match=r'pip install "lodestore\[otel\]"'):
        Tracing.exporting()


# -- limits


def test_a_body_that_is_too_long_is_not_read(project):
    with started(project, ServerOptions(max_body=1_000)) as http:
        until(lambda: http.get("/readyz?part=features").status_code == 200)
        assert search(http, "x" * 2_000).status_code == 413
        chunks = (b"x" * 400 for _ in range(9))
        assert http.post("/v1/search", content=chunks).status_code == 413


LIMITS = """
[serve]
max_body = 2_000
max_k = 7
max_entities = 3
max_values = 5
max_batch = 2
"""


def test_limits_are_settings_and_each_is_told_with_its_number(project, tmp_path):
    (tmp_path / "lodestore.toml").write_text(LIMITS)
    limited = replace(project, settings=replace(project.settings, serve=load(tmp_path).serve))
    level, age = "user_profile:expertise_level", "user_profile:account_age_days"
    with started(limited) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        refused = [
            (search(http, "x", k=8), 422, "from 1 to 7"),
            (http.post("/v1/context", json={"query": "x", "k": 8}), 422, "from 1 to 7"),
            (features(http, [level], {"user_id": ["a"] * 4}), 422, "at most 3"),
            (features(http, [level, age], {"user_id": ["a"] * 3}), 422, "at most 5"),
            (http.post("/v1/search/batch", json={"queries": [{"query": "x"}] * 3}), 422, "give 1 to 2"),
            (search(http, "x" * 2_001), 413, "2,000 bytes"),
        ]

        for answer, status, said in refused:
            assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
        assert search(http, "x", k=7).status_code == 200
        told = http.get("/openapi.json").json()["components"]["schemas"]
        assert told["SearchRequest"]["properties"]["k"]["maximum"] == 7
        assert told["SearchBatchRequest"]["properties"]["queries"]["maxItems"] == 2


def test_when_too_many_requests_are_in_flight_the_next_is_told_when_to_come_back(project):
    with started(project, ServerOptions(max_inflight=1)) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        serving = serving_of(http)
        serving.inflight += 1
        try:
            refused = features(http, ["user_profile:expertise_level"], {"user_id": ["u1"]})
            assert http.get("/healthz").status_code == 200
        finally:
            serving.inflight -= 1

        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["type"] == "urn:lodestore:error:overloaded"
        assert 'lodestore_shed_total{lane="requests"} 1' in http.get("/metrics").text
        assert features(http, ["user_profile:expertise_level"], {"user_id": ["u1"]}).status_code == 200


def test_a_slow_search_blocks_no_feature_read_and_a_full_lane_says_when_to_come_back(project):
    with started(project, ServerOptions(search_threads=1, max_queued=1)) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        serving, go, busy = serving_of(http), threading.Event(), threading.Event()

        def slow():
            busy.set()
            go.wait(10)

        future = asyncio.run_coroutine_threadsafe(serving.searching.run(slow), http.loop)
        busy.wait(10)
        try:
            refused = search(http, "anything new")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert features(http, ["user_profile:expertise_level"], {"user_id": ["u1"]}).status_code == 200
        finally:
            go.set()
            future.result(10)


# -- keys


ADMIN_ONLY = {"/metrics"}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """A server with keys: one of each scope, and one of a tenant."""
    project = build(tmp_path_factory.mktemp("keyed"))
    keys = Keys(project.logs)
    tokens = {scope: keys.add([scope]).token for scope in ("read", "push", "admin", "erase")}
    tokens["tenant"] = keys.add(["read"], filter="category = 'public'").token
    with started(project) as http:
        until(lambda: http.get("/readyz").json()["parts"]["search"]["state"] == "ready")
        yield http, tokens, keys


def bearer(token):
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(("path", "method", "wanted"), [(one[0], one[1], one[3]) for one in _ROUTES])
def test_a_key_of_another_scope_opens_no_call(keyed, path, method, wanted):
    http, tokens, _ = keyed
    url = path.replace("{id:path}", "x").replace("{id}", "x")

    for scope in ("read", "push", "admin", "erase"):
        status = http.request(method, url, content=b"{}", headers=bearer(tokens[scope])).status_code
        assert (status == 403) == (wanted is not None and scope != wanted), (scope, status)
    for headers in ({}, bearer("ls_abc_def"), {"authorization": "Basic eDp5"}):
        status = http.request(method, url, content=b"{}", headers=headers).status_code
        assert (status == 401) == (wanted is not None)


def test_a_tenant_sees_its_own_documents_whatever_it_asks(keyed):
    http, tokens, _ = keyed
    headers = bearer(tokens["tenant"])

    for where in (None, "", "category = 'secret'", "category = 'secret' or category = 'public'", "not category = 'public'",
                  {"or": [{"category": "secret"}, {"category": "public"}]}, "category is null or title is not null"):  # fmt: skip
        for mode in ("hybrid", "text", "vector"):
            body = {"query": "refunds of the merger", "mode": mode, "filter": where}
            hits = http.post("/v1/search", json=body, headers=headers).json()["hits"]
            assert {one["category"] for one in hits} <= {"public"}, where
        told = http.post(
            "/v1/context", json={"query": "refunds of the merger", "filter": where}, headers=headers
        ).json()
        assert "nobody before the spring" not in told["prompt"]


def test_a_tenant_gets_nothing_that_was_kept_for_somebody_else(keyed):
    http, tokens, _ = keyed
    body = {"query": "what about the merger", "mode": "vector"}

    everything = http.post("/v1/search", json=body, headers=bearer(tokens["read"])).json()["hits"]
    own = http.post("/v1/search", json=body, headers=bearer(tokens["tenant"])).json()["hits"]

    assert "secret" in {one["category"] for one in everything}
    assert "secret" not in {one["category"] for one in own}


def test_a_tenant_reads_no_other_document_or_chunk_or_its_features(keyed):
    http, tokens, _ = keyed
    whole, own = bearer(tokens["read"]), bearer(tokens["tenant"])
    body = {"query": "merger", "mode": "text", "k": 1}
    chunk = http.post("/v1/search", json=body, headers=whole).json()["hits"][0]["chunk_id"]

    for path in ("/v1/documents/vault/merger.md", f"/v1/chunks/{chunk}"):
        assert http.get(path, headers=whole).status_code == 200
        assert http.get(path, headers=own).status_code == 404
    asked = {"features": ["document_features:title"], "entities": {"document_id": ["vault/merger.md"]}}
    assert http.post("/v1/features", json=asked, headers=whole).status_code == 200
    assert http.post("/v1/features", json=asked, headers=own).status_code == 403


def test_a_revoked_key_opens_nothing_within_two_seconds(keyed):
    http, _, keys = keyed
    added = keys.add(["read"])
    until(lambda: http.get("/v1/release", headers=bearer(added.token)).status_code == 200, 2.0)

    keys.revoke(added.key.id)

    until(lambda: http.get("/v1/release", headers=bearer(added.token)).status_code == 401, 2.0)


# -- whatever is sent

WORDS = st.sampled_from(["features", "entities", "user_id", "query", "k", "filter", "mode", "view", "rows", "vector", "version",
                         "inputs", "release", "orders", "user_profile:expertise_level", "u1", "queries", "variables"])  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20) | WORDS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip
SHAPES = {
    "/v1/features": {"features": VALUES, "entities": VALUES, "inputs": VALUES, "service": VALUES, "release": VALUES},
    "/v1/search": {"query": VALUES, "vector": VALUES, "version": VALUES, "k": VALUES, "filter": VALUES, "mode": VALUES},
    "/v1/push": {"view": st.just("orders") | VALUES, "rows": st.lists(VALUES, max_size=3) | VALUES},
    "/v1/context": {"query": VALUES, "user_id": VALUES, "variables": VALUES, "k": VALUES, "history": VALUES},
    "/v1/outcomes": {"context_id": VALUES, "event_id": VALUES, "rating": VALUES, "tokens": VALUES},
    "/v1/templates/qa_basic/render": {"variables": VALUES, "version": VALUES},
    "/v1/search/batch": {"queries": VALUES},
}
FUZZ = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("path", SHAPES)
@FUZZ
@given(data=st.data())
def test_no_body_is_a_fault_of_the_server(http, path, data):
    body = data.draw(VALUES | st.fixed_dictionaries({}, optional=SHAPES[path]))
    answer = http.post(path, content=json.dumps(body).encode())

    assert answer.status_code < 500, (answer.text, body)
    assert "Traceback" not in answer.text


@FUZZ
@given(st.binary(max_size=200), st.sampled_from([*SHAPES, "/v1/push?view=orders"]))
def test_no_bytes_are_a_fault_of_the_server(http, body, path):
    for media in ("application/json", "application/x-ndjson", "application/vnd.apache.arrow.stream"):
        assert http.post(path, content=body, headers={"content-type": media}).status_code < 500


@FUZZ
@given(st.text(max_size=30))
def test_no_filter_is_a_fault_of_the_server(http, text):
    for where in (text, f"category = {text}", f"category = '{text}'", {"title": text}):
        assert search(http, filter=where, mode="text").status_code in {200, 422}


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[" * 100_000, b'{"a":' * 5_000, b'{"query": NaN}', b'{"query": "\\ud800"}', b"\xff\xfe", b'"' + b"x" * 9_000_000],
    ids=["nothing", "null", "deep", "deeper", "nan", "surrogate", "no text", "huge"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/features", "/v1/search", "/v1/push"])
def test_hostile_bodies_are_refused(http, path, body):
    assert http.post(path, content=body).status_code in {400, 413, 422}


# -- what changes, and what is down


def test_a_promoted_release_is_adopted_within_two_seconds_and_its_predecessor_still_answers(tmp_path):
    project = build(tmp_path)
    with started(project) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        (tmp_path / "templates/qa_basic.md").write_text(TEMPLATE.format(version="1.1.0"))
        project.pipeline.add_templates()
        project.releases.publish({Slot("template", "qa_basic"): {"1.1.0": 1.0}}, action="promote", author="test")

        until(lambda: search(http).json()["release"] == 2, 2.0)

        assert http.get("/v1/release").json()["templates"] == {"qa_basic": {"1.1.0": 1.0}}
        assert http.get("/v1/templates/qa_basic").json()["version"] == "1.1.0"
        before = search(http, release=1)
        assert (before.json()["release"], before.headers["lodestore-release"]) == (1, "1")
        assert features(http, ["user_profile:expertise_level"], {"user_id": ["u1"]}, release=1).json()["release"] == 1


def test_without_its_model_a_search_goes_on_by_text_and_says_so(project, monkeypatch):
    with started(project) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        (model,) = serving_of(http)._models.values()
        monkeypatch.setattr(model, "_model", None)
        monkeypatch.setattr(model, "trouble", "the weights are gone")

        told = search(http, "refunds after the model went").json()

        assert told["degraded"] == ["model"]
        assert told["hits"][0]["title"] in {"Refunds", "Merger"}
        assert search(http, "refunds by vector", mode="vector").status_code == 503
        assert http.get("/readyz").json()["parts"]["search"]["state"] == "degraded"
        told = http.post("/v1/context", json={"query": "refunds in context"}).json()
        assert told["degraded"] == ["model"]


def test_without_the_online_store_values_are_null_and_marked(project):
    with started(project) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        serving_of(http).project.online.close()

        told = features(http, ["user_profile:expertise_level"], {"user_id": ["u1"]}).json()

        assert told["columns"]["user_profile:expertise_level"] == [None]
        assert told["statuses"]["user_profile:expertise_level"] == ["UNAVAILABLE"]
        assert told["degraded"] == ["features"]
        assert search(http).status_code == 200
        rows = {"view": "orders", "rows": [order(77, total=1)]}
        assert http.post("/v1/push", json=rows).status_code == 503


def test_an_empty_store_serves_and_says_that_nothing_is_live(tmp_path):
    write_project(tmp_path)
    with started(open_project(tmp_path)) as http:
        until(lambda: http.get("/readyz").status_code == 200)

        assert http.get("/readyz").json()["parts"]["search"]["state"] == "empty"
        answer = search(http)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:lodestore:error:unavailable")
        assert features(http, ["user_profile:expertise_level"], {"user_id": ["u1"]}).status_code == 200


def test_a_worker_that_starts_again_reads_features_before_the_system_of_record_is_open(project, http):
    until(lambda: serving_of(http)._note_text)
    with started(project) as again:
        assert features(again, ["user_profile:account_age_days"], {"user_id": ["u3"]}).status_code == 200


# -- parts


class Slow:
    """A model that waits to be let go, and remembers its batches."""

    fingerprint, dimension = "slow", 2

    def __init__(self):
        self.batches, self.entered, self.go = [], threading.Event(), threading.Event()

    def embed_queries(self, texts):
        if texts != ["warm"]:
            self.entered.set()
            self.go.wait(10)
            self.batches.append(list(texts))
        return np.array([[len(one), 1.0] for one in texts], dtype=np.float32)

    embed_documents = embed_queries


def test_queries_that_come_while_the_model_is_busy_go_together_and_each_text_once():
    model = Slow()
    vectors = QueryVectors(lambda: model, "slow", 2, VectorCache(10_000))
    vectors.load()
    got = {}

    def ask(name, text):
        got[name] = vectors.embed_queries([text])[0].tolist()

    threads = [threading.Thread(target=ask, args=("first", "a"))]
    threads[0].start()
    model.entered.wait(10)
    threads += [threading.Thread(target=ask, args=(n, "bb" if n % 2 else "ccc")) for n in range(6)]
    for one in threads[1:]:
        one.start()
    until(lambda: vectors._cache.joined == 4)
    model.go.set()
    for one in threads:
        one.join(10)

    assert model.batches[0] == ["a"]
    assert sorted(model.batches[1]) == ["bb", "ccc"]
    assert got["first"] == [1.0, 1.0]
    assert {got[n][0] for n in (1, 3, 5)} == {2.0}


def test_a_model_that_is_not_there_yet_is_told_apart_from_one_that_failed():
    def fail():
        message = "no weights"
        raise ModelError(message)

    vectors = QueryVectors(fail, "f", 2, VectorCache(1_000))
    with pytest.raises(UnavailableError, match="being loaded"):
        vectors.embed_queries(["x"])
    with pytest.raises(ModelError, match="no weights"):
        vectors.load()
    with pytest.raises(ModelError, match="no weights"):
        vectors.embed_queries(["x"])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3_000)), max_size=60))
def test_the_cache_is_a_dict_that_forgets_and_never_grows_beyond_its_bytes(puts):
    cache = ByteCache(10_000, lambda size: size)
    known = {}
    for key, size in puts:
        cache.put(key, size)
        known[key] = size
        assert cache.bytes <= 10_000
        assert cache.get(key) in {None, size}
    assert all(cache.get(key) in {None, size} for key, size in known.items())


# -- the process


def test_the_command_serves_answers_and_stops_when_it_is_told(project):
    port = free_port()
    command = [sys.executable, "-m", "lodestore", "serve", "--port", str(port)]
    environment = {**os.environ, "LODESTORE_CONFIG": str(Path(project.settings.root) / "lodestore.toml")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        with Client(f"http://127.0.0.1:{port}", retries=0) as client, httpx.Client() as http:
            until(lambda: _status(http, port) == 200, 30)
            assert client.search("when are refunds paid", filter="category = 'public'").hits[0].title == "Refunds"
            assert client.push("orders", [order(91, total=9)]).accepted == 1
            assert client.online(["orders:total"], {"order_id": [91]}).columns["orders:total"] == ["9"]
            turns = [{"role": "user", "content": "earlier"}]
            assert client.context("parking", user_id="u1", history=turns, release=1).template_id == "qa_basic"
            found = client.search("refunds are paid", highlight=True, neighbours=1, explain=True, per_document=2)
            assert found.hits[0].text[slice(*found.hits[0].highlights[0])].lower().startswith(("refund", "paid"))
            assert found.explain["release"] == 1
            assert [one.hits[0].title for one in client.search_many(["parking", "kitchen"], k=1)] == [
                "Parking",
                "Kitchen",
            ]
            own = client.search("merger", filter="category = 'secret'", mandatory="category = 'public'")
            assert own.hits == ()
            assert client.why("refunds", "handbook/none.md").reason == "never_read"
            assert client.release_at(datetime.now(UTC)).generation == 1
            assert client.search("parking", as_of=datetime.now(UTC), k=1).hits[0].title == "Parking"
            assert client.render("qa_basic", {"context": "a", "question": "b"}).text.endswith("b.")
            assert client.outcome("c", accepted=True)
            assert client.release().embeddings == {"content": "words@1"}
            assert client.views()[0].name == "document_features"
            assert client.templates()[0].id == "qa_basic"
            with pytest.raises(UnknownViewError, match="did you mean 'orders'"):
                client.push("order", [])
            with pytest.raises(FingerprintError):
                client.search(vector=[0.1] * 256, version="other@1")
        process.send_signal(signal.SIGTERM)
        told = [json.loads(one) for one in process.communicate(timeout=15)[1].splitlines()]
        assert process.returncode == 0
        assert f"Uvicorn running on http://127.0.0.1:{port} (Press CTRL+C to quit)" in [one["message"] for one in told]
    finally:
        process.kill()
        process.communicate()


def _status(http, port):
    try:
        return http.get(f"http://127.0.0.1:{port}/readyz").status_code
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize("path", ["/v1/features", "/v1/features?"], ids=["at once", "usual"])
def test_a_request_in_flight_is_finished_before_the_server_stops(project, path):
    body = json.dumps({"features": ["user_profile:account_age_days"], "entities": {"user_id": ["u9"]}}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with (
        serving(project) as (url, process),
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30) as line,
    ):
        line.sendall(head + body[:10])
        # Another request that is answered means that the server has come round to this one too.
        assert [status(f"{url}/healthz") for _ in range(3)] == [200] * 3
        process.send_signal(signal.SIGTERM)
        until(lambda: status(f"{url}/healthz") == 0, 20)

        line.sendall(body[10:])
        # To its end: head and body may come in two pieces.
        answer = b"".join(iter(lambda: line.recv(65_536), b""))

        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"user_profile:account_age_days":[9]' in answer
        assert process.wait(30) == 0


def test_without_a_key_no_other_machine_is_let_in(project):
    command = [sys.executable, "-m", "lodestore", "--config", str(project.settings.root), "serve", "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "lodestore keys add" in done.stderr


def test_a_port_that_another_program_has_is_told_in_one_line_with_the_way_out(project):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "lodestore", "--config", str(project.settings.root), "serve", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--port N" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_serving_never_imports_what_belongs_to_dagster():
    code = (
        "import sys, lodestore.server.app, lodestore.project; print('dagster' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]
