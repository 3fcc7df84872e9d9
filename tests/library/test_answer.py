"""Answers by a language model that speaks the OpenAI protocol, in a process of its own on the loopback."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from lodestore.answer import AsyncLanguageModel, LanguageModel, aanswer, answer, astream, stream
from lodestore.errors import EndpointError, SettingsError, UnavailableError
from tests.language_server import speaking


@pytest.fixture(scope="module")
def url():
    with speaking() as found:
        yield found


@dataclass
class Made:
    """A context, as far as an answer looks at it."""

    context_id: str = "c1"
    messages: tuple = ({"role": "user", "content": "when is a refund paid?"},)
    hits: tuple = ("first", "second", "third")


@dataclass
class Store:
    """A store that remembers what it was told."""

    asked: list = field(default_factory=list)
    told: list = field(default_factory=list)
    broken: bool = False

    def context(self, query, **options):
        self.asked.append((query, options))
        return Made()

    def outcome(self, context_id, **said):
        if self.broken:
            message = "the store is away"
            raise UnavailableError(message)
        self.told.append((context_id, said))
        return True


@pytest.fixture
def model(url):
    made = []

    def make(name, **options):
        options = {"wait": lambda _: None, **options}
        made.append(LanguageModel(url, name, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_an_answer_cites_hits_and_reports_its_time_and_tokens(model):
    store = Store()

    done = answer(store, "when is a refund paid?", model("good"), user_id="ada", k=3)

    ((context_id, said),) = store.told
    assert done.text == "A refund takes five days [2]."
    assert done.cited == ("second",)
    assert store.asked == [("when is a refund paid?", {"user_id": "ada", "k": 3})]
    assert (context_id, said["event_id"], said["tokens"]) == ("c1", "c1/answer", 47)
    assert said["latency_ms"] == done.completion.latency_ms > 0
    assert done.reported


def test_what_the_user_thought_is_reported_under_an_event_of_its_own(model):
    store = Store()
    done = answer(store, "why?", model("good"))

    assert done.report(accepted=True, rating=5)
    assert done.report(accepted=False, event_id="mine")

    events = [said["event_id"] for _, said in store.told]
    assert len(set(events)) == 3
    assert store.told[1][1] | {"event_id": ""} == {"event_id": "", "accepted": True, "rating": 5}
    assert events[2] == "mine"


def test_a_stream_gives_the_words_as_they_come_and_the_whole_at_the_end(model):
    store = Store()

    coming = stream(store, "why?", model("good"))
    pieces = list(coming)

    assert pieces == ["A refund ", "takes five ", "days [2]."]
    assert (coming.answer.text, coming.answer.completion.tokens) == ("".join(pieces), 47)
    assert coming.answer.completion.finish_reason == "stop"
    assert len(store.told) == 1


def test_a_stream_that_nobody_read_is_read_for_its_answer(model):
    assert stream(Store(), "why?", model("good")).answer.text == "A refund takes five days [2]."


@pytest.mark.parametrize(("name", "told"), [("cut", "broke off after 9"), ("bad", "out of memory")])
def test_a_stream_that_breaks_off_is_an_error_and_reports_nothing(model, name, told):
    store = Store()
    coming = stream(store, "why?", model(name))

    with pytest.raises(EndpointError, match=told):
        list(coming)
    with pytest.raises(EndpointError, match="ask again"):
        _ = coming.answer
    assert store.told == []


def test_a_busy_endpoint_is_asked_again_after_the_time_that_it_names(model):
    waited = []

    done = model("busy", wait=waited.append).complete([{"role": "user", "content": "why?"}])

    assert done.text.startswith("A refund")
    assert waited == [7.0, 7.0]


def test_an_endpoint_that_stays_down_is_an_error_after_its_retries(model):
    waited = []

    with pytest.raises(EndpointError, match=r"answered 503.*down"):
        model("down", wait=waited.append, retries=3).complete([])

    assert waited == [0.25, 0.5, 1.0]


def test_an_endpoint_that_says_nothing_runs_into_the_timeout(model):
    with pytest.raises(EndpointError, match="cannot be reached: ReadTimeout"):
        model("silent", timeout=0.05, retries=0).complete([])


def test_an_endpoint_that_is_not_there_is_named(model):
    away = LanguageModel("http://127.0.0.1:1/v1", "any", retries=0)

    with pytest.raises(EndpointError, match=r"http://127.0.0.1:1/v1 cannot be reached"):
        away.complete([])
    away.close()


def test_a_key_is_sent_and_a_wrong_one_is_not_tried_twice(model):
    waited = []

    assert model("locked", api_key="secret").complete([]).tokens == 47
    with pytest.raises(EndpointError, match="answered 401") as raised:
        model("locked", api_key="other", wait=waited.append).complete([])
    assert waited == []
    assert "other" not in str(raised.value)


@pytest.mark.parametrize("name", ["odd", "html"])
def test_an_answer_in_another_form_is_an_error_that_shows_it(model, name):
    with pytest.raises(EndpointError, match=r"hello|proxy"):
        model(name).complete([])


def test_options_of_the_protocol_reach_the_endpoint_and_those_of_the_sdk_are_refused(model):
    said = answer(Store(), "why?", model("echo", temperature=0), options={"max_tokens": 9}).text

    assert '"temperature": 0' in said
    assert '"max_tokens": 9' in said
    with pytest.raises(SettingsError, match="stream: set by the SDK"):
        model("echo").complete([], stream=True)
    with pytest.raises(SettingsError, match="write https"):
        LanguageModel("localhost:11434", "any")


def test_an_answer_whose_outcome_could_not_be_stored_is_still_an_answer(model):
    done = answer(Store(broken=True), "why?", model("good"))

    assert done.text.startswith("A refund")
    assert not done.reported


def test_what_is_not_recorded_reports_nothing(model):
    store = Store()

    assert not answer(store, "why?", model("good"), record=False).reported
    assert store.told == []


class AwaitedStore(Store):
    """The same store, to be awaited."""

    async def context(self, query, **options):
        return super().context(query, **options)

    async def outcome(self, context_id, **said):
        return super().outcome(context_id, **said)


@pytest.mark.parametrize("kind", [Store, AwaitedStore])
def test_an_answer_can_be_awaited_from_either_kind_of_store(model, kind):
    store, asked = kind(), model("good")

    async def many():
        return await asyncio.gather(*(aanswer(store, f"why {n}?", asked, user_id="ada") for n in range(4)))

    done = asyncio.run(many())

    assert [one.text for one in done] == ["A refund takes five days [2]."] * 4
    assert all(one.reported and one.cited == ("second",) for one in done)
    assert {said["event_id"] for _, said in store.told} == {"c1/answer"}
    assert asyncio.run(aanswer(kind(broken=True), "why?", asked)).reported is False
    assert asyncio.run(aanswer(kind(), "why?", asked, record=False)).reported is False
    with pytest.raises(EndpointError, match="down"):
        asyncio.run(aanswer(store, "why?", model("down", retries=0)))


def awaited(url, name, work, **options):
    """What the work makes of an awaited model of that name."""

    async def run():
        async def pause(seconds):
            paused.append(seconds)

        async with AsyncLanguageModel(url, name, **{"wait": pause, **options}) as model:
            return await work(model)

    paused = []
    return asyncio.run(run()), paused


@pytest.mark.parametrize("kind", [Store, AwaitedStore])
def test_an_awaited_model_answers_and_reports_as_the_other_does(url, kind):
    store = kind()

    done, _ = awaited(url, "good", lambda model: aanswer(store, "why?", model, user_id="ada", options={"seed": 1}))

    ((context_id, said),) = store.told
    assert (done.text, done.cited, done.reported) == ("A refund takes five days [2].", ("second",), True)
    assert (context_id, said["event_id"], said["tokens"]) == ("c1", "c1/answer", 47)
    assert store.asked == [("why?", {"user_id": "ada"})]


@pytest.mark.parametrize("kind", [Store, AwaitedStore])
def test_an_awaited_stream_gives_the_words_as_they_come_and_the_whole_at_the_end(url, kind):
    store = kind()

    async def read(model):
        coming = await astream(store, "why?", model, user_id="ada")
        pieces = [piece async for piece in coming]
        return pieces, await coming.answer(), await coming.answer()

    (pieces, done, again), _ = awaited(url, "good", read)

    assert pieces == ["A refund ", "takes five ", "days [2]."]
    assert (done.text, done.completion.tokens, done.completion.finish_reason) == ("".join(pieces), 47, "stop")
    assert done is again
    assert done.reported
    assert [said["event_id"] for _, said in store.told] == ["c1/answer"]


def test_an_awaited_stream_that_nobody_read_is_read_for_its_answer(url):
    async def read(model):
        return await (await astream(Store(broken=True), "why?", model)).answer()

    done, _ = awaited(url, "good", read)

    assert (done.text, done.reported) == ("A refund takes five days [2].", False)


def test_forty_awaited_streams_wait_together_and_hold_up_no_thread(url):
    async def read(model):
        coming = [await astream(Store(), "why?", model) for _ in range(40)]
        words = [aiter(one) for one in coming]
        first = await asyncio.gather(*map(anext, words))
        async with AsyncLanguageModel(url, "go") as other:
            await other.complete([])
        done = await asyncio.gather(*(one.answer() for one in coming))
        return first, done

    (first, done), _ = awaited(url, "held", read)

    assert first == ["A refund "] * 40
    assert [one.text for one in done] == ["A refund takes five days [2]."] * 40


def test_a_stream_that_is_left_early_lets_go_of_its_connection(url):
    store = Store()

    async def read(model):
        async with await astream(store, "why?", model) as coming:
            async for _ in coming:
                break
        with pytest.raises(EndpointError, match="ask again"):
            await coming.answer()

    awaited(url, "endless", read)

    with LanguageModel(url, "left") as watching:
        assert watching.complete([]).text == "True"
    assert store.told == []


@pytest.mark.parametrize(("name", "told"), [("cut", "broke off after 9"), ("bad", "out of memory")])
def test_an_awaited_stream_that_breaks_off_is_an_error_and_reports_nothing(url, name, told):
    store = Store()

    async def read(model):
        coming = await astream(store, "why?", model)
        with pytest.raises(EndpointError, match=told):
            async for _ in coming:
                pass
        with pytest.raises(EndpointError, match="ask again"):
            await coming.answer()

    awaited(url, name, read)
    assert store.told == []


def test_an_awaited_model_waits_and_tries_again_and_gives_up_as_the_other_does(url):
    with pytest.raises(EndpointError, match=r"answered 503.*down"):
        awaited(url, "down", lambda model: model.complete([]), retries=1)
    with pytest.raises(EndpointError, match="cannot be reached: ReadTimeout"):
        awaited(url, "silent", lambda model: model.complete([]), timeout=0.05, retries=0)
    with pytest.raises(EndpointError, match="another form"):
        awaited(url, "odd", lambda model: model.complete([]))

    done, paused = awaited(url, "weary", lambda model: model.complete([]))

    assert (done.text[:8], paused) == ("A refund", [7.0, 7.0])


def test_a_stream_to_be_awaited_asks_for_a_model_to_be_awaited(model):
    with pytest.raises(SettingsError, match="AsyncLanguageModel"):
        asyncio.run(astream(Store(), "why?", model("good")))


@pytest.mark.parametrize("url", ["localhost:11434", "http://", "http://[::1", "http://a:b:c"])
def test_an_address_that_is_none_is_told_at_once(url):
    for kind in (LanguageModel, AsyncLanguageModel):
        with pytest.raises(SettingsError, match="write https://host/v1"):
            kind(url, "any")
        with pytest.raises(SettingsError, match="retries is -1"):
            kind("http://h/v1", "any", retries=-1)
