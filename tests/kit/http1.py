"""HTTP/1.1 by hand, for what no client would send."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tests.kit.waiting import WAIT_TIMEOUT


@dataclass(frozen=True)
class Reply:
    """`status` 0: the server closed the connection without an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """Of an error; "" of anything else."""
        try:
            return str(json.loads(self.body)["error"]["reason"])
        except (ValueError, KeyError, TypeError):
            return ""


class RawHttp:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, *, head: bool = False) -> Reply:
        """The next answer."""
        async with asyncio.timeout(WAIT_TIMEOUT):
            try:
                lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return Reply(0, {}, b"")
            status = int(lines[0].split(" ")[1])
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
            length = int(headers.get("content-length", 0))
            if (
                status >= 200
                and not head
                and "content-length" not in headers
                and "chunked" in headers.get("transfer-encoding", "")
            ):
                return Reply(status, headers, await self._chunks())
            return Reply(status, headers, b"" if head or status < 200 else await self.reader.readexactly(length))

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self.reader.readline()).strip(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()
        return body

    async def closed(self) -> bool:
        """Whether the server closes the connection, which is waited for, without another byte."""
        async with asyncio.timeout(WAIT_TIMEOUT):
            with suppress(ConnectionError):
                return await self.reader.read(1) == b""
            return True


@asynccontextmanager
async def http1(
    address: str, *, tls: ssl.SSLContext | None = None, source: str | None = None, name: str | None = "localhost"
) -> AsyncIterator[RawHttp]:
    """A connection to HOST:PORT, from `source`. `name`: of the server, as TLS sends it."""
    host, _, port = address.rpartition(":")
    where = None if source is None else (source, 0)
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=tls, server_hostname=name if tls else None, local_addr=where
    )
    try:
        yield RawHttp(reader, writer)
    finally:
        writer.transport.abort()


def request(verb: str, target: str, *headers: tuple[str, str], body: bytes | None = None) -> bytes:
    """Its bytes, with a Host and the length of its body."""
    length = [] if body is None else [("content-length", str(len(body)))]
    lines = [f"{verb} {target} HTTP/1.1", "host: localhost", *(f"{name}: {value}" for name, value in (*headers, *length))]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def form(*parts: tuple[str, bytes], boundary: str = "limit") -> tuple[tuple[str, str], bytes]:
    """The header and the body of a form; `parts`: the rest of a Content-Disposition after form-data, and a value."""
    pieces = [
        f"--{boundary}\r\ncontent-disposition: form-data; {rest}\r\n\r\n".encode() + value + b"\r\n" for rest, value in parts
    ]
    return ("content-type", f"multipart/form-data; boundary={boundary}"), b"".join(pieces) + f"--{boundary}--\r\n".encode()
