"""An alignment as a file that other programs read."""

from __future__ import annotations

from enum import Enum

from aligner_svc.domain import Alignment
from aligner_svc.formats.ctm import render_ctm
from aligner_svc.formats.json import render_json
from aligner_svc.formats.srt import render_srt
from aligner_svc.formats.textgrid import render_textgrid
from aligner_svc.formats.vtt import render_vtt

__all__ = ["Format", "render", "render_ctm", "render_json", "render_srt", "render_textgrid", "render_vtt"]


class Format(Enum):
    """The value is the name on a command line and the usual file suffix, but for TextGrid's capitals."""

    JSON = "json"
    SRT = "srt"
    VTT = "vtt"
    TEXTGRID = "textgrid"
    CTM = "ctm"


def render(
    alignment: Alignment,
    format: Format,  # noqa: A002
    *,
    transcript: str | None = None,
    recording: str = "audio",
) -> str:
    """The whole file, ending in a newline.

    `transcript` is the text the words' offsets point into: subtitles then keep its
    punctuation and end at its sentences. `recording` is the name a CTM line starts with.
    """
    match format:
        case Format.JSON:
            return render_json(alignment)
        case Format.SRT:
            return render_srt(alignment, transcript)
        case Format.VTT:
            return render_vtt(alignment, transcript)
        case Format.TEXTGRID:
            return render_textgrid(alignment)
        case Format.CTM:
            return render_ctm(alignment, recording)
