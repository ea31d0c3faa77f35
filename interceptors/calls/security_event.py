"""Security events, for the audit log; without secrets, tokens or payload."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from interceptors.calls.call import Call

_REPEATED_EVERY: Final = 60.0
_MAX_REPEATED: Final = 1024


class Event(StrEnum):
    """The kinds of security event."""

    AUTHENTICATION_FAILED = "authentication_failed"
    AUTHORISATION_DENIED = "authorisation_denied"
    AUTHORISATION_WOULD_DENY = "authorisation_would_deny"
    """The policy would deny the call, but runs dry."""
    KEY_CREATED = "key_created"
    KEY_ROTATED = "key_rotated"
    KEY_REVOKED = "key_revoked"
    KEY_USED_AFTER_REVOCATION = "key_used_after_revocation"
    CERTIFICATE_RELOADED = "certificate_reloaded"
    CERTIFICATE_RELOAD_FAILED = "certificate_reload_failed"
    POLICY_CHANGED = "policy_changed"
    POLICY_RELOAD_FAILED = "policy_reload_failed"
    QUOTA_CHANGED = "quota_changed"
    PEER_BLOCKED = "peer_blocked"
    PEER_UNBLOCKED = "peer_unblocked"
    PEER_WOULD_BLOCK = "peer_would_block"
    """The rules would block the peer, but only shadow."""
    EXEMPT_LIMIT_EXCEEDED = "exempt_limit_exceeded"
    """A call that needs no credential was refused by one of the limits for such calls."""
    MALWARE_FOUND = "malware_found"
    SCAN_SKIPPED = "scan_skipped"
    """The virus scanner was unavailable, and the settings let uploads pass without it."""
    REQUESTS_UNFINISHED = "requests_unfinished"
    """A caller had the most unfinished requests when there were as many as there may be, and one was refused."""
    SERVER_ERROR = "server_error"
    CONNECTION_CLOSED = "connection_closed"
    """Connections of one address were closed by the server, for the reason in `check`."""
    LISTENER_RESTARTED = "listener_restarted"
    """gRPC stopped accepting calls, and the port is served again."""


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """One line of the audit log, which adds the time and omits empty fields."""

    event: Event
    check: str = ""
    """The check that a call failed, lower_snake_case; for an error of the server the exception's class."""
    principal: str = ""
    detail: str = ""
    """For people: a path, a label, why a file was rejected. Of what a client sent it has ids only."""
    request_id: str = ""
    peer: str = ""
    method: str = ""
    user_agent: str = ""


Record = Callable[[SecurityEvent], None]
"""Writes an event. Must not block and must not raise."""


def of_call(event: SecurityEvent, call: Call | None) -> SecurityEvent:
    """The event, completed with what is known of the call."""
    if call is None:
        return event
    return replace(
        event,
        principal=event.principal or (call.principal.name if call.principal else ""),
        request_id=call.request_id,
        peer=call.peer,
        method=call.method,
        user_agent=call.user_agent,
    )


class Repeated:
    """Events that callers can cause again and again: one a minute is recorded for each key.

    Remembers the 1024 keys recorded last. `clock`: monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recorded: OrderedDict[Hashable, float] = OrderedDict()

    def is_due(self, key: Hashable) -> bool:
        """Whether to record an event of this key now; it is then taken as recorded."""
        now = self._clock()
        if now - self._recorded.get(key, -_REPEATED_EVERY) < _REPEATED_EVERY:
            return False
        self._recorded[key] = now
        self._recorded.move_to_end(key)
        if len(self._recorded) > _MAX_REPEATED:
            self._recorded.popitem(last=False)
        return True
