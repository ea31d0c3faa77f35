"""Access tokens: what RFC 7515, 7519, 8705, 8725 and 9068 ask of one. Values in and values out, no clock and no network.

In three steps, because the second is dear (a signature: 40 to 150 us) and its outcome is remembered: `read` takes a
token apart and believes none of it, `verify` is what holds for as long as the key does, `judge` what depends on the time and
on the connection.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from interceptors.auth.jwt.jwk import KEY_ID, Key, canonical
from interceptors.auth.jwt.strict_json import DuplicateMemberError, strict_object
from interceptors.calls.principal import Principal, Rejected

LONGEST = 8192
"""Characters of a token. Real ones have 600 to 2000; one of 1 MB costs milliseconds before it can be refused."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
"""Three parts: five are an encrypted token. An empty signature is left to the test of the algorithm."""
_TYPES = frozenset({"at+jwt", "application/at+jwt"})
_NOT_ALLOWED = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "zip", "b64", "enc", "cty"})
"""Headers that bring or name a key, or that change how a token is to be read. Others mean nothing here and are ignored."""
_SUBJECT = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
"""Printable ASCII, 255 at most (OpenID Connect Core 2), no space around it: it becomes a name in logs and policies."""
_SCOPE = re.compile(r"[!#-\[\]-~]+")
"""RFC 6749, appendix A.4."""
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_LATEST = 253_402_300_799
"""The last second of the year 9999. No date of a token is later, and a float holds all before it exactly."""


class TokenCheck(StrEnum):
    """Every test that a token can fail: what `Rejected.check` says."""

    TOKEN_TOO_LARGE = "token_too_large"  # noqa: S105
    MALFORMED = "malformed"
    CLAIMS_DUPLICATE = "claims_duplicate"
    HEADER_NOT_ALLOWED = "header_not_allowed"
    ALGORITHM = "algorithm"
    TYPE = "type"
    KEY_ID = "key_id"
    SIGNING_KEY = "signing_key_unknown"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    SUBJECT = "subject"
    AUDIENCE = "audience"
    SCOPE = "scope"
    CLAIM_MISSING = "claim_missing"
    CLAIM_MALFORMED = "claim_malformed"
    LIFETIME = "lifetime"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    ISSUED_IN_FUTURE = "issued_in_future"
    CERTIFICATE_BINDING = "certificate_binding"
    CONFIRMATION_UNSUPPORTED = "confirmation_unsupported"


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What is asked of the tokens of one issuer. Raises ValueError for an issuer with a #."""

    issuer: str
    """The iss claim, exactly."""
    audiences: frozenset[str]
    """The aud claim has to name one of these."""
    algorithms: frozenset[str]
    """Of RS256, ES256, EdDSA."""
    max_lifetime: float
    """Longest time from iat to exp, seconds."""
    leeway: float
    """Seconds a clock may be off."""

    def __post_init__(self) -> None:
        if "#" in self.issuer:  # "jwt:ISSUER#SUBJECT" could be split in two ways
            raise ValueError(f"an issuer cannot have a #: {self.issuer}")


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token taken apart. Anybody can have written it."""

    algorithm: str
    key_id: str
    issuer: str
    claims: Mapping[str, Any]
    message: bytes
    """What the signature is of."""
    signature: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    """What an issuer's key has signed and its rules allow. Whether it counts now and on this connection, `judge` says."""

    principal: Principal
    issuer: str
    key: Key
    issued: float
    """Unix seconds, as the two below."""
    not_before: float
    expires: float
    thumbprint: str | None
    """The certificate without which it is worth nothing (RFC 8705): base64url of the SHA-256 of its DER."""


class _FailedError(Exception):
    def __init__(self, check: TokenCheck) -> None:
        super().__init__(check)
        self.check = check


def read(token: str) -> Unverified | Rejected:
    """Take a token apart. Its length is the caller's first look: see LONGEST."""
    try:
        return _read(token)
    except _FailedError as failed:
        return Rejected(failed.check)
    except DuplicateMemberError:
        return Rejected(TokenCheck.CLAIMS_DUPLICATE)
    except ValueError:
        return Rejected(TokenCheck.MALFORMED)


def verify(token: Unverified, rules: TokenRules, key: Key) -> Verified | Rejected:
    """The signature first: until it holds, no claim is worth a look. `key` is the one of `rules.issuer` with the token's kid."""
    if token.issuer != rules.issuer:
        return Rejected(TokenCheck.ISSUER)
    if canonical(token.algorithm) not in rules.algorithms or canonical(token.algorithm) != key.algorithm:
        return Rejected(TokenCheck.ALGORITHM)
    if token.key_id != key.kid:
        return Rejected(TokenCheck.KEY_ID)
    if not key.signed(token.message, token.signature):
        return Rejected(TokenCheck.SIGNATURE)
    name = ""
    try:
        name = f"jwt:{rules.issuer}#{_subject(token.claims)}"
        return _verified(token.claims, rules, key, name)
    except _FailedError as failed:
        return Rejected(failed.check, name)


