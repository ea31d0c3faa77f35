"""What people really send: several tracks, late sound, recordings in a row, headers that are wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from aligner_svc.audio.container import Found, decode_container
from aligner_svc.audio.longest import longest_seconds
from aligner_svc.audio.undecodable import UndecodableError
from tests.aligner_svc.audio.test_decode import Signal, as_16k, bursts, encode, wav
from tests.kit.films import Track, film

SPEECH = bursts(16000)
OTHER = SPEECH[::-1].copy()
SILENCE = np.zeros_like(SPEECH)


def decoded(audio: bytes, demuxer: str, track: int = 0) -> tuple[npt.NDArray[np.int16], Found]:
    return decode_container(memoryview(audio), demuxer, 60.0, None, track)


def likeness(reference: Signal, samples: npt.NDArray[np.int16], within: int = 32) -> float:
    """1 for the same, at most `within` samples earlier or later, at any level and in any phase; codecs leave .9 and more."""
    count = min(len(reference), len(samples))
    a, b = reference[:count].astype(float), samples[:count].astype(float)
    correlation = np.abs(np.fft.irfft(np.fft.rfft(b, 2 * count) * np.conj(np.fft.rfft(a, 2 * count))))
    return float(max(correlation[: within + 1].max(), correlation[-within:].max()) / np.sqrt((a @ a) * (b @ b)))


class TestTracks:
    @pytest.mark.parametrize(("muxer", "demuxer", "codec"), [("mp4", "mov", "aac"), ("matroska", "matroska", "flac")])
    @pytest.mark.parametrize(
        ("tracks", "used"),
        [
            ([Track(SILENCE), Track(SPEECH)], 2),
            ([Track(OTHER, default=False), Track(SPEECH)], 2),
            ([Track(SILENCE), Track(SILENCE), Track(SPEECH, default=False)], 3),
            ([Track(OTHER * np.float32(0.005)), Track(SPEECH)], 2),
            ([Track(SPEECH), Track(OTHER)], 1),
        ],
        ids=["silent first", "second is default", "two silent defaults", "hiss first", "both"],
    )
    def test_a_default_track_with_sound_is_used_else_another_with_sound(
        self, muxer: str, demuxer: str, codec: str, tracks: Sequence[Track], used: int
    ) -> None:
        samples, found = decoded(film(muxer, codec, *tracks), demuxer)
        assert (found.track, found.tracks) == (used, len(tracks))
        assert likeness(SPEECH, samples) > 0.95

    def test_of_quiet_tracks_the_loudest_is_used(self) -> None:
        quiet = film("matroska", "pcm_f32le", Track(OTHER * np.float32(1e-5)), Track(SPEECH * np.float32(1e-3)))
        samples, found = decoded(quiet, "matroska")
        assert found.track == 2
        assert likeness(SPEECH, samples) > 0.99

    def test_a_track_is_chosen_by_its_number(self) -> None:
        audio = film("matroska", "flac", Track(SPEECH), Track(OTHER))
        samples, found = decoded(audio, "matroska", 2)
        assert found.track == 2
        assert likeness(OTHER, samples) > 0.99
        with pytest.raises(UndecodableError) as caught:
            decoded(audio, "matroska", 3)
        assert (caught.value.code, caught.value.value) == ("AUDIO_TRACK_UNKNOWN", 2)

    def test_how_long_the_chosen_track_is_is_not_known_in_advance(self) -> None:
        audio = film("matroska", "flac", Track(SILENCE[:8000]), Track(SPEECH))
        assert longest_seconds(memoryview(audio), "matroska", 60.0) == float("inf")


class TestStart:
    @pytest.mark.parametrize(
        ("muxer", "demuxer", "codec"), [("mp4", "mov", "aac"), ("mov", "mov", "pcm_s16le"), ("matroska", "matroska", "aac")]
    )
    @pytest.mark.parametrize("start", [0.0, 2.0])
    def test_start_and_place_in_the_clip_add_up(self, muxer: str, demuxer: str, codec: str, start: float) -> None:
        samples, found = decoded(film(muxer, codec, Track(SPEECH, start)), demuxer)
        delay = round((start - found.start) * 16000)  # an encoder's, which MP4 plays before the sound begins
        assert 0 <= delay < 1100
        assert likeness(SPEECH, samples[delay:]) > 0.95
        assert not found.truncated

    def test_formats_without_a_clock_start_at_0(self) -> None:
        assert decoded(encode(bursts(44100), 44100, "mp3", "libmp3lame"), "mp3")[1].start == 0


class TestInARow:
    @pytest.mark.parametrize(
        ("demuxer", "first", "second"),
        [
            ("ogg", ("ogg", "libopus", 48000, "mono"), ("ogg", "libopus", 48000, "stereo")),
            ("ogg", ("ogg", "libopus", 48000, "stereo"), ("ogg", "libopus", 48000, "mono")),
            ("ogg", ("ogg", "vorbis", 44100, "stereo"), ("ogg", "vorbis", 22050, "stereo")),
            ("ogg", ("ogg", "flac", 44100, "mono"), ("ogg", "libopus", 48000, "stereo")),
            ("flac", ("flac", "flac", 16000, "mono"), ("flac", "flac", 44100, "stereo")),
            ("wav", ("wav", "pcm_s16le", 16000, "mono"), ("wav", "pcm_f32le", 44100, "stereo")),
        ],
    )
    def test_each_is_decoded_by_its_own_header(
        self, demuxer: str, first: tuple[str, str, int, str], second: tuple[str, str, int, str]
    ) -> None:
        one, two = (encode(bursts(rate), rate, muxer, codec, layout) for muxer, codec, rate, layout in (first, second))
        samples, found = decoded(one + two, demuxer)
        assert len(samples) / 16000 == pytest.approx(4, abs=0.05)
        assert likeness(as_16k(bursts(first[2]), first[2]), samples) > 0.95
        assert likeness(as_16k(bursts(second[2]), second[2]), samples[-32000:], within=800) > 0.9
        assert replace(found, peak=0.0) == Found(track=1, tracks=1)
        assert longest_seconds(memoryview(one + two), demuxer, 60.0) >= 4

    def test_one_that_cannot_be_read_is_left_out(self) -> None:
        audio = encode(bursts(48000), 48000, "ogg", "libopus")
        broken = b"OggS\0\x02" + bytes(8) + b"serial  crc \1\x13OpusHead" + bytes(60)
        samples, found = decoded(audio + broken + audio, "ogg")
        assert len(samples) == 4 * 16000
        assert found.damaged

    def test_a_thousand_are_too_many(self) -> None:
        with pytest.raises(UndecodableError, match="AUDIO_TOO_MANY_STREAMS"):
            decoded(wav(np.ones(100, np.int16)) * 1100, "wav")

    def test_frames_of_another_rate_leave_no_gaps(self) -> None:
        audio = encode(bursts(16000), 16000, "adts", "aac") + encode(bursts(44100), 44100, "adts", "aac", "stereo")
        assert len(decoded(audio, "aac")[0]) / 16000 == pytest.approx(4, abs=0.2)


class TestWaveSizes:
    SAMPLES = (SPEECH * 32767).astype(np.int16)
    SIZE = 2 * len(SAMPLES)

    @pytest.mark.parametrize(
        "claimed",
        [0, 0xFFFFFFFF, 0x7FFFF000, 0xFFFFFFDB, 0x80000000, 2_000_000_000 - 44, 500_000_000, (1 << 30) - 36],
    )
    def test_a_placeholder_is_not_a_length(self, claimed: int) -> None:
        audio = wav(self.SAMPLES, claimed=claimed)
        samples, found = decode_container(memoryview(audio), "wav", 1e5)
        assert (samples == self.SAMPLES).all()
        assert not found.truncated

    def test_neither_is_more_than_would_be_accepted(self) -> None:
        assert not decoded(wav(self.SAMPLES, claimed=61 * 32000), "wav")[1].truncated

    @pytest.mark.parametrize("claimed", [SIZE * 2, SIZE * 10, SIZE + 4000])
    def test_any_other_length_that_is_too_much_is_a_cut(self, claimed: int) -> None:
        assert decoded(wav(self.SAMPLES, claimed=claimed), "wav")[1].truncated

    @pytest.mark.parametrize("claimed", [1, 2, SIZE // 4, SIZE // 2])
    def test_samples_behind_the_declared_end_are_used(self, claimed: int) -> None:
        samples, found = decoded(wav(self.SAMPLES, claimed=claimed), "wav")
        assert (samples == self.SAMPLES).all()
        assert found.extended

    @pytest.mark.parametrize(
        "behind",
        [
            b"LIST" + struct.pack("<I", 10000) + bytes(10000),
            b"id3 " + struct.pack("<I", 9999) + bytes(9999),
            b"ID3\4\0\0\0\0\x20\0" + b"x" * 8000,
            bytes(10000),
            b"\r\n",
        ],
        ids=["LIST", "odd id3", "ID3", "zeros", "line end"],
    )
    def test_what_is_no_sound_is_left_out(self, behind: bytes) -> None:
        samples, found = decoded(wav(self.SAMPLES) + behind, "wav")
        assert (samples == self.SAMPLES).all()
        assert replace(found, peak=0.0) == Found(track=1, tracks=1)

    def test_tags_behind_samples_of_unknown_number_are_left_out(self) -> None:
        tags = b"LIST" + struct.pack("<I", 10) + b"INFOISFT\0\0"
        assert len(decoded(wav(self.SAMPLES, claimed=0) + tags, "wav")[0]) == len(self.SAMPLES)


class TestNothing:
    @pytest.mark.parametrize("level", [0.0, 1e-6, 1e-3, 0.5])
    def test_the_peak_is_that_before_scaling(self, level: float) -> None:
        assert decoded(wav(SPEECH * np.float32(level)), "wav")[1].peak == pytest.approx(0.7 * level)

    def test_silence_in_place_of_what_was_lost_is_unreadable(self) -> None:
        audio = bytearray(encode(bursts(48000), 48000, "mp4", "aac"))
        at = audio.index(b"mdat") + 4
        size = int.from_bytes(audio[at - 8 : at - 4], "big") - 8
        audio[at : at + size] = bytes(size)
        with pytest.raises(UndecodableError, match="AUDIO_UNREADABLE"):
            decoded(bytes(audio), "mov")
