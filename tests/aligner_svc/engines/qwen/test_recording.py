"""Recordings of any length, with a model that places every word it can hear, and makes up a time for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import SAMPLE_RATE, Caller, Clip, Token, WordStatus
from aligner_svc.engines.base import EngineResult, Span
from aligner_svc.engines.live import LiveAudio, LiveText
from aligner_svc.engines.qwen.devices.wire import DeviceLoaded, Item
from aligner_svc.engines.qwen.engine import QwenEngine
from aligner_svc.engines.qwen.outcome import assemble
from aligner_svc.engines.qwen.prompt import TooManyRowsError
from aligner_svc.engines.qwen.recording import CUT, LiveRecording, LongRecording
from aligner_svc.engines.qwen.timestamps import TimestampSlots
from aligner_svc.engines.windows import Cut
from aligner_svc.workers.pool import WorkerPool
from tests.kit import qwen_device
from tests.kit.recordings import noise

CLASS = 0.08
Times = list[tuple[float, float] | None]
"""When each word of the text is said; None: it is not."""


@dataclass
class Model:
    """Hears the words of `said`, 3 % of them badly. Words that are not in the window get times as `others` says."""

    said: Times
    others: str = "at the edge"
    most: int = 5_000
    """Words that it has positions for."""
    passes: list[float] = field(default_factory=list)
    """Seconds of each."""

    def __post_init__(self) -> None:
        self._chance = np.random.default_rng(0)

    async def __call__(self, samples: npt.NDArray[np.int16], words: Sequence[Token]) -> EngineResult:
        if len(words) > self.most:
            raise TooManyRowsError("TRANSCRIPT_TOO_LONG", "too many", field="config.transcript")
        begin, seconds = float(samples[0]) / SAMPLE_RATE, len(samples) / SAMPLE_RATE
        self.passes.append(seconds)
        classes: list[int] = []
        sure: list[float] = []
        for nth, word in enumerate(words):
            times = self.said[word.char_start]
            if times is not None and times[0] >= begin and times[1] <= begin + seconds and self._chance.random() > 0.03:
                classes += [round((time - begin) / CLASS) for time in times]
                sure += [0.8, 0.8]
            else:
                before = times is not None and times[0] < begin
                classes += self._made_up(int(seconds / CLASS), nth / len(words), before=before)
                sure += [0.25, 0.25]
        return assemble(TimestampSlots(np.array(classes), np.array(sure, np.float32)), seconds, 1000 * CLASS, 0.0, 0.0)

    def _made_up(self, last: int, place: float, *, before: bool) -> list[int]:
        match self.others:
            case "at the edge":
                return [0 if before else last] * 2
            case "anywhere":
                return [int(time) for time in self._chance.integers(0, last, 2)]
            case _:  # in order, as if they were there
                return [int(place * last)] * 2


in_every_way = pytest.mark.parametrize("others", ["at the edge", "anywhere", "in order"])


def speech(count: int, *, rate: float = 2.5, begin: float = 0.0) -> Times:
    chance = np.random.default_rng(1)
    lengths, pauses = chance.uniform(0.1, 0.9 / rate, count), chance.choice([0, 0, 0, 0.05, 0.2, 1.2], count)
    starts = begin + np.cumsum(lengths + pauses) - lengths - pauses
    return [(start, start + length) for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)]


def later(times: Times, seconds: float) -> Times:
    return [each and (each[0] + seconds, each[1] + seconds) for each in times]


def end(times: Times) -> float:
    return max(each[1] for each in times if each) + 0.5


async def aligned(model: Model, seconds: float, cut: Cut = CUT) -> EngineResult:
    """Samples are their own indices, which tell the model where it is."""
    samples = np.arange(int(seconds * SAMPLE_RATE))
    tokens = [Token("w", index, index + 1, ("w",)) for index in range(len(model.said))]
    result = await LongRecording(Clip(samples), tokens, model, cut).align(None, 1000 * CLASS)  # type: ignore[arg-type]
    assert len(result.spans) == len(tokens)
    assert all(
        0 <= before.start <= before.end <= after.start for before, after in zip(result.spans, result.spans[1:], strict=False)
    )
    return result


def right(said: Times, spans: Sequence[Span]) -> float:
    """Share of the words that are said with a time that is right to 0.3 s."""
    pairs = [(times, span) for times, span in zip(said, spans, strict=True) if times]
    return sum(span.status is not WordStatus.NOT_FOUND and abs(span.start - times[0]) < 0.3 for times, span in pairs) / len(pairs)


def absent(spans: Sequence[Span]) -> list[int]:
    return [index for index, span in enumerate(spans) if span.status is WordStatus.NOT_FOUND]


@in_every_way
async def test_every_word_is_found_whatever_the_cuts(others: str) -> None:
    said = speech(2_000)
    for seconds in (120.0, 133.0, 150.0, 180.0):
        model = Model(said, others)
        result = await aligned(model, end(said), Cut(seconds, 1.2 * seconds, CUT.words_a_second, CUT.words_to_search))
        assert right(said, result.spans) > 0.98
        assert not absent(result.spans)
        assert max(model.passes) <= 1.2 * seconds
        assert sum(model.passes) < 1.4 * end(said)


@pytest.mark.parametrize(("rate", "count"), [(0.5, 400), (6.0, 4_000)])
async def test_slow_and_fast_speech(rate: float, count: int) -> None:
    said = speech(count, rate=rate)
    result = await aligned(Model(said), end(said))
    assert right(said, result.spans) > 0.98


@in_every_way
async def test_what_is_not_said_is_left_out(others: str) -> None:
    said = speech(2_000)
    text = said[:1_000] + [None] * 1_500 + said[1_000:]
    result = await aligned(Model(text, others), end(said))
    assert right(text, result.spans) > 0.98
    assert sum(1_000 <= index < 2_500 for index in absent(result.spans)) > 1_490
    assert [warning.code for warning in result.warnings if warning.code == "WORDS_NOT_FOUND"]


@in_every_way
async def test_what_is_not_in_the_text_is_passed_over(others: str) -> None:
    """Ten minutes of music, and a passage that nobody wrote down."""
    said = speech(2_500)
    text = said[:1_000] + later(said[1_000:1_500], 600) + later(said[2_000:], 600)
    result = await aligned(Model(text, others), end(said) + 600)
    assert right(text, result.spans) > 0.95
    assert result.match_score > 0.9


class Counted(LiveAudio):
    """Spoken now, whatever the time; its samples tell the model where it is."""

    def _is_live(self, sample: int) -> bool:
        return True

    def cut(self, begin: int, end: int) -> npt.NDArray[np.int16]:
        return np.arange(begin, end)  # type: ignore[return-value]


async def followed(said: Times, cuts: Sequence[int], others: str = "at the edge") -> tuple[list[Span], list[float]]:
    """The words, and how long after its end each was final. Sounds that are loud where there are words come as `cuts` says."""
    sound = np.random.default_rng(2).normal(0, 0.0005, int(end(said) * SAMPLE_RATE)).astype(np.float32)
    for times in filter(None, said):
        sound[int(times[0] * SAMPLE_RATE) : int(times[1] * SAMPLE_RATE)] *= 200
    audio, spans, lags = Counted(), [], []
    given = iter([[Token("w", index, index + 1, ("w",)) for index in range(len(said))]])
    text = LiveText(audio, lambda: asyncio.sleep(0, next(given, ())))

    def final(ready: Sequence[Span]) -> None:
        spans.extend(ready)
        lags.extend(audio.length / SAMPLE_RATE - span.end for span in ready)

    task = asyncio.create_task(LiveRecording(audio, text, Model(said, others), final).follow(None, 1000 * CLASS))
    for first, last in pairwise([0, *cuts, len(sound)]):
        audio.append(sound[first:last])
        for _ in range(30):
            await asyncio.sleep(0)
    audio.end()
    text.notify(ended=True)
    await task
    return spans, lags


@in_every_way
async def test_words_are_final_while_they_are_spoken(others: str) -> None:
    said = speech(80)
    tenths = range(1600, int(end(said) * SAMPLE_RATE), 1600)
    spans, lags = await followed(said, tenths, others)
    assert right(said, spans) > 0.95
    assert np.median(lags) < 3.5


@settings(max_examples=3, deadline=None)
@given(st.lists(st.integers(1, 20 * SAMPLE_RATE), max_size=20, unique=True).map(sorted))
async def test_the_words_of_a_stream_do_not_depend_on_where_it_was_cut(cuts: list[int]) -> None:
    said = speech(60)
    assert (await followed(said, cuts))[0] == (await followed(said, ()))[0]


async def test_words_after_the_end_of_the_audio_are_not_found() -> None:
    said = speech(1_500)
    result = await aligned(Model([*said, *[None] * 800]), end(said))
    assert right([*said, *[None] * 800], result.spans) > 0.98
    assert len(absent(result.spans)) >= 800


async def test_another_text_costs_a_bounded_number_of_passes_and_gets_a_warning() -> None:
    model = Model([None] * 3_000)
    result = await aligned(model, 1_200)
    assert len(model.passes) <= 10 * (1 + 8)
    assert "TRANSCRIPT_MISMATCH" in [warning.code for warning in result.warnings]
    assert result.match_score == 0.0


async def test_a_window_is_offered_no_more_words_than_the_model_has_positions_for() -> None:
    said = speech(2_000)
    result = await aligned(Model(said, most=150), end(said))
    assert right(said[:1_600], result.spans[:1_600]) > 0.98


async def test_a_word_that_the_model_has_no_positions_for_is_refused() -> None:
    with pytest.raises(TooManyRowsError):
        await aligned(Model(speech(1_000), most=0), 400.0)


# The engine


class Device:
    """Backend without a model: each clip's times are spread evenly over it. It has 4,000 positions."""

    count = 1
    ahead = 0
    pools: Sequence[WorkerPool] = ()

    def __init__(self) -> None:
        self.rows: list[int] = []

    async def start(self) -> tuple[DeviceLoaded, Tokenizer]:
        vocabulary = replace(qwen_device.VOCABULARY, max_rows=4_000)
        return DeviceLoaded("cpu", "none", 1.0, vocabulary, 0.0, 0.0), Tokenizer.from_buffer(qwen_device.tokenizer())

    async def run(self, batch: Sequence[Item]) -> Sequence[TimestampSlots]:
        self.rows += [item.rows for item in batch]
        return [self._answer(len(item.samples) / SAMPLE_RATE, int(np.count_nonzero(item.ids == 3))) for item in batch]

    async def check(self) -> None:
        raise NotImplementedError

    async def close(self) -> None: ...

    @staticmethod
    def _answer(seconds: float, slots: int) -> TimestampSlots:
        return TimestampSlots(np.linspace(0, seconds * 1000 - 1, slots).astype(np.int64), np.full(slots, 0.5, np.float32))


