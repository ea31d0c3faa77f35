"""What a call can fail with. Every gRPC failure becomes one of these; no bare `grpc.RpcError` gets out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from aligner_svc.errors import FieldViolation

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailing metadata of gRFC A6: https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback."""


class AlignerClientError(Exception):
    """A call failed. `except` a subclass, or branch on `reason`, which is stable.

    code: gRPC status. reason: upper-case word for programs (ErrorInfo.reason), or the name
    of the status where the server gave none. message: for people. violations: the request
    fields at fault. retry_after: seconds the server asks to wait before another try, or
    None. retryable: whether another try of the same call may succeed.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or code.name
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})"


class InvalidArgumentError(AlignerClientError):
    """The request cannot be served as it is, here or anywhere."""


class FailedPreconditionError(AlignerClientError):
    """A sound request this server cannot serve, e.g. a language it has no model for."""


class ResourceExhaustedError(AlignerClientError):
    """Over a size limit, a quota, or the server's queue. Worth a retry only where `retry_after` is given."""


class UnavailableError(AlignerClientError):
    """The server cannot be reached, drains, or lost its worker; the policy's retries are used up."""


class DeadlineExceededError(AlignerClientError):
    """The call's `timeout` passed, retries included."""


class CallCancelledError(AlignerClientError):
    """The call was cancelled on this side, by `close()`, or on the server's."""


class UnauthenticatedError(AlignerClientError):
    """The server wants to know who calls and was not convinced."""


class TokenError(AlignerClientError):
    """The OAuth token endpoint gave no token; the server was not asked.

    UNAVAILABLE and retryable where the endpoint cannot be reached or is in trouble, else UNAUTHENTICATED.
    error: the endpoint's OAuth error word, e.g. "invalid_client", or "".
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str,
        error: str,
        retry_after: float | None,
        retryable: bool,
    ) -> None:
        super().__init__(code, message, reason=reason, retry_after=retry_after, retryable=retryable)
        self.error = error


class PermissionDeniedError(AlignerClientError):
    """The server knows who calls and does not allow it."""


class UnimplementedError(AlignerClientError):
    """What answers is not this service, or an older version of it."""


class InternalError(AlignerClientError):
    """A bug or a crash on the server's side; what it says is all that is known here."""


class DataLossError(AlignerClientError):
    """What the server received is not what was declared: bytes were lost or changed on the way. Send it again."""


class IncompleteAnswerError(AlignerClientError):
    """The server ended a stream as a success but without the summary that has to come last."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.INTERNAL, "the server ended the stream without a summary", reason="INCOMPLETE_ANSWER")


_CLASSES: Mapping[grpc.StatusCode, type[AlignerClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgumentError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.CANCELLED: CallCancelledError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.UNKNOWN: InternalError,
    grpc.StatusCode.DATA_LOSS: DataLossError,
}


def from_rpc(error: grpc.RpcError) -> AlignerClientError:
    """The typed error for what grpc or grpc.aio raised, with all that its google.rpc.Status says."""
    code = error.code()
    reason = ""
    violations: list[FieldViolation] = []
    retry_after: float | None = None
    for detail in _details(error):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.reason
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations += [FieldViolation(v.field, v.description) for v in bad.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    pushback = _pushback(error)
    if pushback is not None:
        retry_after = pushback if pushback >= 0 else None
    # A full queue is RESOURCE_EXHAUSTED, and so is a file that is too long: the server
    # tells them apart by saying when to come back. A negative pushback means never.
    invited = code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after is not None
    retryable = (code is grpc.StatusCode.UNAVAILABLE or invited) and not (pushback is not None and pushback < 0)
    return _CLASSES.get(code, AlignerClientError)(
        code,
        error.details() or code.name.lower().replace("_", " "),
        reason=reason,
        violations=violations,
        retry_after=retry_after,
        retryable=retryable,
    )


def cancelled() -> CallCancelledError:
    """For a call that this side ended: grpc.aio shows that as a cancellation and not as a status."""
    return CallCancelledError(grpc.StatusCode.CANCELLED, "the call was cancelled by this client")


def raise_if_not_this_task() -> None:
    """On CancelledError: raise the typed error if the call was cancelled, by `close()`, and not the task that waits for it."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        raise cancelled() from None


def _details(error: grpc.RpcError) -> Sequence[Any]:
    """The google.rpc.Status details. A proxy may rewrite the status and leave the details: then they are not trusted."""
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except (ValueError, DecodeError):
        return ()
    return () if status is None else status.details


def _pushback(error: grpc.RpcError) -> float | None:
    """Seconds to wait, negative for never, None where the server does not say. As gRFC A6: what is no number means never."""
    # The stubs' type for an entry does not say that it is a pair.
    trailing = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in trailing:
        if key == PUSHBACK_KEY:
            try:
                return int(value) / 1000
            except ValueError:
                return -1.0
    return None
