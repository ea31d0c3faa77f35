"""SubRip (SRT) and WebVTT (https://www.w3.org/TR/webvtt1/): cues as `cues.cues` groups them."""

from __future__ import annotations

from aligner_svc.domain import Alignment
from aligner_svc.formats.cues import cues

# Escaping ">" also keeps "-->" in a cue from starting another one.
_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def render_srt(alignment: Alignment, transcript: str | None = None) -> str:
    """Numbered cues; empty if no word was found.

    SubRip has no escapes: most players show text that looks like a tag as it is.
    """
    return "\n".join(
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues(alignment, transcript), 1)
    )


def render_vtt(alignment: Alignment, transcript: str | None = None) -> str:
    """A header and the cues; the header alone if no word was found."""
    blocks = [
        f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n" + "\n".join(cue.lines).translate(_VTT_ESCAPES) + "\n"
        for cue in cues(alignment, transcript)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _time(milliseconds: int, separator: str) -> str:
    """HH:MM:SS, the separator and milliseconds. WebVTT's optional hours are always written, so that columns line up."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{separator}{milliseconds:03d}"
