"""The second opinion searches everything, or the neighbourhood of a few doubtful words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_svc.engines.pocketsphinx.recogniser import Segment
from aligner_svc.engines.pocketsphinx.second_opinion import Samples, neighbourhoods, search_all, search_near

HOP = 320
"""Samples of the recogniser's frame, 20 ms, the shortest label."""
HELD, PAUSE = 4, 10
"""Frames of a letter, and of the pause before, between and after words."""
FRAME = 0.02
LAG = 0.1
"""Seconds a word may begin before its first frame."""


class FakeRecogniser:
    """Recognises the letters a-h in samples that are their numbers; nothing else can be spelled."""

    blank = 0

    def __init__(self) -> None:
        self.searched: list[int] = []
        """Samples of the pieces that were searched."""

    def spell(self, word: str) -> tuple[int, ...]:
        return tuple(ord(letter) - ord("a") + 1 for letter in word if letter in "abcdefgh")

    def log_probabilities(self, samples: Samples) -> npt.NDArray[np.float32]:
        self.searched.append(len(samples))
        labels = samples[HOP // 2 :: HOP]
        probabilities = np.full((len(labels), 9), 0.01 / 8, np.float32)
        probabilities[np.arange(len(labels)), labels] = 0.99
        return np.log(probabilities)


def spoken(words: Sequence[str]) -> Samples:
    labels = [0] * PAUSE
    for word in words:
        for letter in word:
            labels += [ord(letter) - ord("a") + 1] * HELD
        labels += [0] * PAUSE
    return np.repeat(labels, HOP).astype(np.int16)


def segments(words: Sequence[str], absent: Sequence[int] = ()) -> list[Segment]:
    """Where `spoken` puts `words`; absent ones take 50 ms of the pause before the next."""
    found, at = [], PAUSE
    for index, word in enumerate(words):
        if index in absent:
            found.append(Segment(at * FRAME - 0.05, at * FRAME, -7.0, ("AH",)))
            continue
        end = at + HELD * len(word)
        found.append(Segment(at * FRAME, end * FRAME, -0.5, ("AH",)))
        at = end + PAUSE
    return found


SAID = ["ab", "cde", "fg", "ha", "bdf", "ceg", "hfd", "ba", "gec", "dab", "feh", "cag", "bah", "ged", "ace", "hbg", "fad", "ech"]


# ---- which words are searched together


@pytest.mark.parametrize(
    ("doubtful", "count", "groups"),
    [
        ([], 20, []),
        ([5], 20, [(3, 7)]),
        ([0], 20, [(0, 2)]),
        ([19], 20, [(17, 19)]),
        ([0], 1, [(0, 0)]),
        ([1], 3, [(0, 2)]),
        ([5, 6], 20, [(3, 8)]),
        ([5, 9], 20, [(3, 11)]),
        ([5, 10], 20, [(3, 12)]),
        ([5, 11], 20, [(3, 7), (9, 13)]),
        ([2, 7, 12, 19], 20, [(0, 14), (17, 19)]),
        (list(range(20)), 20, [(0, 19)]),
    ],
)
def test_neighbourhoods_that_touch_are_merged(doubtful: list[int], count: int, groups: list[tuple[int, int]]) -> None:
    assert neighbourhoods(doubtful, count) == groups


@given(st.integers(1, 60), st.sets(st.integers(0, 59)))
def test_neighbourhoods_are_apart_and_have_two_words_on_each_side(count: int, chosen: set[int]) -> None:
    doubtful = sorted(index for index in chosen if index < count)
    groups = neighbourhoods(doubtful, count)
    held = [index for first, last in groups for index in range(first, last + 1)]
    near = {index + offset for index in doubtful for offset in range(-2, 3)}
    assert held == sorted(near & set(range(count)))
    assert all(after[0] > before[1] + 1 for before, after in pairwise(groups))


# ---- everything


def test_words_are_detected_where_they_were_said_and_others_are_not() -> None:
    words = [*SAID[:3], "hhaah", *SAID[3:]]
    opinion = search_all(FakeRecogniser(), spoken(SAID), words, ())
    assert opinion.reached == len(words)
    assert [index for index, detection in opinion.detections.items() if detection is None] == [3]
    known = segments(SAID)
    for detection, segment in zip([opinion.detections[i] for i in range(len(words)) if i != 3], known, strict=True):
        assert detection is not None
        assert segment.start - LAG <= detection.start <= segment.start
        assert detection.end == pytest.approx(segment.end)


def test_words_after_the_end_of_the_audio_are_missing() -> None:
    opinion = search_all(FakeRecogniser(), spoken(SAID[:5]), SAID, range(len(SAID)))
    assert opinion.reached == 5
    assert sorted(opinion.detections) == list(range(5))


def test_without_an_exit_no_word_is_missing() -> None:
    opinion = search_all(FakeRecogniser(), spoken(SAID[:5]), SAID, ())
    assert opinion.reached == len(SAID)
    assert [opinion.detections[index] is not None for index in range(len(SAID))] == [True] * 5 + [False] * (len(SAID) - 5)


def test_a_word_that_cannot_be_spelled_does_not_affect_the_others() -> None:
    opinion = search_all(FakeRecogniser(), spoken(SAID), [*SAID[:4], "zzz", *SAID[4:]], ())
    assert all(opinion.detections[index] is not None for index in range(len(SAID) + 1) if index != 4)


def test_nothing_is_detected() -> None:
    opinion = search_all(FakeRecogniser(), spoken(["hhhh"]), ["ab", "cde"], ())
    assert dict(opinion.detections) == {0: None, 1: None}


@pytest.mark.parametrize(
    ("extra", "passages"), [([], [[0, 1, 2, 3, 4, 5]]), (["h"], [[0, 1, 2, 3, 4, 5]]), (["bdbdbdbd"], [[0, 1, 2], [3, 4, 5]])]
)
def test_speech_that_is_not_in_the_text_parts_two_passages(extra: list[str], passages: list[list[int]]) -> None:
    opinion = search_all(FakeRecogniser(), spoken([*SAID[:3], *extra, *SAID[3:6]]), SAID[:6], ())
    assert opinion.passages() == passages


# ---- only the doubtful words


def test_without_doubtful_words_nothing_is_searched() -> None:
    phonemes = FakeRecogniser()
    opinion = search_near(phonemes, spoken(SAID), SAID, segments(SAID), [])
    assert (dict(opinion.detections), opinion.reached) == ({}, len(SAID))
    assert phonemes.searched == []


@pytest.mark.parametrize("doubtful", [[0], [1], [8], [17], [0, 17], [4, 5], [4, 9, 14], list(range(18))])
def test_times_count_from_the_beginning_of_the_audio(doubtful: list[int]) -> None:
    known = segments(SAID)
    opinion = search_near(FakeRecogniser(), spoken(SAID), SAID, known, doubtful)
    assert sorted(opinion.detections) == doubtful, "others are not doubtful"
    for index in doubtful:
        detection = opinion.detections[index]
        assert detection is not None
        assert known[index].start - LAG - FRAME <= detection.start <= known[index].start + FRAME
        assert detection.end == pytest.approx(known[index].end, abs=FRAME)
    assert opinion.reached == len(SAID)


@pytest.mark.parametrize("place", [0, 1, 9, 17, 18])
def test_a_doubtful_word_that_was_not_said_is_not_detected(place: int) -> None:
    words = [*SAID[:place], "haaah", *SAID[place:]]
    opinion = search_near(FakeRecogniser(), spoken(SAID), words, segments(words, absent=[place]), [place])
    assert dict(opinion.detections) == {place: None}


def test_only_the_audio_around_the_doubtful_words_is_searched() -> None:
    phonemes, known = FakeRecogniser(), segments(SAID)
    search_near(phonemes, spoken(SAID), SAID, known, [4, 13])
    wanted = [known[6].end - known[2].start + 0.5, known[15].end - known[11].start + 0.5]
    assert [length / 16_000 for length in phonemes.searched] == pytest.approx(wanted, abs=0.01)


def test_words_after_the_last_segment_may_come_later() -> None:
    known = segments(SAID[:6])
    opinion = search_near(FakeRecogniser(), spoken(SAID[:6]), SAID, known, [5])
    assert sorted(opinion.detections) == [5]
    assert opinion.detections[5] is not None
    assert opinion.reached == 6
