"""When each recogniser is used and how their times are combined, with scripted recognisers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.pocketsphinx.ladder import Ladder, Placement, uncross
from aligner_svc.engines.pocketsphinx.recogniser import Segment
from aligner_svc.engines.pocketsphinx.second_opinion import Samples
from tests.aligner_svc.engines.pocketsphinx.test_second_opinion import SAID, FakeRecogniser, segments, spoken

LOUD = 1000
"""Sample value of the first letter; pauses are digital silence."""
PHONES = ("AH", "AH")


class LoudRecogniser(FakeRecogniser):
    def log_probabilities(self, samples: Samples) -> npt.NDArray[np.float32]:
        return super().log_probabilities(samples // LOUD)


@dataclass(frozen=True)
class Call:
    seconds: float
    words: Sequence[str]
    exits: Sequence[int]


@dataclass
class FakeAligner:
    """Returns `answers` one after the other, then the last one again."""

    answers: list[list[Segment] | None]
    calls: list[Call] = field(default_factory=list)

    def align(self, samples: Samples, words: Sequence[str], exits: Sequence[int] = ()) -> list[Segment] | None:
        self.calls.append(Call(len(samples) / SAMPLE_RATE, list(words), list(exits)))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def audio(words: Sequence[str]) -> Samples:
    return spoken(words) * np.int16(LOUD)


def placed(segment: Segment) -> Placement:
    return Placement(segment.start, segment.end, segment.score, None, segment.phones)


def ladder(*answers: list[Segment] | None) -> tuple[Ladder, FakeAligner, FakeRecogniser]:
    aligner, phonemes = FakeAligner(list(answers)), LoudRecogniser()
    return Ladder(aligner, phonemes), aligner, phonemes  # type: ignore[arg-type]


def doubted(known: Sequence[Segment], *indices: int, score: float = -6.0) -> list[Segment]:
    return [replace(segment, score=score) if index in indices else segment for index, segment in enumerate(known)]


# ---- without need nothing else runs


@pytest.mark.parametrize("exits", [(), range(len(SAID))])
def test_words_that_fit_need_no_second_opinion(exits: Sequence[int]) -> None:
    known = segments(SAID)
    made, aligner, phonemes = ladder(known)
    window = made.align(audio(SAID), SAID, exits)
    assert list(window.placements) == [placed(segment) for segment in known]
    assert (window.reached, window.noisy) == (len(SAID), False)
    assert len(aligner.calls) == 1
    assert phonemes.searched == []


def test_a_doubtful_word_that_was_said_is_confirmed_and_the_others_are_unchanged() -> None:
    known = doubted(segments(SAID), 7)
    made, aligner, phonemes = ladder(known)
    window = made.align(audio(SAID), SAID)
    assert [index for index, given in enumerate(window.placements) if given != placed(known[index])] == [7]
    confirmed = window.placements[7]
    assert confirmed is not None
    assert confirmed.gap == pytest.approx(0, abs=0.01)
    assert (confirmed.start, confirmed.end, confirmed.score) == (known[7].start, known[7].end, -6.0)
    assert len(aligner.calls) == 1
    assert len(phonemes.searched) == 1
    assert phonemes.searched[0] < len(spoken(SAID)) / 2


def test_many_doubtful_words_are_searched_in_all_of_the_audio() -> None:
    made, _, phonemes = ladder(doubted(segments(SAID), *range(0, 18, 3), score=-4.5))
    window = made.align(audio(SAID), SAID)
    assert phonemes.searched == [len(spoken(SAID))]
    assert all(given is not None and given.gap is not None for given in window.placements)


def test_a_few_doubtful_words_are_searched_where_they_are() -> None:
    made, _, phonemes = ladder(doubted(segments(SAID), 2, 14, score=-4.5))
    window = made.align(audio(SAID), SAID)
    assert len(phonemes.searched) == 2
    assert [index for index, given in enumerate(window.placements) if given is not None and given.gap is not None] == [2, 14]


def test_a_word_that_was_not_said_is_left_out_and_the_others_are_placed_without_it() -> None:
    words = [*SAID[:6], "haaah", *SAID[6:]]
    made, aligner, _ = ladder(segments(words, absent=[6]), segments(SAID))
    window = made.align(audio(SAID), words)
    assert window.placements[6] is None
    assert [given for given in window.placements if given is not None] == [placed(segment) for segment in segments(SAID)]
    assert [list(call.words) for call in aligner.calls] == [words, SAID]


@pytest.mark.parametrize("cut_short", [False, True])
def test_words_are_placed_again_in_all_of_the_audio_that_was_reached(cut_short: bool) -> None:
    """Although the only word that was searched is an early one that was not said."""
    words = [*SAID[:6], "haaah", *SAID[6:]]
    later = ["dead"] * 30
    first = segments(words, absent=[6])
    answers = [None, first, segments(SAID)] if cut_short else [first, segments(SAID)]
    made, aligner, _ = ladder(*answers)
    window = made.align(audio(SAID), [*words, *later], () if cut_short else range(len(words) + len(later)))
    assert window.reached == len(words)
    assert aligner.calls[-1].words == SAID
    assert aligner.calls[-1].seconds >= segments(SAID)[-1].end
    assert [given is not None for given in window.placements] == [word != "haaah" for word in words] + [False] * 30


# ---- audio cut short


def test_a_recording_cut_short_is_placed_as_far_as_it_goes() -> None:
    known = segments(SAID[:8])
    made, aligner, phonemes = ladder(None, known)
    window = made.align(audio(SAID[:8]), SAID)
    assert list(window.placements) == [*[placed(segment) for segment in known], *[None] * (len(SAID) - 8)]
    assert window.reached == 8
    assert [list(call.exits) for call in aligner.calls] == [[], list(range(1, len(SAID)))]
    assert phonemes.searched == []


def test_a_bad_fit_is_treated_as_none() -> None:
    known = segments(SAID[:8])
    squeezed = [Segment(index * 0.02, index * 0.02 + 0.02, -7.0, PHONES) for index in range(len(SAID))]
    made, _, _ = ladder(squeezed, known)
    assert made.align(audio(SAID[:8]), SAID).reached == 8


@pytest.mark.parametrize("prefix", [None, [], doubted(segments(SAID[:8]), *range(8)), segments(SAID[:2])])
def test_if_the_beginning_does_not_fit_either_everything_is_searched(prefix: list[Segment] | None) -> None:
    made, _, phonemes = ladder(None, prefix, None)
    window = made.align(audio(SAID[:8]), SAID)
    assert phonemes.searched == [len(spoken(SAID[:8]))]
    assert window.reached == len(SAID)
    assert [given is not None for given in window.placements] == [True] * 8 + [False] * (len(SAID) - 8)


def test_an_open_window_is_open_in_the_first_pass() -> None:
    exits = range(len(SAID))
    made, aligner, phonemes = ladder(None)
    window = made.align(audio(SAID[:8]), SAID, exits)
    assert list(aligner.calls[0].exits) == list(exits)
    assert not any(call.exits for call in aligner.calls[1:])
    assert phonemes.searched == [len(spoken(SAID[:8]))]
    assert window.reached == 8


def test_noisy_audio_goes_to_the_phoneme_recogniser() -> None:
    made, aligner, phonemes = ladder(None)
    hum = np.where(spoken(SAID) == 0, 900, spoken(SAID) * LOUD).astype(np.int16)
    window = made.align(hum, SAID)
    assert window.noisy
    assert phonemes.searched == [len(hum)]
    assert all(given is not None and given.score is None for given in window.placements)
    assert len(aligner.calls) == 1, "only on denoised audio"


# ---- order


@pytest.mark.parametrize(("score", "placed_again"), [(-1.0, True), (-3.0, False)])
def test_an_undetected_word_at_the_end_is_placed_if_it_fits_there(score: float, placed_again: bool) -> None:
    """The text begins before the clip; the phoneme recogniser misses the clip's last word."""
    words = [*["dead"] * 30, *SAID[:5], "haaah"]
    beside = segments(["dead", *SAID[:5], "haaah"])
    beside = [replace(beside[0], score=-3.0), *beside[1:6], replace(beside[6], score=score)]
    made, aligner, _ = ladder(None, None, beside, beside[1:7] if placed_again else beside[1:6])
    window = made.align(audio([*SAID[:5], SAID[5]]), words)
    assert [given is not None for given in window.placements] == [False] * 30 + [True] * 5 + [placed_again]
    assert list(aligner.calls[2].words) == words[-7:]


