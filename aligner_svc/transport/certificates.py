"""Read and check the files of a TLS server before gRPC gets them.

gRPC gets the checked contents and not the files: given a key that it cannot use, or a PEM block that it reads differently,
it would only log, and keep the old certificate while we report the new one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from aligner_svc.errors import StartError
from interceptors.auth import rsa_keys

log = logging.getLogger("aligner_svc.certificates")

_MAX_DESCRIBED = 4
"""A bundle may have hundreds of CAs."""
_BEGIN = b"-----BEGIN CERTIFICATE-----"


class CertificateError(StartError):
    """A file is not valid; the message says which file, what is wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """The contents of the files. `chain`: the server's certificate, then intermediates."""

    certificate: Path
    chain: tuple[x509.Certificate, ...]
    client_ca: Path | None
    authorities: tuple[x509.Certificate, ...]
    configuration: grpc.ServerCertificateConfiguration
    key_pem: bytes = field(repr=False)

    def all(self) -> list[tuple[Path, x509.Certificate]]:
        """Every certificate with its file; the server's own comes first."""
        cas = [] if self.client_ca is None else [(self.client_ca, ca) for ca in self.authorities]
        return [*((self.certificate, certificate) for certificate in self.chain), *cas]

    def expires(self, now: float) -> float:
        """Unix seconds at which the first of the server's certificate and the CAs expires; expired CAs do not count."""
        expiries = [ca.not_valid_after_utc.timestamp() for ca in self.authorities]
        return min([self.chain[0].not_valid_after_utc.timestamp(), *(expiry for expiry in expiries if expiry > now)])

    def same_as(self, other: ServerFiles) -> bool:
        """Whether the contents are the same, the key included: it belongs to the first certificate of the chain."""
        return (self.chain, self.authorities) == (other.chain, other.authorities)

    def describe(self) -> str:
        """For people: the first certificates, and the number of the others."""
        parts = [f"{path}: {_describe(certificate)}" for path, certificate in self.all()[:_MAX_DESCRIBED]]
        more = len(self.all()) - _MAX_DESCRIBED
        return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def read(certificate: Path, key: Path, client_ca: Path | None, now: float) -> ServerFiles:
    """`now` in Unix seconds. Raises CertificateError."""
    chain = _read_certificates(certificate, "the server's certificate")
    private_key = _read_key(key)
    _check_belongs(certificate, chain, key, private_key)
    _check_dates(certificate, chain[0], now)
    _check_server_use(certificate, chain[0])
    authorities = [] if client_ca is None else _authorities(client_ca, now)
    key_pem = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    configuration = grpc.ssl_server_certificate_configuration(
        [(key_pem, _pem(chain))], None if client_ca is None else _pem(authorities)
    )
    return ServerFiles(certificate, tuple(chain), client_ca, tuple(authorities), configuration, key_pem)


def _authorities(path: Path, now: float) -> list[x509.Certificate]:
    found = _read_certificates(path, "the CA of clients")
    for certificate in found:
        if not _is_authority(certificate):
            # gRPC trusts any certificate of the bundle: the holder of this one would be authenticated by it alone.
            raise CertificateError(
                f"{path}: {subject(certificate)} is not a CA's certificate (basicConstraints CA, keyCertSign); "
                "the file of tls.client_ca must hold certificates of CAs only"
            )
        _check_strength(path, certificate.public_key(), f"the key of {subject(certificate)}")
    # Expired and future CAs are allowed beside a valid one: the handshake checks the dates of each.
    if all(_out_of_date(certificate, now) for certificate in found):
        _check_dates(path, found[-1], now)
    return found


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise CertificateError(f"{path}: {what} cannot be read: {reason}") from None


