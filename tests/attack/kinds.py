"""Every kind of attack, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.attack import access, credentials, exhaustion, frames, http, malware, payload
from tests.attack.arena import Arena, Attack, Kind

_HALF_OPEN = Kind("half-open calls", exhaustion.half_open, at_once=1, short=1, seconds=45)
_DEADLINES = Kind("deadlines", exhaustion.deadlines, at_once=1, short=5)
_BOTH = (
    Kind("tokens", credentials.tokens),
    Kind("tokens with a change", credentials.mutations),
    Kind("API keys", credentials.keys),
    Kind("client certificates", credentials.client_certificates),
    Kind("policy and methods", access.policy),
    Kind("headers", access.headers),
    Kind("malformed messages", payload.malformed),
    Kind("broken rules", payload.rules),
    Kind("oversize and bombs", payload.oversize, at_once=2, short=6),
    Kind("transcripts", payload.transcripts, at_once=2, short=8),
    Kind("hostile recordings", payload.recordings, at_once=4, short=8, seconds=60),
    Kind("integrity", payload.integrity, short=5),
    Kind("malware", malware.malware, at_once=4, needs_clamd=True),
)
"""What is tried on both ports."""


def _over_http(kind: Kind) -> Kind:
    """The same attacks through the port for HTTP."""

    def through(one: Attack) -> Attack:
        async def run(arena: Arena) -> str:
            return await one.run(arena.over_http())

        return Attack(one.name, run)

    def attacks() -> Iterator[Attack]:
        return (through(one) for one in kind.attacks())

    return replace(kind, name=f"HTTP: {kind.name}", attacks=attacks, short=1)


KINDS = (
    *_BOTH,
    Kind("raw header values", frames.header_values, at_once=4),
    Kind("broken frames", frames.broken_frames, at_once=4),
    Kind("floods of frames", frames.floods, at_once=1, short=2, seconds=40),
    Kind("exempt methods", exhaustion.exempt, at_once=2, short=8),
    Kind("connections", exhaustion.connections, at_once=1, short=1, seconds=30),
    *(_HALF_OPEN, _DEADLINES),
    *(_over_http(kind) for kind in (*_BOTH, _HALF_OPEN, _DEADLINES)),
    Kind("HTTP: framing", http.framing, short=2),
    Kind("HTTP: bodies", http.bodies, short=2),
    Kind("HTTP: connections", http.connections, at_once=1, short=1, seconds=30),
)
