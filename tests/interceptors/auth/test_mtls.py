"""The identity of a client certificate: the rule, the allow-list, and attempts to evade them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from aligner_svc.transport import devcerts
from aligner_svc.transport.devcerts import Pair
from interceptors.auth.mtls import CertificateAuthenticator, thumbprint
from interceptors.calls.principal import Principal, Rejected
from tests.kit.certificates import CLIENT, DAY, SERVER, authority, client, dns, leaf, peer, uri
from tests.kit.chain_server import KindsHandler, answer, chain_server, identities, start
from tests.kit.weak_keys import roca_private_key

CA = authority()
ANY = ("spiffe", "dns", "cn")


def verify(authenticator: CertificateAuthenticator, connection):
    return asyncio.run(authenticator.authenticate("", connection))


def judge(pair: Pair, sources=ANY, identities=(), now=time.time):
    return verify(CertificateAuthenticator(sources, identities, now), peer(pair))


def who(pair: Pair, sources=ANY, identities=()) -> str:
    """The principal's name, or the failed check and the principal it concerns."""
    verdict = judge(pair, sources, identities)
    if isinstance(verdict, Rejected):
        assert not verdict.expired
        return f"{verdict.check} {verdict.principal}".strip()
    return verdict.name


def forged(pair: Pair, old: bytes, new: bytes) -> dict[str, list[bytes]]:
    """The same certificate with bytes replaced, for encodings that no library writes. TLS would refuse it before."""
    encoded = pair.certificate.public_bytes(serialization.Encoding.DER)
    assert len(old) == len(new)
    assert encoded.count(old) >= 1
    body = base64.encodebytes(encoded.replace(old, new)).decode()
    return {"x509_pem_cert": [f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n".encode()]}


def test_the_principal_of_a_certificate():
    pair = client(CA, "batch", days=3)
    verdict = judge(pair)
    assert verdict == Principal(
        "mtls:spiffe://dev.local/batch", "mtls", frozenset(), pair.certificate.not_valid_after_utc.timestamp()
    )


def test_a_connection_without_certificate_has_no_verdict():
    authenticator = CertificateAuthenticator(ANY, ())
    assert verify(authenticator, {}) is None
    assert verify(authenticator, {"transport_security_type": [b"ssl"], "x509_pem_cert": []}) is None
    # Names that gRPC derives from a certificate are not used.
    assert verify(authenticator, {"x509_common_name": [b"admin"], "peer_uri": [b"spiffe://dev.local/admin"]}) is None


ID, OTHER = "spiffe://example.org/batch", "spiffe://example.org/admin"


@pytest.mark.parametrize(
    ("sources", "names", "cn", "expected"),
    [
        (ANY, [uri(ID), dns("a.example.org")], "a", "mtls:" + ID),
        (("dns", "spiffe"), [uri(ID), dns("a.example.org")], "a", "mtls:a.example.org"),
        (("cn", "dns"), [uri(ID), dns("a.example.org")], "a", "mtls:a"),
        (ANY, [dns("a.example.org")], "a", "mtls:a.example.org"),
        (ANY, [dns("b.example.org"), dns("a.example.org")], None, "mtls:b.example.org"),
        (ANY, [], "batch", "mtls:batch"),
        (ANY, [uri("https://example.org/x")], "batch", "mtls:batch"),
        (("spiffe", "dns"), [], "batch", "certificate_identity"),
        (("spiffe",), [dns("a.example.org")], "batch", "certificate_identity"),
        (ANY, [], None, "certificate_identity"),
        (("dns",), [uri(ID)], "batch", "certificate_identity"),
    ],
)
def test_the_first_source_that_is_present_counts(sources, names, cn, expected):
    assert who(leaf(CA, *names, cn=cn), sources) == expected


@pytest.mark.parametrize(
    "identity",
    [
        "spiffe://example.org/a",
        "spiffe://example.org/ns/prod/sa/Batch_1.x-y",
        "spiffe://prod_1.example-2.org/...",
        "spiffe://" + "a" * 255 + "/x",
    ],
)
def test_valid_spiffe_ids(identity):
    assert who(leaf(CA, uri(identity))) == f"mtls:{identity}"


@pytest.mark.parametrize(
    "identity",
    [
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/a/../admin",
        "spiffe://example.org/./a",
        "spiffe:///a",
        "spiffe://Example.org/a",
        "SPIFFE://example.org/a",
        "spiffe:example.org/a",
        "spiffe://example.org:8443/a",
        "spiffe://admin@example.org/a",
        "spiffe://example.org/a?b=c",
        "spiffe://example.org/a#b",
        "spiffe://example.org/%61dmin",
        "spiffe://example.org/a b",
        "spiffe://example.org/a\n",
        "spiffe://example.org/a\0",
        "spiffe://example.org/*",
        "spiffe://*/a",
        "spiffe://" + "a" * 256 + "/x",
        "spiffe://example.org/" + "a" * 2048,
    ],
)
def test_an_invalid_spiffe_id_is_not_replaced_by_another_source(identity):
    """Later sources are present, but not tried."""
    assert who(leaf(CA, uri(identity), dns("a.example.org"), cn="batch")) == "certificate_identity"


def test_a_certificate_with_several_uris_is_rejected():
    assert who(leaf(CA, uri(ID), uri(OTHER), cn="x")) == "certificate_identity"
    assert who(leaf(CA, uri(ID), uri(ID), cn="x")) == "certificate_identity"
    assert who(leaf(CA, uri("https://example.org"), uri(ID), cn="x")) == "certificate_identity"


def test_dns_names_are_compared_regardless_of_case():
    pair = leaf(CA, dns("Batch.Example.ORG."))
    assert who(pair) == "mtls:batch.example.org"
    assert who(pair, identities=["BATCH.example.org."]) == "mtls:batch.example.org"
    assert who(leaf(CA, dns("xn--bcher-kva.example"))) == "mtls:xn--bcher-kva.example"


@pytest.mark.parametrize(
    "name",
    ["a b", "a\n", "a\0.example.org", "a..example.org", ".", "-a.example.org", "a/b", "a:b", "x" * 64 + ".org", "a.*.org", "a*"],
)
def test_an_invalid_dns_name_is_not_replaced_by_another_source(name):
    assert who(leaf(CA, dns("good.example.org"), dns(name), cn="batch")) == "certificate_identity"


def test_a_wildcard_is_not_an_identity():
    """Certificates of web servers have them; as an identity it would match many patterns and no single caller."""
    assert who(leaf(CA, dns("*.example.org"), cn="batch")) == "certificate_identity"
    assert who(leaf(CA, dns("*.example.org")), identities=["*.example.org"]) == "certificate_identity"
    assert who(leaf(CA, dns("*.example.org"), dns("a.example.org"))) == "mtls:a.example.org"
    assert who(leaf(CA, dns("*.example.org")), identities=["admin.example.org"]) == "certificate_identity"


@pytest.mark.parametrize(
    "name", ["spiffe://example.org/admin", "a/b", "a:b", "key:3fb1c9", "a b", "a\n", "a\0b", "a\u202eb", "\u0430dmin", "*", ".a"]
)
def test_invalid_common_names_are_rejected(name):
    assert who(leaf(CA, cn=name)) == "certificate_identity"


def test_a_common_name_cannot_be_a_spiffe_id():
    """Many CAs check SANs and leave the common name to the client."""
    pair = leaf(CA, cn="spiffe://example.org/admin")
    assert who(pair, ("spiffe", "cn"), ["spiffe://example.org/*"]) == "certificate_identity"
    assert who(pair, ("cn",)) == "certificate_identity"


def test_several_common_names_are_rejected():
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text) for text in ("batch", "admin")])
    key = ec.generate_private_key(ec.SECP256R1())
    end = CA.certificate.not_valid_after_utc
    builder = x509.CertificateBuilder(
        CA.certificate.subject, name, key.public_key(), x509.random_serial_number(), CA.certificate.not_valid_before_utc, end
    )
    assert who(Pair(builder.sign(CA.key, hashes.SHA256()), key)) == "certificate_identity"


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("spiffe://example.org/*", "spiffe://example.org/a", True),
        ("spiffe://example.org/*", "spiffe://example.org/ns/prod/sa/a", True),
        ("spiffe://example.org/*", "spiffe://example.org.evil.test/a", False),
        ("spiffe://example.org/*", "spiffe://evil.test/example.org/a", False),
        ("spiffe://example.org/*", "spiffe://sub.example.org/a", False),
        ("spiffe://example.org/ns/prod/*", "spiffe://example.org/ns/prod/sa/a", True),
        ("spiffe://example.org/ns/prod/*", "spiffe://example.org/ns/prod", False),
        ("spiffe://example.org/ns/prod/*", "spiffe://example.org/ns/production/a", False),
        ("spiffe://example.org/ns/*/sa/batch", "spiffe://example.org/ns/prod/sa/batch", True),
        ("spiffe://example.org/ns/*/sa/batch", "spiffe://example.org/ns/a/b/sa/batch", False),
        ("spiffe://example.org/ns/*/sa/batch", "spiffe://example.org/ns/prod/sa/batch/x", False),
        ("spiffe://example.org/ns/*/sa/batch", "spiffe://example.org/ns/prod/sa/other", False),
        ("spiffe://example.org/batch", "spiffe://example.org/batch", True),
        ("spiffe://example.org/batch", "spiffe://example.org/Batch", False),
        ("spiffe://example.org/batch", "spiffe://example.org/batch/x", False),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", False),
        ("*.example.org", "example.org", False),
        ("*.example.org", "aexample.org", False),
        ("*.example.org", "a.example.org.evil.test", False),
        ("*", "a.example.org", False),
        ("*", "localhost", True),
        ("a.*.org", "a.example.org", True),
        ("a.example.org", "a.example.org", True),
        ("aXexample.org", "a.example.org", False),
        ("a.example.org", "axexample.org", False),
    ],
)
def test_patterns_match_whole_parts(pattern, name, matches):
    spiffe = name.startswith("spiffe:")
    verdict = who(leaf(CA, uri(name) if spiffe else dns(name)), identities=[pattern])
    assert verdict == (f"mtls:{name}" if matches else f"certificate_not_listed mtls:{name}")


