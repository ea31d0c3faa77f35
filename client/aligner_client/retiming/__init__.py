"""Subtitle files with right times: `SubtitleFile` finds the cues, `retime` their times from aligned words (docs/retiming.md)."""

from aligner_client.retiming.files import SubtitleError, SubtitleFile, TranscriptFormat, TranscriptFormatLike
from aligner_client.retiming.retime import Cue, CueStatus, Retiming, retime

__all__ = ["Cue", "CueStatus", "Retiming", "SubtitleError", "SubtitleFile", "TranscriptFormat", "TranscriptFormatLike", "retime"]
