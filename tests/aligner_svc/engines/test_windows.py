"""Long recordings window by window, with correct aligners and with faulty ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.domain import SAMPLE_RATE, Clip, Token, WordStatus
from aligner_svc.engines.windows import Placed, Prefix, align_in_windows

UNSURE = 1.5


@dataclass(frozen=True)
class Span:
    start: float
    end: float
    status: WordStatus = WordStatus.ALIGNED


@dataclass(frozen=True)
class Window:
    """A window the aligner was called with. `first` and `samples` count samples of the clip."""

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
    """Returns `answer(window)` and records the windows."""

    answer: Callable[[Window], Prefix[Span]]
    windows: list[Window] = field(default_factory=list)

    async def __call__(self, samples: npt.NDArray[np.int16], tokens: Sequence[Token], last: bool, complete: bool) -> Prefix[Span]:
        window = Window(int(samples[0]) if len(samples) else -1, len(samples), tokens, last, complete)
        assert not len(samples) or samples[-1] == window.after - 1
        self.windows.append(window)
        return self.answer(window)


def numbered(seconds: float) -> Clip:
    """A clip whose samples are their own indices."""
    return Clip(np.arange(int(seconds * SAMPLE_RATE)))  # type: ignore[arg-type]


def words(count: int, spoken: int = 1) -> list[Token]:
    return [Token("w", index, index + 1, ("w",) * spoken) for index in range(count)]


def knowing(truth: Sequence[tuple[float, float]]) -> Aligner:
    """Finds every word; commits all but the last 1.5 s of an open window."""

    def answer(window: Window) -> Prefix[Span]:
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
    return [item.offset + item.span.start for item in placed if item.span is not None]


@pytest.mark.parametrize("seconds", [0.06, 3.0, 19.9, 20.0, 24.99, 25.0, 25.01, 26.0, 45.0, 61.3, 600.0])
async def test_all_words_are_placed_when_they_are_said(seconds: float) -> None:
    truth = every(0.4, max(1, int((seconds - 0.3) / 0.4)), first=0.0)
    if seconds < 0.3:
        truth = [(0.0, seconds)]
    placed = await align_in_windows(numbered(seconds), words(len(truth)), knowing(truth))
    assert times(placed) == pytest.approx([start for start, _ in truth], abs=1e-3)


async def test_a_short_clip_is_one_window_with_all_words() -> None:
    aligner = knowing(every(0.5, 20))
    await align_in_windows(numbered(12), words(20), aligner)
    assert [(window.samples, window.last, window.complete) for window in aligner.windows] == [(12 * SAMPLE_RATE, True, True)]


async def test_a_pause_longer_than_a_window() -> None:
    truth = every(0.5, 20) + every(0.5, 20, first=100.0)
    placed = await align_in_windows(numbered(130), words(40), knowing(truth))
    assert times(placed) == pytest.approx([start for start, _ in truth], abs=1e-3)


async def test_cost_grows_linearly_with_the_audio() -> None:
    for seconds in (100, 1000):
        aligner = knowing(every(0.4, int(seconds / 0.4) - 1))
        await align_in_windows(numbered(seconds), words(int(seconds / 0.4) - 1), aligner)
        assert sum(window.seconds for window in aligner.windows) < 1.3 * seconds
        assert max(window.seconds for window in aligner.windows) <= 30
        assert max(len(window.tokens) for window in aligner.windows) < 300


async def test_an_aligner_that_finds_nothing() -> None:
    aligner = knowing([(1e9, 1e9)] * 500)
    assert await align_in_windows(numbered(200), words(500), aligner) == []
    assert len(aligner.windows) < 20
    assert aligner.windows[-1].after == 200 * SAMPLE_RATE


async def test_audio_that_ends_before_the_transcript() -> None:
    truth = every(0.4, 400) + [(1e9, 1e9)] * 600
    placed = await align_in_windows(numbered(165), words(1000), knowing(truth))
    assert times(placed) == pytest.approx([start for start, _ in truth[:400]], abs=1e-3)


@pytest.mark.parametrize("seconds", [5.0, 20.0, 25.0, 25.01, 61.3])
async def test_a_transcript_eight_times_as_long_as_the_audio_is_placed_to_the_end_of_the_audio(seconds: float) -> None:
    said = every(0.4, int((seconds - 0.3) / 0.4) + 1)
    aligner = knowing(said + [(1e9, 1e9)] * (7 * len(said)))
    placed = await align_in_windows(numbered(seconds), words(8 * len(said)), aligner)
    assert times(placed) == pytest.approx([start for start, _ in said], abs=1e-3)
    assert [(window.last, window.complete) for window in aligner.windows[:-1]] == [(False, False)] * (len(aligner.windows) - 1)
    assert (aligner.windows[-1].last, aligner.windows[-1].complete) == (True, False)


async def test_a_window_is_complete_with_all_remaining_tokens_and_last_at_the_end_of_the_audio() -> None:
    aligner = knowing(every(0.4, 150))
    await align_in_windows(numbered(100), words(150), aligner)
    for window in aligner.windows:
        assert window.complete == (window.tokens[-1].char_start == 149)
        assert window.last == (window.after == 100 * SAMPLE_RATE)
    assert {window.complete for window in aligner.windows} == {False, True}
    assert not any(window.last for window in aligner.windows), "the words end long before the audio"


async def test_a_transcript_that_ends_before_the_audio() -> None:
    aligner = knowing(every(0.4, 50))
    placed = await align_in_windows(numbered(1000), words(50), aligner)
    assert len(placed) == 50
    assert aligner.windows[-1].begin < 60, "audio after the last word need not be aligned"


@pytest.mark.parametrize("seconds", [25.05, 100.0, 900.0])
async def test_an_aligner_that_never_commits_is_called_once_a_second(seconds: float) -> None:
    aligner = Aligner(lambda _: Prefix([], 0.0))
    clip = numbered(seconds)
    assert await align_in_windows(clip, words(5), aligner) == []
    assert [window.first for window in aligner.windows] == [second * SAMPLE_RATE for second in range(len(aligner.windows))]
    assert len(aligner.windows) <= seconds
    assert aligner.windows[-1].after == len(clip.samples)


@pytest.mark.parametrize("resume", [0.0, 0.3, 1.0, 1.7, 2.01, 8.03])
async def test_after_a_window_without_a_word_the_next_is_a_second_later_at_least(resume: float) -> None:
    aligner = Aligner(lambda _: Prefix([], resume))
    await align_in_windows(numbered(60), words(5), aligner)
    steps = np.diff([window.first for window in aligner.windows])
    assert set(steps.tolist()) == {round(max(1.0, resume) * SAMPLE_RATE)}


async def test_after_a_committed_word_the_next_window_may_be_less_than_a_second_later() -> None:
    aligner = Aligner(lambda window: Prefix([Span(0.0, 0.3)], 0.3))
    await align_in_windows(numbered(60), words(5), aligner)
    assert [window.first for window in aligner.windows] == [round(0.3 * index * SAMPLE_RATE) for index in range(5)]


async def test_an_aligner_that_commits_words_but_does_not_advance() -> None:
    aligner = Aligner(lambda _: Prefix([Span(0.0, 0.0)], 0.0))
    assert len(await align_in_windows(numbered(100), words(50), aligner)) == 50
    assert len(aligner.windows) == 50


async def test_a_token_too_long_for_a_window_is_offered_alone() -> None:
    aligner = knowing([(0.0, 1e9)])
    assert await align_in_windows(numbered(60), words(1, spoken=4000), aligner) == []
    assert all(len(window.tokens) == 1 for window in aligner.windows)


@pytest.mark.parametrize("seconds", [0.0, 1.0])
async def test_without_words_or_audio_the_aligner_is_not_called(seconds: float) -> None:
    aligner = knowing([])
    assert await align_in_windows(numbered(seconds), words(0 if seconds else 5), aligner) == []
    assert aligner.windows == []


async def test_silence_is_not_aligned() -> None:
    """A minute between two of noise, as in one channel of a call while the other speaks."""
    noise = np.random.default_rng(1).normal(0, 1000, 30 * SAMPLE_RATE).astype(np.int16)
    clip = Clip(np.concatenate([noise, np.zeros(60 * SAMPLE_RATE, np.int16), noise]))
    given: list[npt.NDArray[np.int16]] = []

    async def align(samples: npt.NDArray[np.int16], tokens: Sequence[Token], last: bool, complete: bool) -> Prefix[Span]:
        given.append(samples)
        return Prefix([Span(0.0, 18.0)], 18.0)

    await align_in_windows(clip, words(1000), align)
    assert all(samples.any() for samples in given)
    assert sum(np.count_nonzero(samples == 0) for samples in given) < 50 * SAMPLE_RATE
    np.testing.assert_array_equal(given[0], noise[: 20 * SAMPLE_RATE])
    np.testing.assert_array_equal(given[-1][-10 * SAMPLE_RATE :], noise[-10 * SAMPLE_RATE :])


async def test_progress_grows_and_ends_with_the_audio() -> None:
    progress: list[float] = []
    await align_in_windows(numbered(100), words(240), knowing(every(0.4, 240)), progress.append)
    assert progress == sorted(progress)
    assert progress[-1] == pytest.approx(100, abs=1e-9)


_SECOND = SAMPLE_RATE


@given(
    st.integers(1, 120 * _SECOND) | st.sampled_from([1, 20 * _SECOND - 1, 25 * _SECOND - 1, 25 * _SECOND, 25 * _SECOND + 1]),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20 * _SECOND)), max_size=20),
)
async def test_every_sample_is_aligned_and_windows_meet_at_the_sample(count: int, commits: list[tuple[int, int]]) -> None:
    left = iter(commits)

    def answer(window: Window) -> Prefix[Span]:
        chosen, resume = next(left, (0, 18 * _SECOND))
        return Prefix([Span(0.0, resume / _SECOND)] * chosen, resume / _SECOND)

    aligner = Aligner(answer)
    placed = await align_in_windows(Clip(np.arange(count)), words(1000), aligner)  # type: ignore[arg-type]
    windows = aligner.windows
    assert windows[0].first == 0
    assert windows[-1].after == count
    assert [window.last for window in windows] == [False] * (len(windows) - 1) + [True]
    answered = [*commits, *[(0, 18 * _SECOND)] * len(windows)]
    for (window, following), (chosen, resume) in zip(pairwise(windows), answered, strict=False):
        assert window.samples == 20 * _SECOND
        assert following.first == window.first + max(resume, 1 if chosen else _SECOND)
    assert windows[-1].samples <= 25 * _SECOND
    assert {item.offset for item in placed} <= {window.begin for window in windows}


@settings(max_examples=200)
@given(
    st.floats(0.06, 150),
    st.integers(1, 400),
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1e-5, 0.01, 0.1, 0.5, 0.9, 1.0])), max_size=40),
    st.integers(1, 9),
)
async def test_whatever_is_committed_windows_advance(
    seconds: float, count: int, commits: list[tuple[float, float]], spoken: int
) -> None:
    clip, tokens, progress = numbered(seconds), words(count, spoken), list[float]()
    left = iter(commits)

    def answer(window: Window) -> Prefix[Span]:
        share, resume = next(left, (0.5, 0.9))
        chosen = int(share * len(window.tokens))
        if window.last and not window.complete:  # all of them would ask for more
            chosen = min(chosen, len(window.tokens) - 1)
        return Prefix([Span(0.0, window.seconds)] * chosen, resume * window.seconds)

    aligner = Aligner(answer)
    placed = await align_in_windows(clip, tokens, aligner, progress.append)
    windows = aligner.windows
    assert len(placed) <= count
    offsets = [item.offset for item in placed]
    assert offsets == sorted(offsets)
    assert (np.diff(progress) >= -0.5 / SAMPLE_RATE - 1e-9).all()  # windows begin at whole samples
    assert progress[-1] <= clip.seconds + 1e-9
    assert len(windows) <= count + seconds + 1
    assert windows[0].first == 0
    offered = 0
    for window, following in zip(windows, [*windows[1:], None], strict=True):
        assert window.samples > 0
        assert window.tokens
        assert window.tokens[0].char_start >= offered, "a committed token is offered again"
        offered = window.tokens[0].char_start
        if following is not None:
            assert window.first < following.first <= window.after, "audio was skipped"
        assert window.last == (window.after == len(clip.samples) and following is None)
    if len(placed) < count:
        assert windows[-1].after == len(clip.samples), "it stopped early"
        assert progress[-1] == pytest.approx(clip.seconds, abs=1e-9)


ABSENT = Span(0.0, 0.0, WordStatus.NOT_FOUND)
Said = Mapping[int, Sequence[float]]
"""By token, when it is said: more than once where a sentence recurs. Each word takes 0.3 s of 0.4."""


def hearing(said: Said, loud: float) -> Aligner:
    """Finds the most words in order that a window and its tokens have; `loud`: seconds of speech in each window."""

    def answer(window: Window) -> Prefix[Span]:
        until = window.begin + window.seconds - (0.0 if window.last else UNSURE)
        offered = [token.char_start for token in window.tokens]
        here = sorted((at, index) for index in offered for at in said.get(index, ()) if window.begin - 1e-3 <= at <= until - 0.3)
        best: list[list[tuple[float, int]]] = []
        for at, index in here:
            before = [chain for chain in best if chain[-1][1] < index]
            best.append([*max(before, key=len, default=[]), (at, index)])
        chain = max(best, key=len, default=[])
        found = {index: Span(at - window.begin, at - window.begin + 0.3) for at, index in chain}
        spans = [found.get(index, ABSENT) for index in range(offered[0], max(found, default=offered[0] - 1) + 1)]
        resume = max((span.end for span in found.values()), default=window.seconds - UNSURE)
        return Prefix(spans, resume, min(1.0, 0.4 * len(found) / min(loud, window.seconds)))

    return Aligner(answer)


def starts(placed: Sequence[Placed[Span]]) -> dict[int, float]:
    return {index: item.offset + item.span.start for index, item in enumerate(placed) if item.span and item.span != ABSENT}


async def test_the_text_is_searched_beyond_a_passage_that_was_not_read() -> None:
    """More than a window is offered, so the place in the text is lost and found again."""
    read = [*range(50), *range(350, 500)]
    said = {index: [0.4 * order] for order, index in enumerate(read)}
    aligner = hearing(said, 20.0)
    placed = await align_in_windows(numbered(80.5), words(500), aligner)
    assert starts(placed) == pytest.approx({index: at[0] for index, at in said.items()}, abs=1e-3)
    assert max(len(window.tokens) for window in aligner.windows) <= 601


@pytest.mark.parametrize("times", [(10.0, 30.0), (2.0, 10.0)], ids=["two windows", "one window, half explained"])
async def test_a_sentence_that_recurs_does_not_carry_the_place_in_the_text_along(times: tuple[float, float]) -> None:
    """The text is that of the second minute; of the first, its words 20 to 31 and 100 to 111 are said too."""
    said = {index: [60 + 0.4 * index] for index in range(150)}
    for first, at in zip((20, 100), times, strict=True):
        for index in range(first, first + 12):
            said[index].append(at + 0.4 * (index - first))
    placed = await align_in_windows(numbered(121), words(150), hearing(said, 20.0))
    assert starts(placed) == pytest.approx({index: at[0] for index, at in said.items()}, abs=1e-3)


async def test_an_advert_in_which_sentences_of_the_text_recur_does_not_carry_the_place_in_it_along() -> None:
    """Of 30 s between words 400 and 401, 24 words are those that come 330 and 380 words later."""
    said = {index: [0.4 * index if index <= 400 else 0.4 * index + 30] for index in range(1000)}
    for first, at in ((730, 162.0), (780, 180.0)):
        for index in range(first, first + 12):
            said[index] = [at + 0.4 * (index - first), *said[index]]
    placed = await align_in_windows(numbered(431), words(1000), hearing(said, 20.0))
    assert starts(placed) == pytest.approx({index: at[-1] for index, at in said.items()}, abs=1e-3)


async def test_a_sentence_alone_in_a_long_recording_is_found_where_it_was_said() -> None:
    said = {index: [70 + 0.4 * index] for index in range(8)}
    placed = await align_in_windows(numbered(200), words(8), hearing(said, 20.0))
    assert starts(placed) == pytest.approx({index: at[0] for index, at in said.items()}, abs=1e-3)


async def test_a_clip_whose_words_run_out_before_it_ends_is_offered_more() -> None:
    """The text begins before the clip: of 40 words 34 are offered, and the last 12 are said."""
    said = {index: [0.4 * (index - 28)] for index in range(28, 40)}
    placed = await align_in_windows(numbered(5.0), words(40), hearing(said, 2.0))
    assert starts(placed) == pytest.approx({index: at[0] for index, at in said.items()}, abs=1e-3)


async def test_a_text_that_is_always_half_explained_is_followed_to_its_end() -> None:
    """Loud music throughout: no window is explained."""
    said = {index: [2.0 * index] for index in range(1000)}
    placed = await align_in_windows(numbered(2001), words(1000), hearing(said, 20.0))
    assert len(starts(placed)) > 990


async def test_text_that_fits_only_by_chance_ends_with_at_most_one_more_call_a_window() -> None:
    aligner = Aligner(lambda window: Prefix([Span(0.0, 0.1)], 18.5, 0.1))
    placed = await align_in_windows(numbered(200), words(2000), aligner)
    assert len(aligner.windows) <= 13
    assert len(placed) <= 1
