"""What a refused call says: the status, and the google.rpc details behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

_EXCEPTION_TEXT = re.compile(r"Traceback|Error\b|Exception|[Ee]rrno|0x[0-9a-f]{4}|\.py\b|object at|aligner_svc")


@dataclass(frozen=True)
class Refusal:
    code: grpc.StatusCode
    message: str
    reason: str
    domain: str
    fields: tuple[str, ...]
    retry_seconds: float | None


def refusal(error: grpc.RpcError) -> Refusal:
    """The details of a failed call, which must be there and must agree with the status."""
    status = rpc_status.from_call(error)
    assert status is not None, f"{error.code()} '{error.details()}' has no google.rpc details"
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    unpacked = {message.DESCRIPTOR.name for detail in status.details for message in (info, bad, retry) if detail.Unpack(message)}
    assert "ErrorInfo" in unpacked
    assert status.message == error.details()
    return Refusal(
        error.code(),
        status.message,
        info.reason,
        info.domain,
        tuple(violation.field for violation in bad.field_violations),
        retry.retry_delay.ToTimedelta().total_seconds() if "RetryInfo" in unpacked else None,
    )


def check(refused: Refusal, code: grpc.StatusCode, reason: str, field: str | None) -> None:
    """Exactly this code and reason, a message for people, and the field at fault."""
    assert (refused.code, refused.reason, refused.domain) == (code, reason, "aligner"), refused.message
    assert refused.fields == ((field,) if field else ())
    assert refused.message
    assert not _EXCEPTION_TEXT.search(refused.message), refused.message
