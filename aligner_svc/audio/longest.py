"""How long a recording can be at most, by its packets alone: reading them takes a seventh of the time of decoding Opus."""

from __future__ import annotations

import math
from typing import Final

import av
import av.error

from aligner_svc.audio.opening import open_container
from aligner_svc.audio.recordings import split
from aligner_svc.audio.source import AudioSource, Watch
from aligner_svc.audio.undecodable import UNFINISHED, UndecodableError

_PROGRESS_INTERVAL: Final = 32
_SLACK_SECONDS, _SLACK_SHARE = 1.0, 0.01
"""Added to the sum: encoder padding, rounded time stamps."""

# Opus (RFC 6716, section 3.1): samples of a frame at 48 kHz by the configuration in the first byte of a packet.
_OPUS_FRAMES: Final = (*(480, 960, 1920, 2880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)
_OPUS_RATE: Final = 48_000
_OPUS_LONGEST: Final = 0.12


def longest_seconds(data: memoryview, demuxer: str, enough: float, watch: Watch | None = None) -> float:
    """An upper bound of the seconds that `decode_container` makes of `data`; infinite if it reaches `enough`, or is not known.

    A packet counts with the longest of: the duration that the demuxer gives it, the length of the codec's frames, and the time
    until the next packet, as the decoder fills gaps with silence. The length in the header is not trusted. Not known for several
    tracks, of which decoding chooses one.
    """
    total = 0.0
    try:
        for recording in split(data, demuxer, enough):
            source = AudioSource(recording.data, watch or Watch())
            with open_container(source, recording) as container:
                total += _longest(container, enough - total, source)
            if total >= enough:
                return math.inf
    except UndecodableError as error:
        if error.code == UNFINISHED:
            raise
        return math.inf  # decoding will tell what is wrong with it
    return total


def _longest(container: av.container.InputContainer, enough: float, source: AudioSource) -> float:
    if len(container.streams.audio) != 1:
        return math.inf
    stream = container.streams.audio[0]
    context = getattr(stream, "codec_context", None)
    if context is None or not context.sample_rate or not stream.time_base:
        return math.inf
    base, opus = float(stream.time_base), context.codec.name in {"opus", "libopus"}
    frame = (context.frame_size or 0) / context.sample_rate
    total = before = 0.0
    at: float | None = None
    try:
        for number, packet in enumerate(container.demux(stream)):
            if not number % _PROGRESS_INTERVAL:
                source.progress()
            if not packet.size:
                continue  # the last one, which flushes the decoder
            seconds = max(frame, (packet.duration or 0) * base, _opus_seconds(bytes(packet)) if opus else 0.0)
            if not seconds:
                return math.inf
            now = None if packet.pts is None else packet.pts * base
            gap = now - at if now is not None and at is not None else 0.0
            total += max(before, gap)
            before, at = seconds, now
            if total >= enough:
                return math.inf
    except (av.error.FFmpegError, ValueError):
        pass  # a cut file: what came before it is decoded
    total = (total + before) * (1 + _SLACK_SHARE) + _SLACK_SECONDS
    return total if before and total < enough else math.inf


def _opus_seconds(packet: bytes) -> float:
    """RFC 6716, section 3.2: one frame, two, or as many as the second byte says; 120 ms at most."""
    code = packet[0] & 3
    count = 1 if code == 0 else 2 if code < 3 else packet[1] & 63 if len(packet) > 1 else 0
    return min(_OPUS_LONGEST, count * _OPUS_FRAMES[packet[0] >> 3] / _OPUS_RATE)
