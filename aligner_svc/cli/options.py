"""What several commands take."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aligner_svc.cli.credentials import Connection


class HeaderlessEncoding(StrEnum):
    """Headerless encodings, by the names of client.AudioEncoding."""

    LINEAR16 = "linear16"
    FLOAT32 = "float32"
    MULAW = "mulaw"


class OutputFormat(StrEnum):
    """Names of formats.Format, and the table for people."""

    JSON = "json"
    TABLE = "table"
    SRT = "srt"
    VTT = "vtt"
    TEXTGRID = "textgrid"
    CTM = "ctm"


@dataclass(frozen=True, slots=True)
class Request:
    """How every file of one command is to be aligned. `timeout` in seconds; None leaves it to the client."""

    connection: Connection
    language: str
    encoding: HeaderlessEncoding | None
    sample_rate_hz: int
    channels: int
    timeout: float | None

    def keywords(self) -> dict[str, Any]:
        """As keyword arguments of the client's calls."""
        from aligner_svc.client import AudioEncoding

        keywords: dict[str, Any] = {
            "language": self.language,
            "encoding": AudioEncoding(self.encoding.value) if self.encoding else AudioEncoding.CONTAINER,
            "sample_rate_hz": self.sample_rate_hz,
            "channels": self.channels,
        }
        if self.timeout is not None:
            keywords["timeout"] = self.timeout
        return keywords
