"""Checks where the service may listen, and binds the port."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address

import grpc
from grpc import aio

from aligner_svc.config import Settings
from aligner_svc.errors import StartError


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port to listen on. `loopback`: other machines cannot reach it."""

    host: str
    port: int
    loopback: bool

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(listen: str) -> Address:
    """HOST:PORT as an Address. Raises StartError."""
    host, colon, port = listen.rpartition(":")
    if ":" in host and not host.startswith("["):
        colon = ""  # "::1" is an address without a port
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise StartError(f"cannot listen on '{listen}': HOST:PORT is needed, e.g. 127.0.0.1:50051")
    try:
        addresses = [ip_address(host)]
    except ValueError:
        try:
            addresses = [ip_address(info[4][0]) for info in socket.getaddrinfo(host, None)]
        except OSError:
            raise StartError(f"cannot listen on '{host}': the name does not resolve") from None
    return Address(host, int(port), all(address.is_loopback for address in addresses))


def check_exposure(address: Address, settings: Settings) -> None:
    """Raises StartError for an address other machines can reach without TLS; Settings has seen to authentication."""
    if address.loopback or settings.tls.certificate is not None:
        return
    if settings.server.profile == "dev":
        raise StartError(
            f"refusing to listen on {address.host}: it can be reached from other machines, which needs TLS and at least one "
            "authentication method: start with --profile prod, or listen on 127.0.0.1"
        )
    raise StartError(
        f"refusing to listen on {address.host} without TLS: set ALIGNER_TLS__CERTIFICATE and ALIGNER_TLS__KEY, "
        "or listen on 127.0.0.1"
    )


def describe(address: Address, settings: Settings) -> str:
    """Who can call the server there, for the line that says it is ready: profile, transport and authentication."""
    transport = "plaintext" if settings.tls.certificate is None else "TLS"
    if settings.tls.client_ca is not None:
        transport += " with client certificates"
    methods = settings.auth.methods
    access = f"authentication by {', '.join(methods)}" if methods else "no authentication"
    reach = "this machine only" if address.loopback else "reachable from other machines"
    processes = f", {settings.server.processes} processes" if settings.server.processes > 1 else ""
    return f"{address} (profile {settings.server.profile}, {transport}, {access}, {reach}{processes})"


def reserve(listen: str, settings: Settings) -> tuple[socket.socket, Address]:
    """Keep a port for servers that share it; the address with its port. Raises StartError, also if it is taken or too exposed.

    The socket is bound and does not listen. The kernel lets only processes of the same user bind the port beside it, and only
    those that ask to share it.
    """
    address = parse(listen)
    check_exposure(address, settings)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    _probe(address)
    kept = socket.socket(family)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        kept.bind((address.host, address.port))
    except OSError as error:
        kept.close()
        raise refused(address, error) from None
    return kept, Address(address.host, kept.getsockname()[1], address.loopback)


def _probe(address: Address, *, shared: bool = False) -> None:
    """GRPC's own error does not distinguish a taken port from a forbidden one. Raises StartError."""
    with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if shared else socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise refused(address, error) from None


def refused(address: Address, error: OSError) -> StartError:
    """What to raise if `error` came of binding the address."""
    return StartError(f"cannot listen on {address}: {(error.strerror or str(error)).lower()}")


def take(server: aio.Server, address: Address, credentials: grpc.ServerCredentials | None, *, shared: bool = False) -> Address:
    """Bind, and return the address with its port. `credentials` None: plaintext. Raises StartError.

    `shared`: with other processes, see `reserve`; the server's options have to say so too.
    """
    _probe(address, shared=shared)
    try:
        if credentials is None:
            port = server.add_insecure_port(str(address))
        else:
            port = server.add_secure_port(str(address), credentials)
    except RuntimeError:
        raise StartError(f"cannot listen on {address}: the address is already in use") from None
    return Address(address.host, port, address.loopback)
