"""The network a call comes from, as the unit that is counted."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from interceptors.calls.peer import MAPPED, address_of

Network = IPv4Network | IPv6Network

_IPV4_BITS, _IPV6_BITS, _MAPPED_BITS = 32, 128, 96


class Networks:
    """Maps a peer to its network: its first `ipv4_prefix` or `ipv6_prefix` bits. Networks in `trusted` are not counted."""

    def __init__(self, trusted: Iterable[Network], ipv4_prefix: int, ipv6_prefix: int) -> None:
        if not (0 < ipv4_prefix <= _IPV4_BITS < ipv6_prefix <= _IPV6_BITS):
            raise ValueError("a network is the first 1 to 32 bits of an IPv4 address, or the first 33 to 128 of an IPv6 one")
        # Both by the size of an address in bytes.
        self._trusted: dict[int, list[tuple[int, int]]] = {4: [], 16: []}
        self._host_bits = {4: _IPV4_BITS - ipv4_prefix, 16: _IPV6_BITS - ipv6_prefix}
        for network in trusted:
            address, length = network.network_address.packed, network.prefixlen
            if address.startswith(MAPPED) and length >= _MAPPED_BITS:
                address, length = address[len(MAPPED) :], length - _MAPPED_BITS
            shift = 8 * len(address) - length
            self._trusted[len(address)].append((shift, int.from_bytes(address) >> shift))

    def key(self, peer: str) -> bytes | None:
        """The network's address, of a peer as gRPC names it; None if it is trusted or has no address, and is not counted.

        Bytes, whose hash is salted: integers of a client's choice could be made to collide in a table.
        """
        address = address_of(peer)
        if address is None:
            return None
        size = len(address)
        number = int.from_bytes(address)
        if any(number >> shift == value for shift, value in self._trusted[size]):
            return None
        host_bits = self._host_bits[size]
        return ((number >> host_bits) << host_bits).to_bytes(size) if host_bits else address
