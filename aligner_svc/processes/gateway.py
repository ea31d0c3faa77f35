"""One of several processes that serve a port: `python -m aligner_svc.processes.gateway DESCRIPTOR`, started by the supervisor."""

from __future__ import annotations

import asyncio
import pickle
import signal
import socket
import sys
from typing import Any

from aligner_svc.config import Settings
from aligner_svc.processes.counts import LinkedStore
from aligner_svc.processes.duplex import Duplex
from aligner_svc.processes.lifetime import Control, live, surroundings
from aligner_svc.processes.signals import handle
from aligner_svc.server import Service
from aligner_svc.telemetry.logs.stacks import log_stacks
from aligner_svc.wiring.protection import Siblings
from interceptors.abuse.blocks import SharedBlock


class Gateway(Control):
    """What the supervisor asks of it and tells it."""

    def __init__(self) -> None:
        super().__init__()
        self.link = Duplex(
            {
                "ping": self._ping,
                "stop": self._stop,
                "hurry": self._hurry,
                "reload": self._reload,
                "dump": self._dump,
                "siblings": self._siblings,
                "block": self._block,
                "metrics": self._metrics,
                "readiness": self._readiness,
            }
        )

    async def run(self, settings: Settings, end: socket.socket) -> int:
        """Serve until the supervisor says stop, or is gone; the exit status."""
        async with surroundings(settings) as logs:
            await self.link.open(end)
            # A service manager may signal every process, and the supervisor says stop as well: that is no reason to hurry.
            handle(end=self.stop.set, reload=self.reload, dump=log_stacks)
            orphaned = asyncio.create_task(self._when_orphaned())
            siblings = Siblings(settings.server.processes, LinkedStore(self.link), self._blocked)
            try:
                return await live(lambda: Service(settings, siblings=siblings), self, logs, self._ready)
            finally:
                orphaned.cancel()
                self.link.close()

    async def _when_orphaned(self) -> None:
        await self.link.closed.wait()
        self.stop.set()

    def _ready(self, service: Service) -> None:
        service.serving.on_change = lambda: self.link.tell("state", service.serving.why_not_alone)
        service.serving.on_change()

    async def _ping(self) -> None:
        """The event loop runs."""

    async def _stop(self) -> None:
        self.stop.set()

    async def _hurry(self) -> None:
        self.stop.set()
        self.hurry.set()

    async def _reload(self) -> None:
        self.reload()

    async def _dump(self) -> None:
        log_stacks()

    async def _siblings(self, too_few: str | None) -> None:
        if self.service is not None:
            self.service.serving.siblings(too_few)

    def _blocked(self, block: SharedBlock) -> None:
        self.link.tell("blocked", block.peer.hex(), *block[1:])

    async def _block(self, peer: str, label: str, level: int, seconds: float) -> None:
        if self.service is not None:
            self.service.adopt(SharedBlock(bytes.fromhex(peer), label, level, seconds))

    async def _metrics(self) -> list[Any]:
        measuring = self.service.measuring if self.service is not None else None
        return await measuring.page() if measuring is not None else []

    async def _readiness(self) -> list[Any]:
        measuring = self.service.measuring if self.service is not None else None
        return measuring.findings() if measuring is not None else []


def main() -> None:
    """Settings come pickled on stdin, from the process that started this one: they hold secrets, and are checked already."""
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2"):  # until they are handled
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    settings: Settings = pickle.load(sys.stdin.buffer)  # noqa: S301
    sys.exit(asyncio.run(Gateway().run(settings, socket.socket(fileno=int(sys.argv[1])))))


if __name__ == "__main__":
    main()
