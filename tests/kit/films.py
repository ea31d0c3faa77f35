"""Films: a picture and audio tracks, made by libav."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.stream import Disposition


@dataclass(frozen=True)
class Track:
    signal: npt.NDArray[np.float32]
    start: float = 0.0
    default: bool = True


def film(muxer: str, codec: str, *tracks: Track) -> bytes:
    """A picture from 0 s on, and tracks of 16 kHz that begin at `start` (s)."""
    file = io.BytesIO()
    with av.open(file, "w", format=muxer) as container:
        video = container.add_stream("mpeg4", rate=5)
        video.width = video.height = 32
        streams = [container.add_stream(codec, rate=16000, layout="mono") for _ in tracks]
        packets = [*video.encode(av.VideoFrame(32, 32, "yuv420p")), *video.encode(None)]
        for stream, track in zip(streams, tracks, strict=True):
            stream.codec_context.open()
            stream.disposition = Disposition.default if track.default else Disposition(0)
            source = av.AudioFrame.from_ndarray(track.signal[np.newaxis], format="flt", layout="mono")
            source.sample_rate, source.pts, source.time_base = 16000, round(track.start * 16000), Fraction(1, 16000)
            context = stream.codec_context
            convert = av.AudioResampler(context.format, "mono", 16000, frame_size=context.frame_size or 1024)
            for frame in [*convert.resample(source), *convert.resample(None), None]:
                packets += stream.encode(frame)
        for packet in sorted((p for p in packets if p.dts is not None), key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return file.getvalue()
