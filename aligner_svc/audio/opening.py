"""Opens a recording with libav: one demuxer, audio codecs from a list, no other files."""

from __future__ import annotations

from typing import Final, NoReturn

import av
import av.error
from av.audio.stream import AudioStream

from aligner_svc.audio.recordings import Recording
from aligner_svc.audio.source import Source
from aligner_svc.audio.undecodable import UndecodableError

# The codecs of speech. libav has two hundred more, most of them for games of the nineties and rarely reviewed.
# fmt: off
_CODECS: Final = frozenset({
    "pcm_alaw", "pcm_mulaw", "pcm_s8", "pcm_u8", "pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s24le", "pcm_s32be", "pcm_s32le",
    "pcm_f32be", "pcm_f32le", "pcm_f64be", "pcm_f64le", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "gsm", "gsm_ms",
    "mp2", "mp2float", "mp3", "mp3float", "aac", "ac3", "eac3", "alac", "flac", "wavpack", "vorbis", "opus", "libopus", "speex",
    "libspeex", "amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "wmav1", "wmav2", "wmapro", "wmavoice", "wmalossless",
})
# fmt: on

_MAX_STREAMS: Final = 32
"""Streams of any kind; a film with subtitles in twenty languages has more, a recording of speech has one."""

_MAX_METADATA: Final = 1 << 20
"""Characters of tags in all, pictures not included."""


def open_container(source: Source, recording: Recording) -> av.container.InputContainer:
    """Raises UndecodableError: AUDIO_UNREADABLE, AUDIO_NO_STREAM, AUDIO_EMPTY, and for too many streams or tags."""
    try:
        container = av.open(
            source,
            "r",
            format=recording.demuxer,
            # codec_whitelist keeps probing from opening a film's video decoders, format_whitelist a demuxer from handing
            # over to another one, protocol_whitelist and io_open all of them from opening anything else.
            container_options={
                "codec_whitelist": ",".join(sorted(_CODECS)),
                "format_whitelist": recording.demuxer,
                "protocol_whitelist": "none",
                "max_streams": str(2 * _MAX_STREAMS),  # so that the refusal of too many can give the number
                **recording.options,
            },
            metadata_errors="ignore",
            io_open=_open_nothing,
        )
    except (av.error.FFmpegError, ValueError):
        raise UndecodableError("AUDIO_UNREADABLE") from None
    try:
        source.check()
        _check(container)
    except UndecodableError:
        container.close()
        raise
    return container


def _check(container: av.container.InputContainer) -> None:
    if len(container.streams) > _MAX_STREAMS:
        raise UndecodableError("AUDIO_TOO_MANY_STREAMS", len(container.streams))
    tags = [container.metadata, *(stream.metadata for stream in container.streams)]
    if sum(len(key) + len(value) for table in tags for key, value in table.items()) > _MAX_METADATA:
        raise UndecodableError("AUDIO_METADATA_TOO_LARGE", _MAX_METADATA)
    if not container.streams.audio:
        raise UndecodableError("AUDIO_NO_STREAM" if len(container.streams) else "AUDIO_EMPTY")


def codec_name(stream: AudioStream) -> str:
    """The decoder of a stream, "" if there is none."""
    context = getattr(stream, "codec_context", None)
    return context.codec.name if context else ""


def decodable(stream: AudioStream) -> bool:
    """Whether its codec is decoded here."""
    return codec_name(stream) in _CODECS


def _open_nothing(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    """Replace libav's file and network access."""
    del url, flags, options
    raise PermissionError("this decoder opens no files")
