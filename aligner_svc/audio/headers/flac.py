"""The numbers of FLAC frames (RFC 9639, section 9.1.5): whether one is missing between two.

libav turns them into time stamps by the header's block size, which is wrong for files whose block size or rate varies: frames of
25 s have time stamps of hours. Counting says what the numbers mean: they go up by one, or by the samples of the frame before.
"""

from __future__ import annotations


class FlacNumbers:
    """Call `missing` for each packet of the parser that gives samples, and `add` for the samples."""

    def __init__(self) -> None:
        self._number: int | None = None  # of the packet before
        self._block = 0  # samples of its first frame
        self._samples = 0  # of all its frames: around a hole the parser takes several for one packet
        self._counts_samples = False

    def missing(self, packet: bytes) -> int:
        """Samples (of one channel) lost before `packet`, which begins with a frame; 0 where the numbers do not say."""
        number = _coded_number(packet[4:11])
        before, block, samples = self._number, self._block, self._samples
        self._number, self._block, self._samples = number, 0, 0
        if number is None or before is None:
            return 0
        step = number - before
        if step == samples != 1:
            self._counts_samples = True
        if step == 1:
            return 0
        return max(0, (step if self._counts_samples or packet[1] & 1 else step * block) - samples)

    def add(self, samples: int) -> None:
        """Count the samples (of one channel) of a frame."""
        self._block = self._block or samples
        self._samples += samples


def _coded_number(coded: bytes) -> int | None:
    """As UTF-8 codes characters, with up to seven bytes."""
    if not coded:
        return None
    first = coded[0]
    if first < 0x80:
        return first
    length = 8 - (first ^ 0xFF).bit_length()  # leading ones
    if not 2 <= length <= 7 or len(coded) < length:
        return None
    number = first & (0x7F >> length)
    for byte in coded[1:length]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    return number
