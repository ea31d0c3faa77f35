"""The answer for a clip from the model's classes: the words' times, their confidence, and warnings."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_svc.domain import Warning, WordStatus
from aligner_svc.engines.base import EngineResult, Span
from aligner_svc.engines.qwen.timestamps import TimestampSlots, repair
from aligner_svc.text.speaking_rate import dense_warning

MAX_SECONDS = 300.0
"""The limit of one pass, by the model's design; its 5,000 classes of 80 ms end at 400 s. Longer recordings are cut."""
MATCH_THRESHOLD = 0.5
"""Share of the model's times that must be in order. Of random times of 20 words, 0.3 are in order."""
_MS = 1000.0


def assemble(slots: TimestampSlots, seconds: float, segment_ms: float, queued: float, busy: float) -> EngineResult:
    """The answer for one clip of `seconds`; two slots a word, start and end, `segment_ms` a class.

    A word's confidence is the product of the model's probabilities that its start and its end are right to a class. That of a
    repaired time is at most the probability of the model's own choice, and at most what that choice left over.
    """
    repaired = repair([float(index * segment_ms) for index in slots.classes])
    spans = []
    for at in range(0, len(repaired.times), 2):
        start, end = (round(time / _MS, 3) for time in repaired.times[at : at + 2])
        sure = 1.0
        for kept, probability in zip(repaired.kept[at : at + 2], slots.probabilities[at : at + 2], strict=True):
            sure *= float(probability) if kept else min(float(probability), 1.0 - float(probability))
        # A class covers `segment_ms`, so the last may end after the audio. A later time cannot be the model's answer.
        inside = end - seconds <= segment_ms / _MS
        own = inside and all(repaired.kept[at : at + 2])
        status = WordStatus.ALIGNED if own else WordStatus.REPAIRED
        spans.append(Span(min(start, seconds), min(end, seconds), min(max(sure, 0.0), 1.0), status))
    score = sum(repaired.kept) / len(repaired.kept)
    dense = dense_warning(len(spans), seconds)
    said = [*warnings(spans, score, segment_ms), *([] if dense is None else [dense])]
    return EngineResult(spans, score, said, queued, busy)


def warnings(spans: Sequence[Span], score: float, segment_ms: float) -> list[Warning]:
    """About the times of the words that have one; `score` as in EngineResult, `segment_ms` a class."""
    found = []
    if score < MATCH_THRESHOLD:
        message = f"the transcript does not seem to belong to this audio: {score:.0%} of the times found are in its order"
        found.append(Warning("TRANSCRIPT_MISMATCH", message))
    empty = sum(span.start == span.end for span in spans)
    if empty:
        message = (
            f"{empty} of {len(spans)} words are shorter than this engine's resolution of {segment_ms:g} ms and have no length"
        )
        found.append(Warning("WORDS_WITHOUT_LENGTH", message))
    return found