def test_of_several_dns_names_the_listed_one_is_the_principal():
    pair = leaf(CA, dns("x.other.test"), dns("B.example.org"), dns("c.example.org"))
    assert who(pair, identities=["*.example.org"]) == "mtls:b.example.org"
    assert who(pair, identities=["other.test", "c.example.org"]) == "mtls:c.example.org"
    assert who(pair, identities=["*.evil.test"]) == "certificate_not_listed mtls:x.other.test"


def test_a_listed_dns_name_does_not_help_an_unlisted_spiffe_id():
    pair = leaf(CA, uri(ID), dns("a.example.org"))
    assert who(pair, identities=["a.example.org"]) == f"certificate_not_listed mtls:{ID}"


def test_a_pattern_matches_only_names_of_its_kind():
    """Also if their parts are equal."""
    ids, others = ["spiffe://example/*"], ["*", "*.*"]
    assert who(leaf(CA, dns("example.org")), identities=ids) == "certificate_not_listed mtls:example.org"
    assert who(leaf(CA, cn="example.org"), identities=ids) == "certificate_not_listed mtls:example.org"
    assert who(leaf(CA, uri("spiffe://example/a")), identities=others) == "certificate_not_listed mtls:spiffe://example/a"
    assert who(leaf(CA, uri("spiffe://example/a")), identities=[*others, *ids]) == "mtls:spiffe://example/a"


