"""What a guard says when it does not let a call pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2


class CallRefusedError(Exception):
    """Ends a call with `code`; `reason` is for programs (UPPER_SNAKE_CASE), `message` for people, both sent as they are.

    `retry_after`: seconds after which another try is worth it, None: no advice. `details`: further google.rpc messages.
    `metadata`: trailing, beside what gRPC clients wait by. `check` and `principal` are for the audit log alone: which test
    failed, and who it was, as far as that was proven.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        *,
        retry_after: float | None = None,
        details: Sequence[Message] = (),
        metadata: Sequence[tuple[str, str]] = (),
        check: str = "",
        principal: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.details = tuple(details)
        self._metadata = tuple(metadata)
        self.check = check
        self.principal = principal

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        """Trailing. A time to come back goes out in the three ways that clients know: RetryInfo, gRFC A6 and HTTP's."""
        if self.retry_after is None:
            return self._metadata
        milliseconds = math.ceil(self.retry_after * 1000)
        return (
            *self._metadata,
            ("grpc-retry-pushback-ms", str(milliseconds)),
            ("retry-after", str(math.ceil(self.retry_after))),
        )

    def status(self, domain: str) -> status_pb2.Status:
        """As google.rpc.Status with an ErrorInfo of `domain`, and RetryInfo where a time is known."""
        details: list[Message] = [error_details_pb2.ErrorInfo(reason=self.reason, domain=domain)]
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(round(self.retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in (*details, *self.details):
            status.details.add().Pack(detail)
        return status
