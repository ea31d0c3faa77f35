"""The grpc.health.v1 service of this server.

No lock is held while a response is sent. `set` stores a status and wakes the Watches; each of them then sends the status that is
the latest when its turn comes, so a client that takes nothing (an HTTP/2 window of 0 bytes) delays itself alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from interceptors.calls.call import Context
from interceptors.calls.refusal import CallRefusedError

_Response = health_pb2.HealthCheckResponse
NOT_SERVING: Final = _Response.NOT_SERVING
SERVING: Final = _Response.SERVING


class GrpcHealth(health_pb2_grpc.HealthServicer):
    """Check, List and Watch. Of a service that is not here nothing is kept; its Watch gets SERVICE_UNKNOWN and waits."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()  # a new one after every change, so that whoever waits for the old one wakes once
        self._draining = self._leaving = False

    @property
    def statuses(self) -> Mapping[str, int]:
        """By name of the service; "" is the whole server."""
        return self._statuses

    def set(self, service: str, status: int) -> None:
        """Once the drain has begun, nothing changes any more."""
        if not self._draining and self._statuses.get(service) != status:
            self._statuses[service] = status
            self._wake()

    def begin_drain(self) -> None:
        """Every service is NOT_SERVING from now on."""
        self._draining = True
        self._statuses = dict.fromkeys(self._statuses, NOT_SERVING)
        self._wake()

    def end_watches(self) -> None:
        """End every Watch, and each new one after its first status: clients never end one, and the drain would wait for it."""
        self._leaving = True
        self._wake()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> _Response:  # noqa: N802
        status = self._statuses.get(request.service)
        if status is None:
            raise CallRefusedError(grpc.StatusCode.NOT_FOUND, "SERVICE_UNKNOWN", "this server has no such service")
        return _Response(status=status)

    async def List(self, request: Any, context: Context) -> Any:  # noqa: N802
        statuses = {name: _Response(status=status) for name, status in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]  # the stubs are older

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> AsyncIterator[_Response]:  # noqa: N802
        sent: int | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, _Response.SERVICE_UNKNOWN)
            if status != sent:
                yield _Response(status=status)  # returns when it is sent; the status may have changed again meanwhile
                sent = status
            elif self._leaving:
                return
            else:
                await changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
