"""A message that breaks the rules of its own type is refused before anybody acts on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc

from interceptors.calls.refusal import BrokenRule, CallRefusedError

_MAX_BROKEN = 16
"""Violations sent in one refusal: a message may break one rule a thousand times."""


Validate = Callable[[Any], Sequence[BrokenRule]]
"""The rules that a parsed message breaks, the gravest first; none for a type that has no rules. Must not block."""


class PayloadRules:
    """Refuses what `validate` finds fault with: every unary request, every message of a stream."""

    def __init__(self, validate: Validate) -> None:
        self._validate = validate

    def check(self, message: Any) -> None:
        """Raises RefusedError(INVALID_ARGUMENT): the reason of the first rule broken, and BadRequest with them all."""
        broken = self._validate(message)
        if broken:
            first = broken[0]
            raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, first.reason, first.description, broken=broken[:_MAX_BROKEN])
