"""A transcript for each channel: every format that can say who speaks does, and cues of channels may overlap."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from aligner_client import Alignment, Channel, Format, Stretch, Warning, Word, WordStatus
from aligner_client.alignment import Phone
from aligner_client.formats import CueLayout, render

_TEXTS = {0: "Good morning. Who is there?", 1: "<It's> me."}


def _word(channel: int, text: str, start: float, end: float) -> Word:
    at = _TEXTS[channel].index(text)
    phones = (Phone("AH", start, end),)
    return Word(text, start, end, 0.9, WordStatus.ALIGNED, at, at + len(text), "", phones, channel)


ALIGNMENT = Alignment(
    words=(
        _word(0, "Good", 0.1, 0.4),
        _word(0, "morning", 0.4, 0.9),
        _word(1, "It's", 0.8, 1.0),
        _word(1, "me", 1.0, 1.3),
        _word(0, "Who", 2.5, 2.7),
        _word(0, "is", 2.7, 2.8),
        _word(0, "there", 2.8, 3.0),
    ),
    audio_seconds=3.5,
    engine="e",
    language="en",
    match_score=0.5,
    warnings=(Warning("AUDIO_TRUNCATED", "of all"), Warning("TRANSCRIPT_MISMATCH", "of one", 1)),
    unaligned=(Stretch(3.1, 3.4, 1),),
    phone_set="ARPABET",
    channels=(Channel(0, 0.9, _TEXTS[0]), Channel(1, 0.5, _TEXTS[1])),
)


def test_one_channel_is_an_alignment_of_its_own() -> None:
    one = ALIGNMENT.channel(1)
    assert ([word.text for word in one.words], one.match_score, one.transcript) == (["It's", "me"], 0.5, _TEXTS[1])
    assert [warning.code for warning in one.warnings] == ["AUDIO_TRUNCATED", "TRANSCRIPT_MISMATCH"]
    assert (one.unaligned, ALIGNMENT.channel(0).unaligned) == ((Stretch(3.1, 3.4, 1),), ())
    with pytest.raises(ValueError, match="channel 2"):
        ALIGNMENT.channel(2)


def test_json_and_csv_have_the_channel_only_where_there_is_one() -> None:
    answer = json.loads(render(ALIGNMENT, Format.JSON))
    assert [word["channel"] for word in answer["words"]] == [0, 0, 1, 1, 0, 0, 0]
    assert answer["summary"]["channels"] == [{"channel": 0, "match_score": 0.9}, {"channel": 1, "match_score": 0.5}]
    assert [warning.get("channel") for warning in answer["summary"]["warnings"]] == [None, 1]
    assert answer["summary"]["unaligned"] == [{"start": 3.1, "end": 3.4, "channel": 1}]
    rows = render(ALIGNMENT, Format.CSV).splitlines()
    assert (rows[0].rpartition(",")[2], rows[3].rpartition(",")[2]) == ("channel", "1")


def test_tiers_of_praat_and_channels_of_sclite_are_apart() -> None:
    grid = render(ALIGNMENT, Format.TEXTGRID)
    assert re.findall(r'name = "(.*)"', grid) == ["words 0", "phones 0", "words 1", "phones 1"]
    for form in (Format.CTM, Format.PHONE_CTM):
        lines = [line.split() for line in render(ALIGNMENT, form).splitlines()]
        assert [line[1] for line in lines] == ["1"] * 5 + ["2"] * 2
        assert lines == sorted(lines, key=lambda line: (line[1], float(line[2])))


def test_subtitles_show_each_channel_in_cues_of_its_own() -> None:
    assert render(ALIGNMENT, Format.SRT) == (
        "1\n00:00:00,100 --> 00:00:00,900\nChannel 0: Good morning.\n\n"
        "2\n00:00:00,800 --> 00:00:01,300\nChannel 1: <It's> me.\n\n"
        "3\n00:00:02,500 --> 00:00:03,000\nChannel 0: Who is there?\n"
    )
    narrow = render(ALIGNMENT, Format.SRT, layout=CueLayout(line=20))
    assert max(len(line) for line in narrow.splitlines() if "-->" not in line) <= 20
    assert re.findall("<v (.*)>(.*)", render(ALIGNMENT, Format.VTT)) == [
        ("Channel 0", "Good morning."),
        ("Channel 1", "&lt;It's&gt; me."),
        ("Channel 0", "Who is there?"),
    ]
    events = [line.split(",")[4] for line in render(ALIGNMENT, Format.ASS).splitlines() if line.startswith("Dialogue")]
    assert events == ["Channel 0", "Channel 1", "Channel 0"]


def test_labels_and_a_notebook_say_the_channel() -> None:
    labels = [line.split("\t")[2] for line in render(ALIGNMENT, Format.AUDACITY).splitlines()]
    assert labels == ["0: Good", "0: morning", "1: It's", "1: me", "0: Who", "0: is", "0: there"]
    table = ALIGNMENT._repr_html_()
    assert re.findall("<tr><td>(.)</td>", table) == ["0", "0", "1", "1", "0", "0", "0"]
    assert "TRANSCRIPT_MISMATCH</b> (channel 1)" in table
    assert "channel" not in replace(ALIGNMENT, channels=(), warnings=())._repr_html_().partition("<table>")[2]


def test_a_page_shows_turns_in_the_order_of_their_times_with_all_that_is_between_the_words() -> None:
    page = render(ALIGNMENT, Format.HTML)
    blocks = re.findall('<div class="block">(.*?)</div>', page)
    shown = [re.sub("<[^>]*>", "", block) for block in blocks]
    assert shown == [
        "0:00.10Channel 0 Good morning.",
        "0:00.80Channel 1 &lt;It&#x27;s&gt; me.",
        "0:02.50Channel 0 Who is there?",
    ]
    assert re.findall(r'id="w(\d)"', page) == list("0123456")
