"""One service from its start to its end, and what signals or a supervisor have it do meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from aligner_svc.config import Settings
from aligner_svc.errors import StartError
from aligner_svc.heap import RETURN_EVERY, return_unused, share_heaps
from aligner_svc.processes.signals import handle
from aligner_svc.server import Service
from aligner_svc.telemetry.logs.pipeline import Logs, open_logs
from aligner_svc.telemetry.logs.stacks import log_stacks
from aligner_svc.workers import forbid_core_dumps
from interceptors.background import BackgroundTask

log = logging.getLogger("aligner_svc.server")


class Control:
    """What the service is told while it runs."""

    def __init__(self) -> None:
        self.service: Service | None = None
        self.stop, self.hurry = asyncio.Event(), asyncio.Event()
        """Drain; and do not wait for calls any longer."""

    def end(self) -> None:
        """Stop; the second time, hurry."""
        (self.hurry if self.stop.is_set() else self.stop).set()

    def reload(self) -> None:
        """Read the files of certificates, policy and quotas again."""
        log.info("SIGHUP: reading certificates, policy and quotas again")
        if self.service is not None:
            self.service.reload()


async def serve_alone(settings: Settings) -> int:
    """Serve in this process until a signal ends it; the exit status."""
    control = Control()
    async with surroundings(settings) as logs:
        handle(end=control.end, reload=control.reload, dump=log_stacks)

        def ready(service: Service) -> None:
            print(f"aligner-svc ready on {service.reached}", flush=True)

        return await live(lambda: Service(settings), control, logs, ready)


@asynccontextmanager
async def surroundings(settings: Settings) -> AsyncIterator[Logs]:
    """What a process that handles callers' data has: no core dumps, a heap that returns memory, the log."""
    forbid_core_dumps()
    share_heaps()
    returning = BackgroundTask("returning freed memory", partial(asyncio.to_thread, return_unused), every=RETURN_EVERY)
    returning.start()
    logs = open_logs(settings.logs.format, settings.logs.level, key_prefixes=(settings.keys.prefix,))
    try:
        yield logs
    finally:
        await returning.close()
        logs.close()


async def live(build: Callable[[], Service], control: Control, logs: Logs, ready: Callable[[Service], None]) -> int:
    """Start the service, have it serve until `control` stops it or its port is lost, and drain it; the exit status."""
    try:
        service = control.service = build()
        starting = asyncio.create_task(service.start())
        stopping = asyncio.create_task(control.stop.wait())
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
    ready(service)
    lost = asyncio.create_task(service.lost.wait())
    await asyncio.wait((stopping, lost), return_when=asyncio.FIRST_COMPLETED)
    lost.cancel()
    log.info("draining")
    draining, hurrying = asyncio.create_task(service.drain()), asyncio.create_task(control.hurry.wait())
    await asyncio.wait((draining, hurrying), return_when=asyncio.FIRST_COMPLETED)
    hurrying.cancel()
    if not draining.done():
        draining.cancel()
        await asyncio.wait((draining,))
        await service.close()  # at any stage of the drain: else gRPC's threads and the workers outlive the loop
    return 1 if service.lost.is_set() else 0
