"""Containers decoded while they come, each in a process of its own: what the whole file gives, however it is cut."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from itertools import pairwise

import av
import numpy as np
import pytest

from aligner_svc.audio.arriving.container import LiveContainer
from aligner_svc.audio.arriving.spool import Spool
from aligner_svc.audio.arriving.upload import open_live
from aligner_svc.audio.decode import Decoder
from aligner_svc.audio.decode_worker import decode
from aligner_svc.audio.encoding import Encoding
from aligner_svc.config.limits import DecodeSettings, Limits
from aligner_svc.errors import InvalidArgumentError, UnavailableError
from tests.kit.recordings import samples, silence_flac

FORMATS = {
    "flac": ("flac", "flac"),
    "mp3": ("mp3", "libmp3lame"),
    "ogg": ("ogg", "libopus"),
    "aac": ("adts", "aac"),
    "matroska": ("webm", "libopus"),
    "mov": ("mp4", "aac"),
}
PADDING = {"mp3": 1152}
"""Samples of the encoder's that are left at the end where the file cannot be read twice."""


def encoded(demuxer: str, movflags: str = "faststart") -> bytes:
    form, codec = FORMATS[demuxer]
    # By a name, as an index is put in front by reading the file again.
    options = {"movflags": movflags} if demuxer == "mov" and movflags else {}
    with tempfile.NamedTemporaryFile() as file:
        _write(file.name, form, codec, options)
        return file.read()


def _write(name: str, form: str, codec: str, options: dict[str, str]) -> None:
    with av.open(name, "w", format=form, options=options) as out:
        stream = out.add_stream(codec, rate=48_000 if codec == "libopus" else 16_000, layout="mono")
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=stream.rate, frame_size=stream.frame_size)
        frame = av.AudioFrame.from_ndarray(np.tile(samples(), 3)[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            for packet in stream.encode(part):
                out.mux(packet)


async def arriving(data: bytes, demuxer: str, size: int, limits: Limits | None = None, single: int = 0):
    """What is decoded of an upload in pieces of `size` bytes, the first `single` ones of 1 byte; and in how many parts early."""
    decoder = Decoder(DecodeSettings(workers=1), limits or Limits())
    decoding = await open_live(decoder, data[:256_000], Encoding.CONTAINER, long=True)
    assert decoding.container == demuxer
    assert decoder.containers == 1
    try:
        places = [*range(single), *range(single, len(data), size), len(data)]
        parts = [part for start, end in pairwise(places) async for part in decoding.add(data[start:end])]
        early = len(parts)
        parts += [part async for part in decoding.finish()]
        assert max(map(len, parts)) <= 32 * 16_000, "more than a part was kept"
        return np.concatenate(parts), early, decoding
    finally:
        decoding.close()
        await decoder.close()
        assert decoder.containers == 0
        assert decoder.spool.left == DecodeSettings().spool_bytes


@pytest.mark.parametrize("demuxer", FORMATS)
async def test_it_is_what_the_whole_file_gives(demuxer):
    data = encoded(demuxer)
    (live, early, decoding), (other, _, _) = await asyncio.gather(
        arriving(data, demuxer, len(data) // 8), arriving(data, demuxer, 999, single=300)
    )
    reply, payload = decode({"encoding": "CONTAINER", "demuxer": demuxer, "max_seconds": 60.0}, memoryview(data))
    whole = np.frombuffer(payload, np.int16)
    assert "refused" not in reply
    assert early > 1, "nothing was decoded before the end"
    np.testing.assert_array_equal(live, other)
    assert 0 <= len(live) - len(whole) <= PADDING.get(demuxer, 0)
    assert np.abs(np.clip(np.rint(live[: len(whole)] * 32768), -32768, 32767) - whole).max() <= 1
    assert decoding.warnings == ()


@pytest.mark.parametrize("movflags", ["", "frag_keyframe+empty_moov"])
async def test_an_mp4_without_an_index_in_front_is_read_from_a_file(movflags):
    data = encoded("mov", movflags)
    live, early, decoding = await arriving(data, "mov", 999)
    reply, payload = decode({"encoding": "CONTAINER", "demuxer": "mov", "max_seconds": 60.0}, memoryview(data))
    assert "refused" not in reply
    whole = np.frombuffer(payload, np.int16)
    assert len(live) == len(whole)
    assert np.abs(np.clip(np.rint(live * 32768), -32768, 32767) - whole).max() <= 1
    fragmented = bool(movflags)
    assert (early > 0) is fragmented
    assert [warning.code for warning in decoding.warnings] == ([] if fragmented else ["AUDIO_INDEX_AT_END"])


async def test_an_mp4_that_is_cut_off_before_its_index_is_refused():
    data = encoded("mov", "")
    with pytest.raises(InvalidArgumentError) as refused:
        await arriving(data[: len(data) // 2], "mov", 999)
    assert refused.value.reason == "AUDIO_UNREADABLE"


async def test_no_more_is_kept_in_files_than_the_bound():
    decoder = Decoder(DecodeSettings(workers=1, spool_bytes=1000), Limits())
    one, other = Spool(decoder.spool), Spool(decoder.spool)
    await one.add(bytes(900))
    with pytest.raises(UnavailableError):
        await other.add(bytes(101))
    one.close()
    await other.add(bytes(range(250)) * 4)
    await other.flush()
    assert other.read(250, 3) == bytes([0, 1, 2])
    other.close()
    assert decoder.spool.left == 1000


async def test_a_few_bytes_that_hold_minutes_come_in_parts():
    """Each handed on before the next is decoded: an hour of silence has 100 KB."""
    live, early, _ = await arriving(silence_flac(200), "flac", 1 << 20)
    assert len(live) == 200 * 16_000
    assert early > 5


async def test_refusals():
    for data, limits, reason in (
        (b"fLaC" + bytes(5000), None, "AUDIO_UNREADABLE"),
        (silence_flac(100), Limits(audio_seconds=60), "AUDIO_TOO_LONG"),
    ):
        with pytest.raises(InvalidArgumentError) as refused:
            await arriving(data, "flac", 1000, limits)
        assert refused.value.reason == reason


async def test_a_process_that_was_killed_is_no_fault_of_the_file():
    decoder = Decoder(DecodeSettings(workers=1), Limits())
    decoding = LiveContainer(decoder, "flac")
    await decoding.begin()
    data = silence_flac(20)
    async for _ in decoding.add(data[:5000]):
        pass
    os.kill(decoding._process.pid, signal.SIGKILL)
    with pytest.raises(UnavailableError):
        async for _ in decoding.add(data[5000:]):
            pass
    decoding.close()
    await decoder.close()
    assert decoder.containers == 0
