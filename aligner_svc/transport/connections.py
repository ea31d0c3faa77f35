"""Closes connections that take from others: too many of one address, idle ones when all are taken, and floods without calls.

gRPC limits connections in all, and gives no hook to choose among them. But its sockets are descriptors of this process, and the
kernel knows of each when it last moved bytes and how many (TCP_INFO). A socket that is shut down looks to gRPC like a client that
left. Linux only; elsewhere the limits of gRPC alone hold.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from interceptors.background import BackgroundTask
from interceptors.calls.in_flight import Activity, CallsInFlight
from interceptors.calls.peer import MAPPED, address_of, network_of
from interceptors.calls.security_event import Event, Record, SecurityEvent

_EVERY: Final = 0.5
"""Seconds between two looks at the connections: with 1,000 of them one takes 6 ms, in a thread."""

_SETTLED: Final = 1.0
"""Seconds after which what a connection sent has become a call, if it is one: the kernel has it before the event loop."""

_FULL: Final = 0.9
"""Share of all connections from which on idle ones make room: gRPC closes new ones when all are taken."""

_UNASKED_BYTES: Final = 64 << 10
_UNASKED_RATE: Final = 16 << 10
"""Bytes that a connection may send without a call, and how many more a second: a health check takes 100 bytes and a ping 17.
6,000 pings a second (100 KB) cost half a core, and gRPC goes on answering them after its own GOAWAY; a flood of CONTINUATION
frames has no end and never becomes a call."""

_CALL_BYTES: Final = (1 << 20) + (64 << 10)
"""What a call may send before it learns that it is refused: its headers, and what flow control lets it send ahead."""

_FORGET: Final = 0.97
_NO_CALLS: Final = Activity()

REASONS: Final = ("address_limit", "flood", "full")
"""Why a connection is closed."""

_TCP_INFO: Final = struct.Struct("=8x9I I4x I 12I 3Q Q")
"""linux/tcp.h. Used: tcpi_last_data_sent and tcpi_last_data_recv (ms), tcpi_bytes_received."""


class Peer(NamedTuple):
    """The other end of a connection."""

    address: bytes
    """4 or 16 bytes."""
    port: int

    @property
    def network(self) -> bytes:
        """What counts as one address."""
        return network_of(self.address)

    def __str__(self) -> str:
        """As gRPC writes it."""
        if len(self.address) == 4:
            return f"ipv4:{socket.inet_ntop(socket.AF_INET, self.address)}:{self.port}"
        return f"ipv6:%5B{socket.inet_ntop(socket.AF_INET6, self.address)}%5D:{self.port}"


def peer_of_socket(opened: socket.socket) -> Peer | None:
    """The peer of a connected one; None if it has gone, or is on this machine's file system. Raises nothing."""
    try:
        host, port = opened.getpeername()[:2]
        address = socket.inet_pton(opened.family, host.partition("%")[0])
    except (OSError, ValueError):
        return None
    return Peer(address.removeprefix(MAPPED), port)


def peer_of(name: str) -> Peer | None:
    """The peer of that name (see `Peer.__str__`); None for a unix socket."""
    address, port = address_of(name), name.rpartition(":")[2]
    return Peer(address, int(port)) if address is not None and port.isdecimal() else None


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """An open connection of this process. `quiet`: seconds since it last moved data. `received`: bytes since it was opened."""

    descriptor: int
    peer: Peer
    quiet: float
    received: int


def connections(port: int) -> list[OpenConnection]:
    """The open connections to `port` of this process. Safe on any thread: each descriptor is duplicated before it is read."""
    found = []
    for entry in os.scandir("/proc/self/fd"):
        connection = _read(int(entry.name), port)
        if connection is not None:
            found.append(connection)
    return found


def _read(descriptor: int, port: int) -> OpenConnection | None:
    opened = _duplicate(descriptor)
    if opened is None:
        return None
    with opened:
        try:
            if opened.family not in {socket.AF_INET, socket.AF_INET6} or opened.getsockname()[1] != port:
                return None
            host, peer_port = opened.getpeername()[:2]
            info = _TCP_INFO.unpack_from(opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))
        except (OSError, struct.error):  # the listening socket, or a connection that has just ended
            return None
        address = socket.inet_pton(opened.family, host.partition("%")[0])
        sent, taken = info[9], info[10]
        return OpenConnection(descriptor, Peer(address.removeprefix(MAPPED), peer_port), min(sent, taken) / 1000, info[-1])


