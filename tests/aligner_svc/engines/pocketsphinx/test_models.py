"""The real recognisers on the sample recording: they find what was said, and not what was not."""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np
import pytest
from hama.vocab import Vocabulary

from aligner_svc.domain import SAMPLE_RATE, Clip, Token, WordStatus
from aligner_svc.engines.pocketsphinx import phonemes
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner
from aligner_svc.engines.pocketsphinx.ladder import Ladder
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.engines.pocketsphinx.phonemes import PhonemeModel
from aligner_svc.engines.pocketsphinx.recogniser import Recogniser
from aligner_svc.engines.pocketsphinx.second_opinion import Samples
from aligner_svc.engines.pocketsphinx.window import WindowAligner
from aligner_svc.engines.pocketsphinx.wire import TokenSpan
from aligner_svc.engines.windows import Prefix, align_in_windows
from tests import PROJECT

SAMPLE = PROJECT / "samples" / "librispeech_61-70968-0000.flac"
SAID = [
    "he",
    "began",
    "a",
    "confused",
    "complaint",
    "against",
    "the",
    "wizard",
    "who",
    "had",
    "vanished",
    "behind",
    "the",
    "curtain",
    "on",
    "the",
    "left",
]
FOREIGN = ["purple", "elephants", "juggle", "seventeen", "bananas"]
NOT_SAID = [
    "quarterly",
    "earnings",
    "exceeded",
    "every",
    "forecast",
    "while",
    "shipping",
    "costs",
    "remained",
    "fairly",
    "stable",
    "across",
    "europe",
]


@pytest.fixture(scope="module")
def aligner() -> WindowAligner:
    speller = Speller()
    return WindowAligner(Ladder(Recogniser(speller), PhonemeModel()), speller, BoundaryRefiner())