def _read_certificates(path: Path, what: str) -> list[x509.Certificate]:
    content = _read(path, what)
    if _BEGIN not in content:
        raise CertificateError(f"{path}: {what} must be PEM, and there is no '{_BEGIN.decode()}' in it")
    try:
        certificates = x509.load_pem_x509_certificates(content)
        for certificate in certificates:  # parsed on access only, and accessed later
            _ = certificate.public_key(), certificate.extensions, certificate.subject.rfc4514_string()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        certificates = []
    # The parser skips a truncated block without an error.
    if len(certificates) != content.count(_BEGIN):
        raise CertificateError(f"{path}: a certificate in it is damaged or truncated; write the whole file again")
    return certificates


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    content = _read(path, "the server's private key")
    if b"PRIVATE KEY-----" not in content:
        raise CertificateError(f"{path}: the server's private key must be PEM, and there is no 'PRIVATE KEY' in it")
    try:
        key: PrivateKeyTypes = load_pem_private_key(content, None)
    except TypeError:
        raise CertificateError(
            f"{path}: the private key is encrypted, and a server cannot ask for the password; "
            "decrypt it with `openssl pkey` into a file that only the server may read"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{path}: the private key is damaged, truncated, or of an unknown kind") from None
    _check_strength(path, key.public_key(), "the private key")
    # Measured: gRPC's clients fail the handshake with P-521 and Ed25519, and its server does not start with secp256k1.
    if isinstance(key, rsa.RSAPrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1)):
        return key
    raise CertificateError(f"{path}: gRPC clients do not accept this kind of private key; it must be P-256, P-384 or RSA")


def _check_strength(path: Path, key: PublicKeyTypes, what: str) -> None:
    if isinstance(key, rsa.RSAPublicKey) and (fault := rsa_keys.fault(key)) is not None:
        raise CertificateError(f"{path}: {what} is RSA and {fault}; make a new one")


def _check_belongs(path: Path, chain: list[x509.Certificate], key_path: Path, key: PrivateKeyTypes) -> None:
    public = key.public_key()
    if chain[0].public_key() == public:
        return
    if any(certificate.public_key() == public for certificate in chain[1:]):
        raise CertificateError(f"{path}: the server's own certificate must be the first in the file, before its issuers'")
    raise CertificateError(
        f"{key_path}: the private key does not belong to the certificate in {path} ({subject(chain[0])}); "
        "if they are being replaced, replace both"
    )


def _check_dates(path: Path, certificate: x509.Certificate, now: float) -> None:
    problem = _out_of_date(certificate, now)
    if problem is not None:
        raise CertificateError(f"{path}: {subject(certificate)} {problem}; renew it, or correct this machine's clock")


def _out_of_date(certificate: x509.Certificate, now: float) -> str | None:
    if now > certificate.not_valid_after_utc.timestamp():
        return f"expired on {date(certificate.not_valid_after_utc)}"
    if now < certificate.not_valid_before_utc.timestamp():
        return f"is not valid before {date(certificate.not_valid_before_utc)}"
    return None


def _check_server_use(path: Path, certificate: x509.Certificate) -> None:
    usage = _extension(certificate, x509.ExtendedKeyUsage)
    if usage is not None and not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage):
        raise CertificateError(
            f"{path}: {subject(certificate)} is not for servers (extended key usage), and clients would refuse it"
        )
    key_usage = _extension(certificate, x509.KeyUsage)
    if key_usage is not None and not key_usage.digital_signature:
        # gRPC does not load such a certificate if its key is on an elliptic curve.
        raise CertificateError(f"{path}: {subject(certificate)} may not sign a handshake (key usage digitalSignature)")
    if _extension(certificate, x509.SubjectAlternativeName) is None:
        log.warning("%s: %s has no subject alternative name, and most clients will refuse it", path, subject(certificate))


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    return constraints is not None and constraints.ca and (usage is None or usage.key_cert_sign)


_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _describe(certificate: x509.Certificate) -> str:
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":")
    return f"{subject(certificate)}, SHA-256 {fingerprint}, until {date(certificate.not_valid_after_utc)}"


def subject(certificate: x509.Certificate) -> str:
    """For logs, on one line."""
    text = certificate.subject.rfc4514_string()
    return "".join(char if char.isprintable() else "?" for char in text) or "a certificate without a subject"


def date(moment: datetime) -> str:
    """In UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
