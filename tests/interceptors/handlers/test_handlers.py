"""The guard chain around all four kinds of RPC, on a real server with handlers of the test's own."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc._cython import cygrpc

from interceptors import (
    CallInterceptor,
    CallRefusedError,
    Chain,
    HeaderLimits,
    Recovery,
    RequestId,
    Requests,
    chain,
    current_call,
    outcome,
)
from interceptors.handlers.base import Wrapping
from tests.kit.chain_server import KINDS, SERVICE, KindsHandler, answer, chain_server, start
from tests.kit.http2 import http2
from tests.kit.waiting import eventually, forever

ENTRIES, BYTES = 20, 2000


@dataclass
class Script(KindsHandler):
    """What the handlers do, and what was seen."""

    deed: str = "answer"
    seen: list[str] = field(default_factory=list)
    outcomes: list[grpc.StatusCode] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def act(self, request, context) -> bytes:
        match self.deed:
            case "abort":
                await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
            case "refuse":
                refusal = CallRefusedError(grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED", "not you")
                raise refusal  # which refers to this frame, as the frame does to it
            case "fail":
                raise ValueError("the password is hunter2")
            case "hang":
                await forever()
            case "refuse late":
                await eventually(lambda: context.time_remaining() < 0.01)
                raise CallRefusedError(grpc.StatusCode.UNAVAILABLE, "OVERLOADED", "later", retry_after=1.0)
        call = current_call()
        assert call is not None
        return f"{call.request_id} {call.method} {call.peer}".encode()


class Witness(CallInterceptor):
    """Counts how calls end, just inside the recovery, where metrics and audit will stand."""

    def __init__(self, script: Script, name: str) -> None:
        self._script = script
        self._name = name

    @asynccontextmanager
    async def around(self, method, context) -> AsyncIterator[None]:
        self._script.seen.append(f"> {self._name}")
        self._script.begun.set()
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._script.seen.append(f"< {self._name}")
            self._script.outcomes.append(outcome(context, error))
            self._script.ended.put_nowait(self._name)


@asynccontextmanager
async def serving(*interceptors: Wrapping, script: KindsHandler) -> AsyncIterator[aio.Channel]:
    async with chain_server(interceptors, script) as server:
        yield server.channel


def ours() -> tuple[Wrapping, ...]:
    return tuple(chain("test", max_metadata_entries=ENTRIES, max_metadata_bytes=BYTES))


@pytest.fixture
def script() -> Script:
    return Script()


def test_the_order_is_written_down() -> None:
    assert [type(interceptor) for interceptor in ours()] == [Recovery, RequestId, HeaderLimits, Requests]


class Recorder(Wrapping):
    """Notes what it is given to wrap."""

    def __init__(self) -> None:
        self.given: list[tuple[str, object]] = []

    def wrap(self, method, handler):
        self.given.append((method, handler))
        return handler


async def test_a_chain_wraps_a_handler_once_and_keeps_nothing_of_an_unknown_method() -> None:
    recorder = Recorder()
    guards, first, second = Chain([recorder, Requests()]), *(grpc.unary_unary_rpc_method_handler(act) for act in (repr, str))
    served = {"/a/A": first, "/a/B": second}

    async def ask(method: str):
        async def look_up(details):
            return served.get(details.method)

        return await guards.intercept_service(look_up, Details(method))

    made = [await ask(method) for method in ("/a/A", "/a/B", "/a/A", "/a/B")]
    assert (made[0], made[1]) == (made[2], made[3])
    assert made[0] is not made[1]
    assert [method for method, _ in recorder.given] == ["/a/A", "/a/B"]
    served["/a/A"] = second  # another handler for the same method is not mistaken for the one before
    assert (await ask("/a/A")) is not made[0]
    recorder.given.clear()
    for method in ["/b/X"] * 2:
        assert await ask(method) is not None
    assert [method for method, _ in recorder.given] == ["/b/X"] * 2


@dataclass(frozen=True)
class Details:
    method: str


@pytest.mark.parametrize("kind", KINDS)
async def test_interceptors_are_passed_in_order_and_left_in_reverse(script, kind) -> None:
    names = ["first", "second", "third"]
    async with serving(*(Witness(script, name) for name in names), RequestId(), script=script) as channel:
        await answer(start(channel, kind))
        # The client may have its answer before the server has left the last of them.
        assert [await asyncio.wait_for(script.ended.get(), 30) for _ in names] == names[::-1]
    assert script.seen == [*(f"> {name}" for name in names), *(f"< {name}" for name in reversed(names))]


@pytest.mark.parametrize("kind", KINDS)
async def test_recovery_is_outside_of_the_rest(script, kind) -> None:
    """A guard that fails is reported like any other bug; a refusal of the header limits carries the request id."""

    class Broken(CallInterceptor):
        @asynccontextmanager
        async def around(self, method, context) -> AsyncIterator[None]:
            raise RuntimeError("hunter2")
            yield

    async with serving(*ours(), Broken(), script=script) as channel:
        with pytest.raises(aio.AioRpcError) as error:
            await answer(start(channel, kind, metadata=[("x-request-id", "mine")]))
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert dict(error.value.trailing_metadata())["x-request-id"] == "mine"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_call_is_known_inside_and_its_id_returned(script, kind) -> None:
    async with serving(*ours(), script=script) as channel:
        call = start(channel, kind, metadata=[("x-request-id", "abc-1")])
        request_id, method, peer = (await answer(call)).decode().split()
        assert dict(await call.trailing_metadata())["x-request-id"] == "abc-1"
    assert (request_id, method) == ("abc-1", f"/{SERVICE}/{kind}")
    assert peer.startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 129, "line%0abreak", "<script>"])
async def test_an_id_that_is_not_well_formed_is_replaced(script, given) -> None:
    async with serving(*ours(), script=script) as channel:
        metadata = [] if given is None else [("x-request-id", given)]
        made = [(await answer(start(channel, "UnaryUnary", metadata=metadata))).decode().split()[0] for _ in range(2)]
    assert len(set(made)) == 2
    assert all(len(value) == 32 and value.isalnum() for value in made)


async def test_calls_at_a_time_keep_their_own_id(script) -> None:
    async with serving(*ours(), script=script) as channel:
        calls = [start(channel, KINDS[n % 4], metadata=[("x-request-id", f"id-{n}")]) for n in range(40)]
        answers = await asyncio.gather(*map(answer, calls))
    assert [value.split()[0].decode() for value in answers] == [f"id-{n}" for n in range(40)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metadata", [[("x", "1")] * (ENTRIES + 1), [("x", "1" * (BYTES + 1))]], ids=["many", "large"])
async def test_headers_over_the_limit_are_refused_before_the_body_is_read(script, kind, metadata) -> None:
    async with serving(*ours(), script=script) as channel:
        with pytest.raises(aio.AioRpcError) as error:
            await answer(start(channel, kind, bytes(4 << 20), metadata=metadata))
        assert await answer(start(channel, kind))
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(error.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("HEADERS_TOO_LARGE", "test")
    assert len(trailing["x-request-id"]) == 32
    assert script.read in {0, len(b"body")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("deed", "code"),
    [
        ("answer", grpc.StatusCode.OK),
        ("abort", grpc.StatusCode.NOT_FOUND),
        ("refuse", grpc.StatusCode.PERMISSION_DENIED),
        ("fail", grpc.StatusCode.INTERNAL),
    ],
)
async def test_an_end_is_counted_as_what_the_client_sees(script, kind, deed, code) -> None:
    script.deed = deed
    recovery, *others = ours()
    async with serving(Witness(script, "outside"), recovery, *others, script=script) as channel:
        call = start(channel, kind)
        if code is grpc.StatusCode.OK:
            await answer(call)
        else:
            with pytest.raises(aio.AioRpcError):
                await answer(call)
        assert await call.code() == code
        await asyncio.wait_for(script.ended.get(), 30)
    assert script.outcomes == [code]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_that_cannot_be_parsed_is_refused_without_the_parsers_words(script, kind) -> None:
    def parse(raw: bytes) -> bytes:
        raise ValueError("hunter2")

    class Parsing(KindsHandler):
        def service(self, details):
            return script.service(details)._replace(request_deserializer=parse)

    async with serving(*ours(), script=Parsing()) as channel:
        with pytest.raises(aio.AioRpcError) as error:
            await answer(start(channel, kind))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "hunter2" not in str(error.value)
    assert script.read == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_call_is_counted_as_cancelled(script, kind) -> None:
    script.deed = "hang"
    async with serving(Witness(script, "outside"), *ours(), script=script) as channel:
        call = start(channel, kind)
        await asyncio.wait_for(script.begun.wait(), 30)
        call.cancel()
        await asyncio.wait_for(script.ended.get(), 30)
    assert script.outcomes == [grpc.StatusCode.CANCELLED]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_expired_deadline_is_counted_as_one(script, kind) -> None:
    script.deed = "hang"
    async with serving(Witness(script, "outside"), *ours(), script=script) as channel:
        call = start(channel, kind, timeout=0.3)
        with pytest.raises(aio.AioRpcError):
            await answer(call)
        assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(script.ended.get(), 30)
    assert script.outcomes == [grpc.StatusCode.DEADLINE_EXCEEDED]


def test_a_handler_that_writes_its_responses_past_the_interceptors_is_refused() -> None:
    async def writing(request, context) -> None:
        await context.write(b"")

    with pytest.raises(TypeError, match="async generator"):
        Requests().wrap("/a/A", grpc.unary_stream_rpc_method_handler(writing))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deed", ["refuse", "answer"])
async def test_a_call_that_has_ended_keeps_nothing_until_a_garbage_collection(script, kind, deed) -> None:
    """Its state refers to gRPC's buffers, and so to the whole request."""

    def states() -> int:
        return sum(type(one).__name__ in {"_ServicerContext", "CallRefusedError"} for one in gc.get_objects())

    script.deed = deed
    async with serving(Recovery("test"), RequestId(), Requests(), script=script) as channel:
        with suppress(aio.AioRpcError):
            await answer(start(channel, kind))
        gc.collect()
        gc.disable()
        try:
            before = states()
            for _ in range(5):
                with suppress(aio.AioRpcError):
                    await answer(start(channel, kind))
            await eventually(lambda: states() <= before, "the calls to be released", timeout=3)
        finally:
            gc.enable()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_whose_deadline_has_passed_ends_with_deadline_exceeded(script, kind) -> None:
    """Whatever it is refused for. gRPC's own clients often say so before the server does; this one has no clock."""
    script.deed = "refuse late"
    async with chain_server(ours(), script, tls=False) as server, http2(server.target) as client:
        for stream in (1, 3, 5, 7):
            path = f"/{SERVICE}/{kind}"
            await client.send(
                client.request(stream, path, ("grpc-timeout", "80m")), client.data(stream, client.message(b""), end=True)
            )
            fields = await client.fields(stream)
            assert fields.get("grpc-status") == str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
            assert "grpc-retry-pushback-ms" not in fields


def test_what_comes_too_late_for_a_client_leaves_no_traceback(caplog) -> None:
    """GRPC logs one if it learns of the end of a call after a response failed: now and then with "grpc-timeout: 1n"."""
    Recovery("test")
    for text in ('Failed "execute_batch": (<SendStatusFromServerOperation object>,)', "Failed grpc_call_start_batch: 8"):
        try:
            raise cygrpc.ExecuteBatchError(text)
        except aio.InternalError:
            logging.getLogger("grpc._cython.cygrpc").exception("ExecuteBatchError raised in core by servicer method [/a/B]")
    assert [str(record.exc_info[1]) for record in caplog.records] == ["Failed grpc_call_start_batch: 8"]
