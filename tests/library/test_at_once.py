"""A feature read that need not wait is answered at once, with what the usual way gives for the same request."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from functools import partial

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from lodestore.keys import Keys
from lodestore.server.app import application
from lodestore.server.options import ServerOptions
from lodestore.server.tracing import Tracing
from tests.served import build, listening, until

# The same path, but not to its letter: such a request goes the usual way.
AT_ONCE, USUAL = "/v1/features", "/v1/features?"
LEVEL, AGE = "user_profile:expertise_level", "user_profile:account_age_days"
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return build(tmp_path_factory.mktemp("at once"))


@contextmanager
def served(project, options=None):
    """The server, and in a list what came of each request that it was asked to answer at once."""
    app, ways = application(project, options), []
    app.at_once = {path: partial(_noted, answer, ways) for path, answer in app.at_once.items()}
    with listening(app) as http:
        until(lambda: http.get("/readyz?part=features").status_code == 200, 30)
        yield http, ways


def _noted(answer, ways, scope, body):
    finished = answer(scope, body)
    ways.append(finished is not None)
    return finished


@pytest.fixture(scope="module")
def server(project):
    with served(project) as found:
        yield found


def both(http, body, **headers):
    """Status, headers and body of the two ways; the age of the release, in milliseconds, is another each time."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = [
        http.post(path, content=content, headers={"lodestore-request-id": "one", **headers})
        for path in (AT_ONCE, USUAL)
    ]
    return [
        (
            one.status_code,
            {name: value for name, value in one.headers.items() if name != "lodestore-age-ms"},
            one.content,
        )
        for one in told
    ]


def asked(ids, refs=(LEVEL, AGE), **more):
    return {"features": list(refs), "entities": {"user_id": ids}, **more}


@pytest.mark.parametrize(
    "body",
    [
        asked(["u1"]),
        asked(["u3", "u1", "u3", "nobody"]),
        asked([]),
        asked(["u1"] * 300),
        asked(["u1"], ["user_profile@1:expertise_level"]),
        asked(["u1"], ["user_activity:session_queries_count", LEVEL]),
        asked(["\0", "\u2603", "ü" * 300]),
        asked(["u1"], [LEVEL, LEVEL]),
        asked(["u1"], release=None),
        {"features": ["orders:total"], "entities": {"order_id": [1, 2**53 - 1]}},
    ],
    ids=lambda one: json.dumps(one)[:60],
)
@pytest.mark.parametrize("accept", ["application/json", ARROW, "application/json; vectors=base64"])
def test_both_ways_give_the_same_answer(server, body, accept):
    http, _ = server
    at_once, usual = both(http, body, accept=accept)

    assert at_once == usual
    assert at_once[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[1]",
        b'{"features": NaN}',
        b"[" * 60_000,
        b"\xff",
        asked(["u1"], []),
        asked(["u1"], [1]),
        asked(["u1"], ["user_profile:expertise"]),
        asked(["u1"], ["nothing"]),
        asked([1]),
        asked([None]),
        asked("u1"),
        asked(["u1"], features_="x"),
        asked(["u1"], service="nobody"),
        asked(["u1"], service="assistant"),
        asked(["u1"], release="live"),
        asked(["u1"], inputs=[]),
        {"features": [LEVEL]},
        {"features": [LEVEL], "entities": {"user": ["u1"]}},
        {"features": [LEVEL], "entities": {"user_id": ["u1"], "document_id": ["a", "b"]}},
        {"features": ["orders:total"], "entities": {"order_id": [2**53]}},
        {"features": ["orders:total"], "entities": {"order_id": [True]}},
    ],
    ids=lambda one: (one if isinstance(one, bytes) else json.dumps(one).encode())[:60].decode("latin-1"),
)
def test_both_ways_refuse_the_same_in_the_same_words(server, body):
    http, _ = server
    at_once, usual = both(http, body)

    assert at_once == usual
    assert at_once[0] in {400, 404, 422}
    assert at_once[1]["content-type"] == "application/problem+json"


WORDS = st.sampled_from([LEVEL, AGE, "user_id", "u1", "", "user_profile", "content_embedding", "live"])
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20) | WORDS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=10
)
BODIES = st.fixed_dictionaries(
    {"features": st.lists(WORDS, max_size=4) | VALUES, "entities": st.just({"user_id": ["u1", "u2"]}) | VALUES},
    optional={"inputs": VALUES, "service": VALUES, "release": VALUES},
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODIES.map(lambda one: json.dumps(one).encode()) | st.binary(max_size=100))
def test_whatever_the_body_is_the_ways_agree_and_none_of_them_fails(server, body):
    http, _ = server
    at_once, usual = both(http, body)

    assert at_once == usual
    assert at_once[0] < 500


def test_few_values_are_read_at_once_and_the_rest_is_left_to_the_usual_way(project):
    with served(project, ServerOptions(rows_on_loop=10)) as (http, ways):
        inputs = {"query_text": ["what is new"]}
        for body, status in (
            (asked(["u1"] * 5), 200),
            (asked(["u1"] * 6), 200),
            (asked(["u1"], inputs=inputs), 200),
            (asked(["u1"], release=1), 200),
            (asked(["u1"], ["nothing"]), 422),
        ):
            assert http.post(AT_ONCE, json=body).status_code == status
        assert http.post(AT_ONCE, content=json.dumps(asked(["u1"])) + " " * 70_000).status_code == 200

    # Of the long body nobody was asked.
    assert ways == [True, False, False, False, True]


