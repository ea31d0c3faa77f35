"""The clients declare size and digest of the audio where they know them, so that no truncated upload is aligned."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from aligner_client import Aligner, AsyncAligner, RetryPolicy
from aligner_client.source import CHUNK_BYTES, FileSource, open_source
from tests.kit.scripted_aligner import Fault, Running, scripted_server

AUDIO = bytes(range(256)) * 1024
SHA256 = hashlib.sha256(AUDIO).digest()


def check(server: Running, *, declared: bool = True) -> None:
    for config in server.script.configs:
        assert (config.audio_bytes, config.audio_sha256) == ((len(AUDIO), SHA256) if declared else (0, b""))
        assert (config.transcript, config.language) == ("a word", "en")
    assert server.script.calls[-1].audio == AUDIO


@pytest.fixture
def server() -> Iterator[Running]:
    with scripted_server() as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "speech.wav"
    file.write_bytes(AUDIO)
    return file


@pytest.mark.parametrize("method", ["align", "stream_align"])
@pytest.mark.parametrize("kind", ["path", "bytes"])
def test_the_blocking_client_declares_paths_and_bytes(server, path, method, kind):
    with Aligner(server.target) as aligner:
        getattr(aligner, method)(path if kind == "path" else AUDIO, "a word")
    check(server)
    assert len(server.script.configs) == 1


@pytest.mark.parametrize("method", ["align", "stream_align"])
@pytest.mark.parametrize("kind", ["path", "bytes"])
async def test_the_asyncio_client_declares_paths_and_bytes(server, path, method, kind):
    async with AsyncAligner(server.target) as aligner:
        await getattr(aligner, method)(path if kind == "path" else AUDIO, "a word")
    check(server)


def test_chunks_open_files_and_pipes_are_not_declared(server, path):
    """An iterable and a pipe can be read only once, and an open file may be a slow one."""
    with Aligner(server.target) as aligner:
        aligner.stream_align([AUDIO[:1000], AUDIO[1000:]], "a word")
        check(server, declared=False)
        with path.open("rb") as file:
            aligner.stream_align(file, "a word")
        check(server, declared=False)
        fifo = path.with_name("fifo")
        os.mkfifo(fifo)
        writer = threading.Thread(target=fifo.write_bytes, args=(AUDIO,))
        writer.start()
        aligner.stream_align(fifo, "a word")
        writer.join()
    check(server, declared=False)


async def test_an_async_iterable_is_not_declared(server):
    async def chunks():
        yield AUDIO

    async with AsyncAligner(server.target) as aligner:
        await aligner.stream_align(chunks(), "a word")
    check(server, declared=False)


def test_a_retry_declares_and_sends_the_same(server, path):
    server.script.faults.append(Fault(grpc.StatusCode.UNAVAILABLE, when="after_upload"))
    with Aligner(server.target, retry=RetryPolicy(attempts=2, initial=0.0)) as aligner:
        aligner.stream_align(path, "a word")
    check(server)
    assert len(server.script.configs) == 2


def test_a_growing_file_is_sent_as_it_was_when_hashed(path):
    with open_source(path) as source:
        digest = source.digest()
        with path.open("ab") as file:
            file.write(AUDIO)
        for _ in range(2):
            read = source.start()
            assert b"".join(iter(read, b"")) == AUDIO
    assert digest is not None
    assert (digest.size, digest.sha256) == (len(AUDIO), SHA256)


def test_an_empty_file_is_not_declared(tmp_path):
    """0 bytes would mean that nothing is declared."""
    (tmp_path / "empty").touch()
    with open_source(tmp_path / "empty") as source:
        assert source.digest() is None
        assert source.start()() == b""


def test_an_open_file_is_sent_from_its_position():
    file = io.BytesIO(b"header" + AUDIO)
    file.seek(6)
    source = FileSource(file, complete=True)
    digest = source.digest()
    assert digest is not None
    assert digest.sha256 == SHA256
    assert source.start()() == AUDIO[:CHUNK_BYTES]


async def test_hashing_a_file_does_not_block_the_event_loop(server, path, monkeypatch):
    hashing, go_on = threading.Event(), threading.Event()
    digest = FileSource.digest

    def slow(self: FileSource):
        hashing.set()
        go_on.wait()
        return digest(self)

    monkeypatch.setattr(FileSource, "digest", slow)
    async with AsyncAligner(server.target) as aligner:
        call = asyncio.create_task(aligner.stream_align(path, "a word"))
        assert await asyncio.to_thread(hashing.wait, 20)
        go_on.set()
        await call
    check(server)