@pytest.fixture(scope="module")
def speech() -> Samples:
    with av.open(str(SAMPLE)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert samples.dtype == np.int16
    return samples


def align(aligner: WindowAligner, samples: Samples, words: list[str], *, last: bool = True, complete: bool = True) -> Prefix:
    return aligner.align(samples, [[word] for word in words], last, complete)


def score(answer: Prefix) -> float:
    return float(np.mean([span.evidence for span in answer.spans]))


def found(span: TokenSpan) -> bool:
    return span.status is not WordStatus.NOT_FOUND


def test_words_that_were_said_are_found_in_order(aligner: WindowAligner, speech: Samples) -> None:
    answer = align(aligner, speech, SAID)
    assert [span.status for span in answer.spans] == [WordStatus.ALIGNED] * len(SAID)
    edges = [edge for span in answer.spans for edge in (span.start, span.end)]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= len(speech) / SAMPLE_RATE
    assert score(answer) > 0.8
    align(aligner, np.random.default_rng(1).integers(-9000, 9000, 8000).astype(np.int16), NOT_SAID)
    assert list(align(aligner, speech, SAID).spans) == list(answer.spans), "an earlier call affects the answer"


def test_of_several_ways_to_say_a_word_the_one_in_the_audio_is_taken(aligner: WindowAligner, speech: Samples) -> None:
    several = {"confused": "ten_thirty|confused", "wizard": "wizard|half_past_ten", "on": "nineteen|on|off_and_on"}
    answer = align(aligner, speech, [several.get(word, word) for word in SAID])
    plain = align(aligner, speech, SAID)
    assert [span.status for span in answer.spans] == [WordStatus.ALIGNED] * len(SAID)
    assert [(span.start, span.end) for span in answer.spans] == [(span.start, span.end) for span in plain.spans]
    joined = align(aligner, speech, ["half_past_ten|he_began", *SAID[2:]])
    assert (joined.spans[0].start, joined.spans[0].end) == pytest.approx((plain.spans[0].start, plain.spans[1].end), abs=0.03)


def test_another_transcript_does_not_match(aligner: WindowAligner, speech: Samples) -> None:
    assert score(align(aligner, speech, NOT_SAID)) < 0.3


def test_words_that_were_not_said_are_mostly_not_found_and_the_others_are(aligner: WindowAligner, speech: Samples) -> None:
    answer = align(aligner, speech, SAID[:5] + FOREIGN + SAID[5:])
    there = [found(span) for span in answer.spans]
    assert sum(there[5:10]) <= 1
    assert sum(there[:5] + there[10:]) >= len(SAID) - 2
    plain = align(aligner, speech, SAID)
    after = [span.start for span in answer.spans[10:]]
    assert np.median(np.abs(np.array(after) - [span.start for span in plain.spans[5:]])) < 0.05


@pytest.mark.parametrize("complete", [True, False])
def test_an_open_window_commits_a_prefix(aligner: WindowAligner, speech: Samples, complete: bool) -> None:
    answer = align(aligner, speech[: 3 * SAMPLE_RATE], SAID, last=False, complete=complete)
    plain = align(aligner, speech, SAID)
    assert 2 <= len(answer.spans) < len(SAID)
    for span, known in zip(answer.spans, plain.spans, strict=False):
        assert found(span)
        assert span.start == pytest.approx(known.start, abs=0.1)


HALF = 8
"""Words in the first half of the recording: "who" begins 0.2 s after it."""


def test_of_a_recording_cut_short_the_words_before_the_cut_are_aligned_and_the_others_are_not_found(
    aligner: WindowAligner, speech: Samples
) -> None:
    answer = align(aligner, speech[: len(speech) // 2], SAID)
    assert [span.status for span in answer.spans] == [WordStatus.ALIGNED] * HALF + [WordStatus.NOT_FOUND] * (len(SAID) - HALF)
    plain = align(aligner, speech, SAID)
    assert plain.spans[HALF - 1].end < len(speech) / 2 / SAMPLE_RATE < plain.spans[HALF].start
    edges = [edge for span in answer.spans[:HALF] for edge in (span.start, span.end)]
    assert edges == pytest.approx([edge for span in plain.spans[:HALF] for edge in (span.start, span.end)], abs=0.05)


def test_words_that_may_come_in_later_audio_are_left_open(aligner: WindowAligner, speech: Samples) -> None:
    answer = align(aligner, speech[: len(speech) // 2], SAID, complete=False)
    assert [span.status for span in answer.spans] == [WordStatus.ALIGNED] * HALF


async def test_a_transcript_eight_times_as_long_as_the_audio_is_placed_to_the_end_of_the_audio(
    aligner: WindowAligner, speech: Samples
) -> None:
    windows: list[tuple[bool, bool]] = []

    async def align_window(samples: Samples, coming: Sequence[Token], last: bool, complete: bool) -> Prefix[TokenSpan]:
        windows.append((last, complete))
        return aligner.align(samples, [token.spoken for token in coming], last, complete)

    transcript = (SAID + NOT_SAID * 10)[: 8 * len(SAID)]
    tokens = [Token(word, index, index + 1, (word,)) for index, word in enumerate(transcript)]
    placed = await align_in_windows(Clip(speech), tokens, align_window)
    plain = align(aligner, speech, SAID)
    assert windows == [(True, False)]
    spans = [item.span for item in placed if item.span is not None]
    assert [span.status for span in spans] == [WordStatus.ALIGNED] * len(SAID) == [span.status for span in plain.spans]
    assert [span.start for span in spans] == pytest.approx([span.start for span in plain.spans], abs=0.05)


def test_a_foreign_word_in_an_open_window_does_not_affect_the_words_around_it(aligner: WindowAligner, speech: Samples) -> None:
    audio = np.tile(speech, 4)[: 17 * SAMPLE_RATE]
    words = [*SAID[:5], "purple", *SAID[5:], *SAID * 5]
    answer = align(aligner, audio, words, last=False, complete=False)
    assert [index for index, span in enumerate(answer.spans) if span.status is not WordStatus.ALIGNED] == [5]
    assert answer.resume > 13
    plain = align(aligner, speech, SAID)
    there = [span.start for index, span in enumerate(answer.spans[: len(SAID) + 1]) if index != 5]
    assert there == pytest.approx([span.start for span in plain.spans], abs=0.08)


NOISE = np.random.default_rng(7)


def tone(seconds: float) -> Samples:
    """Room tone."""
    return NOISE.normal(0, 15, int(seconds * SAMPLE_RATE)).astype(np.int16)


def test_a_word_after_speech_that_is_not_in_the_text_is_where_it_was_said(aligner: WindowAligner, speech: Samples) -> None:
    """Short words fit anywhere; the text begins with one."""
    plain = align(aligner, speech, SAID)
    answer = align(aligner, speech, SAID[6:])
    assert answer.spans[0].start == pytest.approx(plain.spans[6].start, abs=0.1)
    assert [span.start for span in answer.spans] == pytest.approx([span.start for span in plain.spans[6:]], abs=0.15)


def test_a_passage_that_is_not_in_the_text_pulls_no_word(aligner: WindowAligner, speech: Samples) -> None:
    plain = align(aligner, speech, SAID)
    answer = align(aligner, speech, SAID[:4] + SAID[13:])
    known = [*plain.spans[:4], *plain.spans[13:]]
    assert [span.start for span in answer.spans] == pytest.approx([span.start for span in known], abs=0.15)


def test_text_that_begins_before_the_audio(aligner: WindowAligner, speech: Samples) -> None:
    answer = align(aligner, speech, NOT_SAID * 8 + SAID)
    assert not any(found(span) for span in answer.spans[: 8 * len(NOT_SAID)])
    plain = align(aligner, speech, SAID)
    assert [span.start for span in answer.spans[-len(SAID) :]] == pytest.approx([span.start for span in plain.spans], abs=0.1)


def test_one_word_in_ten_seconds_of_room_tone(aligner: WindowAligner, speech: Samples) -> None:
    word = align(aligner, speech, SAID).spans[7]
    piece = speech[int(word.start * SAMPLE_RATE) : int(word.end * SAMPLE_RATE)]
    (answer,) = align(aligner, np.concatenate([tone(5), piece, tone(5)]), [SAID[7]]).spans
    assert answer.start == pytest.approx(5.0, abs=0.1)
    assert answer.end == pytest.approx(5.0 + word.end - word.start, abs=0.1)


@pytest.mark.timeout(60)
def test_a_word_of_3000_letters_does_not_affect_the_others(aligner: WindowAligner, speech: Samples) -> None:
    answer = align(aligner, speech, ["ab" * 1500, *SAID])
    assert [found(span) for span in answer.spans] == [False] + [True] * len(SAID)


def test_a_window_full_of_words_of_100_letters(aligner: WindowAligner, speech: Samples) -> None:
    letters = np.random.default_rng(5).choice(list("abcdefghijklmnopqrstuvwxyz"), (124, 100))
    answer = align(aligner, speech, ["".join(word) for word in letters])
    assert len(answer.spans) == 124
    assert score(answer) < 0.3


def test_the_indexed_vocabulary_spells_like_that_of_the_phoneme_recogniser(monkeypatch: pytest.MonkeyPatch) -> None:
    indexed = PhonemeModel()
    monkeypatch.setattr(phonemes, "_IndexedVocabulary", Vocabulary)
    own = PhonemeModel()
    for word in ("he", "confused", "o'malley", "antidisestablishmentarianism", "zzyzx", ""):
        assert indexed.spell(word) == own.spell(word)
    assert indexed.spell("confused")


def test_letters_after_the_32nd_are_not_spelled() -> None:
    model = PhonemeModel()
    assert model.spell("confused" * 4) == model.spell("confused" * 400)


def test_digital_silence_holds_no_words(aligner: WindowAligner) -> None:
    answer = align(aligner, np.zeros(3 * SAMPLE_RATE, np.int16), SAID[:6])
    assert not any(found(span) for span in answer.spans)


@pytest.mark.parametrize("samples", [1, 79, 80, 960, 1600])
@pytest.mark.parametrize(("last", "complete"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_moment_of_audio(aligner: WindowAligner, speech: Samples, samples: int, last: bool, complete: bool) -> None:
    answer = align(aligner, speech[16_000 : 16_000 + samples], SAID[:3], last=last, complete=complete)
    assert len(answer.spans) == 3 if last and complete else len(answer.spans) <= 3
    assert answer.resume >= 0
