"""What the server accepts on the transport: connections, streams, headers, pings.

gRPC ignores an option that it does not know, even a misspelled one. So each is a typed field here, and the tests look for
every name in the installed library and for its effect on a real server.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

UNLIMITED = -1
_MAX_VALUE = 2**31 - 1
"""Options are C ints."""


class ChannelOptionsError(ValueError):
    """An option has a value that gRPC would truncate or misread; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """Bytes, seconds and numbers; None leaves gRPC's default. Raises ChannelOptionsError.

    The behaviour of gRPC was observed with grpcio 1.85.1.
    """

    receive_bytes: int
    """Of one message; a longer one ends its call with RESOURCE_EXHAUSTED."""
    metadata_bytes: int
    """Of a call's headers, with names and 32 bytes for each entry (RFC 9113, 6.5.2). A call with more ends with
    RESOURCE_EXHAUSTED before any interceptor sees it."""
    metadata_bytes_hard: int | None = None
    """Between the two gRPC refuses at random, with growing probability. None: 5/4 of `metadata_bytes`, at least 16 KiB."""
    send_bytes: int = UNLIMITED
    """200,000 characters of words take 3 MB; what is received bounds what is sent."""

    decompress: bool = False
    """gRPC would decompress a message before anything is known of its sender; see interceptors.handlers.compression."""

    connections: int | None = 1_000
    """At a time, for each address; one more is closed when it is accepted. gRPC itself has no limit but the process's file
    descriptors, which must be more than this. Silent connections count too: see `handshake_seconds`."""
    streams: int | None = 128
    """Calls in flight on one connection. gRPC clients hold further calls back until one ends; those of other clients are
    refused (REFUSED_STREAM). RFC 9113 (6.5.2) advises against fewer than 100."""
    count_ended_calls: bool = False
    """gRPC's default counts a call in `streams` until the server has cleaned up after it. Clients do not know that and send
    the next one as soon as one ends: of 2,000 at once under a limit of 128 up to 45 % failed with UNAVAILABLE, with or
    without retries."""
    handshake_seconds: float | None = 5.0
    """For TLS and HTTP/2. With gRPC's own 2 minutes a client could occupy every connection by sending nothing."""
    idle_seconds: float | None = 900.0
    """A connection without a call is closed after this. gRPC clients leave theirs after 30 minutes, others may never."""
    age_seconds: float | None = None
    """A connection is asked to go after this (give or take 10 %, so that not all go at once): its calls finish, the next ones
    begin on a new connection, perhaps to a new replica. Only clients with gRPC's retries off may see a call fail. None: never."""
    age_grace_seconds: float | None = None
    """Calls that still run after this end with UNAVAILABLE; set it longer than the longest call takes. None: no limit."""

    ping_interval_seconds: float = 20.0
    """Pings that come faster while nothing is sent are strikes. gRPC's own 5 minutes count a client's keepalive as abuse."""
    ping_strikes: int = 2
    """With one more, the connection is closed (ENHANCE_YOUR_CALM, too_many_pings). 0: no limit."""
    pings_without_calls: bool = False
    """False: a connection without a call may ping every 2 hours, whatever `ping_interval_seconds` is."""
    keepalive_seconds: float | None = 60.0
    """A connection with calls is pinged after this silence, to detect expired NAT entries and pulled cables."""
    keepalive_timeout_seconds: float | None = 20.0
    """Without an answer it is closed after this, and its calls end. Sets two options: the one that gRPC documents had no
    effect, and the one that has is a minute by default."""

    lookahead_bytes: int = 1 << 18
    """What a sender may write ahead of us on a stream. Of a message whose beginning has been read, all of it may come. With a
    round trip of 100 ms a stream of 64 KB messages still brings 3 MB/s; with 1 MiB a flood took 70 MB more of the memory."""
    probe_bandwidth: bool = False
    """HTTP/2's own estimate would allow 4-6 MiB per stream."""
    share_port: bool = False
    """True for one of several processes of a server. With gRPC's default, True, a second server on the port would start and get
    half of the calls."""

    def __post_init__(self) -> None:
        minimum = {"ping_strikes": 0, "receive_bytes": UNLIMITED, "send_bytes": UNLIMITED}
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None or isinstance(value, bool):
                continue
            if not minimum.get(each.name, 1) <= _number(each.name, value) <= _MAX_VALUE:
                raise ChannelOptionsError(f"{each.name} is {value}, out of range")
        if self.metadata_bytes_hard is not None and self.metadata_bytes_hard < self.metadata_bytes:
            raise ChannelOptionsError("metadata_bytes_hard is less than metadata_bytes")

    def arguments(self) -> list[tuple[str, int]]:
        """The `options` of grpc.aio.server."""
        given = ((option, field, getattr(self, field)) for option, field in _OPTIONS)
        return [(option, _number(field, value)) for option, field, value in given if value is not None]


def _number(field: str, value: float) -> int:
    """The value of an option; times are in milliseconds."""
    return round(value * 1000) if field.endswith("_seconds") else int(value)


_OPTIONS = (
    ("grpc.max_receive_message_length", "receive_bytes"),
    ("grpc.max_send_message_length", "send_bytes"),
    ("grpc.per_message_decompression", "decompress"),
    ("grpc.max_metadata_size", "metadata_bytes"),
    ("grpc.absolute_max_metadata_size", "metadata_bytes_hard"),
    ("grpc.max_allowed_incoming_connections", "connections"),
    ("grpc.max_concurrent_streams", "streams"),
    ("grpc.http.overload_protection", "count_ended_calls"),
    ("grpc.server_handshake_timeout_ms", "handshake_seconds"),
    ("grpc.max_connection_idle_ms", "idle_seconds"),
    ("grpc.max_connection_age_ms", "age_seconds"),
    ("grpc.max_connection_age_grace_ms", "age_grace_seconds"),
    ("grpc.http2.min_ping_interval_without_data_ms", "ping_interval_seconds"),
    ("grpc.http2.max_ping_strikes", "ping_strikes"),
    ("grpc.keepalive_permit_without_calls", "pings_without_calls"),
    ("grpc.keepalive_time_ms", "keepalive_seconds"),
    ("grpc.keepalive_timeout_ms", "keepalive_timeout_seconds"),
    ("grpc.http2.ping_timeout_ms", "keepalive_timeout_seconds"),
    ("grpc.http2.lookahead_bytes", "lookahead_bytes"),
    ("grpc.http2.bdp_probe", "probe_bandwidth"),
    ("grpc.so_reuseport", "share_port"),
)
