"""Tokens, the keys of their issuers and what is remembered of them, together."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from interceptors.auth.jwt import jwk
from interceptors.auth.jwt.access_token import TokenRules
from interceptors.auth.jwt.authenticator import JwtAuthenticator
from interceptors.auth.jwt.jwk import Key, read_keys
from interceptors.auth.jwt.jwks import FileKeys, KeySource, UrlKeys
from interceptors.auth.jwt.jwks_error import JwksError
from interceptors.auth.jwt.token_cache import TokenCache, token_digest
from interceptors.calls.principal import Principal, Rejected, Undecided, Verdict
from tests.kit.scripted_issuer import JWKS, METADATA, ScriptedIssuer, scripted_issuer
from tests.kit.token_forge import ACCEPTED, ATTACKS, Accepted, Attack, Forge, ec_key, jwks, rsa_key

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclasses.dataclass
class Counting:
    """How often a signature was computed."""

    times: int = 0


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counted = Counting()
    signed = jwk.Key.signed

    def counting(self: Key, message: bytes, signature: bytes) -> bool:
        counted.times += 1
        return signed(self, message, signature)

    monkeypatch.setattr(jwk.Key, "signed", counting)
    return counted


@pytest.fixture
async def issuer() -> AsyncIterator[ScriptedIssuer]:
    async with scripted_issuer() as running:
        yield running


class GivenKeys(KeySource):
    """Keys that are there, until a test takes them away."""

    def __init__(self, raw: bytes) -> None:
        self.keys = dict(read_keys(raw).keys)
        self.sought = 0
        self.running = False
        self.why = ""
        self.error = ""

    async def start(self) -> None:
        self.running = True

    async def close(self) -> None:
        self.running = False

    def find(self, kid: str) -> Key | None:
        return self.keys.get(kid)

    async def seek(self) -> None:
        self.sought += 1

    @property
    def trouble(self) -> str:
        return self.why

    @property
    def age_seconds(self) -> float | None:
        return 0.0

    @property
    def last_error(self) -> str:
        return self.error


def rules(issuer: str) -> TokenRules:
    return TokenRules(issuer, frozenset({"aligner"}), ALGORITHMS, 86_400.0, 30.0)


@dataclasses.dataclass
class Given:
    """An authenticator of two issuers whose keys are at hand, and somebody to forge tokens for it."""

    cache: int = 100
    clock: Clock = dataclasses.field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.forge = Forge(now=self.clock)
        self.keys, self.others = GivenKeys(self.forge.jwks()), GivenKeys(self.forge.other_jwks())
        believed = [(rules(self.forge.issuer), self.keys), (rules(self.forge.other_issuer), self.others)]
        self.jwt = JwtAuthenticator(believed, cache=self.cache, now=self.clock)

    async def check(self, token: str, thumbprint: str | None = None) -> str:
        """The test it failed, "" for none."""
        found: Verdict = await self.jwt.verify(token, thumbprint)
        return "" if isinstance(found, Principal) else found.check


@asynccontextmanager
async def discovering(issuer: ScriptedIssuer, clock: Clock) -> AsyncIterator[tuple[JwtAuthenticator, Forge]]:
    forge = Forge(issuer=issuer.url, now=clock)
    keys = UrlKeys(issuer.url, refresh=3600.0, stale=600.0, clock=clock)
    jwt = JwtAuthenticator([(rules(issuer.url), keys)], cache=100, now=clock)
    await jwt.start()
    try:
        yield jwt, forge
    finally:
        await jwt.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_is_refused_however_often_it_comes(attack: Attack):
    given = Given()
    token = attack.token(given.forge)
    for _ in range(2):
        refused = await given.jwt.verify(token, given.forge.thumbprint if attack.certificate else None)
        assert isinstance(refused, Rejected)
        assert refused.check == attack.check
    # Only what may be a new key makes anybody look for it.
    assert given.keys.sought + given.others.sought == (2 if attack.check == "signing_key_unknown" else 0)


@pytest.mark.parametrize("good", ACCEPTED, ids=lambda good: good.name)
async def test_a_good_token_is_accepted_however_often_it_comes(good: Accepted, signatures: Counting):
    given = Given()
    token = good.token(given.forge)
    for _ in range(3):
        accepted = await given.jwt.verify(token, given.forge.thumbprint if good.certificate else None)
        assert isinstance(accepted, Principal)
        assert accepted.scopes == good.scopes
    assert signatures.times == 1


async def test_attacks_beside_a_good_token_change_nothing_of_it():
    """Nor does what is remembered of one token help another."""
    given = Given()
    assert await given.check(given.forge.token()) == ""
    for attack in ATTACKS:
        thumbprint = given.forge.thumbprint if attack.certificate else None
        assert await given.check(attack.token(given.forge), thumbprint) == attack.check, attack.name
    assert await given.check(given.forge.token()) == ""


# ---- what is remembered


async def test_a_remembered_token_is_still_judged_at_every_call(signatures: Counting):
    given = Given()
    now = given.clock.now
    bound = given.forge.token(given.forge.claims(cnf={"x5t#S256": given.forge.thumbprint}, nbf=int(now)))
    assert await given.check(bound, given.forge.thumbprint) == ""
    assert await given.check(bound, None) == "certificate_binding"
    assert await given.check(bound, "A" * 43) == "certificate_binding"
    given.clock.now = now - 60
    assert await given.check(bound, given.forge.thumbprint) == "not_yet_valid"
    assert signatures.times == 1
    given.clock.now = now + 629
    assert await given.check(bound, given.forge.thumbprint) == ""
    given.clock.now = now + 630
    assert await given.check(bound, given.forge.thumbprint) == "expired"
    assert len(given.jwt._cache) == 0


async def test_look_ups_are_counted_by_whether_a_signature_was_computed_for_them(signatures: Counting):
    given = Given()
    first, second = given.forge.token(), given.forge.token(given.forge.claims(sub="another"))
    for token in (first, first, second, first):
        assert await given.check(token) == ""
    cache = given.jwt.cache
    assert (cache.hits, cache.misses, len(cache)) == (2, 2, 2)
    assert signatures.times == cache.misses
    given.keys.keys = dict(read_keys(jwks(rsa_key("rsa-1", maker="another"))).keys)
    assert await given.check(first) == "signature"  # it is there, and does not hold any more
    assert (cache.hits, cache.misses, len(cache)) == (2, 3, 1)
    assert await given.check("é" * 10) == await given.check("malformed") == "malformed"
    assert (cache.hits, cache.misses) == (2, 4)  # what cannot be a token is not looked up


async def test_what_is_refused_is_not_remembered_as_good(signatures: Counting):
    given = Given()
    early = given.forge.token(given.forge.claims(nbf=int(given.clock.now) + 300))
    assert await given.check(early) == "not_yet_valid"
    given.clock.now += 300
    assert await given.check(early) == ""
    assert await given.check(given.forge.token(key=rsa_key("rsa-1", maker="attacker"))) == "signature"
    assert len(given.jwt._cache) == 1


async def test_a_remembered_token_ends_with_its_key():
    given = Given()
    token = given.forge.token()
    assert await given.check(token) == ""
    given.keys.keys = dict(read_keys(given.forge.jwks()).keys)  # got again, and the same
    assert await given.check(token) == ""
    del given.keys.keys["rsa-1"]
    assert await given.check(token) == "signing_key_unknown"
    assert len(given.jwt._cache) == 0


async def test_a_remembered_token_does_not_outlive_its_key_under_the_same_name():
    given = Given()
    token = given.forge.token()
    assert await given.check(token) == ""
    given.keys.keys = dict(read_keys(jwks(rsa_key("rsa-1", maker="another"))).keys)
    assert await given.check(token) == "signature"


@pytest.mark.parametrize("why", ["keys_stale", "keys_unavailable"])
async def test_without_keys_that_can_be_relied_on_nothing_is_decided(why: str):
    given = Given()
    token = given.forge.token()
    assert await given.check(token) == ""
    given.keys.why = why
    assert await given.jwt.verify(token, None) == Undecided(why)
    assert await given.jwt.verify(given.forge.token(key=ec_key("ec-1")), None) == Undecided(why)
    assert await given.check(given.forge.token(given.forge.claims(iss=given.forge.other_issuer), key=rsa_key("other-1"))) == ""
    assert given.keys.sought == 0


async def test_an_unknown_key_of_an_issuer_that_is_away_is_no_forgery_yet():
    given = Given()
    given.keys.error = "unreachable"
    assert await given.jwt.verify(given.forge.token(key=rsa_key("rsa-9")), None) == Undecided("keys_unavailable")
    assert await given.check(given.forge.token()) == ""


async def test_an_algorithm_that_is_not_accepted_makes_nobody_look_for_its_key():
    given = Given()
    unsigned = given.forge.message(header=given.forge.header(alg="none", kid="made-up")) + "."
    assert await given.check(unsigned) == "algorithm"
    assert given.keys.sought == 0


async def test_no_token_is_kept():
    given = Given()
    token = given.forge.token()
    assert await given.check(token) == ""
    kept = [given.jwt._cache]
    seen = set()
    while kept:
        thing = kept.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        assert not (isinstance(thing, str) and thing in token and len(thing) > 20), thing
        assert not (isinstance(thing, bytes) and thing in token.encode() and len(thing) > 20), thing
        if not hasattr(thing, "__globals__"):
            kept += gc.get_referents(thing)


async def test_nothing_is_remembered_where_that_is_asked_for(signatures: Counting):
    given = Given(cache=0)
    token = given.forge.token()
    assert [await given.check(token) for _ in range(3)] == ["", "", ""]
    assert signatures.times == 3


async def test_the_token_unused_for_longest_goes_first(signatures: Counting):
    given = Given(cache=2)
    first, second, third = (given.forge.token(given.forge.claims(jti=str(number))) for number in range(3))
    for token in (first, second, first, third):
        assert await given.check(token) == ""
    assert signatures.times == 3
    assert await given.check(first) == ""
    assert signatures.times == 3
    assert await given.check(second) == ""
    assert signatures.times == 4
    assert len(given.jwt._cache) == 2


def test_a_token_is_remembered_under_its_digest():
    assert token_digest("a.b.c") == hashlib.sha256(b"a.b.c").digest()
    cache = TokenCache(2)
    assert cache.get(token_digest("a.b.c")) is None
    cache.drop(token_digest("a.b.c"))


# ---- with an issuer


async def test_the_first_token_of_a_new_key_waits_for_it_and_all_others_with_it(issuer: ScriptedIssuer):
    issuer.publish(jwks(rsa_key("rsa-1")))
    async with discovering(issuer, Clock()) as (jwt, forge):
        old = forge.token()
        assert isinstance(await jwt.verify(old, None), Principal)
        issuer.publish(jwks(ec_key("ec-2")))
        new = [forge.token(forge.claims(jti=str(number)), key=ec_key("ec-2")) for number in range(20)]
        found = await asyncio.gather(*(jwt.verify(token, None) for token in new))
        assert all(isinstance(verdict, Principal) for verdict in found)
        assert issuer.asked[JWKS] == 2
        assert await jwt.verify(old, None) == Rejected("signing_key_unknown")


async def test_random_kids_are_one_request_a_cooldown(issuer: ScriptedIssuer):
    clock = Clock()
    issuer.publish(jwks(rsa_key("rsa-1")))
    async with discovering(issuer, clock) as (jwt, forge):
        for round_ in range(3):
            clock.now += 10.0
            for number in range(20):
                token = forge.token(header=forge.header(kid=f"made-up-{number}"), key=rsa_key("rsa-1", maker="attacker"))
                assert await jwt.verify(token, None) == Rejected("signing_key_unknown")
            assert issuer.asked[JWKS] == 2 + round_


async def test_a_server_starts_without_its_issuer_and_gets_the_keys_later(issuer: ScriptedIssuer):
    forge = Forge(issuer=issuer.url)
    jwt = JwtAuthenticator([(rules(issuer.url), UrlKeys(issuer.url, refresh=0.01, stale=600.0))], cache=10)
    await jwt.start()
    try:
        token = forge.token()
        assert await jwt.verify(token, None) == Undecided("keys_unavailable")
        assert jwt.sources[issuer.url].last_error == "http_status"
        issuer.publish(jwks(rsa_key("rsa-1")))
        async with asyncio.timeout(30):
            while jwt.sources[issuer.url].trouble:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert isinstance(await jwt.verify(token, None), Principal)
    finally:
        await jwt.close()
    assert issuer.asked[METADATA] >= 2


async def test_a_file_without_keys_ends_the_start_and_what_was_started(tmp_path: Path):
    forge = Forge()
    good = GivenKeys(forge.jwks())
    missing = FileKeys(tmp_path / "absent.json", 1.0)
    jwt = JwtAuthenticator([(rules(forge.issuer), good), (rules(forge.other_issuer), missing)], cache=10)
    with pytest.raises(JwksError, match=r"absent\.json"):
        await jwt.start()
    assert not good.running


def test_an_issuer_is_configured_once():
    keys = GivenKeys(Forge().jwks())
    with pytest.raises(ValueError, match="twice"):
        JwtAuthenticator([(rules("https://a"), keys), (rules("https://a"), keys)], cache=10)