def judge(verified: Verified, rules: TokenRules, thumbprint: str | None, now: float) -> Principal | Rejected:
    """`now` in Unix seconds; `thumbprint` of the certificate that the caller has proven to hold, None without one."""
    name = verified.principal.name
    if now + rules.leeway < verified.not_before:
        return Rejected(TokenCheck.NOT_YET_VALID, name)
    if now + rules.leeway < verified.issued:
        return Rejected(TokenCheck.ISSUED_IN_FUTURE, name)
    if verified.thumbprint is not None and verified.thumbprint != thumbprint:
        return Rejected(TokenCheck.CERTIFICATE_BINDING, name)
    if now - rules.leeway >= verified.expires:  # last: who is told so may fetch another, and that one will do
        return Rejected(TokenCheck.EXPIRED, name, expired=True)
    return verified.principal


def _read(token: str) -> Unverified:
    if len(token) > LONGEST:
        raise _FailedError(TokenCheck.TOKEN_TOO_LARGE)
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise _FailedError(TokenCheck.MALFORMED)
    header = strict_object(_decoded(parts[1]))
    if not _NOT_ALLOWED.isdisjoint(header):
        raise _FailedError(TokenCheck.HEADER_NOT_ALLOWED)
    algorithm, kind, key_id = header.get("alg"), header.get("typ"), header.get("kid")
    if not isinstance(algorithm, str):
        raise _FailedError(TokenCheck.ALGORITHM)
    if not isinstance(kind, str) or kind.lower() not in _TYPES:  # an ID token, or one for something else altogether
        raise _FailedError(TokenCheck.TYPE)
    if not isinstance(key_id, str) or not KEY_ID.fullmatch(key_id):
        raise _FailedError(TokenCheck.KEY_ID)
    claims = strict_object(_decoded(parts[2]))
    issuer = _needed(claims, "iss")
    if not isinstance(issuer, str):
        raise _FailedError(TokenCheck.ISSUER)
    message = token[: parts.end(2)].encode("ascii")
    return Unverified(algorithm, key_id, issuer, claims, message, _decoded(parts[3]))


def _decoded(part: str) -> bytes:
    """base64url without padding, and only the one spelling of each value: what the last bits hide is refused."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise _FailedError(TokenCheck.MALFORMED) from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != part.encode("ascii"):
        raise _FailedError(TokenCheck.MALFORMED)
    return raw


def _verified(claims: Mapping[str, Any], rules: TokenRules, key: Key, name: str) -> Verified:
    named = _needed(claims, "aud")
    audiences = [named] if isinstance(named, str) else named
    if not isinstance(audiences, list) or not all(isinstance(audience, str) for audience in audiences):
        raise _FailedError(TokenCheck.AUDIENCE)
    if rules.audiences.isdisjoint(audiences):
        raise _FailedError(TokenCheck.AUDIENCE)
    expires, issued = _seconds(_needed(claims, "exp")), _seconds(_needed(claims, "iat"))
    not_before = _seconds(claims.get("nbf", 0))
    if not 0 < expires - issued <= rules.max_lifetime:
        raise _FailedError(TokenCheck.LIFETIME)
    principal = Principal(name, "jwt", _scopes(claims), expires)
    return Verified(principal, rules.issuer, key, issued, not_before, expires, _certificate(claims))


def _needed(claims: Mapping[str, Any], name: str) -> Any:
    value = claims.get(name)
    if value is None:
        raise _FailedError(TokenCheck.CLAIM_MISSING)
    return value


def _subject(claims: Mapping[str, Any]) -> str:
    value = _needed(claims, "sub")
    if not isinstance(value, str) or not _SUBJECT.fullmatch(value):
        raise _FailedError(TokenCheck.SUBJECT)
    return value


def _seconds(value: Any) -> float:
    """A number; to Python True is one as well. NaN is within no bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise _FailedError(TokenCheck.CLAIM_MALFORMED)
    return float(value)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """`scope` (RFC 9068); `scp`, as Entra ID and Okta have it, where there is none. Without either nothing is granted."""
    value = claims["scope"] if "scope" in claims else claims.get("scp", "")
    words: Any = value.split(" ") if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _FailedError(TokenCheck.SCOPE)
    if "scope" in claims and not isinstance(value, str):  # a list is scp's way to say it
        raise _FailedError(TokenCheck.SCOPE)
    scopes = frozenset(word for word in words if word)
    if not all(_SCOPE.fullmatch(scope) for scope in scopes):
        raise _FailedError(TokenCheck.SCOPE)
    return scopes


def _certificate(claims: Mapping[str, Any]) -> str | None:
    """RFC 8705, 3.1. A binding that cannot be verified here (a DPoP key, for one) binds all the same: the token is refused."""
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict) or set(confirmation) != {"x5t#S256"}:
        raise _FailedError(TokenCheck.CONFIRMATION_UNSUPPORTED)
    thumbprint = confirmation["x5t#S256"]
    if not isinstance(thumbprint, str) or not _THUMBPRINT.fullmatch(thumbprint):
        raise _FailedError(TokenCheck.CONFIRMATION_UNSUPPORTED)
    return thumbprint
