"""The engine around its workers: a bounded queue, spans in order inside the clip, warnings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_svc.config.engine import EngineSettings
from aligner_svc.domain import SAMPLE_RATE, Caller, Clip, Token, WordStatus
from aligner_svc.engines.live import LiveAudio, LiveText
from aligner_svc.engines.pocketsphinx.engine import PocketSphinxEngine
from aligner_svc.engines.pocketsphinx.wire import TokenSpan, decode_request, encode_answer, encode_tokens, text_language
from aligner_svc.engines.windows import Prefix
from aligner_svc.errors import LimitExceededError, UnavailableError
from aligner_svc.text import tokenise
from aligner_svc.text.transcript import words as read
from aligner_svc.workers import WorkerDiedError, WorkerTimeoutError
from aligner_svc.workers.pool import Reply
from tests.kit.recordings import noise
from tests.kit.waiting import loop_turns

CLIP = Clip(noise(4))


Answer = Callable[[list[list[str]], bool, bool], Prefix[TokenSpan]]


class FakePool:
    """Answers windows with `answer(tokens, last, complete)`, once `open` is set."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.open = asyncio.Event()
        self.open.set()

    async def call(self, header: Mapping[str, Any], payload: memoryview, *, timeout: float, client: str) -> Reply:  # noqa: ASYNC109 - as WorkerPool's
        await self.open.wait()
        assert payload.nbytes % 2 == 0
        return Reply(encode_answer(self.answer(*decode_request(dict(header)))), memoryview(b""), queued=0.25, busy=0.5)


def engine(pool: object, long_pool: object = None, *, workers: int = 1, queue: int = 1) -> PocketSphinxEngine:
    made = PocketSphinxEngine(EngineSettings(workers=workers, queue=queue))
    made.short.pool = pool  # type: ignore[assignment]
    made.long.pool = long_pool  # type: ignore[assignment]
    return made


def words(count: int) -> list[Token]:
    return [Token("w", index, index + 1, ("w",)) for index in range(count)]


def aligned(start: float, end: float, evidence: float = 1.0) -> TokenSpan:
    return TokenSpan(start, end, 0.9, evidence, WordStatus.ALIGNED)


ABSENT = TokenSpan(0.0, 0.0, 0.0, 0.0, WordStatus.NOT_FOUND)


def always(spans: Sequence[TokenSpan]) -> Answer:
    return lambda tokens, last, complete: Prefix(spans, 4.0)


async def blocked(pool: FakePool, made: PocketSphinxEngine, calls: int) -> list[asyncio.Task[Any]]:
    pool.open.clear()
    tasks = [asyncio.create_task(made.align(CLIP, words(1), "en", Caller())) for _ in range(calls)]
    await loop_turns()
    return tasks


async def test_a_call_over_the_queue_bound_is_refused() -> None:
    pool = FakePool(always([aligned(0, 1)]))
    made = engine(pool, workers=2, queue=3)
    tasks = await blocked(pool, made, 5)
    with pytest.raises(LimitExceededError) as refused:
        await made.align(CLIP, words(1), "en", Caller())
    assert refused.value.reason == "ENGINE_QUEUE_FULL"
    assert refused.value.retry_after
    pool.open.set()
    await asyncio.gather(*tasks)
    await made.align(CLIP, words(1), "en", Caller())


async def test_short_recordings_neither_wait_for_long_ones_nor_are_refused_for_them() -> None:
    long_pool = FakePool(always([aligned(0, 1)]))
    made = engine(FakePool(always([aligned(0, 1)])), long_pool, queue=2)
    long_pool.open.clear()
    long = Clip(noise(61))
    tasks = [asyncio.create_task(made.align(long, words(1), "en", Caller("same"))) for _ in range(3)]
    await loop_turns()
    with pytest.raises(LimitExceededError):
        await made.align(long, words(1), "en", Caller("same"))
    assert len((await made.align(CLIP, words(1), "en", Caller("same"))).spans) == 1
    state = made.report.state
    assert state is not None
    assert state().waiting == 2
    long_pool.open.set()
    await asyncio.gather(*tasks)


