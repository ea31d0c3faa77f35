"""Where clamd listens."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """clamd over TCP has neither TLS nor passwords: for loopback or an isolated network."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


def parse_address(text: str) -> UnixAddress | TcpAddress:
    """Of "unix:/run/clamav/clamd.ctl" or "tcp://127.0.0.1:3310". Raises ValueError with a message for people."""
    scheme, _, rest = text.partition(":")
    if scheme == "unix":
        path = "/" + rest.lstrip("/")
        if not rest.startswith("/") or path == "/":
            raise ValueError(f"'{text}' is not an absolute path: write unix:/run/clamav/clamd.ctl")
        return UnixAddress(path)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if scheme != "tcp" or not host or not port or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"'{text}' is not an address of clamd: write unix:/run/clamav/clamd.ctl or tcp://127.0.0.1:3310")
    return TcpAddress(host, port)
