"""What is counted and measured, in one registry: see docs/metrics.md for every name.

Everything is counted in the server's own process. The worker processes count nothing: what they did, how long it took and
that they died is seen by the pools that talk to them, so there is one set of numbers and nothing to merge.
"""

from aligner_svc.telemetry.metrics.calls import CallMetrics
from aligner_svc.telemetry.metrics.engine import EngineMetrics
from aligner_svc.telemetry.metrics.registry import Metrics
from aligner_svc.telemetry.metrics.sources import CacheCounts, Sources

__all__ = ["CacheCounts", "CallMetrics", "EngineMetrics", "Metrics", "Sources"]
