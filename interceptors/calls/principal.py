"""Who calls, once proven."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """One authenticated caller.

    `name` says how it was proven before it says who it is, so that no subject of a token can pass for a
    certificate or a key: "mtls:spiffe://example.org/batch", "jwt:https://idp.example.org#service-a", "key:3fb1c9".
    """

    name: str
    method: str
    """As the settings name it: "mtls", "jwt", "api_key"."""
    scopes: frozenset[str] = frozenset()
    """What the credential itself grants; the policy may add to it."""
    expires: float | None = None
    """Unix seconds at which the credential ends; None: it does not."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A credential that proves nobody. `check` names the test it failed, for the audit log; a client is never told."""

    check: str
    """lower_snake_case, of a fixed set: it is counted by."""
    principal: str = ""
    """Whom it claims to be, where that much was proven (an expired token's subject, a revoked key's id)."""
    expired: bool = False
    """Sound in every other way: the one thing a client is told, so that it fetches another."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """Whether the credential is good cannot be told now (a database or an issuer is out of reach). `check` as in Rejected."""

    check: str


Verdict = Principal | Rejected | Undecided
