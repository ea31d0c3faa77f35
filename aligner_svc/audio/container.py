"""Decoding a container with libav, in the decoder child."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from aligner_svc.audio.level import SILENT
from aligner_svc.audio.mixdown import Mixdown
from aligner_svc.audio.opening import decodable, open_container
from aligner_svc.audio.reader import Reader
from aligner_svc.audio.recordings import Recording, split
from aligner_svc.audio.source import AudioSource, Watch
from aligner_svc.audio.tracks import choose_track
from aligner_svc.audio.undecodable import UndecodableError

_DECLARES: Final = frozenset({"aiff", "au", "caf", "flac", "matroska", "mov", "w64", "wv"})
"""Demuxers whose durations come from a header; the others estimate them from the bit rate."""

_PLACEHOLDERS: Final = frozenset({"aiff", "au", "caf", "w64"})
"""Of these, programs that write to a pipe declare a length that no file has; one that would not be accepted is taken for that."""

_SLACK: Final = 0.1
"""Seconds a file may be shorter than its header says: encoder padding and rounding are less."""

_ROUNDING: Final = 0.001
"""Share of its length that a header may be wrong by."""

_OF_ONE: Final = frozenset({"AUDIO_UNREADABLE", "AUDIO_NO_STREAM", "AUDIO_EMPTY"})
"""Refusals that leave out one recording of several in a row."""


@dataclass
class Found:
    """What was noticed. `extended`: samples behind the declared end were used. `peak`: as in `Quantiser`, before scaling.

    `start`: seconds on the file's own clock before the first sample. `track` of `tracks`, counted from 1, was decoded.
    """

    damaged: bool = False
    truncated: bool = False
    extended: bool = False
    peak: float = 0.0
    start: float = 0.0
    track: int = 0
    tracks: int = 0

    def add(self, reader: Reader, recording: Recording, track: int, tracks: int, max_seconds: float) -> None:
        """Add what was noticed in one recording; track and start are those of the first."""
        if not self.tracks:
            self.start, self.track, self.tracks = reader.start, track, tracks
        missing = recording.missing
        if missing is None:
            missing = reader.missing - _ROUNDING * reader.seconds if _declares(recording) else 0.0
            if missing > max_seconds and recording.demuxer in _PLACEHOLDERS:
                missing = 0.0
        self.truncated |= reader.truncated or missing > _SLACK
        self.damaged |= reader.damaged
        self.extended |= recording.extended


def decode_container(
    data: memoryview,
    demuxer: str,
    max_seconds: float,
    watch: Watch | None = None,
    track: int = 0,
    *,
    channel: int | None = None,
) -> tuple[npt.NDArray[np.int16], Found]:
    """One audio track as int16 of shape [n], 16 kHz mono. `track`: its number, from 1; 0: `choose_track` decides.

    `channel`: the one to take, from 0; None: all are mixed.
    Of several recordings in a row all are decoded, and one that cannot be is left out.
    Raises UndecodableError: AUDIO_UNREADABLE, AUDIO_NO_STREAM, AUDIO_EMPTY, AUDIO_METADATA_TOO_LARGE, AUDIO_TOO_MANY_PACKETS,
    AUDIO_TOO_MANY_STREAMS, AUDIO_TRACK_UNKNOWN, CODEC_UNSUPPORTED, and those of `Mixdown`.
    """
    watch = watch or Watch()
    # Allocated first, so that a header cannot claim the memory that is reserved for it.
    mixdown = Mixdown(max_seconds, channel)
    found = Found()
    recordings = split(data, demuxer, max_seconds)
    unreadable: UndecodableError | None = None
    for recording in recordings:
        source = AudioSource(recording.data, watch)
        try:
            container = open_container(source, recording)
        except UndecodableError as error:
            if len(recordings) == 1 or error.code not in _OF_ONE:
                raise
            unreadable = unreadable or error
            continue
        with container:
            chosen = choose_track(recording, container, max_seconds, watch, track)
            source.progress()  # the choice took its own time
            stream = container.streams.audio[chosen]
            if not decodable(stream):
                raise UndecodableError("CODEC_UNSUPPORTED")
            reader = Reader(container, stream, mixdown, max_seconds, source)
            reader.read()
            found.add(reader, recording, chosen + 1, len(container.streams.audio), max_seconds)
    watch.rest()
    samples = mixdown.finish()
    if not len(samples):
        if unreadable:
            raise unreadable
        raise UndecodableError("AUDIO_UNREADABLE" if found.damaged or found.truncated else "AUDIO_EMPTY")
    found.damaged |= unreadable is not None
    found.peak = mixdown.peak
    if channel is None and found.damaged and found.peak < SILENT:  # one channel alone may well be silent
        raise UndecodableError("AUDIO_UNREADABLE")
    return samples, found


def _declares(recording: Recording) -> bool:
    """Whether libav's duration comes from the file's header, rather than from an estimate."""
    if recording.demuxer == "mp3":
        head = bytes(recording.data[:512])
        return b"Xing" in head or b"Info" in head or b"VBRI" in head
    return recording.demuxer in _DECLARES