def test_common_names_are_compared_exactly():
    assert who(leaf(CA, cn="Batch"), ("cn",), ["Batch"]) == "mtls:Batch"
    assert who(leaf(CA, cn="batch"), ("cn",), ["Batch"]) == "certificate_not_listed mtls:batch"
    assert who(leaf(CA, cn="team.batch"), ("cn",), ["team.*"]) == "mtls:team.batch"
    assert who(leaf(CA, cn="team..batch"), ("cn",), ["team.*.batch"]) == "certificate_not_listed mtls:team..batch"
    assert who(leaf(CA, cn="jo@example.org"), ("cn",), ["jo@example.org"]) == "mtls:jo@example.org"


@pytest.mark.parametrize(
    ("pattern", "sources", "says"),
    [
        ("spiffe://*", ANY, "trust domain"),
        ("spiffe://*/batch", ANY, "trust domain"),
        ("spiffe://*.example.org/a", ANY, "trust domain"),
        ("spiffe://Example.org/a", ANY, "trust domain"),
        ("spiffe://example.org", ANY, "path"),
        ("spiffe://example.org/", ANY, "path"),
        ("spiffe://example.org/prod-*", ANY, "path"),
        ("spiffe://example.org/../a", ANY, "path"),
        ("prod-*.example.org", ANY, "whole part"),
        ("a b", ANY, "whole part"),
        ("", ANY, "whole part"),
        ("https://example.org/*", ANY, "whole part"),
        ("mtls:batch", ANY, "whole part"),
        ("spiffe://example.org/*", ("dns", "cn"), "can match nothing"),
        ("*.example.org", ("spiffe",), "can match nothing"),
    ],
)
def test_invalid_patterns_are_refused(pattern, sources, says):
    with pytest.raises(ValueError, match=says) as refused:
        CertificateAuthenticator(sources, ["spiffe://ok.test/*", pattern] if "spiffe" in sources else [pattern])
    assert f"'{pattern}'" in str(refused.value)


