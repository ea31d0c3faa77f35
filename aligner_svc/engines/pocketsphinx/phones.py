"""The sounds of words that were found: a pass over each run of them, and their edges moved as those of words are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from pocketsphinx import Decoder

from aligner_svc.domain import SAMPLE_RATE, Phone, WordStatus
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner, WordSpan, in_order
from aligner_svc.engines.pocketsphinx.wire import TokenSpan

_MARGIN = 0.1
"""Seconds of audio around a run of words, which the recogniser needs to begin with silence or another sound."""
_SHORTEST = 0.015
"""Seconds of a sound. A word's edges are found apart from those of its sounds, and may leave nothing for the outer ones."""
_PAUSE = 0.3
"""Seconds between words, from which on they are aligned apart."""


Samples = npt.NDArray[np.int16]
Word = TypeVar("Word")


class HeardSound(NamedTuple):
    """A sound of a word where a recogniser found it: its symbol for the caller, its place and the phones of the model."""

    symbol: str
    span: WordSpan


FindSounds = Callable[[Samples, Sequence[Word]], Sequence[Sequence[HeardSound]] | None]
"""The sounds of each of the words, which are all in the samples; None: no path through the audio was found."""


def second_pass(decoder: Decoder, samples: Samples, frame_seconds: float) -> list[tuple[str, list[Phone]]]:
    """The words of the path that `decoder` has just found in `samples`, with the phones of each.

    The first pass does not keep where they are.
    """
    decoder.set_alignment()
    decoder.reinit_feat()
    decoder.start_utt()
    try:
        decoder.process_raw(samples.tobytes(), full_utt=True)
    finally:
        decoder.end_utt()
    alignment = decoder.get_alignment()
    return [
        (word.name, [Phone(one.name, one.start * frame_seconds, (one.start + one.duration) * frame_seconds) for one in word])
        for word in (alignment.words() if alignment else ())
        if word.name[0] not in "<[("
    ]


def with_phones(
    spans: Sequence[TokenSpan],
    samples: Samples,
    tokens: Sequence[Sequence[Word]],
    find: FindSounds[Word],
    refiner: BoundaryRefiner,
) -> list[TokenSpan]:
    """`spans` of the first of `tokens`, with the phones of those that are ALIGNED. They fill a token, whose edges stay.

    A run of words of whose phones no path is found has none.
    """
    answer = list(spans)
    for run in _runs(spans):
        begin = max(0.0, spans[run[0]].start - _MARGIN)
        piece = samples[int(begin * SAMPLE_RATE) : int((spans[run[-1]].end + _MARGIN) * SAMPLE_RATE)]
        found = find(piece, [word for index in run for word in tokens[index]])
        if found is None:
            continue
        sounds = [WordSpan(begin + span.start, begin + span.end, span.phones) for word in found for _, span in word]
        moved = iter(refiner.refine(samples, sounds))
        left = iter(found)
        for index in run:
            symbols = [symbol for word in islice(left, len(tokens[index])) for symbol, _ in word]
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
    """The sounds of a token between its edges, each of _SHORTEST at least where there is room for all."""
    length = span.end - span.start
    shortest = np.full(len(symbols), min(_SHORTEST, length / max(1, len(symbols))))
    inner = in_order(np.array([0.0, *(end - span.start for end in ends[:-1]), length]), shortest, length)[1:-1]
    edges = [span.start, *np.clip(span.start + inner, span.start, span.end).tolist(), span.end]
    return tuple(map(Phone, symbols, *zip(*pairwise(edges), strict=True)))
