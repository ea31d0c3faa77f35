"""The shipped recording, as it is and in every form a caller may send it."""

from __future__ import annotations

import io
import struct
import wave
from fractions import Fraction
from functools import cache

import av
import numpy as np
import numpy.typing as npt

from tests import PROJECT

SAMPLE = PROJECT / "samples" / "librispeech_61-70968-0000.flac"
SPEECH = SAMPLE.read_bytes()
TRANSCRIPT = SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").strip()
WORDS = tuple(word.strip(".,") for word in TRANSCRIPT.split())
"""The words of the transcript in the caller's spelling, without punctuation around them."""

Samples = npt.NDArray[np.int16]


@cache
def samples(rate: int = 16_000) -> Samples:
    """The recording as mono int16."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    with av.open(io.BytesIO(SPEECH)) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def encode(container: str, codec: str, *, rate: int = 16_000, layout: str = "mono") -> bytes:
    """The recording as a file of another kind."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples().reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size)
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            for packet in stream.encode(part):
                out.mux(packet)
    return buffer.getvalue()


def mulaw(audio: Samples) -> bytes:
    """G.711 mu-law, headerless."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mulaw") as out:
        stream = out.add_stream("pcm_mulaw", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(audio.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 16_000
        for part in (frame, None):
            for packet in stream.encode(part):
                out.mux(packet)
    return buffer.getvalue()


def wav(audio: Samples, rate: int = 16_000) -> bytes:
    """A 16-bit mono WAV."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(audio.astype("<i2").tobytes())
    return buffer.getvalue()


def raw_wav(data: bytes, *, tag: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16) -> bytes:
    """A WAV whose header says what the arguments say; `tag` 1 is integer PCM, 3 is float."""
    align = channels * bits // 8 & 0xFFFF
    header = struct.pack("<HHIIHH", tag, channels, rate, rate * align & 0xFFFFFFFF, align, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def repeated(times: int) -> tuple[bytes, str]:
    """The recording some times over, as WAV, and what is said in it: work that takes long enough to be interrupted."""
    return wav(np.tile(samples(), times)), " ".join([TRANSCRIPT] * times)


def silence_flac(seconds: int) -> bytes:
    """Nothing, for so long, in some kilobytes."""
    return flac(np.zeros(16_000 * seconds, np.int16))


def noise(seconds: float) -> Samples:
    """Loud enough to be searched for words, which silence is not."""
    return np.random.default_rng(1).integers(-1_000, 1_000, int(16_000 * seconds)).astype(np.int16)


def noise_m4a(seconds: int) -> bytes:
    """20 s of it and silence, below 1 MiB, in a container that can be read only when it is complete."""
    return _encoded(np.pad(noise(20) / 32_768, (0, 16_000 * (seconds - 20))), "mp4", "aac", "fltp")


def flac(audio: Samples) -> bytes:
    return _encoded(audio, "flac", "flac", "s16")


def _encoded(audio: Samples, container: str, codec: str, form: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            audio[np.newaxis].astype(np.float32 if form == "fltp" else np.int16), format=form, layout="mono"
        )
        frame.rate = 16_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            out.mux(packet)
    return buffer.getvalue()
