"""What libav opens of an upload: most often all of it, and once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from aligner_svc.audio.headers.mpeg import skip_id3
from aligner_svc.audio.headers.ogg import links
from aligner_svc.audio.headers.sphere import read_sphere_header
from aligner_svc.audio.headers.wave import read_wave_header
from aligner_svc.audio.undecodable import UndecodableError, check_shape

MAX_RECORDINGS: Final = 1000
"""Recordings in a file. A chain of voice messages has some, an hour of radio one for each piece; opening one takes 2 ms."""

_FLAC: Final = re.compile(rb"fLaC[\0\x80]\0\0\x22")
"""The start of a file: the magic number, and the type and length of STREAMINFO."""

_WAVE_PROBING: Final = {"probesize": "32768", "max_size": "65536"}
"""A WAV's header needs little probing, and its default packets are a few ms long: 3 s of audio took 8 ms instead of 4."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One of the recordings in a file. `missing`: seconds that its header claims and the file does not hold; None: libav knows.

    `extended`: it holds samples behind the end that its header declares.
    """

    data: memoryview
    demuxer: str
    options: Mapping[str, str] = field(default_factory=dict)
    missing: float | None = None
    extended: bool = False


def split(data: memoryview, demuxer: str, max_seconds: float) -> list[Recording]:
    """One, or one for each link of a chained Ogg and each FLAC file or WAV of several in a row. ID3 tags are left out.

    Raises UndecodableError: AUDIO_TOO_MANY_STREAMS, AUDIO_UNREADABLE, CODEC_UNSUPPORTED, and those of `check_shape`.
    """
    match demuxer:
        case "wav":
            return _waves(data, max_seconds)
        case "nistsphere":
            return [_sphere(data)]
        case "ogg":
            return _parts(data, demuxer, links(data))
        case "flac":
            data = data[skip_id3(data) :]
            return _parts(data, demuxer, [match.start() for match in islice(_FLAC.finditer(data), MAX_RECORDINGS + 1)])
        case _:
            return [Recording(data[skip_id3(data) :], demuxer)]


def _parts(data: memoryview, demuxer: str, starts: list[int]) -> list[Recording]:
    ends = [*starts[1:], len(data)]
    if len(ends) > MAX_RECORDINGS:
        raise UndecodableError("AUDIO_TOO_MANY_STREAMS", len(ends))
    return [Recording(data[start:end], demuxer) for start, end in zip([0, *ends], ends, strict=False)]


def _waves(data: memoryview, max_seconds: float) -> list[Recording]:
    found: list[Recording] = []
    while True:
        wave = read_wave_header(data, max_seconds)
        if wave is None:
            return [*found, Recording(data, "wav", _WAVE_PROBING, 0.0)]
        check_shape(wave.channels, wave.rate)
        options = {**_WAVE_PROBING, "ignore_length": "1"} if wave.extended else _WAVE_PROBING
        found.append(Recording(data[: wave.end], "wav", options, wave.missing, wave.extended))
        if not wave.next:
            return found
        if len(found) == MAX_RECORDINGS:
            raise UndecodableError("AUDIO_TOO_MANY_STREAMS", len(found) + 1)
        data = data[wave.next :]


def _sphere(data: memoryview) -> Recording:
    header = read_sphere_header(data)
    if header is None:
        raise UndecodableError("AUDIO_UNREADABLE")
    check_shape(header.channels, header.rate)
    if not header.demuxer:
        raise UndecodableError("CODEC_UNSUPPORTED")
    held = (len(data) - header.start) // header.frame
    count = min(header.samples or held, held)
    if count <= 0:
        raise UndecodableError("AUDIO_EMPTY")
    options = {"sample_rate": str(header.rate), "ch_layout": f"{header.channels}c"}
    samples = data[header.start : header.start + count * header.frame]
    return Recording(samples, header.demuxer, options, missing=max(0, header.samples - held) / header.rate)