async def test_a_cancelled_call_frees_its_place() -> None:
    pool = FakePool(always([aligned(0, 1)]))
    made = engine(pool)
    tasks = await blocked(pool, made, 2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    pool.open.set()
    await made.align(CLIP, words(1), "en", Caller())


@pytest.mark.parametrize("error", [WorkerDiedError("x"), WorkerTimeoutError("x")])
async def test_a_call_whose_workers_died_may_be_retried(error: Exception) -> None:
    def fail(tokens: list[list[str]], last: bool, complete: bool) -> Prefix[TokenSpan]:
        raise error

    made = engine(FakePool(fail))
    for _ in range(3):  # none of them keeps its place in the queue
        with pytest.raises(UnavailableError) as refused:
            await made.align(CLIP, words(1), "en", Caller())
        assert refused.value.reason == "ENGINE_UNAVAILABLE"
        assert refused.value.retry_after


_SPAN = st.builds(aligned, st.floats(-1, 6), st.floats(-1, 6)) | st.just(ABSENT)


@given(st.lists(_SPAN, min_size=1, max_size=8), st.integers(0, 3))
async def test_spans_are_in_order_inside_the_clip_one_for_every_token(spans: list[TokenSpan], missing: int) -> None:
    count = len(spans) + missing
    result = await engine(FakePool(always(spans))).align(CLIP, words(count), "en", Caller())
    assert len(result.spans) == count
    at = 0.0
    for span in result.spans:
        assert at <= span.start <= span.end <= CLIP.seconds
        at = span.end
    assert all(span.status is WordStatus.NOT_FOUND for span in result.spans[len(spans) :])


async def test_times_of_later_windows_count_from_the_beginning_of_the_clip() -> None:
    def one_word(tokens: list[list[str]], last: bool, complete: bool) -> Prefix[TokenSpan]:
        return Prefix([aligned(1.0, 2.0)], 15.0)

    result = await engine(FakePool(one_word)).align(Clip(noise(60)), words(3), "en", Caller())
    assert [span.start for span in result.spans] == pytest.approx([1.0, 16.0, 31.0])
    assert result.queued >= 0.75  # what the pool reports for each window, and the queue in front of it
    assert result.busy == pytest.approx(1.5)


async def test_words_that_do_not_fit_give_warnings() -> None:
    async def codes(spans: list[TokenSpan]) -> list[str]:
        result = await engine(FakePool(always(spans))).align(CLIP, words(len(spans)), "en", Caller())
        return [warning.code for warning in result.warnings]

    good, bad = aligned(0, 1), aligned(0, 1, evidence=0.1)
    assert await codes([good, good]) == []
    assert await codes([good, good, good, ABSENT]) == ["WORDS_NOT_FOUND"]
    assert await codes([bad, bad]) == ["TRANSCRIPT_MISMATCH"]
    assert await codes([ABSENT, ABSENT]) == ["TRANSCRIPT_MISMATCH", "WORDS_NOT_FOUND"]


async def test_words_after_the_end_of_the_audio_lower_the_match_score() -> None:
    half = await engine(FakePool(always([aligned(0, 1)]))).align(CLIP, words(2), "en", Caller())
    assert half.match_score == pytest.approx(0.5)


async def test_a_token_with_thousands_of_spoken_words_is_sent_in_part() -> None:
    sent: list[int] = []

    def count(tokens: list[list[str]], last: bool, complete: bool) -> Prefix[TokenSpan]:
        sent.extend(len(token) for token in tokens)
        return Prefix([ABSENT] * len(tokens), 4.0)

    await engine(FakePool(count)).align(CLIP, [Token("w", 0, 1, ("one",) * 4000)], "en", Caller())
    assert max(sent) < 1000


async def test_a_transcript_eight_times_as_long_as_the_audio_is_placed_to_the_end_of_the_audio() -> None:
    windows: list[tuple[int, bool, bool]] = []

    def a_word_every_half_second(tokens: list[list[str]], last: bool, complete: bool) -> Prefix[TokenSpan]:
        windows.append((len(tokens), last, complete))
        return Prefix([aligned(index / 2, index / 2 + 0.4) for index in range(8)], 4.0)

    result = await engine(FakePool(a_word_every_half_second)).align(CLIP, words(64), "en", Caller())
    assert windows == [(28, True, False)], "all of the audio, not all of the words"
    assert [span.start for span in result.spans[:8]] == [index / 2 for index in range(8)]
    assert [span.status for span in result.spans] == [WordStatus.ALIGNED] * 8 + [WordStatus.NOT_FOUND] * 56
    assert result.match_score == pytest.approx(1 / 8)
    assert [warning.code for warning in result.warnings] == ["TRANSCRIPT_MISMATCH", "WORDS_NOT_FOUND"]


async def test_only_the_window_with_all_remaining_words_is_complete() -> None:
    windows: list[tuple[bool, bool]] = []

    def two_words(tokens: list[list[str]], last: bool, complete: bool) -> Prefix[TokenSpan]:
        windows.append((last, complete))
        return Prefix([aligned(1.0, 2.0), aligned(2.0, 3.0)], 10.0)

    await engine(FakePool(two_words)).align(Clip(noise(45)), words(127), "en", Caller())
    assert windows == [(False, False), (False, False), (True, True)]


async def test_a_worker_that_finds_nothing_is_not_called_forever() -> None:
    calls = 0

    def nothing(tokens: list[list[str]], last: bool, complete: bool) -> Prefix[TokenSpan]:
        nonlocal calls
        calls += 1
        return Prefix([], 0.0)

    result = await engine(FakePool(nothing)).align(Clip(noise(60)), words(30), "en", Caller())
    assert calls <= 60
    assert [span.status for span in result.spans] == [WordStatus.NOT_FOUND] * 30


class TextPool:
    """Tokenises as a worker does."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.texts: list[str] = []

    async def call(self, header: Mapping[str, Any], payload: bytes, *, timeout: float) -> Reply:  # noqa: ASYNC109 - as WorkerPool's
        if self.error is not None:
            raise self.error
        language = text_language(dict(header))
        assert language is not None
        self.texts.append(payload.decode())
        answer, tokens = encode_tokens(tokenise(self.texts[-1], language), self.texts[-1])
        return Reply(answer, memoryview(tokens), queued=0.0, busy=0.0)


async def test_a_long_transcript_is_tokenised_in_a_process() -> None:
    """Its figures would hold the interpreter lock for seconds, and with it every other call."""
    pool = TextPool()
    made = engine(None, pool)
    short, long = "It costs 5%. ", "It costs 5%, or $3.50 \u2013 the caf\u00e9's price. " * 200
    assert await made.tokenise(short, "en") == tokenise(short, "en")
    assert pool.texts == []
    assert list(await made.tokenise(long, "en")) == list(tokenise(long, "en"))
    assert pool.texts == [long]


async def test_a_process_has_read_what_it_needs_before_its_sandbox_closes() -> None:
    """The first transcript of a process finds files closed to it. Words in capitals and names of figures are looked up."""
    made = PocketSphinxEngine(EngineSettings(workers=1), "required")
    try:
        for text in ("1e999 " * 1000, "THEIR XKCD-ABLE iPhone. " * 300, "$3.50 &amp; <b>€5</b> [laughs] on 3/4/2020 " * 300):
            assert list(await made.tokenise(text, "en")) == list(read(text, tokenise, "en"))
    finally:
        await made.close()


@pytest.mark.parametrize("error", [WorkerDiedError("gone"), WorkerTimeoutError("late")])
async def test_a_process_that_fails_on_a_transcript_is_unavailable(error) -> None:
    with pytest.raises(UnavailableError) as caught:
        await engine(None, TextPool(error)).tokenise("5% " * 5000, "en")
    assert caught.value.reason == "ENGINE_UNAVAILABLE"


class SpokenNow(LiveAudio):
    """Whatever the time."""

    def _is_live(self, sample: int) -> bool:
        return True


class TurnsPool(FakePool):
    """Takes one window at a time, and notes whose it is."""

    def __init__(self) -> None:
        super().__init__(always([aligned(0, 1)]))
        self.clients: list[str] = []

    async def call(self, header: Mapping[str, Any], payload: memoryview, *, timeout: float, client: str) -> Reply:  # noqa: ASYNC109
        self.clients.append(client)
        return await super().call(header, payload, timeout=timeout, client=client)


def followed(made: PocketSphinxEngine, audio: LiveAudio, client: str) -> asyncio.Task[Any]:
    """Five seconds of noise that comes and goes, and its text."""
    loud = np.random.default_rng(1).normal(0, 0.1, 5 * SAMPLE_RATE).astype(np.float32)
    loud[np.arange(len(loud)) // 4000 % 2 == 1] *= 0.01
    audio.append(loud)
    given = iter([words(4)])
    text = LiveText(audio, lambda: asyncio.sleep(0, next(given, ())))
    audio.end()
    text.notify(ended=True)
    return asyncio.create_task(made.follow(audio, text, "en", Caller(client), on_spans=lambda _: None))


async def test_what_is_spoken_now_does_not_wait_for_uploads_and_principals_take_turns() -> None:
    spoken, bulk = TurnsPool(), TurnsPool()
    made = engine(spoken, bulk, queue=8)
    bulk.open.clear()
    upload = followed(made, LiveAudio(), "uploader")
    spoken.open.clear()
    streams = [followed(made, SpokenNow(), client) for client in ("many", "many", "many", "few")]
    await loop_turns()
    spoken.open.set()
    await asyncio.gather(*streams)
    assert not upload.done()
    assert set(bulk.clients) == {"uploader"}
    assert "uploader" not in spoken.clients
    assert "few" in spoken.clients[:2]
    bulk.open.set()
    await upload
