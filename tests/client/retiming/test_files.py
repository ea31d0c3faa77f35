"""A subtitle file with other times is the same file but for the digits of its times."""

from __future__ import annotations

import pytest

from aligner_client.retiming import SubtitleError, SubtitleFile, TranscriptFormat

SRT = (
    "1\r\n00:00:01,500 --> 00:00:02,750\r\n<i>Good evening,</i>\r\n- everyone.\r\n\r\n"
    "2\r\n00:00:03,000 --> 00:00:04,000 X1:10 X2:20\r\n[door]\r\n\r\n"
    "7\r\n01:02:03,004 --> 01:02:04,000\r\nIn 1984\r\n\r\nthere was a gap.\r\n"
)
VTT = (
    "WEBVTT - a title\nKind: captions\n\nNOTE 00:00:09.000 --> is no cue\n\nSTYLE\n::cue { color: red }\n\n"
    "intro\n00:01.500 --> 00:02.750 align:start\n<v Mary>Good <00:02.000>evening\n\n00:59:59.000 --> 01:00:00.000\nBye.\n"
)
ASS = (
    "[Script Info]\nTitle: x\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    "Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\\i1}Second{\\i0}, with, commas\\Nand a line\n"
    "Comment: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,not shown\n"
    "Dialogue: 0,0:00:01.50,0:00:02.75,Default,Mary,0,0,0,,First\n"
    "Dialogue: 1,0:00:05.00,0:00:06.00,Sign,,0,0,0,,{\\p1}m 0 0 l 10 10{\\p0}\n"
)
FILES = pytest.mark.parametrize(("text", "kind"), [(SRT, "srt"), (VTT, "vtt"), (ASS, "ass")])


@FILES
def test_the_times_of_the_file_itself_give_the_same_bytes(text: str, kind: str) -> None:
    file = SubtitleFile.of(text, TranscriptFormat(kind))
    assert file.with_times([(cue.start, cue.end) for cue in file.cues]) == text


@FILES
@pytest.mark.parametrize("by", [2_500, 3_600_000])
def test_other_times_change_nothing_but_digits(text: str, kind: str, by: int) -> None:
    file = SubtitleFile.of(text, TranscriptFormat(kind))
    moved = SubtitleFile.of(file.with_times([(cue.start + by, cue.end + by) for cue in file.cues]), TranscriptFormat(kind))
    assert [(cue.start - by, cue.end - by) for cue in moved.cues] == [(cue.start, cue.end) for cue in file.cues]
    assert moved.spoken.replace("01:00:02.000", "00:02.000").replace("00:04.500", "00:02.000") == file.spoken
    assert moved.text.count("\n") == text.count("\n")


def test_a_cue_of_srt_may_have_blank_lines_and_figures_in_it() -> None:
    file = SubtitleFile.of(SRT, TranscriptFormat.SRT)
    assert [SRT[slice(*cue.text_at)] for cue in file.cues] == [
        "<i>Good evening,</i>\r\n- everyone.",
        "[door]",
        "In 1984\r\n\r\nthere was a gap.",
    ]
    assert [(cue.start, cue.end) for cue in file.cues] == [(1500, 2750), (3000, 4000), (3_723_004, 3_724_000)]


def test_notes_and_styles_of_webvtt_are_no_cues_and_times_in_a_text_move_with_it() -> None:
    file = SubtitleFile.of(VTT, TranscriptFormat.VTT)
    assert file.spoken == "<v Mary>Good <00:02.000>evening\n\nBye."
    assert "00:04.000 --> 00:05.250 align:start\n<v Mary>Good <00:04.500>evening" in file.with_times([(4000, 5250), (9000, 9500)])


def test_events_of_ass_are_read_in_order_of_time_and_comments_and_drawings_are_not_said() -> None:
    file = SubtitleFile.of(ASS, TranscriptFormat.ASS)
    assert file.in_time == (1, 0, 2)
    assert file.spoken == "First\n\n{\\i1}Second{\\i0}, with, commas\\Nand a line\n\n"
    assert "Comment: 0,0:00:00.00,0:00:09.00" in file.with_times([(1, 2)] * 3)


def test_offsets_lead_back_to_the_file() -> None:
    file = SubtitleFile.of(ASS, TranscriptFormat.ASS)
    places = file.places()
    for word in ("First", "Second", "commas"):
        at = file.spoken.index(word)
        assert ASS[places.offset(at) :].startswith(word)
        assert places.cue(at) == (0 if word == "First" else 1)


@pytest.mark.parametrize("kind", ["srt", "vtt", "ass"])
@pytest.mark.parametrize("text", ["", "hello world", "00:01 hello", "[Events]\nDialogue: no times at all"])
def test_a_text_that_is_no_such_file_is_refused(text: str, kind: str) -> None:
    with pytest.raises(SubtitleError):
        SubtitleFile.of(text, TranscriptFormat(kind))


@pytest.mark.parametrize(
    ("line", "times"),
    [
        ("0:00:01,5 --> 0:00:02,25", (1500, 2250)),
        ("00:01,500-->00:02,750", (1500, 2750)),
        ("  00:00:05,000 --> 00:00:04,000", (5000, 5000)),
    ],
)
def test_times_are_read_as_people_write_them(line: str, times: tuple[int, int]) -> None:
    (cue,) = SubtitleFile.of(f"1\n{line}\nhello\n", TranscriptFormat.SRT).cues
    assert (cue.start, cue.end) == times


@pytest.mark.parametrize(
    "text", ["Dialogue:" + " " * 200_000, ASS + "Dialogue: 0,0:00:03.00,0:00:04.00,,,0,0,0,," + "{" * 200_000]
)
def test_time_is_linear_in_a_hostile_file(text: str) -> None:
    if text.startswith("Dialogue"):
        with pytest.raises(SubtitleError):
            SubtitleFile.of(text, TranscriptFormat.ASS)
    else:
        assert len(SubtitleFile.of(text, TranscriptFormat.ASS).cues) == 4
