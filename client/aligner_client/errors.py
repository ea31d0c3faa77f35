"""The errors of a call. Every gRPC failure becomes one of these; a bare `grpc.RpcError` is never raised."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from aligner_client.violation import FieldViolation

REQUEST_ID_KEY = "x-request-id"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailing metadata of gRFC A6: https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback."""


class AlignerClientError(Exception):
    """A call failed. `except` a subclass, or branch on `reason`, which is stable.

    code: gRPC status. reason: upper-case word for programs (ErrorInfo.reason), or the name of the status if the server
    gave none. message: for people. violations: the invalid request fields. retry_after: seconds the server asks to wait
    before another attempt, or None. retryable: whether another attempt of the same call may succeed. request_id: names the
    call in the server's logs, "" if the server did not answer.
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
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or code.name
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.retryable = retryable
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})"


class InvalidArgumentError(AlignerClientError):
    """The request is invalid on any server."""


class FailedPreconditionError(AlignerClientError):
    """A valid request that this server cannot serve, e.g. a language it has no model for."""


class ResourceExhaustedError(AlignerClientError):
    """A size limit, a quota or the server's queue is exceeded. Retry only if `retry_after` is set."""


class Handshake(Enum):
    """How a connection failed after a server had answered; the value is a message for people."""

    UNTRUSTED = "the server's certificate is not signed by a trusted CA"
    EXPIRED = "the server's certificate has expired, or is not valid yet"
    WRONG_NAME = "the server's certificate is for another name"
    NOT_TLS = "the server answers in plaintext, but TLS was requested"
    TLS_REQUIRED = "the server closed the plaintext connection at once, as one that requires TLS does"
    CERTIFICATE_MISSING = "the server closed the connection at once, as one that requires a client certificate does"
    CERTIFICATE_REFUSED = "the server closed the connection at once, as one that does not accept this client certificate does"
    REFUSED = "the TLS handshake failed"
    HUNG_UP = "the server closed the connection at once"
    """With gRPC's own credentials, of which this client does not know what they hold."""


class UnavailableError(AlignerClientError):
    """The server is unreachable, draining, or lost its worker; the policy's retries are used up.

    handshake: what is wrong with TLS, where the server was reached and that was the reason; gRPC's own text is in `__cause__`.
    """

    handshake: Handshake | None = None


class DeadlineExceededError(AlignerClientError):
    """The call's `timeout` passed, retries included."""


class CallCancelledError(AlignerClientError):
    """The call was cancelled by `close()`, or by a server that stopped and the policy's retries are used up."""


class UnauthenticatedError(AlignerClientError):
    """The server requires authentication, and the credentials are missing or not valid."""


class TokenError(AlignerClientError):
    """The OAuth token endpoint gave no token; the server was not called.

    UNAVAILABLE and retryable if the endpoint is unreachable or failing, else UNAUTHENTICATED.
    error: the endpoint's OAuth error word, e.g. "invalid_client", or "".
    """

    def __init__(
        self, code: grpc.StatusCode, message: str, *, reason: str, error: str, retry_after: float | None, retryable: bool
    ) -> None:
        super().__init__(code, message, reason=reason, retry_after=retry_after, retryable=retryable)
        self.error = error


class PermissionDeniedError(AlignerClientError):
    """The caller is authenticated but not allowed to make this call."""


class UnimplementedError(AlignerClientError):
    """The server is another service, or an older version of this one."""


class InternalError(AlignerClientError):
    """A bug or a crash on the server."""


class DataLossError(AlignerClientError):
    """The server received other bytes than were declared: some were lost or changed on the way. Send it again."""


class IncompleteAnswerError(AlignerClientError):
    """The server ended a stream with success but without the final summary."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.INTERNAL, "the server ended the stream without a summary", reason="INCOMPLETE_ANSWER")


_CANCELLED_HERE = frozenset({"Locally cancelled by application!", "Channel closed!"})
"""What grpc and grpc.aio say of a call that this client cancelled or whose channel it closed."""

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
    """The typed error for one of grpc or grpc.aio, with the details of its google.rpc.Status."""
    code = error.code()
    reason = ""
    violations: list[FieldViolation] = []
    retry_after: float | None = None
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in _details(error):
        # Unpack is False for a detail of another type.
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            violations += [FieldViolation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    pushback = _pushback(error)
    if pushback is not None:
        retry_after = pushback if pushback >= 0 else None
    # A full queue is RESOURCE_EXHAUSTED, and so is a file that is too long: only for the former
    # does the server say when to come back. A negative pushback means never.
    invited = code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after is not None
    # A server that stops ends calls that have just arrived with CANCELLED: https://github.com/grpc/grpc/issues/41785.
    stopped = code is grpc.StatusCode.CANCELLED and error.details() not in _CANCELLED_HERE
    retryable = (code is grpc.StatusCode.UNAVAILABLE or invited or stopped) and not (pushback is not None and pushback < 0)
    return _CLASSES.get(code, AlignerClientError)(
        code,
        error.details() or code.name.lower().replace("_", " "),
        reason=reason,
        violations=violations,
        retry_after=retry_after,
        retryable=retryable,
        request_id=str(next(_trailing(error, REQUEST_ID_KEY), "")),
    )


def cancelled() -> CallCancelledError:
    """For a call that this client ended: grpc.aio raises CancelledError for it and not a status."""
    return CallCancelledError(grpc.StatusCode.CANCELLED, "the call was cancelled by this client")


def closed() -> CallCancelledError:
    """For a call of a client after `close()`."""
    return CallCancelledError(grpc.StatusCode.CANCELLED, "the client is closed", reason="CLIENT_CLOSED")


def raise_unless_task_cancelled(*, ended: bool) -> None:
    """On CancelledError: raise the typed error if the call was cancelled by `close()` and not together with its task.

    `ended`: whether `close()` was called, for Python 3.10, whose tasks do not tell that they are cancelled.
    """
    task = asyncio.current_task()
    if sys.version_info >= (3, 11):
        ended = task is None or not task.cancelling()
    if ended:
        raise cancelled() from None


def _details(error: grpc.RpcError) -> Sequence[Any]:
    """The google.rpc.Status details; none if they contradict the status, which a proxy may have rewritten."""
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except (ValueError, DecodeError):
        return ()
    return () if status is None else status.details


def _pushback(error: grpc.RpcError) -> float | None:
    """Seconds to wait, negative for never, None if the server does not say. A value that is no number means never (gRFC A6)."""
    value = next(_trailing(error, PUSHBACK_KEY), None)
    try:
        return None if value is None else int(value) / 1000
    except ValueError:
        return -1.0


def _trailing(error: grpc.RpcError, wanted: str) -> Iterator[str | bytes]:
    # The stubs' type of an entry does not say that it is a pair.
    trailing = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    return (value for key, value in trailing if key == wanted)
