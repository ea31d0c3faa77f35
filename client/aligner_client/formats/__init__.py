"""Renders an alignment as a file for other programs."""

from __future__ import annotations

from enum import Enum

from aligner_client.alignment import Alignment
from aligner_client.formats.ctm import render_ctm, render_phone_ctm
from aligner_client.formats.cues import CueLayout
from aligner_client.formats.film_clock import on_film_clock
from aligner_client.formats.json import render_json
from aligner_client.formats.page import render_page
from aligner_client.formats.subtitles import render_ass, render_srt, render_vtt
from aligner_client.formats.tables import render_audacity, render_csv
from aligner_client.formats.textgrid import render_textgrid

__all__ = ["CueLayout", "Format", "render"]


class Format(Enum):
    """The value is the name on the command line, and mostly the usual file suffix."""

    JSON = "json"
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
    """A page to look at; with its sound by `formats.page.render_page`."""


_BESIDE_A_FILM = frozenset({Format.SRT, Format.VTT, Format.WORD_VTT, Format.ASS})
"""Subtitles, which a player shows by the clock of the film and not of its sound."""


def render(  # noqa: PLR0911 - one for each format
    alignment: Alignment,
    format: Format,  # noqa: A002
    *,
    transcript: str | None = None,
    recording: str = "audio",
    layout: CueLayout | None = None,
) -> str:
    """The whole file, ending in a newline. Times count from the first sample; in subtitles, from the beginning of the film.

    With `transcript`, the text that the words' offsets refer to, subtitles keep its punctuation
    and end at its sentences. `recording` is the name at the start of each CTM line. `layout`: how much a subtitle shows.
    """
    if format in _BESIDE_A_FILM:
        alignment = on_film_clock(alignment)
    match format:
        case Format.JSON:
            return render_json(alignment)
        case Format.SRT:
            return render_srt(alignment, transcript, layout)
        case Format.VTT | Format.WORD_VTT:
            return render_vtt(alignment, transcript, layout, word_times=format is Format.WORD_VTT)
        case Format.ASS:
            return render_ass(alignment, transcript, layout)
        case Format.TEXTGRID:
            return render_textgrid(alignment)
        case Format.CTM:
            return render_ctm(alignment, recording)
        case Format.PHONE_CTM:
            return render_phone_ctm(alignment, recording)
        case Format.CSV:
            return render_csv(alignment)
        case Format.AUDACITY:
            return render_audacity(alignment)
        case Format.HTML:
            return render_page(alignment, transcript, recording)
