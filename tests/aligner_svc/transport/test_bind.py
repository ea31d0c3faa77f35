"""The line that says the server is ready names who can call it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from aligner_svc.config import Settings
from aligner_svc.errors import StartError
from aligner_svc.transport.bind import describe, parse, reserve

PEM = Path("server.pem")
TLS = {"certificate": PEM, "key": PEM}


@pytest.mark.parametrize(
    ("listen", "settings", "said"),
    [
        ("127.0.0.1:1", {}, "(profile dev, plaintext, no authentication, this machine only)"),
        (
            "0.0.0.0:1",
            {"server": {"profile": "prod"}, "auth": {"methods": "api_key"}, "tls": TLS},
            "(profile prod, TLS, authentication by api_key, reachable from other machines)",
        ),
        (
            "127.0.0.1:1",
            {"server": {"processes": 3}},
            "(profile dev, plaintext, no authentication, this machine only, 3 processes)",
        ),
        (
            "[::1]:1",
            {"server": {"profile": "prod"}, "auth": {"methods": "mtls,api_key"}, "tls": TLS | {"client_ca": PEM}},
            "(profile prod, TLS with client certificates, authentication by mtls, api_key, this machine only)",
        ),
    ],
)
def test_profile_transport_authentication_and_reach(listen: str, settings: dict[str, object], said: str) -> None:
    assert describe(parse(listen), Settings.model_validate(settings)) == f"{listen} {said}"


def test_a_port_that_processes_share_is_taken_for_every_other_server() -> None:
    """Two servers of several processes would share it silently."""
    kept, address = reserve("127.0.0.1:0", Settings())
    with kept:
        for _ in range(2):
            with pytest.raises(StartError, match=f"cannot listen on {address}: address already in use"):
                reserve(str(address), Settings())
        with socket.socket() as process:
            process.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            process.bind((address.host, address.port))
