"""What is wrong with a field of a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """`field` is a path in the request, e.g. "config.sample_rate_hz"."""

    field: str
    description: str
