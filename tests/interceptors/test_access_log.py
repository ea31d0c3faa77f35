"""One line for every call, on a real server with handlers of the test's own: it says what the client was told."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from grpc import aio

from aligner_svc.telemetry.logs.pipeline import open_logs
from aligner_svc.telemetry.logs.rate_limit import LineRate, LogLimit
from interceptors import CallInterceptor, CallRefusedError, HeaderLimits, Recovery, RequestId, Requests, current_call
from interceptors.access_log import LEVELS, AccessLog
from interceptors.calls.principal import Principal
from interceptors.calls.stages import stage

SERVICE = "test.Kinds"
KINDS = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")


@dataclass
class Script:
    """What the handlers do."""

    deed: str = "answer"
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def act(self, context) -> bytes:
        self.begun.set()
        match self.deed:
            case "abort":
                await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
            case "refuse":
                raise CallRefusedError(grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED", "not you")
            case "domain":
                raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "AUDIO_TOO_LONG", "too long")
            case "fail":
                raise ValueError("the password is hunter2")
            case "hang":
                await asyncio.sleep(60)
            case "stages":
                with stage("decode", audio_seconds=2.5):
                    pass
                for _ in range(3):
                    with stage("align"):
                        pass
        return b"x"


def handlers(script: Script) -> grpc.GenericRpcHandler:
    async def unary_unary(request, context):
        return await script.act(context)

    async def unary_stream(request, context):
        yield await script.act(context)
        if script.deed == "pour":
            while True:
                yield bytes(1 << 16)

    async def stream_unary(requests, context):
        async for _ in requests:
            pass
        return await script.act(context)

    async def stream_stream(requests, context):
        async for _ in requests:
            pass
        yield await script.act(context)
        if script.deed == "pour":
            while True:
                yield bytes(1 << 16)

    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "UnaryUnary": grpc.unary_unary_rpc_method_handler(unary_unary),
            "UnaryStream": grpc.unary_stream_rpc_method_handler(unary_stream),
            "StreamUnary": grpc.stream_unary_rpc_method_handler(stream_unary),
            "StreamStream": grpc.stream_stream_rpc_method_handler(stream_stream),
        },
    )


class Named(CallInterceptor):
    """As authentication does."""

    @asynccontextmanager
    async def around(self, method, context) -> AsyncIterator[None]:
        current_call().principal = Principal("key:7k2m", "api_key")
        yield


class Calls(CallInterceptor):
    """Those that the server is at work on."""

    def __init__(self) -> None:
        self._open = 0
        self.none = asyncio.Event()
        self.none.set()

    @asynccontextmanager
    async def around(self, method, context) -> AsyncIterator[None]:
        self._open += 1
        self.none.clear()
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self.none.set()


class Bench:
    """A server with the access log in place, and the lines it left."""

    def __init__(self, script: Script, *, level: str = "debug", limit: LogLimit | None = None, quiet=()) -> None:
        self.script = script
        self._stream = io.StringIO()
        self._open = {"level": level, "stream": self._stream, "limit": limit or LogLimit(ordinary=LineRate(1e6, 10**6))}
        self._quiet = quiet

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[aio.Channel]:
        calls = Calls()
        chain = (
            calls,
            Recovery("test"),
            RequestId(),
            AccessLog(quiet=self._quiet),
            HeaderLimits(20, 2000),
            Named(),
            Requests(),
        )
        with open_logs("json", **self._open):
            server = aio.server(interceptors=chain)
            server.add_generic_rpc_handlers((handlers(self.script),))
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            try:
                async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                    yield channel
            finally:
                await server.stop(30)
                # The core has ended its calls; what Python does about one that was given up may come later.
                await asyncio.wait_for(calls.none.wait(), 30)

    @property
    def all(self) -> list[dict]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    @property
    def lines(self) -> list[dict]:
        """Those of calls."""
        return [line for line in self.all if line["logger"] == "interceptors.access_log"]


def start(channel: aio.Channel, kind: str, requests=(b"body",), **named):
    """`requests`: of the kinds that stream them."""
    path = kind if kind.startswith("/") else f"/{SERVICE}/{kind}"
    match kind:
        case "UnaryStream":
            return channel.unary_stream(path)(b"body", **named)
        case "StreamUnary":
            return channel.stream_unary(path)(iter(requests), **named)
        case "StreamStream":
            return channel.stream_stream(path)(iter(requests), **named)
    return channel.unary_unary(path)(b"body", **named)


async def counted(call) -> grpc.StatusCode:
    """The status as the client has it."""
    with contextlib.suppress(aio.AioRpcError, asyncio.CancelledError):
        if isinstance(call, aio.UnaryUnaryCall | aio.StreamUnaryCall):
            await call
        else:
            async for _ in call:
                pass
    return await call.code()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_has_one_line_that_says_all_of_it(script, kind) -> None:
    bench, script.deed = Bench(script), "stages"
    async with bench.serving() as channel:
        call = start(channel, kind, metadata=[("x-request-id", "id-1")], timeout=60)
        assert await counted(call) is grpc.StatusCode.OK
    (line,) = bench.lines
    assert {name: line[name] for name in ("event", "level", "method", "code", "principal", "request_id", "audio_seconds")} == {
        "event": "call",
        "level": "info",
        "method": f"/{SERVICE}/{kind}",
        "code": "OK",
        "principal": "key:7k2m",
        "request_id": "id-1",
        "audio_seconds": 2.5,
    }
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert line["user_agent"].startswith("grpc-python-asyncio/")
    assert list(line["stages_ms"]) == ["decode", "align"]
    assert line["duration_ms"] >= sum(line["stages_ms"].values()) >= 0
    # A gRPC client sends what is left, rounded up.
    assert 0 < line["deadline_ms"] <= 60_000 * 1.1
    assert "reason" not in line
    assert "limit_by" not in line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("deed", "code", "reason", "level"),
    [
        ("refuse", grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED", "warning"),
        ("domain", grpc.StatusCode.INVALID_ARGUMENT, "AUDIO_TOO_LONG", "info"),
        ("abort", grpc.StatusCode.NOT_FOUND, None, "info"),
        ("fail", grpc.StatusCode.INTERNAL, "INTERNAL", "error"),
    ],
)
async def test_a_call_that_fails_has_the_code_and_the_reason_its_client_was_told(script, kind, deed, code, reason, level) -> None:
    bench, script.deed = Bench(script), deed
    async with bench.serving() as channel:
        assert await counted(start(channel, kind)) is code
    (line,) = bench.lines
    assert (line["code"], line.get("reason"), line["level"]) == (code.name, reason, level)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_no_guard_lets_in_has_its_line(script, kind) -> None:
    bench = Bench(script)
    async with bench.serving() as channel:
        # Nothing sent: grpc.aio's client calls it INTERNAL when the refusal arrives while it hands over a message.
        call = start(channel, kind, requests=(), metadata=[("x-much", "x" * 3000)])
        assert await counted(call) is grpc.StatusCode.RESOURCE_EXHAUSTED
    (line,) = bench.lines
    assert (line["code"], line["reason"], line["level"]) == ("RESOURCE_EXHAUSTED", "HEADERS_TOO_LARGE", "warning")
    assert "principal" not in line


async def test_a_call_to_what_nobody_serves_has_its_line(script) -> None:
    bench = Bench(script)
    async with bench.serving() as channel:
        assert await counted(start(channel, "/no.Such/Method")) is grpc.StatusCode.UNIMPLEMENTED
    (line,) = bench.lines
    assert (line["method"], line["code"], line["reason"]) == ("/no.Such/Method", "UNIMPLEMENTED", "METHOD_UNKNOWN")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_its_client_gave_up_says_so(script, kind) -> None:
    bench, script.deed = Bench(script), "hang"
    async with bench.serving() as channel:
        call = start(channel, kind)
        waiting = asyncio.ensure_future(counted(call))
        await asyncio.wait_for(script.begun.wait(), 30)
        call.cancel()
        assert await waiting is grpc.StatusCode.CANCELLED
    (line,) = bench.lines
    assert (line["code"], line["level"]) == ("CANCELLED", "info")


@pytest.mark.parametrize("kind", ["UnaryStream", "StreamStream"])
async def test_so_does_one_that_was_given_up_while_it_was_answered(script, kind) -> None:
    """The server waits until more may be sent, which is nowhere in the handler."""
    bench, script.deed = Bench(script), "pour"
    async with bench.serving() as channel:
        call = start(channel, kind)
        await call.read()
        call.cancel()
        assert await call.code() is grpc.StatusCode.CANCELLED
    (line,) = bench.lines
    assert (line["code"], line["level"], line["request_id"] != "") == ("CANCELLED", "info", True)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_whose_deadline_passed_says_so(script, kind) -> None:
    bench, script.deed = Bench(script), "hang"
    async with bench.serving() as channel:
        await channel.channel_ready()
        assert await counted(start(channel, kind, timeout=1)) is grpc.StatusCode.DEADLINE_EXCEEDED
    (line,) = bench.lines
    assert (line["code"], line["level"]) == ("DEADLINE_EXCEEDED", "warning")


async def test_there_are_as_many_lines_as_calls_of_each_code(script) -> None:
    bench = Bench(script)
    seen: Counter[str] = Counter()
    async with bench.serving() as channel:
        for deed in ("answer", "refuse", "domain", "fail", "abort"):
            script.deed = deed
            codes = await asyncio.gather(*(counted(start(channel, KINDS[number % 4])) for number in range(40)))
            seen.update(code.name for code in codes)
    assert Counter(line["code"] for line in bench.lines) == seen
    assert seen.total() == 200


async def test_in_a_flood_the_lines_and_what_they_leave_out_are_all_calls(script) -> None:
    """Refusals have a limit of their own, so that they cost no line of a call that was served."""
    bench, script.deed = Bench(script, limit=LogLimit(ordinary=LineRate(0.001, 10))), "refuse"
    async with bench.serving() as channel:
        await asyncio.gather(*(counted(start(channel, KINDS[number % 4])) for number in range(100)))
        script.deed = "answer"
        await asyncio.gather(*(counted(start(channel, "UnaryUnary")) for _ in range(5)))
    calls = Counter(line["code"] for line in bench.lines if line["event"] == "call")
    left_out = {line["of"]: line["count"] for line in bench.lines if line["event"] == "suppressed"}
    assert calls == {"PERMISSION_DENIED": 10, "OK": 5}
    assert left_out == {"PERMISSION_DENIED": 90}


async def test_health_is_for_those_who_debug(script) -> None:
    for level, expected in (("debug", ["debug"]), ("info", [])):
        bench = Bench(script, level=level, quiet={f"/{SERVICE}/UnaryUnary"})
        async with bench.serving() as channel:
            await counted(start(channel, "UnaryUnary"))
        assert [line["level"] for line in bench.lines] == expected
    bench, script.deed = Bench(script, level="info", quiet={f"/{SERVICE}/UnaryUnary"}), "fail"
    async with bench.serving() as channel:
        await counted(start(channel, "UnaryUnary"))
    assert [line["level"] for line in bench.lines] == ["error"]


async def test_no_line_is_forged_by_what_a_caller_says_it_is(script) -> None:
    bench = Bench(script)
    async with bench.serving() as channel:
        await counted(start(channel, "UnaryUnary", metadata=[("x-request-id", '"},{"event":"forged')]))
    (line,) = bench.lines
    assert "forged" not in json.dumps(line)


def test_levels_are_those_of_go_grpc_middleware() -> None:
    assert set(LEVELS) == set(grpc.StatusCode)
    by_level = {level: {code.name for code in grpc.StatusCode if LEVELS[code] == level} for level in set(LEVELS.values())}
    assert by_level[logging.ERROR] == {"UNKNOWN", "UNIMPLEMENTED", "INTERNAL", "DATA_LOSS"}
    assert by_level[logging.INFO] == {"OK", "NOT_FOUND", "CANCELLED", "ALREADY_EXISTS", "INVALID_ARGUMENT", "UNAUTHENTICATED"}
