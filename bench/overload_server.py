"""A gRPC server that sleeps in one of its slots, behind the guards that matter under load."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2_grpc

from aligner_svc.health.grpc_health import SERVING, GrpcHealth
from interceptors import CallRefusedError, Chain, HeaderLimits, Recovery, RequestId, Requests
from interceptors.calls.call import current_call
from interceptors.overload.admission import Priority
from interceptors.overload.interceptor import Overload
from interceptors.overload.limit import AdaptiveLimit, LimitRules
from interceptors.overload.pressure import Groups, Pressure

SLOTS = 4
WORK = 0.1
"""Seconds that a call holds a slot."""
QUEUE = 64
"""Maximum calls that wait for one."""
HEALTH = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})


class SleepingHandler(grpc.GenericRpcHandler):
    """Align that sleeps for WORK seconds, SLOTS calls at a time."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(SLOTS)
        self._waiting = 0
        self._handler = grpc.unary_unary_rpc_method_handler(self._align)

    async def _align(self, request: bytes, context: Any) -> bytes:
        if self._waiting >= QUEUE:
            raise CallRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "ENGINE_QUEUE_FULL", "full", retry_after=1.0)
        call = current_call()
        assert call is not None
        assert call.admission is not None
        async with call.admission.working() as timer:
            came = time.monotonic()
            self._waiting += 1
            try:
                await self._slots.acquire()
            finally:
                self._waiting -= 1
            began = time.monotonic()
            try:
                await asyncio.sleep(WORK)
            finally:
                self._slots.release()
            timer.waited, timer.worked = began - came, time.monotonic() - began
        return b""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._handler if details.method.endswith("/Align") else None


def serve(adaptive: bool, pipe: Connection) -> None:
    """The server process: sends its address, and ends when the pipe closes."""
    asyncio.run(_serve(adaptive, pipe))


async def _serve(adaptive: bool, pipe: Connection) -> None:
    pressure = Pressure(Groups())
    await pressure.start()
    limit = AdaptiveLimit(LimitRules(lowest=SLOTS, initial=2 * SLOTS, highest=SLOTS + QUEUE)) if adaptive else None
    overload = Overload(limit, exempt=HEALTH, priority=lambda call: Priority.NORMAL, pressure=pressure)
    guards = Chain((Recovery("bench"), RequestId(), HeaderLimits(64, 8192), overload, Requests()))
    server = aio.server(interceptors=(guards,))
    health = GrpcHealth()
    health.set("", SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    server.add_generic_rpc_handlers((SleepingHandler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send(f"127.0.0.1:{port}")
    with suppress(EOFError):
        await asyncio.to_thread(pipe.recv)
    await server.stop(0)
    await pressure.close()


@contextmanager
def synthetic(adaptive: bool) -> Iterator[tuple[str, int]]:
    """HOST:PORT and process id of a running server."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(adaptive, theirs))
    process.start()
    theirs.close()
    assert process.pid is not None
    try:
        yield ours.recv(), process.pid
    finally:
        ours.close()
        process.join()
