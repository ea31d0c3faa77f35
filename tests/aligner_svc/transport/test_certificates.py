"""Invalid files are refused at the start; the message names the file and what is wrong."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from aligner_svc.transport.tls import CertificateError
from tests.kit.certificates import CLIENT, SERVER, Files, authority, client, dns, leaf, server
from tests.kit.weak_keys import roca_private_key


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def _replace(name: str, content: Callable[[Files], bytes]) -> Callable[[Files], object]:
    return lambda files: (files.folder / name).write_bytes(content(files))


def _encrypted(files: Files) -> bytes:
    key = server(files.ca).key
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"hunter2")
    )


def _keyed(key) -> Callable[[Files], object]:
    return lambda files: files.write(leaf(files.ca, dns("localhost"), usages=(SERVER,), key=key()))


def _chain_backwards(files: Files) -> bytes:
    return files.ca.certificate_pem + files.certificate.read_bytes()


def _weak_ca(key: Callable[[], rsa.RSAPrivateKey]) -> Callable[[Files], bytes]:
    return lambda files: _ca_with(key())


def _ca_with(key: rsa.RSAPrivateKey) -> bytes:
    """Made by hand: `devcerts` makes no CA with a weak key."""
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


BAD = {
    "no certificate file": (lambda files: files.certificate.unlink(), "server.pem", "no such file"),
    "certificate is a folder": (
        lambda files: (files.certificate.unlink(), files.certificate.mkdir()),
        "server.pem",
        "is a directory",
    ),
    "certificate not PEM": (_replace("server.pem", lambda files: b"0\x82\x01\x00"), "server.pem", "PEM"),
    "certificate damaged": (
        _replace("server.pem", lambda files: files.certificate.read_bytes().replace(b"MII", b"MIJ", 1)),
        "server.pem",
        "damaged",
    ),
    "key in place of certificate": (_replace("server.pem", lambda files: files.key.read_bytes()), "server.pem", "BEGIN CERT"),
    "no key file": (lambda files: files.key.unlink(), "server.key", "no such file"),
    "key not PEM": (_replace("server.key", lambda files: b"hello"), "server.key", "PEM"),
    "key damaged": (
        _replace("server.key", lambda files: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        "server.key",
        "damaged",
    ),
    "key encrypted": (_replace("server.key", _encrypted), "server.key", "encrypted"),
    "key of another certificate": (
        _replace("server.key", lambda files: server(files.ca).key_pem),
        "server.key",
        "does not belong to the certificate in",
    ),
    "issuer before server": (_replace("server.pem", _chain_backwards), "server.pem", "first in the file"),
    "RSA 1024": (_keyed(lambda: rsa.generate_private_key(65537, 1024)), "server.key", "1024 bits"),
    "ROCA": (_keyed(roca_private_key), "server.key", "ROCA"),
    "RSA exponent 3": (_keyed(lambda: rsa.generate_private_key(3, 2048)), "server.key", "exponent"),
    "P-521": (_keyed(lambda: ec.generate_private_key(ec.SECP521R1())), "server.key", "P-256"),
    "Ed25519": (_keyed(ed25519.Ed25519PrivateKey.generate), "server.key", "P-256"),
    "secp256k1": (_keyed(lambda: ec.generate_private_key(ec.SECP256K1())), "server.key", "P-256"),
    "expired": (lambda files: files.write(server(files.ca, days=1, begun=3)), "server.pem", "expired on"),
    "not yet valid": (lambda files: files.write(server(files.ca, begun=-3)), "server.pem", "is not valid before"),
    "a client's": (lambda files: files.write(leaf(files.ca, dns("x"), usages=(CLIENT,))), "server.pem", "not for servers"),
    "a CA's": (lambda files: files.write(files.ca), "server.pem", "digitalSignature"),
    "no CA file": (lambda files: files.client_ca.unlink(), "ca.pem", "no such file"),
    "CA file empty": (_replace("ca.pem", lambda files: b""), "ca.pem", "PEM"),
    "CA file without a CA": (_replace("ca.pem", lambda files: client(files.ca).certificate_pem), "ca.pem", "not a CA's"),
    "something else beside the CA": (
        _replace("ca.pem", lambda files: files.ca.certificate_pem + client(files.ca).certificate_pem),
        "ca.pem",
        "not a CA's",
    ),
    "CA expired": (_replace("ca.pem", lambda files: authority(days=1, begun=3).certificate_pem), "ca.pem", "expired on"),
    "CA weak": (_replace("ca.pem", _weak_ca(lambda: rsa.generate_private_key(65537, 1024))), "ca.pem", "1024 bits"),
    "CA with the ROCA fingerprint": (_replace("ca.pem", _weak_ca(roca_private_key)), "ca.pem", "ROCA"),
}


@pytest.mark.parametrize(("breaking", "file", "says"), BAD.values(), ids=BAD.keys())
def test_invalid_files_are_refused_at_the_start(files, breaking, file, says):
    breaking(files)
    with pytest.raises(CertificateError) as refused:
        files.loaded()
    message = str(refused.value)
    assert message.startswith(str(files.folder / file))
    assert says in message
    assert "\n" not in message
    assert "https://" not in message, "a library's text, not ours"


def test_an_unreadable_file_is_named(files, monkeypatch):
    """Simulated, as root may read every file."""
    read = Path.read_bytes

    def refusing(path: Path) -> bytes:
        if path == files.key:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    with pytest.raises(CertificateError, match=r"server\.key: the server's private key cannot be read: permission denied"):
        files.loaded()


def test_expires_is_the_first_expiry_of_the_valid_certificates(files):
    short = server(files.ca, days=5)
    files.write(short)
    files.client_ca.write_bytes(files.ca.certificate_pem + authority(days=1, begun=3).certificate_pem)
    assert files.loaded().expires == short.certificate.not_valid_after_utc.timestamp()
    shorter = authority(days=2)
    files.client_ca.write_bytes(shorter.certificate_pem)
    assert files.loaded().expires == shorter.certificate.not_valid_after_utc.timestamp()
