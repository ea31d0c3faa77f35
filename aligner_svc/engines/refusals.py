"""The errors that engines refuse calls with."""

from __future__ import annotations

from aligner_svc.errors import DeadlineExpiredError, LimitExceededError, UnavailableError


def queue_full() -> LimitExceededError:
    return LimitExceededError("ENGINE_QUEUE_FULL", "too many calls are waiting, try again", retry_after=1.0)


def closed() -> UnavailableError:
    return UnavailableError("ENGINE_UNAVAILABLE", "the aligner is shutting down, try again", retry_after=1.0)


def lost() -> UnavailableError:
    return UnavailableError("ENGINE_UNAVAILABLE", "the aligner failed on this call, try again", retry_after=1.0)


def expired() -> DeadlineExpiredError:
    return DeadlineExpiredError("DEADLINE_EXPIRED", "the call's deadline has passed")


def device_failed() -> UnavailableError:
    return UnavailableError("ENGINE_FAILED", "the aligner's device is failing, try again", retry_after=5.0)


def too_large() -> LimitExceededError:
    return LimitExceededError("ENGINE_OUT_OF_MEMORY", "the recording does not fit into the aligner's memory")
