"""A message that breaks the rules of its own type is refused before anybody acts on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2

from interceptors.calls.refusal import CallRefusedError

_MOST = 16
"""Violations told in one refusal: a message may break one rule a thousand times."""


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """`field` is a path in the request ("config.language"), `reason` for programs, `description` for people.

    Neither quotes the text that was sent.
    """

    field: str
    reason: str
    description: str


Validate = Callable[[Any], Sequence[BrokenRule]]
"""The rules that a parsed message breaks, the gravest first; none for a type that has no rules. Must not block."""


class PayloadRules:
    """Refuses what `validate` finds fault with: every unary request, every message of a stream."""

    def __init__(self, validate: Validate) -> None:
        self._validate = validate

    def check(self, message: Any) -> None:
        """Raises RefusedError(INVALID_ARGUMENT): the reason of the first rule broken, and BadRequest with them all."""
        broken = self._validate(message)
        if not broken:
            return
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=rule.field, description=rule.description, reason=rule.reason)
            for rule in broken[:_MOST]
        ]
        raise CallRefusedError(
            grpc.StatusCode.INVALID_ARGUMENT,
            broken[0].reason,
            broken[0].description,
            details=(error_details_pb2.BadRequest(field_violations=violations),),
        )
