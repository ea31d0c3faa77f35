"""The format of a key: made, parsed, mistyped, hashed."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from interceptors.auth.api_keys import format as api_key

# The same in every process that collects these tests.
KEY = api_key.ApiKey("alk", "7k2m9x4c1q8e", "n0V4bQ9xT2LrEwYc8aJd5GhKmP1sUz7FiBqRvX3tNoC")
TEXT = KEY.reveal()
PEPPER = b"p" * 32
WORDS = st.text("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1)


def test_the_form_of_a_key():
    assert re.fullmatch(r"alk_[0-9a-z]{12}_[0-9A-Za-z]{49}", TEXT)
    assert api_key.parse(TEXT, "alk") == KEY
    assert KEY.secret not in repr(KEY)


def test_the_secret_holds_256_random_bits(monkeypatch):
    assert 2**api_key.SECRET_BITS < 62**43
    for number in (0, 2**256 - 2, 2**256 - 1):
        monkeypatch.setattr(secrets, "randbits", {256: number}.get)
        assert int_of(api_key.new("alk").secret) == number


def int_of(text: str) -> int:
    digits = string.digits + string.ascii_uppercase + string.ascii_lowercase
    number = 0
    for digit in text:
        number = number * 62 + digits.index(digit)
    return number


def test_the_checksum_is_the_crc_32_of_all_before_it():
    """So that others, such as secret scanners, can check it."""
    assert int_of(TEXT[-6:]) == zlib.crc32(TEXT[:-6].encode())


def test_keys_differ():
    keys = [api_key.new("alk") for _ in range(1000)]
    assert len({key.id for key in keys}) == len({key.secret for key in keys}) == 1000


@given(st.text())
def test_arbitrary_text_is_not_a_key(text):
    assert api_key.parse(text, "alk") is None


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_key_with_anything_around_it_is_refused(before, after):
    assume(before or after)
    assert api_key.parse(before + TEXT + after, "alk") is None


@given(st.integers(0, len(TEXT) - 1), st.characters())
def test_a_wrong_character_is_detected(place, character):
    mistyped = TEXT[:place] + character + TEXT[place + 1 :]
    assume(mistyped != TEXT)
    assert api_key.parse(mistyped, "alk") is None


@given(st.integers(0, len(TEXT) - 2))
def test_two_swapped_characters_are_detected(place):
    swapped = TEXT[:place] + TEXT[place + 1] + TEXT[place] + TEXT[place + 2 :]
    assume(swapped != TEXT)
    assert api_key.parse(swapped, "alk") is None


@given(st.integers(0, len(TEXT) - 1))
def test_a_truncated_key_is_detected(length):
    assert api_key.parse(TEXT[:length], "alk") is None


@given(st.from_regex(r"[a-z][a-z0-9]{1,15}", fullmatch=True))
def test_a_key_of_any_prefix_is_parsed(prefix):
    key = api_key.new(prefix)
    assert api_key.parse(key.reveal(), prefix) == key
    assert api_key.parse(key.reveal(), prefix + "x") is None


@given(WORDS, WORDS, WORDS)
def test_a_wrong_checksum_is_refused(prefix, key_id, secret):
    assert api_key.parse(f"{prefix}_{key_id}_{secret}", prefix) is None


def test_another_prefix_is_refused():
    assert api_key.parse(TEXT, "other") is None


@pytest.mark.parametrize(
    "text", [TEXT + "\n", " " + TEXT, TEXT.upper(), TEXT.replace("_", "-"), TEXT.encode("utf-16").decode("latin-1")]
)
def test_near_misses_are_refused(text):
    assert api_key.parse(text, "alk") is None


def test_digits_of_other_scripts_are_refused():
    assert api_key.parse(TEXT[:-1] + "\N{ARABIC-INDIC DIGIT FIVE}", "alk") is None


def test_the_stored_digest():
    expected = hmac.new(PEPPER, b"api-key-v1\0" + f"{KEY.id}_{KEY.secret}".encode(), hashlib.sha256).digest()
    assert api_key.digest(PEPPER, KEY) == expected
    assert api_key.digest(b"q" * 32, KEY) != expected


def test_a_digest_depends_on_the_id():
    """Write access to the table is not enough to give one key's secret to another."""
    other = api_key.ApiKey(KEY.prefix, api_key.new("alk").id, KEY.secret)
    assert api_key.digest(PEPPER, other) != api_key.digest(PEPPER, KEY)


def test_a_pepper_is_identified_by_its_mark():
    assert api_key.pepper_mark(PEPPER) == api_key.pepper_mark(PEPPER) != api_key.pepper_mark(b"q" * 32)
    assert len(api_key.pepper_mark(PEPPER)) == 16


@pytest.mark.parametrize(
    ("text", "valid"), [(KEY.id, True), (KEY.id[:-1], False), (KEY.id + "\n", False), ("i" * 12, False), ("", False)]
)
def test_the_form_of_an_id(text, valid):
    assert api_key.is_id(text) is valid
