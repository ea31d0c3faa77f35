"""Every failure that a client may see, each with its status and its reason.

The message is for people and is sent to the client unchanged, so it never carries the text of another exception. `reason` is
for programs: stable, UPPER_SNAKE_CASE, listed in docs/errors.md.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from aligner_client.violation import FieldViolation


class Status(IntEnum):
    """google.rpc.Code, the part used here: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNAVAILABLE = 14
    DATA_LOSS = 15


class StartError(Exception):
    """The service cannot start; the message, one line, says why and what to do."""


class AlignerError(Exception):
    """A failure that is reported to the client. Raise a subclass."""

    status: ClassVar[Status]

    def __init__(self, reason: str, message: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = (FieldViolation(field, message),) if field else ()
        self.retry_after = retry_after
        """Seconds after which a retry makes sense; None: unknown."""


class InvalidArgumentError(AlignerError):
    """The request is invalid, for this server and any other."""

    status = Status.INVALID_ARGUMENT


class LimitExceededError(AlignerError):
    """A size limit is exceeded or the queue is full."""

    status = Status.RESOURCE_EXHAUSTED


class UnsupportedError(AlignerError):
    """A valid request that this server cannot serve; another might."""

    status = Status.FAILED_PRECONDITION


class MismatchError(AlignerError):
    """Transcript and audio match less than the caller asked for."""

    status = Status.FAILED_PRECONDITION


class DataLossError(AlignerError):
    """The upload differs from what was declared: it was cut short or altered in transit. Sending it again may help."""

    status = Status.DATA_LOSS


class UnavailableError(AlignerError):
    """Temporary; a retry is safe, as alignment has no side effects."""

    status = Status.UNAVAILABLE


class DeadlineExpiredError(UnavailableError):
    """The call's deadline has passed. A retry is safe, with more time."""

    status = Status.DEADLINE_EXCEEDED
