"""The name under which a caller is counted."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network

from interceptors.calls.peer import address_of
from interceptors.calls.principal import Principal

PEER = "peer:"
"""Prefix of subjects without a principal. No principal's name begins so."""


def subject_of(principal: Principal | None, peer: str) -> str:
    """The name a caller is counted under: its principal's, else that of its host; `peer` is an address as gRPC writes it.

    An IPv6 host counts with its /64, all of which belongs to one subscriber.
    """
    if principal is not None:
        return principal.name
    address = address_of(peer)
    if address is None:
        kind = peer.partition(":")[0]
        return f"{PEER}{'unknown' if kind in {'', 'ipv4', 'ipv6'} else kind}"
    return f"{PEER}{IPv4Address(address) if len(address) == 4 else IPv6Network((address, 64), strict=False)}"
