"""Certificates as tests need them: good, and bad in one way each."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from aligner_svc.transport import devcerts
from aligner_svc.transport.devcerts import Pair
from aligner_svc.transport.tls import ServerCertificates
from interceptors.calls.security_event import SecurityEvent

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
DAY = 86_400.0
_CHANNEL = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


def authority(*, days: float = 30, begun: float = 0) -> Pair:
    """A CA, in force for `days` since `begun` days ago."""
    return devcerts.authority(days, datetime.now(UTC) - timedelta(days=begun))


def server(ca: Pair, *, hosts: Sequence[str] = devcerts.LOCAL_HOSTS, days: float = 30, begun: float = 0) -> Pair:
    return devcerts.server(ca, hosts, days, datetime.now(UTC) - timedelta(days=begun))


def client(ca: Pair, name: str = "client", *, days: float = 30, begun: float = 0) -> Pair:
    return devcerts.client(ca, name, days, datetime.now(UTC) - timedelta(days=begun))


def leaf(
    ca: Pair,
    *names: x509.GeneralName,
    cn: str | None = None,
    usages: Sequence[x509.ObjectIdentifier] = (CLIENT,),
    key=None,
    days: float = 30,
) -> Pair:
    """Whatever else may stand in a certificate."""
    now = datetime.now(UTC)
    return devcerts.sign(ca, cn, names, usages, (now - timedelta(hours=1), now + timedelta(days=days)), key)


def uri(value: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(value)


def dns(value: str) -> x509.GeneralName:
    return x509.DNSName(value)


def peer(pair: Pair) -> dict[str, list[bytes]]:
    """What gRPC says of a connection with this client certificate, as far as it is read."""
    return {"transport_security_type": [b"ssl"], "x509_pem_cert": [pair.certificate_pem]}


def connect(port: int, ca: Pair, own: Pair | None = None) -> grpc.aio.Channel:
    """A channel with a connection of its own, to localhost; `ca` is the server's."""
    credentials = grpc.ssl_channel_credentials(
        ca.certificate_pem, own.key_pem if own else None, own.certificate_pem if own else None
    )
    return grpc.aio.secure_channel(f"localhost:{port}", credentials, _CHANNEL)


def plaintext(port: int) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"localhost:{port}", _CHANNEL)


def openssl_context(folder: Path, ca: Pair, own: Pair) -> ssl.SSLContext:
    """For Python's ssl, that is OpenSSL, as an HTTP/2 client."""
    devcerts.write(folder, "peer", own)
    context = ssl.create_default_context(cadata=ca.certificate_pem.decode())
    context.load_cert_chain(folder / "peer.pem", folder / "peer.key")
    context.set_alpn_protocols(["h2"])
    return context


class Files:
    """What a server is given: server.pem, server.key and, for clients, ca.pem."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = authority()
        self.certificate, self.key, self.client_ca = folder / "server.pem", folder / "server.key", folder / "ca.pem"
        self.write(server(self.ca))
        self.client_ca.write_bytes(self.ca.certificate_pem)
        self.events: list[SecurityEvent] = []

    def write(self, pair: Pair) -> None:
        """Another certificate for the server."""
        devcerts.write(self.folder, "server", pair)

    def loaded(self, *, mutual: bool = True, now: Callable[[], float] = time.time) -> ServerCertificates:
        """As the server has them; looked at every 10 ms once started."""
        return ServerCertificates(
            self.certificate, self.key, self.client_ca if mutual else None, self.events.append, every=0.01, now=now
        )
