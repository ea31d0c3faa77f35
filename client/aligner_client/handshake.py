"""Why a connection failed: gRPC's status is UNAVAILABLE for an absent server and a bad certificate alike.

The texts are those of grpcio 1.85.1, each observed with a real server. A gRPC server says nothing to a client whose
certificate is missing or refused: it closes the connection when TLS 1.3 has been set up. What is meant follows from what this
client sent.
"""

from __future__ import annotations

from aligner_client.errors import AlignerClientError, Handshake, UnavailableError

_UNREACHED = ("connections to all backends failing", "failed to connect to all addresses")
"""How the messages of the policies round_robin and pick_first begin."""

_SERVERS = (
    ("certificate has expired", Handshake.EXPIRED),
    ("certificate is not yet valid", Handshake.EXPIRED),
    ("CERTIFICATE_VERIFY_FAILED", Handshake.UNTRUSTED),
    ("Hostname Verification Check failed", Handshake.WRONG_NAME),
    ("WRONG_VERSION_NUMBER", Handshake.NOT_TLS),
)
_CLOSED = ("Socket closed", "Connection reset", "_ALERT_")
"""The last: what proxies and other servers send for a client certificate that they lack or refuse."""


def explain(failure: AlignerClientError, *, secure: bool, certificate: bool | None) -> None:
    """Say in an UnavailableError how its connection failed, if it did.

    `secure`: over TLS. `certificate`: whether the client sent one; None: not known.
    """
    if not isinstance(failure, UnavailableError) or failure.reason != "UNAVAILABLE":
        return
    text = failure.message
    if not text.startswith(_UNREACHED):
        return
    found = next((kind for part, kind in _SERVERS if part in text), None)
    if found is None and any(part in text for part in _CLOSED):
        found = _meant(secure=secure, certificate=certificate)
    if found is None and "handshake" in text:
        found = Handshake.REFUSED
    if found is not None:
        failure.handshake, failure.message = found, found.value


def _meant(*, secure: bool, certificate: bool | None) -> Handshake:
    if not secure:
        return Handshake.TLS_REQUIRED
    if certificate is None:
        return Handshake.HUNG_UP
    return Handshake.CERTIFICATE_REFUSED if certificate else Handshake.CERTIFICATE_MISSING


def failed_handshake(error: UnavailableError) -> Handshake | None:
    """How it failed; None if there is no server, the connection broke later, or the server itself sent UNAVAILABLE."""
    return error.handshake
