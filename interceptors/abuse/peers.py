"""Whom a call comes from, as the network that is counted."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

Network = IPv4Network | IPv6Network

_MAPPED = bytes(10) + b"\xff\xff"
"""::ffff:0:0/96, how a socket for both protocols shows IPv4 (RFC 4291, 2.5.5.2)."""
_MAPPED_BITS = 96


class _Family(NamedTuple):
    size: int
    bits: int


_IPV4 = _Family(4, 32)
_IPV6 = _Family(16, 128)


def address_of(peer: str) -> bytes | None:
    """The address in gRPC's name of a peer, 4 or 16 bytes: "ipv4:192.0.2.1:4711", "ipv6:%5Bfe80::1%25eth0%5D:4711".

    IPv4 within IPv6 is IPv4, a zone is left out. None: it has no address (a unix socket), or none that can be read.
    """
    family, _, rest = peer.partition(":")
    if family == "ipv4":
        return _packed(socket.AF_INET, rest.partition(":")[0])
    if family != "ipv6":
        return None
    opening, closing = ("%5B", "%5D") if rest.startswith("%5B") else ("[", "]")
    host = rest.removeprefix(opening).partition(closing)[0]
    packed = _packed(socket.AF_INET6, host.partition("%")[0])
    return packed[12:] if packed is not None and packed.startswith(_MAPPED) else packed


class Networks:
    """Which network a peer counts as: its first `ipv4_prefix` or `ipv6_prefix` bits. Those in `trusted` count as none."""

    def __init__(self, trusted: Iterable[Network], ipv4_prefix: int, ipv6_prefix: int) -> None:
        if not (0 < ipv4_prefix <= _IPV4.bits and _IPV4.bits < ipv6_prefix <= _IPV6.bits):
            raise ValueError("a network is the first 1 to 32 bits of an IPv4 address, or the first 33 to 128 of an IPv6 one")
        self._trusted: dict[int, list[tuple[int, int]]] = {_IPV4.size: [], _IPV6.size: []}
        for network in trusted:
            address, length = network.network_address.packed, network.prefixlen
            if address.startswith(_MAPPED) and length >= _MAPPED_BITS:
                address, length = address[len(_MAPPED) :], length - _MAPPED_BITS
            shift = 8 * len(address) - length
            self._trusted[len(address)].append((shift, int.from_bytes(address) >> shift))
        self._left_out = {_IPV4.size: _IPV4.bits - ipv4_prefix, _IPV6.size: _IPV6.bits - ipv6_prefix}

    def key(self, peer: str) -> bytes | None:
        """Of the network of what gRPC calls `peer`; None: it is not counted, because it is trusted or has no address.

        Bytes, whose hash is salted: integers of a caller's choice could be made to collide in a table.
        """
        address = address_of(peer)
        if address is None:
            return None
        size = len(address)
        number = int.from_bytes(address)
        if any(number >> shift == value for shift, value in self._trusted[size]):
            return None
        left_out = self._left_out[size]
        return ((number >> left_out) << left_out).to_bytes(size) if left_out else address


def _packed(family: socket.AddressFamily, host: str) -> bytes | None:
    try:
        return socket.inet_pton(family, host)
    except (OSError, ValueError):  # ValueError: a NUL within
        return None
