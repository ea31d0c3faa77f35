"""The status and reason with which a call ended, for metrics, logs and traces."""

from __future__ import annotations

import asyncio
import math

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from interceptors.calls.call import Context
from interceptors.calls.refusal import CallRefusedError

BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
"""Status codes by their google.rpc.Code number."""
DETAILS = "grpc-status-details-bin"
"""Trailing metadata that holds the google.rpc.Status."""
_ROUNDED = 0.01
"""Largest relative rounding of a timeout: gRPC sends three digits, rounded up."""
_EARLY = 0.01
"""Seconds before its deadline from which a cancelled call counts as expired: the client's clock may end it before ours."""


def outcome(context: Context, error: BaseException | None) -> grpc.StatusCode:
    """The status of a call that has ended.

    A handler cannot tell a client that cancelled, one whose deadline passed and one that disconnected: it sees CancelledError
    or, while reading a stream, the stream's end. Only an expired deadline can be recognised afterwards.
    """
    code = context.code()
    if isinstance(code, int):
        code = BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN)
    gone = isinstance(error, asyncio.CancelledError) or (error is None and context.done())
    if gone and code in {None, grpc.StatusCode.OK}:  # a guard that ends a call from another task sets a code
        return grpc.StatusCode.DEADLINE_EXCEEDED if expired(context) else grpc.StatusCode.CANCELLED
    if error is None:
        return code or grpc.StatusCode.OK
    return code or grpc.StatusCode.UNKNOWN


def final_code(context: Context, error: BaseException | None, allowed: float | None = None) -> grpc.StatusCode:
    """The status of a call, seen from below recovery, where exceptions have not become statuses yet.

    `allowed`: seconds to the deadline when the call began, None without one. The client's clock ends a call before ours does,
    which arrives as a cancellation: gRPC sends timeouts rounded up to three digits, so that of 1.234 s 6 ms are left.
    """
    if isinstance(error, GeneratorExit):  # an abandoned stream is closed, not cancelled
        error = asyncio.CancelledError()
    if error is None or isinstance(error, asyncio.CancelledError | aio.AbortError | aio.BaseError):
        code = outcome(context, error)
        late = code is grpc.StatusCode.CANCELLED and _late(context, allowed)
        return grpc.StatusCode.DEADLINE_EXCEEDED if late else code
    if _late(context, None):  # whatever went wrong, the client had stopped waiting
        return grpc.StatusCode.DEADLINE_EXCEEDED
    if context.done():
        return grpc.StatusCode.DEADLINE_EXCEEDED if _late(context, allowed) else grpc.StatusCode.CANCELLED
    if isinstance(error, CallRefusedError):
        return error.code
    return grpc.StatusCode.INTERNAL if is_bug(error) else grpc.StatusCode.UNKNOWN


def expired(context: Context, *, early: bool = True) -> bool:
    """Whether the call's deadline has passed by our clock or, if `early`, by the client's."""
    return _left(context) <= (_EARLY if early else 0.0)


def is_bug(error: BaseException | None) -> bool:
    """Whether an exception that passes through the guards is a fault of the server: recovery sends it as INTERNAL."""
    return isinstance(error, Exception) and not isinstance(error, CallRefusedError | aio.AbortError | aio.BaseError)


def reported_reason(context: Context, error: BaseException | None, code: grpc.StatusCode) -> str:
    """The ErrorInfo.reason sent to the client of a call that ended with `code`; "" if it had gone."""
    if isinstance(error, CallRefusedError):
        return error.reason if error.code is code else ""
    if is_bug(error):
        return "INTERNAL" if code is grpc.StatusCode.INTERNAL else ""
    if code is grpc.StatusCode.OK:
        return ""
    for name, value in context.trailing_metadata() or ():
        if name == DETAILS and isinstance(value, bytes):  # ended by calls.abort
            return reason_in(status_pb2.Status.FromString(value))
    return ""


def reason_in(status: status_pb2.Status) -> str:
    """The reason of its ErrorInfo; "" without one."""
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in status.details if detail.Unpack(info)), "")


def _late(context: Context, allowed: float | None) -> bool:
    """Whether the deadline has passed; with `allowed`, whether it has passed by the client's clock."""
    return _left(context) <= (0.0 if allowed is None else _ROUNDED * allowed + _EARLY)


def _left(context: Context) -> float:
    """Seconds to the deadline; infinite without one."""
    left = context.time_remaining()
    return math.inf if left is None else left
