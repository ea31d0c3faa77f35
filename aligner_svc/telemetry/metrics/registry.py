"""All metrics of one server together."""

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
    """A registry of its own, so that several servers in one process do not count together.

    Built before the parts it watches, which need its `rpc`, `calls` and `engine`; `watch` is told of them when they are there.
    `start` and `close` on the event loop.
    """

    def __init__(
        self,
        methods: Mapping[str, str],
        *,
        quota_class: Callable[[Call], str] | None = None,
        trace_id: Callable[[], str] = lambda: "",
    ) -> None:
        """`methods` with their grpc_type, see interceptors.metrics.kinds; `trace_id` of the call that this task serves."""
        # A library-wide switch: the series it leaves out double their number, and no query of ours asks when a count began.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.calls = CallMetrics(self.registry, quota_class)
        self.engine = EngineMetrics(self.registry)
        self.rpc = RpcMetrics(self.registry, methods, trace_id=trace_id, ended=self.calls.ended)
        self._lag = LoopLag(self.registry)
        self._state: StateCollector | None = None
        ProcessCollector(registry=self.registry)

    def watch(self, sources: Sources) -> None:
        """What is read at each scrape. Once."""
        if self._state is not None:
            raise ValueError("the sources are given already")
        self._state = StateCollector(sources)
        self.registry.register(self._state)

    def refresh(self) -> None:
        """Read the sources. On the event loop, for that is what they belong to."""
        if self._state is not None:
            self._state.refresh()

    async def start(self) -> None:
        await self._lag.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._lag.close()
