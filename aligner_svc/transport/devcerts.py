"""Certificates for development: a throw-away CA, and certificates that it signs. Not for production."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN = "dev.local"
OWNER = "aligner throw-away CA, for tests only"
"""In every certificate's subject, so that none is mistaken for a real one."""
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_BACKDATED = timedelta(minutes=5)
"""Clocks of containers and virtual machines may be some seconds wrong."""
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_CLIENT = re.compile(_LABEL)
_HOST = re.compile(rf"(?=.{{1,253}}\Z)(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @property
    def certificate_pem(self) -> bytes:
        """In PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """PKCS #8 in PEM, unencrypted."""
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def is_client_name(name: str) -> bool:
    """Whether `name` is valid wherever it is used: path of the SPIFFE id, DNS label, common name, file name."""
    return _CLIENT.fullmatch(name) is not None and name not in {"ca", "server"}


def is_host(host: str) -> bool:
    """Whether `host` is an IP address or a DNS name in lower case, whose first label may be `*`."""
    try:
        ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return True


def authority(days: float, now: datetime | None = None) -> Pair:
    """A self-signed CA, which may not sign other CAs."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _unsigned(_name(OWNER), _name(OWNER), key.public_key(), _validity(days, now), ca=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def server(ca: Pair, hosts: Sequence[str], days: float, now: datetime | None = None) -> Pair:
    """A server's certificate for the hosts (see is_host). It does not outlive the CA."""
    names = [_host(host) for host in hosts]
    return sign(ca, hosts[0], names, [ExtendedKeyUsageOID.SERVER_AUTH], _validity(days, now))


def client(ca: Pair, name: str, days: float, now: datetime | None = None) -> Pair:
    """A client's certificate (see is_client_name). It does not outlive the CA."""
    names = [x509.UniformResourceIdentifier(spiffe_id(name)), x509.DNSName(f"{name}.{TRUST_DOMAIN}")]
    # Both usages: the X.509-SVID standard (4.4) wants both or none.
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    return sign(ca, name, names, usages, _validity(days, now))


def peer(ca: Pair, hosts: Sequence[str], days: float, now: datetime | None = None) -> Pair:
    """A certificate for both ends of a connection between the hosts, as the nodes of a cluster use it."""
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return sign(ca, hosts[0], [_host(host) for host in hosts], usages, _validity(days, now))


def spiffe_id(name: str) -> str:
    """The identity in a client's certificate."""
    return f"spiffe://{TRUST_DOMAIN}/{name}"


def sign(  # noqa: PLR0917 - each is an independent property of the certificate
    ca: Pair,
    common_name: str | None,
    names: Sequence[x509.GeneralName],
    usages: Sequence[x509.ObjectIdentifier],
    validity: tuple[datetime, datetime],
    key: CertificateIssuerPrivateKeyTypes | None = None,
) -> Pair:
    """A certificate for `key` or a new key on P-256, which may not sign others; it does not outlive the CA."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    begin, end = validity[0], min(validity[1], ca.certificate.not_valid_after_utc)
    ca_key = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = _unsigned(_name(common_name), ca.certificate.subject, key.public_key(), (begin, end), ca=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_key), critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Pair(builder.sign(ca.key, hashes.SHA256()), key)


def write(folder: Path, name: str, pair: Pair) -> None:
    """Replace NAME.key, which only its owner may read, and NAME.pem, each atomically. Raises OSError."""
    # The key first: a server that follows the files loads both once neither changes any more.
    _replace(folder / f"{name}.key", pair.key_pem, 0o600)
    _replace(folder / f"{name}.pem", pair.certificate_pem, 0o644)


def read(folder: Path, name: str) -> Pair:
    """What `write` wrote. Raises OSError, and ValueError for other contents."""
    certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
    try:
        key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    except TypeError:
        raise ValueError("the key is encrypted") from None
    if certificate.issuer != _name(OWNER):
        raise ValueError("it was not made by this command")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError("the key does not belong to the certificate")
    return Pair(certificate, key)


def signed_by(path: Path, ca: Pair) -> bool:
    """Whether the certificate in the file is the CA's own or was signed by it."""
    try:
        x509.load_pem_x509_certificate(path.read_bytes()).verify_directly_issued_by(ca.certificate)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    return True


def may_write(folder: Path, name: str) -> bool:
    """Whether NAME.pem and NAME.key do not exist or came from a throw-away CA: a real key is never overwritten."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).issuer == _name(OWNER)
    except FileNotFoundError:
        return not key.exists()
    except (OSError, ValueError):
        return False


def _replace(path: Path, content: bytes, mode: int) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 from the first byte on
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _validity(days: float, now: datetime | None) -> tuple[datetime, datetime]:
    now = now or datetime.now(UTC)
    return now - _BACKDATED, now + timedelta(days=days)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common_name: str | None) -> x509.Name:
    owner = x509.NameAttribute(NameOID.ORGANIZATION_NAME, OWNER)
    if common_name is None:
        return x509.Name([owner])
    return x509.Name([owner, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, validity: tuple[datetime, datetime], *, ca: bool
) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
