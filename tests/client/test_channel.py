"""What a caller can say of the channel, and what a closed client answers."""

from __future__ import annotations

import logging
import socket

import grpc
import pytest

from aligner_client import Aligner, ApiKey, AsyncAligner, CallCancelledError, PermissionDeniedError, RetryPolicy, UnavailableError
from aligner_client.channel import choose_transport
from tests.kit.scripted_aligner import Fault, scripted_server


@pytest.fixture
def server():
    with scripted_server() as running:
        yield running


class Counting(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    def __init__(self) -> None:
        self.methods: list[str] = []

    def intercept_unary_unary(self, continuation, details, request):
        self.methods.append(details.method)
        return continuation(details, request)

    intercept_stream_stream = intercept_unary_unary


class CountingUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def intercept_unary_unary(self, continuation, details, request):
        self.seen.append("unary")
        return await continuation(details, request)


class CountingStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def intercept_stream_stream(self, continuation, details, requests):
        self.seen.append("stream")
        return await continuation(details, requests)


FAULT = Fault(grpc.StatusCode.UNAVAILABLE, "draining", "DRAINING")


def test_interceptors_see_every_attempt(server, caplog):
    counting = Counting()
    server.script.faults.append(FAULT)
    with Aligner(server.target, interceptors=[counting], retry=RetryPolicy(initial=0.001)) as aligner:
        with caplog.at_level(logging.INFO, logger="aligner_client"):
            aligner.align(b"x", "one")
        aligner.stream_align(b"x", "one")
    assert [method.rpartition("/")[2] for method in counting.methods] == ["Align", "Align", "StreamAlign"]
    assert [record.message.partition(": ")[2] for record in caplog.records] == ["draining (DRAINING)"]


async def test_interceptors_of_asyncio_see_every_attempt_and_errors_keep_their_status(server):
    seen: list[str] = []
    refused = Fault(grpc.StatusCode.PERMISSION_DENIED, "no", "NOT_ALLOWED")
    interceptors = [CountingUnary(seen), CountingStream(seen)]
    async with AsyncAligner(server.target, interceptors=interceptors, retry=RetryPolicy(initial=0.001)) as aligner:
        server.script.faults.append(FAULT)
        await aligner.align(b"x", "one")
        await aligner.stream_align(b"x", "one")
        server.script.faults.append(refused)
        with pytest.raises(PermissionDeniedError, match="NOT_ALLOWED"):
            await aligner.stream_align(b"x" * 200_000, "one")
    assert seen == ["unary", "unary", "stream", "stream"]


def test_the_callers_options_win_but_a_secret_keeps_to_this_machine():
    wanted = [("grpc.keepalive_time_ms", 5), ("grpc.enable_http_proxy", 1)]
    chosen = choose_transport("127.0.0.1:1", None, None, ApiKey("k"), (), options=wanted, load_balancing="pick_first")
    options = dict(chosen.options)
    assert len(options) == len(chosen.options)
    assert (options["grpc.keepalive_time_ms"], options["grpc.enable_http_proxy"]) == (5, 0)
    assert options["grpc.service_config"] == '{"loadBalancingConfig": [{"pick_first": {}}]}'
    assert "round_robin" in dict(choose_transport("aligner.example:1", None, None, None, ()).options)["grpc.service_config"]


@pytest.mark.parametrize(("policy", "least"), [("round_robin", 2), ("pick_first", 1)])
def test_calls_go_to_every_server_of_a_name_unless_told_otherwise(policy, least):
    with scripted_server() as one, scripted_server() as other:
        target = f"ipv4:{one.target},{other.target}"
        with Aligner(target, load_balancing=policy) as aligner:
            for _ in range(20):
                aligner.align(b"x", "one")
        assert sum(bool(server.script.calls) for server in (one, other)) == least


def test_requests_are_compressed_if_the_caller_wants_it(server):
    with Aligner(server.target, compression=grpc.Compression.Gzip) as aligner:
        assert aligner.align(bytes(100_000), "one").words
    assert server.script.calls[0].audio == bytes(100_000)


async def test_a_closed_client_says_so(server):
    aligner = Aligner(server.target)
    aligner.close()
    asynchronous = AsyncAligner(server.target)
    await asynchronous.close()
    for call in (aligner.server_info, lambda: aligner.align(b"x", "one"), lambda: aligner.stream_align(b"x", "one")):
        with pytest.raises(CallCancelledError, match="CLIENT_CLOSED"):
            call()
    for later in (asynchronous.server_info(), asynchronous.align(b"x", "one"), asynchronous.stream_align(b"x", "one")):
        with pytest.raises(CallCancelledError, match="CLIENT_CLOSED"):
            await later
    assert not server.script.calls


def test_an_absent_server_is_unavailable_with_any_policy():
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        target = f"127.0.0.1:{reserved.getsockname()[1]}"
    with Aligner(target, retry=RetryPolicy(attempts=1)) as aligner, pytest.raises(UnavailableError) as raised:
        aligner.server_info()
    assert (raised.value.request_id, raised.value.violations) == ("", ())
