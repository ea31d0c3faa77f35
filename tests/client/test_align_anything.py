"""`align` takes audio in any form, and sends in chunks by itself what does not fit in a message."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import grpc
import pytest

from aligner_client import Aligner, AsyncAligner, Progress, ResourceExhaustedError, RetryPolicy
from aligner_client.source import WHOLE_BYTES
from tests.kit.scripted_aligner import Fault, scripted_server

AUDIO = bytes(range(256)) * 1000
LIMIT = 100_000
"""Below len(AUDIO)."""
ONCE = RetryPolicy(attempts=1)


@pytest.fixture
def server():
    with scripted_server() as running:
        yield running


async def in_pieces() -> AsyncIterator[bytes]:
    yield AUDIO[:1000]
    yield AUDIO[1000:]


def kinds(path):
    path.write_bytes(AUDIO)
    opened = io.BytesIO(b"skipped" + AUDIO)
    opened.seek(7)
    return {"path": path, "str": str(path), "bytes": AUDIO, "memoryview": memoryview(AUDIO), "file": opened, "chunks": [AUDIO]}


@pytest.mark.parametrize("limit", [WHOLE_BYTES, LIMIT], ids=["fits", "too large"])
async def test_every_kind_of_audio_arrives_whole(server, tmp_path, limit):
    server.script.unary_limit = limit
    with Aligner(server.target, retry=ONCE) as aligner:
        for audio in kinds(tmp_path / "a.wav").values():
            assert len(aligner.align(audio, "one two").words) == 2
    async with AsyncAligner(server.target, retry=ONCE) as aligner:
        for audio in [*kinds(tmp_path / "a.wav").values(), in_pieces()]:
            assert len((await aligner.align(audio, "one two")).words) == 2
    served = [call for call in server.script.calls if call.method == "StreamAlign" or limit > LIMIT]
    assert [call.audio for call in served] == [AUDIO] * 13
    streamed = [call for call in served if call.method == "StreamAlign"]
    # Chunks have no known size. Each client learns the limit from one refusal.
    assert len(streamed) == (13 if limit == LIMIT else 3)
    assert len(server.script.calls) - len(served) == (2 if limit == LIMIT else 0)


def test_more_than_a_message_may_have_is_not_even_tried_in_one(server, tmp_path):
    (tmp_path / "long.wav").write_bytes(bytes(WHOLE_BYTES + 1))
    seen: list[Progress] = []
    with Aligner(server.target, retry=ONCE) as aligner:
        aligner.align(tmp_path / "long.wav", "one", on_progress=seen.append)
    assert [call.method for call in server.script.calls] == ["StreamAlign"]
    shares = [progress.fraction for progress in seen]
    assert shares == [*sorted(shares[:-1]), 1.0]
    assert seen[0].audio_bytes == WHOLE_BYTES + 1


def test_a_refusal_that_is_not_for_the_size_stays_one(server):
    server.script.faults.append(Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "over quota", "QUOTA_EXCEEDED"))
    with Aligner(server.target, retry=ONCE) as aligner, pytest.raises(ResourceExhaustedError, match="over quota"):
        aligner.align(b"x", "one")
    assert [call.method for call in server.script.calls] == ["Align"]


def test_an_encoding_is_given_by_its_name(server):
    with Aligner(server.target) as aligner:
        aligner.align(b"\0\0", "one", encoding="linear16", sample_rate_hz=8000)
        with pytest.raises(ValueError, match="'mp3' is not an encoding; these are: container, linear16"):
            aligner.align(b"\0\0", "one", encoding="mp3")
    assert (server.script.configs[0].encoding, server.script.configs[0].sample_rate_hz) == (1, 8000)


def test_a_file_that_is_open_as_text_is_refused(server):
    with Aligner(server.target) as aligner:
        for call in (aligner.align, aligner.stream_align):
            with pytest.raises(TypeError, match="'rb'"):
                call(io.StringIO("RIFF"), "one")
