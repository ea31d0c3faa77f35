"""Access tokens as an issuer writes them and as an attacker does: the refusals beside what has to be accepted."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

from tests.kit.weak_keys import roca_private_key

Json = Mapping[str, Any] | str
"""An object, or a text as it is to stand in the token."""
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MINUTE, HOUR, YEAR = 60.0, 3600.0, 365 * 86_400.0


@dataclass(frozen=True)
class SigningKey:
    """A private key, and what the issuer publishes of it."""

    kid: str
    algorithm: str
    private: Any

    @property
    def jwk(self) -> dict[str, Any]:
        writers = {"RS": RSAAlgorithm, "ES": ECAlgorithm, "Ed": OKPAlgorithm}
        public = writers[self.algorithm[:2]].to_jwk(self.private.public_key(), as_dict=True)
        return {name: value for name, value in public.items() if name != "key_ops"} | {
            "kid": self.kid,
            "alg": self.algorithm,
            "use": "sig",
        }

    @property
    def pem(self) -> bytes:
        """The public key."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, form)

    def sign(self, message: bytes) -> bytes:
        return get_default_algorithms()[self.algorithm].sign(message, self.private)


@cache
def rsa_key(kid: str, bits: int = 2048, maker: str = "") -> SigningKey:
    """The same for the same arguments: they take a tenth of a second to make. `maker`: whose it is."""
    return SigningKey(kid, "RS256", rsa.generate_private_key(65537, bits))


@cache
def ec_key(kid: str, maker: str = "") -> SigningKey:
    return SigningKey(kid, "ES256", ec.generate_private_key(ec.SECP256R1()))


@cache
def ed_key(kid: str, maker: str = "") -> SigningKey:
    return SigningKey(kid, "EdDSA", ed25519.Ed25519PrivateKey.generate())


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwks(*keys: SigningKey | Mapping[str, Any]) -> bytes:
    """A JWK set as an issuer serves it."""
    return json.dumps({"keys": [key.jwk if isinstance(key, SigningKey) else dict(key) for key in keys]}).encode()


@dataclass(frozen=True)
class Forge:
    """Two issuers that a server believes, and the means to write what neither of them has signed."""

    issuer: str = "https://idp.example.org"
    other_issuer: str = "https://other.example.org"
    audience: str = "aligner"
    scope: str = "align"
    thumbprint: str = base64url(hashlib.sha256(b"the certificate of the caller").digest())
    """Of the certificate that an attack with `certificate` presents."""
    now: Callable[[], float] = field(default=time.time)

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        return rsa_key("rsa-1"), ec_key("ec-1"), ed_key("ed-1")

    @property
    def weak(self) -> SigningKey:
        return rsa_key("rsa-weak", 1024)

    @property
    def roca(self) -> SigningKey:
        return SigningKey("rsa-roca", "RS256", roca_private_key())

    def jwks(self) -> bytes:
        """What `issuer` publishes: three good keys, and two weak ones."""
        return jwks(*self.keys, self.weak, self.roca)

    def other_jwks(self) -> bytes:
        """What `other_issuer` publishes, with a kid that `issuer` uses as well."""
        return jwks(rsa_key("rsa-1", maker="other"), rsa_key("other-1"))

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Of a good token that lives for ten minutes; a change to None takes a claim away."""
        now = int(self.now())
        claims = {
            "iss": self.issuer,
            "sub": "service-a",
            "aud": self.audience,
            "client_id": "service-a",
            "jti": "8d5c1a",
            "scope": self.scope,
            "iat": now,
            "exp": now + 600,
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def header(self, key: SigningKey | None = None, **changes: Any) -> dict[str, Any]:
        key = key or self.keys[0]
        header = {"alg": key.algorithm, "typ": "at+jwt", "kid": key.kid} | changes
        return {name: value for name, value in header.items() if value is not None}

    def token(self, claims: Json | None = None, header: Json | None = None, key: SigningKey | None = None) -> str:
        """Signed with `key`, the first of `issuer` by default, whatever the header says."""
        key = key or self.keys[0]
        message = self.message(claims, header or self.header(key))
        return f"{message}.{base64url(key.sign(message.encode()))}"

    def message(self, claims: Json | None = None, header: Json | None = None) -> str:
        """What a signature is of."""
        return ".".join(
            base64url((part if isinstance(part, str) else json.dumps(part)).encode())
            for part in (header or self.header(), claims or self.claims())
        )


@dataclass(frozen=True)
class Attack:
    """A token that has to be refused with `check`."""

    name: str
    token: Callable[[Forge], str]
    check: str
    certificate: bool = False
    """The caller presents the one of `Forge.thumbprint`."""
    sendable: bool = True
    """False: nothing that a gRPC client can put into a header, or a server let in as one."""


@dataclass(frozen=True)
class Accepted:
    """A token that has to be accepted, with these scopes."""

    name: str
    token: Callable[[Forge], str]
    certificate: bool = False
    scopes: frozenset[str] = frozenset({"align"})


def _with_public_key_as_secret(forge: Forge) -> str:
    message = forge.message(header=forge.header(alg="HS256"))
    return f"{message}.{base64url(hmac.digest(forge.keys[0].pem, message.encode(), 'sha256'))}"


def _with_signature(header: Mapping[str, Any], signature: bytes) -> Callable[[Forge], str]:
    return lambda forge: f"{forge.message(header=forge.header(**header))}.{base64url(signature)}"


def _embedded(**header: Any) -> Callable[[Forge], str]:
    """The attacker's own key, and a header that says where it is."""
    return lambda forge: forge.token(header=forge.header(**header), key=rsa_key("rsa-1", maker="attacker"))


