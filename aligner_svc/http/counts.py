"""What the HTTP door counts, for metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from aligner_svc.transport.connections import REASONS

HANDSHAKE: Final = "handshake"
MALFORMED: Final = "malformed"
HEAD_TOO_LARGE: Final = "head_too_large"
HEAD_TOO_SLOW: Final = "head_too_slow"


@dataclass(frozen=True, slots=True)
class HttpCounts:
    """Since the start. Every key is one of a few fixed values."""

    responses: Counter[int] = field(default_factory=Counter)
    """By status; those that are sent before there is a call as well."""
    refused: Counter[str] = field(
        default_factory=lambda: Counter(dict.fromkeys((HANDSHAKE, MALFORMED, HEAD_TOO_LARGE, HEAD_TOO_SLOW), 0))
    )
    """Connections that ended for what is no call, and that therefore only these counts know of, by why."""
    closed: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(REASONS, 0)))
    """Connections that were closed because they took from others, by reason."""
