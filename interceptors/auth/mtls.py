"""Authenticates callers by the client certificate of the connection.

gRPC has verified the chain, dates, purpose and possession of the key when a handler runs, but has not decided whose certificate
it is. The name is read strictly from the certificate itself: the names that gRPC lists (common name, SANs) lack their kind.

The identity is that of the first configured source that the certificate has:

- spiffe: the URI SAN, if one begins with "spiffe:". As in the X.509-SVID standard: exactly one URI SAN, with a trust domain
  and a path, and not the certificate of a CA.
- dns: the DNS SANs, in lower case and without a trailing dot. A wildcard is not an identity and is skipped.
- cn: the subject's common name, if it consists of letters, digits and "._@-".

If a source is present but invalid the certificate is rejected, and later sources are not tried: otherwise a CA that checks one
kind of name could be made to vouch for another. No name contains a space, a control character or the look of another kind.

A pattern of the allow-list matches only names of its own kind, and `*` whole parts of them:

- spiffe://example.org/ns/*/sa/batch: `*` is one segment; as the last one it is one or more. Never the trust domain.
- *.example.org: `*` is one label. Compared with DNS names regardless of case, with common names exactly.

Of several DNS names the first that matches a pattern is the principal's; without patterns the first.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from interceptors.auth import rsa_keys
from interceptors.auth.method import AuthContext, AuthMethod
from interceptors.calls.principal import Principal, Rejected, Verdict

Source = Literal["spiffe", "dns", "cn"]

_MAX_CACHED = 2048
"""Parsed certificates, some kilobytes each. Only certificates that a trusted CA signed get this far."""
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]+")
_MAX_SPIFFE_ID = 2048
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DNS = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_COMMON_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SPIFFE = "spiffe://"

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class _Certificate:
    """The parts used here. `names` has the sources that are present; None: present, but invalid."""

    thumbprint: str
    expires: float
    weak: bool
    authority: bool
    names: Mapping[Source, tuple[str, ...] | None]


class CertificateAuthenticator(AuthMethod):
    """Authenticates connections with a client certificate."""

    header = ""
    hint = "a client certificate"

    def __init__(self, sources: Sequence[Source], identities: Sequence[str], now: Callable[[], float] = time.time) -> None:
        """`identities`: patterns, see above; empty: every identity that the client CA signed. Raises ValueError for bad ones."""
        self._sources = tuple(dict.fromkeys(sources))
        self._patterns = tuple(_pattern(text, self._sources) for text in identities)
        self._now = now
        self._cached = lru_cache(_MAX_CACHED)(self._judge)

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def authenticate(self, credential: str, connection: AuthContext) -> Verdict | None:
        """Judge the client certificate; None if the connection has none."""
        pem = _peer_certificate(connection)
        if pem is None:
            return None
        verdict = self._cached(pem)
        # gRPC checks the dates in the handshake only, and a connection may stay open for weeks.
        if isinstance(verdict, Principal) and verdict.expires is not None and self._now() > verdict.expires:
            return Rejected("certificate_expired", verdict.name)
        return verdict

    def _judge(self, pem: bytes) -> Principal | Rejected:
        certificate = _parse(pem)
        if certificate is None:
            return Rejected("certificate_unreadable")
        if certificate.authority:
            return Rejected("certificate_of_ca")
        if certificate.weak:
            return Rejected("certificate_weak_key")
        source = next((source for source in self._sources if source in certificate.names), None)
        names = certificate.names[source] if source is not None else None
        if source is None or not names:
            return Rejected("certificate_identity")
        listed = [name for name in names if any(pattern.matches(source, name) for pattern in self._patterns)]
        if self._patterns and not listed:
            return Rejected("certificate_not_listed", f"mtls:{names[0]}")
        return Principal(f"mtls:{(listed or names)[0]}", "mtls", expires=certificate.expires)


def thumbprint(auth_context: AuthContext) -> str | None:
    """Of the connection's client certificate, as in a token's cnf["x5t#S256"] (RFC 8705).

    None without a certificate, and for one that cannot be parsed: no token is bound to None.
    """
    pem = _peer_certificate(auth_context)
    certificate = None if pem is None else _parse(pem)
    return None if certificate is None else certificate.thumbprint


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One entry of the allow-list. `parts`: the trust domain and segments, or labels."""

    spiffe: bool
    parts: tuple[str, ...]

    def matches(self, source: Source, name: str) -> bool:
        if self.spiffe != (source == "spiffe"):
            return False
        pattern = [part.lower() for part in self.parts] if source == "dns" else self.parts
        parts = name.removeprefix(_SPIFFE).split("/") if self.spiffe else name.split(".")
        if self.spiffe and pattern[-1] == "*" and len(parts) > len(pattern):
            parts = parts[: len(pattern)]
        return len(pattern) == len(parts) and all(
            bool(part) if wanted == "*" else wanted == part for wanted, part in zip(pattern, parts, strict=True)
        )


