"""Public keys that tokens are signed with, as an issuer publishes them (RFC 7517)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from interceptors.auth.jwt.strict_json import strict_object

KEY_ID = re.compile(r"[A-Za-z0-9_=+~-][A-Za-z0-9._~=+:@-]{0,127}")
"""What a kid may look like. It is only ever looked up in a dict, but it is also logged: no paths, quotes or spaces."""
_SPELLINGS = {"Ed25519": "EdDSA"}
"""RFC 9864 renames EdDSA with an Ed25519 key; both names are in use, for the same signature."""
_PUBLIC = {"RS256": ("RSA", None, ("n", "e")), "ES256": ("EC", "P-256", ("x", "y")), "EdDSA": ("OKP", "Ed25519", ("x",))}
"""Algorithm -> the only type and curve of key it goes with, and that key's members."""
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the one algorithm it is good for. Two are equal when they are the same key under the same name."""

    kid: str
    algorithm: str
    """RS256, ES256 or EdDSA."""
    material: tuple[str, ...]
    public: PyJWK = field(compare=False, repr=False)

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether this key signed the message; False as well for a signature of another length, or that is none at all."""
        return self.public.Algorithm.verify(message, self.public.key, signature)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of an issuer by kid, and for people what was left out and why."""

    keys: Mapping[str, Key]
    ignored: tuple[str, ...] = ()


class _UnusableError(Exception):
    """Its text is the reason, for the log."""


def canonical(algorithm: str) -> str:
    """One name for each algorithm."""
    return _SPELLINGS.get(algorithm, algorithm)


def read_keys(raw: bytes) -> KeySet:
    """A JWK set. Raises ValueError when it is none; keys of no use here, such as weak ones, are left out.

    A sound set without a usable key is taken as what it says: an issuer may withdraw all of its keys.
    """
    members = strict_object(raw).get("keys")
    if not isinstance(members, list):
        raise ValueError("no JWK set: keys is not a list")
    keys: dict[str, Key] = {}
    ignored = []
    for member in members:
        try:
            key = _key(member)
            if key.kid in keys:
                raise _UnusableError("another key of the set has the same kid")
        except _UnusableError as reason:
            ignored.append(f"{_named(member)}: {reason}")
        else:
            keys[key.kid] = key
    return KeySet(keys, tuple(ignored))


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
        raise _UnusableError("a part of it is missing")
    try:
        public = PyJWK(jwk, algorithm)
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):
        raise _UnusableError("it is no valid key") from None
    if public.Algorithm.check_key_length(public.key) is not None:
        raise _UnusableError(f"it has {public.key.key_size} bits; at least 2048 are needed")
    return Key(kid, algorithm, material, public)


def _algorithm(jwk: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The key's own alg where it has one, and what goes with its type where it has none."""
    for algorithm, (kind, curve, names) in _PUBLIC.items():
        if jwk.get("kty") == kind and (curve is None or jwk.get("crv") == curve):
            own = jwk.get("alg", algorithm)
            if not isinstance(own, str) or canonical(own) != algorithm:
                raise _UnusableError("its algorithm is not accepted, or does not go with its type")
            return algorithm, names
    raise _UnusableError("its type or curve is not accepted")


def _named(jwk: Any) -> str:
    kid = jwk.get("kid") if isinstance(jwk, dict) else None
    return f"key {kid[:128]!a}" if isinstance(kid, str) else "a key without a kid"
