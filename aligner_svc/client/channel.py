"""How the clients reach the server."""

from __future__ import annotations

MIB = 1 << 20

DEFAULT_TARGET = "127.0.0.1:50051"

UNARY_TIMEOUT = 600.0
"""Seconds an `align` may take, retries included: ten minutes for the longest file that fits a message."""

STREAM_TIMEOUT = 5 * 3600.0
"""Seconds a stream may take: four hours, the longest audio servers take by default, sent live, and one to align."""

INFO_TIMEOUT = 10.0
"""Seconds a `server_info` may take."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # gRPC refuses to receive more than 4 MiB by default. 200 000 characters of transcript
    # come back as some 3 MB of words, in CJK (a word a character) as 8.
    ("grpc.max_receive_message_length", 64 * MIB),
    # Sending is the server's to bound; a limit here would hide its reason and message.
    ("grpc.max_send_message_length", -1),
    # Finds a peer that vanished without a FIN. Only during calls, and no oftener: a server
    # with default settings hangs up on more than two pings in five minutes without data.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # The policy in retry.py decides; reconnects must not be slower than its waits, or a
    # retry finds the channel still resting and fails without having tried.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
