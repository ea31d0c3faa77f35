"""The real recognisers on the sample recording: what they find, and what they do not claim to."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from aligner_svc.domain import SAMPLE_RATE, WordStatus
from aligner_svc.engines.boundaries import BoundaryRefiner
from aligner_svc.engines.pocketsphinx.ladder import Ladder, Samples
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.engines.pocketsphinx.phonemes import PhonemeModel
from aligner_svc.engines.pocketsphinx.recogniser import Recogniser
from aligner_svc.engines.pocketsphinx.window import WindowAligner
from aligner_svc.engines.pocketsphinx.wire import TokenSpan, WindowAnswer

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "librispeech_61-70968-0000.flac"
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


def align(aligner: WindowAligner, samples: Samples, words: list[str], *, final: bool = True) -> WindowAnswer:
    return aligner.align(samples, [[word] for word in words], final)


def score(answer: WindowAnswer) -> float:
    return float(np.mean([span.evidence for span in answer.spans]))


def found(span: TokenSpan) -> bool:
    return span.status is not WordStatus.NOT_FOUND


def test_what_was_said_is_found_in_order(aligner: WindowAligner, speech: Samples) -> None:
    answer = align(aligner, speech, SAID)
    assert [span.status for span in answer.spans] == [WordStatus.ALIGNED] * len(SAID)
    edges = [edge for span in answer.spans for edge in (span.start, span.end)]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= len(speech) / SAMPLE_RATE
    assert score(answer) > 0.8
    align(aligner, np.random.default_rng(1).integers(-9000, 9000, 8000).astype(np.int16), NOT_SAID)
    assert list(align(aligner, speech, SAID).spans) == list(answer.spans), "it remembers what others sent"


def test_another_transcript_does_not_match(aligner: WindowAligner, speech: Samples) -> None:
    assert score(align(aligner, speech, NOT_SAID)) < 0.3


def test_words_nobody_said_are_mostly_not_found_and_the_others_are(aligner: WindowAligner, speech: Samples) -> None:
    answer = align(aligner, speech, SAID[:5] + FOREIGN + SAID[5:])
    there = [found(span) for span in answer.spans]
    assert sum(there[5:10]) <= 1
    assert sum(there[:5] + there[10:]) >= len(SAID) - 2
    plain = align(aligner, speech, SAID)
    after = [span.start for span in answer.spans[10:]]
    assert np.median(np.abs(np.array(after) - [span.start for span in plain.spans[5:]])) < 0.05


def test_an_open_window_commits_a_prefix(aligner: WindowAligner, speech: Samples) -> None:
    answer = align(aligner, speech[: 3 * SAMPLE_RATE], SAID, final=False)
    plain = align(aligner, speech, SAID)
    assert 2 <= len(answer.spans) < len(SAID)
    for span, known in zip(answer.spans, plain.spans, strict=False):
        assert found(span)
        assert span.start == pytest.approx(known.start, abs=0.1)


def test_digital_silence_holds_no_words(aligner: WindowAligner) -> None:
    answer = align(aligner, np.zeros(3 * SAMPLE_RATE, np.int16), SAID[:6])
    assert not any(found(span) for span in answer.spans)


@pytest.mark.parametrize("samples", [1, 79, 80, 960, 1600])
@pytest.mark.parametrize("final", [True, False])
def test_a_moment_of_audio(aligner: WindowAligner, speech: Samples, samples: int, final: bool) -> None:
    answer = align(aligner, speech[16_000 : 16_000 + samples], SAID[:3], final=final)
    assert len(answer.spans) == 3 if final else len(answer.spans) <= 3
    assert answer.resume >= 0
