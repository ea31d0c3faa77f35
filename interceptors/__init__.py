"""The guards that every call passes, as one chain. They know gRPC and nothing of alignment."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from interceptors.abuse.interceptor import Abuse
from interceptors.access_log import AccessLog
from interceptors.antivirus.interceptor import Scan
from interceptors.audit import Audit
from interceptors.auth.authenticate import Authenticate
from interceptors.auth.authorise import Authorise
from interceptors.calls.call import Call, current_call
from interceptors.calls.in_flight import CallsInFlight
from interceptors.calls.outcome import outcome
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.handlers.base import CallInterceptor, Chain, Wrapping
from interceptors.handlers.exempt import ExemptLimits
from interceptors.handlers.requests import Requests
from interceptors.header_limits import HeaderLimits
from interceptors.overload.interceptor import Overload
from interceptors.quota.interceptor import Quota
from interceptors.recovery import Recovery
from interceptors.request_id import RequestId
from interceptors.tracing.interceptor import Tracing

if TYPE_CHECKING:
    from interceptors.metrics import RpcMetrics  # prometheus-client is imported only where metrics are asked for

__all__ = [
    "Abuse",
    "Audit",
    "Authenticate",
    "Authorise",
    "Call",
    "CallInterceptor",
    "CallRefusedError",
    "CallsInFlight",
    "Chain",
    "Event",
    "ExemptLimits",
    "HeaderLimits",
    "Overload",
    "Quota",
    "Record",
    "Recovery",
    "RequestId",
    "Requests",
    "SecurityEvent",
    "chain",
    "current_call",
    "outcome",
]


def chain(
    domain: str,
    *,
    max_metadata_entries: int,
    max_metadata_bytes: int,
    in_flight: CallsInFlight | None = None,
    exempt: Collection[str] = (),
    tracing: Tracing | None = None,
    metrics: RpcMetrics | None = None,
    access_log: AccessLog | None = None,
    record: Record | None = None,
    abuse: Abuse | None = None,
    authenticate: Authenticate | None = None,
    authorise: Authorise | None = None,
    quota: Quota | None = None,
    overload: Overload | None = None,
    scan: Scan | None = None,
    requests: Requests | None = None,
) -> Chain:
    """The guards in the order a call passes them, outermost first, each with the reason for its place; None: left out.

    `domain`: of the ErrorInfo in refusals. `in_flight`: where calls are counted by connection, but those of the methods `exempt`.
    """
    requests = requests or Requests()
    guards: tuple[Wrapping | None, ...] = (
        # Outermost: no exception text reaches a client, not even that of a guard.
        Recovery(domain),
        # Before anything that logs or refuses, so that every line and every refusal carries the id.
        RequestId(in_flight, exempt),
        # Around everything that takes time; below the request id, which a trace names.
        tracing,
        # Around everything that may refuse, so that refused calls are counted and logged too.
        metrics,
        access_log,
        # Around every guard that refuses, and the servicer, whose errors it records.
        Audit(record) if record is not None else None,
        # Before any work is done for a blocked address, and around the guards whose refusals it counts.
        abuse,
        # Before anything that reads headers.
        HeaderLimits(max_metadata_entries, max_metadata_bytes),
        # Before anything that depends on the principal, and anything that costs more than a header.
        authenticate,
        # Once the principal is known, and before anything is spent on a call that it may not make.
        authorise,
        # Each principal gets no more than its share.
        quota,
        # All together get no more than can be served. Below the guards that refuse, so that refused calls do not count.
        overload,
        # Only admitted calls use a connection to the scanner.
        scan,
        # Innermost: no request is read before all guards have let its call pass.
        requests,
        # Below it, because every request above it is a stream.
        metrics.messages if metrics is not None else None,
    )
    return Chain(guard for guard in guards if guard is not None)
