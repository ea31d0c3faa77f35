"""From every container the clip is the same audio at the same times; every broken file gets a reason."""

from __future__ import annotations

import asyncio
import io
import signal
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio

import aligner_svc
from aligner_svc.audio import decode as decode_module
from aligner_svc.audio.decode import AudioShorterError, Decoded, Decoder
from aligner_svc.audio.encoding import Encoding
from aligner_svc.config.limits import DecodeSettings, Limits
from aligner_svc.errors import AlignerError, InvalidArgumentError, UnavailableError
from aligner_svc.workers import pool
from aligner_svc.workers.pool import Reply, WorkerPool
from tests.kit.films import Track, film
from tests.kit.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

Signal = npt.NDArray[np.float32]
GOLD = Path(aligner_svc.__file__).parents[2] / "shared" / "gold" / "awkward"
LIMIT = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoder() -> AsyncIterator[Decoder]:
    decoder = Decoder(DecodeSettings(workers=1), Limits(audio_seconds=LIMIT))
    await decoder.start()
    yield decoder
    await decoder.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spacious() -> AsyncIterator[Decoder]:
    """Takes recordings of hours."""
    decoder = Decoder(DecodeSettings(workers=1), Limits())
    await decoder.start()
    yield decoder
    await decoder.close()


def bursts(rate: int, seconds: float = 2.0) -> Signal:
    """Noise of 300-3000 Hz, on and off three times a second: its correlation with itself has one sharp peak."""
    count = int(rate * seconds)
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / rate)
    spectrum[(hertz < 300) | (hertz > 3000)] = 0
    signal = np.fft.irfft(spectrum, count) * ((np.arange(count) / rate * 3) % 1 < 0.5)
    return (signal / np.abs(signal).max() * 0.7).astype(np.float32)


