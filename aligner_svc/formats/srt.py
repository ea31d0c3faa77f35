"""SubRip: numbered cues, a comma before the milliseconds."""

from __future__ import annotations

from aligner_svc.domain import Alignment
from aligner_svc.formats.cues import cues


def render_srt(alignment: Alignment, transcript: str | None = None) -> str:
    """Cues as `cues.cues` groups them; empty when no word was found.

    SubRip has no escapes: text that looks like a tag is shown as most players show it.
    """
    blocks = (
        f"{number}\n{_time(cue.start)} --> {_time(cue.end)}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues(alignment, transcript), 1)
    )
    return "\n".join(blocks)


def _time(milliseconds: int) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d},{milliseconds:03d}"
