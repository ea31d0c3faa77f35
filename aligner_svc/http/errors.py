"""Refusals as answers of HTTP: the status by the mapping of google.rpc.Code, and where that is too coarse by the reason."""

from __future__ import annotations

import json
from typing import Any, Final

import grpc
from google.protobuf import json_format
from google.rpc import status_pb2

from interceptors.calls.outcome import BY_NUMBER, reason_in

_Code = grpc.StatusCode
_BY_CODE: Final = {
    _Code.OK: 200,
    _Code.CANCELLED: 499,
    _Code.INVALID_ARGUMENT: 400,
    _Code.FAILED_PRECONDITION: 400,
    _Code.OUT_OF_RANGE: 400,
    _Code.DATA_LOSS: 400,  # the upload is not what its client declared
    _Code.UNAUTHENTICATED: 401,
    _Code.PERMISSION_DENIED: 403,
    _Code.NOT_FOUND: 404,
    _Code.ALREADY_EXISTS: 409,
    _Code.ABORTED: 409,
    _Code.RESOURCE_EXHAUSTED: 429,
    _Code.UNIMPLEMENTED: 501,
    _Code.UNAVAILABLE: 503,
    _Code.DEADLINE_EXCEEDED: 504,
}
_BY_REASON: Final = {
    "AUDIO_TOO_LARGE": 413,
    "REQUEST_TOO_LARGE": 413,
    "UPLOAD_TOO_LARGE_TO_SCAN": 413,
    "CHUNK_TOO_LARGE": 413,
    "COMPRESSION_REFUSED": 415,
    "CONTENT_TYPE_REFUSED": 415,
    "HEADERS_TOO_LARGE": 431,
    "METHOD_UNKNOWN": 404,
    "STREAM_IDLE": 408,
    "UPLOAD_TOO_SLOW": 408,
}


def http_status(status: status_pb2.Status) -> int:
    """500 for what is nobody's fault but the server's."""
    return _BY_REASON.get(reason_in(status)) or _BY_CODE.get(code_of(status), 500)


def code_of(status: status_pb2.Status) -> grpc.StatusCode:
    """UNKNOWN for a number that is none."""
    return BY_NUMBER.get(status.code, _Code.UNKNOWN)


def document(status: status_pb2.Status, request_id: str, code: int = 0) -> bytes:
    """The one form of an error: that of google.rpc over HTTP (AIP-193), with reason and request id beside it.

    `code`: of HTTP, where it is not that of the status.
    """
    details: Any = json_format.MessageToDict(status).get("details", [])
    error = {
        "code": code or http_status(status),
        "status": code_of(status).name,
        "reason": reason_in(status),
        "message": status.message,
        "requestId": request_id,
        "details": details,
    }
    return json.dumps({"error": error}, separators=(",", ":")).encode()


def challenge(reason: str) -> str:
    """WWW-Authenticate (RFC 6750): an API key in x-api-key has no scheme of its own."""
    error = ', error="invalid_token"' if reason in {"CREDENTIALS_INVALID", "TOKEN_EXPIRED"} else ""
    return f'Bearer realm="aligner"{error}'
