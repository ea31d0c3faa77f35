"""Cues get the times of their words, and keep what an editor gave them besides: on files whose right times are known."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from aligner_client import Word, WordStatus
from aligner_client.retiming import Cue, CueStatus, Retiming, SubtitleFile, TranscriptFormat, retime

Said = list[tuple[float, float]]
Clock = Callable[[float], float | None]


def film(count: int = 120) -> list[Said]:
    """For each cue the times of its words, s."""
    draw = random.Random(3)
    at, cues = 1.0, []
    for _ in range(count):
        words: Said = []
        for _ in range(draw.randint(1, 9)):
            length = draw.uniform(0.15, 0.4)
            words.append((at, at + length))
            at += length
        cues.append(words)
        at += draw.uniform(0.1, 2.0)
    return cues


def srt(times: Sequence[tuple[float, float]], texts: Sequence[str]) -> str:
    def time(seconds: float) -> str:
        whole = round(seconds * 1000)
        return f"{whole // 3_600_000:02d}:{whole // 60_000 % 60:02d}:{whole // 1000 % 60:02d},{whole % 1000:03d}"

    pairs = zip(times, texts, strict=True)
    return "".join(f"{n}\n{time(start)} --> {time(end)}\n{text}\n\n" for n, ((start, end), text) in enumerate(pairs, 1))


def retimed(
    cues: Sequence[Said],
    file_clock: Clock = lambda time: time,
    film_clock: Clock = lambda time: time,
    *,
    noise: float = 0.015,
    lost: float = 0.03,
    options: Retiming | None = None,
    texts: Sequence[str] | None = None,
    leads: tuple[float, float] = (0.0, 0.0),
) -> tuple[list[tuple[float, float] | None], list[Cue]]:
    """Where each cue is in the film, None if it was cut, and where it was put. `lost`: the share of words that are not heard."""
    draw = random.Random(5)
    texts = texts or [" ".join(f"w{n}x{k}" for k in range(len(said))) for n, said in enumerate(cues)]
    old = [((file_clock(said[0][0]) or 0) - leads[0], (file_clock(said[-1][1]) or 0) + leads[1]) for said in cues]
    file = SubtitleFile.of(srt(old, texts), TranscriptFormat.SRT)
    words, at, right = [], 0, []
    for said, text in zip(cues, texts, strict=True):
        start, end = film_clock(said[0][0]), film_clock(said[-1][1])
        right.append(None if start is None or end is None else (start - leads[0], end + leads[1]))
        for word, (begin, stop) in zip(text.split() if "[" not in text else [], said, strict=False):
            at = file.spoken.index(word, at)
            begin_in_film, stop_in_film = film_clock(begin), film_clock(stop)
            if begin_in_film is None or stop_in_film is None or draw.random() < lost:
                words.append(Word(word, 0, 0, 0, WordStatus.NOT_FOUND, at, at + len(word)))
            else:
                off = draw.gauss(0, noise)
                words.append(Word(word, begin_in_film + off, stop_in_film + off, 0.9, WordStatus.ALIGNED, at, at + len(word)))
    return right, retime(file, words, options=options)


def cut(time: float) -> float | None:
    return time if time < 100 else None if time < 160 else time - 60


def inserted(time: float) -> float:
    return time if time < 100 else time + 30


@pytest.mark.parametrize(
    ("file_clock", "film_clock"),
    [
        (lambda time: time + 2.5, lambda time: time),
        (lambda time: time * 1.04, lambda time: time),
        (lambda time: time * 23.976 / 25, lambda time: time),
        (lambda time: time, cut),
        (lambda time: time, inserted),
        (lambda time: time * 1.04 + 2.5, cut),
    ],
    ids=["offset", "drift", "25 frames", "cut", "inserted", "drift and cut"],
)
def test_files_of_another_version_of_the_film(file_clock: Clock, film_clock: Clock) -> None:
    right, cues = retimed(film(), file_clock, film_clock)
    for at, cue in zip(right, cues, strict=True):
        if at is not None:
            assert (cue.start, cue.end) == pytest.approx(at, abs=0.1)
        else:
            assert cue.status is CueStatus.NOT_FOUND
        assert cue.end > cue.start
    assert not [one for one, other in pairwise(cues) if one.end > other.start]


def test_what_an_editor_gave_each_cue_besides_its_speech_is_kept() -> None:
    cues = film()
    right, found = retimed(cues, lambda time: time + 2.5, leads=(0.0, 0.05))
    assert all((cue.start, cue.end) == pytest.approx(at, abs=0.06) for at, cue in zip(right, found, strict=True))


def test_cues_that_share_no_line_are_put_at_their_words() -> None:
    draw = random.Random(7)
    right, cues = retimed(film(), lambda time: time + draw.uniform(-0.5, 0.5), lost=0.0)
    off = [abs(cue.start - at[0]) for at, cue in zip(right, cues, strict=True) if at]
    assert sorted(off)[len(off) * 95 // 100] < 0.1


def test_a_cue_of_one_word_heard_elsewhere_goes_with_its_neighbours() -> None:
    cues = film(30)
    cues[12] = [cues[12][0]]
    strange = cues[12][0][0]

    def elsewhere(time: float) -> float:
        return time + 1.5 if strange <= time < strange + 0.4 else time + 2.5

    cues[13] = [(start + 2, end + 2) for start, end in cues[13]]
    _, found = retimed(cues, film_clock=elsewhere, lost=0.0)
    assert found[12].status is CueStatus.DOUBTFUL
    assert found[12].shift == pytest.approx(2.5, abs=0.05)


def test_sounds_go_with_their_neighbours_only() -> None:
    cues = film(30)
    texts = [" ".join(f"w{n}x{k}" for k in range(len(said))) for n, said in enumerate(cues)]
    texts[7] = "[door]"
    _, found = retimed(cues, film_clock=lambda time: time + 2.5, texts=texts)
    assert found[7].status is CueStatus.MOVED
    assert found[7].shift == pytest.approx(2.5, abs=0.05)


def test_nothing_moves_farther_than_allowed() -> None:
    right, cues = retimed(film(), film_clock=inserted, options=Retiming(max_shift=5.0))
    far = [cue for at, cue in zip(right, cues, strict=True) if at and at[0] > 130]
    assert {cue.status for cue in far} == {CueStatus.TOO_FAR}
    assert max(abs(cue.shift) for cue in cues) <= 5.0


def test_leads_durations_and_frames() -> None:
    options = Retiming(lead_in=0.08, lead_out=0.2, min_duration=1.0, max_duration=2.0, frame_rate=25)
    right, cues = retimed(film(), lambda time: time + 2.5, options=options, lost=0.0)
    for at, cue, following in zip(right, cues, cues[1:], strict=False):
        assert at is not None
        assert cue.start == pytest.approx(at[0] - 0.08, abs=0.1)
        assert cue.end == following.start or 0.95 <= cue.end - cue.start <= 2.05
        assert cue.end <= following.start
        assert round(cue.start * 25) / 25 == pytest.approx(cue.start, abs=0.0006)


def test_cues_that_overlap_in_the_file_still_do_and_others_do_not() -> None:
    cues = [[(1.0, 1.5), (1.5, 2.0)], [(2.0, 2.5), (2.5, 3.0)], [(3.0, 3.5), (3.5, 4.0)]]
    _, found = retimed(cues, leads=(0.0, 0.4), lost=0.0, film_clock=lambda time: time + 1)
    assert found[0].end > found[1].start


def test_a_film_in_which_nothing_was_heard_leaves_the_file_alone() -> None:
    cues = film(10)
    right, found = retimed(cues, lost=1.0)
    assert all((cue.start, cue.end) == pytest.approx(at, abs=0.001) for at, cue in zip(right, found, strict=True))
    assert {cue.status for cue in found} == {CueStatus.NOT_FOUND}


def test_a_cue_that_is_shown_in_two_layers_is_said_once_and_moves_with_its_twin() -> None:
    event = "Dialogue: {},0:00:0{}.00,0:00:0{}.00,,,0,0,0,,{}\n"
    layers = [(0, 1, 2, "{\\blur3}one"), (1, 1, 2, "{\\k20}o{\\k80}ne "), (0, 1, 2, "two"), (0, 3, 4, "one")]
    file = SubtitleFile.of("".join(event.format(*layer) for layer in layers), TranscriptFormat.ASS)
    assert file.spoken.split() == ["{\\blur3}one", "two", "one"]
    words = [Word("one", 7, 8, 0.9, WordStatus.ALIGNED, at, at + 3) for at in (file.spoken.index("one"),)]
    cues = retime(file, words)
    assert (cues[0].start, cues[0].end) == (cues[1].start, cues[1].end) == (7.0, 8.0)


def test_a_cue_without_words_that_is_shown_with_speech_stays_with_it() -> None:
    times = [(1, 4), (2, 3), (3.5, 6), (7, 9), (7, 9)]
    file = SubtitleFile.of(srt(times, ["one", "\u266a", "[door]", "two", "\u266a\u266a"]), TranscriptFormat.SRT)
    at = {text: file.spoken.index(text) for text in ("one", "two")}
    words = [
        Word(text, start, end, 0.9, WordStatus.ALIGNED, at[text], at[text] + 3)
        for text, start, end in (("one", 11, 14), ("two", 17, 19))
    ]
    assert [(cue.start - 10, cue.end - 10) for cue in retime(file, words)] == [pytest.approx(time, abs=0.005) for time in times]
