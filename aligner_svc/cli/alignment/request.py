"""What `aligner align` asks for: the encoding, the options of each call and the output format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aligner_svc.cli.server_options import Connection

if TYPE_CHECKING:
    from aligner_client.formats import CueLayout


class HeaderlessEncoding(StrEnum):
    """Encodings of audio without a header, named as in client.AudioEncoding."""

    LINEAR16 = "linear16"
    FLOAT32 = "float32"
    MULAW = "mulaw"


class OutputFormat(StrEnum):
    """The formats of formats.Format, and a table for people."""

    JSON = "json"
    TABLE = "table"
    SRT = "srt"
    VTT = "vtt"
    WORD_VTT = "word-vtt"
    ASS = "ass"
    TEXTGRID = "textgrid"
    CTM = "ctm"
    PHONE_CTM = "phone-ctm"
    CSV = "csv"
    AUDACITY = "audacity"
    HTML = "html"


@dataclass(frozen=True, slots=True)
class Request:
    """How to align every file of one command. `timeout` in seconds; None means the client's default."""

    connection: Connection
    language: str
    encoding: HeaderlessEncoding | None
    sample_rate_hz: int
    channels: int
    audio_track: int
    timeout: float | None
    min_match_score: float | None = None
    layout: CueLayout | None = None
    """Of subtitles."""
    phones: bool = False
    pronunciations: Mapping[str, str] | None = None

    def keywords(self) -> dict[str, Any]:
        """The keyword arguments of the client's calls."""
        from aligner_client import AudioEncoding

        keywords: dict[str, Any] = {
            "language": self.language,
            "encoding": AudioEncoding(self.encoding.value) if self.encoding else AudioEncoding.CONTAINER,
            "sample_rate_hz": self.sample_rate_hz,
            "channels": self.channels,
            "min_match_score": self.min_match_score,
            "audio_track": self.audio_track,
        }
        if self.pronunciations:
            keywords["pronunciations"] = self.pronunciations
        if self.phones:
            keywords["detail"] = "phones"
        return keywords if self.timeout is None else keywords | {"timeout": self.timeout}
