"""Containers decoded while they come, each in a process of its own: what the whole file gives, however it is cut."""

from __future__ import annotations

import asyncio
import io
import os
import signal

import av
import numpy as np
import pytest

from aligner_svc.audio.arriving.container import LiveContainer
from aligner_svc.audio.decode import Decoder
from aligner_svc.audio.decode_worker import decode
from aligner_svc.config.limits import DecodeSettings, Limits
from aligner_svc.errors import InvalidArgumentError, UnavailableError
from tests.kit.recordings import samples, silence_flac

FORMATS = {
    "flac": ("flac", "flac"),
    "mp3": ("mp3", "libmp3lame"),
    "ogg": ("ogg", "libopus"),
    "aac": ("adts", "aac"),
    "matroska": ("webm", "libopus"),
}
PADDING = {"mp3": 1152}
"""Samples of the encoder's that are left at the end where the file cannot be read twice."""


def encoded(demuxer: str) -> bytes:
    form, codec = FORMATS[demuxer]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as out:
        stream = out.add_stream(codec, rate=48_000 if codec == "libopus" else 16_000, layout="mono")
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=stream.rate, frame_size=stream.frame_size)
        frame = av.AudioFrame.from_ndarray(np.tile(samples(), 3)[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            for packet in stream.encode(part):
                out.mux(packet)
    return buffer.getvalue()


async def arriving(data: bytes, demuxer: str, size: int, limits: Limits | None = None):
    decoder = Decoder(DecodeSettings(workers=1), limits or Limits())
    decoding = LiveContainer(decoder, demuxer)
    await decoding.begin()
    try:
        sounds = [await decoding.add(data[start : start + size]) for start in range(0, len(data), size)]
        early = sum(sound is not None for sound in sounds)
        sounds.append(await decoding.finish())
        return np.concatenate([sound.samples for sound in sounds if sound is not None]), early, decoding
    finally:
        decoding.close()
        await decoder.close()


@pytest.mark.parametrize("demuxer", FORMATS)
async def test_it_is_what_the_whole_file_gives(demuxer):
    data = encoded(demuxer)
    (live, early, decoding), (other, _, _) = await asyncio.gather(
        arriving(data, demuxer, len(data) // 8), arriving(data, demuxer, 999)
    )
    reply, payload = decode({"encoding": "CONTAINER", "demuxer": demuxer, "max_seconds": 60.0}, memoryview(data))
    whole = np.frombuffer(payload, np.int16)
    assert "refused" not in reply
    assert early > 1, "nothing was decoded before the end"
    np.testing.assert_array_equal(live, other)
    assert 0 <= len(live) - len(whole) <= PADDING.get(demuxer, 0)
    assert np.abs(np.clip(np.rint(live[: len(whole)] * 32768), -32768, 32767) - whole).max() <= 1
    assert decoding.warnings == ()


async def test_a_few_bytes_that_hold_minutes_come_in_parts():
    live, _, _ = await arriving(silence_flac(200), "flac", 1 << 20)
    assert len(live) == 200 * 16_000


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
    await decoding.add(data[:5000])
    os.kill(decoding._process.pid, signal.SIGKILL)
    with pytest.raises(UnavailableError):
        await decoding.add(data[5000:])
    await decoder.close()
    assert decoder.containers == 0
