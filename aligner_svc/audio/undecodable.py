"""The decoder child's refusals: a short code and a number. decode.py, in the parent, turns them into messages."""

from __future__ import annotations

from typing import Final

MIN_RATE: Final = 4_000
MAX_RATE: Final = 192_000
"""Hz."""

MAX_CHANNELS: Final = 8

UNFINISHED: Final = "UNFINISHED"
"""Code of a decode that took longer than it was given: no client sees it, the decode is begun again with more time."""

SHORTER: Final = "SHORTER"
"""Code of audio that is shorter than was asked for, found before it was decoded; the value is its greatest length in ms."""


class UndecodableError(Exception):
    """`code` is one of the reasons in decode.py; `value` the number that was out of range, if there is one."""

    def __init__(self, code: str, value: int = 0) -> None:
        super().__init__(code)
        self.code = code
        self.value = value


def check_shape(channels: int, rate: int) -> None:
    """Raise UndecodableError unless both are in range (rate in Hz)."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise UndecodableError("CHANNELS_OUT_OF_RANGE", channels)
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UndecodableError("SAMPLE_RATE_OUT_OF_RANGE", rate)
