"""The guard chain, outermost first. It knows gRPC and nothing of alignment."""

from __future__ import annotations

from collections.abc import Sequence

from interceptors.base import CallInterceptor
from interceptors.recovery import Describe, Recovery

__all__ = ["CallInterceptor", "Describe", "Recovery", "chain"]


def chain(describe: Describe) -> Sequence[CallInterceptor]:
    """Every interceptor in the order a call passes them, each with the reason for its place."""
    return (
        # Outermost: what the interceptors below raise must not reach a client as exception text either.
        Recovery(describe),
    )
