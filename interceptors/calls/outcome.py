"""How a call ended, for whoever counts, logs or traces it."""

from __future__ import annotations

import asyncio
import math

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from interceptors.calls.call import Context
from interceptors.calls.refusal import CallRefusedError

BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
"""By google.rpc.Code's numbers."""
DETAILS = "grpc-status-details-bin"
"""Trailing metadata that holds the google.rpc.Status."""
_ROUNDED = 0.01
"""What a timeout is rounded up by at most, as a share of it."""
_EARLY = 0.01
"""Seconds before a deadline from which a call that is given up has met it: the caller's own clock ends it first."""


def outcome(context: Context, error: BaseException | None) -> grpc.StatusCode:
    """How a call ended, as what it is.

    A handler sees a client that cancelled, one whose deadline passed and one that vanished alike: as
    CancelledError, or, where it was reading a stream, as the stream's end. Only an expired deadline leaves its mark.
    """
    code = context.code()
    if isinstance(code, int):
        code = BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN)
    gone = isinstance(error, asyncio.CancelledError) or (error is None and context.done())
    if gone and code in {None, grpc.StatusCode.OK}:  # a guard that ends a call from outside leaves its status
        return grpc.StatusCode.DEADLINE_EXCEEDED if _left(context) <= _EARLY else grpc.StatusCode.CANCELLED
    if error is None:
        return code or grpc.StatusCode.OK
    return code or grpc.StatusCode.UNKNOWN


def final_code(context: Context, error: BaseException | None, allowed: float | None = None) -> grpc.StatusCode:
    """How a call ended, seen from inside of the recovery, where what a guard raises has not become a status yet.

    `allowed`: seconds to its deadline that the call began with, None without one. A caller's own clock ends it before ours
    does, and what arrives then is a cancellation: gRPC sends timeouts rounded up to three digits, so of 1.234 s 6 ms are left.
    """
    if isinstance(error, GeneratorExit):  # a stream nobody reads any more is closed, not cancelled
        error = asyncio.CancelledError()
    if error is None or isinstance(error, asyncio.CancelledError | aio.AbortError | aio.BaseError):
        code = outcome(context, error)
        late = code is grpc.StatusCode.CANCELLED and _late(context, allowed)
        return grpc.StatusCode.DEADLINE_EXCEEDED if late else code
    if _late(context, None):  # nobody waited for whatever went wrong
        return grpc.StatusCode.DEADLINE_EXCEEDED
    if context.done():
        return grpc.StatusCode.DEADLINE_EXCEEDED if _late(context, allowed) else grpc.StatusCode.CANCELLED
    if isinstance(error, CallRefusedError):
        return error.code
    return grpc.StatusCode.INTERNAL if is_bug(error) else grpc.StatusCode.UNKNOWN


def is_bug(error: BaseException | None) -> bool:
    """Whether an exception that passes through the guards is a fault of the server: recovery sends it as INTERNAL."""
    return isinstance(error, Exception) and not isinstance(error, CallRefusedError | aio.AbortError | aio.BaseError)


def reported_reason(context: Context, error: BaseException | None, code: grpc.StatusCode) -> str:
    """What a client was told for programs (ErrorInfo.reason) when its call ended with `code`; empty where it had left."""
    if isinstance(error, CallRefusedError):
        return error.reason if error.code is code else ""
    if is_bug(error):
        return "INTERNAL" if code is grpc.StatusCode.INTERNAL else ""
    if code is grpc.StatusCode.OK:
        return ""
    for name, value in context.trailing_metadata() or ():
        if name == DETAILS and isinstance(value, bytes):  # ended by interceptors.calls.abort, maybe from outside
            return reason_in(status_pb2.Status.FromString(value))
    return ""


def reason_in(status: status_pb2.Status) -> str:
    """Its ErrorInfo's; empty without one."""
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in status.details if detail.Unpack(info)), "")


def _late(context: Context, allowed: float | None) -> bool:
    """Whether the deadline has passed, or, where `allowed` is given, has passed for the caller."""
    return _left(context) <= (0.0 if allowed is None else _ROUNDED * allowed + _EARLY)


def _left(context: Context) -> float:
    """Seconds to the deadline, infinite where there is none."""
    left = context.time_remaining()
    return math.inf if left is None else left