def test_a_store_that_has_to_be_asked_over_a_network_is_never_read_at_once(server):
    http, ways = server
    serving, before = http.app_state["serving"], len(ways)
    serving.on_loop = False
    try:
        assert http.post(AT_ONCE, json=asked(["u1"])).json()["columns"][AGE] == [1]
    finally:
        serving.on_loop = True

    assert ways[before:] == [False]


def test_keys_open_and_close_both_ways_alike(tmp_path):
    project = build(tmp_path)
    keys = Keys(project.logs)
    tokens = [keys.add([scope]).token for scope in ("read", "push")]
    tokens.append(keys.add(["read"], filter="category = 'public'").token)
    told = []
    with served(project) as (http, _):
        for token in (*tokens, "ls_none_such", "x"):
            for refs in ([LEVEL], ["document_features:word_count"]):
                at_once, usual = both(http, asked(["u1"], refs), authorization=f"Bearer {token}")
                assert at_once == usual
                told.append(at_once[0])
        refused = http.post(AT_ONCE, json=asked(["u1"]))

    assert told == [200, 422, 403, 403, 200, 403, 401, 401, 401, 401]
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_without_keys_a_page_or_a_proxy_of_somebody_else_gets_nothing_either_way(server):
    http, _ = server
    for name, value in (("origin", "https://evil.example"), ("x-forwarded-for", "10.0.0.9"), ("host", "evil.example")):
        at_once, usual = both(http, asked(["u1"]), **{name: value})
        assert at_once == usual
        assert at_once[0] == 403


def test_each_request_is_counted_once(server):
    http, ways = server

    def counted(status):
        wanted = f'lodestore_requests_total{{endpoint="/v1/features",view="user_profile",status="{status}"}} '
        found = [one for one in http.get("/metrics").text.splitlines() if one.startswith(wanted)]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    before, asked_before = counted(200), len(ways)
    for _ in range(7):
        http.post(AT_ONCE, json=asked(["u1"]))
    http.post(AT_ONCE, json=asked(["u1"], release=1))

    assert counted(200) - before == 8
    assert ways[asked_before:] == [True] * 7 + [False]
    assert http.app_state["serving"].inflight == 0


def test_what_an_answer_is_unsure_of_is_said_and_counted_either_way(server, monkeypatch):
    http, _ = server

    def counted():
        lines = http.get("/metrics").text.splitlines()
        return sum(
            float(one.split()[-1]) for one in lines if one.startswith('lodestore_degraded_total{part="release"}')
        )

    before = counted()
    monkeypatch.setattr(http.app_state["serving"], "stale", lambda: ("release",))
    at_once, usual = both(http, asked(["u1"]))

    assert at_once == usual
    assert json.loads(at_once[2])["degraded"] == ["release"]
    assert counted() == before + 2


def test_when_too_many_requests_are_in_flight_none_is_answered_at_once(project):
    with served(project, ServerOptions(max_inflight=3)) as (http, ways):
        serving = http.app_state["serving"]
        serving.inflight += 3
        try:
            refused = http.post(AT_ONCE, json=asked(["u1"]))
        finally:
            serving.inflight -= 3

    assert (refused.status_code, refused.headers["retry-after"], ways) == (503, "1", [False])


def test_a_body_beyond_the_limit_is_refused_also_when_it_comes_whole(project):
    with served(project, ServerOptions(max_body=100)) as (http, _):
        at_once, usual = both(http, asked(["u1"] * 50))

    assert at_once == usual
    assert at_once[0] == 413


def test_a_fault_is_a_problem_document_and_stands_in_the_log_once(server, monkeypatch, caplog):
    http, _ = server
    serving = http.app_state["serving"]

    def broken(*_, **__):
        message = "a fault with a secret in it"
        raise RuntimeError(message)

    monkeypatch.setattr(serving.features, "online", broken)
    logging.getLogger("lodestore").propagate = True
    with caplog.at_level(logging.WARNING, "lodestore.server"):
        at_once, usual = both(http, asked(["u1"]))

    assert at_once == usual
    assert at_once[0] == 500
    assert b"secret" not in at_once[2]
    assert len([one for one in caplog.records if one.exc_info]) == 2


def test_requests_are_logged_when_that_is_asked_for(project, caplog):
    logging.getLogger("lodestore").propagate = True
    with (
        served(project, ServerOptions(log_requests=True)) as (http, _),
        caplog.at_level(logging.INFO, "lodestore.server"),
    ):
        http.post(AT_ONCE, json=asked(["u7"]), headers={"lodestore-request-id": "mine"})

    lines = [one.request for one in caplog.records if getattr(one, "request", {}).get("request_id") == "mine"]
    assert [(one["endpoint"], one["status"], one["view"]) for one in lines] == [("/v1/features", 200, "user_profile")]
    assert "u7" not in json.dumps(lines)


def test_where_requests_are_traced_none_is_answered_at_once(project):
    assert application(project).at_once.keys() == {b"/v1/features"}
    assert not application(project, tracing=Tracing(TracerProvider())).at_once


def test_arrow_has_the_values_of_the_json(server):
    http, ways = server
    before = len(ways)
    table = pa.ipc.open_stream(
        http.post(AT_ONCE, json=asked(["u4", "u2"]), headers={"accept": ARROW}).content
    ).read_all()

    assert table[AGE].to_pylist() == http.post(AT_ONCE, json=asked(["u4", "u2"])).json()["columns"][AGE] == [4, 2]
    assert ways[before:] == [True, True]
