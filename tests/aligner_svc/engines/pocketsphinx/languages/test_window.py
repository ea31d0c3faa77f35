"""What is final of a window of another language while it grows."""

from __future__ import annotations

import numpy as np
import pytest

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.pocketsphinx.languages.ipa import Sound
from aligner_svc.engines.pocketsphinx.languages.window import LanguageWindowAligner
from aligner_svc.engines.pocketsphinx.recogniser import Segment
from tests.aligner_svc.engines.pocketsphinx.test_window import UnmovedEdges


class Spoken:
    """Finds words at `times`, all of which fit as well as `score` says."""

    def __init__(self, times: list[tuple[float, float]], score: float) -> None:
        self.segments = [Segment(start, end, score, ("AH",)) for start, end in times]
        self.calls = 0

    def align(self, samples, words, exits=()):
        self.calls += 1
        return self.segments


class Letters:
    def ways(self, word: str, language: str):
        return ((Sound("ə", ("AH",)),),)


WORDS = [(0.1, 0.5), (0.5, 1.0), (1.2, 1.6), (1.6, 2.1), (2.1, 2.5)]


@pytest.mark.parametrize(("score", "final"), [(-0.5, 2), (-9.0, 0)])
def test_words_are_final_up_to_a_pause_if_they_fit_and_nothing_is_tried_twice(score: float, final: int) -> None:
    recogniser = Spoken(WORDS, score)
    aligner = LanguageWindowAligner(recogniser, Letters(), UnmovedEdges())  # type: ignore[arg-type]
    samples = np.full(int(2.8 * SAMPLE_RATE), 1000, np.int16)
    found = aligner.align(samples, [["a"]] * 8, "de", last=False, complete=False, live=True)
    assert [(span.start, span.end) for span in found.spans] == WORDS[:final]
    assert found.resume == (pytest.approx(1.1) if final else 0.0)
    assert recogniser.calls == 1
