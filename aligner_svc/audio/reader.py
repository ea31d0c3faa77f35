"""Decodes one track of an opened container: packets to frames to samples, within limits of work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Protocol

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.stream import Discard

from aligner_svc.audio.headers.flac import FlacNumbers
from aligner_svc.audio.opening import codec_name
from aligner_svc.audio.source import Source
from aligner_svc.audio.undecodable import UndecodableError, check_shape

_TIMED: Final = frozenset({"asf", "matroska", "mov"})
"""Containers with a clock of their own: the first time stamp says when the audio begins, a jump is a pause. In the others a jump
means lost audio."""

_COUNTED: Final = frozenset({"aac", "ac3", "amr", "eac3", "mp3"})
"""Bare frames, whose time stamps libav counts, by the rate of the first: they skip only where one could not be decoded."""

_OVERSHOOT: Final = 2.0
"""Highest peak a lossy codec makes of full-scale audio; a broken frame makes 1000, which must not silence the rest."""

_MAX_GAP: Final = 600.0
"""Seconds that time stamps may skip; beyond that the time stamp is broken, not the audio."""

_JITTER: Final = 0.1
"""Seconds a time stamp may be off before it counts as a gap: live recordings in ASF and WebM jitter by less."""

_STEPS_PER_SECOND: Final = 1000
"""Packets, and frames, per second of `max_seconds`; Opus has at most 400."""

_PROGRESS_INTERVAL: Final = 32
"""Packets and frames between two reports of progress, which cost system calls."""

_MAX_IDLE: Final = 100_000
"""Packets and empty frames in a row without a sample: half an hour of broken AAC, and a second of processor time."""


class Sink(Protocol):
    """What takes the samples: a Mixdown."""

    max_peak: float

    def add(self, samples: npt.NDArray[np.float32], rate: int) -> None: ...

    def silence(self, seconds: float) -> None: ...


class Reader:
    """One pass over one audio track. `read` is called once; the other members hold for what it has read so far.

    `seconds`: of audio, inserted silence included. `start`: seconds before it on the container's own clock. `damaged`,
    `truncated`: defects that are not fatal.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: AudioStream,
        sink: Sink,
        max_seconds: float,
        source: Source,
    ) -> None:
        """`stream`: one of `container`, in a codec that is decoded."""
        self.seconds = 0.0
        self.damaged = self.truncated = False
        self._container = container
        self._stream = stream
        for other in container.streams:
            if other is not self._stream:
                other.discard = Discard.all  # a film's pictures are skipped without being read
        self._sink = sink
        self._sink.max_peak = math.inf if codec_name(self._stream).startswith("pcm_f") else _OVERSHOOT
        self._max_seconds = max_seconds
        self._source = source
        # libav's names for the demuxer: "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
        self._timed = container.format.name.partition(",")[0] in _TIMED
        self._counted = container.format.name in _COUNTED
        self._numbers = FlacNumbers() if container.format.name == "flac" else None
        self._first: float | None = None  # time stamp of the first sample (s)
        self._anchor = 0.0  # the same, so that it and `seconds` add up to the next time stamp
        self._failed = False  # the previous packet could not be decoded
        self._packed = av.AudioResampler(format="flt")
        self._steps = 0
        self._idle = 0

    @property
    def start(self) -> float:
        # WMA's first time stamps are those of an encoder's delay, which is dropped.
        return max(0.0, self._first or 0.0) if self._timed and self._container.format.name != "asf" else 0.0

    @property
    def missing(self) -> float:
        """Seconds that the header declares beyond what was read, at most 0 if it declares nothing."""
        # Matroska's durations are times of the end, on its clock.
        start = self.start if self._container.format.name.startswith("matroska") else 0.0
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base) - start - self.seconds
        if self._container.duration and len(self._container.streams) == 1:
            return self._container.duration / av.time_base - start - self.seconds
        return 0.0

    def read(self) -> None:
        """Decode all of it into the sink. Raises UndecodableError."""
        self._stream.codec_context.thread_count = 1  # a child uses one core; more threads only add memory
        for packet in self._packets():
            self._step()
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):
                self.damaged |= self._failed  # two in a row: not just a cut at the end
                self._failed = True
                continue
            for number, frame in enumerate(frames):
                self._step()
                self._add(frame, None if number else packet)
        self._source.check()
        if self._failed:
            self.truncated = True  # nothing decodable came after: a cut rather than a hole

    def _step(self) -> None:
        """Count a packet or a frame: a file may take endless work without a single sample."""
        self._steps += 1
        self._idle += 1
        if not self._steps % _PROGRESS_INTERVAL:
            self._source.progress()
        if self._idle > _MAX_IDLE:
            raise UndecodableError("AUDIO_UNREADABLE")
        if self._steps > 2 * (_MAX_IDLE + self._max_seconds * _STEPS_PER_SECOND):
            raise UndecodableError("AUDIO_TOO_MANY_PACKETS")

    def _packets(self) -> Iterator[av.Packet[AudioStream]]:
        try:
            yield from self._container.demux(self._stream)  # ends with the packet that flushes the decoder
        except (av.error.FFmpegError, ValueError):
            self.truncated = True
            flush: av.Packet[AudioStream] = av.Packet()  # type: ignore[assignment]
            flush.stream = self._stream
            yield flush

    def _add(self, frame: av.AudioFrame, packet: av.Packet[AudioStream] | None) -> None:
        """`packet`: what it is of; None for another frame of the same."""
        channels = frame.layout.nb_channels
        check_shape(channels, frame.sample_rate)
        if not frame.samples:
            return
        self._idle = 0
        failed, self._failed = self._failed, False
        self.damaged |= failed
        if self._numbers is None:
            self._close_gap(frame.time, failed)
        else:
            if packet is not None and (lost := self._numbers.missing(bytes(packet))):
                self.damaged = True
                self._silence(lost / frame.sample_rate)
            self._numbers.add(frame.samples)
        self.seconds += frame.samples / frame.sample_rate
        for packed in self._to_packed(frame):
            samples = np.frombuffer(bytes(packed.planes[0]), np.float32, packed.samples * channels)
            self._sink.add(samples.reshape(-1, channels), frame.sample_rate)

    def _to_packed(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """Convert to interleaved float32.

        Not by `frame.to_ndarray`: in av 18.1.0 it reads past the frame's plane pointers for eight planar channels.
        """
        if frame.layout.nb_channels == 1 and frame.format.name == "fltp":
            return [frame]  # a single plane is interleaved already, and speech is usually mono
        try:
            return self._packed.resample(frame)
        except ValueError:  # rate, format or layout changed in the stream: a converter takes one of each
            self._packed = av.AudioResampler(format="flt")
            return self._packed.resample(frame)

    def _close_gap(self, at: float | None, failed: bool) -> None:
        """Insert silence where time stamps skip: lost packets, a paused recorder. `failed`: a packet before this one was lost."""
        if at is None:
            return
        if self._first is None:
            self._first = self._anchor = at
        if self._counted and not failed:
            self._anchor = at - self.seconds
        gap = at - self._anchor - self.seconds
        if gap > _MAX_GAP:
            self.damaged = True
            self._anchor = at - self.seconds
        elif gap > (0.001 if failed else _JITTER):
            self.damaged |= not self._timed  # frames dropped silently: a wrong checksum, no sync word
            self._silence(gap)
        elif gap < -_JITTER:  # time stamps restarted
            self._anchor = at - self.seconds

    def _silence(self, seconds: float) -> None:
        if seconds <= _MAX_GAP:
            self._sink.silence(seconds)
            self.seconds += seconds
