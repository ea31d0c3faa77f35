"""What is written is what parsers of other projects read: words and times to a millisecond, in ASS to its hundredths."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from pathlib import Path

import pysubs2
import pytest
import srt
import webvtt
from praatio import textgrid
from pympi.Praat import TextGrid

from aligner_client.formats import Format, render
from aligner_svc.domain import Alignment, Word, WordStatus

TEXT = 'Don\'t call "you" <i>Junior</i> &amp; MARY:\nago [clap] {so} tea.'
"""With what the formats have to escape; MARY: is no label, as it opens no line."""


def _word(text: str, start: float, end: float, status: WordStatus = WordStatus.ALIGNED) -> Word:
    at = TEXT.index("[clap]" if text == "[clap]" else text)
    return Word(text, start, end, 0.5, status, at, at + len(text))


WORDS = (
    _word("Don't", 0.1375, 0.3559),
    _word("call", 0.7826, 1.0234),
    _word("you", 1.0234, 1.1775),
    _word("Junior", 1.1775, 1.5924, WordStatus.REPAIRED),
    _word("MARY", 1.7091, 1.8475),
    _word("ago", 1.8738, 2.0469),
    _word("[clap]", 2.0469, 2.0469, WordStatus.SKIPPED),
    _word("so", 2.0469, 2.0469, WordStatus.NOT_FOUND),
    _word("tea", 2.0469, 2.36),
)
ALIGNMENT = Alignment(WORDS, 2.5, "e", "en", 0.9)
PLACED = [word for word in WORDS if word.status in {WordStatus.ALIGNED, WordStatus.REPAIRED}]
SHOWN = ['Don\'t call "you" Junior & MARY:', "ago [clap] {so} tea."]
MS = pytest.approx


def written(format_: Format) -> str:
    return render(ALIGNMENT, format_, transcript=TEXT)


def test_srt() -> None:
    (cue,) = srt.parse(written(Format.SRT), ignore_errors=False)
    assert (cue.start, cue.end) == (timedelta(milliseconds=138), timedelta(milliseconds=2360))
    assert cue.content.split("\n") == SHOWN


def test_webvtt() -> None:
    (cue,) = webvtt.from_string(written(Format.VTT))
    assert (cue.start, cue.end) == ("00:00:00.138", "00:00:02.360")
    assert [line.replace("&amp;", "&") for line in cue.lines] == SHOWN


def test_webvtt_with_word_times() -> None:
    (cue,) = webvtt.from_string(written(Format.WORD_VTT))
    assert [line.replace("&amp;", "&") for line in cue.text.split("\n")] == SHOWN  # the parser takes the tags for tags
    tags = [float(seconds) for seconds in re.findall(r"<00:00:(\d\d\.\d{3})>", cue.raw_text)]
    assert tags == MS([word.start for word in PLACED[1:]], abs=0.001)
    assert re.findall(r"<[^>]*>(\S+)", cue.raw_text) == ["call", '"you"', "Junior", "MARY:", "ago", "tea."]


def test_ass() -> None:
    (event,) = pysubs2.SSAFile.from_string(written(Format.ASS), format_="ass")
    assert (event.start, event.end) == (140, 2360)
    assert event.plaintext.split("\n") == [SHOWN[0], SHOWN[1].replace("{so}", "(so)")]
    at, starts = event.start, []
    for length, said in re.findall(r"\{\\k(\d+)\}([^{]*)", event.text):
        if said.strip("\\N "):
            starts.append(at)
        at += 10 * int(length)
    assert starts == MS([1000 * word.start for word in PLACED], abs=5)
    assert at == MS(2360, abs=5)


def test_textgrid(tmp_path: Path) -> None:
    path = tmp_path / "words.TextGrid"
    path.write_text(written(Format.TEXTGRID), encoding="utf-8")
    expected = [(MS(word.start, abs=0.001), MS(word.end, abs=0.001), word.text) for word in PLACED]
    read = textgrid.openTextgrid(str(path), includeEmptyIntervals=False).getTier("words").entries
    assert [tuple(entry) for entry in read] == expected
    assert [entry for entry in TextGrid(str(path)).get_tier("words").get_all_intervals() if entry[2]] == expected


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(written(Format.CSV))))
    assert [(row["word"], float(row["start"]), float(row["end"]), row["status"]) for row in rows] == [
        (word.text, MS(word.start, abs=0.001), MS(word.end, abs=0.001), word.status.value) for word in WORDS
    ]
    assert [TEXT[int(row["char_start"]) : int(row["char_end"])] for row in rows] == [word.text for word in WORDS]


def test_audacity_labels() -> None:
    """As its manual has them: https://manual.audacityteam.org/man/importing_and_exporting_labels.html."""
    rows = [line.split("\t") for line in written(Format.AUDACITY).splitlines()]
    assert [(float(start), float(end), text) for start, end, text in rows] == [
        (MS(word.start, abs=0.001), MS(word.end, abs=0.001), word.text) for word in PLACED
    ]


def test_a_word_that_starts_with_the_one_before_has_no_tag_of_its_own() -> None:
    """WebVTT wants its tags to increase, and to be within the cue."""
    words = [
        Word(text, start, start + 0.5, 1.0, WordStatus.ALIGNED, 0, 1)
        for text, start in (("a", 1.0), ("b", 1.0), ("c", 1.2), ("d", 1.2))
    ]
    cue = render(Alignment(words, 3.0, "e", "en", 1.0), Format.WORD_VTT).split("\n")[3]
    assert cue == "a b <00:00:01.200>c d"


def test_braces_and_backslashes_start_no_override_of_ass() -> None:
    text = r"{\b1}a \N {x} c:\new"
    words = [
        Word("a", 0.0, 0.5, 1.0, WordStatus.ALIGNED, 5, 6),
        Word("new", 1.0, 1.5, 1.0, WordStatus.ALIGNED, len(text) - 3, len(text)),
    ]
    ass = render(Alignment(words, 3.0, "e", "en", 1.0), Format.ASS, transcript=text)
    (event,) = pysubs2.SSAFile.from_string(ass, format_="ass")
    assert re.findall(r"\{[^}]*\}", event.text) == [r"{\k50}", r"{\k50}", r"{\k50}"]
