"""What the second opinion listens to: everything, or the neighbourhood of a few words in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.engines.pocketsphinx.recogniser import Segment
from aligner_svc.engines.pocketsphinx.second_opinion import Samples, _groups, listen, listen_near

HOP = 320
"""Samples a label lasts at least: the recogniser's frame, 20 ms."""
HELD, PAUSE = 4, 10
"""Frames of a letter, and of the pause before, between and after words."""
FRAME = 0.02
LAG = 0.1
"""Seconds a word may be said to begin before its first frame."""


class FakeSpelling:
    """Hears the letters a-h in samples that are their numbers; nothing else can be spelled."""

    blank = 0

    def __init__(self) -> None:
        self.heard: list[int] = []
        """Samples of the pieces that were listened to."""

    def spell(self, word: str) -> tuple[int, ...]:
        return tuple(ord(letter) - ord("a") + 1 for letter in word if letter in "abcdefgh")

    def log_probabilities(self, samples: Samples) -> npt.NDArray[np.float32]:
        self.heard.append(len(samples))
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
    """Where `words` are if they are said as `spoken`; absent ones take 50 ms of the pause before the next."""
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


# ---- which words are heard together


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
def test_neighbourhoods_that_touch_are_one(doubtful: list[int], count: int, groups: list[tuple[int, int]]) -> None:
    assert _groups(doubtful, count) == groups


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(1, 60), st.sets(st.integers(0, 59)))
def test_any_neighbourhoods_are_apart_and_hold_two_words_on_each_side(count: int, chosen: set[int]) -> None:
    doubtful = sorted(index for index in chosen if index < count)
    groups = _groups(doubtful, count)
    held = [index for first, last in groups for index in range(first, last + 1)]
    near = {index + away for index in doubtful for away in range(-2, 3)}
    assert held == sorted(near & set(range(count)))
    assert all(after[0] > before[1] + 1 for before, after in pairwise(groups))


# ---- everything


def test_words_are_heard_where_they_were_said_and_others_are_not() -> None:
    words = [*SAID[:3], "hhaah", *SAID[3:]]
    heard = listen(FakeSpelling(), spoken(SAID), words, ())
    assert heard.reached == len(words)
    assert [index for index, sighting in heard.sightings.items() if sighting is None] == [3]
    known = segments(SAID)
    for sighting, segment in zip([heard.sightings[i] for i in range(len(words)) if i != 3], known, strict=True):
        assert sighting is not None
        assert segment.start - LAG <= sighting.start <= segment.start
        assert sighting.end == pytest.approx(segment.end)
    assert heard.end == pytest.approx(known[-1].end)


def test_words_the_audio_does_not_reach_are_not_spoken_of() -> None:
    heard = listen(FakeSpelling(), spoken(SAID[:5]), SAID, range(len(SAID)))
    assert heard.reached == 5
    assert sorted(heard.sightings) == list(range(5))
    assert heard.end == pytest.approx(segments(SAID[:5])[-1].end)


def test_without_an_exit_every_word_is_spoken_of() -> None:
    heard = listen(FakeSpelling(), spoken(SAID[:5]), SAID, ())
    assert heard.reached == len(SAID)
    assert [heard.sightings[index] is not None for index in range(len(SAID))] == [True] * 5 + [False] * (len(SAID) - 5)
    assert heard.end == pytest.approx(segments(SAID[:5])[-1].end)


def test_a_word_nobody_can_spell_is_no_obstacle() -> None:
    heard = listen(FakeSpelling(), spoken(SAID), [*SAID[:4], "zzz", *SAID[4:]], ())
    assert all(heard.sightings[index] is not None for index in range(len(SAID) + 1) if index != 4)


def test_nothing_was_heard() -> None:
    heard = listen(FakeSpelling(), spoken(["hhhh"]), ["ab", "cde"], ())
    assert dict(heard.sightings) == {0: None, 1: None}
    assert heard.end == 0.0


# ---- only the words in doubt


def test_nothing_in_doubt_is_not_listened_for() -> None:
    spelling = FakeSpelling()
    heard = listen_near(spelling, spoken(SAID), SAID, segments(SAID), [])
    assert (dict(heard.sightings), heard.reached) == ({}, len(SAID))
    assert spelling.heard == []


@pytest.mark.parametrize("doubtful", [[0], [1], [8], [17], [0, 17], [4, 5], [4, 9, 14], list(range(18))])
def test_times_count_from_the_beginning_of_the_audio(doubtful: list[int]) -> None:
    known = segments(SAID)
    heard = listen_near(FakeSpelling(), spoken(SAID), SAID, known, doubtful)
    assert sorted(heard.sightings) == doubtful, "others are not in doubt"
    for index in doubtful:
        sighting = heard.sightings[index]
        assert sighting is not None
        assert known[index].start - LAG - FRAME <= sighting.start <= known[index].start + FRAME
        assert sighting.end == pytest.approx(known[index].end, abs=FRAME)
    assert heard.reached == len(SAID)
    assert heard.end == known[-1].end


@pytest.mark.parametrize("place", [0, 1, 9, 17, 18])
def test_a_word_in_doubt_that_was_not_said_is_not_heard(place: int) -> None:
    words = [*SAID[:place], "haaah", *SAID[place:]]
    heard = listen_near(FakeSpelling(), spoken(SAID), words, segments(words, absent=[place]), [place])
    assert dict(heard.sightings) == {place: None}


def test_only_the_audio_around_the_words_in_doubt_is_listened_to() -> None:
    spelling, known = FakeSpelling(), segments(SAID)
    listen_near(spelling, spoken(SAID), SAID, known, [4, 13])
    wanted = [known[6].end - known[2].start + 0.5, known[15].end - known[11].start + 0.5]
    assert [length / 16_000 for length in spelling.heard] == pytest.approx(wanted, abs=0.01)


def test_words_after_the_last_segment_may_come_later() -> None:
    known = segments(SAID[:6])
    heard = listen_near(FakeSpelling(), spoken(SAID[:6]), SAID, known, [5])
    assert sorted(heard.sightings) == [5]
    assert heard.sightings[5] is not None
    assert (heard.reached, heard.end) == (6, known[-1].end)
