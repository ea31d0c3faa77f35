"""How the clients reach the server."""

from __future__ import annotations

import re
from dataclasses import dataclass

import grpc

from aligner_svc.client.credentials import (
    API_KEY_HEADER,
    AUTHORIZATION,
    Auth,
    CredentialsError,
    Metadata,
    Tls,
    is_loopback_host,
)

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

_BRACKETED = re.compile(r"\[([^]]*)](?::\d+)?")


@dataclass(frozen=True, slots=True)
class Transport:
    """How a channel is made. `credentials` None is plaintext."""

    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, int | str], ...]


def choose_transport(
    target: str, credentials: grpc.ChannelCredentials | None, tls: Tls | None, auth: Auth | None, metadata: Metadata
) -> Transport:
    """The transport for what a caller gave. Raises CredentialsError, and OSError for a file that cannot be read.

    `credentials` are taken to encrypt: gRPC does not tell.
    """
    if credentials is not None and tls is not None:
        raise CredentialsError("tls and credentials exclude each other")
    # Names are lower case on the wire.
    if auth is not None and not {key.lower() for key, _ in metadata}.isdisjoint({AUTHORIZATION, API_KEY_HEADER}):
        raise CredentialsError("auth and metadata both say who calls")
    if tls is not None:
        return Transport(tls.channel_credentials(), CHANNEL_OPTIONS + tls.channel_options())
    if credentials is not None or auth is None:
        return Transport(credentials, CHANNEL_OPTIONS)
    if not is_loopback(target):
        raise CredentialsError(f"a secret would be sent to {target} in clear: tls is needed (plaintext is for loopback alone)")
    # With http_proxy set gRPC would go to loopback through the proxy, in clear.
    return Transport(None, (*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0)))


def is_loopback(target: str) -> bool:
    """Whether all that a gRPC target names is this machine (https://github.com/grpc/grpc/blob/master/doc/naming.md).

    What is not understood is not.
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    scheme, _, rest = target.partition(":")
    if scheme in {"ipv4", "ipv6"}:
        return all(map(_is_loopback_address, rest.split(",")))
    if scheme == "dns" and rest.startswith("///"):
        return _is_loopback_address(rest[3:])
    # dns://AUTHORITY/NAME asks that name server, which may say what it likes; "//" is refused with what has it.
    return _is_loopback_address(rest if scheme == "dns" else target)


def _is_loopback_address(address: str) -> bool:
    bracketed = _BRACKETED.fullmatch(address)
    if bracketed:
        return is_loopback_host(bracketed[1])
    host, colon, port = address.partition(":")
    return is_loopback_host(host) and (not colon or port.isdecimal())
