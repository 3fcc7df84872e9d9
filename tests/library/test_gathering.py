"""Reads that come while the store is busy go to it together; each gets its own answer, or its own error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lodestore.errors import RequestError, StoreError
from lodestore.online import OnlineRow, decode_key, encode_values, time_and_payload
from lodestore.server.endpoint import Answer
from lodestore.server.gathering import Gathering
from lodestore.server.lanes import Lane
from lodestore.server.metrics import Metrics
from lodestore.server.problems import HttpError
from lodestore.testing import MemoryOnlineStore


class SlowStore(MemoryOnlineStore):
    """Notes what it is asked, and waits with the first answer until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, list]] = []
        self.go = threading.Event()
        self.gone = False
        self.write("users@1", [((f"u{n}",), OnlineRow(n, n, b"\x01{}")) for n in range(9)])

    def fetch(self, namespace, keys):
        self.asked.append((namespace, [decode_key(one) for one in keys]))
        assert self.go.wait(10)
        if self.gone:
            message = "the store is away"
            raise StoreError(message)
        return super().fetch(namespace, keys)


def asking(gathering: Gathering, *users: str):
    """One request: the event times of these users."""

    keys = encode_values(users)

    def answer(fetch):
        times = [None if one is None else time_and_payload(one)[0] for one in fetch("users@1", keys)]
        return Answer(b"", headers={"times": ",".join("-" if one is None else str(one) for one in times)})

    return gathering.run(lambda: {"users@1": keys}, answer)


@contextmanager
def gathered(most: int = 128) -> Iterator[tuple[SlowStore, Gathering, Metrics]]:
    store, metrics = SlowStore(), Metrics()
    lane = Lane("read", metrics, threads=4, most=most)
    try:
        yield store, Gathering(store, lane, metrics), metrics
    finally:
        store.go.set()
        lane.close()


async def begun(store: SlowStore) -> None:
    while not store.asked:  # noqa: ASYNC110 - a thread brings it about
        await asyncio.sleep(0.001)


def test_what_comes_meanwhile_is_read_together_and_each_key_once():
    async def visit(store, gathering):
        first = asyncio.create_task(asking(gathering, "u1"))
        await begun(store)
        others = [
            asyncio.create_task(asking(gathering, *users)) for users in (("u2", "u3"), ("u3", "u2", "u2"), ("no",))
        ]
        await asyncio.sleep(0.01)
        store.go.set()
        return [one.headers["times"] for one in await asyncio.gather(first, *others)]

    with gathered() as (store, gathering, metrics):
        times = asyncio.run(visit(store, gathering))

    assert times == ["1", "2,3", "3,2,2", "-"]
    assert store.asked == [("users@1", [("u1",)]), ("users@1", [("u2",), ("u3",), ("no",)])]
    assert metrics.figures().counts == {("lodestore_cache_total", (("cache", "features"), ("outcome", "coalesced"))): 3}


def test_a_read_sees_what_was_written_before_it_came_although_another_round_is_under_way():
    async def visit(store, gathering):
        first = asyncio.create_task(asking(gathering, "u1"))
        await begun(store)
        store.write("users@1", [(("u2",), OnlineRow(77, 77, b"\x01{}"))])
        other = asyncio.create_task(asking(gathering, "u2"))
        await asyncio.sleep(0.01)
        store.go.set()
        await first
        return (await other).headers["times"]

    with gathered() as (store, gathering, _):
        assert asyncio.run(visit(store, gathering)) == "77"


def test_each_gets_its_own_error_and_the_others_their_answers():
    def refuse(_reader):
        message = "this one makes no sense"
        raise RequestError(message)

    def refuse_keys():
        message = "these keys make no sense"
        raise RequestError(message)

    async def visit(store, gathering):
        first = asyncio.create_task(asking(gathering, "u1"))
        await begun(store)
        bad = [
            asyncio.create_task(gathering.run(dict, refuse)),
            asyncio.create_task(gathering.run(refuse_keys, refuse)),
        ]
        good = asyncio.create_task(asking(gathering, "u4"))
        left = asyncio.create_task(asking(gathering, "u5"))
        await asyncio.sleep(0.01)
        left.cancel()
        store.go.set()
        return await asyncio.gather(first, *bad, good, return_exceptions=True)

    with gathered() as (store, gathering, _):
        first, bad, worse, good = asyncio.run(visit(store, gathering))

    assert (first.headers["times"], good.headers["times"]) == ("1", "4")
    assert isinstance(bad, RequestError)
    assert isinstance(worse, RequestError)


def test_a_store_that_goes_away_is_told_to_each_and_the_next_round_is_a_new_one():
    async def visit(store, gathering):
        first = asyncio.create_task(asking(gathering, "u1"))
        await begun(store)
        others = [asyncio.create_task(asking(gathering, user)) for user in ("u2", "u3")]
        await asyncio.sleep(0.01)
        store.gone = True
        store.go.set()
        failed = await asyncio.gather(first, *others, return_exceptions=True)
        store.gone = False
        return failed, (await asking(gathering, "u2")).headers["times"]

    with gathered() as (store, gathering, _):
        failed, after = asyncio.run(visit(store, gathering))

    assert {type(one) for one in failed} == {StoreError}
    assert after == "2"


def test_more_than_may_wait_are_told_when_to_come_back():
    async def visit(store, gathering):
        tasks = [asyncio.create_task(asking(gathering, "u1"))]
        await begun(store)
        tasks += [asyncio.create_task(asking(gathering, "u2")) for _ in range(3)]
        await asyncio.sleep(0.01)
        with pytest.raises(HttpError, match="3 requests wait for read"):
            await asking(gathering, "u3")
        store.go.set()
        return await asyncio.gather(*tasks)

    with gathered(most=3) as (store, gathering, _):
        assert len(asyncio.run(visit(store, gathering))) == 4
