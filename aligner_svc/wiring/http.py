"""Builds the HTTP door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aligner_svc.config import Settings
from aligner_svc.config.limits import Limits
from aligner_svc.http.calls import Calls
from aligner_svc.http.door import Door
from aligner_svc.http.wire import Sizes
from aligner_svc.transport.connections import ConnectionLimits
from aligner_svc.wiring.chain import Guards

_REQUEST_LINE = 1024


def build_door(settings: Settings, guards: Guards, register: Callable[[Any], None], limits: Limits) -> Door:
    """`register`: adds the servicer to a server. `limits`: those in force, which the engine may have narrowed."""
    certificates = guards.certificates
    return Door(
        Calls(guards.interceptors, register, settings.http.timeout),
        Sizes(limits.message_bytes, limits.transcript_chars),
        ConnectionLimits(settings.connections.most, settings.connections.per_address),
        max_head=2 * limits.metadata_bytes + _REQUEST_LINE,  # so that somewhat over the limit is refused with a reason
        tls=certificates.context if certificates is not None else None,
        record=guards.record,
    )
