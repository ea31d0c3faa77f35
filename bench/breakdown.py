"""Where an engine worker's CPU time goes: its parts in a process of their own, each timed."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from unittest.mock import patch

from aligner_svc.domain import Clip, Token
from aligner_svc.engines.pocketsphinx import ladder, second_opinion
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.engines.pocketsphinx.phonemes import PhonemeModel
from aligner_svc.engines.pocketsphinx.recogniser import Recogniser
from aligner_svc.engines.pocketsphinx.window import WindowAligner
from aligner_svc.engines.pocketsphinx.wire import TokenSpan
from aligner_svc.engines.windows import Prefix, align_in_windows


class _Clock:
    """CPU seconds by part, without those of the parts that it calls."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner = [0.0]

    def on(self, part: str, function: Callable[..., object]) -> Callable[..., object]:
        def timed(*args: object, **named: object) -> object:
            self._inner.append(0.0)
            began = time.process_time()
            try:
                return function(*args, **named)
            finally:
                spent = time.process_time() - began
                self.seconds[part] += spent - self._inner.pop()
                self._inner[-1] += spent

        return timed


Recordings = Sequence[tuple[Clip, Sequence[Token]]]


def breakdown(recordings: Recordings) -> Counter[str]:
    """CPU seconds by part over all recordings, starting with empty caches."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # as in a worker; read when numpy is imported
    with patch.dict(os.environ, one_thread), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_measure, recordings).result()


def _measure(recordings: Recordings) -> Counter[str]:
    return asyncio.run(_align(recordings))


async def _align(recordings: Recordings) -> Counter[str]:
    clock = _Clock()
    speller, phonemes, refiner = Speller(), PhonemeModel(), BoundaryRefiner()
    recogniser = Recogniser(speller)
    aligner = WindowAligner(ladder.Ladder(recogniser, phonemes), speller, refiner)
    parts = (
        (speller, "phones", "spelling"),
        (recogniser, "align", "PocketSphinx"),
        (refiner, "refine", "refinement"),
        (phonemes, "spell", "second opinion: spelling"),
        (phonemes, "log_probabilities", "second opinion: phonemes"),
        (second_opinion, "align_skipping", "second opinion: search"),
        (ladder, "denoise", "denoising"),
        (aligner, "align", "rest"),
    )
    with ExitStack() as patches:
        for owner, name, part in parts:
            patches.enter_context(patch.object(owner, name, clock.on(part, getattr(owner, name))))

        async def window(
            samples: second_opinion.Samples, tokens: Sequence[Token], last: bool, complete: bool
        ) -> Prefix[TokenSpan]:
            return aligner.align(samples, [token.spoken for token in tokens], last, complete)

        for clip, tokens in recordings:
            await align_in_windows(clip, tokens, window)
    return clock.seconds
