"""What a guard says when it does not let a call pass."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2


class RefusedError(Exception):
    """Ends a call with `code`; `reason` is for programs (UPPER_SNAKE_CASE), `message` for people, both sent as they are."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message

    def status(self, domain: str) -> status_pb2.Status:
        """As google.rpc.Status with an ErrorInfo of `domain`."""
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=domain))
        return status_pb2.Status(code=self.code.value[0], message=self.message, details=[detail])
