"""The bound read off the packets is never below what decoding gives, whatever headers and time stamps say."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from aligner_svc.audio.container import decode_container
from aligner_svc.audio.longest import longest_seconds
from aligner_svc.audio.undecodable import UndecodableError
from tests.aligner_svc.audio.test_decode import bursts, encode, wav

SIGNAL = bursts(16000, 4.0)
FORMS = (
    ("ogg", "ogg", "libopus"),
    ("mp3", "mp3", "libmp3lame"),
    ("webm", "matroska", "libopus"),
    ("matroska", "matroska", "flac"),
    ("mp4", "mov", "aac"),
    ("adts", "aac", "aac"),
    ("flac", "flac", "flac"),
    ("wav", "wav", "pcm_s16le"),
    ("wav", "wav", "adpcm_ms"),
    ("asf", "asf", "wmav2"),
    ("wv", "wv", "wavpack"),
)


def decoded(audio: bytes, demuxer: str) -> float:
    """Seconds that decoding gives, 0 where it refuses."""
    try:
        return len(decode_container(memoryview(audio), demuxer, 100.0)[0]) / 16000
    except UndecodableError:
        return 0.0


@pytest.mark.parametrize(("muxer", "demuxer", "codec"), FORMS)
def test_the_bound_is_close_above_the_length(muxer: str, demuxer: str, codec: str) -> None:
    audio = encode(SIGNAL, 16000, muxer, codec)
    seconds = decoded(audio, demuxer)
    assert seconds <= longest_seconds(memoryview(audio), demuxer, 100.0) <= seconds + 1.5
    assert longest_seconds(memoryview(audio), demuxer, 3.0) == math.inf  # it is long enough, and the rest is not read


@pytest.mark.parametrize(("muxer", "demuxer", "codec"), FORMS)
def test_no_damage_makes_it_shorter_than_what_is_decoded(muxer: str, demuxer: str, codec: str) -> None:
    whole = encode(SIGNAL, 16000, muxer, codec)
    random = np.random.default_rng(3)
    damaged = [whole + whole, whole[: len(whole) * 2 // 3], whole[:200] + whole[len(whole) // 2 :]]
    for _ in range(8):
        audio = np.frombuffer(whole, np.uint8).copy()
        audio[random.integers(0, len(audio), 8)] = random.integers(0, 256, 8)
        damaged.append(audio.tobytes())
    for audio in damaged:
        assert longest_seconds(memoryview(audio), demuxer, 100.0) >= decoded(audio, demuxer)


@pytest.mark.parametrize("ticks", [0, 1, 100])
def test_a_table_of_wrong_durations_is_not_believed(ticks: int) -> None:
    audio = bytearray(encode(SIGNAL, 16000, "mp4", "aac").replace(b"edts", b"free"))  # no edit list, which counts in ticks too
    at = audio.index(b"stts")
    for entry in range(struct.unpack_from(">I", audio, at + 8)[0]):
        struct.pack_into(">I", audio, at + 12 + 8 * entry + 4, ticks)
    assert longest_seconds(memoryview(audio), "mov", 100.0) >= decoded(bytes(audio), "mov") > 3


@pytest.mark.parametrize("claimed", [0, 1000, 0xFFFFFFFF])
def test_a_wrong_size_in_a_header_is_not_believed(claimed: int) -> None:
    audio = wav((SIGNAL * 30000).astype(np.int16), claimed=claimed)
    assert longest_seconds(memoryview(audio), "wav", 100.0) >= decoded(audio, "wav") > 0


def test_what_cannot_be_opened_is_left_to_decoding() -> None:
    assert longest_seconds(memoryview(b"OggS" + bytes(2000)), "ogg", 100.0) == math.inf
