"""Long recordings window by window, with aligners that behave, and with some that do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.domain import SAMPLE_RATE, Clip, Token
from aligner_svc.engines.windows import Placed, Prefix, align_in_windows

UNSURE = 1.5


@dataclass(frozen=True)
class Span:
    start: float
    end: float


@dataclass(frozen=True)
class Asked:
    """A window the aligner was given. `first` and `samples` count samples of the clip."""

    first: int
    samples: int
    tokens: Sequence[Token]
    last: bool
    complete: bool

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE

    @property
    def begin(self) -> float:
        return self.first / SAMPLE_RATE

    @property
    def after(self) -> int:
        """The first sample after it."""
        return self.first + self.samples


@dataclass
class Aligner:
    """Answers with `answer(window)` and keeps what it was asked."""

    answer: Callable[[Asked], Prefix[Span]]
    asked: list[Asked] = field(default_factory=list)

    async def __call__(self, samples: npt.NDArray[np.int16], tokens: Sequence[Token], last: bool, complete: bool) -> Prefix[Span]:
        window = Asked(int(samples[0]) if len(samples) else -1, len(samples), tokens, last, complete)
        assert not len(samples) or samples[-1] == window.after - 1
        self.asked.append(window)
        return self.answer(window)


def numbered(seconds: float) -> Clip:
    """A clip whose samples are their own indices."""
    return Clip(np.arange(int(seconds * SAMPLE_RATE)))  # type: ignore[arg-type]


def words(count: int, spoken: int = 1) -> list[Token]:
    return [Token("w", index, index + 1, ("w",) * spoken) for index in range(count)]


def knowing(truth: Sequence[tuple[float, float]]) -> Aligner:
    """Knows when every word is said; sure of all but the last second and a half of an open window."""

    def answer(window: Asked) -> Prefix[Span]:
        limit = window.begin + window.seconds + (1e-3 if window.last else -UNSURE)
        spans = []
        for token in window.tokens:
            start, end = truth[token.char_start]
            if end > limit:
                break
            assert start > window.begin - 1e-3, "the window begins after the word"
            spans.append(Span(start - window.begin, end - window.begin))
        return Prefix(spans, spans[-1].end if spans else window.seconds - UNSURE)

    return Aligner(answer)


def every(step: float, count: int, first: float = 0.0) -> list[tuple[float, float]]:
    return [(first + index * step, first + index * step + 0.3) for index in range(count)]


def times(placed: Sequence[Placed[Span]]) -> list[float]:
    return [item.offset + item.span.start for item in placed]


@pytest.mark.parametrize("seconds", [0.06, 3.0, 19.9, 20.0, 24.99, 25.0, 25.01, 26.0, 45.0, 61.3, 600.0])
async def test_all_words_are_placed_when_they_are_said(seconds: float) -> None:
    truth = every(0.4, max(1, int((seconds - 0.3) / 0.4)), first=0.0)
    if seconds < 0.3:
        truth = [(0.0, seconds)]
    placed = await align_in_windows(numbered(seconds), words(len(truth)), knowing(truth))
    assert times(placed) == pytest.approx([start for start, _ in truth], abs=1e-3)


async def test_a_short_clip_is_one_window_that_must_hold_all() -> None:
    aligner = knowing(every(0.5, 20))
    await align_in_windows(numbered(12), words(20), aligner)
    assert [(window.samples, window.last, window.complete) for window in aligner.asked] == [(12 * SAMPLE_RATE, True, True)]


async def test_a_pause_longer_than_a_window() -> None:
    truth = every(0.5, 20) + every(0.5, 20, first=100.0)
    placed = await align_in_windows(numbered(130), words(40), knowing(truth))
    assert times(placed) == pytest.approx([start for start, _ in truth], abs=1e-3)


async def test_cost_grows_with_the_audio_and_not_faster() -> None:
    for seconds in (100, 1000):
        aligner = knowing(every(0.4, int(seconds / 0.4) - 1))
        await align_in_windows(numbered(seconds), words(int(seconds / 0.4) - 1), aligner)
        assert sum(window.seconds for window in aligner.asked) < 1.3 * seconds
        assert max(window.seconds for window in aligner.asked) <= 30
        assert max(len(window.tokens) for window in aligner.asked) < 300


async def test_nothing_is_ever_found() -> None:
    aligner = knowing([(1e9, 1e9)] * 500)
    assert await align_in_windows(numbered(200), words(500), aligner) == []
    assert len(aligner.asked) < 20
    assert aligner.asked[-1].after == 200 * SAMPLE_RATE


async def test_the_audio_ends_before_the_transcript() -> None:
    truth = every(0.4, 400) + [(1e9, 1e9)] * 600
    placed = await align_in_windows(numbered(165), words(1000), knowing(truth))
    assert times(placed) == pytest.approx([start for start, _ in truth[:400]], abs=1e-3)


@pytest.mark.parametrize("seconds", [5.0, 20.0, 25.0, 25.01, 61.3])
async def test_a_transcript_eight_times_as_long_as_the_audio_is_placed_to_the_end_of_the_audio(seconds: float) -> None:
    said = every(0.4, int((seconds - 0.3) / 0.4) + 1)
    aligner = knowing(said + [(1e9, 1e9)] * (7 * len(said)))
    placed = await align_in_windows(numbered(seconds), words(8 * len(said)), aligner)
    assert times(placed) == pytest.approx([start for start, _ in said], abs=1e-3)
    assert [(window.last, window.complete) for window in aligner.asked[:-1]] == [(False, False)] * (len(aligner.asked) - 1)
    assert (aligner.asked[-1].last, aligner.asked[-1].complete) == (True, False)


async def test_a_window_is_complete_when_it_is_offered_all_that_is_left_and_last_when_the_audio_ends_with_it() -> None:
    aligner = knowing(every(0.4, 150))
    await align_in_windows(numbered(100), words(150), aligner)
    for window in aligner.asked:
        assert window.complete == (window.tokens[-1].char_start == 149)
        assert window.last == (window.after == 100 * SAMPLE_RATE)
    assert {window.complete for window in aligner.asked} == {False, True}
    assert not any(window.last for window in aligner.asked), "the words end long before the audio"


async def test_the_transcript_ends_before_the_audio() -> None:
    aligner = knowing(every(0.4, 50))
    placed = await align_in_windows(numbered(1000), words(50), aligner)
    assert len(placed) == 50
    assert aligner.asked[-1].begin < 60, "audio after the last word need not be looked at"


@pytest.mark.parametrize("seconds", [25.05, 100.0, 900.0])
async def test_an_aligner_that_never_commits_is_asked_once_a_second(seconds: float) -> None:
    aligner = Aligner(lambda _: Prefix([], 0.0))
    clip = numbered(seconds)
    assert await align_in_windows(clip, words(5), aligner) == []
    assert [window.first for window in aligner.asked] == [second * SAMPLE_RATE for second in range(len(aligner.asked))]
    assert len(aligner.asked) <= seconds
    assert aligner.asked[-1].after == len(clip.samples)


@pytest.mark.parametrize("resume", [0.0, 0.3, 1.0, 1.7, 2.01, 8.03])
async def test_a_window_without_a_word_is_left_behind_by_a_second_at_least(resume: float) -> None:
    aligner = Aligner(lambda _: Prefix([], resume))
    await align_in_windows(numbered(60), words(5), aligner)
    steps = np.diff([window.first for window in aligner.asked])
    assert set(steps.tolist()) == {round(max(1.0, resume) * SAMPLE_RATE)}


async def test_a_word_is_committed_where_it_ends_even_if_that_is_less_than_a_second_on() -> None:
    aligner = Aligner(lambda window: Prefix([Span(0.0, 0.3)], 0.3))
    await align_in_windows(numbered(60), words(5), aligner)
    assert [window.first for window in aligner.asked] == [round(0.3 * index * SAMPLE_RATE) for index in range(5)]


async def test_an_aligner_that_commits_words_but_no_time() -> None:
    aligner = Aligner(lambda _: Prefix([Span(0.0, 0.0)], 0.0))
    assert len(await align_in_windows(numbered(100), words(50), aligner)) == 50
    assert len(aligner.asked) == 50


async def test_a_token_nobody_can_say_in_a_window_is_offered_alone() -> None:
    aligner = knowing([(0.0, 1e9)])
    assert await align_in_windows(numbered(60), words(1, spoken=4000), aligner) == []
    assert all(len(window.tokens) == 1 for window in aligner.asked)


@pytest.mark.parametrize("seconds", [0.0, 1.0])
async def test_no_words_or_no_audio_ask_nothing(seconds: float) -> None:
    aligner = knowing([])
    assert await align_in_windows(numbered(seconds), words(0 if seconds else 5), aligner) == []
    assert aligner.asked == []


async def test_progress_grows_and_ends_with_the_audio() -> None:
    told: list[float] = []
    await align_in_windows(numbered(100), words(240), knowing(every(0.4, 240)), told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(100, abs=1e-9)


_SECOND = SAMPLE_RATE


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    st.integers(1, 120 * _SECOND) | st.sampled_from([1, 20 * _SECOND - 1, 25 * _SECOND - 1, 25 * _SECOND, 25 * _SECOND + 1]),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20 * _SECOND)), max_size=20),
)
async def test_every_sample_is_heard_and_windows_meet_at_the_sample(count: int, commits: list[tuple[int, int]]) -> None:
    left = iter(commits)

    def answer(window: Asked) -> Prefix[Span]:
        chosen, resume = next(left, (0, 18 * _SECOND))
        return Prefix([Span(0.0, resume / _SECOND)] * chosen, resume / _SECOND)

    aligner = Aligner(answer)
    placed = await align_in_windows(Clip(np.arange(count)), words(1000), aligner)  # type: ignore[arg-type]
    asked = aligner.asked
    assert asked[0].first == 0
    assert asked[-1].after == count
    assert [window.last for window in asked] == [False] * (len(asked) - 1) + [True]
    answered = [*commits, *[(0, 18 * _SECOND)] * len(asked)]
    for (window, following), (chosen, resume) in zip(pairwise(asked), answered, strict=False):
        assert window.samples == 20 * _SECOND
        assert following.first == window.first + max(resume, 1 if chosen else _SECOND)
    assert asked[-1].samples <= 25 * _SECOND
    assert {item.offset for item in placed} <= {window.begin for window in asked}


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    st.floats(0.06, 150),
    st.integers(1, 400),
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1e-5, 0.01, 0.1, 0.5, 0.9, 1.0])), max_size=40),
    st.integers(1, 9),
)
async def test_whatever_is_committed_it_goes_forward(
    seconds: float, count: int, commits: list[tuple[float, float]], spoken: int
) -> None:
    clip, tokens, told = numbered(seconds), words(count, spoken), list[float]()
    left = iter(commits)

    def answer(window: Asked) -> Prefix[Span]:
        share, resume = next(left, (0.5, 0.9))
        chosen = int(share * len(window.tokens))
        return Prefix([Span(0.0, window.seconds)] * chosen, resume * window.seconds)

    aligner = Aligner(answer)
    placed = await align_in_windows(clip, tokens, aligner, told.append)
    asked = aligner.asked
    assert len(placed) <= count
    offsets = [item.offset for item in placed]
    assert offsets == sorted(offsets)
    assert (np.diff(told) >= -0.5 / SAMPLE_RATE - 1e-9).all()  # windows begin at whole samples
    assert told[-1] <= clip.seconds + 1e-9
    assert len(asked) <= count + seconds + 1
    assert asked[0].first == 0
    offered = 0
    for window, following in zip(asked, [*asked[1:], None], strict=True):
        assert window.samples > 0
        assert window.tokens
        assert window.tokens[0].char_start >= offered, "a committed token is offered again"
        offered = window.tokens[0].char_start
        if following is not None:
            assert window.first < following.first <= window.after, "audio was passed over unseen"
        assert window.last == (window.after == len(clip.samples) and following is None)
    if len(placed) < count:
        assert asked[-1].after == len(clip.samples), "it stopped early"
        assert told[-1] == pytest.approx(clip.seconds, abs=1e-9)


async def test_a_passage_nobody_read_is_searched_beyond_and_chance_is_not_final() -> None:
    """Tokens 50 to 349 were never said: more than a window is offered, so the place in the text is lost and found again."""
    said = {index: (0.4 * order, 0.4 * order + 0.3) for order, index in enumerate([*range(50), *range(350, 500)])}
    chance = Span(0.0, 0.001)

    def answer(window: Asked) -> Prefix[Span]:
        offered = [token.char_start for token in window.tokens]
        until = window.begin + window.seconds - (0.0 if window.last else UNSURE)
        here = [index for index in offered if index in said and window.begin - 1e-3 <= said[index][0] and said[index][1] <= until]
        if not here:
            return Prefix([chance] * 3, window.seconds / 2, 0.1)
        spans = [
            Span(said[index][0] - window.begin, said[index][1] - window.begin) if index in said else Span(0.0, 0.0)
            for index in range(offered[0], here[-1] + 1)
        ]
        return Prefix(spans, spans[-1].end, 1.0)

    aligner = Aligner(answer)
    placed = await align_in_windows(numbered(80.5), words(500), aligner)
    assert len(placed) == 500
    assert all(item.span is not chance for item in placed)
    found = {index: item.offset + item.span.start for index, item in enumerate(placed) if index in said}
    assert found == pytest.approx({index: start for index, (start, _) in said.items()}, abs=1e-3)
    assert max(len(window.tokens) for window in aligner.asked) <= 601


async def test_text_that_fits_by_chance_alone_ends_and_is_asked_at_most_once_more_a_window() -> None:
    aligner = Aligner(lambda window: Prefix([Span(0.0, 0.1)], 18.5, 0.1))
    placed = await align_in_windows(numbered(200), words(2000), aligner)
    assert len(aligner.asked) <= 13
    assert len(placed) <= 1
