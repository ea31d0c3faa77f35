"""All metrics of one server."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from aligner_svc.telemetry.metrics.calls import CallMetrics
from aligner_svc.telemetry.metrics.engine import EngineMetrics
from aligner_svc.telemetry.metrics.loop_lag import LoopLag
from aligner_svc.telemetry.metrics.sources import Sources, StateCollector
from interceptors.calls.call import Call
from interceptors.metrics import RpcMetrics


class Metrics:
    """Has a registry of its own, so that several servers in one process do not count together.

    Built before the parts it watches, which need its `rpc`, `calls` and `engine`; `watch` gets them once they are built.
    `start` and `close` on the event loop.
    """

    def __init__(
        self,
        methods: Mapping[str, str],
        *,
        quota_class: Callable[[Call], str] | None = None,
        trace_id: Callable[[], str] = lambda: "",
    ) -> None:
        """`methods` with their grpc_type, see interceptors.metrics.kinds; `trace_id`: of the current call, for exemplars."""
        # Applies to the whole library: *_created would double the number of series, and no query here uses them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.calls = CallMetrics(self.registry, quota_class)
        self.engine = EngineMetrics(self.registry)
        self.rpc = RpcMetrics(self.registry, methods, trace_id=trace_id, on_end=self.calls.on_end)
        self._lag = LoopLag(self.registry)
        self._state: StateCollector | None = None
        ProcessCollector(registry=self.registry)

    def watch(self, sources: Sources) -> None:
        """Read these at each scrape. Call it once."""
        if self._state is not None:
            raise ValueError("the sources are set already")
        self._state = StateCollector(sources)
        self.registry.register(self._state)

    def refresh(self) -> None:
        """Read the sources, on the event loop, to which they belong."""
        if self._state is not None:
            self._state.refresh()

    async def refreshed(self) -> CollectorRegistry:
        """The registry, with the sources read now."""
        self.refresh()
        return self.registry

    async def start(self) -> None:
        await self._lag.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._lag.close()
