"""Recordings that are followed while they come: when words are final, and that the cut of the upload has no say in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.domain import SAMPLE_RATE, Token, WordStatus
from aligner_svc.engines import live
from aligner_svc.engines.live import LiveAudio, LiveText
from aligner_svc.engines.windows import Prefix, Windows
from tests.aligner_svc.engines.test_windows import Span

SECONDS = 30
PAUSES = (2.0, 5.0, 9.0, 12.5, 16.0, 21.0, 26.0)
"""Where half a second of silence begins; a word ends at each, and at every second between."""


def speech(seconds: float = SECONDS) -> np.ndarray:
    """Noise that comes and goes like syllables, quiet in the pauses."""
    sound = np.random.default_rng(1).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)
    sound[np.arange(len(sound)) // 2400 % 2 == 1] *= 0.1
    for pause in PAUSES:
        sound[int(pause * SAMPLE_RATE) : int((pause + 0.5) * SAMPLE_RATE)] *= 0.001
    return sound


@pytest.fixture
def paced(monkeypatch) -> None:
    """Whatever comes counts as spoken now."""
    monkeypatch.setattr(live, "_PACE", 0.0)


def tokens(count: int) -> list[Token]:
    return [Token("w", index, index + 1, ("w",)) for index in range(count)]


class Follower:
    """A word a second; in a growing window those that end before its last half second are final."""

    def __init__(self, coverage: float = 1.0) -> None:
        self.coverage = coverage
        self.windows: list[tuple[int, int]] = []
        self.final: list[float] = []
        self.at: list[float] = []
        self.audio = LiveAudio()
        self._given = False
        self.text = LiveText(self.audio, self._more)

    async def _more(self) -> Sequence[Token]:
        if self._given:
            return ()
        self._given = True
        return tokens(SECONDS)

    async def run(self) -> None:
        def final(placed) -> None:
            self.final += [item.offset + item.span.end for item in placed if item.span is not None]
            self.at += [self.audio.length / SAMPLE_RATE] * len(placed)

        await Windows(self.audio, self.text, self._align(growing=False), final, settle=self._align(growing=True)).run()

    def _align(self, *, growing: bool):
        async def align(samples, offered, last, complete) -> Prefix[Span]:
            begin = self.windows[-1][1] if self.windows else 0
            seconds = len(samples) / SAMPLE_RATE
            count = int(seconds + 0.01) if last else int(seconds - 0.5)
            count = min(count, len(offered))
            if not growing or self.coverage >= 0.75:
                self.windows.append((begin, begin + count * SAMPLE_RATE))
            spans = [Span(n, n + 1.0, WordStatus.ALIGNED) for n in range(count)]
            return Prefix(spans, float(count) if not last else seconds, self.coverage)

        return align


async def fed(follower: Follower, cuts: Sequence[int] = ()) -> Follower:
    sound = speech()
    task = asyncio.create_task(follower.run())
    for start, end in zip([0, *cuts], [*cuts, len(sound)], strict=True):
        follower.audio.append(sound[start:end])
        for _ in range(20):
            await asyncio.sleep(0)
    follower.audio.end()
    follower.text.notify(ended=True)
    await task
    return follower


@pytest.mark.usefixtures("paced")
async def test_words_are_final_while_the_audio_comes():
    follower = await fed(Follower(), range(1600, SECONDS * SAMPLE_RATE, 1600))
    lags = np.array(follower.at) - np.array(follower.final)
    assert len(follower.final) == SECONDS
    assert np.median(lags) < 2.5
    assert lags.max() < 5.5


async def test_audio_that_comes_at_once_is_aligned_in_whole_windows():
    follower = await fed(Follower(), range(1600, SECONDS * SAMPLE_RATE, 1600))
    assert len(follower.windows) == 2
    assert min(follower.at) >= 25


@pytest.mark.usefixtures("paced")
async def test_what_is_not_explained_waits_for_the_whole_window():
    follower = await fed(Follower(coverage=0.6), range(1600, SECONDS * SAMPLE_RATE, 1600))
    assert len(follower.final) == SECONDS
    assert min(follower.at) >= 25


def phrases(count: int, pause: float, background: float) -> np.ndarray:
    """Two seconds of speech, and a pause that begins with the end of the last word; over all, noise that varies by 10 dB."""
    draw = np.random.default_rng(3)
    phrase = np.concatenate([speech(2), speech(0.1), np.zeros(int((pause - 0.1) * SAMPLE_RATE), np.float32)])
    sound = np.tile(phrase, count)
    louder = np.repeat(draw.uniform(0.5, 1.6, len(sound) // 1600 + 1), 1600)[: len(sound)]
    return (sound + draw.normal(0, background, len(sound)) * louder).astype(np.float32)


@pytest.mark.usefixtures("paced")
@pytest.mark.parametrize("background", [0.0, 0.002])
@pytest.mark.parametrize("pause", [1.5, 8.0, 40.0])
async def test_the_length_of_a_pause_does_not_delay_the_words_after_it(pause, background):
    """The aligner finds both words of a phrase once it has heard 2 s of it, and none in a pause."""
    audio, at = LiveAudio(), []
    given = iter([tokens(12)])

    async def more() -> Sequence[Token]:
        return next(given, ())

    async def settle(samples, offered, last, complete) -> Prefix[Span]:
        loud = np.flatnonzero(np.abs(samples) > 0.05 * 32768)
        end = (loud[0] + 2 * SAMPLE_RATE) / SAMPLE_RATE if len(loud) else np.inf
        if end > len(samples) / SAMPLE_RATE:
            return Prefix([], 0.0, 0.0)
        at.append(audio.length / SAMPLE_RATE)
        return Prefix([Span(end - 2, end - 1, WordStatus.ALIGNED), Span(end - 1, end, WordStatus.ALIGNED)], end)

    text = LiveText(audio, more)
    task = asyncio.create_task(Windows(audio, text, settle, lambda _: None, settle=settle).run())
    sound = phrases(6, pause, background)
    for begin in range(0, len(sound), 1600):
        audio.append(sound[begin : begin + 1600])
        for _ in range(10):
            await asyncio.sleep(0)
    audio.end()
    text.notify(ended=True)
    await task
    lags = np.array(at) - (2 + np.arange(6) * (2 + pause))
    assert len(at) == 6
    assert lags.max() < 2.0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, SECONDS * SAMPLE_RATE - 1), max_size=30, unique=True).map(sorted))
async def test_any_cut_of_the_upload_gives_the_same_windows(cuts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "_PACE", 0.0)
        assert (await fed(Follower(), cuts)).windows == (await fed(Follower())).windows


@pytest.mark.usefixtures("paced")
@pytest.mark.parametrize(("level", "minutes"), [(0.0, 60), (1e-4, 3), (1.0, 3)])
async def test_silence_and_steady_noise_cost_nothing(level, minutes):
    follower = Follower()
    task = asyncio.create_task(follower.run())
    noise = np.random.default_rng(2).normal(0, 0.01, 60 * SAMPLE_RATE).astype(np.float32)
    for _ in range(minutes):
        follower.audio.append(noise * np.float32(level))
        await asyncio.sleep(0.01)
    assert follower.windows == []
    assert follower.audio.length - follower.audio.released <= 25 * SAMPLE_RATE + 1
    follower.audio.append(speech())
    follower.audio.end()
    follower.text.notify(ended=True)
    await task
    assert len(follower.final) == SECONDS


async def test_a_sender_that_is_ahead_waits_for_the_engine_but_not_for_its_own_text():
    audio = LiveAudio()
    text = LiveText(audio, lambda: asyncio.sleep(0, ()))
    audio.append(speech(2))
    waiting = asyncio.create_task(audio.room(1.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    reading = asyncio.create_task(text.reach(1))
    await waiting
    text.notify(ended=True)
    assert not await reading
    waiting = asyncio.create_task(audio.room(1.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    audio.release(2 * SAMPLE_RATE)
    await waiting


async def test_only_what_is_not_released_is_kept():
    audio = LiveAudio()
    assert not audio.live
    for _ in range(10):
        audio.append(speech(1))
        audio.release(max(0, audio.length - 3200))
    assert sum(len(samples) for _, samples, _ in audio._pieces) <= SAMPLE_RATE
    np.testing.assert_array_equal(audio.cut(audio.length - 10, audio.length), np.rint(speech(1)[-10:] * 32768))
