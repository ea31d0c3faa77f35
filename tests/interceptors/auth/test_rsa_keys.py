"""Which RSA keys are trusted: sizes, exponents, and the fingerprint of a library that made weak ones."""

from __future__ import annotations

import random

import pytest

from interceptors.auth.rsa_keys import fault, has_roca_fingerprint
from tests.kit.token_forge import rsa_key
from tests.kit.weak_keys import public_key, roca_modulus, roca_private_key

GOOD = rsa_key("a").private.public_key()
MODULUS = GOOD.public_numbers().n


def test_a_key_of_ours_is_trusted() -> None:
    assert fault(GOOD) is None


def test_a_key_with_the_roca_fingerprint_is_named() -> None:
    key = roca_private_key().public_key()
    assert key.key_size == 2048
    assert "ROCA" in (fault(key) or "")


@pytest.mark.parametrize("bits", [53, 200, 1000, 2000])
def test_the_fingerprint_is_found_at_every_size(bits: int) -> None:
    draw = random.Random(bits)
    assert all(has_roca_fingerprint(roca_modulus(draw.getrandbits(bits), draw.getrandbits(60))) for _ in range(20))


def test_other_moduli_do_not_have_the_fingerprint() -> None:
    draw = random.Random(1)
    assert not any(has_roca_fingerprint(draw.getrandbits(2048) | 1) for _ in range(2000))


@pytest.mark.parametrize("exponent", [3, 17, 65535, 2**32 + 15, 2**64 + 13, -2], ids=str)
def test_an_exponent_out_of_policy_is_refused(exponent: int) -> None:
    """A negative one is that much less than the modulus, which differs in each process."""
    assert "exponent" in (fault(public_key(MODULUS, exponent % MODULUS)) or "")


@pytest.mark.parametrize("exponent", [65537, 65539, 2**32 - 1])
def test_an_exponent_within_the_policy_is_trusted(exponent: int) -> None:
    assert fault(public_key(MODULUS, exponent)) is None


@pytest.mark.parametrize(("bits", "trusted"), [(1024, False), (2047, False), (2048, True), (8192, True), (8193, False)])
def test_a_size_out_of_policy_is_refused(bits: int, trusted: bool) -> None:
    found = fault(public_key((1 << (bits - 1)) + 12345))
    assert (found is None) == trusted
    assert trusted or f"has {bits} bits" in (found or "")
