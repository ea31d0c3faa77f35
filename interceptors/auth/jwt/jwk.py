"""Public keys that tokens are signed with, as an issuer publishes them (RFC 7517)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from interceptors.auth import rsa_keys
from interceptors.auth.jwt.strict_json import strict_object

KEY_ID = re.compile(r"[A-Za-z0-9_=+~-][A-Za-z0-9._~=+:@-]{0,127}")
"""Form of a kid. It is only used to look up a key in a dict, but it is also logged: no paths, quotes or spaces."""
_ALIASES = {"Ed25519": "EdDSA"}
"""RFC 9864 renames EdDSA with an Ed25519 key; both names are in use for the same signature."""
_PUBLIC = {"RS256": ("RSA", None, ("n", "e")), "ES256": ("EC", "P-256", ("x", "y")), "EdDSA": ("OKP", "Ed25519", ("x",))}
"""Algorithm -> the only key type and curve it is used with, and the members that make up such a key."""
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and the one algorithm it may be used with. Equal if kid, algorithm and key material are equal."""

    kid: str
    algorithm: str
    """RS256, ES256 or EdDSA."""
    material: tuple[str, ...]
    public: PyJWK = field(compare=False, repr=False)

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether this key signed the message; False also for a signature of the wrong length or form."""
        return self.public.Algorithm.verify(message, self.public.key, signature)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of an issuer by kid, and which keys of the published set are ignored and why, for the log."""

    keys: Mapping[str, Key]
    ignored: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()
    """Those of `ignored` that the issuer should replace: it may sign with them, and others may be able to."""


class _UnusableError(Exception):
    """The message is the reason, for the log."""


class _WeakError(_UnusableError):
    """The key would be used if it were strong."""


def canonical(algorithm: str) -> str:
    """The one name used here for an algorithm that has several."""
    return _ALIASES.get(algorithm, algorithm)


def read_keys(raw: bytes) -> KeySet:
    """Parse a JWK set. Raises ValueError if it is not one; unusable keys, such as weak ones, are ignored.

    A well-formed set without a usable key is accepted: an issuer may withdraw all of its keys.
    """
    members = strict_object(raw).get("keys")
    if not isinstance(members, list):
        raise ValueError("not a JWK set: keys is not a list")
    keys: dict[str, Key] = {}
    ignored, weak = [], []
    for member in members:
        try:
            key = _key(member)
            if key.kid in keys:
                raise _UnusableError("another key of the set has the same kid")
            keys[key.kid] = key
        except _UnusableError as reason:
            kid = member.get("kid") if isinstance(member, dict) else None
            ignored.append(f"key {kid[:128]!a}: {reason}" if isinstance(kid, str) else f"a key without a kid: {reason}")
            if isinstance(reason, _WeakError):
                weak.append(ignored[-1])
    return KeySet(keys, tuple(ignored), tuple(weak))


def _key(jwk: Any) -> Key:
    if not isinstance(jwk, dict):
        raise _UnusableError("not an object")
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not KEY_ID.fullmatch(kid):
        raise _UnusableError("it has no kid, or one with characters that are not accepted")
    if not _PRIVATE.isdisjoint(jwk):
        raise _UnusableError("it is published with its private part")
    if jwk.get("use", "sig") != "sig":
        raise _UnusableError("it is not for signatures")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _UnusableError("it is not for verifying")
    algorithm, names = _algorithm(jwk)
    material = tuple(part for name in names if isinstance(part := jwk.get(name), str))
    if len(material) != len(names):
        raise _UnusableError(f"it needs the members {', '.join(names)}")
    try:
        public = PyJWK(jwk, algorithm)
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):
        raise _UnusableError("it is not a valid key") from None
    if isinstance(public.key, rsa.RSAPublicKey) and (fault := rsa_keys.fault(public.key)) is not None:
        raise _WeakError(f"it {fault}")
    return Key(kid, algorithm, material, public)


def _algorithm(jwk: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The algorithm for the key's type, which the key's own alg, if present, must agree with; and the members it needs."""
    for algorithm, (kind, curve, names) in _PUBLIC.items():
        if jwk.get("kty") == kind and (curve is None or jwk.get("crv") == curve):
            own = jwk.get("alg", algorithm)
            if not isinstance(own, str) or canonical(own) != algorithm:
                raise _UnusableError("its algorithm is not accepted, or does not match its type")
            return algorithm, names
    raise _UnusableError("its type or curve is not accepted")
