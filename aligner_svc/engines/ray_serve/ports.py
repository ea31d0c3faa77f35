"""The ports that Ray's processes have open on this machine, and what each answers to a stranger without token or certificate."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"
_TIMEOUT: Final = 1.0
_HTTP2_SETTINGS: Final = b"\x00\x00"
"""A server of gRPC in plaintext begins with a frame of less than 64 KiB, whose length has three bytes."""


class Answer(Enum):
    """To a stranger."""

    SECURED = "asks for a certificate"
    HTTP = "answers HTTP"
    GRPC = "answers gRPC in plaintext"


@dataclass(frozen=True, slots=True)
class Port:
    """One that is open."""

    process: str
    host: str
    number: int
    answer: Answer

    @property
    def everywhere(self) -> bool:
        """Whether it is bound to all interfaces."""
        return ipaddress.ip_address(self.host).is_unspecified


def open_ports() -> list[Port]:
    """Those of the Ray processes that this user may look into."""
    listening = dict(_listening())
    found: dict[tuple[str, int], Port] = {}
    for name, inode in _sockets():
        if (at := listening.get(inode)) is not None and at not in found:
            host, number = at
            found[at] = Port(name, host, number, _ask(host, number))
    return sorted(found.values(), key=lambda port: (port.process, port.number))


def _ask(host: str, number: int) -> Answer:
    """Send a request of HTTP: TLS answers with an alert or hangs up."""
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        host = "::1" if address.version == 6 else "127.0.0.1"
    elif isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        host = str(address.ipv4_mapped)
    answer = b""
    with contextlib.suppress(OSError), socket.create_connection((host, number), timeout=_TIMEOUT) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = connection.recv(64)
    if answer.startswith(b"HTTP/"):
        return Answer.HTTP
    return Answer.GRPC if answer.startswith(_HTTP2_SETTINGS) else Answer.SECURED


def _listening() -> Iterator[tuple[str, tuple[str, int]]]:
    """Sockets by their inodes, from /proc/net."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    host, _, number = fields[1].partition(":")
                    yield fields[9], (_address(host), int(number, 16))


def _address(hexadecimal: str) -> str:
    """The kernel writes 32-bit words in the machine's order."""
    words = [int(hexadecimal[at : at + 8], 16) for at in range(0, len(hexadecimal), 8)]
    return str(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))


def _sockets() -> Iterator[tuple[str, str]]:
    """Names of Ray's processes and the inodes of their sockets."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and (name := _ray_name(process)):
            with contextlib.suppress(OSError):
                for descriptor in (process / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        kind, _, inode = str(descriptor.readlink()).partition(":[")
                        if kind == "socket":
                            yield name, inode.rstrip("]")


def _ray_name(process: Path) -> str:
    """Empty for a process that is none of Ray's."""
    try:
        command = (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    if command.startswith("ray::"):
        return command.split("\0")[0].split(":")[2].split()[0]
    words = [word for word in command.split("\0")[:5] if "-packages/ray/" in word or word.startswith("ray.")]
    return words[0].rpartition("/")[2] if words else ""