def _twice(name: str, value: Any) -> Callable[[Forge], str]:
    """A claim that stands in the token twice, the good one last: Python's json takes that one."""

    def build(forge: Forge) -> str:
        return forge.token("{" + f'"{name}": {json.dumps(value)}, ' + json.dumps(forge.claims())[1:])

    return build


def _header_twice(forge: Forge) -> str:
    return forge.token(header='{"alg": "none", ' + json.dumps(forge.header())[1:])


def _wrong_curve(forge: Forge) -> str:
    key = SigningKey("ec-1", "ES384", ec.generate_private_key(ec.SECP384R1()))
    return forge.token(header=forge.header(alg="ES256", kid="ec-1"), key=key)


def _der_signature(forge: Forge) -> str:
    key = forge.keys[1]
    message, _, signature = forge.token(key=key).rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    assert decode_dss_signature(der)
    return f"{message}.{base64url(der)}"


def _other_half(forge: Forge) -> str:
    """(r, n-s) is as good a signature of the same message as (r, s). It says nothing new, and RFC 7518 allows it."""
    message, _, signature = forge.token(key=forge.keys[1]).rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    negated = P256_ORDER - int.from_bytes(raw[32:], "big")
    return f"{message}.{base64url(raw[:32] + negated.to_bytes(32, 'big'))}"


def _changed_claim(forge: Forge) -> str:
    """A good signature under other claims."""
    signature = forge.token().rpartition(".")[2]
    return f"{forge.message(forge.claims(scope='align admin'))}.{signature}"


