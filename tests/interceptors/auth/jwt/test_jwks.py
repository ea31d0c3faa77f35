"""Sources of keys: which keys of a set are used, fetching over HTTP and from a file, how often, and for how long."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from interceptors.auth.jwt import jwks as sources
from interceptors.auth.jwt.jwk import read_keys
from interceptors.auth.jwt.jwks import FileKeys, UrlKeys, pause
from interceptors.auth.jwt.jwks_error import JwksError
from interceptors.auth.jwt.jwks_http import MAX_BYTES, KeysHttp
from tests.kit.scripted_issuer import JWKS, METADATA, RFC_8414, Page, ScriptedIssuer, scripted_issuer
from tests.kit.token_forge import SigningKey, base64url, ec_key, ed_key, jwks, rsa_key
from tests.kit.waiting import eventually
from tests.kit.weak_keys import roca_private_key


@pytest.fixture
async def issuer() -> AsyncIterator[ScriptedIssuer]:
    async with scripted_issuer() as running:
        yield running


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def started(issuer: str, url: str | None = None, *, clock: Clock | None = None) -> AsyncIterator[UrlKeys]:
    keys = UrlKeys(issuer, url, refresh=3600.0, stale=600.0, cooldown=10.0, clock=clock or Clock())
    await keys.start()
    try:
        yield keys
    finally:
        await keys.close()


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "interceptors.auth.jwks"]


# ---- which keys of a set are used


def altered(key: SigningKey, **changes) -> dict:
    return {name: value for name, value in (key.jwk | changes).items() if value is not None}


@pytest.mark.parametrize("key", [rsa_key("a"), ec_key("a"), ed_key("a")], ids=lambda key: key.algorithm)
@pytest.mark.parametrize("changes", [{}, {"alg": None}, {"use": None}, {"key_ops": ["verify"]}], ids=str)
def test_a_good_key_is_used(key: SigningKey, changes: dict):
    found = read_keys(jwks(altered(key, **changes)))
    assert found.ignored == ()
    assert found.keys["a"].algorithm == key.algorithm
    assert found.keys["a"].signed(b"words", key.sign(b"words"))
    assert not found.keys["a"].signed(b"other words", key.sign(b"words"))


@pytest.mark.parametrize("signature", [b"", b"\0", bytes(64), bytes(256), b"\xff" * 64], ids=len)
def test_a_malformed_signature_is_refused(signature: bytes):
    found = read_keys(jwks(rsa_key("a"), ec_key("b"), ed_key("c")))
    assert [key.signed(b"words", signature) for key in found.keys.values()] == [False] * 3


def private(key: SigningKey, writer) -> dict:
    return json.loads(writer.to_jwk(key.private)) | {"kid": "a", "key_ops": ["verify"]}


def public_jwk(modulus: int | None = None, exponent: int = 65537) -> dict:
    numbers = (modulus or rsa_key("a").private.public_key().public_numbers().n, exponent)
    n, e = (base64url(number.to_bytes((number.bit_length() + 7) // 8, "big")) for number in numbers)
    return {"kty": "RSA", "kid": "a", "n": n, "e": e}


UNUSABLE = {
    "weak": (rsa_key("a", 1024).jwk, "it has 1024 bits"),
    "large": (public_jwk(1 << 8192 | 1), "it has 8193 bits"),
    "exponent_even": (public_jwk(exponent=65538), "not a valid key"),
    "exponent_one": (public_jwk(exponent=1), "not a valid key"),
    "exponent_small": (public_jwk(exponent=3), "below 65537"),
    "exponent_large": (public_jwk(exponent=2**64 + 13), "above 4294967295"),
    "roca": (SigningKey("a", "RS256", roca_private_key()).jwk, "ROCA"),
    "symmetric": ({"kty": "oct", "kid": "a", "k": "c2VjcmV0", "alg": "HS256"}, "private part"),
    "private_rsa": (private(rsa_key("a"), RSAAlgorithm), "private part"),
    "private_ec": (private(ec_key("a"), ECAlgorithm), "private part"),
    "private_ed": (private(ed_key("a"), OKPAlgorithm), "private part"),
    "for_encryption": (altered(rsa_key("a"), use="enc"), "not for signatures"),
    "for_signing": (altered(rsa_key("a"), key_ops=["sign"]), "not for verifying"),
    "operations_no_list": (altered(rsa_key("a"), key_ops="verify"), "not for verifying"),
    "no_kid": (altered(rsa_key("a"), kid=None), "no kid"),
    "kid_path": (altered(rsa_key("a"), kid="../a"), "no kid"),
    "kid_number": (altered(rsa_key("a"), kid=7), "no kid"),
    "other_algorithm": (altered(rsa_key("a"), alg="PS256"), "its algorithm"),
    "algorithm_of_another_type": (altered(ec_key("a"), alg="RS256"), "its algorithm"),
    "algorithm_no_text": (altered(ec_key("a"), alg=["ES256"]), "its algorithm"),
    "other_curve": (
        altered(SigningKey("a", "ES384", ec.generate_private_key(ec.SECP384R1())), alg=None),
        "its type or curve",
    ),
    "other_type": ({"kty": "XYZ", "kid": "a"}, "its type or curve"),
    "part_missing": (altered(rsa_key("a"), n=None), "it needs the members n, e"),
    "part_no_text": (altered(rsa_key("a"), e=65537), "it needs the members n, e"),
    "not_on_the_curve": (altered(ec_key("a"), y=ec_key("a").jwk["x"]), "not a valid key"),
    "short_point": (altered(ed_key("a"), x="AAAA"), "not a valid key"),
    "not_base64": (altered(ed_key("a"), x="\u00e4"), "not a valid key"),
    "no_object": ("a", "not an object"),
}


@pytest.mark.parametrize(("member", "reason"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_key_is_ignored_and_the_others_are_used(member, reason: str):
    found = read_keys(json.dumps({"keys": [member, rsa_key("b").jwk]}).encode())
    assert set(found.keys) == {"b"}
    assert len(found.ignored) == 1
    assert reason in found.ignored[0]


def test_of_two_keys_with_the_same_kid_the_first_is_used():
    found = read_keys(jwks(ec_key("a"), rsa_key("a")))
    assert found.keys["a"].algorithm == "ES256"
    assert "same kid" in found.ignored[0]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [], "keys": []}', b"\xff"], ids=str)
def test_text_that_is_not_a_jwk_set_is_refused(raw: bytes):
    with pytest.raises(ValueError):  # noqa: PT011
        read_keys(raw)


def test_keys_are_equal_by_their_material():
    def read(key: SigningKey):
        return read_keys(jwks(key)).keys["a"]

    assert read(ec_key("a")) == read(ec_key("a"))
    assert read(ec_key("a")) != read(ec_key("a", maker="another"))


# ---- over HTTP


async def test_keys_are_discovered(issuer: ScriptedIssuer):
    issuer.publish(jwks(rsa_key("rsa-1")))
    async with started(issuer.url) as keys:
        assert keys.find("rsa-1") is not None
        assert keys.find("rsa-2") is None
        assert (keys.trouble, keys.last_error, keys.age_seconds) == ("", "", 0.0)
        assert all(b"accept-encoding: identity\r\n" in head.lower() for head in issuer.headers)


async def test_keys_are_discovered_by_oauth_metadata_of_an_issuer_with_a_path(issuer: ScriptedIssuer):
    issuer.publish(jwks(rsa_key("rsa-1")), issuer=issuer.url + "/tenant")
    issuer.pages[RFC_8414 + "/tenant"] = issuer.pages.pop(METADATA)
    async with started(issuer.url + "/tenant") as keys:
        assert keys.find("rsa-1") is not None
    assert issuer.asked["/tenant" + METADATA] == 1


async def test_a_configured_url_needs_no_metadata(issuer: ScriptedIssuer):
    issuer.pages["/keys"] = Page(jwks(rsa_key("rsa-1")))
    async with started("urn:any-issuer", issuer.url + "/keys") as keys:
        assert keys.find("rsa-1") is not None
    assert issuer.asked == {"/keys": 1}


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({"issuer": "https://attacker.example.org"}, "issuer_mismatch"),
        ({"issuer": None}, "issuer_mismatch"),
        ({"jwks_uri": "http://idp.example.org/jwks"}, "url_not_allowed"),
        ({"jwks_uri": "file:///etc/passwd"}, "url_not_allowed"),
        ({"jwks_uri": "https://"}, "url_not_allowed"),
        ({"jwks_uri": "http://[half"}, "url_not_allowed"),
        ({"jwks_uri": None}, "malformed"),
    ],
    ids=str,
)
async def test_unacceptable_metadata_is_not_followed(issuer: ScriptedIssuer, metadata: dict, error: str):
    issuer.publish(jwks(rsa_key("rsa-1")), **metadata)
    async with started(issuer.url) as keys:
        assert (keys.last_error, keys.trouble, keys.age_seconds) == (error, "keys_unavailable", None)
    assert JWKS not in issuer.asked


async def test_an_issuer_with_a_trailing_slash_is_another_issuer(issuer: ScriptedIssuer):
    issuer.publish(jwks(rsa_key("rsa-1")))
    async with started(issuer.url + "/") as keys:
        assert keys.last_error == "issuer_mismatch"


async def test_a_remote_issuer_cannot_direct_requests_to_this_machine(monkeypatch: pytest.MonkeyPatch):
    async def answer(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        assert request.url.host == "idp.example.org"
        metadata = json.dumps({"issuer": "https://idp.example.org", "jwks_uri": "http://127.0.0.1:8080/admin"})
        return httpx.Response(200, stream=httpx.ByteStream(metadata.encode()))

    # In place of a TLS server with a certificate for that name.
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answer)
    http = KeysHttp("https://idp.example.org", None)
    with pytest.raises(JwksError) as refused:
        await http.fetch()
    await http.close()
    assert refused.value.check == "url_not_allowed"


@pytest.mark.parametrize(
    ("page", "error"),
    [
        (Page(b"", 404), "http_status"),
        (Page(b"", 302, {"location": "/elsewhere"}), "http_status"),
        (Page(b"{"), "malformed"),
        (Page(b'{"keys": [' + b" " * MAX_BYTES + b"]}"), "too_large"),
        (Page(gzip.compress(b" " * MAX_BYTES + b'{"keys": []}'), headers={"content-encoding": "gzip"}), "malformed"),
    ],
    ids=["not_found", "redirect", "malformed", "too_large", "compressed"],
)
async def test_an_unacceptable_answer_is_refused(issuer: ScriptedIssuer, page: Page, error: str):
    issuer.publish(b"")
    issuer.pages |= {JWKS: page, "/elsewhere": Page(jwks(rsa_key("rsa-1")))}
    async with started(issuer.url) as keys:
        assert keys.last_error == error
        assert keys.find("rsa-1") is None
    assert "/elsewhere" not in issuer.asked


async def test_plain_http_is_for_localhost_only(caplog: pytest.LogCaptureFixture):
    async with started("http://idp.example.org") as keys:
        assert keys.last_error == "url_not_allowed"
    assert "keys of http://idp.example.org could not be fetched" in caplog.text


async def test_a_start_does_not_wait_for_an_issuer_that_hangs(issuer: ScriptedIssuer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "START_TIMEOUT", 0.01)
    issuer.publish(jwks(rsa_key("rsa-1")))
    issuer.pages[JWKS].held = asyncio.Event()
    async with started(issuer.url) as keys:
        assert (keys.trouble, keys.last_error) == ("keys_unavailable", "")  # still unknown
        issuer.pages[JWKS].held.set()
        await eventually(lambda: keys.find("rsa-1") is not None)


async def test_a_request_to_an_issuer_that_hangs_times_out(issuer: ScriptedIssuer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("interceptors.auth.jwt.jwks_http.TIMEOUT", 0.05)
    issuer.publish(jwks(rsa_key("rsa-1")))
    issuer.pages[JWKS].held = asyncio.Event()
    async with started(issuer.url) as keys:
        assert keys.last_error == "timeout"
        issuer.pages[JWKS].held.set()


async def test_an_answer_that_never_ends_times_out(issuer: ScriptedIssuer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("interceptors.auth.jwt.jwks_http.TIMEOUT", 0.2)
    issuer.publish(jwks(rsa_key("rsa-1")))
    issuer.pages[JWKS].dripping = True
    async with started(issuer.url) as keys:
        assert keys.last_error == "timeout"


# ---- how often, and for how long


async def test_keys_are_fetched_periodically_until_closed(issuer: ScriptedIssuer):
    issuer.publish(jwks(rsa_key("rsa-1")))
    keys = UrlKeys(issuer.url, refresh=0.01, stale=600.0)
    await keys.start()
    try:
        issuer.publish(jwks(ec_key("ec-2")))
        await eventually(lambda: keys.find("ec-2") is not None)
        assert keys.find("rsa-1") is None
        issuer.publish(b"nonsense")
        await eventually(lambda: keys.last_error == "malformed")
        assert keys.find("ec-2") is not None
        issuer.publish(b'{"keys": []}')  # an issuer may withdraw all of its keys
        await eventually(lambda: keys.last_error == "")
        assert keys.find("ec-2") is None
        assert keys.trouble == ""
    finally:
        await keys.close()
    await keys.close()
    asked, tasks = issuer.asked[JWKS], asyncio.all_tasks()
    await keys.refresh()
    assert asyncio.all_tasks() <= tasks  # nothing of it is left running, and no request was made
    assert issuer.asked[JWKS] == asked


async def test_keys_become_stale_while_their_issuer_is_unavailable(issuer: ScriptedIssuer):
    clock = Clock()
    issuer.publish(jwks(rsa_key("rsa-1")))
    async with started(issuer.url, clock=clock) as keys:
        clock.now = 600.0
        await issuer.stop()
        await keys.refresh()
        assert (keys.trouble, keys.last_error, keys.age_seconds) == ("", "unreachable", 600.0)
        clock.now = 600.1
        assert keys.trouble == "keys_stale"


async def test_the_age_of_keys_counts_from_the_request(issuer: ScriptedIssuer):
    """Not from the answer, which may arrive seconds later and still contain keys that were withdrawn meanwhile."""
    clock = Clock()
    issuer.publish(jwks(rsa_key("rsa-1")))
    async with started(issuer.url, clock=clock) as keys:
        clock.now = 100.0
        issuer.pages[JWKS].held = asyncio.Event()
        issuer.coming.clear()
        asking = asyncio.create_task(keys.refresh())
        await issuer.coming.wait()
        clock.now = 104.0
        issuer.pages[JWKS].held.set()
        await asking
        assert keys.age_seconds == 4.0


async def test_a_failed_request_is_retried_soon(issuer: ScriptedIssuer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "_FIRST_PAUSE", 0.001)
    async with started(issuer.url) as keys:
        assert keys.last_error == "http_status"
        issuer.publish(jwks(rsa_key("rsa-1")))
        await eventually(lambda: keys.find("rsa-1") is not None)


async def test_many_unknown_kids_cause_one_request_per_cooldown(issuer: ScriptedIssuer):
    clock = Clock()
    issuer.publish(jwks(rsa_key("rsa-1")))
    async with started(issuer.url, clock=clock) as keys:
        assert issuer.asked[JWKS] == 1
        await asyncio.gather(*(keys.refresh() for _ in range(50)))
        assert issuer.asked[JWKS] == 2
        clock.now = 9.9
        await asyncio.gather(*(keys.refresh() for _ in range(50)))
        assert issuer.asked[JWKS] == 2
        clock.now = 10.0
        issuer.publish(jwks(rsa_key("rsa-1"), ec_key("ec-2")))
        await asyncio.gather(*(keys.refresh() for _ in range(50)))
        assert issuer.asked[JWKS] == 3
        assert keys.find("ec-2") is not None


async def test_a_failed_request_starts_the_cooldown_too(issuer: ScriptedIssuer):
    async with started(issuer.url) as keys:
        for _ in range(20):
            await keys.refresh()
    assert issuer.asked[METADATA] == 2


async def test_a_cancelled_caller_does_not_cancel_the_request(issuer: ScriptedIssuer):
    issuer.publish(jwks(rsa_key("rsa-1")))
    async with started(issuer.url) as keys:
        issuer.publish(jwks(ec_key("ec-2")))
        issuer.pages[JWKS].held = asyncio.Event()
        issuer.coming.clear()
        cancelled, waiting = asyncio.create_task(keys.refresh()), asyncio.create_task(keys.refresh())
        await issuer.coming.wait()
        cancelled.cancel()
        await asyncio.wait({cancelled})
        issuer.pages[JWKS].held.set()
        await asyncio.wait_for(waiting, 30.0)
        assert cancelled.cancelled()
        assert keys.find("ec-2") is not None


async def test_an_ignored_key_is_logged_once(issuer: ScriptedIssuer, caplog: pytest.LogCaptureFixture):
    issuer.publish(jwks(rsa_key("rsa-weak", 1024), rsa_key("rsa-1")))
    clock = Clock()
    async with started(issuer.url, clock=clock) as keys:
        clock.now = 20.0
        await keys.refresh()
    assert [record.getMessage() for record in logged(caplog)] == [
        f"keys of {issuer.url}: ignoring key 'rsa-weak': it has 1024 bits; 2048 to 8192 are accepted"
    ]


async def test_a_set_without_a_usable_key_is_logged_once(issuer: ScriptedIssuer, caplog: pytest.LogCaptureFixture):
    clock = Clock()
    issuer.publish(b'{"keys": []}')
    async with started(issuer.url, clock=clock) as keys:
        clock.now = 20.0
        await keys.refresh()
    assert [record.getMessage() for record in logged(caplog)] == [
        f"keys of {issuer.url}: none is usable, all tokens of the issuer are refused"
    ]


async def test_the_begin_and_the_end_of_an_outage_are_logged_once(issuer: ScriptedIssuer, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "interceptors.auth.jwks")
    clock = Clock()
    async with started(issuer.url, clock=clock) as keys:
        for clock.now in (20.0, 40.0):
            await keys.refresh()
        issuer.publish(jwks(rsa_key("rsa-1")))
        clock.now = 60.0
        await keys.refresh()
    assert [record.levelname for record in logged(caplog)] == ["WARNING", "INFO"]


async def test_a_bug_does_not_stop_the_fetching(issuer: ScriptedIssuer, monkeypatch: pytest.MonkeyPatch):
    async def broken(self) -> bytes:
        raise RuntimeError("a bug")

    clock = Clock()
    issuer.publish(jwks(rsa_key("rsa-1")))
    with monkeypatch.context() as patched:
        patched.setattr(KeysHttp, "fetch", broken)
        keys = UrlKeys(issuer.url, refresh=3600.0, stale=600.0, clock=clock)
        await keys.start()
        assert (keys.last_error, keys.trouble) == ("unexpected", "keys_unavailable")
    await keys.refresh()
    assert (keys.last_error, keys.trouble) == ("", "")
    await keys.close()


def test_pauses_grow_while_attempts_fail_and_are_random():
    assert all(0.5 <= pause(1, 300.0) <= 1.0 for _ in range(100))
    assert all(2.0 <= pause(3, 300.0) <= 4.0 for _ in range(100))
    assert all(15.0 <= pause(10_000, 300.0) <= 30.0 for _ in range(100))
    assert all(270.0 <= pause(0, 300.0) <= 300.0 for _ in range(100))
    assert all(pause(10, 0.5) <= 0.5 for _ in range(100))
    assert len({pause(0, 300.0) for _ in range(10)}) > 1


# ---- from a file


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path):
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(rsa_key("rsa-1")))
    keys = FileKeys(path, 0.01)
    await keys.start()
    try:
        assert keys.find("rsa-1") is not None
        path.write_bytes(b"nonsense")
        await eventually(lambda: keys.last_error == "malformed")
        assert keys.find("rsa-1") is not None
        path.unlink()
        await eventually(lambda: keys.last_error == "unreadable")
        await keys.refresh()
        assert keys.find("rsa-1") is not None
        path.write_bytes(jwks(ec_key("ec-2")))
        await eventually(lambda: keys.find("ec-2") is not None)
        assert (keys.find("rsa-1"), keys.last_error, keys.trouble) == (None, "", "")
        assert keys.age_seconds is not None
    finally:
        await keys.close()


async def test_keys_of_a_file_do_not_become_stale(tmp_path: Path):
    path, clock = tmp_path / "jwks.json", Clock()
    path.write_bytes(jwks(rsa_key("rsa-1")))
    keys = FileKeys(path, 60.0, clock=clock)
    assert keys.trouble == "keys_unavailable"
    await keys.start()
    clock.now = 1e9
    assert (keys.trouble, keys.age_seconds) == ("", 1e9)
    await keys.close()


@pytest.mark.parametrize(
    ("content", "check", "words"),
    [
        (None, "unreadable", "No such file"),
        (b"nonsense", "malformed", "not a JWK set"),
        (jwks(rsa_key("a", 1024)), "malformed", "no usable key"),
        (b" " * (MAX_BYTES + 1), "too_large", "more than"),
    ],
    ids=["missing", "nonsense", "unusable", "too_large"],
)
async def test_a_file_without_usable_keys_fails_the_start(tmp_path: Path, content: bytes | None, check: str, words: str):
    path = tmp_path / "jwks.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JwksError, match=words) as refused:
        await FileKeys(path, 1.0).start()
    assert refused.value.check == check
    assert str(path) in str(refused.value)
