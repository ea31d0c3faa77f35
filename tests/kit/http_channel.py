"""A channel that calls over HTTP, unary methods by Connect and streams by gRPC-Web, with what the attacks use of grpc.aio's."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import itertools
import json
import ssl
import zlib
from collections.abc import AsyncIterator, Generator, Iterable, Sequence
from typing import Any
from urllib.parse import quote

import grpc
from google.protobuf import json_format
from google.rpc import status_pb2

from tests.kit.http1 import RawHttp, Reply, http1, request

_DETAILS = "grpc-status-details-bin"
_SOURCES = itertools.cycle(f"127.4.{n // 250}.{n % 250 + 1}" for n in range(2500))
_CODES = {code.value[0]: code for code in grpc.StatusCode}
Metadata = Sequence[tuple[str, str | bytes]]


class HttpChannel:
    """Each call has a connection of its own to `address`, HOST:PORT; a channel has an address of its own."""

    def __init__(self, address: str, tls: ssl.SSLContext | None) -> None:
        self.address, self.tls, self.source = address, tls, next(_SOURCES)

    async def __aenter__(self) -> HttpChannel:
        return self

    async def __aexit__(self, *error: object) -> None:
        """There is nothing open."""

    def unary_unary(self, path: str) -> Any:
        def call(
            body: bytes = b"",
            *,
            metadata: Metadata = (),
            timeout: float | None = None,
            compression: grpc.Compression = grpc.Compression.NoCompression,
        ) -> HttpCall:
            headers = [] if timeout is None else [("connect-timeout-ms", str(int(timeout * 1000)))]
            if compression is not grpc.Compression.NoCompression:
                headers.append(("content-encoding", compression.name.lower()))
                body = gzip.compress(body) if compression is grpc.Compression.Gzip else zlib.compress(body)
            return _Unary(self, path, [*_headers(metadata), *headers, ("content-type", "application/proto")], body)

        return call

    def stream_stream(self, path: str) -> Any:
        def call(requests: Iterable[bytes] | None = None, *, metadata: Metadata = (), timeout: float | None = None) -> HttpCall:
            headers = [] if timeout is None else [("grpc-timeout", f"{min(99_999_999, int(timeout * 1e6))}u")]
            kind = ("content-type", "application/grpc-web+proto")
            return _Stream(self, path, [*_headers(metadata), *headers, kind], None, requests)

        return call


class HttpCall:
    """A stream without `requests` goes on until `cancel`."""

    def __init__(
        self,
        channel: HttpChannel,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes | None,
        requests: Iterable[bytes] | None = None,
    ) -> None:
        self._channel = channel
        target = quote(path, safe="/?#%&=[]@!$'()*+,;:~") or "/"
        coding = [("transfer-encoding", "chunked")] if body is None else []
        self._head = request("POST", target, *headers, *coding, body=body)
        self._requests = requests
        self._whole = body is not None
        self._writes: asyncio.Queue[bytes] = asyncio.Queue()
        self._reply = asyncio.create_task(self._exchange())

    def add_done_callback(self, callback: object) -> None:
        """Of no use here."""

    async def write(self, message: bytes) -> None:
        self._writes.put_nowait(message)
        await asyncio.sleep(0)

    def cancel(self) -> None:
        self._reply.cancel()

    async def _exchange(self) -> Reply:
        channel = self._channel
        try:
            async with http1(channel.address, tls=channel.tls, source=channel.source) as connection:
                sending = asyncio.create_task(self._send(connection))
                try:
                    return await connection.reply()
                finally:
                    sending.cancel()
        except (OSError, asyncio.IncompleteReadError):
            return Reply(0, {}, b"")

    async def _send(self, connection: RawHttp) -> None:
        with contextlib.suppress(OSError):
            await connection.send(self._head)
            if self._whole:
                return
            for message in self._requests or ():
                await connection.send(_chunk(message))
            while self._requests is None:
                await connection.send(_chunk(await self._writes.get()))
            await connection.send(b"0\r\n\r\n")


class _Stream(HttpCall):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        reply = await self._reply
        body = reply.body
        if reply.headers.get("content-type", "").startswith("application/json") or not reply.status:
            _raise(reply)
        while len(body) >= 5:
            size = int.from_bytes(body[1:5], "big")
            flags, message, body = body[0], body[5 : 5 + size], body[5 + size :]
            if not flags:
                yield message
                continue
            trailers = dict(line.split(": ", 1) for line in message.decode().split("\r\n") if line)
            code = int(trailers["grpc-status"])
            if code:
                details = trailers[_DETAILS]
                raise _error(status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4))))


class _Unary(HttpCall):
    def __await__(self) -> Generator[Any, None, bytes]:
        return self._answer().__await__()

    async def _answer(self) -> bytes:
        reply = await self._reply
        if reply.status != 200:
            _raise(reply)
        return reply.body


def _chunk(message: bytes) -> bytes:
    """A message of gRPC-Web, as one chunk."""
    return b"%x\r\n\0%b%b\r\n" % (len(message) + 5, len(message).to_bytes(4, "big"), message)


def _headers(metadata: Metadata) -> list[tuple[str, str]]:
    return [(name, value if isinstance(value, str) else base64.b64encode(value).decode()) for name, value in metadata]


def _raise(reply: Reply) -> None:
    """For an error in Connect's form or in that of /v1."""
    if not reply.status:
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "connection closed")
    found = json.loads(reply.body)
    if "error" in found:
        error = found["error"]
        code = grpc.StatusCode[error["status"]]
        status = status_pb2.Status(code=code.value[0], message=error["message"])
        json_format.ParseDict({"details": error["details"]}, status)
        raise _error(status)
    name = "CANCELLED" if found["code"] == "canceled" else found["code"].upper()
    status = status_pb2.Status(code=grpc.StatusCode[name].value[0], message=found["message"])
    for detail in found["details"]:
        value = base64.b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4))
        status.details.add(type_url=f"type.googleapis.com/{detail['type']}", value=value)
    raise _error(status)


def _error(status: status_pb2.Status) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata((_DETAILS, status.SerializeToString()))
    return grpc.aio.AioRpcError(_CODES[status.code], grpc.aio.Metadata(), trailing, status.message)
