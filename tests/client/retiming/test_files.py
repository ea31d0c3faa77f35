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
    ("line", "times", "later"),
    [
        ("0:00:01,5 --> 0:00:02,25", (1500, 2250), "0:00:02,7 --> 0:00:03,45"),
        ("00:01,500-->00:02,750", (1500, 2750), "00:02,700-->00:03,950"),
        ("  00:00:05,000 --> 00:00:04,000", (5000, 5000), "  00:00:06,200 --> 00:00:06,200"),
        ("00: 00: 01,000 -> 00: 00: 02,000", (1000, 2000), "00: 00: 02,200 -> 00: 00: 03,200"),  # by machine translation
        ("00:00:01.000 \u2013> 00:00:02:000", (1000, 2000), "00:00:02.200 \u2013> 00:00:03:200"),
        ("00:00:01 --> 00:00:02", (1000, 2000), "00:00:02,200 --> 00:00:03,200"),
        ("-00:00:01,000 --> 00:00:02,000", (-1000, 2000), "00:00:00,200 --> 00:00:03,200"),
        ("\u200f59:59,000 --> 100:00:00,000\u200f", (3_599_000, 360_000_000), "\u200f01:00:00,200 --> 100:00:01,200\u200f"),
    ],
)
def test_times_are_read_and_written_as_people_write_them(line: str, times: tuple[int, int], later: str) -> None:
    text = f"1\n00:00:00,000 --> 00:00:00,100\nfirst\n\n2\n{line}\nhello\n"
    file = SubtitleFile.of(text, TranscriptFormat.SRT)
    assert set(file.spoken.split("\n\n")) == {"first", "hello"}
    assert [(cue.start, cue.end) for cue in file.cues] == [(0, 100), times]
    assert file.with_times([(cue.start, cue.end) for cue in file.cues]) in {text, text.replace("04,000", "05,000")}
    assert later in file.with_times([(0, 100), (times[0] + 1200, times[1] + 1200)]).splitlines()


@FILES
def test_lines_of_old_macs_are_lines(text: str, kind: str) -> None:
    unix = text.replace("\r", "")
    mac = SubtitleFile.of(unix.replace("\n", "\r"), TranscriptFormat(kind))
    assert mac.cues == SubtitleFile.of(unix, TranscriptFormat(kind)).cues
    assert mac.with_times([(cue.start, cue.end) for cue in mac.cues]) == unix.replace("\n", "\r")


def test_a_line_of_blanks_does_not_end_a_cue_of_webvtt_that_has_an_empty_one() -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\n \nsaid\n\n00:03.000 --> 00:04.000\nthen\n \nid\n00:05.000 --> 00:06.000\nlast\n"
    assert SubtitleFile.of(text, TranscriptFormat.VTT).spoken.split("\n\n") == ["said", "then", "last"]


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("{\\k20}Hel{\\k30}lo", "{\\k20}Hel{\\k30}lo"),
        ("Watch {\\p1}m 0 0 l 9 9{\\p0} out", "Watch out"),
        ("{\\p2}m 0 0 l 9 9", ""),
        ("{\\pos(1,2)\\p0}Sign{by me}\\nhere", "{\\pos(1,2)\\p0}Sign here"),
    ],
)
def test_drawings_and_comments_within_an_event_are_not_said(shown: str, said: str) -> None:
    file = SubtitleFile.of(ASS + f"  dialogue: 0, 0:01:00.00 , 0:01:01.00 ,,,0,0,0,,{shown}\n", TranscriptFormat.ASS)
    spoken = file.spoken.rpartition("\n\n")[2]
    assert " ".join(spoken.split()) == said
    assert len(spoken) in {0, len(shown)}


def test_ruby_text_of_webvtt_is_not_said_beside_what_it_reads() -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\n<ruby>\u6f22<rt>kan</rt>\u5b57<rt>ji</ruby> too\n"
    spoken = SubtitleFile.of(text, TranscriptFormat.VTT).spoken
    assert "".join(spoken.split()) == "<ruby>\u6f22</rt>\u5b57</ruby>too"


def test_fields_of_events_are_those_that_the_file_names() -> None:
    text = "[events]\nformat: Start, End, Text\nDialogue: 0:00:01.00,0:00:02.00,Well, yes\n"
    file = SubtitleFile.of(text, TranscriptFormat.ASS)
    assert (file.spoken, file.cues[0].start, file.cues[0].end) == ("Well, yes", 1000, 2000)
    with pytest.raises(SubtitleError, match="no start"):
        SubtitleFile.of("[Events]\nFormat: Layer, End, Text\nDialogue: 0,0:00:01.00,x\n", TranscriptFormat.ASS)


@pytest.mark.parametrize(
    "text",
    [
        "Dialogue:" + " " * 200_000,
        "Dialogue: 0,0:00:01.00" + " " * 200_000 + ",",
        "\n \t" * 60_000 + "[Events]",
        ASS + "Dialogue: 0,0:00:03.00,0:00:04.00,,,0,0,0,," + "{" * 200_000,
        ASS + "Dialogue: 0,0:00:03.00,0:00:04.00,,,0,0,0,,{\\p1}" + "{\\p" * 60_000,
    ],
)
def test_time_is_linear_in_a_hostile_file(text: str) -> None:
    if not text.startswith("[Script"):
        with pytest.raises(SubtitleError):
            SubtitleFile.of(text, TranscriptFormat.ASS)
    else:
        assert len(SubtitleFile.of(text, TranscriptFormat.ASS).cues) == 4
