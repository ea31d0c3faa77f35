"""Every kind of attack, in the order in which they are tried."""

from __future__ import annotations

from tests.attack import access, credentials, malware, payload
from tests.attack.arena import Kind

KINDS = (
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
    Kind("hostile recordings", payload.recordings, at_once=2, short=8),
    Kind("integrity", payload.integrity, short=5),
    Kind("malware", malware.malware, at_once=4, needs_clamd=True),
)
