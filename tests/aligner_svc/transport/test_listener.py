"""No request ends the listener; and if something does, it serves again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from aligner_svc.transport.bind import parse
from aligner_svc.transport.listener import UNKNOWN, Listener, build_server
from interceptors import Call, current_call
from interceptors.handlers.base import CallInterceptor, Chain
from interceptors.handlers.requests import Requests
from interceptors.recovery import Recovery
from interceptors.request_id import RequestId
from tests.kit.http2 import http2
from tests.kit.servers import connect, listening
from tests.kit.waiting import WAIT_TIMEOUT, eventually

ECHO = "/test.Service/Echo"


class Echo:
    """A server with one method, whose calls wait for `gate`."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = 0
        self.calls: list[Call] = []

    def build(self) -> grpc.aio.Server:
        async def echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            self.entered += 1
            await self.gate.wait()
            return request

        server = build_server(
            (Chain((Recovery("test"), RequestId(), _Seen(self.calls), Requests())),), [("grpc.so_reuseport", 0)]
        )
        handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
        server.add_registered_method_handlers("test.Service", handlers)
        return server


class _Seen(CallInterceptor):
    """Keeps the calls that pass."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls

    @asynccontextmanager
    async def around(self, method, context):
        self._calls.append(current_call())
        yield


class Running:
    def __init__(self, echo: Echo, listener: Listener, target: str, restarts: list[tuple[str, str]]) -> None:
        self.echo, self.listener, self.target, self.restarts = echo, listener, target, restarts

    async def call(self, body: bytes = b"hello") -> bytes:
        async with connect(self.target) as channel:
            return await channel.unary_unary(ECHO)(body, timeout=WAIT_TIMEOUT, wait_for_ready=True)

    def break_accepting(self) -> None:
        """Have gRPC's loop fail with the next call it accepts."""

        def fail(method: bytes | None) -> None:
            raise RuntimeError("made to fail")

        self.listener._servers[-1].core._make_request_call_future = fail


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    echo, restarts = Echo(), []
    listener = Listener(echo.build, None, lambda reason, peer: restarts.append((reason, peer)))
    target = str(listener.bind(parse("127.0.0.1:0")))
    await listener.start()
    yield Running(echo, listener, target, restarts)
    echo.gate.set()
    await listener.stop(WAIT_TIMEOUT)
    assert not listening(target)


@pytest.mark.parametrize("path", [b"/\xff", b"\xff", b"/\xc3\x28/\xf0\x28\x8c\x28", b"", b"/", b"*", b"/test.Service/Echo\xff"])
async def test_a_path_that_is_no_text_is_an_unknown_method(running, path, caplog):
    """Decoding it ended the loop that accepts calls: the process lived on, and its port refused everyone."""
    async with http2(running.target) as stranger:
        await stranger.send(stranger.request(1, path), stranger.data(1, stranger.message(b""), end=True))
        fields = await stranger.fields(1)
    assert fields.get("grpc-status", "12") == "12" or ":reset" in fields
    assert await running.call() == b"hello"
    assert running.restarts == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_header_that_is_no_text_is_not_logged(running, caplog):
    """GRPC logged its value, with a traceback, for every stranger who sent one."""
    async with http2(running.target) as stranger:
        secret = ("authorization", b"Bearer hunter2\xff")
        await stranger.send(stranger.request(1, ECHO, secret), stranger.data(1, stranger.message(b"hello"), end=True))
        assert (await stranger.fields(1))["grpc-status"] == "0"
    assert "hunter2" not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_unknown_methods_pass_the_chain(running):
    async with connect(running.target) as channel:
        with pytest.raises(grpc.RpcError) as error:
            await channel.unary_unary("/test.Service/Other")(b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [call.method for call in running.echo.calls] == [UNKNOWN]


async def test_it_serves_again_when_grpc_stops_accepting(running, caplog):
    """The calls in flight on the old server finish; its clients connect to the new one by themselves."""
    running.echo.gate.clear()
    early = asyncio.create_task(running.call(b"early"))
    await eventually(lambda: running.echo.entered == 1, "the call to be in flight")
    running.break_accepting()
    trigger = asyncio.create_task(running.call(b"trigger"))
    await eventually(lambda: len(running.restarts) == 1, "the port to be served again")
    late = asyncio.create_task(running.call(b"late"))
    await eventually(lambda: running.echo.entered == 3, "a call to reach the new server")
    running.echo.gate.set()
    assert await asyncio.gather(early, trigger, late) == [b"early", b"trigger", b"late"]
    reason, peer = running.restarts[0]
    assert reason == "RuntimeError"
    assert peer.startswith("ipv4:127.0.0.1:")
    assert "serving again" in caplog.text


async def test_it_serves_again_as_often_as_it_must(running):
    for turn in range(1, 6):
        running.break_accepting()
        assert await running.call() == b"hello"
        await eventually(lambda turn=turn: len(running.restarts) == turn, "the port to be served again")
    assert await running.call() == b"hello"


async def test_a_port_that_cannot_be_served_again_is_lost(running, monkeypatch):
    """The process has to end then: a health port that answers would hide that nobody is served."""
    monkeypatch.setattr("aligner_svc.transport.listener._RESTART_TIMEOUT", 0.1)
    monkeypatch.setattr(running.listener, "_credentials", _NoCredentials())
    running.break_accepting()
    assert await running.call() == b"hello"
    async with asyncio.timeout(WAIT_TIMEOUT):
        await running.listener.lost.wait()
    assert running.restarts == []


class _NoCredentials:
    """What no port can be opened with."""

    @property
    def _credentials(self) -> None:
        raise RuntimeError("no port for these")
