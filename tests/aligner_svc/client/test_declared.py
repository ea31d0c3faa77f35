"""The clients say what they are about to send, where they can tell: so that no upload which was cut short is aligned."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from aligner_svc.api.v1 import aligner_pb2 as pb
from aligner_svc.client import Aligner, AsyncAligner, RetryPolicy
from aligner_svc.client.source import CHUNK_BYTES, FileSource, open_source
from tests.kit.scripted_aligner import Fault, scripted_server

AUDIO = bytes(range(256)) * 1024
SHA256 = hashlib.sha256(AUDIO).digest()


class Configs:
    """A server, and the configs it was sent."""

    def __init__(self, target: str, script: Any) -> None:
        self.target = target
        self.script = script
        self.seen: list[pb.AlignConfig] = []
        received = script._received

        def record(method: str, config: pb.AlignConfig) -> Any:
            self.seen.append(config)
            return received(method, config)

        script._received = record

    def check(self, *, declared: bool = True) -> None:
        for config in self.seen:
            told = (config.audio_bytes, config.audio_sha256)
            assert told == ((len(AUDIO), SHA256) if declared else (0, b""))
            assert (config.transcript, config.language) == ("a word", "en")
        assert self.script.calls[-1].audio == AUDIO


@pytest.fixture
def server() -> Iterator[Configs]:
    with scripted_server() as running:
        yield Configs(running.target, running.script)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "speech.wav"
    file.write_bytes(AUDIO)
    return file


@pytest.mark.parametrize("method", ["align", "stream_align"])
@pytest.mark.parametrize("kind", ["path", "bytes"])
def test_blocking(server, path, method, kind):
    with Aligner(server.target) as aligner:
        getattr(aligner, method)(path if kind == "path" else AUDIO, "a word")
    server.check()
    assert len(server.seen) == 1


@pytest.mark.parametrize("method", ["align", "stream_align"])
@pytest.mark.parametrize("kind", ["path", "bytes"])
async def test_asyncio(server, path, method, kind):
    async with AsyncAligner(server.target) as aligner:
        await getattr(aligner, method)(path if kind == "path" else AUDIO, "a word")
    server.check()


def test_what_cannot_be_told_is_not(server, path):
    """An iterable and a pipe are read once; an open file may be anybody's, and slow."""
    with Aligner(server.target) as aligner:
        aligner.stream_align([AUDIO[:1000], AUDIO[1000:]], "a word")
        server.check(declared=False)
        with path.open("rb") as file:
            aligner.stream_align(file, "a word")
        server.check(declared=False)
        fifo = path.with_name("fifo")
        os.mkfifo(fifo)
        writer = threading.Thread(target=fifo.write_bytes, args=(AUDIO,))
        writer.start()
        aligner.stream_align(fifo, "a word")
        writer.join()
    server.check(declared=False)


async def test_an_async_iterable(server):
    async def chunks():
        yield AUDIO

    async with AsyncAligner(server.target) as aligner:
        await aligner.stream_align(chunks(), "a word")
    server.check(declared=False)


def test_a_retry_says_and_sends_the_same(server, path):
    server.script.faults.append(Fault(grpc.StatusCode.UNAVAILABLE, when="after_upload"))
    with Aligner(server.target, retry=RetryPolicy(attempts=2, initial=0.0)) as aligner:
        aligner.stream_align(path, "a word")
    server.check()
    assert len(server.seen) == 2


def test_a_file_that_grows_meanwhile_is_sent_as_it_was(path):
    with open_source(path) as source:
        digest = source.digest()
        with path.open("ab") as file:
            file.write(AUDIO)
        for _ in range(2):
            read = source.start()
            assert b"".join(iter(read, b"")) == AUDIO
    assert digest is not None
    assert (digest.size, digest.sha256) == (len(AUDIO), SHA256)


def test_nothing_is_not_declared(tmp_path):
    """0 bytes would mean that nothing was said."""
    (tmp_path / "empty").touch()
    with open_source(tmp_path / "empty") as source:
        assert source.digest() is None
        assert source.start()() == b""


def test_an_open_file_is_sent_from_where_it_stands():
    file = io.BytesIO(b"header" + AUDIO)
    file.seek(6)
    source = FileSource(file, complete=True)
    digest = source.digest()
    assert digest is not None
    assert digest.sha256 == SHA256
    assert source.start()() == AUDIO[:CHUNK_BYTES]


async def test_the_loop_goes_on_while_a_file_is_hashed(server, path, monkeypatch):
    hashing, go_on = threading.Event(), threading.Event()
    digest = FileSource.digest

    def slow(self: FileSource):
        hashing.set()
        go_on.wait()
        return digest(self)

    monkeypatch.setattr(FileSource, "digest", slow)
    async with AsyncAligner(server.target) as aligner:
        call = asyncio.create_task(aligner.stream_align(path, "a word"))
        while not hashing.is_set():  # noqa: ASYNC110 - an event of threads
            await asyncio.sleep(0.001)
        go_on.set()
        await call
    server.check()
