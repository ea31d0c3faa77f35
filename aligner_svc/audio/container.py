"""Decoding a container with libav, in the decoder child: one demuxer, audio codecs from a list, no other files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.stream import Discard

from aligner_svc.audio.mixdown import Mixdown
from aligner_svc.audio.mpeg import skip_id3
from aligner_svc.audio.source import AudioSource, Watch
from aligner_svc.audio.undecodable import UndecodableError, check_shape
from aligner_svc.audio.wave import read_wave_header

# The codecs of speech. libav has two hundred more, most of them for games of the nineties and rarely reviewed.
# fmt: off
_CODECS: Final = frozenset({
    "pcm_alaw", "pcm_mulaw", "pcm_s8", "pcm_u8", "pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s24le", "pcm_s32be", "pcm_s32le",
    "pcm_f32be", "pcm_f32le", "pcm_f64be", "pcm_f64le", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "gsm", "gsm_ms",
    "mp2", "mp2float", "mp3", "mp3float", "aac", "ac3", "eac3", "alac", "flac", "wavpack", "vorbis", "opus", "libopus", "speex",
    "libspeex", "amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "wmav1", "wmav2", "wmapro", "wmavoice", "wmalossless",
})
# fmt: on

# Demuxers whose durations come from a header; the others estimate them from the bit rate.
_DECLARES: Final = frozenset({"aiff", "au", "caf", "flac", "matroska", "mov", "w64", "wv"})

# Containers that store a pause as a jump in the time stamps; in the others a jump means lost audio.
_MAY_PAUSE: Final = frozenset({"asf", "matroska", "mov"})

_OVERSHOOT: Final = 2.0
"""Highest peak a lossy codec makes of full-scale audio; a broken frame makes 1000, which must not silence the rest."""

_SLACK: Final = 0.1
"""Seconds a file may be shorter than its header says: encoder padding and rounding are less."""

_MAX_GAP: Final = 600.0
"""Seconds that time stamps may skip; beyond that the time stamp is broken, not the audio."""

_JITTER: Final = 0.1
"""Seconds a time stamp may be off before it counts as a gap: live recordings in ASF and WebM jitter by less."""

_MAX_STREAMS: Final = 32
"""Streams of any kind; a film with subtitles in twenty languages has more, a recording of speech has one."""

_MAX_METADATA: Final = 1 << 20
"""Characters of tags in all, pictures not included."""

_STEPS_PER_SECOND: Final = 1000
"""Packets, and frames, per second of `max_seconds`; Opus has at most 400."""

_PROGRESS_INTERVAL: Final = 32
"""Packets and frames between two reports of progress, which cost system calls."""

_MAX_IDLE: Final = 100_000
"""Packets and empty frames in a row without a sample: half an hour of broken AAC, and a second of processor time."""


@dataclass
class Found:
    """Defects that are not fatal."""

    damaged: bool = False
    truncated: bool = False


_PROBING: Final = {"wav": {"probesize": "32768", "max_size": "65536"}}
"""A WAV's header needs little probing, and its default packets are a few ms long: 3 s of audio took 8 ms instead of 4."""


def decode_container(
    data: memoryview, demuxer: str, max_seconds: float, watch: Watch | None = None
) -> tuple[npt.NDArray[np.int16], Found]:
    """The first audio stream as int16 of shape [n], 16 kHz mono. ID3 tags in front of it are skipped.

    Raises UndecodableError: AUDIO_UNREADABLE, AUDIO_NO_STREAM, AUDIO_EMPTY, AUDIO_METADATA_TOO_LARGE, AUDIO_TOO_MANY_PACKETS,
    AUDIO_TOO_MANY_STREAMS, CODEC_UNSUPPORTED, and those of `Mixdown`.
    """
    wave = read_wave_header(data) if demuxer == "wav" else None
    if wave:
        check_shape(wave.channels, wave.rate)
    # Allocated first, so that a header cannot claim the memory that is reserved for it.
    mixdown = Mixdown(max_seconds)
    source = AudioSource(data[skip_id3(data) :], watch or Watch())
    with open_container(source, demuxer) as container:
        source.check()
        if len(container.streams) > _MAX_STREAMS:
            raise UndecodableError("AUDIO_TOO_MANY_STREAMS", len(container.streams))
        tags = [container.metadata, *(stream.metadata for stream in container.streams)]
        if sum(len(key) + len(value) for table in tags for key, value in table.items()) > _MAX_METADATA:
            raise UndecodableError("AUDIO_METADATA_TOO_LARGE", _MAX_METADATA)
        if not container.streams.audio:
            raise UndecodableError("AUDIO_NO_STREAM" if len(container.streams) else "AUDIO_EMPTY")
        reader = _Reader(container, demuxer, mixdown, max_seconds, source)
        if reader.codec not in _CODECS:
            raise UndecodableError("CODEC_UNSUPPORTED")
        samples = reader.read()
        if not len(samples):
            raise UndecodableError("AUDIO_UNREADABLE" if reader.found.damaged or reader.found.truncated else "AUDIO_EMPTY")
        missing = wave.missing if wave else reader.declared_seconds - reader.seconds * 1.001 if _declares(data, demuxer) else 0.0
        reader.found.truncated |= missing > _SLACK
        return samples, reader.found


