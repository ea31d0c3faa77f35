"""When a token is used, renewed and thrown away: with a clock that is turned by hand."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest

from aligner_svc.client import ClientCredentials, RetryPolicy, UnauthenticatedError
from aligner_svc.client.authorization import Showing
from aligner_svc.client.oauth import Grant, NoGrant, fetch
from aligner_svc.client.token_cache import AsyncTokenCache, TokenCache, TokenState
from tests.kit.guarded_aligner import token_endpoint


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_when_a_token_is_used_and_when_renewed():
    clock = Clock()
    state = TokenState(clock, lambda: 0.5)
    assert (state.usable(), state.due()) == (None, True)
    state.granted(Grant("a", 1000.0), clock.now)
    for after, usable, due in [(0, "a", False), (749, "a", False), (750, "a", True), (969, "a", True), (970, None, True)]:
        clock.now = 1000.0 + after
        assert (state.usable(), state.due()) == (usable, due)
    clock.now = 1000.0 + 760
    state.failed()
    assert (state.usable(), state.due()) == ("a", False)
    clock.now += 7.5
    assert state.due()
    state.granted(Grant("b", 10.0), clock.now)  # a tenth of a short life, and not the thirty seconds it does not have
    clock.now += 8.9
    assert state.usable() == "b"
    clock.now += 0.2
    assert state.usable() is None


def test_only_the_token_that_was_refused_is_thrown_away():
    clock = Clock()
    state = TokenState(clock, lambda: 0.0)
    state.granted(Grant("new", 1000.0), clock.now)
    assert state.refuse("old")
    assert state.usable() == "new"
    assert state.refuse("new")
    assert state.usable() is None
    state.granted(Grant("newer", 1000.0), clock.now)
    clock.now += 9.9
    assert not state.refuse("newer")
    assert state.usable() == "newer"
    clock.now += 0.2
    assert state.refuse("newer")


def test_a_call_renews_once_however_long_it_takes():
    clock = Clock()
    refused = UnauthenticatedError(grpc.StatusCode.UNAUTHENTICATED, "refused", reason="TOKEN_EXPIRED")
    renewals = []
    with token_endpoint() as provider:
        spec = ClientCredentials(provider.url, "me", "secret")
        cache = TokenCache(lambda: fetch(spec), clock=clock, jitter=lambda: 0.0)
        showing, retry = Showing(spec, cache), RetryPolicy().begin(None)
        for _ in range(3):
            showing.metadata(retry)
            renewals.append(showing.renews(refused))
            clock.now += 20
        assert renewals == [True, False, False]
        assert Showing(spec, cache).metadata(retry) == (("authorization", "Bearer token-2"),)


def test_a_renewal_does_not_hold_up_a_call():
    clock, gate, renewed = Clock(), threading.Event(), threading.Event()
    grants: list[int] = []

    async def slow() -> Grant | NoGrant:
        grants.append(1)
        if len(grants) == 2:
            await asyncio.to_thread(gate.wait)
            renewed.set()
            return NoGrant("down", transient=True)
        return Grant(f"t{len(grants)}", 1000.0)

    cache = TokenCache(slow, clock=clock, jitter=lambda: 0.0)
    assert cache.get(None) == "t1"
    clock.now += 801
    assert [cache.get(0) for _ in range(5)] == ["t1"] * 5
    gate.set()
    assert renewed.wait(20)
    assert cache.get(0) == "t1"  # a failed renewal is nobody's failure as long as there is a token
    clock.now += 200
    assert cache.get(None) in {"t3", NoGrant("down", transient=True)}
    assert cache.get(None) == "t3"


async def test_a_renewal_does_not_hold_up_a_task(caplog):
    clock, gate = Clock(), asyncio.Event()
    grants: list[int] = []

    async def slow() -> Grant | NoGrant:
        grants.append(1)
        if len(grants) == 1:
            return Grant("t1", 1000.0)
        await gate.wait()
        return NoGrant("down", transient=True) if len(grants) == 2 else Grant(f"t{len(grants)}", 1000.0)

    cache = AsyncTokenCache(slow, clock=clock, jitter=lambda: 0.0)
    assert await cache.get(None) == "t1"
    clock.now += 801
    assert [await cache.get(0) for _ in range(5)] == ["t1"] * 5
    flight = cache._flight
    gate.set()
    assert await flight == NoGrant("down", transient=True)
    assert "the token could not be renewed yet: down" in caplog.text
    assert await cache.get(0) == "t1"
    assert len(grants) == 2
    clock.now += 10
    await cache.get(0)
    await cache._flight
    assert await cache.get(0) == "t3"


def test_a_bug_in_a_fetch_hangs_nobody():
    async def broken() -> Grant | NoGrant:
        raise ZeroDivisionError("bug")

    cache = TokenCache(broken)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            cache.get(None)
