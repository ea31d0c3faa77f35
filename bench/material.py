"""What the speed bench aligns: short clips and one long recording."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from bench import gold

_SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "librispeech_61-70968-0000"
_SAMPLE_CLIPS = 40


@dataclass(frozen=True, slots=True)
class Speech:
    """An encoded recording with its transcript."""

    audio: bytes
    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Material:
    origin: str
    clips: Sequence[Speech]
    five_seconds: Sequence[Speech]
    """Clips of about 5 s."""
    long: Speech


def material(clips: int, long_seconds: float) -> Material:
    """At most `clips` clips, and a recording of at least `long_seconds`; made of the sample recording where there is no gold."""
    if gold.GOLD.is_dir():
        short = [(item.audio, item.text) for item in gold.recordings("timit")]
        parts = [(item.audio, item.text) for item in gold.recordings("timit_long")]
        origin = "hand-marked recordings (TIMIT)"
    else:
        short = parts = [(_SAMPLE.with_suffix(".flac"), _SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").strip())]
        origin = f"{_SAMPLE.name}, repeated: every word is cached after its first time, so the figures are too good"
        short *= _SAMPLE_CLIPS
    spoken = [Speech(path.read_bytes(), text, len(gold.samples(path)) / gold.RATE) for path, text in short]
    near = sorted(spoken, key=lambda speech: abs(speech.seconds - 5))[:10]
    return Material(origin, spoken[:: max(1, len(spoken) // clips)][:clips], near, _chain(parts, long_seconds))


def _chain(parts: Sequence[tuple[Path, str]], seconds: float) -> Speech:
    """Recordings one after the other, repeated while they fit, then the shortest one, as 16-bit FLAC."""
    read = sorted(((gold.samples(path), text) for path, text in parts), key=lambda part: len(part[0]))
    chosen: list[tuple[gold.Samples, str]] = []
    left = int(seconds * gold.RATE)
    while left > 0:
        fitting = [part for part in read if len(part[0]) <= left] or read[:1]
        for part in fitting:
            if left > 0:
                chosen.append(part)
                left -= len(part[0])
    whole = np.concatenate([samples for samples, _ in chosen])
    return Speech(flac(whole), " ".join(text for _, text in chosen), len(whole) / gold.RATE)


def flac(samples: gold.Samples) -> bytes:
    """16 kHz mono, 16 bit."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=gold.RATE, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = gold.RATE
        fifo = av.AudioFifo()
        fifo.write(frame)
        for part in fifo.read_many(4096, partial=True):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue()