async def ask(seconds: float, words: int, device: Device) -> EngineResult:
    running = QwenEngine(EngineSettings(), QwenSettings(device="cpu"), devices=device)
    await running.start()
    try:
        tokens = await running.tokenise("word " * words, "en")
        return await running.align(Clip(noise(seconds)), tokens, "en", Caller())
    finally:
        await running.close()


@pytest.mark.parametrize(
    ("seconds", "words", "in_one"), [(180.0, 200, True), (250.0, 300, False), (299.9, 100, False), (1_000.0, 900, False)]
)
async def test_no_pass_has_more_rows_than_the_model_has_positions(seconds: float, words: int, in_one: bool) -> None:
    device = Device()
    spans = (await ask(seconds, words, device)).spans
    assert sum(span.status is WordStatus.ALIGNED for span in spans) > 0.8 * words
    assert (len(device.rows) == 1) is in_one
    assert max(device.rows) <= 4_000


async def test_a_short_clip_with_too_many_rows_is_refused_by_name() -> None:
    with pytest.raises(TooManyRowsError, match="1200 words and this audio take") as caught:
        await ask(100.0, 1_200, Device())
    assert caught.value.reason == "TRANSCRIPT_TOO_LONG"


@pytest.mark.parametrize("count", [1, 2])
async def test_every_device_has_a_batch_of_calls_beside_the_queue(count: int) -> None:
    gate = asyncio.Event()

    class Held(Device):
        async def run(self, batch: Sequence[Item]) -> Sequence[TimestampSlots]:
            await gate.wait()
            return await super().run(batch)

    device = Held()
    device.count = count
    running = QwenEngine(EngineSettings(queue=1), QwenSettings(device="cpu", batch_items=1), devices=device)
    await running.start()
    tokens = await running.tokenise("word", "en")
    clip = Clip(np.zeros(SAMPLE_RATE, np.int16))
    calls = [asyncio.create_task(running.align(clip, tokens, "en", Caller(str(number)))) for number in range(count + 2)]
    refused, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert [call.exception().reason for call in refused] == ["ENGINE_QUEUE_FULL"]  # type: ignore[union-attr]  # one failed
    gate.set()
    assert len(await asyncio.gather(*(set(calls) - refused))) == count + 1
    await running.close()
