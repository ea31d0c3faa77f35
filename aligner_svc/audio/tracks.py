"""Which of several audio tracks is aligned: films have one for each language, recorders one for each microphone."""

from __future__ import annotations

import contextlib
from typing import Final

import av
import numpy as np
import numpy.typing as npt
from av.stream import Disposition

from aligner_svc.audio.opening import decodable, open_container
from aligner_svc.audio.reader import Reader
from aligner_svc.audio.recordings import Recording
from aligner_svc.audio.source import AudioSource, Watch
from aligner_svc.audio.undecodable import UNFINISHED, UndecodableError

_HEARD: Final = 0.01
"""Peak (1.0 is full scale, so -40 dBFS) that makes a track one with sound: the noise of a microphone that is off is below it."""


def choose_track(
    recording: Recording, container: av.container.InputContainer, max_seconds: float, watch: Watch, wanted: int
) -> int:
    """The index of the audio track to decode: the one that is wanted, else the first with sound, default ones before the others.

    Of several tracks each is decoded until something is heard: all of a silent one, and a little of the others. If none is louder
    than _HEARD, the loudest is taken; tracks in codecs that are not decoded are passed over.
    """
    tracks = container.streams.audio
    if wanted > len(tracks):
        raise UndecodableError("AUDIO_TRACK_UNKNOWN", len(tracks))
    if wanted:
        return wanted - 1
    order = sorted(range(len(tracks)), key=lambda index: not tracks[index].disposition & Disposition.default)
    candidates = [index for index in order if decodable(tracks[index])] or order
    if len(candidates) == 1:
        return candidates[0]
    peaks: dict[int, float] = {}
    for index in candidates:
        loudness = _Loudness(max_seconds)
        source = AudioSource(recording.data, watch)
        with contextlib.suppress(_HeardError), open_container(source, recording) as again:
            try:
                Reader(again, again.streams.audio[index], loudness, max_seconds, source).read()
            except UndecodableError as error:
                if error.code == UNFINISHED:
                    raise  # any other may hold for this track alone
        if loudness.peak > _HEARD:
            return index
        peaks[index] = loudness.peak
    return max(peaks, key=peaks.__getitem__)


class _HeardError(Exception):
    """There is sound on the track: the rest of it need not be read."""


class _Loudness:
    """Takes a track's samples, up to the first that is louder than _HEARD."""

    max_peak = 0.0

    def __init__(self, max_seconds: float) -> None:
        self.peak = 0.0
        """The loudest so far; NaN and infinity count as sound, so that they are refused as such."""
        self._left = max_seconds

    def add(self, samples: npt.NDArray[np.float32], rate: int) -> None:
        peak = float(np.abs(samples).max())
        self.peak = max(self.peak, peak)
        self._left -= len(samples) / rate
        if not peak <= _HEARD or self._left < 0:
            self.peak = self.peak if peak <= _HEARD else 1.0
            raise _HeardError

    def silence(self, seconds: float) -> None:
        self._left -= seconds
