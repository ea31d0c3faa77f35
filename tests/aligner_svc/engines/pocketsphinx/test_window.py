"""A window's tokens, the words in it that were not said, and how much of it is final."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.domain import SAMPLE_RATE, WordStatus
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner, Refined, WordSpan
from aligner_svc.engines.pocketsphinx.ladder import FirstPass, LadderWindow, Placement
from aligner_svc.engines.pocketsphinx.recogniser import Segment
from aligner_svc.engines.pocketsphinx.second_opinion import Samples
from aligner_svc.engines.pocketsphinx.window import WindowAligner
from aligner_svc.engines.pocketsphinx.wire import TokenSpan
from aligner_svc.engines.windows import Prefix

Times = tuple[float, float] | None
ALIGNED, REPAIRED, NOT_FOUND = WordStatus.ALIGNED, WordStatus.REPAIRED, WordStatus.NOT_FOUND


class FakeLadder:
    """Places the words at `times`."""

    def __init__(self, times: Sequence[Times], reached: int | None = None) -> None:
        self.times = times
        self.reached = len(times) if reached is None else reached
        self.exits: Sequence[int] = ()

    def align(
        self, samples: Samples, words: Sequence[str], exits: Sequence[int] = (), given: FirstPass | None = None
    ) -> LadderWindow:
        self.exits = exits
        assert len(words) == len(self.times)
        return LadderWindow([time and Placement(*time, -0.5, None, ()) for time in self.times], self.reached, noisy=False)


class FakeSpeller:
    def phones(self, word: str) -> tuple[str, ...]:
        return ("AH",) * max(1, len(word))


class UnmovedEdges(BoundaryRefiner):
    """Leaves all edges where they are."""

    def __init__(self) -> None:
        self.asked: Sequence[WordSpan] = ()

    def refine(self, samples: Samples, words: Sequence[WordSpan]) -> list[Refined]:
        self.asked = words
        return [Refined(word.start, word.end, 0.01) for word in words]


@pytest.fixture
def refiner() -> UnmovedEdges:
    return UnmovedEdges()


def answer(
    refiner: BoundaryRefiner,
    times: Sequence[Times],
    *,
    seconds: float = 20.0,
    last: bool = False,
    complete: bool = False,
    reached: int | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
    samples: Samples | None = None,
) -> Prefix[TokenSpan]:
    """Every word is a token unless `tokens` says otherwise, and was reached unless `reached` does; silence if no `samples`."""
    audio = np.zeros(int(seconds * SAMPLE_RATE), np.int16) if samples is None else samples
    aligner = WindowAligner(FakeLadder(times, reached), FakeSpeller(), refiner)  # type: ignore[arg-type]
    return aligner.align(audio, tokens or [["w"]] * len(times), last, complete)


def spans(given: Prefix[TokenSpan]) -> list[tuple[float, float, WordStatus]]:
    return [(span.start, span.end, span.status) for span in given.spans]


def running(first: int, last: int) -> list[Times]:
    """Words of a second each, without pauses."""
    return [(float(second), float(second + 1)) for second in range(first, last)]


# ---- tokens


def test_the_edges_of_words_that_only_the_phoneme_recogniser_placed_are_refined_too(refiner: UnmovedEdges) -> None:
    answer(refiner, [(0.1, 0.4), None, (1.0, 1.2)], last=True, complete=True, tokens=[["cats"], ["and"], ["me"]])
    assert [(span.start, span.phones) for span in refiner.asked] == [(0.1, ("AH",) * 4), (1.0, ("AH",) * 2)]


def test_the_words_of_a_token_are_one_span(refiner: BoundaryRefiner) -> None:
    found = answer(refiner, [(0.1, 0.4), (0.4, 0.9), (1.0, 1.2)], last=True, complete=True, tokens=[["twenty", "one"], ["cats"]])
    assert spans(found) == [(0.1, 0.9, ALIGNED), (1.0, 1.2, ALIGNED)]


def test_a_token_half_of_which_was_found_has_half_the_confidence(refiner: BoundaryRefiner) -> None:
    whole = answer(refiner, [(0.1, 0.4), (0.4, 0.9)], last=True, complete=True, tokens=[["twenty", "one"]]).spans[0]
    half = answer(refiner, [(0.1, 0.4), None], last=True, complete=True, tokens=[["twenty", "one"]]).spans[0]
    assert half.status is ALIGNED
    assert (half.start, half.end) == (0.1, 0.4)
    assert half.confidence == pytest.approx(whole.confidence / 2)
    assert half.evidence == pytest.approx(whole.evidence / 2)


def test_a_word_that_was_not_found_is_put_at_the_end_of_the_one_before(refiner: BoundaryRefiner) -> None:
    found = answer(refiner, [None, (0.5, 1.0), None, None, None, None, (1.0, 1.5), None], last=True, complete=True)
    assert spans(found) == [
        (0.0, 0.0, NOT_FOUND),
        (0.5, 1.0, ALIGNED),
        *[(1.0, 1.0, NOT_FOUND)] * 4,
        (1.0, 1.5, ALIGNED),
        (1.5, 1.5, NOT_FOUND),
    ]
    assert all(span.confidence == span.evidence == 0 for span in found.spans if span.status is NOT_FOUND)


def test_nothing_was_found(refiner: BoundaryRefiner) -> None:
    assert spans(answer(refiner, [None] * 3, last=True, complete=True)) == [(0.0, 0.0, NOT_FOUND)] * 3


def test_a_word_that_was_not_found_is_repaired_if_there_is_speech_in_its_place(refiner: BoundaryRefiner) -> None:
    samples = np.zeros(4 * SAMPLE_RATE, np.int16)
    samples[:SAMPLE_RATE] = samples[2 * SAMPLE_RATE : 3 * SAMPLE_RATE] = 5000
    samples[int(1.2 * SAMPLE_RATE) : int(1.8 * SAMPLE_RATE)] = 5000
    tokens = [["w"], ["wwww"], ["w"]]
    found = answer(refiner, [(0.0, 1.0), None, (2.0, 3.0)], last=True, complete=True, samples=samples, tokens=tokens)
    start, end, status = spans(found)[1]
    assert status is REPAIRED
    assert (start, end) == pytest.approx((1.2, 1.8), abs=0.01)
    assert 0 < found.spans[1].confidence < found.spans[0].confidence


@pytest.mark.parametrize(("middle", "status"), [([(0.9, 0.91)], REPAIRED), ([(0.9, 0.92), (0.92, 0.93)], NOT_FOUND)])
def test_no_word_is_aligned_that_is_shorter_than_its_sounds(
    refiner: BoundaryRefiner, middle: list[Times], status: WordStatus
) -> None:
    """One alone gets what it needs from its neighbours; for several in a row there is no room."""
    found = spans(answer(refiner, [(0.5, 0.9), *middle, (0.93, 1.4)], seconds=2.0, last=True, complete=True))
    assert [span[2] for span in found] == [ALIGNED, *[status] * len(middle), ALIGNED]
    assert found[1][1] - found[1][0] == pytest.approx(0.03 if status is REPAIRED else 0)
    edges = [edge for span in found for edge in span[:2]]
    assert edges == sorted(edges)


@pytest.mark.parametrize(("covered", "share"), [(range(4), 1.0), (range(2), 0.5), ([], 0.0)])
def test_coverage_is_the_share_of_the_loud_audio_with_words(
    refiner: BoundaryRefiner, covered: Sequence[int], share: float
) -> None:
    samples = np.zeros(8 * SAMPLE_RATE, np.int16)
    samples[: 4 * SAMPLE_RATE] = 5000
    times = [(float(second), float(second + 1)) if second in covered else None for second in range(4)]
    assert answer(refiner, times, seconds=8.0, samples=samples).coverage == pytest.approx(share, abs=0.01)


# ---- how much of a window is final


def test_a_final_window_returns_every_token(refiner: BoundaryRefiner) -> None:
    found = answer(refiner, running(0, 20), last=True, complete=True)
    assert len(found.spans) == 20
    assert found.resume == pytest.approx(20)


def test_only_in_an_open_window_may_the_audio_end_after_any_token(refiner: BoundaryRefiner) -> None:
    """Open: the audio goes on, or the tokens do, or both."""
    ladder = FakeLadder([(0.1, 0.4), (0.4, 0.9), (1.0, 1.2)])
    aligner = WindowAligner(ladder, FakeSpeller(), refiner)  # type: ignore[arg-type]
    samples = np.zeros(20 * SAMPLE_RATE, np.int16)
    aligner.align(samples, [["twenty", "one"], ["cats"]], last=True, complete=True)
    assert list(ladder.exits) == []
    for last, complete in ((True, False), (False, True), (False, False)):
        ladder.exits = ()
        aligner.align(samples, [["twenty", "one"], ["cats"]], last=last, complete=complete)
        assert set(ladder.exits) == {0, 2, 3}


@pytest.mark.parametrize("complete", [True, False])
def test_words_at_the_end_of_an_open_window_are_left_to_the_next(refiner: BoundaryRefiner, complete: bool) -> None:
    found = answer(refiner, running(0, 20), complete=complete)
    assert len(found.spans) == 18
    assert found.resume == pytest.approx(18)


@pytest.mark.parametrize("complete", [True, False])
def test_windows_meet_in_a_pause(refiner: BoundaryRefiner, complete: bool) -> None:
    times = [*running(0, 16), (16.4, 17.0), *running(17, 20)]
    found = answer(refiner, times, complete=complete)
    assert len(found.spans) == 16
    assert 16.0 < found.resume < 16.4


@pytest.mark.parametrize("complete", [True, False])
def test_the_next_window_begins_near_the_next_word_after_a_long_pause(refiner: BoundaryRefiner, complete: bool) -> None:
    found = answer(refiner, [*running(0, 16), (17.9, 18.2)], complete=complete)
    assert len(found.spans) == 17 or 16.0 < found.resume <= 16.5


@pytest.mark.parametrize("complete", [True, False])
def test_a_pause_far_back_is_not_used(refiner: BoundaryRefiner, complete: bool) -> None:
    found = answer(refiner, [(0.0, 1.0), *running(2, 20)], complete=complete)
    assert found.resume > 10


@pytest.mark.parametrize("complete", [True, False])
def test_absent_words_between_final_ones_are_final_too(refiner: BoundaryRefiner, complete: bool) -> None:
    found = answer(refiner, [*running(0, 5), *[None] * 5, *running(5, 20)], complete=complete)
    assert len(found.spans) == 5 + 5 + 13
    assert [span.status for span in found.spans[5:10]] == [NOT_FOUND] * 5


@pytest.mark.parametrize("complete", [True, False])
def test_absent_words_after_the_last_one_may_come_later(refiner: BoundaryRefiner, complete: bool) -> None:
    found = answer(refiner, [*running(0, 5), *[None] * 50], complete=complete)
    assert len(found.spans) == 5


@pytest.mark.parametrize("complete", [True, False])
def test_an_open_window_without_a_word_is_skipped(refiner: BoundaryRefiner, complete: bool) -> None:
    found = answer(refiner, [None] * 30, complete=complete)
    assert list(found.spans) == []
    assert 17 < found.resume <= 20


@pytest.mark.parametrize("start", [0.1, 5.0, 18.7])
@pytest.mark.parametrize("complete", [True, False])
def test_a_first_word_that_may_be_cut_off_is_aligned_again(refiner: BoundaryRefiner, complete: bool, start: float) -> None:
    found = answer(refiner, [(start, 19.5), None], complete=complete)
    assert list(found.spans) == []
    assert found.resume >= 1, "a window that begins where this one did finds the same"
    assert start < 1 or found.resume <= start


_WORD = st.tuples(st.floats(0.0, 1.0), st.floats(0.03, 2.0), st.booleans())


def inside(words: list[tuple[float, float, bool]], seconds: float) -> list[Times]:
    """Times of words given as (pause before, length, whether it was found), as far as the audio goes."""
    times: list[Times] = []
    at = 0.0
    for pause, length, there in words:
        start, end = at + pause, at + pause + length
        if not there or end > seconds:
            times.append(None)
        else:
            times.append((start, end))
            at = end
    return times


@settings(max_examples=150)
@given(st.lists(_WORD, min_size=1, max_size=40), st.floats(0.06, 25.0), st.booleans())
def test_any_open_window_advances_and_commits_in_order(
    words: list[tuple[float, float, bool]], seconds: float, complete: bool
) -> None:
    times = inside(words, seconds)
    found = answer(_REFINER, times, seconds=seconds, complete=complete)
    assert len(found.spans) <= len(times)
    assert 0 < found.resume <= seconds
    reached = 0.0
    for span in found.spans:
        assert reached <= span.start <= span.end <= found.resume + 1e-9
        reached = span.end
    coming = [time for time in times[len(found.spans) :] if time is not None]
    if coming and found.spans:
        assert found.resume <= coming[0][0] + 1e-9, "the next window begins in the middle of a word"


# ---- the audio ends, the tokens go on


def test_the_last_window_returns_the_tokens_up_to_the_end_of_the_audio(refiner: BoundaryRefiner) -> None:
    found = answer(refiner, [*running(0, 20), *[None] * 100], last=True, reached=20)
    assert spans(found) == [(float(second), float(second + 1), ALIGNED) for second in range(20)]
    assert found.resume == pytest.approx(20)


def test_absent_words_before_the_end_of_the_last_audio_are_final(refiner: BoundaryRefiner) -> None:
    found = answer(refiner, [*running(0, 5), *[None] * 4, (5.0, 6.0), None, None], last=True, reached=11)
    assert [span.status for span in found.spans] == [ALIGNED] * 5 + [NOT_FOUND] * 4 + [ALIGNED, NOT_FOUND]


@pytest.mark.parametrize(("reached", "count"), [(0, 0), (1, 0), (2, 1), (3, 2), (5, 2), (6, 3)])
def test_a_token_is_reached_with_its_last_word(refiner: BoundaryRefiner, reached: int, count: int) -> None:
    times: list[Times] = [(second, second + 1) if second < reached else None for second in range(6)]
    tokens = [["twenty", "one"], ["cats"], ["nineteen", "eighty", "four"]]
    assert len(answer(refiner, times, last=True, reached=reached, tokens=tokens).spans) == count


def test_in_a_final_window_tokens_after_the_end_of_the_audio_are_not_found(refiner: BoundaryRefiner) -> None:
    found = answer(refiner, [*running(0, 20), *[None] * 100], last=True, complete=True, reached=20)
    assert [span.status for span in found.spans] == [ALIGNED] * 20 + [NOT_FOUND] * 100
    assert {(span.start, span.end) for span in found.spans[20:]} == {(20.0, 20.0)}


@pytest.mark.parametrize(("last", "complete"), [(False, False), (False, True), (True, False), (True, True)])
def test_words_that_may_come_later_do_not_prevent_a_repair(refiner: BoundaryRefiner, last: bool, complete: bool) -> None:
    samples = np.zeros(20 * SAMPLE_RATE, np.int16)
    samples[: 4 * SAMPLE_RATE] = 5000
    times: list[Times] = [(0.0, 1.0), None, (2.0, 3.0), (3.0, 4.0), *[None] * 60]
    tokens = [["w"], ["wwwwww"], *[["w"]] * 62]
    found = answer(refiner, times, last=last, complete=complete, reached=4, samples=samples, tokens=tokens)
    assert spans(found)[:4] == [(0.0, 1.0, ALIGNED), (1.0, 2.0, REPAIRED), (2.0, 3.0, ALIGNED), (3.0, 4.0, ALIGNED)]
    assert all(span.status is NOT_FOUND for span in found.spans[4:])


@pytest.mark.parametrize("last", [False, True])
def test_chance_hits_do_not_lead_to_a_repair(refiner: BoundaryRefiner, last: bool) -> None:
    samples = np.full(20 * SAMPLE_RATE, 5000, np.int16)
    samples[: SAMPLE_RATE * 2] = 0
    times: list[Times] = [(2.0, 3.0), None, (4.0, 5.0), *[None] * 6]
    found = answer(refiner, times, last=last, reached=9, samples=samples)
    assert found.spans[1].status is NOT_FOUND


@given(st.lists(_WORD, min_size=1, max_size=40), st.floats(0.06, 25.0), st.integers(0, 40), st.booleans())
def test_any_last_window_returns_what_it_reached_in_order(
    words: list[tuple[float, float, bool]], seconds: float, later: int, complete: bool
) -> None:
    times = inside(words, seconds)
    found = answer(_REFINER, [*times, *[None] * later], seconds=seconds, last=True, complete=complete, reached=len(times))
    assert len(found.spans) == len(times) + (later if complete else 0)
    assert found.resume == pytest.approx(seconds, abs=1 / SAMPLE_RATE)
    reached = 0.0
    for span, time in zip(found.spans, [*times, *[None] * later], strict=False):
        assert reached <= span.start <= span.end <= seconds
        assert (span.status is NOT_FOUND) == (time is None)
        reached = span.end


_REFINER = BoundaryRefiner()


# ---- growing windows


class GrowingLadder(FakeLadder):
    """Its first pass finds the words at `times`; `asked`: the words that it was to place with everything it has."""

    def __init__(self, times: Sequence[Times], *, fits: bool) -> None:
        super().__init__(times)
        self.fits = fits
        self.asked: list[Sequence[str]] = []

    def first(self, samples: Samples, words: Sequence[str], exits: Sequence[int] = ()) -> FirstPass:
        return FirstPass([Segment(*time, -0.5, ("AH",)) for time in self.times if time], self.fits)

    def align(
        self, samples: Samples, words: Sequence[str], exits: Sequence[int] = (), given: FirstPass | None = None
    ) -> LadderWindow:
        self.asked.append(words)
        self.times = self.times[: len(words)]
        return super().align(samples, words, exits, given)


def growing(ladder: GrowingLadder, refiner: BoundaryRefiner, seconds: float) -> Prefix[TokenSpan]:
    """Of loud audio, as if somebody spoke without a pause."""
    samples = np.full(int(seconds * SAMPLE_RATE), 1000, np.int16)
    samples[: len(samples) // 10] = 1
    aligner = WindowAligner(ladder, FakeSpeller(), refiner)  # type: ignore[arg-type]
    return aligner.align(samples, [[word] for word in "abcdefgh"], last=False, complete=False, live=True)


SPOKEN: list[Times] = [(0.0, 0.5), (0.5, 1.0), (1.04, 1.6), (1.6, 2.1), (2.1, 2.5)]


def test_words_that_fit_are_final_before_the_speaker_pauses_and_only_they_cost_more_than_the_first_pass(
    refiner: UnmovedEdges,
) -> None:
    ladder = GrowingLadder([*SPOKEN, None, None, None], fits=True)
    found = growing(ladder, refiner, 2.5)
    assert spans(found) == [(0.0, 0.5, ALIGNED), (0.5, 1.0, ALIGNED)]  # before the widest gap
    assert 1.0 < found.resume < 1.04
    assert ladder.asked == [["a", "b"]]
    assert len(refiner.asked) == 2


def test_a_few_words_wait_for_a_pause(refiner: UnmovedEdges) -> None:
    ladder = GrowingLadder([(0.0, 0.5), (0.5, 1.0), (1.0, 2.5), *[None] * 5], fits=True)
    assert not growing(ladder, refiner, 2.5).spans
    assert not ladder.asked
    assert not refiner.asked


def test_words_that_do_not_fit_wait_and_cost_nothing_more_while_the_window_is_short(refiner: UnmovedEdges) -> None:
    ladder = GrowingLadder([*SPOKEN, None, None, None], fits=False)
    assert not growing(ladder, refiner, 4.9).spans
    assert not ladder.asked
    assert not growing(ladder, refiner, 5.0).spans  # there is no pause, and without one words that do not fit are not final
    assert len(ladder.asked) == 1
