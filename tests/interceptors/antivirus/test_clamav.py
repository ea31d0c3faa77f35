"""The client of clamd with a real one, and with servers that are not clamd."""

from __future__ import annotations

import asyncio
import io
import os
import struct
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from interceptors.antivirus.address import TcpAddress, UnixAddress, parse_address
from interceptors.antivirus.clamav import Clamd, ScanFailedError, ScannerUnavailableError, TooLargeError, parse_reply
from interceptors.antivirus.pool import Pool
from interceptors.antivirus.verdicts import Clean, Infected, Verdict
from tests.kit import clamd_server as cs
from tests.kit.clamd_server import EICAR, MIB, SIGNATURE, ClamdServer
from tests.kit.waiting import loop_turns

clamd_server = cs.clamd_server
clamav = cs.clamav

KINDS = pytest.mark.parametrize("kind", ["unix", "tcp"])
SHORT = 0.2
"""Seconds, for timeouts that are waited for."""


def wav(content: bytes) -> bytes:
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(content), b"WAVE", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16, b"data", len(content)
    )
    return head + content


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.txt", content)
    return packed.getvalue()


async def scan(clamd: Clamd, *chunks: bytes) -> Verdict:
    async with clamd.stream() as stream:
        for chunk in chunks:
            await stream.send(chunk)
        await stream.end()
        return await stream.verdict()


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(folder: Path, answer: Answer) -> AsyncIterator[Clamd]:
    """A client of a server that handles each connection with `answer`."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, folder / "s")
    try:
        yield Clamd(f"unix:{folder / 's'}", timeout=SHORT, scan_timeout=SHORT)
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def whole_stream(reader: asyncio.StreamReader) -> None:
    """Read the stream up to its last chunk."""
    await reader.readuntil(b"\0")
    while length := struct.unpack("!L", await reader.readexactly(4))[0]:
        await reader.readexactly(length)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/clamav/clamd.ctl", UnixAddress("/run/clamav/clamd.ctl")),
        ("unix:///run/clamav/clamd.ctl", UnixAddress("/run/clamav/clamd.ctl")),
        ("tcp://scanner:3310", TcpAddress("scanner", 3310)),
        ("tcp://[::1]:3310", TcpAddress("::1", 3310)),
    ],
)
def test_an_address_is_a_path_or_a_host_and_a_port(text, address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/run/clamd.ctl",
        "unix:",
        "unix:/",
        "unix:clamd.ctl",
        "tcp://scanner",
        "tcp://:3310",
        "tcp://a:99999",
        "http://a:1",
        "tcp://u:p@a:1",
        "tcp://a:1/x",
    ],
)
def test_an_invalid_address_is_refused_with_an_example(text) -> None:
    with pytest.raises(ValueError, match="write unix:/run"):
        parse_address(text)


@given(
    st.binary(max_size=200)
    | st.sampled_from([b"stream: ", b"OK", b"\0", b" FOUND"]).flatmap(lambda a: st.binary().map(a.__add__))
)
@example(b"")
@example(b"\0")
@example(b"stream: OK")
@example(b"stream: OK\0\0")
@example(b"stream: x OK\0")
@example(b"other: OK\0")
@example(b"stream: OK\n")
@example(b"stream: Can't allocate memory ERROR\0")
def test_only_the_exact_reply_is_clean(reply) -> None:
    try:
        verdict = parse_reply(reply)
    except (ScanFailedError, TooLargeError):
        return
    assert reply == b"stream: OK\0" or isinstance(verdict, Infected)


def test_the_name_of_a_signature_is_made_printable() -> None:
    assert parse_reply(b"stream: Win.Test: a\nb\xff(1) FOUND\0") == Infected("Win.Test:?a?b?(1)")
    assert len(parse_reply(b"stream: " + b"a" * 3000 + b" FOUND\0").signature) == 128


def test_an_exceeded_limit_is_not_malware() -> None:
    with pytest.raises(TooLargeError):
        parse_reply(b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0")


@KINDS
async def test_a_real_clamd_finds_a_virus_wherever_it_is(clamav: ClamdServer, kind) -> None:
    clamd = Clamd(clamav.address(kind))
    silence = bytes(300_000)
    for content in (EICAR, wav(silence) + EICAR, zipped(EICAR), wav(silence) + zipped(EICAR)):
        assert await scan(clamd, content) == Infected(SIGNATURE)
    for content in (b"", silence, wav(os.urandom(300_000)), zipped(silence), EICAR[:-1]):
        assert await scan(clamd, content) == Clean()


@KINDS
async def test_a_virus_may_be_cut_anywhere(clamav: ClamdServer, kind) -> None:
    clamd = Clamd(clamav.address(kind))
    head = wav(os.urandom(1000))
    for at in range(1, len(EICAR)):
        assert await scan(clamd, head + EICAR[:at], EICAR[at:] + head) == Infected(SIGNATURE), at
    assert await scan(clamd, *(EICAR[at : at + 1] for at in range(len(EICAR)))) == Infected(SIGNATURE)


@KINDS
async def test_the_version_includes_the_signatures(clamav: ClamdServer, kind) -> None:
    version = await Clamd(clamav.address(kind)).version()
    assert version.signatures == clamav.signatures
    assert version.text.startswith("ClamAV 1.")
    assert version.date


@KINDS
async def test_a_stream_that_is_too_long_is_distinguished_from_a_daemon_that_died(clamav: ClamdServer, kind) -> None:
    clamd = Clamd(clamav.address(kind))
    assert await scan(clamd, bytes(clamav.stream_max_bytes)) == Clean()
    for more in (1, MIB, 8 * MIB):
        with pytest.raises(TooLargeError, match="StreamMaxLength"):
            await scan(clamd, bytes(clamav.stream_max_bytes + more))
    async with clamd.stream() as stream:
        await stream.send(bytes(MIB))
        clamav.kill()
        with pytest.raises(ScannerUnavailableError, match="cut"):
            await stream.send(bytes(8 * MIB))


@KINDS
async def test_without_clamd_it_is_unavailable(clamav: ClamdServer, kind) -> None:
    clamd = Clamd(clamav.address(kind))
    clamav.kill()
    with pytest.raises(ScannerUnavailableError, match="reached"):
        await scan(clamd, b"x")
    with pytest.raises(ScannerUnavailableError, match="reached"):
        await clamd.version()
    clamav.start()
    assert await scan(clamd, EICAR) == Infected(SIGNATURE)


@KINDS
async def test_a_clamd_that_hangs_is_waited_for_until_the_timeout(clamav: ClamdServer, kind) -> None:
    clamd = Clamd(clamav.address(kind), timeout=SHORT, scan_timeout=SHORT)
    clamav.pause()
    with pytest.raises(ScannerUnavailableError, match="no answer"):
        await clamd.version()
    with pytest.raises(ScanFailedError, match="no verdict"):
        await scan(clamd, b"x")
    with pytest.raises(ScannerUnavailableError, match="took nothing"):
        await scan(clamd, bytes(8 * MIB))
    clamav.resume()
    assert await scan(Clamd(clamav.address(kind)), b"x") == Clean()


@KINDS
async def test_a_clamd_that_dies_during_a_scan_gives_no_verdict(clamav: ClamdServer, kind) -> None:
    async with Clamd(clamav.address(kind)).stream() as stream:
        await stream.send(os.urandom(64 << 10))  # little enough to wait in the socket, should clamd not have taken it yet
        clamav.pause()
        await stream.end()
        clamav.kill()
        with pytest.raises(ScanFailedError):
            await stream.verdict()


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\0",
        b"stream: OK",
        b"stream: O",
        b"stream: Virus FO",
        b"OK\0",
        b"stream: lstat() failed: no. ERROR\0",
        b"\xff" * 10_000,
        b"stream: OK\0stream: OK\0",
    ],
)
async def test_a_malformed_reply_is_no_verdict(tmp_path, reply) -> None:
    async def answer(reader, writer) -> None:
        await whole_stream(reader)
        writer.write(reply)

    async with answering(tmp_path, answer) as clamd:
        with pytest.raises(ScanFailedError):
            await scan(clamd, b"x")


async def test_a_reply_may_come_in_parts_or_never(tmp_path) -> None:
    rest = [b"K\0"]

    async def answer(reader, writer) -> None:
        await whole_stream(reader)
        writer.write(b"stream: O")
        await writer.drain()
        if rest:
            writer.write(rest.pop())
        await asyncio.Event().wait()

    async with answering(tmp_path, answer) as clamd:
        assert await scan(clamd, b"x") == Clean()
        with pytest.raises(ScanFailedError, match="no verdict"):
            await scan(clamd, b"x")


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 200 OK\n", b"\xff\xfe\n", b"ClamAV\n", b"ClamAV 1.4.6/x/y\n", b"ClamAV 1\n2\n/ERROR"]
)
async def test_a_server_that_is_not_clamd_has_no_version(tmp_path, reply) -> None:
    async def answer(reader, writer) -> None:
        await reader.readline()
        writer.write(reply)

    async with answering(tmp_path, answer) as clamd:
        if reply.startswith(b"ClamAV 1\n"):
            assert (await clamd.version()).signatures == 0  # its first line is all that is read
            return
        with pytest.raises(ScannerUnavailableError):
            await clamd.version()


async def test_a_version_without_an_end_is_cut_at_the_timeout(tmp_path) -> None:
    cut = asyncio.Event()

    async def answer(reader, writer) -> None:
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await loop_turns()
        finally:
            cut.set()

    async with answering(tmp_path, answer) as clamd:
        with pytest.raises(ScannerUnavailableError, match="no answer"):
            await clamd.version()
        await cut.wait()


async def test_a_scan_that_is_cancelled_drops_its_connection(tmp_path) -> None:
    asked, dropped = asyncio.Event(), asyncio.Event()

    async def answer(reader, writer) -> None:
        await whole_stream(reader)
        asked.set()
        assert await reader.read() == b""
        dropped.set()

    async with answering(tmp_path, answer) as clamd:
        pool = Pool(Clamd(str(clamd.address)), 2, 1.0)

        async def scanned() -> None:
            async with pool.scan() as stream:
                await stream.end()
                await stream.verdict()

        for _ in range(3):  # more than there are connections: each is given back
            asked.clear()
            dropped.clear()
            task = asyncio.create_task(scanned())
            await asked.wait()
            assert pool.open == 1
            task.cancel()
            await dropped.wait()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert pool.open == 0


async def test_32_scans_share_the_connections(clamav: ClamdServer) -> None:
    pool = Pool(Clamd(clamav.unix), 4, 30.0)

    async def scanned(content: bytes) -> Verdict:
        async with pool.scan() as stream:
            await stream.send(content)
            await stream.end()
            return await stream.verdict()

    contents = [wav(os.urandom(200_000)) + EICAR * (number % 2) for number in range(32)]
    verdicts = await asyncio.gather(*map(scanned, contents))
    assert verdicts == [Infected(SIGNATURE) if number % 2 else Clean() for number in range(32)]
    assert pool.max_open == 2


async def test_slow_uploads_leave_connections_for_complete_ones(clamav: ClamdServer) -> None:
    pool = Pool(Clamd(clamav.unix), 4, SHORT)
    async with AsyncExitStack() as uploads:
        while pool.has_place:
            await uploads.enter_async_context(pool.upload())
        assert pool.open == 2
        for _ in range(2):
            stream = await uploads.enter_async_context(pool.scan())
            await stream.end()
            assert await stream.verdict() == Clean()
        with pytest.raises(ScanFailedError, match="free"):
            await uploads.enter_async_context(pool.scan())
    assert pool.open == 0
    assert pool.has_place


SKIPPED = {
    "Ogg": b"OggS\0\2" + bytes(3000),
    "ID3": b"ID3\4\0\0" + bytes(3000),
    "MP3": b"\xff\xfb\x90" + bytes(3000),
    "RealMedia": b".RMF" + bytes(3000),
    "SQLite": b"SQLite format 3\0" + bytes(3000),
    "a picture of a PDF": b"fLaC" + bytes(60) + b"/RGB\nID\n" + b"\xff" * 24 + bytes(3000),
    "HTML": b"fLaC" + bytes(900) + b"<html>" + bytes(3000),
    "a table": b"fLaC" + bytes(60) + b"<TABLE" + bytes(3000),
    "a short Ogg": b"OggS",
}
"""Beginnings of files that clamd reports clean by itself, whatever follows."""


@pytest.mark.parametrize("name", SKIPPED)
async def test_nothing_is_hidden_by_what_clamd_takes_a_file_for(clamav: ClamdServer, name: str) -> None:
    clamd, file = Clamd(clamav.unix), SKIPPED[name] + EICAR
    assert await scan(clamd, file) == Infected(SIGNATURE)
    assert await scan(clamd, *(bytes([byte]) for byte in file[:80]), file[80:]) == Infected(SIGNATURE)
    assert await scan(clamd, file[:-68]) == Clean()
