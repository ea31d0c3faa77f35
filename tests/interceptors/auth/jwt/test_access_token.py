"""Every attack is refused by the right check, and every good token accepted: the rules alone."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interceptors.auth.jwt.access_token import MAX_LENGTH, TokenCheck, TokenRules, Unverified, Verified, judge, read, verify
from interceptors.auth.jwt.jwk import read_keys
from interceptors.calls.principal import Principal, Rejected
from tests.kit.token_forge import ACCEPTED, ATTACKS, Accepted, Attack, Forge, jwks, rsa_key

NOW = 1_800_000_000.0
FORGE = Forge(now=lambda: NOW)


def rules(issuer: str = FORGE.issuer, **changes) -> TokenRules:
    algorithms = frozenset({"RS256", "ES256", "EdDSA"})
    return dataclasses.replace(TokenRules(issuer, frozenset({FORGE.audience}), algorithms, 86_400.0, 30.0), **changes)


def verdict(token: str, thumbprint: str | None = None, *, now: float = NOW, **changes) -> Principal | Rejected:
    """As the authenticator does it, without caching and waiting."""
    sets = {FORGE.issuer: FORGE.jwks(), FORGE.other_issuer: FORGE.other_jwks()}
    unverified = read(token)
    if isinstance(unverified, Rejected):
        return unverified
    if unverified.issuer not in sets:
        return Rejected(TokenCheck.ISSUER)
    wanted = rules(unverified.issuer, **changes)
    key = read_keys(sets[unverified.issuer]).keys.get(unverified.key_id)
    if key is None:
        return Rejected(TokenCheck.ALGORITHM if unverified.algorithm not in wanted.algorithms else TokenCheck.SIGNING_KEY)
    verified = verify(unverified, wanted, key)
    return judge(verified, wanted, thumbprint, now) if isinstance(verified, Verified) else verified


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_refused_by_the_right_check(attack: Attack):
    refused = verdict(attack.token(FORGE), FORGE.thumbprint if attack.certificate else None)
    assert isinstance(refused, Rejected)
    assert refused.check == attack.check
    assert refused.check in set(TokenCheck)
    assert refused.expired == (attack.check == "expired")


@pytest.mark.parametrize("good", ACCEPTED, ids=lambda good: good.name)
def test_a_good_token_is_accepted(good: Accepted):
    token = good.token(FORGE)
    accepted = verdict(token, FORGE.thumbprint if good.certificate else None)
    assert isinstance(accepted, Principal), accepted
    issuer = FORGE.other_issuer if good.name == "other_issuer" else FORGE.issuer
    assert (accepted.name, accepted.method, accepted.scopes) == (f"jwt:{issuer}#service-a", "jwt", good.scopes)
    assert len(token) <= MAX_LENGTH


def test_names_of_attacks_are_unique():
    assert len({case.name for case in (*ATTACKS, *ACCEPTED)}) == len(ATTACKS) + len(ACCEPTED)
    assert len(ATTACKS) >= 30


def test_an_expired_token_is_reported_as_expired():
    token = FORGE.token(FORGE.claims(iat=NOW - 600, exp=NOW))
    accepted = verdict(token, now=NOW + 29.9)
    assert isinstance(accepted, Principal)
    assert accepted.expires == NOW
    assert verdict(token, now=NOW + 30) == Rejected("expired", f"jwt:{FORGE.issuer}#service-a", expired=True)


def test_an_expired_token_that_is_bound_to_another_certificate_is_not_reported_as_expired():
    token = FORGE.token(FORGE.claims(iat=NOW - 600, exp=NOW - 300, cnf={"x5t#S256": FORGE.thumbprint}))
    refused = verdict(token, None)
    assert isinstance(refused, Rejected)
    assert (refused.check, refused.expired) == ("certificate_binding", False)


def test_a_rejection_names_the_principal_only_if_the_signature_holds():
    def named(token: str) -> str:
        refused = verdict(token)
        assert isinstance(refused, Rejected)
        return refused.principal

    assert named(FORGE.token(FORGE.claims(aud="another-service"))) == f"jwt:{FORGE.issuer}#service-a"
    assert named(FORGE.token(key=rsa_key("rsa-1", maker="attacker"))) == ""


@pytest.mark.parametrize(("lifetime", "check"), [(86_400, None), (86_401, "lifetime")])
def test_a_lifetime_is_measured_from_iat(lifetime: int, check: str | None):
    found = verdict(FORGE.token(FORGE.claims(iat=NOW - 50_000, exp=NOW - 50_000 + lifetime)))
    assert (found.check if isinstance(found, Rejected) else None) == check


def test_a_token_is_accepted_early_by_the_leeway_at_most():
    token = FORGE.token(FORGE.claims(iat=NOW, nbf=NOW))
    assert isinstance(verdict(token, now=NOW - 30), Principal)
    early = verdict(token, now=NOW - 30.1)
    assert isinstance(early, Rejected)
    assert early.check == "not_yet_valid"


def test_an_algorithm_outside_the_list_is_refused():
    refused = verdict(FORGE.token(), algorithms=frozenset({"ES256"}))
    assert isinstance(refused, Rejected)
    assert refused.check == "algorithm"
    assert isinstance(verdict(FORGE.token(key=FORGE.keys[1]), algorithms=frozenset({"ES256"})), Principal)


@pytest.mark.parametrize("kind", ["JWT", "jwt", "application/jwt"])
def test_typ_jwt_is_accepted_from_an_issuer_that_may_write_it(kind: str):
    token = FORGE.token(header=FORGE.header(typ=kind))
    assert isinstance(verdict(token, typ_jwt=True), Principal)
    assert verdict(token) == Rejected("type")
    assert isinstance(verdict(FORGE.token(), typ_jwt=True), Principal)
    assert isinstance(
        verdict(FORGE.token(FORGE.claims(typ="Bearer", token_use="access"), FORGE.header(typ=kind)), typ_jwt=True), Principal
    )


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "n-0S6"},
        {"at_hash": "x"},
        {"c_hash": "x"},
        {"s_hash": "x"},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
        {"typ": "ID"},
        {"typ": "Refresh"},
        {"typ": ["Bearer"]},
        {"token_use": "id"},
    ],
    ids=str,
)
def test_a_token_for_another_purpose_is_refused_even_where_typ_jwt_is_accepted(claims: dict):
    token = FORGE.token(FORGE.claims(**claims), FORGE.header(typ="JWT"))
    assert verdict(token, typ_jwt=True) == Rejected("type")


@pytest.mark.parametrize("kind", [None, "", "id_token+jwt", "logout+jwt", "dpop+jwt", "secevent+jwt", ["JWT"]], ids=str)
def test_typ_jwt_lets_no_other_typ_in(kind):
    assert verdict(FORGE.token(header=FORGE.header(typ=kind)), typ_jwt=True) == Rejected("type")


def test_a_token_needs_the_rules_of_its_issuer_and_the_key_with_its_kid():
    unverified = read(FORGE.token())
    assert isinstance(unverified, Unverified)
    key = read_keys(jwks(rsa_key("rsa-1"))).keys["rsa-1"]
    assert verify(unverified, rules(FORGE.other_issuer), key) == Rejected("issuer")
    assert verify(dataclasses.replace(unverified, key_id="rsa-2"), rules(), key) == Rejected("key_id")


def test_an_issuer_with_a_hash_sign_is_refused():
    with pytest.raises(ValueError, match="cannot contain #"):
        rules("https://idp.example.org#tenant")


@given(st.text(max_size=300))
def test_arbitrary_text_is_refused(text: str):
    assert isinstance(read(text), Rejected)


@settings(max_examples=200)
@given(st.data())
def test_a_changed_character_is_refused(data: st.DataObject):
    token = FORGE.token(key=FORGE.keys[2])
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("AZaz09-_.=").filter(lambda character: character != token[place]))
    assert isinstance(verdict(token[:place] + other + token[place + 1 :]), Rejected)
