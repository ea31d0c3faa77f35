"""The abuse guard around all four kinds of RPC, on a real server with a scripted clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from interceptors import (
    Audit,
    CallInterceptor,
    CallRefusedError,
    Event,
    Recovery,
    RequestId,
    Requests,
    SecurityEvent,
)
from interceptors.abuse.blocks import SharedBlock
from interceptors.abuse.interceptor import LOOPBACK, Abuse, AbuseRules
from tests.kit import chain_server as chain_server_kit
from tests.kit.chain_server import KINDS, SERVICE, KindsHandler, PeerFromHeader, answer, chain_server

HEALTH = f"/{SERVICE}/Health"
RULES = AbuseRules(failures_per_minute=3, invalid_per_minute=5)


class BadPayloadError(CallRefusedError):
    """What the servicer raises for an invalid request."""

    def __init__(self, reason: str, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT) -> None:
        super().__init__(code, reason, "bad")


class Guard(CallInterceptor):
    """Stands in for authentication; counts the calls that get so far."""

    def __init__(self) -> None:
        self.passed = 0

    @asynccontextmanager
    async def around(self, method, context) -> AsyncIterator[None]:
        self.passed += 1
        match dict(context.invocation_metadata()).get("x-credential"):
            case "bad":
                raise CallRefusedError(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", "no", check="signature")
            case "expired":
                raise CallRefusedError(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED", "no", check="expired")
            case "no check":
                raise CallRefusedError(grpc.StatusCode.UNAUTHENTICATED, "SIGN_IN_AGAIN", "no")
            case "unsure":
                raise CallRefusedError(grpc.StatusCode.UNAVAILABLE, "AUTHENTICATION_UNAVAILABLE", "no", check="keys_unavailable")
            case "forbidden":
                raise CallRefusedError(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "no", check="scope_missing")
            case "invalid":
                raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED", "no")
            case "bug":
                raise RuntimeError
        yield


class Service(KindsHandler):
    """Does what the request says, each message of a stream by itself, and echoes it."""

    def __init__(self) -> None:
        self.waiting = asyncio.Semaphore(0)
        self.go = asyncio.Event()

    async def act(self, request: bytes, context) -> bytes:
        match request:
            case b"bad":
                raise BadPayloadError("TRANSCRIPT_EMPTY")
            case b"malware":
                raise BadPayloadError("MALWARE_FOUND", grpc.StatusCode.FAILED_PRECONDITION)
            case b"busy":
                raise BadPayloadError("QUEUE_FULL", grpc.StatusCode.RESOURCE_EXHAUSTED)
            case b"bug":
                raise RuntimeError
            case b"REQUEST_TOO_LARGE":
                raise BadPayloadError(request.decode(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            case b"COMPRESSION_REFUSED":
                raise BadPayloadError(request.decode(), grpc.StatusCode.UNIMPLEMENTED)
            case b"REQUEST_INCOMPLETE":
                raise BadPayloadError(request.decode())
            case b"abort":
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "by hand")
            case b"set":
                context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            case b"wait then bad":
                self.waiting.release()
                await self.go.wait()
                raise BadPayloadError("TRANSCRIPT_EMPTY")
            case b"wait":
                self.waiting.release()
                await self.go.wait()
        return request

    async def stream_unary(self, requests, context):
        return b"".join([await self.unary_unary(request, context) async for request in requests])

    async def stream_stream(self, requests, context):
        async for request in requests:
            yield await self.unary_unary(request, context)

    def unary_methods(self):
        return {"Health": self.unary_unary}


class Bench:
    """A server with the guard, its records and its clock."""

    def __init__(self, rules: AbuseRules = RULES, **options) -> None:
        self.events: list[SecurityEvent] = []
        self.now = 1000.0
        self.guard, self.service = Guard(), Service()
        options = {"trusted": (), "exempt": {HEALTH}} | options
        self.abuse = Abuse(rules, record=self.events.append, clock=lambda: self.now, **options)

    @asynccontextmanager
    async def serving(self, address: str = "127.0.0.1:0") -> AsyncIterator[aio.Channel]:
        audit = Audit(self.events.append)
        chain = (Recovery("test"), RequestId(), PeerFromHeader(), audit, self.abuse, self.guard, Requests())
        async with chain_server(chain, self.service, address=address, tls=not address.startswith("unix:")) as server:
            try:
                yield server.channel
            finally:
                self.service.go.set()

    def of(self, *kinds: Event) -> list[SecurityEvent]:
        return [event for event in self.events if event.event in kinds]

    @property
    def blocked(self) -> list[SecurityEvent]:
        return self.of(Event.PEER_BLOCKED)


def start(channel: aio.Channel, kind: str, body: bytes, **headers: str):
    return chain_server_kit.start(channel, kind, body, metadata=[(f"x-{name}", value) for name, value in headers.items()])


async def result(channel: aio.Channel, body: bytes = b"x", *, kind: str = "UnaryUnary", **headers: str) -> str:
    """How a call ends: the reason if there is one, else the code."""
    try:
        await answer(start(channel, kind, body, **headers))
    except aio.AioRpcError as error:
        for detail in status_pb2.Status.FromString(dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                return info.reason
        return error.code().name
    return "OK"


async def several(times: int, channel: aio.Channel, body: bytes = b"x", **headers: str) -> list[str]:
    return [await result(channel, body, **headers) for _ in range(times)]


@pytest.mark.parametrize("kind", KINDS)
async def test_above_the_threshold_calls_are_refused_unread(kind) -> None:
    bench = Bench()
    async with bench.serving() as channel:
        assert await several(4, channel, kind=kind, credential="bad") == ["CREDENTIALS_INVALID"] * 4
        bench.now += 10
        with pytest.raises(aio.AioRpcError) as error:
            await answer(start(channel, kind, b"x"))
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    trailing = dict(error.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, retry.retry_delay.ToMilliseconds()) == ("PEER_BLOCKED", 20_000)
    assert trailing["grpc-retry-pushback-ms"] == "20000"
    assert len(trailing["x-request-id"]) == 32
    assert (bench.guard.passed, bench.service.read) == (4, 0)


async def test_a_block_is_recorded_when_it_begins_and_when_it_ends_only() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        await several(4, channel, credential="bad")
        await several(7, channel)
        bench.now += 30
        assert await result(channel) == "OK"
    blocked, unblocked = bench.of(Event.PEER_BLOCKED, Event.PEER_UNBLOCKED)
    assert len(bench.of(Event.AUTHENTICATION_FAILED)) == 4
    assert len(bench.events) == 6
    assert (blocked.event, blocked.check) == (Event.PEER_BLOCKED, "too_many_failures")
    assert blocked.detail == "for 30 s, block 1: more than 3 a minute"
    assert blocked.method == f"/{SERVICE}/UnaryUnary"
    assert len(blocked.request_id) == 32
    assert (unblocked.event, unblocked.detail) == (Event.PEER_UNBLOCKED, "after 30 s and 7 refused calls")
    assert blocked.peer == unblocked.peer
    assert blocked.peer.startswith("ipv4:127.0.0.1:")


async def test_the_end_of_a_block_is_recorded_with_the_next_call_of_any_peer() -> None:
    bench = Bench(trusted=LOOPBACK)
    async with bench.serving() as channel:
        await several(4, channel, credential="bad", peer="ipv4:192.0.2.1:1")
        bench.now += 29.9
        await result(channel, kind="Health")
        assert bench.of(Event.PEER_UNBLOCKED) == []
        bench.now += 0.1
        await result(channel, kind="Health")
        assert [event.peer for event in bench.of(Event.PEER_UNBLOCKED)] == ["ipv4:192.0.2.1:1"]


async def test_each_block_of_a_peer_is_longer() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        for seconds in (30, 60, 120):
            assert await several(4, channel, credential="bad") == ["CREDENTIALS_INVALID"] * 4
            bench.now += seconds - 0.001
            assert await result(channel) == "PEER_BLOCKED"
            bench.now += 0.001
            assert await result(channel) == "OK"
    details = [event.detail.split(":")[0] for event in bench.blocked]
    assert details == ["for 30 s, block 1", "for 60 s, block 2", "for 120 s, block 3"]


async def test_refused_calls_do_not_prolong_a_block() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        await several(4, channel, credential="bad")
        bench.now += 15
        assert await several(20, channel, credential="bad") == ["PEER_BLOCKED"] * 20
        bench.now += 15
        assert await several(3, channel, credential="bad") == ["CREDENTIALS_INVALID"] * 3
        assert await result(channel) == "OK"


async def test_after_a_block_every_count_starts_at_zero() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        await several(5, channel, b"bad")
        await several(4, channel, credential="bad")
        bench.now += 30
        assert await several(5, channel, b"bad") == ["TRANSCRIPT_EMPTY"] * 5
        assert await several(3, channel, credential="bad") == ["CREDENTIALS_INVALID"] * 3
        assert await result(channel) == "OK"


async def test_successful_calls_do_not_lower_a_count() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        for _ in range(4):
            assert await result(channel) == "OK"
            assert await result(channel, credential="bad") == "CREDENTIALS_INVALID"
        assert await result(channel) == "PEER_BLOCKED"


async def test_rare_failures_do_not_block() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        for _ in range(12):
            assert await result(channel, credential="bad") == "CREDENTIALS_INVALID"
            bench.now += 20.01
    assert bench.blocked == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [b"bad", b"abort", b"set"])
async def test_invalid_payloads_count_in_every_form(kind, body) -> None:
    bench = Bench()
    async with bench.serving() as channel:
        assert "PEER_BLOCKED" not in await several(6, channel, body, kind=kind)
        assert await result(channel) == "PEER_BLOCKED"
    assert [event.check for event in bench.blocked] == ["too_many_invalid"]


async def test_invalid_messages_refused_by_a_guard_count_too() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        await several(6, channel, credential="invalid")
        assert await result(channel) == "PEER_BLOCKED"


async def test_malware_counts_as_ten_invalid_requests() -> None:
    bench = Bench(AbuseRules(invalid_per_minute=19))
    async with bench.serving() as channel:
        assert await several(2, channel, b"malware") == ["MALWARE_FOUND"] * 2
        assert await result(channel) == "PEER_BLOCKED"


@pytest.mark.parametrize("headers", [{"credential": word} for word in ("expired", "no check", "unsure", "forbidden")])
async def test_refusals_that_are_not_a_guess_do_not_count(headers) -> None:
    bench = Bench()
    async with bench.serving() as channel:
        assert "PEER_BLOCKED" not in await several(30, channel, **headers)
    assert bench.blocked == []


@pytest.mark.parametrize("body", [b"busy", b"bug", b"fine"])
async def test_failures_of_the_server_do_not_count(body) -> None:
    bench = Bench()
    async with bench.serving() as channel:
        assert "PEER_BLOCKED" not in await several(30, channel, body)
    assert bench.blocked == []


async def test_kinds_of_failure_are_counted_separately() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        await several(3, channel, credential="bad")
        await several(5, channel, b"bad")
        assert await result(channel) == "OK"
    assert bench.blocked == []


async def test_calls_are_counted_if_they_are_limited() -> None:
    bench = Bench(AbuseRules(calls_per_minute=5))
    async with bench.serving() as channel:
        assert await several(7, channel) == ["OK"] * 5 + ["PEER_BLOCKED"] * 2
        assert bench.guard.passed == 5
        bench.now += 30
        assert await several(6, channel) == ["OK"] * 5 + ["PEER_BLOCKED"]
    assert [event.check for event in bench.blocked] == ["too_many_calls"] * 2


async def test_other_addresses_are_not_blocked() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        await several(4, channel, credential="bad", peer="ipv6:%5B2001:db8::1%5D:1")
        assert await result(channel, peer="ipv6:%5B2001:db8::2%5D:7") == "PEER_BLOCKED"
        assert await result(channel, peer="ipv6:%5B2001:db8:0:1::1%5D:1") == "OK"
        assert await result(channel, peer="ipv4:192.0.2.1:1") == "OK"


async def test_an_address_is_one_peer_over_all_ports_and_protocols() -> None:
    bench = Bench()
    async with bench.serving() as channel:
        for port in range(2):
            await result(channel, credential="bad", peer=f"ipv4:192.0.2.1:{port}")
            await result(channel, credential="bad", peer=f"ipv6:%5B::ffff:192.0.2.1%5D:{port}")
        assert await result(channel, peer="ipv4:192.0.2.1:9") == "PEER_BLOCKED"


async def test_health_is_neither_refused_nor_counted() -> None:
    bench = Bench(AbuseRules(calls_per_minute=5, failures_per_minute=3))
    async with bench.serving() as channel:
        assert await several(30, channel, kind="Health") == ["OK"] * 30
        await several(4, channel, credential="bad")
        assert await result(channel) == "PEER_BLOCKED"
        assert await result(channel, kind="Health") == "OK"


async def test_loopback_is_trusted_by_default() -> None:
    bench = Bench(trusted=LOOPBACK)
    async with bench.serving() as channel:
        assert await several(30, channel, credential="bad") == ["CREDENTIALS_INVALID"] * 30
        for peer in ("ipv6:%5B::1%5D:1", "ipv4:127.1.2.3:1"):
            assert await several(30, channel, credential="bad", peer=peer) == ["CREDENTIALS_INVALID"] * 30
        await several(4, channel, credential="bad", peer="ipv4:192.0.2.1:1")
        assert await result(channel, peer="ipv4:192.0.2.1:1") == "PEER_BLOCKED"


async def test_a_unix_socket_is_not_an_address(tmp_path: Path) -> None:
    bench = Bench()
    async with bench.serving(f"unix:{tmp_path}/s") as channel:
        assert await several(30, channel, credential="bad") == ["CREDENTIALS_INVALID"] * 30
    assert bench.blocked == []


async def test_shadow_mode_records_and_refuses_nothing() -> None:
    bench = Bench(shadow=True)
    async with bench.serving() as channel:
        assert await several(12, channel, credential="bad") == ["CREDENTIALS_INVALID"] * 12
        bench.now += 30
        assert await several(4, channel, credential="bad") == ["CREDENTIALS_INVALID"] * 4
    assert bench.of(Event.PEER_BLOCKED, Event.PEER_UNBLOCKED) == []
    would = bench.of(Event.PEER_WOULD_BLOCK)
    assert [event.detail for event in would] == [
        "for 30 s, block 1: more than 3 a minute",
        "for 60 s, block 2: more than 3 a minute",
    ]


async def test_calls_running_when_a_block_begins_go_on_and_are_not_counted() -> None:
    bench = Bench(AbuseRules(failures_per_minute=3, invalid_per_minute=1))
    async with bench.serving() as channel, asyncio.timeout(30):
        running = [asyncio.ensure_future(result(channel, b"wait then bad")) for _ in range(4)]
        good = asyncio.ensure_future(result(channel, b"wait"))
        for _ in range(5):
            await bench.service.waiting.acquire()
        await several(4, channel, credential="bad")
        assert await result(channel) == "PEER_BLOCKED"
        bench.service.go.set()
        assert await asyncio.gather(*running, good) == ["TRANSCRIPT_EMPTY"] * 4 + ["OK"]
        bench.now += 30
        assert await result(channel) == "OK"
    assert [event.check for event in bench.blocked] == ["too_many_failures"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"calls_per_minute": 0},
        {"failures_per_minute": 0},
        {"invalid_per_minute": -1},
        {"weights": {"MALWARE_FOUND": 0}},
    ],
)
def test_limits_below_one_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        AbuseRules(**wrong)


@pytest.mark.parametrize("wrong", [{"block_seconds": 0}, {"max_block_seconds": 1}, {"ipv4_prefix": 0}, {"ipv6_prefix": 16}])
def test_invalid_rules_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"block|bits"):
        Bench(AbuseRules(**wrong))


@pytest.mark.parametrize(("kind", "headers"), [("Health", {}), ("UnaryUnary", {"credential": "bug"})], ids=["exempt", "guard"])
async def test_errors_of_the_server_that_a_stranger_causes_count(kind, headers) -> None:
    bench = Bench()
    async with bench.serving() as channel:
        assert await several(6, channel, b"bug", kind=kind, **headers) == ["INTERNAL"] * 6
        assert await result(channel) == "PEER_BLOCKED"
        assert await result(channel, kind="Health") == "OK", "a probe learns the truth all the same"
    assert [event.check for event in bench.blocked] == ["too_many_invalid"]


@pytest.mark.parametrize("reason", ["REQUEST_TOO_LARGE", "COMPRESSION_REFUSED", "REQUEST_INCOMPLETE"])
async def test_requests_of_exempt_methods_that_are_refused_count(reason) -> None:
    bench = Bench()
    async with bench.serving() as channel:
        assert await several(6, channel, reason.encode(), kind="Health") == [reason] * 6
        assert await result(channel) == "PEER_BLOCKED"


async def test_exempt_methods_that_work_do_not_count() -> None:
    bench = Bench(AbuseRules(calls_per_minute=5))
    async with bench.serving() as channel:
        assert set(await several(30, channel, kind="Health")) == {"OK"}
    assert bench.blocked == []


async def test_a_block_of_one_server_is_in_force_at_another() -> None:
    shared: list[SharedBlock] = []
    one, other = Bench(share=shared.append), Bench()
    async with one.serving() as channel:
        await several(RULES.failures_per_minute + 1, channel, credential="bad")
    (block,) = shared
    other.abuse.adopt(block)
    other.abuse.adopt(block)
    async with other.serving() as channel:
        assert await result(channel) == "PEER_BLOCKED"
        assert not other.blocked  # recorded once, where it began
        other.now += block.seconds + 1
        assert await result(channel) == "OK"
        assert [event.peer for event in other.of(Event.PEER_UNBLOCKED)] == [block.label]
        await several(RULES.failures_per_minute + 1, channel, credential="bad")
        assert "block 2" in other.blocked[0].detail
