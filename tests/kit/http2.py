"""A raw HTTP/2 client: frames that no gRPC client sends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Self

from hpack import Decoder, Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Connection:
    """One TCP connection. Nothing is sent but what the caller sends; received frames are kept in `received`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._encoder, self._decoder = Encoder(), Decoder()
        self.received: list[Frame] = []
        self.closed = False
        """Whether the server has closed the connection."""

    @classmethod
    async def open(cls, target: str, *, tls: ssl.SSLContext | None = None, source: str | None = None) -> Self:
        """Connect to HOST:PORT, from the address `source` if given; nothing is sent yet."""
        host, _, port = target.rpartition(":")
        local = None if source is None else (source, 0)
        reader, writer = await asyncio.open_connection(host, int(port), ssl=tls, local_addr=local)
        return cls(reader, writer)

    async def begin(self, settings: dict[int, int] | None = None) -> None:
        """Send the preface and SETTINGS."""
        frame = SettingsFrame(0)
        frame.settings = settings or {}
        await self.send(PREFACE, frame.serialize())

    async def send(self, *pieces: bytes) -> None:
        """Raises ConnectionError if the server has closed."""
        self._writer.write(b"".join(pieces))
        await self._writer.drain()

    def headers(self, stream: int, fields: Sequence[tuple[bytes | str, bytes | str]], *flags: str) -> bytes:
        """A HEADERS frame with END_HEADERS."""
        frame = HeadersFrame(stream, self._encoder.encode(fields), flags=["END_HEADERS", *flags])
        return frame.serialize()

    def request(self, stream: int, path: bytes | str, *extra: tuple[bytes | str, bytes | str]) -> bytes:
        """The HEADERS of a gRPC request."""
        fields: list[tuple[bytes | str, bytes | str]] = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        return self.headers(stream, [*fields, *extra])

    @staticmethod
    def data(stream: int, body: bytes, *, end: bool = False) -> bytes:
        return DataFrame(stream, body, flags=["END_STREAM"] if end else []).serialize()

    @staticmethod
    def message(body: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
        """A gRPC message with its prefix. `length`: what the prefix says instead of the truth."""
        return bytes([compressed]) + (len(body) if length is None else length).to_bytes(4, "big") + body

    async def read(self, seconds: float = 1.0) -> Frame | None:
        """The next frame; None if the server closed the connection or sent nothing for so long."""
        try:
            async with asyncio.timeout(seconds):
                head = await self._reader.readexactly(9)
                frame, length = Frame.parse_frame_header(memoryview(head))
                frame.parse_body(memoryview(await self._reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed = True
            return None
        except TimeoutError:
            return None
        self.received.append(frame)
        return frame

    async def fields(self, stream: int, seconds: float = 5.0) -> dict[str, str]:
        """The header fields of a stream until it ends or is reset (":reset"), trailers included."""
        found: dict[str, str] = {}
        async with asyncio.timeout(seconds):
            while (frame := await self.read(seconds)) is not None:
                if isinstance(frame, HeadersFrame):
                    decoded = self._decoder.decode(frame.data)  # every block, or later ones cannot be read
                    if frame.stream_id == stream:
                        found |= {str(name): str(value) for name, value in decoded}
                if frame.stream_id != stream:
                    continue
                if type(frame).__name__ == "RstStreamFrame":
                    found[":reset"] = str(frame.error_code)  # type: ignore[attr-defined]
                    break
                if "END_STREAM" in frame.flags:
                    break
        return found

    async def drop(self) -> None:
        """Close at once."""
        self._writer.transport.abort()
        self.closed = True

    async def until_closed(self, seconds: float) -> bool:
        """Discard what comes; whether the server closed within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while await self._reader.read(1 << 16):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        self.closed = True
        return True


@asynccontextmanager
async def http2(
    target: str, settings: dict[int, int] | None = None, *, tls: ssl.SSLContext | None = None, source: str | None = None
) -> AsyncIterator[Connection]:
    """A connection that has sent its preface and settings."""
    connection = await Connection.open(target, tls=tls, source=source)
    try:
        await connection.begin(settings)
        yield connection
    finally:
        await connection.drop()


def settings(pairs: Iterable[tuple[int, int]]) -> bytes:
    frame = SettingsFrame(0)
    frame.settings = dict(pairs)
    return frame.serialize()
