"""The guard chain, outermost first. It knows gRPC and nothing of alignment."""

from __future__ import annotations

from collections.abc import Sequence

from grpc import aio

from interceptors.base import CallInterceptor
from interceptors.call import Call, current_call, outcome
from interceptors.header_limits import HeaderLimits
from interceptors.recovery import Describe, Recovery
from interceptors.refusal import RefusedError
from interceptors.request_id import RequestId
from interceptors.requests import Requests

__all__ = [
    "Call",
    "CallInterceptor",
    "Describe",
    "HeaderLimits",
    "Recovery",
    "RefusedError",
    "RequestId",
    "Requests",
    "chain",
    "current_call",
    "outcome",
]


def chain(
    describe: Describe,
    domain: str,
    *,
    most_metadata_entries: int,
    most_metadata_bytes: int,
) -> Sequence[aio.ServerInterceptor]:
    """Every interceptor in the order a call passes them, each with the reason for its place.

    `domain`: of the ErrorInfo in refusals.
    """
    return (
        # Outermost: what the interceptors below raise must not reach a client as exception text either.
        Recovery(describe, domain),
        # Before anything that logs or refuses, so that every line and every refusal carries the id.
        RequestId(),
        # Before anything that reads headers.
        HeaderLimits(most_metadata_entries, most_metadata_bytes),
        # Innermost: no request is read until all of the above have let its call pass.
        Requests(),
    )
