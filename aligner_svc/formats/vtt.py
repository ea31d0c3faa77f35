"""WebVTT: https://www.w3.org/TR/webvtt1/."""

from __future__ import annotations

from aligner_svc.domain import Alignment
from aligner_svc.formats.cues import cues

# "-->" in a cue would start another; escaping ">" takes care of it.
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def render_vtt(alignment: Alignment, transcript: str | None = None) -> str:
    """Cues as `cues.cues` groups them; the header alone when no word was found."""
    blocks = [
        f"{_time(cue.start)} --> {_time(cue.end)}\n" + "\n".join(cue.lines).translate(_ESCAPES) + "\n"
        for cue in cues(alignment, transcript)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _time(milliseconds: int) -> str:
    """The hours are optional below one; written always, so that the columns stay."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{milliseconds:03d}"