def as_16k(signal: Signal, rate: int) -> Signal:
    """What the clip should be, as float."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=16000)
    frame = av.AudioFrame.from_ndarray(signal[np.newaxis], format="flt", layout="mono")
    frame.sample_rate = rate
    return np.concatenate([f.to_ndarray()[0] for f in [*resampler.resample(frame), *resampler.resample(None)]])


def encode(signal: Signal, rate: int, muxer: str, codec: str, layout: str = "mono", cover: bool = False) -> bytes:
    """The signal in a file, the same on every channel."""
    file = io.BytesIO()
    with av.open(file, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
        stream.bit_rate = 12200 if codec == "libopencore_amrnb" else 128000
        context = stream.codec_context
        context.open()
        if cover:
            video = container.add_stream("mjpeg", rate=1, options={"strict": "unofficial"})
            video.width = video.height = 16
            video.pix_fmt = "yuvj420p"
            container.mux(video.encode(av.VideoFrame(16, 16, "yuvj420p")))
            container.mux(video.encode(None))
        source = av.AudioFrame.from_ndarray(signal[np.newaxis], format="flt", layout="mono")
        source.sample_rate, source.pts = rate, 0
        convert = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or 1024)
        for frame in [*convert.resample(source), *convert.resample(None)]:
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def wav(samples: npt.NDArray[np.generic], rate: int = 16000, *, channels: int = 1, claimed: int | None = None) -> bytes:
    """A WAV of int16 or float32 samples, with any values in its header."""
    data = samples.tobytes()
    size = len(data) if claimed is None else claimed
    width = samples.dtype.itemsize
    tag = 3 if samples.dtype.kind == "f" else 1
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * width & 0xFFFFFFFF, channels * width & 0xFFFF, width * 8)
    return (
        b"RIFF"
        + struct.pack("<I", (size + 36) & 0xFFFFFFFF)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + fmt
        + b"data"
        + struct.pack("<I", size)
        + data
    )


def lag_ms(reference: Signal, decoded: Decoded) -> float:
    """How much later (ms) the clip is than the reference."""
    count = min(len(reference), len(decoded.clip.samples))
    assert count > 8000
    a, b = reference[:count].astype(float), decoded.clip.samples[:count].astype(float)
    size = 1 << (2 * count).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size)
    best = int(correlation.argmax())
    return (best - size if best > size // 2 else best) / 16


def codes(decoded: Decoded) -> set[str]:
    return {warning.code for warning in decoded.warnings}


async def refusal(decoder: Decoder, audio: bytes, *args: object) -> InvalidArgumentError:
    with pytest.raises(InvalidArgumentError) as caught:
        await decoder.decode(audio, *(args or (Encoding.CONTAINER,)))  # type: ignore[arg-type]
    assert caught.value.violations
    return caught.value


class TestEveryContainer:
    @pytest.mark.parametrize(
        ("muxer", "codec", "rate", "demuxer"),
        [
            ("wav", "pcm_s16le", 44100, "wav"),
            ("wav", "pcm_s24le", 48000, "wav"),
            ("wav", "pcm_f32le", 16000, "wav"),
            ("wav", "pcm_u8", 8000, "wav"),
            ("wav", "pcm_mulaw", 8000, "wav"),
            ("wav", "pcm_alaw", 8000, "wav"),
            ("wav", "adpcm_ms", 22050, "wav"),
            ("wav", "adpcm_ima_wav", 22050, "wav"),
            ("w64", "pcm_s16le", 44100, "w64"),
            ("aiff", "pcm_s16be", 44100, "aiff"),
            ("au", "pcm_s16be", 44100, "au"),
            ("caf", "pcm_s16le", 44100, "caf"),
            ("caf", "alac", 44100, "caf"),
            ("flac", "flac", 44100, "flac"),
            ("mp3", "libmp3lame", 44100, "mp3"),
            ("mp3", "libmp3lame", 16000, "mp3"),
            ("ogg", "libopus", 48000, "ogg"),
            ("ogg", "libopus", 16000, "ogg"),
            ("ogg", "vorbis", 44100, "ogg"),
            ("ogg", "flac", 44100, "ogg"),
            ("mp4", "aac", 44100, "mov"),
            ("ipod", "alac", 44100, "mov"),
            ("mp4", "libopus", 48000, "mov"),
            ("mov", "pcm_s16le", 44100, "mov"),
            ("matroska", "aac", 44100, "matroska"),
            ("matroska", "flac", 44100, "matroska"),
            ("webm", "libopus", 48000, "matroska"),
            ("webm", "vorbis", 44100, "matroska"),
            ("wv", "wavpack", 44100, "wv"),
        ],
    )
    async def test_times_are_those_of_the_original(
        self, decoder: Decoder, muxer: str, codec: str, rate: int, demuxer: str
    ) -> None:
        signal = bursts(rate)
        audio = encode(signal, rate, muxer, codec, "stereo" if codec == "vorbis" else "mono")
        decoded = await decoder.decode(audio, Encoding.CONTAINER)
        assert decoded.container == demuxer
        assert abs(lag_ms(as_16k(signal, rate), decoded)) < 5
        assert abs(decoded.clip.seconds - 2) < 0.12
        assert not decoded.warnings

    @pytest.mark.parametrize(
        ("muxer", "codec", "rate", "delay"),
        [
            ("adts", "aac", 44100, 23.2),
            ("amr", "libopencore_amrnb", 8000, 5.0),
            ("ac3", "ac3", 48000, 5.3),
            # libav's decoder drops the two frames that Microsoft's encoder puts in front; libav's encoder puts one.
            ("asf", "wmav2", 44100, -46.4),
        ],
    )
    async def test_formats_that_do_not_declare_their_delay_keep_it_as_in_any_player(
        self, decoder: Decoder, muxer: str, codec: str, rate: int, delay: float
    ) -> None:
        signal = bursts(rate)
        decoded = await decoder.decode(
            encode(signal, rate, muxer, codec, "stereo" if codec == "wmav2" else "mono"), Encoding.CONTAINER
        )
        assert lag_ms(as_16k(signal, rate), decoded) == pytest.approx(delay, abs=0.5)

    async def test_a_picture_is_skipped(self, decoder: Decoder) -> None:
        signal = bursts(44100)
        decoded = await decoder.decode(encode(signal, 44100, "matroska", "flac", cover=True), Encoding.CONTAINER)
        assert abs(lag_ms(as_16k(signal, 44100), decoded)) < 1

    async def test_a_tag_before_flac_is_skipped(self, decoder: Decoder) -> None:
        tag = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
        decoded = await decoder.decode(tag + encode(bursts(16000), 16000, "flac", "flac"), Encoding.CONTAINER)
        assert decoded.container == "flac"
        assert decoded.clip.seconds == 2


class TestSamples:
    async def test_16_khz_mono_int16_comes_out_as_it_went_in(self, decoder: Decoder) -> None:
        samples = np.random.default_rng(2).integers(-32768, 32768, 16000).astype(np.int16)
        decoded = await decoder.decode(wav(samples), Encoding.CONTAINER)
        assert (decoded.clip.samples == samples).all()
        assert decoded.clip.samples.dtype == np.int16
        decoded = await decoder.decode(samples.tobytes(), Encoding.LINEAR16, 16000)
        assert (decoded.clip.samples == samples).all()

    @pytest.mark.parametrize("channels", range(1, 9))
    async def test_channels_are_averaged(self, decoder: Decoder, channels: int) -> None:
        samples = np.zeros((16000, channels), np.int16)
        samples[:, -1] = 24000
        decoded = await decoder.decode(wav(samples, channels=channels), Encoding.CONTAINER)
        assert np.abs(decoded.clip.samples - 24000 / channels).max() <= 1

    @pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1"])
    async def test_planar_channels_are_averaged(self, decoder: Decoder, layout: str) -> None:
        decoded = await decoder.decode(encode(bursts(48000), 48000, "matroska", "wavpack", layout), Encoding.CONTAINER)
        assert abs(lag_ms(as_16k(bursts(48000), 48000), decoded)) < 1

    async def test_loud_float_is_scaled_to_its_peak_the_quiet_start_too(self, decoder: Decoder) -> None:
        signal = np.full(80000, 0.5, np.float32)
        signal[70000:] = 4.0
        decoded = await decoder.decode(wav(signal), Encoding.CONTAINER)
        assert np.abs(decoded.clip.samples[:70000] - 4096).max() <= 1
        assert (decoded.clip.samples[70000:] == 32767).all()

    async def test_a_spike_in_lossy_audio_does_not_silence_the_rest(self, decoder: Decoder) -> None:
        signal = bursts(48000)
        signal[:100] = 50
        decoded = await decoder.decode(encode(signal, 48000, "ogg", "vorbis", "stereo"), Encoding.CONTAINER)
        assert np.abs(decoded.clip.samples[16000:].astype(int)).max() > 0.2 * 32768

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    async def test_samples_that_are_no_numbers_are_refused(self, decoder: Decoder, value: float) -> None:
        signal = np.zeros(50000, np.float32)
        signal[-1] = value
        assert (await refusal(decoder, wav(signal))).reason == "AUDIO_NOT_FINITE"
        assert (await refusal(decoder, signal.tobytes(), Encoding.FLOAT32, 16000)).reason == "AUDIO_NOT_FINITE"


class TestHeaderless:
    async def test_a_rate_is_required(self, decoder: Decoder) -> None:
        error = await refusal(decoder, bytes(100), Encoding.LINEAR16)
        assert error.reason == "SAMPLE_RATE_REQUIRED"
        assert error.violations[0].field == "config.sample_rate_hz"

    @pytest.mark.parametrize("rate", [1, 3999, 192001, 4_000_000_000])
    async def test_rates_out_of_range(self, decoder: Decoder, rate: int) -> None:
        error = await refusal(decoder, bytes(100), Encoding.LINEAR16, rate)
        assert (error.reason, error.violations[0].field) == ("SAMPLE_RATE_OUT_OF_RANGE", "config.sample_rate_hz")
        assert str(rate) in error.message

    async def test_channels_out_of_range(self, decoder: Decoder) -> None:
        error = await refusal(decoder, bytes(100), Encoding.LINEAR16, 16000, 9)
        assert (error.reason, error.violations[0].field) == ("CHANNELS_OUT_OF_RANGE", "config.channels")

    @pytest.mark.parametrize("left_over", [0, 1, 2, 3])
    async def test_bytes_after_the_last_whole_frame_are_dropped(self, decoder: Decoder, left_over: int) -> None:
        audio = np.full(32000, 1000, np.int16).tobytes() + bytes(left_over)
        decoded = await decoder.decode(audio, Encoding.LINEAR16, 16000, 2)
        assert (decoded.clip.samples == 1000).all()
        assert decoded.clip.seconds == 1
        assert decoded.container == "linear16"

    async def test_less_than_a_sample_is_empty(self, decoder: Decoder) -> None:
        assert (await refusal(decoder, b"\0", Encoding.LINEAR16, 16000)).reason == "AUDIO_EMPTY"
        assert (await refusal(decoder, b"", Encoding.LINEAR16, 16000)).reason == "AUDIO_EMPTY"

    async def test_float32_at_another_rate(self, decoder: Decoder) -> None:
        signal = bursts(44100)
        decoded = await decoder.decode(signal.tobytes(), Encoding.FLOAT32, 44100)
        assert abs(lag_ms(as_16k(signal, 44100), decoded)) < 0.1

    async def test_mulaw_is_g711(self, decoder: Decoder) -> None:
        every_code = bytes(range(256)) * 63
        header = wav(np.frombuffer(every_code, np.uint8)[:0].astype(np.int16))[:20]
        fmt = struct.pack("<HHIIHH", 7, 1, 16000, 16000, 1, 8)
        as_wav = header + fmt + b"data" + struct.pack("<I", len(every_code)) + every_code
        by_libav = await decoder.decode(as_wav, Encoding.CONTAINER)
        ours = await decoder.decode(every_code, Encoding.MULAW, 16000)
        assert (ours.clip.samples == by_libav.clip.samples).all()

    async def test_too_long_is_known_before_decoding(self, decoder: Decoder) -> None:
        audio = bytes(int(LIMIT * 8000) + 1)
        assert (await refusal(decoder, audio, Encoding.MULAW, 8000)).reason == "AUDIO_TOO_LONG"


class TestCaps:
    @pytest.mark.parametrize("channels", [0, 9, 1024, 65535])
    async def test_channels(self, decoder: Decoder, channels: int) -> None:
        error = await refusal(decoder, wav(np.zeros(16000, np.int16), channels=channels))
        assert error.reason == "CHANNELS_OUT_OF_RANGE"
        assert str(channels) in error.message
        assert error.violations[0].field == "audio"

    @pytest.mark.parametrize("rate", [0, 1, 3999, 192001, 0xFFFFFFFF])
    async def test_rate(self, decoder: Decoder, rate: int) -> None:
        assert (await refusal(decoder, wav(np.zeros(16000, np.int16), rate))).reason == "SAMPLE_RATE_OUT_OF_RANGE"

    @pytest.mark.parametrize("rate", [4000, 192000])
    async def test_the_ends_of_the_range_are_in_it(self, decoder: Decoder, rate: int) -> None:
        assert (await decoder.decode(wav(np.zeros(rate, np.int16), rate), Encoding.CONTAINER)).clip.seconds == pytest.approx(
            1, abs=0.01
        )

    @pytest.mark.parametrize(("muxer", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("ogg", "libopus")])
    async def test_duration(self, decoder: Decoder, muxer: str, codec: str) -> None:
        audio = encode(np.zeros(int((LIMIT + 0.5) * 16000), np.float32), 16000, muxer, codec)
        error = await refusal(decoder, audio)
        assert error.reason == "AUDIO_TOO_LONG"
        assert "20 seconds" in error.message
        audio = encode(np.zeros(int(LIMIT * 16000), np.float32), 16000, muxer, codec)
        assert (await decoder.decode(audio, Encoding.CONTAINER)).clip.seconds == LIMIT

    async def test_a_header_that_claims_days_is_only_as_long_as_its_audio(self, decoder: Decoder) -> None:
        audio = bytearray(encode(bursts(16000), 16000, "flac", "flac"))
        audio[21] |= 0x0F  # the upper bits of STREAMINFO's 36-bit sample count
        audio[22:26] = b"\xff" * 4
        decoded = await decoder.decode(bytes(audio), Encoding.CONTAINER)
        assert decoded.clip.seconds == 2
        assert codes(decoded) == {"AUDIO_TRUNCATED"}


class TestBroken:
    async def test_a_wav_shorter_than_its_header_gives_what_is_there(self, decoder: Decoder) -> None:
        samples = np.arange(16000, dtype=np.int16)
        decoded = await decoder.decode(wav(samples, claimed=64000), Encoding.CONTAINER)
        assert (decoded.clip.samples == samples).all()
        assert codes(decoded) == {"AUDIO_TRUNCATED"}

    @pytest.mark.parametrize("claimed", [0xFFFFFFFF, 0x7FFFFFFF, 0])
    async def test_a_wav_written_to_a_pipe_claims_nothing(self, decoder: Decoder, claimed: int) -> None:
        decoded = await decoder.decode(wav(np.ones(16000, np.int16), claimed=claimed), Encoding.CONTAINER)
        assert decoded.clip.seconds == 1
        assert not decoded.warnings

    @pytest.mark.parametrize(
        ("muxer", "codec"),
        [("flac", "flac"), ("mp3", "libmp3lame"), ("matroska", "aac"), ("aiff", "pcm_s16be"), ("wv", "wavpack")],
    )
    async def test_a_file_cut_short_gives_what_is_there(self, decoder: Decoder, muxer: str, codec: str) -> None:
        signal = bursts(44100)
        audio = encode(signal, 44100, muxer, codec)
        decoded = await decoder.decode(audio[: len(audio) * 2 // 3], Encoding.CONTAINER)
        assert 1 <= decoded.clip.seconds < 1.8
        assert "AUDIO_TRUNCATED" in codes(decoded)
        assert abs(lag_ms(as_16k(signal, 44100), decoded)) < 5

    @pytest.mark.parametrize(("muxer", "codec"), [("flac", "flac"), ("ogg", "libopus"), ("ogg", "flac"), ("mp4", "aac")])
    async def test_after_a_hole_times_are_right_again(self, decoder: Decoder, muxer: str, codec: str) -> None:
        signal = bursts(48000, 6.0)
        audio = bytearray(encode(signal, 48000, muxer, codec))
        middle = len(audio) // 2
        audio[middle : middle + len(audio) // 20] = bytes(len(audio) // 20)
        decoded = await decoder.decode(bytes(audio), Encoding.CONTAINER)
        assert codes(decoded) == {"AUDIO_DAMAGED"}
        reference = as_16k(signal, 48000)
        tail = Decoded(type(decoded.clip)(decoded.clip.samples[64000:]), (), "", 0, 0)
        assert abs(lag_ms(reference[64000:], tail)) < 5

    @pytest.mark.parametrize(("muxer", "codec"), [("mp4", "flac"), ("mp4", "alac"), ("mp3", "libmp3lame"), ("adts", "aac")])
    async def test_damage_is_reported(self, decoder: Decoder, muxer: str, codec: str) -> None:
        audio = bytearray(encode(bursts(44100, 4.0), 44100, muxer, codec))
        for at in range(len(audio) // 3, len(audio) // 2, 97):
            audio[at] ^= 0xFF
        decoded = await decoder.decode(bytes(audio), Encoding.CONTAINER)
        assert "AUDIO_DAMAGED" in codes(decoded)

    async def test_an_mp4_without_its_index_is_unreadable(self, decoder: Decoder) -> None:
        audio = encode(bursts(44100), 44100, "mp4", "aac")
        assert (await refusal(decoder, audio[: len(audio) // 2])).reason == "AUDIO_UNREADABLE"

    async def test_no_samples_at_all(self, decoder: Decoder) -> None:
        assert (await refusal(decoder, wav(np.zeros(0, np.int16)))).reason == "AUDIO_EMPTY"
        assert (await refusal(decoder, b"")).reason == "AUDIO_EMPTY"

    async def test_a_film_without_sound(self, decoder: Decoder) -> None:
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("mpeg4", rate=5)
            stream.width = stream.height = 32
            for _ in range(5):
                container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
            container.mux(stream.encode(None))
        assert (await refusal(decoder, file.getvalue())).reason == "AUDIO_NO_STREAM"

    @pytest.mark.parametrize(
        "magic", [b"fLaC", b"OggS", b"RIFF\0\0\0\0WAVE", b"ID3\x04\0\0\0\0\0\0", b"\x1aE\xdf\xa3", b"\0\0\0\x18ftypM4A ", b"wvpk"]
    )
    async def test_a_magic_number_before_noise_is_unreadable(self, decoder: Decoder, magic: bytes) -> None:
        noise = np.random.default_rng(3).bytes(20000)
        reasons = {"AUDIO_UNREADABLE", "AUDIO_EMPTY", "AUDIO_NO_STREAM", "AUDIO_UNSUPPORTED"}
        assert (await refusal(decoder, magic + noise)).reason in reasons

    async def test_a_playlist_named_like_audio_is_not_followed(self, decoder: Decoder) -> None:
        error = await refusal(decoder, b"ffconcat version 1.0\nfile '/etc/passwd'\n")
        assert error.reason == "AUDIO_UNSUPPORTED"

    async def test_no_decoder_was_replaced(self, decoder: Decoder) -> None:
        assert decoder.pool.restarts == 0


class TestTracks:
    async def test_several_are_told_and_a_number_beyond_them_is_refused(self, decoder: Decoder) -> None:
        audio = film("matroska", "flac", Track(np.zeros(32000, np.float32)), Track(bursts(16000)))
        decoded = await decoder.decode(audio, Encoding.CONTAINER)
        (warning,) = decoded.warnings
        assert warning.code == "AUDIO_SEVERAL_TRACKS"
        assert "2 audio tracks, and track 2" in warning.message
        assert not codes(await decoder.decode(audio, Encoding.CONTAINER, track=2))
        with pytest.raises(InvalidArgumentError, match="2 audio track") as caught:
            await decoder.decode(audio, Encoding.CONTAINER, track=3)
        assert (caught.value.reason, caught.value.violations[0].field) == ("AUDIO_TRACK_UNKNOWN", "config.audio_track")

    async def test_bare_samples_are_one_track(self, decoder: Decoder) -> None:
        assert not (await decoder.decode(bytes([1]) * 32000, Encoding.LINEAR16, 16000, track=1)).warnings
        with pytest.raises(InvalidArgumentError, match="1 audio track"):
            await decoder.decode(bytes(32000), Encoding.LINEAR16, 16000, track=2)

    async def test_where_a_film_begins_to_sound(self, decoder: Decoder) -> None:
        audio = film("matroska", "flac", Track(bursts(16000), start=2.5))
        assert (await decoder.decode(audio, Encoding.CONTAINER)).start == 2.5


class TestShorter:
    """Audio that is shorter than its text needs is found before it is decoded."""

    @pytest.mark.parametrize(("muxer", "codec"), [("ogg", "libopus"), ("mp3", "libmp3lame"), ("flac", "flac")])
    async def test_a_file_that_is_too_short_is_not_decoded(self, muxer: str, codec: str, decoder: Decoder) -> None:
        audio = encode(bursts(16000, 4.0), 16000, muxer, codec)
        with pytest.raises(AudioShorterError) as caught:
            await decoder.decode(audio, Encoding.CONTAINER, least_seconds=60.0)
        assert 4.0 <= caught.value.seconds < 6.0

    async def test_bare_samples_are_measured_by_their_number(self, decoder: Decoder) -> None:
        audio = bytes(16000)
        with pytest.raises(AudioShorterError) as caught:
            await decoder.decode(audio, Encoding.LINEAR16, 8000, least_seconds=1.01)
        assert caught.value.seconds == 1.0
        assert (await decoder.decode(audio, Encoding.LINEAR16, 8000, least_seconds=1.0)).clip.seconds == 1.0

    async def test_a_file_that_is_long_enough_is_decoded(self, spacious: Decoder) -> None:
        audio = encode(np.tile(bursts(16000, 4.0), 16), 16000, "ogg", "libopus")
        assert (await spacious.decode(audio, Encoding.CONTAINER, least_seconds=60.0)).clip.seconds == pytest.approx(64, abs=0.1)


class CountingPool:
    """Counts the calls of a pool."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self.calls = 0

    async def call(self, *args: object, **kwargs: object) -> Reply:
        self.calls += 1
        return await self._pool.call(*args, **kwargs)


