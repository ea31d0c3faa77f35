"""The authenticated identity of a call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """One authenticated identity.

    `name` begins with the method that proved it, so that the subject of a token cannot pass for a certificate or a key:
    "mtls:spiffe://example.org/batch", "jwt:https://idp.example.org#service-a", "key:3fb1c9".
    """

    name: str
    method: str
    """As the settings name it: "mtls", "jwt", "api_key"."""
    scopes: frozenset[str] = frozenset()
    """Granted by the credential itself; the policy may add to them."""
    expires: float | None = None
    """Unix seconds at which the credential expires; None: never."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A credential that is not accepted. `check` names the check that failed: for the audit log, never sent to the client."""

    check: str
    """lower_snake_case, of a fixed set: it becomes a metric's label."""
    principal: str = ""
    """The identity, if that much was proven (an expired token's subject, a revoked key's id)."""
    expired: bool = False
    """Valid but for its expiry, which is sent to the client, so that it fetches another."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """The credential cannot be verified now: a database or an issuer is unavailable. `check` as in Rejected."""

    check: str


Verdict = Principal | Rejected | Undecided
