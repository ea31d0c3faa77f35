"""Why a connection failed: gRPC's status is UNAVAILABLE for an absent server and a bad certificate alike.

The texts are those of grpcio 1.85.1, each observed with a real server. A gRPC server says nothing to a client whose
certificate is missing or refused: it closes the connection when TLS 1.3 has been set up. What is meant follows from what this
client sent.
"""

from __future__ import annotations

from enum import Enum

from aligner_client.auth.credentials import Tls
from aligner_client.errors import AlignerClientError, UnavailableError


class Handshake(Enum):
    """How a connection failed after a server had answered; the value is a message for people."""

    UNTRUSTED = "the server's certificate is not signed by a trusted CA"
    EXPIRED = "the server's certificate has expired, or is not valid yet"
    WRONG_NAME = "the server's certificate is for another name"
    NOT_TLS = "the server answers in plaintext, but TLS was requested"
    TLS_REQUIRED = "the server closed the plaintext connection at once, as one that requires TLS does"
    CERTIFICATE_MISSING = "the server closed the connection at once, as one that requires a client certificate does"
    CERTIFICATE_REFUSED = "the server closed the connection at once, as one that does not accept this client certificate does"
    REFUSED = "the TLS handshake failed"
    HUNG_UP = "the server closed the connection at once"
    """With gRPC's own credentials, of which this client does not know what they hold."""


_UNREACHED = "failed to connect to all addresses"
_SERVERS = (
    ("certificate has expired", Handshake.EXPIRED),
    ("certificate is not yet valid", Handshake.EXPIRED),
    ("CERTIFICATE_VERIFY_FAILED", Handshake.UNTRUSTED),
    ("Hostname Verification Check failed", Handshake.WRONG_NAME),
    ("WRONG_VERSION_NUMBER", Handshake.NOT_TLS),
)
_CLOSED = ("Socket closed", "Connection reset", "_ALERT_")
"""The last: what proxies and other servers send for a client certificate that they lack or refuse."""


def explain(failure: AlignerClientError, *, secure: bool, tls: Tls | None) -> None:
    """Say in an UnavailableError how its connection failed, if it did. `tls`: None for plaintext or gRPC's own credentials."""
    if not isinstance(failure, UnavailableError) or failure.reason != "UNAVAILABLE":
        return
    text = failure.message
    if not text.startswith(_UNREACHED):
        return
    found = next((kind for part, kind in _SERVERS if part in text), None)
    if found is None and any(part in text for part in _CLOSED):
        found = _meant(secure=secure, tls=tls)
    if found is None and "handshake" in text:
        found = Handshake.REFUSED
    if found is not None:
        failure.handshake, failure.message = found, found.value


def _meant(*, secure: bool, tls: Tls | None) -> Handshake:
    if not secure:
        return Handshake.TLS_REQUIRED
    if tls is None:
        return Handshake.HUNG_UP
    return Handshake.CERTIFICATE_MISSING if tls.certificate is None else Handshake.CERTIFICATE_REFUSED


def failed_handshake(error: UnavailableError) -> Handshake | None:
    """How it failed; None if there is no server, the connection broke later, or the server itself sent UNAVAILABLE."""
    return error.handshake
