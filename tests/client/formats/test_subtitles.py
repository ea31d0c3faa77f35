"""Subtitles that a player accepts and a person can read, checked by parsers of their own."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_client.formats import Format, render
from aligner_client.markup import Markup
from aligner_svc.domain import PLACED, Alignment, Token, Word, WordStatus
from aligner_svc.text import tokenise
from aligner_svc.text.transcript import with_marks

Cue = tuple[float, float, list[str]]


def _seconds(hours: str, minutes: str, seconds: str, millis: str) -> float:
    assert int(minutes) < 60
    assert int(seconds) < 60
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(millis) / 1000


def _cue(block: list[str], mark: str) -> Cue:
    stamp = rf"(\d\d+):(\d\d):(\d\d)\{mark}(\d{{3}})"
    times = re.fullmatch(f"{stamp} --> {stamp}", block[0])
    assert times is not None
    start, end = _seconds(*times.groups()[:4]), _seconds(*times.groups()[4:])
    assert start < end
    assert end - start <= 7.0001
    assert len(block) > 1
    return start, end, block[1:]


def parse_srt(text: str) -> list[Cue]:
    if not text:
        return []
    assert text.endswith("\n")
    blocks = [block.split("\n") for block in text.removesuffix("\n").split("\n\n")]
    assert [block[0] for block in blocks] == [str(number) for number in range(1, len(blocks) + 1)]
    return _checked([_cue(block[1:], ",") for block in blocks])


def parse_vtt(text: str) -> list[Cue]:
    assert text.endswith("\n")
    header, *blocks = text.removesuffix("\n").split("\n\n")
    assert header.removesuffix("\n") == "WEBVTT"
    cues = [_cue(block.split("\n"), ".") for block in blocks]
    for _, _, lines in cues:
        assert not any("<" in line or ">" in line or re.search(r"&(?!amp;|lt;|gt;)", line) for line in lines)
    return _checked([(start, end, [html.unescape(line) for line in lines]) for start, end, lines in cues])


@pytest.mark.parametrize(("format", "start"), [(Format.SRT, "00:01:02,500 -->"), (Format.VTT, "00:01:02.500 -->")])
def test_subtitles_are_on_the_clock_of_the_film(format: Format, start: str) -> None:  # noqa: A002
    word = Word("late", 0.5, 1.0, 0.9, WordStatus.ALIGNED, 0, 4)
    alignment = Alignment((word,), 3.0, "e", "en", 1.0, audio_start=62.0)
    assert start in render(alignment, format)
    assert " 0.500 " in render(alignment, Format.CTM), "files beside the audio have its own times"
    assert '"start": 0.5' in render(alignment, Format.JSON)


def _checked(cues: list[Cue]) -> list[Cue]:
    assert all(left[1] <= right[0] for left, right in pairwise(cues))
    assert all(0 < len(line) <= 42 for _, _, lines in cues for line in lines)
    return cues


def aligned(transcript: str, *, step: float = 0.4, length: float = 0.3, at: float = 0.0, lost: range = range(0)) -> Alignment:
    """Every `step` seconds a word of `length` seconds; those in `lost` were not found, marks are skipped."""
    words: list[Word] = []
    place = 0
    for token in tokens(transcript):
        if token.skipped:
            words.append(Word(token.text, at, at, 0.0, WordStatus.SKIPPED, token.char_start, token.char_end))
            continue
        status = WordStatus.NOT_FOUND if place in lost else WordStatus.ALIGNED
        start = 0.0 if place in lost else at + place * step
        end = 0.0 if place in lost else start + length
        words.append(Word(token.text, start, end, 0.9, status, token.char_start, token.char_end))
        place += 1
    return Alignment(words, at + len(words) * step + 1, "e", "en", 0.9)


def tokens(transcript: str) -> Sequence[Token]:
    markup = Markup.of(transcript)
    return with_marks(markup, tokenise(markup.text, "en"))


def cues_of(transcript: str, alignment: Alignment) -> list[Cue]:
    srt = parse_srt(render(alignment, Format.SRT, transcript=transcript))
    assert parse_vtt(render(alignment, Format.VTT, transcript=transcript)) == srt
    if all(word.status is not WordStatus.NOT_FOUND for word in alignment.words):
        assert all(len(lines) <= 2 for _, _, lines in srt)
    return srt


def texts(transcript: str, alignment: Alignment) -> list[str]:
    return [" ".join(lines) for _, _, lines in cues_of(transcript, alignment)]


def test_times_are_those_of_the_first_and_the_last_word() -> None:
    assert cues_of("One two.", aligned("One two.", at=1.0)) == [(1.0, 1.7, ["One two."])]


def test_hours() -> None:
    text = "Late."
    alignment = aligned(text, at=360_000.5)
    assert render(alignment, Format.SRT, transcript=text) == "1\n100:00:00,500 --> 100:00:00,800\nLate.\n"
    assert "100:00:00.500 --> 100:00:00.800" in render(alignment, Format.VTT, transcript=text)


def test_punctuation_between_words_is_kept() -> None:
    text = '"Well," (she) said \u2014 word\u2014word (really)[ok] & <so> 5% \U0001f600 on.'
    assert texts(text, aligned(text, step=0.2, length=0.1)) == [text]


def test_without_a_transcript_the_words_stand_alone() -> None:
    text = '"Well," she said.'
    assert parse_srt(render(aligned(text), Format.SRT))[0][2] == ["Well she said"]


def test_vtt_escapes() -> None:
    text = "a < b & c --> d."
    assert "a &lt; b &amp; c --&gt; d." in render(aligned(text), Format.VTT, transcript=text)


def test_a_sentence_ends_a_cue_of_at_least_one_second() -> None:
    text = "This is one sentence. This is another. Yes. No."
    assert texts(text, aligned(text)) == ["This is one sentence.", "This is another.", "Yes. No."]


def test_an_abbreviation_ends_no_sentence() -> None:
    text = "We all saw Dr. Smith of the U.S. Army"
    assert texts(text, aligned(text)) == [text]


def test_a_pause_ends_a_cue() -> None:
    assert texts("a b", aligned("a b", step=1.0, length=0.4)) == ["a b"]
    assert texts("a b", aligned("a b", step=1.0, length=0.39)) == ["a", "b"]


def test_seven_seconds_end_a_cue() -> None:
    text = "a b c d e f g h i j"
    assert texts(text, aligned(text, step=1.0, length=0.9)) == ["a b c d e f g", "h i j"]
    long = Alignment([Word("long", 0.0, 20.0, 1.0, WordStatus.ALIGNED, 0, 4)], 20.0, "e", "en", 1.0)
    assert cues_of("long", long) == [(0.0, 7.0, ["long"])]


def test_two_lines_are_even() -> None:
    text = "the quick brown fox jumps over the lazy dog and runs"
    ((_, _, lines),) = cues_of(text, aligned(text, step=0.3))
    assert lines == ["the quick brown fox jumps", "over the lazy dog and runs"]


def test_words_longer_than_a_line() -> None:
    text = "see http://example.com/" + "x" * 100 + " now"
    shown = texts(text, aligned(text, step=2.0, length=1.9))
    assert "".join(shown).replace(" ", "") == text.replace(" ", "")


def test_lost_words_keep_their_place_and_set_no_time() -> None:
    text = "One two lost three."
    alignment = aligned(text, lost=range(2, 3))
    assert cues_of(text, alignment) == [(0.0, pytest.approx(1.5), [text])]
    assert cues_of("lost one", aligned("lost one", lost=range(1))) == [(0.4, pytest.approx(0.7), ["lost one"])]


def test_many_lost_words_are_added_to_a_neighbouring_cue() -> None:
    text = " ".join(f"word{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
    for lost in (range(20), range(3, 26), range(5, 24)):
        alignment = aligned(text, lost=lost)
        found = [word for word in alignment.words if word.status is not WordStatus.NOT_FOUND]
        cues = cues_of(text, alignment)
        assert " ".join(" ".join(lines) for _, _, lines in cues) == text
        assert cues[0][0] == pytest.approx(found[0].start)
        assert cues[-1][1] == pytest.approx(found[-1].end)


def test_lost_words_after_a_sentence_take_none_of_its_time() -> None:
    text = "One two three four. Five six seven eight. elephant zebra"
    assert cues_of(text, aligned(text, lost=range(8, 10))) == [
        (0.0, 1.5, ["One two three four."]),
        (1.6, 3.1, ["Five six seven eight. elephant zebra"]),
    ]
    text = "Elephant zebra. One two three four. Five."
    assert cues_of(text, aligned(text, lost=range(2))) == [
        (0.8, 2.3, ["Elephant zebra. One two three four."]),
        (2.4, 2.7, ["Five."]),
    ]


@pytest.mark.parametrize("lost", [range(40), range(40, 80), range(20, 60)])
def test_lost_words_move_no_cue(lost: range) -> None:
    text = " ".join(f"word{place}" for place in range(80))
    alignment = aligned(text, lost=lost)
    starts = {word.start for word in alignment.words if word.status is not WordStatus.NOT_FOUND}
    ends = {round(word.end, 3) for word in alignment.words if word.status is not WordStatus.NOT_FOUND}
    cues = cues_of(text, alignment)
    assert len(cues) > 2
    assert {start for start, _, _ in cues} <= {round(start, 3) for start in starts}
    assert {end for _, end, _ in cues} <= ends
    assert " ".join(" ".join(lines) for _, _, lines in cues) == text


def test_no_words_found_make_no_cue() -> None:
    alignment = aligned("a b", lost=range(2))
    assert render(alignment, Format.SRT) == ""
    assert render(alignment, Format.VTT) == "WEBVTT\n"


def test_control_characters_do_not_reach_the_file() -> None:
    text = "a\x00\n\n\x0b b\r\n\r\n1\n00:00"
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", render(aligned(text), Format.SRT, transcript=text))
    cues_of(text, aligned(text))


_TEXT = st.text(st.sampled_from("abcdefgh     ..,!?—()<>&\"'\n😀世") | st.characters(codec="utf-8"), max_size=400)


@settings(max_examples=200)
@given(_TEXT, st.data())
def test_any_transcript_and_any_times(text: str, data: st.DataObject) -> None:
    time = st.floats(0, 30, allow_nan=False)
    words = [
        Word(
            token.text,
            data.draw(time),
            data.draw(time),
            0.5,
            WordStatus.SKIPPED if token.skipped else data.draw(st.sampled_from([*PLACED, WordStatus.NOT_FOUND])),
            token.char_start,
            token.char_end,
        )
        for token in tokens(text)
    ]
    alignment = Alignment(words, 30.0, "e", "en", 0.5)
    cues = cues_of(text, alignment)
    if any(word.status in PLACED for word in words):
        shown = re.sub(r"\s", "", "".join("".join(lines) for _, _, lines in cues))
        if not Markup.of(text).marks:
            text = Markup.of(text).text
            assert shown == re.sub(r"[\s\x00-\x1f\x7f-\x9f]", "", text)
    else:
        assert cues == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "- Don't they still call you? - As though you are old?",
            [["- Don't they still call you?"], ["- As though you are old?"]],
        ),
        ("- Yes? - No.", [["- Yes?", "- No."]]),
        ("- Yes - No so - so", [["- Yes", "- No so - so"]]),
        ("word - word, then -- that", [["word - word, then -- that"]]),
        (">> So it is. >> MARY: No it is not.", [[">> So it is."], [">> MARY: No it is not."]]),
        ("MARY: So it is. JOHN: No it is not.", [["MARY: So it is."], ["JOHN: No it is not."]]),
        ("<v Mary>So it is.</v> <v Bob><i>No</i> it is &amp; not.", [["Mary: So it is."], ["Bob: No it is & not."]]),
        ("♪ Happy day ♪ ♪ Merry day ♪ said he", [["♪ Happy day ♪", "♪ Merry day ♪ said he"]]),
        ("One day\n♪ Happy day ♪\n♪ Merry day ♪", [["One day", "♪ Happy day ♪"], ["♪ Merry day ♪"]]),
        ("[laughter] so (laughs) it is. (sighs) No [MUSIC]", [["[laughter] so (laughs) it is."], ["(sighs) No [MUSIC]"]]),
        ("years[1] ago² it was", [["years ago it was"]]),
    ],
)
def test_what_opens_a_cue_is_in_it_and_markup_is_not(text: str, shown: list[list[str]]) -> None:
    assert [lines for _, _, lines in cues_of(text, aligned(text))] == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one two\nthree four", [["one two", "three four"]]),
        ("one\ntwo\nthree", [["one", "two"], ["three"]]),
        ("one two\n\nthree four", [["one two"], ["three four"]]),
        ("one two\r\n\r\nthree\r\nfour", [["one two"], ["three", "four"]]),
        ("1\n00:00:00,500 --> 00:00:02,000\none\n\n2\n00:00:02,000 --> 00:00:03,500\ntwo\nthree", [["one"], ["two", "three"]]),
        ("1 00:00:00,500 --> 00:00:02,000 one 2 00:00:02,000 --> 00:00:03,500 two", [["one"], ["two"]]),
        ("one<br>two", [["one", "two"]]),
    ],
)
def test_line_and_paragraph_breaks_are_kept(text: str, shown: list[list[str]]) -> None:
    assert [lines for _, _, lines in cues_of(text, aligned(text))] == shown


def test_a_line_of_the_transcript_that_is_too_long_is_broken_and_its_end_kept() -> None:
    text = "the quick brown fox jumps over the lazy dog and runs\non"
    assert [lines for _, _, lines in cues_of(text, aligned(text, step=0.2))] == [
        ["the quick brown fox jumps", "over the lazy dog and runs"],
        ["on"],
    ]
