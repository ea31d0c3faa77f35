"""The format of an API key, `prefix_id_secret`: letters, digits and two underscores.

    alk_7k2m9x4c1q8e_n0V4bQ...ZkQ9wB
    |   |            |          |
    |   |            |          last 6 characters: CRC-32 of all before them
    |   |            43 characters: 256 random bits
    |   12 characters: 60 random bits, public, what the database is searched by
    what secret scanners recognise the key by

The checksum detects a mistyped or truncated key without the database. It proves nothing: anyone can compute it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, field

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Crockford's alphabet, without i, l, o and u, since ids are read out and typed.
_ID_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_ID, _SECRET, _CHECKSUM = 12, 43, 6
SECRET_BITS = 256
"""62**43 > 2**256: 43 digits hold all bits."""

_PARTS = re.compile(rf"([a-z][a-z0-9]*)_([{_ID_DIGITS}]{{{_ID}}})_([0-9A-Za-z]{{{_SECRET}}})([0-9A-Za-z]{{{_CHECKSUM}}})")
_ID_ALONE = re.compile(rf"[{_ID_DIGITS}]{{{_ID}}}")
# Says what is hashed, so that no other use of the same pepper can produce a stored digest.
_KEY_LABEL, _PEPPER_LABEL = b"api-key-v1\0", b"api-key-pepper-v1\0"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A well-formed key; whether it is valid is for the authenticator to decide."""

    prefix: str
    id: str
    secret: str = field(repr=False)

    def reveal(self) -> str:
        """The complete key as its owner has it. Show it once and write it nowhere."""
        text = f"{self.prefix}_{self.id}_{self.secret}"
        return text + _checksum(text)


def new(prefix: str) -> ApiKey:
    """Make a random key, from the system's random source."""
    key_id = "".join(secrets.choice(_ID_DIGITS) for _ in range(_ID))
    return ApiKey(prefix, key_id, _base62(secrets.randbits(SECRET_BITS), _SECRET))


def parse(text: str, prefix: str) -> ApiKey | None:
    """Parse a key; None if it is malformed, truncated, mistyped or has another prefix. Never raises."""
    found = _PARTS.fullmatch(text)
    # A plain comparison: the checksum is not secret, so its timing reveals nothing.
    if found is None or found[1] != prefix or _checksum(text[:-_CHECKSUM]) != found[4]:
        return None
    return ApiKey(found[1], found[2], found[3])


def is_id(text: str) -> bool:
    """Whether the text has the form of a key's public id."""
    return _ID_ALONE.fullmatch(text) is not None


def digest(pepper: bytes, key: ApiKey) -> bytes:
    """The stored form of a key: HMAC-SHA-256, 32 bytes, 1.5 us.

    A slow hash would gain nothing, since 256 random bits cannot be guessed. The id is hashed with the secret, so that a
    digest copied to another row of the database is of no use.
    """
    return hmac.digest(pepper, _KEY_LABEL + f"{key.id}_{key.secret}".encode(), hashlib.sha256)


def pepper_mark(pepper: bytes) -> str:
    """16 hexadecimal digits that identify a pepper; stored with each key, to distinguish a wrong pepper from a wrong key."""
    return hmac.digest(pepper, _PEPPER_LABEL, hashlib.sha256)[:8].hex()


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECKSUM)


def _base62(number: int, width: int) -> str:
    text = ""
    for _ in range(width):
        number, digit = divmod(number, 62)
        text = _DIGITS[digit] + text
    return text
