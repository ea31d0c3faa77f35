"""Whether this server takes calls: one decision, that gRPC health, /ready, the metric `aligner_ready` and the log tell alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from aligner_svc.health.grpc_health import NOT_SERVING, SERVING, GrpcHealth
from interceptors.background import BackgroundTask

if TYPE_CHECKING:
    from aligner_svc.workers.pool import WorkerPool

log = logging.getLogger(__name__)

_EVERY: Final = 0.25
"""Seconds between two looks at the worker processes."""
_STARTING: Final = "it is starting"


class Serving:
    """SERVING from `begin` to `drain`, as long as the engine's device and at least one worker process of every pool work.

    Of a server of several processes at least half of them have to serve as well.

    Shared dependencies do not count: see readiness.
    """

    def __init__(self, health: GrpcHealth, services: Sequence[str]) -> None:
        """`services`: the names that `health` tells it of. Reported NOT_SERVING from now on."""
        self._health = health
        self._services = tuple(services)
        self._pools: Sequence[WorkerPool] = ()
        self._device_failed: str | None = None
        self._too_few: str | None = None
        self._why_not: str | None = _STARTING
        self._began = False
        self.on_change: Callable[[], object] = lambda: None
        """Called when `why_not` has changed."""
        self._watch = BackgroundTask("watching whether the worker processes work", self._look, every=_EVERY)
        self._tell()

    @property
    def why_not(self) -> str | None:
        """Why it is NOT_SERVING, for operators; None: it is SERVING."""
        return self._why_not

    @property
    def why_not_alone(self) -> str | None:
        """The same, whatever the other processes of the server do."""
        return None if self._why_not is not None and self._why_not == self._too_few else self._why_not

    def begin(self, pools: Sequence[WorkerPool]) -> None:
        """Everything is loaded; `pools` are those that calls need."""
        self._pools = pools
        self._began = True
        self._watch.start()
        self._decide()

    def device(self, failed: str | None) -> None:
        """The engine's device went out of service, for the reason `failed`, or is back (None)."""
        self._device_failed = failed
        self._decide()

    def siblings(self, too_few: str | None) -> None:
        """So few of the server's processes serve that it counts as NOT_SERVING, for the reason `too_few`; None: enough do."""
        self._too_few = too_few
        self._decide()

    async def drain(self) -> None:
        """NOT_SERVING, for good. Idempotent."""
        self._began = False
        self._why_not = "it is draining"
        self.on_change()
        self._health.begin_drain()
        await self._watch.close()

    async def _look(self) -> None:
        self._decide()

    def _decide(self) -> None:
        if not self._began:
            return
        before, now = self._why_not, self._trouble()
        self._why_not = now
        self._tell()
        if now is None and before is not None:
            log.info("SERVING")
        elif now is not None and before in {None, _STARTING}:
            log.error("NOT_SERVING: %s", now)
        if now != before:
            self.on_change()

    def _trouble(self) -> str | None:
        if self._device_failed is not None:
            return f"the engine has failed: {self._device_failed}"
        mine = next((trouble for pool in self._pools if (trouble := pool.trouble) is not None), None)
        return mine or self._too_few

    def _tell(self) -> None:
        for name in self._services:
            self._health.set(name, SERVING if self._why_not is None else NOT_SERVING)
