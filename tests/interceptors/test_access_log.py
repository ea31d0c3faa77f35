"""One log line for each call, on a real server with scripted handlers: it agrees with what the client received."""

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
from interceptors import CallInterceptor, CallRefusedError, HeaderLimits, Recovery, RequestId, Requests
from interceptors.access_log import LEVELS, AccessLog
from interceptors.calls.stages import stage
from tests.kit import chain_server as chain_server_kit
from tests.kit.chain_server import KINDS, SERVICE, KindsHandler, answer, authentication, bearer, chain_server
from tests.kit.waiting import forever


@dataclass
class Script(KindsHandler):
    """What the handlers do."""

    action: str = "answer"
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def act(self, request, context) -> bytes:
        self.begun.set()
        match self.action:
            case "abort":
                await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
            case "refuse":
                raise CallRefusedError(grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED", "not you")
            case "domain":
                raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "AUDIO_TOO_LONG", "too long")
            case "fail":
                raise ValueError("the password is hunter2")
            case "hang":
                await forever()
            case "stages":
                with stage("decode", audio_seconds=2.5):
                    pass
                for _ in range(3):
                    with stage("align"):
                        pass
        return b"x"

    async def unary_stream(self, request, context):
        yield await self.act(request, context)
        while self.action == "pour":
            yield bytes(1 << 16)

    async def stream_stream(self, requests, context):
        yield await self.stream_unary(requests, context)
        while self.action == "pour":
            yield bytes(1 << 16)


class Calls(CallInterceptor):
    """Counts the calls that the server is working on."""

    def __init__(self) -> None:
        self.open = 0
        self.none = asyncio.Event()
        self.none.set()

    @asynccontextmanager
    async def around(self, method, context) -> AsyncIterator[None]:
        self.open += 1
        self.none.clear()
        try:
            yield
        finally:
            self.open -= 1
            if not self.open:
                self.none.set()


class Bench:
    """A server with the access log in place, and the lines it left."""

    def __init__(self, script: Script, *, level: str = "debug", limit: LogLimit | None = None, quiet=()) -> None:
        self.script = script
        self._stream = io.StringIO()
        self._logs = {"level": level, "stream": self._stream, "limit": limit or LogLimit(ordinary=LineRate(1e6, 10**6))}
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
            authentication(),
            Requests(),
        )
        with open_logs("json", **self._logs):
            async with chain_server(chain, self.script, grace=30) as server:
                yield server.channel
            # The core has ended its calls; Python may end a cancelled one later.
            await asyncio.wait_for(calls.none.wait(), 30)

    @property
    def all(self) -> list[dict]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    @property
    def lines(self) -> list[dict]:
        """Of calls."""
        return [line for line in self.all if line["logger"] == "interceptors.access_log"]


def start(channel: aio.Channel, kind: str, body=b"body", metadata=(), **named):
    return chain_server_kit.start(channel, kind, body, metadata=[bearer("key:7k2m"), *metadata], **named)


async def status_of(call) -> grpc.StatusCode:
    """The status that the client received."""
    with contextlib.suppress(aio.AioRpcError, asyncio.CancelledError):
        await answer(call)
    return await call.code()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_has_one_line_with_all_fields(script, kind) -> None:
    bench, script.action = Bench(script), "stages"
    async with bench.serving() as channel:
        call = start(channel, kind, metadata=[("x-request-id", "id-1")], timeout=60)
        assert await status_of(call) is grpc.StatusCode.OK
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
    assert line["protocol"] == "grpc"
    assert list(line["stages_ms"]) == ["authenticate", "decode", "align"]
    assert line["duration_ms"] >= sum(line["stages_ms"].values()) >= 0
    # A gRPC client sends the time left, rounded up.
    assert 0 < line["deadline_ms"] <= 60_000 * 1.1
    assert "reason" not in line
    assert "limit_by" not in line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("action", "code", "reason", "level"),
    [
        ("refuse", grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED", "warning"),
        ("domain", grpc.StatusCode.INVALID_ARGUMENT, "AUDIO_TOO_LONG", "info"),
        ("abort", grpc.StatusCode.NOT_FOUND, None, "info"),
        ("fail", grpc.StatusCode.INTERNAL, "INTERNAL", "error"),
    ],
)
async def test_a_failed_call_is_logged_with_the_code_and_reason_sent(script, kind, action, code, reason, level) -> None:
    bench, script.action = Bench(script), action
    async with bench.serving() as channel:
        assert await status_of(start(channel, kind)) is code
    (line,) = bench.lines
    assert (line["code"], line.get("reason"), line["level"]) == (code.name, reason, level)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_refused_by_a_guard_is_logged(script, kind) -> None:
    bench = Bench(script)
    async with bench.serving() as channel:
        # Nothing sent: grpc.aio's client calls it INTERNAL when the refusal arrives while it hands over a message.
        call = start(channel, kind, () if kind.startswith("Stream") else b"", metadata=[("x-much", "x" * 3000)])
        assert await status_of(call) is grpc.StatusCode.RESOURCE_EXHAUSTED
    (line,) = bench.lines
    assert (line["code"], line["reason"], line["level"]) == ("RESOURCE_EXHAUSTED", "HEADERS_TOO_LARGE", "warning")
    assert "principal" not in line