def test_an_open_connection_is_rejected_once_its_certificate_has_expired():
    """The handshake checked its dates, and gRPC does not check them again."""
    pair = client(CA, days=1)
    now = time.time()
    authenticator = CertificateAuthenticator(ANY, (), lambda: now)
    first = verify(authenticator, peer(pair))
    assert isinstance(first, Principal)
    now = first.expires
    assert verify(authenticator, peer(pair)) == first
    now += 1
    assert verify(authenticator, peer(pair)) == Rejected("certificate_expired", "mtls:spiffe://dev.local/client")


def test_certificates_of_cas_and_with_weak_keys_are_rejected():
    assert who(CA) == "certificate_of_ca"
    weak = leaf(CA, uri(ID), key=rsa.generate_private_key(65537, 1024))
    assert who(weak) == "certificate_weak_key"
    assert who(leaf(CA, uri(ID), key=roca_private_key())) == "certificate_weak_key"
    assert who(leaf(CA, uri(ID), key=rsa.generate_private_key(3, 2048))) == "certificate_weak_key"
    assert who(leaf(CA, uri(ID), key=rsa.generate_private_key(65537, 2048))) == f"mtls:{ID}"


def test_a_certificate_that_may_sign_others_counts_as_a_ca():
    """By its key usage, without the CA flag: the SPIFFE standard requires a check of both."""
    key = ec.generate_private_key(ec.SECP256R1())
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
    usage |= {"digital_signature": True, "key_cert_sign": True, "crl_sign": False, "encipher_only": False, "decipher_only": False}
    certificate = (
        x509.CertificateBuilder(
            CA.certificate.subject,
            x509.Name([]),
            key.public_key(),
            x509.random_serial_number(),
            CA.certificate.not_valid_before_utc,
            CA.certificate.not_valid_after_utc,
        )
        .add_extension(x509.SubjectAlternativeName([uri(ID)]), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .sign(CA.key, hashes.SHA256())
    )
    assert who(Pair(certificate, key)) == "certificate_of_ca"


def test_an_unreadable_certificate_is_rejected():
    authenticator = CertificateAuthenticator(ANY, ())
    unreadable = Rejected("certificate_unreadable")
    good = client(CA).certificate_pem
    for pem in (b"", b"hello", good[:200], b"\xff\xfe"):
        assert verify(authenticator, {"x509_pem_cert": [pem]}) == unreadable
        assert thumbprint({"x509_pem_cert": [pem]}) is None
    # A byte above ASCII where the standard has ASCII.
    assert verify(authenticator, forged(leaf(CA, uri(ID)), ID.encode(), ID.encode()[:-1] + b"\xe9")) == unreadable


def test_the_thumbprint_is_that_of_bound_tokens():
    pair = client(CA)
    encoded = pair.certificate.public_bytes(serialization.Encoding.DER)
    assert thumbprint(peer(pair)) == base64.urlsafe_b64encode(hashlib.sha256(encoded).digest()).decode().rstrip("=")
    assert len(thumbprint(peer(pair))) == 43
    assert thumbprint({}) is None
    assert thumbprint({"transport_security_type": [b"ssl"]}) is None


def test_authenticators_share_parsed_certificates_and_not_verdicts():
    pair = leaf(CA, uri(ID), dns("a.example.org"))
    assert who(pair) == f"mtls:{ID}"
    assert who(pair, ("dns",)) == "mtls:a.example.org"
    assert who(pair, ("spiffe",), ["spiffe://elsewhere.test/*"]) == f"certificate_not_listed mtls:{ID}"


async def test_on_a_real_connection():
    """What gRPC passes to a handler of a verified certificate, including NUL and newline in its names."""
    seen = []
    now = time.time()
    authenticator = CertificateAuthenticator(ANY, (), lambda: now)

    class Who(KindsHandler):
        async def act(self, request, context):
            peer_now = context.auth_context()
            seen.append((await authenticator.authenticate("", peer_now), thumbprint(peer_now)))
            return b""

    ca = identities().ca
    async with chain_server((), Who(), mutual=True) as running:
        tricky = leaf(ca, uri("spiffe://dev.local/admin\0.evil.test"), dns("admin\n"), cn="admin", usages=(CLIENT, SERVER))
        for pair in (client(ca, "batch", days=2), tricky):
            async with running.connect(pair) as channel:
                await answer(start(channel, "UnaryUnary", timeout=30))
                if pair is not tricky:
                    now += 3 * DAY
                    await answer(start(channel, "UnaryUnary", timeout=30))
    (first, print_of_it), (later, _), (spoof, _) = seen
    assert isinstance(first, Principal)
    assert first.name == f"mtls:{devcerts.spiffe_id('batch')}"
    assert len(print_of_it) == 43
    assert later == Rejected("certificate_expired", first.name)
    assert spoof == Rejected("certificate_identity")