def _pattern(text: str, sources: Sequence[Source]) -> _Pattern:
    if text.startswith(_SPIFFE):
        if "spiffe" not in sources:
            raise ValueError(f"identity '{text}' can match nothing: spiffe is not among the configured sources")
        domain, *segments = text.removeprefix(_SPIFFE).split("/")
        if not _TRUST_DOMAIN.fullmatch(domain):
            raise ValueError(f"identity '{text}': needs a trust domain in lower case, without *, e.g. {_SPIFFE}example.org/*")
        if not segments or not all(part == "*" or _SEGMENT.fullmatch(part) for part in segments):
            raise ValueError(f"identity '{text}': needs a path; a segment is * or has letters, digits, '.', '_' and '-'")
        return _Pattern(True, (domain, *segments))
    if not {"dns", "cn"} & set(sources):
        raise ValueError(f"identity '{text}' can match nothing: it is not a {_SPIFFE} id, and no other source is configured")
    parts = text.removesuffix(".").split(".")
    plain = ".".join("x" if part == "*" else part for part in parts)
    if not _COMMON_NAME.fullmatch(plain) and not _DNS.fullmatch(plain.lower()):
        raise ValueError(f"identity '{text}': a {_SPIFFE} id, a DNS name or a common name is needed, * for a whole part of it")
    return _Pattern(False, tuple(parts))


def _peer_certificate(auth_context: AuthContext) -> bytes | None:
    return next(iter(auth_context.get("x509_pem_cert", ())), None)


@lru_cache(_MAX_CACHED)
def _parse(pem: bytes) -> _Certificate | None:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
        return _Certificate(
            thumbprint=base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode(),
            expires=certificate.not_valid_after_utc.timestamp(),
            weak=isinstance(key, rsa.RSAPublicKey) and rsa_keys.fault(key) is not None,
            authority=_is_authority(certificate),
            names=_names(certificate),
        )
    # Accepted by BoringSSL and not by this library: an unusual encoding, a duplicate extension, a key of an unknown kind.
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints, usage = _extension(certificate, x509.BasicConstraints), _extension(certificate, x509.KeyUsage)
    return (constraints is not None and constraints.ca) or (usage is not None and (usage.key_cert_sign or usage.crl_sign))


def _names(certificate: x509.Certificate) -> dict[Source, tuple[str, ...] | None]:
    alternatives = _extension(certificate, x509.SubjectAlternativeName) or x509.SubjectAlternativeName([])
    uris = alternatives.get_values_for_type(x509.UniformResourceIdentifier)
    hosts = alternatives.get_values_for_type(x509.DNSName)
    common = [attribute.value for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    names: dict[Source, tuple[str, ...] | None] = {}
    if any(uri.lower().startswith("spiffe:") for uri in uris):
        names["spiffe"] = (uris[0],) if len(uris) == 1 and _is_spiffe_id(uris[0]) else None
    if hosts:
        names["dns"] = _dns_names(hosts)
    if common:
        valid = len(common) == 1 and isinstance(common[0], str) and _COMMON_NAME.fullmatch(common[0])
        names["cn"] = (str(common[0]),) if valid else None
    return names


def _is_spiffe_id(uri: str) -> bool:
    if not uri.startswith(_SPIFFE) or len(uri) > _MAX_SPIFFE_ID:
        return False
    domain, *segments = uri.removeprefix(_SPIFFE).split("/")
    return bool(_TRUST_DOMAIN.fullmatch(domain)) and bool(segments) and all(_SEGMENT.fullmatch(part) for part in segments)


def _dns_names(hosts: Sequence[str]) -> tuple[str, ...] | None:
    """Without wildcards; None if any is not a valid name, since it was made to be misread."""
    names = [host.lower().removesuffix(".") for host in hosts]
    if not all(_DNS.fullmatch(name.removeprefix("*.")) for name in names):
        return None
    return tuple(dict.fromkeys(name for name in names if not name.startswith("*.")))