class TestShortBeforeLong:
    """Whatever long recordings are being decoded, a short one is next."""

    async def test_a_short_recording_does_not_wait_for_long_ones(self, spacious: Decoder) -> None:
        audio = bytes(40 << 20)
        long = [asyncio.create_task(spacious.decode(audio, Encoding.LINEAR16, 8000)) for _ in range(3)]
        await eventually(lambda: spacious.long_pool.waiting == 2, "the long ones at work")
        short = await spacious.decode(wav(np.ones(16000, np.int16)), Encoding.CONTAINER)
        assert short.clip.seconds == 1
        assert not any(task.done() for task in long)
        assert [decoded.clip.seconds for decoded in await asyncio.gather(*long)] == [(40 << 20) / 16000] * 3

    @pytest.mark.parametrize("encoding", [Encoding.CONTAINER, Encoding.LINEAR16])
    async def test_a_small_file_that_takes_long_is_given_up_and_decoded_as_a_long_one(
        self, encoding: Encoding, spacious: Decoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        signal = bursts(44100, 4.0)
        mp3, bare = encode(signal, 44100, "mp3", "libmp3lame"), (np.tile(signal, 4) * 32767).astype(np.int16).tobytes()
        arguments = (mp3, encoding) if encoding is Encoding.CONTAINER else (bare, encoding, 44100)
        expected = await spacious.decode(*arguments)
        monkeypatch.setattr(decode_module, "_SHORT_CPU", 0.0)
        monkeypatch.setattr(spacious, "long_pool", CountingPool(spacious.long_pool))
        decoded = await spacious.decode(*arguments)
        assert decoded.clip.samples.tolist() == expected.clip.samples.tolist()
        assert spacious.long_pool.calls == 1
        assert spacious.pool.restarts == 0

    async def test_clients_with_long_recordings_take_turns(self, spacious: Decoder) -> None:
        audio, order = bytes(10 << 20), []

        async def decode(client: str) -> None:
            await spacious.decode(audio, Encoding.LINEAR16, 16000, client=client)
            order.append(client)

        await asyncio.gather(*(decode(client) for client in (*["greedy"] * 4, "modest")))
        assert "modest" in order[:3]


class TestChildren:
    @pytest.mark.parametrize(("used", "reason"), [(0.01, "AUDIO_UNREADABLE"), (0.005, "DECODER_UNAVAILABLE")])
    async def test_a_decode_past_its_timeout_is_the_files_fault_if_it_had_the_processor(
        self, used: float, reason: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoder = Decoder(DecodeSettings(workers=1, timeout=0.01), Limits())
        await decoder.start()
        times = iter([1.0, 1.0 + used])
        monkeypatch.setattr(pool, "cpu_seconds", lambda pid: next(times))
        try:
            with pytest.raises(AlignerError) as caught:
                await decoder.decode(wav(np.zeros(60 * 48000, np.int16), 48000), Encoding.CONTAINER)
            assert (caught.value.reason, decoder.pool.restarts) == (reason, 1)
            assert (caught.value.retry_after is not None) == (reason == "DECODER_UNAVAILABLE")
        finally:
            await decoder.close()

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
    async def test_a_file_whose_decoders_are_killed_or_hang_can_be_sent_again(
        self, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "victim.py").write_text(
            f"import os\nfrom aligner_svc.workers import serve\nserve(lambda header, payload: os.kill(os.getpid(), {number:d}))"
        )
        monkeypatch.syspath_prepend(tmp_path)
        decoder = Decoder(DecodeSettings(workers=1), Limits())
        decoder.pool = WorkerPool("victim", 1, name="victim")
        await decoder.start()
        try:
            with pytest.raises(UnavailableError) as caught:
                await decoder.decode(wav(np.zeros(100, np.int16)), Encoding.CONTAINER)
            assert (caught.value.reason, caught.value.retry_after) == ("DECODER_UNAVAILABLE", 1.0)
        finally:
            await decoder.close()

    async def test_a_closed_decoder_is_unavailable(self) -> None:
        decoder = Decoder(DecodeSettings(workers=1), Limits())
        await decoder.start()
        await decoder.close()
        with pytest.raises(UnavailableError) as caught:
            await decoder.decode(wav(np.zeros(100, np.int16)), Encoding.CONTAINER)
        assert caught.value.reason == "DECODER_UNAVAILABLE"

    @pytest.mark.parametrize(
        "reply",
        [
            "os.kill(os.getpid(), 11)",
            "os._exit(1)",
            "1 / 0",
            "({'refused': 'NO_SUCH_REASON', 'value': 'text of the child'}, b'')",
            "({'refused': 'UNFINISHED', 'value': 0}, b'')",
            "({'refused': ['text of the child'], 'value': {}}, b'')",
            "({}, b'odd')",
            "({}, b'')",
            "({}, bytes(3_000_000))",
        ],
    )
    async def test_a_child_that_dies_or_lies_makes_the_file_unreadable(
        self, reply: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "liar.py").write_text(
            f"import os\nfrom aligner_svc.workers import serve\nserve(lambda header, payload: {reply})"
        )
        monkeypatch.syspath_prepend(tmp_path)
        decoder = Decoder(DecodeSettings(workers=1), Limits())
        decoder.pool = WorkerPool("liar", 1, name="liar", max_reply=1 << 20)
        decoder.long_pool = WorkerPool("liar", 1, name="liar-long", max_reply=1 << 20)
        await decoder.start()
        try:
            error = await refusal(decoder, wav(np.zeros(100, np.int16)))
            assert error.reason == "AUDIO_UNREADABLE"
            assert "child" not in error.message
        finally:
            await decoder.close()


@pytest.mark.skipif(not GOLD.is_dir(), reason="the awkward recordings are not part of the repository")
async def test_every_awkward_recording_gives_audio_or_a_clear_reason() -> None:
    decoder = Decoder(DecodeSettings(workers=2), Limits())
    await decoder.start()
    try:
        outcomes: dict[str, Decoded | AlignerError] = {}
        for path in sorted(GOLD.iterdir()):
            try:
                outcomes[path.name] = await decoder.decode(path.read_bytes(), Encoding.CONTAINER)
            except AlignerError as error:
                outcomes[path.name] = error
        refused = {name: outcome.reason for name, outcome in outcomes.items() if isinstance(outcome, AlignerError)}
        assert set(refused.values()) <= {"AUDIO_UNSUPPORTED", "AUDIO_UNREADABLE"}, refused
        assert len(refused) <= len(outcomes) // 10, refused
        assert all(outcome.clip.seconds > 0.2 for outcome in outcomes.values() if isinstance(outcome, Decoded))
        assert decoder.pool.restarts == 0
    finally:
        await decoder.close()
