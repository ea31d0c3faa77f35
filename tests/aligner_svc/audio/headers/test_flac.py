"""Lost FLAC frames are known by their numbers, whichever of the two ways of numbering a file has."""

from __future__ import annotations

import pytest

from aligner_svc.audio.headers.flac import FlacNumbers


def packet(number: int, *, varies: bool = False) -> bytes:
    """The start of a frame with this number, as UTF-8 codes it."""
    coded = chr(number).encode() if number < 0xD800 else b"\xf0" + bytes(0x80 | number >> shift & 63 for shift in (12, 6, 0))
    return bytes((0xFF, 0xF8 | varies, 0x70, 0x08)) + coded + bytes(8)


def lost(frames: list[tuple[int, int]], *, varies: bool = False) -> list[int]:
    """What is missing before each of `frames` (number, samples)."""
    numbers, missing = FlacNumbers(), []
    for number, samples in frames:
        missing.append(numbers.missing(packet(number, varies=varies)))
        numbers.add(samples)
    return missing


def test_frames_numbered_one_by_one() -> None:
    assert lost([(0, 4096), (1, 4096), (2, 4096), (5, 4096), (6, 100)]) == [0, 0, 0, 2 * 4096, 0]


@pytest.mark.parametrize("varies", [False, True], ids=["as old encoders wrote them", "as the standard says"])
def test_frames_numbered_by_their_samples(varies: bool) -> None:
    frames = [(0, 4096), (4096, 1024), (5120, 4096), (9216, 512), (9216 + 512 + 3000, 512)]
    assert lost(frames, varies=varies) == [0, 0, 0, 0, 3000]


def test_numbers_that_begin_again_are_another_recording() -> None:
    assert lost([(7, 4096), (8, 4096), (0, 4096), (1, 4096)]) == [0, 0, 0, 0]


def test_several_frames_in_a_packet_count_as_found() -> None:
    numbers = FlacNumbers()
    numbers.missing(packet(10))
    for _ in range(3):
        numbers.add(1152)
    assert numbers.missing(packet(17)) == 4 * 1152


def test_bytes_that_are_no_number() -> None:
    numbers = FlacNumbers()
    for coded in (b"", b"\xff", b"\xe0\x80", b"\xc0\0", b"\x80"):
        assert numbers.missing(b"\xff\xf8\0\0" + coded) == 0
        numbers.add(1)
