"""The process behind `aligner serve`: what it does on signals, what it leaves behind, how it says that it cannot start."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from tests.kit import recordings
from tests.kit.recordings import WORDS
from tests.kit.servers import ALIGNER, Command, connect, environment, gone, launched, listening
from tests.kit.uploads import chunks, config, finish, reached, send
from tests.kit.waiting import eventually

LOOPBACK = ("--profile", "dev", "--listen", "127.0.0.1:0")
QUICK = {"ALIGNER_SERVER__DRAIN_DELAY": "0"}


@pytest_asyncio.fixture(loop_scope="module")
async def command(tmp_path) -> AsyncIterator[Command]:
    async with launched(tmp_path, *LOOPBACK, **QUICK) as command:
        yield command


async def check_left_in_order(command: Command, workers: list[int]) -> None:
    assert await command.exit_code() == 0, command.log
    assert "Traceback" not in command.log, command.log
    await gone(workers)


def _core_limit(pid: int) -> list[str]:
    """Soft and hard."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return next(line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("sandbox", ["off", "best-effort"])
async def test_no_process_that_holds_audio_leaves_a_core_dump(tmp_path, sandbox):
    """Whatever the limit it was started with."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        async with launched(tmp_path, *LOOPBACK, ALIGNER_DECODE__SANDBOX=sandbox, **QUICK) as command:
            await command.ready()
            pids = [*command.children(), command.process.pid]
            assert len(pids) >= 3
            assert [_core_limit(pid) for pid in pids] == [["0", "0"]] * len(pids)
            for pid in pids:
                os.kill(pid, signal.SIGABRT)
            await command.process.wait()
            assert {file.name for file in tmp_path.iterdir()} == {"server.log"}
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


async def test_a_process_is_undumpable_where_the_limit_does_not_count():
    """The kernel pipes a core to a program whatever the limit is."""
    code = "import ctypes; from aligner_svc.workers import forbid_core_dumps as f; f(); print(ctypes.CDLL(None).prctl(3))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0] == b"0\n"  # PR_GET_DUMPABLE


async def test_a_signal_lets_everything_in_flight_finish(command):
    """A call being aligned, and a stream in the middle of its upload whose sender goes on after the signal."""
    target = await command.ready()
    workers = command.children()
    assert len(workers) >= 2, "an aligner and a decoder at least"
    async with connect(target) as channel:
        stub = AlignerStub(channel)
        data, transcript = recordings.repeated(3)
        aligning, uploading = stub.StreamAlign(), stub.StreamAlign()
        parts = list(chunks())
        await send(uploading, [config(), *parts[:1]])
        await reached(uploading, pb.Progress.STAGE_RECEIVING)
        await send(aligning, [config(transcript), *chunks(data)])
        await aligning.done_writing()
        await reached(aligning, pb.Progress.STAGE_ALIGNING)
        command.process.terminate()
        await eventually(lambda: not listening(target), "new connections to be refused")
        assert command.process.returncode is None
        await send(uploading, parts[1:])
        answers = await asyncio.gather(finish(uploading), _rest(aligning))
    assert [word.text for word in answers[0].words] == list(WORDS)
    assert [word.text for word in answers[1]] == list(WORDS) * 3
    await check_left_in_order(command, workers)


async def _rest(call: grpc.aio.StreamStreamCall) -> list[pb.Word]:
    return [word async for message in call for word in message.words.words]


@asynccontextmanager
async def an_open_upload(target: str) -> AsyncIterator[grpc.aio.StreamStreamCall]:
    """A stream the server is receiving and whose sender does not end it."""
    async with connect(target) as channel:
        call = AlignerStub(channel).StreamAlign()
        await send(call, [config(), *chunks()])
        await reached(call, pb.Progress.STAGE_RECEIVING)
        yield call


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
async def test_an_idle_server_leaves_at_once(command, number):
    await command.ready()
    workers = command.children()
    command.process.send_signal(number)
    await check_left_in_order(command, workers)


async def test_a_second_signal_does_not_wait(tmp_path):
    async with launched(tmp_path, *LOOPBACK, ALIGNER_SERVER__DRAIN_DELAY="0", ALIGNER_SERVER__DRAIN_GRACE="3600") as command:
        target = await command.ready()
        workers = command.children()
        async with an_open_upload(target) as call:
            command.process.terminate()
            await eventually(lambda: not listening(target), "the first signal to be heard")
            assert command.process.returncode is None
            command.process.terminate()
            await check_left_in_order(command, workers)
            assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_second_signal_ends_the_delay_too(tmp_path):
    async with launched(tmp_path, *LOOPBACK, ALIGNER_SERVER__DRAIN_DELAY="3600") as command:
        target = await command.ready()
        workers = command.children()
        async with an_open_upload(target):
            command.process.send_signal(signal.SIGINT)
            await eventually(lambda: "draining" in command.log, "the first signal to be heard")
            command.process.send_signal(signal.SIGINT)
            await check_left_in_order(command, workers)


async def test_the_grace_ends(tmp_path):
    async with launched(tmp_path, *LOOPBACK, ALIGNER_SERVER__DRAIN_DELAY="0", ALIGNER_SERVER__DRAIN_GRACE="0.2") as command:
        target = await command.ready()
        workers = command.children()
        async with an_open_upload(target) as call:
            command.process.terminate()
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
        await check_left_in_order(command, workers)


async def test_a_signal_while_the_models_load(command):
    await eventually(lambda: bool(command.children()), "the workers to be started")
    workers = command.children()
    command.process.terminate()
    await check_left_in_order(command, workers)
    assert "aligner-svc ready" not in command.log


async def test_a_killed_server_leaves_no_workers(command):
    await command.ready()
    workers = command.children()
    command.process.kill()
    assert await command.exit_code() == -signal.SIGKILL
    await gone(workers)


async def test_hangups_and_a_look_at_the_stacks_do_not_end_the_server(command):
    """By default these signals end a process, SIGHUP also while it starts."""
    command.process.send_signal(signal.SIGCONT)  # there is a process
    await eventually(lambda: bool(command.children()), "the workers to be started")
    command.process.send_signal(signal.SIGHUP)
    target = await command.ready()
    command.process.send_signal(signal.SIGHUP)
    await eventually(lambda: "SIGHUP" in command.log, "the signal to be heard")
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        before = command.log.count("thread MainThread"), command.log.count(" tasks: ")
        command.process.send_signal(number)
        await eventually(lambda before=before: command.log.count("thread MainThread") > before[0], "the stacks")
        await eventually(lambda before=before: command.log.count(" tasks: ") > before[1], "the tasks")
    async with connect(target) as channel:
        assert await AlignerStub(channel).GetServerInfo(pb.GetServerInfoRequest())
    command.process.terminate()
    assert await command.exit_code() == 0


async def failed(command: Command) -> str:
    """The log of a server that does not start: one clear line, and no traceback."""
    assert await command.exit_code() == 1
    assert "aligner-svc ready" not in command.log
    assert "Traceback" not in command.log
    assert len(command.log.strip().splitlines()) == 1, command.log
    return command.log


async def test_a_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        async with launched(tmp_path, "--listen", listen) as command:
            assert f"cannot listen on {listen}: address already in use" in await failed(command)


async def test_an_address_others_can_reach(tmp_path):
    async with launched(tmp_path, "--listen", "0.0.0.0:0") as command:
        log = await failed(command)
    assert "refusing to listen on 0.0.0.0" in log
    assert "TLS" in log


async def test_a_listen_string_that_is_none(tmp_path):
    async with launched(tmp_path, "--listen", "everywhere") as command:
        assert "HOST:PORT is needed" in await failed(command)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit means little elsewhere")
async def test_too_little_address_space_is_said_with_what_to_do(tmp_path):
    """As after `ulimit -v` in the shell that starts it."""
    more = {"ALIGNER_LIMITS__AUDIO_SECONDS": str(8 * 3600), "ALIGNER_LIMITS__STREAM_AUDIO_BYTES": str(1 << 30)}
    code = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({1 << 30},) * 2); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, str(ALIGNER), "serve", "--workers", "1", *LOOPBACK),
            stdout=log, stderr=log, env=environment(**more),
        )  # fmt: skip
        assert await process.wait() == 1
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text
    assert "raise or remove the limit (ulimit -v, LimitAS=)" in text
