"""Nothing of a recording or a transcript is kept: they are sent by every path, and then searched for everywhere."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import resource
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from bench.processes import tree
from tests.kit.canary import WORDS, Canary, canary
from tests.kit.clamd_server import EICAR, ClamdServer, clamav, clamd_server  # noqa: F401 - fixtures
from tests.kit.guarded import Home, bearer
from tests.kit.otlp_receiver import OtlpReceiver
from tests.kit.postgres import Postgres, postgres, postgres_server  # noqa: F401 - fixtures
from tests.kit.prod_process import ProdProcess, prod_process
from tests.kit.redis_server import RedisServer, redis, redis_server  # noqa: F401 - fixtures
from tests.kit.servers import gone
from tests.kit.uploads import Stage, config, reached, send
from tests.kit.uploads import audio as chunk
from tests.kit.uploads import text as piece
from tests.kit.waiting import eventually

SAMPLED = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
_UPLOAD_BYTES = 12 << 20


@dataclass
class Place:
    """A server with everything that could keep something, and where each could keep it."""

    server: ProdProcess
    channel: grpc.aio.Channel
    canary: Canary
    folders: list[Path]
    collector: OtlpReceiver

    @property
    def stub(self) -> AlignerStub:
        return AlignerStub(self.channel)

    async def call(self, transcript: str = "", audio: bytes = b"", **rest: object) -> str:
        """An Align call with the canary, or what is given of it. How it ended."""
        fields = {"transcript": transcript or self.canary.transcript, "language": "en"} | rest
        request = pb.AlignRequest(config=pb.AlignConfig(**fields), audio=audio or self.canary.audio)
        return await outcome(self.stub.Align(request, metadata=self.metadata()))

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return bearer(self.server.home.forge.token()), SAMPLED

    def stream(self) -> grpc.aio.StreamStreamCall:
        return self.stub.StreamAlign(metadata=self.metadata())


async def outcome(call) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(
    tmp_path_factory: pytest.TempPathFactory,
    clamd_server: ClamdServer,  # noqa: F811
    redis_server: RedisServer,  # noqa: F811
    postgres_server: Postgres,  # noqa: F811
) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("retention")
    scratch = folder / "scratch"
    scratch.mkdir()
    home = Home(folder, mtls=False)
    cores = resource.getrlimit(resource.RLIMIT_CORE)
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(OtlpReceiver().serving())
        settings = {
            "LOGS__LEVEL": "debug",
            "TRACING__ENDPOINT": collector.endpoint,
            "TRACING__RATIO": 1,
            "ANTIVIRUS__ADDRESS": clamd_server.unix,
            "LIMITS__STREAM_AUDIO_BYTES": _UPLOAD_BYTES,
            "QUOTA__REDIS": redis_server.url,
            "KEYS__DATABASE": postgres_server.database(),
        }
        # A server that is started with a limit on core dumps proves nothing.
        resource.setrlimit(resource.RLIMIT_CORE, (cores[1], cores[1]))
        try:
            server = await stack.enter_async_context(prod_process(home, scratch, **settings))
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, cores)
        channel = await stack.enter_async_context(server.channel())
        folders = [folder, clamd_server.path.parent, redis_server.home, postgres_server.home]
        yield Place(server, channel, canary(), folders, collector)


def read(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        return answer.read()


def stopped_workers(place: Place) -> list[int]:
    """Its worker processes, held still so that what they are given stays with them."""
    pids = place.server.command.children()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


async def test_every_path(place: Place) -> None:
    """Aligned, streamed, refused in every part, infected, cancelled, and out of time."""
    sent = place.canary
    check = place.channel.unary_unary("/grpc.health.v1.Health/Check")  # logged at debug
    assert await outcome(check(b"")) == "OK"
    assert await place.call() == "OK"
    assert await place.call(transcript=f"{sent.transcript} \u202e{WORDS[0]}") == "INVALID_ARGUMENT"
    assert await place.call(audio=b"fLaC" + sent.audio) == "INVALID_ARGUMENT"
    assert await place.call(audio=sent.audio[4000:]) == "INVALID_ARGUMENT"
    assert await place.call(transcript=sent.transcript * 300) == "INVALID_ARGUMENT"
    assert await place.call(language=WORDS[0]) == "INVALID_ARGUMENT"
    assert await place.call(audio_sha256=bytes(32)) == "DATA_LOSS"
    assert await place.call(audio=sent.audio + EICAR) == "INVALID_ARGUMENT"
    anonymous = place.stub.Align(pb.AlignRequest(config=pb.AlignConfig(transcript=sent.transcript), audio=sent.audio))
    assert await outcome(anonymous) == "UNAUTHENTICATED"

    whole = place.stream()
    await send(whole, [config(sent.transcript), chunk(sent.audio[:50_000]), piece(" " + WORDS[1]), chunk(sent.audio[50_000:])])
    await whole.done_writing()
    assert [message async for message in whole][-1].HasField("summary")
    infected = place.stream()
    await send(infected, [config(sent.transcript), chunk(sent.audio), chunk(EICAR)])
    await infected.done_writing()
    with pytest.raises(grpc.aio.AioRpcError):
        assert not [message async for message in infected]
    for cancelled_at in (Stage.STAGE_RECEIVING, Stage.STAGE_ALIGNING):
        cancelled = place.stream()
        await send(cancelled, [config(sent.transcript), chunk(sent.audio)])
        if cancelled_at == Stage.STAGE_ALIGNING:
            await cancelled.done_writing()
        await reached(cancelled, cancelled_at)
        cancelled.cancel()
    late = place.stub.Align(
        pb.AlignRequest(config=pb.AlignConfig(transcript=sent.transcript, language="en"), audio=sent.audio),
        metadata=place.metadata(),
        timeout=0.02,
    )
    assert await outcome(late) != "OK"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL, signal.SIGSTOP], ids=lambda one: one.name)
async def test_workers_that_end_at_work(place: Place, number: signal.Signals) -> None:
    """Held still with the call, and then ended by a fault, by a person, or not at all, which is a worker that hangs."""
    held = stopped_workers(place)
    call = asyncio.create_task(place.call())
    await asyncio.sleep(0)
    if number != signal.SIGSTOP:
        for pid in held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)
    await call
    if number == signal.SIGSTOP:
        for pid in held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def aligns() -> bool:
        return await place.call() == "OK"

    await eventually(aligns, "the server to align again")


def test_no_process_may_leave_a_core(place: Place) -> None:
    for pid in tree(place.server.pid):
        limits = Path(f"/proc/{pid}/limits").read_text()
        [line] = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert line.split()[4:6] == ["0", "0"], (pid, line)


def test_no_process_has_a_hidden_file(place: Place) -> None:
    """One that was removed while it was open, or that is in memory alone: a search of folders does not find these."""
    for pid in tree(place.server.pid):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                target = str(entry.readlink())
                assert not target.endswith("(deleted)"), (pid, target)
                assert "memfd:" not in target, (pid, target)


async def test_nothing_of_it_is_found_afterwards(place: Place, redis_server: RedisServer, postgres_server: Postgres) -> None:  # noqa: F811
    """Last, when the server has crashed: in its folders, the scanner's, both databases, logs, audit, traces and metrics."""
    forms = place.canary.forms()
    metrics = await asyncio.to_thread(read, f"http://{place.server.metrics}/metrics")
    assert b"grpc_server_handled_total" in metrics
    await place.collector.until(lambda seen: {"aligner.v1.Aligner/Align", "decode"} <= {span.name for span in seen.spans})
    workers = place.server.command.children()
    place.server.command.process.send_signal(signal.SIGABRT)
    assert await place.server.command.exit_code() == -signal.SIGABRT
    await gone(workers)
    redis_server.command("CONFIG", "SET", "rdbcompression", "no")
    assert "OK" in redis_server.command("SAVE")
    postgres_server.sql("CHECKPOINT", "postgres")

    log = place.server.command.log
    assert '"level": "debug"' in log
    assert "malware_found" in place.server.home.audit.read_text()
    assert (redis_server.home / "dump.rdb").exists()
    assert not [path for path in place.folders[0].rglob("core*") if path.is_file()]
    assert forms.kept_under(place.folders) == []
    assert forms.kept_in(metrics) == set()
    assert forms.kept_in(b"".join(place.collector.raw)) == set()


def test_the_search_finds_what_is_kept(tmp_path: Path) -> None:
    """Planted in every form: whoever looks for something has to be able to find it."""
    sent = canary()
    forms = sent.forms()
    planted = {
        "text": f"INFO aligned {WORDS[0].upper()} at 0.4 s".encode(),
        "utf-16": sent.transcript.encode("utf-16"),
        "base64": base64.b64encode(b"ab" + sent.transcript.encode()),
        "wav": sent.audio,
        "floats": (np.frombuffer(sent.audio[44:], "<i2").astype("<f4") / 32768).tobytes(),
        "hex": sent.audio.hex().upper().encode(),
        "digest": hashlib.sha256(sent.transcript.encode()).hexdigest().encode(),
    }
    for name, content in planted.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "file").write_bytes(bytes(1000) + content + bytes(1000))
        assert forms.kept_under([folder]), name
    named = tmp_path / "named" / f"{WORDS[2]}.tmp"
    named.parent.mkdir()
    named.touch()
    assert forms.kept_under([named.parent])
    assert forms.kept_in(b"nothing of it") == set()
