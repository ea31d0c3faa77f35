"""Refuses messages that break the rules of their type, before they reach the servicer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc

from interceptors.calls.refusal import BrokenRule, CallRefusedError

_MAX_BROKEN = 16
"""Violations reported in one refusal: a message may break one rule a thousand times."""

Validate = Callable[[Any], Sequence[BrokenRule]]
"""Returns the rules that a parsed message breaks, the most important first; none for a type without rules. Must not block."""


class PayloadRules:
    """Applies `validate` to every unary request and every message of a stream."""

    def __init__(self, validate: Validate) -> None:
        self._validate = validate

    def check(self, message: Any) -> None:
        """Raises CallRefusedError(INVALID_ARGUMENT) with the reason of the first broken rule, and BadRequest with all of them."""
        broken = self._validate(message)
        if broken:
            first = broken[0]
            raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, first.reason, first.description, broken=broken[:_MAX_BROKEN])
