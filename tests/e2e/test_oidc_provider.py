"""Access tokens of a certified OpenID provider, its keys discovered, rotated and out of reach."""

from __future__ import annotations

import base64
import datetime
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from interceptors.auth.jwt.access_token import TokenRules
from interceptors.auth.jwt.authenticator import JwtAuthenticator
from interceptors.auth.jwt.jwks import UrlKeys
from interceptors.calls.principal import Principal, Rejected, Undecided
from tests.kit.oidc import AUDIENCE, OidcProvider, provider

__all__ = ["provider"]  # a fixture

STALE = 600.0


@dataclass
class Clock:
    """Time that passes when the test says so. The tokens' own is the provider's, so that one goes on besides."""

    passed: float = 0.0

    def now(self) -> float:
        return time.time() + self.passed

    def monotonic(self) -> float:
        return self.passed


@dataclass
class Believing:
    """Somebody who believes the provider."""

    jwt: JwtAuthenticator
    keys: UrlKeys
    clock: Clock


@asynccontextmanager
async def believing(issuer: str, url: str | None = None, *, stale: float = STALE) -> AsyncIterator[Believing]:
    clock = Clock()
    rules = TokenRules(issuer, frozenset({AUDIENCE}), frozenset({"RS256", "ES256", "EdDSA"}), 86_400.0, 30.0)
    keys = UrlKeys(issuer, url, refresh=3600.0, stale=stale, clock=clock.monotonic)
    jwt = JwtAuthenticator([(rules, keys)], cache=100, now=clock.now)
    await jwt.start()
    try:
        yield Believing(jwt, keys, clock)
    finally:
        await jwt.close()


async def test_tokens_of_all_algorithms_are_accepted(provider: OidcProvider):
    async with believing(provider.issuer) as here:
        for resource in ("rs256", "es256", "eddsa", "ed25519"):
            token = await provider.token(resource, scope="align admin")
            for _ in range(2):  # verified, and remembered
                found = await here.jwt.verify(token, None)
                assert isinstance(found, Principal), (resource, found)
                assert found.name == f"jwt:{provider.issuer}#service-a"
                assert found.scopes == {"align", "admin"}
                assert found.expires is not None
                assert 0 < found.expires - time.time() <= 20 * 60


async def test_its_keys_may_be_named_by_their_address(provider: OidcProvider):
    async with believing(provider.issuer, f"{provider.issuer}/jwks") as here:
        assert isinstance(await here.jwt.verify(await provider.token(), None), Principal)


async def test_what_it_issues_for_others_is_refused(provider: OidcProvider):
    async with believing(provider.issuer) as here:
        elsewhere = await provider.token("https://another.example.org/")
        assert await here.jwt.verify(elsewhere, None) == Rejected("audience", f"jwt:{provider.issuer}#service-a")
        assert await here.jwt.verify(await provider.token("opaque"), None) == Rejected("malformed")
        assert await here.jwt.verify(await provider.token("ps256"), None) == Rejected("algorithm")


async def test_a_token_is_good_over_the_connection_it_is_bound_to(provider: OidcProvider):
    mine, another = certificate("service-bound"), certificate("another")
    async with believing(provider.issuer) as here:
        token = await provider.token(client="service-bound", certificate=mine)
        name = f"jwt:{provider.issuer}#service-bound"
        for _ in range(2):
            assert isinstance(await here.jwt.verify(token, thumbprint(mine)), Principal)
            assert await here.jwt.verify(token, thumbprint(another)) == Rejected("certificate_binding", name)
            assert await here.jwt.verify(token, None) == Rejected("certificate_binding", name)


async def test_new_keys_are_taken_at_once_and_old_ones_are_not_any_more(provider: OidcProvider):
    async with believing(provider.issuer) as here:
        old, unseen = await provider.token(), await provider.token()
        assert isinstance(await here.jwt.verify(old, None), Principal)
        await provider.rotate()
        assert isinstance(await here.jwt.verify(old, None), Principal)  # as far as is known here
        assert isinstance(await here.jwt.verify(await provider.token(), None), Principal)
        assert await here.jwt.verify(old, None) == Rejected("signing_key_unknown")
        assert await here.jwt.verify(unseen, None) == Rejected("signing_key_unknown")


async def test_an_outage_is_bridged_for_as_long_as_is_said(provider: OidcProvider):
    async with believing(provider.issuer) as here:
        token, unseen = await provider.token(), await provider.token("es256")
        assert isinstance(await here.jwt.verify(token, None), Principal)
        await provider.rotate()
        unknown = await provider.token()
        await provider.stop()
        # An issuer that is gone may have signed with a key of its own that is not known here.
        assert await here.jwt.verify(unknown, None) == Undecided("keys_unavailable")
        assert here.keys.last_error == "unreachable"
        here.clock.passed = STALE
        assert isinstance(await here.jwt.verify(token, None), Principal)
        assert isinstance(await here.jwt.verify(unseen, None), Principal)
        here.clock.passed = STALE + 1
        assert await here.jwt.verify(token, None) == Undecided("keys_stale")
        assert await here.jwt.verify(unseen, None) == Undecided("keys_stale")


async def test_without_keys_from_the_start_nothing_is_decided(provider: OidcProvider):
    token = await provider.token()
    await provider.stop()
    async with believing(provider.issuer) as here:
        assert await here.jwt.verify(token, None) == Undecided("keys_unavailable")


async def test_a_token_ends_when_it_says(provider: OidcProvider):
    async with believing(provider.issuer, stale=3600.0) as here:
        token = await provider.token()
        assert isinstance(await here.jwt.verify(token, None), Principal)
        here.clock.passed = 20 * 60 + 60
        expired = await here.jwt.verify(token, None)
        assert expired == Rejected("expired", f"jwt:{provider.issuer}#service-a", expired=True)


def certificate(name: str) -> bytes:
    """DER, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


def thumbprint(der: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