async def test_a_call_of_an_unknown_method_is_logged(script) -> None:
    bench = Bench(script)
    async with bench.serving() as channel:
        assert await status_of(start(channel, "/no.Such/Method")) is grpc.StatusCode.UNIMPLEMENTED
    (line,) = bench.lines
    assert (line["method"], line["code"], line["reason"]) == ("/no.Such/Method", "UNIMPLEMENTED", "METHOD_UNKNOWN")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_cancelled_by_its_client_is_logged_as_cancelled(script, kind) -> None:
    bench, script.action = Bench(script), "hang"
    async with bench.serving() as channel:
        call = start(channel, kind)
        waiting = asyncio.ensure_future(status_of(call))
        await asyncio.wait_for(script.begun.wait(), 30)
        call.cancel()
        assert await waiting is grpc.StatusCode.CANCELLED
    (line,) = bench.lines
    assert (line["code"], line["level"]) == ("CANCELLED", "info")


@pytest.mark.parametrize("kind", ["UnaryStream", "StreamStream"])
async def test_a_call_cancelled_while_it_is_answered_is_logged_as_cancelled(script, kind) -> None:
    """The server waits for flow control, outside the handler."""
    bench, script.action = Bench(script), "pour"
    async with bench.serving() as channel:
        call = start(channel, kind)
        await call.read()
        call.cancel()
        assert await call.code() is grpc.StatusCode.CANCELLED
    (line,) = bench.lines
    assert (line["code"], line["level"], line["request_id"] != "") == ("CANCELLED", "info", True)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_whose_deadline_passed_is_logged_as_such(script, kind) -> None:
    bench, script.action = Bench(script), "hang"
    async with bench.serving() as channel:
        assert await status_of(start(channel, kind, timeout=1)) is grpc.StatusCode.DEADLINE_EXCEEDED
    (line,) = bench.lines
    assert (line["code"], line["level"]) == ("DEADLINE_EXCEEDED", "warning")


async def test_each_call_of_each_code_has_a_line(script) -> None:
    bench = Bench(script)
    seen: Counter[str] = Counter()
    async with bench.serving() as channel:
        for action in ("answer", "refuse", "domain", "fail", "abort"):
            script.action = action
            codes = await asyncio.gather(*(status_of(start(channel, KINDS[number % 4])) for number in range(40)))
            seen.update(code.name for code in codes)
    assert Counter(line["code"] for line in bench.lines) == seen
    assert seen.total() == 200


async def test_in_a_flood_written_and_suppressed_lines_add_up_to_the_calls(script) -> None:
    """Refusals have a limit of their own, so that they suppress no line of a served call."""
    bench, script.action = Bench(script, limit=LogLimit(ordinary=LineRate(0.001, 10))), "refuse"
    async with bench.serving() as channel:
        await asyncio.gather(*(status_of(start(channel, KINDS[number % 4])) for number in range(100)))
        script.action = "answer"
        await asyncio.gather(*(status_of(start(channel, "UnaryUnary")) for _ in range(5)))
    calls = Counter(line["code"] for line in bench.lines if line["event"] == "call")
    left_out = {line["of"]: line["count"] for line in bench.lines if line["event"] == "suppressed"}
    assert calls == {"PERMISSION_DENIED": 10, "OK": 5}
    assert left_out == {"PERMISSION_DENIED": 90}


async def test_quiet_methods_are_logged_at_debug(script) -> None:
    for level, expected in (("debug", ["debug"]), ("info", [])):
        bench = Bench(script, level=level, quiet={f"/{SERVICE}/UnaryUnary"})
        async with bench.serving() as channel:
            await status_of(start(channel, "UnaryUnary"))
        assert [line["level"] for line in bench.lines] == expected
    bench, script.action = Bench(script, level="info", quiet={f"/{SERVICE}/UnaryUnary"}), "fail"
    async with bench.serving() as channel:
        await status_of(start(channel, "UnaryUnary"))
    assert [line["level"] for line in bench.lines] == ["error"]


async def test_a_client_cannot_forge_a_line(script) -> None:
    bench = Bench(script)
    async with bench.serving() as channel:
        await status_of(start(channel, "UnaryUnary", metadata=[("x-request-id", '"},{"event":"forged')]))
    (line,) = bench.lines
    assert "forged" not in json.dumps(line)


def test_levels_are_those_of_go_grpc_middleware() -> None:
    assert set(LEVELS) == set(grpc.StatusCode)
    by_level = {level: {code.name for code in grpc.StatusCode if LEVELS[code] == level} for level in set(LEVELS.values())}
    assert by_level[logging.ERROR] == {"UNKNOWN", "UNIMPLEMENTED", "INTERNAL", "DATA_LOSS"}
    assert by_level[logging.INFO] == {"OK", "NOT_FOUND", "CANCELLED", "ALREADY_EXISTS", "INVALID_ARGUMENT", "UNAUTHENTICATED"}
