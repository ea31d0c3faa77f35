"""The shipped recording in every format that is decoded, to be cut, scrambled and lied about."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Final

import av

from tests.kit import recordings


@cache
def encode(container: str, codec: str, *, rate: int = 16_000, layout: str = "mono") -> bytes:
    """As `recordings.encode`, with libav's experimental encoders."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
        stream.bit_rate = 12_200 if codec == "libopencore_amrnb" else 96_000
        stream.codec_context.open()
        source = av.AudioFrame.from_ndarray(recordings.samples().reshape(1, -1), format="s16", layout="mono")
        source.sample_rate, source.pts, source.time_base = 16_000, 0, Fraction(1, 16_000)
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate, frame_size=size)
        for part in (*resampler.resample(source), *resampler.resample(None), None):
            out.mux(stream.encode(part))
    return buffer.getvalue()


_FORMATS: Final[dict[str, Callable[[], bytes]]] = {
    "wav": lambda: recordings.wav(recordings.samples()),
    "adpcm": lambda: encode("wav", "adpcm_ms"),
    "w64": lambda: encode("w64", "pcm_s16le"),
    "aiff": lambda: encode("aiff", "pcm_s16be"),
    "caf": lambda: encode("caf", "pcm_s16le"),
    "au": lambda: encode("au", "pcm_s16be"),
    "flac": lambda: recordings.SPEECH,
    "wavpack": lambda: encode("wv", "wavpack"),
    "mp3": lambda: encode("mp3", "libmp3lame"),
    "aac": lambda: encode("adts", "aac"),
    "ac3": lambda: encode("ac3", "ac3", rate=48_000),
    "amr": lambda: encode("amr", "libopencore_amrnb", rate=8000),
    "ogg opus": lambda: encode("ogg", "libopus", rate=48_000),
    "ogg vorbis": lambda: encode("ogg", "vorbis", rate=44_100, layout="stereo"),
    "m4a": lambda: encode("mp4", "aac"),
    "webm": lambda: encode("webm", "libopus", rate=48_000),
    "wma": lambda: encode("asf", "wmav2", rate=44_100, layout="stereo"),
}

FORMATS: Final = tuple(_FORMATS)


def good(name: str) -> bytes:
    """The recording, five seconds of speech, in one of FORMATS."""
    return _FORMATS[name]()
