"""What a hostile file is, and what may come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aligner_svc.audio.encoding import Encoding

DECODED: Final = "decoded"

# Reasons by which a decoder may refuse audio; any other outcome is a fault of ours.
REFUSALS: Final = frozenset(
    {
        "AUDIO_EMPTY",
        "AUDIO_METADATA_TOO_LARGE",
        "AUDIO_NOT_FINITE",
        "AUDIO_NO_STREAM",
        "AUDIO_POLYGLOT",
        "AUDIO_TOO_LONG",
        "AUDIO_TOO_MANY_PACKETS",
        "AUDIO_TOO_MANY_STREAMS",
        "AUDIO_UNREADABLE",
        "AUDIO_UNSUPPORTED",
        "CHANNELS_OUT_OF_RANGE",
        "CODEC_UNSUPPORTED",
        "SAMPLE_RATE_OUT_OF_RANGE",
    }
)

ANY: Final = (DECODED, *sorted(REFUSALS - {"AUDIO_POLYGLOT", "AUDIO_UNSUPPORTED"}))
"""What may come of a file that gets as far as libav: an answer or one of the decoder's reasons."""


@dataclass(frozen=True)
class Hostile:
    """`outcomes`: what may come of it, DECODED or reasons. `says`: part of the message, where a name is promised.

    More than one outcome only where it is libav's business how far it follows a broken file.
    """

    make: Callable[[], bytes]
    outcomes: frozenset[str]
    says: str = ""
    encoding: Encoding = Encoding.CONTAINER


def hostile(make: Callable[[], bytes], *outcomes: str, says: str = "", encoding: Encoding = Encoding.CONTAINER) -> Hostile:
    return Hostile(make, frozenset(outcomes), says, encoding)
