"""A client of clamd: INSTREAM over asyncio, status commands through the `clamd` package.

Why INSTREAM is not the package's: its `instream` takes a file to read from, so it cannot be fed while an upload comes in. It
holds a thread for the whole time, sends 1 KiB at a time (a second for 10 MB) with `send`, which may send a part, and cannot
reliably tell a stream that is too long from a daemon that died. The framing is ten lines, on bare sockets: asyncio's transports
discard what has arrived when a write fails, and that is where clamd says why.

Why a connection for each scan and no session (IDSESSION): connecting takes 0.04 ms of a scan of 1 to 200 ms, and an idle
connection is cut by clamd after its IdleTimeout, or by its restart: the next call would fail for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from interceptors.antivirus import file_types
from interceptors.antivirus.address import TcpAddress, UnixAddress, parse_address
from interceptors.antivirus.verdicts import Clean, Infected, Verdict
from interceptors.calls.hooks import Buffer

CHUNK = 128 * 1024
"""Bytes sent at a time: 64 to 256 KiB cost clamd 20 ms for 10 MB, 1 KiB a second."""
_MAX_REPLY = 4096
_LAST_REPLY_TIMEOUT = 0.2
"""Seconds to read why clamd cut a connection; a reply has arrived by then, or there is none."""
_LENGTH = struct.Struct("!L")
_MAX_LENGTH = (1 << 32) - 1
_VERSION = re.compile(r"ClamAV [!-.0-~]{1,64}(?:/(?P<number>\d{1,10})/(?P<date>[ -.0-~]{1,64}))?")
_UNPRINTABLE = re.compile(r"[^A-Za-z0-9._:()/+-]")
_MAX_NAME = 128
_LIMITS = "Heuristics.Limits.Exceeded"


class ScannerUnavailableError(Exception):
    """No verdict, because clamd could not be reached. The message is for logs and holds nothing that a caller sent."""


class ScanFailedError(ScannerUnavailableError):
    """No verdict though clamd was reached: it failed on this upload, or was too busy.

    Never to be let pass, not even if uploads pass while clamd is unavailable: a caller can cause it.
    """


class TooLargeError(Exception):
    """clamd does not take so much, or does not scan all of it."""


@dataclass(frozen=True, slots=True)
class Version:
    """As clamd reports it. `signatures` and `date` are the version of ClamAV's own; 0 if there are only an operator's."""

    text: str
    signatures: int = 0
    date: str = ""


class Clamd:
    """`timeout`: seconds for a connection, a command, and each chunk; `scan_timeout`: from the last chunk to the verdict."""

    def __init__(self, address: str, *, timeout: float = 5.0, scan_timeout: float = 60.0) -> None:
        """`address` as `parse_address` takes it. Raises ValueError."""
        self.address = parse_address(address)
        self.timeout = timeout
        self.scan_timeout = scan_timeout

    async def version(self) -> Version:
        """Raises ScannerUnavailableError."""
        from interceptors.antivirus import commands  # noqa: PLC0415 - and with it the package

        try:
            text = await commands.version(self.address, self.timeout)
        except TimeoutError:
            raise ScannerUnavailableError(f"no answer within {self.timeout:g} s") from None
        except OSError:
            raise ScannerUnavailableError("it cannot be reached") from None
        match = _VERSION.fullmatch(text.rstrip("\0"))
        if match is None:
            raise ScannerUnavailableError("what answers there is not clamd")
        return Version(match[0], int(match["number"] or 0), match["date"] or "")

    async def answers(self) -> None:
        """Return once clamd answers a command that it does not know. Raises ScannerUnavailableError.

        The thread that takes commands answers that itself, in 20 ms however busy the others are; VERSION waits for one of them.
        """
        connection = await self._connect()
        try:
            async with asyncio.timeout(self.timeout):
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(connection, b"zALIVE\0")
                if not await loop.sock_recv(connection, _MAX_REPLY):
                    raise ScannerUnavailableError("the connection was cut")
        except TimeoutError:
            raise ScannerUnavailableError(f"no answer within {self.timeout:g} s") from None
        except OSError:
            raise ScannerUnavailableError("the connection was cut") from None
        finally:
            connection.close()

    async def check_stream_limit(self, size: int) -> None:
        """Ask whether StreamMaxLength allows `size` bytes, without sending them: clamd judges the length of a chunk at once.

        Raises TooLargeError if it does not, and ScannerUnavailableError.
        """
        async with self.stream() as stream:
            await stream.declare(min(size, _MAX_LENGTH))
            await self.answers()  # clamd takes commands in the order they come: it has judged the length by now
            await stream.check_refused()

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[ClamdStream]:
        """A connection for one upload, closed afterwards in any case. Raises ScannerUnavailableError."""
        connection = await self._connect()
        try:
            stream = ClamdStream(connection, self.timeout, self.scan_timeout)
            await stream.begin()
            yield stream
        finally:
            connection.close()

    async def _connect(self) -> socket.socket:
        try:
            async with asyncio.timeout(self.timeout):
                return await _connected(self.address)
        except TimeoutError:
            raise ScannerUnavailableError(f"no connection within {self.timeout:g} s") from None
        except OSError:
            raise ScannerUnavailableError("it cannot be reached") from None


class ClamdStream:
    """One INSTREAM command. Not for two tasks at a time."""

    def __init__(self, connection: socket.socket, timeout: float, scan_timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._scan_timeout = scan_timeout
        self._loop = asyncio.get_running_loop()
        self._held: bytes | None = b""
        """What is held back until the beginning of the file is known; None: it has been sent."""

    async def begin(self) -> None:
        """Raises ScannerUnavailableError."""
        await self._send(b"zINSTREAM\0")

    async def send(self, content: Buffer) -> None:
        """Returns when all but the beginning of a file, which waits for more, is on its way.

        Raises ScannerUnavailableError, and TooLargeError if clamd takes no more.
        """
        view = memoryview(content).cast("B")
        if self._held is not None:
            if len(self._held) + len(view) < file_types.HEAD:
                self._held += view
                return
            await self._send_held(view[: file_types.HEAD])
        await self._send_chunks(view)

    async def _send_held(self, following: Buffer = b"") -> None:
        held, self._held = self._held or b"", None
        await self._send_chunks(memoryview(file_types.lead(held + following) + held))

    async def _send_chunks(self, view: memoryview) -> None:
        for start in range(0, len(view), CHUNK):
            chunk = view[start : start + CHUNK]
            await self._send(_LENGTH.pack(len(chunk)))
            await self._send(chunk)

    async def declare(self, size: int) -> None:
        """The length of a chunk that does not follow. Raises as `send`."""
        await self._send(_LENGTH.pack(size))

    async def check_refused(self) -> None:
        """Raises TooLargeError or ScanFailedError if clamd has refused the stream."""
        await self._raise_last_reply()

    async def end(self) -> None:
        """After the last chunk. Raises as `send`."""
        if self._held is not None:
            await self._send_held()
        await self._send(_LENGTH.pack(0))

    async def verdict(self) -> Verdict:
        """After `end`. Raises ScanFailedError and TooLargeError."""
        try:
            async with asyncio.timeout(self._scan_timeout):
                return parse_reply(await self._reply())
        except TimeoutError:
            raise ScanFailedError(f"no verdict within {self._scan_timeout:g} s") from None
        except OSError:
            raise ScanFailedError("the connection was cut before the verdict") from None

    async def _send(self, data: Buffer) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._loop.sock_sendall(self._connection, data)
        except TimeoutError:
            raise ScannerUnavailableError(f"it took nothing for {self._timeout:g} s") from None
        except OSError:
            await self._raise_last_reply()
            raise ScannerUnavailableError("the connection was cut") from None

    async def _raise_last_reply(self) -> None:
        """Raises what clamd replied before it cut the connection, if anything."""
        try:
            async with asyncio.timeout(_LAST_REPLY_TIMEOUT):
                reply = await self._reply()
        except (TimeoutError, OSError):
            return
        if reply:
            parse_reply(reply)

    async def _reply(self) -> bytes:
        """Up to its NUL, or to the end of the connection."""
        reply = b""
        while len(reply) < _MAX_REPLY and b"\0" not in reply:
            more = await self._loop.sock_recv(self._connection, _MAX_REPLY)
            if not more:
                break
            reply += more
        return reply


def parse_reply(reply: bytes) -> Verdict:
    """Raises ScanFailedError for whatever is not a verdict: only the exact reply for it counts as clean."""
    text, end, rest = reply.partition(b"\0")
    if text == b"stream: OK" and end and not rest:
        return Clean()
    words = text.decode("ascii", "replace")
    if words.startswith("stream: ") and words.endswith(" FOUND"):  # even if cut, and whatever the name
        name = _UNPRINTABLE.sub("?", words.removeprefix("stream: ").removesuffix(" FOUND"))[:_MAX_NAME]
        if name.startswith(_LIMITS):  # clamd's AlertExceedsMax: nothing was found in the part it scanned
            raise TooLargeError("the upload exceeds a limit of clamd's (MaxFileSize, MaxScanSize, MaxScanTime, ...)")
        return Infected(name)
    if text == b"INSTREAM size limit exceeded. ERROR":
        raise TooLargeError("the upload exceeds clamd's StreamMaxLength")
    if not reply:
        raise ScanFailedError("the connection was closed before the verdict")
    if end and words.endswith(" ERROR"):
        raise ScanFailedError(f"it answered with an error: {_UNPRINTABLE.sub(' ', words)[:_MAX_NAME]}")
    raise ScanFailedError("its answer makes no sense")


async def _connected(address: UnixAddress | TcpAddress) -> socket.socket:
    """Raises OSError."""
    if isinstance(address, UnixAddress):
        return await _open(socket.AF_UNIX, address.path)
    found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    failed = OSError("no address")
    for family, _, _, _, place in found:
        try:
            connection = await _open(family, place)
        except OSError as error:
            failed = error
            continue
        # A chunk follows its length at once, and the last one is short: do not wait for an ACK in between.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    raise failed


async def _open(family: int, place: object) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, place)  # type: ignore[arg-type]  # str for unix, else a tuple
    except BaseException:  # cancelled, too
        with contextlib.suppress(OSError):
            connection.close()
        raise
    return connection
