"""The scanner with a real clamd, and the guard around calls on a real server."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from interceptors import Audit, Event, Recovery, RequestId, Requests, SecurityEvent, current_call
from interceptors.antivirus import hang
from interceptors.antivirus import scanner as scanner_module
from interceptors.antivirus.clamav import CHUNK, Clamd, ScanFailedError, ScannerUnavailableError, TooLargeError
from interceptors.antivirus.interceptor import Scan, ScanRules
from interceptors.antivirus.scanner import Antivirus
from interceptors.antivirus.verdicts import Clean, Infected, Verdict, VerdictCache
from tests.kit import clamd_server as cs
from tests.kit.chain_server import chain_server
from tests.kit.clamd_server import EICAR, MIB, SIGNATURE, ClamdServer, running_clamd
from tests.kit.waiting import eventually

clamd_server = cs.clamd_server
clamav = cs.clamav

SHORT = 0.2
"""Seconds, for timeouts that are waited for."""
SERVICE = "test.Uploads"
UNARY, STREAM, OPEN = (f"/{SERVICE}/{name}" for name in ("Unary", "Stream", "Open"))
RAW = b"raw:"
"""The first bytes of a call that may go unscanned."""


def unique(size: int) -> bytes:
    """Content without a remembered verdict."""
    return os.urandom(size)


@asynccontextmanager
async def scanner(clamav: ClamdServer, kind: str = "unix", **options) -> AsyncIterator[Antivirus]:
    """Started. By default it checks clamd by itself only after it was lost."""
    clamd = Clamd(clamav.address(kind), timeout=20.0, scan_timeout=20.0)
    settings = {"stream_max_bytes": 12 * MIB, "poll_every": 3600.0, "retry_every": 3600.0} | options
    antivirus = Antivirus(clamd, **settings)
    try:
        await antivirus.start()
        yield antivirus
    finally:
        await antivirus.close()


async def streamed(antivirus: Antivirus, content: bytes, size: int = 64 * 1024) -> Verdict:
    async with antivirus.session() as session:
        for at in range(0, len(content), size):
            await session.feed(content[at : at + size])
        return await antivirus.finish(session, content)


async def healed(antivirus: Antivirus) -> None:
    while not antivirus.state.healthy:
        await antivirus.refresh()


@contextmanager
def short_timeouts(antivirus: Antivirus) -> Iterator[None]:
    """For as long as clamd does not answer: on a busy machine one that does needs longer."""
    clamd = antivirus.clamd
    before = clamd.timeout, clamd.scan_timeout
    clamd.timeout = clamd.scan_timeout = SHORT
    try:
        yield
    finally:
        clamd.timeout, clamd.scan_timeout = before


class TestVerdictCache:
    def test_drops_verdicts_of_other_signatures(self) -> None:
        cache = VerdictCache(10, 60.0)
        cache.use("1")
        cache.put(b"a", Clean(), "1")
        assert cache.get(b"a") == Clean()
        cache.use("1")
        assert cache.get(b"a") == Clean()
        cache.use("2")
        assert cache.get(b"a") is None
        cache.put(b"a", Clean(), "1")  # a scan that began before
        assert cache.get(b"a") is None

    def test_keeps_nothing_without_a_version(self) -> None:
        cache = VerdictCache(10, 60.0)
        cache.put(b"a", Clean(), "")
        assert cache.get(b"a") is None

    def test_drops_the_least_recently_used_and_the_old(self) -> None:
        now = 0.0
        cache = VerdictCache(2, 60.0, lambda: now)
        cache.use("1")
        cache.put(b"a", Clean(), "1")
        cache.put(b"b", Infected("x"), "1")
        assert cache.get(b"a") == Clean()
        cache.put(b"c", Clean(), "1")
        assert cache.get(b"b") is None
        assert len(cache) == 2
        now = 60.0
        assert cache.get(b"a") is None
        assert len(cache) == 1


async def test_a_remembered_verdict_needs_no_clamd(clamav: ClamdServer) -> None:
    clean, infected = unique(MIB), unique(MIB) + EICAR
    async with scanner(clamav) as antivirus:
        assert await antivirus.scan(clean) == Clean()
        assert await streamed(antivirus, infected) == Infected(SIGNATURE)
        clamav.kill()
        for _ in range(2):
            assert await antivirus.scan(infected) == Infected(SIGNATURE)
            assert await streamed(antivirus, clean) == Clean()
        assert antivirus.state.cache_hits == 4
        with pytest.raises(ScannerUnavailableError):
            await antivirus.scan(clean + b"x")


async def test_a_new_version_of_the_signatures_drops_all_verdicts(clamav: ClamdServer) -> None:
    pattern = unique(32)
    content = unique(1000) + pattern
    async with scanner(clamav, poll_every=0.01) as antivirus:
        assert await antivirus.scan(content) == Clean()
        assert await antivirus.scan(content) == Clean()
        assert antivirus.state.cache_hits == 1
        clamav.learn("Test-Other", pattern)
        await eventually(lambda: antivirus.state.signatures == clamav.signatures)
        assert await antivirus.scan(content) == Infected("Test-Other.UNOFFICIAL")
        assert antivirus.state.cache_hits == 1


async def test_a_verdict_is_not_kept_if_the_signatures_change_during_the_scan(tmp_path) -> None:
    versions = ["ClamAV 1.4.1/1/x", "ClamAV 1.4.1/2/x"]
    scanning, release = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = await reader.read(100)
        if b"VERSION" in command:
            writer.write(versions.pop(0).encode())
        else:
            while not command.endswith(b"x\0\0\0\0"):
                command += await reader.read(100)
            scanning.set()
            await release.wait()
            writer.write(b"stream: OK\0")
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "s"):
        antivirus = Antivirus(Clamd(f"unix:{tmp_path / 's'}"), stream_max_bytes=MIB)
        await antivirus.refresh()
        scan = asyncio.create_task(antivirus.scan(b"x"))
        await scanning.wait()
        await antivirus.refresh()
        assert antivirus.state.signatures == 2
        release.set()
        assert await scan == Clean()
        assert antivirus.state.cached == 0


async def test_an_outage_drops_all_verdicts(clamav: ClamdServer) -> None:
    pattern = unique(32)
    async with scanner(clamav) as antivirus:
        assert await antivirus.scan(pattern) == Clean()
        clamav.kill()
        await antivirus.refresh()
        assert await antivirus.scan(pattern) == Clean()
        clamav.start(with_signatures={"Test-Own": pattern})
        await healed(antivirus)
        assert await antivirus.scan(pattern) == Infected("Test-Own.UNOFFICIAL")


async def test_without_a_version_of_the_signatures_no_verdict_is_kept() -> None:
    with running_clamd(versioned=False) as clamav:
        async with scanner(clamav) as antivirus:
            for _ in range(2):
                assert await antivirus.scan(EICAR) == Infected(SIGNATURE)
            state = antivirus.state
            assert (state.healthy, state.signatures, state.signatures_age, state.cached) == (True, 0, None, 0)


async def test_the_state_says_how_old_the_signatures_are(clamav: ClamdServer) -> None:
    async with scanner(clamav) as antivirus:
        state = antivirus.state
        assert state.signatures == clamav.signatures
        assert state.signatures_age is not None
        assert 0 <= state.signatures_age < 600


async def test_a_lower_limit_of_clamd_is_found_at_the_start() -> None:
    with running_clamd(stream_max_bytes=MIB) as clamav:
        with pytest.raises(TooLargeError, match=f"does not take {MIB + 1} bytes"):
            async with scanner(clamav, stream_max_bytes=MIB + 1):
                pass
        async with scanner(clamav, stream_max_bytes=MIB) as antivirus:
            assert await antivirus.scan(bytes(MIB)) == Clean()
            with pytest.raises(TooLargeError):
                await antivirus.scan(bytes(MIB + 1))
            assert antivirus.state.healthy


async def test_the_start_sends_nothing_of_a_large_limit_and_tests_the_rest_in_the_background(caplog) -> None:
    size = scanner_module._PROBE_AT_ONCE + 1
    settings = f"MaxFileSize {size - 1}\nMaxScanSize {2 * size}\nAlertExceedsMax yes"
    with running_clamd(stream_max_bytes=size, settings=settings) as clamav:
        async with scanner(clamav, stream_max_bytes=size):
            assert "does not take" not in caplog.text
            await eventually(lambda: f"does not take {size} bytes" in caplog.text)
        with pytest.raises(TooLargeError, match=f"does not take {size + 1} bytes: .* StreamMaxLength"):
            async with scanner(clamav, stream_max_bytes=size + 1):
                pass


async def test_with_alert_exceeds_max_another_limit_of_clamd_is_found_at_the_start() -> None:
    with running_clamd(settings="MaxFileSize 1M\nAlertExceedsMax yes") as clamav, pytest.raises(TooLargeError):
        async with scanner(clamav, stream_max_bytes=2 * MIB):
            pass


async def test_a_clamd_that_starts_later_is_probed_then(clamav: ClamdServer, caplog) -> None:
    clamav.kill()
    async with scanner(clamav, stream_max_bytes=clamav.stream_max_bytes + 1, retry_every=0.01) as antivirus:
        assert not antivirus.state.healthy
        clamav.start()
        await eventually(lambda: "does not take" in caplog.text)
        assert antivirus.state.healthy


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_stream_is_sent_to_clamd_while_it_comes_in(clamav: ClamdServer, kind) -> None:
    async with scanner(clamav, kind) as antivirus:
        for size in (1000, 64 * 1024, 1_000_000, 3 * MIB):  # messages, the last of them larger than any chunk
            assert await streamed(antivirus, unique(3 * MIB), size) == Clean()
            assert await streamed(antivirus, unique(MIB) + EICAR + unique(MIB), size) == Infected(SIGNATURE)
        assert antivirus.counts["overlapped"] == 8
        assert await streamed(antivirus, EICAR) == Infected(SIGNATURE)  # less than a chunk: not worth a connection of its own
        assert antivirus.counts["afterwards"] == 1
        assert antivirus.pool.open == 0


async def test_a_stream_waits_while_clamd_does_not_read(clamav: ClamdServer) -> None:
    content = unique(8 * MIB)
    async with scanner(clamav) as antivirus, antivirus.session() as session:
        await session.feed(content[:CHUNK])
        clamav.pause()

        async def feed() -> None:
            for at in range(CHUNK, len(content), CHUNK):
                await session.feed(content[at : at + CHUNK])

        feeding = asyncio.create_task(feed())
        done, _ = await asyncio.wait((feeding,), timeout=SHORT)
        assert not done
        assert session.size < 4 * MIB  # what the kernel holds for it
        clamav.resume()
        await feeding
        assert await antivirus.finish(session, content) == Clean()
        assert antivirus.counts["overlapped"] == 1


async def test_a_restart_of_clamd_costs_no_stream_its_upload(clamav: ClamdServer) -> None:
    async with scanner(clamav) as antivirus:
        for virus in (b"", EICAR):
            content = unique(4 * MIB) + virus
            async with antivirus.session() as session:
                await session.feed(content[:MIB])
                clamav.restart()
                await session.feed(content[MIB:])
                assert antivirus.pool.open == 0  # it is not tried again with each chunk
                await healed(antivirus)
                assert await antivirus.finish(session, content) == (Infected(SIGNATURE) if virus else Clean())
        assert antivirus.counts["afterwards"] == 2
        assert antivirus.pool.open == 0


async def test_uploads_without_a_free_connection_are_scanned_afterwards(clamav: ClamdServer) -> None:
    content = [unique(MIB) + EICAR * (number % 2) for number in range(8)]
    async with scanner(clamav, connections=4) as antivirus:
        sessions = [antivirus.session() for _ in content]
        for session, part in zip(sessions, content, strict=True):
            await session.feed(part)
        assert antivirus.pool.open == 2
        verdicts = await asyncio.gather(*(antivirus.finish(s, part) for s, part in zip(sessions, content, strict=True)))
        assert verdicts == [Clean(), Infected(SIGNATURE)] * 4
        assert antivirus.counts["overlapped"] == 2
        assert antivirus.counts["afterwards"] == 6
        assert antivirus.pool.max_open <= 4
        assert antivirus.pool.open == 0


async def test_32_scans_at_once_share_the_connections(clamav: ClamdServer) -> None:
    content = [unique(300_000) + EICAR * (number % 2) for number in range(32)]
    async with scanner(clamav, connections=4, connection_timeout=30.0) as antivirus:
        verdicts = await asyncio.gather(
            *(antivirus.scan(part) if number % 4 < 2 else streamed(antivirus, part) for number, part in enumerate(content))
        )
        assert verdicts == [Clean(), Infected(SIGNATURE)] * 16
        assert antivirus.pool.max_open <= 4
        assert antivirus.pool.open == 0


async def test_an_abandoned_session_gives_its_connection_back(clamav: ClamdServer) -> None:
    async with scanner(clamav, connections=2) as antivirus:
        for _ in range(3):
            async with antivirus.session() as session:
                await session.feed(bytes(MIB))
                assert antivirus.pool.open == 1
            assert antivirus.pool.open == 0
        async with antivirus.session() as session:
            await session.feed(b"a")
            with pytest.raises(ValueError, match="what it was fed"):
                await antivirus.finish(session, b"ab")


async def test_a_session_refuses_more_than_can_be_scanned(clamav: ClamdServer) -> None:
    async with scanner(clamav, stream_max_bytes=MIB) as antivirus, antivirus.session() as session:
        await session.feed(bytes(MIB))
        with pytest.raises(TooLargeError):
            await session.feed(b"\0")


async def test_no_scan_waits_in_an_outage_and_its_end_is_noticed(clamav: ClamdServer) -> None:
    async with scanner(clamav) as antivirus:
        clamav.pause()
        with short_timeouts(antivirus), pytest.raises(ScannerUnavailableError):
            await antivirus.scan(unique(8 * MIB))
        before = antivirus.counts["away"]
        for _ in range(1000):  # with a timeout for each they would outlast the test's
            with pytest.raises(ScannerUnavailableError):
                await antivirus.scan(b"x")
        assert antivirus.counts["away"] == before + 1000
        clamav.resume()
        await healed(antivirus)
    async with scanner(clamav, retry_every=0.01) as antivirus:
        assert await antivirus.scan(b"x") == Clean()
        clamav.kill()
        with pytest.raises(ScannerUnavailableError):
            await antivirus.scan(EICAR)
        clamav.start()
        await eventually(lambda: antivirus.state.healthy)
        assert await antivirus.scan(EICAR) == Infected(SIGNATURE)


async def test_a_clamd_that_hangs_in_one_scan_is_not_unavailable(clamav: ClamdServer) -> None:
    async with scanner(clamav) as antivirus:
        clamav.pause()
        with short_timeouts(antivirus), pytest.raises(ScanFailedError):
            await antivirus.scan(b"small")
        clamav.resume()
        await healed(antivirus)
        assert await antivirus.scan(b"small") == Clean()


async def test_scans_in_flight_end_when_clamd_hangs_and_pass_nothing(clamav: ClamdServer, monkeypatch) -> None:
    """Long before their own timeout. ScanFailedError is never let pass, not even when failing open."""
    monkeypatch.setattr(hang, "_SLOW", 0.2)
    monkeypatch.setattr(hang, "_EVERY", 0.01)
    async with scanner(clamav) as antivirus, antivirus.session() as session:
        content = unique(CHUNK)
        await session.feed(content)
        clamav.pause()
        antivirus.clamd.scan_timeout = 3600.0
        antivirus.clamd.timeout = SHORT
        scans = [asyncio.create_task(antivirus.scan(unique(1000))), asyncio.create_task(antivirus.finish(session, content))]
        await eventually(lambda: len(antivirus._hang_watch._in_flight) == 2)
        for scan in scans:
            with pytest.raises(ScanFailedError, match="stopped answering"):
                await scan
        assert not antivirus.state.healthy
        clamav.resume()
        antivirus.clamd.timeout = 20.0
        await healed(antivirus)
        assert await antivirus.scan(EICAR) == Infected(SIGNATURE)


async def test_a_slow_scan_of_a_clamd_that_takes_commands_goes_on(tmp_path, monkeypatch) -> None:
    """A stand-in with one thread for commands: it does not know ALIVE, and says so while it scans."""
    monkeypatch.setattr(hang, "_SLOW", 0.0)
    monkeypatch.setattr(hang, "_EVERY", 0.001)
    asked, slow = 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        if (await reader.readuntil(b"\0")) == b"zINSTREAM\0":
            await slow.wait()
            writer.write(b"stream: OK\0")
        else:
            asked += 1
            if asked == 5:
                slow.set()
            writer.write(b"UNKNOWN COMMAND\0")
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "clamd"):
        watch = hang.HangWatch(Clamd(f"unix:{tmp_path}/clamd"), pytest.fail)
        watch.start()

        async def scan() -> Verdict:
            async with watch._clamd.stream() as stream:
                await stream.end()
                return await stream.verdict()

        assert await watch.unless_hung(scan()) == Clean()
        assert asked >= 5
        await watch.close()


class Service(grpc.GenericRpcHandler):
    """Stands in for a servicer: works on an upload after its verdict. Messages are bytes, all of them part of the upload."""

    def __init__(self) -> None:
        self.worked: list[bytes] = []
        self.begun = asyncio.Event()

    async def _work(self, content: bytes) -> bytes:
        call = current_call()
        await call.scan.verdict(content)
        self.worked.append(content)
        return b"done"

    async def _unary(self, request, context):
        return await self._work(request)

    async def _stream(self, requests, context):
        received = bytearray()
        async for request in requests:
            self.begun.set()
            received += request
        if not context.done():
            yield await self._work(bytes(received))

    async def _open(self, request, context):
        return b"" if current_call().scan is None else b"scanned"

    def service(self, details):
        handlers = {
            UNARY: grpc.unary_unary_rpc_method_handler(self._unary),
            STREAM: grpc.stream_stream_rpc_method_handler(self._stream),
            OPEN: grpc.unary_unary_rpc_method_handler(self._open),
        }
        return handlers.get(details.method)


@dataclass
class Guarded:
    antivirus: Antivirus
    service: Service
    channel: aio.Channel
    events: list[SecurityEvent] = field(default_factory=list)

    async def unary(self, content: bytes) -> bytes:
        return await self.channel.unary_unary(UNARY)(content)

    async def stream(self, *parts: bytes) -> bytes:
        answer = b""
        async for response in self.channel.stream_stream(STREAM)(iter(parts)):
            answer += response
        return answer


@asynccontextmanager
async def guarded(antivirus: Antivirus, *, fail_open: bool = False) -> AsyncIterator[Guarded]:
    events: list[SecurityEvent] = []
    service = Service()
    rules = ScanRules(lambda message: message, lambda message: message.startswith(RAW), events.append, "audio", fail_open)
    guard = Scan(antivirus, rules, streams={STREAM}, exempt={OPEN})
    chain = (Recovery("test"), RequestId(), Audit(events.append), guard, Requests())
    async with chain_server(chain, service) as server:
        yield Guarded(antivirus, service, server.channel, events)


def refusal(error: aio.AioRpcError) -> tuple[grpc.StatusCode, str, str]:
    """Its status, reason and field."""
    metadata = dict(error.trailing_metadata() or ())
    reason = field_name = ""
    for detail in status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            field_name = bad.field_violations[0].field
    return error.code(), reason, field_name


async def test_clean_uploads_are_worked_on_and_infected_ones_refused(clamav: ClamdServer) -> None:
    clean, infected = unique(MIB), unique(MIB) + EICAR
    async with scanner(clamav) as antivirus, guarded(antivirus) as calls:
        assert await calls.unary(clean) == b"done"
        assert await calls.stream(clean[:9], clean[9:]) == b"done"
        assert await calls.channel.unary_unary(OPEN)(b"") == b""
        calls.service.worked.clear()
        for call in (calls.unary(infected), calls.stream(infected[:-30], infected[-30:]), calls.unary(infected)):
            with pytest.raises(aio.AioRpcError) as raised:
                await call
            assert refusal(raised.value) == (grpc.StatusCode.INVALID_ARGUMENT, "MALWARE_FOUND", "audio")
            assert SIGNATURE not in raised.value.details()
        assert calls.service.worked == []
        assert len(calls.events) == 3
        for event in calls.events:
            assert (event.event, event.check) == (Event.MALWARE_FOUND, "malware")
            assert event.detail == f"sha256 {hashlib.sha256(infected).hexdigest()} signature {SIGNATURE}"
            assert event.request_id
            assert event.peer


async def test_calls_that_may_be_skipped_are_not_scanned(clamav: ClamdServer) -> None:
    async with scanner(clamav) as antivirus, guarded(antivirus) as calls:
        clamav.kill()
        assert await calls.unary(RAW + EICAR) == b"done"
        assert await calls.stream(RAW, EICAR) == b"done"
        with pytest.raises(aio.AioRpcError):  # decided by the first message of a stream
            await calls.stream(b"x", RAW, EICAR)


async def test_a_stream_that_is_too_large_is_refused_while_it_comes_in(clamav: ClamdServer) -> None:
    async with scanner(clamav, stream_max_bytes=MIB) as antivirus, guarded(antivirus, fail_open=True) as calls:
        for call in (calls.unary(bytes(MIB + 1)), calls.stream(bytes(MIB), b"\0")):
            with pytest.raises(aio.AioRpcError) as raised:
                await call
            assert refusal(raised.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOAD_TOO_LARGE_TO_SCAN", "audio")
        assert calls.service.worked == []


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_an_upload_without_a_verdict_is_refused(clamav: ClamdServer, how) -> None:
    async with scanner(clamav) as antivirus, guarded(antivirus) as calls:
        clamav.kill() if how == "killed" else clamav.pause()
        for call in (calls.unary(b"x"), calls.stream(bytes(4 * MIB), b"x"), calls.unary(b"x")):
            with short_timeouts(antivirus), pytest.raises(aio.AioRpcError) as raised:
                await call
            assert refusal(raised.value) == (grpc.StatusCode.UNAVAILABLE, "ANTIVIRUS_UNAVAILABLE", "")
            assert dict(raised.value.trailing_metadata() or ())["retry-after"]
        assert calls.service.worked == []
        assert calls.events == []  # not an authentication failure
        clamav.resume() if how == "paused" else clamav.start()
        await healed(antivirus)
        assert await calls.unary(b"x") == b"done"


async def test_failing_open_leaves_a_record_of_every_upload(clamav: ClamdServer, caplog) -> None:
    async with scanner(clamav) as antivirus, guarded(antivirus, fail_open=True) as calls:
        clamav.kill()
        content = unique(MIB)
        assert await calls.unary(content) == b"done"
        assert await calls.stream(content, b"x") == b"done"
        assert antivirus.state.counts["skipped"] == 2
        assert [(event.event, event.check) for event in calls.events] == [(Event.SCAN_SKIPPED, "malware")] * 2
        assert all(event.request_id and event.peer for event in calls.events)
        assert caplog.text.count("was not scanned") == 2


async def test_an_upload_that_clamd_fails_on_never_passes(clamav: ClamdServer) -> None:
    async with scanner(clamav) as antivirus, guarded(antivirus, fail_open=True) as calls:
        clamav.pause()  # the kernel takes the upload for it, and it gives no verdict
        with short_timeouts(antivirus), pytest.raises(aio.AioRpcError) as raised:
            await calls.unary(b"x")
        assert refusal(raised.value)[1] == "ANTIVIRUS_UNAVAILABLE"
        assert calls.service.worked == []
        assert calls.events == []


async def test_a_cancelled_call_gives_its_connection_back(clamav: ClamdServer) -> None:
    async with scanner(clamav, connections=2) as antivirus, guarded(antivirus) as calls:
        for _ in range(3):
            calls.service.begun.clear()
            call = calls.channel.stream_stream(STREAM)()
            await call.write(bytes(MIB))
            await calls.service.begun.wait()
            assert antivirus.pool.open == 1
            call.cancel()
            await eventually(lambda: not antivirus.pool.open)
        assert calls.service.worked == []
        assert await calls.stream(bytes(MIB)) == b"done"
