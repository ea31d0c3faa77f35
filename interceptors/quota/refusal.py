"""The refusal of a call whose quota is spent: which quota, what is left of it, and when to retry."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.rpc import error_details_pb2

from interceptors.calls.refusal import CallRefusedError
from interceptors.quota.stores.base import Spent

RATELIMIT = "ratelimit"
"""Trailing metadata, the field of https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/."""
_IN_FLIGHT_RETRY = 1.0
"""Seconds. The caller's own calls have to end first, which the server cannot predict."""


def refusal(spent: Spent, subject: str) -> CallRefusedError:
    """RESOURCE_EXHAUSTED with a QuotaFailure, and the time after which the same call would be granted."""
    match spent.kind:
        case "too_large":
            message = f"the call needs more of the quota {spent.name} than its burst, and would never be granted"
            return _refusal("QUOTA_TOO_SMALL", message, spent, subject, None)
        case "in_flight":
            message = f"the quota {spent.name} is used up by the caller's calls in flight"
            return _refusal("QUOTA_EXCEEDED", message, spent, subject, _IN_FLIGHT_RETRY)
        case _:
            return _refusal("QUOTA_EXCEEDED", f"the quota {spent.name} is spent", spent, subject, spent.retry_after)


def _refusal(reason: str, message: str, spent: Spent, subject: str, retry_after: float | None) -> CallRefusedError:
    left = max(0.0, spent.remaining)
    failure = error_details_pb2.QuotaFailure()
    failure.violations.add(
        subject=subject, description=f"{message}; {left:.6g} left", quota_metric=spent.name, quota_id=spent.name
    )
    return CallRefusedError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason,
        message,
        retry_after=retry_after,
        details=(failure,),
        metadata=((RATELIMIT, ratelimit({spent.name: left}, retry_after)),),
    )


def ratelimit(left: Mapping[str, float], seconds: float | None = None) -> str:
    """As in `"requests_per_second";r=19`: r units are left, and in t seconds there will be enough, if that is known."""
    wait = "" if seconds is None else f";t={-int(-seconds // 1)}"
    return ", ".join(f'"{name}";r={max(0, int(units))}{wait}' for name, units in left.items())
