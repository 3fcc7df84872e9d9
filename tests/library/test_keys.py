"""Access keys: shown once, kept as hashes, revoked for good."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestore.errors import FilterError, RequestError, StoreError, UnknownNameError
from lodestore.keys import Keys, key_id_of
from lodestore.logs import Logs
from lodestore.server.access import Access, is_loopback
from lodestore.server.problems import HttpError
from lodestore.testing import FrozenClock, MemoryStore


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def keys(store):
    return Keys(Logs(store, FrozenClock()))


def calls(keys, token, scope="read"):
    access = Access()
    access.use(keys.all())
    return access.caller({"client": ("10.0.0.1", 1)}, {b"authorization": f"Bearer {token}".encode()}, scope)


def test_a_key_opens_what_its_scopes_say_and_nothing_else(keys):
    added = keys.add(["read"])

    assert calls(keys, added.token).id == added.key.id
    with pytest.raises(HttpError, match="has the scopes read; this needs push") as refused:
        calls(keys, added.token, "push")
    assert refused.value.status == 403


def test_the_store_never_has_the_token(keys, store):
    added = keys.add(["read"], note="the shop")

    secret = added.token.split("_", 2)[2]
    assert secret not in str(store.read("keys").to_pylist())
    assert secret not in str(keys.all())
    assert secret not in str(added)


def test_a_revoked_key_opens_nothing_and_stays_in_the_list(keys):
    added = keys.add(["read"])
    keys.revoke(added.key.id)
    keys.revoke(added.key.id)

    with pytest.raises(HttpError, match="give a valid key"):
        calls(keys, added.token)
    assert keys.all()[0].revoked_at is not None


def test_when_the_last_key_is_revoked_the_server_does_not_open_to_everybody(keys):
    keys.revoke(keys.add(["read"]).key.id)

    with pytest.raises(HttpError) as refused:
        calls(keys, "")
    assert refused.value.status == 401


@given(st.text())
def test_no_other_text_is_a_token(text):
    keys = Keys(Logs(MemoryStore(), FrozenClock()))
    added = keys.add(["read"])

    for wrong in (text, f"ls_{added.key.id}_{text}", added.token + text + "x"):
        assert not added.key.is_proved_by(wrong)
        assert key_id_of(wrong) in {"", added.key.id, key_id_of(wrong)}


def test_a_scope_or_a_filter_that_means_nothing_makes_no_key(keys):
    with pytest.raises(RequestError, match="did you mean 'read'"):
        keys.add(["reed"])
    with pytest.raises(RequestError, match="opens nothing"):
        keys.add([])
    with pytest.raises(FilterError):
        keys.add(["read"], filter="colour = 'red'")
    assert keys.all() == []


def test_an_unknown_key_cannot_be_revoked(keys):
    with pytest.raises(UnknownNameError, match="none is known yet"):
        keys.revoke("abc")


def test_without_any_key_only_this_machine_is_answered():
    access = Access()
    access.use([])

    assert access.caller({"client": ("127.0.0.1", 1)}, {}, "admin").id == ""
    assert access.caller({"client": ("127.0.0.1", 1)}, {b"x-forwarded-for": b"127.0.0.1, ::1"}, "admin").id == ""
    for scope, headers in (
        ({"client": ("10.0.0.9", 1)}, {}),
        ({"client": ("127.0.0.1", 1)}, {b"origin": b"https://evil.example"}),
        ({"client": ("127.0.0.1", 1)}, {b"origin": b"null"}),
        ({"client": ("127.0.0.1", 1)}, {b"host": b"rebound.example:7373"}),
        ({"client": ("127.0.0.1", 1)}, {b"x-forwarded-for": b"203.0.113.9"}),
        ({"client": ("127.0.0.1", 1)}, {b"x-forwarded-for": b"127.0.0.1, 203.0.113.9"}),
        ({"client": ("127.0.0.1", 1)}, {b"x-forwarded-for": b"unknown"}),
        ({"client": ("127.0.0.1", 1)}, {b"x-real-ip": b"203.0.113.9:4711"}),
        ({"client": None}, {b"forwarded": b"for=203.0.113.9;proto=https"}),
        (
            {"headers": [(b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-for", b"127.0.0.1")]},
            {b"x-forwarded-for": b"127.0.0.1"},
        ),
    ):
        with pytest.raises(HttpError) as refused:
            access.caller(scope, headers, "read")
        assert refused.value.status == 403


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("shop", False)]
)
def test_loopback_is_told_from_what_other_machines_reach(host, local):
    assert is_loopback(host) is local


@pytest.mark.parametrize("kept", [0, 1])
def test_a_key_that_is_missing_changes_nothing_and_is_told(keys, kept):
    access = Access()
    access.use_newer([])
    for _ in range(2):
        keys.add(["read"])
        access.use_newer(keys.all())

    with pytest.raises(StoreError, match=r"lacks \d keys that it had"):
        access.use_newer(keys.all()[:kept])

    with pytest.raises(HttpError, match="valid key"):
        access.caller({"client": ("127.0.0.1", 1)}, {}, "read")