def _last_bits(forge: Forge) -> str:
    """2048 bits end within a character of base64: those of it that are left over can be set, and say nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = forge.token()
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def _claims(**changes: Any) -> Callable[[Forge], str]:
    return lambda forge: forge.token(forge.claims(**changes))


def _header(**changes: Any) -> Callable[[Forge], str]:
    return lambda forge: forge.token(header=forge.header(**changes))


def _dates(**offsets: float) -> Callable[[Forge], str]:
    """Claims so many seconds from now."""
    return lambda forge: forge.token(forge.claims(**{name: int(forge.now() + offset) for name, offset in offsets.items()}))


def _raw_claim(name: str, text: str) -> Callable[[Forge], str]:
    """A claim with a value that json.dumps would not write so."""
    return lambda forge: forge.token(json.dumps(forge.claims(**{name: "@"})).replace('"@"', text))


def _nested(depth: int) -> Callable[[Forge], str]:
    return _raw_claim("deep", "[" * depth + "]" * depth)


def _utf16(forge: Forge) -> str:
    """json.loads would take it for what it is."""
    return forge.token(json.dumps(forge.claims()).encode("utf-16-be").decode("ascii"))


def _thumbprint(text: bytes) -> str:
    return base64url(hashlib.sha256(text).digest())


ATTACKS = (
    # algorithms
    Attack("alg_none", lambda forge: forge.message(header=forge.header(alg="none")) + ".", "algorithm"),
    Attack("alg_none_capitals", lambda forge: forge.message(header=forge.header(alg="NoNe")) + ".", "algorithm"),
    Attack("alg_missing", _header(alg=None), "algorithm"),
    Attack("alg_number", _header(alg=256), "algorithm"),
    Attack("hs256_with_public_key", _with_public_key_as_secret, "algorithm"),
    Attack("rs512", _header(alg="RS512"), "algorithm"),
    Attack("alg_of_another_key_type", _header(alg="ES256"), "algorithm"),
    Attack("es256_with_rsa_kid", lambda forge: forge.token(header=forge.header(alg="ES256"), key=ec_key("ec-1")), "algorithm"),
    # keys
    Attack("another_key_same_kid", lambda forge: forge.token(key=rsa_key("rsa-1", maker="attacker")), "signature"),
    Attack("another_ec_key_same_kid", lambda forge: forge.token(key=ec_key("ec-1", maker="attacker")), "signature"),
    Attack("another_ed_key_same_kid", lambda forge: forge.token(key=ed_key("ed-1", maker="attacker")), "signature"),
    Attack("kid_swapped", lambda forge: forge.token(header=forge.header(kid="ec-1")), "algorithm"),
    Attack("kid_unknown", lambda forge: forge.token(key=rsa_key("rsa-9")), "signing_key_unknown"),
    Attack("kid_path", _header(kid="../../../../dev/null"), "key_id"),
    Attack("kid_sql", _header(kid="x' UNION SELECT 'secret"), "key_id"),
    Attack("kid_command", _header(kid="rsa-1|id"), "key_id"),
    Attack("kid_long", _header(kid="k" * 129), "key_id"),
    Attack("kid_missing", _header(kid=None), "key_id"),
    Attack("kid_list", _header(kid=["rsa-1"]), "key_id"),
    Attack("weak_key_of_the_set", lambda forge: forge.token(key=forge.weak), "signing_key_unknown"),
    Attack("roca_key_of_the_set", lambda forge: forge.token(key=forge.roca), "signing_key_unknown"),
    Attack("jku", _embedded(jku="https://attacker.example.org/jwks"), "header_not_allowed"),
    Attack("x5u", _embedded(x5u="https://attacker.example.org/chain.pem"), "header_not_allowed"),
    Attack("jwk", _embedded(jwk={"kty": "RSA", "e": "AQAB", "n": "AQAB"}), "header_not_allowed"),
    Attack("x5c", _embedded(x5c=["MIIB"]), "header_not_allowed"),
    Attack("jku_under_a_good_signature", _header(jku="https://attacker.example.org/jwks"), "header_not_allowed"),
    # signatures
    Attack("signature_stripped", lambda forge: forge.message() + ".", "signature"),
    Attack("signature_of_other_claims", _changed_claim, "signature"),
    Attack("signature_truncated", lambda forge: forge.token()[:-10], "signature"),
    Attack("signature_other_spelling", _last_bits, "malformed"),
    Attack("es256_zeros", _with_signature({"alg": "ES256", "kid": "ec-1"}, bytes(64)), "signature"),
    Attack("es256_der", _der_signature, "signature"),
    Attack("es256_wrong_curve", _wrong_curve, "signature"),
    Attack("eddsa_zeros", _with_signature({"alg": "EdDSA", "kid": "ed-1"}, bytes(64)), "signature"),
    # other headers
    Attack("typ_jwt", _header(typ="JWT"), "type"),
    Attack("typ_missing", _header(typ=None), "type"),
    Attack("typ_logout", _header(typ="logout+jwt"), "type"),
    Attack(
        "id_token",
        lambda forge: forge.token(forge.claims(nonce="n-0S6", scope=None, at_hash="x"), forge.header(typ="JWT")),
        "type",
    ),
    Attack("crit_unknown", _header(crit=["exp"]), "header_not_allowed"),
    Attack("crit_b64", _header(crit=["b64"], b64=False), "header_not_allowed"),
    Attack("zip", _header(zip="DEF"), "header_not_allowed"),
    Attack("header_member_twice", _header_twice, "claims_duplicate"),
    # forms
    Attack("empty", lambda forge: "", "malformed", sendable=False),
    Attack("not_base64", lambda forge: "{}.{}.{}", "malformed"),
    Attack("padded", lambda forge: forge.token() + "==", "malformed"),
    Attack("line_break", lambda forge: forge.token() + "\n", "malformed", sendable=False),
    Attack("two_parts", lambda forge: forge.message(), "malformed"),
    Attack("five_parts", lambda forge: "eyJhbGciOiJkaXIifQ..AAAA.AAAA.AAAA", "malformed"),
    Attack("payload_no_json", lambda forge: forge.token("align me"), "malformed"),
    Attack("payload_list", lambda forge: forge.token("[1]"), "malformed"),
    Attack("payload_utf16", _utf16, "malformed"),
    Attack("nested_deeply", _nested(2000), "malformed"),
    Attack("one_megabyte", lambda forge: forge.token(forge.claims(padding="x" * 750_000)), "token_too_large", sendable=False),
    Attack("over_8_kib", lambda forge: forge.token(forge.claims(padding="x" * 6200)), "token_too_large"),
    # issuer, audience, subject
    Attack("iss_wrong", _claims(iss="https://attacker.example.org"), "issuer"),
    Attack("iss_missing", _claims(iss=None), "claim_missing"),
    Attack("iss_list", lambda forge: _claims(iss=[forge.issuer])(forge), "issuer"),
    Attack("iss_with_slash", lambda forge: _claims(iss=forge.issuer + "/")(forge), "issuer"),
    Attack("iss_of_another", lambda forge: _claims(iss=forge.other_issuer)(forge), "signature"),
    Attack(
        "iss_of_another_own_kid",
        lambda forge: forge.token(forge.claims(iss=forge.other_issuer), key=forge.keys[1]),
        "signing_key_unknown",
    ),
    Attack("aud_wrong", _claims(aud="another-service"), "audience"),
    Attack("aud_missing", _claims(aud=None), "claim_missing"),
    Attack("aud_list_without", _claims(aud=["a", "b"]), "audience"),
    Attack("aud_list_empty", _claims(aud=[]), "audience"),
    Attack("aud_list_odd", lambda forge: _claims(aud=[forge.audience, 7])(forge), "audience"),
    Attack("aud_prefix", lambda forge: _claims(aud=forge.audience + "-2")(forge), "audience"),
    Attack("sub_missing", _claims(sub=None), "claim_missing"),
    Attack("sub_empty", _claims(sub=""), "subject"),
    Attack("sub_control_characters", _claims(sub="service-a\n2026 admin"), "subject"),
    Attack("sub_right_to_left", _claims(sub="service-\u202ea"), "subject"),
    Attack("sub_long", _claims(sub="s" * 256), "subject"),
    Attack("sub_number", _claims(sub=7), "subject"),
    Attack("claim_twice_iss", _twice("iss", "https://attacker.example.org"), "claims_duplicate"),
    Attack("claim_twice_sub", _twice("sub", "admin"), "claims_duplicate"),
    Attack("scope_list", _claims(scope=["align"]), "scope"),
    Attack("scope_characters", _claims(scope='align "admin'), "scope"),
    Attack("scp_object", _claims(scope=None, scp={"align": True}), "scope"),
    # dates
    Attack("exp_missing", _claims(exp=None), "claim_missing"),
    Attack("exp_past", _dates(iat=-HOUR, exp=-MINUTE), "expired"),
    Attack("exp_in_ten_years", _dates(exp=10 * YEAR), "lifetime"),
    Attack("exp_before_iat", _dates(iat=0, exp=-1), "lifetime"),
    Attack("exp_string", lambda forge: _claims(exp=str(int(forge.now()) + 600))(forge), "claim_malformed"),
    Attack("exp_bool", _claims(exp=True), "claim_malformed"),
    Attack("exp_nan", _raw_claim("exp", "NaN"), "malformed"),
    Attack("exp_infinity", _raw_claim("exp", "Infinity"), "malformed"),
    Attack("exp_beyond_floats", _raw_claim("exp", "1e999"), "claim_malformed"),
    Attack("exp_4000_digits", _raw_claim("exp", "9" * 4000), "claim_malformed"),
    Attack("exp_5000_digits", _raw_claim("exp", "9" * 5000), "malformed"),
    Attack("exp_negative", _claims(exp=-1), "claim_malformed"),
    Attack("iat_missing", _claims(iat=None), "claim_missing"),
    Attack("iat_future", _dates(iat=HOUR, exp=2 * HOUR), "issued_in_future"),
    Attack("iat_bool", _claims(iat=False), "claim_malformed"),
    Attack("nbf_future", _dates(nbf=HOUR, exp=2 * HOUR), "not_yet_valid"),
    Attack("nbf_string", _claims(nbf="0"), "claim_malformed"),
    # certificates
    Attack("cnf_without_certificate", lambda forge: _claims(cnf={"x5t#S256": forge.thumbprint})(forge), "certificate_binding"),
    Attack(
        "cnf_of_another_certificate",
        _claims(cnf={"x5t#S256": _thumbprint(b"of somebody else")}),
        "certificate_binding",
        certificate=True,
    ),
    Attack("cnf_jkt", _claims(cnf={"jkt": _thumbprint(b"a DPoP key")}), "confirmation_unsupported", certificate=True),
    Attack(
        "cnf_both",
        lambda forge: _claims(cnf={"x5t#S256": forge.thumbprint, "jkt": _thumbprint(b"a DPoP key")})(forge),
        "confirmation_unsupported",
        certificate=True,
    ),
    Attack("cnf_empty", _claims(cnf={}), "confirmation_unsupported", certificate=True),
    Attack("cnf_null", _raw_claim("cnf", "null"), "confirmation_unsupported", certificate=True),
    Attack("cnf_list", _claims(cnf=[{"x5t#S256": ""}]), "confirmation_unsupported", certificate=True),
    Attack("cnf_thumbprint_empty", _claims(cnf={"x5t#S256": ""}), "confirmation_unsupported", certificate=True),
)

ACCEPTED = (
    Accepted("rs256", lambda forge: forge.token()),
    Accepted("es256", lambda forge: forge.token(key=forge.keys[1])),
    Accepted("eddsa", lambda forge: forge.token(key=forge.keys[2])),
    Accepted(
        "eddsa_by_its_new_name", lambda forge: forge.token(header=forge.header(alg="Ed25519", kid="ed-1"), key=forge.keys[2])
    ),
    Accepted("es256_other_half", _other_half),
    Accepted(
        "other_issuer",
        lambda forge: forge.token(forge.claims(iss=forge.other_issuer), key=rsa_key("rsa-1", maker="other")),
    ),
    Accepted("typ_in_full", _header(typ="application/at+jwt")),
    Accepted("typ_in_capitals", _header(typ="AT+JWT")),
    Accepted("unknown_header_ignored", _header(x5t="AAAA", tenant="a")),
    Accepted("aud_list_with_ours", lambda forge: _claims(aud=["another-service", forge.audience])(forge)),
    Accepted("just_expired_within_leeway", _dates(iat=-HOUR, exp=-5)),
    Accepted("just_issued_by_a_fast_clock", _dates(iat=5, nbf=5)),
    Accepted("dates_with_fractions", lambda forge: _claims(iat=forge.now() - 0.5, exp=forge.now() + 600.5)(forge)),
    Accepted("nested_a_little", _nested(20)),
    Accepted("nearly_8_kib", lambda forge: forge.token(forge.claims(padding="x" * 5400))),
    Accepted("several_scopes", _claims(scope="align admin"), scopes=frozenset({"align", "admin"})),
    Accepted("no_scope", _claims(scope=None), scopes=frozenset()),
    Accepted("scope_empty", _claims(scope=""), scopes=frozenset()),
    Accepted("scp_text", _claims(scope=None, scp="align admin"), scopes=frozenset({"align", "admin"})),
    Accepted("scp_list", _claims(scope=None, scp=["align", "admin"]), scopes=frozenset({"align", "admin"})),
    Accepted("scope_before_scp", _claims(scp=["admin"])),
    Accepted("certificate_not_asked_for", lambda forge: forge.token(), certificate=True),
    Accepted("cnf_with_its_certificate", lambda forge: _claims(cnf={"x5t#S256": forge.thumbprint})(forge), certificate=True),
)
