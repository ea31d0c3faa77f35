"""The sounds of words that were found: a pass over each run of them, and their edges moved as those of words are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE, Phone, WordStatus
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner, WordSpan
from aligner_svc.engines.pocketsphinx.recogniser import Recogniser
from aligner_svc.engines.pocketsphinx.wire import TokenSpan

_MARGIN = 0.1
"""Seconds of audio around a run of words, which the recogniser needs to begin with silence or another sound."""
_PAUSE = 0.3
"""Seconds between words, from which on they are aligned apart."""


def with_phones(
    spans: Sequence[TokenSpan],
    samples: npt.NDArray[np.int16],
    tokens: Sequence[Sequence[str]],
    recogniser: Recogniser,
    refiner: BoundaryRefiner,
) -> list[TokenSpan]:
    """`spans` of the first of `tokens`, with the phones of those that are ALIGNED. They fill a token, whose edges stay.

    A run of words of whose phones no path is found has none.
    """
    answer = list(spans)
    for run in _runs(spans):
        begin = max(0.0, spans[run[0]].start - _MARGIN)
        piece = samples[int(begin * SAMPLE_RATE) : int((spans[run[-1]].end + _MARGIN) * SAMPLE_RATE)]
        found = recogniser.phones(piece, [word for index in run for word in tokens[index]])
        if found is None:
            continue
        sounds = [WordSpan(begin + phone.start, begin + phone.end, [phone.symbol]) for word in found for phone in word]
        moved = iter(refiner.refine(samples, sounds))
        left = iter(found)
        for index in run:
            symbols = [phone.symbol for word in islice(left, len(tokens[index])) for phone in word]
            ends = [word.end for word in islice(moved, len(symbols))]
            answer[index] = replace(spans[index], phones=_within(spans[index], symbols, ends))
    return answer


def _runs(spans: Sequence[TokenSpan]) -> Iterator[list[int]]:
    """Places of tokens that are ALIGNED, one after another without a pause."""
    run: list[int] = []
    for index, span in enumerate(spans):
        aligned = span.status is WordStatus.ALIGNED
        if run and (not aligned or span.start - spans[run[-1]].end > _PAUSE):
            yield run
            run = []
        if aligned:
            run.append(index)
    if run:
        yield run


def _within(span: TokenSpan, symbols: Sequence[str], ends: Sequence[float]) -> tuple[Phone, ...]:
    """The sounds of a token between its edges, each as long as the others leave it."""
    edges = np.clip([span.start, *ends[:-1], span.end], span.start, span.end)
    return tuple(map(Phone, symbols, *zip(*pairwise(np.maximum.accumulate(edges).tolist()), strict=True)))
