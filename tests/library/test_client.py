"""The client: light to import, typed answers, typed errors, and only what is safe is sent twice."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import subprocess
import sys
from datetime import UTC, datetime

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lodestore import client, context, retrieval, why
from lodestore import client as client_module
from lodestore.client import AsyncClient, Client, Features, SearchResult
from lodestore.errors import (
    FingerprintError,
    InvalidRowsError,
    LodestoreError,
    RefusedError,
    RequestError,
    StoreError,
    UnavailableError,
    UnknownViewError,
)
from lodestore.features import OnlineAnswer
from lodestore.online import Written
from lodestore.store import Lodestore

HIT = {"chunk_id": "c", "document_id": "d", "score": 0.5, "title": "T", "uri": "u", "text": "x", "new_field": 1}
FOUND = {"release": 3, "version": "words@1", "mode": "hybrid", "took_ms": 1.5, "hits": [HIT]}


def busy():
    told = {"type": "urn:lodestore:error:overloaded", "detail": "busy"}
    return httpx.Response(503, headers={"retry-after": "2"}, json=told)


def problem(status, code, detail="what went wrong", **more):
    told = {"type": f"urn:lodestore:error:{code}", "status": status, "detail": detail, "request_id": "r1", **more}
    return httpx.Response(status, json=told, headers={"content-type": "application/problem+json"})


class Server:
    """Gives the scripted answers in turn; a transport error is raised."""

    def __init__(self, *answers):
        self.answers, self.requests, self.slept = list(answers), [], []

    def __call__(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, **options):
        return Client("http://store", transport=httpx.MockTransport(self), sleep=self.slept.append, **options)


def test_an_answer_is_typed_and_a_newer_server_may_say_more():
    server = Server(httpx.Response(200, json={**FOUND, "more": True}))

    with server.client() as client:
        found = client.search("refund", k=3, filter={"category": "public"})

    assert isinstance(found, SearchResult)
    assert found.hits[0].document_id == "d"
    assert json.loads(server.requests[0].content) == {
        "query": "refund",
        "k": 3,
        "mode": "hybrid",
        "filter": {"category": "public"},
    }


def test_the_key_goes_as_a_bearer_token():
    server = Server(httpx.Response(200, json=FOUND))

    with server.client(key="ls_a_b") as client:
        client.search("refund")

    assert server.requests[0].headers["authorization"] == "Bearer ls_a_b"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "unknown-view", UnknownViewError),
        (409, "fingerprint", FingerprintError),
        (422, "request", RequestError),
        (403, "forbidden", RefusedError),
        (413, "too-large", RequestError),
        (500, "internal", LodestoreError),
        (501, "a-code-of-tomorrow", LodestoreError),
    ],
)
def test_a_problem_document_is_the_error_of_the_same_code(status, code, kind):
    with Server(problem(status, code)).client() as client, pytest.raises(kind, match="what went wrong") as raised:
        client.views()

    assert raised.value.__notes__ == ["request r1"]


def test_refused_rows_are_named_one_by_one():
    answer = problem(422, "invalid-rows", problems=["row 1: no key", "row 2: no time"])

    with Server(answer).client() as client, pytest.raises(InvalidRowsError) as raised:
        client.push("orders", [{}])

    assert raised.value.problems == ("row 1: no key", "row 2: no time")


TAKEN = {"accepted": 1, "duplicates": 0, "late": 0}
ORDER = {"order_id": 1, "event_timestamp": datetime(2026, 1, 2, tzinfo=UTC)}


@pytest.mark.parametrize("absent", [None, float("nan"), np.float64("nan"), pd.NA, pd.NaT], ids=repr)
def test_what_pandas_calls_absent_is_pushed_as_null(absent):
    server = Server(httpx.Response(200, json=TAKEN))
    with server.client() as client:
        client.push("orders", [{**ORDER, "total": absent}])

    told = json.loads(server.requests[0].content)["rows"][0]
    assert told == {"order_id": 1, "event_timestamp": "2026-01-02T00:00:00Z", "total": None}


def test_objects_in_a_data_frame_are_pushed_as_they_are():
    server = Server(httpx.Response(200, json=TAKEN))
    with server.client() as client:
        client.push(
            "orders", pd.DataFrame([{"order_id": 1, "s": {"a": 1}}, {"order_id": 2, "s": {"b": [float("nan")]}}])
        )

    assert json.loads(server.requests[0].content)["rows"] == [
        {"order_id": 1, "s": {"a": 1}},
        {"order_id": 2, "s": {"b": [None]}},
    ]


@pytest.mark.parametrize("column", [np.array([2**60 + 1, 5]), pd.Series([2**60 + 1, 5], dtype="Int64"), [2**60 + 1, 5]])
def test_keys_that_json_would_round_are_asked_for_as_text(column):
    told = {"release": 1, "columns": {"order_id": [str(2**60 + 1), 5]}, "statuses": {}, "event_timestamps": {}}
    server = Server(httpx.Response(200, json=told))
    with server.client() as client:
        found = client.online(["orders:total"], {"order_id": column, "name": ["x"]})

    assert json.loads(server.requests[0].content)["entities"] == {"order_id": [str(2**60 + 1), 5], "name": ["x"]}
    assert list(found.columns["order_id"]) == list(column)


def test_each_kind_of_error_has_a_code_of_its_own():
    kinds, codes = [LodestoreError], {}
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__ == "lodestore.errors" and "code" in vars(kind):
            assert codes.setdefault(kind.code, kind) is kind
    assert client_module._ERRORS["store"] is StoreError


@pytest.mark.parametrize(
    "value",
    [object(), 1j, b"bytes", {"deep": [object()]}, {object()}, float("inf"), lambda: 1],
    ids=lambda one: type(one).__name__,
)
def test_a_value_that_only_python_knows_is_not_pushed_as_some_text(value):
    server = Server()
    with server.client() as client, pytest.raises(RequestError, match=r"row 2: total"):
        client.push("orders", [ORDER, {**ORDER, "total": value}])

    assert not server.requests


@pytest.mark.parametrize(
    "rows",
    [
        pa.table({"order_id": [1, 2]}),
        pa.RecordBatch.from_pydict({"order_id": [1, 2]}),
        pd.DataFrame({"order_id": [1, 2]}, [8, 9]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_table_or_a_data_frame_is_pushed_as_arrow(rows):
    server = Server(httpx.Response(200, json=TAKEN | {"accepted": 2}), httpx.Response(200, json=FOUND))
    with server.client() as client:
        assert client.push("or&ders", rows).accepted == 2
        client.search("refund")

    sent, after = server.requests
    assert str(sent.url).endswith("/v1/push?view=or%26ders")
    assert [one.headers["content-type"] for one in (sent, after)] == [
        "application/vnd.apache.arrow.stream",
        "application/json",
    ]
    assert pa.ipc.open_stream(sent.content).read_all().to_pydict() == {"order_id": [1, 2]}


def test_a_read_is_sent_again_when_the_server_says_when():
    server = Server(httpx.ConnectError("refused"), busy(), httpx.Response(200, json=FOUND))

    with server.client() as client:
        assert client.search("refund").release == 3

    assert server.slept == [0.2, 2.0]


def test_a_read_is_not_sent_for_ever():
    server = Server(*[busy() for _ in range(9)])

    with server.client(retries=2) as client, pytest.raises(UnavailableError, match="busy"):
        client.search("refund")

    assert len(server.requests) == 3


def test_what_changes_something_is_sent_once():
    for answer in (busy(), httpx.ReadError("gone"), httpx.ReadTimeout("slow")):
        server = Server(answer)

        with server.client() as client, pytest.raises(UnavailableError):
            client.push("orders", [{"order_id": 1}])

        assert len(server.requests) == 1


def test_a_push_that_never_arrived_is_sent_again():
    server = Server(
        httpx.ConnectError("refused"), httpx.Response(200, json={"accepted": 1, "duplicates": 0, "late": 0})
    )

    with server.client() as client:
        assert client.push("orders", [{"order_id": 1}]).accepted == 1


def test_a_context_that_is_sent_again_counts_once():
    answer = {"release": 1, "context_id": "c", "prompt": "p", "messages": [], "hits": [], "features": {}}
    answer |= {"template": {"id": "qa", "version": "1"}, "n_tokens": 1, "user_known": False}
    answer |= {"degraded": [], "timings_ms": {}}
    server = Server(busy(), httpx.Response(200, json=answer))

    with server.client() as client:
        client.context("refund", user_id="u1")

    first, second = (json.loads(one.content)["request_id"] for one in server.requests)
    assert first == second


def test_a_server_that_is_not_there_is_told_with_the_way_out():
    with (
        Server(*[httpx.ConnectError("refused")] * 3).client() as client,
        pytest.raises(UnavailableError, match="http://store does not answer: refused; start it with: lodestore serve"),
    ):
        client.release()


def test_what_json_cannot_hold_is_not_sent():
    moment = datetime(2026, 1, 2)  # noqa: DTZ001 - that it has no zone is the point
    server = Server(httpx.Response(200, json={"accepted": 1, "duplicates": 0, "late": 0}))

    with server.client() as client:
        for value in (float("inf"), [float("-inf")], moment):
            with pytest.raises(RequestError):
                client.push("orders", [{"total": value}])
        assert server.requests == []
        client.push("orders", [{"at": moment.replace(tzinfo=UTC)}])

    assert json.loads(server.requests[0].content)["rows"] == [{"at": "2026-01-02T00:00:00Z"}]


def test_features_are_a_table_on_demand():
    told = {"release": 1, "columns": {"user_id": ["u1"], "p:x": [2]}, "statuses": {"p:x": ["PRESENT"]}}
    told["event_timestamps"] = {"p:x": ["2026-01-02T00:00:00Z"]}

    with Server(httpx.Response(200, json=told)).client() as client:
        found = client.online(["p:x"], {"user_id": ["u1"]})

    assert isinstance(found, Features)
    assert found.event_timestamps["p:x"] == [datetime(2026, 1, 2, tzinfo=UTC)]
    assert found.to_pandas().to_dict("list") == {"user_id": ["u1"], "p:x": [2]}
    assert found.to_arrow().column_names == ["user_id", "p:x"]


def test_a_list_is_read_to_its_end():
    view = {"name": "a", "version": 1, "source": "batch", "features": []}
    server = Server(
        httpx.Response(200, json={"views": [view], "next": "YQ"}),
        httpx.Response(200, json={"views": [view], "next": None}),
    )

    with server.client() as client:
        assert len(client.views()) == 2

    assert server.requests[1].url.params["cursor"] == "YQ"


def test_both_clients_have_the_same_methods_with_the_same_parameters():
    def calls(kind):
        return {
            name: list(inspect.signature(one).parameters)
            for name, one in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert calls(Client) == calls(AsyncClient)


# Training sets are made where the histories lie, and only who speaks over a network has something to close.
IN_PROCESS_ONLY = {"historical"}
OVER_HTTP_ONLY = {"close"}


def test_the_client_has_the_methods_of_the_store_with_the_same_parameters():
    def calls(kind):
        return {
            name: {one.name: (one.kind, one.default) for one in inspect.signature(call).parameters.values()}
            for name, call in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    here, there = calls(Lodestore), calls(Client)

    assert here.keys() - IN_PROCESS_ONLY == there.keys() - OVER_HTTP_ONLY
    for name in here.keys() - IN_PROCESS_ONLY:
        assert here[name] == there[name], name


@pytest.mark.parametrize(
    ("over_http", "in_process"),
    [
        (SearchResult, retrieval.SearchResult),
        (client.Hit, retrieval.Hit),
        (Features, OnlineAnswer),
        (client.Context, context.Context),
        (client.Pushed, Written),
        (client.Why, why.Why),
    ],
)
def test_what_the_client_gives_has_the_fields_of_what_the_store_gives(over_http, in_process):
    """`degraded` of features is the server's: in process the store that is away is an error."""
    own = {one.name for one in dataclasses.fields(over_http)} - ({"degraded"} if over_http is Features else set())

    assert own <= {name for name in [*dir(in_process), *in_process.__annotations__] if not name.startswith("_")}


