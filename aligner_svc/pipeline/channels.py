"""Transcripts of the channels of a recording: each is aligned apart, and the words of all become one answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from heapq import merge
from operator import attrgetter

from aligner_svc.domain import Channel, Stretch, Token, Warning, Word
from aligner_svc.errors import InvalidArgumentError, MismatchError

_TRANSCRIPT = "config.transcript"


@dataclass(frozen=True, slots=True)
class ReadTranscript:
    """A transcript, read. `channel`: the one it was said on, from 0; None: the transcript of the whole recording.

    `spoken`: of its tokens those that are looked for.
    """

    channel: int | None
    tokens: Sequence[Token]
    spoken: Sequence[Token]


@dataclass(frozen=True, slots=True)
class AlignedPart:
    """What was found of a `ReadTranscript`. `unaligned`: loud stretches without words."""

    channel: int | None
    words: Sequence[Word]
    match_score: float
    warnings: Sequence[Warning]
    unaligned: Sequence[Stretch]


@contextmanager
def of_channel(channel: int | None) -> Iterator[None]:
    """Says in refusals of a transcript or its audio which channel they are about."""
    try:
        yield
    except (InvalidArgumentError, MismatchError) as error:
        if channel is None:
            raise
        field = error.violations[0].field if error.violations else None
        message = f"channel {channel}: {error.message}"
        raise type(error)(error.reason, message, field="config.channel_transcripts" if field == _TRANSCRIPT else field) from None


def merged(parts: Sequence[AlignedPart]) -> AlignedPart:
    """All parts as one, words and stretches in the order of their times; the match score is the lowest.

    The words of a channel stay in the order of its transcript; of two that begin together that of the channel named first comes
    first.
    """
    if len(parts) == 1 and parts[0].channel is None:
        return parts[0]
    begin = attrgetter("start")
    words = merge(*([replace(word, channel=part.channel) for word in part.words] for part in parts), key=begin)
    stretches = merge(*([replace(at, channel=part.channel) for at in part.unaligned] for part in parts), key=begin)
    return AlignedPart(
        channel=None,
        words=list(words),
        match_score=min(part.match_score for part in parts),
        warnings=[replace(warning, channel=part.channel) for part in parts for warning in part.warnings],
        unaligned=list(stretches),
    )


def summaries(parts: Sequence[AlignedPart]) -> list[Channel]:
    """One for each channel."""
    return [Channel(part.channel, part.match_score) for part in parts if part.channel is not None]
