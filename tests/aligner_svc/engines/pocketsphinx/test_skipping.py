"""CTC alignment with skipped words, on log-probabilities whose truth is known by construction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.engines.pocketsphinx.phonemes import FRAME_SECONDS
from aligner_svc.engines.pocketsphinx.skipping import align_skipping

BLANK = 0
LABELS = 10
HELD = 4
"""Frames a label lasts."""
LAG = 0.1
"""Seconds a word may begin before its first frame: CTC peaks late, for which times are corrected."""


def heard(labels: Sequence[int]) -> npt.NDArray[np.float32]:
    """The output of a confident recogniser; `labels[i]` is the label of frame i."""
    probabilities = np.full((len(labels), LABELS), 0.01 / (LABELS - 1), np.float32)
    probabilities[np.arange(len(labels)), labels] = 0.99
    return np.log(probabilities)


def said(*words: Sequence[int], pause: int = 10) -> list[int]:
    """Frames of words, `pause` blanks before, between and after them."""
    frames = [BLANK] * pause
    for word in words:
        for label in word:
            frames += [label] * HELD
        frames += [BLANK] * pause
    return frames


ONE, TWO, THREE, FOREIGN = [1, 2], [3, 4, 5], [6, 7], [8, 9, 8]


def test_words_are_found_where_they_were_said() -> None:
    found = align_skipping(heard(said(ONE, TWO, THREE)), [ONE, TWO, THREE], BLANK)
    assert found.reached == 3
    first = 10
    for word, detection in zip([ONE, TWO, THREE], found.words, strict=True):
        assert detection is not None
        assert first * FRAME_SECONDS - LAG <= detection.start <= first * FRAME_SECONDS
        assert detection.end == pytest.approx((first + HELD * len(word)) * FRAME_SECONDS)
        assert detection.gap == pytest.approx(0, abs=1e-3)
        first += HELD * len(word) + 10


def test_words_without_pauses() -> None:
    found = align_skipping(heard(said(ONE, TWO, THREE, pause=0)), [ONE, TWO, THREE], BLANK)
    ends = [detection.end for detection in found.words if detection is not None]
    assert ends == pytest.approx([8 * FRAME_SECONDS, 20 * FRAME_SECONDS, 28 * FRAME_SECONDS])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_word_that_was_not_said_is_skipped(place: int) -> None:
    words = [ONE, TWO]
    words.insert(place, FOREIGN)
    found = align_skipping(heard(said(ONE, TWO)), words, BLANK)
    assert [detection is None for detection in found.words] == [index == place for index in range(3)]


def test_several_words_in_a_row_are_skipped() -> None:
    found = align_skipping(heard(said(ONE, THREE)), [ONE, TWO, FOREIGN, TWO, THREE], BLANK)
    assert [detection is not None for detection in found.words] == [True, False, False, False, True]


def test_speech_missing_from_the_text_does_not_move_the_words() -> None:
    found = align_skipping(heard(said(ONE, FOREIGN, FOREIGN, TWO)), [ONE, TWO], BLANK)
    one, two = found.words
    assert one is not None
    assert two is not None
    assert one.end == pytest.approx(18 * FRAME_SECONDS)
    assert two.start >= (len(said(ONE, FOREIGN, FOREIGN))) * FRAME_SECONDS - LAG


@pytest.mark.parametrize("early", [True, False])
def test_a_short_word_stays_beside_the_next_one_although_it_is_heard_in_other_speech_too(early: bool) -> None:
    """At a cost by the frame alone both places are as good, and the first one wins."""
    beside, apart = [[1], TWO], [[1], FOREIGN, FOREIGN]
    heard_words = [*apart, *beside] if early else [TWO, [1], *reversed(apart)]
    words = [[1], TWO] if early else [TWO, [1]]
    found = align_skipping(heard(said(*heard_words)), words, BLANK)
    first, second = found.words
    assert first is not None
    assert second is not None
    assert second.start - first.end < 0.3
    assert found.unexplained.sum() == pytest.approx(HELD * len([*FOREIGN, *FOREIGN, 1]), abs=HELD)


def test_no_word_was_said() -> None:
    found = align_skipping(heard(said(FOREIGN, FOREIGN)), [ONE, TWO, THREE], BLANK)
    assert list(found.words) == [None, None, None]


def test_an_open_end_reaches_as_far_as_the_audio() -> None:
    words = [ONE, TWO, THREE, ONE, TWO]
    found = align_skipping(heard(said(ONE, TWO)), words, BLANK, exits=range(len(words)))
    assert found.reached == 2
    assert [detection is not None for detection in found.words] == [True, True, False, False, False]


def test_an_open_end_may_be_everything_or_nothing() -> None:
    words = [ONE, TWO]
    assert align_skipping(heard(said(ONE, TWO)), words, BLANK, exits=(0, 1)).reached == 2
    assert align_skipping(heard(said()), words, BLANK, exits=(0, 1)).reached == 0


def test_an_open_end_is_one_of_the_exits() -> None:
    found = align_skipping(heard(said(ONE)), [ONE, TWO, THREE], BLANK, exits=(0, 2))
    assert found.reached in {0, 2, 3}


def test_a_closed_end_consumes_all_words() -> None:
    assert align_skipping(heard(said(ONE)), [ONE, TWO, THREE], BLANK).reached == 3


def test_a_label_said_twice_needs_a_blank_between() -> None:
    apart = align_skipping(heard([0] * 5 + [1] * 4 + [0] * 2 + [1] * 4 + [0] * 5), [[1, 1]], BLANK).words[0]
    merged = align_skipping(heard([0] * 5 + [1] * 8 + [0] * 5), [[1, 1]], BLANK).words[0]
    assert apart is not None
    assert apart.gap == pytest.approx(0, abs=1e-3)
    assert merged is None or merged.gap > 1


def test_no_words_and_no_audio() -> None:
    assert list(align_skipping(heard(said(ONE)), [], BLANK).words) == []
    assert list(align_skipping(heard([]), [ONE, TWO], BLANK).words) == [None, None]


@pytest.mark.parametrize("label", [BLANK, 1, 9])
def test_one_frame(label: int) -> None:
    found = align_skipping(heard([label]), [[1], TWO], BLANK, exits=(0, 1))
    assert (found.words[0] is not None) == (label == 1)
    assert found.words[1] is None


def test_more_words_than_frames() -> None:
    found = align_skipping(heard([1, 1]), [ONE] * 50, BLANK)
    assert len(found.words) == 50


_WORDS = st.lists(st.lists(st.integers(1, LABELS - 1), min_size=1, max_size=5), min_size=1, max_size=6)


@settings(max_examples=60)
@given(_WORDS, st.integers(1, 40), st.integers(0, 1000), st.booleans())
def test_any_audio_gives_words_in_order_inside_it(words: list[list[int]], frames: int, seed: int, is_open: bool) -> None:
    noise = np.random.default_rng(seed).normal(0, 3, (frames, LABELS)).astype(np.float32)
    log_probabilities = noise - np.log(np.exp(noise).sum(axis=1, keepdims=True))
    found = align_skipping(log_probabilities, words, BLANK, exits=range(len(words)) if is_open else None)
    assert len(found.words) == len(words)
    assert 0 <= found.reached <= len(words)
    assert all(detection is None for detection in found.words[found.reached :])
    at = 0.0
    for detection in found.words:
        if detection is not None:
            assert at - LAG <= detection.start < detection.end <= frames * FRAME_SECONDS + 1e-9
            assert detection.end > at
            assert detection.gap >= -1e-4
            at = detection.end


def test_a_passage_that_was_not_read_is_skipped_at_once() -> None:
    read = [ONE, TWO, THREE] * 4
    found = align_skipping(heard(said(ONE, TWO, *read)), [ONE, TWO, *[FOREIGN] * 100, *read], BLANK)
    assert [detection is not None for detection in found.words] == [True, True, *[False] * 100, *[True] * len(read)]


def test_a_few_similar_sounds_do_not_lead_to_such_a_skip() -> None:
    found = align_skipping(heard(said(ONE, TWO)), [ONE, *[FOREIGN] * 100, TWO], BLANK, [0, 1, 102])
    assert found.reached == 1


def test_a_short_clip_from_the_middle_of_a_long_text_keeps_its_words() -> None:
    other = [FOREIGN, THREE] * 20
    found = align_skipping(heard(said(ONE, TWO)), [*other, ONE, TWO, *other], BLANK, excerpt=True)
    assert [index for index, detection in enumerate(found.words) if detection is not None] == [40, 41]
