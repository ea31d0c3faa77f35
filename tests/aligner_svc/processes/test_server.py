"""One server of two processes: they count together, stand in for each other, and leave together."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import httpx
import psutil
import pytest
import pytest_asyncio

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from tests.kit.daemon import free_port
from tests.kit.http1 import http1, request
from tests.kit.recordings import WORDS
from tests.kit.servers import Command, calling, connect, gone, launched, listening
from tests.kit.uploads import chunks, config, finish, reached, send
from tests.kit.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAMS = 8
"""That the kernel gives 2 x 8 connections to one of two processes happens once in 30,000 times."""
INFO = 'grpc_server_handled_total{grpc_code="OK",grpc_method="GetServerInfo"'


class Server:
    """A running command, and where its metrics are."""

    def __init__(self, command: Command, target: str, metrics: str) -> None:
        self.command, self.target, self.metrics = command, target, metrics

    async def asked(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as http:
            return await http.get(f"http://{self.metrics}{path}")

    async def metric(self, name: str) -> float:
        """The sum of its series."""
        lines = (await self.asked("/metrics")).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    async def idle(self) -> bool:
        """Whether no stream of it has a slot any more."""
        started, handled = [await self.metric(f"grpc_server_{name}_total") for name in ("started", "handled")]
        return started == handled

    async def info(self) -> None:
        async with calling(self.target) as stub:
            await stub.GetServerInfo(pb.GetServerInfoRequest())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "quotas.toml").write_text(f"[classes.default]\nstreams_in_flight = {STREAMS}\n")
    settings = {"QUOTA__FILE": folder / "quotas.toml", "SERVER__DRAIN_DELAY": 0, "METRICS__LISTEN": f"127.0.0.1:{free_port()}"}
    settings["HTTP__LISTEN"] = "127.0.0.1:0"
    given = {f"ALIGNER_{name}": str(value) for name, value in settings.items()}
    async with launched(folder, "--listen", "127.0.0.1:0", "--processes", "2", **given) as command:
        yield Server(command, await command.ready(), given["ALIGNER_METRICS__LISTEN"])


@asynccontextmanager
async def streams(server: Server) -> AsyncIterator[list[grpc.aio.StreamStreamCall]]:
    """Twice as many as are allowed, each of a connection of its own: those that are received, the others refused."""
    channels = [connect(server.target) for _ in range(2 * STREAMS)]
    calls = [AlignerStub(channel).StreamAlign() for channel in channels]

    async def begin(call: grpc.aio.StreamStreamCall) -> bool:
        try:
            await send(call, [config(), next(chunks())])
            await reached(call, pb.Progress.STAGE_RECEIVING)
        except grpc.RpcError:  # of the refused ones some are INTERNAL here: the status came between two writes
            return False
        return True

    begun = await asyncio.gather(*map(begin, calls))
    try:
        yield [call for call, good in zip(calls, begun, strict=True) if good]
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))
        await eventually(server.idle)


async def test_the_ready_line_and_readiness_say_how_many_there_are(server):
    assert "this machine only, 2 processes)" in server.command.log
    report = (await server.asked("/ready")).json()
    assert report["ready"]
    assert {"check": "processes", "state": "ok", "said": "2 of 2 processes serve", "hint": ""} in report["findings"]


async def test_a_limit_holds_for_both_together(server):
    async with streams(server) as begun:
        assert len(begun) == STREAMS
        assert await server.metric('aligner_failures_total{grpc_code="ResourceExhausted",reason="QUOTA_EXCEEDED"}') == STREAMS


async def test_both_answer_over_http(server):
    address = server.command.log.partition("HTTP on ")[2].split()[0]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(http1(address)) for _ in range(2 * STREAMS)]
        for client in clients:
            await client.send(request("GET", "/v1/info"))
        assert [(await client.reply()).status for client in clients] == [200] * 2 * STREAMS
        assert await server.metric('aligner_connections{protocol="http"}') == 2 * STREAMS
        assert await server.metric(INFO) == 2 * STREAMS
        for gateway in server.command.children():
            ends = [f"{each.laddr.ip}:{each.laddr.port}" for each in psutil.Process(gateway).net_connections() if each.raddr]
            assert address in ends


async def test_one_page_has_the_calls_of_both_and_loses_none_when_one_is_killed(server):
    before = await server.metric(INFO)
    for _ in range(2 * STREAMS):
        await server.info()
    assert await server.metric(INFO) == before + 2 * STREAMS
    async with streams(server) as begun:
        assert len(begun) == STREAMS
        os.kill(server.command.children()[0], signal.SIGKILL)
        await eventually(lambda: "ended with status -9" in server.command.log)
        report = (await server.asked("/ready")).json()
        assert report["ready"]
        assert "1 of 2 processes serve" in [finding["said"] for finding in report["findings"]]
        assert await server.metric(INFO) == before + 2 * STREAMS
        await server.info()  # the other one takes every new connection

    async def whole() -> bool:
        return await server.metric("aligner_processes ") == 2

    await eventually(whole)
    assert await server.metric("aligner_process_restarts_total") == 1
    async with streams(server) as begun:  # the slots of the killed process are free
        assert len(begun) == STREAMS


async def test_a_signal_lets_the_calls_of_both_finish(server):
    """The last test of this server."""
    processes = server.command.children()
    async with streams(server) as begun:
        server.command.process.terminate()
        await eventually(lambda: not listening(server.target), "new connections to be refused")
        await asyncio.gather(*(send(call, list(chunks())[1:]) for call in begun))
        answers = await asyncio.gather(*map(finish, begun))
    assert [[word.text for word in answer.words] for answer in answers] == [list(WORDS)] * STREAMS
    assert await server.command.exit_code() == 0
    assert "Traceback" not in server.command.log, server.command.log
    await gone(processes)
