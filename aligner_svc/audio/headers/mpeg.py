"""Just enough of MPEG audio's headers to recognise an MP3, and of ID3v2 to skip the tags in front of audio.

Frame header: https://www.mp3-tech.org/programmer/frame_header.html. Tags: https://id3.org/id3v2.4.0-structure.
"""

from __future__ import annotations

from typing import Final

_MIN_FRAMES: Final = 3
"""Frames in a row that make an MP3; two happen by chance in random bytes."""

_MAX_TAGS: Final = 15
"""ID3 tags in a row that are skipped. Programs that prepend a tag without looking leave two or three; a tag may be 10 bytes
long, and an upload of nothing else would hold up the event loop for a second for every 10 MiB."""

# kbit/s by bitrate index, for (MPEG-1 layer III), (MPEG-1 layer II), (MPEG-2 and 2.5, layers II and III)
_RATES_1_3: Final = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_RATES_1_2: Final = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_RATES_2: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def skip_id3(data: memoryview) -> int:
    """Where the ID3v2 tags at the start end (bytes): past the end of `data` if a tag claims so, and at a tag after 15 of them."""
    at = 0
    for _ in range(_MAX_TAGS):
        header = bytes(data[at : at + 10])
        if len(header) < 10 or not header.startswith(b"ID3"):
            break
        size = 0
        for byte in header[6:]:  # seven bits to a byte
            size = size << 7 | byte & 0x7F
        at += 10 + size + (10 if header[5] & 0x10 else 0)  # header, content, footer
    return at


def has_frames(head: bytes) -> bool:
    """Whether MP3 (or MP2) frames follow each other somewhere in `head`: a cut stream starts in the middle of one."""
    at = head.find(b"\xff")
    while at >= 0:
        if _chain(head, at):
            return True
        at = head.find(b"\xff", at + 1)
    return False


def _chain(head: bytes, at: int) -> bool:
    first = at
    for _ in range(_MIN_FRAMES):
        size = _frame_bytes(head[at : at + 4])
        if not size:
            return False
        at += size
        if at + 4 > len(head):  # a short file may hold fewer, if its frames start where it does or end where it ends
            return first == 0 or at == len(head)
    return True


def _frame_bytes(header: bytes) -> int:
    """Length of the frame (bytes), 0 if this is no header. Layer I is left out: FF FE is UTF-16's byte order mark."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer, index, frequency = (header[1] >> 3) & 3, (header[1] >> 1) & 3, header[2] >> 4, (header[2] >> 2) & 3
    if version == 1 or layer not in {1, 2} or index in {0, 15} or frequency == 3:
        return 0
    rates = _RATES_2 if version != 3 else _RATES_1_3 if layer == 1 else _RATES_1_2
    hertz = (44100, 48000, 32000)[frequency] >> {3: 0, 2: 1, 0: 2}[version]
    samples_by_8 = 72 if version != 3 and layer == 1 else 144
    return samples_by_8 * rates[index] * 1000 // hertz + ((header[2] >> 1) & 1)
