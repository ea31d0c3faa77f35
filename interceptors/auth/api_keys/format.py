"""What an API key looks like: `prefix_id_secret`, letters and digits alone.

    alk_7k2m9x4c1q8e_n0V4bQ...ZkQ9wB
    |   |            |          |
    |   |            |          last 6 characters: CRC-32 of all before them
    |   |            43 characters: 256 random bits
    |   12 characters: 60 random bits, public, what the database is searched by
    what secret scanners know the key by

The checksum tells a mistyped or cut key without the database. It proves nothing: anybody can compute it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, field

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Crockford's: without i, l, o and u, as ids are read out and typed.
_ID_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_ID, _SECRET, _CHECKSUM = 12, 43, 6
SECRET_BITS = 256
"""62**43 > 2**256: no bit is lost in 43 digits."""

_PARTS = re.compile(rf"([a-z][a-z0-9]*)_([{_ID_DIGITS}]{{{_ID}}})_([0-9A-Za-z]{{{_SECRET}}})([0-9A-Za-z]{{{_CHECKSUM}}})")
_ID_ALONE = re.compile(rf"[{_ID_DIGITS}]{{{_ID}}}")
# Names what is hashed, so that no other use of the same pepper can yield a stored key.
_KEY_LABEL, _PEPPER_LABEL = b"api-key-v1\0", b"api-key-pepper-v1\0"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key whose form is right; whether it is good is for the authenticator to say."""

    prefix: str
    id: str
    secret: str = field(repr=False)

    def reveal(self) -> str:
        """The whole key, as its owner has it. To be shown once and written nowhere."""
        text = f"{self.prefix}_{self.id}_{self.secret}"
        return text + _checksum(text)


def new(prefix: str) -> ApiKey:
    """A key nobody has, of the system's random source."""
    key_id = "".join(secrets.choice(_ID_DIGITS) for _ in range(_ID))
    return ApiKey(prefix, key_id, _base62(secrets.randbits(SECRET_BITS), _SECRET))


def parse(text: str, prefix: str) -> ApiKey | None:
    """The key, or None if it is none of this prefix: cut, mistyped, somebody else's. Never raises."""
    found = _PARTS.fullmatch(text)
    if found is None or found[1] != prefix:
        return None
    # The checksum is no secret: how long the comparison takes tells nothing.
    if _checksum(text[:-_CHECKSUM]) != found[4]:
        return None
    return ApiKey(found[1], found[2], found[3])


def is_id(text: str) -> bool:
    """Whether it has the form of a key's public id."""
    return _ID_ALONE.fullmatch(text) is not None


def digest(pepper: bytes, key: ApiKey) -> bytes:
    """What is stored of a key: HMAC-SHA-256, 32 bytes, 1.5 us.

    A slow hash would buy nothing: 256 random bits are not guessed. The id is hashed with the secret, so that a digest
    copied to another row of the database opens nothing.
    """
    return hmac.digest(pepper, _KEY_LABEL + f"{key.id}_{key.secret}".encode(), hashlib.sha256)


def pepper_mark(pepper: bytes) -> str:
    """16 hexadecimal digits that tell one pepper from another; stored with each key, it tells a wrong pepper from a wrong key."""
    return hmac.digest(pepper, _PEPPER_LABEL, hashlib.sha256)[:8].hex()


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECKSUM)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
