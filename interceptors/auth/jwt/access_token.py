"""The checks on access tokens that RFC 7515, 7519, 8705, 8725 and 9068 require. Plain values, no clock and no network.

Three steps, because the second is expensive (a signature: 40 to 150 us) and its result is cached: `read` parses a token
and trusts nothing in it, `verify` checks what stays true as long as the key does, `judge` what depends on the time and the
connection.
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

MAX_LENGTH = 8192
"""Characters of a token. Real ones have 600 to 2000; refusing one of 1 MB would take milliseconds."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
"""Three parts; an encrypted token has five. An empty signature is left to the check of the algorithm."""
_ACCESS_TOKEN, _ANY_TOKEN = "at+jwt", "jwt"
"""typ of an access token (RFC 9068), and of a token of any purpose (RFC 7519). In any case; "application/" may precede them."""
_OTHER_PURPOSES = frozenset({"nonce", "at_hash", "c_hash", "s_hash", "events"})
"""Claims of an ID token, a logout token and a security event, of which no access token has any."""
_FORBIDDEN_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "zip", "b64", "enc", "cty"})
"""Headers that contain or locate a key, or change how a token is to be parsed. Other unknown headers are ignored."""
_SUBJECT = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
"""Printable ASCII, at most 255 characters (OpenID Connect Core 2), no space at either end: it is used in logs and policies."""
_SCOPE = re.compile(r"[!#-\[\]-~]+")
"""RFC 6749, appendix A.4."""
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_MAX_DATE = 253_402_300_799
"""The last second of the year 9999, the latest date accepted in a token; a float represents all earlier seconds exactly."""


class TokenCheck(StrEnum):
    """Every check that a token can fail, for `Rejected.check`."""

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
    """What the tokens of one issuer must satisfy. Raises ValueError for an issuer with a #."""

    issuer: str
    """The exact iss claim."""
    audiences: frozenset[str]
    """The aud claim must contain one of these."""
    algorithms: frozenset[str]
    """Some of RS256, ES256, EdDSA."""
    max_lifetime: float
    """Maximum of exp - iat, seconds."""
    leeway: float
    """Tolerated clock difference, seconds."""
    typ_jwt: bool = False
    """Accept typ: JWT too, unless a claim shows that the token is not an access token."""

    def __post_init__(self) -> None:
        if "#" in self.issuer:  # "jwt:ISSUER#SUBJECT" would be ambiguous
            raise ValueError(f"an issuer cannot contain #: {self.issuer}")

    def refused(self, token: Unverified) -> TokenCheck | None:
        """The check that a token fails whatever its key is."""
        if token.issuer != self.issuer:
            return TokenCheck.ISSUER
        if token.algorithm not in self.algorithms:
            return TokenCheck.ALGORITHM
        if token.kind == _ANY_TOKEN and not (self.typ_jwt and _may_be_access_token(token.claims)):
            return TokenCheck.TYPE
        return None


@dataclass(frozen=True, slots=True)
class Unverified:
    """A parsed token. Nothing in it can be trusted: anyone can have written it."""

    algorithm: str
    """Canonical."""
    kind: str
    """at+jwt or jwt."""
    key_id: str
    issuer: str
    claims: Mapping[str, Any]
    message: bytes
    """The signed bytes."""
    signature: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    """A token with a good signature that satisfies its issuer's rules; `judge` decides whether it is valid now and here."""

    principal: Principal
    issuer: str
    key: Key
    issued: float
    """Unix seconds, like the next two."""
    not_before: float
    expires: float
    thumbprint: str | None
    """Of the client certificate that the token is bound to (RFC 8705): base64url of the SHA-256 of its DER. None: not bound."""


class _FailedError(Exception):
    def __init__(self, check: TokenCheck) -> None:
        super().__init__(check)
        self.check = check


def read(token: str) -> Unverified | Rejected:
    """Parse a token."""
    try:
        if len(token) > MAX_LENGTH:
            raise _FailedError(TokenCheck.TOKEN_TOO_LARGE)
        parts = _COMPACT.fullmatch(token)
        if parts is None:
            raise _FailedError(TokenCheck.MALFORMED)
        header = strict_object(_decoded(parts[1]))
        if not _FORBIDDEN_HEADERS.isdisjoint(header):
            raise _FailedError(TokenCheck.HEADER_NOT_ALLOWED)
        algorithm, kind = header.get("alg"), header.get("typ")
        if not isinstance(algorithm, str):
            raise _FailedError(TokenCheck.ALGORITHM)
        kind = kind.lower().removeprefix("application/") if isinstance(kind, str) else ""
        if kind not in {_ACCESS_TOKEN, _ANY_TOKEN}:
            raise _FailedError(TokenCheck.TYPE)
        key_id = _matching(KEY_ID, header.get("kid"), TokenCheck.KEY_ID)
        claims = strict_object(_decoded(parts[2]))
        issuer = _required(claims, "iss")
        if not isinstance(issuer, str):
            raise _FailedError(TokenCheck.ISSUER)
        message = token[: parts.end(2)].encode("ascii")
        return Unverified(canonical(algorithm), kind, key_id, issuer, claims, message, _decoded(parts[3]))
    except _FailedError as failed:
        return Rejected(failed.check)
    except DuplicateMemberError:
        return Rejected(TokenCheck.CLAIMS_DUPLICATE)
    except ValueError:
        return Rejected(TokenCheck.MALFORMED)


