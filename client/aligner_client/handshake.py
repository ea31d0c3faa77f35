"""Why a connection failed, from gRPC's message: the status is UNAVAILABLE for an absent server and a bad certificate alike.

The texts are those of grpcio 1.85.1, each observed with a real server.
"""

from __future__ import annotations

from enum import Enum

from aligner_client.errors import UnavailableError


class Handshake(Enum):
    """How a connection failed after a server had answered; the value is a message for people."""

    UNTRUSTED = "the server's certificate is not signed by a trusted CA"
    EXPIRED = "the server's certificate has expired, or is not valid yet"
    WRONG_NAME = "the server's certificate is for another name"
    NOT_TLS = "the server answers in plaintext, but TLS was requested"
    REFUSED = "the TLS handshake failed"
    HUNG_UP = "the server closed the connection at once"
    """It requires TLS, or another client certificate; TLS 1.3 does not say which."""


_UNCONNECTED = ("connections to all backends failing", "failed to connect to all addresses")
"""How the messages of the round_robin and the pick_first policy begin."""

_TEXTS = (
    ("certificate has expired", Handshake.EXPIRED),
    ("certificate is not yet valid", Handshake.EXPIRED),
    ("CERTIFICATE_VERIFY_FAILED", Handshake.UNTRUSTED),
    ("Hostname Verification Check failed", Handshake.WRONG_NAME),
    ("WRONG_VERSION_NUMBER", Handshake.NOT_TLS),
    ("handshake failed", Handshake.REFUSED),
    ("security handshaker", Handshake.REFUSED),
    ("Socket closed", Handshake.HUNG_UP),
    ("Connection reset", Handshake.HUNG_UP),
)


def failed_handshake(error: UnavailableError) -> Handshake | None:
    """How it failed; None if there is no server, the connection broke later, or the server itself sent UNAVAILABLE."""
    if error.reason != "UNAVAILABLE" or not error.message.startswith(_UNCONNECTED):
        return None
    return next((kind for text, kind in _TEXTS if text in error.message), None)