def open_container(source: AudioSource, demuxer: str) -> av.container.InputContainer:
    """Raises UndecodableError (AUDIO_UNREADABLE)."""
    try:
        return av.open(
            source,
            "r",
            format=demuxer,
            # codec_whitelist keeps probing from opening a film's video decoders, format_whitelist a demuxer from handing
            # over to another one, protocol_whitelist and io_open all of them from opening anything else.
            container_options={
                "codec_whitelist": ",".join(sorted(_CODECS)),
                "format_whitelist": demuxer,
                "protocol_whitelist": "none",
                "max_streams": str(2 * _MAX_STREAMS),  # so that the refusal of too many can give the number
                **_PROBING.get(demuxer, {}),
            },
            metadata_errors="ignore",
            io_open=_open_nothing,
        )
    except (av.error.FFmpegError, ValueError):
        raise UndecodableError("AUDIO_UNREADABLE") from None


@dataclass
class _Reader:
    """One pass over one stream: packets to frames to the mixdown, within limits of work."""

    container: av.container.InputContainer
    demuxer: str
    mixdown: Mixdown
    max_seconds: float
    source: AudioSource
    found: Found = field(default_factory=Found)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._stream = self.container.streams.audio[0]
        # None for streams without any decoder.
        self._context = getattr(self._stream, "codec_context", None)
        self._anchor: float | None = None  # time stamp of the start of the audio (s)
        self._failed = False  # the previous packet could not be decoded
        self._packed = av.AudioResampler(format="flt")
        self.codec = self._context.codec.name if self._context else ""
        for other in self.container.streams:
            if other is not self._stream:
                other.discard = Discard.all  # a film's pictures are skipped without being read
        self._steps = 0
        self._idle = 0
        self.mixdown.max_peak = math.inf if self.codec.startswith("pcm_f") else _OVERSHOOT

    @property
    def declared_seconds(self) -> float:
        """Duration in the header, 0 if there is none."""
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        if self.container.duration and len(self.container.streams) == 1:
            return self.container.duration / av.time_base
        return 0.0

    def read(self) -> npt.NDArray[np.int16]:
        assert self._context
        self._context.thread_count = 1  # a child uses one core; more threads only add memory
        for packet in self._packets():
            self._step()
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):
                self.found.damaged |= self._failed  # two in a row: not just a cut at the end
                self._failed = True
                continue
            for frame in frames:
                self._step()
                self._add(frame)
        self.source.check()
        self.source.rest()
        if self._failed:
            self.found.truncated = True  # nothing decodable came after: a cut rather than a hole
        return self.mixdown.finish()

    def _step(self) -> None:
        """Count a packet or a frame: a file may take endless work without a single sample."""
        self._steps += 1
        self._idle += 1
        if not self._steps % _PROGRESS_INTERVAL:
            self.source.progress()
        if self._idle > _MAX_IDLE:
            raise UndecodableError("AUDIO_UNREADABLE")
        if self._steps > 2 * (_MAX_IDLE + self.max_seconds * _STEPS_PER_SECOND):
            raise UndecodableError("AUDIO_TOO_MANY_PACKETS")

    def _packets(self) -> Iterator[av.Packet[AudioStream]]:
        try:
            yield from self.container.demux(self._stream)  # ends with the packet that flushes the decoder
        except (av.error.FFmpegError, ValueError):
            self.found.truncated = True
            flush: av.Packet[AudioStream] = av.Packet()  # type: ignore[assignment]
            flush.stream = self._stream
            yield flush

    def _add(self, frame: av.AudioFrame) -> None:
        channels = frame.layout.nb_channels
        check_shape(channels, frame.sample_rate)
        if not frame.samples:
            return
        self._idle = 0
        self._close_gap(frame)
        self.seconds += frame.samples / frame.sample_rate
        for packed in self._to_packed(frame):
            samples = np.frombuffer(bytes(packed.planes[0]), np.float32, packed.samples * channels)
            self.mixdown.add(samples.reshape(-1, channels), frame.sample_rate)

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

    def _close_gap(self, frame: av.AudioFrame) -> None:
        """Insert silence where time stamps skip: lost packets, a paused recorder."""
        failed, self._failed = self._failed, False
        self.found.damaged |= failed
        at = frame.time
        if at is None:
            return
        if self._anchor is None:
            self._anchor = at
        gap = at - self._anchor - self.seconds
        if gap > _MAX_GAP:
            self.found.damaged = True
            self._anchor = at - self.seconds
        elif gap > (0.001 if failed else _JITTER):
            self.found.damaged |= self.demuxer not in _MAY_PAUSE  # frames dropped silently: a wrong checksum, no sync word
            self.mixdown.silence(gap)
            self.seconds += gap
        elif gap < -_JITTER:  # time stamps restarted, as in chained Ogg streams
            self._anchor = at - self.seconds


def _open_nothing(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    """Replace libav's file and network access."""
    del url, flags, options
    raise PermissionError("this decoder opens no files")


def _declares(data: memoryview, demuxer: str) -> bool:
    """Whether libav's duration comes from the file's header, rather than from an estimate."""
    if demuxer == "mp3":
        start = skip_id3(data)
        head = bytes(data[start : start + 512])
        return b"Xing" in head or b"Info" in head or b"VBRI" in head
    return demuxer in _DECLARES
