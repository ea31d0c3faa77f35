"""Which RSA keys of others are trusted: those of token issuers, of client certificates and of the CAs of clients."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import rsa

MIN_BITS, MAX_BITS = 2048, 8192
"""A signature of 8192 bits takes 2 ms to verify; with twice the bits it takes four times as long."""
_MIN_EXPONENT, _MAX_EXPONENT = 65537, (1 << 32) - 1
"""FIPS 186-5 (A.1.1) requires more than 2^16; the time of a verification grows with the exponent's bits."""


def _order(prime: int) -> int:
    """The smallest positive n for which 65537^n = 1 modulo `prime`."""
    power, n = 65537 % prime, 1
    while power != 1:
        power, n = power * 65537 % prime, n + 1
    return n


_SMALL_PRIMES = [p for p in range(3, 168) if all(p % divisor for divisor in range(2, p))]
_ORDERS = [(prime, order) for prime in _SMALL_PRIMES if (order := _order(prime)) < prime - 1]
"""The 17 small primes modulo which 65537 does not generate every residue."""


def fault(key: rsa.RSAPublicKey) -> str | None:
    """Say why the key must not be trusted, to follow its name in a message; None if it may be. Takes 3 us."""
    if not MIN_BITS <= key.key_size <= MAX_BITS:
        return f"has {key.key_size} bits; {MIN_BITS} to {MAX_BITS} are accepted"
    numbers = key.public_numbers()
    if numbers.e % 2 == 0 or not _MIN_EXPONENT <= numbers.e <= _MAX_EXPONENT:
        return f"has an exponent that is even, below {_MIN_EXPONENT} or above {_MAX_EXPONENT}"
    if has_roca_fingerprint(numbers.n):
        return "has the ROCA fingerprint (CVE-2017-15361): its private key can be computed"
    return None


def has_roca_fingerprint(modulus: int) -> bool:
    """Whether both primes of a modulus may have been made by the library with CVE-2017-15361.

    That library makes primes of the form k*M + (65537^a mod M), M being the product of the first primes, so that their
    product is a power of 65537 modulo each of these. Every such modulus is found; of others one in 2^27 is mistaken for one.
    """
    # The residues of a prime are a cyclic group: those with n^order = 1 are the powers of any one element of that order.
    return all(pow(modulus, order, prime) == 1 for prime, order in _ORDERS)
