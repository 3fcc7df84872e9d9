"""A conversation reaches the prompt by every way in, and its answers come back from wherever the store is."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from lodestore import cli
from lodestore.answer import AsyncLanguageModel, LanguageModel, aanswer, answer, astream, stream
from lodestore.client import AsyncClient, Client
from lodestore.standard import INSTRUCTIONS
from tests.language_server import speaking
from tests.served import build, serving

QUESTION = "when are refunds paid?"
TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return build(tmp_path_factory.mktemp("conversations"))


@pytest.fixture(scope="module")
def url(project):
    with serving(project) as (found, _):
        yield found


@pytest.fixture(scope="module")
def endpoint():
    with speaking() as found:
        yield found


def test_earlier_turns_reach_the_prompt_by_every_way_in(project, url, capsys):
    asked = {"user_id": "u2", "history": TURNS, "record": False}
    words = ["context", QUESTION, "--user", "u2", "--history", json.dumps(TURNS), "--no-record", "--json"]

    async def awaited():
        async with AsyncClient(url) as client:
            return await client.context(QUESTION, **asked)

    with Client(url) as client:
        said = [client.context(QUESTION, **asked), asyncio.run(awaited()), project.store.context(QUESTION, **asked)]
    assert cli.run([*words, "--config", str(project.settings.root)]) == 0
    raw = [
        json.loads(capsys.readouterr().out),
        httpx.post(f"{url}/v1/context", json={"query": QUESTION, **asked}).json(),
    ]

    steps = {"features", "embedding", "retrieval", "diversity", "reading", "packing", "prompt", "counting", "total"}
    assert all(set(one["timings_ms"]) == steps for one in raw)
    messages = [*(list(map(dict, one.messages)) for one in said), *(one["messages"] for one in raw)]
    assert messages == [messages[0]] * 5
    assert [one["role"] for one in messages[0]] == ["system", "user", "assistant", "user"]
    assert (messages[0][0]["content"], messages[0][1:3]) == (INSTRUCTIONS["expert"], TURNS)


def reported(project, done):
    """What the store was told of the answer."""
    (row,) = project.logs.rows("outcomes", f"id = '{done.context.context_id}/answer'")
    return json.loads(row["values"])


def test_answers_over_http_and_in_process_are_reported_to_the_same_store(project, url, endpoint):
    with LanguageModel(endpoint, "good") as model, Client(url) as client:
        done = [answer(client, QUESTION, model, user_id="u1"), stream(client, QUESTION, model, user_id="u1").answer]
        done += [answer(project.store, QUESTION, model), stream(project.store, QUESTION, model).answer]
        assert done[0].report(accepted=True, event_id="liked")

    assert {one.text for one in done} == {"A refund takes five days [2]."}
    assert all(one.cited == (one.context.hits[1],) for one in done)
    assert [reported(project, one)["tokens"] for one in done] == [47] * 4
    assert project.logs.rows("outcomes", "id = 'liked'")


def test_awaited_answers_over_http_and_in_process_are_reported_to_the_same_store(project, url, endpoint):
    async def asked():
        async with AsyncLanguageModel(endpoint, "good") as model, AsyncClient(url) as client:
            whole = [await aanswer(one, QUESTION, model, user_id="u1") for one in (client, project.store)]
            coming = [await astream(one, QUESTION, model, user_id="u1") for one in (client, project.store)]
            pieces = [[piece async for piece in one] for one in coming]
            liked = await whole[0].report(rating=5, event_id="rated")
            return [*whole, *[await one.answer() for one in coming]], pieces, liked

    done, pieces, liked = asyncio.run(asked())

    assert pieces == [["A refund ", "takes five ", "days [2]."]] * 2
    assert [one.text for one in done] == ["A refund takes five days [2]."] * 4
    assert [reported(project, one)["tokens"] for one in done] == [47] * 4
    assert liked
