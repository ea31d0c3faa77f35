"""What the server takes from the transport: connections, streams, headers, pings.

gRPC accepts any option and does nothing about one that it does not know, a misspelled one among them. So each is a typed field
here, and the tests look for every name in the installed library and for its effect on a real server.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import overload

UNLIMITED = -1
_LARGEST = 2**31 - 1
"""Options are C ints."""


class ChannelOptionsError(ValueError):
    """An option has a value that gRPC would cut or misread; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """Bytes, seconds and numbers; None leaves gRPC's default. Raises ChannelOptionsError.

    What is said of gRPC was seen on grpcio 1.85.1.
    """

    receive_bytes: int
    """Of one message; a longer one ends its call with RESOURCE_EXHAUSTED."""
    metadata_bytes: int
    """Of a call's headers, names and 32 bytes for each entry included (RFC 9113, 6.5.2). A call with more ends with
    RESOURCE_EXHAUSTED before any interceptor sees it."""
    metadata_bytes_hard: int | None = None
    """Between the two gRPC refuses at random, more often the nearer to this. None: 5/4 of `metadata_bytes`, at least
    16 KiB."""
    send_bytes: int = UNLIMITED
    """200,000 characters of words make 3 MB; what is sent is bounded by what is taken."""

    connections: int | None = 1_000
    """At a time, on each address that is listened on; one more is closed when it is accepted. gRPC has no limit of its own but
    the process's descriptors, which must be more than this. Those that are silent count too: see `handshake_seconds`."""
    streams: int | None = 128
    """Calls in flight on one connection. gRPC clients keep further ones back until there is room; who sends them all the same
    has them refused (REFUSED_STREAM). RFC 9113 (6.5.2) advises against fewer than 100."""
    count_ended_calls: bool = False
    """gRPC's default counts a call in `streams` until the server has cleaned up after it. Clients do not know and send the next
    one as soon as one ends: of 2,000 at once under a limit of 128 up to 45 % failed with UNAVAILABLE, retries or not."""
    handshake_seconds: float | None = 10.0
    """To speak TLS and HTTP/2. gRPC's own 2 minutes let whoever opens connections and is silent hold every one there is."""
    idle_seconds: float | None = 900.0
    """A connection without a call is closed after it. gRPC clients leave theirs after 30 minutes, others may never."""
    age_seconds: float | None = None
    """A connection is asked to go after this (give or take 10 %, so that not all go at once): its calls finish, the next begin on
    a new one, and may so find replicas that were not there before. No call fails but of clients that have gRPC's retries off.
    None: it never is."""
    age_grace_seconds: float | None = None
    """What then still runs after this ends with UNAVAILABLE. None: it may run on. Longer than the longest call takes."""

    ping_interval_seconds: float = 20.0
    """Pings that come faster while nothing is sent are strikes. gRPC's own 5 minutes call a client's keepalive abuse."""
    ping_strikes: int = 2
    """One more, and the connection is closed (ENHANCE_YOUR_CALM, too_many_pings). 0 would bear any number."""
    pings_without_calls: bool = False
    """Else a connection without a call may ping every 2 hours, whatever `ping_interval_seconds` says."""
    keepalive_seconds: float | None = 60.0
    """A connection with calls that has been silent for so long is pinged: NAT tables and pulled cables do not say goodbye."""
    keepalive_timeout_seconds: float | None = 20.0
    """Without an answer it is closed after this, its calls with it. It sets two options: the one that gRPC documents showed no
    effect, and the one that decides is a minute by default."""

    lookahead_bytes: int = 1 << 20
    """What a held sender may write ahead of us on a stream."""
    probe_bandwidth: bool = False
    """HTTP/2's own estimate would let in 4-6 MiB a stream."""
    share_port: bool = False
    """gRPC's default: a second server on the port would start and take half of the calls."""

    def __post_init__(self) -> None:
        least = {"ping_strikes": 0, "receive_bytes": UNLIMITED, "send_bytes": UNLIMITED}
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None or isinstance(value, bool):
                continue
            number = _milliseconds(value) if each.name.endswith("_seconds") else value
            if not least.get(each.name, 1) <= number <= _LARGEST:
                raise ChannelOptionsError(f"{each.name} is {value}, out of range")
        if self.metadata_bytes_hard is not None and self.metadata_bytes_hard < self.metadata_bytes:
            raise ChannelOptionsError("metadata_bytes_hard is less than metadata_bytes")

    def arguments(self) -> list[tuple[str, int]]:
        """As grpc.aio.server takes them."""
        return [(name, int(value)) for name, value in self._named() if value is not None]

    def _named(self) -> Iterator[tuple[str, int | None]]:
        yield "grpc.max_receive_message_length", self.receive_bytes
        yield "grpc.max_send_message_length", self.send_bytes
        yield "grpc.max_metadata_size", self.metadata_bytes
        yield "grpc.absolute_max_metadata_size", self.metadata_bytes_hard
        yield "grpc.max_allowed_incoming_connections", self.connections
        yield "grpc.max_concurrent_streams", self.streams
        yield "grpc.http.overload_protection", self.count_ended_calls
        yield "grpc.server_handshake_timeout_ms", _milliseconds(self.handshake_seconds)
        yield "grpc.max_connection_idle_ms", _milliseconds(self.idle_seconds)
        yield "grpc.max_connection_age_ms", _milliseconds(self.age_seconds)
        yield "grpc.max_connection_age_grace_ms", _milliseconds(self.age_grace_seconds)
        yield "grpc.http2.min_ping_interval_without_data_ms", _milliseconds(self.ping_interval_seconds)
        yield "grpc.http2.max_ping_strikes", self.ping_strikes
        yield "grpc.keepalive_permit_without_calls", self.pings_without_calls
        yield "grpc.keepalive_time_ms", _milliseconds(self.keepalive_seconds)
        yield "grpc.keepalive_timeout_ms", _milliseconds(self.keepalive_timeout_seconds)
        yield "grpc.http2.ping_timeout_ms", _milliseconds(self.keepalive_timeout_seconds)
        yield "grpc.http2.lookahead_bytes", self.lookahead_bytes
        yield "grpc.http2.bdp_probe", self.probe_bandwidth
        yield "grpc.so_reuseport", self.share_port


@overload
def _milliseconds(seconds: float) -> int: ...


@overload
def _milliseconds(seconds: None) -> None: ...


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
