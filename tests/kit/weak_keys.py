"""RSA keys that nobody may trust: with the ROCA fingerprint, with odd exponents, and of odd sizes."""

from __future__ import annotations

from functools import cache
from math import prod

from cryptography.hazmat.primitives.asymmetric import rsa

_M = prod(p for p in range(2, 702) if all(p % divisor for divisor in range(2, p)))
"""Of 1024-bit primes: the product of the first 126."""
_PRIMES = ((7652405174393218, 746943834729), (7160508985748835, 752328425363))
"""k and a of k*M + (65537^a mod M), as the library of CVE-2017-15361 makes a prime."""


def roca_modulus(factor: int, exponent: int) -> int:
    """Of the same form, but not a product of primes: enough for a public key."""
    return (factor * _M + pow(65537, exponent, _M)) * (_PRIMES[0][0] * _M + pow(65537, _PRIMES[0][1], _M))


@cache
def roca_private_key() -> rsa.RSAPrivateKey:
    """2048 bits, and able to sign."""
    p, q = (k * _M + pow(65537, a, _M) for k, a in _PRIMES)
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key()


def public_key(modulus: int, exponent: int = 65537) -> rsa.RSAPublicKey:
    """Raises ValueError for numbers that the library refuses itself."""
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()
