"""Authentication and its audit around all four kinds of RPC, on a real server; who is who is scripted here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from interceptors import Audit, Event, Recovery, RequestId, Requests, SecurityEvent, current_call
from interceptors.auth.jwt.authenticator import JwtAuthenticator
from interceptors.auth.method import AuthMethod
from interceptors.calls.principal import Principal, Rejected, Undecided
from tests.kit import chain_server as chain_server_kit
from tests.kit.chain_server import KINDS, SERVICE, KindsHandler, answer, authentication, bearer, chain_server

OPEN = f"/{SERVICE}/Open"
NOW = 1_000_000.0


def judge(credential: str):
    match credential:
        case "alice":
            return Principal("jwt:idp#alice", "jwt", frozenset({"align"}))
        case "brief":
            return Principal("jwt:idp#brief", "jwt", expires=NOW + 0.2)
        case "expired":
            return Rejected("expired", "jwt:idp#alice", expired=True)
        case "revoked":
            return Rejected("key_revoked", "key:1")
        case "unsure":
            return Undecided("keys_unavailable")
    return Rejected("signature")


class Tokens(JwtAuthenticator):
    """Bearer tokens that say themselves what they are."""

    def __init__(self) -> None:
        super().__init__([], cache=0)

    async def verify(self, token, thumbprint):
        return judge(token)


class Scripted(AuthMethod):
    """Reads one header, or the connection."""

    def __init__(self, header: str, hint: str, verdict=None) -> None:
        self.header = header
        self.hint = hint
        self._verdict = verdict

    async def authenticate(self, credential, connection):
        return self._verdict or judge(credential)


TOKENS, KEYS = Tokens(), Scripted("x-api-key", "an API key")


class Service(KindsHandler):
    """Answers with the principal, each message of a stream of both sides by itself."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def act(self, request, context):
        call = current_call()
        return (call.principal.name if call and call.principal else "no principal").encode()

    async def stream_unary(self, requests, context):
        self.begun.set()
        return await super().stream_unary(requests, context)

    async def stream_stream(self, requests, context):
        self.begun.set()
        async for request in requests:
            yield await self.unary_unary(request, context)

    def unary_methods(self):
        return {"Open": self.unary_unary}


class Bench:
    """A server with the guards, and what they recorded."""

    def __init__(self, *methods: AuthMethod) -> None:
        self.events: list[SecurityEvent] = []
        self.service = Service()
        self.methods = methods or (TOKENS, KEYS)

    @asynccontextmanager
    async def serving(self, expiry_grace: float = 0.0) -> AsyncIterator[aio.Channel]:
        chain = (
            Recovery("test"),
            RequestId(),
            Audit(self.events.append),
            authentication(*self.methods, exempt={OPEN}, expiry_grace=expiry_grace, record=self.events.append, now=lambda: NOW),
            Requests(),
        )
        async with chain_server(chain, self.service) as server:
            yield server.channel


def start(channel: aio.Channel, kind: str, *metadata: tuple[str, str], body: bytes = b"body"):
    return chain_server_kit.start(channel, kind, body, metadata=metadata)