def test_times_from_two_recognisers_do_not_cross() -> None:
    known = segments(SAID)
    known[2] = replace(known[2], end=known[2].end + 0.14)  # and the next one somewhere else altogether
    known[3] = replace(known[3], start=known[3].start + 0.5, end=known[3].end + 0.5)
    made, _, _ = ladder(None, None, known)
    window = made.align(audio(SAID), SAID)
    second, third = window.placements[2], window.placements[3]
    assert second is not None
    assert third is not None
    assert (second.score, third.score) == (-0.5, None)
    assert second.end == third.start
    edges = [edge for given in window.placements if given is not None for edge in (given.start, given.end)]
    assert edges == sorted(edges)


def at(start: float, end: float) -> Placement:
    return Placement(start, end, -1.0, None, ())


def times(placements: Sequence[Placement | None]) -> list[tuple[float, float] | None]:
    return [None if given is None else (given.start, given.end) for given in placements]


@pytest.mark.parametrize(
    ("given", "ordered"),
    [
        ([], []),
        ([(0, 1), (1, 2)], [(0, 1), (1, 2)]),
        ([(0, 1), None, (1.5, 2)], [(0, 1), None, (1.5, 2)]),
        ([(0, 2), (1, 3)], [(0, 1.5), (1.5, 3)]),
        ([(0, 2), None, None, (1, 3)], [(0, 1.5), None, None, (1.5, 3)]),
        ([None, (5, 6), (1, 2)], [None, (5, 5), (5, 5)]),
        ([(0, 3), (1, 2), (2, 4)], [(0, 2), (2, 2), (2, 4)]),
    ],
)
def test_words_whose_times_cross_meet_half_way(
    given: list[tuple[float, float] | None], ordered: list[tuple[float, float] | None]
) -> None:
    assert times(uncross([None if time is None else at(*time) for time in given])) == ordered


_TIME = st.tuples(st.floats(0, 20), st.floats(0, 2)) | st.none()


@settings(max_examples=200)
@given(st.lists(_TIME, max_size=12))
def test_any_words_are_put_in_order(chosen: list[tuple[float, float] | None]) -> None:
    given = [None if time is None else at(time[0], time[0] + time[1]) for time in chosen]
    ordered = uncross(given)
    assert [placement is None for placement in ordered] == [placement is None for placement in given]
    edges = [edge for placement in ordered if placement for edge in (placement.start, placement.end)]
    assert edges == sorted(edges)
    assert uncross(ordered) == ordered
    inside = [edge for placement in given if placement for edge in (placement.start, placement.end)]
    assert not edges or (min(inside) <= edges[0] and edges[-1] <= max(inside))
