"""One HTTP/1.1 connection. h11 is the protocol; the time of each part of a request is bounded here, its size by who reads it."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import grpc
import h11

from aligner_svc.http.body import Body, malformed
from aligner_svc.http.counts import HEAD_TOO_LARGE, HEAD_TOO_SLOW, MALFORMED, HttpCounts
from aligner_svc.http.errors import document
from aligner_svc.http.stream import PART, LostError, Stream
from aligner_svc.http.turns import Turns
from aligner_svc.http.wire import Asked, Headers
from aligner_svc.rpc.status import DOMAIN
from interceptors.calls.refusal import CallRefusedError

HEAD_SECONDS: Final = 10.0
"""For the first byte of a connection's first request, and for the rest of every request line with its headers."""
KEEP_ALIVE_SECONDS: Final = 60.0
"""For the first byte of each further request."""
SEND_SECONDS: Final = 30.0
"""In which a part of an answer has to be taken."""
_STALLED_SECONDS: Final = 1.0
"""In which nothing of it is taken, until the connection may be closed for another one."""
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 16 << 20
"""How much of the rest of a refused body is thrown away: a connection that is closed before takes the answer with it."""

Handle = Callable[["Exchange"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Common:
    """What the connections of a door share. `max_head`: bytes of a request line with its headers. `turns`: of requests."""

    max_head: int
    turns: Turns
    counts: HttpCounts


class HttpConnection:
    """`serve` it until one side closes it."""

    def __init__(self, stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, common: Common) -> None:
        self.stream = stream
        self.reader = reader
        self.writer = writer
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=common.max_head)
        self.counts = common.counts
        self._turns = common.turns
        self._max_head = common.max_head
        self.idle = True
        """Whether nobody would miss it: it waits for a request, or for a client that takes nothing of its answer."""
        self.closing = False
        """Set to close it after the request in progress."""

    @property
    def certificate(self) -> str | None:
        """The client's, as PEM."""
        tls = self.writer.get_extra_info("ssl_object")
        found = tls.getpeercert(binary_form=True) if tls is not None else None
        return ssl.DER_cert_to_PEM_cert(found) if found else None

    async def serve(self, handle: Handle) -> None:
        """One request after the other. Raises ConnectionError, TimeoutError."""
        wait = HEAD_SECONDS
        while not self.closing and not self.stream.lost:
            try:
                head = await self._head(wait)
            except h11.RemoteProtocolError as error:
                await self._refuse(error.error_status_hint)
                return
            if head is None:
                return
            if (fault := _fault(head)) is not None:
                await self._refuse(fault)
                return
            self.idle = False
            exchange = Exchange(self, head)
            await handle(exchange)
            if not await exchange.close():
                return
            self.http.start_next_cycle()
            wait, self.idle = KEEP_ALIVE_SECONDS, True

    async def _head(self, wait: float) -> h11.Request | None:
        """The next one; None if there is none. Raises h11.RemoteProtocolError."""
        if self.http.trailing_data[0] == b"":
            async with asyncio.timeout(wait):
                await self.receive(self._max_head)
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                await self._turns.take()
                event = self.http.next_event()
                while event is h11.NEED_DATA:
                    await self.receive(self._max_head)
                    event = self.http.next_event()
        except TimeoutError:
            self.counts.refused[HEAD_TOO_SLOW] += 1
            raise
        return event if isinstance(event, h11.Request) else None

    async def receive(self, most: int = PART) -> None:
        """Some bytes, or the end, for h11, which bounds a head only while it is not complete."""
        self.http.receive_data(await self.reader.read(most))

    async def write(self, event: h11.Event) -> None:
        """Raises ConnectionError if it is not taken."""
        if isinstance(event, h11.Response):
            self.counts.responses[event.status_code] += 1
        data = self.http.send(event)
        if data:
            self.writer.write(data)
        stalling = asyncio.get_running_loop().call_later(_STALLED_SECONDS, self._stall)
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self.writer.drain()
        except TimeoutError:
            self.writer.transport.abort()
            raise LostError from None
        finally:
            stalling.cancel()
            self.idle = False

    def _stall(self) -> None:
        self.idle = True

    async def _refuse(self, status: int) -> None:
        """What is not HTTP, before there is a call."""
        if self.http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        refused, why = malformed("this is not valid HTTP/1.1"), MALFORMED
        if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            text = f"the request line and headers have more than {self._max_head} bytes"
            refused, why = CallRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "HEADERS_TOO_LARGE", text), HEAD_TOO_LARGE
        self.counts.refused[why] += 1
        body = document(refused.status(DOMAIN), "", status)
        headers = [("content-type", "application/json"), ("connection", "close"), ("content-length", str(len(body)))]
        await self.write(response(status, headers))
        await self.write(h11.Data(data=body))
        await self.write(h11.EndOfMessage())
        await self.discard()

    async def discard(self) -> None:
        """Throw away what still comes, for a while: then the client reads the answer."""
        left, self.idle = _LINGER_BYTES, True
        if self.writer.can_write_eof():  # not with TLS
            self.writer.write_eof()
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while left > 0 and (part := await self.reader.read(PART)):
                    left -= len(part)
        except TimeoutError:
            pass


