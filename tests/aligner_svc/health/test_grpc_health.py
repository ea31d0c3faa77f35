"""The health service on a real server, with clients that take nothing of what is sent to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hyperframe.frame import DataFrame, SettingsFrame

from aligner_svc.health.grpc_health import NOT_SERVING, SERVING, GrpcHealth
from interceptors import Recovery, RequestId, Requests
from tests.kit.chain_server import ChainServer, chain_server
from tests.kit.http2 import Connection, http2
from tests.kit.waiting import eventually

UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
NO_WINDOW = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}
WATCH = "/grpc.health.v1.Health/Watch"


@asynccontextmanager
async def served(health: GrpcHealth) -> AsyncIterator[ChainServer]:
    register = partial(health_pb2_grpc.add_HealthServicer_to_server, health)
    guards = (Recovery("test"), RequestId(), Requests())
    async with chain_server(guards, register=register, tls=False) as server:
        yield server


def request(name: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=name)


def stub(server: ChainServer) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(server.channel)


async def watch_without_window(connection: Connection) -> None:
    """A Watch whose answer the client gives no room for."""
    await connection.send(connection.request(1, WATCH), connection.data(1, connection.message(b""), end=True))


@pytest.fixture
def health() -> GrpcHealth:
    made = GrpcHealth()
    made.set("", SERVING)
    made.set("a.B", NOT_SERVING)
    return made


async def test_check_and_list_say_what_was_set(health) -> None:
    async with served(health) as server:
        assert (await stub(server).Check(request())).status == SERVING
        assert (await stub(server).Check(request("a.B"))).status == NOT_SERVING
        listed = (await stub(server).List(health_pb2.HealthListRequest())).statuses
        assert {name: one.status for name, one in listed.items()} == {"": SERVING, "a.B": NOT_SERVING}
        with pytest.raises(grpc.RpcError) as error:
            await stub(server).Check(request("a.C"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watch_gets_each_change_once_and_ends_with_the_drain(health) -> None:
    async with served(health) as server:
        watch = aiter(stub(server).Watch(request("a.B")))
        assert (await anext(watch)).status == NOT_SERVING
        health.set("", NOT_SERVING)  # another service's
        health.set("a.B", NOT_SERVING)  # no change
        health.set("a.B", SERVING)
        assert (await anext(watch)).status == SERVING
        health.begin_drain()
        assert (await anext(watch)).status == NOT_SERVING
        health.set("a.B", SERVING)  # too late
        health.end_watches()
        assert [one.status async for one in watch] == []
        assert [one.status async for one in stub(server).Watch(request("a.B"))] == [NOT_SERVING]


async def test_a_watch_of_an_unknown_service_waits_for_it_and_leaves_nothing(health) -> None:
    async with served(health) as server:
        watch = stub(server).Watch(request("a.C"))
        assert (await anext(aiter(watch))).status == UNKNOWN
        assert set(health.statuses) == {"", "a.B"}
        health.set("a.C", SERVING)
        assert (await anext(aiter(watch))).status == SERVING


async def test_a_client_that_takes_nothing_delays_itself_alone(health) -> None:
    async with served(health) as server, http2(server.target, NO_WINDOW) as silent:
        await watch_without_window(silent)
        await eventually(lambda: len(_watches()) == 1, "the silent Watch to be served")
        watch = aiter(stub(server).Watch(request()))
        assert (await anext(watch)).status == SERVING
        for status in (NOT_SERVING, SERVING, NOT_SERVING):
            health.set("", status)  # returns, whatever the silent one does
            assert (await anext(watch)).status == status
        health.begin_drain()
        health.end_watches()
        assert [one async for one in watch] == []
        assert not any(isinstance(frame, DataFrame) and frame.data for frame in silent.received)


async def test_a_client_that_was_behind_gets_the_latest_status_alone(health) -> None:
    async with served(health) as server, http2(server.target, NO_WINDOW) as slow:
        await watch_without_window(slow)
        await eventually(lambda: len(_watches()) == 1, "the slow Watch to be served")
        for status in (NOT_SERVING, SERVING) * 50:
            health.set("", status)
        health.set("", NOT_SERVING)
        await slow.send(_window_update(1), _window_update(0))
        got: list[int] = []
        async with asyncio.timeout(30):
            while got[-1:] != [NOT_SERVING]:
                frame = await slow.read(30)
                if isinstance(frame, DataFrame):
                    got.append(health_pb2.HealthCheckResponse.FromString(frame.data[5:]).status)
    assert got in ([SERVING, NOT_SERVING], [NOT_SERVING])  # on a busy machine not even the first was on its way


def _window_update(stream: int) -> bytes:
    return b"\x00\x00\x04\x08\x00" + stream.to_bytes(4, "big") + (1 << 16).to_bytes(4, "big")


def _watches() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == f"HandleExceptions[{WATCH}]"]
