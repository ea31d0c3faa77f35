"""The address in gRPC's name of a peer."""

from __future__ import annotations

import socket

MAPPED = bytes(10) + b"\xff\xff"
"""::ffff:0:0/96, how a socket for both protocols shows IPv4 (RFC 4291, 2.5.5.2)."""

_IPV6_NETWORK = 8
"""Bytes of a /64."""


def address_of(peer: str) -> bytes | None:
    """4 or 16 bytes, of "ipv4:192.0.2.1:4711" or "ipv6:%5Bfe80::1%25eth0%5D:4711"; None for a unix socket and what is malformed.

    IPv4 within IPv6 is IPv4, a zone is left out.
    """
    family, _, rest = peer.partition(":")
    if family == "ipv4":
        return _packed(socket.AF_INET, rest.partition(":")[0])
    if family != "ipv6":
        return None
    opening, closing = ("%5B", "%5D") if rest.startswith("%5B") else ("[", "]")
    host = rest.removeprefix(opening).partition(closing)[0]
    packed = _packed(socket.AF_INET6, host.partition("%")[0])
    return packed[len(MAPPED) :] if packed is not None and packed.startswith(MAPPED) else packed


def network_of(address: bytes) -> bytes:
    """What counts as one address: all of IPv4, the /64 of IPv6, which one subscriber has at least."""
    return address[:_IPV6_NETWORK] if len(address) > _IPV6_NETWORK else address


def _packed(family: socket.AddressFamily, host: str) -> bytes | None:
    try:
        return socket.inet_pton(family, host)
    except (OSError, ValueError):  # ValueError: a NUL within
        return None
