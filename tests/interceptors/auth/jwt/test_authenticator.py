"""Tokens, the keys of their issuers and the cache of verified tokens, together."""

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
from interceptors.calls.principal import Principal, Rejected, Undecided, Verdict
from tests.kit.scripted_issuer import JWKS, METADATA, ScriptedIssuer, scripted_issuer
from tests.kit.token_forge import ACCEPTED, ATTACKS, Accepted, Attack, Forge, ec_key, jwks, rsa_key
from tests.kit.waiting import eventually

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclasses.dataclass
class Counting:
    """How often a signature was verified."""

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


class ScriptedKeys(KeySource):
    """Keys in a dict that tests change."""

    def __init__(self, raw: bytes) -> None:
        super().__init__("scripted")
        self.keys = dict(read_keys(raw).keys)
        self.refreshed = 0
        self.running = False
        self.scripted_trouble = ""

    async def start(self) -> None:
        self.running = True

    async def close(self) -> None:
        self.running = False

    def find(self, kid: str) -> Key | None:
        return self.keys.get(kid)

    async def refresh(self) -> None:
        self.refreshed += 1

    @property
    def trouble(self) -> str:
        return self.scripted_trouble


def rules(issuer: str) -> TokenRules:
    return TokenRules(issuer, frozenset({"aligner"}), ALGORITHMS, 86_400.0, 30.0)


@dataclasses.dataclass
class Given:
    """An authenticator of two issuers whose keys are known, and a forge of tokens for it."""

    cache: int = 100
    clock: Clock = dataclasses.field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.forge = Forge(now=self.clock)
        self.keys, self.others = ScriptedKeys(self.forge.jwks()), ScriptedKeys(self.forge.other_jwks())
        issuers = [(rules(self.forge.issuer), self.keys), (rules(self.forge.other_issuer), self.others)]
        self.jwt = JwtAuthenticator(issuers, cache=self.cache, now=self.clock)
        self.cached = self.jwt.report.caches["tokens"]

    async def check(self, token: str, thumbprint: str | None = None) -> str:
        """The check it failed, "" for none."""
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


async def test_a_token_of_a_refused_typ_causes_no_request_for_keys():
    given = Given()
    token = given.forge.token(header=given.forge.header(typ="JWT", kid="rsa-9"))
    assert await given.check(token) == "type"
    assert given.keys.refreshed == 0


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_is_refused_every_time(attack: Attack):
    given = Given()
    token = attack.token(given.forge)
    for _ in range(2):
        refused = await given.jwt.verify(token, given.forge.thumbprint if attack.certificate else None)
        assert isinstance(refused, Rejected)
        assert refused.check == attack.check
    # Only a kid that may be a new key causes a refresh.
    assert given.keys.refreshed + given.others.refreshed == (2 if attack.check == "signing_key_unknown" else 0)


@pytest.mark.parametrize("good", ACCEPTED, ids=lambda good: good.name)
async def test_a_good_token_is_accepted_every_time_and_verified_once(good: Accepted, signatures: Counting):
    given = Given()
    token = good.token(given.forge)
    for _ in range(3):
        accepted = await given.jwt.verify(token, given.forge.thumbprint if good.certificate else None)
        assert isinstance(accepted, Principal)
        assert accepted.scopes == good.scopes
    assert signatures.times == 1


async def test_attacks_do_not_affect_a_good_token():
    """Nor does a cached token help another."""
    given = Given()
    assert await given.check(given.forge.token()) == ""
    for attack in ATTACKS:
        thumbprint = given.forge.thumbprint if attack.certificate else None
        assert await given.check(attack.token(given.forge), thumbprint) == attack.check, attack.name
    assert await given.check(given.forge.token()) == ""


# ---- cached tokens


async def test_a_cached_token_is_judged_at_every_call(signatures: Counting):
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
    assert len(given.cached) == 0


async def test_a_lookup_that_needs_a_verification_counts_as_a_miss(signatures: Counting):
    given = Given()
    first, second = given.forge.token(), given.forge.token(given.forge.claims(sub="another"))
    for token in (first, first, second, first):
        assert await given.check(token) == ""
    cache = given.cached
    assert (cache.hits, cache.misses, len(cache)) == (2, 2, 2)
    assert signatures.times == cache.misses
    given.keys.keys = dict(read_keys(jwks(rsa_key("rsa-1", maker="another"))).keys)
    assert await given.check(first) == "signature"  # cached, but no longer valid
    assert (cache.hits, cache.misses, len(cache)) == (2, 3, 1)
    assert await given.check("é" * 10) == await given.check("malformed") == "malformed"
    assert (cache.hits, cache.misses) == (2, 4)  # text that cannot be a token is not looked up


async def test_a_refused_token_is_not_cached_as_good(signatures: Counting):
    given = Given()
    early = given.forge.token(given.forge.claims(nbf=int(given.clock.now) + 300))
    assert await given.check(early) == "not_yet_valid"
    given.clock.now += 300
    assert await given.check(early) == ""
    assert await given.check(given.forge.token(key=rsa_key("rsa-1", maker="attacker"))) == "signature"
    assert len(given.cached) == 1


