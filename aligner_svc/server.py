"""The composition root: builds every part once, connects them, starts them and drains them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from grpc import aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from aligner_client.api.v1 import aligner_pb2_grpc
from aligner_svc.audio.decode import Decoder
from aligner_svc.config import Settings
from aligner_svc.engines.base import Engine
from aligner_svc.errors import StartError
from aligner_svc.health.grpc_health import GrpcHealth
from aligner_svc.health.serving import Serving
from aligner_svc.pipeline import Pipeline
from aligner_svc.rpc.described import pool_of
from aligner_svc.rpc.servicer import AlignerServicer
from aligner_svc.rpc.services import ALIGNER, API, EXEMPT, HEALTH
from aligner_svc.transport.bind import check_exposure, describe, parse
from aligner_svc.transport.channel_options import ChannelOptions
from aligner_svc.transport.connections import ConnectionLimits, Connections
from aligner_svc.transport.listener import Listener, build_server
from aligner_svc.wiring.chain import Guards
from aligner_svc.wiring.engines import OTHER_LANGUAGES, accepted, build_engine
from aligner_svc.wiring.protection import Siblings
from aligner_svc.workers import WorkerDiedError
from interceptors.abuse.blocks import SharedBlock

if TYPE_CHECKING:
    from aligner_svc.http.door import Door
    from aligner_svc.wiring.metrics import Measuring
    from aligner_svc.wiring.tracing import Traces

_REFUSE_SECONDS: Final = 2.0
_QUIET_SECONDS: Final = 0.1
"""When draining, new calls are refused until none came for the latter, at most for the former."""


class Service:
    """One running service. `start`, then `drain` once; both on the same event loop."""

    def __init__(self, settings: Settings, engine: Engine | None = None, siblings: Siblings | None = None) -> None:
        """`engine`: instead of the one the settings name. Raises StartError.

        With `siblings` it shares its port with them, which it takes when everything is loaded, and has no port for metrics.
        """
        self._settings = settings
        self._shared = siblings is not None
        self.address = ""
        """HOST:PORT in use, once started."""
        self._listen = parse(settings.server.listen)
        check_exposure(self._listen, settings)
        self._health = GrpcHealth()
        self.serving = Serving(self._health, ("", ALIGNER))
        self._traces = _traces(settings, lambda: self.address)
        self.measuring = _measuring(settings, served=not self._shared)
        watch = self._traces.watch if self._traces is not None else None
        if self.measuring is not None:
            watch = self.measuring.watch(watch)
        self.engine: Engine = engine or build_engine(settings, self.serving.device, watch)
        self._guards = Guards(
            settings,
            self.engine.capacity,
            tracing=self._traces.interceptor if self._traces is not None else None,
            metrics=self.measuring.metrics if self.measuring is not None else None,
            siblings=siblings,
        )
        self._limits = accepted(settings.limits, self.engine)
        self.decoder = Decoder(settings.decode, self._limits, settings.decode.sandbox)
        wanted = settings.connections
        limits = ConnectionLimits(wanted.most, wanted.per_address)
        self.connections = Connections(limits, lambda: self._bound, self._guards.in_flight, self._guards.record)
        self._bound = 0
        guards = self._guards
        self._door: Door | None = None
        self._http = None if settings.http.listen is None else parse(settings.http.listen)
        if self._http is not None:
            check_exposure(self._http, settings)
        self._listener = Listener(
            self._build_server, guards.credentials, guards.record_restart, exempt=EXEMPT, shared=self._shared
        )

    async def start(self) -> None:
        """Listen, load, warm up, report ready. Raises StartError."""
        pipeline = Pipeline(self.decoder, self.engine, self._limits, OTHER_LANGUAGES)
        self._servicer = AlignerServicer(pipeline, self.engine, self._limits)
        try:
            if self._http is not None:
                from aligner_svc.wiring.http import build_door  # noqa: PLC0415 - only where it is asked for

                register = partial(aligner_pb2_grpc.add_AlignerServicer_to_server, self._servicer)
                self._door = build_door(self._settings, self._guards, register, self._limits)
                self._door.bind(self._http, shared=self._shared)
            if not self._shared:  # the port first: a mistake there should not cost the seconds that the models take to load
                self._bind()
            await self._guards.start()
            if self._traces is not None:
                await self._traces.export.start()
            if self.measuring is not None:
                self.measuring.read(
                    self._guards,
                    self.engine,
                    self.decoder,
                    self.connections,
                    self._door,
                    not_serving=lambda: self.serving.why_not,
                    dropped=self._dropped(),
                )
                await self.measuring.start()
            if not self._shared:
                await self._listener.start()
            await self.connections.start()
            await asyncio.gather(self.decoder.start(), self.engine.start())
            if self._shared:  # the kernel would give it connections before it can serve them
                self._bind()
                await self._listener.start()
            if self._door is not None:  # gRPC tells callers while the models load; a door that opens then is simpler to use
                await self._door.start()
        except WorkerDiedError as error:
            await self.close(grace=0)
            raise StartError(f"a worker process does not come up: {error}") from None
        except BaseException:
            await self.close(grace=0)
            raise
        self.serving.begin((*self.decoder.pools, *self.engine.report.pools))

    def _bind(self) -> None:
        address = self._listener.bind(self._listen)
        self.address, self._bound = str(address), address.port

    async def drain(self) -> None:
        """Report NOT_SERVING, wait for load balancers to notice, refuse new calls, then let those in flight finish."""
        await self.serving.drain()
        await asyncio.sleep(self._settings.server.drain_delay)
        self._health.end_watches()
        await self._refuse_new_calls()
        await self.close(self._settings.server.drain_grace)

    async def _refuse_new_calls(self) -> None:
        """Until clients have stopped making any: gRPC ends calls that arrive while it stops with CANCELLED.

        Of 16 busy connections 12 to 15 lost a call that way: https://github.com/grpc/grpc/issues/41785. A refusal is UNAVAILABLE,
        with a time to retry after.
        """
        overload = self._guards.protection.overload
        overload.draining = True
        clock = asyncio.get_running_loop().time
        refused, since, end = -1, clock(), clock() + _REFUSE_SECONDS
        while clock() < min(end, since + _QUIET_SECONDS):
            if overload.refused["SERVER_DRAINING"] != refused:
                refused, since = overload.refused["SERVER_DRAINING"], clock()
            await asyncio.sleep(_QUIET_SECONDS / 10)

    async def close(self, grace: float = 0.0) -> None:
        """End every call after `grace` seconds, then the workers. Idempotent."""
        await self.serving.drain()
        await asyncio.gather(self._listener.stop(grace), *([self._door.stop(grace)] if self._door is not None else []))
        await self.connections.close()
        await asyncio.gather(self.decoder.close(), self.engine.close())
        await self._guards.close()  # last: the calls that just ended may be audited
        if self._traces is not None:
            await self._traces.export.close()
        if self.measuring is not None:
            await self.measuring.close()

    def reload(self) -> None:
        """Read the files of certificates, policy and quotas now; they are also followed."""
        self._guards.reload()

    def adopt(self, block: SharedBlock) -> None:
        """Block what another process of the server has blocked."""
        if self._guards.protection.abuse is not None:
            self._guards.protection.abuse.adopt(block)

    @property
    def reached(self) -> str:
        """The address in use, and who can call it."""
        found = describe(replace(self._listen, port=self._bound), self._settings)
        return f"{found}, HTTP on {self.http_address}" if self._door is not None else found

    @property
    def http_address(self) -> str:
        """HOST:PORT of the HTTP door, "" without one."""
        return self._door.address if self._door is not None else ""

    @property
    def lost(self) -> asyncio.Event:
        """Set if the port can no longer be served."""
        return self._listener.lost

    @property
    def metrics_address(self) -> str:
        """HOST:PORT of the metrics, "" without them."""
        server = self.measuring.server if self.measuring is not None else None
        return server.address if server is not None else ""

    def _dropped(self) -> dict[str, Callable[[], int]]:
        """Dropped-record counters by kind."""
        dropped = dict(self._guards.dropped)
        traces = self._traces
        if traces is not None:
            dropped["trace"] = lambda: traces.export.counts.dropped
        return dropped

    def _build_server(self) -> aio.Server:
        limits = self._limits
        wanted = self._settings.connections
        options = ChannelOptions(
            receive_bytes=limits.message_bytes,
            metadata_bytes=2 * limits.metadata_bytes,  # so that somewhat over the limit is refused with a reason
            connections=wanted.most,
            streams=wanted.streams,
            age_seconds=wanted.age,
            age_grace_seconds=wanted.age_grace,
            share_port=self._shared,
        )
        server = build_server((self._guards.interceptors,), options.arguments())
        aligner_pb2_grpc.add_AlignerServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        # Open in the dev profile; otherwise the policy requires the admin scope.
        reflection.enable_server_reflection((ALIGNER, HEALTH), server, pool_of(API))
        return server


def _measuring(settings: Settings, *, served: bool) -> Measuring | None:
    """prometheus-client is imported only where metrics are asked for. Raises StartError."""
    if settings.metrics.listen is None:
        return None
    from aligner_svc.wiring.metrics import Measuring  # noqa: PLC0415

    return Measuring(settings, served=served)


def _traces(settings: Settings, address: Callable[[], str]) -> Traces | None:
    """OpenTelemetry is imported only where traces are asked for. Raises StartError."""
    if settings.tracing.endpoint is None:
        return None
    from aligner_svc.wiring.tracing import Traces  # noqa: PLC0415

    try:
        return Traces(settings, address)
    except ValueError as error:
        raise StartError(f"tracing: {error}") from None
