"""The one error that ends a call on purpose, and its form on the wire."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """`field` is a path in the request ("config.language"), `reason` for programs, `description` for people.

    Neither quotes the text that was sent.
    """

    field: str
    reason: str
    description: str


class CallRefusedError(Exception):
    """Ends a call with `code`; `reason` is for programs (UPPER_SNAKE_CASE), `message` for people, both sent unchanged.

    `retry_after`: seconds after which a retry makes sense, None: unknown. `broken`: the fields at fault, sent as BadRequest.
    `details`: further google.rpc messages. `metadata`: trailing, beside the retry headers. `check` and `principal` are for
    the audit log alone: which check failed, and the principal as far as it was proven.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        *,
        retry_after: float | None = None,
        broken: Sequence[BrokenRule] = (),
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
        self.broken = tuple(broken)
        self.details = tuple(details)
        self._metadata = tuple(metadata)
        self.check = check
        self.principal = principal

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        """Trailing. A known `retry_after` is sent as gRFC A6 and HTTP spell it; `status` adds RetryInfo."""
        if self.retry_after is None:
            return self._metadata
        milliseconds = math.ceil(self.retry_after * 1000)
        return (
            *self._metadata,
            ("grpc-retry-pushback-ms", str(milliseconds)),
            ("retry-after", str(math.ceil(self.retry_after))),
        )

    def status(self, domain: str) -> status_pb2.Status:
        """As google.rpc.Status: an ErrorInfo of `domain`, then RetryInfo, BadRequest and `details` where there are any."""
        details: list[Message] = [error_details_pb2.ErrorInfo(reason=self.reason, domain=domain)]
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(round(self.retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        if self.broken:
            violation = error_details_pb2.BadRequest.FieldViolation
            violations = [violation(field=rule.field, description=rule.description, reason=rule.reason) for rule in self.broken]
            details.append(error_details_pb2.BadRequest(field_violations=violations))
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in (*details, *self.details):
            status.details.add().Pack(detail)
        return status