async def refused(call) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason, message."""
    with pytest.raises(aio.AioRpcError) as error:
        await answer(call)
    trailing = dict(error.value.trailing_metadata())
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(trailing["grpc-status-details-bin"]).details[0].Unpack(info)
    assert len(trailing["x-request-id"]) == 32
    return error.value.code(), info.reason, error.value.details()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("credential", [bearer("alice"), ("x-api-key", "alice"), ("authorization", "bearer  alice")])
async def test_the_servicer_sees_the_principal(kind, credential) -> None:
    bench = Bench()
    async with bench.serving() as channel:
        assert await answer(start(channel, kind, credential)) == b"jwt:idp#alice"
    assert bench.events == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("sent", "code", "reason", "event", "check", "principal"),
    [
        ([], "UNAUTHENTICATED", "CREDENTIALS_MISSING", Event.AUTHENTICATION_FAILED, "credentials_missing", ""),
        ([bearer("bob")], "UNAUTHENTICATED", "CREDENTIALS_INVALID", Event.AUTHENTICATION_FAILED, "signature", ""),
        ([("x-api-key", "bob")], "UNAUTHENTICATED", "CREDENTIALS_INVALID", Event.AUTHENTICATION_FAILED, "signature", ""),
        (
            [("x-api-key", "revoked")],
            "UNAUTHENTICATED",
            "CREDENTIALS_INVALID",
            Event.KEY_USED_AFTER_REVOCATION,
            "key_revoked",
            "key:1",
        ),
        ([bearer("expired")], "UNAUTHENTICATED", "TOKEN_EXPIRED", Event.AUTHENTICATION_FAILED, "expired", "jwt:idp#alice"),
        ([bearer("unsure")], "UNAVAILABLE", "AUTHENTICATION_UNAVAILABLE", Event.AUTHENTICATION_FAILED, "keys_unavailable", ""),
        (
            [("authorization", "Basic alice")],
            "UNAUTHENTICATED",
            "CREDENTIALS_INVALID",
            Event.AUTHENTICATION_FAILED,
            "scheme_unknown",
            "",
        ),
        (
            [bearer("alice"), ("x-api-key", "alice")],
            "UNAUTHENTICATED",
            "CREDENTIALS_AMBIGUOUS",
            Event.AUTHENTICATION_FAILED,
            "credentials_ambiguous",
            "",
        ),
        (
            [bearer("alice"), bearer("alice")],
            "UNAUTHENTICATED",
            "CREDENTIALS_AMBIGUOUS",
            Event.AUTHENTICATION_FAILED,
            "credentials_ambiguous",
            "",
        ),
    ],
    ids=["none", "bad token", "bad key", "revoked", "expired", "unsure", "scheme", "two kinds", "twice"],
)
async def test_a_rejected_credential_is_refused_and_recorded_once(kind, sent, code, reason, event, check, principal) -> None:
    bench = Bench()
    async with bench.serving() as channel:
        status, given, message = await refused(start(channel, kind, *sent))
    assert (status.name, given) == (code, reason)
    assert "alice" not in message
    [recorded] = bench.events
    assert (recorded.event, recorded.check, recorded.principal) == (event, check, principal)
    assert recorded.method == f"/{SERVICE}/{kind}"
    assert recorded.peer.startswith("ipv4:127.0.0.1:")
    assert recorded.user_agent.startswith("grpc-python")
    assert len(recorded.request_id) == 32
    assert bench.service.read == 0


async def test_a_revoked_key_is_refused_like_an_unknown_one() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        first, second = [await refused(start(channel, "UnaryUnary", ("x-api-key", key))) for key in ("revoked", "bob")]
    assert first == second


async def test_a_call_without_credential_is_refused_with_what_to_send() -> None:
    bench = Bench(TOKENS)
    async with bench.serving() as channel:
        _, _, message = await refused(start(channel, "UnaryUnary"))
        assert "a bearer token" in message
        assert "key" not in message
        assert (await refused(start(channel, "UnaryUnary", ("x-api-key", "alice"))))[1] == "CREDENTIALS_INVALID"
    assert bench.events[-1].check == "method_not_accepted"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_large_request_without_a_valid_credential_is_not_read(kind) -> None:
    bench = Bench()
    async with bench.serving() as channel:
        assert (await refused(start(channel, kind, bearer("bob"), body=bytes(40 << 20))))[1] == "CREDENTIALS_INVALID"
        assert bench.service.read == 0
        assert await answer(start(channel, "UnaryUnary", bearer("alice"), body=bytes(40 << 20)))
    assert bench.service.read == 40 << 20


async def test_exempt_methods_need_no_credential() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        assert await channel.unary_unary(OPEN)(b"x") == b"no principal"


async def test_an_unknown_method_is_unimplemented_for_authenticated_calls_only() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        assert (await refused(start(channel, "Nothing")))[1] == "CREDENTIALS_MISSING"
        code, reason, _ = await refused(start(channel, "Nothing", bearer("alice")))
    assert (code, reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")
    assert [event.check for event in bench.events] == ["credentials_missing"]


def certificates(verdict) -> Scripted:
    """Every connection has one, which proves the same."""
    return Scripted("", "a client certificate", verdict)


CERTIFIED = Principal("mtls:spiffe://example.org/batch", "mtls")


async def test_a_certificate_proves_the_principal_without_another_credential() -> None:
    bench = Bench(TOKENS, KEYS, certificates(CERTIFIED))
    async with bench.serving() as channel:
        assert await answer(start(channel, "UnaryUnary")) == b"mtls:spiffe://example.org/batch"
        assert await answer(start(channel, "UnaryUnary", bearer("alice"))) == b"jwt:idp#alice"
        assert (await refused(start(channel, "UnaryUnary", bearer("bob"))))[1] == "CREDENTIALS_INVALID"


async def test_a_rejected_certificate_ends_the_call_despite_a_good_token() -> None:
    bench = Bench(TOKENS, KEYS, certificates(Rejected("certificate_not_listed", "mtls:x")))
    async with bench.serving() as channel:
        for credential in ([], [bearer("alice")]):
            assert (await refused(start(channel, "UnaryUnary", *credential)))[1] == "CREDENTIALS_INVALID"
    assert [event.check for event in bench.events] == ["certificate_not_listed"] * 2


@pytest.mark.parametrize("kind", ["StreamUnary", "StreamStream"])
async def test_a_call_that_outlives_its_credential_ends(kind) -> None:
    """The clock of the credential stands still: it has 0.2 s left when the call starts, and there is no grace."""
    bench = Bench()
    async with bench.serving() as channel:
        path = f"/{SERVICE}/{kind}"
        make = channel.stream_unary(path) if kind == "StreamUnary" else channel.stream_stream(path)
        call = make(metadata=[bearer("brief")])
        await call.write(b"first")
        await asyncio.wait_for(bench.service.begun.wait(), 30)
        if kind == "StreamStream":
            assert await call.read() == b"jwt:idp#brief"
        code, reason, _ = await asyncio.wait_for(refused(call if kind == "StreamUnary" else _rest(call)), 30)
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")
    [recorded] = bench.events
    assert (recorded.check, recorded.principal) == ("expired_during_call", "jwt:idp#brief")


async def test_a_call_may_finish_within_the_grace_after_its_credential_expired() -> None:
    bench = Bench()
    async with bench.serving(expiry_grace=3600.0) as channel:
        call = channel.stream_unary(f"/{SERVICE}/StreamUnary")(metadata=[bearer("brief")])
        await call.write(b"first")
        await asyncio.sleep(0.3)
        await call.done_writing()
        assert await call == b"jwt:idp#brief"


async def test_a_client_that_does_not_read_is_ended_too() -> None:
    """The server is waiting to send when the time is over; its client must not wait for ever."""

    async def flood(requests, context):
        while True:
            yield bytes(1 << 20)

    class Flood(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.stream_stream_rpc_method_handler(flood)

    bench = Bench()
    bench.service = Flood()
    async with bench.serving() as channel, asyncio.timeout(30):
        call = channel.stream_stream("/test.Flood/Go")(iter([b""]), metadata=[bearer("brief")])
        await call.read()
        await asyncio.sleep(0.5)
        code, reason, _ = await refused(_rest(call))
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")


async def _rest(call) -> AsyncIterator[bytes]:
    while (response := await call.read()) is not aio.EOF:
        yield response