async def test_a_cached_token_is_refused_when_its_key_is_withdrawn():
    given = Given()
    token = given.forge.token()
    assert await given.check(token) == ""
    given.keys.keys = dict(read_keys(given.forge.jwks()).keys)  # fetched again, unchanged
    assert await given.check(token) == ""
    del given.keys.keys["rsa-1"]
    assert await given.check(token) == "signing_key_unknown"
    assert len(given.cached) == 0


async def test_a_cached_token_is_refused_when_its_key_is_replaced_under_the_same_kid():
    given = Given()
    token = given.forge.token()
    assert await given.check(token) == ""
    given.keys.keys = dict(read_keys(jwks(rsa_key("rsa-1", maker="another"))).keys)
    assert await given.check(token) == "signature"


@pytest.mark.parametrize("trouble", ["keys_stale", "keys_unavailable"])
async def test_without_valid_keys_tokens_are_undecided(trouble: str):
    given = Given()
    token = given.forge.token()
    assert await given.check(token) == ""
    given.keys.scripted_trouble = trouble
    assert await given.jwt.verify(token, None) == Undecided(trouble)
    assert await given.jwt.verify(given.forge.token(key=ec_key("ec-1")), None) == Undecided(trouble)
    assert await given.check(given.forge.token(given.forge.claims(iss=given.forge.other_issuer), key=rsa_key("other-1"))) == ""
    assert given.keys.refreshed == 0


async def test_an_unknown_key_of_an_unavailable_issuer_is_undecided():
    given = Given()
    given.keys.last_error = "unreachable"
    assert await given.jwt.verify(given.forge.token(key=rsa_key("rsa-9")), None) == Undecided("keys_unavailable")
    assert await given.check(given.forge.token()) == ""


async def test_an_algorithm_that_is_not_accepted_causes_no_refresh():
    given = Given()
    unsigned = given.forge.message(header=given.forge.header(alg="none", kid="made-up")) + "."
    assert await given.check(unsigned) == "algorithm"
    assert given.keys.refreshed == 0


async def test_no_token_is_kept_in_memory():
    given = Given()
    token = given.forge.token()
    assert await given.check(token) == ""
    kept = [given.cached]
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


async def test_a_cache_of_size_0_stays_empty(signatures: Counting):
    given = Given(cache=0)
    token = given.forge.token()
    assert [await given.check(token) for _ in range(3)] == ["", "", ""]
    assert signatures.times == 3


async def test_the_least_recently_used_token_is_evicted_first(signatures: Counting):
    given = Given(cache=2)
    first, second, third = (given.forge.token(given.forge.claims(jti=str(number))) for number in range(3))
    for token in (first, second, first, third):
        assert await given.check(token) == ""
    assert signatures.times == 3
    assert await given.check(first) == ""
    assert signatures.times == 3
    assert await given.check(second) == ""
    assert signatures.times == 4
    assert len(given.cached) == 2


async def test_a_token_is_cached_under_its_digest():
    given = Given()
    token = given.forge.token()
    assert await given.check(token) == ""
    digest = hashlib.sha256(token.encode()).digest()
    assert given.cached.get(digest) is not None
    given.cached.drop(digest)
    given.cached.drop(digest)
    assert given.cached.get(digest) is None


# ---- with an issuer


async def test_tokens_with_a_new_key_wait_for_one_request(issuer: ScriptedIssuer):
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


async def test_made_up_kids_cause_one_request_per_cooldown(issuer: ScriptedIssuer):
    clock = Clock()
    issuer.publish(jwks(rsa_key("rsa-1")))
    async with discovering(issuer, clock) as (jwt, forge):
        for round_ in range(3):
            clock.now += 10.0
            for number in range(20):
                token = forge.token(header=forge.header(kid=f"made-up-{number}"), key=rsa_key("rsa-1", maker="attacker"))
                assert await jwt.verify(token, None) == Rejected("signing_key_unknown")
            assert issuer.asked[JWKS] == 2 + round_


async def test_a_server_starts_while_its_issuer_is_down_and_gets_the_keys_later(issuer: ScriptedIssuer):
    forge = Forge(issuer=issuer.url)
    jwt = JwtAuthenticator([(rules(issuer.url), UrlKeys(issuer.url, refresh=0.01, stale=600.0))], cache=10)
    await jwt.start()
    try:
        token = forge.token()
        assert await jwt.verify(token, None) == Undecided("keys_unavailable")
        assert jwt.report.key_sources[issuer.url].last_error == "http_status"
        issuer.publish(jwks(rsa_key("rsa-1")))
        await eventually(lambda: not jwt.report.key_sources[issuer.url].trouble, timeout=30.0)
        assert isinstance(await jwt.verify(token, None), Principal)
    finally:
        await jwt.close()
    assert issuer.asked[METADATA] >= 2


async def test_a_file_without_keys_fails_the_start_and_closes_the_other_sources(tmp_path: Path):
    forge = Forge()
    good = ScriptedKeys(forge.jwks())
    missing = FileKeys(tmp_path / "absent.json", 1.0)
    jwt = JwtAuthenticator([(rules(forge.issuer), good), (rules(forge.other_issuer), missing)], cache=10)
    with pytest.raises(JwksError, match=r"absent\.json"):
        await jwt.start()
    assert not good.running


def test_an_issuer_configured_twice_is_refused():
    keys = ScriptedKeys(Forge().jwks())
    with pytest.raises(ValueError, match="twice"):
        JwtAuthenticator([(rules("https://a"), keys), (rules("https://a"), keys)], cache=10)