def test_an_async_search_asks_what_the_other_asks():
    options = {"as_of": datetime(2026, 1, 2, tzinfo=UTC), "mandatory": "category = 'a'", "titles": False}
    options |= {"diversity": 0.0, "neighbours": 2, "vector": None, "per_document": 1}
    one, other = Server(httpx.Response(200, json=FOUND)), Server(httpx.Response(200, json=FOUND))

    async def main():
        async with AsyncClient("http://store", transport=httpx.MockTransport(other)) as there:
            await there.search("refund", **options)

    with one.client() as here:
        here.search("refund", **options)
    asyncio.run(main())

    asked = json.loads(one.requests[0].content)
    assert asked == json.loads(other.requests[0].content)
    assert (asked["as_of"], asked["titles"], asked["diversity"]) == ("2026-01-02T00:00:00Z", False, 0.0)
    assert "rerank" not in asked


def test_the_async_client_answers_and_retries_alike():
    server, slept = Server(busy(), httpx.Response(200, json=FOUND)), []

    async def sleep(seconds):
        slept.append(seconds)

    async def main():
        async with AsyncClient("http://store", transport=httpx.MockTransport(server), sleep=sleep) as client:
            return await client.search("refund")

    assert asyncio.run(main()).release == 3
    assert slept == [2.0]


def test_the_client_is_light_to_import():
    # Time of the processor: that of the clock would measure what else runs on this machine.
    code = """
import sys, time
import httpx
began = time.process_time()
import lodestore.client
took = time.process_time() - began
heavy = {"numpy", "pandas", "pyarrow", "torch", "lancedb", "dagster", "starlette"} & set(sys.modules)
print(took, sorted(heavy))
"""
    best, heavy = min(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(" ", 1)
        for _ in range(2)
    )

    assert heavy.strip() == "[]"
    assert float(best) < 0.1