class Exchange:
    """One request and its answer; an Answering of `wire`."""

    def __init__(self, connection: HttpConnection, head: h11.Request) -> None:
        self.connection = connection
        self._complete = False
        self._began = False
        self._coming = False
        """Whether the rest of the body is on its way, as the answer begins."""
        self.fields = [(name.decode("ascii").lower(), _ascii(value)) for name, value in head.headers]
        times = Counter(name for name, _ in self.fields)
        first = dict(reversed(self.fields))
        self.asked = Asked(
            head.method.decode("ascii"),
            head.target.decode("ascii", "backslashreplace"),
            first,
            frozenset(name for name, count in times.items() if count > 1),
        )
        length = first.get("content-length")
        self.body = Body(self._read, None if length is None else int(length))

    async def _read(self) -> bytes:
        """The next part of the body; empty at its end."""
        if self._complete:
            return b""
        http = self.connection.http
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    if http.they_are_waiting_for_100_continue:
                        await self.connection.write(h11.InformationalResponse(status_code=100, headers=[]))
                    await self.connection.receive()
                elif isinstance(event, h11.Data):
                    await asyncio.sleep(0)  # the 10,000 chunks that may have been received would hold the event loop for 0.1 s
                    if event.data:
                        return bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self._complete = True
                    return b""
                else:
                    raise LostError
        except h11.RemoteProtocolError:
            if self.connection.stream.lost:
                raise LostError from None
            raise malformed("the body is not framed as HTTP/1.1 has it") from None

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """See Answering."""
        self._take_end()
        await self.begin(status, [*headers, ("content-length", str(len(body)))])
        if body and self.asked.verb != "HEAD":
            await self.connection.write(h11.Data(data=body))
        await self.finish()

    async def begin(self, status: int, headers: Headers) -> None:
        """See Answering."""
        if self._began:
            return
        self._began = True
        more = [("date", formatdate(usegmt=True)), ("cache-control", "no-store"), ("x-content-type-options", "nosniff")]
        self._coming = not self._complete and not self.connection.http.they_are_waiting_for_100_continue
        if not self._complete or self.connection.closing:
            more.append(("connection", "close"))
        await self.connection.write(response(status, [*headers, *more]))

    async def part(self, data: bytes) -> None:
        """See Answering."""
        await self.connection.write(h11.Data(data=data))

    async def finish(self) -> None:
        """See Answering."""
        await self.connection.write(h11.EndOfMessage())

    async def close(self) -> bool:
        """Whether another request may follow."""
        http = self.connection.http
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            return True
        if self._coming and not self._complete:
            await self.connection.discard()
        return False

    def _take_end(self) -> None:
        """Of a body that nobody reads any more, and whose end is here already."""
        http = self.connection.http
        try:
            while not self._complete and isinstance(event := http.next_event(), h11.Data | h11.EndOfMessage):
                self._complete = isinstance(event, h11.EndOfMessage)
        except h11.RemoteProtocolError:
            pass


def _fault(head: h11.Request) -> int | None:
    """The status to refuse a head with that h11 lets pass."""
    if head.http_version not in {b"1.0", b"1.1"}:
        return 505
    names = [name for name, _ in head.headers]
    if b"transfer-encoding" in names and (b"content-length" in names or head.http_version == b"1.0"):
        return 400  # RFC 9112, 6.1: its end can be read in two ways
    return None


def response(status: int, headers: Headers) -> h11.Response:
    """499 has no phrase of its own."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Client Closed Request"
    return h11.Response(status_code=status, reason=phrase.encode(), headers=headers)


def _ascii(value: bytes) -> str:
    r"""Metadata is ASCII. Other bytes become "\xe9", which is nobody's credential and no trouble to compare."""
    return value.decode("ascii", "backslashreplace")
