"""The Connect protocol and gRPC-Web: https://connectrpc.com/docs/protocol and gRPC's PROTOCOL-WEB.md.

Requests may be compressed with gzip, as over gRPC: Connect's client for Python does so by itself. Answers are not compressed.
A message of a stream, and any of gRPC-Web, has a head of a byte of flags and four of its length; the last thing sent is the
status, as JSON with Connect and as headers with gRPC-Web.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc import aio

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.http.body import UNLIMITED, malformed
from aligner_svc.http.context import Metadata
from aligner_svc.http.errors import code_of, http_status
from aligner_svc.http.json_messages import from_json
from aligner_svc.http.rest import Unary, to_json
from aligner_svc.http.wire import Headers, Wire, passed_on, refused_type, request_of
from aligner_svc.workers.threads import off_loop
from interceptors.calls.outcome import DETAILS, reason_in
from interceptors.handlers.compression import expanded, too_large

_COMPRESSED, _END, _TRAILERS = 1, 2, 0x80
_PROTO, _JSON = "application/proto", "application/json"
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class ConnectUnary(Unary):
    """POST /aligner.v1.Aligner/METHOD with one message, as bytes of protobuf or as JSON."""

    GZIP = "content-encoding"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.method = self.asked.target

    async def read(self) -> Any:
        self.check_headers()
        media, sizes = self.asked.media_type(), self.sizes
        if media == _PROTO:
            return await self._whole(sizes.message_bytes)
        if media == _JSON:
            return await from_json(await self._whole(sizes.json_bytes), request_of(self.method), sizes.transcript_chars)
        raise refused_type(f"send {_PROTO} or {_JSON}, or application/grpc-web+proto")

    async def _whole(self, most: int) -> bytes:
        body = await self.body.whole(most)
        return await expanded(body, most) if self.gzipped and body else body  # an empty message may come as nothing

    async def rendered(self, answer: Message) -> tuple[str, bytes]:
        if self.asked.media_type() == _PROTO:
            return _PROTO, answer.SerializeToString()
        return await super().rendered(answer)

    def refusal(self, status: status_pb2.Status, headers: Headers) -> tuple[int, Headers, bytes]:
        code, headers, _ = super().refusal(status, headers)
        return code, headers, json.dumps(connect_error(status)).encode()


class NotStreamed(ConnectUnary):
    """A method with streams, asked for as if it had none."""

    async def read(self) -> Any:
        forms = " or ".join(ConnectStream.FORMS)
        raise refused_type(f"this method has streams: send {ConnectStream.MEDIA}{forms}, or {GrpcWeb.MEDIA}+proto")


class Envelopes(Wire):
    """Messages with a head each, both ways."""

    MEDIA = ""
    FORMS: tuple[str, ...] = ("+proto", "+json")

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.method = self.asked.target
        self._json = self.asked.media_type() == f"{self.MEDIA}+json"
        self._parts: AsyncIterator[bytes] | None = None
        self._buffer = bytearray()

    async def read(self) -> Any:
        if self._parts is None:
            self.check_headers()
            if self.asked.media_type().removeprefix(self.MEDIA) not in self.FORMS:
                raise refused_type(f"send {self.MEDIA}{' or '.join(self.FORMS)}")
            self._parts = self.body.parts(UNLIMITED)  # each message is bounded here, and their audio by the servicer
        await asyncio.sleep(0)  # a part may have 10,000 messages
        if not await self._fill(5):
            if self._buffer:
                raise malformed("the body ends within a message")
            return aio.EOF
        flags, size = self._buffer[0], int.from_bytes(self._buffer[1:5], "big")
        if flags and not (flags == _COMPRESSED and self.gzipped):
            raise malformed("a message is compressed and no header says gzip, or has a flag that no request has")
        most = self.sizes.json_bytes if self._json else self.sizes.message_bytes
        if size > most:
            raise too_large(str(size), most)
        if not await self._fill(5 + size):
            raise malformed("the body ends within a message")
        message = bytes(memoryview(self._buffer)[5 : 5 + size])
        del self._buffer[: 5 + size]
        if flags:
            message = await expanded(message, most)
        return await from_json(message, request_of(self.method), self.sizes.transcript_chars) if self._json else message

    async def _fill(self, size: int) -> bool:
        """Have `size` bytes in the buffer; False if the body ends before."""
        assert self._parts is not None
        while len(self._buffer) < size:
            part = await anext(self._parts, b"")
            if not part:
                return False
            self._buffer += part
        return True

    async def send(self, message: Message) -> None:
        words = len(message.words) if isinstance(message, pb.AlignResponse) else 0
        body = await off_loop(to_json, message, words=words) if self._json else message.SerializeToString()
        await self._begin([])
        await self.answering.part(_head(0, body) + body)

    async def _begin(self, headers: Headers) -> None:
        form = "+json" if self._json else "+proto"
        await self.answering.begin(200, [*headers, ("content-type", f"{self.MEDIA}{form}")])


class ConnectStream(Envelopes):
    """POST /aligner.v1.Aligner/StreamAlign."""

    MEDIA = "application/connect"
    GZIP = "connect-content-encoding"

    async def end(self, status: status_pb2.Status | None, trailing: Metadata) -> None:
        headers = passed_on(trailing)
        await self._begin(headers)
        last: dict[str, Any] = {"metadata": {name: [value] for name, value in headers}}
        if status is not None:
            last["error"] = connect_error(status)
        body = json.dumps(last).encode()
        await self.answering.part(_head(_END, body) + body)
        await self.answering.finish()


class GrpcWeb(Envelopes):
    """gRPC-Web in bytes, of unary methods and streams; its text form, base64, is not taken."""

    MEDIA = "application/grpc-web"
    FORMS = ("", "+proto", "+json")
    GZIP = "grpc-encoding"

    @property
    def timeout(self) -> float | None:
        found = re.fullmatch(r"([0-9]{1,8})([HMSmun])", self.asked.header("grpc-timeout"))
        return int(found[1]) * _UNITS[found[2]] if found else None

    async def end(self, status: status_pb2.Status | None, trailing: Metadata) -> None:
        await self._begin(passed_on(trailing))
        fields = [("grpc-status", str(status.code if status is not None else 0)), *passed_on(trailing)]
        if status is not None:
            fields.append(("grpc-message", _percent(status.message)))
            fields.append((DETAILS, base64.b64encode(status.SerializeToString()).rstrip(b"=").decode()))
        body = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
        await self.answering.part(_head(_TRAILERS, body) + body)
        await self.answering.finish()


def connect_error(status: status_pb2.Status) -> dict[str, Any]:
    """As the protocol has it; `reason` beside it."""
    details = [
        {
            "type": detail.TypeName(),
            "value": base64.b64encode(detail.value).rstrip(b"=").decode(),
            "debug": {name: value for name, value in json_format.MessageToDict(detail).items() if name != "@type"},
        }
        for detail in status.details
    ]
    code = "canceled" if http_status(status) == 499 else code_of(status).name.lower()
    return {"code": code, "reason": reason_in(status), "message": status.message, "details": details}


def _head(flags: int, body: bytes) -> bytes:
    return bytes([flags]) + len(body).to_bytes(4, "big")


def _percent(text: str) -> str:
    """As gRPC sends messages."""
    return "".join(chr(byte) if 0x20 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}" for byte in text.encode())
