"""When a token is used, renewed and discarded, on a scripted clock."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from aligner_client import ClientCredentials, RetryPolicy, UnauthenticatedError
from aligner_client.attempts import Attempts
from aligner_client.auth.oauth import Grant, NoGrant, fetch
from aligner_client.auth.token_cache import TokenCache, TokenState
from tests.kit.guarded_aligner import token_endpoint


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TokenExpired(grpc.RpcError):
    """What a server sends that refuses a token."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAUTHENTICATED

    def details(self) -> str:
        return "refused"

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        detail = AnyMessage()
        detail.Pack(error_details_pb2.ErrorInfo(reason="TOKEN_EXPIRED"))
        status = status_pb2.Status(code=self.code().value[0], message=self.details(), details=[detail])
        return (("grpc-status-details-bin", status.SerializeToString()),)


def test_a_token_is_renewed_well_before_it_expires_and_not_sent_in_its_last_seconds():
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
    state.granted(Grant("b", 10.0), clock.now)  # the margin is a tenth of a short life and not 30 s
    clock.now += 8.9
    assert state.usable() == "b"
    clock.now += 0.2
    assert state.usable() is None


def test_only_the_refused_token_is_discarded_and_at_most_one_in_10_s():
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
    with token_endpoint() as provider:
        spec = ClientCredentials(provider.url, "me", "secret")
        cache = TokenCache(lambda: fetch(spec), clock=clock, jitter=lambda: 0.0)
        attempts = Attempts((("x-mine", "1"),), cache, RetryPolicy().begin(None), secure=True, certificate=False)
        attempts.metadata()
        assert attempts.failed(TokenExpired()) == 0.0
        for _ in range(2):
            clock.now += 20
            assert attempts.metadata() == (("x-mine", "1"), ("authorization", "Bearer token-2"))
            with pytest.raises(UnauthenticatedError):
                attempts.failed(TokenExpired())


async def get_in_thread(cache: TokenCache, seconds: float | None) -> str | NoGrant:
    return await asyncio.to_thread(cache.get, seconds)


@pytest.mark.parametrize("get", [get_in_thread, TokenCache.async_get], ids=["thread", "task"])
async def test_a_renewal_does_not_delay_calls(caplog, get):
    clock, renew, logged = Clock(), threading.Event(), threading.Event()
    caplog.handler.addFilter(lambda record: logged.set() or True)
    grants: list[int] = []

    async def second_fails() -> Grant | NoGrant:
        grants.append(1)
        if len(grants) != 2:
            return Grant(f"t{len(grants)}", 1000.0)
        assert await asyncio.to_thread(renew.wait, 20)
        return NoGrant("down", transient=True)

    cache = TokenCache(second_fails, clock=clock, jitter=lambda: 0.0)
    assert await get(cache, None) == "t1"
    clock.now += 801
    assert [await get(cache, 0) for _ in range(5)] == ["t1"] * 5
    renew.set()
    assert await asyncio.to_thread(logged.wait, 20)
    assert "the token could not be renewed yet: down" in caplog.text
    assert await get(cache, 0) == "t1"  # a failed renewal fails no call while there is a token
    assert len(grants) == 2
    clock.now += 200
    assert await get(cache, None) == "t3"


@pytest.mark.parametrize("get", [get_in_thread, TokenCache.async_get], ids=["thread", "task"])
async def test_a_bug_in_a_fetch_reaches_every_call_and_is_logged_without_its_text(caplog, get):
    async def broken() -> Grant | NoGrant:
        raise ZeroDivisionError("hunter2")

    cache = TokenCache(broken)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await get(cache, None)
    assert "ZeroDivisionError" in caplog.text
    assert "hunter2" not in caplog.text
