"""The composition root: builds every part once, connects them, starts them and drains them."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
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
from aligner_svc.heap import RETURN_EVERY, return_unused, share_heaps
from aligner_svc.pipeline import Pipeline
from aligner_svc.rpc.described import pool_of
from aligner_svc.rpc.servicer import AlignerServicer
from aligner_svc.rpc.services import ALIGNER, API, EXEMPT, HEALTH
from aligner_svc.telemetry.logs.pipeline import Logs, open_logs
from aligner_svc.telemetry.logs.stacks import stacks
from aligner_svc.transport.bind import check_exposure, describe, parse
from aligner_svc.transport.channel_options import ChannelOptions
from aligner_svc.transport.connections import ConnectionLimits, Connections
from aligner_svc.transport.listener import Listener, build_server
from aligner_svc.wiring.chain import Guards
from aligner_svc.wiring.engines import OTHER_LANGUAGES, accepted, build_engine
from aligner_svc.workers import WorkerDiedError, forbid_core_dumps
from interceptors.background import BackgroundTask

if TYPE_CHECKING:
    from aligner_svc.wiring.metrics import Measuring
    from aligner_svc.wiring.tracing import Traces

log = logging.getLogger(__name__)

_REFUSE_SECONDS: Final = 2.0
_QUIET_SECONDS: Final = 0.1
"""When draining, new calls are refused until none came for the latter, at most for the former."""


class Service:
    """One running service. `start`, then `drain` once; both on the same event loop."""

    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        """`engine`: instead of the one the settings name. Raises StartError."""
        self._settings = settings
        self.address = ""
        """HOST:PORT in use, once started."""
        self._listen = parse(settings.server.listen)
        check_exposure(self._listen, settings)
        self._health = GrpcHealth()
        self._serving = Serving(self._health, ("", ALIGNER))
        self._traces = _traces(settings, lambda: self.address)
        self._measuring = _measuring(settings)
        watch = self._traces.watch if self._traces is not None else None
        if self._measuring is not None:
            watch = self._measuring.watch(watch)
        self.engine: Engine = engine or build_engine(settings, self._serving.device, watch)
        self._guards = Guards(
            settings,
            self.engine.capacity,
            tracing=self._traces.interceptor if self._traces is not None else None,
            metrics=self._measuring.metrics if self._measuring is not None else None,
        )
        self._limits = accepted(settings.limits, self.engine)
        self.decoder = Decoder(settings.decode, self._limits, settings.decode.sandbox)
        wanted = settings.connections
        limits = ConnectionLimits(wanted.most, wanted.per_address)
        self.connections = Connections(limits, lambda: self._bound, self._guards.in_flight, self._guards.record)
        self._bound = 0
        self._listener = Listener(self._build_server, self._guards.credentials, self._guards.record_restart, exempt=EXEMPT)

    async def start(self) -> None:
        """Listen, load, warm up, report ready. Raises StartError."""
        pipeline = Pipeline(self.decoder, self.engine, self._limits, OTHER_LANGUAGES)
        self._servicer = AlignerServicer(pipeline, self.engine, self._limits)
        # The port first: a mistake there should not cost the seconds that the models take to load.
        try:
            address = self._listener.bind(self._listen)
            self.address, self._bound = str(address), address.port
            await self._guards.start()
            if self._traces is not None:
                await self._traces.export.start()
            if self._measuring is not None:
                self._measuring.read(
                    self._guards,
                    self.engine,
                    self.decoder,
                    self.connections,
                    not_serving=lambda: self._serving.why_not,
                    dropped=self._dropped(),
                )
                await self._measuring.start()
            await self._listener.start()
            await self.connections.start()
            await asyncio.gather(self.decoder.start(), self.engine.start())
        except WorkerDiedError as error:
            await self.close(grace=0)
            raise StartError(f"a worker process does not come up: {error}") from None
        except BaseException:
            await self.close(grace=0)
            raise
        self._serving.begin((*self.decoder.pools, *self.engine.report.pools))

    async def drain(self) -> None:
        """Report NOT_SERVING, wait for load balancers to notice, refuse new calls, then let those in flight finish."""
        await self._serving.drain()
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
        await self._serving.drain()
        await self._listener.stop(grace)
        await self.connections.close()
        await asyncio.gather(self.decoder.close(), self.engine.close())
        await self._guards.close()  # last: the calls that just ended may be audited
        if self._traces is not None:
            await self._traces.export.close()
        if self._measuring is not None:
            await self._measuring.close()

    def reload(self) -> None:
        """Read the files of certificates, policy and quotas now; they are also followed."""
        self._guards.reload()

    @property
    def reached(self) -> str:
        """The address in use, and who can call it."""
        return describe(replace(self._listen, port=self._bound), self._settings)

    @property
    def lost(self) -> asyncio.Event:
        """Set if the port can no longer be served."""
        return self._listener.lost

    @property
    def metrics_address(self) -> str:
        """HOST:PORT of the metrics, "" without them."""
        return self._measuring.server.address if self._measuring is not None else ""

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
        )
        server = build_server((self._guards.interceptors,), options.arguments())
        aligner_pb2_grpc.add_AlignerServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        # Open in the dev profile; otherwise the policy requires the admin scope.
        reflection.enable_server_reflection((ALIGNER, HEALTH), server, pool_of(API))
        return server


async def serve(settings: Settings) -> int:
    """Run until SIGTERM, SIGINT or SIGQUIT, drain, return the exit status. A second signal does not wait.

    SIGHUP reads files again, SIGUSR1 and SIGUSR2 log what every thread and task is doing: none of them ends the server.
    """
    forbid_core_dumps()
    share_heaps()
    returning = BackgroundTask("returning freed memory", partial(asyncio.to_thread, return_unused), every=RETURN_EVERY)
    returning.start()
    logs = open_logs(settings.logs.format, settings.logs.level, key_prefixes=(settings.keys.prefix,))
    try:
        return await _serve(settings, logs)
    finally:
        await returning.close()
        logs.close()


async def _serve(settings: Settings, logs: Logs) -> int:
    service: Service | None = None
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_stop() -> None:
        (hurry if stop.is_set() else stop).set()

    def on_reload() -> None:
        log.info("SIGHUP: reading certificates, policy and quotas again")
        if service is not None:
            service.reload()

    def on_dump() -> None:
        for stack in stacks():
            log.warning("%s", stack)

    _handle({signal.SIGTERM: on_stop, signal.SIGINT: on_stop, signal.SIGQUIT: on_stop, signal.SIGHUP: on_reload})
    _handle(dict.fromkeys((signal.SIGUSR1, signal.SIGUSR2), on_dump))
    try:
        service = Service(settings)
        starting = asyncio.create_task(service.start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        await asyncio.gather(starting)
    except asyncio.CancelledError:
        return 0
    except StartError as error:
        log.error("%s", error)
        return 1
    logs.adopt()  # the engine's libraries install handlers of their own
    print(f"aligner-svc ready on {service.reached}", flush=True)
    lost = asyncio.create_task(service.lost.wait())
    await asyncio.wait((stopping, lost), return_when=asyncio.FIRST_COMPLETED)
    lost.cancel()
    log.info("draining")
    draining, hurrying = asyncio.create_task(service.drain()), asyncio.create_task(hurry.wait())
    await asyncio.wait((draining, hurrying), return_when=asyncio.FIRST_COMPLETED)
    hurrying.cancel()
    if not draining.done():
        draining.cancel()
        await asyncio.wait((draining,))
        await service.close()  # at any stage of the drain: else gRPC's threads and the workers outlive the loop
    return 1 if service.lost.is_set() else 0


def _handle(actions: Mapping[int, Callable[[], object]]) -> None:
    loop = asyncio.get_running_loop()
    for number, action in actions.items():
        loop.add_signal_handler(number, action)


def _measuring(settings: Settings) -> Measuring | None:
    """prometheus-client is imported only where metrics are asked for. Raises StartError."""
    if settings.metrics.listen is None:
        return None
    from aligner_svc.wiring.metrics import Measuring  # noqa: PLC0415

    return Measuring(settings)


def _traces(settings: Settings, address: Callable[[], str]) -> Traces | None:
    """OpenTelemetry is imported only where traces are asked for. Raises StartError."""
    if settings.tracing.endpoint is None:
        return None
    from aligner_svc.wiring.tracing import Traces  # noqa: PLC0415

    try:
        return Traces(settings, address)
    except ValueError as error:
        raise StartError(f"tracing: {error}") from None
