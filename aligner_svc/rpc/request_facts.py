"""What the guards must know of a request before it is decoded: its audio, the audio's encoding and its probable length."""

from __future__ import annotations

from typing import Any

from aligner_client.api.v1 import aligner_pb2 as pb

CONTAINER_BYTES_PER_SECOND = 16_000
"""128 kbit/s, a common MP3; half of a 16 kHz WAV, several times Opus."""
_SAMPLE_BYTES = {pb.AUDIO_ENCODING_LINEAR16: 2, pb.AUDIO_ENCODING_FLOAT32: 4, pb.AUDIO_ENCODING_MULAW: 1}
_HEADERLESS = frozenset(_SAMPLE_BYTES)


class AudioEstimate:
    """Estimates the audio of one call: exact if it is headerless, a guess for a container, corrected once it is decoded."""

    def __init__(self) -> None:
        self._bytes_per_second: float = CONTAINER_BYTES_PER_SECOND

    def __call__(self, message: Any) -> float:
        """Seconds of audio in an AlignRequest or a StreamAlignRequest; 0 for any other message."""
        if not isinstance(message, pb.AlignRequest | pb.StreamAlignRequest):
            return 0.0
        if message.HasField("config"):
            self._read(message.config)
        return len(message.audio) / self._bytes_per_second

    def _read(self, config: pb.AlignConfig) -> None:
        width = _SAMPLE_BYTES.get(config.encoding)
        if width is not None and config.sample_rate_hz:
            self._bytes_per_second = width * config.sample_rate_hz * max(1, config.channels)
        self._bytes_per_second /= max(1, len(config.channel_transcripts))  # each channel is aligned apart


def audio_of(message: Any) -> bytes | None:
    """The audio of an AlignRequest or a StreamAlignRequest; None where a message has none."""
    return message.audio or None if isinstance(message, pb.AlignRequest | pb.StreamAlignRequest) else None


def headerless(message: Any) -> bool:
    """Whether a call's first message, which has the config, declares headerless audio."""
    return isinstance(message, pb.AlignRequest | pb.StreamAlignRequest) and message.config.encoding in _HEADERLESS
