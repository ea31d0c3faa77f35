"""The domain's failures as refusals of the call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aligner_svc.errors import AlignerError
from interceptors.calls.outcome import BY_NUMBER
from interceptors.calls.refusal import BrokenRule, CallRefusedError

DOMAIN = "aligner"
"""Of the ErrorInfo in every refusal."""


def refusal_of(error: AlignerError) -> CallRefusedError:
    """`error` with its status, reason, fields and retry time."""
    broken = [BrokenRule(violation.field, error.reason, violation.description) for violation in error.violations]
    return CallRefusedError(BY_NUMBER[error.status], error.reason, error.message, retry_after=error.retry_after, broken=broken)


@contextmanager
def refusals() -> Iterator[None]:
    """Around the work of an RPC method: raises CallRefusedError for every AlignerError."""
    try:
        yield
    except AlignerError as error:
        raise refusal_of(error) from error
