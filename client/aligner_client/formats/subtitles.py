"""SubRip (SRT), WebVTT (https://www.w3.org/TR/webvtt1/) and Advanced SubStation Alpha (ASS): cues as `cues.cues` groups them.

SRT and WebVTT have times in milliseconds, ASS in hundredths of a second.
"""

from __future__ import annotations

from dataclasses import replace

from aligner_client.alignment import Alignment
from aligner_client.formats.cues import Cue, CueLayout, Shown, cues

# Escaping ">" also keeps "-->" in a cue from starting another one.
_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# ASS has no escapes that all players know. Braces start an override; the invisible joiner keeps \N from being a line break.
_ASS_ESCAPES = str.maketrans({"{": "(", "}": ")", "\\": "\\\u2060"})
_ASS_HEADER = """[Script Info]
ScriptType: v4.00+
WrapStyle: 2
PlayResX: 1280
PlayResY: 720

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, \
ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,48,&H00FFFFFF,&H0000D7FF,&H00000000,&H00000000,0,0,0,0,100,100,0,0,1,2,0,2,40,40,40,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def render_srt(alignment: Alignment, transcript: str | None = None, layout: CueLayout | None = None) -> str:
    """Numbered cues; empty if no word was found.

    SubRip has no escapes: most players show text that looks like a tag as it is. Nor has it voices: a cue of a channel with a
    transcript of its own begins with it, within the line ("Channel 0: ...").
    """
    labels = [f"{_name(channel.number)}: " for channel in alignment.channels]
    if labels:
        layout = layout or CueLayout()
        layout = replace(layout, line=max(1, layout.line - max(map(len, labels))))
    return "\n".join(
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{_label(cue)}" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues(alignment, transcript, layout), 1)
    )


def _label(cue: Cue) -> str:
    return "" if cue.channel is None else f"{_channel(cue)}: "


def render_vtt(
    alignment: Alignment, transcript: str | None = None, layout: CueLayout | None = None, *, word_times: bool = False
) -> str:
    """A header and the cues; the header alone if no word was found. `word_times`: a tag with its start before each word.

    A cue of a channel with a transcript of its own has it as its voice.
    """
    blocks = []
    for cue in cues(alignment, transcript, layout):
        payload = _with_word_times(cue) if word_times else "\n".join(cue.lines).translate(_VTT_ESCAPES)
        voice = f"<v {_channel(cue)}>" if cue.channel is not None else ""
        blocks.append(f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{voice}{payload}\n")
    return "\n".join(["WEBVTT\n", *blocks])


def _with_word_times(cue: Cue) -> str:
    """Tags must be within the cue and increase: a word that starts with the cue, or with the word before, has none."""
    reached = cue.start
    lines = []
    for row in cue.rows:
        parts = []
        for place, word in enumerate(row):
            tag = ""
            if word.times and reached < word.times[0] < cue.end:
                reached = word.times[0]
                tag = f"<{_time(reached, '.')}>"
            parts.append(f"{_blank(place, word)}{tag}{word.text.translate(_VTT_ESCAPES)}")
        lines.append("".join(parts))
    return "\n".join(lines)


def render_ass(alignment: Alignment, transcript: str | None = None, layout: CueLayout | None = None) -> str:
    r"""A header and an event for each cue, with the time of each word as karaoke (\k): players colour words as they are said.

    The name of an event is its channel, if each has a transcript of its own.
    """
    events = [
        f"Dialogue: 0,{_ass_time(cue.start)},{_ass_time(cue.end)},Default,{_channel(cue)},0,0,0,,{_karaoke(cue)}\n"
        for cue in cues(alignment, transcript, layout)
    ]
    return _ASS_HEADER + "".join(events)


def _karaoke(cue: Cue) -> str:
    r"""{\k20}Don't {\k30}they: hundredths of a second that add up from the cue's start. A pause has a \k of its own."""
    reached = _hundredths(cue.start)
    lines = []
    for row in cue.rows:
        parts = []
        for place, word in enumerate(row):
            parts.append(_blank(place, word))
            if word.times:
                start, end = (_hundredths(min(time, cue.end)) for time in word.times)
                if start > reached:
                    parts.append(f"{{\\k{start - reached}}}")
                parts.append(f"{{\\k{max(0, end - max(start, reached))}}}")
                reached = max(reached, end)
            parts.append(word.text.translate(_ASS_ESCAPES))
        lines.append("".join(parts))
    return r"\N".join(lines)


def _channel(cue: Cue) -> str:
    return "" if cue.channel is None else _name(cue.channel)


def _name(channel: int) -> str:
    return f"Channel {channel}"


def _blank(place: int, word: Shown) -> str:
    return "" if word.glued or not place else " "


def _hundredths(milliseconds: int) -> int:
    return (milliseconds + 5) // 10


def _ass_time(milliseconds: int) -> str:
    """H:MM:SS.cc."""
    seconds, hundredths = divmod(_hundredths(milliseconds), 100)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}.{hundredths:02d}"


def _time(milliseconds: int, separator: str) -> str:
    """HH:MM:SS, the separator and milliseconds. WebVTT's optional hours are always written, so that columns line up."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{separator}{milliseconds:03d}"
