"""Times, statuses, confidences and warnings from the model's classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.domain import WordStatus
from aligner_svc.engines.base import EngineResult
from aligner_svc.engines.qwen.outcome import MATCH_THRESHOLD, assemble
from aligner_svc.engines.qwen.timestamps import TimestampSlots
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text.speaking_rate import check_rate

ALIGNED, REPAIRED = WordStatus.ALIGNED, WordStatus.REPAIRED
STEP = 80.0


def read(
    classes: Sequence[int], probabilities: Sequence[float] | None = None, *, seconds: float = 60.0, segment_ms: float = STEP
) -> EngineResult:
    sure = [0.9] * len(classes) if probabilities is None else probabilities
    slots = TimestampSlots(np.array(classes, dtype=np.int64), np.array(sure, dtype=np.float32))
    return assemble(slots, seconds, segment_ms, queued=1.5, busy=0.25)


def times(result: EngineResult) -> list[tuple[float, float]]:
    return [(span.start, span.end) for span in result.spans]


def statuses(result: EngineResult) -> list[WordStatus]:
    return [span.status for span in result.spans]


def codes(result: EngineResult) -> list[str]:
    return [warning.code for warning in result.warnings]


def test_times_in_order_are_kept() -> None:
    result = read([0, 5, 5, 12, 20, 21])
    assert times(result) == [(0.0, 0.4), (0.4, 0.96), (1.6, 1.68)]
    assert statuses(result) == [ALIGNED] * 3
    assert result.match_score == 1.0
    assert result.warnings == []
    assert (result.queued, result.busy) == (1.5, 0.25)


def test_a_time_out_of_order_is_inferred() -> None:
    result = read([0, 5, 500, 12, 20, 25])
    assert times(result) == [(0.0, 0.4), (0.4, 0.96), (1.6, 2.0)]
    assert statuses(result) == [ALIGNED, REPAIRED, ALIGNED]
    assert result.match_score == pytest.approx(5 / 6)


def test_either_of_two_times_makes_a_word_repaired() -> None:
    assert statuses(read([0, 500, 10, 12, 20, 25])) == [REPAIRED, ALIGNED, ALIGNED]


# The end of the audio


def test_the_last_class_may_end_after_the_audio() -> None:
    """It covers a time range of which a part is audio."""
    result = read([0, 5, 10, 13], seconds=1.0)
    assert times(result) == [(0.0, 0.4), (0.8, 1.0)]
    assert statuses(result) == [ALIGNED, ALIGNED]


@pytest.mark.parametrize("last", [14, 20, 4999])
def test_a_class_further_after_the_audio_is_repaired(last: int) -> None:
    result = read([0, 5, 10, last], seconds=1.0)
    assert times(result) == [(0.0, 0.4), (0.8, 1.0)]
    assert statuses(result) == [ALIGNED, REPAIRED]


def test_a_word_after_the_audio_has_no_length() -> None:
    result = read([0, 5, 40, 50], seconds=1.0)
    assert times(result) == [(0.0, 0.4), (1.0, 1.0)]
    assert statuses(result) == [ALIGNED, REPAIRED]
    assert codes(result) == ["WORDS_WITHOUT_LENGTH"]


# Confidence


def test_confidence_is_the_product_of_both_times() -> None:
    (span,) = read([0, 5], [0.5, 0.25]).spans
    assert span.confidence == 0.125


@pytest.mark.parametrize(("sure", "left"), [(0.9, 0.1), (0.5, 0.5), (0.2, 0.2), (1.0, 0.0)])
def test_a_repaired_time_has_at_most_the_rest(sure: float, left: float) -> None:
    result = read([0, 5, 500, 12, 20, 25], [1, 1, sure, 0.5, 1, 1])
    assert [span.confidence for span in result.spans] == pytest.approx([1.0, left * 0.5, 1.0], abs=1e-6)


def test_a_probability_just_over_one_is_one() -> None:
    """exp(best - logsumexp) sometimes is, by one bit of the mantissa."""
    above = float(np.nextafter(np.float32(1), np.float32(2)))
    result = read([0, 5, 500, 12, 20, 25], [above] * 6)
    assert [span.confidence for span in result.spans] == [1.0, 0.0, 1.0]


# Warnings


def test_random_times_give_a_mismatch_warning() -> None:
    chance = np.random.default_rng(0)
    for words in (20, 50, 200):
        result = read(chance.integers(0, 700, 2 * words).tolist())
        assert result.match_score < MATCH_THRESHOLD
        assert "TRANSCRIPT_MISMATCH" in codes(result)


def test_a_few_times_out_of_order_give_no_warning() -> None:
    classes = np.arange(0, 400, 10)
    classes[::5] = 4000
    assert "TRANSCRIPT_MISMATCH" not in codes(read(classes.tolist()))


@pytest.mark.parametrize(("kept", "warned"), [(5, False), (4, True)])
def test_half_of_the_times_must_be_in_order(kept: int, warned: bool) -> None:
    result = read([*range(kept), *range(-1, kept - 11, -1)], seconds=60.0)
    assert result.match_score == kept / 10
    assert ("TRANSCRIPT_MISMATCH" in codes(result)) == warned


def test_words_without_length_are_counted() -> None:
    result = read([0, 5, 5, 5, 5, 9, 9, 9])
    assert codes(result) == ["WORDS_WITHOUT_LENGTH"]
    assert "2 of 4 words" in result.warnings[0].message
    assert "80 ms" in result.warnings[0].message


@pytest.mark.parametrize(
    ("words", "seconds", "warned"), [(10, 1.0, False), (11, 1.0, True), (5, 0.1, False), (6, 0.1, True), (100, 10.0, False)]
)
def test_more_words_than_people_speak_give_a_warning(words: int, seconds: float, warned: bool) -> None:
    result = read([0] * (2 * words), seconds=seconds)
    assert ("TRANSCRIPT_DENSE" in codes(result)) == warned


@pytest.mark.parametrize(("words", "seconds"), [(1, 0.06), (5, 0.06), (20, 1.0), (200, 10.0), (6_000, 300.0)])
def test_as_many_words_as_can_be_spoken_are_accepted(words: int, seconds: float) -> None:
    check_rate(words, 0, seconds)


@pytest.mark.parametrize(("words", "seconds"), [(6, 0.06), (21, 1.0), (201, 10.0), (6_001, 300.0)])
def test_more_words_than_can_be_spoken_are_refused(words: int, seconds: float) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{words} words in .* 20 words a second") as caught:
        check_rate(words, 0, seconds)
    assert caught.value.reason == "TRANSCRIPT_TOO_DENSE"
    assert [violation.field for violation in caught.value.violations] == ["config.transcript"]


@pytest.mark.parametrize(("letters", "seconds"), [(250, 0.06), (250, 5.0), (500, 10.0)])
def test_as_many_letters_as_can_be_spoken_are_accepted(letters: int, seconds: float) -> None:
    check_rate(1, letters, seconds)


@pytest.mark.parametrize(("letters", "seconds"), [(251, 0.06), (251, 5.0), (501, 10.0), (15_000, 0.1)])
def test_a_word_longer_than_can_be_spoken_is_refused(letters: int, seconds: float) -> None:
    """A word may cost a decoder row for each letter: one of 15,000 letters would fill a batch alone."""
    with pytest.raises(InvalidArgumentError, match=f"{letters} letters in .* 50 letters a second") as caught:
        check_rate(1, letters, seconds)
    assert caught.value.reason == "TRANSCRIPT_TOO_DENSE"


# Any answer of the model

_SLOT = st.tuples(st.integers(0, 4_999), st.floats(0, 1, width=32))


@settings(max_examples=200)
@given(
    words=st.lists(st.tuples(_SLOT, _SLOT), min_size=1, max_size=40),
    seconds=st.floats(0.06, 300),
    segment_ms=st.sampled_from([1.0, 20.0, 80.0]),
)
def test_spans_are_in_order_and_inside_the_audio(
    words: list[tuple[tuple[int, float], tuple[int, float]]], seconds: float, segment_ms: float
) -> None:
    classes, sure = zip(*(slot for word in words for slot in word), strict=True)
    result = read(classes, sure, seconds=seconds, segment_ms=segment_ms)
    assert len(result.spans) == len(words)
    at = 0.0
    for span in result.spans:
        assert at <= span.start <= span.end <= seconds
        assert 0 <= span.confidence <= 1
        at = span.end
    assert 0 < result.match_score <= 1
    assert all(warning.message and "\n" not in warning.message for warning in result.warnings)
    if list(classes) == sorted(classes) and classes[-1] * segment_ms / 1000 <= seconds:
        assert statuses(result) == [ALIGNED] * len(words)
        assert times(result) == [
            (round(one * segment_ms / 1000, 3), round(two * segment_ms / 1000, 3))
            for one, two in zip(classes[::2], classes[1::2], strict=True)
        ]
