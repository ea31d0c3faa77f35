"""The address in gRPC's name of a peer."""

from __future__ import annotations

import pytest

from interceptors.calls.peer import address_of


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:4711", "c0000201"),
        ("ipv4:192.0.2.1", "c0000201"),
        ("ipv6:%5B2001:db8::1%5D:4711", "20010db8000000000000000000000001"),
        ("ipv6:[2001:db8::1]:4711", "20010db8000000000000000000000001"),
        ("ipv6:%5B::1%5D:5", "00000000000000000000000000000001"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5", "fe800000000000000000000000000001"),
        ("ipv6:[fe80::1%eth0]:5", "fe800000000000000000000000000001"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:5", "c0000201"),
        ("ipv6:[::ffff:c000:201]:5", "c0000201"),
        ("unix:", None),
        ("unix:/run/aligner.sock", None),
        ("unix-abstract:aligner", None),
        ("vsock:3:1024", None),
        ("unknown", None),
        ("", None),
        ("ipv4:", None),
        ("ipv4:999.0.2.1:1", None),
        ("ipv6:[:", None),
        ("ipv6:", None),
        ("ipv6:%5B::1\0%5D:5", None),
        ("ipv6:%5B::g%5D:5", None),
        ("ipv4:1.2.3.4\0:5", None),
    ],
)
def test_peers_as_grpc_writes_them(peer, address) -> None:
    read = address_of(peer)
    assert (read.hex() if read is not None else None) == address
