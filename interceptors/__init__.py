"""The guard chain, outermost first. It knows gRPC and nothing of alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interceptors.abuse.interceptor import Abuse
from interceptors.access_log import AccessLog
from interceptors.antivirus.interceptor import Scan
from interceptors.audit import Audit
from interceptors.auth.authenticate import Authenticate
from interceptors.auth.authorise import Authorise
from interceptors.calls.call import Call, current_call
from interceptors.calls.outcome import outcome
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.handlers.base import CallInterceptor, Chain, Wrapping
from interceptors.handlers.requests import Check, Requests
from interceptors.header_limits import HeaderLimits
from interceptors.overload.interceptor import Overload
from interceptors.quota.interceptor import Quota
from interceptors.recovery import Recovery
from interceptors.request_id import RequestId
from interceptors.tracing.interceptor import Tracing

if TYPE_CHECKING:
    from interceptors.metrics import RpcMetrics  # prometheus-client is for servers that have metrics alone

__all__ = [
    "Abuse",
    "Audit",
    "Authenticate",
    "Authorise",
    "Call",
    "CallInterceptor",
    "CallRefusedError",
    "Chain",
    "Event",
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
    check: Check | None = None,
) -> Chain:
    """Every interceptor in the order a call passes them, each with the reason for its place; without those that are None.

    `domain`: of the ErrorInfo in refusals.
    """
    guards: tuple[Wrapping | None, ...] = (
        # Outermost: what the interceptors below raise must not reach a client as exception text either.
        Recovery(domain),
        # Before anything that logs or refuses, so that every line and every refusal carries the id.
        RequestId(),
        # Around all that takes time; within the request id, which a trace names.
        tracing,
        # Around all that may refuse: what is not counted did not happen.
        metrics,
        access_log,
        # Around every guard that refuses and around the servicer, whose errors it records too.
        Audit(record) if record is not None else None,
        # Before anything is looked at: a blocked address costs nothing. Outside of what refuses, whose refusals it counts.
        abuse,
        # Before anything that reads headers.
        HeaderLimits(max_metadata_entries, max_metadata_bytes),
        # Before anything that depends on who calls, and anything that a stranger should not be able to spend.
        authenticate,
        # With the principal known, and before anything is spent on what it may not do.
        authorise,
        # Of those that may call, each no more than its share.
        quota,
        # Of those within their share, no more than can be served. Last, so that whoever is refused above counts for nothing.
        overload,
        # Of those that are let in, told what comes in and asked for its verdict: a connection to the scanner is not for others.
        scan,
        # Innermost: no request is read until all of the above have let its call pass.
        Requests(check),
        # Behind it, for it alone tells a unary request from a stream.
        metrics.messages if metrics is not None else None,
    )
    return Chain(guard for guard in guards if guard is not None)
