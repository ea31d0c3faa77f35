"""The server's metrics, in one registry; docs/metrics.md lists them.

Everything is counted in the server's own process. The pools that talk to the worker processes measure their work, its
duration and their deaths, so there is one set of numbers and nothing to merge.
"""

from aligner_svc.telemetry.metrics.calls import CallMetrics
from aligner_svc.telemetry.metrics.engine import EngineMetrics
from aligner_svc.telemetry.metrics.registry import Metrics
from aligner_svc.telemetry.metrics.sources import CacheCounts, HttpState, Sources

__all__ = ["CacheCounts", "CallMetrics", "EngineMetrics", "HttpState", "Metrics", "Sources"]
