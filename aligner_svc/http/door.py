"""Listens for HTTP and bounds its connections: in all, of an address, and until each has shown what it wants."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from aligner_svc.errors import StartError
from aligner_svc.http.calls import Calls, HttpClient
from aligner_svc.http.connect import ConnectStream, ConnectUnary, GrpcWeb, NotStreamed
from aligner_svc.http.connection import SEND_SECONDS, Common, Exchange, HttpConnection
from aligner_svc.http.counts import HANDSHAKE, HttpCounts
from aligner_svc.http.rest import ALIGNMENTS, INFO, Align, Info, Nothing
from aligner_svc.http.stream import Stream
from aligner_svc.http.turns import Turns
from aligner_svc.http.wire import Sizes, Wire
from aligner_svc.transport.bind import Address, refused
from aligner_svc.transport.connections import ConnectionLimits, Peer, peer_of_socket
from interceptors.background import Tasks
from interceptors.calls.security_event import Event, Record, Repeated, SecurityEvent

log = logging.getLogger("aligner_svc.http")

_HANDSHAKE_SECONDS: Final = 5.0
_PAUSE: Final = 0.1
"""Seconds after which accepting is tried again: the process has no descriptor left, and connections end."""
_BACKLOG: Final = 256
_TURNS: Final = 4
"""Connections, and as many handshakes and requests, that begin in a round of the event loop: 6 ms at most."""
_TLS_BUFFER: Final = 32 * 1024
"""Bytes that are decrypted at a time. asyncio keeps a buffer of them for each connection from before its handshake, 256 KiB by
itself: 1,300 silent connections took 360 MB."""
_NOT_METADATA: Final = frozenset({"host", "connection", "keep-alive", "te", "transfer-encoding", "content-length", "expect"})
"""Headers of the transport, which gRPC does not hand to a call either."""
_ROUTES: Final[dict[tuple[str, str], type[Wire]]] = {("POST", ALIGNMENTS): Align, ("GET", INFO): Info}


class Door:
    """`bind`, `start`, then `stop`, on the event loop of the service."""

    def __init__(
        self,
        calls: Calls,
        sizes: Sizes,
        limits: ConnectionLimits,
        *,
        max_head: int,
        tls: Callable[[], ssl.SSLContext] | None,
        record: Record,
    ) -> None:
        """`max_head`: bytes of a request line with its headers. `tls`: for the next handshake; None: plaintext."""
        self._calls = calls
        self._sizes = sizes
        self._limits = limits
        self._tls = tls
        self._record = record
        self._repeated = Repeated()
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._open: dict[_Accepted, None] = {}
        """Those that have done nothing for the longest time come first."""
        self._tasks = Tasks()
        self._accepts, self._handshakes = Turns(_TURNS), Turns(_TURNS)
        self.counts = HttpCounts()
        self._common = Common(max_head, Turns(_TURNS), self.counts)
        self.address = ""
        """HOST:PORT in use, once bound."""

    @property
    def open(self) -> int:
        """Connections, those in their handshakes too."""
        return len(self._open)

    def bind(self, address: Address, *, shared: bool = False) -> None:
        """Take the port without accepting yet; `shared`: with other processes, see `reserve`. Raises StartError."""
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if shared else socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        try:
            listening.bind((address.host, address.port))
        except OSError as error:
            listening.close()
            raise refused(address, error) from None
        self._socket = listening
        self.address = str(Address(address.host, listening.getsockname()[1], address.loopback))

    async def start(self) -> None:
        """Accept connections."""
        if self._socket is None:
            raise StartError("the HTTP door has no port")
        if self._tls is not None:
            SSLProtocol.max_size = _TLS_BUFFER
        self._socket.listen(_BACKLOG)
        self._accepting = asyncio.create_task(self._accept(self._socket))

    async def stop(self, grace: float) -> None:
        """Accept no more, close what is idle, and end requests that still run after `grace` seconds. Idempotent."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
            self._accepting = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for one in tuple(self._open):
            one.finish()
        running = {one.task for one in self._open}
        if running:
            _, late = await asyncio.wait(running, timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._accepts.take()  # a connection that is there already would be accepted without a pause
            try:
                opened, _ = await loop.sock_accept(listening)
            except OSError as error:
                log.warning("no HTTP connection can be accepted: %s", error.strerror)
                await asyncio.sleep(_PAUSE)
                continue
            try:
                self._admit(opened)
            except Exception:  # no connection may keep out the next
                log.exception("an HTTP connection was not served")
                opened.close()

    def _admit(self, opened: socket.socket) -> None:
        peer = peer_of_socket(opened)
        if peer is None or not self._make_room(peer):
            opened.close()
            return
        accepted = _Accepted(opened, peer)
        accepted.task = self._tasks.start(self._serve(accepted))
        self._open[accepted] = None

    def _make_room(self, peer: Peer) -> bool:
        """Whether a connection of `peer` may be opened, if need be after an idle one was closed."""
        network = peer.network
        of_address = [one for one in self._open if one.network == network]
        if len(of_address) >= self._limits.per_address:
            return self._close_idle(of_address, "address_limit", peer)
        if len(self._open) < self._limits.most:
            return True
        count = Counter(one.network for one in self._open)
        idle = [one for one in self._open if one.idle]
        most = max((count[one.network] for one in idle), default=0)
        return self._close_idle((one for one in idle if count[one.network] == most), "full", peer)

    def _close_idle(self, among: Iterable[_Accepted], reason: str, peer: Peer) -> bool:
        chosen = next((one for one in among if one.idle), None)
        closed = peer if chosen is None else chosen.peer
        if self._repeated.is_due((reason, closed.network)):
            self._record(SecurityEvent(Event.CONNECTION_CLOSED, reason, detail="of the HTTP door", peer=str(closed)))
        if chosen is None:
            return False
        self.counts.closed[reason] += 1
        del self._open[chosen]
        chosen.evicted = True
        chosen.end()
        return True

    async def _serve(self, accepted: _Accepted) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            accepted.opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = await self._connected(accepted)
            writer, accepted.connection = connection.writer, connection
            await connection.serve(lambda exchange: self._handle(exchange, accepted))
        except (OSError, TimeoutError):  # the client left, was too slow or is no friend of TLS
            if writer is None:
                self.counts.refused[HANDSHAKE] += 1
        except asyncio.CancelledError:
            pass  # to make room, or this door closes
        except Exception:
            log.exception("a connection of the HTTP door failed")
        finally:
            try:
                if writer is None:
                    accepted.opened.close()
                elif accepted.evicted:
                    writer.transport.abort()
                else:
                    await _close(writer)
            finally:
                self._open.pop(accepted, None)

    async def _connected(self, accepted: _Accepted) -> HttpConnection:
        """After the handshake, if there is one. Raises OSError."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = loop.create_future()
        tls = seconds = None
        if self._tls is not None:
            seconds = _HANDSHAKE_SECONDS
            async with asyncio.timeout(seconds):
                await _readable(accepted.opened)
            await self._handshakes.take()
            tls = self._tls()
        accepted.shaking = True
        _, stream = await loop.connect_accepted_socket(
            lambda: Stream(lambda reader, writer: ready.set_result((reader, writer))),
            accepted.opened,
            ssl=tls,
            ssl_handshake_timeout=seconds,
            ssl_shutdown_timeout=seconds,
        )
        reader, writer = await ready
        accepted.shaking = False
        return HttpConnection(stream, reader, writer, self._common)

    async def _handle(self, exchange: Exchange, accepted: _Accepted) -> None:
        self._open[accepted] = self._open.pop(accepted, None)
        connection = exchange.connection
        certificate = connection.certificate
        identity = {} if certificate is None else {"x509_pem_cert": (certificate.encode(),)}
        metadata = [(name, value) for name, value in exchange.fields if name not in _NOT_METADATA]
        client = HttpClient(str(accepted.peer), metadata, identity)
        await self._calls.serve(self._wire(exchange), client, connection.stream.watch)

    def _wire(self, exchange: Exchange) -> Wire:
        asked = exchange.asked
        kind = _ROUTES.get((asked.verb, asked.target))
        streams = self._calls.streams(asked.target) if asked.verb == "POST" else None
        if kind is None and streams is not None:
            media = asked.media_type()
            kind = GrpcWeb if media.startswith(GrpcWeb.MEDIA) else ConnectUnary
            if streams and kind is ConnectUnary:
                kind = ConnectStream if media.startswith(ConnectStream.MEDIA) else NotStreamed
        return (kind or Nothing)(asked, exchange.body, exchange, self._sizes)


async def _readable(opened: socket.socket) -> None:
    """Wait for its first byte: what TLS needs of memory, 70 KB, is not for those that say nothing."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(opened, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(opened)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Once the last answer is taken, or it is given up."""
    writer.close()
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.CancelledError):
        writer.transport.abort()


class _Accepted:
    """One connection. `task` serves it."""

    task: asyncio.Task[None]
    connection: HttpConnection | None = None
    """None: in its handshake."""
    evicted = False
    """Closed to make room."""
    shaking = False
    """Whether asyncio is at its handshake."""

    def __init__(self, opened: socket.socket, peer: Peer) -> None:
        self.opened = opened
        self.peer = peer
        self.network = peer.network

    @property
    def idle(self) -> bool:
        """Whether no request of it is being answered."""
        return self.connection is None or self.connection.idle

    def finish(self) -> None:
        """Close it, after its request if it has one."""
        if self.connection is None or self.connection.idle:
            self.end()
        else:
            self.connection.closing = True

    def end(self) -> None:
        """Close it now. After a handshake cancelled as it ends, asyncio (3.11) refuses its descriptor to the next one."""
        if self.shaking:
            with suppress(OSError):
                self.opened.shutdown(socket.SHUT_RDWR)
        else:
            self.task.cancel()