def _duplicate(descriptor: int) -> socket.socket | None:
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        return None


def close(port: int, connection: OpenConnection) -> bool:
    """Shut a connection down; False if it has ended. The descriptor may be another's by now: the peer is compared again."""
    opened = _duplicate(connection.descriptor)
    if opened is None:
        return False
    with opened:
        now = _read(opened.fileno(), port)
        if now is None or now.peer != connection.peer:
            return False
        try:
            opened.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections may be open: in all, and of one address."""

    most: int
    per_address: int


class Connections:
    """`start` and `close` on the server's event loop. `open` and `closed` are for metrics."""

    def __init__(self, limits: ConnectionLimits, port: Callable[[], int], in_flight: CallsInFlight, record: Record) -> None:
        """`port`: the server's, once it listens."""
        self.open = 0
        """Connections when they were last looked at."""
        self.closed: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        """Connections that were closed, by reason."""
        self._limits = limits
        self._port = port
        self._in_flight = in_flight
        self._record = record
        self._credit: dict[Peer, tuple[int, float, int]] = {}
        """Bytes that each connection had sent when last looked at, and may send beyond them; looks since it sent too many."""
        self._looking = BackgroundTask("looking at the connections", self._look, every=_EVERY)

    async def start(self) -> None:
        if sys.platform == "linux":
            self._looking.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._looking.close()

    async def _look(self) -> None:
        port = self._port()
        found = await asyncio.to_thread(connections, port)
        # After the connections: one with a call is never taken for an idle one.
        named = self._in_flight.take_activity().items()
        active = {peer: activity for name, activity in named if (peer := peer_of(name)) is not None}
        idle = [each for each in found if each.peer not in active and each.quiet > _SETTLED]
        chosen = [*self._floods(found, active), *above_limit(found, idle, self._limits)]
        closed: dict[tuple[bytes, str], list[Peer]] = defaultdict(list)
        for each, reason in chosen:
            if close(port, each):
                closed[each.peer.network, reason].append(each.peer)
        self.open = len(found) - sum(len(peers) for peers in closed.values())
        for (_, reason), peers in closed.items():
            self.closed[reason] += len(peers)
            detail = f"{len(peers)} connections" if len(peers) > 1 else ""
            self._record(SecurityEvent(Event.CONNECTION_CLOSED, reason, detail=detail, peer=str(peers[0])))

    def _floods(self, found: Sequence[OpenConnection], active: Mapping[Peer, Activity]) -> list[tuple[OpenConnection, str]]:
        """Connections that sent more than all their calls may have sent."""
        before, self._credit = self._credit, {}
        floods = []
        for each in found:
            activity = active.get(each.peer, _NO_CALLS)
            received, credit, since = before.get(each.peer, (0, _UNASKED_BYTES, 0))
            # What a refused call was allowed and did not send is forgotten by half every 11 s.
            credit = min(max(credit * _FORGET, _UNASKED_BYTES), credit + _EVERY * _UNASKED_RATE)
            credit += activity.begun * _CALL_BYTES - (each.received - received)
            if activity.accepted:
                credit = max(credit, _UNASKED_BYTES)
            since = since + 1 if credit < 0 else 0
            if since > _SETTLED / _EVERY:
                floods.append((each, "flood"))
            self._credit[each.peer] = each.received, credit, since
        return floods


def above_limit(
    found: Sequence[OpenConnection], idle: Iterable[OpenConnection], limits: ConnectionLimits
) -> list[tuple[OpenConnection, str]]:
    """The idle connections to close, each with the reason. Of one address those that have been quiet the longest go first.

    "address_limit": above the limit of their address. "full": hardly one is left in all; of the addresses with the most.
    """
    of_address = Counter(each.peer.network for each in found)
    queues: dict[bytes, list[OpenConnection]] = defaultdict(list)
    for each in sorted(idle, key=lambda each: each.quiet):
        queues[each.peer.network].append(each)
    chosen = []
    for network, queue in queues.items():
        while queue and of_address[network] > limits.per_address:
            chosen.append((queue.pop(), "address_limit"))
            of_address[network] -= 1
    for _ in range(len(found) - len(chosen) - math.ceil(_FULL * limits.most)):
        closable = [network for network in queues if queues[network]]
        if not closable:
            break
        network = max(closable, key=of_address.__getitem__)
        chosen.append((queues[network].pop(), "full"))
        of_address[network] -= 1
    return chosen
