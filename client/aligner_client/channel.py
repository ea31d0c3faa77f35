"""Channels to the server: addresses, timeouts and options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import grpc

from aligner_client.auth.credentials import (
    API_KEY_HEADER,
    AUTHORIZATION,
    Auth,
    CredentialsError,
    Metadata,
    Tls,
    is_loopback_host,
)
from aligner_client.service_config import LOAD_BALANCING, balancing

MIB = 1 << 20

DEFAULT_TARGET = "127.0.0.1:50051"

UNARY_TIMEOUT = 600.0
"""Seconds for an `align`, retries included: ten minutes for the longest file that fits a message."""

STREAM_TIMEOUT = 5 * 3600.0
"""Seconds for a stream: four hours, the longest audio servers accept by default, sent live, and one hour to align it."""

Timeout = float | Literal["auto"] | None
"""Seconds; "auto": the two above, by how the audio is sent; None: no limit."""

INFO_TIMEOUT = 10.0
"""Seconds for a `server_info`."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # gRPC refuses to receive more than 4 MiB by default. The words of a transcript of 200 000
    # characters take some 3 MB, in CJK (a word per character) 8.
    ("grpc.max_receive_message_length", 64 * MIB),
    # The server limits what is sent; a limit here would hide its reason and message.
    ("grpc.max_send_message_length", -1),
    # Detects a peer that vanished without a FIN. Only during calls, and not more often: a server
    # with default settings closes the connection after two pings in five minutes without data.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # Reconnects must not be slower than the waits of retry.py, or a retry fails without having
    # connected because the channel is still backing off.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

_BRACKETED = re.compile(r"\[([^]]*)](?::\d+)?")


@dataclass(frozen=True, slots=True)
class Transport:
    """The arguments of a channel. `credentials` None: plaintext."""

    target: str
    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, int | str], ...]
    compression: grpc.Compression | None = None

    def channel(self) -> grpc.Channel:
        """A new channel."""
        if self.credentials is None:
            return grpc.insecure_channel(self.target, self.options, self.compression)
        return grpc.secure_channel(self.target, self.credentials, self.options, self.compression)

    def async_channel(self, interceptors: Sequence[grpc.aio.ClientInterceptor] = ()) -> grpc.aio.Channel:
        """A new channel for the running event loop."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, self.options, self.compression, interceptors)
        return grpc.aio.secure_channel(self.target, self.credentials, self.options, self.compression, interceptors)


def choose_transport(
    target: str,
    credentials: grpc.ChannelCredentials | None,
    tls: Tls | None,
    auth: Auth | None,
    metadata: Metadata,
    *,
    options: Sequence[tuple[str, int | str]] = (),
    compression: grpc.Compression | None = None,
    load_balancing: str | None = None,
) -> Transport:
    """The transport for a caller's arguments. Raises CredentialsError, and OSError for a file that cannot be read.

    `options` replace those of the same name, but not what protects a secret. `load_balancing` None: that of the service
    config, but pick_first on this machine: localhost's two addresses are one server, and round_robin may report the one where
    nobody listens.
    `credentials` are assumed to encrypt: gRPC does not report it.
    """
    if credentials is not None and tls is not None:
        raise CredentialsError("tls and credentials exclude each other")
    # Names are lower case on the wire.
    if auth is not None and not {key.lower() for key, _ in metadata}.isdisjoint({AUTHORIZATION, API_KEY_HEADER}):
        raise CredentialsError("auth and metadata both hold credentials: give one of them")
    load_balancing = load_balancing or ("pick_first" if is_loopback(target) else LOAD_BALANCING)
    wanted = dict(CHANNEL_OPTIONS) | {"grpc.service_config": balancing(load_balancing)} | dict(options)
    if tls is not None:
        wanted |= dict(tls.channel_options())
        return Transport(target, tls.channel_credentials(), tuple(wanted.items()), compression)
    if credentials is not None or auth is None:
        return Transport(target, credentials, tuple(wanted.items()), compression)
    if not is_loopback(target):
        raise CredentialsError(f"a secret would be sent to {target} in clear: set tls (plaintext is allowed on loopback only)")
    # With http_proxy set gRPC would connect to loopback through the proxy, in clear.
    wanted["grpc.enable_http_proxy"] = 0
    return Transport(target, None, tuple(wanted.items()), compression)


def is_loopback(target: str) -> bool:
    """Whether every address of a gRPC target is this machine (https://github.com/grpc/grpc/blob/master/doc/naming.md).

    False for a target that is not understood.
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    scheme, _, rest = target.partition(":")
    if scheme in {"ipv4", "ipv6"}:
        return all(map(_is_loopback_address, rest.split(",")))
    if scheme == "dns" and rest.startswith("///"):
        return _is_loopback_address(rest[3:])
    # False for dns://AUTHORITY/NAME: that name server may answer with any address.
    return _is_loopback_address(rest if scheme == "dns" else target)


def _is_loopback_address(address: str) -> bool:
    bracketed = _BRACKETED.fullmatch(address)
    if bracketed:
        return is_loopback_host(bracketed[1])
    host, colon, port = address.partition(":")
    return is_loopback_host(host) and (not colon or port.isdecimal())
