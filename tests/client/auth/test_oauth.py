"""OAuth client credentials against a real token endpoint and a real server."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from aligner_client import (
    Aligner,
    AsyncAligner,
    CallCancelledError,
    ClientCredentials,
    DeadlineExceededError,
    RetryPolicy,
    TokenError,
    UnauthenticatedError,
)
from aligner_client.auth.oauth import MAX_ANSWER_BYTES, MAX_LIFETIME, UNSTATED_LIFETIME, Grant, NoGrant, fetch
from tests.kit.guarded_aligner import Answer, Authority, guarded_server, token_endpoint

SECRET = "s3cret of/this&test"
NO_WAIT = RetryPolicy(initial=0.001)
TOKEN = {"access_token": "t", "token_type": "Bearer", "expires_in": 3600}


@pytest.fixture
def server():
    with guarded_server() as running:
        yield running


@pytest.fixture
def provider():
    with token_endpoint() as running:
        yield running


def credentials(provider, **more) -> ClientCredentials:
    return ClientCredentials(provider.url, "me", SECRET, **more)


def sent(server) -> list[str]:
    return [shown["authorization"].removeprefix("Bearer ") for shown in server.guard.seen]


async def test_one_token_serves_every_call_of_a_client(server, provider):
    with Aligner(server.target, auth=credentials(provider, scope="align info")) as aligner:
        assert provider.asked == []
        aligner.server_info()
        aligner.align(b"x", "one")
        aligner.stream_align(b"x", "one")
    async with AsyncAligner(server.target, auth=credentials(provider, scope=["align", "info"])) as async_aligner:
        await async_aligner.server_info()
        await async_aligner.align(b"x", "one")
        await async_aligner.stream_align(b"x", "one")
    assert sent(server) == ["token-1"] * 3 + ["token-2"] * 3
    assert [asked.form for asked in provider.asked] == [{"grant_type": ["client_credentials"], "scope": ["align info"]}] * 2


async def test_the_request_follows_rfc_6749(provider):
    await fetch(credentials(provider, audience="aud", resource=["urn:a", "urn:b"]))
    await fetch(credentials(provider, method="client_secret_post"))
    basic, post = provider.asked
    assert basic.form == {"grant_type": ["client_credentials"], "audience": ["aud"], "resource": ["urn:a", "urn:b"]}
    assert base64.b64decode(basic.headers["authorization"].removeprefix("Basic ")) == b"me:s3cret+of%2Fthis%26test"
    assert basic.headers["content-type"] == "application/x-www-form-urlencoded"
    assert post.form == {"grant_type": ["client_credentials"], "client_id": ["me"], "client_secret": [SECRET]}
    assert "authorization" not in post.headers


@pytest.mark.parametrize(
    ("fields", "lifetime"),
    [
        ({"expires_in": 120}, 120.0),
        ({"expires_in": "120"}, 120.0),
        ({}, UNSTATED_LIFETIME),
        ({"expires_in": None}, UNSTATED_LIFETIME),
        ({"expires_in": True}, UNSTATED_LIFETIME),
        ({"expires_in": "soon"}, UNSTATED_LIFETIME),
        ({"expires_in": float("nan")}, UNSTATED_LIFETIME),
        ({"expires_in": 1e18}, MAX_LIFETIME),
        ({"token_type": "bearer", "expires_in": 5}, 5.0),
    ],
)
async def test_a_token_has_the_lifetime_it_comes_with_or_a_minute_and_at_most_a_day(provider, fields, lifetime):
    provider.answers.append(Answer({"access_token": "t", "token_type": "Bearer", **fields}))
    assert await fetch(credentials(provider)) == Grant("t", lifetime)


@pytest.mark.parametrize(
    ("answer", "message", "transient", "error"),
    [
        (Answer({"error": "invalid_client", "error_description": SECRET}, 401), "invalid_client", False, "invalid_client"),
        (Answer({"error": "invalid_scope"}, 400), "invalid_scope", False, "invalid_scope"),
        (Answer({"error": f"x{SECRET}"}, 400), "status 400", False, ""),
        (Answer({"error": ["invalid_client"]}, 400), "status 400", False, ""),
        (Answer(b"<html>", 404), "status 404", False, ""),
        (Answer({"error": "temporarily_unavailable"}, 400), "temporarily_unavailable", True, "temporarily_unavailable"),
        (Answer(b"", 503, {"retry-after": "7"}), "status 503", True, ""),
        (Answer(b"", 429), "status 429", True, ""),
        (Answer(b"", 302, {"location": "https://evil.example/"}), "redirects", False, ""),
        (Answer(b"not JSON"), "holds no token", False, ""),
        (Answer(b"[" * 60_000), "holds no token", False, ""),
        (Answer(b"[1]"), "holds no token", False, ""),
        (Answer({"access_token": "a\r\nb", "token_type": "Bearer"}), "holds no token", False, ""),
        (Answer({"access_token": "", "token_type": "Bearer"}), "holds no token", False, ""),
        (Answer({"access_token": "t", "token_type": "mac"}), "not a bearer token", False, ""),
        (Answer({"access_token": "t"}), "not a bearer token", False, ""),
        (Answer(TOKEN | {"expires_in": 0}), "expired token", False, ""),
        (Answer(b" " * (MAX_ANSWER_BYTES + 1)), "too long", False, ""),
    ],
)
async def test_every_other_answer_is_a_typed_error_without_secrets(provider, answer, message, transient, error):
    provider.answers.append(answer)
    denied = await fetch(credentials(provider))
    assert isinstance(denied, NoGrant)
    assert message in denied.message
    assert (denied.transient, denied.error) == (transient, error)
    assert denied.retry_after == (7.0 if "retry-after" in answer.headers else None)
    failure = denied.exception()
    assert SECRET not in f"{denied!r}{failure}{failure!r}"
    assert failure.code is (grpc.StatusCode.UNAVAILABLE if transient else grpc.StatusCode.UNAUTHENTICATED)
    assert failure.retryable is transient
    assert len(provider.asked) == 1


async def test_an_error_word_that_holds_the_secret_is_not_shown(provider):
    provider.answers.append(Answer({"error": "not_hunter_but"}, 400))
    denied = await fetch(ClientCredentials(provider.url, "me", "hunter"))
    assert (denied.message, denied.error) == ("the token endpoint gives no token: status 400", "")


async def test_an_absent_endpoint_is_transient_and_an_untrusted_certificate_is_not(tmp_path):
    denied = await fetch(ClientCredentials("http://127.0.0.1:1/token", "me", SECRET))
    assert (denied.message, denied.transient) == ("the token endpoint cannot be reached", True)
    ca = Authority(tmp_path, "ca")
    with token_endpoint(ca.issue("idp", hosts=("127.0.0.1",))) as provider:
        assert await fetch(credentials(provider, ca=ca.file)) == Grant("token-1", 3600.0)
        for other in (None, Authority(tmp_path, "stranger").file):
            denied = await fetch(credentials(provider, ca=other))
            assert "certificate" in denied.message
            assert not denied.transient
    assert len(provider.asked) == 1


async def test_a_secret_for_loopback_does_not_go_through_a_proxy(provider, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert isinstance(await fetch(credentials(provider)), Grant)


async def test_no_secret_is_logged(server, provider, caplog):
    with caplog.at_level(logging.DEBUG):
        with Aligner(server.target, auth=credentials(provider)) as aligner:
            aligner.align(b"x", "one")
        await fetch(credentials(provider, method="client_secret_post"))
    assert caplog.records
    for secret in (SECRET, "s3cret", "token-1", base64.b64encode(b"me:s3cret+of%2Fthis%26test").decode()):
        assert secret not in caplog.text


@pytest.mark.parametrize("reason", ["TOKEN_EXPIRED", "CREDENTIALS_INVALID"])
@pytest.mark.parametrize("method", ["align", "stream_align"])
async def test_a_refused_token_is_replaced_and_the_call_tried_again(server, provider, reason, method):
    server.guard.decide = lambda shown: (
        (grpc.StatusCode.UNAUTHENTICATED, reason) if shown["authorization"] in {"Bearer token-1", "Bearer token-3"} else None
    )
    with Aligner(server.target, auth=credentials(provider), retry=RetryPolicy(attempts=1)) as aligner:
        assert getattr(aligner, method)(b"x" * 100_000, "one").words
        aligner.server_info()
    async with AsyncAligner(server.target, auth=credentials(provider), retry=RetryPolicy(attempts=1)) as async_aligner:
        assert (await getattr(async_aligner, method)(b"x" * 100_000, "one")).words
    assert sent(server) == ["token-1", "token-2", "token-2", "token-3", "token-4"]


@pytest.mark.parametrize("method", ["align", "stream_align"])
async def test_a_refused_token_is_replaced_once_and_the_provider_is_not_flooded(server, provider, method):
    server.guard.decide = lambda shown: (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
    with Aligner(server.target, auth=credentials(provider), retry=NO_WAIT) as aligner:
        for _ in range(3):
            with pytest.raises(UnauthenticatedError) as raised:
                getattr(aligner, method)(b"x", "one")
    assert sent(server) == ["token-1", "token-2", "token-2", "token-2"]
    assert "token-" not in f"{raised.value!r}{raised.value}"
    async with AsyncAligner(server.target, auth=credentials(provider), retry=NO_WAIT) as async_aligner:
        for _ in range(3):
            with pytest.raises(UnauthenticatedError):
                await getattr(async_aligner, method)(b"x", "one")
    assert len(provider.asked) == 4


@pytest.mark.parametrize("reason", ["CREDENTIALS_MISSING", "SCOPE_MISSING"])
def test_other_refusals_are_final(server, provider, reason):
    server.guard.decide = lambda shown: (grpc.StatusCode.UNAUTHENTICATED, reason)
    with Aligner(server.target, auth=credentials(provider), retry=NO_WAIT) as aligner, pytest.raises(UnauthenticatedError):
        aligner.align(b"x", "one")
    assert len(server.guard.seen) == len(provider.asked) == 1


async def test_audio_that_cannot_be_rewound_is_not_sent_again(server, provider):
    server.guard.decide = lambda shown: (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")
    with Aligner(server.target, auth=credentials(provider), retry=NO_WAIT) as aligner, pytest.raises(UnauthenticatedError):
        aligner.stream_align(iter([b"x"]), "one")
    async with AsyncAligner(server.target, auth=credentials(provider), retry=NO_WAIT) as async_aligner:
        with pytest.raises(UnauthenticatedError):
            await async_aligner.stream_align(iter([b"x"]), "one")
    assert len(server.guard.seen) == 2


async def test_a_failing_provider_is_retried_within_the_retry_policy(server, provider):
    provider.answers.extend([Answer(b"", 503), Answer(b"", 503)])
    with Aligner(server.target, auth=credentials(provider), retry=NO_WAIT) as aligner:
        assert aligner.stream_align(io.BytesIO(b"x"), "one").words
    provider.answers.extend([Answer(b"", 503)] * 9)
    async with AsyncAligner(server.target, auth=credentials(provider), retry=NO_WAIT) as async_aligner:
        with pytest.raises(TokenError) as raised:
            await async_aligner.align(b"x", "one")
    assert raised.value.reason == "TOKEN_ENDPOINT_UNAVAILABLE"
    assert len(provider.asked) == 3 + NO_WAIT.attempts
    assert len(server.guard.seen) == 1


async def test_a_refusal_of_the_provider_is_final(server, provider):
    provider.answers.extend([Answer({"error": "invalid_client"}, 401)] * 2)
    with Aligner(server.target, auth=credentials(provider), retry=NO_WAIT) as aligner, pytest.raises(TokenError) as raised:
        aligner.align(b"x", "one")
    assert (raised.value.error, raised.value.reason) == ("invalid_client", "TOKEN_REFUSED")
    async with AsyncAligner(server.target, auth=credentials(provider), retry=NO_WAIT) as async_aligner:
        with pytest.raises(TokenError):
            await async_aligner.stream_align(b"x", "one")
    assert len(provider.asked) == 2
    assert server.guard.seen == []


async def test_the_deadline_and_close_end_a_wait_for_a_token(server, provider):
    provider.gate.clear()
    with Aligner(server.target, auth=credentials(provider)) as aligner:
        with pytest.raises(DeadlineExceededError):
            aligner.align(b"x", "one", timeout=0.05)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(aligner.align, b"x", "one")
            assert provider.arrived.acquire(timeout=20)
            aligner.close()
            with pytest.raises(CallCancelledError):
                waiting.result()
    async with AsyncAligner(server.target, auth=credentials(provider)) as async_aligner:
        with pytest.raises(DeadlineExceededError):
            await async_aligner.align(b"x", "one", timeout=0.05)
        task = asyncio.create_task(async_aligner.align(b"x", "one"))
        await asyncio.to_thread(provider.arrived.acquire)
        await async_aligner.close()
        with pytest.raises(CallCancelledError):
            await task


def test_threads_share_one_request(server, provider):
    provider.gate.clear()
    with Aligner(server.target, auth=credentials(provider)) as aligner, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(aligner.align, b"x", "one") for _ in range(8)]
        assert provider.arrived.acquire(timeout=20)
        provider.gate.set()
        assert all(call.result().words for call in calls)
    assert len(provider.asked) == 1


async def test_tasks_share_one_request_and_cancelling_one_does_not_cancel_it(server, provider):
    provider.gate.clear()
    async with AsyncAligner(server.target, auth=credentials(provider)) as aligner:
        calls = [asyncio.create_task(aligner.align(b"x", "one")) for _ in range(8)]
        await asyncio.to_thread(provider.arrived.acquire)
        calls[0].cancel()
        provider.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        assert all(answer.words for answer in await asyncio.gather(*calls[1:]))
    assert len(provider.asked) == 1
