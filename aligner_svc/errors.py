"""Every failure a caller may see. Each owns its status and its reason.

The message is written for the person who reads it and is sent to the client as it
is, so it never carries the text of another exception. `reason` is for programs:
stable, UPPER_SNAKE_CASE, listed in docs/errors.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class Status(IntEnum):
    """google.rpc.Code, the part used here: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto."""

    INVALID_ARGUMENT = 3
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNAVAILABLE = 14
    DATA_LOSS = 15


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """`field` is a path in the request, e.g. "config.sample_rate_hz"."""

    field: str
    description: str


class StartError(Exception):
    """The service cannot start; the message, one line, says why and what to do."""


class AlignerError(Exception):
    """A failure the caller can understand. Raise a subclass."""

    status: ClassVar[Status]

    def __init__(self, reason: str, message: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = (FieldViolation(field, message),) if field else ()
        self.retry_after = retry_after
        """Seconds after which a retry is worth it; None: no advice."""


class InvalidArgumentError(AlignerError):
    """The request cannot be served as it is, here or anywhere."""

    status = Status.INVALID_ARGUMENT


class LimitExceededError(AlignerError):
    """Over a size limit or the queue's bound."""

    status = Status.RESOURCE_EXHAUSTED


class UnsupportedError(AlignerError):
    """A sound request this server cannot serve; another might."""

    status = Status.FAILED_PRECONDITION


class DataLossError(AlignerError):
    """What arrived is not what was declared: the upload was cut short or changed on its way. Sending it again may help."""

    status = Status.DATA_LOSS


class UnavailableError(AlignerError):
    """Not now; a retry is safe, alignment has no side effects."""

    status = Status.UNAVAILABLE