def verify(token: Unverified, rules: TokenRules, key: Key) -> Verified | Rejected:
    """Check the signature first and the claims only after it. `key` is the one of `rules.issuer` with the token's kid."""
    refused = rules.refused(token)
    if refused is not None:
        return Rejected(refused)
    if token.algorithm != key.algorithm:
        return Rejected(TokenCheck.ALGORITHM)
    if token.key_id != key.kid:
        return Rejected(TokenCheck.KEY_ID)
    if not key.signed(token.message, token.signature):
        return Rejected(TokenCheck.SIGNATURE)
    claims, name = token.claims, ""
    try:
        name = f"jwt:{rules.issuer}#{_matching(_SUBJECT, _required(claims, 'sub'), TokenCheck.SUBJECT)}"
        given = _required(claims, "aud")
        audiences = _strings([given] if isinstance(given, str) else given, TokenCheck.AUDIENCE)
        if rules.audiences.isdisjoint(audiences):
            raise _FailedError(TokenCheck.AUDIENCE)
        expires, issued = _seconds(_required(claims, "exp")), _seconds(_required(claims, "iat"))
        not_before = _seconds(claims.get("nbf", 0))
        if not 0 < expires - issued <= rules.max_lifetime:
            raise _FailedError(TokenCheck.LIFETIME)
        principal = Principal(name, "jwt", _scopes(claims), expires)
        return Verified(principal, rules.issuer, key, issued, not_before, expires, _thumbprint(claims))
    except _FailedError as failed:
        return Rejected(failed.check, name)


def judge(verified: Verified, rules: TokenRules, thumbprint: str | None, now: float) -> Principal | Rejected:
    """Check dates and binding. `now`: Unix seconds; `thumbprint`: of the connection's client certificate, None without one."""
    name = verified.principal.name
    if now + rules.leeway < verified.not_before:
        return Rejected(TokenCheck.NOT_YET_VALID, name)
    if now + rules.leeway < verified.issued:
        return Rejected(TokenCheck.ISSUED_IN_FUTURE, name)
    if verified.thumbprint is not None and verified.thumbprint != thumbprint:
        return Rejected(TokenCheck.CERTIFICATE_BINDING, name)
    if now - rules.leeway >= verified.expires:  # last: the client learns this reason, and a new token must then be accepted
        return Rejected(TokenCheck.EXPIRED, name, expired=True)
    return verified.principal


def _may_be_access_token(claims: Mapping[str, Any]) -> bool:
    """Whether no claim says that the token is an ID token, a refresh token or of another kind.

    Some providers name the purpose themselves: Keycloak in `typ` (Bearer, ID, Refresh), Cognito in `token_use` (access, id).
    """
    return (
        _OTHER_PURPOSES.isdisjoint(claims)
        and claims.get("typ", "Bearer") == "Bearer"
        and claims.get("token_use", "access") == "access"
    )


def _decoded(part: str) -> bytes:
    """Decode base64url without padding. Only the canonical encoding of a value is accepted: unused bits must be zero."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise _FailedError(TokenCheck.MALFORMED) from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != part.encode("ascii"):
        raise _FailedError(TokenCheck.MALFORMED)
    return raw


def _required(claims: Mapping[str, Any], name: str) -> Any:
    value = claims.get(name)
    if value is None:
        raise _FailedError(TokenCheck.CLAIM_MISSING)
    return value


def _matching(pattern: re.Pattern[str], value: Any, check: TokenCheck) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _FailedError(check)
    return value


def _strings(values: Any, check: TokenCheck) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _FailedError(check)
    return values


def _seconds(value: Any) -> float:
    """A finite number in range. Booleans are excluded (in Python they are integers), and NaN compares false."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_DATE:
        raise _FailedError(TokenCheck.CLAIM_MALFORMED)
    return float(value)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """From `scope` (RFC 9068), a string, else `scp` as Entra ID and Okta write it, a string or a list, else none."""
    value = claims["scope"] if "scope" in claims else claims.get("scp", "")
    if isinstance(value, str):
        value = value.split(" ")
    elif "scope" in claims:
        raise _FailedError(TokenCheck.SCOPE)
    return frozenset(_matching(_SCOPE, scope, TokenCheck.SCOPE) for scope in _strings(value, TokenCheck.SCOPE) if scope)


def _thumbprint(claims: Mapping[str, Any]) -> str | None:
    """RFC 8705, 3.1. A token bound in a way that cannot be checked here, such as to a DPoP key, is refused."""
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict) or set(confirmation) != {"x5t#S256"}:
        raise _FailedError(TokenCheck.CONFIRMATION_UNSUPPORTED)
    return _matching(_THUMBPRINT, confirmation["x5t#S256"], TokenCheck.CONFIRMATION_UNSUPPORTED)
