"""Metrics of calls beyond their number (see interceptors.metrics): their audio and stages, failures, decisions of guards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import grpc
from google.rpc import error_details_pb2
from prometheus_client import CollectorRegistry, Counter, Histogram

from aligner_svc.telemetry.metrics.labels import OTHER, Bounded
from interceptors.calls.call import Call, StageTiming
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.metrics import CODES, CompletedCall
from interceptors.quota.classes import AUDIO_DAY, AUDIO_MINUTE, BYTES, CALLS, REQUESTS, STREAMS

AUDIO_BUCKETS: Final = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0)
"""Seconds of audio: clips, minutes, and hours up to the limit."""
FACTOR_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds of work for a second of audio. The embedded engine needs 0.02 to 0.04, in noise 0.1, a GPU a hundredth of that; 1 is
slower than real time."""
STAGE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds. Decoding a clip takes 8 ms, scanning it some ms, aligning it 60 to 250 ms."""

WORK: Final = ("decode", "align")
"""The stages that count for the real-time factor."""
_STAGES: Final = ("decode", "scan", "queue", "align")
AUDIO_SECONDS: Final = "audio_seconds"
"""The attribute of a stage that has the length of the audio."""

_DIMENSIONS: Final = (REQUESTS, AUDIO_MINUTE, AUDIO_DAY, BYTES, CALLS, STREAMS)
_QUOTA: Final = frozenset({"QUOTA_EXCEEDED", "QUOTA_TOO_SMALL"})
_FAILED_LOGINS: Final = frozenset({Event.AUTHENTICATION_FAILED, Event.KEY_USED_AFTER_REVOCATION})
_MISSED: Final = {"DEADLINE_UNREACHABLE": "door", "DEADLINE_EXPIRED": "queue"}
"""Where a call ran out of time, by the reason it was refused with."""


class CallMetrics:
    """`on_end` is called at the end of every call (see interceptors.metrics), `recording` wraps the audit log.

    `quota_class`: the name of a call's quota class; None: there are no quotas.
    """

    def __init__(self, registry: CollectorRegistry, quota_class: Callable[[Call], str] | None = None) -> None:
        self._quota_class = quota_class
        # More than this service and its operator have names for; further values would be a mistake.
        self._stage, self._reason, self._check, self._class = Bounded(16, _STAGES), Bounded(128), Bounded(64), Bounded(64)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"aligner_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"aligner_{name}", what, labels, buckets=buckets, registry=registry)

        self._audio = histogram("audio_seconds", "Seconds of audio of each recording that was decoded.", AUDIO_BUCKETS)
        what = "Seconds of decoding and aligning, without waiting, for a second of audio; of calls that succeeded."
        self._factor = histogram("real_time_factor", what, FACTOR_BUCKETS)
        what = "Seconds a call spent in a stage, all its windows together."
        # Of what every call counts, the series are kept: a lookup by labels costs more than counting.
        self._stages = lru_cache(64)(histogram("stage_seconds", what, STAGE_BUCKETS, "stage").labels)
        for stage in _STAGES:
            self._stages(stage)
        what = "Calls that ended with an error of this service, by the reason sent to their caller."
        self._failures = counter("failures_total", what, "reason", "grpc_code")
        what = "Calls that ran out of time: at the door, in the engine's queue, or anywhere else in the call."
        self._late = counter("deadlines_missed_total", what, "where")
        for where in (*_MISSED.values(), "call"):
            self._late.labels(where)
        what = "Decisions of the quotas, by class. dimension: the quota that was exceeded; any, where the call was granted."
        self._quota = lru_cache(256)(counter("quota_decisions_total", what, "quota_class", "dimension", "decision").labels)
        self._logins = counter("auth_failures_total", "Credentials that were not accepted, by the check they failed.", "check")
        what = "Addresses that were blocked, by the rule they broke."
        self._blocks = counter("blocks_total", what, "check")
        for check in ("too_many_calls", "too_many_failures", "too_many_invalid"):
            self._blocks.labels(check)
        self._events = counter("security_events_total", "Lines of the audit log, by event.", "event")
        for event in Event:
            self._events.labels(event.value)

    def on_end(self, end: CompletedCall) -> None:
        """Count one finished call."""
        call = end.call
        if call is not None and call.stages:
            self._count_stages(call.stages, end)
        if call is not None and self._quota_class is not None:
            self._count_quota(self._quota_class, call, end.error)
        if end.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._late.labels("call").inc()
        elif end.error is not None and end.code is not grpc.StatusCode.CANCELLED:
            self._count_failure(end.error, end.code)

    def recording(self, record: Record) -> Record:
        """Return `record` with its events counted."""

        def counted(event: SecurityEvent) -> None:
            self.event(event)
            record(event)

        return counted

    def event(self, event: SecurityEvent) -> None:
        """Count one line of the audit log."""
        self._events.labels(event.event.value).inc()
        if event.event in _FAILED_LOGINS:
            self._logins.labels(self._check(event.check or OTHER)).inc()
        elif event.event is Event.PEER_BLOCKED:
            self._blocks.labels(self._check(event.check or OTHER)).inc()

    def _count_stages(self, stages: Sequence[StageTiming], end: CompletedCall) -> None:
        seconds: defaultdict[str, float] = defaultdict(float)
        audio = 0.0
        for stage in stages:
            seconds[self._stage(stage.name)] += stage.seconds
            length = stage.attributes.get(AUDIO_SECONDS)
            if isinstance(length, int | float):
                audio = max(audio, length)
        exemplar = {"trace_id": end.trace_id} if end.trace_id else None
        for name, spent in seconds.items():
            self._stages(name).observe(spent, exemplar)
        if audio:
            self._audio.observe(audio)
            if end.code is grpc.StatusCode.OK:
                self._factor.observe(sum(seconds.get(name, 0.0) for name in WORK) / audio, exemplar)

    def _count_quota(self, quota_class: Callable[[Call], str], call: Call, error: BaseException | None) -> None:
        if isinstance(error, CallRefusedError) and error.reason in _QUOTA:
            self._quota(self._class(quota_class(call)), _dimension(error), "refused").inc()
        elif call.meter is not None:
            self._quota(self._class(quota_class(call)), "any", "granted").inc()

    def _count_failure(self, error: BaseException, code: grpc.StatusCode) -> None:
        reason = getattr(error, "reason", None)
        if not isinstance(reason, str):
            if code is not grpc.StatusCode.INTERNAL:
                return  # an abort without a reason
            reason = "INTERNAL"
        self._failures.labels(self._reason(reason), CODES[code]).inc()
        if reason in _MISSED:
            self._late.labels(_MISSED[reason]).inc()


def _dimension(error: CallRefusedError) -> str:
    """The quota that was exceeded, from the QuotaFailure."""
    for detail in error.details:
        if isinstance(detail, error_details_pb2.QuotaFailure):
            for violation in detail.violations:
                if violation.quota_metric in _DIMENSIONS:
                    return str(violation.quota_metric)
    return OTHER
